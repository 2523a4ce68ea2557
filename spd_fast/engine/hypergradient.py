"""The hypergradient: the exact derivative of a motif's metric through its whole training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

import spd_fast._core as _core
from spd_fast.base.interrupts import stopped_with_main
from spd_fast.base.machine import thread_count
from spd_fast.base.types import Array, Progress, checked_array, checked_integer, checked_number, checked_progress
from spd_fast.dish import Dish
from spd_fast.engine.gradients import Metric, require_metric
from spd_fast.engine.inner_loop import Init, InitDistribution, InnerLoop
from spd_fast.engine.optimizers import Optimizer
from spd_fast.engine.specs import BATCH_NORM_EPS, owned, require_memory, unpack_weights
from spd_fast.engine.training import prepared
from spd_fast.motif import Shape
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "Hypergradient",
    "Reverse",
    "differentiate",
    "motif_hypergradient",
]


@dataclass(frozen=True, eq=False)
class Hypergradient:
    """The result of `motif_hypergradient`, for K motifs trained for T steps on N images.

    Attributes
    ----------
    value : ndarray, shape (K,)
        The value that was differentiated. If a motif diverged, it is NaN, and its derivatives are 0.
    loss, probability, accuracy : ndarray, shape (K,)
        Metrics of the trained motif on the validation images, or on the training images if there is no validation set.
    step_loss : ndarray, shape (K, T)
        Training loss of each step, which is that of its batch before its update.
    d_images, d_labels : ndarray, shape (K, N, C, H, W) and (K, N, classes)
        Derivatives in the training set.
    d_valid_images, d_valid_labels : ndarray
        Derivatives in the validation set, of the same form. They are empty if there is no validation set.
    d_rates : ndarray, shape (K, T)
        Derivative in the learning rate of each step.
    d_momenta : ndarray, shape (K, T)
        Derivative in the momentum of each step, for SGD and RMSProp. 0 with Adam.
    d_initial : list of K dicts {name: ndarray}
        Derivative in the weights before the first step that was reversed; these are the initial weights if there is no window.
    parameters : list of K dicts {name: ndarray}
        The trained weights.
    diverged, diverged_step : ndarray, shape (K,), bool and int
        As in `TrainResult`.
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
    init: Init = "shared",
    order: npt.ArrayLike | None = None,
    threads: int | None = None,
    dtype: npt.DTypeLike = "float32",
    progress: Progress | None = None,
    drop_last: bool = False,
    init_distribution: InitDistribution = "pytorch",
    initial_scales: npt.ArrayLike | None = None,
    direct_convolutions: bool = True,
    memory_mib: float = 128.0,
) -> Hypergradient:
    """Return the hypergradient of each motif: the exact derivative of its metric through its whole training.

    The value ``metric_weight * metric + sum_t step_weights[t] * loss_t`` is differentiated. The metric is read after training,
    on the validation images, or on the training images if the dish has no validation set.

    Parameters
    ----------
    metric : "probability" or "loss"
        Mean probability of the true class (Cassimon et al., eq. 4), or mean cross-entropy, with batch statistics over the set.
    metric_weight : float
        Factor of the metric.
    step_weights : ndarray, shape (T,), optional
        Factors of the training losses of the steps. Ones give the sum of training losses (SoTL).
    window : int, optional
        Differentiate through the last `window` steps only. The weights before them count as constant (truncated
        back-propagation).
    steps : int, optional
        Stop training after this number of steps. Default: train all epochs.
    memory_mib : float, at least 0
        Memory in MiB for the gradients of the last steps of each motif. Steps whose gradients do not fit are trained a second
        time, which is slower and gives the same bits.
    direct_convolutions : bool
        As in `train_motifs`, but true by default, because Winograd's algorithm rounds more, and the reverse steps magnify
        rounding errors (docs/engine.md). False takes about a fifth less time.
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
    The state of the training is stored at every sqrt(T)-th step. For each motif, this takes about 7 sqrt(T) vectors as long as
    its weights, in addition to the gradients in `memory_mib`. Training is not continuous in the images: if a ReLU or a pooling
    winner switches, the exact derivative does not show the jump. A hypergradient costs about as much as four trainings, or five
    if no gradients are stored.

    References
    ----------
    D. Maclaurin, D. Duvenaud and R. Adams 2015, arXiv:1502.03492; A. Rawal et al. 2020, arXiv:2005.13092.
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
        drop_last=drop_last,
        init_distribution=init_distribution,
        initial_scales=initial_scales,
        direct_convolutions=direct_convolutions,
    )
    reverse = Reverse(metric, metric_weight, step_weights, window, steps, memory_mib)
    return differentiate(loop, reverse, cells, shape, dish, threads=threads, progress=progress)


@dataclass(frozen=True, eq=False)
class Reverse:
    """The arguments of `motif_hypergradient` that do not belong to the inner loop: what is differentiated, and how far back."""

    metric: Metric = "probability"
    metric_weight: float = 1.0
    step_weights: npt.ArrayLike | None = None
    window: int | None = None
    steps: int | None = None
    memory_mib: float = 128.0

    def __post_init__(self) -> None:
        require_metric(self.metric)
        for name, low in (("window", 0), ("steps", None)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, checked_integer(name, getattr(self, name), low))
        object.__setattr__(self, "metric_weight", checked_number("metric_weight", self.metric_weight))
        object.__setattr__(self, "memory_mib", checked_number("memory_mib", self.memory_mib, 0, finite=False))

    def last(self, steps: int) -> int:
        """Return how many of so many steps are trained."""
        last = steps if self.steps is None else self.steps
        if not 0 <= last <= steps:
            raise ValueError(f"steps is {last}, expected 0 to {steps}, those of the epochs")
        return last

    def checked_step_weights(self, last: int) -> npt.NDArray[np.float64] | None:
        """Return the step weights of so many steps, as an array."""
        array = (
            None if self.step_weights is None else owned(checked_array("step_weights", self.step_weights), np.float64)
        )
        if array is not None and array.shape != (last,):
            raise ValueError(f"step_weights has shape {array.shape}, expected ({last},): one for each step")
        return array


def differentiate(
    loop: InnerLoop,
    reverse: Reverse,
    cells: Sequence[Candidate],
    shape: Shape,
    dish: Dish,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Hypergradient:
    """Return what `motif_hypergradient` returns, for settings in two records."""
    job = prepared(loop, cells, shape, dish)
    last = reverse.last(len(job.rates))
    step_weights = reverse.checked_step_weights(last)
    require_memory(job.specs, job.n_valid or len(dish.images), loop.dtype, backward=True)
    out = _core.hypergradient(
        job.specs,
        *job.data,
        job.order,
        job.batch,
        loop.drop_last,
        job.optimizer,
        job.rates,
        job.flat,
        last,
        0 if reverse.window is None else max(0, last - reverse.window),
        reverse.metric,
        reverse.metric_weight,
        step_weights,
        BATCH_NORM_EPS,
        reverse.memory_mib * 2**20,
        loop.direct_convolutions,
        thread_count(threads),
        stopped_with_main(checked_progress(progress)),
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
        d_initial=[unpack_weights(spec, flat) for spec, flat in zip(job.specs, out.d_initial, strict=True)],
        parameters=[unpack_weights(spec, flat) for spec, flat in zip(job.specs, out.trained, strict=True)],
        diverged=out.diverged_step >= 0,
        diverged_step=out.diverged_step,
    )
