"""The paper's five runs from one call, which goes on where it was stopped.

======================  ============================================================================================
in the folder           content
======================  ============================================================================================
``reproduction.jsonl``  what the reproduction was begun with; the process that works on the folder locks it
``cassimon_a``, ...     a run folder for each run (`spd_fast.outer.runs`)
``rates/A-0.0003``,     with the settings "level", a short run for each motif and rate that the search for rates tried
...
``epoch_times.jsonl``   seconds of an inner epoch over random cells (`spd_fast.paper.epoch_times`)
``metrics.json``        what figures and tables need of all this (`spd_fast.paper.metrics`)
======================  ============================================================================================

Whatever stops it, the same call with the same folder goes on. All that is finished stays.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

import spd_fast.recipes as recipes
from spd_fast.base.machine import describe_machine, thread_count
from spd_fast.base.stores import Journal, content_digest
from spd_fast.base.types import checked_choice, checked_integer, checked_names
from spd_fast.motif import MOTIF_A, MOTIF_B, MotifShape, count_flops, count_parameters_table
from spd_fast.outer import runs
from spd_fast.outer.fit import fit_dish
from spd_fast.outer.history import OuterEpoch
from spd_fast.outer.pool import draw_cells
from spd_fast.paper.epoch_times import EPOCHS, MOTIFS, time_epochs
from spd_fast.paper.forecast import Forecast
from spd_fast.paper.metrics import FILE, RATE_FOLDER, Metrics, Setting, accuracy_of, attempts, history_of, read_runs
from spd_fast.paper.rates import MOST_ATTEMPTS, RATES, SEARCHED, search_rate, target_accuracy
from spd_fast.paper.stated import BUDGET, PAPER
from spd_fast.predictors.features import SCALARS, structural_features
from spd_fast.recipes.settings import Recipe
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.truth.table import TruthTable

__all__ = [
    "ATTEMPT_EPOCHS",
    "BEGUN",
    "SCHEMA",
    "TIMED_CELLS",
    "Plan",
    "Progressed",
    "origin_of",
    "paper_truth",
    "reproduce",
]

TIMED_CELLS: Final = 100
ATTEMPT_EPOCHS: Final = 5
SHORTENED: Final = {"cassimon_a": 40, "cassimon_b": 40}
"""Outer epochs of the long runs with the paper's settings. The stated rate is known not to reach the paper's accuracies (docs/reproduction.md),
and what 40 outer epochs show of it costs a quarter of the time."""
BEGUN, EPOCH_TIMES = "reproduction.jsonl", "epoch_times.jsonl"
SCHEMA: Final = "spd_fast.reproduction_begun/1"
_WEIGHT: Final = 3.0
"""A training step costs about three forward passes."""


@dataclass(frozen=True)
class Plan:
    """What a reproduction does.

    Attributes
    ----------
    settings : "paper" or "level"
        ``"paper"`` trains with the stated inner rate. ``"level"`` first searches for the rate with which each motif reaches the
        accuracy that the paper states.
    only : tuple of str
        Recipes of the runs; empty stands for all five.
    outer_epochs : int, optional
        Outer epochs of every run, and at most so many of every attempt with a rate. Default: those of the paper, but 40 of the two
        long runs with the settings "paper".
    attempt_epochs : int
        Outer epochs of the run that tries a rate.
    timed_cells : int
        Number of random cells whose inner epochs are timed; 0 leaves this out.
    seed : int
    changes : mapping of str to value
        Settings of the recipes that are changed in every run and attempt, by dotted name. With them it is no longer the paper's
        experiment.
    """

    settings: Setting = "level"
    only: tuple[str, ...] = ()
    outer_epochs: int | None = None
    attempt_epochs: int = ATTEMPT_EPOCHS
    timed_cells: int = TIMED_CELLS
    seed: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_choice("settings", self.settings, ("paper", "level"))
        only = checked_names("only", self.only, "cassimon_c")
        unknown = [name for name in only if name not in PAPER]
        if unknown:
            raise ValueError(f"only is {unknown[0]!r}, expected one of {', '.join(PAPER)}")
        for name, low in (("outer_epochs", 1), ("attempt_epochs", 1), ("timed_cells", 0), ("seed", 0)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, checked_integer(name, getattr(self, name), low))
        object.__setattr__(self, "only", tuple(name for name in PAPER if name in only or not only))
        for name in self.only:
            self.recipe(name, None)  # it refuses changes that the recipe does not take

    @property
    def motifs(self) -> tuple[str, ...]:
        """The letters of the motifs of the runs."""
        return tuple(sorted({_motif(recipes.get(name)) for name in self.only}))

    def recipe(self, name: str, rate: float | None) -> Recipe:
        """Return the recipe of a run, with a rate that was found; None stands for the paper's rate."""
        changes: dict[str, Any] = {**self.changes, "seed": self.seed}
        epochs = self.outer_epochs or (SHORTENED.get(name) if self.settings == "paper" else None)
        changes |= {} if epochs is None else {"outer.epochs": epochs}
        changes |= {} if rate is None else {"inner.optimizer.lr": rate}
        return recipes.get(name).replace(changes)

    def attempt(self, motif: str, rate: float) -> Recipe:
        """Return the recipe of the run that tries a rate."""
        epochs = min(self.attempt_epochs, self.outer_epochs or self.attempt_epochs)
        changes = {**self.changes, "seed": self.seed, "outer.epochs": epochs, "inner.optimizer.lr": rate}
        return recipes.get(SEARCHED[motif]).replace(changes)


@dataclass(frozen=True)
class Progressed:
    """What a reproduction is doing.

    Attributes
    ----------
    part : str
        The run, attempt or measurement.
    piece, pieces : int
        The number of its outer epoch or cell, counted from 0, and how many there are.
    fraction : float
        The share of this piece that is done.
    finished : bool
        Whether the piece is finished.
    share : float
        The share of the whole reproduction that is done, measured in time.
    seconds_left : float or None
        The time left over all parts; None as long as nothing was measured.
    """

    part: str
    piece: int
    pieces: int
    fraction: float
    finished: bool
    share: float
    seconds_left: float | None


ReproduceProgress = Callable[[Progressed], object]


def paper_truth(path: str | os.PathLike[str] | None = None) -> TruthTable:
    """Read the truth of a reproduction, with the accuracies that are closest to the paper's.

    These are validation accuracies of NAS-Bench-101 after 108 epochs, if the file has them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no truth, or its candidates are not cells of NAS-Bench-101.
    """
    table = TruthTable.load(path)
    if not isinstance(table.cells, CellColumns):
        raise ValueError(
            f"{path} holds {table.cells.cell_type.__name__}s, expected cells of NAS-Bench-101: the paper's motifs are made of "
            "these; give a table that spd-fast nasbench convert wrote, or leave out the truth"
        )
    if not _is_nasbench(table):
        return table
    accuracy = "validation_accuracy" if "validation_accuracy" in table.measurements else table.accuracy_name
    return replace(table, accuracy_name=accuracy, budget=BUDGET if BUDGET in table.budgets else table.budget)


def origin_of(table: TruthTable) -> str:
    """Say whether a truth is the paper's."""
    which = table.describe().splitlines()[0]
    paper = f"The paper has validation accuracies of NAS-Bench-101 after {BUDGET} epochs."
    if not _is_nasbench(table):
        data = table.provenance.get("data", "unknown data")
        return f"This is not the paper's truth: {which}, measured on {data}. {paper}"
    if (table.accuracy_name, table.budget) == ("validation_accuracy", BUDGET):
        return f"This is the paper's truth, validation accuracies of NAS-Bench-101: {which}."
    return f"This is not the paper's truth, though it is of NAS-Bench-101: {which}. {paper}"


def reproduce(
    folder: str | os.PathLike[str],
    truth: TruthTable,
    plan: Plan,
    *,
    about: Mapping[str, Any] | None = None,
    threads: int | None = None,
    progress: ReproduceProgress | None = None,
) -> Metrics:
    """Run the paper's experiments, or go on with them, and store their metrics.

    Parameters
    ----------
    folder : path
        It is created if it does not exist. One that holds an unfinished or a finished reproduction is continued.
    truth : TruthTable
        Cells of NAS-Bench-101, such as `paper_truth` returns.
    plan : Plan
    about : mapping that JSON can hold, optional
        More facts for the run folders.
    threads : int, optional
        Default: the processors that this process may use. Only the seconds depend on it.
    progress : callable, optional
        It is called with a `Progressed` about ten times a second. An exception that it raises stops the reproduction.

    Returns
    -------
    Metrics
        Those of all runs in the folder, which are also in its ``metrics.json``.

    Raises
    ------
    ValueError
        If the truth does not fit, or the folder was begun with other settings or another truth.
    BlockingIOError
        If another process works on the folder.
    RunFolderError
        If a run folder is damaged or cannot be written. The message says which one to remove.
    """
    return _Reproduction(Path(folder), truth, plan, dict(about or {}), thread_count(threads), progress).run()


class _Reproduction:
    def __init__(
        self,
        folder: Path,
        truth: TruthTable,
        plan: Plan,
        about: dict[str, Any],
        threads: int,
        progress: ReproduceProgress | None,
    ) -> None:
        self.folder, self.truth, self.plan, self.threads = folder, truth, plan, threads
        self.about = {"truth": truth.describe(), **about}
        self.progress = progress
        self.forecast = Forecast()
        self.cells = truth.nasbench_cells
        fewest = max([recipes.get(name).outer.cells for name in plan.only] + [plan.timed_cells])
        if len(truth) < fewest:
            raise ValueError(f"the truth holds {len(truth)} cells, expected at least {fewest}: give a larger one")
        self.timed: list[Any] = list(truth.sample(plan.timed_cells, plan.seed).cells)

    def run(self) -> Metrics:
        self.folder.mkdir(parents=True, exist_ok=True)
        with Journal(self.folder / BEGUN, SCHEMA, remedy="choose another folder") as journal:
            journal.bind(self._identity())
            if not len(journal):
                journal.append([describe_machine()])
            planned = {name: self.plan.recipe(name, None).outer.epochs for name in self.plan.only}
            if planned != next((each["planned"] for each in reversed(journal.records) if "planned" in each), None):
                journal.append([{"planned": planned}])  # for those who watch it
            journal.sync()
            return self._run()

    def _identity(self) -> dict[str, Any]:
        """Return what must be the same when the reproduction is continued. Which runs are made is not part of it."""
        plan, hashes = self.plan, self.cells.module_hash
        return {
            "truth": content_digest({"cells": np.asarray(hashes), "accuracy": self.truth.accuracy}),
            **{
                name: getattr(plan, name)
                for name in ("settings", "outer_epochs", "attempt_epochs", "timed_cells", "seed")
            },
            "set": dict(plan.changes),
        }

    def _run(self) -> Metrics:
        self._plan_time()
        rates = {motif: self._rate(motif) for motif in self.plan.motifs if self.plan.settings == "level"}
        for name in self._by_cost():
            recipe = self.plan.recipe(name, rates.get(_motif(recipes.get(name))))
            self._fit(name, self.folder / name, recipe)
        epoch_seconds = self._time_epochs()
        metrics = Metrics(
            settings=self.plan.settings,
            origin=origin_of(self.truth),
            larger_b=self._larger_b(),
            runs=read_runs(self.folder, list(PAPER), self._convolutions()),
            attempts=attempts(self.folder) if self.plan.settings == "level" else {},
            epoch_seconds=epoch_seconds,
            full_size_seconds=self._full_size_seconds(),
        )
        metrics.save(self.folder / FILE)
        return metrics

    # ---- time

    def _plan_time(self) -> None:
        """Tell the forecast what is to be done, and what is done already."""
        for name in self.plan.only:
            recipe = self.plan.recipe(name, None)
            self.forecast.plan(name, _motif(recipe), self._flops(recipe))
            self._tell(name, self.folder / name)
        if self.plan.settings == "level":
            for motif in self.plan.motifs:
                for number in range(MOST_ATTEMPTS):
                    self.forecast.plan(_attempt(motif, number), motif, self._flops(self.plan.attempt(motif, RATES[0])))
        for motif in self.plan.motifs:
            image = np.array([count_flops(cell, MOTIFS[motif]) for cell in self.timed], np.float64)
            whole = _WEIGHT * 200 * EPOCHS * self.threads * image  # these trainings have one thread alone
            self.forecast.plan(_timing(motif), motif, whole)

    def _tell(self, part: str, path: Path) -> None:
        """Tell the forecast what a run folder holds. What is wrong with the folder is said when the run is continued."""
        if runs.is_run(path):
            with _explained(path):
                for record in history_of(runs.read(path)):
                    self.forecast.done(part, record.epoch, record.seconds)

    def _flops(self, recipe: Recipe) -> list[float]:
        """Return the floating-point operations of every outer epoch of a run, which draws its cells from the whole truth."""
        steps = _WEIGHT * recipe.dish.images * recipe.inner.epochs
        size, side = recipe.outer.cells, recipe.dish.image_size
        return [
            steps * sum(count_flops(self.cells[row], cast(MotifShape, recipe.shape), side) for row in rows.tolist())
            for rows in _drawn(len(self.truth), size, recipe.outer.epochs, recipe.seed)
        ]

    def _by_cost(self) -> list[str]:
        """Return the names of the runs, the cheapest first, so that the first results come early."""
        return sorted(self.plan.only, key=lambda name: sum(self._flops(self.plan.recipe(name, None))))

    # ---- parts

    def _rate(self, motif: str) -> float:
        """Search for the rate of a motif. Every rate that is tried is a run of its own, so the search goes on where it stopped."""
        count = 0

        def measure(rate: float) -> float:
            nonlocal count
            path = self.folder / RATE_FOLDER / f"{motif}-{rate}"
            accuracy = accuracy_of(self._fit(_attempt(motif, count), path, self.plan.attempt(motif, rate)))
            count += 1
            return accuracy

        found = search_rate(target_accuracy(motif), measure)
        for number in range(MOST_ATTEMPTS):
            self.forecast.drop(_attempt(motif, number))
        return found

    def _fit(self, part: str, path: Path, recipe: Recipe) -> Sequence[OuterEpoch]:
        """Run, or go on with, the run in a folder, and return its history."""
        self._tell(part, path)

        def show(epoch: int, fraction: float, record: OuterEpoch | None) -> None:
            if record is not None:
                self.forecast.done(part, epoch, record.seconds)
            self._show(part, epoch, recipe.outer.epochs, fraction, finished=record is not None)

        with _explained(path), self._opened(path, recipe) as opened:
            fit = fit_dish(self.cells, self.truth.accuracy, recipe, run=opened, progress=show, threads=self.threads)
        return fit.history

    def _opened(self, path: Path, recipe: Recipe) -> runs.Run:
        if not runs.is_run(path):
            return runs.create(path, recipe, about=self.about)
        opened = runs.resume(path)
        try:
            opened.require_recipe(recipe)
        except ValueError:
            opened.close()
            raise
        return opened

    def _time_epochs(self) -> dict[str, list[float]]:
        if not self.timed:
            return {}

        def advanced(motif: str, number: int, seconds: float) -> None:
            self.forecast.done(_timing(motif), number, seconds)
            self._show(_timing(motif), number, len(self.timed), 1.0, finished=True)

        return time_epochs(self.folder / EPOCH_TIMES, self.timed, self.plan.motifs, advanced=advanced)

    def _show(self, part: str, piece: int, pieces: int, fraction: float, *, finished: bool) -> None:
        if self.progress:
            left = self.forecast.seconds_left(part, 0.0 if finished else fraction)
            share = 0.0 if left is None else 1 - left / (self.forecast.seconds_whole() or 1.0)
            self.progress(Progressed(part, piece, pieces, fraction, finished, share, left))

    # ---- what the truth says

    def _larger_b(self) -> float:
        table = (self.cells.vertices, self.cells.edge_bits, self.cells.op_codes)
        larger = count_parameters_table(*table, MOTIF_B) > count_parameters_table(*table, MOTIF_A)
        return float(larger.mean())

    def _convolutions(self) -> dict[str, int]:
        """Return the number of 3x3 convolutions of every cell, by its hash."""
        counts = structural_features(self.cells)[:, SCALARS.index("conv3x3")].astype(int)
        return {row.tobytes().hex(): count for row, count in zip(self.cells.module_hash, counts.tolist(), strict=True)}

    def _full_size_seconds(self) -> tuple[float, float, float, float] | None:
        if not _is_nasbench(self.truth) or "seconds" not in self.truth.measurements:
            return None
        seconds = self.truth.measurements["seconds"][:, self.truth.budgets.index(self.truth.budget)].astype(np.float64)
        epoch = seconds / self.truth.budget
        return float(epoch.min()), float(epoch.mean()), float(epoch.std()), float(epoch.max())


def _motif(recipe: Recipe) -> str:
    return recipe.motif.name


def _attempt(motif: str, number: int) -> str:
    return f"rate of motif {motif}, attempt {number + 1}"


def _timing(motif: str) -> str:
    return f"seconds of motif {motif}"


def _drawn(n: int, size: int, epochs: int, seed: int) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the positions of the cells that each outer epoch of a run compares, if its pool is the whole truth."""
    return (draw_cells(n, size, epoch, seed) for epoch in range(epochs))


def _is_nasbench(table: TruthTable) -> bool:
    """Return whether the accuracies of a truth are those of the benchmark, not of other trainings of its cells."""
    return "NAS-Bench-101" in str(table.provenance.get("data", ""))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say of an error of a run folder what to do about it."""
    try:
        yield
    except runs.RunFolderError as error:
        text = str(error).replace("; start another run", "")
        if "is damaged" not in text and "cannot be read" not in text and "is not a" not in text:
            raise
        raise runs.RunFolderError(f"{text}; remove {path}, and the same command makes it anew") from error
