"""The protocols that every space fulfils: those of a candidate, and of many candidates in columns."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import checked_integer, shown

__all__ = [
    "Candidate",
    "Columns",
    "MotifCell",
    "checked_candidates",
    "checked_index",
    "drawn_order",
    "md5",
    "name_of",
    "require_rows",
]


class Candidate(Protocol):
    """What a motif is made of: a `Cell`, a `NatsCell` or a `Perceptron`."""

    @property
    def module_hash(self) -> str:
        """32 hexadecimal digits, which are the same for candidates that count as one, such as isomorphic cells."""

    @property
    def key(self) -> str:
        """A text on which everything depends that is drawn for this candidate alone, such as its initial weights."""


AnyCandidate = TypeVar("AnyCandidate", bound=Candidate)


class Columns(Sequence[AnyCandidate]):
    """Many candidates in columns of numbers.

    Indexing with a slice or an array of integers returns columns of these rows.

    Attributes
    ----------
    cell_type : type
        The type of the candidates.
    names : tuple of str
        The attributes that hold the columns. The constructor takes them in this order, then `module_hash`.
    """

    cell_type: ClassVar[type]
    names: ClassVar[tuple[str, ...]]

    @cached_property
    def module_hash(self) -> npt.NDArray[np.uint8]:
        """The bytes of every candidate's `module_hash`, shape (n, 16), uint8."""
        digests = b"".join(bytes.fromhex(candidate.module_hash) for candidate in self)
        return np.frombuffer(digests, dtype=np.uint8).reshape(-1, 16)

    @property
    def trainable(self) -> npt.NDArray[np.bool_]:
        """Whether a motif can be trained of each candidate, shape (n,). It cannot of a cell that no path leads through."""
        return np.ones(len(self), bool)

    def _checked_hashes(self, module_hash: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        try:
            hashes = np.asarray(module_hash)
        except ValueError:  # lists of different lengths
            raise TypeError(f"module_hash is {shown(module_hash)}, expected uint8 ({len(self)}, 16)") from None
        if hashes.shape != (len(self), 16) or hashes.dtype != np.uint8:
            raise ValueError(f"module_hash is {hashes.dtype} {hashes.shape}, expected uint8 ({len(self)}, 16)")
        return hashes

    def _require_hashes(self, module_hash: npt.ArrayLike) -> None:
        same: npt.NDArray[np.bool_] = np.all(self._checked_hashes(module_hash) == self.module_hash, axis=1)
        require_rows(same, "a module_hash that is not its cell's")

    @overload
    @abstractmethod
    def __getitem__(self, index: int) -> AnyCandidate: ...
    @overload
    @abstractmethod
    def __getitem__(self, index: slice | npt.NDArray[Any]) -> "Columns[AnyCandidate]": ...
    @abstractmethod
    def __getitem__(self, index: int | slice | npt.NDArray[Any]) -> "AnyCandidate | Columns[AnyCandidate]":
        """Return a candidate, or rows as columns."""

    @classmethod
    @abstractmethod
    def from_cells(cls, cells: Iterable[AnyCandidate]) -> "Columns[AnyCandidate]":
        """Pack candidates into columns."""


def checked_candidates(cells: Any, kinds: tuple[type, ...], expected: str, *, name: str = "cells") -> Sequence[Any]:
    """Return a sequence of candidates if all of them are of these types. An array of objects is returned as a list.

    Raises
    ------
    TypeError
        If it is no sequence, or a candidate is of another type. `expected` says in the message which are expected.
    """
    if isinstance(cells, Columns):
        if not issubclass(cells.cell_type, kinds):
            raise TypeError(f"{name}[0] is {cells.cell_type.__name__}, expected {expected}")
        return cells
    if hasattr(cells, "module_hash") and hasattr(cells, "key"):
        raise TypeError(f"{name} is one {type(cells).__name__}, expected a sequence: [cell]")
    if getattr(cells, "ndim", 0) == 1:
        cells = cells.tolist()
    if not isinstance(cells, Sequence) or isinstance(cells, str | bytes):
        remedy = "give its .cells" if hasattr(cells, "cells") else "give a list of them"
        raise TypeError(f"{name} is {shown(cells)}, expected a sequence of {expected}: {remedy}")
    for k, cell in enumerate(cells):
        if not isinstance(cell, kinds):
            raise TypeError(f"{name}[{k}] is {type(cell).__name__}, expected {expected}")
    return cells


def name_of(candidate: Any) -> str:
    """Return what users know a candidate by: its slope, NATS-Bench's text of it, or its hash."""
    if hasattr(candidate, "slope"):
        return f"slope {candidate.slope:.4f}"
    return str(candidate.text if hasattr(candidate, "text") else candidate.module_hash)


def checked_index(index: Any, n: int) -> int | slice | npt.NDArray[Any]:
    """Return what picks some of n rows: the number of a row, a slice, or an array of numbers or of one boolean per row.

    Raises
    ------
    TypeError
        If it is something else.
    IndexError
        If a row does not exist.
    """
    if isinstance(index, slice):
        parts = (
            None if part is None else checked_integer("an end of the slice", part)
            for part in (index.start, index.stop, index.step)
        )
        return slice(*parts)
    if isinstance(index, list) or (isinstance(index, np.ndarray) and index.ndim):
        try:
            rows = np.asarray(index if len(index) else np.zeros(0, np.int64))
        except ValueError:  # lists of different lengths
            rows = np.asarray(None)
        if rows.ndim != 1 or rows.dtype.kind not in "iub":
            raise TypeError(f"the index is {shown(index)}, expected an integer, a slice, or integers of shape (m,)")
        if rows.dtype.kind == "b" and len(rows) != n:
            raise IndexError(f"the index has {len(rows)} booleans, expected {n}: one for each row")
        outside = np.zeros(0, bool) if rows.dtype.kind == "b" else (rows < -n) | (rows >= n)
        if outside.any():
            raise IndexError(f"the index holds {rows[outside][0]}, which is out of bounds: expected rows below {n}")
        return rows
    row = checked_integer("the index", index)
    if not -n <= row < n:
        raise IndexError(f"the index is {row}, which is out of bounds: expected a row below {n}")
    return row


def drawn_order(module_hash: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.intp]:
    """Return one row for every different hash, in a random order that depends on the seed and the hashes alone.

    Every hash has a rank that depends on (seed, hash). The order therefore does not depend on which other rows there are, nor on
    their order. The first n rows are a uniform sample without repeated cells, and a larger sample begins with the smaller one.

    Parameters
    ----------
    module_hash : ndarray, shape (n, 16), uint8
    seed : int
        Taken modulo 2**64.
    """
    halves = np.ascontiguousarray(module_hash).view("<u8")
    _, first = np.unique(halves, axis=0, return_index=True)
    rank = _mixed(halves[first, 0] + _mixed(np.array([checked_integer("seed", seed) % 2**64], np.uint64)))
    return first[np.lexsort((halves[first, 1], rank))]


def _mixed(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64-bit words one by one: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ words >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ words >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return words ^ words >> np.uint64(31)


def require_rows(valid: npt.NDArray[np.bool_], fault: str) -> None:
    """Raise a ValueError that names the first invalid row of a table and its fault, if there is one."""
    if not valid.all():
        raise ValueError(f"row {int(np.argmin(valid))} of the table has {fault}")


def md5(text: str) -> str:
    """Return the MD5 of a text, 32 hexadecimal digits."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


class MotifCell(Candidate, Protocol):
    """A candidate that a `MotifShape` is built around: a `Cell` or a `NatsCell`."""

    ops_on_edges: ClassVar[bool]

    def to_json(self) -> Mapping[str, Any]:
        """Return the cell as a dictionary that `json.dumps` takes."""

    @property
    def n_vertices(self) -> int:
        """The number of vertices, with input and output."""

    @property
    def matrix(self) -> npt.NDArray[np.uint8]:
        """Edges from row to column, shape (V, V): 1 for an edge, or the code of its operation if operations are on edges."""

    @property
    def op_codes(self) -> tuple[int, ...]:
        """Codes of the operations of the interior vertices; empty if operations are on edges."""

    def vertex_channels(self, c_in: int, c_out: int) -> tuple[int, ...]:
        """Return the number of output channels of each of the V vertices."""

    def conv_counts(self, channels: Sequence[int]) -> tuple[int, int]:
        """Return (convolution weights, channels under a batch norm) if the vertices have these channels."""
