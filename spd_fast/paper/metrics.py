"""The stored metrics of a reproduction: what the figures and tables need of its run folders, in one small JSON file."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from spd_fast.base.files import atomic_write
from spd_fast.base.ranks import kendall_tau
from spd_fast.base.types import Number
from spd_fast.outer import runs
from spd_fast.outer.history import OuterEpoch
from spd_fast.paper.rates import RATES, SEARCHED
from spd_fast.paper.stated import PAPER

__all__ = [
    "FILE",
    "RATE_FOLDER",
    "SCHEMA",
    "Metrics",
    "RunMetrics",
    "Setting",
    "accuracy_of",
    "attempts",
    "history_of",
    "joined",
    "read_runs",
]

SCHEMA: Final = "spd_fast.reproduction/3"
FILE: Final = "metrics.json"
RATE_FOLDER: Final = "rates"
"""The folder with the runs of the search for rates; a run is called after its motif and its rate, such as ``A-0.0003``."""
Setting = Literal["paper", "level"]
_DIGITS: Final = 6


@dataclass(frozen=True)
class RunMetrics:
    """The metrics of one run, an entry for each outer epoch where nothing else is said.

    Attributes
    ----------
    motif : str
        The letter of the motif's shape.
    inner_epochs, cells : int
        Inner epochs of a training, and cells that an outer epoch compares.
    rate : float
        Learning rate of the inner loop.
    outer_epochs : int
        Outer epochs that the run has when it is finished.
    accuracy, accuracy_sd : tuple of float or None
        Mean and population standard deviation of the motifs' highest accuracies; None if all of them diverged.
    tau : tuple of float
        Kendall's tau, 0 where all ranking scores tie.
    control_tau : tuple of float
        Kendall's tau of the number of 3x3 convolutions in the same cells, which no training is needed for.
    tied, perfect : tuple of bool
    loss : tuple of float or None
        The outer loss.
    seconds, core_seconds : tuple of float
        Wall time, and processor time over all threads.
    curves : dict of str to dict of str to list of float
        ``accuracy`` and ``accuracy_sd`` of every inner epoch, by the number of the outer epoch: the first, the middle and the
        last.
    about : dict
        What the run folder says of machine, versions and truth.
    """

    motif: str
    inner_epochs: int
    cells: int
    rate: float
    outer_epochs: int
    accuracy: tuple[Number, ...]
    accuracy_sd: tuple[Number, ...]
    tau: tuple[float, ...]
    control_tau: tuple[float, ...]
    tied: tuple[bool, ...]
    perfect: tuple[bool, ...]
    loss: tuple[Number, ...]
    seconds: tuple[float, ...]
    core_seconds: tuple[float, ...]
    curves: dict[str, dict[str, list[float]]]
    about: dict[str, Any]

    @classmethod
    def of(cls, run: runs.Run, convolutions: Mapping[str, int]) -> "RunMetrics | None":
        """Return the metrics of a run folder; None as long as it has no finished outer epoch.

        Parameters
        ----------
        run : Run
        convolutions : mapping of str to int
            The number of 3x3 convolutions of every cell, by its hash.

        Raises
        ------
        RunFolderError
            If the folder is damaged.
        """
        history = history_of(run)
        if not history:
            return None
        recipe = run.recipe
        chosen = sorted({0, len(history) // 2, len(history) - 1})
        return cls(
            motif=recipe.motif.name,
            inner_epochs=recipe.inner.epochs,
            cells=recipe.outer.cells,
            rate=recipe.inner.optimizer.lr,
            outer_epochs=recipe.outer.epochs,
            accuracy=tuple(_rounded(record.mean_max_accuracy) for record in history),
            accuracy_sd=tuple(_spread(record) for record in history),
            tau=tuple(round(record.kendall_tau, _DIGITS) for record in history),
            control_tau=tuple(
                round(kendall_tau([convolutions[cell] for cell in record.cells], record.truth), _DIGITS)
                for record in history
            ),
            tied=tuple(record.tied for record in history),
            perfect=tuple(record.perfect for record in history),
            loss=tuple(_rounded(record.loss) for record in history),
            seconds=tuple(round(record.seconds, 3) for record in history),
            core_seconds=tuple(round(record.core_seconds, 3) for record in history),
            curves={
                str(history[k].epoch): {
                    "accuracy": list(history[k].curve_accuracy),
                    "accuracy_sd": list(history[k].curve_accuracy_sd),
                }
                for k in chosen
            },
            about={name: value for name, value in run.about.items() if name not in _NOT_KEPT},
        )


_NOT_KEPT: Final = {"schema", "recipe_sha256", "truth_file"}


@dataclass(frozen=True)
class Metrics:
    """What a reproduction measured: the content of its ``metrics.json``.

    Attributes
    ----------
    settings : "paper" or "level"
        The paper's inner rate as it is stated, or the rates that reach the paper's accuracies.
    origin : str
        Whether the truth is the paper's, as a sentence.
    larger_b : float
        Share of the truth's cells in which motif B has more parameters than motif A.
    runs : dict of str to RunMetrics
        By recipe.
    attempts : dict of str to dict of str to float
        By motif and rate, the accuracy that the search for rates measured. It is empty with the paper's settings.
    epoch_seconds : dict of str to list of float
        By motif, the seconds of an inner epoch of random cells; empty if they were not measured.
    full_size_seconds : tuple of 4 float, optional
        Least, mean, standard deviation and most of the seconds of an epoch of the benchmark's own trainings. None if the truth
        does not hold them.
    """

    settings: Setting
    origin: str
    larger_b: float
    runs: dict[str, RunMetrics] = field(default_factory=dict)
    attempts: dict[str, dict[str, float]] = field(default_factory=dict)
    epoch_seconds: dict[str, list[float]] = field(default_factory=dict)
    full_size_seconds: tuple[float, float, float, float] | None = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the metrics as JSON, as a whole or not at all.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        with atomic_write(path) as file:
            file.write((json.dumps({"schema": SCHEMA, **asdict(self)}) + "\n").encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Metrics":
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            If the file is not one of stored metrics, or is damaged.
        OSError
            If it cannot be read.
        """
        name = f"{os.fspath(path)}, expected the stored metrics of a reproduction ({SCHEMA})"
        try:
            fields = json.loads(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{name}: it is not JSON: {error}") from None
        if not isinstance(fields, dict) or fields.pop("schema", None) != SCHEMA:
            raise ValueError(f"{name}: its schema is another one; give a {FILE} that spd-fast reproduce wrote")
        try:
            if fields["settings"] not in get_args(Setting):
                raise ValueError(f"settings are {fields['settings']!r}, expected one of {', '.join(get_args(Setting))}")
            fields["runs"] = {run: RunMetrics(**_as_tuples(record)) for run, record in fields["runs"].items()}
            return cls(**_as_tuples(fields))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{name}: it is damaged: {error}; run spd-fast reproduce again") from None


def joined(parts: Sequence[Metrics]) -> list[Metrics]:
    """Put together what was measured in parts, such as runs on several machines: one record for each kind of settings.

    Parameters
    ----------
    parts : sequence of Metrics
        Those of the same settings have no run in common, and are of the same truth.

    Raises
    ------
    ValueError
        If two parts have the same run, timed the same motif, tried a rate with different results, or are of different truths.
    """
    found: dict[str, Metrics] = {}
    for part in parts:
        if part.settings not in found:
            found[part.settings] = part
            continue
        other = found[part.settings]
        where = f"two of the stored metrics have the settings {part.settings!r} and"
        if (part.origin, part.larger_b) != (other.origin, other.larger_b):
            raise ValueError(f"{where} different truths, expected one truth: {other.origin} And: {part.origin}")
        twice = sorted({*part.runs} & {*other.runs}) + sorted({*part.epoch_seconds} & {*other.epoch_seconds})
        if twice:
            raise ValueError(f"{where} both have {twice[0]!r}, expected each run and each timed motif in one of them")
        rates = {motif: {**other.attempts.get(motif, {}), **tried} for motif, tried in part.attempts.items()}
        for motif, tried in other.attempts.items():
            if any(rates.get(motif, tried)[rate] != accuracy for rate, accuracy in tried.items()):
                raise ValueError(
                    f"{where} different accuracies of the rates of motif {motif}, expected those of one seed"
                )
        both = other.runs | part.runs
        found[part.settings] = replace(
            other,
            runs={name: both[name] for name in PAPER if name in both},
            attempts=other.attempts | rates,
            epoch_seconds=other.epoch_seconds | part.epoch_seconds,
        )
    return list(found.values())


def read_runs(folder: Path, names: Sequence[str], convolutions: Mapping[str, int]) -> dict[str, RunMetrics]:
    """Return the metrics of the runs that a reproduction's folder holds, by recipe; those without an outer epoch are left out.

    Parameters
    ----------
    folder : Path
    names : sequence of str
        Recipes.
    convolutions : mapping of str to int
        The number of 3x3 convolutions of every cell of the truth, by its hash.

    Raises
    ------
    RunFolderError
        If a run folder is damaged.
    """
    found = {
        name: RunMetrics.of(runs.read(folder / name), convolutions) for name in names if runs.is_run(folder / name)
    }
    return {name: metrics for name, metrics in found.items() if metrics is not None}


def attempts(folder: Path) -> dict[str, dict[str, float]]:
    """Return the accuracies that the search for rates measured, by motif and rate; unfinished attempts are left out.

    Raises
    ------
    RunFolderError
        If a run folder is damaged.
    """
    found: dict[str, dict[str, float]] = {}
    for motif in SEARCHED:
        for rate in RATES:
            path = folder / RATE_FOLDER / f"{motif}-{rate}"
            if runs.is_run(path) and (run := runs.read(path)).finished:
                found.setdefault(motif, {})[str(rate)] = accuracy_of(history_of(run))
    return found


def accuracy_of(history: Sequence[OuterEpoch]) -> float:
    """Return the mean of the motifs' highest accuracies over all outer epochs; an epoch in which all motifs diverged counts as 0."""
    return sum(record.mean_max_accuracy or 0.0 for record in history) / len(history)


def history_of(run: runs.Run) -> list[OuterEpoch]:
    """Return the records of a run folder.

    Raises
    ------
    RunFolderError
        If the folder is damaged.
    """
    try:
        return [OuterEpoch.from_json(record) for record in run.records()]
    except ValueError as error:
        raise runs.RunFolderError(f"{run.path / runs.METRICS} cannot be read: {error}") from error


def _spread(record: OuterEpoch) -> Number:
    values = [value for value in record.max_accuracy if value is not None]
    if not values:
        return None
    mean = sum(values) / len(values)
    return _rounded((sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5)


def _rounded(value: Number) -> Number:
    return None if value is None else round(value, _DIGITS)


def _as_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
