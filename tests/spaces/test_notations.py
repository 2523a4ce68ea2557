"""Cells in the notations of other programs."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spd_fast.base.errors import InvalidCellError
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.nats_cell import NatsCell
from spd_fast.spaces.notations import cell_of

CELL = Cell(["0110", "0001", "0001", "0000"], ["input", "conv3x3-bn-relu", "maxpool3x3", "output"])
NATS = NatsCell.parse("|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|")
TUPLE = (*CELL.matrix.ravel().tolist(), 0, 4, 2, 1)


class Graph:
    """As a directed networkx graph."""

    def __init__(self, name: str) -> None:
        self.nodes = {k: {name: op} for k, op in enumerate(CELL.ops)}
        self.edges = [(int(x), int(y)) for x, y in zip(*np.nonzero(CELL.matrix), strict=True)]


@pytest.mark.parametrize(
    "given",
    [
        CELL,
        CELL.to_json(),
        (CELL.matrix.tolist(), list(CELL.ops)),
        [CELL.matrix, CELL.ops],
        {"module_adjacency": CELL.matrix, "module_operations": list(CELL.ops), "trainable_parameters": 3},
        {"matrix": str(CELL.matrix.tolist()), "ops": str(list(CELL.ops))},
        SimpleNamespace(matrix=CELL.matrix, ops=list(CELL.ops)),
        SimpleNamespace(original_matrix=CELL.matrix, original_ops=list(CELL.ops)),
        SimpleNamespace(get_spec=lambda: {"matrix": CELL.matrix, "ops": list(CELL.ops)}),
        SimpleNamespace(spec={"matrix": CELL.matrix, "ops": list(CELL.ops)}),
        Graph("op"),
        Graph("label"),
        TUPLE,
        list(TUPLE),
        np.array(TUPLE),
        str(TUPLE),
        '{"matrix": ["0110", "0001", "0001", "0000"], "ops": ["input", "conv3x3-bn-relu", "maxpool3x3", "output"]}',
    ],
)
def test_notations_of_nasbench101(given: Any) -> None:
    assert cell_of(given) == CELL


@pytest.mark.parametrize(
    "given", [NATS, NATS.text, f" {NATS.text}\n", NATS.to_json(), (2, 2, 0, 4, 2, 1), "(2, 2, 0, 4, 2, 1)"]
)
def test_notations_of_nats_bench(given: Any) -> None:
    assert cell_of(given) == NATS


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (3.5, TypeError, "a cell is given as float, expected a Cell"),
        ({"a": 1}, TypeError, r"a cell is given as mapping with \['a'\], expected a matrix"),
        (SimpleNamespace(matrix=[[0]]), TypeError, r"a cell is given as SimpleNamespace with \['matrix'\]"),
        (Graph("odd"), TypeError, r"node 0 of the graph holds \['odd'\], expected its operation as 'op'"),
        ((1, 2, 3), InvalidCellError, "a tuple of 3 numbers is no cell"),
        ((0, 0, 0, 0, 0, 7), InvalidCellError, r"codes of edges are \(0, 0, 0, 0, 0, 7\), expected 0 to 4"),
        ((*TUPLE[:-1], 9), InvalidCellError, r"codes of operations are \(0, 4, 2, 9\), expected 0 to 4"),
        ("conv", InvalidCellError, "'conv' is no cell"),
        ("3", InvalidCellError, "a cell is given as the number 3, which says nothing"),
        (
            np.int64(3),
            TypeError,
            r"the number 3, .*if it is an index of NATS-Bench, take spd_fast\.natsbench\.enumerate_space\(\)\[index\]",
        ),
        ("|odd~0|", ValueError, "ops are"),
        ("(" * 10_000, InvalidCellError, "is no cell"),
    ],
)
def test_what_is_no_cell_is_refused(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cell_of(given)


def test_records_and_texts_of_the_cells_themselves() -> None:
    """`from_json` takes the benchmark's names, `parse` white space around a line of a file."""
    record = {"module_adjacency": CELL.matrix.tolist(), "module_operations": list(CELL.ops), "training_time": 3.0}
    assert Cell.from_json(record) == CELL
    assert NatsCell.parse(f"\t{NATS.text}\r\n") == NATS
    with pytest.raises(TypeError, match="cell is None, expected a text in the benchmark's notation"):
        NatsCell.parse(None)  # type: ignore[arg-type]


def test_who_reads_other_notations_is_told() -> None:
    spec: Any = SimpleNamespace(matrix=CELL.matrix, ops=list(CELL.ops))
    for refused in (lambda: Cell(spec), lambda: Cell.from_json(spec)):
        with pytest.raises(InvalidCellError, match=r"spd_fast\.cell_of reads cells in other notations"):
            refused()
