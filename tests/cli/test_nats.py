"""Cells of NATS-Bench on the command line: truths of them, training, the scoreboard."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import small
from commands import fail, succeed
from spd_fast.scoreboard.trial import trial_of_runs
from spd_fast.spaces.nats_cell import NatsColumns
from spd_fast.truth.table import TruthTable

CELLS = NatsColumns(np.unique(np.random.default_rng(2).integers(0, 5, (140, 6)), axis=0))
FULL = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
BROKEN = "|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """A truth that was imported of a table."""
    with (tmp_path / "nats.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["arch_str", "cifar10_test", "seen"])
        table.writerows([cell.text, 50 + row / 10, "yes"] for row, cell in enumerate(CELLS))
    arguments = (tmp_path / "nats.csv", "--accuracy", "cifar10_test", "--epochs", 200, "--out", tmp_path / "nats.npz")
    assert f"{len(CELLS)} cells: test accuracy after 200 epochs" in succeed("truth", "import", *arguments)
    return tmp_path / "nats.npz"


def test_a_table_becomes_a_truth(truth: Path, tmp_path: Path) -> None:
    table = TruthTable.load(truth)
    assert list(table.cells) == list(CELLS)
    assert table.accuracy == pytest.approx([0.5 + row / 1000 for row in range(len(CELLS))], abs=1e-7)
    assert table.provenance["data"].startswith("column 'cifar10_test' of")
    assert CELLS[-1].text in succeed("truth", "show", truth, "--best", 1)
    arguments = ("truth", "import", tmp_path / "nats.csv", "--epochs", 200, "--out", tmp_path / "other.npz")
    assert "no column of accuracies that is known by its name" in fail(*arguments)
    assert "--split is 'valid', expected 'test', 'validation' or 'train'" in fail(*arguments, "--split", "valid")
    assert not (tmp_path / "other.npz").exists()


def test_motifs_of_texts_files_and_truths(truth: Path, tmp_path: Path) -> None:
    recipe = small.recipe_file(tmp_path)
    (tmp_path / "cells.json").write_text(json.dumps([FULL]))
    written = []
    for how in (["--cell", FULL], ["--cells", tmp_path / "cells.json"]):
        succeed("train", *how, "--recipe", recipe, "--out", tmp_path / "out.csv")
        written.append((tmp_path / "out.csv").read_text().split(",0")[:-1])
        assert FULL in (tmp_path / "out.csv").read_text()
    assert written[0] == written[1]
    n = int(CELLS.trainable.sum())
    assert f"{n} motifs" in succeed("train", "--truth", truth, "--sample", n, "--recipe", recipe)
    assert "--hash" not in fail("train", "--cell", BROKEN, "--recipe", recipe)
    assert "there is nothing to train" in fail("train", "--cell", BROKEN, "--recipe", recipe)
    assert "expected exactly one of --cells FILE, --cell TEXT" in fail("train", "--cell", FULL, "--sample", 2)


def test_runs_and_their_trial(truth: Path, tmp_path: Path) -> None:
    """Cells that nothing leads through are in no pool and are no test cells."""
    recipe = small.recipe_file(tmp_path, outer__epochs=1, inner__epochs=1, outer__pool=12)
    succeed("run", "--recipe", recipe, "--truth", truth, "--out", tmp_path / "run")
    trial, _, _ = trial_of_runs([tmp_path / "run"], TruthTable.load(truth), test_cells=100)
    assert 4 <= len(trial.pools[0]) <= 12
    for table in (trial.test_cells, *trial.pools):
        assert table.cells.trainable.all()
    options = ("--truth", truth, "--curves", recipe, "--test-cells", 100, "--out", tmp_path / "board")
    assert "the learning curves trains 3 steps, expected at least 4" in fail("score", tmp_path / "run", *options)
    assert not (tmp_path / "board").exists()
