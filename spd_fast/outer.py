"""The outer loop: change the dish until the motifs trained on it rank their cells as the truth does.

The loop is ordinary PyTorch over `spd_fast.torch.motif_metrics`: train motifs, read a metric off each, compare the
metrics with the cells' accuracies, step the images along the gradient.

References
----------
Cassimon et al., Predicting Image Classifier Performance Using the Synthetic Petri Dish Method ("the paper").
Rawal et al. 2020, Synthetic Petri Dish, arXiv:2005.13092.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spd_fast import runs
from spd_fast.cell import Cell
from spd_fast.dish import Dish
from spd_fast.inner import derived_seed, start_dish, training_keywords
from spd_fast.losses import LOSSES, OuterLoss, kendall_tau, pearson_correlation
from spd_fast.recipes import Recipe
from spd_fast.torch import train_and_measure
from spd_fast.train import TrainResult

__all__ = ["MIN_MOTIFS", "FitResult", "OuterStep", "fit_dish"]

MIN_MOTIFS: Final = 3
"""Motifs that must not diverge for an outer step to be taken: two always correlate perfectly."""

_CURVE_DIGITS: Final = 5

Array = npt.NDArray[Any]
Number = float | None


@dataclass(frozen=True)
class OuterStep:
    """What is recorded of one outer epoch: one line of ``metrics.jsonl``. None stands where a motif diverged.

    Attributes
    ----------
    epoch : int
        Counted from 0.
    loss, pearson : float or None
        Outer loss, and the signed correlation of metric and truth; before the step. None where the step was skipped.
    kendall_tau : float
        Tau-b of the recipe's ranking score (accuracy or metric) and truth; 0 where it is undefined (the paper, section 5.2).
    kendall_tau_metric : float
        The same of the metric, whatever the recipe ranks by.
    tied, perfect : bool
        Whether the ranking scores of all motifs are equal; whether all motifs classify the whole dish correctly.
    cells : tuple of K str
        Hashes of the cells.
    truth, metric, accuracy, max_accuracy : tuple of K float
        Accuracy of the cell; metric and accuracy of its motif on the dish after training; the highest accuracy of any
        inner epoch, as training saw it (the paper's figure 2).
    diverged : tuple of K bool
        Motifs that diverged take no part in the loss.
    curve_accuracy, curve_accuracy_sd, curve_loss, curve_loss_sd : tuple of floats, one per inner epoch
        Mean and population standard deviation over the motifs that did not diverge (the paper's figure 3), rounded.
    gradient_norm : float or None
        Euclidean norm of the gradient of the loss with respect to the images.
    skipped : str
        Why the images were not changed in this epoch; empty where they were.
    seconds : float
        Wall time of the epoch.
    """

    epoch: int
    loss: Number
    pearson: Number
    kendall_tau: float
    kendall_tau_metric: float
    tied: bool
    perfect: bool
    cells: tuple[str, ...]
    truth: tuple[float, ...]
    metric: tuple[Number, ...]
    accuracy: tuple[Number, ...]
    max_accuracy: tuple[Number, ...]
    diverged: tuple[bool, ...]
    curve_accuracy: tuple[float, ...]
    curve_accuracy_sd: tuple[float, ...]
    curve_loss: tuple[float, ...]
    curve_loss_sd: tuple[float, ...]
    gradient_norm: Number
    skipped: str
    seconds: float

    @property
    def mean_max_accuracy(self) -> float | None:
        """Mean of `max_accuracy` over the motifs that did not diverge."""
        values = [value for value in self.max_accuracy if value is not None]
        return float(np.mean(values)) if values else None

    def to_json(self) -> dict[str, Any]:
        """Return the step as a dictionary that `json.dumps` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "OuterStep":
        """Read what `to_json` returned.

        Raises
        ------
        ValueError
            If a field is missing or unknown.
        """
        names = set(cls.__dataclass_fields__)
        if set(record) != names:
            odd = ", ".join(sorted(set(record) ^ names))
            raise ValueError(f"a line of metrics does not fit this version: {odd} missing or unknown")
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
        }
        return cls(**fields)


@dataclass(frozen=True, eq=False)
class FitResult:
    """A learned dish and how it came about.

    Attributes
    ----------
    dish, start : Dish
        After learning and before.
    history : tuple of OuterStep
        One per outer epoch.
    """

    dish: Dish
    start: Dish
    history: tuple[OuterStep, ...]


Progress = Callable[[int, float, OuterStep | None], object]


def fit_dish(
    cells: Sequence[Cell],
    accuracy: npt.ArrayLike,
    recipe: Recipe,
    *,
    run: runs.Run | str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
    seed: int | None = None,
    loss: OuterLoss | None = None,
) -> FitResult:
    """Learn a dish on which motifs rank these cells by their accuracies.

    Parameters
    ----------
    cells : sequence of n Cell
        The pool. Only the cells drawn from it are touched.
    accuracy : array-like, shape (n,), finite
        Truth: more is better.
    recipe : Recipe
        Every setting.
    run : Run or path, optional
        Folder that records the run: a path is created; a folder opened by `spd_fast.runs.resume` is continued, and gives
        the same bits as a run that was never interrupted.
    progress : callable, optional
        ``progress(epoch, fraction, step)`` is called about ten times a second with the share of the epoch's training that
        is done and None, and at the end of each epoch with 1 and its record. What it raises stops the run.
    threads : int, optional
        Default: the processors that this process may use. Does not change the result.
    seed : int, optional
        Used in place of the recipe's.
    loss : callable, optional
        ``loss(metric, accuracy) -> scalar Tensor`` of tensors of shape (k,), differentiable in the metric, of which more
        stands for better; used in place of the recipe's. k is the number of motifs that did not diverge, at least 3.

    Returns
    -------
    FitResult

    Raises
    ------
    ValueError
        If cells and accuracies do not fit each other or the recipe, or a resumed run was begun with others.
    TypeError
        If `loss` returns anything but a scalar that depends on the metric.
    RunFolderError
        If the run folder cannot be created or written.

    Notes
    -----
    Same recipe, cells, accuracies and versions, same bits, whatever the number of threads. Ctrl-C stops within a second and
    leaves a run folder that can be resumed.
    """
    if seed is not None:
        recipe = recipe.replace({"seed": seed})
    truth = _checked_truth(cells, accuracy, recipe)
    if isinstance(run, runs.Run):
        if run.recipe != recipe:
            raise ValueError(f"the recipe differs from the one that {run.path} was begun with: resume with run.recipe")
        return _fit(cells, truth, recipe, run, progress, threads, loss)
    if run is None:
        return _fit(cells, truth, recipe, None, progress, threads, loss)
    with runs.create(run, recipe) as opened:
        return _fit(cells, truth, recipe, opened, progress, threads, loss)


def _fit(
    cells: Sequence[Cell],
    truth: Array,
    recipe: Recipe,
    run: runs.Run | None,
    progress: Progress | None,
    threads: int | None,
    loss: OuterLoss | None,
) -> FitResult:
    start = start_dish(recipe)
    identity = _identity(cells, truth, recipe, loss)
    images = torch.from_numpy(start.images.copy()).requires_grad_()
    optimizer = _image_optimizer(images, recipe)
    history = _restore(run, identity, images, optimizer) if run else []
    if run and not history:
        run.save_dish(start, start=True)
    labels = torch.from_numpy(start.labels)
    for epoch in range(len(history), recipe.outer.epochs):
        chosen = draw_cells(len(truth), epoch, recipe)
        step = _outer_epoch(
            images,
            labels,
            [cells[int(i)] for i in chosen],
            truth[chosen],
            recipe=recipe,
            epoch=epoch,
            optimizer=optimizer,
            loss=loss or LOSSES[recipe.outer.loss],
            threads=threads,
            progress=progress,
        )
        history.append(step)
        if run:
            run.append(step.to_json())
            run.save_checkpoint(epoch + 1, {"identity": identity, **_state(images, optimizer)})
        if progress:
            progress(epoch, 1.0, step)
    dish = Dish(images.detach().numpy().copy(), start.labels)
    if run and not run.finished:
        run.save_dish(dish)
    return FitResult(dish, start, tuple(history))


def draw_cells(n: int, epoch: int, recipe: Recipe) -> npt.NDArray[np.int64]:
    """Return which of `n` cells an outer epoch compares: a function of the recipe's seed and the epoch alone.

    A pass over the pool is a permutation cut into pieces; cells left over at its end are not used in that pass.
    """
    size = recipe.outer.cells
    passes, piece = divmod(epoch, n // size)
    order = np.random.default_rng(derived_seed(recipe.seed, "cells", passes)).permutation(n)
    return order[piece * size : (piece + 1) * size]


def _outer_epoch(
    images: Tensor,
    labels: Tensor,
    cells: Sequence[Cell],
    truth: Array,
    *,
    recipe: Recipe,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    loss: OuterLoss,
    threads: int | None,
    progress: Progress | None,
) -> OuterStep:
    """Train the motifs of one outer epoch, change the images in place, return the record."""
    began = time.perf_counter()
    metric, result = train_and_measure(
        images,
        labels,
        cells,
        shape=recipe.shape,
        metric=recipe.outer.metric,
        gradient=recipe.outer.gradient,
        threads=threads,
        progress=(lambda fraction: progress(epoch, fraction, None)) if progress else None,
        **training_keywords(recipe.inner, derived_seed(recipe.seed, "inner", epoch if recipe.inner.redraw else 0)),
    )
    score = -metric if recipe.outer.metric == "loss" else metric
    usable = torch.from_numpy(~result.diverged) & torch.isfinite(metric.detach())
    target = torch.from_numpy(truth).to(images.dtype)
    value, norm, skipped = None, None, ""
    if int(usable.sum()) < MIN_MOTIFS:
        skipped = f"{int((~usable).sum())} of {len(cells)} motifs diverged"
    else:
        outer_loss = _checked_loss(loss(score[usable], target[usable]))
        value = _number(outer_loss.item())
        if value is None:
            skipped = "the outer loss is not finite"
        else:
            norm = _step(outer_loss, images, optimizer)
            skipped = "" if norm is not None else "the gradient is not finite"
    return _record(
        epoch,
        cells,
        truth,
        score.detach(),
        metric.detach(),
        usable,
        result,
        recipe=recipe,
        loss=value,
        norm=norm,
        skipped=skipped,
        seconds=time.perf_counter() - began,
    )


def _step(loss: Tensor, images: Tensor, optimizer: torch.optim.Optimizer) -> Number:
    """Change the images along the gradient and return its norm; where that is not finite, change nothing."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    norm = _number(float(torch.linalg.vector_norm(images.grad.double())))
    if norm is not None:
        with _one_torch_thread():
            optimizer.step()
    return norm


def _record(
    epoch: int,
    cells: Sequence[Cell],
    truth: Array,
    score: Tensor,
    metric: Tensor,
    usable: Tensor,
    result: TrainResult,
    *,
    recipe: Recipe,
    loss: Number,
    norm: Number,
    skipped: str,
    seconds: float,
) -> OuterStep:
    assert result.train is not None
    kept = usable.numpy()
    final = np.asarray(result.train.accuracy, np.float64)
    ranking = final if recipe.outer.ranking == "accuracy" else score.double().numpy()
    correlation = None
    if kept.sum() >= 2:
        correlation = float(pearson_correlation(score[usable].double(), torch.from_numpy(truth[kept])))
    curves = {"accuracy": result.accuracy[kept], "loss": result.loss[kept]}
    return OuterStep(
        epoch=epoch,
        loss=loss,
        pearson=_number(correlation),
        kendall_tau=kendall_tau(ranking[kept], truth[kept]),
        kendall_tau_metric=kendall_tau(score.numpy()[kept], truth[kept]),
        tied=bool(kept.any() and np.ptp(ranking[kept]) == 0),
        perfect=bool(kept.all() and (final == 1).all()),
        cells=tuple(cell.module_hash for cell in cells),
        truth=tuple(map(float, truth)),
        metric=_numbers(metric.numpy()),
        accuracy=_numbers(final),
        max_accuracy=_numbers(result.accuracy.max(axis=1)),
        diverged=tuple(map(bool, ~kept)),
        curve_accuracy=_curve(curves["accuracy"], np.mean),
        curve_accuracy_sd=_curve(curves["accuracy"], np.std),
        curve_loss=_curve(curves["loss"], np.mean),
        curve_loss_sd=_curve(curves["loss"], np.std),
        gradient_norm=norm,
        skipped=skipped,
        seconds=seconds,
    )


def _image_optimizer(images: Tensor, recipe: Recipe) -> torch.optim.Optimizer:
    options = recipe.outer.optimizer.model_dump(exclude={"name"})
    return torch.optim.Adam([images], foreach=False, **options)


def _state(images: Tensor, optimizer: torch.optim.Optimizer) -> dict[str, Array]:
    """Return images and optimiser state as plain arrays, copied."""
    arrays = {"images": images.detach().numpy().copy()}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            arrays[f"optimizer.{index}.{name}"] = torch.as_tensor(value).numpy().copy()
    return arrays


def _restore(run: runs.Run, identity: Array, images: Tensor, optimizer: torch.optim.Optimizer) -> list[OuterStep]:
    """Put images and optimiser into the state of the run's checkpoint; return the history up to it."""
    restored = run.restore()
    if restored is None:
        return []
    _, arrays, records = restored
    try:
        begun = json.loads(arrays.pop("identity").tobytes())
        stored = torch.from_numpy(arrays.pop("images"))
        if stored.shape != images.shape:
            raise ValueError(f"images have shape {tuple(stored.shape)}, expected {tuple(images.shape)}")
        history = [OuterStep.from_json(record) for record in records]
    except (KeyError, ValueError) as error:
        raise runs.RunFolderError(f"{run.path} cannot be resumed, its checkpoint does not fit: {error}") from error
    for what, value in json.loads(identity.tobytes()).items():
        if begun.get(what) != value:
            raise ValueError(f"{run.path} was begun with another {what}: resume with the same, or start another run")
    with torch.no_grad():
        images.copy_(stored)
    state: dict[int, dict[str, Tensor]] = {}
    for key, array in arrays.items():
        _, index, name = key.split(".", 2)
        state.setdefault(int(index), {})[name] = torch.from_numpy(array.copy())
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return history


def _identity(cells: Sequence[Cell], truth: Array, recipe: Recipe, loss: OuterLoss | None) -> Array:
    """Return what a resumed run must share with its beginning, beside the recipe, as JSON bytes."""
    digest = hashlib.sha256(truth.tobytes())
    for i in draw_cells(len(truth), 0, recipe):
        digest.update(cells[int(i)].module_hash.encode())
    name = recipe.outer.loss if loss is None else getattr(loss, "__qualname__", type(loss).__qualname__)
    text = json.dumps({"truth": digest.hexdigest(), "loss": name})
    return np.frombuffer(text.encode(), np.uint8)


def _checked_truth(cells: Sequence[Cell], accuracy: npt.ArrayLike, recipe: Recipe) -> Array:
    truth = np.ascontiguousarray(accuracy, np.float64)
    if truth.shape != (len(cells),):
        raise ValueError(f"accuracy has shape {truth.shape}, expected ({len(cells)},) to match cells")
    bad = np.flatnonzero(~np.isfinite(truth))
    if len(bad):
        raise ValueError(f"accuracy[{bad[0]}] is {truth[bad[0]]}, expected finite numbers")
    if len(truth) < recipe.outer.cells:
        raise ValueError(
            f"{len(truth)} cells were given, expected at least {recipe.outer.cells}: the recipe compares that many at once "
            "(outer.cells)"
        )
    return truth


def _checked_loss(value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim != 0 or not value.requires_grad:
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise TypeError(f"loss returned {got}, expected a scalar tensor that depends on the metric")
    return value


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Keep PyTorch from cutting an update into one piece per thread: where the cuts fall may change the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _number(value: float | None) -> Number:
    return None if value is None or not np.isfinite(value) else float(value)


def _numbers(values: Array) -> tuple[Number, ...]:
    return tuple(_number(float(value)) for value in values)


def _curve(values: Array, reduce: Callable[..., Array]) -> tuple[float, ...]:
    if not len(values):
        return ()
    return tuple(round(float(value), _CURVE_DIGITS) for value in reduce(values.astype(np.float64), axis=0))
