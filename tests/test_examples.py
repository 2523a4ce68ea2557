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
    command = [sys.executable, script, table.path, "--seconds", "20000", "--repetitions", "3", "--out", plot]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert float(said["regularised evolution: regret after 2e+04 s of training"]) == 0
    assert 0 <= float(said["random search: regret after 2e+04 s of training"]) <= 0.2
    assert plot.read_bytes().startswith(b"\x89PNG")
