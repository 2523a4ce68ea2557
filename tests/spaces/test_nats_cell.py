"""Cells of NATS-Bench in columns and in files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spd_fast.base.errors import InvalidCellError
from spd_fast.base.types import checked_array
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.spaces.cell_files import read_cells, sample_cells
from spd_fast.spaces.nats_cell import EDGES, NATS_OPS, NatsCell, NatsColumns

RANDOM = NatsColumns(np.random.default_rng(0).integers(0, 5, (200, 6)))


def test_edges_on_a_path() -> None:
    """As each cell finds them by itself."""
    for row, cell in enumerate(RANDOM):
        kept = np.where(RANDOM.used[row], RANDOM.edge_ops[row], 0)
        assert [cell.matrix[edge] for edge in EDGES] == kept.tolist()
        assert RANDOM.trainable[row] == cell.matrix.any()
    assert 0 < (~RANDOM.trainable).sum() < 40
    assert CellColumns([2, 3], [1, 5], [0, 0]).trainable.tolist() == [True, True]


@pytest.mark.parametrize("index", [np.int64(3), np.array(3), 3])
def test_one_row_is_a_cell(index: Any) -> None:
    assert RANDOM[index] == RANDOM[3]


def test_rows_are_picked_as_those_of_other_columns() -> None:
    assert list(RANDOM[[4, -1]]) == [RANDOM[4], RANDOM[199]]  # type: ignore[call-overload]
    assert len(RANDOM[RANDOM.trainable]) == RANDOM.trainable.sum()
    with pytest.raises(TypeError, match=r"the index is '7', expected an integer"):
        RANDOM["7"]  # type: ignore[call-overload]
    with pytest.raises(IndexError, match="the index holds 200, which is out of bounds: expected rows below 200"):
        RANDOM[np.array([200])]
    for outside in (200, -201):
        with pytest.raises(
            IndexError, match=f"the index is {outside}, which is out of bounds: expected a row below 200"
        ):
            RANDOM[outside]
    with pytest.raises(TypeError, match="the index is True, expected an integer"):
        RANDOM[True]
    with pytest.raises(IndexError, match="the index has 3 booleans, expected 200"):
        RANDOM[np.ones(3, bool)]


@pytest.mark.parametrize(
    "ops", [None, 7, "none", ("none",) * 5, (None,) * 6, (["none"],) * 6, ({},) * 6, (np.array([1, 2]),) * 6]
)
def test_what_are_no_operations(ops: Any) -> None:
    with pytest.raises((TypeError, InvalidCellError), match=r"^ops (is|are) .*, expected"):
        NatsCell(ops)


def test_operations_of_other_types_of_text() -> None:
    plain = NatsCell(tuple(NATS_OPS[code] for code in (3, 0, 1, 2, 4, 1)))
    for ops in (list(plain.ops), np.array(plain.ops), (op for op in plain.ops)):
        assert NatsCell(ops) == plain  # type: ignore[arg-type]
        assert all(type(op) is str for op in NatsCell(plain.ops).ops)


def test_files_of_their_cells(tmp_path: Path) -> None:
    cells = list(RANDOM[:20])
    (tmp_path / "texts.json").write_text(json.dumps([cell.text for cell in cells]))
    (tmp_path / "records.json").write_text(json.dumps({"cells": [cell.to_json() for cell in cells]}))
    np.savez(tmp_path / "columns.npz", edge_ops=RANDOM.edge_ops[:20])
    for name in ("texts.json", "records.json", "columns.npz"):
        read = read_cells(tmp_path / name)
        assert isinstance(read, NatsColumns)
        assert list(read) == cells
    (tmp_path / "marked.json").write_text("\ufeff" + json.dumps([f"\ufeff{cells[0].text}\n"]))
    assert list(read_cells(tmp_path / "marked.json")) == cells[:1]
    whole = sample_cells(int(RANDOM[:20].trainable.sum()), 0, tmp_path / "texts.json")
    assert {cell.text for cell in whole} == {cell.text for cell in cells if cell.matrix.any()}
    mixed = [cells[0].text, Cell(["01", "00"], ["input", "output"]).to_json()]
    (tmp_path / "mixed.json").write_text(json.dumps(mixed))
    with pytest.raises(
        ValueError, match=r"entry 1 of cell file .*mixed.json is a Cell, expected a NatsCell as entry 0"
    ):
        read_cells(tmp_path / "mixed.json")
    (tmp_path / "odd.json").write_text('["|odd~0|"]')
    with pytest.raises(InvalidCellError, match=r"entry 0 of cell file .*odd.json: ops are"):
        read_cells(tmp_path / "odd.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"cell file .*deep.json is neither an .npz nor JSON"):
        read_cells(tmp_path / "deep.json")
    with pytest.raises(IsADirectoryError, match="is a folder, expected a file of cells"):
        read_cells(tmp_path)


def test_gaps_are_no_numbers() -> None:
    """NumPy hands out what lies under a mask."""
    gaps = np.ma.array([[0, 1], [0, 0]], mask=[[0, 1], [0, 0]])
    with pytest.raises(InvalidCellError, match="matrix has masked entries"):
        Cell(gaps, ["input", "output"])
    with pytest.raises(ValueError, match="accuracy has masked entries, expected a number in each"):
        checked_array("accuracy", gaps)
    assert checked_array("accuracy", np.ma.array([1.0, 2.0])).tolist() == [1.0, 2.0]
