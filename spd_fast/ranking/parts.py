"""What motifs showed, as a folder of Parquet files that grows while they are trained on many machines.

The folder holds ``part-00000.parquet`` and so on, each whole or not there, and a journal of what is not in a part yet. pandas, DuckDB and
others read the folder as one table, also while it grows.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.extras import required
from spd_fast.base.files import atomic_write
from spd_fast.base.types import Array
from spd_fast.spaces.candidate import Columns, name_of
from spd_fast.spaces.cell_columns import CellColumns

__all__ = ["ENDING", "Parts", "is_folder_of_parts"]

ENDING: Final = ".parts"
"""Of the names of such folders."""
_NAMES: Final = "part-[0-9]*.parquet"
_ROWS: Final = 50_000
"""Motifs in a part, about 5 MB."""

_Measured = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Array, Array]


def is_folder_of_parts(path: str | os.PathLike[str]) -> bool:
    """Return whether a name is that of a folder of parts."""
    return Path(path).suffix == ENDING


class Parts:
    """The parts of a folder, which is made if it is not there.

    Every row of a part is a motif: its cell (``vertices``, ``edge_bits`` and ``op_codes`` as in `CellColumns`, or the text of a cell of
    NATS-Bench as ``cell``), ``row`` (position among the cells), ``place`` (of the replicate in the order in which they are trained), ``score`` and the learning curve, ``curve_1`` and so on.

    Parameters
    ----------
    folder : path
    cells : CellColumns or NatsColumns
    pieces : int
        Numbers in a learning curve.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    OSError
        If the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], cells: Columns[Any], pieces: int) -> None:
        required("pyarrow", f"{os.fspath(folder)}, a folder of Parquet files,")
        self.folder, self._cells, self._pieces = Path(folder), cells, pieces
        self.folder.mkdir(parents=True, exist_ok=True)
        self._waiting: list[_Measured] = []
        self._rows = 0

    @property
    def journal(self) -> Path:
        """The file of what is in no part yet."""
        return self.journal_in(self.folder)

    @staticmethod
    def journal_in(folder: Path) -> Path:
        """Return the journal of a folder. Readers of folders pass over names that begin with an underscore."""
        return folder / "_journal"

    @staticmethod
    def measured_in(folder: Path) -> Iterator[tuple[int, int]]:
        """Yield the row and the place of every motif that is in a part."""
        parquet = required("pyarrow.parquet", "reading parts")
        for path in sorted(folder.glob(_NAMES)):
            table = parquet.read_table(path, columns=["row", "place"])
            yield from zip(table["row"].to_pylist(), table["place"].to_pylist(), strict=True)

    def read(self) -> Iterator[_Measured]:
        """Yield rows, places, curves and scores of each part.

        Raises
        ------
        ValueError
            If a part cannot be read, or is of other cells.
        """
        pyarrow, parquet = required("pyarrow", "reading parts"), required("pyarrow.parquet", "reading parts")
        for path in self._paths():
            try:
                table = parquet.ParquetFile(path).read()
                row, place, score = (table[name].to_numpy() for name in ("row", "place", "score"))
                curve = np.stack([table[name].to_numpy() for name in self._curve_names()], axis=1)
            except (pyarrow.ArrowException, KeyError, ValueError) as error:
                raise ValueError(
                    f"{path} is not a part of measurements, or is damaged: remove it, and its motifs are trained again ({error})"
                ) from None
            if not self._has(table, row):
                raise ValueError(f"{path} holds other cells: remove {self.folder} or choose another name with --out")
            yield row.astype(np.int64), place.astype(np.int64), curve, score

    def add(self, rows: npt.NDArray[np.int64], place: int, curve: Array, score: Array) -> bool:
        """Take note of what is to be in the next part; return whether that is large enough to be written."""
        self._waiting.append((rows, np.full(len(rows), place), curve, score))
        self._rows += len(rows)
        return self._rows >= _ROWS

    def write(self) -> None:
        """Write the next part, if there is something to be written."""
        if self._rows:
            pyarrow, parquet = required("pyarrow", "writing parts"), required("pyarrow.parquet", "writing parts")
            rows, places, curve, score = map(np.concatenate, zip(*self._waiting, strict=True))
            columns = self._columns(rows)
            columns |= {"row": rows, "place": places.astype(np.int32), "score": score}
            columns |= {name: curve[:, k] for k, name in enumerate(self._curve_names())}
            number = 1 + max((int(path.stem.removeprefix("part-")) for path in self._paths()), default=-1)
            with atomic_write(self.folder / f"part-{number:05}.parquet") as file:
                parquet.write_table(pyarrow.table(columns), file, compression="zstd")
        self._waiting, self._rows = [], 0

    def _has(self, table: Any, rows: npt.NDArray[np.int64]) -> bool:
        """Return whether the cells of a part are those at its rows."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self._cells):
            return False
        wanted = self._columns(rows)
        return all(name in table.column_names for name in wanted) and all(
            np.array_equal(
                table[name].to_numpy(zero_copy_only=False), np.asarray(values, object if name == "cell" else None)
            )
            for name, values in wanted.items()
        )

    def _columns(self, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
        if isinstance(self._cells, CellColumns):
            return {name: getattr(self._cells, name)[rows] for name in self._cells.names}
        return {"cell": [name_of(self._cells[row]) for row in rows.tolist()]}

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(_NAMES))

    def _curve_names(self) -> list[str]:
        return [f"curve_{k + 1}" for k in range(self._pieces)]
