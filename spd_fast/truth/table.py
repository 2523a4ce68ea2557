"""Truth: cells with the measured accuracies, and where known the losses, of their full-size networks.

A truth file is an .npz without pickles, which `spd_fast.base.files` writes. Its schema is ``spd_fast.truth/2``. With n cells,
b budgets and s seeds it holds:

======================================  ==================  =====================================================
array                                   dtype, shape        meaning
======================================  ==================  =====================================================
``schema``                              text, ()            ``spd_fast.truth/2``
``module_hash``                         uint8 (n, 16)       bytes of `Cell.module_hash`
``vertices``, ``edge_bits``,            uint8, uint32,      the pruned cell, packed as `Cell.from_bits` takes it
``op_codes``                            uint16 (n,)
``edge_ops``                            uint8 (n, 6)        in place of these: of a `NatsCell`, as `NatsColumns` takes them
``slope``                               float64 (n,)        in place of these: of a `Perceptron`
``budgets``                             int64 (b,)          epochs of training, ascending
``seeds``                               int64 (s,)          seeds of the runs
``{train,validation,test}_accuracy``    float32 (n, b, s)   at the end of training, 0 to 1
``{train,validation,test}_loss``        float32 (n, b, s)   mean cross-entropy; not finite where the run diverged
``seconds``                             float32 (n, b, s)   training time of one thread
``provenance``                          uint8 (bytes,)      a JSON object: data set, network, settings, hours
======================================  ==================  =====================================================

A file holds at least one accuracy; the other measurements are optional. `TruthTable.load` also reads files that hold test accuracies
of NAS-Bench-101 beside the packed cells, in one column ``test_k29952``: how many of 29,952 images three runs classified correctly.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import as_file, files
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from spd_fast.base.files import load_arrays, other_kind, save_arrays
from spd_fast.base.types import checked_choice, checked_instance, checked_integer, checked_list, checked_path, shown
from spd_fast.nasbench101.table import Table as NasbenchTable
from spd_fast.nasbench101.table import is_table, open_table
from spd_fast.spaces.candidate import Candidate, Columns, checked_index, drawn_order
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.spaces.nats_cell import NatsColumns
from spd_fast.spaces.perceptron import Perceptron, PerceptronColumns

__all__ = [
    "MEASUREMENTS",
    "SCHEMA",
    "TruthTable",
    "columns_of",
    "write_truth",
]

SCHEMA: Final = "spd_fast.truth/2"
_SPLITS: Final = ("train", "validation", "test")
_ACCURACIES: Final = tuple(f"{split}_accuracy" for split in _SPLITS)
MEASUREMENTS: Final = (*_ACCURACIES, *(f"{split}_loss" for split in _SPLITS), "seconds")
"""Names of the measurements that a truth may hold, arrays of shape (n, b, s)."""
_KINDS: Final[tuple[type[Columns[Any]], ...]] = (CellColumns, NatsColumns, PerceptronColumns)
EMBEDDED: Final = {Cell: "truth.npz", Perceptron: "slopes.npz"}
_NASBENCH_COUNTS: Final = "test_k29952"
_NASBENCH_IMAGES: Final = 29952


@dataclass(frozen=True, eq=False)
class TruthTable:
    """Cells with measured accuracies. A dish is learned from some of them and judged on others.

    `TruthTable.load` reads one from a file. A table holds every budget and seed of its file; `accuracy_name` and `budget`
    say which of these measurements `accuracy` and `loss` return.

    Parameters
    ----------
    cells : CellColumns, NatsColumns or PerceptronColumns, length n
        A sequence of cells, or of perceptrons, each of which is built when it is touched.
    measurements : mapping of str to ndarray, shape (n, b, s)
        Measurements by name, which is one of `MEASUREMENTS`; at least one of them is an accuracy. Accuracies are 0 to 1; a loss
        may be infinite or NaN if a run diverged.
    budgets : sequence of int, length b, >= 1, ascending
        Epochs that the networks were trained for.
    seeds : sequence of int, length s, distinct
    accuracy_name : str
        Which of the measurements `accuracy` returns: ``"test_accuracy"``, ``"validation_accuracy"`` or ``"train_accuracy"``.
        Default: the first of these that the table has.
    budget : int, default: the largest
    provenance : mapping that JSON can hold
        Where the numbers come from: data set, network, settings.

    Raises
    ------
    ValueError
        If shapes disagree, a value is out of range, or `accuracy_name` or `budget` is not in the table.
    """

    cells: Columns[Any]
    measurements: Mapping[str, npt.NDArray[np.floating]]
    budgets: tuple[int, ...]
    seeds: tuple[int, ...]
    accuracy_name: str = ""
    budget: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_instance("cells", self.cells, Columns, "columns of cells, such as CellColumns.from_cells(cells)")
        for name in ("measurements", "provenance"):
            checked_instance(name, getattr(self, name), Mapping, "a mapping of names to values")
        budgets, seeds = _checked_axis("budgets", self.budgets), _checked_axis("seeds", self.seeds)
        if list(budgets) != sorted(budgets) or budgets[0] < 1:
            raise ValueError(f"budgets are {budgets}, expected epochs of at least 1 in ascending order")
        measurements = _checked_measurements(self.measurements, (len(self.cells), len(budgets), len(seeds)))
        checked_instance("accuracy_name", self.accuracy_name, str, "the name of an accuracy such as 'test_accuracy'")
        object.__setattr__(self, "budget", checked_integer("budget", self.budget))
        accuracy_name = self.accuracy_name or next(name for name in reversed(_ACCURACIES) if name in measurements)
        budget = self.budget or budgets[-1]
        if accuracy_name not in measurements or accuracy_name not in _ACCURACIES:
            known = ", ".join(name for name in _ACCURACIES if name in measurements)
            raise ValueError(f"accuracy_name is {accuracy_name!r}, expected an accuracy of this table: {known}")
        if budget not in budgets:
            raise ValueError(f"budget is {budget!r} epochs, expected one of this table: {', '.join(map(str, budgets))}")
        for name, value in {
            "measurements": measurements,
            "budgets": budgets,
            "seeds": seeds,
            "accuracy_name": accuracy_name,
            "budget": budget,
        }.items():
            object.__setattr__(self, name, value)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        accuracy_name: str | None = None,
        budget: int | None = None,
        cell_type: type = Cell,
    ) -> "TruthTable":
        """Read a truth.

        Parameters
        ----------
        path : path, optional
            An .npz in the schema above, a table that `spd_fast.nasbench101.convert` wrote, or a file with a column of
            NAS-Bench-101 test accuracies. Default: a truth that ships with the package.
        accuracy_name : str, optional
            ``"test_accuracy"``, ``"validation_accuracy"`` or ``"train_accuracy"``. Default: the first of these that the file
            holds.
        budget : int, optional
            Epochs of training. Default: the largest budget of the file.
        cell_type : type
            Without a path, the type of the candidates: `Cell`, or `Perceptron`.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a truth file, is damaged, or has no such accuracy or budget.
        """
        if accuracy_name is not None:
            checked_instance("accuracy_name", accuracy_name, str, "the name of an accuracy such as 'test_accuracy'")
        if budget is not None:
            budget = checked_integer("budget", budget)
        if path is None:
            return cls.embedded(cell_type, accuracy_name=accuracy_name, budget=budget)
        checked_path("path", path)
        if is_table(path):
            return cls.from_nasbench101(open_table(path), accuracy_name=accuracy_name, budget=budget)
        name = f"truth file {os.fspath(path)}"
        arrays = load_arrays(path, what="truth file")
        try:
            fields = _read_schema(arrays) if "schema" in arrays else _read_nasbench_columns(arrays)
            return cls(**fields, accuracy_name=accuracy_name or "", budget=budget or 0)
        except ValueError as error:
            raise ValueError(f"{name}: {error}{other_kind(path, 'truth file')}") from error

    @classmethod
    def from_nasbench101(
        cls, table: NasbenchTable, *, accuracy_name: str | None = None, budget: int | None = None
    ) -> "TruthTable":
        """Make a truth of a table of NAS-Bench-101, with every run of every cell at every budget.

        Parameters
        ----------
        table : spd_fast.nasbench101.Table
        accuracy_name, budget
            As in `load`.

        Raises
        ------
        ValueError
            If there is no such accuracy or budget, a cell lacks a run at some budget, or the file is damaged.
        """
        checked_instance("table", table, NasbenchTable, "a table that spd_fast.nasbench101.open returned")
        provenance = {"data": "CIFAR-10, NAS-Bench-101", **table.provenance}
        runs, measured = tuple(range(table.runs)), table.finals()  # it compares all checksums
        gaps = np.isnan(measured["seconds"]).any(axis=(1, 2))
        if gaps.any():
            name, entry = next(iter(measured)), tuple(np.argwhere(np.isnan(measured["seconds"]))[0].tolist())
            raise ValueError(
                f"table {table.path}: {name}{list(entry)} is nan: {gaps.sum()} of {len(gaps)} cells lack a run at some budget, the first "
                f"is {table.module_hash[entry[0]].tobytes().hex()}; expected every run of every cell: convert the whole official file"
            )
        return cls(table.cells, measured, table.budgets, runs, accuracy_name or "", budget or 0, provenance)

    @classmethod
    def embedded(
        cls, cell_type: type = Cell, *, accuracy_name: str | None = None, budget: int | None = None
    ) -> "TruthTable":
        """Read a truth that ships with the package.

        Parameters
        ----------
        cell_type : type
            `Cell`, or `Perceptron` for the 100 slopes of docs/truth.md.
        accuracy_name, budget
            As in `load`.

        Raises
        ------
        ValueError
            If there is no truth of this type, or this installation lacks it.
        """
        if not isinstance(cell_type, type) or cell_type not in EMBEDDED:
            raise ValueError(
                f"cell_type is {getattr(cell_type, '__name__', shown(cell_type))}, expected Cell or Perceptron: no truth of others ships with the package; "
                "give a truth file"
            )
        with as_file(files("spd_fast") / "data" / EMBEDDED[cell_type]) as path:
            if not path.is_file():
                raise ValueError(f"this installation has no truth of its own, {path} is not there: give a truth file")
            return cls.load(path, accuracy_name=accuracy_name, budget=budget)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a truth file in the schema above, as a whole or not at all.

        Measurements are stored as float32. `accuracy_name` and `budget` are not stored.

        Raises
        ------
        OSError
            If the folder does not exist or cannot be written to.
        """
        arrays: dict[str, npt.NDArray[Any]] = {"schema": np.array(SCHEMA)}
        arrays |= {name: getattr(self.cells, name) for name in ("module_hash", *self.cells.names)}
        arrays |= {"budgets": np.array(self.budgets, np.int64), "seeds": np.array(self.seeds, np.int64)}
        arrays |= {name: np.asarray(values, np.float32) for name, values in self.measurements.items()}
        text = json.dumps(dict(self.provenance), sort_keys=True)
        arrays["provenance"] = np.frombuffer(text.encode(), dtype=np.uint8)
        save_arrays(checked_path("path", path), arrays)

    @cached_property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """The accuracy called `accuracy_name` at `budget` epochs, mean over seeds: shape (n,), float64, 0 to 1."""
        means: npt.NDArray[np.float64] = self._at_budget(self.accuracy_name).mean(axis=1)
        return means

    @cached_property
    def accuracy_sd(self) -> npt.NDArray[np.float64] | None:
        """Sample standard deviation of `accuracy` over seeds, shape (n,); None if there is only one seed."""
        return self._at_budget(self.accuracy_name).std(axis=1, ddof=1) if len(self.seeds) > 1 else None

    @cached_property
    def loss(self) -> npt.NDArray[np.float64] | None:
        """Loss on the split of `accuracy_name` (training, validation or test images) at `budget` epochs, mean over seeds:
        shape (n,).

        It is not finite where a run diverged. None if the table has no losses of this split.
        """
        name = self.accuracy_name.replace("_accuracy", "_loss")
        return self._at_budget(name).mean(axis=1) if name in self.measurements else None

    def compared(self, what: Literal["accuracy", "loss"]) -> tuple[Columns[Any], npt.NDArray[np.float64]]:
        """Return cells with the truth that their motifs are compared with: accuracies, or losses with their sign reversed.

        More is better. With losses, cells whose loss is not finite are left out.

        Raises
        ------
        ValueError
            If losses are asked for and the table has none.
        """
        if checked_choice("what", what, ("accuracy", "loss")) == "accuracy":
            return self.cells, self.accuracy
        if self.loss is None:
            raise ValueError(
                'outer.truth is "loss" and the truth holds none: give a truth with losses, or set outer.truth to "accuracy"'
            )
        finite = np.isfinite(self.loss)
        return self.cells[np.flatnonzero(finite)], -self.loss[finite]

    def row(self, digits: str) -> int:
        """Return the row of the cell whose hash begins with these hexadecimal digits.

        Raises
        ------
        ValueError
            If no hash begins so, or several do.
        """
        checked_instance("digits", digits, str, "the first hexadecimal digits of a module_hash")
        rows = [row for row, each in enumerate(self.hashes) if each.startswith(digits.lower())]
        if len(rows) != 1:
            raise ValueError(f"the hash {digits} fits {len(rows)} cells of the truth, expected exactly one")
        return rows[0]

    @property
    def nasbench_cells(self) -> CellColumns:
        """`cells`, if they are cells of NAS-Bench-101.

        Raises
        ------
        TypeError
            If they are others, which have no structural features.
        """
        if isinstance(self.cells, CellColumns):
            return self.cells
        raise TypeError(
            f"the truth holds {self.cells.cell_type.__name__}s, expected Cells: others have no structural features"
        )

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """`Cell.module_hash` of every row, 32 hexadecimal digits each."""
        return tuple(row.tobytes().hex() for row in self.cells.module_hash)

    def __len__(self) -> int:
        return len(self.cells)

    def __repr__(self) -> str:
        return f"TruthTable({len(self)} cells, {self.accuracy_name} at {self.budget} epochs)"

    def trainable(self) -> "TruthTable":
        """Return a table without the cells of which no motif can be trained, because no path of operations leads through them. The
        cells of NAS-Bench-101 all stay."""
        rows = self.cells.trainable
        return self if rows.all() else self.subset(rows)

    def subset(self, indices: npt.ArrayLike) -> "TruthTable":
        """Return a table of the rows at `indices` (integers, or one bool per row), in that order.

        Raises
        ------
        IndexError
            If an index is out of range.
        """
        try:
            rows = np.asarray(indices)
        except (ValueError, TypeError, RuntimeError):
            raise IndexError(f"indices are {shown(indices)}, expected integers or bools of shape (m,)") from None
        if rows.ndim != 1 or rows.dtype.kind not in "biu":
            if rows.size:
                raise IndexError(f"indices are {rows.dtype} {rows.shape}, expected integers or bools of shape (m,)")
            rows = np.zeros(0, np.int64)
        checked_index(rows, len(self))
        measurements = {name: values[rows] for name, values in self.measurements.items()}
        return replace(self, cells=self.cells[rows], measurements=measurements)

    def sample(self, n: int, seed: int) -> "TruthTable":
        """Draw `n` cells at random, no two with the same `module_hash`.

        The draw depends on the seed and on which cells the table holds, not on their order: every cell has a rank that depends
        on (seed, module_hash) alone, and the `n` cells with the lowest ranks are taken, the lowest first. A larger sample with
        the same seed begins with the smaller one.

        Parameters
        ----------
        n : int, at least 0
        seed : int

        Returns
        -------
        TruthTable
            With `n` rows.

        Raises
        ------
        ValueError
            If the table holds fewer than `n` different cells.
        """
        return self.subset(self._drawn(n, seed))

    def split(self, n: int, seed: int) -> tuple["TruthTable", "TruthTable"]:
        """Draw `n` cells as `sample` does; return them and all other cells. No two cells of both have the same `module_hash`.

        Parameters
        ----------
        n : int, at least 0
        seed : int

        Returns
        -------
        TruthTable
            The `n` cells that were drawn.
        TruthTable
            One cell for every other hash, in the order of this table.

        Raises
        ------
        ValueError
            If the table holds fewer than `n` different cells.
        """
        first = self._drawn(n, seed)
        order = drawn_order(self.cells.module_hash, seed)
        return self.subset(first), self.subset(np.sort(order[len(first) :]))

    def describe(self) -> str:
        """Describe the table in a few lines: which accuracy, of which networks, after how many epochs, with how many
        seeds."""
        split = self.accuracy_name.removesuffix("_accuracy")
        accuracy = self.accuracy
        lines = [
            f"{len(self)} cells: {split} accuracy after {self.budget} epochs, {self._runs()}",
            f"accuracy {accuracy.min():.4f} to {accuracy.max():.4f}, median {np.median(accuracy):.4f}"
            if len(self)
            else "no cells",
        ]
        if self.accuracy_sd is not None and len(self):
            lines.append(
                f"spread over seeds: standard deviation {np.sqrt(np.mean(self.accuracy_sd**2)):.4f} (root mean square)"
            )
        if self.loss is not None and not np.isfinite(self.loss).all():
            lines.append(
                f"{int(np.sum(~np.isfinite(self.loss)))} cells have a run that diverged (their loss is not finite)"
            )
        lines.append(
            f"budgets in the table: {', '.join(map(str, self.budgets))} epochs; holds {', '.join(self.measurements)}"
        )
        lines += [f"{key}: {value}" for key, value in self.provenance.items()]
        return "\n".join(lines)

    def _runs(self) -> str:
        averaged = self.provenance.get("averaged_runs")
        if averaged is not None:
            return f"mean of {averaged} runs"
        return f"mean of {len(self.seeds)} seeds" if len(self.seeds) > 1 else "1 seed"

    def _at_budget(self, name: str) -> npt.NDArray[np.float64]:
        values = self.measurements[name][:, self.budgets.index(self.budget)]
        # the order in which NumPy adds a cell's seeds depends on the layout in memory
        return np.ascontiguousarray(values, np.float64)

    def _drawn(self, n: int, seed: int) -> npt.NDArray[np.intp]:
        n, order = checked_integer("n", n), drawn_order(self.cells.module_hash, seed)
        if not 0 <= n <= len(order):
            raise ValueError(f"n is {n}, expected 0 to {len(order)}: the number of different cells in the table")
        return order[:n]


def columns_of(cells: Sequence[Candidate]) -> Columns[Any]:
    """Pack candidates into the columns that hold their type.

    Raises
    ------
    TypeError
        If one is not a candidate, or its type is not that of the first.
    """
    packed = checked_list("cells", cells, "candidates")
    first = type(packed[0]) if packed else Cell
    kind = next((kind for kind in _KINDS if kind.cell_type is first), None)
    odd = next((k for k, cell in enumerate(packed) if type(cell) is not first or kind is None), None)
    if kind is None or odd is not None:
        expected = first.__name__ if kind else " or ".join(kind.cell_type.__name__ for kind in _KINDS)
        raise TypeError(f"cells[{odd}] is {type(packed[odd or 0]).__name__}, expected {expected}")
    return kind.from_cells(packed)


def write_truth(
    path: str | os.PathLike[str],
    *,
    cells: Sequence[Candidate],
    budgets: Sequence[int],
    seeds: Sequence[int],
    arrays: Mapping[str, npt.NDArray[np.floating]],
    provenance: Mapping[str, Any],
) -> None:
    """Check measurements and write them as a truth file, as a whole or not at all.

    Parameters
    ----------
    path : path
    cells : sequence of Cell, of NatsCell or of Perceptron, length n, no two with the same `module_hash`
    budgets : sequence of int, length b, ascending
        Epochs of training.
    seeds : sequence of int, length s
    arrays : mapping of str to ndarray, shape (n, b, s)
        Measurements by name, which is one of `MEASUREMENTS`; at least one of them is an accuracy. Accuracies are 0 to 1. Give a
        run that diverged the accuracy of its predictions, and a loss that is not finite.
    provenance : mapping that JSON can hold

    Raises
    ------
    ValueError
        If a shape or value is wrong; the message names the array and the first offending entry.
    TypeError
        If `provenance` holds values that JSON cannot hold, or if `cells` holds candidates of two types.
    OSError
        If the file cannot be written.
    """
    epochs, runs = tuple(checked_list("budgets", budgets, "integers")), tuple(checked_list("seeds", seeds, "integers"))
    table = TruthTable(columns_of(cells), arrays, epochs, runs, provenance=provenance)
    repeated = len(table) - len(set(table.hashes))
    if repeated:
        raise ValueError(
            f"{repeated} of {len(table)} cells repeat the module_hash of another, expected different cells"
        )
    table.save(path)


def _checked_axis(name: str, values: Iterable[int]) -> tuple[int, ...]:
    listed = checked_list(name, values, "integers")
    try:
        axis = np.asarray(listed)
    except ValueError:  # lists of different lengths
        raise TypeError(f"{name} is {shown(values)}, expected a sequence of integers") from None
    if axis.ndim != 1 or not axis.size or axis.dtype.kind not in "iu" or len(np.unique(axis)) < axis.size:
        raise ValueError(f"{name} are {axis.tolist()}, expected one or more different integers")
    return tuple(axis.tolist())


def _checked_measurements(
    measurements: Mapping[str, npt.NDArray[np.floating]], shape: tuple[int, int, int]
) -> dict[str, npt.NDArray[np.floating]]:
    if not set(measurements) & set(_ACCURACIES):
        raise ValueError(f"measurements are {sorted(measurements)}, expected at least one of {', '.join(_ACCURACIES)}")
    unknown = [name for name in measurements if name not in MEASUREMENTS]
    if unknown:
        raise ValueError(f"measurement {unknown[0]!r} is unknown, expected one of {', '.join(MEASUREMENTS)}")
    checked = {}
    for name in (name for name in MEASUREMENTS if name in measurements):
        array = np.asarray(measurements[name])
        if array.shape != shape or array.dtype.kind != "f":
            expected = f"floats of shape {shape}: cells, budgets, seeds"
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected {expected}")
        wrong = ~((array >= 0) & (array <= (1 if name in _ACCURACIES else np.inf)))
        if name.endswith("_loss"):
            wrong &= np.isfinite(array)
        if wrong.any():
            entry = tuple(np.argwhere(wrong)[0].tolist())
            allowed = "0 to 1" if name in _ACCURACIES else "at least 0"
            raise ValueError(f"{name}{list(entry)} is {array[entry]}, expected {allowed}")
        checked[name] = array
    return checked


def _columns(arrays: Mapping[str, npt.NDArray[Any]]) -> Columns[Any]:
    kind: Any = next((kind for kind in _KINDS if set(kind.names) <= set(arrays)), CellColumns)
    _missing(arrays, ("module_hash", *kind.names))
    columns: Columns[Any] = kind(*(arrays[name] for name in kind.names), arrays["module_hash"])
    return columns


def _missing(arrays: Mapping[str, npt.NDArray[Any]], needed: Iterable[str]) -> None:
    absent = [name for name in needed if name not in arrays]
    if absent:
        held = ", ".join(arrays) or "no arrays"
        raise ValueError(f"holds {held}, but not {', '.join(absent)}: not a whole truth file ({SCHEMA})")


def _read_schema(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    schema = str(arrays["schema"])
    if schema != SCHEMA:
        raise ValueError(
            f"has schema {schema!r}, expected {SCHEMA!r}: written by another program or version; build or convert it anew"
        )
    cells = _columns(arrays)
    _missing(arrays, ("budgets", "seeds", "provenance"))
    try:
        provenance = json.loads(arrays["provenance"].tobytes())
    except ValueError as error:
        raise ValueError("provenance is not JSON: the file is damaged") from error
    if not isinstance(provenance, dict):
        raise ValueError(f"provenance is a JSON {type(provenance).__name__}, expected an object")
    return {
        "cells": cells,
        "measurements": {name: arrays[name] for name in MEASUREMENTS if name in arrays},
        "budgets": np.atleast_1d(arrays["budgets"]).tolist(),
        "seeds": np.atleast_1d(arrays["seeds"]).tolist(),
        "provenance": provenance,
    }


def _read_nasbench_columns(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    _missing(arrays, ("module_hash", *CellColumns.names, _NASBENCH_COUNTS))
    counts = arrays[_NASBENCH_COUNTS]
    if counts.dtype.kind not in "iu" or counts.ndim != 1:
        raise ValueError(f"{_NASBENCH_COUNTS} is {counts.dtype} {counts.shape}, expected integers of shape (n,)")
    return {
        "cells": _columns(arrays),
        "measurements": {"test_accuracy": (counts / _NASBENCH_IMAGES).reshape(-1, 1, 1)},
        "budgets": (108,),
        "seeds": (0,),
        "provenance": {
            "data": "CIFAR-10, test accuracies of NAS-Bench-101",
            "network": "NAS-Bench-101: 128 stem channels, 3 stacks of 3 cells",
            "averaged_runs": 3,
        },
    }
