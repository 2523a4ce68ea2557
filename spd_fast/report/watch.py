"""How far a running work is: an outer loop, a ranking, or the building of a truth, read from its files and changing none of them."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spd_fast.base.files import is_locked
from spd_fast.base.stores import read_identity, read_journal
from spd_fast.outer import runs
from spd_fast.outer.history import OuterEpoch
from spd_fast.ranking.measuring import SCHEMA
from spd_fast.report.summary import summarise
from spd_fast.report.verdict import duration
from spd_fast.truth.journal import JOURNAL, journal_path

__all__ = ["State", "look"]

_REMEDY: Final = "name a run folder, the file that a ranking or a truth is written to, or its journal"


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
    """

    what: str
    unit: str
    done: int
    total: int | None
    running: bool
    ended: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    seconds_left: float | None = None


def look(path: str | os.PathLike[str]) -> State:
    """Return how far a work is.

    Parameters
    ----------
    path : path
        A run folder; or the file that a ranking or a truth is written to, or the journal beside it.

    Raises
    ------
    FileNotFoundError
        If there is neither a file nor a journal.
    ValueError, RunFolderError
        If it is no work that can be watched, or is damaged.
    """
    place = Path(path)
    if place.is_dir():
        return _of_run(place)
    measured, building = place.with_name(f"{place.name}.measured"), journal_path(place)
    if place.suffix == ".measured" or measured.exists():
        return _of_ranking(place if place.suffix == ".measured" else measured)
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


def _of_ranking(journal: Path) -> State:
    records = read_journal(journal, SCHEMA, remedy=_REMEDY)
    recipe = read_identity(journal, SCHEMA, remedy=_REMEDY).get("recipe", {})
    # a record holds the rows of its cells as eight bytes each in base64
    motifs = Counter[int]()
    for record in records:
        motifs[int(record["replicate"])] += (3 * len(record["rows"]) // 4 - record["rows"].count("=")) // 8
    running = is_locked(journal)
    most = recipe.get("inner", {}).get("replicates", len(motifs))
    facts = tuple((f"motif {replicate + 1} of {most}", f"{n:,} cells") for replicate, n in sorted(motifs.items()))
    ended = "" if running else "ended, or stopped; the same command goes on from here and measures nothing twice"
    return State(f"ranking, {journal}", "motifs trained", sum(motifs.values()), None, running, ended, facts)


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
    ended = "" if running else "stopped; the same command goes on from here"
    return State(f"truth, {journal}", "trainings", len(records), total, running, ended, facts)
