"""Tables of cells as people have them: files of several formats, and which of their columns hold what.

A table is a mapping from column names to lists of values, one for each row. `read_table` reads CSV and TSV (gzipped
or not), JSON, JSON lines, Parquet and .npz files; `CellTable` finds the cells and the accuracies in it.
"""

import csv
import gzip
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.errors import InvalidCellError
from spd_fast.base.extras import required
from spd_fast.base.files import atomic_write, load_arrays, other_kind
from spd_fast.base.types import checked_flag, checked_instance, checked_path, shown
from spd_fast.natsbench import enumerate_space
from spd_fast.spaces.candidate import MotifCell
from spd_fast.spaces.cell import MATRIX_NAMES, OPS_NAMES, Cell
from spd_fast.spaces.nats_cell import NatsCell, NatsColumns
from spd_fast.spaces.notations import cell_of
from spd_fast.truth.table import TruthTable

__all__ = [
    "CellTable",
    "read_table",
    "require_writable",
    "with_given",
    "write_table",
]

Table = Mapping[str, Sequence[Any]]

FORMATS: Final = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".json", ".jsonl", ".parquet", ".npz")
"""Endings of the files that are read."""
_CELL_NAMES: Final = ("cell", "nats", "arch_str", "architecture", "arch", "spec", "graph", "naslib")
"""Names of a single column that holds a cell in one of the notations of `cell_of`."""
_HASH_NAMES: Final = ("module_hash", "hash", "cell_hash", "model_hash")
_NATS_INDEX: Final = "nats_index"
"""Name of a column of indices of NATS-Bench's topology space."""
_PACKED_NAMES: Final = ("vertices", "edge_bits", "op_codes")
_ACCURACY_NAMES: Final = (
    "test_accuracy",
    "final_test_accuracy",
    "validation_accuracy",
    "valid_accuracy",
    "val_accuracy",
    "final_validation_accuracy",
    "accuracy",
    "test_acc",
    "valid_acc",
    "val_acc",
    "acc",
)
"""Names of columns of accuracies, the ones that are preferred first."""
_LOSS_NAMES: Final = ("test_loss", "validation_loss", "valid_loss", "val_loss", "loss", "error", "test_error")


@dataclass(frozen=True, eq=False)
class CellTable:
    """A table with the cells that its rows hold.

    Attributes
    ----------
    name : str
        Of the file, for messages.
    table : mapping of str to list
    cells : list of Cell, or list of NatsCell
        One for each row.
    column : str
        Where they were found: the name of a column, or names with commas between them.
    """

    name: str
    table: Table
    cells: list[MotifCell]
    column: str

    @classmethod
    def of(cls, table: Table, name: str, column: str | None = None) -> "CellTable":
        """Find the cells of a table.

        Parameters
        ----------
        table : mapping of str to list
        name : str
            Of the file, for messages.
        column : str, optional
            The column that holds the cells. By default it is found by its name.

        Raises
        ------
        ValueError
            If no column holds cells, a row holds none (the message names the row), or columns are not of one length.
        TypeError
            If the table is no mapping of columns, or a name is no text.
        """
        _require_columns("table", table)
        checked_instance("name", name, str, "the name of a file")
        if column is not None:
            checked_instance("column", column, str, "the name of a column, or None")
        if column is not None and column not in table:
            raise ValueError(f"{name} has no column {column!r}, expected one of {', '.join(table)}")
        if not len(table) or not len(next(iter(table.values()))):
            raise ValueError(f"{name} has no rows, expected at least one cell")
        found, read = _reader(table, column)
        if read is None:
            raise ValueError(
                f"{name} has no column of cells among {', '.join(table)}: expected {MATRIX_NAMES[0]} and {OPS_NAMES[0]}, "
                f"{', '.join(_PACKED_NAMES)}, {_HASH_NAMES[0]}, {_NATS_INDEX}, or {_CELL_NAMES[0]}; name it with --cell"
            )
        cells: list[MotifCell] = []
        for row, values in enumerate(zip(*(table[each] for each in found), strict=True)):
            try:
                cells.append(read(*values))
            except (TypeError, ValueError) as error:
                raise InvalidCellError(f"row {row + 1} of {name}: {error}") from None
        kinds = {type(cell) for cell in cells}
        if len(kinds) > 1:
            raise ValueError(f"{name} holds cells of NAS-Bench-101 and of NATS-Bench, expected cells of one space")
        return cls(name, table, cells, ", ".join(found))

    def accuracy(
        self, column: str | None = None, *, lower_is_better: bool = False
    ) -> tuple[npt.NDArray[np.float64], str]:
        """Return the accuracies, shape (n,), more is better, and a sentence that says where they were found.

        Parameters
        ----------
        column : str, optional
            By default it is found by its name.
        lower_is_better : bool
            Whether the column holds losses or errors, which are returned with their sign reversed.

        Raises
        ------
        ValueError
            If there is no such column, several could be meant, or a row holds no finite number.
        """
        if column is not None:
            checked_instance("column", column, str, "the name of a column, or None")
        lower_is_better = checked_flag("lower_is_better", lower_is_better)
        names = _LOSS_NAMES if lower_is_better else _ACCURACY_NAMES
        lowered = {name.lower(): name for name in self.table}
        known = [lowered[name] for name in names if name in lowered]
        if column is None and not known:
            raise ValueError(
                f"{self.name} has no column of {'losses' if lower_is_better else 'accuracies'} that is known by its name, among "
                f"{', '.join(self.table)}: name it with --accuracy"
            )
        chosen = known[0] if column is None else column
        if chosen not in self.table:
            raise ValueError(f"{self.name} has no column {chosen!r}, expected one of {', '.join(self.table)}")
        values = np.array([_number(value) for value in self.table[chosen]], np.float64)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise ValueError(
                f"row {bad[0] + 1} of {self.name} has {shown(self.table[chosen][bad[0]])} as {chosen}, expected a number for each cell"
            )
        if lower_is_better:
            return -values, f"column {chosen!r} of {self.name}, of which less is better"
        if values.max() > 1 and values.min() >= 0 and values.max() <= 100:
            return values / 100, f"column {chosen!r} of {self.name}, in per cent"
        return values, f"column {chosen!r} of {self.name}"


def _number(value: Any) -> float:
    """Return a number that may be given as text, with a per cent sign perhaps; NaN where it is none."""
    if isinstance(value, str):
        value = value.strip().removesuffix("%")
    if isinstance(value, bool | np.bool_ | bytes):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _whole(name: str, value: Any) -> int:
    """Return a whole number that may be given as text, or as a float: a column with gaps elsewhere holds floats."""
    number = _number(value)
    if not number.is_integer():
        raise ValueError(f"{name} is {shown(value)}, expected an integer")
    return int(number)


def _require_columns(name: str, table: object) -> None:
    """Refuse what is no table."""
    given = checked_instance(name, table, Mapping, "a mapping of the names of columns to lists of values")
    first: tuple[Any, int] | None = None
    for each, column in given.items():
        is_scalar = isinstance(column, str | bytes) or (isinstance(column, np.ndarray) and not column.ndim)
        if is_scalar or not isinstance(column, Sequence | np.ndarray):
            raise TypeError(f"column {each!r} of {name} is {shown(column)}, expected a list of values")
        first = first or (each, len(column))
        if len(column) != first[1]:
            raise ValueError(
                f"column {each!r} of {name} has {len(column)} values, expected {first[1]} as column {first[0]!r} has"
            )


def _reader(table: Table, column: str | None) -> tuple[list[str], Any]:
    """Return the columns that hold cells, and the function that makes a cell of their values; None if there are none."""
    lowered = {name.lower(): name for name in table}
    if column is None:
        matrix = next((lowered[name] for name in MATRIX_NAMES if name in lowered), None)
        ops = next((lowered[name] for name in OPS_NAMES if name in lowered), None)
        if matrix is not None and ops is not None:
            return [matrix, ops], lambda a, b: cell_of({"matrix": a, "ops": b})
        if all(name in lowered for name in _PACKED_NAMES):
            return [lowered[name] for name in _PACKED_NAMES], lambda *packed: Cell.from_bits(
                *map(_whole, _PACKED_NAMES, packed)
            )
        column = next((lowered[name] for name in (*_CELL_NAMES, *_HASH_NAMES, _NATS_INDEX) if name in lowered), None)
        if column is None:
            return [], None
    return [column], _IndexedCell() if column.lower() == _NATS_INDEX else _HashOrCell()


class _IndexedCell:
    """Reads indices of NATS-Bench's topology space."""

    def __init__(self) -> None:
        self._space = enumerate_space()

    def __call__(self, value: Any) -> NatsCell:
        number = _number(value)
        if number not in range(len(self._space)):
            raise ValueError(f"{_NATS_INDEX} is {shown(value)}, expected an integer from 0 to {len(self._space) - 1}")
        return self._space[int(number)]


class _HashOrCell:
    """Reads cells in any notation, and NAS-Bench-101's hashes by looking them up in the space, which is enumerated when
    the first hash is met (one or two seconds)."""

    def __init__(self) -> None:
        self._space: Any = None

    def __call__(self, value: Any) -> MotifCell:
        text = value.strip().lower() if isinstance(value, str) else ""
        if len(text) != 32 or set(text) - set("0123456789abcdef"):
            return cell_of(value)
        if self._space is None:
            from spd_fast.nasbench101 import enumerate_space

            self._space = enumerate_space()
        cell: MotifCell = self._space[self._space.row(text)]
        return cell


def read_table(path: str | os.PathLike[str]) -> dict[str, list[Any]]:
    """Read a file as columns.

    Parameters
    ----------
    path : path
        ``.csv`` and ``.tsv`` have a header line, and may be gzipped (``.csv.gz``). ``.json`` holds a list of objects, or an object whose ``"cells"`` or ``"rows"``
        is one; ``.jsonl`` an object a line. ``.parquet`` needs pandas and pyarrow. An ``.npz`` holds arrays of equal length.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it has another ending, or cannot be read as what it is named.
    ImportError
        If a Parquet file is given and its reader is not installed.
    """
    source = Path(checked_path("path", path))
    if source.is_dir():
        raise IsADirectoryError(f"{source} is a folder, expected a file that ends in {', '.join(FORMATS)}")
    if not source.is_file():
        raise FileNotFoundError(f"{source} does not exist: name a file that ends in {', '.join(FORMATS)}")
    kind = source.suffix.lower()
    if kind == ".gz":
        kind = f"{Path(source.stem).suffix.lower()}{kind}"
    if kind not in FORMATS:
        raise ValueError(f"{source} ends in {kind or 'nothing'!r}, expected one of {', '.join(FORMATS)}")
    if kind.startswith((".csv", ".tsv")):
        return _read_separated(
            source, "," if kind.startswith(".csv") else "\t", gzip.open if kind.endswith(".gz") else open
        )
    if kind == ".parquet":
        return _read_parquet(source)
    if kind == ".npz":
        return _read_arrays(source)
    try:
        text = source.read_text(encoding="utf-8-sig")
        records = (
            [json.loads(line) for line in text.splitlines() if line.strip()] if kind == ".jsonl" else json.loads(text)
        )
    except (ValueError, RecursionError) as error:
        what = "JSON lines" if kind == ".jsonl" else "JSON"
        other = other_kind(source, "a file of JSON lines" if kind == ".jsonl" else "a JSON file")
        raise ValueError(f"{source} is not {what}: {error}{other}") from None
    if isinstance(records, dict):
        records = next((records[name] for name in ("cells", "rows") if isinstance(records.get(name), list)), records)
    if not isinstance(records, list):
        raise ValueError(f"{source} holds no list, expected a list of objects with a cell each")
    return _columns_of([each if isinstance(each, dict) else {"cell": each} for each in records])


def _read_separated(source: Path, delimiter: str, opener: Any) -> dict[str, list[Any]]:
    try:
        with opener(source, "rb") as binary:
            is_utf16 = binary.read(2) in (b"\xff\xfe", b"\xfe\xff")  # as spreadsheets write "Unicode text"
        with opener(source, "rt", encoding="utf-16" if is_utf16 else "utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, delimiter=delimiter, strict=True))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{source} is not gzip data, or is damaged or cut short: {error}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        other = other_kind(source, "a CSV table" if delimiter == "," else "a TSV table")
        raise ValueError(
            f"{source} is not a table of text in UTF-8: {error}{other}; if it is a table, save it as UTF-8"
        ) from None
    rows = [row for row in rows if any(value.strip() for value in row)]
    if not rows:
        raise ValueError(f"{source} is empty, expected a header line with the names of the columns")
    header = [name.strip() for name in rows[0]]
    if header[0].startswith("<"):
        raise ValueError(f"{source} is not a table{other_kind(source, 'a CSV table')}")
    if len(header) == 1 and rows[1:] and (found := next((each for each in ";\t" if each in header[0]), None)):
        name = {";": "semicolons", "\t": "tabs"}[found]
        remedy = "save it with commas" if found == ";" else "give its name the ending .tsv"
        raise ValueError(
            f"{source} has {name} between its values, expected {'commas' if delimiter == ',' else 'tabs'}: {remedy}"
        )
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise ValueError(f"{source} has two columns named {twice!r}, expected each name once")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise ValueError(
                f"line {number} of {source} has {len(row)} values, expected {len(header)} as in its header"
            )
    return {name: [row[k] for row in rows[1:]] for k, name in enumerate(header)}


def _read_parquet(source: Path) -> dict[str, list[Any]]:
    required("pyarrow", f"{source}, a Parquet file,")
    pandas = required("pandas", f"{source}, a Parquet file,")
    try:
        return {str(name): column.tolist() for name, column in pandas.read_parquet(source).items()}
    except ValueError as error:
        raise ValueError(f"{source} is not a Parquet file: {error}{other_kind(source, 'a Parquet file')}") from None


def _read_arrays(source: Path) -> dict[str, list[Any]]:
    """Read the columns of an .npz: arrays that are as long as those of its cells; hashes as texts. Of a truth file they are the cells and what
    `TruthTable.load` takes for their accuracies."""
    arrays = {name: array for name, array in load_arrays(source, what="table").items() if array.ndim}
    accuracy: dict[str, list[Any]] = {}
    if not other_kind(source, "truth file"):
        truth = TruthTable.load(source)
        accuracy = {truth.accuracy_name: truth.accuracy.tolist()}
    of_cells = (*_PACKED_NAMES, "edge_ops", *_HASH_NAMES, *_CELL_NAMES, _NATS_INDEX)
    n = next((len(arrays[name]) for name in of_cells if name in arrays), None)
    if n is None:
        other = other_kind(source, "cell file")
        if "spd_fast" in other.partition(";")[2].partition(";")[0]:
            raise ValueError(f"{source} holds no cells{other}")
        n = max((len(array) for array in arrays.values()), default=0)
    found = {name: array.tolist() for name, array in arrays.items() if len(array) == n and array.ndim == 1}
    edge_ops = arrays.get("edge_ops")
    if edge_ops is not None and edge_ops.ndim == 2 and len(edge_ops) == n:
        found["nats"] = [cell.text for cell in NatsColumns(edge_ops)]
    hashes = arrays.get("module_hash")
    if hashes is not None and hashes.ndim == 2 and len(hashes) == n:
        found["module_hash"] = [row.tobytes().hex() for row in hashes]
    return found | accuracy


def _columns_of(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = list(dict.fromkeys(name for record in records for name in record))
    return {name: [record.get(name) for record in records] for name in names}


def with_given(
    found: Mapping[str, list[Any]], given: Table, order: Sequence[int] | None = None
) -> dict[str, list[Any]]:
    """Return columns with those of the user's file after them, in the order of these rows, if one is given.

    A column of the file that is named as one of the others is called ``given_`` and its name.
    """
    carried = {
        f"given_{name}" if name in found else name: list(values) if order is None else [values[row] for row in order]
        for name, values in given.items()
    }
    return {**found, **carried}


def write_table(path: str | os.PathLike[str], table: Table) -> None:
    """Write columns as .csv, .tsv, .json, .jsonl or .parquet, atomically.

    Raises
    ------
    ValueError
        If the ending is another.
    OSError
        If the file cannot be written.
    """
    target = Path(checked_path("path", path))
    kind = target.suffix.lower()
    require_writable(target)
    _require_columns("table", table)
    if kind in (".csv", ".tsv"):
        import io

        text = io.StringIO()
        writer = csv.writer(text, delimiter="," if kind == ".csv" else "\t", lineterminator="\n")
        writer.writerow(table)
        writer.writerows(zip(*([_as_text(value) for value in column] for column in table.values()), strict=True))
        _write(target, text.getvalue())
    elif kind in (".json", ".jsonl"):
        columns = [[_plain(value) for value in column] for column in table.values()]
        plain = [dict(zip(table, row, strict=True)) for row in zip(*columns, strict=True)]
        lines = "".join(f"{json.dumps(row)}\n" for row in plain)
        _write(target, json.dumps(plain, indent=1) + "\n" if kind == ".json" else lines)
    elif kind == ".parquet":
        required("pyarrow", f"{target}, a Parquet file,")
        with atomic_write(target) as file:
            required("pandas", f"{target}, a Parquet file,").DataFrame(dict(table)).to_parquet(file)


def require_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a name that `write_table` cannot write, before the work is done."""
    path = Path(checked_path("path", path))
    kind = path.suffix.lower()
    if kind not in (".csv", ".tsv", ".json", ".jsonl", ".parquet"):
        raise ValueError(f"{path} ends in {kind or 'nothing'!r}, expected .csv, .tsv, .json, .jsonl or .parquet")
    if not os.access(path.absolute().parent, os.W_OK):
        raise ValueError(f"{path} cannot be written, expected a name in a folder that is there and can be written to")


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_text(value: Any) -> Any:
    value = _plain(value)
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value)
    return repr(value) if isinstance(value, float) else value
