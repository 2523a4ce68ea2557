"""Building truth: reading images, drawing cells, and a build that survives being killed."""

import fcntl
import gzip
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import processes
from processes import started
from spd_fast import Adam, Cell, InvalidCellError, MotifShape, Perceptron, PerceptronShape, TruthTable
from spd_fast.images import IDX_FILES, ImageData, load_images, resize_images
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.spaces.cell_files import random_cells, sample_cells
from spd_fast.truth.build import build_truth
from spd_fast.truth.journal import Work, journal_path
from spd_fast.truth.table import MEASUREMENTS

SHAPE = MotifShape(6, 1, 1, classes=3, image_channels=1)
CELLS = random_cells(6, seed=4)
SETTINGS: dict[str, Any] = {
    "shape": SHAPE,
    "budgets": (1, 3),
    "seeds": (0, 5),
    "batch_size": 8,
    "optimizer": Adam(lr=1e-2),
    "image_size": 6,
    "n_train": 30,
    "n_valid": 11,
    "n_test": 13,
    "threads": 1,
}
MEASURED = [name for name in MEASUREMENTS if name != "seconds"]


def made_up_images(n_train: int = 60, n_test: int = 20) -> ImageData:
    """Three classes of 9 x 9 pixels, each a bar in another place under noise: learnable."""
    rng = np.random.default_rng(0)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 3, n)
        images = rng.integers(0, 120, (n, 9, 9))
        images[np.arange(n), 3 * labels] += 120
        return images.astype(np.uint8), labels.astype(np.uint8)

    return ImageData(*drawn(n_train), *drawn(n_test), name="made up")


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def idx_folder(folder: Path, data: ImageData, zipped: bool = True) -> Path:
    folder.mkdir()
    for name, file in IDX_FILES.items():
        content = idx(getattr(data, name)[:, 0] if "images" in name else getattr(data, name))
        path = folder / (f"{file}.gz" if zipped else file)
        path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


def measurements(table: TruthTable) -> dict[str, bytes]:
    return {name: np.asarray(table.measurements[name]).tobytes() for name in MEASURED}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TruthTable:
    """What an uninterrupted build measures."""
    return build_truth(CELLS, made_up_images(), tmp_path_factory.mktemp("whole") / "truth.npz", **SETTINGS)


# ---- images


@pytest.mark.parametrize("zipped", [True, False], ids=["gz", "plain"])
def test_idx_folders_are_read(tmp_path: Path, zipped: bool) -> None:
    data = made_up_images()
    read = load_images(idx_folder(tmp_path / "set", data, zipped))
    for name in IDX_FILES:
        assert np.array_equal(getattr(read, name), getattr(data, name))
    assert read.train_images.shape == (60, 1, 9, 9)
    assert read.digest() == data.digest()


def test_fashion_mnist_is_read(data_dir: Path) -> None:
    data = load_images(data_dir / "images")
    assert data.test_images is not None
    assert data.test_labels is not None
    assert data.train_images.shape == (60_000, 1, 28, 28)
    assert data.test_images.shape == (10_000, 1, 28, 28)
    assert np.array_equal(np.bincount(data.train_labels), [6000] * 10)
    assert np.array_equal(np.bincount(data.test_labels), [1000] * 10)


def test_npz_files_are_read(tmp_path: Path) -> None:
    data = made_up_images()
    np.savez(tmp_path / "a.npz", images=data.train_images[:, 0], labels=data.train_labels)
    read = load_images(tmp_path / "a.npz")
    assert read.test_images is None
    assert np.array_equal(read.train_images, data.train_images)
    names = {"test_images": data.test_images, "test_labels": data.test_labels}
    np.savez(tmp_path / "b.npz", images=data.train_images, labels=data.train_labels, **names)
    assert load_images(tmp_path / "b.npz").digest() == data.digest()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "begins with nothing, expected 00 00 08 03"),
        (b"\0\0\x08\x01\0\0\0\x01\0", "begins with 00 00 08 01, expected 00 00 08 03"),
        (b"\0\0\x0d\x03" + bytes(12), "begins with 00 00 0d 03"),
        (b"\0\0\x08\x03\0\0\0\x3c\0\0", "cut short"),
        (idx(np.zeros((60, 9, 9)))[:-1], "has 4875 bytes, expected 4876"),
        (idx(np.zeros((60, 9, 9))) + b"\0", "has 4877 bytes, expected 4876"),
        (idx(np.zeros((59, 9, 9))), r"labels are uint8 \(60,\), expected integers of shape \(59,\)"),
    ],
)
def test_bad_idx_files_say_what_is_wrong(tmp_path: Path, content: bytes, words: str) -> None:
    folder = idx_folder(tmp_path / "set", made_up_images(), zipped=False)
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        load_images(folder)


def test_damaged_and_missing_idx_files(tmp_path: Path) -> None:
    folder = idx_folder(tmp_path / "set", made_up_images())
    path = folder / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    for damaged in (content[:-20], content[:200], b"not gzip at all", content[:100] + b"\xff" * 40 + content[140:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"train-images.*damaged or was cut short"):
            load_images(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="neither train-images-idx3-ubyte nor train-images-idx3-ubyte"):
        load_images(folder)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_images(tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": None}, "no 'labels'"),
        ({"labels": np.zeros(5, np.int64)}, r"expected integers of shape \(60,\)"),
        ({"labels": np.zeros(60)}, "expected integers"),
        ({"images": np.zeros((60, 9, 9, 3))}, r"expected numbers of shape \(N, H, W\) or \(N, C, H, W\), C 1 to 4"),
        ({"images": np.full((60, 9, 9), np.nan)}, "NaN or infinity"),
        ({"test_images": np.zeros((5, 9, 9))}, "test images or test labels, expected both or neither"),
        ({"test_images": np.zeros((5, 8, 9)), "test_labels": np.zeros(5, np.int64)}, r"expected \(1, 9, 9\)"),
        ({"labels": np.array([None] * 60)}, "damaged or holds more than plain arrays"),
    ],
)
def test_bad_npz_images_say_what_is_wrong(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    data = made_up_images()
    arrays = {"images": data.train_images, "labels": data.train_labels} | changes
    np.savez(tmp_path / "a.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=words):
        load_images(tmp_path / "a.npz")


def test_resizing_by_area() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(1, 1, 2, 6)
    assert np.array_equal(resize_images(image, 2)[0, 0], [[1, 4], [7, 10]])  # 1 x 3 blocks
    row = np.array([[[[9, 0, 3]]]], dtype=np.uint8)
    assert resize_images(row, 2)[0, 0, 0] == pytest.approx([6, 2], rel=1e-6)  # (9 + 0/2) / 1.5, (0/2 + 3) / 1.5
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 28, 28)).astype(np.uint8)
    assert np.array_equal(resize_images(images, 28), images)
    blocks = images.reshape(2, 3, 14, 2, 14, 2).mean(axis=(3, 5))
    assert resize_images(images, 14) == pytest.approx(blocks, rel=1e-6)
    assert resize_images(images, 16).mean(axis=(2, 3)) == pytest.approx(images.mean(axis=(2, 3)), rel=1e-6)


# ---- cells


def test_random_cells_are_different_and_reproducible() -> None:
    drawn = random_cells(300, seed=1)
    assert len({cell.module_hash for cell in drawn}) == 300
    assert random_cells(50, seed=1) == drawn[:50]
    assert random_cells(50, seed=2) != drawn[:50]
    assert {cell.n_vertices for cell in drawn} >= {4, 5, 6, 7}
    counts = np.bincount([code for cell in drawn for code in cell.op_codes], minlength=3)
    expected = counts.sum() / 3  # each operation as often, within four standard deviations of a multinomial share
    assert np.abs(counts - expected).max() < 4 * np.sqrt(counts.sum() * 2 / 9)
    assert random_cells(0, seed=1) == []


def test_cells_from_a_file(tmp_path: Path) -> None:
    pool = random_cells(40, seed=3)
    twin = next(cell for cell in map(relabelled, pool) if cell is not None)
    shuffled = [*pool[20:], twin, *pool[:20]]
    (tmp_path / "list.json").write_text(json.dumps([cell.to_json() for cell in pool]))
    (tmp_path / "object.json").write_text(json.dumps({"cells": [cell.to_json() for cell in shuffled]}))
    columns = CellColumns.from_cells(pool)
    names = ("vertices", "edge_bits", "op_codes", "module_hash")
    np.savez(tmp_path / "a.npz", **{name: getattr(columns, name) for name in names})
    np.savez(tmp_path / "b.npz", **{name: getattr(columns, name) for name in names[:3]})
    drawn = sample_cells(15, 0, tmp_path / "list.json")
    hashes = [cell.module_hash for cell in drawn]
    assert len(set(hashes)) == 15
    for file in ("object.json", "a.npz", "b.npz"):
        assert [cell.module_hash for cell in sample_cells(15, 0, tmp_path / file)] == hashes
    assert sample_cells(7, 0, tmp_path / "a.npz") == drawn[:7]
    assert sample_cells(15, 1, tmp_path / "a.npz") != drawn
    assert len(sample_cells(40, 0, tmp_path / "object.json")) == 40
    with pytest.raises(ValueError, match="expected 0 to 40: the number of different cells"):
        sample_cells(41, 0, tmp_path / "object.json")
    assert sample_cells(5, 9) == random_cells(5, 9)


def relabelled(cell: Cell) -> Cell | None:
    """The cell with two neighbouring, unconnected vertices exchanged; None where that gives the same cell."""
    for v in range(1, cell.n_vertices - 2):
        if not cell.has_edge(v, v + 1):
            order = list(range(cell.n_vertices))
            order[v], order[v + 1] = v + 1, v
            twin = Cell(cell.matrix[np.ix_(order, order)], [cell.ops[i] for i in order])
            if twin != cell:
                return twin
    return None


def test_bad_cell_files_say_what_is_wrong(tmp_path: Path) -> None:
    def file(name: str, content: str) -> Path:
        (tmp_path / name).write_text(content)
        return tmp_path / name

    with pytest.raises(FileNotFoundError, match="does not exist"):
        sample_cells(1, 0, tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match=r"neither an \.npz nor JSON"):
        sample_cells(1, 0, file("a.json", "{"))
    with pytest.raises(ValueError, match="holds no list of cells"):
        sample_cells(1, 0, file("b.json", '{"cell": 1}'))
    with pytest.raises(InvalidCellError, match="a cell is given as the number 3"):
        sample_cells(1, 0, file("c.json", "[3]"))
    np.savez(tmp_path / "a.npz", vertices=np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="lacks 'edge_bits'"):
        sample_cells(1, 0, tmp_path / "a.npz")
    with pytest.raises(ValueError, match="seed is -1"):
        sample_cells(1, -1)
    with pytest.raises(ValueError, match="seed is -1"):
        sample_cells(1, -1, tmp_path / "a.npz")
    with pytest.raises(ValueError, match="n is 500000, expected 0 to 423624"):
        random_cells(500_000, 0)


# ---- the build


def test_a_build_of_slopes(tmp_path: Path) -> None:
    """Perceptrons through the same machinery: what they reach is what training them reaches."""
    slopes = [Perceptron(slope) for slope in (0.1, 0.5, 2.0)]
    changes = {"shape": PerceptronShape(8, layers=1, classes=3), "init": "shared", "budgets": (1, 20)}
    table = build_truth(slopes, made_up_images(), tmp_path / "t.npz", **(SETTINGS | changes))
    assert list(table.cells) == slopes
    assert table.measurements["test_accuracy"].shape == (3, 2, 2)
    assert table.accuracy[1:].min() > 0.9  # a steep sigmoid learns the bars; chance is a third
    assert (table.provenance["shape"]["hidden"], table.provenance["init"]) == (8, "shared")


def test_a_build_measures_every_cell(whole: TruthTable) -> None:
    assert whole.budgets == (1, 3)
    assert whole.seeds == (0, 5)
    assert list(whole.cells) == CELLS
    for name in MEASUREMENTS:
        values = np.asarray(whole.measurements[name])
        assert values.shape == (6, 2, 2)
        assert np.isfinite(values).all()
    assert whole.provenance["data"] == "made up"
    assert whole.provenance["n_train"] == 30
    assert "test accuracy after 3 epochs, mean of 2 seeds" in whole.describe()
    seeds = np.asarray(whole.measurements["train_loss"])
    assert (seeds[:, :, 0] != seeds[:, :, 1]).all()


@pytest.mark.parametrize("has_test_set", [True, False])
def test_metrics_are_those_of_the_splits(tmp_path: Path, has_test_set: bool) -> None:
    """By a training of its own: splits disjoint, normalised by the training images, running statistics, cosine schedule.

    Where there is no test set, the test images are others of the training set.
    """
    from spd_fast import Dish, train_motifs

    data = made_up_images()
    if not has_test_set:
        data = replace(data, test_images=None, test_labels=None)
    settings = SETTINGS | {"budgets": (4,), "seeds": (2,)}
    table = build_truth(CELLS[:2], data, tmp_path / "truth.npz", **settings)
    order = np.random.Generator(np.random.PCG64(0)).permutation(60)
    test = data.train_images[order[41:54]], data.train_labels[order[41:54]]
    if data.test_images is not None and data.test_labels is not None:
        of_test = np.random.Generator(np.random.PCG64(0)).permutation(20)[:13]
        test = data.test_images[of_test], data.test_labels[of_test]
    train = resize_images(data.train_images[order[:30]], 6).astype(np.float64)
    mean, deviation = train.mean(), train.std()
    for name, images, labels in (
        ("train", data.train_images[order[:30]], data.train_labels[order[:30]]),
        ("validation", data.train_images[order[30:41]], data.train_labels[order[30:41]]),
        ("test", *test),
    ):
        scaled = ((resize_images(images, 6) - mean) / deviation).astype(np.float32)
        dish = Dish(((train - mean) / deviation).astype(np.float32), data.train_labels[order[:30]], scaled, labels)
        result = train_motifs(
            CELLS[:2],
            SHAPE,
            dish,
            epochs=4,
            batch_size=8,
            optimizer=Adam(lr=1e-2),
            schedule="cosine",
            seed=2,
            replicate=4,
            init="motif",
            statistics="running",
        )
        assert result.valid is not None
        # One float32 rounding of the stored value, and the engine's own rounding of the loss.
        assert table.measurements[f"{name}_accuracy"][:, 0, 0] == pytest.approx(result.valid.accuracy, rel=1e-6)
        assert table.measurements[f"{name}_loss"][:, 0, 0] == pytest.approx(result.valid.loss, rel=1e-5)


def test_threads_and_chunks_change_nothing(tmp_path: Path, whole: TruthTable) -> None:
    table = build_truth(CELLS, made_up_images(), tmp_path / "a.npz", **(SETTINGS | {"threads": 2}))
    assert measurements(table) == measurements(whole)
    alone = [build_truth([cell], made_up_images(), tmp_path / f"{cell.module_hash}.npz", **SETTINGS) for cell in CELLS]
    for name in MEASURED:
        parts = np.concatenate([table.measurements[name] for table in alone])
        assert np.array_equal(parts, whole.measurements[name]), name


def test_chunks_cover_everything_and_grow() -> None:
    costs = np.random.default_rng(0).uniform(1, 3, 100)
    shares: list[float] = []
    work = Work(costs, (2, 5), (0, 1), lambda cell, budget, seed: (cell + budget + seed) % 4 == 0, shares.append)
    seen: dict[tuple[int, int], list[int]] = {}
    sizes = []
    total = costs.sum() * (2 + 5) * 2
    done = sum(costs[cell] * b for cell in range(100) for b in (2, 5) for s in (0, 1) if (cell + b + s) % 4 == 0)
    for budget, seed, rows in work.chunks(8):
        assert shares[-1] == pytest.approx(done / total, rel=1e-9)
        done += costs[rows].sum() * budget
        sizes.append(len(rows))
        seen.setdefault((budget, seed), []).extend(rows.tolist())
        work.finished(budget, seed, rows, seconds=work.cost(budget, rows) / 4)  # 4 units a second: 240 in a chunk
    assert seen == {
        (budget, seed): [cell for cell in range(100) if (cell + budget + seed) % 4]
        for budget in (2, 5)
        for seed in (0, 1)
    }
    assert sizes[0] == 8
    assert max(sizes) > 40
    assert min(sizes) >= 8
    assert shares[-1] == pytest.approx(1, abs=1e-9)


def test_a_diverged_network_is_a_result(tmp_path: Path) -> None:
    settings = SETTINGS | {"optimizer": Adam(lr=1e30), "budgets": (2,), "seeds": (0,)}
    data = made_up_images()
    table = build_truth(CELLS[:3], data, tmp_path / "truth.npz", **settings)
    diverged = ~np.isfinite(np.asarray(table.measurements["test_loss"])[:, 0, 0])
    assert diverged.any()
    assert data.test_labels is not None
    of_test = np.random.Generator(np.random.PCG64(0)).permutation(20)[:13]
    share = np.mean(data.test_labels[of_test] == 0)
    assert np.asarray(table.measurements["test_accuracy"])[diverged, 0, 0] == pytest.approx(share, rel=1e-6)


def test_progress_rises_to_one(tmp_path: Path) -> None:
    shares: list[float] = []
    build_truth(CELLS, made_up_images(), tmp_path / "truth.npz", **SETTINGS, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == pytest.approx(1, abs=1e-9)


# ---- killed and resumed

BUILD = """
import sys, time
sys.path[:0] = {tests!r}
from test_build import CELLS, SETTINGS, made_up_images
from spd_fast.truth.build import build_truth
build_truth(CELLS, made_up_images(), {out!r}, **SETTINGS, progress=lambda share: time.sleep(0.02))
"""


def test_killed_at_any_moment_and_resumed(tmp_path: Path, whole: TruthTable) -> None:
    """SIGKILL as soon as the journal has grown, over and over: in the end the same bytes as of one run."""
    out = tmp_path / "truth.npz"
    program = BUILD.format(tests=[str(Path(__file__).parent), str(Path(__file__).parents[1])], out=str(out))
    journal = journal_path(out)
    kills, size = 0, 0
    for _ in range(20):
        with started([sys.executable, "-c", program]) as process:
            process.reaches(lambda size=size: processes.size(journal) > size)
            process.send(signal.SIGKILL)
            ended = process.wait()
            if ended == 0:
                break
            assert ended == -signal.SIGKILL, process.err
        kills += 1
        size = processes.size(journal)
        if not size:  # killed when it had removed its journal, just before its end
            break
    assert kills >= 2
    assert out.exists()
    assert not journal.exists()
    assert measurements(TruthTable.load(out)) == measurements(whole)
    assert list(tmp_path.iterdir()) == [out]


class StoppedError(Exception):
    pass


def interrupted(out: Path, after: float, **changes: Any) -> Path:
    """The journal of a build that was stopped after a share of the work."""

    def stop(share: float) -> None:
        if share >= after:
            raise StoppedError

    with pytest.raises(StoppedError):
        build_truth(CELLS, made_up_images(), out, **(SETTINGS | changes), progress=stop)
    assert not out.exists()
    return journal_path(out)


def test_every_half_written_tail_is_dropped(tmp_path: Path, whole: TruthTable) -> None:
    out = tmp_path / "truth.npz"
    journal = interrupted(out, 0.7)
    content = journal.read_bytes()
    lines = content.splitlines(keepends=True)
    assert len(lines) > 10
    last = len(content) - len(lines[-1])
    for cut in [0, 5, 40, len(lines[0]), last + 1, last + 9, last + 30, len(content) - 1]:
        journal.write_bytes(content[:cut])
        table = build_truth(CELLS, made_up_images(), out, **SETTINGS)
        assert measurements(table) == measurements(whole)
        out.unlink()
    journal.write_bytes(content + b"\0" * 100)  # a file system may leave zeros after a power failure
    assert measurements(build_truth(CELLS, made_up_images(), out, **SETTINGS)) == measurements(whole)


def test_a_finished_chunk_is_not_trained_again(tmp_path: Path) -> None:
    """Its trainings keep the seconds that they took, which a second training would take otherwise; the others have their own."""
    out = tmp_path / "truth.npz"
    journal = interrupted(out, 0.7)
    records = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert 0 < len(records) < 24
    shares: list[float] = []
    table = build_truth(CELLS, made_up_images(), out, **SETTINGS, progress=shares.append)
    assert shares[0] > 0.2
    for record in records:
        at = record["cell"], table.budgets.index(record["budget"]), table.seeds.index(record["seed"])
        assert table.measurements["seconds"][at] == np.float32(record["seconds"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 9}, "batch_size is 9, begun with 8"),
        ({"optimizer": Adam(lr=2e-2)}, r"optimizer is .*lr=0.02.* begun with .*lr=0.01"),
        ({"budgets": (1, 4)}, r"budgets is \[1, 4\], begun with \[1, 3\]"),
        ({"seeds": (0,)}, "seeds"),
        ({"shape": MotifShape(7, 1, 1, 3, 1)}, "stem_channels"),
        ({"image_size": 7}, "image_size is 7"),
        ({"n_test": 12}, "n_test is 12"),
        ({"split_seed": 1}, "split_seed is 1"),
    ],
)
def test_a_journal_of_other_settings_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    out = tmp_path / "truth.npz"
    journal = interrupted(out, 0.4)
    before = journal.read_bytes()
    with pytest.raises(ValueError, match=f"other settings .*{words}.*delete the journal to begin anew"):
        build_truth(CELLS, made_up_images(), out, **(SETTINGS | changes))
    with pytest.raises(ValueError, match="cells is"):
        build_truth(CELLS[::-1], made_up_images(), out, **SETTINGS)
    with pytest.raises(ValueError, match="images is"):
        build_truth(CELLS, made_up_images(61), out, **SETTINGS)
    assert journal.read_bytes() == before


def test_a_build_that_was_killed_after_its_file_was_whole(tmp_path: Path, whole: TruthTable) -> None:
    """The same call reads the file, whether or not the journal was gone, and trains nothing; another does not touch it."""
    out = tmp_path / "truth.npz"
    journal = interrupted(out, 0.7)
    build_truth(CELLS, made_up_images(), out, **SETTINGS)
    content = out.read_bytes()
    for left in (None, b"", b'{"schema":"spd_fast.tr'):
        if left is not None:
            journal.write_bytes(left)
        shares: list[float] = []
        table = build_truth(CELLS, made_up_images(), out, **SETTINGS, progress=shares.append)
        assert measurements(table) == measurements(whole)
        assert shares == [1.0]
        assert out.read_bytes() == content, "seconds too"
        assert list(tmp_path.iterdir()) == [out]
    for changes in ({"batch_size": 9}, {"seeds": (0,)}):
        with pytest.raises(FileExistsError, match=r"truth\.npz exists already: choose another name, or move it away"):
            build_truth(CELLS, made_up_images(), out, **(SETTINGS | changes))
    with pytest.raises(FileExistsError, match="exists already"):
        build_truth(CELLS[::-1], made_up_images(), out, **SETTINGS)
    assert list(tmp_path.iterdir()) == [out]
    assert out.read_bytes() == content


def test_a_file_that_came_while_a_build_was_stopped_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "truth.npz"
    journal = interrupted(out, 0.7)
    out.write_bytes(b"mine")
    before = journal.read_bytes()
    with pytest.raises(FileExistsError, match="exists already"):
        build_truth(CELLS, made_up_images(), out, **SETTINGS)
    assert (out.read_bytes(), journal.read_bytes()) == (b"mine", before)


def test_a_journal_without_measurements_binds_nobody(tmp_path: Path) -> None:
    out = tmp_path / "truth.npz"
    with pytest.raises(ValueError, match="batch_size"):
        build_truth(CELLS, made_up_images(), out, **(SETTINGS | {"batch_size": 0}))
    build_truth(CELLS, made_up_images(), out, **SETTINGS)


def test_a_damaged_or_foreign_journal_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "truth.npz"
    journal = interrupted(out, 0.7)
    content = journal.read_bytes()
    middle = len(content) // 2
    for wrong in (
        content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        b"x" + content,
        b"my notes\nabout something\n",
        b"my notes",
    ):
        journal.write_bytes(wrong)
        with pytest.raises(
            ValueError,
            match=r"is not a journal of spd_fast.truth_journal/3, or is damaged in line \d+: delete the journal",
        ):
            build_truth(CELLS, made_up_images(), out, **SETTINGS)
        assert journal.read_bytes() == wrong


def test_two_builds_of_one_file_do_not_mix(tmp_path: Path) -> None:
    out = tmp_path / "truth.npz"
    with open(journal_path(out), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match=r"truth\.npz\.journal is being written by another process: wait"):
            build_truth(CELLS, made_up_images(), out, **SETTINGS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": MotifShape(6, 1, 1, 3, 3)}, "has images of 1 channels, expected 3"),
        ({"shape": MotifShape(6, 1, 1, 2, 1)}, "has labels 0 to 2, expected 2 classes"),
        ({"budgets": ()}, r"budgets are \[\], expected different integers of at least 1, ascending"),
        ({"budgets": (3, 1)}, "budgets are"),
        ({"budgets": (0, 1)}, "budgets are"),
        ({"seeds": (1, 1)}, "seeds are"),
        ({"n_train": 0}, "0 train images are asked for"),
        ({"n_train": 55}, "ask for 66 of the images in made up, which has 60"),
        ({"n_test": 21}, "n_test is 21, expected at most 20"),
        ({"image_size": 3}, "3 x 3 pixels, expected sides of 4 to 64"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_truth(CELLS, made_up_images(), tmp_path / "truth.npz", **(SETTINGS | changes))
    assert not list(tmp_path.iterdir())


def test_cells_and_outputs_that_do_not_fit(tmp_path: Path) -> None:
    data, out = made_up_images(), tmp_path / "truth.npz"
    for name, wrong in (("budgets", (1.5, 3)), ("budgets", (True, 3)), ("seeds", ("0",))):
        with pytest.raises(TypeError, match=f"one of the {name} is {wrong[0]!r}, expected an integer"):
            build_truth(CELLS, data, out, **(SETTINGS | {name: wrong}))
    without = replace(data, test_images=None, test_labels=None)
    with pytest.raises(ValueError, match="ask for 61 of the images in made up, which has 60"):
        build_truth(CELLS, without, out, **(SETTINGS | {"n_valid": 18}))
    twin = next((cell, other) for cell in random_cells(40, 3) if (other := relabelled(cell)) is not None)
    with pytest.raises(ValueError, match=r"cells\[1\] is isomorphic to cells\[0\]"):
        build_truth(twin, data, out, **SETTINGS)
    with pytest.raises(ValueError, match="cells is empty"):
        build_truth([], data, out, **SETTINGS)
    flat = ImageData(np.zeros_like(data.train_images), data.train_labels, data.test_images, data.test_labels, "flat")
    with pytest.raises(ValueError, match="the training images of flat are constant"):
        build_truth(CELLS, flat, out, **SETTINGS)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        build_truth(CELLS, data, tmp_path / "nowhere" / "truth.npz", **SETTINGS)
    out.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"truth.npz exists already: choose another name"):
        build_truth(CELLS, data, out, **SETTINGS)
    assert out.read_bytes() == b"mine"
