"""Hypothesis strategies for cells, shared by test modules."""

from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from spd_fast.spaces.cell import MAX_EDGES, MAX_VERTICES, OPS, Cell


@st.composite
def cells(draw: st.DrawFn, min_vertices: int = 2) -> Cell:
    """Any cell of the space: a path from input to output, then more edges up to the limit. Pruning may shorten it."""
    n = draw(st.integers(min_vertices, MAX_VERTICES))
    pairs = [(x, y) for y in range(n) for x in range(y)]
    through = draw(st.sets(st.integers(1, n - 2))) if n > 2 else set()
    path = [0, *sorted(through), n - 1]
    edges = set(pairwise(path))
    edges |= set(draw(st.lists(st.sampled_from(pairs), max_size=MAX_EDGES - len(edges))))
    matrix = np.zeros((n, n), dtype=int)
    for edge in edges:
        matrix[edge] = 1
    ops = draw(st.lists(st.sampled_from(OPS), min_size=n - 2, max_size=n - 2))
    return Cell(matrix, ["input", *ops, "output"])


@st.composite
def relabellings(draw: st.DrawFn, cell: Cell) -> list[int]:
    """The vertices of `cell` in another order in which edges still lead to later vertices."""
    order: list[int] = []
    left = set(range(cell.n_vertices))
    while left:
        ready = sorted(v for v in left if not any(cell.has_edge(x, v) for x in left))
        order.append(draw(st.sampled_from([v for v in ready if v < cell.n_vertices - 1] or ready)))
        left.remove(order[-1])
    return order


def relabelled(cell: Cell, order: list[int]) -> Cell:
    """`cell` with vertex ``order[i]`` at position i."""
    return Cell(cell.matrix[np.ix_(order, order)], [cell.ops[v] for v in order])
