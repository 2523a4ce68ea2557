"""The examples run, and say what is known of what they are given."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nasbench_files as files
from spd_fast import nasbench101
from spd_fast._core import nasbench as native
from spd_fast.nasbench101 import Table
from spd_fast.truth.table import TruthTable


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """All cells of up to 5 vertices; accuracy grows with the number of 3x3 convolutions, a run takes 100 seconds."""
    space = nasbench101.enumerate_space()
    rng = np.random.default_rng(0)
    frames = []
    for row in np.flatnonzero(space.vertices <= 5):
        cell = space[int(row)]
        level = 0.5 + 0.1 * cell.op_codes.count(0)
        for _ in range(3):
            values = [100.0, 0.9, level + 0.01 * rng.random(), level]
            frames.append(files.frame(files.payload(cell, 108, [values, values]), native.crc32c))
    (tmp_path / "x.tfrecord").write_bytes(b"".join(frames))
    return nasbench101.convert(tmp_path / "x.tfrecord", tmp_path / "table.npz")


def test_search(table: Table, tmp_path: Path, project_dir: Path) -> None:
    """Three 3x3 convolutions of three are the best: evolution finds them within 200 trainings, and the plot is drawn."""
    plot = tmp_path / "regret.png"
    script = project_dir / "examples" / "search.py"
    TruthTable.from_nasbench101(table).save(tmp_path / "truth.npz")
    for file, budget, cost in ((table.path, 20_000, "seconds"), (tmp_path / "truth.npz", 200 * 108, "epochs")):
        command = [sys.executable, script, file, "--budget", str(budget), "--repetitions", "3", "--out", plot]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said = [line.split() for line in done.stdout.splitlines()]
        assert [line[:2] for line in said[:2]] == [["random", "search:"], ["regularised", "evolution:"]]
        assert all(cost in line for line in said[:2])
        assert 0 <= float(said[0][-1]) <= 0.2
        assert float(said[1][-1]) == 0
        assert plot.read_bytes().startswith(b"\x89PNG")
        plot.unlink()


def test_optuna_predictor(tmp_path: Path, project_dir: Path) -> None:
    """Thirty of the 1,504 cells that ship: the predictor's trials come nearer to the best than as many random cells."""
    pytest.importorskip("optuna", reason="Optuna is needed by its example alone")
    script = project_dir / "examples" / "optuna_predictor.py"
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    command = [sys.executable, script, "--features", "structure", "--storage", storage]
    said = [
        subprocess.run([*command, "--trials", trials], capture_output=True, text=True, check=True).stdout.splitlines()
        for trials in ("20", "40")
    ]
    for lines, trials in zip(said, (20, 40), strict=True):
        assert lines[1].startswith(f"regret of {trials} trials ")
    first, later, random = (float(line.rsplit(" ", 1)[1]) for line in (said[0][1], said[1][1], said[1][2]))
    assert later <= min(first, random)
