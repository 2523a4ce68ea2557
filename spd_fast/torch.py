"""The engine as one differentiable PyTorch function: images in, a metric of every trained motif out.

Any outer loss and any outer optimiser written in PyTorch works on top of `motif_metrics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spd_fast.dish import Dish
from spd_fast.engine.gradients import PackedMotifs, Reading, pack_motifs, read_motifs, weighted_sum
from spd_fast.engine.hypergradient import motif_hypergradient
from spd_fast.engine.training import MotifMetrics, TrainResult, train_motifs
from spd_fast.motif import LAYER_KINDS, Shape, layer_kind
from spd_fast.spaces.candidate import Candidate

__all__ = ["motif_metrics", "read_metrics", "train_and_measure"]

Metric = Literal["probability", "loss", "training_loss"]
Gradient = Literal["unrolled", "direct"]
_Read = Literal["probability", "loss"]
Init = Literal["shared", "motif"] | Sequence[Mapping[str, npt.NDArray[Any] | Tensor]]


def motif_metrics(
    images: Tensor,
    labels: Tensor,
    cells: Sequence[Candidate],
    *,
    shape: Shape,
    valid_images: Tensor | None = None,
    valid_labels: Tensor | None = None,
    metric: Metric = "probability",
    step_weights: Tensor | None = None,
    gradient: Gradient = "unrolled",
    window: int | None = None,
    rates: Tensor | None = None,
    initial_scales: Tensor | None = None,
    init: Init = "shared",
    **training: Any,
) -> Tensor:
    """Train a motif of each cell and return the metric of each: a function that autograd can differentiate.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W), float32 or float64, on the CPU
        Training images. Their dtype is that of the whole computation and of the result.
    labels : Tensor, shape (N,) int64 or (N, classes) floating point
        Classes, or soft labels.
    cells : sequence of K Cell, NatsCell or SigmoidMLP
    shape : MotifShape, or MLPShape
    valid_images, valid_labels : Tensor, optional, both or neither
        Where they are given the metric is read on them instead of on the training set.
    metric : "probability", "loss" or "training_loss"
        Mean probability of the true class (Cassimon et al., equation 4), or mean cross-entropy, read after training with
        batch statistics over the whole set; or the weighted sum over steps of the loss of the step's batch before its update.
    step_weights : Tensor, shape (steps,), optional
        With "training_loss": weight of each step. Default: equal ones of sum 1.
    gradient : "unrolled" or "direct"
        "unrolled": the exact derivative through every step of training, the hypergradient (Rawal et al. 2020,
        arXiv:2005.13092). It reaches images, soft labels, the validation set, `step_weights`, `rates`, `initial_scales` and
        `init`. "direct": the derivative
        of the metric with the trained weights held fixed (Cassimon et al., section 3.5). It reaches the set that the metric
        is read on, its images and, for "loss", its soft labels; what the other set did to the weights is left out.
    window : int, optional
        With "unrolled": reverse only the last `window` steps of training.
    rates : Tensor, shape (steps,), optional
        Learning rate of every step, in place of the optimizer's and a schedule.
    initial_scales : Tensor, shape (4,), optional
        Factors of the initial weights of stem, 3x3 convolutions, 1x1 convolutions and dense layer, where `init` draws them.
        Constant with `window`, which forgets the initial weights.
    init : "shared", "motif" or sequence of K dicts
        Initial weights, as `spd_fast.train_motifs` takes them; the arrays may be tensors.
    **training
        Other keywords of `spd_fast.train_motifs`: epochs, batch_size, optimizer, schedule, seed, threads, progress ...

    Returns
    -------
    Tensor, shape (K,), of the dtype of `images`
        NaN for a motif that diverged. Weight it by 0, or leave it out, and no NaN reaches the gradient.

    Raises
    ------
    ValueError
        If a setting does not belong to the gradient that is asked for, or a value is refused by `train_motifs`.
    TypeError
        If images or labels are not tensors of the right kind, or `training` sets what this function decides.

    Examples
    --------
    >>> from spd_fast import MOTIF_C, Cell
    >>> images = torch.zeros(4, 3, 8, 8, requires_grad=True)
    >>> cell = Cell(["010", "001", "000"], ["input", "conv3x3-bn-relu", "output"])
    >>> z = motif_metrics(images, torch.tensor([0, 1, 2, 3]), [cell], shape=MOTIF_C, epochs=2, batch_size=4)
    >>> z.sum().backward()
    >>> z.shape, images.grad.shape
    (torch.Size([1]), torch.Size([4, 3, 8, 8]))
    """
    metrics, _ = train_and_measure(
        images,
        labels,
        cells,
        shape=shape,
        valid_images=valid_images,
        valid_labels=valid_labels,
        metric=metric,
        step_weights=step_weights,
        gradient=gradient,
        window=window,
        rates=rates,
        initial_scales=initial_scales,
        init=init,
        **training,
    )
    return metrics


def train_and_measure(
    images: Tensor,
    labels: Tensor,
    cells: Sequence[Candidate],
    *,
    shape: Shape,
    valid_images: Tensor | None = None,
    valid_labels: Tensor | None = None,
    metric: Metric = "probability",
    step_weights: Tensor | None = None,
    gradient: Gradient = "unrolled",
    window: int | None = None,
    rates: Tensor | None = None,
    initial_scales: Tensor | None = None,
    init: Init = "shared",
    **training: Any,
) -> tuple[Tensor, TrainResult]:
    """Return what `motif_metrics` returns, and the training behind it: curves, accuracies, weights.

    Parameters and errors are those of `motif_metrics`.
    """
    _check_settings(gradient, metric, step_weights, window, rates, initial_scales, init, training)
    _check_images("images", images)
    read_images, read_labels = images, labels
    if valid_images is not None and valid_labels is not None:
        _check_images("valid_images", valid_images)
        read_images, read_labels = valid_images, valid_labels
        if valid_images.dtype != images.dtype:
            raise TypeError(f"valid_images has dtype {valid_images.dtype}, expected {images.dtype} to match images")
    dish = Dish(
        images.detach().numpy(),
        _checked_labels("labels", labels),
        None if valid_images is None else valid_images.detach().numpy(),
        None if valid_labels is None else _checked_labels("valid_labels", valid_labels),
    )
    dtype = np.dtype(str(images.dtype).removeprefix("torch."))
    # copies: the backward trains with them once more
    training = {name: np.array(value) if isinstance(value, np.ndarray) else value for name, value in training.items()}
    if rates is not None:
        training["schedule"] = rates.detach().numpy()
    if initial_scales is not None:
        training["initial_scales"] = initial_scales.detach().numpy()
    weights = init if isinstance(init, str) else [{name: _array(w) for name, w in motif.items()} for motif in init]
    recorded = {*training.pop("record", ()), *(["step_loss"] if metric == "training_loss" else [])}
    result = train_motifs(cells, shape, dish, init=weights, dtype=dtype, record=sorted(recorded), **training)
    measured = result.train if result.valid is None else result.valid
    assert measured is not None  # evaluate=True: no other is allowed
    counted = None
    if metric == "training_loss":
        counted = _checked_step_weights(step_weights, result.recorded["step_loss"].shape[1])
    bridge = _Bridge(cells, shape, metric, dish, dtype, training, result, measured, counted, window)
    if gradient == "direct":
        metrics: Tensor = _DirectGradient.apply(read_images, read_labels, bridge)  # type: ignore[no-untyped-call]
    else:
        starts = [] if isinstance(init, str) else [w for motif in init for w in motif.values() if isinstance(w, Tensor)]
        bridge.starts = (
            []
            if isinstance(init, str)
            else [(k, name) for k, motif in enumerate(init) for name, w in motif.items() if isinstance(w, Tensor)]
        )
        learned = (images, labels, valid_images, valid_labels, rates, initial_scales, step_weights)
        metrics = _UnrolledGradient.apply(bridge, *learned, *starts)  # type: ignore[no-untyped-call]
    return metrics, result


@dataclass(eq=False)
class _Bridge:
    """What the backward needs to know about a finished training."""

    cells: Sequence[Candidate]
    shape: Shape
    metric: Metric
    dish: Dish
    dtype: np.dtype[Any]
    training: dict[str, Any]
    result: TrainResult
    measured: MotifMetrics
    step_weights: npt.NDArray[np.float64] | None  # with "training_loss"
    window: int | None
    starts: list[tuple[int, str]] = field(
        default_factory=list
    )  # motif and name of the initial weights that are tensors

    def values(self) -> npt.NDArray[Any]:
        values: npt.NDArray[Any]
        if self.step_weights is not None:
            values = np.where(
                self.result.diverged, np.nan, (self.result.recorded["step_loss"] * self.step_weights).sum(axis=-1)
            )
        else:
            values = self.measured.probability if self.metric == "probability" else self.measured.loss
        return values.astype(self.dtype)

    def direct_gradient(
        self, images: npt.NDArray[Any], labels: npt.NDArray[Any], weights: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return sum_k weights[k] d metric_k in images and in soft labels; motifs of weight 0 (diverged ones, usually) take no part.

        A weight that is not finite makes everything NaN.
        """
        d_labels = np.zeros((len(labels), self.shape.classes), self.dtype)
        if not np.isfinite(weights).all():
            return np.full(images.shape, np.nan, self.dtype), d_labels + np.nan
        used = np.flatnonzero(weights).tolist()
        if not used:
            return np.zeros(images.shape, self.dtype), d_labels
        cells, trained = [self.cells[k] for k in used], [self.result.parameters[k] for k in used]
        motifs = pack_motifs(cells, self.shape, trained, images.shape[1:], dtype=self.dtype)
        options = {name: self.training[name] for name in ("threads", "strict") if name in self.training}
        reading = read_motifs(motifs, images, labels, metric=cast(_Read, self.metric), **options)
        return weighted_sum(weights[used], reading.d_images), weighted_sum(weights[used], reading.d_labels)

    def hypergradient(self, weights: npt.NDArray[Any]) -> dict[str, Any]:
        """Return sum_k weights[k] d metric_k in what training saw, by name, and each in its initial weights."""
        used = np.flatnonzero(weights).tolist()
        training = {name: value for name, value in self.training.items() if name not in _NOT_REVERSED}
        training.setdefault("strict", False)  # of the training that was measured
        metric: dict[str, Any] = {"metric": self.metric}
        if self.step_weights is not None:
            metric = {"metric_weight": 0.0, "step_weights": self.step_weights}
        found = motif_hypergradient(
            [self.cells[k] for k in used],
            self.shape,
            self.dish,
            init=[self.result.initial[k] for k in used],
            **metric,
            window=self.window,
            dtype=self.dtype,
            **training,
        )
        sums = {
            name: weighted_sum(weights[used], getattr(found, f"d_{name}"))
            for name in ("images", "labels", "valid_images", "valid_labels", "rates")
        }
        initial = {
            (k, name): weights[k] * gradient
            for k, motif in zip(used, found.d_initial, strict=True)
            for name, gradient in motif.items()
        }
        return sums | {"initial": initial, "initial_scales": self._scale_gradient(initial)}

    def _scale_gradient(self, initial: Mapping[tuple[int, str], npt.NDArray[Any]]) -> npt.NDArray[np.float64] | None:
        """Return the derivative in the scales: of ``w = scale * drawn`` it is ``sum(dw * w) / scale``."""
        if "initial_scales" not in self.training:
            return None
        total = np.zeros(len(LAYER_KINDS))
        for (k, name), gradient in initial.items():
            start = self.result.initial[k][name]
            kind = layer_kind(name, start.shape)
            if kind is not None:
                total[kind] += np.vdot(gradient.astype(np.float64), start.astype(np.float64))
        return total / np.asarray(self.training["initial_scales"], np.float64)

    def step_weight_gradient(self, weights: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return sum_k weights[k] d metric_k in the step weights."""
        return weighted_sum(weights, self.result.recorded["step_loss"])


_NOT_REVERSED = ("batch_norm_momentum",)


def read_metrics(
    motifs: PackedMotifs,
    images: Tensor,
    labels: Tensor,
    *,
    metric: _Read = "probability",
    threads: int | None = None,
) -> tuple[Tensor, Reading]:
    """Read trained motifs on a set: the metric of each, differentiable in images and soft labels, and the whole reading.

    What `motif_metrics` with ``gradient="direct"`` is, for motifs that were trained before. Where autograd is on, metrics and
    derivatives come from one pass over the motifs.

    Parameters
    ----------
    motifs : PackedMotifs
        From `spd_fast.engine.gradients.pack_motifs`.
    images : Tensor, shape (N, C, H, W)
    labels : Tensor, shape (N,) int64 or (N, classes) floating point
    metric : "probability" or "loss"
    threads : int, optional

    Returns
    -------
    Tensor, shape (K,), of the dtype of `images`
    Reading

    Raises
    ------
    TypeError
        If images or labels are not tensors of the right kind, or images are not of the motifs' element type.
    ValueError
        If images or labels do not fit the motifs.
    """
    _check_images("images", images)
    if str(images.dtype) != f"torch.{motifs.element}":
        raise TypeError(f"images has dtype {images.dtype}, expected torch.{motifs.element}, that of the motifs")
    reading = read_motifs(
        motifs,
        images.detach().numpy(),
        _checked_labels("labels", labels),
        metric=metric,
        gradients=torch.is_grad_enabled(),
        threads=threads,
    )
    values = getattr(reading, metric)
    metrics: Tensor = _ReadingGradient.apply(images, labels, reading, values)  # type: ignore[no-untyped-call]
    return metrics, reading


class _ReadingGradient(torch.autograd.Function):
    """Metrics already read, and their derivatives, which came with them."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, labels: Tensor, reading: Reading, values: npt.NDArray[Any]) -> Tensor:
        ctx.reading = reading
        ctx.dtypes = images.dtype, labels.dtype
        return torch.from_numpy(values).to(images.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_metrics: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        arrays = (ctx.reading.d_images, ctx.reading.d_labels)
        sums = [
            torch.from_numpy(weighted_sum(d_metrics.numpy(), array)).to(dtype) if wanted else None
            for array, dtype, wanted in zip(arrays, ctx.dtypes, ctx.needs_input_grad[:2], strict=True)
        ]
        return sums[0], sums[1], None, None


_LEARNED = ("images", "labels", "valid_images", "valid_labels", "rates", "initial_scales", "step_weights")
"""What the unrolled gradient reaches, in the order in which `_UnrolledGradient` takes it, before initial weights."""


class _UnrolledGradient(torch.autograd.Function):
    """Metrics already measured, and their derivative through the training."""

    @staticmethod
    def forward(
        ctx: Any,
        bridge: _Bridge,
        images: Tensor,
        labels: Tensor,
        valid_images: Tensor | None,
        valid_labels: Tensor | None,
        rates: Tensor | None,
        initial_scales: Tensor | None,
        step_weights: Tensor | None,
        *starts: Tensor,
    ) -> Tensor:
        ctx.bridge = bridge
        # autograd refuses a backward after one of them was changed in place: training saw other values
        ctx.save_for_backward(images, labels, valid_images, valid_labels, rates, initial_scales, step_weights, *starts)
        return torch.from_numpy(bridge.values())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_metrics: Tensor) -> tuple[Tensor | None, ...]:
        weights, needed, likes = d_metrics.numpy(), ctx.needs_input_grad[1:], ctx.saved_tensors
        names: list[Any] = [*_LEARNED, *ctx.bridge.starts]
        found: dict[str, Any] | None = None
        if np.isfinite(weights).all() and np.any(weights):
            found = {}
            if needed[_LEARNED.index("step_weights")]:
                found["step_weights"] = ctx.bridge.step_weight_gradient(weights)
            if any(wanted for name, wanted in zip(names, needed, strict=True) if name != "step_weights"):
                found |= ctx.bridge.hypergradient(weights)
        gradients: list[Tensor | None] = []
        for name, like, wanted in zip(names, likes, needed, strict=True):
            if not wanted:
                gradients.append(None)
            elif found is None:  # no weight: nothing arrives; a weight that is not finite: everything is NaN
                gradients.append(torch.full_like(like, 0.0 if np.isfinite(weights).all() else torch.nan))
            else:
                zero = np.zeros(tuple(like.shape))
                array = found[name] if isinstance(name, str) else found["initial"].get(name, zero)
                gradients.append(torch.from_numpy(np.ascontiguousarray(array)).to(like.dtype))
        return None, *gradients


class _DirectGradient(torch.autograd.Function):
    """Metrics already measured, and their derivative with the trained weights held fixed."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, labels: Tensor, bridge: _Bridge) -> Tensor:
        ctx.save_for_backward(images, labels)
        ctx.bridge = bridge
        return torch.from_numpy(bridge.values())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_metrics: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images, labels = ctx.saved_tensors
        weights = d_metrics.numpy()
        found = ctx.bridge.direct_gradient(images.detach().numpy(), labels.detach().numpy(), weights)
        d_images, d_labels = (
            torch.from_numpy(array).to(like.dtype) if wanted else None
            for array, like, wanted in zip(found, (images, labels), ctx.needs_input_grad[:2], strict=True)
        )
        return d_images, d_labels, None


def _checked_labels(name: str, labels: Tensor) -> npt.NDArray[Any]:
    if not isinstance(labels, Tensor) or labels.device.type != "cpu":
        raise TypeError(f"{name} is a {type(labels).__name__}, expected a torch.Tensor on the CPU")
    array: npt.NDArray[Any] = labels.detach().numpy()
    return array


def _checked_step_weights(weights: Tensor | None, steps: int) -> npt.NDArray[np.float64]:
    if weights is None:
        return np.full(steps, 1 / steps)
    array: npt.NDArray[np.float64] = weights.detach().numpy().astype(np.float64)
    if array.shape != (steps,):
        raise ValueError(f"step_weights have shape {array.shape}, expected ({steps},): one for each step")
    return array


def _array(weights: npt.NDArray[Any] | Tensor) -> npt.NDArray[Any]:
    return weights.detach().numpy() if isinstance(weights, Tensor) else weights


def _check_images(name: str, images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(f"{name} is a {type(images).__name__}, expected a torch.Tensor")
    if images.dtype not in (torch.float32, torch.float64) or images.device.type != "cpu":
        raise TypeError(f"{name} is {images.dtype} on {images.device}, expected float32 or float64 on the CPU")


def _check_settings(
    gradient: str,
    metric: str,
    step_weights: Tensor | None,
    window: int | None,
    rates: Tensor | None,
    initial_scales: Tensor | None,
    init: Init,
    training: dict[str, Any],
) -> None:
    if gradient not in ("unrolled", "direct"):
        raise ValueError(f'gradient is {gradient!r}, expected "unrolled" or "direct"')
    if metric not in ("probability", "loss", "training_loss"):
        raise ValueError(f'metric is {metric!r}, expected "probability", "loss" or "training_loss"')
    if gradient == "direct" and metric == "training_loss":
        raise ValueError('metric is "training_loss", which has no direct gradient: use gradient="unrolled"')
    if step_weights is not None and metric != "training_loss":
        raise ValueError(f'step_weights are given with metric "{metric}", expected "training_loss" or no step_weights')
    if (
        initial_scales is not None
        and initial_scales.requires_grad
        and (window is not None or not isinstance(init, str))
    ):
        what = "explicit weights as init" if window is None else f"window {window}"
        raise ValueError(f"initial_scales are differentiated with {what}, expected drawn weights and no window")
    if gradient == "direct" and window is not None:
        raise ValueError(f'window is {window}, expected None: it belongs to gradient="unrolled", not to "direct"')
    if rates is not None and "schedule" in training:
        raise ValueError("rates and schedule are both given, expected one of them")
    decided = {"dtype": "it follows images", "evaluate": "metrics are always read", "statistics": "batch"}
    for name, reason in decided.items():
        if name in training:
            raise TypeError(f"{name} cannot be set here: {reason}")
