"""The outer loop: it changes a dish until the motifs that are trained on it rank their cells as the truth does.

An outer epoch draws training cells of the pool, measures a metric of each (`spd_fast.outer.measure`), compares the metrics with the
target (`spd_fast.outer.losses`) and changes what is learned (`spd_fast.outer.optimizers`). The recipe chooses metric, loss and
optimizer.

References
----------
Cassimon et al., Predicting Image Classifier Performance Using the Synthetic Petri Dish Method ("the paper").
Rawal et al. 2020, Synthetic Petri Dish, arXiv:2005.13092.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spd_fast.base.display import shown_progress
from spd_fast.base.executors import Executor, Spread
from spd_fast.base.machine import thread_count
from spd_fast.base.ranks import kendall_tau
from spd_fast.base.stores import content_digest
from spd_fast.base.types import (
    Array,
    Number,
    Progress,
    checked_instance,
    checked_integer,
    checked_number,
    checked_shown_progress,
    shown,
)
from spd_fast.dish import Dish
from spd_fast.engine.specs import checked_cells
from spd_fast.outer import runs
from spd_fast.outer.forms import dish_of, dish_tensors, free_tensors
from spd_fast.outer.history import OuterEpoch, best_check, kept_check, validation_checks
from spd_fast.outer.losses import LOSSES, OuterLoss, pearson_correlation
from spd_fast.outer.measure import CellMetrics, Measure, measure_of
from spd_fast.outer.optimizers import StepTaken, copies, number, optimizer_of
from spd_fast.outer.pool import checked_truth, draw_cells, split_pool, transformed
from spd_fast.outer.ridge import ridge_weights
from spd_fast.outer.start import start_dish
from spd_fast.recipes.settings import Recipe, checked_recipe
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "MIN_MOTIFS",
    "FitResult",
    "fit_dish",
]

MIN_MOTIFS: Final = 3
"""Smallest number of motifs that did not diverge with which an outer step is taken. Two always correlate perfectly."""
CHECKPOINT_SECONDS: Final = 1.0
_CURVE_DIGITS: Final = 5


@dataclass(frozen=True, eq=False)
class FitResult:
    """A learned dish with its history.

    Attributes
    ----------
    dish, start : Dish
        The dish after learning, and before. ``outer.keep`` says whether `dish` is the last dish or the best one on the
        validation cells.
    history : tuple of OuterEpoch
        The records of all outer epochs.
    recipe : Recipe
        The recipe by which the dish was learned. `score_cells` takes the dish and the recipe.
    training_cells, validation_cells : tuple of int
        Positions of the cells that outer epochs compared, and of those on which dishes were only checked. The
        accuracies of all other cells were not used.
    """

    dish: Dish
    start: Dish
    history: tuple[OuterEpoch, ...]
    recipe: Recipe
    training_cells: tuple[int, ...]
    validation_cells: tuple[int, ...]

    @property
    def validation_tau(self) -> float | None:
        """Tau-b of `dish` on the validation cells; None if there are no validation cells.

        It is optimistic if the dish was chosen by it (``outer.keep`` is "best").
        """
        check = kept_check(self.history, self.recipe.outer.keep)
        return None if check is None else check[1]


FitProgress = Callable[[int, float, OuterEpoch | None], object]


def fit_dish(
    cells: Sequence[Candidate],
    accuracy: npt.ArrayLike,
    recipe: Recipe,
    *,
    run: runs.Run | str | os.PathLike[str] | None = None,
    progress: FitProgress | bool | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    seed: int | None = None,
    loss: OuterLoss | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> FitResult:
    """Learn a dish on which motifs rank these cells by their accuracies.

    Parameters
    ----------
    cells : sequence of n Cell, NatsCell or Perceptron
        The cells from which the pool is drawn.
    accuracy : array-like, shape (n,), finite
        The truth of the cells; more is better.
    recipe : Recipe
        All settings.
    run : Run or path, optional
        The run folder. A path is created. A run that `spd_fast.outer.runs.resume` opened is continued, and gives the same bits
        as a run that was never interrupted.
    progress : callable or bool, optional
        ``progress(epoch, fraction, record)`` is called about ten times a second, with the share of the outer epoch's
        training that is done and None for `record`; and at the end of each outer epoch, with 1 and its record. An
        exception that it raises stops the run. Default: a bar, as `spd_fast.rank` shows it.
    threads : int, optional
        Default: the processors that this process may use. The result does not depend on it.
    executor : concurrent.futures.Executor, dask.distributed.Client, or the module ray, optional
        Where motifs are trained and differentiated, as in `spd_fast.score_cells`. The result does not depend on it. Every outer epoch waits
        for its motifs, so this pays only where a motif takes a tenth of a second or more (docs/many_machines.md).
    seed : int, optional
        The seed, in place of the recipe's.
    loss : callable, optional
        ``loss(metric, target) -> scalar Tensor`` is used in place of the recipe's outer loss. Both tensors have shape (k,),
        where k is the number of motifs that did not diverge, at least 3. The loss must be differentiable in the metric. A
        larger metric stands for a better cell.
    checkpoint_seconds : float
        Seconds of finished work that a kill may cost a run, in addition to the outer epoch that it interrupts. 0 writes a checkpoint after
        every outer epoch.

    Returns
    -------
    FitResult

    Raises
    ------
    ValueError
        If cells, accuracies and recipe do not fit each other, or if a resumed run was begun with other cells or
        accuracies.
    TypeError
        If an argument is of the wrong type, or `loss` returns anything but a scalar that depends on the metric.
    RunFolderError
        If the run folder cannot be created or written.

    Warns
    -----
    UserWarning
        If all training cells have the same target, so that there is nothing to rank by.

    Notes
    -----
    The same recipe, cells, accuracies and versions give the same bits, for any number of threads. Ctrl-C stops within a
    second and leaves a run folder that can be resumed.
    """
    recipe = checked_recipe(recipe)
    cells = checked_cells(cells, recipe.shape)
    thread_count(threads)
    checked_shown_progress(progress)
    checked_number("checkpoint_seconds", checkpoint_seconds, 0, finite=False)
    if loss is not None and not callable(loss):
        raise TypeError(f"loss is {shown(loss)}, expected a function of metric and target, or None")
    if run is not None:
        checked_instance("run", run, (runs.Run, str, os.PathLike), "a path, or a run that runs.resume opened")
    if seed is not None:
        recipe = recipe.replace({"seed": checked_integer("seed", seed)})
    truth = checked_truth(cells, accuracy, recipe.outer)
    if isinstance(run, runs.Run) and run.recipe != recipe:
        raise ValueError(f"the recipe differs from the one that {run.path} was begun with: resume with run.recipe")
    spread = Spread.of(executor, threads)
    with ExitStack() as opened:
        report = opened.enter_context(_shown(progress, recipe.outer.epochs))
        if run is not None and not isinstance(run, runs.Run):
            run = opened.enter_context(runs.create(run, recipe))
        return _fit(cells, truth, recipe, run, report, threads, spread, loss, checkpoint_seconds)


@contextmanager
def _shown(progress: FitProgress | bool | None, epochs: int) -> Iterator[FitProgress | None]:
    """Yield what is called with the progress of outer epochs, or None if nobody is to see it."""
    if callable(progress):
        yield progress
        return
    with shown_progress(progress, "learning the dish") as update:
        if update is None:
            yield None
        else:
            yield lambda epoch, share, record: update(f"outer epoch {epoch + 1} of {epochs}", (epoch + share) / epochs)


def _fit(
    cells: Sequence[Candidate],
    truth: Array,
    recipe: Recipe,
    run: runs.Run | None,
    progress: FitProgress | None,
    threads: int | None,
    spread: Spread | None,
    loss: OuterLoss | None,
    checkpoint_seconds: float,
) -> FitResult:
    start = start_dish(recipe)
    followed = recipe.optimized if recipe.outer.derivative is not None else ()
    free = free_tensors(start, recipe.outer.learn, recipe.form, followed)
    start = dish_of(dish_tensors(free, start, recipe.form))  # as it is measured: free tensors may change last bits
    training_cells, validation_cells = split_pool(len(truth), recipe.outer, recipe.seed)
    target = transformed(truth[training_cells], recipe.outer)
    if np.ptp(target) == 0:
        warnings.warn(
            f"all training cells have the same accuracy, or the same target ({target[0]}): there is nothing to rank by, and a dish "
            "learns nothing; give cells of different accuracies",
            stacklevel=3,
        )
    loop = _Loop(
        recipe=recipe,
        cells=cells,
        truth=truth,
        target=target,
        training_cells=training_cells,
        validation_cells=validation_cells,
        start=start,
        free=free,
        measure=measure_of(cells, start, recipe, threads, spread),
        loss=loss or LOSSES[recipe.outer.loss],
        progress=progress,
    )
    if run:
        loop.restore(run, _identity(loop, loss))
        if not loop.history:
            run.save_dish(start, start=True)
    saved = time.monotonic()
    while not loop.done:
        loop.run_epoch()
        record = loop.history[-1]
        if run:
            run.append(record.to_json())
            if loop.done or time.monotonic() - saved >= checkpoint_seconds:
                run.save_checkpoint(len(loop.history), loop.state())
                saved = time.monotonic()
        if progress:
            progress(record.epoch, 1.0, record)
    dish = dish_of(dish_tensors(loop.best if recipe.outer.keep == "best" else loop.free, start, recipe.form))
    if run and not run.finished:
        run.save_dish(dish)
    cells_of_fit = tuple(training_cells.tolist()), tuple(validation_cells.tolist())
    return FitResult(dish, start, tuple(loop.history), recipe, *cells_of_fit)


@dataclass(eq=False)
class _Loop:
    """The state of the outer loop between two outer epochs.

    An outer epoch changes `free`, `optimizer`, `best` and `history`, and nothing else.
    """

    recipe: Recipe
    cells: Sequence[Candidate]
    truth: Array  # of all cells
    target: Array  # of the training cells
    training_cells: npt.NDArray[np.int64]
    validation_cells: npt.NDArray[np.int64]
    start: Dish
    free: dict[str, Tensor]
    measure: Measure
    loss: OuterLoss
    progress: FitProgress | None
    history: list[OuterEpoch] = field(default_factory=list)

    def __post_init__(self) -> None:
        optimized = {name: self.free[name] for name in self.recipe.optimized}
        self.optimizer = optimizer_of(optimized, self.recipe.outer, self.recipe.seed)
        self.best = copies(self.free)  # the free tensors that ranked the validation cells best

    @property
    def done(self) -> bool:
        """Whether all outer epochs are done, or tau on the validation cells has not risen for ``outer.patience`` of them."""
        patience, checks = self.recipe.outer.patience, validation_checks(self.history)
        if patience is not None and checks and checks[-1][0] - best_check(checks)[0] >= patience:
            return True
        return len(self.history) >= self.recipe.outer.epochs

    def drawn(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the positions, among the training cells, of those that an outer epoch compares."""
        return draw_cells(len(self.training_cells), self.recipe.outer.cells, epoch, self.recipe.seed)

    def run_epoch(self) -> None:
        """Run one outer epoch and append its record to the history."""
        with one_torch_thread():
            self.history.append(self._run_epoch(len(self.history)))

    def _run_epoch(self, epoch: int) -> OuterEpoch:
        began, began_core = time.perf_counter(), time.process_time()
        validation_tau_start = self._check_validation(0) if epoch == 0 else None
        if epoch % self.recipe.outer.check_every == 0:
            self._solve()
        drawn = self.drawn(epoch)
        rows = self.training_cells[drawn]
        target = torch.from_numpy(self.target[drawn]).to(getattr(torch, self.recipe.dtype))
        report = None if self.progress is None else partial(_report, self.progress, epoch)
        with torch.set_grad_enabled(any(value.requires_grad for value in self.free.values())):
            cell_metrics = self._measured(rows, epoch, report)
            loss, skipped = self._compare(cell_metrics, target)

        def again() -> Number:
            with torch.no_grad():
                measured, _ = self._compare(self._measured(rows, epoch, None), target)
            return None if measured is None else number(measured.item())

        taken, trust = StepTaken(skipped=skipped), None
        if loss is not None and not skipped:
            taken = self.optimizer.take(loss, again, epoch, [record.gradient_norm for record in self.history])
            every = self.recipe.outer.trust_every
            if taken.gradient_norm is not None and every and epoch % every == 0:
                trust = _trust(loss.item(), again(), taken.predicted)
        if epoch + 1 == self.recipe.outer.epochs and self.recipe.optimized:
            self._solve()
        validation_tau = self._check_validation(epoch + 1)
        return _record(
            epoch,
            [self.cells[row] for row in rows.tolist()],
            self.truth[rows],
            cell_metrics,
            loss=None if loss is None else number(loss.item()),
            gradient_norm=taken.gradient_norm,
            trust=trust,
            validation_tau_start=validation_tau_start,
            validation_tau=validation_tau,
            skipped=taken.skipped,
            seconds=time.perf_counter() - began,
            core_seconds=time.process_time() - began_core,
        )

    def _measured(self, rows: npt.NDArray[np.int64], epoch: int | None, progress: Progress | None) -> CellMetrics:
        tensors = dish_tensors(self.free, self.start, self.recipe.form)
        return self.measure(tensors, rows.tolist(), epoch, progress)

    def _compare(self, cell_metrics: CellMetrics, target: Tensor) -> tuple[Tensor | None, str]:
        """Return the outer loss (None if there is none), and the reason why the dish must not follow it (empty if it
        may)."""
        usable = torch.isfinite(cell_metrics.metric.detach())
        if int(usable.sum()) < MIN_MOTIFS:
            return None, f"{int((~usable).sum())} of {len(usable)} motifs diverged"
        loss = _checked_loss(self.loss(cell_metrics.score[usable], target[usable]))
        if number(loss.item()) is None:
            return None, "the outer loss is not finite"
        perfect, limit = int((cell_metrics.accuracy == 1).sum()), self.recipe.outer.saturation
        if limit is not None and perfect >= limit * len(usable):
            return loss, f"{perfect} of {len(usable)} motifs are perfect"
        return loss, ""

    def _check_is_due(self, epochs_done: int) -> bool:
        outer = self.recipe.outer
        return epochs_done % outer.check_every == 0 or epochs_done >= outer.epochs

    def _solve(self) -> None:
        """If the recipe asks for it, replace the step weights by those of a ridge regression on the training cells."""
        if self.recipe.outer.step_weights != "ridge":
            return
        with torch.no_grad():
            cell_metrics = self._measured(self.training_cells, None, None)
        assert cell_metrics.step_loss is not None  # the recipe has the metric "training_loss"
        finite = np.isfinite(cell_metrics.metric.numpy())
        if finite.sum() >= MIN_MOTIFS:
            solved = ridge_weights(-cell_metrics.step_loss[finite], self.target[finite])
            if solved.any():
                self.free["step_weights"].copy_(torch.from_numpy(solved * self.recipe.steps))

    def _check_validation(self, epochs_done: int) -> Number:
        """If a check is due after so many outer epochs, return tau on the validation cells, and remember the dish with
        the highest tau."""
        if not len(self.validation_cells) or not self._check_is_due(epochs_done):
            return None
        with torch.no_grad():
            ranking = self._measured(self.validation_cells, None, None).ranking
        lowest = np.nanmin(ranking, initial=0.0) - 1  # a cell whose motif diverged ranks last
        tau = kendall_tau(np.where(np.isnan(ranking), lowest, ranking), self.truth[self.validation_cells])
        if all(tau > other for _, other in validation_checks(self.history)):
            self.best = copies(self.free)
        return tau

    def state(self) -> dict[str, Array]:
        """Return copies of everything that an outer epoch changes, as plain arrays, and the learned arrays of the present
        dish."""
        dish = dish_of(dish_tensors(self.free, self.start, self.recipe.form)).arrays()
        arrays = {name: array for name, array in dish.items() if name in self.free}
        for prefix, tensors in (("free", self.free), ("best", self.best)):
            arrays |= {f"{prefix}.{name}": value.detach().numpy().copy() for name, value in tensors.items()}
        return arrays | {f"optimizer.{name}": array for name, array in self.optimizer.state().items()}

    def restore(self, run: runs.Run, identity: dict[str, Any]) -> None:
        """Restore the state of the run's checkpoint, if it has one."""
        restored = run.restore(identity)
        if restored is None:
            return
        _, arrays, records = restored
        try:
            stored = {name: torch.from_numpy(arrays.pop(f"free.{name}")) for name in self.free}
            best = {name: torch.from_numpy(arrays.pop(f"best.{name}")) for name in self.free}
            for name, value in self.free.items():
                if stored[name].shape != value.shape:
                    raise ValueError(f"{name} have shape {tuple(stored[name].shape)}, expected {tuple(value.shape)}")
            history = [OuterEpoch.from_json(record) for record in records]
        except (KeyError, ValueError) as error:
            raise runs.RunFolderError(f"{run.path} cannot be resumed, its checkpoint does not fit: {error}") from error
        with torch.no_grad():
            for name, value in self.free.items():
                value.copy_(stored[name])
        optimizer = {
            name.removeprefix("optimizer."): array for name, array in arrays.items() if name.startswith("optimizer.")
        }
        self.optimizer.restore(optimizer)
        self.best, self.history = best, history


def _report(progress: FitProgress, epoch: int, fraction: float) -> None:
    progress(epoch, fraction, None)


def _trust(before: float, after: Number, predicted: float) -> Number:
    """Return the actual over the predicted change of the loss; None if there is no loss after the step, or no change
    was predicted."""
    if after is None or predicted == 0:
        return None
    return number((after - before) / predicted)


def _record(
    epoch: int,
    cells: Sequence[Candidate],
    truth: Array,
    cell_metrics: CellMetrics,
    *,
    loss: Number,
    gradient_norm: Number,
    trust: Number,
    validation_tau_start: Number,
    validation_tau: Number,
    skipped: str,
    seconds: float,
    core_seconds: float,
) -> OuterEpoch:
    metric = cell_metrics.metric.detach()
    score, final = cell_metrics.score.detach(), cell_metrics.accuracy
    finite = np.isfinite(metric.numpy())
    ranking = cell_metrics.ranking
    correlation = None
    if finite.sum() >= 2:
        correlation = float(
            pearson_correlation(score[torch.from_numpy(finite)].double(), torch.from_numpy(truth[finite]))
        )
    curves = {"accuracy": cell_metrics.curve_accuracy[finite], "loss": cell_metrics.curve_loss[finite]}
    return OuterEpoch(
        epoch=epoch,
        loss=loss,
        pearson=number(correlation),
        kendall_tau=kendall_tau(ranking[finite], truth[finite]),
        kendall_tau_metric=kendall_tau(score.numpy()[finite], truth[finite]),
        tied=bool(finite.any() and np.ptp(ranking[finite]) == 0),
        perfect=bool(finite.all() and (final == 1).all()),
        cells=tuple(cell.module_hash for cell in cells),
        truth=tuple(map(float, truth)),
        metric=_numbers(metric.numpy()),
        accuracy=_numbers(final),
        max_accuracy=_numbers(cell_metrics.curve_accuracy.max(axis=1)),
        diverged=tuple(map(bool, ~finite)),
        curve_accuracy=_curve(curves["accuracy"], np.mean),
        curve_accuracy_sd=_curve(curves["accuracy"], np.std),
        curve_loss=_curve(curves["loss"], np.mean),
        curve_loss_sd=_curve(curves["loss"], np.std),
        gradient_norm=gradient_norm,
        trust=trust,
        validation_tau_start=validation_tau_start,
        validation_tau=validation_tau,
        skipped=skipped,
        seconds=seconds,
        core_seconds=core_seconds,
    )


def _identity(loop: _Loop, loss: OuterLoss | None) -> dict[str, Any]:
    """Return what must be the same when a run is resumed, beside the recipe."""
    first = [loop.cells[row].module_hash for row in loop.training_cells[loop.drawn(0)].tolist()]
    start = {name: tensor.numpy() for name, tensor in dish_tensors({}, loop.start, loop.recipe.form).items()}
    return {
        "cells": content_digest({"first": np.array(first)}),
        "truth": content_digest({"truth": loop.truth}),
        "start": content_digest(start),
        "loss": loop.recipe.outer.loss if loss is None else getattr(loss, "__qualname__", type(loss).__qualname__),
    }


def _checked_loss(value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim != 0 or (torch.is_grad_enabled() and not value.requires_grad):
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise TypeError(f"loss returned {got}, expected a scalar tensor that depends on the metric")
    return value


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Run PyTorch on one thread, because the last bit of an update may depend on how threads divide it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _numbers(values: Array) -> tuple[Number, ...]:
    return tuple(number(float(value)) for value in values)


def _curve(values: Array, reduce: Callable[..., Array]) -> tuple[float, ...]:
    if not len(values):
        return ()
    return tuple(round(float(value), _CURVE_DIGITS) for value in reduce(values.astype(np.float64), axis=0))
