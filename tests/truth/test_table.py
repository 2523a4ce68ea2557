"""Truth tables: files read and written, sampling, and what bad files get."""

import json
import pickle
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processes import files_of_at_most
from spd_fast import Cell, InvalidCellError, Perceptron, TruthTable
from spd_fast.base.files import load_arrays
from spd_fast.base.ranks import kendall_tau
from spd_fast.base.stores import content_digest
from spd_fast.spaces.cell import OPS
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.truth.table import SCHEMA, write_truth
from strategies import cells

CONV3, CONV1, POOL = OPS
PROVENANCE = {"data": "made up", "hours": 0.5}


def some_cells(n: int) -> list[Cell]:
    """The first n of a fixed list of cells with different hashes: chains of 1 to 4 operations, by length."""
    found = [Cell(["01", "00"], ["input", "output"])]
    chains: list[list[str]] = [[]]
    while len(found) < n:
        chains = [[*chain, op] for chain in chains for op in OPS]
        found += [Cell(np.eye(len(ops) + 2, k=1, dtype=int), ["input", *ops, "output"]) for ops in chains]
    return found[:n]


def measured(n: int, budgets: int = 2, seeds: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    names = ("test_accuracy", "validation_accuracy", "test_loss", "seconds")
    return {name: rng.random((n, budgets, seeds)).astype(np.float32) for name in names}


def written(path: Path, n: int = 5, **changes: Any) -> dict[str, np.ndarray]:
    arrays = measured(n)
    settings = {
        "cells": some_cells(n),
        "budgets": (4, 12),
        "seeds": (0, 1, 2),
        "arrays": arrays,
        "provenance": PROVENANCE,
    }
    write_truth(path, **(settings | changes))
    return arrays


def rewritten(path: Path, **changes: Any) -> Path:
    """The file at `path` with some arrays replaced, or left out where None."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_slopes_read_back(tmp_path: Path) -> None:
    slopes = [Perceptron(slope) for slope in (0.01, 0.5, 1 / 3)]
    arrays = measured(3)
    write_truth(
        tmp_path / "t.npz", cells=slopes, budgets=(4, 12), seeds=(0, 1, 2), arrays=arrays, provenance=PROVENANCE
    )
    table = TruthTable.load(tmp_path / "t.npz")
    assert list(table.cells) == slopes
    assert table.hashes == tuple(each.module_hash for each in slopes)
    assert list(table.subset([2, 0]).cells) == [slopes[2], slopes[0]]
    assert set(table.sample(2, seed=0).cells) < set(slopes)
    rewritten(tmp_path / "t.npz", slope=np.array([0.01, 0.5, 0.3]))
    with pytest.raises(ValueError, match="row 2 of the table has a module_hash that is not its cell's"):
        TruthTable.load(tmp_path / "t.npz")


def test_slopes_and_cells_do_not_mix(tmp_path: Path) -> None:
    mixed = [Perceptron(0.5), *some_cells(1)]
    how = {"budgets": (4, 12), "seeds": (0, 1, 2), "arrays": measured(2), "provenance": PROVENANCE}
    with pytest.raises(TypeError, match=r"cells\[1\] is Cell, expected Perceptron"):
        write_truth(tmp_path / "t.npz", cells=mixed, **how)
    with pytest.raises(TypeError, match=r"cells\[0\] is str, expected Cell or NatsCell or Perceptron"):
        write_truth(tmp_path / "t.npz", cells=["a", "b"], **how)


def test_the_slopes_of_the_package() -> None:
    """100 slopes from 0.01 to 2.01, 10 seeds: neither end is the best, and the table says how it was made."""
    table = TruthTable.embedded(Perceptron)
    assert table.cells.slope == pytest.approx(np.linspace(0.01, 2.01, 100))
    assert len(table.seeds) == 10
    assert 0.05 < table.cells.slope[table.accuracy.argmax()] < 1
    assert table.loss is not None
    assert table.provenance["shape"] == {
        "hidden": 100,
        "layers": 2,
        "classes": 10,
        "image_channels": 1,
        "loss": "softmax",
    }
    with pytest.raises(ValueError, match="cell_type is int, expected Cell or Perceptron: no truth of others ships"):
        TruthTable.embedded(int)


def test_written_files_read_back(tmp_path: Path) -> None:
    arrays = written(tmp_path / "truth.npz")
    table = TruthTable.load(tmp_path / "truth.npz")
    assert list(table.cells) == some_cells(5)
    assert table.hashes == tuple(cell.module_hash for cell in some_cells(5))
    assert (table.accuracy_name, table.budget, table.budgets, table.seeds) == ("test_accuracy", 12, (4, 12), (0, 1, 2))
    assert table.provenance == PROVENANCE
    assert {name: values.tolist() for name, values in table.measurements.items()} == {
        name: values.tolist() for name, values in arrays.items()
    }
    expected = arrays["test_accuracy"][:, 1].astype(float)
    assert table.accuracy.dtype == np.float64
    assert np.array_equal(table.accuracy, expected.mean(axis=1))
    assert table.accuracy_sd is not None
    np.testing.assert_allclose(table.accuracy_sd, np.sqrt(((expected - table.accuracy[:, None]) ** 2).sum(axis=1) / 2))
    assert table.loss is not None
    assert np.array_equal(table.loss, arrays["test_loss"][:, 1].astype(float).mean(axis=1))


def test_means_over_seeds_do_not_depend_on_other_cells_nor_on_the_order_in_memory() -> None:
    arrays = {"test_accuracy": np.random.default_rng(2).random((5, 1, 12))}
    columns, axes = CellColumns.from_cells(some_cells(5)), ((4,), tuple(range(12)))
    whole = TruthTable(columns, arrays, *axes)
    turned = TruthTable(columns, {name: np.asfortranarray(values) for name, values in arrays.items()}, *axes)
    assert whole.accuracy.tobytes() == turned.accuracy.tobytes()
    assert whole.accuracy_sd.tobytes() == turned.accuracy_sd.tobytes()
    for row in range(5):
        alone = turned.subset([row])
        assert alone.accuracy.tobytes() == whole.accuracy[[row]].tobytes()
        assert alone.accuracy_sd.tobytes() == whole.accuracy_sd[[row]].tobytes()


def test_accuracy_name_and_budget_choose_the_column(tmp_path: Path) -> None:
    arrays = written(tmp_path / "truth.npz")
    table = TruthTable.load(tmp_path / "truth.npz", accuracy_name="validation_accuracy", budget=4)
    assert np.array_equal(table.accuracy, arrays["validation_accuracy"][:, 0].astype(float).mean(axis=1))
    assert table.loss is None
    assert "validation accuracy after 4 epochs, mean of 3 seeds" in table.describe()
    with pytest.raises(
        ValueError, match=r"accuracy_name is 'train_accuracy', expected .*: validation_accuracy, test_accuracy"
    ):
        TruthTable.load(tmp_path / "truth.npz", accuracy_name="train_accuracy")
    with pytest.raises(ValueError, match="accuracy_name is 'test_loss', expected an accuracy"):
        TruthTable.load(tmp_path / "truth.npz", accuracy_name="test_loss")
    with pytest.raises(ValueError, match="budget is 108 epochs, expected one of this table: 4, 12"):
        TruthTable.load(tmp_path / "truth.npz", budget=108)


def test_default_accuracy_prefers_test_then_validation(tmp_path: Path) -> None:
    values = np.full((1, 1, 1), 0.5, np.float32)
    for names in (["validation_accuracy", "train_accuracy"], ["train_accuracy"]):
        arrays = dict.fromkeys(names, values)
        write_truth(
            tmp_path / "t.npz", cells=some_cells(1), budgets=[1], seeds=[7], arrays=arrays, provenance=PROVENANCE
        )
        table = TruthTable.load(tmp_path / "t.npz")
        assert table.accuracy_name == names[0]
        assert table.accuracy_sd is None
        assert "1 seed" in table.describe()


def test_saved_tables_read_back_and_are_byte_for_byte_repeatable(tmp_path: Path) -> None:
    written(tmp_path / "one.npz")
    table = TruthTable.load(tmp_path / "one.npz")
    table.save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    table.subset([3, 1]).save(tmp_path / "three.npz")
    again = TruthTable.load(tmp_path / "three.npz")
    assert list(again.cells) == [some_cells(5)[3], some_cells(5)[1]]
    assert np.array_equal(again.accuracy, table.accuracy[[3, 1]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.npz", "three.npz", "two.npz"]


def test_benchmark_columns(data_dir: Path) -> None:
    table = TruthTable.load(data_dir / "nb101" / "nb101_test108.npz")
    assert (len(table), table.accuracy_name, table.budget, table.loss) == (337_332, "test_accuracy", 108, None)
    assert table.accuracy.max() <= 0.943175752957662 + 1e-12
    best = int(np.flatnonzero(table.cells.module_hash[:, 0] == 0)[0])
    assert table.hashes[best] == "00005c142e6f48ac74fdcf73e3439874"
    record = json.loads((data_dir / "nb101" / "reference_values.json").read_text())[
        f"official_record_{table.hashes[best]}"
    ]
    runs = [run["final_test_accuracy"] for run in record["108"]]
    assert table.accuracy[best] == pytest.approx(np.mean(runs), abs=1e-7)  # the record's accuracies are float32
    assert table.cells[best].module_hash == table.hashes[best]
    assert "test accuracy after 108 epochs, mean of 3 runs" in table.describe()
    drawn = table.sample(1000, seed=3)
    assert len(set(drawn.hashes)) == 1000
    lookup = {module_hash: row for row, module_hash in enumerate(table.hashes)}
    assert np.array_equal(drawn.accuracy, table.accuracy[[lookup[module_hash] for module_hash in drawn.hashes]])
    with pytest.raises(ValueError, match=r"accuracy_name is 'validation_accuracy', expected .*: test_accuracy"):
        TruthTable.load(data_dir / "nb101" / "nb101_test108.npz", accuracy_name="validation_accuracy")


def table_of(drawn: list[Cell]) -> TruthTable:
    accuracy = np.linspace(0, 1, len(drawn)).reshape(-1, 1, 1)
    return TruthTable(CellColumns.from_cells(drawn), {"test_accuracy": accuracy}, (1,), (0,))


@settings(deadline=None)
@given(st.lists(cells(), max_size=12), st.integers(-5, 2**70), st.data())
def test_samples_hold_no_cell_twice_and_follow_from_the_seed(drawn: list[Cell], seed: int, data: st.DataObject) -> None:
    table = table_of(drawn)
    different = len({cell.module_hash for cell in drawn})
    n = data.draw(st.integers(0, different))
    sample = table.sample(n, seed)
    assert len(sample) == len(set(sample.hashes)) == n
    assert sample.hashes == table.sample(different, seed).hashes[:n]
    shuffled = table_of(data.draw(st.permutations(drawn)))
    assert shuffled.sample(n, seed).hashes == sample.hashes
    first, rest = table.split(n, seed)
    assert first.hashes == sample.hashes
    assert sorted(first.hashes + rest.hashes) == sorted({cell.module_hash for cell in drawn})
    with pytest.raises(ValueError, match=f"n is {different + 1}, expected 0 to {different}"):
        table.sample(different + 1, seed)


def test_samples_are_fair() -> None:
    """Each of 40 cells is drawn into a quarter of 400 samples: the counts' variance is binomial within 4 sigma."""
    table = table_of(some_cells(40))
    counts = np.zeros(40)
    for seed in range(400):
        counts[[round(a * 39) for a in table.sample(10, seed).accuracy]] += 1
    assert counts.sum() == 4000
    assert np.abs(counts - 100).max() < 4 * np.sqrt(400 * 0.25 * 0.75)
    assert table.sample(10, 0).hashes != table.sample(10, 1).hashes


def test_subsets_keep_rows_together(tmp_path: Path) -> None:
    arrays = written(tmp_path / "truth.npz")
    table = TruthTable.load(tmp_path / "truth.npz", budget=4)
    part = table.subset(np.array([4, 0, 4]))
    assert list(part.cells) == [some_cells(5)[i] for i in (4, 0, 4)]
    assert np.array_equal(part.measurements["seconds"], arrays["seconds"][[4, 0, 4]])
    assert part.budget == 4
    assert list(table.subset(table.accuracy > 0.5).accuracy) == [a for a in table.accuracy if a > 0.5]
    assert len(table.subset([])) == 0
    assert len(table.subset([]).sample(0, 1)) == 0
    assert "0 cells" in table.subset([]).describe()
    with pytest.raises(IndexError, match="out of bounds"):
        table.subset([5])
    with pytest.raises(IndexError, match=r"indices are float64 \(1,\), expected integers or bools"):
        table.subset([0.5])


def test_diverged_runs_are_told_not_averaged_away(tmp_path: Path) -> None:
    arrays = measured(5)
    arrays["test_loss"][2, 1, 0] = np.nan
    arrays["test_loss"][3, 1, 0] = np.inf
    written(tmp_path / "truth.npz", arrays=arrays)
    table = TruthTable.load(tmp_path / "truth.npz")
    assert table.loss is not None
    assert np.isfinite(table.loss).tolist() == [True, True, False, False, True]
    assert "2 cells have a run that diverged" in table.describe()


def with_entry(name: str, value: float) -> dict[str, np.ndarray]:
    arrays = measured(5)
    arrays[name][1, 0, 2] = value
    return arrays


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": some_cells(4)}, r"validation_accuracy is float32 \(5, 2, 3\), expected floats of shape \(4, 2, 3\)"),
        ({"cells": [*some_cells(4), some_cells(1)[0]]}, "1 of 5 cells repeat the module_hash of another"),
        ({"budgets": (12, 4)}, r"budgets are \(12, 4\), expected .* ascending"),
        ({"budgets": (0, 4)}, "expected epochs of at least 1"),
        ({"budgets": (4, 4)}, r"budgets are \[4, 4\], expected one or more different integers"),
        ({"budgets": ()}, r"budgets are \[\], expected one or more"),
        ({"seeds": (0, 1)}, r"expected floats of shape \(5, 2, 2\)"),
        ({"seeds": (0, 1, 1.5)}, "seeds are .* expected one or more different integers"),
        ({"arrays": {"test_loss": measured(5)["test_loss"]}}, "expected at least one of train_accuracy, "),
        (
            {"arrays": measured(5) | {"colour": measured(5)["seconds"]}},
            "measurement 'colour' is unknown, expected one of",
        ),
        ({"arrays": with_entry("test_accuracy", 1.5)}, r"test_accuracy\[1, 0, 2\] is 1.5, expected 0 to 1"),
        ({"arrays": with_entry("test_accuracy", np.nan)}, r"test_accuracy\[1, 0, 2\] is nan, expected 0 to 1"),
        ({"arrays": with_entry("test_loss", -0.5)}, r"test_loss\[1, 0, 2\] is -0.5, expected at least 0"),
        ({"arrays": with_entry("seconds", np.nan)}, r"seconds\[1, 0, 2\] is nan, expected at least 0"),
        (
            {"arrays": {"test_accuracy": np.zeros((5, 2, 3), int)}},
            r"test_accuracy is int64 \(5, 2, 3\), expected floats",
        ),
    ],
)
def test_wrong_measurements_are_not_written(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        written(tmp_path / "truth.npz", **changes)
    assert list(tmp_path.iterdir()) == []


def test_provenance_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        written(tmp_path / "truth.npz", provenance={"when": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    written(tmp_path / "truth.npz")
    before = (tmp_path / "truth.npz").read_bytes()
    with files_of_at_most(len(before) // 2), pytest.raises(OSError, match="File too large"):
        written(tmp_path / "truth.npz", n=4)
    assert (tmp_path / "truth.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["truth.npz"]


def test_folders_that_cannot_take_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        written(tmp_path / "absent" / "truth.npz")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        written(tmp_path / "file" / "truth.npz")


def test_files_that_are_no_truth(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"truth file .*none\.npz does not exist"):
        TruthTable.load(tmp_path / "none.npz")
    with pytest.raises(IsADirectoryError):
        TruthTable.load(tmp_path)
    text = tmp_path / "text.npz"
    text.write_text("hello")
    with pytest.raises(ValueError, match=r"text\.npz is not an \.npz file, or was cut short"):
        TruthTable.load(text)
    np.savez(tmp_path / "images.npz", images=np.zeros(3), labels=np.zeros(3))
    with pytest.raises(
        ValueError, match=r"images\.npz: holds images, labels, but not module_hash, .*: not a whole truth"
    ):
        TruthTable.load(tmp_path / "images.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"is not an \.npz file"):
        TruthTable.load(tmp_path / "array.npy")


def test_images_and_records_are_no_truth(data_dir: Path) -> None:
    with pytest.raises(ValueError, match="holds images, labels, black_border, but not module_hash"):
        TruthTable.load(data_dir / "images" / "cifar10_960_uint8.npz")
    with pytest.raises(ValueError, match=r"is not an \.npz file"):
        TruthTable.load(data_dir / "nb101" / "tfrecord" / "carbon_3V9E.tfrecord")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"schema": np.array("spd_fast.truth/1")}, ValueError, f"schema 'spd_fast.truth/1', expected '{SCHEMA}'.*anew"),
        ({"seeds": None}, ValueError, "but not seeds: not a whole truth file"),
        ({"vertices": None, "edge_bits": None}, ValueError, "but not vertices, edge_bits"),
        ({"test_accuracy": np.zeros((5, 2), np.float32)}, ValueError, r"test_accuracy is float32 \(5, 2\)"),
        ({"provenance": np.frombuffer(b"{", np.uint8)}, ValueError, "provenance is not JSON"),
        ({"provenance": np.frombuffer(b"[]", np.uint8)}, ValueError, "provenance is a JSON list, expected an object"),
        ({"vertices": np.full(5, 9, np.uint8)}, ValueError, "row 0 of the table has vertices outside 2 to 7"),
        ({"vertices": np.full(4, 2, np.uint8)}, ValueError, "lengths 4, 5 and 5"),
        ({"module_hash": np.zeros((5, 4), np.uint8)}, ValueError, r"module_hash is uint8 \(5, 4\)"),
        ({"budgets": np.array(12)}, ValueError, r"expected floats of shape \(5, 1, 3\)"),
        ({"budgets": np.array([0.5, 2])}, ValueError, "expected one or more different integers"),
    ],
)
def test_damaged_tables(tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    written(tmp_path / "truth.npz")
    with pytest.raises(error, match=message) as caught:
        TruthTable.load(rewritten(tmp_path / "truth.npz", **changes))
    assert "truth.npz" in str(caught.value)


def test_cells_that_do_not_match_their_hash(tmp_path: Path) -> None:
    written(tmp_path / "truth.npz")
    table = TruthTable.load(rewritten(tmp_path / "truth.npz", op_codes=np.zeros(5, np.uint16)))
    with pytest.raises(ValueError, match=r"row 2 has module_hash .*: the columns do not belong together"):
        list(table.cells)
    table = TruthTable.load(rewritten(tmp_path / "truth.npz", edge_bits=np.zeros(5, np.uint32)))
    with pytest.raises(InvalidCellError, match="row 0: no path"):
        list(table.cells)


def test_cut_files_give_one_clear_error(tmp_path: Path) -> None:
    written(tmp_path / "truth.npz")
    whole = (tmp_path / "truth.npz").read_bytes()
    for length in range(0, len(whole), 101):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.npz"):
            TruthTable.load(tmp_path / "cut.npz")


def test_flipped_bytes_are_noticed_or_harmless(tmp_path: Path) -> None:
    """A flip in the data breaks a checksum; one in the archive's own fields may change nothing that is read."""
    written(tmp_path / "truth.npz")
    whole = (tmp_path / "truth.npz").read_bytes()
    table = TruthTable.load(tmp_path / "truth.npz")
    complaints = []
    for position in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[position] ^= 0x55
        (tmp_path / "flipped.npz").write_bytes(flipped)
        try:
            again = TruthTable.load(tmp_path / "flipped.npz")
        except ValueError as error:
            complaints.append(str(error))
        else:
            assert np.array_equal(again.accuracy, table.accuracy)
            assert again.hashes == table.hashes
    assert all("flipped.npz" in complaint for complaint in complaints)
    assert len(complaints) > len(whole) / 7 / 2


class Trap:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    np.savez(tmp_path / "trap.npz", schema=trap)
    with pytest.raises(
        ValueError, match=r"trap\.npz is damaged or holds more than plain arrays: schema holds Python objects"
    ):
        TruthTable.load(tmp_path / "trap.npz")
    (tmp_path / "trap.pickle").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(ValueError, match=r"is not an \.npz file"):
        TruthTable.load(tmp_path / "trap.pickle")
    assert not (tmp_path / "sprung").exists()


def test_the_table_that_ships() -> None:
    """What its data card promises: cells, budgets, seeds, losses, and seeds that agree."""
    with as_file(files("spd_fast") / "data" / "truth.npz") as path:
        assert path.stat().st_size < 2_000_000
    table = TruthTable.load()
    assert len(set(table.hashes)) == len(table) >= 1500
    assert (table.budgets, table.seeds) == ((1, 2, 4, 8), (0, 1, 2))
    for split in ("train", "validation", "test"):
        assert np.isfinite(table.measurements[f"{split}_loss"]).all()
    for budget, least in zip(range(4), (0.55, 0.6, 0.65, 0.65), strict=True):
        one, other = table.measurements["test_accuracy"][:, budget, :2].T
        assert kendall_tau(one, other) > least


@pytest.mark.parametrize(
    ("name", "digest", "drawn_from"),
    [("truth", "d2fa00ed3de26254", "pytorch"), ("slopes", "11d60d8df94f7c91", "normal")],
)
def test_the_numbers_that_ship_do_not_change(name: str, digest: str, drawn_from: str) -> None:
    """Cells and measurements are as they were measured: the form of the file may change, its numbers may not."""
    with as_file(files("spd_fast") / "data" / f"{name}.npz") as path:
        arrays = load_arrays(path, what="truth file", listed=True)
    assert str(arrays.pop("schema")) == SCHEMA
    assert json.loads(arrays.pop("provenance").tobytes())["init_distribution"] == drawn_from
    assert content_digest(arrays) == digest


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    """Every loader says what the file is, what reads it and what was expected."""
    from spd_fast import Dish, SPDPredictor, nasbench101
    from spd_fast.images import load_images
    from spd_fast.spaces.cell_files import read_cells

    csv, truth, dish = tmp_path / "a.csv", tmp_path / "truth.npz", tmp_path / "dish.npz"
    csv.write_text("hash,test_accuracy\n0,0.9\n")
    TruthTable.load().sample(3, 0).save(truth)
    Dish.random(per_class=1).save(dish)
    is_truth = "it is a truth file, which spd_fast.TruthTable.load reads; expected "
    for load, path, words in (
        (TruthTable.load, csv, "it is a CSV table, .* expected a file that spd_fast.truth.table.write_truth"),
        (TruthTable.load, dish, "it is a file of images and labels, which spd_fast.Dish.load"),
        (nasbench101.open, truth, f"{is_truth}a table that spd_fast.nasbench101.convert wrote"),
        (SPDPredictor.load, truth, f"{is_truth}a file that spd_fast.SPDPredictor.save wrote"),
        (Dish.load, truth, f"{is_truth}a file that spd_fast.Dish.save wrote"),
        (load_images, truth, f"{is_truth}an .npz of images and labels"),
        (read_cells, dish, "it is a file of images and labels, .* expected JSON or an .npz of cells"),
        (read_cells, csv, "it is a CSV table, which spd_fast.rank"),
    ):
        with pytest.raises(ValueError, match=words):
            load(path)  # type: ignore[operator]
    with pytest.raises(TypeError, match="budget is '8', expected an integer") as caught:
        TruthTable.load(budget="8")  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)  # as `int` raises for a text
