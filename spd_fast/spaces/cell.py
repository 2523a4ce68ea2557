"""Cells of NAS-Bench-101: validation, pruning, hashing, channel counts and a drawing for the terminal.

A cell is a directed acyclic graph of at most 7 vertices and 9 edges. Vertex 0 is the input, the last vertex is the
output, and every other vertex has one of three operations.

References
----------
Ying et al. 2019, NAS-Bench-101: Towards Reproducible Neural Architecture Search, arXiv:1902.09635. The rules are those of its
published code: pruning (``ModelSpec``), hashing (``hash_module``) and channel counts (``compute_vertex_channels``).
"""

from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.errors import InvalidCellError
from spd_fast.base.types import checked_integer, checked_sequence, shown
from spd_fast.spaces.candidate import md5

__all__ = [
    "INPUT",
    "MATRIX_NAMES",
    "MAX_EDGES",
    "MAX_VERTICES",
    "OPS",
    "OPS_NAMES",
    "OUTPUT",
    "Cell",
    "count_convs",
    "fill_vertex_channels",
    "hash_graph",
]

INPUT: Final = "input"
OUTPUT: Final = "output"
OPS: Final = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
"""Operations of interior vertices. The code of an operation is its position here."""
MAX_VERTICES: Final = 7
"""The most vertices of a pruned cell, with input and output."""
MAX_EDGES: Final = 9
"""The most edges of a pruned cell."""
MAX_RAW_VERTICES: Final = 64
"""The most vertices of a matrix before pruning. The space has no such limit; this one catches arrays that are not cells."""
ABSENT_OP: Final = 3
MATRIX_NAMES: Final = ("matrix", "module_adjacency", "adjacency", "adjacency_matrix", "original_matrix")
"""Names under which an adjacency matrix is known: ours, the benchmark's records, others', ``ModelSpec``."""
OPS_NAMES: Final = ("ops", "module_operations", "operations", "labels", "original_ops")
"""Names under which the operations of its vertices are known, in the same order."""
_NUMBERS: Final = (int, float, np.number, np.bool_)
_OTHER_NOTATIONS: Final = "spd_fast.cell_of reads cells in other notations"


class Cell:
    """One cell of the space of NAS-Bench-101. It is pruned when it is made, and immutable.

    Two cells are equal if their pruned matrices and operations are equal. Isomorphic cells whose vertices are numbered
    differently have the same `module_hash` but are not equal, because spare channels go to the first vertices, so that the
    networks that are built from them can differ.

    Parameters
    ----------
    matrix : array-like or sparse matrix of SciPy, shape (V, V), of 0/1 or bool, or V strings of V characters 0/1
        Adjacency matrix: ``matrix[x][y]`` is 1 if an edge leads from vertex x to vertex y. It is upper triangular. V is 2 to
        64. The limits of the space (7 vertices, 9 edges) apply after pruning, as in the benchmark.
    ops : sequence of V strings
        ``"input"``, then one of `OPS` for each interior vertex, then ``"output"``. An unknown operation is an error even on a
        vertex that pruning would remove.

    Raises
    ------
    InvalidCellError
        If the graph is not a cell of the space. The message says which limit it breaks, and at which vertex, numbered as in
        `matrix`.

    Examples
    --------
    >>> cell = Cell(["0110", "0001", "0001", "0000"], ["input", "conv3x3-bn-relu", "maxpool3x3", "output"])
    >>> cell
    Cell(7c65f6bd01b87407, 4 vertices, 4 edges)
    >>> print(cell)
    0 input
    ├──1 conv3x3-bn-relu
    └──│──2 maxpool3x3
       └──┴──3 output
    >>> cell.vertex_channels(3, 9)
    (3, 5, 4, 9)
    """

    ops_on_edges: ClassVar = False
    _ops: tuple[str, ...]
    _edge_bits: int

    def __init__(self, matrix: npt.ArrayLike | Sequence[str], ops: Sequence[str] = ()) -> None:
        rows = _checked_rows(matrix)
        names = _checked_ops(ops, len(rows))
        kept = _vertices_on_paths(rows)
        edges = [(x, y) for y in range(len(kept)) for x in range(y) if rows[kept[x]] >> kept[y] & 1]
        _check_limits(kept, edges)
        object.__setattr__(self, "_ops", tuple(names[v] for v in kept))
        object.__setattr__(self, "_edge_bits", sum(1 << _edge_bit(x, y) for x, y in edges))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"cannot set {name}: a Cell is immutable; build a new one")

    @classmethod
    def from_bits(cls, vertices: int, edge_bits: int, op_codes: int) -> "Cell":
        """Build a cell from packed integers, which tables of cells hold.

        Parameters
        ----------
        vertices : int, 2 to 7
        edge_bits : int
            Bit ``x + y (y - 1) / 2`` is set if an edge leads from vertex x to vertex y > x.
        op_codes : int
            Two bits for each interior vertex, those of the first vertex lowest: the operation's position in `OPS`. Bits above
            the last interior vertex are ignored (tables fill them with 3).

        Raises
        ------
        InvalidCellError
            If a number is out of range or the graph is not a cell of the space.
        """
        n, bits, codes = (
            checked_integer(name, value)
            for name, value in (("vertices", vertices), ("edge_bits", edge_bits), ("op_codes", op_codes))
        )
        if not 2 <= n <= MAX_VERTICES:
            raise InvalidCellError(f"cell has {n} vertices, expected 2 to {MAX_VERTICES}")
        if not 0 <= bits < 1 << n * (n - 1) // 2:
            raise InvalidCellError(
                f"edge_bits {bits} is out of range for {n} vertices, expected 0 to 2**{n * (n - 1) // 2} - 1"
            )
        if codes < 0:
            raise InvalidCellError(f"op_codes is {codes}, expected a non-negative integer")
        interior = [codes >> 2 * i & 3 for i in range(n - 2)]
        if ABSENT_OP in interior:
            raise InvalidCellError(
                f"vertex {interior.index(ABSENT_OP) + 1} of {n} has op code 3 (absent), expected 0, 1 or 2"
            )
        matrix = [[int(x < y and bits >> _edge_bit(x, y) & 1) for y in range(n)] for x in range(n)]
        return cls(matrix, [INPUT, *(OPS[code] for code in interior), OUTPUT])

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Cell":
        """Build a cell from what `to_json` returns, ``{"matrix": [[...], ...], "ops": [...]}``, or from a record with other names
        of `MATRIX_NAMES` and `OPS_NAMES`, such as the benchmark's. `spd_fast.cell_of` reads more notations.

        Raises
        ------
        InvalidCellError
            If a key is missing or the graph is not a cell of the space.
        """
        found = record if isinstance(record, Mapping) else {}
        matrix = next((found[name] for name in MATRIX_NAMES if found.get(name) is not None), None)
        ops = next((found[name] for name in OPS_NAMES if found.get(name) is not None), None)
        if matrix is None or ops is None:
            held = sorted(map(str, record)) if isinstance(record, Mapping) else type(record).__name__
            raise InvalidCellError(
                f'a cell record holds {held}, expected an object with "matrix" and "ops"; {_OTHER_NOTATIONS}'
            )
        return cls(matrix, ops)

    def to_json(self) -> dict[str, Any]:
        """Return the pruned cell as a dictionary of lists, which `json.dumps` and `from_json` take."""
        return {"matrix": self.matrix.tolist(), "ops": list(self.ops)}

    @property
    def ops(self) -> tuple[str, ...]:
        """Operation names of the V vertices, ``"input"`` first and ``"output"`` last."""
        return self._ops

    @property
    def edge_bits(self) -> int:
        """Edges as an integer: bit ``x + y (y - 1) / 2`` is set if an edge leads from vertex x to vertex y > x."""
        return self._edge_bits

    @cached_property
    def matrix(self) -> npt.NDArray[np.uint8]:
        """Pruned adjacency matrix, shape (V, V), uint8, upper triangular, read-only."""
        n = self.n_vertices
        matrix = np.array([[self._has_edge(x, y) for y in range(n)] for x in range(n)], dtype=np.uint8)
        matrix.flags.writeable = False
        return matrix

    @property
    def n_vertices(self) -> int:
        """Number of vertices V, input and output included: 2 to 7."""
        return len(self._ops)

    @property
    def n_edges(self) -> int:
        """Number of edges: 1 to 9."""
        return self._edge_bits.bit_count()

    @property
    def op_codes(self) -> tuple[int, ...]:
        """Positions in `OPS` of the V - 2 interior vertices, in vertex order."""
        return tuple(OPS.index(op) for op in self._ops[1:-1])

    @property
    def packed_op_codes(self) -> int:
        """Op codes as tables hold them: two bits for each of five interior vertices, the first lowest; 3 for an absent one."""
        codes = (*self.op_codes, *[ABSENT_OP] * (MAX_VERTICES - self.n_vertices))
        return sum(code << 2 * i for i, code in enumerate(codes))

    def has_edge(self, source: int, target: int) -> bool:
        """Return whether an edge leads from vertex `source` to vertex `target`."""
        source, target = checked_integer("source", source), checked_integer("target", target)
        return 0 <= source < target < self.n_vertices and self._has_edge(source, target)

    def _has_edge(self, source: int, target: int) -> bool:
        return source < target and bool(self._edge_bits >> _edge_bit(source, target) & 1)

    @cached_property
    def module_hash(self) -> str:
        """The benchmark's hash, which is the same for isomorphic cells: an MD5, 32 hexadecimal digits.

        Notes
        -----
        Each vertex begins with ``md5(str((out_degree, in_degree, label)))``; the label is -1 for the input, -2 for the output,
        and the op code otherwise. In each of V rounds it becomes
        ``md5(sorted in-neighbours + "|" + sorted out-neighbours + "|" + itself)``. The hash is the MD5 of Python's text of the
        sorted list of the vertices' hashes.
        """
        vertices = range(self.n_vertices)
        targets = [[y for y in vertices if self._has_edge(x, y)] for x in vertices]
        return hash_graph(targets, self.op_codes)

    @property
    def key(self) -> str:
        """A text that is different for cells that are not equal, also for isomorphic ones."""
        return f"{self.n_vertices}/{self.edge_bits}/{','.join(self.ops)}"

    def vertex_channels(self, c_in: int, c_out: int) -> tuple[int, ...]:
        """Return the number of output channels of each of the V vertices.

        The output's channels are divided evenly among the interior vertices that feed it, and spare channels go to the first
        of these vertices. Every other interior vertex is as wide as the widest vertex that it feeds.

        Parameters
        ----------
        c_in : int, >= 1
            Channels of the cell's input, which is the first entry of the result.
        c_out : int, >= the number of interior vertices that feed the output
            Channels of the cell's output, which is the last entry of the result.

        Raises
        ------
        ValueError
            If a number is below 1, or if `c_out` leaves a vertex without channels.

        Examples
        --------
        >>> cell = Cell(["01110", "00001", "00001", "00001", "00000"], ["input", *["maxpool3x3"] * 3, "output"])
        >>> cell.vertex_channels(8, 8)
        (8, 3, 3, 2, 8)
        """
        c_in, c_out = checked_integer("c_in", c_in), checked_integer("c_out", c_out)
        if c_in < 1 or c_out < 1:
            raise ValueError(f"c_in is {c_in} and c_out is {c_out}, expected at least 1 each")
        fan_in = sum(self._has_edge(v, self.n_vertices - 1) for v in range(1, self.n_vertices - 1))
        if c_out < fan_in:
            raise ValueError(
                f"c_out is {c_out}, expected at least {fan_in}: that many interior vertices feed the output of this "
                "cell and each needs a channel; use more stem channels"
            )
        channels = [0] * self.n_vertices
        fill_vertex_channels(self.n_vertices, self._edge_bits, c_in, c_out, channels)
        return tuple(channels)

    def conv_counts(self, channels: Sequence[int]) -> tuple[int, int]:
        """Return (convolution weights, channels under a batch norm) if the V vertices have these channels, as `vertex_channels`
        returns them."""
        checked_channels(channels, self.n_vertices)
        return count_convs(self.n_vertices, self.edge_bits, self.packed_op_codes, channels)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cell):
            return NotImplemented
        return (self._edge_bits, self._ops) == (other._edge_bits, other._ops)

    def __hash__(self) -> int:
        return hash((self._edge_bits, self._ops))

    def __reduce__(self) -> tuple[type["Cell"], tuple[list[list[int]], tuple[str, ...]]]:
        return type(self), (self.matrix.tolist(), self._ops)

    def __repr__(self) -> str:
        return f"Cell({self.module_hash[:16]}, {self.n_vertices} vertices, {self.n_edges} edges)"

    def __str__(self) -> str:
        """Return a drawing of the graph with one row for each vertex.

        Below the number of a vertex runs its lane, down to the last vertex that it feeds. Edges run down and to the right. A
        corner, tee or dot on a lane joins it to the row; a plain bar crosses the row.
        """
        return "\n".join(self._drawn_row(v) for v in range(self.n_vertices))

    def _drawn_row(self, row: int) -> str:
        drawn, started = "", False
        for lane in range(row):
            last = max(y for y in range(lane + 1, self.n_vertices) if self._has_edge(lane, y))
            if self._has_edge(lane, row):
                mark = ("┴" if started else "└") if last == row else ("●" if started else "├")
                started = True
            else:
                mark = "│" if last > row else "─" if started else " "
            drawn += mark + ("──" if started else "  ")
        return f"{drawn}{row} {self._ops[row]}"


def checked_channels(channels: Sequence[int], n_vertices: int) -> None:
    """Raise unless there is an integer for each vertex."""
    given = checked_sequence("channels", channels, f"{n_vertices} integers")
    if len(given) != n_vertices:
        raise ValueError(f"channels has {len(given)} numbers, expected {n_vertices}: one for each vertex")
    for each in given:
        checked_integer("one of channels", each)


def hash_graph(targets: Sequence[Sequence[int]], op_codes: Sequence[int]) -> str:
    """Return the benchmark's hash of a graph, by the rule of `Cell.module_hash`. The graph need not be a cell of the space.

    Parameters
    ----------
    targets : sequence of V sequences of int
        The vertices that each vertex feeds.
    op_codes : sequence of V - 2 int
        The label of each interior vertex.
    """
    vertices = range(len(targets))
    sources = [[x for x in vertices if y in targets[x]] for y in vertices]
    labels = (-1, *op_codes, -2)
    hashes = [md5(str((len(targets[v]), len(sources[v]), labels[v]))) for v in vertices]
    for _ in vertices:
        hashes = [
            md5(
                "".join(sorted(hashes[x] for x in sources[v]))
                + "|"
                + "".join(sorted(hashes[y] for y in targets[v]))
                + "|"
                + hashes[v]
            )
            for v in vertices
        ]
    return md5(str(sorted(hashes)))


def fill_vertex_channels(
    n_vertices: int, edge_bits: int, c_in: int, c_out: int, channels: MutableSequence[int]
) -> None:
    """Write the channels of each vertex of a pruned graph into `channels`, by the rule of `Cell.vertex_channels`.

    The function uses integers and indexing only, so that numba can compile it for whole tables of graphs. `channels` has at
    least `n_vertices` entries. `c_out` must suffice for every interior vertex that feeds the output.
    """
    output = n_vertices - 1
    to_output = output * (output - 1) // 2
    fan_in = 0
    for v in range(1, output):
        fan_in += edge_bits >> (v + to_output) & 1
    channels[0] = c_in
    channels[output] = c_out
    spare = c_out % fan_in if fan_in > 0 else 0
    for v in range(1, output):
        channels[v] = 0
        if edge_bits >> (v + to_output) & 1:
            channels[v] = c_out // fan_in
            if spare > 0:
                channels[v] += 1
                spare -= 1
    for v in range(output - 1, 0, -1):
        if not edge_bits >> (v + to_output) & 1:
            for target in range(v + 1, output):
                if edge_bits >> (v + target * (target - 1) // 2) & 1:
                    channels[v] = max(channels[v], channels[target])


def count_convs(n_vertices: int, edge_bits: int, op_codes: int, channels: Sequence[int]) -> tuple[int, int]:
    """Return (convolution weights, channels under a batch norm) of a cell, by the rule of `Cell.conv_counts`.

    The function uses integers and indexing only, so that numba can compile it for whole tables of graphs.
    """
    weights = 0
    normalised = 0
    for v in range(1, n_vertices):
        width = channels[v]
        if edge_bits >> (v * (v - 1) // 2) & 1:
            weights += channels[0] * width
            normalised += width
        op = op_codes >> 2 * (v - 1) & 3
        if v < n_vertices - 1 and op < 2:
            weights += width * width * (9 if op == 0 else 1)
            normalised += width
    return weights, normalised


def _edge_bit(source: int, target: int) -> int:
    return source + target * (target - 1) // 2


def _checked_rows(matrix: npt.ArrayLike | Sequence[str]) -> list[int]:
    """Check that a matrix is square, of zeros and ones, and upper triangular; return its rows as integers with bit y for an
    edge to vertex y."""
    if isinstance(matrix, Sequence) and matrix and all(isinstance(row, str) for row in matrix):
        matrix = [[int(entry) if entry in "01" else -1 for entry in str(row)] for row in matrix]
    if np.ma.is_masked(matrix):
        raise InvalidCellError("matrix has masked entries, expected 0 or 1 in each")
    is_sparse = hasattr(matrix, "toarray") and hasattr(matrix, "shape")
    try:
        entries: Any = matrix if is_sparse else np.asarray(matrix)  # a sparse one may be too large to be written out
    except ValueError as error:
        raise InvalidCellError("matrix has rows of different lengths, expected shape (V, V)") from error
    if len(entries.shape) != 2 or entries.shape[0] != entries.shape[1]:
        other = f"; {_OTHER_NOTATIONS}" if not entries.shape else ""
        raise InvalidCellError(f"matrix has shape {entries.shape}, expected (V, V): it must be square{other}")
    n = entries.shape[0]
    if not 2 <= n <= MAX_RAW_VERTICES:
        raise InvalidCellError(f"matrix has {n} vertices, expected 2 to {MAX_RAW_VERTICES} before pruning")
    if is_sparse:
        entries = np.asarray(entries.toarray())
    if entries.dtype == object:
        entries = np.array(
            [[entry if isinstance(entry, _NUMBERS) and entry in (0, 1) else -1 for entry in row] for row in entries]
        )
    if entries.dtype.kind not in "biuf":
        raise InvalidCellError(f"matrix has entries of type {entries.dtype}, expected 0 and 1")
    wrong = np.argwhere((entries != 0) & (entries != 1))
    if len(wrong):
        x, y = map(int, wrong[0])
        raise InvalidCellError(
            f"matrix[{x}][{y}] is not 0 or 1, expected 1 for an edge from vertex {x} to vertex {y} and 0 for none"
        )
    below = np.argwhere(np.tril(entries))
    if len(below):
        x, y = map(int, below[0])
        raise InvalidCellError(
            f"matrix has an edge from vertex {x} to vertex {y}, expected upper triangular: "
            "edges lead to higher vertices only"
        )
    return [sum(1 << y for y in range(n) if row[y]) for row in entries.tolist()]


def _checked_ops(ops: Sequence[str], n: int) -> tuple[str, ...]:
    if isinstance(ops, str) or not isinstance(ops, Iterable):
        what = "the single string " if isinstance(ops, str) else ""
        raise InvalidCellError(f"ops is {what}{shown(ops)}, expected a list of {n} names")
    names = tuple(ops)
    if len(names) != n:
        raise InvalidCellError(f"ops has {len(names)} names, expected {n} to match the matrix")
    odd = next((v for v, name in enumerate(names) if not isinstance(name, str)), None)
    if odd is not None:
        raise InvalidCellError(f"vertex {odd} has unknown op {shown(names[odd])}, expected the name of an operation")
    if names[0] != INPUT:
        raise InvalidCellError(
            f"vertex 0 has op {names[0]!r}, expected {INPUT!r}: the first vertex is the cell's input"
        )
    if names[-1] != OUTPUT:
        raise InvalidCellError(
            f"vertex {n - 1} has op {names[-1]!r}, expected {OUTPUT!r}: the last vertex is the cell's output"
        )
    for v, name in enumerate(names[1:-1], start=1):
        if name not in OPS:
            raise InvalidCellError(f"vertex {v} has unknown op {name!r}, expected one of {', '.join(OPS)}")
    return tuple(str(name) for name in names)


def _vertices_on_paths(rows: list[int]) -> list[int]:
    """Return, in order, the vertices that lie on a path from the input to the output."""
    n = len(rows)
    from_input = 1
    for v in range(n):
        if from_input >> v & 1:
            from_input |= rows[v]
    to_output = 1 << n - 1
    for v in range(n - 1, -1, -1):
        if rows[v] & to_output:
            to_output |= 1 << v
    if not to_output & 1:
        raise InvalidCellError(f"no path leads from the input (vertex 0) to the output (vertex {n - 1})")
    return [v for v in range(n) if from_input & to_output & 1 << v]


def _check_limits(kept: list[int], edges: list[tuple[int, int]]) -> None:
    if len(kept) > MAX_VERTICES:
        raise InvalidCellError(
            f"cell has {len(kept)} vertices after pruning, the limit is {MAX_VERTICES}: "
            f"vertex {kept[MAX_VERTICES]} is one too many"
        )
    if len(edges) > MAX_EDGES:
        x, y = sorted(edges)[MAX_EDGES]
        raise InvalidCellError(
            f"cell has {len(edges)} edges after pruning, the limit is {MAX_EDGES}: "
            f"the edge from vertex {kept[x]} to vertex {kept[y]} is one too many"
        )
