"""The engine as a PyTorch function from images to the metrics of trained motifs, which autograd can differentiate.

Any outer loss and any outer optimizer that is written in PyTorch works on top of `motif_metrics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spd_fast.base.executors import Spread
from spd_fast.base.types import Progress, checked_choice, checked_instance, checked_integer, checked_sequence, shown
from spd_fast.dish import Dish
from spd_fast.engine.gradients import MotifEvaluation, PackedMotifs, pack_motifs, read_motifs, weighted_sum
from spd_fast.engine.hypergradient import Reverse, differentiate
from spd_fast.engine.inner_loop import InnerLoop
from spd_fast.engine.spreading import differentiate_by, train_by
from spd_fast.engine.training import MotifMetrics, TrainResult, train
from spd_fast.learnables.initial_scales import checked_scales
from spd_fast.motif import LAYER_KINDS, Shape, layer_kind
from spd_fast.spaces.candidate import Candidate

__all__ = ["Asked", "Inputs", "measure_training", "motif_metrics", "packed_metrics"]

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
    """Train a motif of each cell and return its metric, differentiable by autograd.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W), float32 or float64, on the CPU
        Training images. The whole computation and the result have their dtype.
    labels : Tensor, shape (N,) int64 or (N, classes) floating point
        Hard labels, or soft labels.
    cells : sequence of K Cell, NatsCell or Perceptron
    shape : MotifShape, or PerceptronShape
    valid_images, valid_labels : Tensor, optional, both or neither
        The validation set. If it is given, the metric is read on it and not on the training set.
    metric : "probability", "loss" or "training_loss"
        Mean probability of the true class (Cassimon et al., equation 4), or mean cross-entropy, both read after training with
        batch statistics over the whole set; or the sum of the training losses of all steps times their step weights.
    step_weights : Tensor, shape (steps,), optional
        With "training_loss": factors of the training losses of the steps. Default: equal factors of sum 1.
    gradient : "unrolled" or "direct"
        "unrolled": the hypergradient, which is the exact derivative through every step of training (Rawal et al. 2020,
        arXiv:2005.13092), in images, soft labels, the validation set, `step_weights`, `rates`, `initial_scales` and `init`.
        "direct": the direct gradient, which is the derivative with the trained weights held fixed (Cassimon et al., section
        3.5), in the images of the set that the metric is read on, and for "loss" in its soft labels. It leaves out the influence
        of the training set on the weights.
    window : int, optional
        With "unrolled": differentiate through the last `window` steps of training only.
    rates : Tensor, shape (steps,), optional
        Learning rate of every step, in place of the optimizer's and of a schedule.
    initial_scales : Tensor, shape (4,), optional
        Factors of the drawn initial weights of stem, 3x3 convolutions, 1x1 convolutions and dense layer. With a `window` they
        must be constant, because it does not reach back to the initial weights.
    init : "shared", "motif" or sequence of K dicts
        Initial weights, as in `spd_fast.train_motifs`; the arrays may be tensors.
    **training
        Other keyword arguments of `spd_fast.train_motifs`, for example epochs, batch_size, optimizer, schedule and seed.

    Returns
    -------
    Tensor, shape (K,), of the dtype of `images`
        The metric of a motif that diverged is NaN. If you multiply it by 0 or leave it out, no NaN enters the gradient.

    Raises
    ------
    ValueError
        If a setting does not apply to the chosen gradient, or `train_motifs` refuses a value.
    TypeError
        If images or labels are not tensors of the right type, or `training` sets something that this function decides.

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
    inputs = Inputs(images, labels, valid_images, valid_labels, rates, initial_scales, step_weights, init)
    asked = Asked(metric, gradient, window)
    asked.require_fit(inputs)
    if rates is not None and "schedule" in training:
        raise ValueError("rates and schedule are both given, expected one of them")
    decided = {"dtype": "it follows images", "evaluate": "metrics are always read", "statistics": "batch"}
    for name, reason in decided.items():
        if name in training:
            raise TypeError(f"{name} cannot be set here: {reason}")
    known = {field.name for field in fields(InnerLoop)} | {"threads", "progress"}
    unknown = sorted(set(training) - known)
    if unknown:
        raise TypeError(
            f"{unknown[0]} is no setting of training, expected one of {', '.join(sorted(known - set(decided)))}"
        )
    how = {name: training.pop(name) for name in ("threads", "progress") if name in training}
    metrics, _ = measure_training(InnerLoop.of(**training), inputs, asked, cells, shape, **how)
    return metrics


@dataclass(frozen=True, eq=False)
class Inputs:
    """The tensors that a metric depends on. `motif_metrics` describes them. For None, the inner loop's setting is used."""

    images: Tensor
    labels: Tensor
    valid_images: Tensor | None = None
    valid_labels: Tensor | None = None
    rates: Tensor | None = None
    initial_scales: Tensor | None = None
    step_weights: Tensor | None = None
    init: Init | None = None

    def dish(self) -> Dish:
        """Check the tensors and return the dish that they make."""
        _check_images("images", self.images)
        if self.valid_images is not None:
            _check_images("valid_images", self.valid_images)
            if self.valid_images.dtype != self.images.dtype:
                raise TypeError(
                    f"valid_images has dtype {self.valid_images.dtype}, expected {self.images.dtype} to match images"
                )
        return Dish(
            self.images.detach().numpy(),
            _checked_labels("labels", self.labels),
            None if self.valid_images is None else self.valid_images.detach().numpy(),
            None if self.valid_labels is None else _checked_labels("valid_labels", self.valid_labels),
        )

    def loop(self, loop: InnerLoop, *, record_losses: bool) -> InnerLoop:
        """Return an inner loop with the settings that these tensors give."""
        changes: dict[str, Any] = {"dtype": np.dtype(str(self.images.dtype).removeprefix("torch."))}
        if self.rates is not None:
            changes["schedule"] = self.rates.detach().numpy().copy()
        if self.initial_scales is not None:
            changes["initial_scales"] = checked_scales(self.initial_scales.detach().numpy())
        if isinstance(self.init, str):
            changes["init"] = self.init
        elif self.init is not None:
            self.starts()
            changes["init"] = [{name: _array(w) for name, w in motif.items()} for motif in self.init]
        changes["record"] = tuple(sorted({*loop.record, *(["step_loss"] if record_losses else [])}))
        return replace(loop, **changes)

    def starts(self) -> list[tuple[int, str]]:
        """Return which initial weights are tensors, as (motif, name)."""
        if self.init is None or isinstance(self.init, str):
            return []
        checked_sequence("init", self.init, "weights by name, one dict for each cell, or 'shared' or 'motif'")
        for motif in self.init:
            checked_instance(
                "one of init", motif, Mapping, "a dict of arrays by name, as TrainResult.parameters holds them"
            )
        return [(k, name) for k, motif in enumerate(self.init) for name, w in motif.items() if isinstance(w, Tensor)]


@dataclass(frozen=True)
class Asked:
    """What a caller asks for: a metric, and which gradient of it."""

    metric: Metric = "probability"
    gradient: Gradient = "unrolled"
    window: int | None = None

    def require_fit(self, inputs: Inputs) -> None:
        """Raise unless metric, gradient and inputs fit each other.

        Raises
        ------
        ValueError
            If a setting is unknown, or an input does not belong to the metric or the gradient.
        """
        checked_choice("gradient", self.gradient, ("unrolled", "direct"))
        checked_choice("metric", self.metric, ("probability", "loss", "training_loss"))
        if self.window is not None:
            checked_integer("window", self.window, 0)
        for name in ("rates", "initial_scales", "step_weights"):
            given = getattr(inputs, name)
            if given is not None and (not isinstance(given, Tensor) or not given.is_floating_point()):
                raise TypeError(f"{name} is {shown(given)}, expected a torch.Tensor of floats")
        if self.gradient == "direct" and self.metric == "training_loss":
            raise ValueError('metric is "training_loss", which has no direct gradient: use gradient="unrolled"')
        if inputs.step_weights is not None and self.metric != "training_loss":
            raise ValueError(
                f'step_weights are given with metric "{self.metric}", expected "training_loss" or no step_weights'
            )
        scales = inputs.initial_scales
        explicit = inputs.init is not None and not isinstance(inputs.init, str)
        if scales is not None and scales.requires_grad and (self.window is not None or explicit):
            what = "explicit weights as init" if self.window is None else f"window {self.window}"
            raise ValueError(f"initial_scales are differentiated with {what}, expected drawn weights and no window")
        if self.gradient == "direct" and self.window is not None:
            raise ValueError(
                f'window is {self.window}, expected None: it belongs to gradient="unrolled", not to "direct"'
            )


def measure_training(
    loop: InnerLoop,
    inputs: Inputs,
    asked: Asked,
    cells: Sequence[Candidate],
    shape: Shape,
    *,
    threads: int | None = None,
    spread: Spread | None = None,
    progress: Progress | None = None,
) -> tuple[Tensor, TrainResult]:
    """Train motifs; return their metrics, differentiable in the inputs, and the result of the training.

    `motif_metrics` is the same with its settings as keywords.

    Parameters
    ----------
    loop : InnerLoop
        The inner loop. If `inputs` have a dtype, rates, initial scales or initial weights, those are used in its place.
    inputs : Inputs
    asked : Asked
    cells, shape, threads, progress
        As in `motif_metrics`, with its errors.
    spread : Spread, optional
        The executor that trains and differentiates motifs, in place of the threads of this process.
    """
    asked.require_fit(inputs)
    dish = inputs.dish()
    loop = inputs.loop(loop, record_losses=asked.metric == "training_loss")
    result = (
        train(loop, cells, shape, dish, threads=threads, progress=progress)
        if spread is None
        else train_by(spread, loop, cells, shape, dish, progress=progress)
    )
    measured = result.train if result.valid is None else result.valid
    assert measured is not None  # `evaluate` is always true here
    counted = None
    if asked.metric == "training_loss":
        counted = _checked_step_weights(inputs.step_weights, result.recorded["step_loss"].shape[1])
    bridge = _Bridge(cells, shape, inputs, asked, dish, loop, threads, spread, progress, result, measured, counted)
    if asked.gradient == "direct":
        on = (inputs.images, inputs.labels)
        if inputs.valid_images is not None and inputs.valid_labels is not None:
            on = (inputs.valid_images, inputs.valid_labels)
        metrics: Tensor = _DirectGradient.apply(*on, bridge)  # type: ignore[no-untyped-call]
    else:
        init: Any = inputs.init
        starts = [init[k][name] for k, name in inputs.starts()]
        learned = [getattr(inputs, name) for name in _LEARNED]
        metrics = _UnrolledGradient.apply(bridge, *learned, *starts)  # type: ignore[no-untyped-call]
    return metrics, result


@dataclass(frozen=True, eq=False)
class _Bridge:
    """A finished training with everything that the backward pass needs."""

    cells: Sequence[Candidate]
    shape: Shape
    inputs: Inputs
    asked: Asked
    dish: Dish
    loop: InnerLoop
    threads: int | None
    spread: Spread | None
    progress: Progress | None
    result: TrainResult
    measured: MotifMetrics
    step_weights: npt.NDArray[np.float64] | None  # with "training_loss"

    def values(self) -> npt.NDArray[Any]:
        values: npt.NDArray[Any]
        if self.step_weights is not None:
            values = np.where(
                self.result.diverged, np.nan, (self.result.recorded["step_loss"] * self.step_weights).sum(axis=-1)
            )
        else:
            values = self.measured.probability if self.asked.metric == "probability" else self.measured.loss
        return values.astype(self.loop.dtype)

    def direct_gradient(
        self, images: npt.NDArray[Any], labels: npt.NDArray[Any], factors: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return sum_k factors[k] d metric_k in images and in soft labels.

        Motifs of factor 0, which are usually those that diverged, take no part. A factor that is not finite makes
        everything NaN.
        """
        d_labels = np.zeros((len(labels), self.shape.classes), self.loop.dtype)
        if not np.isfinite(factors).all():
            return np.full(images.shape, np.nan, self.loop.dtype), d_labels + np.nan
        used = np.flatnonzero(factors).tolist()
        if not used:
            return np.zeros(images.shape, self.loop.dtype), d_labels
        cells, trained = [self.cells[k] for k in used], [self.result.parameters[k] for k in used]
        motifs = pack_motifs(cells, self.shape, trained, images.shape[1:], dtype=self.loop.dtype)
        reading = read_motifs(
            motifs,
            images,
            labels,
            metric=cast(_Read, self.asked.metric),
            threads=self.threads,
            direct_convolutions=self.loop.direct_convolutions,
        )
        return weighted_sum(factors[used], reading.d_images), weighted_sum(factors[used], reading.d_labels)

    def hypergradient(self, factors: npt.NDArray[Any]) -> dict[str, Any]:
        """Return sum_k factors[k] d metric_k in what training saw, by name, and factors[k] d metric_k in each motif's
        initial weights."""
        used = np.flatnonzero(factors).tolist()
        window = self.asked.window
        if self.step_weights is None:
            reverse = Reverse(cast(_Read, self.asked.metric), window=window)
        else:
            reverse = Reverse(metric_weight=0.0, step_weights=self.step_weights, window=window)
        loop = replace(self.loop, init=[self.result.initial[k] for k in used])
        what = loop, reverse, [self.cells[k] for k in used], self.shape, self.dish
        found = (
            differentiate(*what, threads=self.threads, progress=self.progress)
            if self.spread is None
            else differentiate_by(self.spread, *what, progress=self.progress)
        )
        sums = {
            name: weighted_sum(factors[used], getattr(found, f"d_{name}"))
            for name in ("images", "labels", "valid_images", "valid_labels", "rates")
        }
        initial = {
            (k, name): factors[k] * gradient
            for k, motif in zip(used, found.d_initial, strict=True)
            for name, gradient in motif.items()
        }
        return sums | {"initial": initial, "initial_scales": self._scale_gradient(initial)}

    def _scale_gradient(self, initial: Mapping[tuple[int, str], npt.NDArray[Any]]) -> npt.NDArray[np.float64] | None:
        """Return the derivative in the scales: of ``w = scale * drawn`` it is ``sum(dw * w) / scale``."""
        if self.loop.initial_scales is None:
            return None
        total = np.zeros(len(LAYER_KINDS))
        for (k, name), gradient in initial.items():
            start = self.result.initial[k][name]
            kind = layer_kind(name, start.shape)
            if kind is not None:
                total[kind] += np.vdot(gradient.astype(np.float64), start.astype(np.float64))
        return total / self.loop.initial_scales

    def step_weight_gradient(self, factors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return sum_k factors[k] d metric_k in the step weights."""
        return weighted_sum(factors, self.result.recorded["step_loss"])


def packed_metrics(
    motifs: PackedMotifs,
    images: Tensor,
    labels: Tensor,
    *,
    metric: _Read = "probability",
    threads: int | None = None,
) -> tuple[Tensor, MotifEvaluation]:
    """Read packed motifs on a set: return the metric of each, differentiable in images and soft labels, and the evaluation.

    The function does for trained motifs what `motif_metrics` does with ``gradient="direct"``. If autograd is on, metrics and
    derivatives are computed in one pass over the motifs.

    Parameters
    ----------
    motifs : PackedMotifs
        Motifs that `spd_fast.engine.gradients.pack_motifs` returned.
    images : Tensor, shape (N, C, H, W)
    labels : Tensor, shape (N,) int64 or (N, classes) floating point
    metric : "probability" or "loss"
    threads : int, optional

    Returns
    -------
    Tensor, shape (K,), of the dtype of `images`
    MotifEvaluation

    Raises
    ------
    TypeError
        If images or labels are not tensors of the right type, or images do not have the motifs' element type.
    ValueError
        If images or labels do not fit the motifs.
    """
    checked_instance("motifs", motifs, PackedMotifs, "what pack_motifs returned")
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
    metrics: Tensor = _PackedGradient.apply(images, labels, reading, values)  # type: ignore[no-untyped-call]
    return metrics, reading


class _PackedGradient(torch.autograd.Function):
    """Metrics of packed motifs with their derivatives, both computed in one pass."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, labels: Tensor, reading: MotifEvaluation, values: npt.NDArray[Any]) -> Tensor:
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
"""The inputs in which the unrolled gradient is a derivative, in the order of `_UnrolledGradient`'s arguments; initial weights
follow them."""


class _UnrolledGradient(torch.autograd.Function):
    """Metrics of a finished training with their derivative through the training."""

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
        # with saved tensors, autograd raises an error if one of them was changed in place before the backward pass
        ctx.save_for_backward(images, labels, valid_images, valid_labels, rates, initial_scales, step_weights, *starts)
        return torch.from_numpy(bridge.values())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_metrics: Tensor) -> tuple[Tensor | None, ...]:
        factors, needed, likes = d_metrics.numpy(), ctx.needs_input_grad[1:], ctx.saved_tensors
        names: list[Any] = [*_LEARNED, *ctx.bridge.inputs.starts()]
        found: dict[str, Any] | None = None
        if np.isfinite(factors).all() and np.any(factors):
            found = {}
            if needed[_LEARNED.index("step_weights")]:
                found["step_weights"] = ctx.bridge.step_weight_gradient(factors)
            if any(wanted for name, wanted in zip(names, needed, strict=True) if name != "step_weights"):
                found |= ctx.bridge.hypergradient(factors)
        gradients: list[Tensor | None] = []
        for name, like, wanted in zip(names, likes, needed, strict=True):
            if not wanted:
                gradients.append(None)
            elif found is None:  # all factors are 0, so the gradient is 0; or one is not finite, so everything is NaN
                gradients.append(torch.full_like(like, 0.0 if np.isfinite(factors).all() else torch.nan))
            else:
                zero = np.zeros(tuple(like.shape))
                array = found[name] if isinstance(name, str) else found["initial"].get(name, zero)
                gradients.append(torch.from_numpy(np.ascontiguousarray(array)).to(like.dtype))
        return None, *gradients


class _DirectGradient(torch.autograd.Function):
    """Metrics of a finished training with their derivative at fixed weights."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, labels: Tensor, bridge: _Bridge) -> Tensor:
        ctx.save_for_backward(images, labels)
        ctx.bridge = bridge
        return torch.from_numpy(bridge.values())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_metrics: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images, labels = ctx.saved_tensors
        factors = d_metrics.numpy()
        found = ctx.bridge.direct_gradient(images.detach().numpy(), labels.detach().numpy(), factors)
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


def _checked_step_weights(step_weights: Tensor | None, steps: int) -> npt.NDArray[np.float64]:
    if step_weights is None:
        return np.full(steps, 1 / steps)
    array: npt.NDArray[np.float64] = step_weights.detach().numpy().astype(np.float64)
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
