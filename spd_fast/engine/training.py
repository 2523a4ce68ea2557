"""The inner loop: it trains motifs with the compiled engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

import spd_fast._core as _core
from spd_fast.base.interrupts import stopped_with_main
from spd_fast.base.machine import thread_count
from spd_fast.base.types import Array, Progress, checked_array, checked_instance, checked_progress
from spd_fast.dish import Dish
from spd_fast.engine.initial import key_of, starting_weights
from spd_fast.engine.inner_loop import Init, InitDistribution, InnerLoop
from spd_fast.engine.optimizers import Optimizer
from spd_fast.engine.specs import (
    BATCH_NORM_EPS,
    owned,
    require_memory,
    specs_of,
    unpack_running,
    unpack_weights,
)
from spd_fast.learnables.labels import label_matrix
from spd_fast.motif import Shape
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "Job",
    "MotifMetrics",
    "TrainResult",
    "prepared",
    "sample_orders",
    "train",
    "train_motifs",
]


@dataclass(frozen=True, eq=False)
class MotifMetrics:
    """Metrics of K trained motifs on a set of N images. The values of a motif that diverged are NaN.

    Attributes
    ----------
    probability : ndarray, shape (K,)
        Mean probability of the true class, 0 to 1 (Cassimon et al., eq. 4). With soft labels, the true class is the one with the
        largest label.
    loss : ndarray, shape (K,)
        Mean cross-entropy, in nats.
    accuracy : ndarray, shape (K,)
        Share of images whose largest logit is that of the true class.
    logits : ndarray, shape (K, N, classes)
    """

    probability: Array
    loss: Array
    accuracy: Array
    logits: Array


@dataclass(frozen=True, eq=False)
class TrainResult:
    """The result of `train_motifs`, for K motifs.

    Attributes
    ----------
    loss, accuracy : ndarray, shape (K, epochs)
        Training loss and accuracy of each epoch: means over its batches, each before the batch's update. NaN after a motif has
        diverged.
    train, valid : MotifMetrics or None
        Metrics after training, on the dish's training images and on its validation images.
    initial, parameters : list of K dicts {name: ndarray}
        Weights before and after training. Names are those of a PyTorch state_dict.
    running : list of K dicts {name: ndarray}
        Batch norm's running means and (unbiased) variances.
    diverged : ndarray, shape (K,), bool
        Whether the loss became NaN or infinite; training of that motif stopped there.
    diverged_step : ndarray, shape (K,), int
        The step at which the motif diverged, counted from 0; -1 if it did not.
    seconds : ndarray, shape (K,)
        Wall time of each motif on its thread.
    recorded : dict {name: ndarray}
        The arrays that `record` names, shape (K, steps).
    """

    loss: Array
    accuracy: Array
    train: MotifMetrics | None
    valid: MotifMetrics | None
    diverged: npt.NDArray[np.bool_]
    diverged_step: npt.NDArray[np.int64]
    seconds: Array
    recorded: dict[str, Array]
    _cells: list[Candidate]
    _shapes: tuple[Shape, tuple[int, ...]]  # of the motifs and of an image
    _flat: tuple[list[Array], list[Array], list[Array]]  # initial, trained, running

    # Weights get their names when they are first asked for: scores need none of them, and naming takes longer than making a plan.
    @cached_property
    def initial(self) -> list[dict[str, Array]]:
        """Weights before training, by name."""
        return self._named(unpack_weights, self._flat[0])

    @cached_property
    def parameters(self) -> list[dict[str, Array]]:
        """Trained weights, by name."""
        return self._named(unpack_weights, self._flat[1])

    @cached_property
    def running(self) -> list[dict[str, Array]]:
        """Running statistics of batch norm, by name."""
        return self._named(unpack_running, self._flat[2])

    def _named(
        self, unpack: Callable[[_core.MotifSpec, Array], dict[str, Array]], flat: list[Array]
    ) -> list[dict[str, Array]]:
        specs = specs_of(self._cells, *self._shapes)  # made anew, because they cannot be pickled as results are
        return [unpack(spec, vector) for spec, vector in zip(specs, flat, strict=True)]


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
    init: Init = "shared",
    order: npt.ArrayLike | None = None,
    threads: int | None = None,
    dtype: npt.DTypeLike = "float32",
    record: Sequence[str] = (),
    progress: Progress | None = None,
    drop_last: bool = False,
    statistics: Literal["batch", "running"] = "batch",
    init_distribution: InitDistribution = "pytorch",
    initial_scales: npt.ArrayLike | None = None,
    batch_norm_momentum: float = 0.1,
    evaluate: bool = True,
    direct_convolutions: bool = False,
) -> TrainResult:
    """Train one motif of each cell on a dish.

    Motifs are independent: the result of a motif does not depend on the other motifs of the call, on the number of
    threads, or on the order of the cells. The same arguments give the same bits. The GIL is released while motifs are
    trained. Ctrl-C stops the training within a second.

    Parameters
    ----------
    cells : sequence of K Cell, NatsCell or Perceptron
    shape : MotifShape, or PerceptronShape
        How a cell or a perceptron becomes a network.
    dish : Dish
        N training images, and optionally a validation set.
    epochs : int
        Number of passes over the training images, at least 0.
    batch_size : int
        Images in a batch, at least 1. The last batch of an epoch may be smaller: see `drop_last`.
    optimizer : Adam, SGD or RMSProp, optional
        Default: ``Adam(lr=5e-5, weight_decay=1e-6)``, the paper's.
    schedule : None, "cosine" or ndarray, shape (steps,)
        Learning rate of each step. None: the optimizer's, constant. "cosine": from the optimizer's to 0 along half a
        cosine. An array: the rates themselves.
    seed, replicate : int
        Both choose the initial weights; `seed` alone chooses the sample orders.
    init : "shared", "motif" or sequence of K dicts
        ``"shared"``: layers with the same name are slices of one tensor in all motifs, scaled by fan-in, so that all cells
        start as alike as they can. ``"motif"``: the weights depend on the cell and the shape, too, so that cells start
        independently (the paper). Or the weights themselves, named as in ``TrainResult.parameters``.
    order : ndarray, shape (epochs, N), int, optional
        The order of the images in each epoch. Default: permutations that depend on (seed, epoch) alone, so that they are the
        same for every motif.
    threads : int, optional
        Default: the processors that this process may use. At most 64 threads are used, or four times the processors, whichever
        is more. They sleep between calls.
    dtype : "float32" or "float64"
        Element type of weights, images and all arithmetic.
    record : sequence of "step_loss", "step_accuracy"
        The values of every step that ``TrainResult.recorded`` should hold.
    progress : callable, optional
        It is called about ten times a second, on the calling thread, with the share of the work that is done, 0 to 1. An
        exception that it raises stops the training.
    drop_last : bool
        Whether to leave out the last batch of an epoch if it is smaller than the others. By default it is used.
    statistics : "batch" or "running"
        Statistics of batch norm in the metrics after training. "batch": those of the whole set as one batch. "running": the
        running statistics, for sets of thousands of images, because memory grows with the batch.
    init_distribution : "pytorch", "nasbench101" or "normal"
        Distribution of the initial weights: PyTorch's default, the benchmark's, or N(0, 1) for all weights and biases (Rawal et
        al. 2020). `spd_fast.engine.initial` defines them.
    initial_scales : ndarray, shape (4,), optional
        Factors above 0 that multiply the drawn weights of the stem, the 3x3 convolutions, the 1x1 convolutions (projections
        among them) and the dense layer. Batch norm and biases are not scaled. Default: ones.
    batch_norm_momentum : float
        Share of the new batch in the running statistics, 0 to 1, as PyTorch defines momentum.
    evaluate : bool
        Whether to evaluate the trained motifs on the training set.
    direct_convolutions : bool
        Whether to compute every convolution directly. By default 3x3 convolutions use Winograd's algorithms F(4x4, 3x3) or
        F(4, 3) if they are faster. Their relative rounding errors in float32 reach 8.3e-6 instead of 1e-6.

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
    The loss is softmax cross-entropy, averaged over the batch; a `PerceptronShape` may choose another. Batch norm has
    eps 1e-5. A motif that diverges is not an error: see `TrainResult.diverged`.

    References
    ----------
    T. Cassimon et al., "Predicting Image Classifier Performance Using the Synthetic Petri Dish Method", section 3.
    A. Rawal et al. 2020, arXiv:2005.13092.
    """
    loop = InnerLoop.of(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=schedule,
        seed=seed,
        replicate=replicate,
        init=init,
        order=order,
        dtype=dtype,
        record=record,
        drop_last=drop_last,
        statistics=statistics,
        init_distribution=init_distribution,
        initial_scales=initial_scales,
        batch_norm_momentum=batch_norm_momentum,
        evaluate=evaluate,
        direct_convolutions=direct_convolutions,
    )
    return train(loop, cells, shape, dish, threads=threads, progress=progress)


def train(
    loop: InnerLoop,
    cells: Sequence[Candidate],
    shape: Shape,
    dish: Dish,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train one motif of each cell on a dish, as `train_motifs` does, with its settings in one record."""
    job = prepared(loop, cells, shape, dish)
    if loop.statistics == "batch" and (loop.evaluate or job.n_valid):
        require_memory(job.specs, max(len(dish.images), job.n_valid), loop.dtype, backward=False)
    initial = [weights.copy() for weights in job.flat]
    running = [np.zeros((2, spec.tables.batch_norms), loop.dtype) for spec in job.specs]
    for _, variances in running:
        variances[:] = 1
    out = _core.train(
        job.specs,
        *job.data,
        job.order,
        job.batch,
        loop.drop_last,
        job.optimizer,
        job.rates,
        job.flat,
        running,
        loop.batch_norm_momentum,
        BATCH_NORM_EPS,
        loop.statistics == "batch",
        loop.evaluate,
        bool(loop.record),
        loop.direct_convolutions,
        thread_count(threads),
        stopped_with_main(checked_progress(progress)),
    )
    return TrainResult(
        loss=out.loss,
        accuracy=out.accuracy,
        train=_metrics(out.train) if loop.evaluate else None,
        valid=_metrics(out.valid) if job.n_valid else None,
        diverged=out.diverged_step >= 0,
        diverged_step=out.diverged_step,
        seconds=out.seconds,
        recorded={name: getattr(out, name) for name in loop.record},
        _cells=list(cells),
        _shapes=(shape, dish.images.shape[1:]),
        _flat=(initial, job.flat, running),
    )


def _metrics(of: _core.Metrics) -> MotifMetrics:
    return MotifMetrics(probability=of.probability, loss=of.loss, accuracy=of.accuracy, logits=of.logits)


@dataclass(frozen=True, eq=False)
class Job:
    """The engine's arguments that training and the hypergradient have in common.

    Attributes
    ----------
    specs : list of K MotifSpec
    flat : list of K ndarray
        The initial weights as the engine's flat vectors, which training changes.
    data : tuple
        Images, labels, validation images and validation labels. The last two are None if there is no validation set.
    n_valid : int
        Number of validation images.
    order : ndarray, shape (epochs, N), int64
    batch : int
        Images in a batch.
    optimizer : _core.Optimizer
    rates : ndarray, shape (steps,), float64
    """

    specs: list[_core.MotifSpec]
    flat: list[Array]
    data: tuple[Array, Array, Array | None, Array | None]
    n_valid: int
    order: npt.NDArray[np.int64]
    batch: int
    optimizer: _core.Optimizer
    rates: npt.NDArray[np.float64]


def prepared(loop: InnerLoop, cells: Sequence[Candidate], shape: Shape, dish: Dish) -> Job:
    """Return the engine's arguments for motifs of these cells on a dish.

    Raises
    ------
    ValueError, TypeError
        If cells, shape, dish and inner loop do not fit each other.
    """
    checked_instance("dish", dish, Dish, "a spd_fast.Dish")
    specs = specs_of(cells, shape, dish.images.shape[1:])
    n = len(dish.images)
    valid: tuple[Array, Array] | tuple[None, None] = (None, None)
    if dish.valid_images is not None and dish.valid_labels is not None:
        valid = (
            owned(dish.valid_images, loop.dtype),
            label_matrix(dish.valid_labels, shape.classes, loop.dtype, "valid_labels"),
        )
    train_set = owned(dish.images, loop.dtype), label_matrix(dish.labels, shape.classes, loop.dtype)
    return Job(
        specs=specs,
        flat=starting_weights(specs, cells, shape, loop),
        data=(*train_set, *valid),
        n_valid=0 if valid[0] is None else len(valid[0]),
        order=sample_orders(loop.order, loop.seed, loop.epochs, n),
        batch=loop.batch(n),
        optimizer=loop.optimizer._for_engine(),
        rates=loop.rates(n),
    )


def sample_orders(order: npt.ArrayLike | None, seed: int, epochs: int, n: int) -> npt.NDArray[np.int64]:
    """Return the order of n images in each epoch, shape (epochs, n): the one that is given, or permutations that depend on seed and epoch."""
    if order is None:
        keys = (key_of(f"order/{seed}/{epoch}") for epoch in range(epochs))
        # One call for each epoch, so that Ctrl-C is heard in between.
        rows = [np.argsort(_core.uniforms([(key, n, 1, 0, 1)]), kind="stable") for key in keys]
        return np.array(rows, dtype=np.int64).reshape(epochs, n)
    array = owned(checked_array("order", order))
    if array.dtype.kind not in "iu":
        raise TypeError(f"order has dtype {array.dtype}, expected integers")
    if array.shape != (epochs, n):
        raise ValueError(f"order has shape {array.shape}, expected ({epochs}, {n}): (epochs, N)")
    if array.size and (array.min() < 0 or array.max() >= n):
        raise ValueError(f"order holds {array.min()} to {array.max()}, expected 0 to {n - 1}")
    return np.ascontiguousarray(array, np.int64)
