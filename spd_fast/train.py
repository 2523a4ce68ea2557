"""Training motifs: the inner loop, on the compiled engine. The only module that trains with `_core`."""

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from spd_fast import _core
from spd_fast.base.types import Array
from spd_fast.cell import Candidate
from spd_fast.dish import Dish, checked_scales, label_matrix
from spd_fast.motif import MotifCell, MotifShape, Shape, cell_channels, layer_kind
from spd_fast.perceptron import MLPShape, SigmoidMLP

__all__ = [
    "SGD",
    "Adam",
    "Hypergradient",
    "MotifMetrics",
    "PackedMotifs",
    "RMSProp",
    "Reading",
    "TrainResult",
    "activation_agreements",
    "checked_cells",
    "forward_flops",
    "initial_parameters",
    "learning_rates",
    "logit_gradient",
    "motif_gradient",
    "motif_hypergradient",
    "pack_motifs",
    "parameter_gradient",
    "read_motifs",
    "step_profile",
    "train_motifs",
    "weighted_sum",
]

BATCH_NORM_EPS = 1e-5
Parameters = Mapping[str, Array]
Initializer = Literal["pytorch", "nasbench101", "normal"]
Metric = Literal["probability", "loss"]


@dataclass(frozen=True)
class Adam:
    """Adam as PyTorch's: weight decay is added to the gradient (Kingma and Ba 2015, arXiv:1412.6980)."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require(self, "at least 0", lr=self.lr >= 0, eps=self.eps >= 0, weight_decay=self.weight_decay >= 0)
        _require(
            self, "two of at least 0 and below 1", betas=len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas)
        )

    def _for_engine(self) -> _core.Optimizer:
        return _core.Optimizer(
            "adam", momentum=self.betas[0], decay=self.betas[1], eps=self.eps, weight_decay=self.weight_decay
        )


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent as PyTorch's, with momentum and Nesterov's look-ahead."""

    lr: float = 1e-2
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require(self, "at least 0", lr=self.lr >= 0, momentum=self.momentum >= 0, weight_decay=self.weight_decay >= 0)

    def _for_engine(self) -> _core.Optimizer:
        return _core.Optimizer("sgd", momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov)


@dataclass(frozen=True)
class RMSProp:
    """RMSProp as TensorFlow 1's, which NAS-Bench-101 trained with: `eps` inside the root, mean square from 1."""

    lr: float = 0.2
    alpha: float = 0.9
    eps: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        _require(self, "at least 0", lr=self.lr >= 0, eps=self.eps >= 0, momentum=self.momentum >= 0)
        _require(self, "at least 0", weight_decay=self.weight_decay >= 0)
        _require(self, "0 to 1", alpha=0 <= self.alpha <= 1)

    def _for_engine(self) -> _core.Optimizer:
        return _core.Optimizer(
            "rmsprop", momentum=self.momentum, decay=self.alpha, eps=self.eps, weight_decay=self.weight_decay
        )


Optimizer = Adam | SGD | RMSProp


@dataclass(frozen=True, eq=False)
class MotifMetrics:
    """What is read off K trained motifs on one set of N images. NaN where a motif diverged.

    Attributes
    ----------
    probability : ndarray, shape (K,)
        Mean probability of the true class, in 0..1 (Cassimon et al., eq. 4); with soft labels, of the heaviest class.
    loss : ndarray, shape (K,)
        Mean cross-entropy, in nats.
    accuracy : ndarray, shape (K,)
        Share of images whose largest logit is the true class.
    logits : ndarray, shape (K, N, classes)
    """

    probability: Array
    loss: Array
    accuracy: Array
    logits: Array


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What `train_motifs` returns, for K motifs.

    Attributes
    ----------
    loss, accuracy : ndarray, shape (K, epochs)
        Mean over the epoch's batches, as training saw them (before each batch's update). NaN from a divergence on.
    train, valid : MotifMetrics or None
        After training, on the dish's training and validation images.
    initial, parameters : list of K dicts {name: ndarray}
        Weights before and after training, by the names of a PyTorch state_dict.
    running : list of K dicts {name: ndarray}
        Batch norm's running means and (unbiased) variances.
    diverged : ndarray, shape (K,), bool
        Whether the loss became NaN or infinite; training of that motif stopped there.
    diverged_step : ndarray, shape (K,), int
        The step at which it did, counted from 0; -1 where it did not.
    seconds : ndarray, shape (K,)
        Wall time of each motif on its thread.
    recorded : dict {name: ndarray}
        What `record` asked for, shape (K, steps).
    """

    loss: Array
    accuracy: Array
    train: MotifMetrics | None
    valid: MotifMetrics | None
    initial: list[dict[str, Array]]
    parameters: list[dict[str, Array]]
    running: list[dict[str, Array]]
    diverged: npt.NDArray[np.bool_]
    diverged_step: npt.NDArray[np.int64]
    seconds: Array
    recorded: dict[str, Array]


def train_motifs(
    cells: Sequence[Candidate],
    shape: Shape,
    dish: Dish,
    *,
    epochs: int = 100,
    batch_size: int = 20,
    optimizer: Optimizer | None = None,
    schedule: Literal["cosine"] | npt.ArrayLike | None = None,
    seed: int = 0,
    replicate: int = 0,
    init: Literal["shared", "motif"] | Sequence[Parameters] = "shared",
    order: npt.ArrayLike | None = None,
    threads: int | None = None,
    dtype: npt.DTypeLike = "float32",
    record: Sequence[str] = (),
    progress: Callable[[float], object] | None = None,
    drop_last: bool = False,
    statistics: Literal["batch", "running"] = "batch",
    initializer: Initializer = "pytorch",
    initial_scales: npt.ArrayLike | None = None,
    batch_norm_momentum: float = 0.1,
    evaluate: bool = True,
    strict: bool = False,
) -> TrainResult:
    """Train one motif of each cell on a dish.

    Motifs are independent: the result of one does not depend on which others are trained beside it, on how many
    threads, or in which order. Same arguments, same bits. The GIL is released; Ctrl-C stops within a second.

    Parameters
    ----------
    cells : sequence of K Cell, NatsCell or SigmoidMLP
    shape : MotifShape, or MLPShape
        How a cell, or a slope, becomes a network.
    dish : Dish
        N training images, optionally a validation set.
    epochs : int
        Passes over the training images, at least 0.
    batch_size : int
        Images a step, at least 1. The last batch of an epoch may be smaller: see `drop_last`.
    optimizer : Adam, SGD or RMSProp, optional
        Default: ``Adam(lr=5e-5, weight_decay=1e-6)``, the paper's.
    schedule : None, "cosine" or ndarray, shape (steps,)
        Learning rate of each step: the optimizer's; from that to 0 by half a cosine; or as given.
    seed, replicate : int
        Key the initial weights, `seed` alone the sample orders.
    init : "shared", "motif" or sequence of K dicts
        ``"shared"``: every motif's layer is a slice of one master tensor per layer name, scaled by fan-in, so cells
        start as alike as they can. ``"motif"``: keyed by the cell and the shape too (independent starts, the paper's).
        Or explicit weights, by the names that ``TrainResult.parameters`` has.
    order : ndarray, shape (epochs, N), int, optional
        The sample order of each epoch. Default: permutations keyed by (seed, epoch), the same for every motif.
    threads : int, optional
        Default: the processors that this process may use.
    dtype : "float32" or "float64"
        Element type of the whole computation.
    record : sequence of "step_loss", "step_accuracy"
        What to keep of every step.
    progress : callable, optional
        Called with the share done (0..1), about ten times a second, on the calling thread. What it raises stops the training.
    drop_last : bool
        Leave out a last batch that is smaller than the others; else train on it.
    statistics : "batch" or "running"
        Batch norm in the final metrics: statistics of the whole set in one batch, or the running ones (needed for
        sets of thousands of images: memory grows with the batch).
    initializer : "pytorch", "nasbench101" or "normal"
        PyTorch's default (uniform), the benchmark's (variance scaling, truncated normal; Glorot dense), or N(0, 1) for all weights
        and biases (Rawal et al. 2020).
    initial_scales : ndarray, shape (4,), optional
        Factors of the initial weights of stem, 3x3 convolutions, 1x1 convolutions (projections too) and dense layer
        (`LAYER_KINDS`) where `init` draws them, above 0; batch norm and biases are as drawn. Default: ones.
    batch_norm_momentum : float
        Weight of the new batch in the running statistics (PyTorch's sense), in 0..1.
    evaluate : bool
        Whether to read metrics on the training set at the end.
    strict : bool
        Direct convolutions everywhere. Else 3x3 convolutions run by Winograd's F(4x4, 3x3) or F(4, 3) where it is faster: rounding
        errors of up to 8.3e-6 relative in float32 instead of 1e-6.

    Returns
    -------
    TrainResult

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message says what was expected.
    MemoryError
        If batch statistics over the whole set need more memory than the machine has.

    Notes
    -----
    The loss is softmax cross-entropy, averaged over the batch, or that of an `MLPShape`. Batch norm has eps 1e-5. A motif that diverges is a
    result (`TrainResult.diverged`), not an error.

    References
    ----------
    T. Cassimon et al., "Predicting Image Classifier Performance Using the Synthetic Petri Dish Method", section 3.
    A. Rawal et al. 2020, arXiv:2005.13092.
    """
    unknown = set(record) - {"step_loss", "step_accuracy"}
    if unknown:
        raise ValueError(f"record names {sorted(unknown)[0]!r}, expected 'step_loss' or 'step_accuracy'")
    if statistics not in ("batch", "running"):
        raise ValueError(f"statistics is {statistics!r}, expected 'batch' or 'running'")
    if not 0 <= batch_norm_momentum <= 1:
        raise ValueError(f"batch_norm_momentum is {batch_norm_momentum}, expected 0 to 1")
    job = _prepare(
        cells,
        shape,
        dish,
        epochs,
        batch_size,
        optimizer,
        schedule,
        seed,
        replicate,
        init,
        order,
        dtype,
        drop_last,
        initializer,
        initial_scales,
    )
    if statistics == "batch":
        _require_memory(job.specs, max(len(dish.images), job.n_valid), job.element, backward=False)
    running = [
        np.stack([np.zeros(n, job.element), np.ones(n, job.element)]) for n in (spec.tables()[3] for spec in job.specs)
    ]
    out = _core.train(
        job.specs,
        *job.data,
        job.order,
        job.batch,
        drop_last,
        job.optimizer,
        job.rates,
        job.flat,
        running,
        batch_norm_momentum,
        BATCH_NORM_EPS,
        statistics == "batch",
        evaluate,
        bool(record),
        strict,
        _threads(threads),
        progress,
    )
    return TrainResult(
        loss=out.loss,
        accuracy=out.accuracy,
        train=_metrics(out.train) if evaluate else None,
        valid=_metrics(out.valid) if job.n_valid else None,
        initial=job.initial,
        parameters=[_unpack(spec, weights) for spec, weights in zip(job.specs, job.flat, strict=True)],
        running=[_unpack_running(spec, values) for spec, values in zip(job.specs, running, strict=True)],
        diverged=out.diverged_step >= 0,
        diverged_step=out.diverged_step,
        seconds=out.seconds,
        recorded={name: getattr(out, name) for name in record},
    )


def _metrics(of: _core.Metrics) -> MotifMetrics:
    return MotifMetrics(probability=of.probability, loss=of.loss, accuracy=of.accuracy, logits=of.logits)


def motif_gradient(
    cells: Sequence[Candidate],
    shape: Shape,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    parameters: Sequence[Parameters],
    *,
    metric: Metric = "probability",
    weights: npt.ArrayLike | None = None,
    threads: int | None = None,
    dtype: npt.DTypeLike = "float32",
    strict: bool = False,
) -> tuple[Array, Array]:
    """The direct gradient: d metric / d images of trained motifs, their weights held fixed.

    The metric is read with batch statistics over the whole set, through which the gradient runs as well.

    Parameters
    ----------
    cells : sequence of K Cell, NatsCell or SigmoidMLP
    shape : MotifShape
    images : ndarray, shape (N, C, H, W)
    labels : ndarray, shape (N,) int or (N, classes) float
    parameters : sequence of K dicts {name: ndarray}
        Weights of the motifs, as ``TrainResult.parameters``.
    metric : "probability" or "loss"
        Mean probability of the true class (Cassimon et al., eq. 4), or mean cross-entropy.
    weights : ndarray, shape (K,), optional
        Sum the gradients with these weights (in the order of the cells) instead of returning each.
    threads, dtype, strict
        As in `train_motifs`.

    Returns
    -------
    values : ndarray, shape (K,)
    d_images : ndarray, shape (K, N, C, H, W), or (N, C, H, W) where `weights` is given
    """
    _require_metric(metric)
    dish = Dish(np.asarray(images), np.asarray(labels))
    motifs = pack_motifs(cells, shape, parameters, dish.images.shape[1:], dtype=dtype)
    reading = read_motifs(motifs, images, labels, metric=metric, threads=threads, strict=strict)
    values: Array = getattr(reading, metric)
    if weights is None:
        return values, reading.d_images
    factors = np.asarray(weights, dtype=motifs.element)
    if factors.shape != (len(cells),):
        raise ValueError(f"weights has shape {factors.shape}, expected ({len(cells)},): one for each cell")
    return values, weighted_sum(factors, reading.d_images)


def weighted_sum(weights: Array, arrays: Array) -> Array:
    """Return sum_k weights[k] arrays[k], added in the order of k; what has weight 0 takes no part, NaN or not."""
    total = np.zeros(arrays.shape[1:], arrays.dtype)
    for weight, array in zip(weights, arrays, strict=True):
        if weight != 0:
            total += weight * array
    return total


@dataclass(frozen=True, eq=False)
class PackedMotifs:
    """K trained motifs as the engine holds them, to be read many times: made by `pack_motifs`, read by `read_motifs`.

    Attributes
    ----------
    specs : list of K MotifSpec
    weights : list of K ndarray, shape (parameters of the motif,), read-only
    image_shape : (C, H, W)
        Of the images that they read.
    classes : int
    element : dtype
        float32 or float64.
    """

    specs: list[_core.MotifSpec]
    weights: list[Array]
    image_shape: tuple[int, ...]
    classes: int
    element: np.dtype[Any]

    def __len__(self) -> int:
        return len(self.specs)

    def __add__(self, other: "PackedMotifs") -> "PackedMotifs":
        """Return the motifs of both, these first.

        Raises
        ------
        ValueError
            If they read images of different shapes, tell different numbers of classes, or have different element types.
        """
        if not isinstance(other, PackedMotifs):
            return NotImplemented
        for what in ("image_shape", "classes", "element"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                raise ValueError(f"motifs of {what} {theirs} are added to motifs of {what} {mine}, expected the same")
        return replace(self, specs=self.specs + other.specs, weights=self.weights + other.weights)

    def take(self, rows: Sequence[int]) -> "PackedMotifs":
        """Return the motifs at these places, in this order, without copying weights."""
        return replace(self, specs=[self.specs[k] for k in rows], weights=[self.weights[k] for k in rows])


@dataclass(frozen=True, eq=False)
class Reading:
    """What K trained motifs show on a set of N images, and its derivatives with their weights held fixed.

    Attributes
    ----------
    probability, loss, accuracy : ndarray, shape (K,)
        As in `MotifMetrics`.
    d_images : ndarray, shape (K, N, C, H, W)
        Of the metric that was asked for; (0, N, C, H, W) without gradients.
    d_labels : ndarray, shape (K, N, classes)
        Likewise; 0 for "probability".
    """

    probability: Array
    loss: Array
    accuracy: Array
    d_images: Array
    d_labels: Array


def pack_motifs(
    cells: Sequence[Candidate],
    shape: Shape,
    parameters: Sequence[Parameters],
    image_shape: tuple[int, ...],
    *,
    dtype: npt.DTypeLike = "float32",
) -> PackedMotifs:
    """Pack trained weights for `read_motifs`, once for many readings.

    Parameters
    ----------
    cells : sequence of K Cell, NatsCell or SigmoidMLP
    shape : MotifShape
    parameters : sequence of K dicts {name: ndarray}
        As ``TrainResult.parameters``. They are copied.
    image_shape : (C, H, W)
        Of the images that will be read.
    dtype : "float32" or "float64"

    Raises
    ------
    ValueError, TypeError
        If the weights are not those of the cells, or the images do not fit the shape.
    """
    element = _element(dtype)
    specs = _specs(cells, shape, image_shape)
    weights = _flat_parameters(specs, parameters, element)
    for each in weights:
        each.flags.writeable = False
    return PackedMotifs(specs, weights, tuple(map(int, image_shape)), shape.classes, np.dtype(element))


def read_motifs(
    motifs: PackedMotifs,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    metric: Metric = "probability",
    gradients: bool = True,
    threads: int | None = None,
    strict: bool = False,
) -> Reading:
    """Read trained motifs on a set of images, with batch statistics over the whole set, through which gradients run as well.

    Parameters
    ----------
    motifs : PackedMotifs
    images : ndarray, shape (N, C, H, W)
        Of the image shape that the motifs were packed for.
    labels : ndarray, shape (N,) int or (N, classes) float
    metric : "probability" or "loss"
        What `gradients` are of.
    gradients : bool
    threads, strict
        As in `train_motifs`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `motif_gradient`; if there is no motif, or if images are of another shape than the motifs were packed for.
    """
    _require_metric(metric)
    if not len(motifs):
        raise ValueError("motifs is empty, expected at least one")
    out = _gradient(motifs, images, labels, metric, False, gradients, threads, strict)
    return Reading(**{name: getattr(out, name) for name in Reading.__dataclass_fields__})


@dataclass(frozen=True, eq=False)
class Hypergradient:
    """What `motif_hypergradient` returns, for K motifs trained for T steps on N images.

    Attributes
    ----------
    value : ndarray, shape (K,)
        What was differentiated. NaN where a motif diverged; its derivatives are then 0.
    loss, probability, accuracy : ndarray, shape (K,)
        Of the trained motif, on the validation images (on the training images where there are none).
    step_loss : ndarray, shape (K, T)
        Loss of each step's batch, before its update.
    d_images, d_labels : ndarray, shape (K, N, C, H, W) and (K, N, classes)
    d_valid_images, d_valid_labels : ndarray, of the validation set likewise (empty where there is none)
    d_rates : ndarray, shape (K, T)
        In the learning rate of each step.
    d_momenta : ndarray, shape (K, T)
        In the momentum of each step (SGD, RMSProp; 0 with Adam).
    d_initial : list of K dicts {name: ndarray}
        In the weights before the first step that was reversed.
    parameters : list of K dicts {name: ndarray}
        The trained weights.
    diverged : ndarray, shape (K,), bool
    diverged_step : ndarray, shape (K,), int
    """

    value: Array
    loss: Array
    probability: Array
    accuracy: Array
    step_loss: Array
    d_images: Array
    d_labels: Array
    d_valid_images: Array
    d_valid_labels: Array
    d_rates: Array
    d_momenta: Array
    d_initial: list[dict[str, Array]]
    parameters: list[dict[str, Array]]
    diverged: npt.NDArray[np.bool_]
    diverged_step: npt.NDArray[np.int64]


def motif_hypergradient(
    cells: Sequence[Candidate],
    shape: Shape,
    dish: Dish,
    *,
    metric: Metric = "probability",
    metric_weight: float = 1.0,
    step_weights: npt.ArrayLike | None = None,
    window: int | None = None,
    steps: int | None = None,
    epochs: int = 100,
    batch_size: int = 20,
    optimizer: Optimizer | None = None,
    schedule: Literal["cosine"] | npt.ArrayLike | None = None,
    seed: int = 0,
    replicate: int = 0,
    init: Literal["shared", "motif"] | Sequence[Parameters] = "shared",
    order: npt.ArrayLike | None = None,
    threads: int | None = None,
    dtype: npt.DTypeLike = "float32",
    progress: Callable[[float], object] | None = None,
    drop_last: bool = False,
    initializer: Initializer = "pytorch",
    initial_scales: npt.ArrayLike | None = None,
    strict: bool = True,
    memory_mib: float = 128.0,
) -> Hypergradient:
    """The hypergradient: the exact derivative of a motif's metric through its whole training.

    Differentiates ``metric_weight * metric + sum_t step_weights[t] * loss_t``, where the metric is read after training on
    the validation images, or on the training images where the dish has no validation set.

    Parameters
    ----------
    metric : "probability" or "loss"
        Mean probability of the true class (Cassimon et al., eq. 4), or mean cross-entropy; batch statistics over the set.
    metric_weight : float
    step_weights : ndarray, shape (T,), optional
        Weights of the training losses of the steps: ones over an epoch's steps make "sum of training losses" scores.
    window : int, optional
        Reverse only the last `window` steps: the weights before them count as given (truncated back-propagation).
    steps : int, optional
        Stop training after so many steps. Default: all of the epochs.
    memory_mib : float, at least 0
        MiB that each motif at work may keep gradients in, of its last steps. Steps whose gradient does not fit are trained a second
        time: slower, the same to the last bit.
    strict : bool
        Direct convolutions: Winograd's round more, and what reverses training magnifies it (docs/engine.md). False is as fast as training is,
        a tenth faster at most.
    cells, shape, dish and all others
        As in `train_motifs`.

    Returns
    -------
    Hypergradient

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `train_motifs`.

    Notes
    -----
    States are kept at every sqrt(T)-th step: about 7 sqrt(T) vectors of parameters of memory a motif, beside the gradients kept.
    Training is not continuous in the images: where ReLU or pooling switch between two steps, the exact derivative says
    nothing of the jump. It costs about four trainings, five where no gradient is kept.

    References
    ----------
    D. Maclaurin, D. Duvenaud and R. Adams 2015, arXiv:1502.03492; A. Rawal et al. 2020, arXiv:2005.13092.
    """
    job = _prepare(
        cells,
        shape,
        dish,
        epochs,
        batch_size,
        optimizer,
        schedule,
        seed,
        replicate,
        init,
        order,
        dtype,
        drop_last,
        initializer,
        initial_scales,
    )
    _require_metric(metric)
    last = len(job.rates) if steps is None else steps
    if not 0 <= last <= len(job.rates):
        raise ValueError(f"steps is {steps}, expected 0 to {len(job.rates)}, those of the epochs")
    if window is not None and window < 0:
        raise ValueError(f"window is {window}, expected at least 0")
    if not memory_mib >= 0:
        raise ValueError(f"memory_mib is {memory_mib}, expected at least 0")
    weights = None if step_weights is None else _owned(step_weights, np.float64)
    if weights is not None and weights.shape != (last,):
        raise ValueError(f"step_weights has shape {weights.shape}, expected ({last},): one for each step")
    _require_memory(job.specs, job.n_valid or len(dish.images), job.element, backward=True)
    out = _core.hypergradient(
        job.specs,
        *job.data,
        job.order,
        job.batch,
        drop_last,
        job.optimizer,
        job.rates,
        job.flat,
        last,
        0 if window is None else max(0, last - window),
        metric,
        metric_weight,
        weights,
        BATCH_NORM_EPS,
        memory_mib * 2**20,
        strict,
        _threads(threads),
        progress,
    )
    return Hypergradient(
        value=out.value,
        loss=out.loss,
        probability=out.probability,
        accuracy=out.accuracy,
        step_loss=out.step_loss,
        d_images=out.d_images,
        d_labels=out.d_labels,
        d_valid_images=out.d_valid_images,
        d_valid_labels=out.d_valid_labels,
        d_rates=out.d_rates,
        d_momenta=out.d_momenta,
        d_initial=[_unpack(spec, flat) for spec, flat in zip(job.specs, out.d_initial, strict=True)],
        parameters=[_unpack(spec, flat) for spec, flat in zip(job.specs, out.trained, strict=True)],
        diverged=out.diverged_step >= 0,
        diverged_step=out.diverged_step,
    )


def parameter_gradient(
    cells: Sequence[Candidate],
    shape: Shape,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    parameters: Sequence[Parameters],
    *,
    threads: int | None = None,
    dtype: npt.DTypeLike = "float32",
    strict: bool = False,
    progress: Callable[[float], object] | None = None,
) -> tuple[Array, list[dict[str, Array]], Array]:
    """Mean cross-entropy of each motif over the whole set, its gradient in the weights, and in the images.

    Parameters are those of `motif_gradient`, `progress` that of `train_motifs`.

    Returns
    -------
    loss : ndarray, shape (K,)
    d_parameters : list of K dicts {name: ndarray}
    d_images : ndarray, shape (K, N, C, H, W)
    """
    dish = Dish(np.asarray(images), np.asarray(labels))
    motifs = pack_motifs(cells, shape, parameters, dish.images.shape[1:], dtype=dtype)
    out = _gradient(motifs, images, labels, "loss", True, True, threads, strict, progress)
    gradients = [_unpack(spec, flat) for spec, flat in zip(motifs.specs, out.d_parameters, strict=True)]
    return out.loss, gradients, out.d_images


def logit_gradient(
    cells: Sequence[Candidate],
    shape: Shape,
    images: npt.ArrayLike,
    parameters: Sequence[Parameters],
    *,
    batch_norm: bool = True,
    threads: int | None = None,
    dtype: npt.DTypeLike = "float32",
    strict: bool = False,
    progress: Callable[[float], object] | None = None,
) -> tuple[list[dict[str, Array]], Array]:
    """Gradient of the sum of all logits of all images, in the weights and in the images, of each motif.

    Parameters
    ----------
    batch_norm : bool
        With batch statistics of the whole set, through which the gradient runs as well; or with no batch norm and no
        ReLU at all: the gradient of the linear network that is left where neither weights nor images are negative.
    cells, shape, images, parameters, threads, dtype, strict, progress
        As in `motif_gradient` and `train_motifs`.

    Returns
    -------
    d_parameters : list of K dicts {name: ndarray}
        Without batch norm, its own entries are of no use.
    d_images : ndarray, shape (K, N, C, H, W)

    Raises
    ------
    ValueError, TypeError, MemoryError
        If an argument does not fit; without batch norm, if a weight or an image is negative.
    """
    specs, data, flat = _proxy_inputs(cells, shape, images, parameters, dtype)
    if not batch_norm:
        for spec, weights in zip(specs, flat, strict=True):
            for name, values in _unpack(spec, weights).items():
                if ".bn." in name:
                    values[...] = name.endswith("weight")
        if min(data.min(), *(weights.min() for weights in flat)) < 0:
            raise ValueError("weights or images hold negative values, expected none without batch norm: take absolutes")
    out = _core.logit_gradient(specs, data, flat, batch_norm, BATCH_NORM_EPS, strict, _threads(threads), progress)
    return [_unpack(spec, each) for spec, each in zip(specs, out.d_parameters, strict=True)], np.stack(out.d_images)


def activation_agreements(
    cells: Sequence[Candidate],
    shape: Shape,
    images: npt.ArrayLike,
    parameters: Sequence[Parameters],
    *,
    threads: int | None = None,
    dtype: npt.DTypeLike = "float32",
    strict: bool = False,
    progress: Callable[[float], object] | None = None,
) -> npt.NDArray[np.int64]:
    """How many ReLUs of each motif are open for both, or for neither, of each pair of images; batch statistics of the set.

    Parameters are those of `logit_gradient`.

    Returns
    -------
    ndarray, shape (K, N, N), int64
        On the diagonal the number of ReLUs.
    """
    specs, data, flat = _proxy_inputs(cells, shape, images, parameters, dtype)
    return np.stack(_core.activations(specs, data, flat, BATCH_NORM_EPS, strict, _threads(threads), progress))


def step_profile(
    cell: MotifCell,
    shape: MotifShape,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    repeats: int = 100,
    strict: bool = False,
    progress: Callable[[float], object] | None = None,
) -> dict[str, Any]:
    """Time every part of every op of one training step in float32, on one thread, many times over.

    All N images are one batch. The optimizer is Adam at rate 0: the pass costs the same, the weights stay as they are.

    Parameters
    ----------
    repeats : int
        Times that the step is run, at least 1; as often in between without its parts timed.
    cell, shape, images, labels, strict, progress
        As in `train_motifs` and `motif_gradient`.

    Returns
    -------
    dict
        ``whole`` and ``timed``, ndarray, shape (repeats,): seconds of a step as it is, and of one whose parts are timed.
        ``seconds``, ndarray, shape (repeats, ops + 1, parts): those parts; the last row is what lies beside the ops.
        ``parts``: their names. ``ops``: a dict for each op of the plan with its ``kind`` ("conv" with its batch norm, "sum",
        "pool", "head"), ``names`` (of convolutions), sizes and algorithms. ``elements`` counts one channel of the batch with
        its padding lanes, ``terms`` and ``flows`` the channels of all tensors that are read there. ``parameters``: their number.
        ``lanes``: pixels in a vector.
    """
    dish = Dish(np.asarray(images), np.asarray(labels))
    (spec,) = _specs([cell], shape, dish.images.shape[1:])
    out = _core.profile(
        spec,
        _owned(dish.images, np.float32),
        label_matrix(dish.labels, shape.classes, np.float32),
        _pack(spec, initial_parameters(cell, shape, image_shape=dish.images.shape[1:]), np.float32),
        Adam()._for_engine(),
        0.0,
        0.1,
        BATCH_NORM_EPS,
        strict,
        repeats,
        progress,
    )
    weights = [(name, at) for name, at, dims in spec.tables()[0] if len(dims) == 4]
    ops = []
    for op in out.ops:
        kind = type(op).__name__.removesuffix("Op").lower()
        ops.append({"kind": kind} | {name: getattr(op, name) for name in op.__match_args__ if name != "weight"})
        if isinstance(op, _core.ConvOp):
            end = op.weight + op.c_out * op.c_in * op.size**2
            ops[-1]["names"] = [name.removesuffix(".conv.weight") for name, at in weights if op.weight <= at < end]
    rest = ("parts", "parameters", "lanes", "whole", "timed", "seconds")
    return {"ops": ops} | {name: getattr(out, name) for name in rest}


def initial_parameters(
    cell: Candidate,
    shape: Shape,
    *,
    image_shape: tuple[int, int, int] | None = None,
    seed: int = 0,
    replicate: int = 0,
    init: Literal["shared", "motif"] = "shared",
    initializer: Initializer = "pytorch",
    initial_scales: npt.ArrayLike | None = None,
    dtype: npt.DTypeLike = "float32",
) -> dict[str, Array]:
    """The weights that `train_motifs` starts from.

    Every number is keyed by (seed, replicate, layer name, c_out, c_in, tap), with ``init="motif"`` by the cell and the
    shape as well, and by nothing else. A 1x1 convolution is the centre tap of its layer's master tensor.

    Parameters
    ----------
    image_shape : (C, H, W), optional
        Of the images; an `MLPShape` needs it, a `MotifShape` has the same weights for any.
    cell, shape, seed, replicate, init, initializer, initial_scales, dtype
        As in `train_motifs`.

    Returns
    -------
    dict {name: ndarray}
        By the names of a PyTorch state_dict; convolution weights (c_out, c_in, k, k), dense ones (units, features).

    References
    ----------
    PyTorch: uniform in +-1/sqrt(fan_in). Benchmark: ``variance_scaling_initializer`` (normal of variance 1/fan_in, cut at two
    standard deviations) for convolutions, Glorot uniform for the dense layer, whose bias is 0. Normal: Rawal et al. 2020.
    """
    if image_shape is None:
        if not isinstance(shape, MotifShape):
            raise ValueError("image_shape is None, expected (C, H, W): the weights of the first layer depend on it")
        image_shape = (shape.image_channels, 4 << shape.stacks, 4 << shape.stacks)
    (spec,) = _specs([cell], shape, image_shape)
    return _initial_weights(spec, cell, shape, seed, replicate, init, initializer, initial_scales, _element(dtype), {})


def _initial_weights(
    spec: _core.MotifSpec,
    cell: Candidate,
    shape: Shape,
    seed: int,
    replicate: int,
    init: str,
    initializer: Initializer,
    initial_scales: npt.ArrayLike | None,
    element: npt.DTypeLike,
    shared: dict[tuple[str, tuple[int, ...], int], Array],
) -> dict[str, Array]:
    """`shared` keeps what was drawn, for the layers of other cells that are the same with ``init="shared"``."""
    if init not in ("shared", "motif"):
        raise ValueError(f"init is {init!r}, expected 'shared' or 'motif'")
    if initializer not in ("pytorch", "nasbench101", "normal"):
        raise ValueError(f"initializer is {initializer!r}, expected 'pytorch', 'nasbench101' or 'normal'")
    scales = None if initial_scales is None else checked_scales(initial_scales)
    scope = f"{seed}/{replicate}"
    if init == "motif":
        scope += f"/{cell.key}/{shape!r}"
        shared = {}
    weights = {}
    fan_in = 1
    for name, _, dims in spec.tables()[0]:
        if name.endswith("bn.weight"):
            weights[name] = np.ones(dims, element)
        elif name.endswith("bn.bias"):
            weights[name] = np.zeros(dims, element)
        else:
            fan_in = math.prod(dims[1:]) if len(dims) > 1 else fan_in  # a bias comes behind its weights
            layer = name, dims, fan_in
            if layer not in shared:
                shared[layer] = _drawn(_key(f"{scope}/{name}"), dims, fan_in, initializer)
            drawn = shared[layer]
            kind = layer_kind(name, dims)
            weights[name] = (drawn if kind is None or scales is None else drawn * scales[kind]).astype(element)
    return weights


def forward_flops(cells: Sequence[Candidate], shape: Shape, image_shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return the floating-point operations of one image's forward pass of each motif, shape (K,): 2 per multiply-add.

    Parameters
    ----------
    cells, shape
        As in `train_motifs`.
    image_shape : (C, H, W)
    """
    return np.array([spec.flops() for spec in _specs(cells, shape, image_shape)])


@dataclass(frozen=True, eq=False)
class _Job:
    """What training and its reverse are handed to the engine with."""

    specs: list[_core.MotifSpec]
    element: npt.DTypeLike
    initial: list[dict[str, Array]]
    flat: list[Array]  # the same weights, packed
    data: tuple[Array, Array, Array | None, Array | None]  # images, labels, validation images, labels
    n_valid: int
    order: npt.NDArray[np.int64]
    batch: int
    optimizer: _core.Optimizer
    rates: npt.NDArray[np.float64]


def _prepare(
    cells: Sequence[Candidate],
    shape: Shape,
    dish: Dish,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer | None,
    schedule: Literal["cosine"] | npt.ArrayLike | None,
    seed: int,
    replicate: int,
    init: Literal["shared", "motif"] | Sequence[Parameters],
    order: npt.ArrayLike | None,
    dtype: npt.DTypeLike,
    drop_last: bool,
    initializer: Initializer,
    initial_scales: npt.ArrayLike | None,
) -> _Job:
    if epochs < 0:
        raise ValueError(f"epochs is {epochs}, expected at least 0")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1")
    element = _element(dtype)
    optimizer = optimizer or Adam(lr=5e-5, weight_decay=1e-6)
    specs = _specs(cells, shape, dish.images.shape[1:])
    initial = _initial(specs, cells, shape, init, seed, replicate, initializer, initial_scales, element)
    n = len(dish.images)
    batch = min(batch_size, n)
    steps_per_epoch = n // batch if drop_last else -(-n // batch)
    valid: tuple[Array, Array] | tuple[None, None] = (None, None)
    if dish.valid_images is not None and dish.valid_labels is not None:
        valid = (
            _owned(dish.valid_images, element),
            label_matrix(dish.valid_labels, shape.classes, element, "valid_labels"),
        )
    return _Job(
        specs=specs,
        element=element,
        initial=initial,
        flat=[_pack(spec, weights, element) for spec, weights in zip(specs, initial, strict=True)],
        data=(_owned(dish.images, element), label_matrix(dish.labels, shape.classes, element), *valid),
        n_valid=0 if valid[0] is None else len(valid[0]),
        order=_orders(order, seed, epochs, n),
        batch=batch,
        optimizer=optimizer._for_engine(),
        rates=learning_rates(schedule, optimizer.lr, epochs * steps_per_epoch),
    )


def _drawn(key: int, dims: tuple[int, ...], fan_in: int, initializer: Initializer) -> Array:
    rows, columns = dims[0], dims[1] if len(dims) > 1 else 1
    taps = list(range(9)) if dims[2:] == (3, 3) else [4] if len(dims) == 4 else [0]
    uniform = _core.uniforms(key, rows, columns, taps).reshape(dims)
    if initializer == "pytorch":
        return (2 * uniform - 1) / math.sqrt(fan_in)
    from scipy.special import ndtr, ndtri

    if initializer == "normal":
        return np.asarray(ndtri(uniform))
    if len(dims) == 4:
        cut = 2.0
        normal: Array = ndtri(ndtr(-cut) + uniform * (ndtr(cut) - ndtr(-cut)))
        return normal * math.sqrt(1 / fan_in) / 0.87962566103423978  # standard deviation of the cut normal
    if len(dims) == 2:
        return (2 * uniform - 1) * math.sqrt(6 / (rows + columns))
    return np.zeros(dims)


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _initial(
    specs: Sequence[_core.MotifSpec],
    cells: Sequence[Candidate],
    shape: Shape,
    init: Literal["shared", "motif"] | Sequence[Parameters],
    seed: int,
    replicate: int,
    initializer: Initializer,
    initial_scales: npt.ArrayLike | None,
    element: npt.DTypeLike,
) -> list[dict[str, Array]]:
    if isinstance(init, str):
        shared: dict[tuple[str, tuple[int, ...], int], Array] = {}
        return [
            _initial_weights(spec, cell, shape, seed, replicate, init, initializer, initial_scales, element, shared)
            for spec, cell in zip(specs, cells, strict=True)
        ]
    if len(init) != len(cells):
        raise ValueError(f"init holds {len(init)} sets of weights, expected {len(cells)}, one for each cell")
    return [{name: np.array(array, dtype=element) for name, array in weights.items()} for weights in init]


def _gradient(
    motifs: PackedMotifs,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    metric: Metric,
    want_parameters: bool,
    want_images: bool,
    threads: int | None,
    strict: bool,
    progress: Callable[[float], object] | None = None,
) -> _core.Gradient:
    dish = Dish(np.asarray(images), np.asarray(labels))
    if dish.images.shape[1:] != motifs.image_shape:
        raise ValueError(
            f"images has shape {dish.images.shape}, expected (N, {', '.join(map(str, motifs.image_shape))}), for which the motifs "
            "were packed: pack them for these images"
        )
    _require_memory(motifs.specs, len(dish.images), motifs.element, backward=want_parameters or want_images)
    return _core.gradient(
        motifs.specs,
        _owned(dish.images, motifs.element),
        label_matrix(dish.labels, motifs.classes, motifs.element),
        motifs.weights,
        metric,
        BATCH_NORM_EPS,
        want_parameters,
        want_images,
        strict,
        _threads(threads),
        progress,
    )


def _proxy_inputs(
    cells: Sequence[Candidate],
    shape: Shape,
    images: npt.ArrayLike,
    parameters: Sequence[Parameters],
    dtype: npt.DTypeLike,
) -> tuple[list[_core.MotifSpec], Array, list[Array]]:
    if not isinstance(shape, MotifShape):
        raise TypeError(
            f"shape is {type(shape).__name__}, expected spd_fast.MotifShape: proxies are of motifs of cells"
        )
    element = _element(dtype)
    array = np.asarray(images)
    dish = Dish(array, np.zeros(len(array), np.int64))
    specs = _specs(cells, shape, dish.images.shape[1:])
    _require_memory(specs, len(dish.images), element, backward=True)
    return specs, _owned(dish.images, element), _flat_parameters(specs, parameters, element)


def _flat_parameters(
    specs: Sequence[_core.MotifSpec], parameters: Sequence[Parameters], element: npt.DTypeLike
) -> list[Array]:
    if len(parameters) != len(specs):
        raise ValueError(
            f"parameters holds {len(parameters)} sets of weights, expected {len(specs)}, one for each cell"
        )
    return [_pack(spec, weights, element) for spec, weights in zip(specs, parameters, strict=True)]


def _specs(cells: Sequence[Candidate], shape: Shape, image_shape: tuple[int, ...]) -> list[_core.MotifSpec]:
    checked = checked_cells(cells, shape)
    shape.require_images(image_shape)
    return [_spec(shape, cell, image_shape) for cell in checked]


@singledispatch
def _spec(shape: Any, cell: Any, image_shape: tuple[int, ...]) -> _core.MotifSpec:
    """What the engine builds a motif from. `checked_cells` has seen to it that shape and cell belong together."""
    raise NotImplementedError(type(shape))


@_spec.register
def _(shape: MotifShape, cell: MotifCell, image_shape: tuple[int, ...]) -> _core.MotifSpec:
    return _core.MotifSpec(
        vertices=cell.n_vertices,
        ops_on_edges=cell.ops_on_edges,
        matrix=cell.matrix.ravel().tolist(),
        ops=list(cell.op_codes),
        channels=[list(channels) for channels in cell_channels(cell, shape)],
        stem_channels=shape.stem_channels,
        stacks=shape.stacks,
        cells_per_stack=shape.cells_per_stack,
        classes=shape.classes,
        image_channels=shape.image_channels,
        height=image_shape[1],
        width=image_shape[2],
    )


@_spec.register
def _(shape: MLPShape, cell: SigmoidMLP, image_shape: tuple[int, ...]) -> _core.MotifSpec:
    return _core.MotifSpec.perceptron(
        hidden=[shape.hidden] * shape.layers,
        slope=cell.slope,
        loss=shape.loss,
        classes=shape.classes,
        image_channels=shape.image_channels,
        height=image_shape[1],
        width=image_shape[2],
    )


def _pack(spec: _core.MotifSpec, weights: Parameters, element: npt.DTypeLike) -> Array:
    """Named weights as the engine's flat vector."""
    table, size, _, _ = spec.tables()
    missing = [name for name, _, _ in table if name not in weights]
    foreign = sorted(set(weights) - {name for name, _, _ in table})
    if missing or foreign:
        what = f"lack {missing[0]!r}" if missing else f"hold {foreign[0]!r}, which the motif has not"
        raise ValueError(f"weights {what}; expected the names of TrainResult.parameters")
    flat = np.zeros(size, element)
    for name, offset, dims in table:
        array = np.asarray(weights[name])
        if array.shape != dims:
            raise ValueError(f"weights {name!r} have shape {array.shape}, expected {dims}")
        flat[offset : offset + array.size] = array.ravel()
    return flat


def _unpack(spec: _core.MotifSpec, flat: Array) -> dict[str, Array]:
    return {name: flat[at : at + math.prod(dims)].reshape(dims) for name, at, dims in spec.tables()[0]}


def _unpack_running(spec: _core.MotifSpec, values: Array) -> dict[str, Array]:
    rows = {"running_mean": 0, "running_var": 1}
    return {
        name: values[rows[name.rpartition(".")[2]], at : at + math.prod(dims)] for name, at, dims in spec.tables()[2]
    }


def _orders(order: npt.ArrayLike | None, seed: int, epochs: int, n: int) -> npt.NDArray[np.int64]:
    if order is None:
        keys = (_key(f"order/{seed}/{epoch}") for epoch in range(epochs))
        rows = [np.argsort(_core.uniforms(key, n, 1, [0]).ravel(), kind="stable") for key in keys]
        return np.array(rows, dtype=np.int64).reshape(epochs, n)
    array = _owned(order)
    if array.dtype.kind not in "iu":
        raise TypeError(f"order has dtype {array.dtype}, expected integers")
    if array.shape != (epochs, n):
        raise ValueError(f"order has shape {array.shape}, expected ({epochs}, {n}): (epochs, N)")
    if array.size and (array.min() < 0 or array.max() >= n):
        raise ValueError(f"order holds {array.min()} to {array.max()}, expected 0 to {n - 1}")
    return np.ascontiguousarray(array, np.int64)


def learning_rates(
    schedule: Literal["cosine"] | npt.ArrayLike | None, lr: float, steps: int
) -> npt.NDArray[np.float64]:
    """Return the learning rate of every step, shape (steps,): `schedule` as in `train_motifs`, `lr` the optimizer's.

    Raises
    ------
    ValueError
        If the schedule is unknown, has another length or is not finite.
    """
    if schedule is None:
        return np.full(steps, lr)
    if isinstance(schedule, str):
        if schedule != "cosine":
            raise ValueError(f"schedule is {schedule!r}, expected None, 'cosine' or an array of rates")
        return lr * (1 + np.cos(np.pi * np.arange(steps) / max(steps, 1))) / 2
    rates = _owned(schedule, np.float64)
    if rates.shape != (steps,):
        raise ValueError(f"schedule has shape {rates.shape}, expected ({steps},): one rate for each step")
    if not np.isfinite(rates).all():
        raise ValueError("schedule holds NaN or infinity, expected finite rates")
    return rates


def checked_cells(cells: Sequence[Candidate], shape: Shape) -> Sequence[Candidate]:
    """Return the cells.

    Raises
    ------
    TypeError
        If they are one cell, if one is not of those that `shape` is made for, or if `shape` is no motif shape.
    ValueError
        If there is none.
    """
    shapes = (MotifShape, MLPShape)
    if not isinstance(shape, shapes):
        raise TypeError(f"shape is {type(shape).__name__}, expected spd_fast.MotifShape or spd_fast.MLPShape")
    kinds = " or ".join(f"spd_fast.{kind.__name__}" for kind in shape.cell_types)
    if isinstance(cells, tuple(kind for each in shapes for kind in each.cell_types)):
        raise TypeError(f"cells is one {type(cells).__name__}, expected a sequence: [cell]")
    if not len(cells):
        raise ValueError(f"cells is empty, expected at least one {kinds}")
    for k, cell in enumerate(cells):
        if not isinstance(cell, shape.cell_types):
            raise TypeError(f"cells[{k}] is {type(cell).__name__}, expected {kinds} for a {type(shape).__name__}")
    return cells


def _owned(array: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> Array:
    """Return a copy for the engine, which reads it while callbacks and other threads run: they cannot change what was checked."""
    return np.array(array, dtype, order="C")


def _element(dtype: npt.DTypeLike) -> npt.DTypeLike:
    element = np.dtype(dtype)
    if element not in (np.float32, np.float64):
        raise TypeError(f"dtype is {element}, expected float32 or float64")
    return element


def _require_metric(metric: str) -> None:
    if metric not in ("probability", "loss"):
        raise ValueError(f"metric is {metric!r}, expected 'probability' or 'loss'")


def _threads(threads: int | None) -> int:
    if threads is None:
        return _core.default_threads()
    if threads < 1:
        raise ValueError(f"threads is {threads}, expected at least 1")
    return threads


def _require_memory(specs: Sequence[_core.MotifSpec], n: int, element: npt.DTypeLike, *, backward: bool) -> None:
    needed = (
        max(spec.memory(n, backward=backward) for spec in specs) * np.dtype(element).itemsize // 4
    )  # it counts in float32
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > installed // 2:
        raise MemoryError(
            f"batch statistics over {n} images need {needed / 2**30:.1f} GiB a thread, the machine has {installed / 2**30:.1f}: "
            "use statistics='running', or fewer images"
        )


def _require(owner: object, expected: str, **conditions: bool) -> None:
    for name, holds in conditions.items():
        if not holds:
            raise ValueError(f"{type(owner).__name__}.{name} is {getattr(owner, name)}, expected {expected}")
