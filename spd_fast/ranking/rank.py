"""The main job: from labelled cells and candidates to the candidates that are worth training next.

All candidates are told apart by their structure first. Then their motifs are trained, those that may be the best first, until all
are measured or a budget of time is spent. A Gaussian process that learned from the labelled cells predicts accuracies from
both; without labelled cells the speed of learning alone ranks.
"""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

import spd_fast.recipes as recipes
from spd_fast.base.display import ShownNamedProgress, shown_progress
from spd_fast.base.executors import Executor, Spread
from spd_fast.base.extras import required
from spd_fast.base.machine import thread_count
from spd_fast.base.types import (
    Array,
    NamedProgress,
    checked_array,
    checked_flag,
    checked_instance,
    checked_integer,
    checked_number,
    checked_path,
    checked_shown_progress,
)
from spd_fast.motif import full_size_counts
from spd_fast.predictors.features import NATS_SCALARS, SCALARS, structural_features
from spd_fast.predictors.spd import DEFAULT_CURVES
from spd_fast.ranking.advice import FEW, LeftOut, advise, first_to_label, left_out, outside_tested
from spd_fast.ranking.measuring import Curves
from spd_fast.ranking.schedule import FEWEST_LABELLED, Judge, measure
from spd_fast.ranking.tables import CellTable, read_table, with_given, write_table
from spd_fast.spaces.candidate import Columns, MotifCell, checked_candidates, name_of
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.spaces.nats_cell import NatsCell, NatsColumns

__all__ = [
    "Ranking",
    "controls_of",
    "labelled_cells",
    "neighbours_of",
    "rank",
]

_FRACTION: Final = re.compile(r"[+-]?\d*\.\d+(e[+-]?\d+)?|nan", re.IGNORECASE)
_LONGEST_NAME: Final = 40
"""A column whose values are longer holds no names."""
_CONTROLS: Final = (
    {
        "conv3x3": "the number of 3x3 convolutions",
        "log_parameters": "the number of parameters",
        "longest_path": "the depth",
        "shortest_path": "the shortest path",
        "maxpool3x3": "the number of max-poolings",
    },
    {
        "nor_conv_3x3": "the number of 3x3 convolutions",
        "log_weights": "the number of parameters",
        "longest_path": "the depth",
        "avg_pool_3x3": "the number of poolings",
    },
)
"""Structural scalars that serve as cheap controls, with their words: of NAS-Bench-101's cells, of NATS-Bench's."""
_ALIKE: Final = "The accuracies of the labelled cells are all alike: nothing can be learned from them, and candidates are ranked without labels."
_EXPECTED: Final = "spd_fast.Cell or spd_fast.NatsCell"


@dataclass(frozen=True, eq=False)
class Ranking:
    """Candidates and how good they are expected to be. Arrays have an entry for each candidate, in the order given.

    Attributes
    ----------
    cells : CellColumns or NatsColumns, length n
    order : ndarray, shape (n,), int
        Positions of the candidates, the best first.
    accuracy, lower, upper : ndarray, shape (n,), float64, or None
        Predicted accuracy, in the unit of the labelled cells', and the ends of its 90 % interval. None without labelled cells.
    label_free : ndarray, shape (n,), float64
        The score that needs no labels: how fast the motifs learn, about 0 for a middling cell of the space. NaN where no motif was
        trained.
    replicates : ndarray, shape (n,), int
        Number of motifs that were trained of each candidate.
    known : ndarray, shape (n,), float64
        Accuracy of candidates that are among the labelled cells, else NaN.
    outside : ndarray, shape (n,), bool
        Whether a candidate lies outside what was tested: its structure is farther from every labelled cell's than that of any labelled
        cell is from the nearest other one. False without labelled cells.
    parameters, flops : ndarray, shape (n,), int
        Parameters, and FLOPs for one image of 32 x 32, of the full-size network. Those of NATS-Bench are counted without its
        residual blocks.
    labelled : int
        Number of labelled cells.
    lower_is_better : bool
        Whether the labelled cells came with losses. Then `accuracy`, `lower`, `upper` and `known` are minus these.
    label_first : list of Cell or NatsCell
        Where the labelled cells are few: ten candidates that differ most from each other, which help most when they are labelled.
    advice : tuple of str
        Sentences on how far this ranking can be relied on, and what to do next.
    seconds, core_seconds : float
        Wall time of the call, and seconds of one core in which it trained motifs.
    columns : mapping of str to list
        Columns of the candidates' file, carried through.
    curves : ndarray, shape (n, M), float64
        Learning curve of each candidate, the mean over its motifs: logarithms of the training loss in M parts of the training. NaN
        where no motif was trained.
    left_out : LeftOut or None
        How well the labelled cells predict each other; None where nothing was learned from them.
    """

    cells: Columns[Any]
    order: npt.NDArray[np.int64]
    accuracy: Array | None
    lower: Array | None
    upper: Array | None
    label_free: Array
    replicates: npt.NDArray[np.int64]
    known: Array
    outside: npt.NDArray[np.bool_]
    parameters: npt.NDArray[np.int64]
    flops: npt.NDArray[np.int64]
    labelled: int
    lower_is_better: bool
    label_first: list[MotifCell]
    advice: tuple[str, ...]
    seconds: float
    core_seconds: float
    columns: dict[str, list[Any]]
    curves: Array
    left_out: LeftOut | None

    def best(self, n: int = 10) -> list[MotifCell]:
        """Return the best `n` candidates whose accuracy is not known yet, the best first; fewer if there are fewer."""
        n = checked_integer("n", n)
        return [self.cells[row] for row in self.order[np.isnan(self.known[self.order])][:n].tolist()]

    @property
    def own_names(self) -> list[str] | None:
        """The users' own names of the candidates, shape (n,): the first column of their file in which no value occurs twice and that does not
        hold measurements; None without one."""
        for values in self.columns.values():
            names = [str(value) for value in values]
            short = max(map(len, names), default=0) <= _LONGEST_NAME
            if short and len(set(names)) == len(names) and not all(_FRACTION.fullmatch(name) for name in names):
                return names
        return None

    def table(self) -> dict[str, list[Any]]:
        """Return the ranked candidates as columns, the best first; those of the candidates' file come last."""
        rows, sign, what = (self.order, -1, "loss") if self.lower_is_better else (self.order, 1, "accuracy")
        found: dict[str, list[Any]] = {
            "rank": list(range(1, len(rows) + 1)),
            "cell": [digest.hex() for digest in map(bytes, self.cells.module_hash[rows])]
            if self.cells.cell_type is Cell
            else [name_of(self.cells[row]) for row in rows.tolist()],
        }
        if self.accuracy is not None and self.lower is not None and self.upper is not None:
            ends = sorted([sign * self.lower[rows], sign * self.upper[rows]], key=lambda end: float(end[0]))
            found |= {
                f"predicted_{what}": (sign * self.accuracy[rows]).tolist(),
                "lower_90": ends[0].tolist(),
                "upper_90": ends[1].tolist(),
            }
        found |= {
            "label_free_score": self.label_free[rows].tolist(),
            "motifs_trained": self.replicates[rows].tolist(),
            f"known_{what}": (sign * self.known[rows]).tolist(),
            "outside_tested": self.outside[rows].tolist(),
            "parameters": self.parameters[rows].tolist(),
            "flops": self.flops[rows].tolist(),
        }
        return with_given(found, self.columns, rows.tolist())

    def to_pandas(self) -> Any:
        """Return `table` as a pandas.DataFrame.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return required("pandas", "to_pandas").DataFrame(self.table())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `table` to a file, whose ending says how: .csv, .tsv, .json, .jsonl or .parquet.

        Raises
        ------
        ValueError
            If the name has another ending.
        ImportError
            If .parquet is asked for and the extra `tables` is not installed.
        OSError
            If the file cannot be written.
        """
        write_table(checked_path("path", path), self.table())


def rank(
    candidates: Sequence[MotifCell] | str | os.PathLike[str],
    labelled: Sequence[MotifCell] | str | os.PathLike[str] | None = None,
    accuracy: npt.ArrayLike | str | None = None,
    *,
    cell: str | None = None,
    lower_is_better: bool = False,
    motifs: int = 8,
    budget: float | None = None,
    measured: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: ShownNamedProgress = None,
) -> Ranking:
    """Rank candidates by the accuracy that they are expected to reach.

    Parameters
    ----------
    candidates : path or sequence of Cell or NatsCell
        A file that `spd_fast.ranking.tables.read_table` reads, or cells. Cells that occur twice are measured once.
    labelled : path or sequence, optional
        Cells that were trained. Without them (or with fewer than 10) candidates are ranked by how fast their motifs learn,
        which needs no labels.
    accuracy : array-like, shape (m,), or str
        What the labelled cells reached; where `labelled` is a file, the name of its column (found by its name by default).
    cell : str, optional
        The column of the files that holds the cells. By default it is found by its name.
    lower_is_better : bool
        Whether `accuracy` are losses or errors, of which less is better.
    motifs : int
        Motifs that are trained of each cell at most, 1 to 8. Two take a quarter of the time of all eight, and without labels rank nearly as
        well: docs/rank.md. What `measured` keeps serves any number.
    budget : float, optional
        Seconds of training after which no more motifs are trained. Default: all motifs of all candidates are trained. What an executor
        was given by then is waited for, up to about twenty seconds.
    measured : path, optional
        File that keeps what was measured: a ranking that was interrupted goes on from there, and what is there is not
        measured again. A name that ends in ``.parts`` is a folder of Parquet files (`spd_fast.ranking.parts`), which needs pyarrow.
    threads : int, optional
        Default: the processors that this process may use. Does not change the result.
    executor : concurrent.futures.Executor, dask.distributed.Client, or the module ray, optional
        Where motifs are trained, as in `spd_fast.score_cells`. Does not change the result.
    progress : callable or bool, optional
        ``progress(what, share)`` is told what is being done and the share of the trainings that is done; it is 1 while results are made of
        them. What it raises stops the ranking. Default: a bar with the time that is left, on a terminal or in a notebook, if the
        ranking takes longer than a second. True shows progress anywhere, False never.

    Returns
    -------
    Ranking

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        If a file or a cell cannot be read, or cells and accuracies do not fit each other.

    Notes
    -----
    Same arguments, same bits, for any number of threads and after any interruption, if there is no budget. With one, what
    is measured depends on the time that it takes.

    Examples
    --------
    >>> from spd_fast import TruthTable
    >>> trained, others = TruthTable.load().split(40, seed=0)
    >>> found = rank(others.cells[:20], trained.cells, trained.accuracy, budget=0)
    >>> found.to_pandas().columns[:3].tolist()
    ['rank', 'cell', 'predicted_accuracy']
    """
    began = time.perf_counter()
    if cell is not None:
        checked_instance("cell", cell, str, "the name of a column, or None")
    if measured is not None:
        checked_path("measured", measured)
    budget = None if budget is None else checked_number("budget", budget, finite=False)
    lower_is_better = checked_flag("lower_is_better", lower_is_better)
    thread_count(threads)
    checked_shown_progress(progress)
    motifs = checked_integer("motifs", motifs, 1, recipes.get(DEFAULT_CURVES).inner.replicates)
    spread = Spread.of(executor, threads)
    with shown_progress(progress, "reading cells") as report:
        return _ranked(
            candidates,
            labelled,
            accuracy,
            cell,
            lower_is_better,
            budget,
            motifs,
            measured,
            threads,
            spread,
            report,
            began,
        )


def _ranked(
    candidates: Sequence[MotifCell] | str | os.PathLike[str],
    labelled: Sequence[MotifCell] | str | os.PathLike[str] | None,
    accuracy: npt.ArrayLike | str | None,
    cell: str | None,
    lower_is_better: bool,
    budget: float | None,
    motifs: int,
    measured: str | os.PathLike[str] | None,
    threads: int | None,
    spread: Spread | None,
    progress: NamedProgress | None,
    began: float,
) -> Ranking:
    """Rank candidates as `rank` does, whose arguments are checked. `began` is when it was called."""
    say = progress if progress is not None else lambda what, share: None
    wanted, columns = _candidates(candidates, cell)
    pool, target, source = labelled_cells(labelled, accuracy, cell, lower_is_better)
    unique, (at_pool, at_wanted) = _once([_columns(pool, wanted.cell_type), wanted])
    curves = Curves(unique, recipes.get(DEFAULT_CURVES), threads, motifs)
    say("comparing structures", 0.0)
    alike = len(pool) >= FEWEST_LABELLED and np.ptp(target) == 0
    judge = Judge(curves, structural_features(unique), at_pool, target)
    try:
        if measured is not None:
            curves.keep_in(measured)
        measure(judge, np.unique(at_wanted), budget, progress, spread)
        curves.finish()
    finally:
        curves.close()
    say(f"ranking {len(wanted):,} candidates", 1.0)
    predicted = judge.predict(np.arange(len(unique)))
    score = curves.mean_score()
    known = np.full(len(unique), np.nan)
    known[at_pool] = target
    by = score if predicted is None else predicted[0]
    order = np.argsort(-np.where(np.isnan(by), -np.inf, by)[at_wanted], kind="stable")
    parts = (None, None, None) if predicted is None else tuple(each[at_wanted] for each in predicted)
    fresh = np.setdiff1d(at_wanted, at_pool)
    few = (
        fresh[first_to_label(judge.structure[fresh], FEWEST_LABELLED)] if len(pool) < FEW and len(fresh) else fresh[:0]
    )
    label_first = [unique[row] for row in few.tolist()]
    outside = np.zeros(len(unique), bool)
    if judge.learns:
        rows = np.unique(at_wanted)
        outside[rows] = outside_tested(judge.structure[at_pool], judge.structure[rows])
    strangers = np.flatnonzero(outside)
    strangers = strangers[np.argsort(-by[strangers], kind="stable")]
    parameters, flops = full_size_counts(wanted)
    checked = (
        LeftOut(
            pool,
            target,
            left_out(judge.groups_of_pool(), target, judge.learned_replicates > 0),
            controls_of(pool),
        )
        if judge.learns
        else None
    )
    return Ranking(
        cells=wanted,
        order=order,
        accuracy=parts[0],
        lower=parts[1],
        upper=parts[2],
        label_free=score[at_wanted],
        replicates=curves.done[at_wanted],
        known=known[at_wanted],
        outside=outside[at_wanted],
        parameters=parameters,
        flops=flops,
        labelled=len(pool),
        lower_is_better=lower_is_better,
        label_first=label_first,
        advice=(
            *([f"Accuracies were read from {source}."] if source else []),
            *([_ALIKE] if alike else []),
            *advise(
                checked,
                target,
                curves,
                np.unique(at_wanted),
                label_first,
                unique[strangers],
                wanted.cell_type is NatsCell,
            ),
        ),
        seconds=time.perf_counter() - began,
        core_seconds=curves.seconds,
        columns=columns,
        curves=curves.mean_curves()[at_wanted],
        left_out=checked,
    )


def _candidates(
    given: Sequence[MotifCell] | str | os.PathLike[str], column: str | None
) -> tuple[Columns[Any], dict[str, list[Any]]]:
    if isinstance(given, str | os.PathLike):
        table = CellTable.of(read_table(given), os.fspath(given), column)
        return _columns(table.cells, type(table.cells[0])), {name: list(values) for name, values in table.table.items()}
    cells = checked_candidates(given, (Cell, NatsCell), _EXPECTED, name="candidates")
    if not len(cells):
        raise ValueError("no candidates were given, expected at least one")
    return _columns(cells, type(cells[0])), {}


def _columns(cells: Sequence[Any], kind: type) -> Columns[Any]:
    """Return cells, all of one type, as columns."""
    if not (cells.cell_type is kind if isinstance(cells, Columns) else all(type(each) is kind for each in cells)):
        raise ValueError(
            "cells of NAS-Bench-101 and of NATS-Bench were given, expected labelled cells and candidates of one space"
        )
    if isinstance(cells, Columns):
        return cells
    return NatsColumns.from_cells(cells) if kind is NatsCell else CellColumns.from_cells(cells)


def _once(tables: Sequence[Columns[Any]]) -> tuple[Columns[Any], list[npt.NDArray[np.int64]]]:
    """Return all cells of several tables, each once, and in which rows of these the cells of each table are.

    The cells are in the order in which they first appear.
    """
    kind = CellColumns if tables[0].cell_type is Cell else NatsColumns
    columns = [np.concatenate([getattr(table, name) for table in tables]) for name in kind.names]
    keys = np.zeros(len(columns[0]), np.int64)  # one number for each cell, of less than 41 bits
    for column in np.column_stack(columns).astype(np.int64).T:
        keys = keys * (column.max() + 1) + column
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    rows = place[inverse.reshape(-1)]
    ends = np.cumsum([len(table) for table in tables])[:-1]
    return kind(*(column[np.sort(first)] for column in columns)), np.split(rows, ends)


def labelled_cells(
    given: Sequence[MotifCell] | str | os.PathLike[str] | None,
    accuracy: npt.ArrayLike | str | None,
    column: str | None,
    lower_is_better: bool,
) -> tuple[list[MotifCell], npt.NDArray[np.float64], str]:
    """Return the labelled cells, each once; the mean of its accuracies, more is better; and where these were found in a file."""
    if given is None:
        if accuracy is not None:
            raise ValueError("accuracy is given without labelled, expected both or neither")
        return [], np.empty(0), ""
    if isinstance(given, str | os.PathLike):
        table = CellTable.of(read_table(given), os.fspath(given), column)
        if accuracy is not None and not isinstance(accuracy, str):
            raise TypeError(
                f"accuracy is a {type(accuracy).__name__} with a file of labelled cells, expected the name of its column"
            )
        cells, (values, source) = table.cells, table.accuracy(accuracy, lower_is_better=lower_is_better)
    else:
        source = ""
        cells = list(checked_candidates(given, (Cell, NatsCell), _EXPECTED, name="labelled"))
        if accuracy is None or isinstance(accuracy, str):
            raise TypeError("labelled are cells and accuracy is not an array, expected a number for each of them")
        values = np.asarray(checked_array("accuracy", accuracy), np.float64) * (-1.0 if lower_is_better else 1.0)
        if values.shape != (len(cells),):
            raise ValueError(f"accuracy has shape {values.shape}, expected ({len(cells)},) to match labelled")
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise ValueError(f"accuracy[{bad[0]}] is {values[bad[0]]}, expected finite numbers")
    found: dict[str, list[float]] = {}
    for each, value in zip(cells, values.tolist(), strict=True):
        found.setdefault(each.key, []).append(value)
    once = list({each.key: each for each in cells}.values())
    return once, np.array([sum(found[each.key]) / len(found[each.key]) for each in once]), source


def neighbours_of(labelled: Sequence[Cell], accuracy: npt.ArrayLike, n: int) -> list[Cell]:
    """Return cells that differ from labelled ones by one change: those of the best labelled cell first, until there are `n`.

    None is isomorphic to a labelled cell or to another one.
    """
    from spd_fast.nasbench101 import neighbours

    found: dict[str, Cell] = {}
    taken = {cell.module_hash for cell in labelled}
    for row in np.argsort(-np.asarray(accuracy, np.float64), kind="stable").tolist():
        for cell in neighbours(labelled[row]):
            if len(found) < n and cell.module_hash not in taken:
                found.setdefault(cell.module_hash, cell)
    return list(found.values())


def controls_of(cells: Sequence[MotifCell]) -> dict[str, Array]:
    """Return cheap scores of cells by name, shape (n,) each: counts, depth, parameters."""
    nats = isinstance(cells[0], NatsCell)
    names, features = NATS_SCALARS if nats else SCALARS, structural_features(cast(Any, cells))
    return {meaning: features[:, names.index(name)] for name, meaning in _CONTROLS[nats].items()}
