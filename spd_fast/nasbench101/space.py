"""The space of NAS-Bench-101: all of its cells, which are enumerated and not read from a file."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from spd_fast._core import nasbench as _native
from spd_fast.base.interrupts import stopped_with_main
from spd_fast.base.machine import thread_count
from spd_fast.base.types import checked_integer, shown
from spd_fast.spaces.candidate import drawn_order
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.spaces.notations import cell_of

__all__ = ["Drawn", "Space", "enumerate_space", "hash_of"]


class _Hashed(Protocol):
    @property
    def module_hash(self) -> npt.NDArray[np.uint8]: ...


class Drawn:
    """Cells that can be drawn from: the space, or a table."""

    def sample(self: _Hashed, n: int, seed: int, *, where: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.intp]:
        """Draw `n` different cells uniformly; return their rows, which index columns and the cells themselves.

        The draw depends on the seed and the cells alone, as that of `TruthTable.sample` does. A larger sample with the same seed
        begins with the smaller one.

        Parameters
        ----------
        n : int, >= 0
        seed : int
        where : ndarray, shape (len(self),), bool, optional
            The rows to draw from. Examples: ``where=space.vertices == 7``, ``where=table.column("test_accuracy") > 0.9``.

        Raises
        ------
        ValueError
            If there are fewer than `n` cells to draw from, or `where` has another shape or type.
        """
        n, rows = checked_integer("n", n), np.arange(len(self.module_hash))
        if where is not None:
            try:
                allowed = np.asarray(where)
            except (ValueError, TypeError, RuntimeError):  # lists of different lengths
                raise TypeError(f"where is {shown(where)}, expected one bool per row: ({len(rows)},)") from None
            if allowed.shape != rows.shape or allowed.dtype != bool:
                raise ValueError(f"where is {allowed.dtype} {allowed.shape}, expected one bool per row: ({len(rows)},)")
            rows = rows[allowed]
        order = drawn_order(self.module_hash[rows], seed)
        if not 0 <= n <= len(order):
            raise ValueError(f"n is {n}, expected 0 to {len(order)}: the number of cells to draw from")
        return rows[order[:n]]


class Space(Drawn, CellColumns):
    """The 423,624 cells of NAS-Bench-101 in ascending order of their hashes, which is the order of the official file.

    It is a sequence of `Cell`, each of which is built when it is touched. Isomorphic matrices are one cell; the space holds
    the matrix with the smallest `edge_bits`, and of several such the one with the smallest op codes in vertex order. That is
    the official file's choice. The number of parameters of 1.2 % of the cells depends on it, because spare channels go to the
    first vertices.

    Attributes
    ----------
    vertices, edge_bits, op_codes, module_hash : ndarray
        As `CellColumns` has them.
    trainable_parameters : ndarray, shape (n,), int32
        The number of trainable parameters of the benchmark's own network.
    """

    trainable_parameters: npt.NDArray[np.int32]

    def __init__(
        self,
        vertices: npt.ArrayLike,
        edge_bits: npt.ArrayLike,
        op_codes: npt.ArrayLike,
        module_hash: npt.NDArray[np.uint8],
        trainable_parameters: npt.NDArray[np.int32],
    ) -> None:
        super().__init__(vertices, edge_bits, op_codes, module_hash)
        self.trainable_parameters = trainable_parameters
        self._index = _native.HashIndex(module_hash)

    def __repr__(self) -> str:
        return f"Space({len(self):,} cells)"

    def row(self, cell: Any) -> int:
        """Return the row of a cell in O(log n). It is given as its `module_hash`, or in any way that `spd_fast.cell_of` reads.

        Raises
        ------
        ValueError
            If no cell has this hash.
        """
        module_hash = hash_of(cell)
        row = self._index.find(module_hash)
        if row < 0:
            raise ValueError(
                f"no cell of the space has module_hash {module_hash}, expected 32 hexadecimal digits of a cell's hash"
            )
        return row


def enumerate_space(*, threads: int | None = None) -> Space:
    """Enumerate the space: every pruned graph of 2 to 7 vertices and at most 9 edges, with every choice of operations.

    Of isomorphic graphs there is one; they are found by comparing the graphs, not their hashes. The call takes one or two
    seconds.

    Parameters
    ----------
    threads : int, optional
        Default: the processors there are. Does not change the result.

    Examples
    --------
    >>> space = enumerate_space()
    >>> len(space)
    423624
    >>> space[0]
    Cell(00005c142e6f48ac, 7 vertices, 9 edges)
    >>> np.bincount(space.vertices).tolist()
    [0, 0, 1, 6, 84, 2441, 62010, 359082]
    """
    found = _native.enumerate_space(thread_count(threads), stopped_with_main(None))
    return Space(found.vertices, found.edge_bits, found.op_codes, found.module_hash, found.trainable_parameters)


def hash_of(cell: Any) -> str:
    """Return the hash of a cell that is given as its hash, or in any way that `spd_fast.cell_of` reads."""
    if isinstance(cell, str) and not cell.lstrip().startswith(("|", "{", "(", "[")):
        return cell
    return cell_of(cell).module_hash
