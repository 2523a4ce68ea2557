"""The scoreboard: how well learned dishes rank test cells, beside other ways to score cells.

A `Trial` fixes the question: the test cells, and for every seed a pool of labelled cells. Every row of the board is one way to
score the test cells; it does so once for each seed, or once in all if nothing depends on the seed. `judge` computes the rank
agreement of the scores with the truth, with intervals. All rows are judged on the same resamples of cells and seeds, so that
differences between rows have intervals, too.

References
----------
White et al. 2021, How powerful are performance predictors in neural architecture search?, arXiv:2104.01177: rank
agreement beside initialisation time and query time.
Cassimon et al., Predicting Image Classifier Performance Using the Synthetic Petri Dish Method ("the paper"): sections 2.1
and 2.2 name the low-fidelity and learning-curve baselines.
Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13: percentile intervals.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from spd_fast.base.display import ShownNamedProgress, shown_progress
from spd_fast.base.files import remove_leftovers
from spd_fast.base.machine import describe_machine, thread_count
from spd_fast.base.stores import Journal
from spd_fast.base.types import (
    checked_instance,
    checked_integer,
    checked_list,
    checked_path,
    checked_shown_progress,
)
from spd_fast.engine.specs import checked_cells
from spd_fast.predictors.readings import LearnedDish
from spd_fast.recipes.settings import Recipe
from spd_fast.scoreboard.judge import MEASURES, Estimate
from spd_fast.scoreboard.measuring import (
    LOW_FIDELITY_NETWORK,
    PROXY_NETWORK,
    REMEDY,
    SHARED_NETWORK,
    Measuring,
    Parts,
    board_identity,
)
from spd_fast.scoreboard.rows import (
    BEFORE,
    GP_ALL,
    GP_BOTH,
    GP_CURVES,
    GP_CURVES_DISH,
    LEARNED,
    MIN_STEPS,
    Row,
    bananas_rows,
    dish_rows,
    motif_rows,
    predictor_rows,
    proxy_rows,
    shared_rows,
    structure_rows,
)
from spd_fast.scoreboard.trial import Trial
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.nats_cell import NatsCell

__all__ = [
    "GOALS",
    "JOURNAL",
    "SCHEMA",
    "Board",
    "Goal",
    "Outcome",
    "build_board",
    "outcome_of",
]

GOAL_TEST_CELLS, GOAL_SEEDS = 1000, 5
"""Smallest numbers of test cells and of seeds with which a goal is judged."""
SCHEMA: Final = "spd_fast.board/1"
"""Version of the journal of a board's measurements."""
JOURNAL: Final = "parts.jsonl"


@dataclass(frozen=True)
class Goal:
    """A value that a measure of a row should reach; or, with `over`, its advantage over that other row."""

    meaning: str
    rows: tuple[str, ...]
    measure: str
    at_least: float
    pool_size: int
    over: str | None = None


GOALS: Final = (
    Goal("one score per cell, nothing fitted on top, 30 labelled cells", (LEARNED,), "tau", 0.50, 30),
    Goal("one score per cell, nothing fitted on top, 100 labelled cells", (LEARNED,), "tau", 0.60, 100),
    Goal(
        "Gaussian process on what motifs show, without structure, 100 labelled cells",
        (GP_CURVES_DISH, GP_CURVES),
        "tau",
        0.65,
        100,
    ),
    Goal("Gaussian process on structure and motifs, 100 labelled cells", (GP_ALL, GP_BOTH), "tau", 0.70, 100),
    Goal("the same inside the true top 10 %, 100 labelled cells", (GP_ALL, GP_BOTH), "tau_top", 0.35, 100),
    Goal("learned dish over the same dish before learning, 100 labelled cells", (LEARNED,), "tau", 0.10, 100, BEFORE),
)
"""The goals, for at least 1,000 test cells of NAS-Bench-101 and at least 5 seeds. A goal with several rows is judged on the first of
them that the board has. An advantage reaches its goal only if its whole interval is above 0, too."""


@dataclass(frozen=True)
class Outcome:
    """A goal with its verdict on a board: ``"reached"``, ``"not reached"``, or ``"not measured"`` with the reason."""

    goal: Goal
    estimate: Estimate | None
    verdict: str


@dataclass(frozen=True, eq=False)
class Board:
    """A scoreboard: its rows in order, the trial and the settings.

    Attributes
    ----------
    rows : tuple of Row
    outcomes : tuple of Outcome
        The verdicts on `GOALS`.
    trial : Trial
    settings : dict
        Recipes and other settings of the measurements, as values that JSON can hold.
    """

    rows: tuple[Row, ...]
    outcomes: tuple[Outcome, ...]
    trial: Trial
    settings: dict[str, Any]

    def row(self, name: str, pool_size: int | None = None) -> Row | None:
        """Return the first row of this name, and of this pool size if one is given; None if there is no such row."""
        return next((row for row in self.rows if row.name == name and pool_size in (None, row.pool_size)), None)

    def to_json(self) -> dict[str, Any]:
        """Return the board without the scores of single cells, as a dictionary that `json.dumps` takes."""
        rows = [
            {
                "row": row.name,
                "kind": row.kind,
                "meaning": row.meaning,
                "pool_size": row.pool_size,
                "seeds": len(row.scores),
                **{name: asdict(row.judged.estimate(name)) for name in MEASURES},
                "init_seconds": row.init_seconds,
                "query_seconds": row.query_seconds,
                "inside_90": row.inside_90,
            }
            for row in self.rows
        ]
        return {
            "settings": self.settings,
            "truth": self.trial.test_cells.describe(),
            "test_cells": len(self.trial.test_cells),
            "pool_sizes": list(self.trial.pool_sizes),
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
    proxy_network: Recipe = PROXY_NETWORK,
    low_fidelity_network: Recipe = LOW_FIDELITY_NETWORK,
    shared_network: Recipe = SHARED_NETWORK,
    threads: int | None = None,
    progress: ShownNamedProgress = None,
) -> Board:
    """Measure every row of the scoreboard.

    Parameters
    ----------
    trial : Trial
    recipe : Recipe
        How a dish is learned from each pool. The trial's seeds are used in place of the recipe's.
    curves : Recipe
        Its motif, inner loop and unlearned dish give the learning curves of the Gaussian process.
    learned : sequence of S LearnedDish, optional
        Dishes that were learned from the trial's pools before; all pools must have the same size. By default dishes are
        learned here.
    folds : int, 0 or at least 2
        Folds of each pool for the feature "dish" of the Gaussian process (`spd_fast.predictors.spd.SPDPredictor`). For each
        pool, one more dish is learned for each fold. 0 leaves out the rows that need them.
    images : path, optional
        Real images, as `spd_fast.images.load_images` reads them. They add the rows that need them. If a class has too few
        images, fewer images of every class are used.
    folder : path, optional
        Where every measurement is saved as soon as it is made: ``parts.jsonl`` is a journal (`spd_fast.base.stores`) of what is
        measured, ``parts`` holds the measurements. After it was stopped, the same call continues. A call with other `folds` or
        fewer pool sizes measures only what is missing.
    proxy_network : Recipe
        Its motif and dish are the network and the batch of the zero-cost proxies.
    low_fidelity_network : Recipe
        Its motif is the small network of low-fidelity training, its inner loop says how that is trained.
    shared_network : Recipe
        Its motif, inner loop and images are those of the supernet whose weights the test cells share (`spd_fast.supernet`).
    threads : int, optional
        Default: the processors that this process may use. Does not change scores.
    progress : callable or bool, optional
        ``progress(what, share)`` is called with what is being measured and the share of the whole that is done, 0 to 1. Default: a bar,
        as `spd_fast.rank` shows it.

    Raises
    ------
    ValueError
        If the recipe does not fit the pools or the images, or if the folder holds measurements of another board, or damaged
        ones.
    TypeError
        If the truth holds no cells, or the motifs of a recipe are not made of cells.
    BlockingIOError
        If another process uses the same folder.
    """
    checked_instance("trial", trial, Trial, "a trial that draw_trial returned")
    for name, each in {
        "recipe": recipe,
        "curves": curves,
        "proxy_network": proxy_network,
        "low_fidelity_network": low_fidelity_network,
        "shared_network": shared_network,
    }.items():
        checked_instance(name, each, Recipe, "a spd_fast.Recipe; spd_fast.recipes.get reads one by its name")
    if learned is not None:
        learned = checked_list("learned", learned, "LearnedDish")
        for each_dish in learned:
            checked_instance("one of learned", each_dish, LearnedDish, "a LearnedDish")
    for name, path in {"images": images, "folder": folder}.items():
        if path is not None:
            checked_path(name, path)
    thread_count(threads)
    checked_shown_progress(progress)
    folds = checked_integer("folds", folds)
    if folds == 1 or folds < 0:
        raise ValueError(f"folds is {folds}, expected 0 or at least 2")
    if learned is not None and len(learned) != len(trial.seeds):
        raise ValueError(
            f"{len(learned)} dishes were given, expected {len(trial.seeds)}: one for each pool of the trial"
        )
    if learned is not None and len(trial.pool_sizes) > 1:
        raise ValueError(f"dishes were given for pools of {list(trial.pool_sizes)} cells, expected pools of one size")
    cells = trial.test_cells.cells
    if not issubclass(cells.cell_type, (Cell, NatsCell)):
        raise TypeError(
            f"the truth holds {cells.cell_type.__name__}s, expected cells of NAS-Bench-101 or of NATS-Bench: the rows compare their "
            "graphs; learn a dish with spd_fast.fit_dish and judge it on the truth with spd_fast.score_cells"
        )
    for each in (recipe, curves, proxy_network, low_fidelity_network, shared_network):
        checked_cells(cells, each.shape)
    if curves.steps < MIN_STEPS:
        raise ValueError(
            f"recipe {curves.name!r} of the learning curves trains {curves.steps} steps, expected at least {MIN_STEPS}: fewer cannot be extrapolated"
        )
    networks = {
        "proxy_network": proxy_network,
        "low_fidelity_network": low_fidelity_network,
        "shared_network": shared_network,
    }
    with (
        _opened(folder, lambda: board_identity(trial, recipe, curves, learned, images, **networks)) as parts,
        shown_progress(progress, "measuring structures") as report,
    ):
        m = Measuring(trial, recipe, curves, learned, folds, images, threads, parts, report, **networks)
        parts.plan(m.names())
        rows = (
            *structure_rows(trial),
            *proxy_rows(m),
            *motif_rows(m),
            *shared_rows(m),
            *dish_rows(m),
            *predictor_rows(m),
            *bananas_rows(m),
        )
    settings = {
        "recipe": json.loads(recipe.to_json()),
        "curves": json.loads(curves.to_json()),
        "folds": folds,
        "given_dishes": len(learned or ()),
        "images": None if images is None else os.fspath(images),
        "machine": describe_machine(),
    }
    return Board(rows, tuple(outcome_of(goal, rows, trial) for goal in GOALS), trial, settings)


@contextmanager
def _opened(folder: str | os.PathLike[str] | None, identity: Callable[[], dict[str, Any]]) -> Iterator[Parts]:
    """Open the measurements of a board, to begin it or to continue."""
    if folder is None:
        yield Parts()
        return
    parts = Path(folder) / "parts"
    if (parts / "identity.json").exists():
        raise ValueError(f"{folder} holds measurements of an earlier version, with identity.json: {REMEDY}")
    wanted = identity()
    parts.mkdir(parents=True, exist_ok=True)
    with Journal(Path(folder) / JOURNAL, SCHEMA, remedy=REMEDY) as journal:
        remove_leftovers(parts)
        journal.bind(wanted)
        yield Parts(parts, journal)


def outcome_of(goal: Goal, rows: Sequence[Row], trial: Trial) -> Outcome:
    """Judge a goal on the rows of a trial."""
    checked_instance("goal", goal, Goal, "one of GOALS")
    checked_instance("trial", trial, Trial, "a trial that draw_trial returned")
    rows = [
        checked_instance("one of rows", row, Row, "a row of a board")
        for row in checked_list("rows", rows, "rows of a board")
    ]
    network = str(trial.test_cells.provenance.get("network", ""))
    if "NAS-Bench-101" not in network:
        return Outcome(goal, None, "not measured: the truth is not that of NAS-Bench-101")
    if goal.pool_size not in trial.pool_sizes:
        return Outcome(goal, None, f"not measured: the pools have {', '.join(map(str, trial.pool_sizes))} cells")
    if len(trial.test_cells) < GOAL_TEST_CELLS or len(trial.seeds) < GOAL_SEEDS:
        return Outcome(
            goal,
            None,
            f"not measured: {len(trial.test_cells)} test cells and {len(trial.seeds)} seeds, the goal asks for {GOAL_TEST_CELLS} and {GOAL_SEEDS}",
        )
    row = next(row for name in goal.rows for row in rows if row.name == name and row.pool_size == goal.pool_size)
    estimate = row.judged.estimate(goal.measure)
    if goal.over is not None:
        other = next(row for row in rows if row.name == goal.over)
        estimate = row.judged.minus(other.judged, goal.measure)
    reached = estimate.mean >= goal.at_least and (goal.over is None or estimate.low > 0)
    return Outcome(goal, estimate, "reached" if reached else "not reached")
