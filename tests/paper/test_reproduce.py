"""The paper's runs from one call: end to end in small, stopped and continued, and every door that bad input meets."""

import _thread
import json
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from processes import size, started
from spd_fast.base.ranks import kendall_tau
from spd_fast.cli import app
from spd_fast.outer.runs import RunFolderError
from spd_fast.paper.forecast import Forecast
from spd_fast.paper.metrics import Metrics, joined
from spd_fast.paper.rates import MOST_ATTEMPTS, RATES, SEARCHED, closest_rate, search_rate, target_accuracy
from spd_fast.paper.reproduce import Plan, Progressed, origin_of, paper_truth, reproduce
from spd_fast.paper.stated import PAPER, SECONDS_PER_EPOCH
from spd_fast.report.reproduction import numbers_of, write_page
from spd_fast.spaces.cell_files import random_cells
from spd_fast.spaces.perceptron import Perceptron
from spd_fast.truth.table import TruthTable, columns_of

TINY = {"inner.epochs": 2, "inner.batch_size": 10, "dish.images": 10, "dish.image_size": 4}
PLAN = Plan(outer_epochs=2, attempt_epochs=1, timed_cells=1, changes=TINY)
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def truth() -> TruthTable:
    return paper_truth()


@pytest.fixture(scope="module")
def whole(truth: TruthTable, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    """All five runs with the search for rates, never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, reproduce(folder, truth, PLAN, threads=1)


def timeless(metrics: Metrics) -> Metrics:
    """The metrics without what is measured by a clock."""
    runs = {name: replace(run, seconds=(), core_seconds=(), about={}) for name, run in metrics.runs.items()}
    return replace(metrics, runs=runs, epoch_seconds={})


def made_up(data: str, names: list[str], budget: int = 108, n: int = 8) -> TruthTable:
    """A truth that says where its numbers come from."""
    values = np.linspace(0.1, 0.9, n).reshape(-1, 1, 1)
    return TruthTable(
        columns_of(random_cells(n, 0)), dict.fromkeys(names, values), (budget,), (0,), provenance={"data": data}
    )


# ---- the forecast and the search, by hand


def test_the_forecast_is_that_of_the_operations_left() -> None:
    forecast = Forecast()
    forecast.plan("a", "A", [10.0, 20.0, 30.0])
    forecast.plan("c", "C", [8.0])
    assert forecast.seconds_left() is None
    forecast.done("a", 0, 5.0)  # 0.5 s an operation
    assert forecast.seconds_left() == 0.5 * (20 + 30) + 0.5 * 8
    assert forecast.seconds_left("a", 0.25) == 0.5 * (15 + 30) + 0.5 * 8
    assert forecast.seconds_whole() == 5 + 0.5 * (20 + 30) + 0.5 * 8
    forecast.done("c", 0, 0.8)  # a kind of its own now
    forecast.done("c", 7, 99.0)  # there is no such piece
    assert forecast.seconds_left() == 25
    forecast.drop("a")
    assert forecast.seconds_left() == 0


@pytest.mark.parametrize("reached", range(len(RATES) + 1))
def test_the_search_finds_the_closest_rate(reached: int) -> None:
    """Whichever is the first rate that reaches the target; both neighbours are tried."""
    accuracy = {rate: 0.5 + 0.1 * (place - reached) + 0.06 for place, rate in enumerate(RATES)}
    tried: list[float] = []

    def measure(rate: float) -> float:
        tried.append(rate)
        return accuracy[rate]

    assert search_rate(0.5, measure) == closest_rate(0.5, accuracy)
    assert len(tried) <= MOST_ATTEMPTS


def test_targets_are_those_of_the_paper() -> None:
    assert {motif: target_accuracy(motif) for motif in SEARCHED} == {"A": 0.5927, "B": 0.8513, "C": (0.485 + 0.645) / 2}
    assert closest_rate(0.5, {2.0: 0.6, 1.0: 0.4}) == 1.0


def test_plans_have_the_papers_settings() -> None:
    """As the paper states them: 170 outer epochs, but 40 of the two long runs; the level changes the rate alone."""
    stated = {name: Plan("paper").recipe(name, None) for name in PAPER}
    assert {recipe.inner.optimizer.lr for recipe in stated.values()} == {5e-5}
    assert {name: recipe.outer.epochs for name, recipe in stated.items()} == {
        "cassimon_a": 40,
        "cassimon_b": 40,
        "cassimon_c": 170,
        "cassimon_a16": 170,
        "cassimon_b16": 170,
    }
    level = Plan("level").recipe("cassimon_a", 3e-4)
    assert (level.outer.epochs, level.inner.optimizer.lr) == (170, 3e-4)
    assert Plan("level").attempt("A", 1e-3).name == "cassimon_a16"
    assert Plan(only=("cassimon_b16", "cassimon_c")).motifs == ("B", "C")


@pytest.mark.parametrize(
    ("match", "arguments"),
    [
        ("settings is 'best', expected .*paper.* or .*level", {"settings": "best"}),
        ("only is 'cassimon_d', expected one of cassimon_a, ", {"only": ("cassimon_d",)}),
        ("outer_epochs is 0, expected at least 1", {"outer_epochs": 0}),
        ("seed is -1, expected at least 0", {"seed": -1}),
    ],
)
def test_bad_plans(match: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=match):
        Plan(**arguments)


# ---- truths


def test_the_origin_of_a_truth_is_told() -> None:
    assert origin_of(paper_truth()).startswith("This is not the paper's truth: 1504 cells: test accuracy after 8")
    names = ["test_accuracy", "validation_accuracy"]
    table = replace(made_up("CIFAR-10, NAS-Bench-101", names), accuracy_name="validation_accuracy")
    assert origin_of(table).startswith("This is the paper's truth, ")
    for other in (replace(table, accuracy_name="test_accuracy"), made_up("CIFAR-10, NAS-Bench-101", names, budget=4)):
        assert origin_of(other).startswith("This is not the paper's truth, though it is of NAS-Bench-101: ")


def test_the_accuracies_closest_to_the_paper_are_taken(tmp_path: Path) -> None:
    made_up("CIFAR-10, NAS-Bench-101", ["test_accuracy", "validation_accuracy"]).save(tmp_path / "truth.npz")
    assert paper_truth(tmp_path / "truth.npz").accuracy_name == "validation_accuracy"
    made_up("others", ["test_accuracy", "validation_accuracy"]).save(tmp_path / "truth.npz")
    assert paper_truth(tmp_path / "truth.npz").accuracy_name == "test_accuracy"


def test_truths_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    slopes = [Perceptron(0.1), Perceptron(0.2)]
    accuracy = {"test_accuracy": np.full((2, 1, 1), 0.5)}
    TruthTable(columns_of(slopes), accuracy, (1,), (0,)).save(tmp_path / "slopes.npz")
    with pytest.raises(ValueError, match="holds Perceptrons, expected cells of NAS-Bench-101"):
        paper_truth(tmp_path / "slopes.npz")
    with pytest.raises(ValueError, match="the truth holds 5 cells, expected at least 6"):
        reproduce(tmp_path / "out", made_up("others", ["test_accuracy"], n=5), PLAN)
    assert not (tmp_path / "out").exists()


# ---- runs


def test_a_reproduction_is_whole(whole: tuple[Path, Metrics], truth: TruthTable) -> None:
    """Five runs of two outer epochs, a rate for each motif, times, and the file that holds all this."""
    folder, metrics = whole
    assert list(metrics.runs) == list(PAPER)
    assert {len(run.tau) for run in metrics.runs.values()} == {2}
    for name, run in metrics.runs.items():
        tried = {float(rate): accuracy for rate, accuracy in metrics.attempts[run.motif].items()}
        assert run.rate == closest_rate(target_accuracy(run.motif), tried), name
        assert sorted(run.curves) == ["0", "1"]
    assert set(metrics.epoch_seconds) == {"A", "B", "C"}
    assert Metrics.load(folder / "metrics.json") == metrics
    assert metrics.origin == origin_of(truth)


def test_the_control_counts_convolutions(whole: tuple[Path, Metrics], truth: TruthTable) -> None:
    """Of the cells that each outer epoch compared, from their definitions."""
    folder, metrics = whole
    records = [json.loads(line) for line in (folder / "cassimon_c" / "metrics.jsonl").read_text().splitlines()[1:]]
    cells = {cell.module_hash: (cell, accuracy) for cell, accuracy in zip(truth.cells, truth.accuracy, strict=True)}
    expected = []
    for record in records:
        drawn = [cells[name] for name in record["cells"]]
        counts = [cell.ops.count("conv3x3-bn-relu") for cell, _ in drawn]
        expected.append(round(kendall_tau(counts, [accuracy for _, accuracy in drawn]), 6))
    assert list(metrics.runs["cassimon_c"].control_tau) == expected
    assert len({*expected}) > 1


def test_the_page_has_every_figure_and_number(whole: tuple[Path, Metrics], tmp_path: Path) -> None:
    _, metrics = whole
    page = write_page(tmp_path / "page.md", [metrics, replace(metrics, settings="paper", attempts={})])
    text = page.read_text()
    for settings in ("level", "paper"):
        for number in range(2, 8):
            link = f"figures/reproduction-{settings}-figure{number}.svg"
            assert f"({link})" in text
            assert (tmp_path / link).read_text().startswith("<svg")
    for number in numbers_of(metrics):
        if number.paper is not None:
            assert number.what in text
            assert number.form(number.paper) in text
    assert text.count("too few outer epochs to compare") == 2 * sum(map(len, PAPER.values()))
    assert "does not hold" in text  # the share of cells in which motif B is larger


def test_the_page_is_that_of_the_stored_metrics(project_dir: Path, tmp_path: Path) -> None:
    """docs/reproduction.md has no number that is not in docs/reproduction/."""
    stored = [Metrics.load(path) for path in sorted((project_dir / "docs" / "reproduction").glob("*.json"))]
    page = write_page(tmp_path / "reproduction.md", stored)
    assert page.read_text() == (project_dir / "docs" / "reproduction.md").read_text()


def test_an_explanation_stands_once_below_its_table(whole: tuple[Path, Metrics], tmp_path: Path) -> None:
    text = write_page(tmp_path / "page.md", [whole[1]]).read_text()
    assert text.count("| note 1 |") > 1
    assert text.count("1. Engine and processor differ") == 1
    assert "This page has no runs with the settings `paper`." in text


def test_the_page_begins_with_what_came_out(whole: tuple[Path, Metrics], tmp_path: Path) -> None:
    """Of motif C's five stated numbers, by hand; shorter runs are not compared."""
    run = replace(
        whole[1].runs["cassimon_c"],
        accuracy=(0.485,) * 5 + (0.7,) * 5,
        accuracy_sd=(0.1,) * 10,
        tau=(0.2,) * 10,
        control_tau=(0.4,) * 10,
        tied=(False,) * 10,
        perfect=(False,) * 10,
        loss=(0.1,) * 10,
        seconds=(1.0,) * 10,
        core_seconds=(1.0,) * 10,
    )
    runs = {**whole[1].runs, "cassimon_c": run}
    text = write_page(tmp_path / "page.md", [replace(whole[1], runs=runs)]).read_text()
    # the first accuracies and the share of perfect epochs are the paper's; tau and the last accuracies are not
    assert "Of the 5 accuracies, shares of perfect outer epochs and taus that the paper states" in text
    assert "of these runs, 2 are equal to ours" in text
    assert "motif C, 100 inner epochs, has a mean tau of +0.200 ± 0.000; that of the control is +0.400 ± 0.000." in text


def test_a_finished_reproduction_trains_nothing_again(whole: tuple[Path, Metrics], truth: TruthTable) -> None:
    folder, metrics = whole
    pieces: list[Progressed] = []
    assert reproduce(folder, truth, PLAN, threads=1, progress=pieces.append) == metrics
    assert {state.part for state in pieces} == {f"seconds of motif {motif}" for motif in "ABC"}
    assert (pieces[-1].seconds_left, pieces[-1].share) == (0, 1)


@pytest.mark.parametrize("stop", [1, 14, 19])
def test_a_stopped_reproduction_goes_on(
    whole: tuple[Path, Metrics], truth: TruthTable, tmp_path: Path, stop: int
) -> None:
    """In the search for rates, in a run and between two runs."""
    finished: list[Progressed] = []

    def stopping(state: Progressed) -> None:
        if state.finished:
            finished.append(state)
        if len(finished) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(tmp_path, truth, PLAN, threads=1, progress=stopping)
    assert not (tmp_path / "metrics.json").exists()
    assert timeless(reproduce(tmp_path, truth, PLAN, threads=1)) == timeless(whole[1])


def test_runs_are_made_one_by_one(truth: TruthTable, tmp_path: Path) -> None:
    plan = replace(PLAN, settings="paper", only=("cassimon_c",), timed_cells=0)
    assert list(reproduce(tmp_path, truth, plan, threads=1).runs) == ["cassimon_c"]
    both = reproduce(tmp_path, truth, replace(plan, only=("cassimon_b16",)), threads=1)
    assert list(both.runs) == ["cassimon_c", "cassimon_b16"]
    assert both.attempts == {}
    page = write_page(tmp_path / "page.md", [both]).read_text()
    assert "not measured" in page

    changed: list[tuple[TruthTable, Plan, str]] = [
        (truth.subset(np.arange(12)), plan, "truth is "),
        (truth, replace(plan, seed=1), "seed is 1, begun with 0"),
        (truth, replace(plan, outer_epochs=3), "outer_epochs is 3, begun with 2"),
    ]
    for table, other, match in changed:
        with pytest.raises(ValueError, match=rf"begun with other settings \({match}.*or choose another folder"):
            reproduce(tmp_path, table, other, threads=1)


def test_a_damaged_folder_says_what_to_remove(truth: TruthTable, tmp_path: Path) -> None:
    plan = replace(PLAN, settings="paper", only=("cassimon_b16",), timed_cells=1)
    first = reproduce(tmp_path, truth, plan, threads=1)
    path = tmp_path / "cassimon_b16" / "metrics.jsonl"
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"epoch":0', b'"epoch":1', 1))
    with pytest.raises(RunFolderError, match=r"damaged.*; remove .*cassimon_b16, and the same command makes it anew"):
        reproduce(tmp_path, truth, plan, threads=1)
    path.write_bytes(content)
    (tmp_path / "epoch_times.jsonl").write_text("nonsense\nlines\n")
    with pytest.raises(
        ValueError, match=r"epoch_times.jsonl is not a journal .* remove it, and the times are measured"
    ):
        reproduce(tmp_path, truth, plan, threads=1)
    (tmp_path / "epoch_times.jsonl").unlink()
    assert timeless(reproduce(tmp_path, truth, plan, threads=1)) == timeless(first)


def test_one_process_works_on_a_folder(truth: TruthTable, tmp_path: Path) -> None:
    plan = replace(PLAN, settings="paper", only=("cassimon_c",), timed_cells=0)

    def again(state: Progressed) -> None:
        reproduce(tmp_path, truth, plan, threads=1)

    with pytest.raises(BlockingIOError, match="is being written by another process"):
        reproduce(tmp_path, truth, plan, threads=1, progress=again)


# ---- stored metrics


def test_numbers_stand_beside_the_papers(whole: tuple[Path, Metrics]) -> None:
    """By hand: the share of perfect epochs, tau with and without zeros, table 1, the query time."""
    run = replace(
        whole[1].runs["cassimon_b"],
        tau=(0.0, 0.5, 0.1, 0.0),
        control_tau=(0.4, 0.2, 0.6, 0.4),
        tied=(True, False, False, True),
        perfect=(True, False, False, False),
        accuracy=(0.5, 0.7, None, 0.9),
        accuracy_sd=(0.1, 0.1, None, 0.1),
        loss=(0.1,) * 4,
        seconds=(1.0,) * 4,
        core_seconds=(2.0,) * 4,
    )
    metrics = replace(whole[1], runs={"cassimon_b": run}, epoch_seconds={"B": [1.0, 3.0]})
    ours = {(number.run, number.row, number.what.split(": ")[-1]): number for number in numbers_of(metrics)}
    found = {row: number for (name, row, _), number in ours.items() if name == "cassimon_b"}
    assert found["tau"].ours == pytest.approx(0.15)
    assert found["tau_untied"].ours == pytest.approx(0.3)
    assert (found["control"].ours, found["control"].paper) == (pytest.approx(0.4), None)
    assert found["perfect"].ours == 0.25
    assert found["loss_change"].ours is None  # a tenth of four outer epochs is none
    longer = replace(run, loss=(1.0, 0.8, *[0.5] * 16, 0.4, None, 0.3))
    numbers = numbers_of(replace(metrics, runs={"cassimon_b": longer}))
    change = next(number for number in numbers if (number.run, number.row) == ("cassimon_b", "loss_change"))
    assert (change.ours, change.error) == (pytest.approx(-0.55), pytest.approx((0.1**2 + 0.05**2) ** 0.5))
    # the paper's mean is over 170 outer epochs; its last accuracy is over as few as ours
    assert found["tau"].paper_error == pytest.approx(found["tau"].error * (4 / 170) ** 0.5)
    assert found["accuracy_last"].paper_error == found["accuracy_last"].error
    assert found["accuracy_last"].ours == pytest.approx(0.7)
    assert found["accuracy_last"].paper == 0.9943
    times = [number for number in numbers_of(metrics) if number.row == "seconds" and number.what.startswith("motif B")]
    assert [number.ours for number in times] == [1.0, 2.0, 1.0, 3.0]
    assert [number.paper for number in times] == list(SECONDS_PER_EPOCH["B"])
    dish = next(number for number in numbers_of(metrics) if number.what == "motif B: initialisation, to learn the dish")
    assert dish.ours == 8.0  # processor time
    query = next(number for number in numbers_of(metrics) if number.what == "motif B: query of a cell")
    assert (query.ours, query.paper) == (200.0, pytest.approx(347.1))


def test_damaged_metrics_are_refused(whole: tuple[Path, Metrics], tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    fields = json.loads((whole[0] / "metrics.json").read_text())
    for text, match in (
        ("{", "it is not JSON"),
        ("[]", "its schema is another one"),
        (json.dumps(fields | {"schema": "other/1"}), "its schema is another one"),
        (json.dumps(fields | {"settings": "best"}), "settings are 'best', expected one of paper, level"),
        (json.dumps(fields | {"runs": {"cassimon_a": {}}}), "it is damaged: .*run spd-fast reproduce again"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=match):
            Metrics.load(path)


def test_parts_of_several_machines_are_put_together(whole: tuple[Path, Metrics], tmp_path: Path) -> None:
    _, metrics = whole
    names = sorted(metrics.runs)
    parts = [
        replace(
            metrics,
            runs={name: metrics.runs[name] for name in chosen},
            epoch_seconds=metrics.epoch_seconds if number == 0 else {},
            attempts=metrics.attempts if number == 1 else {},
        )
        for number, chosen in enumerate((names[:2], names[2:]))
    ]
    other = replace(parts[0], settings="paper", attempts={})
    found = joined([parts[0], other, parts[1]])
    assert [each.settings for each in found] == ["level", "paper"]
    assert found[0] == metrics
    assert found[1] == other
    one, both = (write_page(tmp_path / name, each) for name, each in (("a.md", [metrics]), ("b.md", parts)))
    assert one.read_text() == both.read_text()
    with pytest.raises(ValueError, match=f"both have '{names[0]}', expected each run"):
        write_page(tmp_path / "page.md", [metrics, metrics])
    with pytest.raises(ValueError, match="different truths, expected one truth"):
        joined([parts[0], replace(parts[1], origin="another one")])
    (motif, tried), *_ = metrics.attempts.items()
    with pytest.raises(ValueError, match=f"different accuracies of the rates of motif {motif}"):
        joined([replace(parts[0], attempts={motif: dict.fromkeys(tried, 0.5)}), parts[1]])


# ---- the command

EPOCHS = 60
"""Outer epochs of the run that is stopped: more than a second, in which a signal surely arrives."""


def command(folder: Path, epochs: int) -> list[str]:
    changes = [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]
    words = ["reproduce", "--only", "cassimon_c", "--settings", "paper", "--timed-cells", "0", "--threads", "1"]
    return [*words, "--outer-epochs", str(epochs), "--out", str(folder), *changes]


# Ctrl-C may come while a folder is listed, whose iterator then has nobody who closes it.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <posix.ScandirIterator:pytest.PytestUnraisableExceptionWarning"
)
def test_the_command_goes_on_after_ctrl_c_and_after_a_kill(tmp_path: Path) -> None:
    """Ctrl-C comes while the command runs here, and the kill in a process of its own."""
    words, lines = command(tmp_path / "out", EPOCHS), tmp_path / "out" / "cassimon_c" / "metrics.jsonl"
    ended = threading.Event()

    def interrupt() -> None:
        while not ended.wait(0.001):
            if size(lines):
                _thread.interrupt_main()
                return

    watching = threading.Thread(target=interrupt)
    watching.start()
    stopped = CliRunner().invoke(app, words)
    ended.set()
    watching.join()
    assert stopped.exit_code == 130, stopped.output
    assert "stopped; continue with: spd-fast" in stopped.stderr

    before = size(lines)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}
    with started([sys.executable, "-m", "spd_fast", *words], env=environment) as process:
        assert process.reaches(lambda: size(lines) > before), process.err
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert "This is not the paper's truth: 1504 cells" in done.stderr
    found = json.loads(done.stdout)
    assert Path(found["page"]).is_file()
    assert json.loads((tmp_path / "out" / "command.json").read_text())["rates"] == {"cassimon_c": 5e-5}
    plan = Plan("paper", ("cassimon_c",), EPOCHS, 5, 0, 0, TINY)
    never = reproduce(tmp_path / "whole", paper_truth(), plan, threads=1)
    assert timeless(Metrics.load(tmp_path / "out" / "metrics.json")) == timeless(never)
    taus = {each["number"]: each["here"] for each in found["numbers"]}
    assert taus["motif C, 100 inner epochs: mean Kendall's tau, with zeros"] == pytest.approx(
        np.mean(never.runs["cassimon_c"].tau)
    )


def test_the_command_draws_from_stored_metrics(whole: tuple[Path, Metrics], tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    whole[1].save(tmp_path / "page" / "level.json")
    done = CliRunner().invoke(app, ["reproduce", "--draw", str(tmp_path / "page.md")])
    assert done.exit_code == 0, done.output
    assert "from 1 files of metrics" in done.stderr
    assert "### The search for rates" in (tmp_path / "page.md").read_text()
    for wrong, match in (
        (["--draw", str(tmp_path / "page")], "expected the name of a page that ends in .md"),
        (["--settings", "best"], "settings is 'best'"),
        (["--truth", str(tmp_path / "none.npz")], "none.npz"),
        (["--set", "inner.lr=1"], "inner.lr"),
    ):
        failed = CliRunner().invoke(app, ["reproduce", "--out", str(tmp_path / "out"), *wrong])
        assert failed.exit_code == 2, failed.output
        assert match in failed.stderr
        assert failed.stderr.count("\n") == 1
