"""What search loops do with cells: list the neighbours of a cell, mutate it, cross two cells, and compare two cells.

Mutation and crossover work on graphs of seven vertices, as in the benchmark's paper. A smaller cell is first given more vertices, at random
places, each with a random operation and one incoming edge. They have no outgoing edge, so pruning removes them again unless the
mutation or the crossover adds one.

References
----------
Ying et al. 2019, NAS-Bench-101, arXiv:1902.09635, and the mutation in its published example notebook.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from spd_fast.base.errors import InvalidCellError
from spd_fast.base.types import checked_instance, checked_number
from spd_fast.spaces.cell import INPUT, MAX_VERTICES, OPS, OUTPUT, Cell

__all__ = ["crossover", "isomorphic", "mutate", "neighbours"]

_Matrix = npt.NDArray[np.int64]
_UPPER = np.triu_indices(MAX_VERTICES, 1)


def isomorphic(first: Cell, second: Cell) -> bool:
    """Return whether two cells differ only in the numbering of their vertices.

    The comparison of hashes is exact: in the whole space, cells that are not isomorphic have different hashes
    (`enumerate_space` counts both).

    Raises
    ------
    TypeError
        If one of them is no `Cell`.
    """
    return _checked("first", first).module_hash == _checked("second", second).module_hash


def neighbours(cell: Cell) -> list[Cell]:
    """Return every cell that differs from this one by one change, without isomorphic ones and in the order of their hashes.

    A change gives one vertex another operation, removes an edge, or adds an edge, in either direction, that closes no cycle.
    In a cell of fewer than seven vertices a change may also add a vertex with one incoming and one outgoing edge. The changed
    graph is pruned. Isomorphic cells have the same neighbours.

    Raises
    ------
    TypeError
        If `cell` is no `Cell`.

    Examples
    --------
    >>> chain = Cell(["010", "001", "000"], ["input", "conv3x3-bn-relu", "output"])
    >>> sorted({near.n_vertices for near in neighbours(chain)})
    [3, 4]
    """
    n, ops = _checked("cell", cell).n_vertices, list(cell.ops)
    found = [_valid(cell.matrix, [*ops[:v], op, *ops[v + 1 :]]) for v in range(1, n - 1) for op in OPS if op != ops[v]]
    paths = _paths(cell.matrix.astype(np.int64))
    for x in range(n - 1):
        for y in range(1, n):
            if x != y and not paths[y, x]:
                changed = cell.matrix.astype(np.int64)
                changed[x, y] ^= 1
                found.append(_valid(changed, ops))
                if n < MAX_VERTICES:
                    found += [_valid(*_with_vertex(cell, x, y, op)) for op in OPS]
    different = {near.module_hash: near for near in found if near is not None}
    different.pop(cell.module_hash, None)
    return [different[module_hash] for module_hash in sorted(different)]


def mutate(cell: Cell, rng: np.random.Generator, rate: float = 1.0) -> Cell:
    """Return a random cell near `cell` that is not isomorphic to it.

    Each possible edge of seven vertices is added or removed with probability ``rate / 7``, and each operation is replaced by
    another one with probability ``rate / 5``. This is repeated until the result is another cell of the space.

    Parameters
    ----------
    cell : Cell
    rng : numpy.random.Generator
    rate : float, above 0 to 5, default 1

    Raises
    ------
    TypeError
        If `cell`, `rng` or `rate` is of another type.
    ValueError
        If `rate` is out of range.
    """
    _checked("cell", cell)
    _checked_generator(rng)
    if not 0 < checked_number("rate", rate, finite=False) <= MAX_VERTICES - 2:
        raise ValueError(f"rate is {rate}, expected above 0 to {MAX_VERTICES - 2}")
    while True:
        matrix, codes = _padded(cell, rng)
        flipped = rng.random(len(_UPPER[0])) < rate / MAX_VERTICES
        matrix[_UPPER] ^= flipped
        replaced = rng.random(len(codes)) < rate / len(codes)
        codes = np.where(replaced, (codes + rng.integers(1, len(OPS), len(codes))) % len(OPS), codes)
        child = _valid(matrix, _names(codes))
        if child is not None and child.module_hash != cell.module_hash:
            return child


def crossover(first: Cell, second: Cell, rng: np.random.Generator) -> Cell:
    """Return a random cell each of whose edges and operations comes from one of two parents, with equal chances.

    This is repeated until the result is a cell of the space. It may be isomorphic to a parent.

    Raises
    ------
    TypeError
        If a parent is no `Cell`, or `rng` no numpy.random.Generator.
    """
    _checked("first", first)
    _checked("second", second)
    _checked_generator(rng)
    while True:
        (matrix, codes), (other_matrix, other_codes) = _padded(first, rng), _padded(second, rng)
        child = _valid(
            np.where(rng.random(matrix.shape) < 0.5, matrix, other_matrix),
            _names(np.where(rng.random(codes.shape) < 0.5, codes, other_codes)),
        )
        if child is not None:
            return child


def _checked(name: str, cell: Cell) -> Cell:
    return checked_instance(name, cell, Cell, "a spd_fast.Cell; spd_fast.cell_of reads cells in other notations")


def _checked_generator(rng: np.random.Generator) -> None:
    checked_instance("rng", rng, np.random.Generator, "a numpy.random.Generator such as numpy.random.default_rng(0)")


def _valid(matrix: npt.NDArray[np.integer], ops: Sequence[str]) -> Cell | None:
    """Return the cell of a graph whose vertices are in any order that ends with the output; None if it is outside the
    space."""
    order = _topological(matrix)
    try:
        return Cell(matrix[np.ix_(order, order)], [ops[v] for v in order])
    except InvalidCellError:
        return None


def _topological(matrix: npt.NDArray[np.integer]) -> list[int]:
    order: list[int] = []
    left = list(range(len(matrix)))
    while left:
        order.append(next(v for v in left if not matrix[left, v].any()))
        left.remove(order[-1])
    return order


def _paths(matrix: _Matrix) -> npt.NDArray[np.bool_]:
    """Return whether a path leads from x to y, at (x, y)."""
    reached = matrix > 0
    for _ in matrix:
        reached = reached | (reached.astype(np.int64) @ matrix > 0)
    return reached


def _with_vertex(cell: Cell, source: int, target: int, op: str) -> tuple[_Matrix, list[str]]:
    n = cell.n_vertices
    matrix = np.zeros((n + 1, n + 1), np.int64)
    old = [*range(n - 1), n]  # the new vertex is the one before the output
    matrix[np.ix_(old, old)] = cell.matrix
    matrix[old[source], n - 1] = matrix[n - 1, old[target]] = 1
    return matrix, [*cell.ops[:-1], op, cell.ops[-1]]


def _padded(cell: Cell, rng: np.random.Generator) -> tuple[_Matrix, npt.NDArray[np.int64]]:
    """Return a cell as a graph of seven vertices, with dead ends at random places: its matrix (7, 7) and op codes (5,)."""
    interior = np.sort(rng.permutation(np.arange(1, MAX_VERTICES - 1))[: cell.n_vertices - 2])
    places = [0, *interior.tolist(), MAX_VERTICES - 1]
    matrix = np.zeros((MAX_VERTICES, MAX_VERTICES), np.int64)
    matrix[np.ix_(places, places)] = cell.matrix
    for v in sorted({*range(MAX_VERTICES)} - {*places}):
        matrix[rng.choice([place for place in places if place < v]), v] = 1
    codes = rng.integers(0, len(OPS), MAX_VERTICES - 2)
    codes[interior - 1] = cell.op_codes
    return matrix, codes


def _names(codes: npt.NDArray[np.int64]) -> list[str]:
    return [INPUT, *(OPS[code] for code in codes), OUTPUT]
