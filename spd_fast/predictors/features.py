"""Structural features of cells: scalars, adjacency encoding and path encoding. They are computed for whole tables at once.

They need no training. Predictors learn from them, and the scoreboard compares learned dishes with them.

References
----------
White et al. 2020, A Study on Encodings for Neural Architecture Search, arXiv:2007.04965: the two encodings (one-hot
adjacency, path).
Ying et al. 2019, NAS-Bench-101, arXiv:1902.09635: the network in which parameters, FLOPs and widths are counted.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from spd_fast.motif import NASBENCH101, count_flops_table, count_parameters_table
from spd_fast.spaces.candidate import Columns, checked_candidates
from spd_fast.spaces.cell import MAX_VERTICES, OPS, Cell
from spd_fast.spaces.cell_columns import GRAPH_SCALARS, CellColumns
from spd_fast.spaces.nats_cell import EDGES, NATS_OPS, NATS_PATHS, NatsCell, NatsColumns

__all__ = [
    "NATS_SCALARS",
    "PATHS",
    "SCALARS",
    "adjacency_encoding",
    "path_encoding",
    "structural_features",
]

SCALARS: Final = (
    "vertices",
    *GRAPH_SCALARS,
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
NATS_SCALARS: Final = (
    "skip_connect",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "avg_pool_3x3",
    "paths",
    "shortest_path",
    "longest_path",
    "conv3x3_on_path",
    "convs_on_path",
    "pools_on_path",
    "input_to_output",
    "log_weights",
)
"""Names of the columns of `structural_features` of NATS-Bench's cells.

======================  ===========================================================================================
name                    meaning
======================  ===========================================================================================
``skip_connect``, ...   edges with that operation which lie on a path from node 0 to node 3: 0 to 6
``paths``               different paths of operations from node 0 to node 3: 0 to 4
``shortest_path``       fewest convolutions and poolings on a path (0 where there is no path)
``longest_path``        most of them: the depth of the cell
``conv3x3_on_path``     most 3x3 convolutions on one path
``convs_on_path``       most convolutions of either kind on one path
``pools_on_path``       most poolings on one path
``input_to_output``     1 where a skip connection leads from node 0 to node 3, else 0
``log_weights``         natural logarithm of 1 plus the weights of the cell's convolutions for one pair of channels: 9 for
                        each 3x3 convolution and 1 for each 1x1 convolution. FLOPs are proportional to the weights.
======================  ===========================================================================================
"""
_NATS_ON_PATHS: Final = {"conv3x3_on_path": (3,), "convs_on_path": (2, 3), "pools_on_path": (4,)}
"""Codes of the operations that these columns count."""
PATHS: Final = sum(len(OPS) ** length for length in range(MAX_VERTICES - 1))
"""Number of columns of `path_encoding`: 364, one for each sequence of 0 to 5 operations."""
_OUTPUT: Final = MAX_VERTICES - 1
_IMAGE_SIZE: Final = 32
_CHANNELS: Final = NASBENCH101.stem_channels


def structural_features(cells: Sequence[Cell] | Sequence[NatsCell]) -> npt.NDArray[np.float64]:
    """Return the scalars of `SCALARS` for every cell, or those of `NATS_SCALARS` for cells of NATS-Bench.

    Parameters
    ----------
    cells : sequence of n Cell, or of n NatsCell
        A `CellColumns` or `NatsColumns` is used without building its cells; 400,000 cells take about a second.

    Returns
    -------
    ndarray, shape (n, len(SCALARS)) or (n, len(NATS_SCALARS)), float64

    Notes
    -----
    Isomorphic cells have the same scalars, except for 1.2 % of the space, where the vertex order changes the number of
    parameters because spare channels go to the first vertices.

    Examples
    --------
    >>> cell = Cell(["011", "001", "000"], ["input", "conv3x3-bn-relu", "output"])
    >>> dict(zip(SCALARS, structural_features([cell])[0]))["paths"]
    np.float64(2.0)
    """
    from spd_fast.spaces.table_loops import graph_scalars

    checked = checked_candidates(cells, (Cell, NatsCell), "spd_fast.Cell or spd_fast.NatsCell")
    if isinstance(checked, NatsColumns):
        return _nats_features(checked)
    if len(checked) and not isinstance(checked, Columns) and isinstance(checked[0], NatsCell):
        return _nats_features(
            NatsColumns.from_cells(checked_candidates(checked, (NatsCell,), "spd_fast.NatsCell as cells[0]"))
        )
    columns = _columns(checked)
    table = (columns.vertices, columns.edge_bits, columns.op_codes)
    values = dict(zip(GRAPH_SCALARS, graph_scalars(*_integers(columns)).T, strict=True))
    divisor = np.maximum(values["output_fan_in"], 1)
    values |= {
        "vertices": columns.vertices,
        "narrowest": _CHANNELS // divisor,
        "widest": -(-_CHANNELS // divisor),
        "log_parameters": np.log(count_parameters_table(*table, NASBENCH101)),
        "log_flops": np.log(count_flops_table(*table, NASBENCH101, _IMAGE_SIZE)),
    }
    return np.stack([values[name] for name in SCALARS], axis=1).astype(np.float64)


def _nats_features(cells: NatsColumns) -> npt.NDArray[np.float64]:
    none, skip, conv1, conv3, pool = range(len(NATS_OPS))
    ops = cells.edge_ops
    whole = np.stack([(ops[:, path] != none).all(axis=1) for path in NATS_PATHS], axis=1)
    counts = {name: ((ops == code) & cells.used).sum(axis=1) for code, name in enumerate(NATS_OPS) if code != none}

    def on_paths(codes: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return how many of these operations each path has, -1 where it is broken: shape (n, 4)."""
        found = [np.isin(ops[:, path], codes).sum(axis=1) for path in NATS_PATHS]
        return np.where(whole, np.stack(found, axis=1), -1)

    layers = on_paths([conv1, conv3, pool])
    most = {name: np.maximum(on_paths(codes).max(axis=1), 0) for name, codes in _NATS_ON_PATHS.items()}
    shortest = np.where(whole, layers, len(EDGES)).min(axis=1)
    values = {
        **counts,
        "paths": whole.sum(axis=1),
        "shortest_path": np.where(whole.any(axis=1), shortest, 0),
        "longest_path": np.maximum(layers.max(axis=1), 0),
        **most,
        "input_to_output": ops[:, NATS_PATHS[0][0]] == skip,
        "log_weights": np.log(1 + 9 * counts["nor_conv_3x3"] + counts["nor_conv_1x1"]),
    }
    return np.stack([values[name] for name in NATS_SCALARS], axis=1).astype(np.float64)


def adjacency_encoding(cells: Sequence[Cell]) -> npt.NDArray[np.uint8]:
    """Return the adjacency matrix and the operations of every cell as zeros and ones.

    Parameters
    ----------
    cells : sequence of n Cell

    Returns
    -------
    ndarray, shape (n, 36), uint8
        21 edges in the order of `Cell.edge_bits`, then 5 x 3 operations (vertex 1 first, in the order of `OPS`). The
        output is always the seventh vertex; vertices that a smaller cell lacks have neither edges nor an operation.

    Notes
    -----
    Isomorphic cells whose vertices are in another order have other encodings.
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
    Isomorphic cells have the same encoding.
    """
    from spd_fast.spaces.table_loops import encoded_paths

    n, bits, codes = _integers(_columns(cells))
    encoding: npt.NDArray[np.uint8] = encoded_paths(n, bits, codes, PATHS)
    return encoding


def _columns(cells: Sequence[Cell]) -> CellColumns:
    checked = checked_candidates(cells, (Cell,), "spd_fast.Cell")
    return checked if isinstance(checked, CellColumns) else CellColumns.from_cells(checked)


def _integers(columns: CellColumns) -> list[npt.NDArray[np.int64]]:
    return [column.astype(np.int64) for column in (columns.vertices, columns.edge_bits, columns.op_codes)]


def _aligned(columns: CellColumns) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return edges, shape (n, 7, 7), and op codes, shape (n, 7), with the output moved to the seventh vertex.

    Input, output and absent vertices have the op code 3.
    """
    n, bits, codes = _integers(columns)
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
