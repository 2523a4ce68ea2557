"""Tables of cells: every format, every notation, what is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spd_fast.base.errors import InvalidCellError
from spd_fast.dish import Dish
from spd_fast.natsbench import enumerate_space
from spd_fast.ranking.tables import CellTable, read_table, require_writable, write_table
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.cell_files import random_cells
from spd_fast.spaces.nats_cell import NatsCell, NatsColumns
from spd_fast.truth.table import TruthTable

CELLS = random_cells(4, 0)
NATS = NatsCell.parse("|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|")
TABLE: dict[str, list[Any]] = {
    "id": ["a", "b", "c", "d"],
    "matrix": [cell.matrix.tolist() for cell in CELLS],
    "ops": [list(cell.ops) for cell in CELLS],
    "val_acc": [0.9, 0.8, 0.95, 0.7],
}


def cells_in(path: Path, column: str | None = None) -> list[Any]:
    return CellTable.of(read_table(path), path.name, column).cells


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl"])
def test_tables_survive_a_round_trip(tmp_path: Path, name: str) -> None:
    write_table(tmp_path / name, TABLE)
    table = CellTable.of(read_table(tmp_path / name), name)
    assert table.cells == CELLS
    assert table.column == "matrix, ops"
    assert list(table.table["id"]) == TABLE["id"]
    values, where = table.accuracy()
    assert values.tolist() == TABLE["val_acc"]
    assert where == f"column 'val_acc' of {name}"


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, an extra")
    write_table(tmp_path / "t.parquet", {"module_hash": [cell.module_hash for cell in CELLS], "x": [1, 2, 3, 4]})
    assert [cell.module_hash for cell in cells_in(tmp_path / "t.parquet")] == [cell.module_hash for cell in CELLS]


def test_columns_of_arrays(tmp_path: Path) -> None:
    """An .npz of packed cells, as tables of NAS-Bench-101 are."""
    np.savez(
        tmp_path / "t.npz",
        vertices=[cell.n_vertices for cell in CELLS],
        edge_bits=[cell.edge_bits for cell in CELLS],
        op_codes=[cell.packed_op_codes for cell in CELLS],
        seeds=[0, 1],
    )
    assert cells_in(tmp_path / "t.npz") == CELLS


def test_hashes_are_looked_up_in_the_space(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("hash\n" + "".join(f"{cell.module_hash.upper()}\n" for cell in CELLS))
    assert [cell.module_hash for cell in cells_in(tmp_path / "t.csv")] == [cell.module_hash for cell in CELLS]
    (tmp_path / "odd.csv").write_text(f"hash\n{'0' * 32}\n")
    with pytest.raises(InvalidCellError, match=r"row 1 of odd\.csv: no cell of the space has module_hash 0{32}"):
        cells_in(tmp_path / "odd.csv")


def test_columns_of_a_table_fit_each_other() -> None:
    with pytest.raises(ValueError, match="column 'acc' of table has 1 values, expected 4 as column 'cell' has"):
        CellTable.of({"cell": CELLS, "acc": [0.5]}, "t")
    with pytest.raises(TypeError, match="column 'cell' of table is 'x', expected a list of values"):
        CellTable.of({"cell": "x"}, "t")
    packed = {"vertices": [2, 2.0], "edge_bits": ["1", " 1.0"], "op_codes": [0, 0.5]}
    with pytest.raises(InvalidCellError, match=r"row 2 of t: op_codes is 0\.5, expected an integer"):
        CellTable.of(packed, "t")


def test_truth_files_are_labelled_cells(tmp_path: Path) -> None:
    """Their provenance is longer than a column of few cells."""
    truth = TruthTable.load().sample(5, 0)
    truth.save(tmp_path / "truth.npz")
    table = CellTable.of(read_table(tmp_path / "truth.npz"), "truth.npz")
    assert table.cells == list(truth.cells)
    assert table.accuracy()[0].tolist() == truth.accuracy.tolist()


def test_files_without_cells_are_named(tmp_path: Path) -> None:
    Dish.random(per_class=1).save(tmp_path / "dish.npz")
    with pytest.raises(
        ValueError, match=r"dish\.npz holds no cells; it is a file of images and labels, which spd_fast\.Dish"
    ):
        read_table(tmp_path / "dish.npz")
    (tmp_path / "t.csv").write_text("<html><body>404</body></html>\n")
    with pytest.raises(
        ValueError, match=r"t\.csv is not a table; it is a web page or XML: perhaps a download that needs a login"
    ):
        read_table(tmp_path / "t.csv")


def test_other_separators_are_named(tmp_path: Path) -> None:
    for name, header, words in (
        ("t.csv", "cell;acc", "semicolons between its values, expected commas: save it with commas"),
        ("t.csv", "cell\tacc", r"tabs between its values, expected commas: give its name the ending \.tsv"),
        ("t.tsv", "cell;acc", "semicolons between its values, expected tabs: save it with commas"),
    ):
        (tmp_path / name).write_text(f"{header}\nx\n")
        with pytest.raises(ValueError, match=words):
            read_table(tmp_path / name)


def test_indices_of_nats_bench(tmp_path: Path) -> None:
    """They are read where the column says so; a number in another column says nothing."""
    space = enumerate_space()
    (tmp_path / "t.csv").write_text("nats_index,acc\n1234,0.5\n 9.0,0.6\n")
    assert cells_in(tmp_path / "t.csv") == [space[1234], space[9]]
    for wrong in ("15625", "-1", "1.5", "", "nine"):
        (tmp_path / "t.csv").write_text(f"nats_index,acc\n{wrong},0.5\n")
        with pytest.raises(
            InvalidCellError, match=rf"row 1 of t\.csv: nats_index is '{wrong}', expected an integer from 0 to"
        ):
            cells_in(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("cell\n1234\n")
    with pytest.raises(
        InvalidCellError, match=r"row 1 .* the number 1234, which says nothing .*name the column of a file nats_index"
    ):
        cells_in(tmp_path / "t.csv")


def test_a_list_of_texts_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps([NATS.text, NATS.text + "\n"]))
    assert cells_in(tmp_path / "t.json") == [NATS, NATS]


def test_a_named_column_is_used(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"what,cell\n{NATS.text},7\n")
    assert cells_in(tmp_path / "t.csv", "what") == [NATS]
    with pytest.raises(ValueError, match=r"t\.csv has no column 'odd', expected one of what, cell"):
        cells_in(tmp_path / "t.csv", "odd")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["91.5", "80"], [0.915, 0.8]),
        ([" 91.5 %", "80%"], [0.915, 0.8]),
        ([0.5, 1.0], [0.5, 1.0]),
        ([-1.0, 3.0], [-1.0, 3.0]),
    ],
)
def test_accuracies_are_fractions_or_per_cent(values: list[Any], expected: list[float]) -> None:
    table = CellTable("t", {"Accuracy": values}, CELLS[:2], "")
    assert np.allclose(table.accuracy()[0], expected, rtol=1e-15)


def test_losses_are_reversed() -> None:
    table = CellTable("t", {"val_loss": [0.5, 0.25], "score": [1, 2]}, CELLS[:2], "")
    assert table.accuracy(lower_is_better=True)[0].tolist() == [-0.5, -0.25]
    assert table.accuracy("score", lower_is_better=True)[0].tolist() == [-1, -2]
    with pytest.raises(
        ValueError, match=r"t has no column of accuracies that is known by its name, among val_loss, score"
    ):
        table.accuracy()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.xlsx", "", r"t\.xlsx ends in '\.xlsx', expected one of \.csv"),
        ("t.csv", "", r"t\.csv is empty, expected a header line"),
        ("t.csv", "a,a\n1,2\n", r"two columns named 'a'"),
        ("t.csv", "a,b\n1\n", r"line 2 of .*t\.csv has 1 values, expected 2"),
        ("t.json", "[", r"t\.json is not JSON"),
        ("t.json", "3", r"t\.json holds no list"),
        ("t.jsonl", "{}\n{", r"t\.jsonl is not JSON lines"),
        ("t.parquet", "no", r"t\.parquet"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises((ValueError, ImportError), match=message):
        read_table(tmp_path / name)


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    for name, content, words in (
        ("a.csv", b"\x89PNG\r\n\x1a\n", "not a table of text in UTF-8: .*; it is a picture"),
        ("b.tsv", b"a\tb\n\xe9\t1\n", "not a table of text in UTF-8: .*; if it is a table, save it as UTF-8"),
        ("c.json", b"<html>", "it is a web page or XML"),
        ("d.jsonl", b"a,b\n1,2\n", "is not JSON lines: .*; it is a CSV table"),
        ("e.npz", b"a,b\n1,2\n", "is not an .npz file.*; it is a CSV table"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=words):
            read_table(tmp_path / name)


def test_tables_of_spreadsheets(tmp_path: Path) -> None:
    """Their "Unicode text" is UTF-16."""
    (tmp_path / "t.tsv").write_text("cell\tacc\né\t1\n", encoding="utf-16")
    assert read_table(tmp_path / "t.tsv") == {"cell": ["é"], "acc": ["1"]}


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist: name a file that ends in"):
        read_table(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a": []}, r"t has no rows, expected at least one cell"),
        ({"a": [1]}, r"t has no column of cells among a: expected matrix and ops"),
        ({"cell": [CELLS[0], NATS]}, r"t holds cells of NAS-Bench-101 and of NATS-Bench, expected cells of one space"),
        ({"cell": [CELLS[0], 3.5]}, r"row 2 of t: a cell is given as float"),
        ({"matrix": ["[[0, 1"], "ops": ["[]"]}, r"row 1 of t: '\[\[0, 1' is no cell"),
    ],
)
def test_tables_without_cells_are_refused(table: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CellTable.of(table, "t")


def test_a_row_without_a_number_is_named() -> None:
    table = CellTable("t", {"acc": ["0.5", ""]}, CELLS[:2], "")
    with pytest.raises(ValueError, match=r"row 2 of t has '' as acc, expected a number for each cell"):
        table.accuracy()


def test_names_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in '\.txt', expected \.csv"):
        require_writable(tmp_path / "t.txt")
    with pytest.raises(ValueError, match=r"cannot be written, expected a name in a folder that is there"):
        require_writable(tmp_path / "none" / "t.csv")


def test_missing_numbers_are_empty(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", {"x": [1.5, float("nan"), np.float64(2)], "y": [None, "a", 3]})
    assert (tmp_path / "t.csv").read_text() == "x,y\n1.5,\n,a\n2.0,3\n"


def test_a_cell_may_be_an_object() -> None:
    assert CellTable.of({"cell": [Cell.from_json(CELLS[0].to_json())]}, "t").cells == CELLS[:1]


def test_gzipped_tables(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", TABLE)
    packed = gzip.compress((tmp_path / "t.csv").read_bytes())
    (tmp_path / "t.csv.gz").write_bytes(packed)
    assert read_table(tmp_path / "t.csv.gz") == read_table(tmp_path / "t.csv")
    (tmp_path / "wide.csv.gz").write_bytes(gzip.compress(f"cell\n{NATS.text}\n".encode("utf-16")))
    assert cells_in(tmp_path / "wide.csv.gz") == [NATS]
    for name, content in (("cut.csv.gz", packed[:-9]), ("plain.csv.gz", b"cell\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is not gzip data, or is damaged or cut short"):
            read_table(tmp_path / name)
    with pytest.raises(IsADirectoryError, match=r"is a folder, expected a file that ends in \.csv, \.csv\.gz"):
        read_table(tmp_path)


def test_columns_of_nats_cells(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", edge_ops=NatsColumns.from_cells([NATS] * 3).edge_ops)
    assert cells_in(tmp_path / "t.npz") == [NATS] * 3
