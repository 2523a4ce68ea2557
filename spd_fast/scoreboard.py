"""The scoreboard: how well scores rank cells that nobody learned from, beside everything that is known without a dish.

A `Trial` fixes the question: held-out cells, and for every seed a pool of labelled cells. Every row answers it with
scores of the held-out cells, one set for each seed (one in all where nothing depends on the seed); `judge` turns them into
rank agreement with intervals. All rows are judged on the same resamples of cells and seeds, so that their differences have
intervals, too.

References
----------
White et al. 2021, How powerful are performance predictors in neural architecture search?, arXiv:2104.01177: rank
agreement beside initialisation time and query time.
Cassimon et al., Predicting Image Classifier Performance Using the Synthetic Petri Dish Method ("the paper"): sections 2.1
and 2.2 name the low-fidelity and learning-curve baselines.
Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13: percentile intervals.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

import spd_fast
from spd_fast.base.files import load_arrays, remove_leftovers, save_arrays
from spd_fast.base.machine import describe_machine
from spd_fast.base.progress import part_of
from spd_fast.base.stores import Journal, content_digest
from spd_fast.base.sums import sum_of
from spd_fast.base.types import Array, NamedProgress
from spd_fast.dish import Dish
from spd_fast.features import SCALARS, structural_features
from spd_fast.outer.runs import Run
from spd_fast.outer.start import source_digest, start_dish
from spd_fast.predictor import LearnedDish, fit_gaussian_process, learn_dish, learn_folds, mean_scaled, read_all
from spd_fast.recipes import AdamSettings, DishSettings, InnerSettings, MotifSettings, OuterSettings, Recipe
from spd_fast.spaces.candidate import Candidate
from spd_fast.truth import TruthTable

__all__ = [
    "GOALS",
    "MEASURES",
    "Board",
    "Estimate",
    "Goal",
    "Judged",
    "Outcome",
    "Row",
    "Trial",
    "build_board",
    "draw_trial",
    "extrapolated_loss",
    "judge",
    "pool_of_run",
    "precision_at",
    "trial_of_pools",
]

MEASURES: Final = ("tau", "rho", "tau_top", "precision_10", "precision_50")
"""What a row is judged by: Kendall's tau-b; Spearman's rho; tau-b inside the true top 10 %; share of the 10 and of the 50
best-scored cells that are among the truly best 10 and 50."""
TOP: Final = 0.1
MIN_HELD_OUT: Final = 100
"""Fewer held-out cells than this say nothing: at 100, tau has a standard error of 0.07."""
GOAL_HELD_OUT, GOAL_SEEDS = 1000, 5
"""Held-out cells and seeds that a goal asks for."""
_SCHEMA: Final = "spd_fast.board/1"
_REMEDY: Final = "choose another folder"
_RESAMPLES: Final = 1000
_CONFIDENCE: Final = 0.95
_HORIZON: Final = 10.0
_LOW_FIDELITY: Final = Recipe(
    name="low_fidelity",
    summary="The network made small, trained briefly, read by its validation accuracy.",
    motif="B",
    dish=DishSettings(images=500, valid_images=200),
    inner=InnerSettings(epochs=4, optimizer=AdamSettings(lr=5e-3, weight_decay=1e-4), schedule="cosine"),
    outer=OuterSettings(metric="loss", ranking="accuracy", learn=("valid_images",)),
)
_PROXY_MOTIF: Final = MotifSettings(stem_channels=16, stacks=3, cells_per_stack=3)
_PROXIES: Final = Recipe(
    name="proxies",
    summary="The benchmark's network, narrow, and one batch: what zero-cost proxies are taken of.",
    motif=_PROXY_MOTIF,
    dish=DishSettings(images=60),
)


# ---- the question


@dataclass(frozen=True, eq=False)
class Trial:
    """Held-out cells, and labelled pools for every seed; no cell of a pool is held out.

    Attributes
    ----------
    held_out : TruthTable, n cells
    pools : tuple of S TruthTable
        The labelled cells of each seed.
    seeds : tuple of S int
        They also seed the dishes.
    labels : tuple of int, ascending
        Numbers of labelled cells that are tried: of each pool the first so many.
    """

    held_out: TruthTable
    pools: tuple[TruthTable, ...]
    seeds: tuple[int, ...]
    labels: tuple[int, ...]

    def pool(self, labels: int, seed: int) -> TruthTable:
        """Return the first `labels` cells of a seed's pool: all of a pool that is smaller."""
        return self.pools[seed].subset(np.arange(min(labels, len(self.pools[seed]))))

    def digest(self) -> str:
        """Return what identifies the cells, accuracies and seeds: 16 hexadecimal digits."""
        digest = hashlib.sha256(repr(self.seeds).encode())
        for table in (self.held_out, *self.pools):
            digest.update("".join(table.hashes).encode())
            digest.update(table.accuracy.tobytes())
        return digest.hexdigest()[:16]


def draw_trial(
    truth: TruthTable, *, labels: int | Sequence[int] = 100, held_out: int = 1000, seeds: int = 5, seed: int = 0
) -> Trial:
    """Draw held-out cells and pools uniformly from a truth table, no held-out cell in any pool.

    Parameters
    ----------
    truth : TruthTable
    labels : int or several, at least 6
        Cells of each pool. Of several numbers the smaller pools are the beginnings of the largest.
    held_out : int, at least 100
        Cells that are scored. The same for every seed; pools differ.
    seeds : int, at least 1
        How many pools.
    seed : int
        Of the draw of the held-out cells.

    Raises
    ------
    ValueError
        If a number is too small, or the table holds fewer different cells than one pool and the held-out cells.
    """
    if held_out < MIN_HELD_OUT:
        raise ValueError(
            f"held_out is {held_out}, expected at least {MIN_HELD_OUT}: fewer cells say nothing about a ranking"
        )
    numbers = sorted({labels} if isinstance(labels, int) else set(labels))
    if not numbers or numbers[0] < 6:
        raise ValueError(f"labels is {labels}, expected at least 6")
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}, expected at least 1")
    most = numbers[-1]
    if len(set(truth.hashes)) < held_out + most:
        raise ValueError(
            f"the truth holds {len(set(truth.hashes))} different cells, expected at least {held_out + most}: "
            f"{held_out} held out and {most} labelled; ask for fewer"
        )
    held, rest = truth.split(held_out, seed)
    return Trial(held, tuple(rest.sample(most, each) for each in range(seeds)), tuple(range(seeds)), tuple(numbers))


def trial_of_pools(truth: TruthTable, pools: Sequence[Sequence[str]], *, held_out: int = 1000, seed: int = 0) -> Trial:
    """Draw held-out cells for pools that are given, by the hashes of their cells: those that finished runs have used.

    Raises
    ------
    ValueError
        If the truth lacks a cell of a pool or has too few others, or `held_out` is too small.
    """
    if held_out < MIN_HELD_OUT:
        raise ValueError(
            f"held_out is {held_out}, expected at least {MIN_HELD_OUT}: fewer cells say nothing about a ranking"
        )
    rows = {each: row for row, each in enumerate(truth.hashes)}
    seen = {each for pool in pools for each in pool}
    missing = sorted(seen - rows.keys())
    if missing:
        raise ValueError(
            f"{len(missing)} cells of the runs, {missing[0]} first, are not in the truth: give the runs' own"
        )
    others = truth.subset([row for each, row in rows.items() if each not in seen])
    if len(others) < held_out:
        raise ValueError(
            f"the truth holds {len(others)} cells that no run has seen, expected at least {held_out}: ask for fewer"
        )
    return Trial(
        others.sample(held_out, seed),
        tuple(truth.subset([rows[each] for each in pool]) for pool in pools),
        tuple(range(len(pools))),
        (max(map(len, pools), default=0),),
    )


def pool_of_run(run: Run, truth: TruthTable) -> list[str]:
    """Return the hashes of the cells whose accuracies a run has used: those it compared and those it kept out.

    Parameters
    ----------
    run : Run
    truth : TruthTable
        The one that the run was begun with.
    """
    from spd_fast.outer.pool import split_pool

    seen = {each for record in run.records() for each in record["cells"]}
    _, kept_out = split_pool(len(truth), run.recipe)
    return sorted(seen | {truth.hashes[row] for row in kept_out.tolist()})


# ---- the judgement


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with the interval that holds 95 % of the resamples."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, eq=False)
class Judged:
    """Measures of one row.

    Attributes
    ----------
    means : dict of measure to float
    samples : dict of measure to ndarray, shape (B,)
        The measure on every resample; the same resamples for all rows of a board.
    """

    means: dict[str, float]
    samples: dict[str, Array]

    def estimate(self, measure: str) -> Estimate:
        """Return a measure with its interval."""
        return _estimate(self.means[measure], self.samples[measure])

    def minus(self, other: "Judged", measure: str) -> Estimate:
        """Return the difference of a measure of two rows, on the same cells and seeds, with its interval."""
        return _estimate(self.means[measure] - other.means[measure], self.samples[measure] - other.samples[measure])


def judge(scores: npt.ArrayLike, accuracy: npt.ArrayLike, *, resamples: int = _RESAMPLES, seed: int = 0) -> Judged:
    """Judge scores of cells by their accuracies.

    Parameters
    ----------
    scores : array-like, shape (S, n) or (n,)
        Scores of n cells for S seeds, larger is better. Not finite where a motif diverged: such cells rank last, tied.
    accuracy : array-like, shape (n,), n >= 100
    resamples : int
        Bootstrap resamples B.
    seed : int
        Of the resamples: the same for all that are compared.

    Returns
    -------
    Judged

    Raises
    ------
    ValueError
        If shapes do not fit each other, or there are fewer than 100 cells.

    Notes
    -----
    A resample draws n cells with replacement, the same for all seeds, and S seeds with replacement; a measure is the mean
    over the seeds drawn. Of S = 1 the interval holds the uncertainty of the cells alone. Pairs of copies of one cell
    are ties in both rankings, which tau-b leaves out. The true top 10 % are those of all n cells. Copies among the best of a
    resample lift precision a little, so its interval is a little optimistic; its mean is not.
    """
    truth = np.asarray(accuracy, np.float64)
    table = np.atleast_2d(np.asarray(scores, np.float64))
    if table.ndim != 2 or truth.ndim != 1 or table.shape[1:] != truth.shape:
        raise ValueError(f"scores have shape {np.shape(scores)}, expected (S, {len(truth)}) to match accuracy")
    n = len(truth)
    if n < MIN_HELD_OUT:
        raise ValueError(f"there are {n} cells, expected at least {MIN_HELD_OUT}: fewer say nothing about a ranking")
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, n, (resamples, n))
    weights = np.stack([np.bincount(row, minlength=n) for row in drawn]).astype(np.float64)
    top = truth >= np.quantile(truth, 1 - TOP)
    per_seed: dict[str, list[Array]] = {name: [] for name in MEASURES}
    everyone = np.arange(n)[None]
    for row in table:
        score = np.where(np.isfinite(row), row, np.nanmin(row[np.isfinite(row)], initial=0.0) - 1.0)
        for name, both in {
            "tau": (_taus(score, truth, np.ones((1, n))), _taus(score, truth, weights)),
            "rho": (_rhos(score, truth, everyone), _rhos(score, truth, drawn)),
            "tau_top": (
                _taus(score[top], truth[top], np.ones((1, int(top.sum())))),
                _taus(score[top], truth[top], weights[:, top]),
            ),
            "precision_10": (precision_at(10, score[None], truth[None]), precision_at(10, score[drawn], truth[drawn])),
            "precision_50": (precision_at(50, score[None], truth[None]), precision_at(50, score[drawn], truth[drawn])),
        }.items():
            per_seed[name].append(np.concatenate(both))
    seeds = rng.integers(0, len(table), (resamples, len(table)))
    means, samples = {}, {}
    for name, rows in per_seed.items():
        values = np.stack(rows)
        means[name] = float(values[:, 0].mean())
        samples[name] = values[:, 1:][seeds, np.arange(resamples)[:, None]].mean(axis=1)
    return Judged(means, samples)


def precision_at(k: int, scores: Array, accuracy: Array) -> npt.NDArray[np.float64]:
    """Return the share of the `k` best-scored cells that are among the `k` truly best.

    Parameters
    ----------
    k : int
    scores, accuracy : ndarray, shape (B, n), finite
        Row by row.

    Returns
    -------
    ndarray, shape (B,)
        0 to 1. Where cells tie at the k-th place, the expectation over drawing among them at random.
    """
    inside = [_places_inside(k, values) for values in (scores, accuracy)]
    share: npt.NDArray[np.float64] = (inside[0] * inside[1]).sum(axis=1) / k
    return share


def _places_inside(k: int, values: Array) -> Array:
    """Return the probability that each cell is among the k largest of its row, ties broken at random."""
    edge = -np.partition(-values, k - 1, axis=1)[:, k - 1 : k]
    above, tied = values > edge, values == edge
    left = k - above.sum(axis=1, keepdims=True)
    inside: Array = above + tied * (left / tied.sum(axis=1, keepdims=True))
    return inside


def _taus(score: Array, truth: Array, weights: Array) -> Array:
    """Return tau-b of cells counted `weights` times, shape (B, n), for every row of weights; 0 where it is undefined.

    ``tau_b = w' (s o t) w / sqrt((w' |s| w) (w' |t| w))`` with the matrices s and t of the signs of all differences.
    """
    s, t = np.sign(score[:, None] - score), np.sign(truth[:, None] - truth)

    def form(matrix: Array) -> Array:
        return np.asarray(((weights @ matrix) * weights).sum(axis=1))

    scale = np.sqrt(form(np.abs(s)) * form(np.abs(t)))
    taus: Array = np.divide(form(s * t), scale, out=np.zeros(len(weights)), where=scale > 0)
    return taus


def _rhos(score: Array, truth: Array, drawn: Array) -> Array:
    """Return Spearman's rho of the cells in every row of `drawn`, shape (B, n); 0 where it is undefined."""
    from scipy.stats import rankdata

    x, y = (rankdata(values[drawn], axis=1) - (drawn.shape[1] + 1) / 2 for values in (score, truth))
    scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    rhos: Array = np.divide((x * y).sum(axis=1), scale, out=np.zeros(len(drawn)), where=scale > 0)
    return rhos


def _estimate(mean: float, samples: Array) -> Estimate:
    low, high = np.quantile(samples, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Estimate(float(mean), float(low), float(high))


# ---- the rows

Kind = Literal["structure", "proxy", "motif", "dish", "predictor"]


@dataclass(frozen=True, eq=False)
class Row:
    """One way to score cells, judged.

    Attributes
    ----------
    name, meaning : str
    kind : "structure", "proxy", "motif", "dish" or "predictor"
        The cell is looked at; a network that is not trained; motifs on images that nobody adapted; a learned dish alone; a
        Gaussian process on top.
    labels : int
        Labelled cells that it learned from.
    scores : ndarray, shape (S, n) or (1, n)
        Larger is better.
    init_seconds : float
        Time before the first query, mean over seeds, without the training of the labelled cells' full networks.
    query_seconds : float
        Time of one core for each cell.
    judged : Judged
    """

    name: str
    kind: Kind
    meaning: str
    labels: int
    scores: Array
    init_seconds: float
    query_seconds: float
    judged: Judged


@dataclass(frozen=True)
class Goal:
    """What a board must reach to be worth using: a row's measure, or its advantage over another row."""

    meaning: str
    rows: tuple[str, ...]
    measure: str
    at_least: float
    labels: int
    over: str | None = None


LEARNED, BEFORE, REAL = "learned dish", "dish before learning", "real images as dish"
_CURVES, _CURVES_DISH = "GP: curves", "GP: curves, dish"
_STRUCTURE = "GP: structure"
_BOTH, _ALL = "GP: structure, curves", "GP: structure, curves, dish"
GOALS: Final = (
    Goal("one score per cell, nothing fitted on top, 30 labels", (LEARNED,), "tau", 0.50, 30),
    Goal("one score per cell, nothing fitted on top, 100 labels", (LEARNED,), "tau", 0.60, 100),
    Goal("what motifs show in a Gaussian process, no structure, 100 labels", (_CURVES_DISH, _CURVES), "tau", 0.65, 100),
    Goal("that and structure together, 100 labels", (_ALL, _BOTH), "tau", 0.70, 100),
    Goal("inside the true top 10 %, 100 labels", (_ALL, _BOTH), "tau_top", 0.35, 100),
    Goal("learned dish over the same dish before learning, 100 labels", (LEARNED,), "tau", 0.10, 100, BEFORE),
)
"""Goals on held-out NAS-Bench-101 cells, at least 1,000 of them, over at least 5 seeds. Of several rows the first that a
board has is meant. An advantage must be above 0 with its whole interval, too."""


@dataclass(frozen=True)
class Outcome:
    """A goal and what a board says about it: ``"reached"``, ``"not reached"``, or ``"not measured"`` and why."""

    goal: Goal
    estimate: Estimate | None
    verdict: str


@dataclass(frozen=True, eq=False)
class Board:
    """A scoreboard: rows in order, with what they were measured on.

    Attributes
    ----------
    rows : tuple of Row
    outcomes : tuple of Outcome
        Of `GOALS`.
    trial : Trial
    settings : dict
        Recipes and numbers that the rows come from; JSON can hold them.
    """

    rows: tuple[Row, ...]
    outcomes: tuple[Outcome, ...]
    trial: Trial
    settings: dict[str, Any]

    def row(self, name: str, labels: int | None = None) -> Row | None:
        """Return the first row of this name (and of so many labels), None where the board has none."""
        return next((row for row in self.rows if row.name == name and labels in (None, row.labels)), None)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the single scores as a dictionary that `json.dumps` takes."""
        rows = [
            {
                "row": row.name,
                "kind": row.kind,
                "meaning": row.meaning,
                "labels": row.labels,
                "seeds": len(row.scores),
                **{name: asdict(row.judged.estimate(name)) for name in MEASURES},
                "init_seconds": row.init_seconds,
                "query_seconds": row.query_seconds,
            }
            for row in self.rows
        ]
        return {
            "settings": self.settings,
            "truth": self.trial.held_out.describe(),
            "held_out": len(self.trial.held_out),
            "labels": list(self.trial.labels),
            "seeds": len(self.trial.seeds),
            "rows": rows,
            "goals": [asdict(outcome) for outcome in self.outcomes],
        }


def build_board(
    trial: Trial,
    recipe: Recipe,
    curves: Recipe,
    *,
    learned: Sequence[LearnedDish] | None = None,
    folds: int = 5,
    images: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    progress: NamedProgress | None = None,
) -> Board:
    """Measure every row of the scoreboard.

    Parameters
    ----------
    trial : Trial
    recipe : Recipe
        How a dish is learned from each pool; each seed of the trial takes the place of the recipe's.
    curves : Recipe
        Motif, inner loop and dish before learning of the learning curves that the Gaussian process sees.
    learned : sequence of S LearnedDish, optional
        Dishes that were learned from the trial's pools already, in place of learning them here; of one number of labels.
    folds : int, 0 or at least 2
        Parts of each pool for the feature "dish" of the Gaussian process (`spd_fast.predictor.SPDPredictor`): so many more
        dishes are learned for each seed. 0 leaves these rows out.
    images : path, optional
        Real images, as `spd_fast.images.load_images` reads them: adds the rows that need them. Where a class has too few,
        fewer of every class are taken.
    folder : path, optional
        Where measurements are kept as they come, so that the same call continues after it was stopped, and one with other
        `folds` or fewer numbers of labels measures only what is missing: ``parts.jsonl``, a journal (`spd_fast.base.stores`) of
        what is measured, and the measurements in ``parts``.
    threads : int, optional
        Default: the processors that this process may use. Does not change scores.
    progress : callable, optional
        ``progress(what, share)``: what is being measured and how much of the whole is done, 0 to 1.

    Raises
    ------
    ValueError
        If the recipe does not fit the pools or the images, or the folder holds another board's measurements, or damaged ones.
    BlockingIOError
        If another process measures in the same folder.
    """
    if folds == 1 or folds < 0:
        raise ValueError(f"folds is {folds}, expected 0 or at least 2")
    if learned is not None and len(learned) != len(trial.seeds):
        raise ValueError(
            f"{len(learned)} dishes were given, expected {len(trial.seeds)}: one for each pool of the trial"
        )
    if learned is not None and len(trial.labels) > 1:
        raise ValueError(f"dishes were given for {list(trial.labels)} labels, expected one number")
    with _opened(folder, lambda: _identity(trial, recipe, curves, learned, images)) as parts:
        m = _Measuring(trial, recipe, curves, learned, folds, images, threads, parts, progress)
        rows = (*_structure_rows(trial), *_proxy_rows(m), *_motif_rows(m), *_dish_rows(m), *_predictor_rows(m))
    settings = {
        "recipe": json.loads(recipe.to_json()),
        "curves": json.loads(curves.to_json()),
        "folds": folds,
        "images": None if images is None else os.fspath(images),
        "machine": describe_machine(),
    }
    return Board(rows, tuple(_outcome(goal, rows, trial) for goal in GOALS), trial, settings)


def _row(
    trial: Trial,
    name: str,
    kind: Kind,
    meaning: str,
    scores: Sequence[Array],
    *,
    labels: int = 0,
    init_seconds: float = 0.0,
    query_seconds: float = 0.0,
) -> Row:
    table = np.stack(scores)
    return Row(name, kind, meaning, labels, table, init_seconds, query_seconds, judge(table, trial.held_out.accuracy))


def _structure_rows(trial: Trial) -> list[Row]:
    """Scores that need no training: one scalar each, with the sign that common sense gives it."""
    cells = trial.held_out.nasbench_cells
    began = time.perf_counter()
    structural_features(cells[:1])
    ready = time.perf_counter()
    table = structural_features(cells)
    each = (time.perf_counter() - ready) / len(cells)

    def row(name: str, scalar: str, meaning: str, sign: int = 1) -> Row:
        scores = sign * table[:, SCALARS.index(scalar)]
        return _row(trial, name, "structure", meaning, [scores], init_seconds=ready - began, query_seconds=each)

    return [
        row("parameters", "log_parameters", "trainable parameters of the full network"),
        row("FLOPs", "log_flops", "floating-point operations of the full network"),
        row("3x3 convolutions", "conv3x3", "their number in the cell"),
        row("3x3 convolutions on a path", "conv3x3_on_path", "the most on one path from input to output"),
        row("depth", "longest_path", "edges of the longest path"),
        row("short path", "shortest_path", "fewer edges of the shortest path", -1),
        row("few max-pools", "maxpool3x3", "fewer max-pools in the cell", -1),
    ]


def _proxy_rows(m: "_Measuring") -> list[Row]:
    """What the network says before it is trained, from one batch."""
    from spd_fast.proxies import PROXIES

    found, dish = m.proxies(), m.proxy_recipe().dish
    where = "random images" if m.images is None else f"images of {m.images}"
    return [
        _row(
            m.trial,
            name,
            "proxy",
            f"zero-cost proxy of the untrained network with {_PROXY_MOTIF.stem_channels} channels in place of 128, on one "
            f"batch of {dish.images} {where}, {dish.image_size} x {dish.image_size}",
            [found[name]],
            query_seconds=float(found[f"{name}_seconds"]),
        )
        for name in PROXIES
    ]


def _motif_rows(m: "_Measuring") -> list[Row]:
    """Motifs, and smaller trainings of the network, on data that nobody adapted to any label."""
    held = m.curves_of_held_out()
    n = len(m.trial.held_out)
    rows = [
        _row(
            m.trial,
            "speed of learning",
            "motif",
            f"recipe {m.curves.name}: its motif's score on the unlearned dish of the learning curves",
            [held["score"]],
            query_seconds=float(held["seconds"].sum()) / n,
        ),
        _row(
            m.trial,
            "learning-curve extrapolation",
            "motif",
            f"minus the training loss of the same motif, extrapolated to {_HORIZON} times the steps (the paper, section 2.2)",
            [-extrapolated_loss(held["steps"])],
            query_seconds=float(held["seconds"].sum()) / n,
        ),
    ]
    if m.images is None:
        return rows
    real = [m.scores_on("real", seed) for seed in range(len(m.trial.seeds))]
    n_real = m.on_images(m.recipe).dish.images
    fidelity, n_low = m.low_fidelity(), m.on_images(_LOW_FIDELITY).dish.images
    return [
        *rows,
        _row(
            m.trial,
            REAL,
            "motif",
            f"the recipe's motif and metric on {n_real} images of {m.images}, not adapted",
            [each["score"] for each in real],
            query_seconds=_mean_seconds(real, n),
        ),
        _row(
            m.trial,
            "low-fidelity training",
            "motif",
            f"validation accuracy of a small network after {_LOW_FIDELITY.inner.epochs} epochs on {n_low} real images (the paper, section 2.1)",
            [fidelity["accuracy"]],
            query_seconds=float(fidelity["seconds"].sum()) / n,
        ),
        _row(
            m.trial,
            "low-fidelity extrapolation",
            "motif",
            f"minus the training loss of that network, extrapolated to {_HORIZON} times the steps (section 2.2)",
            [-extrapolated_loss(fidelity["steps"])],
            query_seconds=float(fidelity["seconds"].sum()) / n,
        ),
    ]


def _dish_rows(m: "_Measuring") -> list[Row]:
    """The score of a motif alone, before and after its dish was learned."""
    seeds = range(len(m.trial.seeds))
    n = len(m.trial.held_out)
    before = [m.scores_on("before", seed) for seed in seeds]
    what = f"recipe {m.recipe.name}: {m.recipe.outer.metric} of motif {m.recipe.motif.name}"
    rows = [
        _row(
            m.trial,
            BEFORE,
            "dish",
            f"{what}, on the dish before learning",
            [each["score"] for each in before],
            query_seconds=_mean_seconds(before, n),
        )
    ]
    for labels in m.trial.labels:
        after = [m.scores_on_learned(labels, seed) for seed in seeds]
        rows.append(
            _row(
                m.trial,
                LEARNED,
                "dish",
                f"{what}, on the learned dish; nothing fitted on top",
                [each["score"] for each in after],
                labels=labels,
                init_seconds=float(np.mean([m.dish(labels, seed).seconds for seed in seeds])),
                query_seconds=_mean_seconds(after, n),
            )
        )
    return rows


def _predictor_rows(m: "_Measuring") -> list[Row]:
    """Gaussian processes on what is known of the labelled cells: structure, motifs, learned dishes."""
    combinations = {
        _STRUCTURE: ("structure",),
        _CURVES: ("curves",),
        _BOTH: ("structure", "curves"),
    }
    if m.folds:
        combinations |= {_CURVES_DISH: ("curves", "dish"), _ALL: ("structure", "curves", "dish")}
    return [_predictor_row(m, name, kinds, labels) for name, kinds in combinations.items() for labels in m.trial.labels]


def _predictor_row(m: "_Measuring", name: str, kinds: Sequence[str], labels: int) -> Row:
    scores, inits, queries = [], [], []
    for seed in range(len(m.trial.seeds)):
        features = [m.features(kind, labels, seed) for kind in kinds]
        began = time.perf_counter()
        process = fit_gaussian_process([each.pool for each in features], m.trial.pool(labels, seed).accuracy)
        fitted = time.perf_counter()
        scores.append(process.predict(np.concatenate([each.held_out for each in features], axis=1)))
        predicted = time.perf_counter()
        inits.append(sum(each.init_seconds for each in features) + fitted - began)
        queries.append(sum(each.query_seconds for each in features) + (predicted - fitted) / len(m.trial.held_out))
    return _row(
        m.trial,
        name,
        "predictor",
        f"on {', '.join(kinds)} of the labelled cells",
        scores,
        labels=labels,
        init_seconds=float(np.mean(inits)),
        query_seconds=float(np.mean(queries)),
    )


def _mean_seconds(readings: Sequence[Mapping[str, Array]], n: int) -> float:
    return float(np.mean([each["seconds"].sum() for each in readings])) / n


# ---- measuring


@dataclass(frozen=True, eq=False)
class _Features:
    """Features of one kind, of the labelled and of the held-out cells, and what they cost."""

    pool: Array
    held_out: Array
    init_seconds: float
    query_seconds: float


@dataclass(frozen=True, eq=False)
class _Measuring:
    """Measures parts of a board when they are first asked for."""

    trial: Trial
    recipe: Recipe
    curves: Recipe
    given: Sequence[LearnedDish] | None
    folds: int
    images: str | os.PathLike[str] | None
    threads: int | None
    parts: "_Parts"
    progress: NamedProgress | None

    def dish(self, labels: int, seed: int) -> LearnedDish:
        """Return the dish of one pool: the one given, or else learned here."""
        if self.given is not None:
            return self.given[seed]
        recipe, pool = self._seeded(seed), self.trial.pool(labels, seed)

        def measure(report: Callable[[float], object]) -> dict[str, Array]:
            learned = learn_dish(pool.cells, pool.accuracy, recipe, threads=self.threads, progress=report)
            return {**_dish_arrays(learned.dish), "seconds": np.array(learned.seconds)}

        doing = f"learning dish {seed} from {labels} labels"
        arrays = dict(self.parts.keep(f"dish-{labels}-{seed}", measure, self._report(doing)))
        seconds = float(arrays.pop("seconds"))
        return LearnedDish(recipe, Dish(**arrays), seconds=seconds)

    def scores_on_learned(self, labels: int, seed: int) -> Mapping[str, Array]:
        """Return score and seconds of the held-out cells on the dish of one pool."""
        return self._read(f"learned-{labels}-{seed}", self.dish(labels, seed), self.trial.held_out.cells)

    def scores_on(self, which: Literal["before", "real"], seed: int) -> Mapping[str, Array]:
        """Return score and seconds of the held-out cells on the dish before learning, or on real images in its place."""
        recipe = self._seeded(seed) if which == "before" else self.on_images(self._seeded(seed))
        return self._read(f"{which}-{seed}", LearnedDish(recipe, start_dish(recipe)), self.trial.held_out.cells)

    def curves_of_held_out(self) -> Mapping[str, Array]:
        """Return the learning curves of the held-out cells."""
        return self._read("curves", LearnedDish(self.curves, start_dish(self.curves)), self.trial.held_out.cells)

    def low_fidelity(self) -> Mapping[str, Array]:
        """Return accuracy and losses of small networks trained briefly on real images."""
        recipe = self.on_images(_LOW_FIDELITY)
        found = self._read("low-fidelity", LearnedDish(recipe, start_dish(recipe)), self.trial.held_out.cells)
        return {**found, "accuracy": found["score"]}

    def proxy_recipe(self) -> Recipe:
        """Return the network and the batch of zero-cost proxies."""
        return _PROXIES if self.images is None else self.on_images(_PROXIES)

    def proxies(self) -> Mapping[str, Array]:
        """Return every zero-cost proxy of the held-out cells, (n,), and its seconds of one core for a cell."""
        from spd_fast import proxies

        cells, recipe = self.trial.held_out.cells, self.proxy_recipe()
        batch = start_dish(recipe)

        def measure(report: Callable[[float], object]) -> dict[str, Array]:
            found: dict[str, Array] = {}
            for k, name in enumerate(proxies.PROXIES):
                began = time.process_time()
                found[name] = proxies.score(
                    cells,
                    recipe.shape,
                    batch.images,
                    batch.labels,
                    name,
                    threads=self.threads,
                    progress=part_of(report, k, len(proxies.PROXIES)),
                )
                found[f"{name}_seconds"] = np.array((time.process_time() - began) / len(cells))
            return found

        return self.parts.keep("proxies", measure, self._report("zero-cost proxies"))

    def features(self, kind: str, labels: int, seed: int) -> _Features:
        """Return the features of one kind for one pool and the held-out cells."""
        pool, n = self.trial.pool(labels, seed), len(self.trial.held_out)
        if kind == "structure":
            began = time.perf_counter()
            of_pool = structural_features(pool.nasbench_cells)
            ready = time.perf_counter()
            of_held_out = structural_features(self.trial.held_out.nasbench_cells)
            return _Features(of_pool, of_held_out, ready - began, (time.perf_counter() - ready) / n)
        if kind == "curves":
            held = self.curves_of_held_out()
            unlearned = LearnedDish(self.curves, start_dish(self.curves))
            known = self._read(f"curves-pool-{seed}", unlearned, self.trial.pools[seed].cells)
            wall = float(known["wall"] * known["seconds"][: len(pool)].sum() / known["seconds"].sum())
            return _Features(known["curve"][: len(pool)], held["curve"], wall, float(held["seconds"].sum()) / n)
        folds = self.parts.keep(
            f"folds-{self.folds}-{labels}-{seed}",
            lambda report: self._measure_folds(labels, seed, report),
            self._report(f"learning {self.folds} dishes from parts of {labels} labels, pool {seed}"),
        )
        return _Features(
            folds["pool"][:, None], folds["held_out"][:, None], float(folds["wall"]), float(folds["seconds"].sum()) / n
        )

    def _measure_folds(self, labels: int, seed: int, report: Callable[[float], object]) -> dict[str, Array]:
        pool = self.trial.pool(labels, seed)
        began = time.perf_counter()
        scores, dishes = learn_folds(
            pool.cells,
            pool.accuracy,
            self._seeded(seed),
            self.folds,
            threads=self.threads,
            progress=part_of(report, 0, 2),
        )
        wall = time.perf_counter() - began
        later = part_of(report, 1, 2)
        readings = read_all(dishes, self.trial.held_out.cells, threads=self.threads, progress=later)
        return {
            "pool": scores,
            "held_out": mean_scaled(dishes, [each.score for each in readings]),
            "seconds": sum_of([each.seconds for each in readings]),
            "wall": np.array(wall),
        }

    def _read(self, name: str, dish: LearnedDish, cells: Sequence[Candidate]) -> Mapping[str, Array]:
        def measure(report: Callable[[float], object]) -> dict[str, Array]:
            began = time.perf_counter()
            readings = dish.read(cells, self.threads, report)
            return {**vars(readings), "wall": np.array(time.perf_counter() - began)}

        return self.parts.keep(name, measure, self._report(f"training motifs: {name}"))

    def _seeded(self, seed: int) -> Recipe:
        """Return the recipe of one pool's dish."""
        if self.given is not None:
            return self.given[seed].recipe
        return self.recipe.replace({"seed": self.trial.seeds[seed]})

    def on_images(self, recipe: Recipe) -> Recipe:
        """Return the recipe with real images in place of its dish: as many, or as a class with too few has of each."""
        data, settings = self._data, recipe.dish
        counts = np.bincount(data.train_labels, minlength=settings.classes)[: settings.classes]
        train, valid, fewest = (
            settings.images // settings.classes,
            settings.valid_images // settings.classes,
            counts.min(),
        )
        if train + valid > fewest:
            parts = recipe.inner.replicates if recipe.inner.split_images else 1
            train = int(fewest * train // (train + valid) // parts * parts)
            valid = min(valid, int(fewest) - train)
        changes: dict[str, Any] = {
            "dish.images": train * settings.classes,
            "dish.valid_images": valid * settings.classes,
            "dish.start": "images",
            "dish.source": os.fspath(self.images or ""),
            "dish.image_channels": data.train_images.shape[1],
            "dish.valid_start": "drawn",
        }
        try:
            return recipe.replace(changes)
        except ValueError as error:
            raise ValueError(
                f"{data.name} has {fewest} images of class {counts.argmin()}, too few of each class for a dish: {error}"
            ) from None

    @cached_property
    def _data(self) -> Any:
        from spd_fast.images import load_images

        return load_images(self.images or "")

    def _report(self, what: str) -> Callable[[float], object]:
        progress, done = self.progress, self.parts.count / self._n_parts()
        if progress is None:
            return lambda share: None
        return lambda share: progress(what, done + share / self._n_parts())

    def _n_parts(self) -> int:
        seeds = len(self.trial.seeds)
        per_labels = 1 + (self.given is None) + (self.folds > 0)
        per_seed = 2 + len(self.trial.labels) * per_labels + (self.images is not None)
        return 2 + seeds * per_seed + (self.images is not None)


class _Parts:
    """Measurements by name: kept in memory, and in a folder if there is one.

    The journal tells which are measured, and what is in them.
    """

    def __init__(self, folder: Path | None = None, journal: Journal | None = None) -> None:
        self._kept: dict[str, dict[str, Array]] = {}
        self._folder, self._journal = folder, journal
        self._measured = {} if journal is None else {each["part"]: each["content"] for each in journal.records}

    @property
    def count(self) -> int:
        """Parts that are measured."""
        return len(self._kept)

    def keep(
        self,
        name: str,
        measure: Callable[[Callable[[float], object]], dict[str, Array]],
        report: Callable[[float], object],
    ) -> dict[str, Array]:
        """Return a part, measured where it is not there yet."""
        if name not in self._kept:
            self._kept[name] = self._read(name) if name in self._measured else self._write(name, measure(report))
        return self._kept[name]

    def _read(self, name: str) -> dict[str, Array]:
        assert self._folder is not None
        file = self._folder / f"{name}.npz"
        arrays = load_arrays(file, what="measurement", listed=True)
        if content_digest(arrays) != self._measured[name]:
            raise ValueError(f"measurement {file} is not the one that was written there: {_REMEDY}")
        return arrays

    def _write(self, name: str, arrays: dict[str, Array]) -> dict[str, Array]:
        if self._folder is not None and self._journal is not None:
            save_arrays(self._folder / f"{name}.npz", arrays)
            self._journal.append([{"part": name, "content": content_digest(arrays)}])
            self._journal.sync()
        return arrays


@contextmanager
def _opened(folder: str | os.PathLike[str] | None, identity: Callable[[], dict[str, Any]]) -> Iterator[_Parts]:
    """Open the measurements of a board, to begin it or to continue."""
    if folder is None:
        yield _Parts()
        return
    parts = Path(folder) / "parts"
    if (parts / "identity.json").exists():
        raise ValueError(f"{folder} holds measurements of an earlier version, with identity.json: {_REMEDY}")
    wanted = identity()
    parts.mkdir(parents=True, exist_ok=True)
    with Journal(Path(folder) / "parts.jsonl", _SCHEMA, remedy=_REMEDY) as journal:
        remove_leftovers(parts)
        journal.bind(wanted)
        yield _Parts(parts, journal)


def _identity(
    trial: Trial,
    recipe: Recipe,
    curves: Recipe,
    learned: Sequence[LearnedDish] | None,
    images: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    """Return what decides every measurement; of files their contents, wherever they lie."""
    from spd_fast.images import load_images

    dishes = [content_digest(_dish_arrays(each.dish)) for each in learned or ()]
    return {
        "version": spd_fast.__version__,
        "trial": trial.digest(),
        "recipe": json.loads(recipe.to_json()),
        "recipe's source": source_digest(recipe),
        "curves": json.loads(curves.to_json()),
        "curves' source": source_digest(curves),
        "dishes": dishes,
        "images": None if images is None else load_images(images).digest()[:16],
    }


def _dish_arrays(dish: Dish) -> dict[str, Array]:
    fields = {name: getattr(dish, name) for name in Dish.__dataclass_fields__}
    return {name: array for name, array in fields.items() if array is not None}


def extrapolated_loss(steps: npt.ArrayLike, horizon: float = _HORIZON) -> npt.NDArray[np.float64]:
    """Extrapolate learning curves by a power law.

    Parameters
    ----------
    steps : array-like, shape (K, T), T >= 4
        Loss of every step. Rows that are not finite give NaN.
    horizon : float
        How many times the observed steps to look ahead.

    Returns
    -------
    ndarray, shape (K,)
        Loss at ``horizon * T`` steps.

    Notes
    -----
    ``a + b t**-c`` with a, b >= 0 by least squares for every c of a grid from 0.1 to 2; the c of least error is taken.
    One of the curves that Domhan, Springenberg and Hutter 2015 combine (Speeding up automatic hyperparameter optimization
    of deep neural networks by extrapolation of learning curves, table 1: pow3).
    """
    curves = np.ascontiguousarray(
        steps, np.float64
    )  # NumPy adds in another order where cells lie side by side in memory
    if curves.ndim != 2 or curves.shape[1] < 4:
        raise ValueError(f"steps have shape {curves.shape}, expected (K, T) with at least 4 steps")
    t = np.arange(1, curves.shape[1] + 1, dtype=np.float64)
    best = np.full(len(curves), np.inf)
    found = np.full(len(curves), np.nan)
    for c in np.linspace(0.1, 2.0, 20):
        x = t**-c
        b = np.maximum(
            ((curves - curves.mean(axis=1, keepdims=True)) * (x - x.mean())).sum(axis=1) / ((x - x.mean()) ** 2).sum(),
            0,
        )
        a = np.maximum(curves.mean(axis=1) - b * x.mean(), 0)
        b = np.where(a > 0, b, np.maximum((curves * x).sum(axis=1) / (x * x).sum(), 0))
        error = ((curves - a[:, None] - b[:, None] * x) ** 2).sum(axis=1)
        better = error < best
        best[better] = error[better]
        found[better] = (a + b * (horizon * t[-1]) ** -c)[better]
    return found


def _outcome(goal: Goal, rows: Sequence[Row], trial: Trial) -> Outcome:
    network = str(trial.held_out.provenance.get("network", ""))
    if "NAS-Bench-101" not in network:
        return Outcome(goal, None, "not measured: the truth is not that of NAS-Bench-101")
    if goal.labels not in trial.labels:
        return Outcome(goal, None, f"not measured: the pools have {', '.join(map(str, trial.labels))} labels")
    if len(trial.held_out) < GOAL_HELD_OUT or len(trial.seeds) < GOAL_SEEDS:
        return Outcome(
            goal,
            None,
            f"not measured: {len(trial.held_out)} held-out cells and {len(trial.seeds)} seeds, {GOAL_HELD_OUT} and {GOAL_SEEDS} are asked for",
        )
    row = next(row for name in goal.rows for row in rows if row.name == name and row.labels == goal.labels)
    estimate = row.judged.estimate(goal.measure)
    if goal.over is not None:
        other = next(row for row in rows if row.name == goal.over)
        estimate = row.judged.minus(other.judged, goal.measure)
    reached = estimate.mean >= goal.at_least and (goal.over is None or estimate.low > 0)
    return Outcome(goal, estimate, "reached" if reached else "not reached")
