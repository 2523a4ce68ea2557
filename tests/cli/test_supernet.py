"""Weight sharing on the command line: a supernet is trained, and cells are scored by it."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

import small
from commands import fail, succeed
from spd_fast.supernet import RECIPE, Supernet


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a truth, and a recipe that is the default one with fewer of everything."""
    folder = tmp_path_factory.mktemp("supernet")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 12)
    images = rng.integers(0, 99, (36, 6, 6)) + 50 * labels[:, None, None]
    np.savez(folder / "images.npz", images=images.astype(np.uint8), labels=labels)
    small.truth_file(folder)
    changes = {
        "motif": {"stem_channels": 6},
        "dish.images": 30,
        "dish.classes": 3,
        "dish.valid_images": 6,
        "dish.image_size": 6,
        "inner.epochs": 4,
        "inner.batch_size": 10,
    }
    (folder / "few.json").write_text(RECIPE.replace(changes).to_json())
    return folder


def test_train_and_score(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.npz"
    common = ("--images", folder / "images.npz", "--truth", folder / "truth.npz")
    train = ("supernet", "train", *common, "--recipe", folder / "few.json", "--out", out)
    assert "12 steps on 10 cells" in succeed(*train)
    facts = json.loads(succeed(*train, "--json"))
    assert (facts["steps"], facts["weights"]) == (12, len(Supernet.load(out).weights))
    assert {path.name for path in tmp_path.iterdir()} == {"s.npz", "s.npz.command.json"}
    shown = succeed("supernet", "score", out, *common, "--sample", 7, "--out", tmp_path / "scores.csv")
    assert "the best 7 of 7 cells" in shown
    assert "Kendall's tau of the scores with the truth: " in shown
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    accuracies = [float(row["accuracy"]) for row in rows]
    assert len(rows) == 7
    assert accuracies == sorted(accuracies, reverse=True)
    many = succeed(
        "supernet", "score", out, "--images", folder / "images.npz", "--sample", 100
    )  # of the package's truth
    assert re.search(r"with the truth, 95 % interval: -?0\.\d+ \[-?0\.\d+, -?0\.\d+\]", many)
    own = json.loads(succeed("supernet", "score", out, *common, "--sample", 7, "--steps", 2, "--rate", 0.1, "--json"))
    assert {row["cell"] for row in own["cells"]} == {row["cell"] for row in rows}
    assert {row["loss"] for row in own["cells"]} != {float(row["loss"]) for row in rows}
    cells = tmp_path / "cells.json"
    cells.write_text(json.dumps([cell.to_json() for cell in small.pool()[0][:3]]))
    alone = json.loads(succeed("supernet", "score", out, "--images", folder / "images.npz", "--cells", cells, "--json"))
    assert alone["tau"] is None
    assert len(alone["cells"]) == 3
    assert "12 steps on 3 cells" in succeed(
        *train[:4], "--cells", cells, *train[6:-1], tmp_path / "of_cells.npz", "--seed", 1
    )


def test_what_does_not_fit(folder: Path, tmp_path: Path) -> None:
    images, out = folder / "images.npz", tmp_path / "s.npz"
    few = ("--recipe", folder / "few.json", "--truth", folder / "truth.npz")
    train = ("supernet", "train", "--images", images, *few, "--out", out)
    assert "does not exist" in fail("supernet", "train", "--images", tmp_path / "none.npz", *few, "--out", out)
    assert "the folder" in fail(*train[:-1], tmp_path / "nowhere" / "s.npz")
    assert "inner.epoch is not a setting (did you mean inner.epochs?)" in fail(*train, "--set", "inner.epoch=3")
    assert "expected 'shared'" in fail(*train, "--set", "inner.init=motif")
    assert "has 12 images of class 0, expected at least 22" in fail(*train, "--set", "dish.images=60")
    assert not list(tmp_path.iterdir())
    succeed(*train)
    assert "exists already: choose another name, or move it away" in fail(*train, "--seed", 4)
    score = ("supernet", "score", out, "--images", images, "--truth", folder / "truth.npz")
    assert "expected exactly one of --cells FILE" in fail(*score)
    assert "ends in '.txt', expected .csv" in fail(*score, "--sample", 2, "--out", tmp_path / "scores.txt")
    np.savez(tmp_path / "others.npz", images=np.ones((36, 6, 6)), labels=np.repeat(np.arange(3), 12))
    assert "dish is not the one that the supernet was trained on" in fail(
        *score[:3], "--images", tmp_path / "others.npz", *score[5:], "--sample", 2
    )
    assert "supernet file" in fail("supernet", "score", folder / "truth.npz", *score[3:], "--sample", 2)
