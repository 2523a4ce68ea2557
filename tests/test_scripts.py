"""The scripts in bench/ start and say what they promise, on settings so small that their figures mean nothing."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from processes import size, started
from spd_fast.nasbench101 import Table
from spd_fast.nasbench101 import open as open_table
from spd_fast.recipes import get
from spd_fast.truth.table import TruthTable

TINY = {"dish.images": 20, "dish.image_size": 4, "inner.batch_size": 10, "inner.epochs": 3}


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The truth that ships, as a file."""
    path = tmp_path_factory.mktemp("truth") / "truth.npz"
    TruthTable.load().save(path)
    return path


def said(project_dir: Path, script: str, *arguments: object) -> str:
    """Run a script of bench/; return what it prints."""
    command = [sys.executable, str(project_dir / "bench" / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_makespan(project_dir: Path, truth: Path) -> None:
    lines = said(project_dir, "makespan.py", truth, "--draws", 2).splitlines()
    assert len(lines) == 10
    for line in lines[1:]:
        longest, given = map(float, re.findall(r"0\.\d\d|1\.00", line))
        assert 0 < given <= longest + 0.05 <= 1.05


def test_ablation(project_dir: Path, truth: Path, tmp_path: Path) -> None:
    changes = {"inner.replicates": 1, "outer.replicates": None, "outer.epochs": 1, "outer.check_every": 1}
    tables = ["changes", "sweep", "learning", "step_weights"]
    settings = ["--cells", 210, "--seeds", 1, "--rows", 1, "--figure", tmp_path / "learning.png"]
    text = said(
        project_dir, "ablation.py", truth, "--table", *tables, *settings, "--replace", json.dumps(TINY | changes)
    )
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [len(row) for row in rows] == [3] * 2 + [5] * 2 + [7] * 2 + [2] * 5
    for row in (rows[1], rows[3]):
        assert re.fullmatch(r"-?0\.\d{3} \[-?0\.\d{3}, -?0\.\d{3}\]", row[1])
    assert "equal step weights: " in text
    assert (tmp_path / "learning.png").read_bytes().startswith(b"\x89PNG")


def test_reference_losses(project_dir: Path) -> None:
    changes = TINY | {"inner.replicates": 2, "inner.split_images": False, "dish.images": 20}
    found = json.loads(said(project_dir, "reference_losses.py", "--cells", 30, "--replace", json.dumps(changes)))
    assert [len(row) for row in found] == [13] * 3
    assert get("curves").replace({**changes, "outer.reference_losses": found}).outer.reference_losses is not None


def test_rawal(project_dir: Path, tmp_path: Path) -> None:
    changes = json.dumps({"outer.epochs": 1, "inner.epochs": 2})
    text = said(project_dir, "rawal.py", "--seeds", 1, "--searches", 1, "--out", tmp_path, "--replace", changes)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [len(row) for row in rows] == [6] + [7] * 6
    assert [line.partition(":")[0] for line in text.splitlines()[-3:]] == [f"one of the best {k}" for k in (1, 3, 5)]
    assert len(json.loads((tmp_path / "rawal.json").read_text())) == 7


LOSSES = [
    "--motifs",
    "C",
    "--outer-epochs",
    "6",
    "--test-cells",
    "100",
    "--threads",
    "1",
    "--replace",
    json.dumps(TINY),
]


def test_losses(project_dir: Path, tmp_path: Path) -> None:
    """Killed in its first run, the same command continues, and leaves the table of one that was left alone, but for the minutes."""

    def table(folder: Path) -> list[list[str]]:
        lines = (folder / "losses.md").read_text().splitlines()
        return [line.strip("| ").split(" | ")[:-1] for line in lines]

    one = ["--seeds", 0, "--losses", "mse_losses", *LOSSES]
    killed, alone = tmp_path / "killed", tmp_path / "alone"
    script = [sys.executable, project_dir / "bench" / "losses.py", "--out"]
    metrics = killed / "C-mse_losses-direct-seed0" / "metrics.jsonl"
    with started([*script, killed, *one]) as process:
        assert process.reaches(lambda: size(metrics) > 0), process.err
        process.send(signal.SIGKILL)
        process.wait()
    assert not (killed / "losses.md").exists()
    said(project_dir, "losses.py", "--out", killed, *one)
    text = said(project_dir, "losses.py", "--out", alone, *one)
    assert "time left" in text
    assert table(killed) == table(alone)
    rows = table(alone)
    assert [row[:3] for row in rows[2:]] == [["motif C", "MSE of losses", how] for how in ("direct", "hypergradient")]
    assert [row[3] for row in rows[2:]] == ["1 x 6"] * 2
    estimate = re.compile(r"-?\d\.\d{3} \[-?\d\.\d{3}, -?\d\.\d{3}\]")
    assert all(estimate.fullmatch(figure) for row in rows[2:] for figure in (*row[4:9], row[10]))
    assert rows[2][4] == rows[3][4]  # the dish before learning is the same


def test_losses_of_several_machines(project_dir: Path, tmp_path: Path) -> None:
    """Seeds that were learned apart have the table of those that were learned together; the same run twice is refused."""

    def learned(name: str, *seeds: int) -> Path:
        which = ["--losses", "mse", "--gradients", "direct", "--seeds", *seeds]
        said(project_dir, "losses.py", "--out", tmp_path / name, *which, *LOSSES)
        return tmp_path / name / "losses.json"

    first, second, both = learned("first", 0), learned("second", 1), learned("both", 0, 1)
    picture = ["--figure", tmp_path / "losses.svg"]
    text = said(project_dir, "losses.py", "--draw", second, first, *picture)
    assert "motif C, MSE of accuracy" in (tmp_path / "losses.svg").read_text()
    rows = [line.split(" | ")[:-1] for line in text.splitlines()]
    assert rows == [line.split(" | ")[:-1] for line in said(project_dir, "losses.py", "--draw", both).splitlines()]
    assert rows[2][3] == "2 x 6"
    # as if another loss of seed 0 came from another processor: what was scored before learning differs by its rounding, and not by more
    third = tmp_path / "third.json"
    record = json.loads(first.read_text())
    for kind in ("runs", "scores"):
        record[kind]["C-pearson_abs-direct-seed0"] = record[kind].pop("C-mse-direct-seed0")
    record["runs"]["C-pearson_abs-direct-seed0"]["loss"] = "pearson_abs"
    before = record["scores"]["C-before-probability-seed0"]
    before[:] = [score * (1 + 1e-9 * (i % 3)) for i, score in enumerate(before)]
    third.write_text(json.dumps(record))
    compared = said(project_dir, "losses.py", "--draw", first, third, "--compare").splitlines()
    assert len(compared) == 4 + 7
    assert compared[5].startswith("Tau of the controls on the test cells: 3x3 convolutions 0.")
    assert [line.split(" | ")[3:5] for line in compared[9:]] == [["none"] * 2, ["0.000 [0.000, 0.000]", "none"]]
    before.reverse()
    third.write_text(json.dumps(record))
    TruthTable.load().split(100, 0)[1].save(tmp_path / "others.npz")
    elsewhere = ["--compare", "--truth", tmp_path / "others.npz"]
    script = [sys.executable, project_dir / "bench" / "losses.py"]
    for words, error in (
        (["--draw", first, *elsewhere], "error: 100 test cells are not in this truth"),
        (["--draw", first, third], "error: two records have different scores C-before-probability-seed0"),
        (picture, "error: --figure and --compare need --draw"),
        (["--compare"], "error: --figure and --compare need --draw"),
    ):
        done = subprocess.run(list(map(str, [*script, *words])), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.split(",")[0]) == (1, error)
    command = [sys.executable, project_dir / "bench" / "losses.py", "--draw", first, both]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: two records have the run C-mse-direct-seed0, expected each run in one of them\n"


def test_losses_need_a_truth_that_has_them(project_dir: Path, tmp_path: Path) -> None:
    truth = TruthTable.load()
    bare = {name: values for name, values in truth.measurements.items() if name.endswith("accuracy")}
    replace(truth, measurements=bare).save(tmp_path / "bare.npz")
    command = [sys.executable, project_dir / "bench" / "losses.py", "--truth", tmp_path / "bare.npz", "--out"]
    done = subprocess.run([*map(str, command), str(tmp_path / "out")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    expected = "bare.npz holds no losses, which mse_losses compares: add --losses pearson_abs pearson mse\n"
    assert done.stderr.endswith(expected)
    assert not (tmp_path / "out").exists()


def test_nasbench(project_dir: Path, tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    small = ["--cells", 30, "--rounds", 1, "--queries", 50, "--no-peers", "--cores", core]
    figures = ["--figures", "convert", "open", "query"]
    said(project_dir, "nasbench.py", "--folder", tmp_path, "--out", tmp_path / "record.json", *small, *figures)
    record: dict[str, Any] = json.loads((tmp_path / "record.json").read_text())
    assert record["records"] == 90
    assert set(record["results"]) == {"convert", "open", "query", "table_bytes"}
    assert record["results"]["query"]["by_hash_seconds"]["median"] > 0
    table: Table = open_table(tmp_path / "nasbench_only108.npz")
    assert len(table) == 30


def test_record(project_dir: Path, tmp_path: Path) -> None:
    """Threads change nothing; a number that differs is told by its name, and so is one that is missing."""
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    for threads, path in ((1, one), (2, two)):
        said(project_dir, "record.py", path, "--parts", "proxies", "recipes", "--threads", threads)
    assert said(project_dir, "record.py", "--compare", one, two).endswith(" results differ\n")
    record = json.loads(two.read_text())
    record["results"]["proxies/snip/float32"] = "0" * 64 + " float64 (6,) of mean 0.0"
    del record["results"]["recipes/demo/inner/epochs"]
    two.write_text(json.dumps(record))
    command = [sys.executable, str(project_dir / "bench" / "record.py"), "--compare", str(one), str(two)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    first, second, last = done.stdout.splitlines()
    assert re.match(r"proxies/snip/float32: float64 \(6,\) of mean \S+ before, float64 \(6,\) of mean 0.0 after", first)
    assert second == "recipes/demo/inner/epochs: only in the first record"
    assert last == f"2 of {len(record['results']) + 1} results differ"


def test_rank(project_dir: Path, truth: Path, tmp_path: Path) -> None:
    small = ["--draws", 1, "--labelled", 12, "--candidates", 24, "--out", tmp_path / "rank.json"]
    text = said(project_dir, "rank.py", truth, *small)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [len(row) for row in rows] == [5] * 5 + [5] * 3
    (found,) = json.loads((tmp_path / "rank.json").read_text())["draws"]
    assert found["all"]["tau"] == found["predictor"]["tau"]
    assert found["all"]["motifs"] == 8 > found["budget"]["motifs"]
    assert len(found["intervals"]) == 16
