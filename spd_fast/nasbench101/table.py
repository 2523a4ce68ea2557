"""A table of NAS-Bench-101: its cells with the accuracies and training times of every run.

A table is an uncompressed .npz file that is mapped into memory; `numpy.load` reads it, too. Its schema is
``spd_fast.nasbench101/2``. With n cells, b budgets and at most r runs of a cell at a budget it holds:

===========================================  ===================  ================================================
array                                        dtype, shape         meaning
===========================================  ===================  ================================================
``schema``                                   text, ()             ``spd_fast.nasbench101/2``
``module_hash``                              uint8 (n, 16)        bytes of the official hash, rows ascending
``vertices``, ``edge_bits``, ``op_codes``    uint8, uint32,       the stored matrix, packed as `Cell.from_bits`
                                             uint16 (n,)          takes it
``trainable_parameters``                     int32 (n,)           of the benchmark's network
``budgets``                                  int32 (b,)           epochs of training, ascending
``{halfway,final}_training_time``            float32 (b, r, n)    seconds; NaN where a cell has fewer runs
``{halfway,final}_{train,validation,test}_   float32 (b, r, n)    0 to 1; NaN likewise
accuracy``
``provenance``                               uint8 (bytes,)       a JSON object: where the records came from
===========================================  ===================  ================================================
"""

import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from spd_fast._core import nasbench as _native
from spd_fast.base.extras import required
from spd_fast.base.files import MappedArchive, load_arrays, map_arrays, other_kind
from spd_fast.base.interrupts import stopped_with_main
from spd_fast.base.machine import thread_count
from spd_fast.base.types import checked_choice, checked_flag, checked_list, checked_path, plain, shown
from spd_fast.nasbench101.space import Drawn, hash_of
from spd_fast.spaces.cell import MAX_VERTICES, Cell
from spd_fast.spaces.cell_columns import CellColumns

if TYPE_CHECKING:
    import pandas


__all__ = [
    "CELL_COLUMNS",
    "METRICS",
    "METRIC_COLUMNS",
    "SCHEMA",
    "Evaluation",
    "Table",
    "is_table",
    "open_table",
    "wrong_rows",
]

SCHEMA: Final = "spd_fast.nasbench101/2"
METRICS: Final = ("training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
"""What the benchmark measured after half of the epochs and at the end of every run."""
METRIC_COLUMNS: Final = tuple(f"{moment}_{metric}" for moment in ("halfway", "final") for metric in METRICS)
CELL_COLUMNS: Final = {
    "vertices": np.uint8,
    "edge_bits": np.uint32,
    "op_codes": np.uint16,
    "module_hash": np.uint8,
    "trainable_parameters": np.int32,
}

Repeat: TypeAlias = int | Literal["mean"] | np.random.Generator


class Evaluation(NamedTuple):
    """What one run reached, or the mean over several runs. Accuracies are 0 to 1, the training time is in seconds."""

    training_time: float
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float


class Table(Drawn, Sequence[Cell]):
    """The measured cells of NAS-Bench-101 in ascending order of their hashes. `open_table` makes one.

    It is a sequence of `Cell`, each of which is built from the stored matrix of its row when it is touched. Every column is a
    read-only array that is mapped into memory, so only what is used is read from the disk. Cells and columns have the same
    rows.

    Attributes
    ----------
    module_hash, vertices, edge_bits, op_codes, trainable_parameters : ndarray
        Shapes (n, 16) and (n,); see the schema of this module.
    budgets : tuple of int
        Epochs of training, ascending.
    runs : int
        The largest number of runs that a cell has at a budget.
    training_time_spent : float
        Seconds that the runs returned by `query` took when the benchmark was made: what a search would have cost.
    epochs_spent : int
        The epochs of these runs; half of them for halfway values.
    """

    module_hash: npt.NDArray[np.uint8]
    vertices: npt.NDArray[np.uint8]
    edge_bits: npt.NDArray[np.uint32]
    op_codes: npt.NDArray[np.uint16]
    trainable_parameters: npt.NDArray[np.int32]

    def __init__(self, path: Path, arrays: MappedArchive) -> None:
        self.path, self._arrays = path, arrays
        self.budgets: tuple[int, ...] = tuple(arrays["budgets"].tolist())
        for name in CELL_COLUMNS:
            setattr(self, name, arrays[name])
        self.runs: int = arrays[METRIC_COLUMNS[0]].shape[1]
        self._columns = {name: arrays[name] for name in METRIC_COLUMNS}
        self._provenance = arrays["provenance"]
        self._index = _native.HashIndex(self.module_hash)
        # `item(row)` of a one-dimensional array is the fastest way from mapped memory to a Python float
        self._readers = {
            (halfway, epochs): [
                tuple(self._columns[_column_name(metric, halfway)][b, run].item for metric in METRICS)
                for run in range(self.runs)
            ]
            for b, epochs in enumerate(self.budgets)
            for halfway in (False, True)
        }
        self.reset_budget()

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Where the records came from, and what `convert` remarked on them."""
        record: dict[str, Any] = json.loads(self._provenance.tobytes())
        return record

    @cached_property
    def cells(self) -> CellColumns:
        """The cells as columns; every function that takes a sequence of cells takes them."""
        return CellColumns(self.vertices, self.edge_bits, self.op_codes, self.module_hash)

    def __len__(self) -> int:
        return len(self.vertices)

    def __repr__(self) -> str:
        return f"Table({len(self):,} cells, budgets {', '.join(map(str, self.budgets))} epochs, {self.runs} runs)"

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice | npt.NDArray[np.integer]) -> CellColumns: ...
    def __getitem__(self, index: int | slice | npt.NDArray[np.integer]) -> Cell | CellColumns:
        return self.cells[index]

    def row(self, cell: Any) -> int:
        """Return the row of a cell in O(log n). It is given as its `module_hash`, or in any way that `spd_fast.cell_of` reads.

        Raises
        ------
        ValueError
            If the table has no cell with this hash.
        """
        module_hash = hash_of(cell)
        row = self._index.find(module_hash)
        if row < 0:
            raise ValueError(
                f"no cell of the table {self.path} has module_hash {module_hash}, expected 32 hexadecimal digits of a cell's hash"
            )
        return row

    def rows(self, cells: Iterable[Any]) -> npt.NDArray[np.intp]:
        """Return the row of each of several cells, as `row` does. The result can index columns."""
        return np.array([self.row(cell) for cell in checked_list("cells", cells, "cells or hashes")], dtype=np.intp)

    def column(
        self,
        metric: str,
        *,
        epochs: int | None = None,
        repeat: int | Literal["mean", "all"] = "mean",
        halfway: bool = False,
    ) -> npt.NDArray[np.floating]:
        """Return a metric of every cell.

        Parameters
        ----------
        metric : str
            One of `METRICS`.
        epochs : int, optional
            One of `budgets`; by default the largest.
        repeat : int, "mean" or "all"
            The number of a run, or the mean over the runs that a cell has, or all runs.
        halfway : bool
            Whether to return what was measured after half of the epochs, and not at the end.

        Returns
        -------
        ndarray, shape (n,)
            Of one run: float32, mapped from the file. Of the mean: float64. NaN where a cell has no such run. With ``"all"``
            the shape is (n, runs), float32.

        Raises
        ------
        ValueError
            If there is no such metric, budget or run.
        """
        checked_choice("metric", metric, METRICS)
        runs = self._columns[_column_name(metric, checked_flag("halfway", halfway))][self._budget_index(epochs)]
        given: Any = repeat
        if not isinstance(given, str) or given not in ("mean", "all"):
            one: npt.NDArray[np.floating] = runs[self._checked_run(given)]
            return one
        if repeat == "all":
            every: npt.NDArray[np.floating] = runs.T
            return every
        present = ~np.isnan(runs)
        total = np.where(present, runs, 0).sum(axis=0, dtype=np.float64)
        with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of a cell without runs
            mean: npt.NDArray[np.float64] = total / present.sum(axis=0)
        return mean

    def query(
        self,
        cell: Any,
        epochs: int | None = None,
        repeat: Repeat = "mean",
        *,
        halfway: bool = False,
    ) -> Evaluation:
        """Return what a cell reached, and add the cost of its training to `training_time_spent` and `epochs_spent`.

        Parameters
        ----------
        cell : integer, or what `row` takes
            A row, a cell, or its `module_hash`.
        epochs : int, optional
            One of `budgets`; by default the largest.
        repeat : int, "mean" or numpy.random.Generator
            The number of a run, or the mean over the runs that the cell has, or a run that is chosen with this generator.
        halfway : bool
            Whether to return what was measured after half of the epochs, at half of the cost, and not at the end.

        Raises
        ------
        ValueError
            If there is no such cell, budget or run.
        IndexError
            If a row is out of range.
        """
        if type(cell) is int:  # the fast case comes first, because searches query millions of times
            row = cell
        else:
            given = plain(cell)
            row = given if isinstance(given, int) and not isinstance(given, bool) else self.row(cell)
        budget = self.budgets[-1] if epochs is None else epochs
        if type(budget) is not int or type(halfway) is not bool:
            budget, halfway = self.budgets[self._budget_index(budget)], checked_flag("halfway", halfway)
        readers = self._readers.get((halfway, budget))
        if readers is None:
            self._budget_index(budget)
            raise AssertionError("unreachable: the budget is checked above")
        if isinstance(repeat, int | np.integer):
            time, train, valid, test = readers[self._checked_run(repeat)]
            found = Evaluation(time(row), train(row), valid(row), test(row))
        else:
            found = self._over_runs(row, readers, repeat)
        if found.training_time != found.training_time:
            run = f"run {repeat}" if isinstance(repeat, int | np.integer) else "run"
            raise ValueError(f"cell {self._name(row)} has no {run} at {epochs or self.budgets[-1]} epochs")
        self.training_time_spent += found.training_time
        self.epochs_spent += (epochs or self.budgets[-1]) // (2 if halfway else 1)
        return found

    def reset_budget(self) -> None:
        """Set `training_time_spent` and `epochs_spent` to zero."""
        self.training_time_spent = 0.0
        self.epochs_spent = 0

    def finals(self) -> dict[str, npt.NDArray[Any]]:
        """Return what every run reached at its end, by name: accuracies, and ``"seconds"``; shape (n, budgets, runs).

        These columns and those of the cells are read, and their checksums are compared. That takes a fraction of a second for the
        full benchmark.

        Raises
        ------
        ValueError
            If the file is damaged.
        """
        self._arrays.require_intact([*CELL_COLUMNS, *(f"final_{name}" for name in METRICS)])
        found = {name: self._columns[f"final_{name}"].transpose(2, 0, 1) for name in METRICS[1:]}
        return found | {"seconds": self._columns["final_training_time"].transpose(2, 0, 1)}

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a pandas.DataFrame with one row for each cell, indexed by hash: its graph, and the means over its runs at
        each budget.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = required("pandas", "to_pandas")
        hashes = [self._name(row) for row in range(len(self))]
        columns: dict[str, Any] = {name: getattr(self, name) for name in CELL_COLUMNS if name != "module_hash"}
        for epochs in self.budgets:
            for metric in METRICS:
                columns[f"{metric}_{epochs}"] = self.column(metric, epochs=epochs)
        return pandas.DataFrame(columns, index=pandas.Index(hashes, name="module_hash"))

    def verify(self) -> None:
        """Check the whole file: its checksums, the order of its rows, and whether every hash is that of its graph.

        That takes a few seconds for the full benchmark.

        Raises
        ------
        ValueError
            If one of them is wrong; the message says which.
        """
        load_arrays(self.path, what="table", listed=True)
        ascending = self.module_hash.copy().view(">u8").astype(np.uint64)
        high, low = ascending[:, 0], ascending[:, 1]
        wrong = (high[1:] < high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] <= low[:-1]))
        if wrong.any():
            raise ValueError(f"table {self.path}: row {int(np.argmax(wrong)) + 1} is not in ascending order of hashes")
        wrong = wrong_rows(self.vertices, self.edge_bits, self.op_codes, self.module_hash)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"table {self.path}: {int(wrong.sum())} rows have a hash that is not that of their graph, the first is row "
                f"{row} ({self._name(row)})"
            )

    def describe(self) -> str:
        """Describe in a few lines what the table holds and where it came from."""
        test = self.column("test_accuracy")
        lines = [
            f"{len(self):,} cells, {self.runs} runs at each of {', '.join(map(str, self.budgets))} epochs",
            f"mean test accuracy at {self.budgets[-1]} epochs: {np.nanmin(test):.4f} to {np.nanmax(test):.4f}, "
            f"median {np.nanmedian(test):.4f}"
            if not np.isnan(test).all()
            else "no cell has every budget",
        ]
        return "\n".join([*lines, *(f"{key}: {value}" for key, value in self.provenance.items())])

    def _name(self, row: int) -> str:
        return bytes(self.module_hash[row]).hex()

    def _budget_index(self, epochs: int | None) -> int:
        wanted: Any = self.budgets[-1] if epochs is None else plain(epochs)
        if not isinstance(wanted, int | float) or isinstance(wanted, bool) or wanted not in self.budgets:
            known = ", ".join(map(str, self.budgets))
            raise ValueError(f"epochs is {shown(wanted)}, expected a budget of this table: {known}")
        return self.budgets.index(wanted)

    def _checked_run(self, repeat: Any) -> int:
        given = plain(repeat)
        run = given if isinstance(given, int) and not isinstance(given, bool) else -1
        if not 0 <= run < self.runs:
            raise ValueError(f"repeat is {shown(repeat)}, expected 0 to {self.runs - 1} or 'mean'")
        return run

    def _over_runs(self, row: int, readers: Sequence[Sequence[Any]], repeat: Any) -> Evaluation:
        values = [tuple(read(row) for read in run) for run in readers]
        there = [run for run in values if run[0] == run[0]]
        if not there:
            return Evaluation(*[float("nan")] * len(METRICS))
        if isinstance(repeat, np.random.Generator):
            return Evaluation(*there[int(repeat.integers(len(there)))])
        if not isinstance(repeat, str) or repeat != "mean":
            self._checked_run(repeat)
        return Evaluation(*(sum(each) / len(there) for each in zip(*there, strict=True)))


def open_table(path: str | os.PathLike[str]) -> Table:
    """Open a table that `convert` wrote. It is mapped into memory, which takes milliseconds whatever its size.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not such a table, is cut short, or has another version of the schema. The checksums of the columns are
        not compared here; `spd_fast.TruthTable.from_nasbench101` and `Table.verify` compare them.
    """
    arrays = map_arrays(checked_path("path", path), what="table")
    arrays.require_intact(arrays.keys() & {"schema", "budgets", "provenance"})
    schema = str(arrays["schema"]) if "schema" in arrays else None
    if schema != SCHEMA:
        raise ValueError(
            f"table {os.fspath(path)} has schema {schema!r}, expected {SCHEMA!r}: make it from an official file with "
            f"spd_fast.nasbench101.convert{other_kind(path, 'table')}"
        )
    if not arrays.listed:
        raise ValueError(
            f"table {os.fspath(path)} does not list its columns: another program wrote it, or it is damaged; make it anew "
            "with spd_fast.nasbench101.convert"
        )
    n, budgets, runs = len(arrays["vertices"]), len(arrays["budgets"]), arrays[METRIC_COLUMNS[0]].shape[1]
    expected: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        name: (np.dtype(kind), (n,)) for name, kind in CELL_COLUMNS.items()
    }
    expected["module_hash"] = (np.dtype(np.uint8), (n, 16))
    expected |= dict.fromkeys(METRIC_COLUMNS, (np.dtype(np.float32), (budgets, runs, n)))
    for name, (dtype, shape) in expected.items():
        array = arrays.get(name)
        if array is None or (array.dtype, array.shape) != (dtype, shape):
            found = "is missing" if array is None else f"is {array.dtype} {array.shape}"
            raise ValueError(f"table {os.fspath(path)}: {name} {found}, expected {dtype} {shape}")
    return Table(Path(path), arrays)


def wrong_rows(
    vertices: npt.NDArray[np.uint8],
    edge_bits: npt.NDArray[np.uint32],
    op_codes: npt.NDArray[np.uint16],
    module_hash: npt.NDArray[np.uint8],
    threads: int | None = None,
) -> npt.NDArray[np.bool_]:
    """Return which rows have a hash that is not that of their graph, or a graph that is not pruned; shape (n,)."""
    hashes = _native.hash_cells(vertices, edge_bits, op_codes, thread_count(threads), stopped_with_main(None))
    last = vertices.astype(np.int64) - 1
    edges = edge_bits.astype(np.int64)
    from_input, to_output = np.ones_like(edges), np.int64(1) << last  # sets of vertices as bits
    for y in range(1, MAX_VERTICES):
        into = edges >> y * (y - 1) // 2 & (1 << y) - 1
        from_input |= ((into & from_input) > 0).astype(np.int64) << y
    for y in reversed(range(1, MAX_VERTICES)):
        into = edges >> y * (y - 1) // 2 & (1 << y) - 1
        to_output |= np.where(to_output >> y & 1, into, 0)
    pruned: npt.NDArray[np.bool_] = from_input & to_output == (np.int64(2) << last) - 1
    wrong: npt.NDArray[np.bool_] = (hashes != module_hash).any(axis=1) | ~pruned
    return wrong


def is_table(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a table of NAS-Bench-101, of any version, judging by its schema alone."""
    try:
        return str(map_arrays(path, what="table")["schema"]).startswith(SCHEMA.rpartition("/")[0])
    except (OSError, ValueError, KeyError):
        return False


def _column_name(metric: str, halfway: bool) -> str:
    return f"{'halfway' if halfway else 'final'}_{metric}"
