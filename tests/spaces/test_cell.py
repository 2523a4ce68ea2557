"""Cells: the space's limits, pruning, hashes and channels, against the benchmark's own generator and rules."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_fast import Cell, InvalidCellError
from spd_fast.spaces.cell import OPS
from spd_fast.spaces.cell_columns import CellColumns
from strategies import cells, relabelled, relabellings

CONV3, CONV1, POOL = OPS


def chain(*ops: str) -> Cell:
    n = len(ops) + 2
    return Cell(np.eye(n, k=1, dtype=int), ["input", *ops, "output"])


def named(*ops: str) -> list[str]:
    return ["input", *ops, "output"]


def test_every_generated_cell_keeps_its_matrix_and_hash(data_dir: Path) -> None:
    generated = json.loads((data_dir / "nb101" / "generated_graphs_5V9E.json").read_text())
    assert len(generated) == 2532
    for module_hash, (matrix, labels) in generated.items():
        cell = Cell(matrix, named(*(OPS[label] for label in labels[1:-1])))
        assert cell.module_hash == module_hash
        assert cell.matrix.tolist() == matrix
        assert Cell.from_bits(cell.n_vertices, cell.edge_bits, cell.packed_op_codes) == cell


def test_table_rows_keep_their_hash_and_op_codes(data_dir: Path) -> None:
    with np.load(data_dir / "nb101" / "nb101_test108.npz") as archive:
        rows = np.random.default_rng(0).choice(len(archive["vertices"]), 1000, replace=False)
        columns = {name: archive[name][rows] for name in ("vertices", "edge_bits", "op_codes", "module_hash")}
    table = CellColumns(columns["vertices"], columns["edge_bits"], columns["op_codes"])
    assert np.array_equal(table.module_hash, columns["module_hash"])
    assert [cell.packed_op_codes for cell in table] == columns["op_codes"].tolist()


def test_published_examples(data_dir: Path) -> None:
    reference = json.loads((data_dir / "nb101" / "reference_values.json").read_text())
    record = reference["official_record_00005c142e6f48ac74fdcf73e3439874"]
    cell = Cell(record["module_adjacency"], record["module_operations"])
    assert cell.module_hash == "00005c142e6f48ac74fdcf73e3439874"
    example = reference["notebook_examples"][0]
    cell = Cell(example["adjacency"].split(), example["operations"].split(","))
    assert cell.module_hash == example["module_hash"]


def test_inputs_of_every_kind_make_the_same_cell() -> None:
    rows = [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    cell = Cell(rows, named(POOL))
    for matrix in (
        np.array(rows),
        np.array(rows, bool),
        np.array(rows, float),
        tuple(map(tuple, rows)),
        ["011", "001", "000"],
    ):
        assert Cell(matrix, tuple(named(POOL))) == cell
    assert cell.matrix.dtype == np.uint8
    assert (cell.n_vertices, cell.n_edges, cell.ops) == (3, 3, ("input", POOL, "output"))
    assert (cell.op_codes, cell.edge_bits, cell.packed_op_codes) == ((2,), 0b111, 0b11_11_11_11_10)


@pytest.mark.parametrize(
    ("matrix", "ops", "kept"),
    [
        (["0100", "0001", "0000", "0000"], (CONV3, POOL), [0, 1, 3]),
        (["01000", "00001", "00010", "00000", "00000"], (CONV3, POOL, CONV1), [0, 1, 4]),
        (["0110", "0000", "0001", "0000"], (CONV3, POOL), [0, 2, 3]),
        (["0010", "0001", "0001", "0000"], (CONV3, POOL), [0, 2, 3]),
    ],
    ids=["isolated vertex", "island of two", "dead end", "source that is not the input"],
)
def test_pruning_removes_what_no_path_uses(matrix: list[str], ops: tuple[str, ...], kept: list[int]) -> None:
    cell = Cell(matrix, named(*ops))
    assert cell.matrix.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert cell.ops == tuple(named(*ops)[v] for v in kept)


def test_limits_apply_after_pruning() -> None:
    big = np.zeros((10, 10), int)
    big[np.arange(6), np.arange(1, 7)] = 1
    big[6, 9] = 1
    big[:7, 8] = 1
    with pytest.raises(InvalidCellError, match=r"8 vertices after pruning, the limit is 7: vertex 9 is one too many"):
        Cell(big, named(*[POOL] * 8))
    big[5:7] = 0
    big[5, 9] = 1
    cell = Cell(big, named(*[POOL] * 8))
    assert (cell.n_vertices, cell.n_edges) == (7, 6)


@pytest.mark.parametrize(
    ("matrix", "ops", "message"),
    [
        (np.zeros((2, 3), int), named(), r"shape \(2, 3\), expected \(V, V\)"),
        (np.zeros(4, int), named(), r"shape \(4,\), expected \(V, V\)"),
        ([[0, 1], [0]], named(), "rows of different lengths"),
        (["01", "0"], named(), "rows of different lengths"),
        ([[0]], ["input"], "1 vertices, expected 2 to 64"),
        (np.eye(65, k=1, dtype=int), named(*[POOL] * 63), "65 vertices, expected 2 to 64"),
        ([["a", "b"], ["c", "d"]], named(), "entries of type <U1, expected 0 and 1"),
        ([[0, 2], [0, 0]], named(), r"matrix\[0\]\[1\] is not 0 or 1"),
        ([[0, float("nan")], [0, 0]], named(), r"matrix\[0\]\[1\] is not 0 or 1"),
        (["0x", "00"], named(), r"matrix\[0\]\[1\] is not 0 or 1"),
        ([[0, 1], [1, 0]], named(), "edge from vertex 1 to vertex 0, expected upper triangular"),
        ([[0, 1, 0], [0, 1, 1], [0, 0, 0]], named(POOL), "edge from vertex 1 to vertex 1, expected upper triangular"),
        ([[0, 1], [0, 0]], named(POOL), "ops has 3 names, expected 2"),
        ([[0, 1], [0, 0]], "io", "single string 'io', expected a list of 2 names"),
        ([[0, 1], [0, 0]], ["in", "output"], "vertex 0 has op 'in', expected 'input'"),
        ([[0, 1], [0, 0]], ["input", "out"], "vertex 1 has op 'out', expected 'output'"),
        (
            ["011", "001", "000"],
            named("conv3x3"),
            "vertex 1 has unknown op 'conv3x3', expected one of conv3x3-bn-relu, ",
        ),
        (["001", "000", "000"], named("conv3x3"), "vertex 1 has unknown op"),
        (["011", "001", "000"], named("output"), "vertex 1 has unknown op 'output'"),
        (["011", "001", "000"], ["input", 0, "output"], "vertex 1 has unknown op 0"),
        (["00", "00"], named(), r"no path leads from the input \(vertex 0\) to the output \(vertex 1\)"),
        (["0100", "0000", "0001", "0000"], named(POOL, POOL), "no path"),
        (["00000"] * 5, named(POOL, POOL, POOL), "no path"),
        (np.eye(8, k=1, dtype=int), named(*[POOL] * 6), "8 vertices after pruning, the limit is 7: vertex 7 is one"),
        (
            np.triu(np.ones((5, 5), int), 1),
            named(POOL, POOL, POOL),
            "10 edges .* the limit is 9: .* vertex 3 to vertex 4",
        ),
    ],
)
def test_what_is_no_cell_is_refused_by_name(matrix: object, ops: list[str], message: str) -> None:
    with pytest.raises(InvalidCellError, match=message):
        Cell(matrix, ops)  # type: ignore[arg-type]


class Sparse:
    """As SciPy's sparse matrices, which NumPy takes for single objects."""

    def __init__(self, matrix: object) -> None:
        self._dense = np.array(matrix)
        self.shape = self._dense.shape

    def toarray(self) -> object:
        return self._dense


def test_matrices_of_every_kind() -> None:
    rows, ops = [[0, 1, 1], [0, 0, 1], [0, 0, 0]], ["input", POOL, "output"]
    expected = Cell(rows, ops)
    for matrix in (np.array(rows, object), np.array(rows, bool).astype(object), Sparse(rows), np.array(rows, float)):
        assert Cell(matrix, ops) == expected
    with pytest.raises(InvalidCellError, match=r"matrix\[0\]\[1\] is not 0 or 1"):
        Cell([[0, None, 1], *rows[1:]], ops)  # type: ignore[list-item]
    with pytest.raises(InvalidCellError, match=r"matrix\[0\]\[2\] is not 0 or 1"):
        Cell(Sparse([[0, 1, 2], *rows[1:]]), ops)  # type: ignore[arg-type]
    with pytest.raises(InvalidCellError, match=r"shape \(1, 3\), expected \(V, V\)"):
        Cell(Sparse(rows[:1]), ops)  # type: ignore[arg-type]
    with pytest.raises(InvalidCellError, match="ops is None, expected a list of 3 names"):
        Cell(rows, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ((1, 0, 0), "1 vertices, expected 2 to 7"),
        ((8, 0, 0), "8 vertices, expected 2 to 7"),
        ((2, 2, 0), "edge_bits 2 is out of range for 2 vertices"),
        ((2, -1, 0), "edge_bits -1 is out of range"),
        ((3, 5, -1), "op_codes is -1"),
        ((4, 0b101101, 0b1100), "vertex 2 of 4 has op code 3"),
        ((2, 0, 0), "no path"),
    ],
)
def test_bits_out_of_range_are_refused(bits: tuple[int, int, int], message: str) -> None:
    with pytest.raises(InvalidCellError, match=message):
        Cell.from_bits(*bits)


@pytest.mark.parametrize(
    ("matrix", "c_in", "c_out", "channels"),
    [
        (["0100", "0010", "0001", "0000"], 8, 16, (8, 16, 16, 16)),
        (["0100", "0010", "0001", "0000"], 16, 8, (16, 8, 8, 8)),
        (["01", "00"], 5, 1, (5, 1)),
        (["01100", "00010", "00010", "00001", "00000"], 8, 16, (8, 16, 16, 16, 16)),
        (["0110", "0001", "0001", "0000"], 8, 8, (8, 4, 4, 8)),
        (["0110", "0001", "0001", "0000"], 8, 15, (8, 8, 7, 15)),
        (["01110", "00001", "00001", "00001", "00000"], 8, 8, (8, 3, 3, 2, 8)),
        (["01110", "00001", "00001", "00001", "00000"], 8, 15, (8, 5, 5, 5, 15)),
        (["01000", "00110", "00001", "00001", "00000"], 8, 9, (8, 5, 5, 4, 9)),
        (["01010", "00101", "00010", "00001", "00000"], 8, 15, (8, 8, 7, 7, 15)),
        (["0101", "0010", "0001", "0000"], 3, 7, (3, 7, 7, 7)),
    ],
)
def test_vertex_channels_by_hand(matrix: list[str], c_in: int, c_out: int, channels: tuple[int, ...]) -> None:
    """The situations that the benchmark's own tests of its rule describe, and an input that feeds the output."""
    assert Cell(matrix, named(*[CONV3] * (len(matrix) - 2))).vertex_channels(c_in, c_out) == channels


@given(cells(), st.integers(1, 64), st.integers(5, 64))
def test_vertex_channels_are_whole_and_never_grow_along_an_edge(cell: Cell, c_in: int, c_out: int) -> None:
    channels = cell.vertex_channels(c_in, c_out)
    last = cell.n_vertices - 1
    feeding = [channels[v] for v in range(1, last) if cell.has_edge(v, last)]
    assert (channels[0], channels[-1]) == (c_in, c_out)
    assert min(channels) >= 1
    assert not feeding or sum(feeding) == c_out
    for x in range(1, last):
        for y in range(x + 1, last):
            assert not cell.has_edge(x, y) or 0 <= channels[x] - channels[y] <= 1


def test_too_few_channels_are_refused() -> None:
    cell = Cell(["01110", "00001", "00001", "00001", "00000"], named(POOL, POOL, POOL))
    assert cell.vertex_channels(1, 3) == (1, 1, 1, 1, 3)
    with pytest.raises(
        ValueError, match="c_out is 2, expected at least 3: that many interior vertices feed the output"
    ):
        cell.vertex_channels(1, 2)
    with pytest.raises(ValueError, match="c_in is 0 and c_out is 4, expected at least 1 each"):
        cell.vertex_channels(0, 4)


@given(st.data(), cells())
def test_vertices_that_no_path_uses_are_inert(data: st.DataObject, cell: Cell) -> None:
    n = cell.n_vertices
    at = data.draw(st.integers(1, n - 1), label="position")
    where = [*range(at), *range(at + 1, n + 1)]
    matrix = np.zeros((n + 1, n + 1), int)
    matrix[np.ix_(where, where)] = cell.matrix
    linked = np.array(data.draw(st.lists(st.booleans(), min_size=n + 1, max_size=n + 1), label="edges"))
    if data.draw(st.booleans(), label="dead end rather than source"):
        matrix[:at, at] = linked[:at]
    else:
        matrix[at, at + 1 :] = linked[at + 1 :]
    ops = [*cell.ops[:at], data.draw(st.sampled_from(OPS)), *cell.ops[at:]]
    assert Cell(matrix, ops) == cell


@given(st.data(), cells(), st.integers(1, 8))
def test_relabelled_cells_share_their_hash_and_channels(data: st.DataObject, cell: Cell, factor: int) -> None:
    """Channels agree where they divide evenly (60 does by 1 to 5); otherwise spare ones go to the first vertices."""
    order = data.draw(relabellings(cell))
    other = relabelled(cell, order)
    assert other.module_hash == cell.module_hash
    assert (other == cell) == (other.edge_bits == cell.edge_bits and other.ops == cell.ops)
    channels = cell.vertex_channels(3, 60 * factor)
    assert other.vertex_channels(3, 60 * factor) == tuple(channels[v] for v in order)


def test_isomorphic_cells_are_not_equal() -> None:
    one = Cell(["0110", "0001", "0001", "0000"], named(CONV3, POOL))
    other = Cell(["0110", "0001", "0001", "0000"], named(POOL, CONV3))
    assert one.module_hash == other.module_hash
    assert one != other
    assert one.vertex_channels(4, 5) == other.vertex_channels(4, 5)
    assert len({one, other, Cell(one.matrix, one.ops)}) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (chain(CONV1, CONV3, CONV3), chain(CONV3, CONV3, CONV1)),
        (
            Cell(["0101", "0010", "0001", "0000"], named(CONV1, CONV3)),
            Cell(["0101", "0010", "0001", "0000"], named(CONV3, CONV1)),
        ),
        (
            Cell(
                ["0111100", "0010000", "0000001", "0000010", "0000010", "0000001", "0000000"],
                named(CONV1, *[CONV3] * 4),
            ),
            Cell(
                ["0111100", "0010000", "0000001", "0000010", "0000010", "0000001", "0000000"],
                named(CONV3, CONV3, CONV3, CONV1, CONV3),
            ),
        ),
    ],
    ids=["needs the vertex itself", "needs directed edges", "needs in-neighbours"],
)
def test_hashes_that_weaker_rules_would_confuse(one: Cell, other: Cell) -> None:
    assert one.module_hash != other.module_hash


@given(cells())
def test_round_trips(cell: Cell) -> None:
    assert Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell
    assert Cell.from_bits(cell.n_vertices, cell.edge_bits, cell.packed_op_codes) == cell
    assert pickle.loads(pickle.dumps(cell)) == cell
    assert copy.deepcopy(cell) == cell
    assert Cell(cell.matrix, cell.ops) == cell
    assert hash(Cell(cell.matrix, cell.ops)) == hash(cell)


@pytest.mark.parametrize("record", [{"matrix": [[0, 1], [0, 0]]}, [1, 2], None])
def test_json_without_the_keys_is_refused(record: object) -> None:
    with pytest.raises(InvalidCellError, match='expected an object with "matrix" and "ops"'):
        Cell.from_json(record)  # type: ignore[arg-type]


def test_cells_cannot_be_changed() -> None:
    cell = chain(POOL)
    with pytest.raises(AttributeError, match="immutable"):
        cell.ops = ("input", CONV3, "output")  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        cell.matrix[0, 2] = 1
    assert cell != "cell"


def test_drawing() -> None:
    cell = Cell(
        ["0100110", "0010000", "0001001", "0000010", "0000010", "0000001", "0000000"],
        named(CONV3, POOL, CONV3, CONV3, CONV1),
    )
    assert repr(cell) == "Cell(00005c142e6f48ac, 7 vertices, 9 edges)"
    assert str(cell).splitlines() == [
        "0 input",
        "├──1 conv3x3-bn-relu",
        "│  └──2 maxpool3x3",
        "│     ├──3 conv3x3-bn-relu",
        "├─────│──│──4 conv3x3-bn-relu",
        "└─────│──┴──┴──5 conv1x1-bn-relu",
        "      └────────┴──6 output",
    ]


@given(cells())
def test_drawing_shows_every_edge(cell: Cell) -> None:
    """Joined lanes of a row are the sources of its vertex: the drawing can be read back."""
    for row, line in enumerate(str(cell).splitlines()):
        lanes = line[: 3 * row]
        assert line[3 * row :] == f"{row} {cell.ops[row]}"
        assert [lanes[3 * x] in "├└●┴" for x in range(row)] == [cell.has_edge(x, row) for x in range(row)]


def test_columns_behave_as_a_sequence_of_cells() -> None:
    kept = [chain(POOL), chain(CONV3, CONV1), Cell(["01", "00"], named())]
    table = CellColumns.from_cells(kept)
    assert list(table) == kept
    assert (len(table), table[-1], table[np.int64(1)]) == (3, kept[2], kept[1])
    assert list(table[1:]) == kept[1:]
    assert list(table[np.array([2, 0])]) == [kept[2], kept[0]]
    assert [row.tobytes().hex() for row in table.module_hash] == [cell.module_hash for cell in kept]
    with pytest.raises(IndexError):
        table[3]
    assert list(CellColumns.from_cells([])) == []


def test_columns_are_picked_by_every_kind_of_integers() -> None:
    kept = [chain(POOL), chain(CONV3, CONV1), Cell(["01", "00"], named())]
    table = CellColumns.from_cells(kept)
    assert table[np.array(1)] == kept[1]
    assert list(table[[2, 0]]) == [kept[2], kept[0]]
    assert list(table[[True, False, True]]) == [kept[0], kept[2]]
    assert list(table[np.int64(1) :]) == kept[1:]
    assert list(table[[]]) == []
    for index, what in (("a", "'a'"), (1.0, r"1\.0"), (None, "None"), ((0, 1), r"\(0, 1\)")):
        with pytest.raises(TypeError, match=f"the index is {what}, expected an integer"):
            table[index]  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"the index is \[0\.5\], expected an integer, a slice, or integers of shape"):
        table[[0.5]]  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="an end of the slice is 'a', expected an integer"):
        table["a":]  # type: ignore[misc]
    with pytest.raises(IndexError, match="the index holds 3, which is out of bounds: expected rows below 3"):
        table[[0, 3]]  # type: ignore[call-overload]
    with pytest.raises(IndexError, match="the index has 2 booleans, expected 3: one for each row"):
        table[[True, False]]  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"cells\[1\] is dict, expected spd_fast.Cell"):
        CellColumns.from_cells([kept[0], {}])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([3, 3], [7], [2]), "lengths 2, 1 and 1, expected equal"),
        (([3.0], [7], [2]), r"vertices has shape \(1,\) and dtype float64"),
        (([3, 8], [7, 7], [2, 2]), "row 1 of the table has vertices outside 2 to 7"),
        (([3, 3], [7, 8], [2, 2]), "row 1 of the table has edge_bits out of range"),
        (([3, 3], [7, 7], [3, 2]), "row 0 of the table has op_codes that are not one"),
        (([3], [7], [2], np.zeros((1, 15), np.uint8)), r"module_hash is uint8 \(1, 15\), expected uint8 \(1, 16\)"),
    ],
)
def test_columns_out_of_range_are_refused(columns: tuple[list[int], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CellColumns(*columns)


def test_columns_check_each_cell_they_build() -> None:
    cell = chain(POOL)
    good = CellColumns.from_cells([cell])
    wrong_hash = CellColumns([3], [cell.edge_bits], [2], np.zeros((1, 16), np.uint8))
    with pytest.raises(ValueError, match=f"row 0 has module_hash {'0' * 32}, expected {cell.module_hash}"):
        wrong_hash[0]
    assert CellColumns([3], [cell.edge_bits], [2], good.module_hash)[0] == cell
    with pytest.raises(InvalidCellError, match="row 0 has 3 vertices, expected 2: it is not pruned"):
        CellColumns([3], [0b010], [2])[0]
    with pytest.raises(InvalidCellError, match="row 0: no path"):
        CellColumns([3], [0b001], [2])[0]
