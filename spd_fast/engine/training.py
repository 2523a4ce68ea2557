"""Training motifs: the inner loop, on the compiled engine. The only module that trains with `_core`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from spd_fast import _core
from spd_fast.base.types import Array
from spd_fast.dish import Dish, label_matrix
from spd_fast.engine.initial import Initializer, key_of, starting_weights
from spd_fast.engine.optimizers import Adam, Optimizer
from spd_fast.engine.specs import (
    BATCH_NORM_EPS,
    Parameters,
    element_of,
    owned,
    pack_weights,
    require_memory,
    specs_of,
    thread_count,
    unpack_running,
    unpack_weights,
)
from spd_fast.motif import Shape
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "MotifMetrics",
    "TrainResult",
    "learning_rates",
    "train_motifs",
]


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
        Default: the processors that this process may use. At most 64 are used, or four times the processors, whichever
        is more. They are kept for later calls, and sleep until then.
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
    job = prepare(
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
        require_memory(job.specs, max(len(dish.images), job.n_valid), job.element, backward=False)
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
        thread_count(threads),
        progress,
    )
    return TrainResult(
        loss=out.loss,
        accuracy=out.accuracy,
        train=_metrics(out.train) if evaluate else None,
        valid=_metrics(out.valid) if job.n_valid else None,
        initial=job.initial,
        parameters=[unpack_weights(spec, weights) for spec, weights in zip(job.specs, job.flat, strict=True)],
        running=[unpack_running(spec, values) for spec, values in zip(job.specs, running, strict=True)],
        diverged=out.diverged_step >= 0,
        diverged_step=out.diverged_step,
        seconds=out.seconds,
        recorded={name: getattr(out, name) for name in record},
    )


def _metrics(of: _core.Metrics) -> MotifMetrics:
    return MotifMetrics(probability=of.probability, loss=of.loss, accuracy=of.accuracy, logits=of.logits)


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


def prepare(
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
    element = element_of(dtype)
    optimizer = optimizer or Adam(lr=5e-5, weight_decay=1e-6)
    specs = specs_of(cells, shape, dish.images.shape[1:])
    initial = starting_weights(specs, cells, shape, init, seed, replicate, initializer, initial_scales, element)
    n = len(dish.images)
    batch = min(batch_size, n)
    steps_per_epoch = n // batch if drop_last else -(-n // batch)
    valid: tuple[Array, Array] | tuple[None, None] = (None, None)
    if dish.valid_images is not None and dish.valid_labels is not None:
        valid = (
            owned(dish.valid_images, element),
            label_matrix(dish.valid_labels, shape.classes, element, "valid_labels"),
        )
    return _Job(
        specs=specs,
        element=element,
        initial=initial,
        flat=[pack_weights(spec, weights, element) for spec, weights in zip(specs, initial, strict=True)],
        data=(owned(dish.images, element), label_matrix(dish.labels, shape.classes, element), *valid),
        n_valid=0 if valid[0] is None else len(valid[0]),
        order=_orders(order, seed, epochs, n),
        batch=batch,
        optimizer=optimizer._for_engine(),
        rates=learning_rates(schedule, optimizer.lr, epochs * steps_per_epoch),
    )


def _orders(order: npt.ArrayLike | None, seed: int, epochs: int, n: int) -> npt.NDArray[np.int64]:
    if order is None:
        keys = (key_of(f"order/{seed}/{epoch}") for epoch in range(epochs))
        rows = [np.argsort(_core.uniforms(key, n, 1, [0]).ravel(), kind="stable") for key in keys]
        return np.array(rows, dtype=np.int64).reshape(epochs, n)
    array = owned(order)
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
    rates = owned(schedule, np.float64)
    if rates.shape != (steps,):
        raise ValueError(f"schedule has shape {rates.shape}, expected ({steps},): one rate for each step")
    if not np.isfinite(rates).all():
        raise ValueError("schedule holds NaN or infinity, expected finite rates")
    return rates
