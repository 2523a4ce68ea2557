"""Many cells of NAS-Bench-101 in columns of numbers, which tables and files hold."""

from collections.abc import Iterable
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from spd_fast.base.errors import InvalidCellError
from spd_fast.base.types import checked_list, shown
from spd_fast.spaces.candidate import Columns, checked_candidates, checked_index, require_rows
from spd_fast.spaces.cell import ABSENT_OP, MAX_VERTICES, Cell

__all__ = [
    "GRAPH_SCALARS",
    "CellColumns",
]

GRAPH_SCALARS: Final = (
    "edges",
    "conv3x3",
    "conv1x1",
    "maxpool3x3",
    "paths",
    "shortest_path",
    "longest_path",
    "conv3x3_on_path",
    "maxpool3x3_on_path",
    "input_fan_out",
    "output_fan_in",
    "input_to_output",
)
"""Names of the columns of `spd_fast.spaces.table_loops.graph_scalars`. They are in this module so that reading them does not load
numba."""


class CellColumns(Columns[Cell]):
    """Many cells, packed in columns of integers. A `Cell` is built when it is touched.

    Indexing with an integer returns a `Cell`; with a slice or an integer array it returns the rows as `CellColumns`.

    Parameters
    ----------
    vertices, edge_bits, op_codes : array-like of integers, shape (n,)
        Pruned cells, packed as `Cell.from_bits` takes them. Ranges are checked here; paths and limits are checked when a cell is
        built.
    module_hash : array-like, shape (n, 16), uint8, optional
        The bytes of every cell's `Cell.module_hash`. They are compared with every cell that is built. If they are not given,
        they are computed when they are first needed.

    Raises
    ------
    ValueError
        If the columns differ in length or type, or a value is out of range. The message names the row.
    """

    cell_type = Cell
    names = ("vertices", "edge_bits", "op_codes")

    vertices: npt.NDArray[np.uint8]
    edge_bits: npt.NDArray[np.uint32]
    op_codes: npt.NDArray[np.uint16]

    def __init__(
        self,
        vertices: npt.ArrayLike,
        edge_bits: npt.ArrayLike,
        op_codes: npt.ArrayLike,
        module_hash: npt.ArrayLike | None = None,
    ) -> None:
        n, bits, codes = _checked_columns(vertices, edge_bits, op_codes)
        self.vertices, self.edge_bits, self.op_codes = (
            n.astype(np.uint8),
            bits.astype(np.uint32),
            codes.astype(np.uint16),
        )
        self._cells: dict[int, Cell] = {}
        if module_hash is not None:
            self.__dict__["module_hash"] = self._checked_hashes(module_hash)

    @classmethod
    def from_cells(cls, cells: Iterable[Cell]) -> "CellColumns":
        """Pack cells into columns."""
        packed = checked_list("cells", cells, "spd_fast.Cell")
        checked_candidates(packed, (Cell,), "spd_fast.Cell")
        columns = cls(
            np.array([cell.n_vertices for cell in packed], dtype=np.int64),
            np.array([cell.edge_bits for cell in packed], dtype=np.int64),
            np.array([cell.packed_op_codes for cell in packed], dtype=np.int64),
        )
        columns._cells = dict(enumerate(packed))
        return columns

    def __len__(self) -> int:
        return len(self.vertices)

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice | npt.NDArray[Any]) -> "CellColumns": ...
    def __getitem__(self, index: int | slice | npt.NDArray[Any]) -> "Cell | CellColumns":
        index = checked_index(index, len(self))
        if isinstance(index, slice | np.ndarray):
            hashes = self.__dict__.get("module_hash")
            taken = None if hashes is None else hashes[index]
            return CellColumns(self.vertices[index], self.edge_bits[index], self.op_codes[index], taken)
        row = range(len(self))[index]
        if row not in self._cells:
            self._cells[row] = self._build(row)
        return self._cells[row]

    def _build(self, row: int) -> Cell:
        try:
            cell = Cell.from_bits(int(self.vertices[row]), int(self.edge_bits[row]), int(self.op_codes[row]))
        except InvalidCellError as error:
            raise InvalidCellError(f"row {row}: {error}") from None
        if cell.n_vertices != self.vertices[row]:
            raise InvalidCellError(
                f"row {row} has {self.vertices[row]} vertices, expected {cell.n_vertices}: it is not pruned"
            )
        stored = self.__dict__.get("module_hash")
        if stored is not None and stored[row].tobytes().hex() != cell.module_hash:
            raise ValueError(
                f"row {row} has module_hash {stored[row].tobytes().hex()}, expected {cell.module_hash} for its graph: "
                "the columns do not belong together"
            )
        return cell


def _checked_columns(
    vertices: npt.ArrayLike, edge_bits: npt.ArrayLike, op_codes: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    columns = []
    for name, column in (("vertices", vertices), ("edge_bits", edge_bits), ("op_codes", op_codes)):
        try:
            array = np.asarray(column)
        except (ValueError, RuntimeError):  # lists of different lengths
            raise TypeError(f"{name} is {shown(column)}, expected integers of shape (n,)") from None
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}, expected integers of shape (n,)")
        columns.append(array.astype(np.int64))
    n, bits, codes = columns
    if not len(n) == len(bits) == len(codes):
        lengths = f"{len(n)}, {len(bits)} and {len(codes)}"
        raise ValueError(f"vertices, edge_bits and op_codes have lengths {lengths}, expected equal lengths")
    require_rows((n >= 2) & (n <= MAX_VERTICES), f"vertices outside 2 to {MAX_VERTICES}")
    require_rows((bits >= 0) & (bits < 1 << n * (n - 1) // 2), "edge_bits out of range for its vertices")
    positions = np.arange(MAX_VERTICES - 2)
    absent = (codes[:, None] >> 2 * positions & 3 == ABSENT_OP) & (positions < n[:, None] - 2)
    require_rows(
        (codes >= 0) & (codes < 1 << 16) & ~absent.any(axis=1), "op_codes that are not one of the ops per vertex"
    )
    return n, bits, codes
