"""The command line as a user meets it: help, whole runs, interruptions, and one clear line for every mistake."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nasbench_files
import small
from commands import call
from processes import Process, started
from spd_fast import Cell, __version__, recipes
from spd_fast.cli import console
from spd_fast.dish import Dish
from spd_fast.outer import runs
from spd_fast.outer.fit import FitResult, fit_dish
from spd_fast.outer.history import OuterEpoch
from spd_fast.recipes.settings import Recipe
from spd_fast.truth import table as tables
from spd_fast.truth.table import TruthTable, write_truth

COMMAND = [sys.executable, "-m", "spd_fast"]
PROJECT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return small.truth_file(tmp_path)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return small.recipe_file(tmp_path)


def succeed(*arguments: object) -> str:
    """Run what must end with exit code 0; return all that it prints, results and remarks."""
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return str(result.output)


def fail(*arguments: object) -> str:
    """Run what must end with exit code 2 and one line that says why; return the line."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    *_, last = result.stderr.splitlines()
    assert last.startswith("error: ")
    assert result.stderr.count("error: ") == 1
    return str(last)


# ---- help


def test_help_teaches_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from spd_fast.cli.apps import app\n"
        "try: app(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'scipy', 'numba', 'matplotlib', 'jinja2', 'spd_fast._core'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert "heavy: []" in done.stdout
    assert "spd-fast run --recipe demo" in done.stdout
    assert "--resume" in done.stdout


def test_version() -> None:
    assert succeed("--version") == f"spd-fast {__version__}\n"


def test_info() -> None:
    shown = succeed("info")
    for name in ("version", "instruction set", "compiler", "threads", "truth"):
        assert re.search(rf"^{name} +\S", shown, re.MULTILINE)


def test_recipes() -> None:
    listed = succeed("recipes")
    assert [name for name in recipes.names() if name not in listed] == []
    shown = succeed("recipes", "cassimon_c")
    assert "inner.epochs = 100" in shown
    assert "inner.optimizer.lr = 5e-05" in shown
    assert Recipe.from_json(succeed("recipes", "cassimon_c", "--json")) == recipes.get("cassimon_c")
    assert "'nope' is neither a recipe nor a file" in fail("recipes", "nope")


# ---- run


def test_run(tmp_path: Path, truth: Path, recipe: Path) -> None:
    """From recipe and truth to report; then every way to start over what is there."""
    folder = tmp_path / "out" / "run"
    shown = succeed("run", "--recipe", recipe, "--truth", truth, "--out", folder, "--threads", 1)
    assert "outer epoch 6/6  loss " in shown
    assert "mean Kendall tau" in shown
    assert "not an evaluation on test cells" in shown
    for name in ("recipe.json", "metrics.jsonl", "dish.npz", "report.html", "run.json"):
        assert (folder / name).is_file()
    assert len(runs.read(folder).records()) == 6
    assert runs.read(folder).recipe == small.RECIPE
    assert "test accuracy after 4 epochs" in runs.read(folder).about["truth"]

    assert "holds a finished run" in fail("run", "--recipe", recipe, "--truth", truth, "--out", folder)
    dish = (folder / "dish.npz").read_bytes()
    again = succeed("run", "--resume", "--out", folder)
    assert "this run is finished: nothing is left to learn" in again
    assert "outer epoch " not in again
    assert "report in" in again
    assert (folder / "dish.npz").read_bytes() == dish

    (folder / "report.html").unlink()
    assert "report in" in succeed("report", folder)
    assert (folder / "report.html").is_file()


def test_run_with_settings_and_default_folder(
    tmp_path: Path, truth: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    succeed(
        "run", "--recipe", recipe, "--truth", truth, "--seed", 5,
        "--set", "outer.epochs=2", "--set", "outer.loss=pearson", "--set", 'motif={"stem_channels": 7}',
    )  # fmt: skip
    made = runs.read(tmp_path / "runs" / "small-seed5").recipe
    assert (made.outer.epochs, made.outer.loss, made.motif.stem_channels, made.seed) == (2, "pearson", 7, 5)


def test_run_with_validation_cells(tmp_path: Path, truth: Path) -> None:
    recipe = tmp_path / "learning.json"
    recipe.write_text(small.LEARNING.to_json())
    shown = succeed("run", "--recipe", recipe, "--truth", truth, "--out", tmp_path / "run", "--threads", 1)
    assert "10 of 10 cells, 4 of them validation cells" in shown
    assert re.search(r"outer epoch 6/6  loss .* validation tau [+-]\d\.\d\d", shown)
    last = r"Kendall tau on 4 validation cells: \S+ before learning, \S+ with the dish that is kept, after [0246] outer epochs"
    assert re.search(last + "; the dish was chosen by this tau, so tau is optimistic", shown)


def test_run_on_losses(tmp_path: Path, truth: Path, recipe: Path) -> None:
    """Losses enter turned, cells whose loss is not finite stay away; a truth without losses is refused."""
    how = ("--recipe", recipe, "--set", "outer.truth=loss", "--set", "outer.epochs=1")
    assert 'outer.truth is "loss" and the truth holds none' in fail(
        "run", *how, "--truth", truth, "--out", tmp_path / "a"
    )
    cells, accuracy = small.pool()
    loss = np.linspace(0.1, 1, len(cells))
    loss[3] = np.nan
    arrays = {"test_accuracy": accuracy.reshape(-1, 1, 1), "test_loss": loss.reshape(-1, 1, 1)}
    write_truth(tmp_path / "l.npz", cells=cells, budgets=[4], seeds=[0], arrays=arrays, provenance={})
    shown = succeed("run", *how, "--truth", tmp_path / "l.npz", "--out", tmp_path / "b")
    assert "9 of 9 cells" in shown
    record = OuterEpoch.from_json(runs.read(tmp_path / "b").records()[0])
    by_hash = {cell.module_hash: -value for cell, value in zip(cells, loss, strict=True)}
    assert record.truth == pytest.approx([by_hash[name] for name in record.cells], abs=1e-7)


def test_resume_with_another_recipe(tmp_path: Path, truth: Path, recipe: Path) -> None:
    folder = tmp_path / "run"
    table = TruthTable.load(truth)
    fit_dish(table.cells, table.accuracy, small.RECIPE, run=folder)
    assert "report in" in succeed("run", "--resume", "--truth", truth, "--recipe", recipe, "--out", folder)
    for extra in (["--seed", 9], ["--recipe", recipe, "--seed", 9], ["--set", "seed=9"]):
        assert "was begun with another recipe (seed differ)" in fail("run", "--resume", "--out", folder, *extra)
    runs.resume(folder).close()  # the lock was given back


def wait_for_epochs(process: Process, folder: Path, n: int) -> None:
    metrics = folder / "metrics.jsonl"
    assert process.reaches(lambda: metrics.exists() and metrics.read_bytes().count(b'"epoch"') >= n), process.err


LONG = {"inner__epochs": 800, "outer__epochs": 5}  # about a tenth of a second an epoch


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """A run that nothing interrupted."""
    long = small.RECIPE.replace({name.replace("__", "."): value for name, value in LONG.items()})
    table = TruthTable.load(small.truth_file(tmp_path_factory.mktemp("truth")))
    return fit_dish(table.cells, table.accuracy, long)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_resumed(how: signal.Signals, whole: FitResult, tmp_path: Path, truth: Path) -> None:
    """A run ended from outside and resumed leaves the very bits of one that was left alone."""
    recipe = small.recipe_file(tmp_path, **LONG)
    folder = tmp_path / "my run"
    with started([*COMMAND, "run", "--recipe", recipe, "--truth", truth, "--out", folder], env=ENVIRONMENT) as process:
        wait_for_epochs(process, folder, 2)
        time.sleep(0.03)  # into the next epoch's training
        process.send(how)
        sent = time.monotonic()
        process.reaches(lambda: process.err.endswith("\n"))
        took = time.monotonic() - sent
        code, complaint = process.wait(), process.err
    if how == signal.SIGINT:
        assert code == 130
        assert took < 1
        assert complaint.splitlines()[-1].startswith("stopped;")
        assert complaint.endswith(f"spd-fast run --resume --out '{folder}'\n")
    else:
        assert code == -how
    assert not (folder / "dish.npz").exists()
    assert 2 <= (folder / "metrics.jsonl").read_bytes().count(b'"epoch"') < 5

    succeed("run", "--resume", "--out", folder)
    records = [OuterEpoch.from_json(record) for record in runs.read(folder).records()]
    assert [replace(step, seconds=0, core_seconds=0) for step in records] == [
        replace(step, seconds=0, core_seconds=0) for step in whole.history
    ]
    assert np.array_equal(Dish.load(folder / "dish.npz").images, whole.dish.images)


def test_two_processes_one_folder(tmp_path: Path, truth: Path) -> None:
    recipe = small.recipe_file(tmp_path, **LONG)
    folder = tmp_path / "run"
    with started([*COMMAND, "run", "--recipe", recipe, "--truth", truth, "--out", folder], env=ENVIRONMENT) as process:
        wait_for_epochs(process, folder, 1)
        assert "is being written by another process" in fail("run", "--resume", "--out", folder)


def test_mistakes_of_run(tmp_path: Path, truth: Path, recipe: Path) -> None:
    out = ["--out", tmp_path / "run"]
    assert "--recipe is missing" in fail("run")
    assert "--recipe is missing" in fail("run", "--resume")
    assert "'nope' is neither a recipe nor a file" in fail("run", "--recipe", "nope", *out)
    assert "inner.epochs is 'many': input should be a valid integer" in fail(
        "run", "--recipe", recipe, "--set", "inner.epochs=many", *out
    )
    assert "inner.epoch is not a setting" in fail("run", "--recipe", recipe, "--set", "inner.epoch=3", *out)
    assert "--set is 'inner.epochs', expected NAME=VALUE" in fail(
        "run", "--recipe", recipe, "--set", "inner.epochs", *out
    )
    assert "does not exist" in fail("run", "--recipe", recipe, "--truth", tmp_path / "none.npz", *out)
    assert "is not an .npz file" in fail("run", "--recipe", recipe, "--truth", recipe, *out)
    assert "does not exist" in fail("run", "--resume", *out)
    assert "10 cells were given, expected at least 11" in fail(
        "run", "--recipe", recipe, "--truth", truth, "--set", "outer.cells=11", "--out", tmp_path / "few"
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    assert "is not a run folder and not empty (thesis.tex)" in fail(
        "run", "--recipe", recipe, "--truth", truth, "--out", tmp_path / "full"
    )
    assert "is not a run folder: it has no run.json" in fail("run", "--resume", "--out", tmp_path / "full")
    assert "a file is in its way" in fail("run", "--recipe", recipe, "--truth", truth, "--out", truth / "run")
    assert "run folder /proc/spd_fast cannot be created" in fail(
        "run", "--recipe", recipe, "--truth", truth, "--out", "/proc/spd_fast"
    )
    assert not (tmp_path / "run").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "small.json", "truth.npz"]


def test_cell_that_does_not_fit_the_motif(tmp_path: Path, truth: Path, recipe: Path) -> None:
    assert "use more stem channels" in fail(
        "run", "--recipe", recipe, "--truth", truth, "--set", "motif.stem_channels=1", "--out", tmp_path / "run"
    )
    assert not (tmp_path / "run").exists()


def test_debug_shows_the_traceback() -> None:
    result = call("run", "--debug")
    assert isinstance(result.exception, ValueError)


def test_usage_errors() -> None:
    for arguments in (["run", "--threads", 0], ["run", "--colour"], ["dance"], ["report"]):
        assert call(*arguments).exit_code == 2


def test_no_truth_in_the_package(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every installation that runs tests has its data, so that another file's name stands for one that has not."""
    monkeypatch.setitem(tables.EMBEDDED, Cell, "none.npz")
    assert "has no truth of its own" in fail("run", "--recipe", recipe, "--out", tmp_path / "run")
    assert "none in this installation" in succeed("info")


def test_interruption_of_what_keeps_no_run(tmp_path: Path) -> None:
    """While it waits for a truth that does not come: a pipe that is open and says nothing."""
    os.mkfifo(tmp_path / "truth.npz")
    ours: list[int] = []

    def is_read() -> bool:
        with suppress(OSError):  # nobody has opened it to read
            ours.append(os.open(tmp_path / "truth.npz", os.O_WRONLY | os.O_NONBLOCK))
        return bool(ours)

    with started([*COMMAND, "truth", "show", tmp_path / "truth.npz"], env=ENVIRONMENT) as process:
        assert process.reaches(is_read), process.err
        process.send(signal.SIGINT)
        assert process.wait() == 130
        assert process.err == ""
    os.close(ours[0])


# ---- train


def test_train_a_sample(tmp_path: Path, truth: Path, recipe: Path) -> None:
    out = tmp_path / "scores.csv"
    shown = succeed("train", "--sample", 3, "--truth", truth, "--recipe", recipe, "--out", out)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    table = TruthTable.load(truth)
    assert [row["cell"] for row in rows] == list(table.sample(3, small.RECIPE.seed).hashes)
    assert [float(row["truth"]) for row in rows] == table.sample(3, small.RECIPE.seed).accuracy.tolist()
    assert all(row["cell"][:12] in shown for row in rows)
    assert float(rows[0]["core_seconds"]) > 0


def test_train_cells_of_a_file_on_a_dish(tmp_path: Path, recipe: Path) -> None:
    cells, _ = small.pool()
    (tmp_path / "cells.json").write_text(json.dumps([cell.to_json() for cell in cells[:2]]))
    Dish.random(per_class=3, classes=5, image_size=6, image_channels=1).save(tmp_path / "dish.npz")
    out = tmp_path / "scores.npz"
    succeed(
        "train", "--cells", tmp_path / "cells.json", "--dish", tmp_path / "dish.npz", "--recipe", recipe, "--out", out
    )
    with np.load(out) as arrays:
        assert arrays["cell"].tolist() == [cell.module_hash for cell in cells[:2]]
        assert arrays["curve_loss"].shape == (2, small.RECIPE.inner.epochs)
        assert arrays["accuracy"].shape == (2,)


def test_train_by_hash(truth: Path, recipe: Path) -> None:
    wanted = TruthTable.load(truth).hashes[4]
    assert wanted[:12] in succeed("train", "--hash", wanted[:9], "--truth", truth, "--recipe", recipe)
    assert "the hash zz fits 0 cells of the truth" in fail("train", "--hash", "zz", "--truth", truth)


def test_mistakes_of_train(tmp_path: Path, truth: Path, recipe: Path) -> None:
    assert "expected exactly one of --cells FILE" in fail("train")
    assert "expected exactly one of --cells FILE" in fail("train", "--sample", 2, "--hash", "a")
    assert "expected a name ending in .csv or .npz" in fail("train", "--sample", 2, "--out", "x.txt")
    assert "no does not exist; make it first" in fail("train", "--sample", 2, "--out", tmp_path / "no" / "x.csv")
    assert "n is 11, expected 0 to 10" in fail("train", "--sample", 11, "--truth", truth)
    assert "none.json does not exist" in fail("train", "--cells", tmp_path / "none.json")
    (tmp_path / "cells.json").write_text("{}")
    assert "holds no list, expected a list of objects with a cell each" in fail(
        "train", "--cells", tmp_path / "cells.json"
    )
    (tmp_path / "cells.json").write_text("[]")
    assert "has no rows, expected at least one cell" in fail("train", "--cells", tmp_path / "cells.json")
    (tmp_path / "cells.json").write_text("{")
    assert "is not JSON: Expecting property name" in fail("train", "--cells", tmp_path / "cells.json")
    (tmp_path / "cells.json").write_text('[{"matrix": [[0, 1], [0, 0]], "ops": ["input", "softmax"]}]')
    assert "vertex 1 has op 'softmax'" in fail("train", "--cells", tmp_path / "cells.json")
    assert "dish file" in fail("train", "--sample", 2, "--truth", truth, "--dish", tmp_path / "none.npz")


# ---- truth and report


def test_truth_show(truth: Path) -> None:
    shown = succeed("truth", "show", truth, "--best", 2, "--draw")
    table = TruthTable.load(truth)
    best = int(np.argmax(table.accuracy))
    assert "10 cells: test accuracy after 4 epochs" in shown
    assert table.hashes[best] in shown
    assert str(table.cells[best]) in shown


def test_truth_build(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "images.npz", images=rng.integers(0, 256, (60, 8, 8)).astype(np.uint8), labels=np.arange(60) % 3
    )
    build = [
        "truth", "build", "--images", tmp_path / "images.npz", "--out", tmp_path / "new.npz", "--cells", 2, "--stacks", 1,
        "--stem-channels", 6, "--budgets", "1,2", "--seeds", "0", "--image-size", 8, "--n-train", 30, "--n-valid", 10,
        "--n-test", 20, "--batch-size", 10,
    ]  # fmt: skip
    succeed(*build)
    table = TruthTable.load(tmp_path / "new.npz")
    assert (len(table), table.budgets, table.seeds) == (2, (1, 2), (0,))
    before = (tmp_path / "new.npz").read_bytes()
    assert "written to" in succeed(*build), "asked for again, as after a kill, it is read"
    assert "exists already" in fail(*build, "--cells-seed", 1)
    assert (tmp_path / "new.npz").read_bytes() == before
    assert "--budgets is '1;2', expected whole numbers" in fail(*build, "--budgets", "1;2")


def test_truth_of_slopes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "images.npz", images=rng.integers(0, 256, (60, 8, 8)).astype(np.uint8), labels=np.arange(60) % 3
    )
    shown = succeed(
        "truth", "slopes", "--images", tmp_path / "images.npz", "--out", tmp_path / "new.npz", "--slopes", 4, "--hidden", 5,
        "--epochs", 2, "--seeds", "0", "--n-train", 30, "--n-valid", 10, "--n-test", 20, "--batch-size", 10,
    )  # fmt: skip
    assert "4 cells: test accuracy after 2 epochs, 1 seed" in shown
    assert TruthTable.load(tmp_path / "new.npz").cells.slope == pytest.approx(np.linspace(0.01, 2.01, 4))
    listed = succeed("truth", "show", tmp_path / "new.npz", "--best", 4)
    assert "slope 0.6767" in listed
    assert "100 cells" in succeed("truth", "show", "--slopes")
    assert "leave out the file" in fail("truth", "show", "--slopes", tmp_path / "new.npz")


# ---- search


def test_dish_search(tmp_path: Path) -> None:
    search = [
        "dish-search", "--max-labelled", 6, "--start", 4, "--out", tmp_path / "search", "--threads", 1,
        "--set", "outer.epochs=2", "--set", "inner.epochs=5",
    ]  # fmt: skip
    shown = succeed(*search)
    assert "100 candidates, 6 labelled" in shown
    assert len(re.findall("slope [0-9]", shown)) == 7
    assert re.search(r"best: slope [0-9.]+, 0\.[0-9]+, number \d+ of the whole truth", shown)
    again = succeed(*search)  # nothing is left to do
    assert again.splitlines()[-8:] == shown.splitlines()[-8:]
    assert "seed is 1, begun with 0): use those to continue it, or choose another folder" in fail(*search, "--seed", 1)


def test_dish_search_among_cells(tmp_path: Path, truth: Path, recipe: Path) -> None:
    shown = succeed(
        "dish-search", "--recipe", recipe, "--truth", truth, "--cells", 8, "--max-labelled", 6, "--start", 4, "--per-round", 2,
        "--out", tmp_path / "search",
    )  # fmt: skip
    assert "8 candidates, 6 labelled" in shown
    table = TruthTable.load(truth)
    assert sum(each[:12] in shown for each in table.hashes) == 6


def test_a_truth_of_others_is_refused(tmp_path: Path, truth: Path) -> None:
    line = fail("run", "--recipe", "rawal_slope", "--truth", truth, "--out", tmp_path / "r", "--set", "outer.pool=10",
                "--set", "outer.cells=10")  # fmt: skip
    assert "is Cell, expected spd_fast.Perceptron for a PerceptronShape" in line
    assert not (tmp_path / "r").exists()


def test_report_of_nothing(tmp_path: Path) -> None:
    assert "does not exist" in fail("report", tmp_path / "none")
    assert "is not a run folder" in fail("report", tmp_path)


# ---- nasbench


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A file of two cells of NAS-Bench-101."""
    values = [[1.0, 0.25, 0.5, 0.75], [2.0, 0.5, 0.625, 0.875]]
    payloads = [
        nasbench_files.payload(cell, epochs, values)
        for cell in small.pool()[0][:2]
        for epochs in (4, 108)
        for _ in range(3)
    ]
    return nasbench_files.write(tmp_path / "x.tfrecord", payloads)


def test_nasbench_from_file_to_facts(records: Path, tmp_path: Path) -> None:
    table = tmp_path / "x.npz"
    said = succeed("nasbench", "convert", records, "--out", table)
    assert "2 cells, 3 runs at each of 4, 108 epochs" in said
    assert f"written to {table}" in said
    assert "verified: checksums" in succeed("nasbench", "info", table, "--verify")
    first, second = small.pool()[0][:2]
    for digits in (5, 6):
        found = succeed("nasbench", "query", table, first.module_hash[:digits])
        assert first.module_hash[:12] in found
        assert second.module_hash[:12] not in found
    assert "the hash abc fits 0 cells of" in fail("nasbench", "query", table, "abc")
    shown = succeed("nasbench", "query", table, first.module_hash, "--draw")
    assert first.module_hash[:12] in shown
    assert "0.8750" in shown
    assert "0 input" in shown
    (tmp_path / "cells.json").write_text(json.dumps([first.to_json()]))
    half = succeed(
        "nasbench", "query", table, "--cells", tmp_path / "cells.json", "--epochs", 4, "--halfway", "--repeat", 1
    )
    assert "0.7500" in half
    drawn = succeed("nasbench", "sample", 2, "--table", table, "--out", tmp_path / "drawn.json")
    assert all(cell.module_hash[:12] in drawn for cell in small.pool()[0][:2])
    assert len(json.loads((tmp_path / "drawn.json").read_text())) == 2
    assert "2 cells: test accuracy after 108 epochs, mean of 3 seeds" in succeed("truth", "show", table)


def test_nasbench_damage(records: Path, tmp_path: Path) -> None:
    damaged = bytearray(records.read_bytes())
    damaged[40] ^= 1
    records.write_bytes(damaged)
    table = tmp_path / "x.npz"
    assert "record 0, counted from 0, at byte 0: payload of" in fail("nasbench", "convert", records, "--out", table)
    assert not table.exists()
    assert "passed_over: 1 places" in succeed("nasbench", "convert", records, "--out", table, "--skip-damaged")
    assert "no cells were given: give hashes, or --cells FILE" in fail("nasbench", "query", table)
    assert "repeat is 'best', expected 0 to 2 or 'mean'" in fail(
        "nasbench", "query", table, small.pool()[0][:2][1].module_hash, "--repeat", "best"
    )
    assert "is not an .npz file" in fail("nasbench", "info", records)


def test_nasbench_space(tmp_path: Path) -> None:
    shown = succeed("nasbench", "enumerate", "--out", tmp_path / "space.npz")
    assert "423,624 cells, 227,274 to 49,979,274 trainable parameters" in shown
    assert "294012" in shown
    with np.load(tmp_path / "space.npz") as archive:
        assert archive["module_hash"].shape == (423_624, 16)
    succeed("nasbench", "sample", 3, "--seed", 1, "--out", tmp_path / "cells.json")
    assert len(json.loads((tmp_path / "cells.json").read_text())) == 3


# ---- score

BOARD = ["--test-cells", "100", "--pool-sizes", "12", "--seeds", "1", "--folds", "0"]


def test_score_learns_dishes_and_writes_a_board(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.out, "width", 60)
    arguments = ["score", "--recipe", recipe, "--curves", recipe, *BOARD, "--out", tmp_path / "board"]
    output = succeed(*arguments, "--set", "outer.epochs=2")
    board = output[output.index("100 test cells, 1 seed\n") : output.index("The learned dish with")]
    assert max(map(len, board.splitlines())) <= 60
    assert "learned dish" in output
    assert "not measured" not in output, "goals are for those who develop spd_fast"
    for name in ("board.json", "board.csv", "board.html", "figures/agreement.svg"):
        assert (tmp_path / "board" / name).is_file(), name
    assert json.loads((tmp_path / "board" / "board.json").read_text())["settings"]["recipe"]["outer"]["epochs"] == 2
    assert "begun with other settings (recipe.outer.epochs is 6, begun with 2)" in fail(*arguments)


def test_score_of_runs(recipe: Path, tmp_path: Path) -> None:
    folders = [tmp_path / f"run{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        succeed("run", "--recipe", recipe, "--out", folder, "--seed", seed)
    board = tmp_path / "board"
    output = succeed("score", *folders, "--curves", recipe, "--test-cells", "100", "--folds", "0", "--out", board)
    assert "100 test cells, 2 seeds" in output
    rows = json.loads((board / "board.json").read_text())["rows"]
    seconds = [sum(step["seconds"] for step in runs.read(folder).records()) for folder in folders]
    learned = next(row for row in rows if row["row"] == "learned dish")
    assert learned["init_seconds"] == pytest.approx(np.mean(seconds))
    assert learned["pool_size"] == 24, "six outer epochs of four fresh cells"
    assert "are those of the runs that were given" in fail("score", *folders, "--recipe", recipe)
    other = tmp_path / "other"
    succeed("run", "--recipe", recipe, "--out", other, "--set", "inner.epochs=2")
    assert "has another recipe than" in fail("score", folders[0], other)
    (folders[1] / "dish.npz").unlink()
    assert "is not finished: continue it with spd-fast run --resume" in fail("score", *folders)


# ---- outputs of every kind


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_drawings_on_terminals_without_their_characters(encoding: str) -> None:
    command = [*COMMAND, "truth", "show", "--draw", "--best", "1"]
    done = subprocess.run(command, capture_output=True, env=ENVIRONMENT | {"PYTHONIOENCODING": encoding}, check=True)
    assert done.stderr == b""
    drawn = done.stdout.decode("ascii")
    assert "\n0 input\n|--1 conv3x3-bn-relu\n" in drawn
    assert drawn.rstrip().endswith("--5 output")
    assert "?" not in drawn


def test_names_that_are_no_text_are_printed_as_they_are(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.json"
    command = [*COMMAND, "nasbench", "sample", "1", "--table", small.truth_file(tmp_path), "--out", name]
    done = subprocess.run(command, capture_output=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 2
    assert b"it is a truth file" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(("closed", "code"), [(">&-", 0), ("2>&-", 0), (">&- 2>&-", 0), ("<&- >&- 2>&-", 0)])
def test_closed_streams(closed: str, code: int) -> None:
    """As jobs of cron have them."""
    command = f"{sys.executable} -m spd_fast --version {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stderr) == (code, b"")


def test_output_that_nobody_reads_any_more() -> None:
    command = f"{sys.executable} -m spd_fast truth show --best 1000 --draw | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, env=ENVIRONMENT, check=True)
    assert done.stdout.startswith(b"1504 cells")
    assert b"Traceback" not in done.stderr


def test_a_board_of_few_cells_is_refused_before_the_work(tmp_path: Path) -> None:
    assert "test_cells is 50, expected at least 100" in fail("score", "--test-cells", 50, "--out", tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_a_bench_writes_only_where_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "multiply-adds" in succeed("bench", "peak", "--seconds", 0.001)
    assert list(tmp_path.iterdir()) == []


def test_tables_of_nasbench_say_what_a_truth_is(truth: Path) -> None:
    assert "it is a truth file" in fail("nasbench", "info", truth)


def test_outputs_are_checked_before_the_work(tmp_path: Path) -> None:
    absent = tmp_path / "absent" / "x.npz"
    (tmp_path / "file").touch()
    for command in (
        ["nasbench", "enumerate"],
        ["nasbench", "sample", 5],
        ["truth", "build", "--images", tmp_path / "unread"],
        ["truth", "slopes", "--images", tmp_path / "unread"],
        ["nasbench", "convert", small.truth_file(tmp_path)],
    ):
        assert "absent does not exist; make it first" in fail(*command, "--out", absent)
    for command in (["bench", "peak"], ["demo"], ["score"], ["dish-search"]):
        assert "expected a folder: the file " in fail(*command, "--out", tmp_path / "file" / "folder")
