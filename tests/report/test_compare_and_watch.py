"""Several runs on one page, and running work looked at from outside."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import small
from pages import outline, reads_without_scripts, text_of
from spd_fast.base.files import is_locked, lock_file, release
from spd_fast.base.stores import Journal, Measurements
from spd_fast.cli import app
from spd_fast.outer import runs
from spd_fast.outer.dish_search import LABELLED, dish_search
from spd_fast.outer.fit import fit_dish
from spd_fast.outer.history import OuterEpoch
from spd_fast.paper.reproduce import Plan, Progressed, paper_truth, reproduce
from spd_fast.predictors.spd import MEASURED as FIT
from spd_fast.ranking.measuring import SCHEMA
from spd_fast.ranking.querying import SCHEMA as QUERY
from spd_fast.recipes import get
from spd_fast.report.compare import compare
from spd_fast.report.watch import look
from spd_fast.spaces.perceptron import Perceptron
from spd_fast.truth.journal import JOURNAL, journal_path


def test_runs_compared(tmp_path: Path) -> None:
    other = small.RECIPE.replace({"seed": 8, "outer.epochs": 2})
    fits = {
        name: fit_dish(*small.pool(), recipe, run=tmp_path / name)
        for name, recipe in {"a": small.RECIPE, "b": other}.items()
    }
    html = compare(
        [tmp_path / "a", tmp_path / "b"], tmp_path / "c.html", command="spd-fast report", version="1"
    ).read_text()
    reads_without_scripts(html)
    assert outline(html)[0] == (1, "2 runs compared")
    settings = html[html.index("Settings that differ") : html.index(">Results<")]
    rows = re.findall(r'<th scope="row"[^>]*>([^<]*)</th>', settings)
    assert set(rows) == {"seed", "outer.epochs"}
    means = {name: sum(step.kendall_tau for step in fit.history) / len(fit.history) for name, fit in fits.items()}
    assert f"{max(means, key=lambda name: means[name])} has the largest tau" in text_of(html)
    for mean in means.values():
        assert f"{mean:+.3f} \u00b1" in text_of(html)
    with pytest.raises(ValueError, match="is named twice, expected different runs"):
        compare([tmp_path / "a", tmp_path / "a"], tmp_path / "c.html", command="", version="")


def test_a_run_is_watched(tmp_path: Path) -> None:
    """While it runs, when it was stopped, and when it is finished; no byte of it changes."""
    seen = []

    def progress(epoch: int, fraction: float, record: OuterEpoch | None) -> None:
        if record is not None:
            before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
            seen.append(look(tmp_path / "run"))
            assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_dish(*small.pool(), small.RECIPE, run=tmp_path / "run", progress=progress)
    assert all(state.running and state.total == 6 and not state.ended for state in seen)
    stopped = look(tmp_path / "run")
    assert not stopped.running
    assert stopped.ended == f"stopped; continue with: spd-fast run --resume --out {tmp_path / 'run'}"
    with runs.resume(tmp_path / "run") as run:
        fit_dish(*small.pool(), small.RECIPE, run=run)
    state = look(tmp_path / "run")
    assert (state.done, state.ended, dict(state.facts).keys()) == (
        6,
        "finished",
        {"outer loss": 0, "tau": 0, "mean tau": 0, "time": 0}.keys(),
    )


def test_a_ranking_is_watched(tmp_path: Path) -> None:
    from spd_fast import rank

    rank(small.pool()[0][:3], measured=tmp_path / "ranked.csv.measured")
    state = look(tmp_path / "ranked.csv")
    assert (state.done, state.total, state.running) == (24, 24, False)
    assert state.ended == "all motifs are trained"
    assert state.facts[0] == ("motif 1 of each cell", "3 cells")
    with Journal(tmp_path / "ranked.csv.measured", SCHEMA, remedy=""):
        assert look(tmp_path / "ranked.csv").running


def test_fewer_motifs_than_before_are_watched(tmp_path: Path) -> None:
    from spd_fast import rank

    for motifs in (3, 2):
        rank(small.pool()[0][:3], measured=tmp_path / "ranked.csv.measured", motifs=motifs)
        state = look(tmp_path / "ranked.csv")
        assert (state.done, state.total, state.ended) == (3 * motifs, 3 * motifs, "all motifs are trained")


def test_a_ranking_in_parts_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spd_fast import rank

    pytest.importorskip("pyarrow", reason="parts are Parquet files")
    monkeypatch.setattr("spd_fast.ranking.parts._ROWS", 5)
    parts = tmp_path / "ranked.csv.parts"
    with monkeypatch.context() as patch:  # killed between a part and the journal: both have the same motifs
        patch.setattr("spd_fast.base.stores.Journal.keep", lambda journal, n: None)
        rank(small.pool()[0][:3], measured=parts, motifs=3)
    for name in (tmp_path / "ranked.csv", parts, parts / "_journal"):
        state = look(name)
        assert (state.done, state.total, state.ended) == (9, 9, "all motifs are trained")


def test_a_predictor_is_watched(tmp_path: Path) -> None:
    """Its fit, from learning curves and folds, and its predictions."""
    fit, predicted = tmp_path / "p.npz", tmp_path / "predicted.csv"
    identity = {"n_cells": 100, "curves": {}, "folds": 5}
    with Measurements(f"{fit}.measured", FIT, identity, remedy="") as kept:
        for start in (0, 64):
            kept.keep(f"cells from {start}", lambda: {"score": np.zeros(36)})
        kept.keep("fold 0", lambda: {"score": np.zeros(100)})
        state = look(fit)
    assert (state.done, state.total, state.running, state.facts) == (72, 100, True, (("dishes of folds", "1 of 5"),))
    with Journal(f"{predicted}.measured", QUERY, remedy="") as journal:
        journal.bind({"n_cells": 3})
        journal.append([{"accuracy": [0.5, 0.6], "std": [0.1, 0.1]}])
    state = look(predicted)
    assert (state.done, state.total, state.ended) == (2, 3, "stopped; the same command goes on from here")


def test_the_building_of_a_truth_is_watched(tmp_path: Path) -> None:
    file = tmp_path / "truth.npz"
    with Journal(journal_path(file), JOURNAL, remedy="") as journal:
        journal.bind({"n_cells": 5, "budgets": [2, 6], "seeds": [0, 1]})
        journal.append([{"cell": 0, "budget": 2, "seed": 0}, {"cell": 1, "budget": 2, "seed": 0}])
        state = look(file)
    assert (state.done, state.total, state.running) == (2, 20, True)
    assert state.facts == (("2 epochs", "2 of 10"), ("6 epochs", "0 of 10"))
    assert look(journal_path(file)).ended.startswith("stopped")


def test_a_dish_search_is_watched(tmp_path: Path) -> None:
    slopes = [Perceptron(slope) for slope in (0.01, 0.2, 0.5, 1.0, 2.0)]
    recipe = get("rawal_slope").replace({"outer.epochs": 2, "inner.epochs": 2})
    seen = []

    def progress(what: str, share: float) -> None:
        seen.append(look(tmp_path / "search"))

    accuracy = [0.1, 0.9, 0.4, 0.3, 0.2]
    dish_search(
        slopes, accuracy, recipe, max_labelled=4, start=3, folder=tmp_path / "search", threads=1, progress=progress
    )
    assert seen
    assert all(state.running and state.total is None for state in seen)
    state = look(tmp_path / "search")
    assert (state.done, state.running) == (4, False)
    labelled = [json.loads(line) for line in (tmp_path / "search" / LABELLED).read_text().splitlines()[1:]]
    best = max(each["accuracy"] for each in labelled)
    assert state.facts == (("best accuracy", f"{best:.4f}"), ("outer epochs of round-001", "2 of 2"))


def test_a_reproduction_is_watched(tmp_path: Path) -> None:
    """Of the runs that were asked for last, stopped in the second outer epoch, and finished."""
    changes = {"inner.epochs": 1, "inner.batch_size": 10, "dish.images": 10, "dish.image_size": 4}
    plan = Plan("paper", ("cassimon_c",), outer_epochs=2, timed_cells=0, changes=changes)
    seen = []

    def stopping(state: Progressed) -> None:
        seen.append(look(tmp_path))
        if (state.piece, state.finished) == (0, True):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(tmp_path, paper_truth(), plan, threads=1, progress=stopping)
    assert all(state.running and state.total == 2 for state in seen)
    stopped = look(tmp_path)
    assert (stopped.done, stopped.ended) == (1, "stopped; the same command goes on from here")
    assert stopped.facts == (("cassimon_c", "1 of 2 outer epochs"),)
    reproduce(tmp_path, paper_truth(), plan, threads=1)
    assert (look(tmp_path).done, look(tmp_path).ended) == (2, "finished")
    reproduce(tmp_path, paper_truth(), replace(plan, only=("cassimon_b16",)), threads=1)
    assert look(tmp_path).facts == (("cassimon_b16", "2 of 2 outer epochs"),)


def test_what_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist: name a run folder"):
        look(tmp_path / "nothing")
    (tmp_path / "other.csv").write_text("cell\n")
    with pytest.raises(ValueError, match="has no journal beside it, so nothing is running there"):
        look(tmp_path / "other.csv")
    with pytest.raises(runs.RunFolderError, match="is not a run folder"):
        look(tmp_path)


def test_a_lock_is_seen_from_outside(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "none")
    lock = lock_file(tmp_path / "file")
    assert is_locked(tmp_path / "file")
    release(lock)
    assert not is_locked(tmp_path / "file")


def succeed(*arguments: object) -> str:
    """The output of a command of the command line that succeeds."""
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_commands(tmp_path: Path) -> None:
    """A ranking writes its report beside its table, runs are compared, and watching ends where nothing runs."""
    cells, table = tmp_path / "cells.jsonl", tmp_path / "ranked.csv"
    cells.write_text(
        "".join(
            json.dumps({"matrix": cell.matrix.tolist(), "ops": list(cell.ops)}) + "\n" for cell in small.pool()[0][:3]
        )
    )
    assert "the report is" in succeed("rank", cells, "--out", table)
    html = (tmp_path / "ranked.html").read_text()
    assert outline(html)[0] == (1, "Ranked candidates")
    assert "24 motifs trained" in succeed("watch", table)
    for name in ("a", "b"):
        fit_dish(*small.pool(), small.RECIPE, run=tmp_path / name)
    assert "2 runs compared in" in succeed("report", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c.html")
    assert "All settings are the same." in (tmp_path / "c.html").read_text()
    assert succeed("watch", tmp_path / "a").rstrip().endswith("; finished")
