"""Ranking candidates: it predicts what the predictor predicts, goes on where it was stopped, and says how sure it is."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from spd_fast import SPDPredictor, TruthTable, rank
from spd_fast.base.errors import InvalidCellError
from spd_fast.cli import app
from spd_fast.nasbench101 import neighbours
from spd_fast.outer.start import start_dish
from spd_fast.ranking.advice import first_to_label, outside_tested
from spd_fast.ranking.measuring import ORDER
from spd_fast.ranking.rank import Ranking, neighbours_of
from spd_fast.ranking.schedule import Pace, about
from spd_fast.recipes import get
from spd_fast.scoring import score_cells
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.spaces.cell_files import random_cells
from spd_fast.spaces.nats_cell import NatsCell

TRAINED, OTHERS = TruthTable.load().split(14, seed=0)
CANDIDATES = list(OTHERS.cells[:6])
NATS = [
    NatsCell(ops)
    for ops in (
        ("nor_conv_3x3", "none", "nor_conv_3x3", "skip_connect", "none", "nor_conv_1x1"),
        ("skip_connect", "avg_pool_3x3", "none", "nor_conv_1x1", "none", "skip_connect"),
        ("none",) * 6,
    )
]


class StopError(Exception):
    """Stops a ranking."""


@pytest.fixture(scope="module")
def whole() -> Ranking:
    return rank(CANDIDATES, TRAINED.cells, TRAINED.accuracy)


def assert_same(one: Ranking, other: Ranking) -> None:
    for name in (
        "order",
        "accuracy",
        "lower",
        "upper",
        "label_free",
        "replicates",
        "known",
        "outside",
        "parameters",
        "flops",
    ):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True), name
    assert one.advice == other.advice


def test_predictions_are_the_predictor_s(whole: Ranking) -> None:
    expected = SPDPredictor().fit(TRAINED.cells, TRAINED.accuracy).query(CANDIDATES)
    assert np.array_equal(whole.accuracy, expected)
    assert np.array_equal(whole.order, np.argsort(-expected, kind="stable"))
    assert np.all(whole.lower < whole.accuracy)
    assert np.all(whole.accuracy < whole.upper)


def test_without_time_structure_alone_predicts() -> None:
    found = rank(CANDIDATES, TRAINED.cells, TRAINED.accuracy, budget=0)
    expected = SPDPredictor(features=("structure",)).fit(TRAINED.cells, TRAINED.accuracy).query(CANDIDATES)
    assert np.array_equal(found.accuracy, expected)
    assert np.isnan(found.label_free).all()
    assert any("No motif of 6 candidates was trained" in each for each in found.advice)


def test_a_stopped_ranking_goes_on_and_gives_the_same_bits(whole: Ranking, tmp_path: Path) -> None:
    told: list[float] = []

    def stop(what: str, share: float) -> None:
        told.append(share)
        if len(told) == 5:
            raise StopError

    kept = tmp_path / "kept"
    with pytest.raises(StopError):
        rank(CANDIDATES, TRAINED.cells, TRAINED.accuracy, measured=kept, progress=stop, threads=1)
    assert told == sorted(told)
    assert told[:2] == [0, 0], "cells are compared, and the first piece is not trained yet"
    assert 0 < told[2] < told[-1] < 1
    with kept.open("ab") as file:
        file.write(b'{"replicate": 3, "ro')  # the next piece was being written when the process died
    assert_same(rank(CANDIDATES, TRAINED.cells, TRAINED.accuracy, measured=kept, threads=2), whole)
    again = rank(CANDIDATES, TRAINED.cells, TRAINED.accuracy, measured=kept)
    assert again.core_seconds == 0, "nothing is measured twice"
    assert_same(again, whole)
    with pytest.raises(
        ValueError, match=r"kept was begun with other settings \(cells is .*choose another name with --out"
    ):
        rank(CANDIDATES[:3], TRAINED.cells, TRAINED.accuracy, measured=kept)


def test_what_was_a_candidate_may_be_labelled_next(tmp_path: Path) -> None:
    """The same cells, two of the candidates labelled by now: what was measured still counts, and nothing is read that is not there."""
    kept = tmp_path / "kept"

    def stop(what: str, share: float) -> None:
        if what.startswith("training motif 2 of 8"):  # some labelled cells have two motifs, the candidates one
            raise StopError

    with pytest.raises(StopError):
        rank(CANDIDATES, TRAINED.cells, TRAINED.accuracy, measured=kept, progress=stop)
    cells = [*TRAINED.cells, *CANDIDATES[:2]]
    truth = [*TRAINED.accuracy, *OTHERS.accuracy[:2]]
    found = rank([*CANDIDATES, *TRAINED.cells[:3]], cells, truth, measured=kept, budget=0)
    assert found.replicates[:7].tolist() == [1] * 6 + [2]
    assert np.isfinite(found.accuracy).all()
    assert_same(rank(CANDIDATES, cells, truth, measured=kept), rank(CANDIDATES, cells, truth))


def test_without_labels_the_speed_of_learning_ranks() -> None:
    recipe = get("curves")
    found = rank(CANDIDATES)
    scores = score_cells(start_dish(recipe), recipe, CANDIDATES)
    assert np.allclose(found.label_free, scores, rtol=1e-12)  # added in another order
    assert found.order.tolist() == np.argsort(-scores, kind="stable").tolist()
    assert found.accuracy is None
    assert "predicted_accuracy" not in found.table()
    few = rank(CANDIDATES, TRAINED.cells[:3], TRAINED.accuracy[:3], budget=0)
    assert few.accuracy is None
    assert few.labelled == 3
    assert any("3 labelled cells are few" in each and CANDIDATES[0].module_hash[:12] in each for each in few.advice)
    assert set(few.label_first) == set(CANDIDATES)


def test_fewer_motifs(tmp_path: Path) -> None:
    recipe, cells, kept = get("curves"), CANDIDATES[:3], tmp_path / "kept"
    found = rank(cells, motifs=2, measured=kept)
    scores = score_cells(start_dish(recipe), recipe, cells, replicates=ORDER[:2])
    assert np.allclose(found.label_free, scores, rtol=1e-12)
    assert found.replicates.tolist() == [2, 2, 2]
    assert any("With no labels and 2 motifs of each cell trained" in each for each in found.advice)
    assert not any("A larger budget measures the rest" in each for each in found.advice), "nothing is left"
    labelled = rank(cells, TRAINED.cells, TRAINED.accuracy, motifs=2, budget=0)
    assert not any("when we measured it" in each for each in labelled.advice), "that was with all motifs"
    # What was measured serves more motifs, and fewer again.
    more, fewer = rank(cells, motifs=3, measured=kept), rank(cells, motifs=2, measured=kept)
    assert np.array_equal(more.label_free, rank(cells, motifs=3).label_free)
    assert (fewer.core_seconds, fewer.replicates.tolist()) == (0, [2, 2, 2])
    assert np.array_equal(fewer.label_free, found.label_free)
    with pytest.raises(ValueError, match="motifs is 9, expected 1 to 8"):
        rank(cells, motifs=9)


def test_a_whole_space_without_labels_has_two_motifs_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spd_fast.nasbench101.enumerate_space", lambda: CellColumns.from_cells(CANDIDATES[:2]))
    out = tmp_path / "ranked.json"
    done = CliRunner().invoke(app, ["rank", "--all", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert [row["motifs_trained"] for row in json.loads(out.read_text())] == [2, 2]


def test_cells_that_occur_twice_are_measured_once() -> None:
    found = rank([CANDIDATES[0], *CANDIDATES, TRAINED.cells[2]], TRAINED.cells, TRAINED.accuracy, budget=0)
    assert len(found.cells) == 8
    assert found.accuracy[0] == found.accuracy[1]
    assert found.known[-1] == TRAINED.accuracy[2]
    assert np.isnan(found.known[:-1]).all()
    assert TRAINED.cells[2] not in found.best(8)
    twice = [*TRAINED.cells, TRAINED.cells[0]]
    apart = rank(twice, twice, [*TRAINED.accuracy, TRAINED.accuracy[0] + 0.02], budget=0)
    assert apart.known[0] == pytest.approx(TRAINED.accuracy[0] + 0.01), "the mean of its accuracies"


def test_cells_of_nats_bench() -> None:
    """One has no path of operations: it has no motif, and is ranked."""
    found = rank(NATS, budget=60)
    assert found.order.tolist()[-1] == 2
    assert found.table()["cell"] == [NATS[row].text for row in found.order.tolist()], "nobody knows their hashes"
    assert np.isnan(found.label_free).tolist() == [False, False, True]
    assert found.parameters[2] == 0
    assert any("of which that figure says nothing" in each for each in found.advice)
    assert (found.parameters[:2] > 1000).all()
    told: list[float] = []
    rank(NATS[2:], progress=lambda what, share: told.append(share))
    assert told[-1] == 1, "nothing to train is no division by zero"


def test_no_signal_is_no_reason_to_fail() -> None:
    found = rank(CANDIDATES, TRAINED.cells, np.full(14, 0.9), budget=0)
    assert found.accuracy is None
    said = [each for each in found.advice if "accuracies of the labelled cells are all alike" in each]
    assert len(said) == 1
    assert not any("alike" in each for each in rank(CANDIDATES, TRAINED.cells, TRAINED.accuracy, budget=0).advice)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"candidates": []}, ValueError, "no candidates were given"),
        ({"labelled": NATS}, TypeError, "accuracy is not an array, expected a number for each"),
        (
            {"labelled": NATS, "accuracy": [0.1, 0.2, 0.3]},
            ValueError,
            "expected labelled cells and candidates of one space",
        ),
        (
            {"labelled": NATS, "accuracy": [0.1]},
            ValueError,
            r"accuracy has shape \(1,\), expected \(3,\) to match labelled",
        ),
        (
            {"labelled": NATS, "accuracy": [0.1, 0.2, np.nan]},
            ValueError,
            r"accuracy\[2\] is nan, expected finite numbers",
        ),
        ({"accuracy": [0.1]}, ValueError, "accuracy is given without labelled, expected both or neither"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rank(**{"candidates": CANDIDATES, "budget": 0} | arguments)


def test_losses_are_ranked_the_other_way_round() -> None:
    losses = 1 - TRAINED.accuracy
    found = rank(CANDIDATES, TRAINED.cells, losses, lower_is_better=True, budget=0)
    expected = rank(CANDIDATES, TRAINED.cells, -losses, budget=0)
    assert np.array_equal(found.order, expected.order)
    table = found.table()
    assert np.array_equal(table["predicted_loss"], -expected.accuracy[expected.order])
    assert all(
        low < value < high
        for low, value, high in zip(table["lower_90"], table["predicted_loss"], table["upper_90"], strict=True)
    )
    assert "known_loss" in table


def test_times_are_told_in_words_and_follow_the_cost() -> None:
    assert [about(seconds) for seconds in (3, 81, 90, 599, 600, 7199, 7200, 30000)] == [
        "about 10 s",
        "about 90 s",
        "about 2 min",
        "about 10 min",
        "about 10 min",
        "about 120 min",
        "about 2 h",
        "about 8.5 h",
    ]
    pace = Pace()
    assert not pace.known
    assert pace.fitting(np.arange(1, 100), 1.0) == 32
    pace.add(cost=100, seconds=2)
    pace.add(cost=300, seconds=2)
    assert pace.time_of(1000) == 10, "4 seconds for a cost of 400"
    assert pace.fitting(np.array([40, 40, 40, 40]), 1.0) == 2, "a cost of 100 fits into a second"
    assert pace.fitting(np.array([400]), 1.0) == 1


def test_a_ranking_says_how_long_it_takes_before_it_trains() -> None:
    """One motif of each cell was timed, at most; the announcement is in seconds of the whole work, not of a motif."""
    told: list[tuple[str, float]] = []
    began = time.perf_counter()
    rank(CANDIDATES, TRAINED.cells, TRAINED.accuracy, progress=lambda *said: told.append(said), threads=1)
    took = time.perf_counter() - began
    assert [what for what, _ in told[:2]] == ["comparing structures", "training motifs of 20 cells"]
    what, share = told[2]
    found = re.fullmatch(r"training all motifs of 20 cells takes about (\d+) (s|min)", what)
    assert found is not None
    assert share < 0.2
    announced = float(found[1]) * (60 if found[2] == "min" else 1)
    assert took / 10 < announced < 10 * took + 10, "another unit would be wrong by a factor of 8 or 20"
    assert not any("left" in each for each, _ in told), "the clock is that of the display"
    assert told[-1] == ("ranking 6 candidates", 1)


def test_a_space_in_columns_builds_the_cells_that_are_measured_alone() -> None:
    given = CellColumns.from_cells(OTHERS.cells[:40])
    columns = CellColumns(given.vertices, given.edge_bits, given.op_codes)
    found = rank(columns, TRAINED.cells, TRAINED.accuracy, budget=0)
    assert_same(found, rank(list(OTHERS.cells[:40]), TRAINED.cells, TRAINED.accuracy, budget=0))
    with pytest.raises(InvalidCellError, match="row 1"):  # row 1 has no path, which only building it finds
        rank(CellColumns([2, 3], [1, 1], [65535, 65532]), budget=1)


def test_neighbours_of_the_best_come_first() -> None:
    found = neighbours_of(list(TRAINED.cells), TRAINED.accuracy, 40)
    assert len({cell.module_hash for cell in found} - {cell.module_hash for cell in TRAINED.cells}) == 40
    best = neighbours(TRAINED.cells[int(np.argmax(TRAINED.accuracy))])
    known = {cell.module_hash for cell in TRAINED.cells}
    assert found[:5] == [cell for cell in best if cell.module_hash not in known][:5]


def test_cells_outside_what_was_tested() -> None:
    labelled = np.array([[0.0, 7.0], [1.0, 7.0], [3.0, 7.0]])  # the nearest others are 1, 1 and 2 away
    candidates = np.array([[0.0, 7.0], [4.9, 7.0], [5.1, 7.0], [-1.0, 7.0], [-2.1, 7.0]])
    assert outside_tested(labelled, candidates).tolist() == [False, False, True, False, True]
    other_size = np.concatenate([candidates, [[1.0, 2.0]]])
    assert outside_tested(labelled, other_size).tolist()[-1], "a size that no labelled cell has"


def test_small_cells_lie_outside_if_all_labelled_ones_are_large() -> None:
    truth = TruthTable.load()
    pool = truth.subset(np.flatnonzero(truth.cells.vertices == 7)[:40])
    small = [Cell(["010", "001", "000"], ["input", op, "output"]) for op in ("conv3x3-bn-relu", "maxpool3x3")]
    found = rank([*small, *pool.cells[:3]], pool.cells, pool.accuracy, budget=0)
    assert found.outside.tolist() == [True, True, False, False, False]
    marked = found.table()["outside_tested"]
    assert [marked[found.order.tolist().index(row)] for row in range(5)] == found.outside.tolist()
    (said,) = [each for each in found.advice if "outside what was tested" in each]
    assert said.startswith("2 of 5 candidates")
    assert found.cells[0].module_hash[:12] in said
    assert not rank(pool.cells[:4], budget=0).outside.any(), "nothing is labelled"


def test_the_first_to_label_differ() -> None:
    spread = np.array([[0.0], [0.1], [5.0], [-5.0], [4.9]])
    assert first_to_label(spread, 3).tolist() == [1, 3, 2]
    assert len(first_to_label(spread, 9)) == 5


# ---- the command


def files(folder: Path) -> tuple[Path, Path]:
    candidates, trained = folder / "candidates.jsonl", folder / "trained.csv"
    candidates.write_text(
        "".join(json.dumps({"mine": k, **cell.to_json()}) + "\n" for k, cell in enumerate(CANDIDATES))
    )
    rows = [
        f'"{json.dumps(cell.to_json()).replace(chr(34), chr(34) * 2)}",{100 * value}'
        for cell, value in zip(TRAINED.cells, TRAINED.accuracy, strict=True)
    ]
    trained.write_text("\n".join(["cell,test accuracy", *rows]) + "\n")
    return candidates, trained


def test_the_command(tmp_path: Path) -> None:
    candidates, trained = files(tmp_path)
    out = tmp_path / "ranked.csv"
    arguments = [
        "rank",
        candidates,
        "--labelled",
        trained,
        "--accuracy",
        "test accuracy",
        "--budget",
        "0s",
        "--out",
        out,
    ]
    done = CliRunner().invoke(app, [*map(str, arguments), "--best", "2"])
    assert done.exit_code == 0, done.output
    assert "Train these next" in done.output
    assert "6 candidates ranked" in done.output
    assert "Accuracies were read from column 'test accuracy' of" in done.output
    assert "in per cent" in " ".join(done.output.split())
    header, *rows = out.read_text().splitlines()
    assert header.split(",")[:5] == ["rank", "cell", "predicted_accuracy", "lower_90", "upper_90"]
    expected = rank(CANDIDATES, TRAINED.cells, TRAINED.accuracy, budget=0)
    order = [int(row.split(",")[header.split(",").index("mine")]) for row in rows]
    assert order == expected.order.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--budget", "soon"], "--budget is 'soon', expected a time such as 90s, 10m or 2h"),
        (["--out", "ranked.txt"], "ranked.txt ends in '.txt', expected .csv"),
        (["--accuracy", "odd"], "has no column 'odd', expected one of cell, test accuracy"),
        ([], "has no column of accuracies that is known by its name"),
        (["--all"], "expected one of a file of candidates, --all and --neighbours"),
    ],
)
def test_commands_that_are_refused(
    tmp_path: Path, changes: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the output goes
    candidates, trained = files(tmp_path)
    done = CliRunner().invoke(app, ["rank", str(candidates), "--labelled", str(trained), *changes])
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


def test_the_command_ranks_neighbours(tmp_path: Path) -> None:
    _, trained = files(tmp_path)
    out = tmp_path / "ranked.json"
    arguments = ["--labelled", trained, "--accuracy", "test accuracy", "--budget", "0", "--out", out, "--best", "0"]
    done = CliRunner().invoke(app, ["rank", "--neighbours", "25", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    assert len(json.loads(out.read_text())) == 25


def test_random_cells_survive_every_format(tmp_path: Path) -> None:
    found = rank(random_cells(3, 7), budget=0)
    for name in ("t.csv", "t.tsv", "t.json", "t.jsonl"):
        found.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 100
    assert len(found.to_pandas()) == 3


def test_the_demo(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["demo", "--seconds", "0", "--out", str(tmp_path / "demo")])
    assert done.exit_code == 0, done.output
    assert "the other 1,404 as candidates" in done.output
    assert "truly among the best tenth" in done.output
    header, *rows = (tmp_path / "demo" / "ranked.csv").read_text().splitlines()
    assert header.endswith(",reached")
    assert len(rows) == 1404


def test_a_column_of_names_is_found() -> None:
    """The first one in which no value occurs twice, but not one of measurements."""
    found = rank(CANDIDATES[:4], budget=0)
    n = len(found.cells)

    def named(**columns: list[Any]) -> list[str] | None:
        return replace(found, columns=columns).own_names

    assert named() is None
    assert named(kind=["a"] * n) is None
    assert named(kind=["a"] * n, accuracy=[0.1 * k for k in range(n)], mine=list(range(n))) == list(map(str, range(n)))
    assert named(long=["x" * (41 + k) for k in range(n)]) is None
