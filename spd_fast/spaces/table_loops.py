"""Loops over all cells of a table, which numba compiles. They visit each cell once, where NumPy would visit the table many times.

Loading numba takes most of a second, so this module is imported inside the functions that need it. Compiled code is cached on the
disk, beside this file or in the user's cache.
"""

from typing import Any, Final

import numba
import numpy as np

from spd_fast.spaces.cell import ABSENT_OP, MAX_VERTICES, OPS, count_convs, fill_vertex_channels
from spd_fast.spaces.cell_columns import GRAPH_SCALARS

__all__ = ["encoded_paths", "graph_scalars", "weighted_counts"]

_COLUMNS: Final = len(GRAPH_SCALARS)
_CONV3X3: Final = OPS.index("conv3x3-bn-relu")
_MAXPOOL3X3: Final = OPS.index("maxpool3x3")
_UNREACHED: Final = -MAX_VERTICES - 1

_fill: Any = numba.njit(cache=True)(fill_vertex_channels)
_convs: Any = numba.njit(cache=True)(count_convs)


@numba.njit(cache=True)
def _has_edge(edge_bits: int, x: int, y: int) -> Any:
    return edge_bits >> (x + y * (y - 1) // 2) & 1


@numba.njit(cache=True)
def _op(op_codes: int, v: int, output: int) -> Any:
    return op_codes >> 2 * (v - 1) & 3 if v < output else ABSENT_OP


@numba.njit(cache=True)
def weighted_counts(vertices: Any, edge_bits: Any, op_codes: Any, positions: Any) -> Any:
    """Return, for every cell, a weighted count of its convolution weights and of its normalised channels.

    Parameters
    ----------
    vertices, edge_bits, op_codes : ndarray, shape (n,), int64
        The columns of a `CellColumns`.
    positions : ndarray, shape (p, 4), int64
        For each place of the cell in a network: input channels, output channels, and the factors by which a convolution weight
        and a normalised channel count.

    Returns
    -------
    ndarray, shape (n,), int64
    """
    total = np.zeros(vertices.shape[0], np.int64)
    channels = np.empty(MAX_VERTICES, np.int64)
    for i in range(vertices.shape[0]):
        for p in range(positions.shape[0]):
            _fill(vertices[i], edge_bits[i], positions[p, 0], positions[p, 1], channels)
            weights, normalised = _convs(vertices[i], edge_bits[i], op_codes[i], channels)
            total[i] += positions[p, 2] * weights + positions[p, 3] * normalised
    return total


@numba.njit(cache=True)
def _longest(edge_bits: int, op_codes: int, output: int, which: int, best: Any) -> Any:
    """Return the largest value of a path from input to output: its number of edges (`which` = -1), minus that number (-2), or
    its number of vertices with the op `which`."""
    best[0] = 0
    for y in range(1, output + 1):
        length = 1 if which == -1 else -1 if which == -2 else int(_op(op_codes, y, output) == which)
        best[y] = _UNREACHED
        for x in range(y):
            if _has_edge(edge_bits, x, y) and best[x] > _UNREACHED:
                best[y] = max(best[y], best[x] + length)
    return best[output]


@numba.njit(cache=True)
def graph_scalars(vertices: Any, edge_bits: Any, op_codes: Any) -> Any:
    """Return the scalars of `GRAPH_SCALARS` of every cell.

    Parameters
    ----------
    vertices, edge_bits, op_codes : ndarray, shape (n,), int64

    Returns
    -------
    ndarray, shape (n, len(GRAPH_SCALARS)), int64
    """
    table = np.zeros((vertices.shape[0], _COLUMNS), np.int64)
    paths, best = np.empty(MAX_VERTICES, np.int64), np.empty(MAX_VERTICES, np.int64)
    for i in range(vertices.shape[0]):
        bits, codes, output = edge_bits[i], op_codes[i], vertices[i] - 1
        row = table[i]
        paths[0] = 1
        for y in range(1, output + 1):
            paths[y] = 0
            for x in range(y):
                if _has_edge(bits, x, y):
                    row[0] += 1
                    paths[y] += paths[x]
                    row[9] += x == 0
                    row[10] += y == output and x > 0
                    row[11] += y == output and x == 0
            if y < output:
                row[1 + _op(codes, y, output)] += 1
        row[4] = paths[output]
        row[5] = -_longest(bits, codes, output, -2, best)
        row[6] = _longest(bits, codes, output, -1, best)
        row[7] = _longest(bits, codes, output, _CONV3X3, best)
        row[8] = _longest(bits, codes, output, _MAXPOOL3X3, best)
    return table


@numba.njit(cache=True)
def encoded_paths(vertices: Any, edge_bits: Any, op_codes: Any, n_paths: int) -> Any:
    """Return which sequences of operations lead from input to output of every cell, as `path_encoding` does.

    Parameters
    ----------
    vertices, edge_bits, op_codes : ndarray, shape (n,), int64
    n_paths : int
        Number of columns, one for each sequence of 0 to 5 operations.

    Returns
    -------
    ndarray, shape (n, n_paths), uint8
    """
    encoding = np.zeros((vertices.shape[0], n_paths), np.uint8)
    # paths that are still to be followed: the vertex where a path ends, the code of its operations, and their number
    at, index, length = np.empty(64, np.int64), np.empty(64, np.int64), np.empty(64, np.int64)
    for i in range(vertices.shape[0]):
        bits, codes, output = edge_bits[i], op_codes[i], vertices[i] - 1
        waiting = 1
        at[0], index[0], length[0] = 0, 0, 0
        while waiting > 0:
            waiting -= 1
            x, code, inside = at[waiting], index[waiting], length[waiting]
            for y in range(x + 1, output + 1):
                if not _has_edge(bits, x, y):
                    continue
                if y == output:
                    encoding[i, (3**inside - 1) // 2 + code] = 1
                else:
                    at[waiting], index[waiting], length[waiting] = y, code * 3 + _op(codes, y, output), inside + 1
                    waiting += 1
    return encoding
