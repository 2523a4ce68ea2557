"""How far a running work is: an outer loop, a ranking, a scoreboard, a search, a reproduction of the paper, a predictor, or the building
of a truth, read from its files and changing none of them."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from spd_fast.base.files import is_locked
from spd_fast.base.stores import array_of, read_identity, read_journal, read_schema
from spd_fast.outer import runs
from spd_fast.outer.dish_search import LABELLED
from spd_fast.outer.dish_search import SCHEMA as SEARCH
from spd_fast.outer.history import OuterEpoch
from spd_fast.paper.metrics import FILE as METRICS
from spd_fast.paper.metrics import RATE_FOLDER
from spd_fast.paper.reproduce import BEGUN
from spd_fast.paper.reproduce import SCHEMA as REPRODUCTION
from spd_fast.predictors.spd import MEASURED as FIT
from spd_fast.ranking.measuring import SCHEMA as RANKING
from spd_fast.ranking.parts import ENDING, Parts
from spd_fast.ranking.querying import SCHEMA as QUERY
from spd_fast.report.summary import summarise
from spd_fast.report.verdict import duration
from spd_fast.scoreboard.board import JOURNAL as MEASURED_PARTS
from spd_fast.scoreboard.board import SCHEMA as BOARD
from spd_fast.truth.journal import JOURNAL, journal_path

__all__ = ["State", "look"]

_REMEDY: Final = (
    "name a run folder, the folder of a scoreboard, of a search or of a reproduction, the file that a ranking, a predictor, predictions or "
    "a truth are written to, or its journal"
)
_GOES_ON: Final = "the same command goes on from here"


@dataclass(frozen=True)
class State:
    """How far a work is.

    Attributes
    ----------
    what : str
        What is being done.
    unit : str
        What is counted.
    done : int
    total : int or None
        None where the files do not say how much there is to do.
    running : bool
        Whether a process is at it.
    ended : str
        Where no process is at it: how it ended. Empty while it runs.
    facts : tuple of (str, str)
        Numbers of interest, each with its name.
    seconds_left : float or None
    removed : bool
        Whether the journal is removed when the work is done.
    """

    what: str
    unit: str
    done: int
    total: int | None
    running: bool
    ended: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    seconds_left: float | None = None
    removed: bool = False


def look(path: str | os.PathLike[str]) -> State:
    """Return how far a work is.

    Parameters
    ----------
    path : path
        A run folder, or that of a scoreboard, of a search or of a reproduction; or the file that a ranking, a predictor, predictions
        or a truth are written to, or the journal beside it.

    Raises
    ------
    FileNotFoundError
        If there is neither a file nor a journal.
    ValueError, RunFolderError
        If it is no work that can be watched, or is damaged.
    """
    place = Path(path)
    parts = (
        place.parent if place.parent.suffix == ENDING else place.with_name(f"{place.name.removesuffix(ENDING)}{ENDING}")
    )
    if parts.is_dir():
        return _of_parts(parts)
    if place.is_dir():
        kinds = {MEASURED_PARTS: _of_board, LABELLED: _of_search, BEGUN: _of_reproduction}
        return next((of for name, of in kinds.items() if (place / name).exists()), _of_run)(place)
    measured, building = place.with_name(f"{place.name}.measured"), journal_path(place)
    if place.suffix == ".measured" or measured.exists():
        return _of_measured(place if place.suffix == ".measured" else measured)
    if place.suffix == ".journal" or building.exists():
        return _of_truth(place if place.suffix == ".journal" else building)
    if place.exists():
        raise ValueError(f"{place} has no journal beside it, so nothing is running there: {_REMEDY}")
    raise FileNotFoundError(f"{place} does not exist: {_REMEDY}")


def _of_run(folder: Path) -> State:
    run = runs.read(folder)
    recipe, finished, running = run.recipe, run.finished, is_locked(run.path / runs.LOCK)
    try:
        history = [OuterEpoch.from_json(record) for record in run.records()]
    except ValueError as error:
        raise runs.RunFolderError(f"{run.path / runs.METRICS} cannot be read: {error}") from error
    facts: list[tuple[str, str]] = []
    left = None
    if history:
        summary, last = summarise(history, recipe), history[-1]
        left = summary.seconds / len(history) * (recipe.outer.epochs - len(history))
        facts = [
            ("outer loss", "none" if last.loss is None else f"{last.loss:.3f}"),
            ("tau", f"{last.kendall_tau:+.2f}"),
            ("mean tau", str(summary.tau)),
            ("time", duration(summary.seconds)),
        ]
        checks = [record.validation_tau for record in history if record.validation_tau is not None]
        if checks:
            facts.insert(3, ("validation tau", f"{checks[-1]:+.3f}"))
    ended = "finished" if finished else f"stopped; continue with: spd-fast run --resume --out {folder}"
    return State(
        what=f"{recipe.name} in {folder}",
        unit="outer epochs",
        done=len(history),
        total=recipe.outer.epochs,
        running=running and not finished,
        ended="" if running and not finished else ended,
        facts=tuple(facts),
        seconds_left=left,
    )


def _of_measured(journal: Path) -> State:
    """Return the state of a ranking, of the fit of a predictor, or of its predictions: all of them keep what they measure."""
    kinds = {FIT: _of_fit, QUERY: _of_query}
    schema = read_schema(journal)
    return kinds.get(schema or RANKING, _of_ranking)(journal)


def _of_ranking(journal: Path) -> State:
    found = read_journal(journal, RANKING, remedy=_REMEDY)
    # a record holds the rows of its cells as eight bytes each in base64
    motifs = Counter[int]()
    for record in found:
        if "rows" in record:
            motifs[int(record["place"])] += (3 * len(record["rows"]) // 4 - record["rows"].count("=")) // 8
    return _ranking(journal, found, motifs)


def _of_parts(folder: Path) -> State:
    """Return the state of a ranking on a cluster: what is in its parts, and what is in its journal and in no part yet."""
    journal = Parts.journal_in(folder)
    found = read_journal(journal, RANKING, remedy=_REMEDY)
    measured = set(Parts.measured_in(folder))
    for record in found:
        if "rows" in record:
            measured |= {(row, int(record["place"])) for row in array_of(record["rows"], np.int64).tolist()}
    return _ranking(journal, found, Counter(place for _, place in measured))


def _ranking(journal: Path, found: Sequence[Mapping[str, Any]], motifs: Counter[int]) -> State:
    plan = next((record for record in reversed(found) if "motifs" in record), None)
    if plan is not None:  # there may be more, of a ranking that took more motifs
        motifs = Counter({place: n for place, n in motifs.items() if place < int(plan["of_each"])})
    total = None if plan is None else int(plan["motifs"])
    running, done = is_locked(journal), sum(motifs.values())
    facts = tuple((f"motif {place + 1} of each cell", f"{n:,} cells") for place, n in sorted(motifs.items()))
    stopped = f"ended by its budget, or stopped; {_GOES_ON} and measures nothing twice"
    ended = "" if running else "all motifs are trained" if done == total else stopped
    return State(f"ranking, {journal}", "motifs trained", done, total, running, ended, facts)


def _of_fit(journal: Path) -> State:
    records = read_journal(journal, FIT, remedy=_REMEDY)
    identity = read_identity(journal, FIT, remedy=_REMEDY)
    cells = sum(record["arrays"]["score"]["shape"][0] for record in records if record["name"].startswith("cells"))
    folds = sum(record["name"].startswith("fold") for record in records)
    running = is_locked(journal)
    what, ended = f"predictor, {journal}", "" if running else f"stopped; {_GOES_ON}"
    if "curves" not in identity:
        return State(what, "dishes of folds", folds, identity.get("folds"), running, ended, removed=True)
    facts = (("dishes of folds", f"{folds} of {identity['folds']}"),) if "folds" in identity else ()
    return State(what, "labelled cells measured", cells, identity["n_cells"], running, ended, facts, removed=True)


def _of_query(journal: Path) -> State:
    records = read_journal(journal, QUERY, remedy=_REMEDY)
    total = read_identity(journal, QUERY, remedy=_REMEDY).get("n_cells")
    done, running = sum(len(record["accuracy"]) for record in records), is_locked(journal)
    ended = "" if running else "all cells are predicted" if done == total else f"stopped; {_GOES_ON}"
    return State(f"predictions, {journal}", "cells", done, total, running, ended)


def _of_board(folder: Path) -> State:
    records = read_journal(folder / MEASURED_PARTS, BOARD, remedy=_REMEDY)
    recipe: Mapping[str, Any] = read_identity(folder / MEASURED_PARTS, BOARD, remedy=_REMEDY).get("recipe", {})
    planned = next((record["planned"] for record in reversed(records) if "planned" in record), None)
    measured = {record["part"] for record in records if "part" in record}
    done = len(measured if planned is None else measured.intersection(planned))
    total, running = None if planned is None else len(planned), is_locked(folder / MEASURED_PARTS)
    finished = done == total and (folder / "board.html").exists()
    ended = "" if running else "finished" if finished else f"stopped; {_GOES_ON}"
    return State(f"scoreboard of {recipe.get('name', '')} in {folder}", "measurements", done, total, running, ended)


def _of_search(folder: Path) -> State:
    """Return the state of a dish search. How many candidates it may label is not in its files, because a later call may change it."""
    records = read_journal(folder / LABELLED, SEARCH, remedy=_REMEDY)
    running = is_locked(folder / LABELLED)
    facts = [("best accuracy", f"{max(record['accuracy'] for record in records):.4f}")] if records else []
    rounds = sorted(path for path in folder.glob("round-*") if runs.is_run(path))
    if rounds:
        now = _of_run(rounds[-1])
        facts.append((f"outer epochs of {rounds[-1].name}", f"{now.done} of {now.total}"))
    ended = "" if running else f"finished, or stopped; {_GOES_ON}"
    return State(f"dish search in {folder}", "candidates labelled", len(records), None, running, ended, tuple(facts))


def _of_reproduction(folder: Path) -> State:
    records = read_journal(folder / BEGUN, REPRODUCTION, remedy=_REMEDY)
    plans = (record["planned"] for record in reversed(records) if "planned" in record)
    planned: Mapping[str, int] = next(plans, {})
    done = {name: len(runs.read(folder / name).records()) if runs.is_run(folder / name) else 0 for name in planned}
    facts = [(name, f"{done[name]} of {epochs} outer epochs") for name, epochs in planned.items()]
    tried = [path.name for path in (folder / RATE_FOLDER).glob("*") if runs.is_run(path)]
    if tried:
        facts.append(("motif and rate that were tried", ", ".join(sorted(tried))))
    running, total = is_locked(folder / BEGUN), sum(planned.values())
    finished = sum(done.values()) == total and (folder / METRICS).exists()
    ended = "" if running else "finished" if finished else f"stopped; {_GOES_ON}"
    return State(f"reproduction in {folder}", "outer epochs", sum(done.values()), total, running, ended, tuple(facts))


def _of_truth(journal: Path) -> State:
    records = read_journal(journal, JOURNAL, remedy=_REMEDY)
    settings = read_identity(journal, JOURNAL, remedy=_REMEDY)
    running = is_locked(journal)
    total = None
    facts: tuple[tuple[str, str], ...] = ()
    if settings:
        total = settings["n_cells"] * len(settings["budgets"]) * len(settings["seeds"])
        done = Counter(record["budget"] for record in records)
        most = settings["n_cells"] * len(settings["seeds"])
        facts = tuple((f"{budget} epochs", f"{done[budget]:,} of {most:,}") for budget in settings["budgets"])
    ended = "" if running else f"stopped; {_GOES_ON}"
    return State(f"truth, {journal}", "trainings", len(records), total, running, ended, facts, removed=True)
