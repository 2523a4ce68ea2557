"""Readings: scores and learning curves of cells on dishes, learned or not. Predictors use them as features."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.executors import Executor, Spread
from spd_fast.base.extras import required
from spd_fast.base.progress import part_of, share_of
from spd_fast.base.seeds import derived_seed
from spd_fast.base.stores import Measurements
from spd_fast.base.sums import mean_of, sum_of
from spd_fast.base.types import Array, Progress
from spd_fast.dish import Dish
from spd_fast.engine.training import TrainResult
from spd_fast.recipes.settings import Recipe
from spd_fast.scoring import Where, read_score, replicates_of, spread_motifs, train_cells
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "KeptReadings",
    "LearnedDish",
    "MotifReadings",
    "learn_dish",
    "learn_folds",
    "mean_scaled",
    "motif_readings",
    "read_all",
    "read_kept",
    "readings_of",
    "readings_of_piece",
]

_PIECES: Final = 8
"""Number of pieces of the inner loop, of about equal length. A learning curve has the mean training loss of each piece."""

_PIECE_CELLS: Final = 64
"""Cells in a piece of work that is kept on the disk when it is done: a few seconds of training."""
_MOST_KEPT: Final = 100_000
"""Cells of which `KeptReadings` keeps readings, about 300 bytes each. With more it forgets all."""


# ---- reading motifs


@dataclass(frozen=True, eq=False)
class MotifReadings:
    """Scores and learning curves of n cells on one dish: means over the recipe's replicates.

    Attributes
    ----------
    score : ndarray, shape (n,), float64
        The scores that `spd_fast.scoring.score_cells` returns; larger is better. NaN if a motif diverged.
    curve : ndarray, shape (n, M), float64
        The learning curve: for each eighth of the inner loop's steps, the logarithm of the mean training loss. If there are
        fewer than eight steps, each step is a piece of its own. NaN if a motif diverged.
    step_loss : ndarray, shape (n, T), float64
        The training loss of every step. It is not finite after a motif has diverged.
    seconds : ndarray, shape (n,)
        Seconds of one core for each cell, the sum over replicates.
    """

    score: Array
    curve: Array
    step_loss: Array
    seconds: Array


def motif_readings(
    dish: Dish,
    recipe: Recipe,
    cells: Sequence[Candidate],
    *,
    replicates: Sequence[int] | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> MotifReadings:
    """Train motifs of cells on a dish as the recipe says, and return their scores and learning curves.

    Parameters
    ----------
    dish : Dish
        A dish, learned or not.
    recipe : Recipe
        It says which motif, inner loop, metric and seed to use.
    cells : sequence of n Cell, NatsCell or Perceptron
    replicates : sequence of int, optional
        The replicates that are trained and averaged. Default: all of the recipe's.
    threads, executor, progress
        As in `spd_fast.score_cells`.

    Raises
    ------
    ValueError
        If dish and recipe do not fit each other.
    """
    if executor is not None:
        return _spread_readings(dish, recipe, cells, replicates, Spread(executor, threads), progress)
    results = train_cells(dish, recipe, cells, replicates=replicates, threads=threads, progress=progress)
    return readings_of(results, recipe, dish)


def readings_of(results: Sequence[TrainResult], recipe: Recipe, dish: Dish) -> MotifReadings:
    """Return the readings of motifs that `spd_fast.scoring.train_cells` trained: one result for each replicate of the same cells."""
    scores, curves, trained, seconds = [], [], [], []
    for result in results:
        steps = np.asarray(result.recorded["step_loss"], np.float64)
        pieces = np.array_split(steps, min(_PIECES, steps.shape[1]), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithms = np.log(np.stack([piece.mean(axis=1) for piece in pieces], axis=1))
        curves.append(np.where(np.isfinite(logarithms) & ~result.diverged[:, None], logarithms, np.nan))
        trained.append(steps)
        scores.append(read_score(result, recipe, dish))
        seconds.append(np.asarray(result.seconds, np.float64))
    return MotifReadings(mean_of(scores), mean_of(curves), mean_of(trained), sum_of(seconds))


def readings_of_piece(where: Where, cells: Sequence[Candidate], replicate: int) -> MotifReadings:
    """Return the readings of one replicate of some cells, on a worker (`spd_fast.scoring.spread_motifs`)."""
    dish, recipe, threads = where
    return motif_readings(dish, recipe, cells, replicates=[replicate], threads=threads)


def _spread_readings(
    dish: Dish,
    recipe: Recipe,
    cells: Sequence[Candidate],
    replicates: Sequence[int] | None,
    spread: Spread,
    progress: Progress | None,
) -> MotifReadings:
    wanted = replicates_of(recipe, replicates)
    n, steps = len(cells), recipe.steps
    score, seconds = (np.empty((len(wanted), n)) for _ in range(2))
    curve, step_loss = np.empty((len(wanted), n, min(_PIECES, steps))), np.empty((len(wanted), n, steps))
    for replicate, rows, found in spread_motifs(spread, readings_of_piece, dish, recipe, cells, wanted, progress):
        at = np.ix_(np.flatnonzero(np.equal(wanted, replicate)), rows)
        score[at], seconds[at] = found.score, found.seconds
        curve[at], step_loss[at] = found.curve, found.step_loss
    return MotifReadings(mean_of(list(score)), mean_of(list(curve)), mean_of(list(step_loss)), sum_of(list(seconds)))


def read_all(
    dishes: Sequence["LearnedDish"],
    cells: Sequence[Candidate],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[MotifReadings]:
    """Return the readings of the same cells on each of several dishes, as `motif_readings` does."""
    reports = [part_of(progress, k, len(dishes)) for k in range(len(dishes))]
    return [dish.read(cells, threads, report) for dish, report in zip(dishes, reports, strict=True)]


# ---- learned dishes


@dataclass(frozen=True, eq=False)
class LearnedDish:
    """A dish with the recipe by which motifs are trained and read on it. (The dish of learning curves is not learned.)

    Attributes
    ----------
    recipe : Recipe
    dish : Dish
    mean, spread : float
        Mean and standard deviation of the labelled cells' scores, by which scores are standardised.
    seconds : float
        Wall time that learning the dish took.
    """

    recipe: Recipe
    dish: Dish
    mean: float = 0.0
    spread: float = 1.0
    seconds: float = 0.0

    def read(
        self,
        cells: Sequence[Candidate],
        threads: int | None = None,
        progress: Progress | None = None,
        executor: Executor | None = None,
    ) -> MotifReadings:
        """Return the readings of cells on this dish, as `motif_readings` does."""
        return motif_readings(self.dish, self.recipe, cells, threads=threads, executor=executor, progress=progress)

    def scaled(self, score: Array) -> Array:
        """Return standardised scores, with mean 0 and standard deviation 1 over the labelled cells. A motif that diverged has
        the score -3."""
        return np.nan_to_num((score - self.mean) / self.spread, nan=-3.0)


class KeptReadings:
    """Scores and learning curves of cells on one dish, kept by cell, so that the motifs of a cell are trained once.

    Parameters
    ----------
    dish : LearnedDish
        It can be read as an attribute.
    """

    def __init__(self, dish: LearnedDish) -> None:
        self.dish = dish
        self._kept: dict[str, tuple[float, Array]] = {}

    def read(
        self,
        cells: Sequence[Candidate],
        threads: int | None = None,
        progress: Progress | None = None,
        executor: Executor | None = None,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return scores, shape (n,), and learning curves, shape (n, M), as `motif_readings` does.

        `progress` is not called if no motif has to be trained.
        """
        keys = [cell.key for cell in cells]
        found = {key: self._kept[key] for key in keys if key in self._kept}
        fresh = {key: cell for key, cell in zip(keys, cells, strict=True) if key not in found}
        if fresh:
            read = self.dish.read(list(fresh.values()), threads, progress, executor)
            new = dict(zip(fresh, zip(read.score.tolist(), read.curve, strict=True), strict=True))
            found |= new
            if len(self._kept) + len(new) > _MOST_KEPT:
                self._kept = {}
            self._kept.update(list(new.items())[:_MOST_KEPT])
        scores, curves = zip(*(found[key] for key in keys), strict=True)
        return np.array(scores), np.stack(curves)


def learn_dish(
    cells: Sequence[Candidate],
    accuracy: npt.ArrayLike,
    recipe: Recipe,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> LearnedDish:
    """Learn a dish from labelled cells, by `spd_fast.fit_dish` with all of them as the pool.

    The share of validation cells is that of the recipe's own pool, but there are at least 3. Parameters and errors are those
    of `spd_fast.fit_dish`; `progress` is called with the share of the work that is done.
    """
    required("torch", "learning a dish")
    from spd_fast.outer.fit import fit_dish

    recipe = _on_all(recipe, len(cells))

    def report(epoch: int, fraction: float, record: object) -> None:
        if progress is not None:
            progress((epoch + min(fraction, 1.0)) / recipe.outer.epochs)

    began = time.perf_counter()
    fit = fit_dish(cells, accuracy, recipe, threads=threads, progress=report)
    return LearnedDish(recipe, fit.dish, seconds=time.perf_counter() - began)


def _on_all(recipe: Recipe, n: int) -> Recipe:
    """Return the recipe with a pool of all of n cells, of which its share are validation cells, but at least 3."""
    pool, validation_cells = recipe.outer.pool, recipe.outer.validation_cells
    if pool is not None and validation_cells:
        validation_cells = max(3, validation_cells * n // pool)
    return recipe.replace({"outer.pool": None, "outer.validation_cells": validation_cells})


def read_kept(
    dish: LearnedDish,
    cells: Sequence[Candidate],
    kept: Measurements | None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return scores, shape (n,), and learning curves, shape (n, M), as `motif_readings` does, and keep them as they come."""
    if kept is None:
        read = dish.read(cells, threads, progress)
        return read.score, read.curve
    found = []
    for start in range(0, len(cells), _PIECE_CELLS):
        piece = cells[start : start + _PIECE_CELLS]
        report = share_of(progress, start / len(cells), len(piece) / len(cells))
        found.append(kept.keep(f"cells from {start}", partial(_scores_and_curves, dish, piece, threads, report)))
        if report is not None:
            report(1.0)
    return np.concatenate([each["score"] for each in found]), np.concatenate([each["curve"] for each in found])


def _scores_and_curves(
    dish: LearnedDish, cells: Sequence[Candidate], threads: int | None, progress: Progress | None
) -> dict[str, Array]:
    read = dish.read(cells, threads, progress)
    return {"score": read.score, "curve": read.curve}


def learn_folds(
    cells: Sequence[Candidate],
    accuracy: npt.ArrayLike,
    recipe: Recipe,
    folds: int,
    *,
    kept: Measurements | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.float64], list[LearnedDish]]:
    """Learn one dish for each fold, from the labelled cells of all other folds.

    Parameters
    ----------
    cells : sequence of n Cell, NatsCell or Perceptron
    accuracy : array-like, shape (n,)
    recipe : Recipe
    folds : int, 2 to n
        Number of folds. The recipe's seed decides which cells are in which fold.
    kept : Measurements, optional
        Keeps what was learned without each fold.
    threads, progress
        As in `learn_dish`.

    Returns
    -------
    scores : ndarray, shape (n,), float64
        The standardised score of every cell, on the dish that was learned without it.
    dishes : list of LearnedDish
        One dish for each fold. The score of any other cell is the mean of `LearnedDish.scaled` over them.
    """
    known = np.asarray(accuracy, np.float64)
    order = np.random.default_rng(derived_seed(recipe.seed, "folds")).permutation(len(cells))
    scores, dishes = np.empty(len(cells)), []
    for k in range(folds):
        out = order[k::folds]
        inside = np.setdiff1d(order, out)
        report = part_of(progress, k, folds)
        measure = partial(_learn_fold, cells, known, inside, recipe, threads, report)
        arrays = measure() if kept is None else kept.keep(f"fold {k}", measure)
        score, seconds = arrays.pop("score"), float(arrays.pop("seconds"))
        learned = LearnedDish(_on_all(recipe, len(inside)), Dish.from_arrays(arrays), seconds=seconds)
        if report is not None:
            report(1.0)
        finite = score[np.isfinite(score)]
        if len(finite) and finite.std() > 0:
            learned = replace(learned, mean=float(finite.mean()), spread=float(finite.std()))
        scores[out] = learned.scaled(score)[out]
        dishes.append(learned)
    return scores, dishes


def _learn_fold(
    cells: Sequence[Candidate],
    accuracy: Array,
    inside: npt.NDArray[np.int64],
    recipe: Recipe,
    threads: int | None,
    report: Progress | None,
) -> dict[str, Array]:
    """Return the arrays of the dish that some of the cells teach, the scores of all cells on it, and the seconds that it took."""
    pool = [cells[int(row)] for row in inside]
    learned = learn_dish(pool, accuracy[inside], recipe, threads=threads, progress=part_of(report, 0, 2))
    score = learned.read(cells, threads, part_of(report, 1, 2)).score
    return {**learned.dish.arrays(), "score": score, "seconds": np.array(learned.seconds)}


def mean_scaled(dishes: Sequence[LearnedDish], scores: Sequence[Array]) -> npt.NDArray[np.float64]:
    """Return the mean over dishes of standardised scores, shape (n,), from the scores on each dish, shape (n,)."""
    return mean_of([dish.scaled(score) for dish, score in zip(dishes, scores, strict=True)])
