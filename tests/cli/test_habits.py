"""What all commands have in common: help, exit codes, --json, --quiet, colours, completion, tables, progress, records."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from rich.table import Table

import nasbench_files
import small
from commands import call
from spd_fast import Cell, __version__, recipes
from spd_fast.base import display
from spd_fast.bench import inner, kernels, profile, proxies, score
from spd_fast.cli import app, console
from spd_fast.cli.commands import PANELS, Result, plain
from spd_fast.cli.console import Fitted, named_progress, table_of
from spd_fast.recipes.settings import Recipe
from spd_fast.truth.table import TruthTable

COMMAND = [sys.executable, "-m", "spd_fast"]
PROJECT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}
GROUP = typer.main.get_command(app)


def commands(group: Any = GROUP, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands with their words; groups too."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


ALL = dict(commands())
LEAVES = {words: command for words, command in ALL.items() if not hasattr(command, "commands")}


# ---- help


@pytest.mark.parametrize("words", [(), *ALL], ids=" ".join)
def test_every_help_has_two_examples_that_are_understood(words: tuple[str, ...]) -> None:
    """An unknown command or option is told before the help is shown."""
    epilog = (ALL[words] if words else GROUP).epilog or ""
    examples = [line.strip() for line in epilog.splitlines() if line.strip().startswith("spd-fast ")]
    assert len(examples) >= 2
    for example in examples:
        assert len(example) <= 78, "a line of 80 columns does not hold it"
        arguments = shlex.split(example.partition(" > ")[0])[1:]
        assert tuple(arguments[: len(words)]) == words
        done = call(*arguments, "--help")
        assert done.exit_code == 0, done.output
        assert "Usage: " in done.output


@pytest.mark.parametrize("words", [(), *ALL], ids=" ".join)
def test_a_paragraph_of_the_help_breaks_where_the_terminal_does_alone(words: tuple[str, ...]) -> None:
    text = (ALL[words] if words else GROUP).help or ""
    assert text
    assert all("\n" not in paragraph for paragraph in text.split("\n\n"))


def test_commands_are_grouped_by_what_people_want() -> None:
    shown = call("--help").output
    assert [name for name in GROUP.commands if name not in {each for panel in PANELS.values() for each in panel}] == []
    places = [shown.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)
    assert "This machine" not in call("nasbench", "--help").output, "its command info is another"
    assert shown.index("│ rank ") < shown.index("│ run ") < shown.index("│ bench ")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["rnak"], "Did you mean 'rank'"),
        (["nasbench", "enumerat"], "Did you mean 'enumerate'"),
        (["train", "--sampel", "3"], "--sample"),
        (["train", "--sample", "2", "--recipe", "demoo"], "did you mean demo?"),
        (["recipes", "curve"], "did you mean curves?"),
        (["train", "--sample", "2", "--set", "inner.epoch=3"], "did you mean inner.epochs?"),
        (["train", "--sample", "2", "--set", "outer.loss=pearsn"], "did you mean pearson?"),
    ],
)
def test_typos_are_understood(arguments: list[str], meant: str) -> None:
    done = call(*arguments)
    assert done.exit_code == 2
    assert meant in " ".join(done.stderr.replace("│", " ").split())


def test_completion_in_shells() -> None:
    asked = {"_SPD_FAST_COMPLETE": "complete_bash", "COMP_WORDS": "spd-fast run --recipe cassimon_a", "COMP_CWORD": "3"}
    code = "from spd_fast.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT | asked, check=True
    )
    assert done.stdout.split() == ["cassimon_a", "cassimon_a16"]


# ---- exit codes


def test_exit_codes(tmp_path: Path) -> None:
    """130 after Ctrl-C is tested where runs are interrupted."""
    assert call("recipes").exit_code == 0
    assert call("recipes", "nope").exit_code == 2
    assert call("recipes", "--nope").exit_code == 2
    command = f"{shlex.quote(sys.executable)} -m spd_fast truth show --best 1500 --draw"
    script = f"{command} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 1, "nobody reads the output any more"


# ---- --json, --quiet, colours


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return small.truth_file(tmp_path)


CELLS = small.pool()[0][:2]
HASHES = sorted(cell.module_hash for cell in CELLS)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of two cells of NAS-Bench-101."""
    values = [[1.0, 0.25, 0.5, 0.75], [2.0, 0.5, 0.625, 0.875]]
    payloads = [nasbench_files.payload(cell, 4, values) for cell in CELLS for _ in range(3)]
    source = nasbench_files.write(tmp_path / "x.tfrecord", payloads)
    assert call("nasbench", "convert", source, "--out", tmp_path / "x.npz", "--quiet").stderr == ""
    return tmp_path / "x.npz"


def record(*arguments: object) -> Any:
    """What a command prints with --json, which must be all that is on standard output."""
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_every_command_but_none_has_quiet_json_and_debug() -> None:
    for words, command in LEAVES.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--quiet", "--debug", "--json"} <= options, words


def test_json_of_commands_that_describe(truth: Path, table: Path) -> None:
    assert record("info")["version"] == __version__
    assert record("info")["truth"]["cells"] == 1504
    assert [each["recipe"] for each in record("recipes")] == recipes.names()
    assert Recipe.from_json(json.dumps(record("recipes", "curves"))) == recipes.get("curves")
    shown = record("truth", "show", truth, "--best", 2)
    assert shown["cells"] == 10
    assert shown["best"][0]["accuracy"] == shown["accuracy"]["most"]
    assert record("nasbench", "info", table)["budgets"] == [4]
    assert record("nasbench", "query", table, HASHES[0][:8])[0]["cell"] == HASHES[0]
    assert sorted(each["cell"] for each in record("nasbench", "sample", 2, "--table", table)) == HASHES


def test_json_of_candidates_of_every_kind() -> None:
    first = record("truth", "show", "--best", 1)["best"][0]
    assert Cell(first["matrix"], first["ops"]).module_hash == first["cell"]
    best = record("truth", "show", "--slopes", "--best", 1)["best"][0]
    assert set(best) == {"slope", "accuracy"}


def test_json_of_training_and_its_record(tmp_path: Path, truth: Path) -> None:
    out = tmp_path / "scores.csv"
    how = ("train", "--sample", 2, "--truth", truth, "--recipe", small.recipe_file(tmp_path), "--seed", 7, "--out", out)
    found = record(*how)
    assert [set(cell) for cell in found["cells"]] == 2 * [
        {"cell", "parameters", "accuracy", "probability", "loss", "diverged", "core_seconds", "truth"}
    ]
    assert found["written"] == str(out)
    kept = json.loads((tmp_path / "scores.csv.command.json").read_text())
    assert kept["schema"] == "spd_fast.command/1"
    assert kept["options"]["--sample"] == 2
    assert kept["options"]["--truth"] == str(truth)
    assert kept["options"]["--set"] == []
    assert kept["recipe"]["seed"] == 7
    assert kept["machine"]["version"] == __version__
    assert kept["command"].startswith("spd-fast")
    assert kept["seconds"] > 0


def test_records_lie_in_folders_of_results(tmp_path: Path, truth: Path) -> None:
    folder = tmp_path / "run"
    found = record("run", "--recipe", small.recipe_file(tmp_path), "--truth", truth, "--out", folder)
    assert found["run"] == str(folder)
    assert found["outer_epochs"] == 6
    kept = json.loads((folder / "command.json").read_text())
    assert kept["options"]["--out"] == str(folder)
    assert Recipe.from_json(json.dumps(kept["recipe"])) == small.RECIPE


def test_quiet_leaves_results(tmp_path: Path, table: Path) -> None:
    sample = ("nasbench", "sample", 2, "--table", table, "--out", tmp_path / "a.json")
    loud, quiet = call(*sample), call(*sample, "--quiet")
    assert "written to" in loud.stderr
    assert quiet.stderr == ""
    assert quiet.stdout == loud.stdout != ""
    assert call("recipes", "nope", "--quiet").stderr.startswith("error: ")


def test_what_is_printed_as_json_is_json() -> None:
    import numpy as np

    given = {"a": np.float32("nan"), "b": np.arange(2), "c": (float("inf"), 1.5), "d": Path("x"), "e": True, "f": None}
    assert plain(given) == {"a": None, "b": [0, 1], "c": [None, 1.5], "d": "x", "e": True, "f": None}
    assert Result({}).wrote is None


def test_no_colour_where_none_is_wanted() -> None:
    code = (
        "from spd_fast.cli import app, console\n"
        "console.err.print('error: x', style='bold red')\n"
        "app(['rank', '--help'], standalone_mode=False)\n"
    )
    coloured = {key: value for key, value in ENVIRONMENT.items() if key != "NO_COLOR"} | {
        "FORCE_COLOR": "1", "TERM": "xterm-256color",
    }  # fmt: skip
    for more, has in (({}, True), ({"NO_COLOR": "1"}, False)):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=coloured | more, check=True)
        for stream in (done.stdout, done.stderr):
            assert (b"[31m" in stream or b"[1;31m" in stream or b"[36m" in stream or b"[1;36m" in stream) is has


# ---- tables


def lines_of(table: Fitted, width: int) -> list[str]:
    shown = Console(width=width, color_system=None, soft_wrap=True)
    with shown.capture() as captured:
        shown.print(table)
    return captured.get().splitlines()


HASH = "00005c142e6f48ac74fdcf73e3439874"


def test_a_table_that_is_too_wide_has_short_hashes_then_parts() -> None:
    rows = [{"cell": HASH, "number of parameters": 12_345_678, "accuracy": 0.9, "test accuracy": 0.91, "train": 0.99}]
    assert HASH in lines_of(table_of("", rows), 100)[-1]
    once = lines_of(table_of("", rows), 60)
    assert once[-1].split() == [HASH[:12], "12345678", "0.9000", "0.9100", "0.9900"]
    narrow = lines_of(table_of("", rows), 34)
    assert max(map(len, narrow)) <= 34
    assert sum(line.startswith(HASH[:12]) for line in narrow) > 1, "every part has the first column"
    for value in ("12345678", "0.9000", "0.9100", "0.9900"):
        assert sum(value in line.split() for line in narrow) == 1


@pytest.fixture(params=[80, 60])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(console.out, "width", request.param)
    return int(request.param)


BENCHES = {each.__name__.rpartition(".")[2]: each for each in (inner, kernels, profile, proxies, score)}
RECORDS = sorted(
    path for path in (PROJECT / "bench" / "results").glob("*.json") if path.name.partition("-")[0] in BENCHES
)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name.rpartition("-20")[0])
def test_tables_of_benches_fit(path: Path, width: int) -> None:
    tables = BENCHES[path.name.partition("-")[0]].tables(json.loads(path.read_text()))
    for table in tables:
        lines = lines_of(Fitted(table), width)
        assert max(map(len, lines)) <= width
        assert every_cell_is_whole(table, lines)


def every_cell_is_whole(table: Table, lines: list[str]) -> bool:
    """Whether the cells of a table stand in the lines as they are, in order of rows."""
    shown = "\n".join(lines)
    return all(str(cell) in shown for column in table.columns for cell in column.cells)


def test_tables_of_commands_fit_and_are_records_for_scripts(
    tmp_path: Path, truth: Path, table: Path, width: int
) -> None:
    recipe = small.recipe_file(tmp_path)
    drawn = TruthTable.load().sample(16, 0)
    rows = [
        json.dumps(cell.to_json() | {"accuracy": value}) + "\n"
        for cell, value in zip(drawn.cells, drawn.accuracy.tolist(), strict=True)
    ]
    (tmp_path / "cells.jsonl").write_text("".join(rows[:12]))
    (tmp_path / "others.jsonl").write_text("".join(rows[12:]))
    found = {}
    search = ["dish-search", "--max-labelled", 5, "--start", 4, "--set", "outer.epochs=1", "--set", "inner.epochs=2"]
    for command in (
        ["recipes"],
        ["train", "--sample", 2, "--truth", truth, "--recipe", recipe],
        ["nasbench", "sample", 2, "--table", table],
        ["nasbench", "query", table, HASHES[0]],
        [*search, "--out", tmp_path / "search"],
        [
            "rank",
            tmp_path / "others.jsonl",
            "--labelled",
            tmp_path / "cells.jsonl",
            "--budget",
            0,
            "--out",
            tmp_path / "a.csv",
        ],
    ):
        done = call(*command)
        assert done.exit_code == 0, done.output
        lines = done.stdout.splitlines()
        drawings = lines.index("") if command[0] == "rank" else len(lines)  # graphs and sentences, after the table
        assert max(map(len, lines[:drawings])) <= width, command
        if width == 60:
            found[command[0]] = record(*command)
    if width == 60:
        assert found["recipes"][0]["recipe"] == "demo"
        assert len(found["dish-search"]["labelled"]) == 5
        assert "slope" in found["dish-search"]["best"]
        assert [each["rank"] for each in found["rank"]["best"]] == [1, 2, 3, 4]
        assert found["rank"]["labelled"] == 12
        assert json.loads((tmp_path / "a.csv.command.json").read_text())["options"]["--budget"] == "0"


# ---- progress


def test_progress_without_a_terminal_says_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(display, "FIRST_LINE_SECONDS", 0.05)
    with named_progress("reading") as update:
        deadline = time.monotonic() + 10
        for share in range(1, 90):
            update("training", share / 100)
            time.sleep(0.01)
            if time.monotonic() > deadline or " left" in (shown := capsys.readouterr().err):
                break
    assert " %  training, 0:0" in shown
    assert " left\n" in shown
    assert "so far" not in shown.splitlines()[-1], "one clock"
    with named_progress("reading"):
        time.sleep(0.5)
    assert capsys.readouterr().err.startswith("reading, 0:0"), "long before the first report"
    with named_progress("reading") as update:
        update("training", 1.0)
        update("writing a.csv", 1.0)
        time.sleep(0.5)
    shown = capsys.readouterr().err
    assert re.match(r"writing a\.csv, 0:0\d so far\n", shown), "what comes after the last share is not finished"


def test_short_work_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with named_progress("reading") as update:
        update("reading", 0.5)
    assert capsys.readouterr().err == ""
