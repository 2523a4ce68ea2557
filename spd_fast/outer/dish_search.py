"""Dish-search: learn a dish on the labelled candidates, score the others, label the best of them and one at random, and
repeat.

References
----------
Rawal et al. 2020, Synthetic Petri Dish, arXiv:2005.13092, section 3: the loop around the dish.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from spd_fast.base.display import ShownNamedProgress, shown_progress
from spd_fast.base.executors import Executor, checked_executor
from spd_fast.base.machine import thread_count
from spd_fast.base.progress import named_part
from spd_fast.base.seeds import derived_seed
from spd_fast.base.stores import Journal, content_digest
from spd_fast.base.types import (
    NamedProgress,
    Progress,
    checked_array,
    checked_integer,
    checked_number,
    checked_path,
    checked_sequence,
    checked_shown_progress,
    plain,
)
from spd_fast.engine.specs import checked_cells
from spd_fast.outer import runs
from spd_fast.outer.fit import MIN_MOTIFS, FitResult, fit_dish
from spd_fast.outer.history import OuterEpoch
from spd_fast.outer.start import source_digest
from spd_fast.recipes.settings import Recipe, checked_recipe
from spd_fast.scoring import score_cells
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "LABELLED",
    "SCHEMA",
    "DishSearchResult",
    "Labelled",
    "dish_search",
]

SCHEMA: Final = "spd_fast.dish_search/2"
LABELLED: Final = "dish_search.jsonl"
"""The journal in the folder of a search."""
"""Version of ``dish_search.jsonl``; it changes when an older reader could misread a newer file."""
_REMEDY: Final = "choose another folder"
Truth = npt.ArrayLike | Callable[[list[Candidate]], npt.ArrayLike]


@dataclass(frozen=True)
class Labelled:
    """A candidate that a search has labelled.

    Attributes
    ----------
    row : int
        The candidate's position among all candidates.
    accuracy : float
    round : int
        The round in which it was labelled; 0 is before the first dish.
    why : "start", "best" or "random"
        Whether it was labelled before the first dish, or because its score was among the best, or at random.
    score : float or None
        Its score on the dish of its round; None if it was labelled at the start or its motif diverged.
    """

    row: int
    accuracy: float
    round: int
    why: Literal["start", "best", "random"]
    score: float | None


@dataclass(frozen=True)
class DishSearchResult:
    """The result of a dish-search.

    Attributes
    ----------
    labelled : tuple of Labelled
        The labelled candidates, in the order in which they were labelled.
    reached : bool
        Whether one of them reached `stop_at`.
    """

    labelled: tuple[Labelled, ...]
    reached: bool

    @property
    def best(self) -> Labelled:
        """The labelled candidate with the highest accuracy; of equally good ones, the first.

        Raises
        ------
        ValueError
            If no candidate was labelled.
        """
        if not self.labelled:
            raise ValueError("labelled is empty, expected at least one candidate: there is no best one")
        return max(self.labelled, key=lambda each: each.accuracy)

    @property
    def best_so_far(self) -> npt.NDArray[np.float64]:
        """The highest accuracy so far, after each labelled candidate: shape (n,)."""
        return np.maximum.accumulate([each.accuracy for each in self.labelled])


def dish_search(
    cells: Sequence[Candidate],
    accuracy: Truth,
    recipe: Recipe,
    *,
    max_labelled: int,
    start: int | Sequence[int] = 18,
    per_round: int = 2,
    stop_at: float | None = None,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: ShownNamedProgress = None,
) -> DishSearchResult:
    """Search for the best of many candidates, and label only a few of them.

    Every round learns a dish on the labelled candidates and scores all others. It labels the `per_round` - 1 candidates with
    the highest scores, and one that is drawn at random from the rest, so that the search does not settle too early.

    Parameters
    ----------
    cells : sequence of n Cell, or of n Perceptron
        All candidates; no two are the same.
    accuracy : array-like, shape (n,), or callable
        The accuracies of all candidates; more is better. The search uses only those of the candidates that it labels. Or a
        function that takes a list of k candidates and returns their k accuracies; it is called once in every round.
    recipe : Recipe
        The recipe by which dishes are learned. The pool consists of all labelled candidates, whatever ``outer.pool`` says. If
        the recipe compares its whole pool in every outer epoch, so does the search. Each round has a seed of its own.
    max_labelled : int, at most n
        The largest number of candidates to label.
    start : int or sequence of int
        How many candidates, drawn at random, are labelled before the first dish; or their positions.
    per_round : int, at least 2
        How many candidates a round labels. Rawal et al. 2020: 2.
    stop_at : float, optional
        Stop when an accuracy reaches this value. Rawal et al. 2020: 0.97.
    seed : int
        Seed of the first candidates, of every round's dish and of every round's random candidate.
    folder : path, optional
        Where the search is recorded: ``dish_search.jsonl`` is a journal (`spd_fast.base.stores`) with one line for each labelled
        candidate, and every round's dish has a run folder. After a kill the same call continues there, with the same result;
        `max_labelled` and `stop_at` may then have other values. If `accuracy` is a function, it is not called again for labelled
        candidates. It must be the same function as before, which the search cannot check.
    threads : int, optional
        Default: the processors that this process may use. The result does not depend on it.
    executor : concurrent.futures.Executor, dask.distributed.Client, or the module ray, optional
        Where dishes are learned and candidates are scored, as in `spd_fast.fit_dish` and `spd_fast.score_cells`.
    progress : callable or bool, optional
        ``progress(what, share)`` is called with what is being done and the share of the work that is done, 0 to 1. An
        exception that it raises stops the search. Default: a bar, as `spd_fast.rank` shows it.

    Returns
    -------
    DishSearchResult

    Raises
    ------
    TypeError
        If a place of `start` is not an integer; a boolean is none.
    ValueError
        If an argument does not fit, an accuracy is not finite, or `folder` holds a search with other candidates, accuracies
        or settings.
    RunFolderError
        If `folder` cannot be written, is in use, is damaged, or belongs to another program or version.
    """
    cells = checked_cells(cells, checked_recipe(recipe).shape)
    if not callable(accuracy):
        accuracy = checked_array("accuracy", accuracy)
    max_labelled, seed = checked_integer("max_labelled", max_labelled), checked_integer("seed", seed)
    per_round = checked_integer("per_round", per_round)
    if stop_at is not None:
        stop_at = checked_number("stop_at", stop_at, finite=False)
    if folder is not None:
        checked_path("folder", folder)
    thread_count(threads)
    checked_shown_progress(progress)
    workers = _Workers(threads, checked_executor(executor, threads))
    search = _Search(cells, accuracy, recipe, _first(len(cells), start, seed), per_round, seed)
    if not len(search.start) <= max_labelled <= len(cells):
        raise ValueError(
            f"max_labelled is {max_labelled}, expected {len(search.start)} (the number at the start) to {len(cells)}"
        )
    with (
        _opened(None if folder is None else Path(folder), search) as log,
        shown_progress(progress, "learning the first dish") as report,
    ):
        return _go_on(search, log, max_labelled, stop_at, workers, report)


def _go_on(
    search: "_Search",
    log: "_Log",
    max_labelled: int,
    stop_at: float | None,
    workers: "_Workers",
    progress: NamedProgress | None,
) -> DishSearchResult:
    """Run the rounds that the log does not hold yet."""

    def done() -> bool:
        return len(log.labelled) >= max_labelled or _reached(log.labelled, stop_at)

    if len(log.labelled) < len(search.start):
        log.append(search.label([(row, "start", None) for row in search.start[len(log.labelled) :]], 0))
    number = 0
    while not done():
        number += 1
        before = [each for each in log.labelled if each.round < number]
        size = min(search.per_round, max_labelled - len(before))
        if len(log.labelled) - len(before) < min(size, len(search.cells) - len(before)):
            report = named_part(progress, f"round {number}", len(before) / max_labelled, size / max_labelled)
            picks = search.picks(before, number, log.round_folder(number), workers, report)
            seen = {each.row for each in log.labelled}
            log.append(search.label([pick for pick in picks[:size] if pick[0] not in seen], number))
    if progress:
        progress("done", 1.0)
    return DishSearchResult(tuple(log.labelled[:max_labelled]), _reached(log.labelled[:max_labelled], stop_at))


@dataclass(frozen=True)
class _Workers:
    """Who trains motifs."""

    threads: int | None
    executor: Executor | None


_Pick = tuple[int, Literal["start", "best", "random"], float | None]


@dataclass(frozen=True, eq=False)
class _Search:
    """The candidates and settings of a search."""

    cells: Sequence[Candidate]
    accuracy: Truth
    recipe: Recipe
    start: list[int]
    per_round: int
    seed: int

    def __post_init__(self) -> None:
        if self.per_round < 2:
            raise ValueError(f"per_round is {self.per_round}, expected at least 2: the best candidate and a random one")
        fewest = MIN_MOTIFS + self.recipe.outer.validation_cells
        if len(self.start) < fewest:
            raise ValueError(f"start is {len(self.start)} candidates, expected at least {fewest}: a dish needs so many")
        if not callable(self.accuracy) and np.shape(self.accuracy) != (len(self.cells),):
            raise ValueError(
                f"accuracy has shape {np.shape(self.accuracy)}, expected ({len(self.cells)},) to match cells"
            )

    def identity(self) -> dict[str, Any]:
        """Return what must be the same when a search is continued."""
        keys = hashlib.sha256("\n".join(cell.key for cell in self.cells).encode()).hexdigest()[:16]
        known = None if callable(self.accuracy) else np.asarray(self.accuracy, np.float64)
        return {
            "cells": keys,
            "accuracy": "a function" if known is None else content_digest({"accuracy": known}),
            "recipe": json.loads(self.recipe.to_json()),
            "dish.source": source_digest(self.recipe),
            "start": self.start,
            "per_round": self.per_round,
            "seed": self.seed,
        }

    def label(self, picks: list[_Pick], number: int) -> list[Labelled]:
        """Label candidates: ask for their accuracies."""
        rows = [row for row, _, _ in picks]
        asked = self.accuracy([self.cells[row] for row in rows]) if callable(self.accuracy) else self.accuracy
        found = np.asarray(checked_array("accuracy", asked), np.float64)
        if callable(self.accuracy) and found.shape != (len(rows),):
            raise ValueError(
                f"accuracy returned shape {found.shape} for {len(rows)} candidates, expected ({len(rows)},)"
            )
        values = found if callable(self.accuracy) else found[rows]
        if not np.isfinite(values).all():
            odd = rows[int(np.flatnonzero(~np.isfinite(values))[0])]
            raise ValueError(f"the accuracy of candidate {odd} is not finite, expected finite numbers")
        return [
            Labelled(row, float(value), number, why, score)
            for (row, why, score), value in zip(picks, values, strict=True)
        ]

    def picks(
        self,
        before: Sequence[Labelled],
        number: int,
        folder: Path | None,
        workers: "_Workers",
        progress: Progress | None,
    ) -> list[_Pick]:
        """Learn a dish on the candidates that are labelled so far, and choose the candidates to label in this round."""
        fit = self._fit(before, number, folder, workers, progress)
        known = {each.row for each in before}
        rest = [row for row in range(len(self.cells)) if row not in known]
        candidates = [self.cells[row] for row in rest]
        scores = score_cells(
            fit.dish, fit.recipe, candidates, threads=workers.threads, executor=workers.executor, progress=False
        )
        ranked = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")
        best, others = ranked[: self.per_round - 1], np.sort(ranked[self.per_round - 1 :])
        chance = np.random.default_rng(derived_seed(self.seed, "random label", number))
        drawn = chance.choice(others, min(1, len(others)), replace=False)

        def pick(at: int, why: Literal["best", "random"]) -> _Pick:
            return rest[at], why, None if np.isnan(scores[at]) else float(scores[at])

        return [*(pick(at, "best") for at in best.tolist()), *(pick(at, "random") for at in drawn.tolist())]

    def _fit(
        self,
        before: Sequence[Labelled],
        number: int,
        folder: Path | None,
        workers: "_Workers",
        progress: Progress | None,
    ) -> FitResult:
        outer = self.recipe.outer
        free = len(before) - outer.validation_cells
        compares_all = outer.pool == outer.cells + outer.validation_cells
        changes = {"outer.pool": None, "outer.cells": free if compares_all else min(outer.cells, free)}
        recipe = self.recipe.replace(changes | {"seed": derived_seed(self.seed, "search", number)})
        fit = partial(
            fit_dish,
            [self.cells[each.row] for each in before],
            [each.accuracy for each in before],
            recipe,
            threads=workers.threads,
            executor=workers.executor,
            progress=False if progress is None else _share_of_fit(progress, outer.epochs),
        )
        if folder is None or not runs.is_run(folder):
            return fit(run=folder)
        with runs.resume(folder) as run:
            return fit(run=run)


@dataclass(eq=False)
class _Log:
    """The candidates that a search has labelled: in the journal of its folder, or in memory if it has no folder."""

    folder: Path | None = None
    journal: Journal | None = None
    labelled: list[Labelled] = field(default_factory=list)

    def round_folder(self, number: int) -> Path | None:
        return None if self.folder is None else self.folder / f"round-{number:03}"

    def append(self, labelled: list[Labelled]) -> None:
        self.labelled += labelled
        if self.journal is None:
            return
        try:
            self.journal.append(asdict(each) for each in labelled)
            self.journal.sync()
        except OSError as error:
            raise runs.RunFolderError(f"{self.journal.path} cannot be written: {error}") from error


@contextmanager
def _opened(folder: Path | None, search: _Search) -> Iterator[_Log]:
    """Open the log of a search, to begin or to continue it."""
    if folder is None:
        yield _Log()
        return
    path, identity = folder / LABELLED, search.identity()
    if (folder / "search.json").exists():
        raise runs.RunFolderError(f"{folder} holds a search of an earlier version, in search.json: {_REMEDY}")
    if not path.exists():
        runs.require_vacant(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        journal = Journal(path, SCHEMA, remedy=_REMEDY)
    except (OSError, ValueError) as error:
        raise runs.RunFolderError(f"the search in {folder} cannot be continued: {error}") from error
    with journal:
        try:
            journal.bind(identity)
            labelled = [Labelled(**each) for each in journal.records]
        except OSError as error:
            raise runs.RunFolderError(f"{path} cannot be written: {error}") from error
        except TypeError as error:
            raise runs.RunFolderError(f"the search in {folder} cannot be continued: {error}; {_REMEDY}") from error
        yield _Log(folder, journal, labelled)


def _first(n: int, start: int | Sequence[int], seed: int) -> list[int]:
    """Return the positions of the candidates that are labelled before the first dish."""
    start = plain(start)
    if isinstance(start, int) and not isinstance(start, bool):
        if not 0 <= start <= n:
            raise ValueError(f"start is {start}, expected at most {n}, the number of candidates")
        order = np.random.default_rng(derived_seed(seed, "first labels")).permutation(n)
        return [int(row) for row in order[:start]]
    rows = [
        checked_integer("a place to start from", row)
        for row in checked_sequence("start", start, "places, or their number")
    ]
    if len(set(rows)) < len(rows) or any(not 0 <= row < n for row in rows):
        raise ValueError(f"start is {rows}, expected different places, 0 to {n - 1}")
    return rows


def _reached(labelled: Sequence[Labelled], stop_at: float | None) -> bool:
    return stop_at is not None and any(each.accuracy >= stop_at for each in labelled)


def _share_of_fit(progress: Progress, epochs: int) -> Callable[[int, float, OuterEpoch | None], object]:
    return lambda epoch, fraction, _: progress((epoch + fraction) / epochs)
