"""Motif shapes and counts, against the benchmark's own parameter counts and by hand."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spd_fast import MOTIF_A, MOTIF_B, MOTIF_C, NASBENCH101, Cell, MotifShape, count_flops, count_parameters
from spd_fast.motif import cell_channels, count_flops_table, count_parameters_table
from spd_fast.spaces.cell import OPS
from strategies import cells

CONV3, CONV1, POOL = OPS
SHAPES = {"A": MOTIF_A, "B": MOTIF_B, "C": MOTIF_C}


def test_parameters_of_every_cell_of_the_benchmark(data_dir: Path) -> None:
    with np.load(data_dir / "nb101" / "nb101_test108.npz") as archive:
        vertices, edge_bits, op_codes = (archive[name] for name in ("vertices", "edge_bits", "op_codes"))
        published = archive["trainable_parameters"]
    counted = count_parameters_table(vertices, edge_bits, op_codes, NASBENCH101)
    assert len(counted) == 337_332
    assert np.array_equal(counted, published)
    for row in np.random.default_rng(0).choice(len(counted), 300, replace=False):
        cell = Cell.from_bits(vertices[row], edge_bits[row], op_codes[row])
        assert count_parameters(cell, NASBENCH101) == published[row]


def test_published_counts(data_dir: Path) -> None:
    reference = json.loads((data_dir / "nb101" / "reference_values.json").read_text())
    record = reference["official_record_00005c142e6f48ac74fdcf73e3439874"]
    cell = Cell(record["module_adjacency"], record["module_operations"])
    assert count_parameters(cell, NASBENCH101) == record["trainable_parameters"] == 8_555_530
    for example in reference["notebook_examples"]:
        cell = Cell(example["adjacency"].split(), example["operations"].split(","))
        assert count_parameters(cell, NASBENCH101) == example["trainable_parameters"]


def test_counts_of_the_bench_cells(data_dir: Path) -> None:
    """An epoch costs forward, dgrad and wgrad of everything but the stem's dgrad: 3 forward - stem, of 200 images."""
    for entry in json.loads((data_dir / "bench_cells.json").read_text())["cells"]:
        cell = Cell(entry["matrix"], entry["ops"])
        for name, shape in SHAPES.items():
            stem = 2 * 16 * 16 * 9 * shape.image_channels * shape.stem_channels
            assert count_parameters(cell, shape) == entry["parameters"][name]
            assert 200 * (3 * count_flops(cell, shape) - stem) == pytest.approx(
                1e9 * entry["gflop_per_epoch"][name], rel=1e-12
            )


def test_counts_by_hand() -> None:
    """Input to output directly, and through a 3x3 convolution of 3 and a 1x1 of 2 channels that the output concatenates."""
    cell = Cell(["0111", "0001", "0001", "0000"], ["input", CONV3, CONV1, "output"])
    shape = MotifShape(5, stacks=2, cells_per_stack=1, classes=7, image_channels=1)
    first = [5 * 3, 3 * 3 * 9, 5 * 2, 2 * 2, 5 * 5]
    second = [5 * 5, 5 * 5 * 9, 5 * 5, 5 * 5, 5 * 10]
    normalised = 5 + (3 + 3 + 2 + 2 + 5) + (5 + 5 + 5 + 5 + 10)
    assert cell_channels(cell, shape) == [(5, 3, 2, 5), (5, 5, 5, 10)]
    assert count_parameters(cell, shape) == 45 + sum(first) + sum(second) + 2 * normalised + 10 * 7 + 7
    flops = 2 * (9 * 6 * (45 + sum(first)) + 4 * 3 * sum(second) + 10 * 7)
    assert count_flops(cell, shape, (9, 6)) == flops


shapes = st.builds(
    MotifShape,
    st.integers(1, 10**6),
    stacks=st.integers(1, 6),
    cells_per_stack=st.integers(1, 9),
    classes=st.integers(2, 1000),
    image_channels=st.integers(1, 4),
)


@given(shapes, shapes, st.sampled_from([int, np.int64, np.uint32]))
def test_a_shape_is_its_numbers(shape: MotifShape, other: MotifShape, kind: type) -> None:
    """Initial weights with init "motif" are keyed by the key of a shape: it must be that of any equal one, and of no other."""
    numbers = dataclasses.asdict(shape)
    again = MotifShape(**{name: kind(value) for name, value in numbers.items()})
    for same in (again, pickle.loads(pickle.dumps(shape)), dataclasses.replace(other, **numbers), eval(repr(shape))):
        assert same == shape
        assert hash(same) == hash(shape)
        assert (repr(same), same.key) == (repr(shape), shape.key)
    assert (repr(shape) == repr(other)) == (shape.key == other.key) == (shape == other)
    assert len(shape.cell_io()) == shape.stacks * shape.cells_per_stack
    assert shape.cell_io()[-1][3] == shape.out_channels


@settings(deadline=None)
@given(
    st.lists(cells(), max_size=4),
    st.builds(
        MotifShape, st.integers(5, 40), st.integers(1, 4), st.integers(1, 3), st.integers(2, 12), st.integers(1, 4)
    ),
    st.tuples(st.integers(8, 40), st.integers(8, 40)),
)
def test_tables_count_as_single_cells_do(drawn: list[Cell], shape: MotifShape, size: tuple[int, int]) -> None:
    columns = [
        np.array([getattr(cell, name) for cell in drawn], dtype=np.int64)
        for name in ("n_vertices", "edge_bits", "packed_op_codes")
    ]
    assert count_parameters_table(*columns, shape).tolist() == [count_parameters(cell, shape) for cell in drawn]
    assert count_flops_table(*columns, shape, size).tolist() == [count_flops(cell, shape, size) for cell in drawn]


def test_published_shapes() -> None:
    stated = {shape: dataclasses.astuple(shape) for shape in (MOTIF_A, MOTIF_B, MOTIF_C, NASBENCH101)}
    assert list(stated.values()) == [(32, 1, 3, 10, 3), (16, 3, 1, 10, 3), (16, 1, 1, 10, 3), (128, 3, 3, 10, 3)]


def test_channels_double_from_stack_to_stack() -> None:
    assert MotifShape(4, 3, 2).cell_io() == [
        (0, 0, 4, 4),
        (0, 1, 4, 4),
        (1, 0, 4, 8),
        (1, 1, 8, 8),
        (2, 0, 8, 16),
        (2, 1, 16, 16),
    ]
    assert MotifShape(4, 3, 2).out_channels == 16
    assert MOTIF_A.cell_io() == [(0, i, 32, 32) for i in range(3)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem_channels": 0}, "stem_channels is 0, expected at least 1"),
        ({"stacks": 0}, "stacks is 0, expected at least 1"),
        ({"cells_per_stack": -1}, "cells_per_stack is -1, expected at least 1"),
        ({"classes": 1}, "classes is 1, expected 2 to 1000"),
        ({"classes": 1001}, "classes is 1001, expected 2 to 1000"),
        ({"image_channels": 0}, "image_channels is 0, expected 1 to 4"),
        ({"image_channels": 5}, "image_channels is 5, expected 1 to 4"),
    ],
)
def test_shapes_out_of_range_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MOTIF_C, **changes)


def test_shapes_hold_plain_integers() -> None:
    with pytest.raises(TypeError, match=r"stem_channels is 16\.0, expected an integer"):
        MotifShape(16.0)  # type: ignore[arg-type]
    shape = MotifShape(np.int64(16))
    assert shape == MOTIF_C
    assert json.dumps(dataclasses.asdict(shape)) == json.dumps(dataclasses.asdict(MOTIF_C))


def test_shapes_too_narrow_or_images_too_small_are_refused() -> None:
    cell = Cell(["01110", "00001", "00001", "00001", "00000"], ["input", POOL, POOL, POOL, "output"])
    narrow = MotifShape(2)
    columns = ([cell.n_vertices], [cell.edge_bits], [cell.packed_op_codes])
    for count in (count_parameters, count_flops, cell_channels):
        with pytest.raises(ValueError, match="c_out is 2, expected at least 3"):
            count(cell, narrow)  # type: ignore[operator]
    for count_table in (count_parameters_table, count_flops_table):
        with pytest.raises(ValueError, match=r"row 0 of the table has more interior vertices .* stem channels \(2\)"):
            count_table(*columns, narrow)  # type: ignore[operator]
    with pytest.raises(
        ValueError, match="image_size is 3x8, expected at least 4 pixels a side: pooling halves it 2 times"
    ):
        count_flops(cell, MOTIF_B, (3, 8))
    with pytest.raises(ValueError, match="image_size is 0x0, expected at least 1 pixels"):
        count_flops(cell, MOTIF_C, 0)
