"""Cells as their users hold them: objects of other libraries, mappings, tuples and texts, read as `Cell` or `NatsCell`.

References
----------
Ying et al. 2019, NAS-Bench-101, arXiv:1902.09635, and its code: ``ModelSpec``, and the records of its queries.
Mehta et al. 2022, NAS-Bench-Suite, arXiv:2201.13396, and NASLib's code: the tuples that stand for architectures.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from spd_fast.base.errors import InvalidCellError
from spd_fast.base.types import checked_list
from spd_fast.spaces.cell import INPUT, MATRIX_NAMES, OPS_NAMES, OUTPUT, Cell
from spd_fast.spaces.nats_cell import EDGES, NatsCell

__all__ = ["cell_of"]

_NODE_NAMES: Final = ("op", "operation", "label", "ops")
"""Names of the attribute of a networkx node that holds its operation."""
_NASLIB_OPS: Final = (INPUT, OUTPUT, "maxpool3x3", "conv1x1-bn-relu", "conv3x3-bn-relu")
"""Operations by the codes in NASLib's tuples of NAS-Bench-101."""
_NASLIB_NATS_OPS: Final = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
"""Operations by the codes in NASLib's tuples of NAS-Bench-201."""
_NASLIB_NATS_EDGES: Final = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
"""The order of the edges in these tuples."""


def cell_of(given: Any) -> Cell | NatsCell:
    """Return the cell that an object stands for.

    Parameters
    ----------
    given
        One of:

        * a `Cell` or `NatsCell`;
        * a pair of an adjacency matrix and the operations of its vertices;
        * a mapping, or an object, with an adjacency matrix and the operations of its vertices, under the names in
          ``module_adjacency`` and ``module_operations``, ``matrix`` and ``ops``, or others in `MATRIX_NAMES` and `OPS_NAMES`: what the
          benchmark's own API returns and its ``ModelSpec`` are such;
        * an object with ``get_spec()`` or ``spec``, as NASLib's architectures have them;
        * a directed networkx graph, vertices in topological order, whose nodes hold their operation as ``op``;
        * NASLib's tuple for NAS-Bench-101: the matrix row by row, then a code for each vertex (0 input, 1 output,
          2 max-pooling, 3 1x1 convolution, 4 3x3 convolution); or for NAS-Bench-201: six codes of edges. Six numbers are
          always taken for the latter;
        * a text: NATS-Bench's notation ``|op~0|+|op~0|op~1|+...``, or JSON or a tuple of the above.

    Returns
    -------
    Cell or NatsCell

    Raises
    ------
    TypeError
        If it is none of them. A number alone is none: `spd_fast.natsbench.enumerate_space` has NATS-Bench's cells by index.
    InvalidCellError
        If its graph is not a cell of the space.

    Examples
    --------
    >>> cell_of({"module_adjacency": [[0, 1], [0, 0]], "module_operations": ["input", "output"]})
    Cell(043721b9c7fe8c5f, 2 vertices, 1 edges)
    >>> cell_of(([[0, 1], [0, 0]], ["input", "output"])).n_vertices
    2
    >>> cell_of("(0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 4, 1)").ops
    ('input', 'conv3x3-bn-relu', 'output')
    >>> cell_of((2, 2, 0, 2, 0, 1)).text
    '|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|skip_connect~1|none~2|'
    """
    if isinstance(given, Cell | NatsCell):
        return given
    if isinstance(given, str):
        return _of_text(given.strip().removeprefix("\ufeff"))
    if isinstance(given, Mapping):
        return _of_mapping(given)
    is_array = isinstance(given, np.ndarray) and given.ndim == 1
    if (is_array or isinstance(given, list | tuple)) and len(given) and all(_is_whole(each) for each in given):
        return _of_codes([int(each) for each in given])
    if (
        isinstance(given, list | tuple)
        and len(given) == 2
        and not any(isinstance(each, str | Mapping) for each in given)
    ):
        return _of_mapping({MATRIX_NAMES[0]: given[0], OPS_NAMES[0]: given[1]}, "a pair")
    if _is_whole(given):
        raise TypeError(_number_alone(given))
    for inner in ("get_spec", "spec"):
        if hasattr(given, inner):
            found = getattr(given, inner)
            return cell_of(found() if callable(found) else found)
    if hasattr(given, "nodes") and hasattr(given, "edges"):
        return _of_graph(given)
    named = {name: getattr(given, name) for name in (*MATRIX_NAMES, *OPS_NAMES) if hasattr(given, name)}
    if named:
        return _of_mapping(named, type(given).__name__)
    raise TypeError(
        f"a cell is given as {type(given).__name__}, expected a Cell, a pair (matrix, operations), a mapping of module_adjacency and "
        "module_operations, a networkx graph, NASLib's tuple, or a text of these"
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _number_alone(index: Any) -> str:
    return (
        f"a cell is given as the number {index}, which says nothing without the list that it counts in: if it is an index of NATS-Bench, "
        "take spd_fast.natsbench.enumerate_space()[index], or name the column of a file nats_index; else give the cell itself"
    )


def _of_mapping(record: Mapping[str, Any], kind: str = "mapping") -> Cell | NatsCell:
    if isinstance(record.get("nats"), str):
        return NatsCell.parse(record["nats"])
    matrix = next((record[name] for name in MATRIX_NAMES if record.get(name) is not None), None)
    ops = next((record[name] for name in OPS_NAMES if record.get(name) is not None), None)
    if matrix is None or ops is None:
        raise TypeError(
            f'a cell is given as {kind} with {sorted(map(str, record))}, expected a matrix ("{MATRIX_NAMES[0]}", "{MATRIX_NAMES[1]}") '
            f'and operations ("{OPS_NAMES[0]}", "{OPS_NAMES[1]}")'
        )
    names = checked_list("ops", _list_of(ops), "names of operations")
    return Cell(_list_of(matrix), [str(op) for op in names])


def _list_of(value: Any) -> Any:
    """Return what a text in JSON or Python's notation holds; anything else as it is."""
    if not isinstance(value, str):
        return value
    return _literal(value)


def _literal(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise InvalidCellError(f"{text[:80]!r} is no cell: expected JSON, a tuple, or NATS-Bench's notation |op~0|+...")


def _of_text(text: str) -> Cell | NatsCell:
    if text.startswith("|"):
        return NatsCell.parse(text)
    found = _literal(text)
    if _is_whole(found):
        raise InvalidCellError(_number_alone(found))
    if isinstance(found, str | int | float):
        raise InvalidCellError(f"{text[:80]!r} is no cell: expected JSON, a tuple, or NATS-Bench's notation |op~0|+...")
    return cell_of(found)


def _of_codes(codes: Sequence[int]) -> Cell | NatsCell:
    """Return the cell of one of NASLib's tuples."""
    if len(codes) == len(EDGES):
        if not all(0 <= code < len(_NASLIB_NATS_OPS) for code in codes):
            raise InvalidCellError(f"codes of edges are {tuple(codes)}, expected 0 to {len(_NASLIB_NATS_OPS) - 1}")
        at = {edge: _NASLIB_NATS_OPS[code] for edge, code in zip(_NASLIB_NATS_EDGES, codes, strict=True)}
        return NatsCell(tuple(at[edge] for edge in EDGES))
    side = next((n for n in range(2, 65) if n * n + n == len(codes)), None)
    if side is None:
        raise InvalidCellError(
            f"a tuple of {len(codes)} numbers is no cell: expected V * V of a matrix and V operations of NASLib's notation, or 6 "
            "operations of edges"
        )
    ops = codes[side * side :]
    if not all(0 <= code < len(_NASLIB_OPS) for code in ops):
        raise InvalidCellError(f"codes of operations are {tuple(ops)}, expected 0 to {len(_NASLIB_OPS) - 1}")
    matrix = [list(codes[row * side : (row + 1) * side]) for row in range(side)]
    return Cell(matrix, [_NASLIB_OPS[code] for code in ops])


def _of_graph(graph: Any) -> Cell:
    """Return the cell of a directed networkx graph."""
    nodes = list(graph.nodes)
    place = {node: k for k, node in enumerate(nodes)}
    ops = []
    for node in nodes:
        held = graph.nodes[node]
        op = next((held[name] for name in _NODE_NAMES if name in held), None)
        if op is None:
            raise TypeError(
                f"node {node!r} of the graph holds {sorted(map(str, held))}, expected its operation as {_NODE_NAMES[0]!r}"
            )
        ops.append(str(op))
    matrix = np.zeros((len(nodes), len(nodes)), np.int64)
    for source, target in graph.edges:
        matrix[place[source], place[target]] = 1
    return Cell(matrix, ops)
