"""Structural features of cells: scalars, adjacency encoding and path encoding, for whole tables at once.

What is known of a cell without training anything. Predictors learn from them, and every score of a dish stands beside
them on the scoreboard.

References
----------
White et al. 2020, A Study on Encodings for Neural Architecture Search, arXiv:2007.04965: the two encodings (one-hot
adjacency, path).
Ying et al. 2019, NAS-Bench-101, arXiv:1902.09635: the network in which parameters, FLOPs and widths are counted.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import Array
from spd_fast.motif import NASBENCH101, count_flops_table, count_parameters_table
from spd_fast.spaces.cell import MAX_VERTICES, OPS, Cell
from spd_fast.spaces.cell_columns import CellColumns

__all__ = [
    "PATHS",
    "SCALARS",
    "adjacency_encoding",
    "path_encoding",
    "structural_features",
]

SCALARS: Final = (
    "vertices",
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
    "narrowest",
    "widest",
    "log_parameters",
    "log_flops",
)
"""Names of the columns of `structural_features`.

======================  ===========================================================================================
name                    meaning
======================  ===========================================================================================
``vertices``            V, input and output included: 2 to 7
``edges``               1 to 9
``conv3x3``, ...        interior vertices with that operation: 0 to 5
``paths``               different paths from input to output, at least 1
``shortest_path``       fewest edges on a path from input to output
``longest_path``        most edges on such a path: the depth of the cell
``conv3x3_on_path``     most 3x3 convolutions on one path: the depth in convolutions that see neighbours
``maxpool3x3_on_path``  most max-pools on one path
``input_fan_out``       edges that leave the input
``output_fan_in``       interior vertices that feed the output, among which its channels are divided
``input_to_output``     1 where an edge leads from input to output, else 0
``narrowest``           channels of the narrowest interior vertex in a cell with 128 output channels (128: none)
``widest``              of the widest
``log_parameters``      natural logarithm of the trainable parameters in the benchmark's network
``log_flops``           natural logarithm of its floating-point operations for one 32 x 32 image
======================  ===========================================================================================
"""
PATHS: Final = sum(len(OPS) ** length for length in range(MAX_VERTICES - 1))
"""Columns of `path_encoding`: 364, one per sequence of 0 to 5 operations."""
_OUTPUT: Final = MAX_VERTICES - 1
_IMAGE_SIZE: Final = 32
_CHANNELS: Final = NASBENCH101.stem_channels


def structural_features(cells: Sequence[Cell]) -> npt.NDArray[np.float64]:
    """Return the scalars of `SCALARS` for every cell.

    Parameters
    ----------
    cells : sequence of n Cell
        A `CellColumns` is used as it is, without building its cells: 400,000 take seconds.

    Returns
    -------
    ndarray, shape (n, len(SCALARS)), float64

    Notes
    -----
    Isomorphic cells have the same scalars, except where their vertex order changes the parameters (1.2 % of the space:
    spare channels go to the first vertices).

    Examples
    --------
    >>> cell = Cell(["011", "001", "000"], ["input", "conv3x3-bn-relu", "output"])
    >>> dict(zip(SCALARS, structural_features([cell])[0]))["paths"]
    np.float64(2.0)
    """
    columns = _columns(cells)
    edge, op = _aligned(columns)
    to_output, from_input = edge[:, 1:_OUTPUT, _OUTPUT], edge[:, 0, 1:]
    fan_in = to_output.sum(axis=1)
    divisor = np.maximum(fan_in, 1)
    table = (columns.vertices, columns.edge_bits, columns.op_codes)
    values = {
        "vertices": columns.vertices,
        "edges": edge.sum(axis=(1, 2)),
        **{name.split("-")[0]: (op == code).sum(axis=1) for code, name in enumerate(OPS)},
        "paths": _count_paths(edge),
        "shortest_path": -_longest(edge, np.full(op.shape, -1)),
        "longest_path": _longest(edge, np.ones(op.shape, np.int64)),
        "conv3x3_on_path": _longest(edge, op == OPS.index("conv3x3-bn-relu")),
        "maxpool3x3_on_path": _longest(edge, op == OPS.index("maxpool3x3")),
        "input_fan_out": from_input.sum(axis=1),
        "output_fan_in": fan_in,
        "input_to_output": edge[:, 0, _OUTPUT],
        "narrowest": _CHANNELS // divisor,
        "widest": -(-_CHANNELS // divisor),
        "log_parameters": np.log(count_parameters_table(*table, NASBENCH101)),
        "log_flops": np.log(count_flops_table(*table, NASBENCH101, _IMAGE_SIZE)),
    }
    return np.stack([values[name] for name in SCALARS], axis=1).astype(np.float64)


def adjacency_encoding(cells: Sequence[Cell]) -> npt.NDArray[np.uint8]:
    """Return the adjacency matrix and the operations of every cell as zeros and ones.

    Parameters
    ----------
    cells : sequence of n Cell

    Returns
    -------
    ndarray, shape (n, 36), uint8
        21 edges in the order of `Cell.edge_bits`, then 5 x 3 operations (vertex 1 first, in the order of `OPS`). The
        output is always the seventh vertex: vertices that a smaller cell lacks have neither edges nor an operation.

    Notes
    -----
    Isomorphic cells with another vertex order have another encoding.
    """
    edge, op = _aligned(_columns(cells))
    edges = [edge[:, x, y] for y in range(MAX_VERTICES) for x in range(y)]
    ops = [op[:, v] == code for v in range(1, _OUTPUT) for code in range(len(OPS))]
    return np.stack([*edges, *ops], axis=1).astype(np.uint8)


def path_encoding(cells: Sequence[Cell]) -> npt.NDArray[np.uint8]:
    """Return which sequences of operations lead from the input to the output of every cell.

    Parameters
    ----------
    cells : sequence of n Cell

    Returns
    -------
    ndarray, shape (n, 364), uint8
        Column ``(3**k - 1) / 2 + sum_i op_i 3**(k-1-i)`` is 1 where a path through k interior vertices with the op codes
        op_0, ..., op_(k-1) exists; column 0 is the edge from input to output.

    Notes
    -----
    The same for isomorphic cells.
    """
    edge, op = _aligned(_columns(cells))
    encoding = np.zeros((len(edge), PATHS), np.uint8)
    rows = np.arange(len(edge))
    for length in range(MAX_VERTICES - 1):
        first = (len(OPS) ** length - 1) // (len(OPS) - 1)
        for inside in combinations(range(1, _OUTPUT), length):
            path = (0, *inside, _OUTPUT)
            exists = np.logical_and.reduce([edge[:, x, y] for x, y in pairwise(path)])
            index = np.full(len(edge), 0)
            for v in inside:
                index = index * len(OPS) + op[:, v]
            encoding[rows[exists], first + index[exists]] = 1
    return encoding


def _columns(cells: Sequence[Cell]) -> CellColumns:
    return cells if isinstance(cells, CellColumns) else CellColumns.from_cells(cells)


def _aligned(columns: CellColumns) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return edges, shape (n, 7, 7), and op codes, shape (n, 7), with the output moved to the seventh vertex.

    Input, output and absent vertices have the op code 3.
    """
    n, bits, codes = (c.astype(np.int64) for c in (columns.vertices, columns.edge_bits, columns.op_codes))
    edge = np.zeros((len(n), MAX_VERTICES, MAX_VERTICES), bool)
    op = np.full((len(n), MAX_VERTICES), len(OPS))
    for y in range(1, MAX_VERTICES):
        for x in range(y):
            here = (bits >> x + y * (y - 1) // 2 & 1).astype(bool)
            edge[:, x, y] |= here & (y < n - 1)
            edge[:, x, _OUTPUT] |= here & (y == n - 1)
    for v in range(1, _OUTPUT):
        op[:, v] = np.where(v < n - 1, codes >> 2 * (v - 1) & 3, len(OPS))
    return edge, op


def _count_paths(edge: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the number of paths from input to output: shape (n,)."""
    paths = np.zeros(edge.shape[:2], np.int64)
    paths[:, 0] = 1
    for y in range(1, MAX_VERTICES):
        paths[:, y] = (edge[:, :y, y] * paths[:, :y]).sum(axis=1)
    return paths[:, _OUTPUT]


def _longest(edge: npt.NDArray[np.bool_], length: Array) -> npt.NDArray[np.int64]:
    """Return the largest sum over a path from input to output of `length`, shape (n, 7), of all vertices but the input."""
    unreached = -MAX_VERTICES
    best = np.full(edge.shape[:2], unreached)
    best[:, 0] = 0
    for y in range(1, MAX_VERTICES):
        arrived = np.where(edge[:, :y, y], best[:, :y], unreached).max(axis=1)
        best[:, y] = np.where(arrived > unreached, arrived + length[:, y], unreached)
    return best[:, _OUTPUT]
