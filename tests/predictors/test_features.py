"""Structural features: a table worked out by hand, a slow walk over every path, and what relabelling leaves alone."""

import math
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_fast.base.ranks import kendall_tau
from spd_fast.motif import NASBENCH101, count_flops, count_parameters
from spd_fast.predictors import features
from spd_fast.predictors.features import PATHS, SCALARS, adjacency_encoding, path_encoding, structural_features
from spd_fast.spaces.cell import OPS, Cell
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.truth.table import TruthTable
from strategies import cells, relabelled, relabellings

CONV3, CONV1, POOL = OPS


def scalars(cell: Cell) -> dict[str, float]:
    return dict(zip(SCALARS, structural_features([cell])[0].tolist(), strict=True))


def paths_of(cell: Cell) -> list[tuple[int, ...]]:
    """Interior vertices of every path from input to output, by trying all subsets."""
    last = cell.n_vertices - 1
    subsets = [inside for k in range(last) for inside in combinations(range(1, last), k)]
    return [inside for inside in subsets if all(cell.has_edge(x, y) for x, y in pairwise((0, *inside, last)))]


def test_a_cell_worked_out_by_hand() -> None:
    """0 -> 1 conv3x3 -> 2 conv3x3 -> 4; 0 -> 3 maxpool -> 4; 0 -> 4; 0 -> 2: the output has 64 + 64 channels."""
    cell = Cell(["01111", "00100", "00001", "00001", "00000"], ["input", CONV3, CONV3, POOL, "output"])
    expected = {
        "vertices": 5,
        "edges": 7,
        "conv3x3": 2,
        "conv1x1": 0,
        "maxpool3x3": 1,
        "paths": 4,
        "shortest_path": 1,
        "longest_path": 3,
        "conv3x3_on_path": 2,
        "maxpool3x3_on_path": 1,
        "input_fan_out": 4,
        "output_fan_in": 2,
        "input_to_output": 1,
        "narrowest": 64,
        "widest": 64,
        "log_parameters": math.log(count_parameters(cell, NASBENCH101)),
        "log_flops": math.log(count_flops(cell, NASBENCH101, 32)),
    }
    assert scalars(cell) == expected
    # Paths: none (column 0), 3x3 alone (1), pool alone (1 + 2), two 3x3 (4).
    assert np.flatnonzero(path_encoding([cell])[0]).tolist() == [0, 1, 3, 4]
    # Edges 01, 02 12, 04 24 34 with the output moved to vertex 6: bits 15, 17 and 18; 03 is bit 3.
    ops = [21, 24, 29]
    assert np.flatnonzero(adjacency_encoding([cell])[0]).tolist() == [0, 1, 2, 3, 15, 17, 18, *ops]


def test_the_smallest_cell() -> None:
    found = scalars(Cell(["01", "00"], ["input", "output"]))
    assert found["paths"] == found["input_to_output"] == found["longest_path"] == found["shortest_path"] == 1
    assert found["output_fan_in"] == found["conv3x3_on_path"] == 0
    assert found["narrowest"] == found["widest"] == 128


@given(cells())
def test_a_walk_over_all_paths_agrees(cell: Cell) -> None:
    found, paths = scalars(cell), paths_of(cell)
    assert found["paths"] == len(paths)
    assert found["shortest_path"] == min(map(len, paths)) + 1
    assert found["longest_path"] == max(map(len, paths)) + 1
    for op, name in ((CONV3, "conv3x3"), (POOL, "maxpool3x3")):
        assert found[name] == cell.ops.count(op)
        assert found[f"{name}_on_path"] == max(sum(cell.ops[v] == op for v in path) for path in paths)
    widths = cell.vertex_channels(128, 128)[1:-1]
    assert (found["narrowest"], found["widest"]) == (min(widths, default=128), max(widths, default=128))
    columns = set()
    for path in paths:
        codes = [cell.op_codes[v - 1] for v in path]
        offset = sum(3**k for k in range(len(codes)))
        columns.add(offset + sum(code * 3**i for i, code in enumerate(reversed(codes))))
    encoding = path_encoding([cell])
    assert encoding.shape == (1, PATHS)
    assert set(np.flatnonzero(encoding[0]).tolist()) == columns


@given(st.data())
def test_isomorphic_cells_have_the_same_features(data: st.DataObject) -> None:
    """All but parameters and FLOPs, where spare channels go to the first vertices."""
    cell = data.draw(cells())
    other = relabelled(cell, data.draw(relabellings(cell)))
    known = [SCALARS.index(name) for name in SCALARS if not name.startswith("log_")]
    assert np.array_equal(structural_features([cell])[:, known], structural_features([other])[:, known])
    assert np.array_equal(path_encoding([cell]), path_encoding([other]))


@given(st.lists(cells(), min_size=1, max_size=5))
def test_adjacency_encoding_tells_cells_apart_and_rows_are_independent(drawn: list[Cell]) -> None:
    together = adjacency_encoding(drawn)
    assert np.array_equal(together, np.concatenate([adjacency_encoding([cell]) for cell in drawn]))
    assert len({row.tobytes() for row in together}) == len(set(drawn))
    assert together[:, :21].sum(axis=1).tolist() == [cell.n_edges for cell in drawn]
    assert np.array_equal(structural_features(CellColumns.from_cells(drawn)), structural_features(drawn))


@pytest.mark.parametrize("encode", [structural_features, adjacency_encoding, path_encoding])
def test_no_cells(encode: object) -> None:
    assert encode([]).shape == (0, {"s": len(SCALARS), "a": 36, "p": PATHS}[encode.__name__[0]])  # type: ignore[operator,attr-defined]


def test_every_scalar_is_described() -> None:
    text = Path(features.__file__).read_text()
    for name in SCALARS:
        assert f"``{name}``" in text or name in ("conv1x1", "maxpool3x3"), name


def test_rank_agreement_on_the_benchmark(data_dir: Path) -> None:
    """Kendall's tau of single scalars with the accuracies of 20,000 cells.

    The expected values were computed on the whole space by other code (423,624 cells, three digits). The sampling error of
    tau is about 2 / (3 sqrt(n)) = 0.0047; four of these, and rounding, are allowed.
    """
    table = TruthTable.load(data_dir / "nb101" / "nb101_test108.npz").sample(20_000, 5)
    found = dict(zip(SCALARS, structural_features(table.cells).T, strict=True))
    expected = {
        "conv3x3": 0.408,
        "log_parameters": 0.307,
        "log_flops": 0.306,
        "shortest_path": -0.349,
        "maxpool3x3": -0.364,
        "conv3x3_on_path": 0.381,
    }
    for name, tau in expected.items():
        assert abs(kendall_tau(found[name], table.accuracy) - tau) < 4 * 0.0047 + 5e-4, name
