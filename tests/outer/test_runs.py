"""Run folders: created whole or not at all, never overwritten, one writer, readable after any death."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small
from processes import files_of_at_most
from spd_fast.base.files import lock_file, sealed
from spd_fast.dish import Dish
from spd_fast.outer import runs
from spd_fast.outer.runs import RunFolderError

IDENTITY = {"truth": "0123"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with three steps."""
    path = tmp_path / "run"
    with runs.create(path, small.RECIPE, about={"truth": "made up"}) as run:
        run.restore(IDENTITY)
        for step in range(3):
            run.append({"epoch": step})
            run.save_checkpoint(step + 1, {"x": np.full(4, step)})
    return path


def test_create(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.npz",
        "metrics.jsonl",
        "recipe.json",
        "run.json",
        "run.lock",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["run"]
    run = runs.read(folder)
    assert run.recipe == small.RECIPE
    assert run.about["truth"] == "made up"
    assert run.about["schema"] == runs.SCHEMA
    assert run.records() == [{"epoch": 0}, {"epoch": 1}, {"epoch": 2}]
    assert not run.finished
    assert runs.is_run(folder)
    assert not runs.is_run(folder.parent)


def test_create_in_an_empty_folder_and_below_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    runs.create(tmp_path / "empty", small.RECIPE).close()
    runs.create(tmp_path / "a" / "b" / "c", small.RECIPE).close()
    assert runs.is_run(tmp_path / "empty")
    assert runs.is_run(tmp_path / "a" / "b" / "c")


def test_create_where_something_is(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RunFolderError, match="holds an unfinished run: continue it with --resume, or choose another --out"
    ):
        runs.create(folder, small.RECIPE)
    with runs.resume(folder) as run:
        run.save_dish(Dish(np.zeros((2, 1, 4, 4)), np.array([0, 1])))
    with pytest.raises(RunFolderError, match="holds a finished run: choose another folder"):
        runs.create(folder, small.RECIPE)
    other = tmp_path / "other"
    other.mkdir()
    for name in "dbca":
        (other / name).touch()
    with pytest.raises(RunFolderError, match=r"is not a run folder and not empty \(a, b, c, \.\.\.\)"):
        runs.create(other, small.RECIPE)
    with pytest.raises(RunFolderError, match="a file is in its way"):
        runs.create(other / "a", small.RECIPE)
    with pytest.raises(RunFolderError, match="a file is in its way"):
        runs.create(other / "a" / "run", small.RECIPE)
    assert sorted(path.name for path in other.iterdir()) == ["a", "b", "c", "d"]


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    """Half-made run folders, and files that were being written; not those of a process that lives, nor what is not ours."""
    dead, alive, filled = (tmp_path / f".run.{name}.new" for name in ("11", "12-0123abcd", "13"))
    for staged in (dead, alive, filled):
        staged.mkdir()
        (staged / "recipe.json").touch()
    (filled / "thesis.tex").touch()
    (tmp_path / ".other.11.new").mkdir()
    (tmp_path / ".run.14.new").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".search.json.15.partial").touch()
    (tmp_path / "theirs").mkdir()
    for name in (".film.15.partial", "film"):
        (tmp_path / "theirs" / name).touch()
    with pytest.raises(RunFolderError, match=r"is not a run folder and not empty \(film\)"):
        runs.create(tmp_path / "theirs", small.RECIPE)
    assert len(list((tmp_path / "theirs").iterdir())) == 2
    held = lock_file(alive / "run.lock")
    with runs.create(tmp_path / "run", small.RECIPE):
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            [alive.name, filled.name, ".other.11.new", ".run.14.new", "run", "theirs"]
        )
    assert [path.name for path in filled.iterdir()] == ["thesis.tex"]
    os.close(held)


def test_a_half_made_folder_that_is_taken_away_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process clears it between its creation and its lock: a moment that only a function in its place can meet."""
    lock, taken = runs.lock_file, []

    def late(path: Path) -> int:
        if not taken:
            taken.append(path)
            path.parent.rmdir()
        return lock(path)

    monkeypatch.setattr(runs, "lock_file", late)
    runs.create(tmp_path / "run", small.RECIPE).close()
    assert taken
    assert runs.is_run(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_create_where_nothing_can_be_written(tmp_path: Path) -> None:
    """/proc takes no folders from anybody, root included."""
    with pytest.raises(
        RunFolderError, match=r"run folder /proc/spd_fast_run cannot be created: .*choose another folder"
    ):
        runs.create("/proc/spd_fast_run", small.RECIPE)
    with files_of_at_most(9), pytest.raises(RunFolderError, match="cannot be created: file too large"):
        runs.create(tmp_path / "run", small.RECIPE)
    assert list(tmp_path.iterdir()) == []


def test_a_new_run_that_cannot_run_leaves_nothing(tmp_path: Path) -> None:
    """Bad input only, and only before the first line of metrics: what was interrupted or begun stays."""

    def begin(name: str, error: BaseException, *records: dict[str, Any]) -> bool:
        with suppress(type(error)), runs.create(tmp_path / name, small.RECIPE) as run:
            run.restore(IDENTITY)
            for record in records:
                run.append(record)
            raise error
        return (tmp_path / name).exists()

    assert not begin("refused", ValueError("4 cells were given"))
    assert begin("interrupted", KeyboardInterrupt())
    assert begin("full disk", RunFolderError("cannot be written"))
    assert begin("begun", ValueError("late"), {"epoch": 0})
    with pytest.raises(ValueError, match="other cells"), runs.resume(tmp_path / "interrupted"):
        raise ValueError("other cells")
    assert (tmp_path / "interrupted").exists()


def test_folder_that_cannot_be_read(tmp_path: Path) -> None:
    """A link to itself is what nobody can read, root included."""
    (tmp_path / "run").symlink_to("run")
    with pytest.raises(RunFolderError, match=r"run folder .*run cannot be read: too many levels of symbolic links"):
        runs.create(tmp_path / "run", small.RECIPE)


def test_one_writer(folder: Path) -> None:
    with runs.resume(folder), pytest.raises(RunFolderError, match="is being written by another process"):
        runs.resume(folder)
    runs.resume(folder).close()
    with runs.create(folder.parent / "new", small.RECIPE), pytest.raises(RunFolderError, match="another process"):
        runs.resume(folder.parent / "new")


def test_resume_what_cannot_be_written(folder: Path) -> None:
    """Its lock is a folder, which nobody can open to write, root included."""
    (folder / "run.lock").unlink()
    (folder / "run.lock").mkdir()
    with pytest.raises(RunFolderError, match="run cannot be written: is a directory"):
        runs.resume(folder)


def test_restore(folder: Path) -> None:
    """Lines beyond the checkpoint and a line cut short are dropped, from memory and from the file."""
    before = (folder / "metrics.jsonl").read_bytes()
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(json.dumps(sealed({"epoch": 3})).encode() + b'\n{"epo')
    (folder / ".checkpoint.npz.123.partial").touch()
    with runs.resume(folder) as run:
        assert len(run.records()) == 4
        step, arrays, records = run.restore(IDENTITY)
        assert step == 3
        assert arrays["x"].tolist() == [2] * 4
        assert records == [{"epoch": 0}, {"epoch": 1}, {"epoch": 2}]
        assert (folder / "metrics.jsonl").read_bytes() == before
        run.append({"epoch": 3})
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["identity"] == IDENTITY
    assert [line["epoch"] for line in lines[1:]] == [0, 1, 2, 3]
    assert not list(folder.glob(".*partial"))


def test_restore_before_the_first_checkpoint(tmp_path: Path) -> None:
    with runs.create(tmp_path / "run", small.RECIPE) as run:
        assert run.records() == []
        assert run.restore(IDENTITY) is None
        run.append({"epoch": 0})
        assert run.restore(IDENTITY) is None
        assert run.records() == []


def test_metrics_that_lack_steps(folder: Path) -> None:
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (0, 1, 3):
        (folder / "metrics.jsonl").write_bytes(b"".join(lines[:kept]))
        with runs.resume(folder) as run:
            for reading in (run.records, lambda opened=run: opened.restore(IDENTITY)):
                with pytest.raises(
                    RunFolderError,
                    match=rf"metrics.jsonl has {max(kept - 1, 0)} outer epochs, expected at least the 3 of the checkpoint; s",
                ):
                    reading()


def test_every_byte_of_the_metrics(folder: Path) -> None:
    """Steps that a checkpoint includes are read as they were written, or the run is refused."""
    whole = (folder / "metrics.jsonl").read_bytes()
    with runs.resume(folder) as run:
        for position in range(len(whole)):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << position % 8
            (folder / "metrics.jsonl").write_bytes(flipped)
            for reading in (run.records, lambda: run.restore(IDENTITY)):
                with pytest.raises(
                    RunFolderError, match=r"metrics\.jsonl .*; start another run|line \d: start another run"
                ):
                    reading()


def test_a_run_belongs_to_its_data(folder: Path) -> None:
    with (
        runs.resume(folder) as run,
        pytest.raises(
            ValueError, match=r"metrics.jsonl was begun with other settings \(truth is '4567', begun with '0123'"
        ),
    ):
        run.restore({"truth": "4567"})


def is_refused(folder: Path, holds: Callable[[runs.Run], bool]) -> bool:
    """Whether a changed folder is refused, by its name; if not, it holds what was written."""
    try:
        assert holds(runs.read(folder))
    except RunFolderError as error:
        if str(folder) not in str(error):
            raise
        return True
    return False


def test_every_digit_of_the_recipe(folder: Path) -> None:
    """Another recipe is another run: also while nothing was learned yet, and in a run that is finished."""
    path = folder / "recipe.json"
    text = path.read_text()
    runs.read(folder)
    refused = 0
    for position in [k for k, letter in enumerate(text) if letter.isdigit()]:
        for digit in set("0123456789") - {text[position]}:
            path.write_text(text[:position] + digit + text[position + 1 :])
            refused += is_refused(folder, lambda run: run.recipe == small.RECIPE)
    assert refused > 100
    path.write_text(small.RECIPE.replace({"inner.epochs": 4}).to_json())
    for opening in (runs.resume, runs.read):
        with pytest.raises(
            RunFolderError, match=r"recipe\.json is not what the run was begun with: put the original back"
        ):
            opening(folder)


def test_every_byte_of_the_facts(folder: Path) -> None:
    path = folder / "run.json"
    whole, about = path.read_bytes(), runs.read(folder).about
    refused = 0
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        refused += is_refused(folder, lambda run: run.about == about)
    assert refused > len(whole) / 2


def test_unreadable_metrics(folder: Path) -> None:
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()
    with pytest.raises(RunFolderError, match=r"metrics.jsonl cannot be read: is a directory"):
        runs.read(folder).records()


@pytest.mark.parametrize("content", [b"", b"PK no zip", None])
def test_damaged_checkpoint(folder: Path, content: bytes | None) -> None:
    path = folder / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with (
        runs.resume(folder) as run,
        pytest.raises(RunFolderError, match=r"run folder .*run is damaged: checkpoint .*; start another run"),
    ):
        run.restore(IDENTITY)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", None, "is not a run folder: it has no run.json"),
        ("recipe.json", None, "is not a run folder: it has no recipe.json"),
        ("run.json", "{", "run folder .* is damaged"),
        ("run.json", "[]", "has schema None, expected 'spd_fast.run/2'"),
        (
            "run.json",
            '{"schema": "spd_fast.run/1"}',
            "has schema 'spd_fast.run/1', expected 'spd_fast.run/2': it is of another version; start it anew in another folder, "
            "with --recipe .*recipe.json",
        ),
        ("run.json", '{"schema": "spd_fast.run/2"}', "run folder .* is damaged: there is no checksum"),
        ("recipe.json", "{}", "run folder .* is damaged: recipe has schema None"),
    ],
)
def test_folder_that_is_no_run(folder: Path, name: str, content: str | None, message: str) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    for opening in (runs.resume, runs.read):
        with pytest.raises(RunFolderError, match=message):
            opening(folder)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="does not exist"):
        runs.resume(tmp_path / "none")


def test_not_a_number_is_no_json(folder: Path) -> None:
    with runs.resume(folder) as run:
        run.restore(IDENTITY)
        with pytest.raises(ValueError, match="JSON compliant"):
            run.append({"loss": float("nan")})


def test_dishes(folder: Path) -> None:
    dish = Dish(np.ones((2, 1, 4, 4), np.float32), np.array([0, 1]))
    with pytest.raises(RunFolderError, match=r"the dish of .*run cannot be read"):
        runs.read(folder).dishes()
    with runs.resume(folder) as run:
        run.save_dish(dish, start=True)
        run.save_checkpoint(3, {"images": 2 * dish.images})
        assert [each.images.max() for each in run.dishes()] == [1, 2]
        run.save_dish(Dish(3 * dish.images, dish.labels))
        assert [each.images.max() for each in run.dishes()] == [1, 3]


def test_full_disk(folder: Path) -> None:
    """A process whose files may not grow beyond 4 KB: one clear error, and what was there stays readable."""
    code = f"""
        import numpy as np, resource, signal
        from spd_fast.outer import runs
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        run = runs.resume({str(folder)!r})
        run.restore({IDENTITY!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        for write in (
            lambda: run.save_checkpoint(4, {{"x": np.random.default_rng(0).normal(size=10_000)}}),
            lambda: run.append({{"text": "a" * 10_000}}),
        ):
            try:
                write()
            except runs.RunFolderError as error:
                print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert [line.split("; ")[0] for line in done.stdout.splitlines()] == [
        f"{folder}/checkpoint.npz cannot be written: file too large",
        f"{folder}/metrics.jsonl cannot be written: file too large",
    ]
    assert not list(folder.glob(".*partial"))
    with runs.resume(folder) as run:
        step, arrays, records = run.restore(IDENTITY)
    assert (step, arrays["x"].tolist(), len(records)) == (3, [2] * 4, 3)


def test_write_of_a_folder_that_went_away(folder: Path) -> None:
    run = runs.read(folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.raises(RunFolderError, match=r"report.html cannot be written: no such file or directory"):
        run.write("report.html", b"")


def test_describe_machine() -> None:
    facts = runs.describe_machine()
    assert facts["processors"] >= 1
    assert facts["torch"].startswith("2.")
    json.dumps(facts)
