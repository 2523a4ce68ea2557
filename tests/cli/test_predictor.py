"""A predictor in a file: what is fitted on the command line predicts as in Python, goes on where it was stopped, and tells what it is."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from spd_fast import SPDPredictor, TruthTable
from spd_fast.cli import app
from spd_fast.predictors import readings
from spd_fast.ranking.querying import query_file

TRAINED, OTHERS = TruthTable.load().split(14, seed=0)
CANDIDATES = [*OTHERS.cells[:70], OTHERS.cells[0]]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["predictor", *map(str, arguments)])


def table(path: Path, cells: Any, **columns: Any) -> Path:
    lines = [{"mine": k, **cell.to_json()} for k, cell in enumerate(cells)]
    for name, values in columns.items():
        lines = [line | {name: float(value)} for line, value in zip(lines, values, strict=True)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


@pytest.fixture
def fitted(tmp_path: Path) -> Path:
    done = run(
        "fit",
        table(tmp_path / "trained.jsonl", TRAINED.cells, test_accuracy=TRAINED.accuracy),
        "--features",
        "structure",
        "--out",
        tmp_path / "p.npz",
    )
    assert done.exit_code == 0, done.output
    assert "has learned from 14 cells" in done.output
    return tmp_path / "p.npz"


def test_predictions_are_those_of_python_in_the_order_of_the_file(fitted: Path, tmp_path: Path) -> None:
    candidates, out = table(tmp_path / "candidates.jsonl", CANDIDATES), tmp_path / "predicted.csv"
    done = run("query", fitted, candidates, "--out", out)
    assert done.exit_code == 0, done.output
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["mine"]) for row in rows] == list(range(71))
    assert [row["cell"] for row in rows] == [cell.module_hash for cell in CANDIDATES]
    accuracy, std = (
        SPDPredictor(features=("structure",)).fit(TRAINED.cells, TRAINED.accuracy).query(CANDIDATES, return_std=True)
    )
    # pieces of 64 cells may add in another order: some eps of the normal scores, times the slope of the accuracies
    assert np.allclose([float(row["predicted_accuracy"]) for row in rows], accuracy, rtol=1e-9)
    assert np.allclose([float(row["standard_deviation"]) for row in rows], std, rtol=1e-9)


def test_a_query_that_was_stopped_goes_on(fitted: Path, tmp_path: Path) -> None:
    def stop(share: float) -> None:
        raise InterruptedError

    whole = query_file(fitted, CANDIDATES)
    with pytest.raises(InterruptedError):
        query_file(fitted, CANDIDATES, kept=tmp_path / "kept", progress=stop)
    shares: list[float] = []
    again = query_file(fitted, CANDIDATES, kept=tmp_path / "kept", progress=shares.append)
    assert shares == [1.0], "the first of two pieces was there"
    assert all(np.array_equal(one, other) for one, other in zip(again, whole, strict=True))
    with pytest.raises(ValueError, match=r"begun with other settings .*choose another name with --out"):
        query_file(fitted, CANDIDATES[:3], kept=tmp_path / "kept")


def test_a_fit_that_is_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after the first of two pieces: the same command trains the second alone, and leaves the predictor and no journal."""
    trained = table(tmp_path / "trained.jsonl", TRAINED.cells, test_accuracy=TRAINED.accuracy)
    command = ("fit", trained, "--out", tmp_path / "p.npz")
    monkeypatch.setattr(readings, "_PIECE_CELLS", 8)
    pieces: list[int] = []

    def made_up(dish: Any, recipe: Any, cells: Any, **_: Any) -> readings.MotifReadings:
        if pieces == [8]:
            pieces.append(0)
            raise KeyboardInterrupt
        pieces.append(len(cells))
        each = np.arange(float(len(cells)))
        return readings.MotifReadings(each, each[:, None], each[:, None], each)

    monkeypatch.setattr(readings, "motif_readings", made_up)
    stopped = run(*command)
    assert stopped.exit_code == 130
    assert "stopped; continue with: " in stopped.output
    assert {path.name for path in tmp_path.iterdir()} == {"trained.jsonl", "p.npz.measured"}
    assert run(*command).exit_code == 0
    assert pieces == [8, 0, 6]
    assert {path.name for path in tmp_path.iterdir()} == {"trained.jsonl", "p.npz", "p.npz.command.json"}


def test_losses_stay_losses(tmp_path: Path) -> None:
    trained = table(tmp_path / "trained.jsonl", TRAINED.cells, val_loss=1 - TRAINED.accuracy)
    settings = ["--lower-is-better", "--features", "structure", "--out", tmp_path / "p.npz"]
    assert run("fit", trained, *settings).exit_code == 0
    candidates, out = table(tmp_path / "candidates.jsonl", CANDIDATES[:5]), tmp_path / "predicted.json"
    assert run("query", tmp_path / "p.npz", candidates, "--out", out).exit_code == 0
    predicted = [row["predicted_loss"] for row in json.loads(out.read_text())]
    expected = SPDPredictor(features=("structure",)).fit(TRAINED.cells, TRAINED.accuracy - 1).query(CANDIDATES[:5])
    assert np.allclose(predicted, -expected, rtol=1e-9)
    said = run("info", tmp_path / "p.npz").output
    assert "losses" in said
    assert "val_loss" in said


def test_info(fitted: Path) -> None:
    said = " ".join(run("info", fitted).output.split())
    assert "predicts accuracies of NAS-Bench-101 cells from structure" in said
    assert "labelled cells 14, which reached" in said
    assert "column 'test_accuracy' of" in said


def test_what_cannot_be_done_is_refused(fitted: Path, tmp_path: Path) -> None:
    candidates = table(tmp_path / "candidates.jsonl", CANDIDATES[:3])
    for arguments, message in (
        (["fit", candidates], "has no column of accuracies that is known by its name"),
        (["fit", candidates, "--out", "p.txt"], "--out is p.txt, expected a name that ends in .npz"),
        (["query", candidates, candidates], "candidates.jsonl"),
        (["query", fitted, candidates, "--out", "p.txt"], "p.txt ends in '.txt', expected .csv"),
        (["info", tmp_path / "none.npz"], "does not exist"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.split())
    nats = tmp_path / "nats.json"
    nats.write_text(json.dumps([{"cell": "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"}]))
    done = run("query", fitted, nats, "--out", tmp_path / "n.csv")
    assert "expected Cell: the predictor was fitted to cells of that space" in " ".join(done.stderr.split())
