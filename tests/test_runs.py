"""Run folders: created whole or not at all, never overwritten, one writer, readable after any death."""

import json
import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small
from spd_fast import runs
from spd_fast.dish import Dish
from spd_fast.runs import RunFolderError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with three steps."""
    path = tmp_path / "run"
    with runs.create(path, small.RECIPE, about={"truth": "made up"}) as run:
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


def test_create_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc takes no folders from anybody, root included."""
    with pytest.raises(
        RunFolderError, match=r"run folder /proc/spd_fast_run cannot be created: .*choose another folder"
    ):
        runs.create("/proc/spd_fast_run", small.RECIPE)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(RunFolderError, match="cannot be created: no space left on device"):
        runs.create(tmp_path / "run", small.RECIPE)
    assert list(tmp_path.iterdir()) == []


def test_a_new_run_that_cannot_run_leaves_nothing(tmp_path: Path) -> None:
    """Bad input only, and only before the first line of metrics: what was interrupted or begun stays."""

    def begin(name: str, error: BaseException, *records: dict[str, Any]) -> bool:
        with suppress(type(error)), runs.create(tmp_path / name, small.RECIPE) as run:
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


def test_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(RunFolderError, match="cannot be read: permission denied"):
        runs.create(tmp_path / "run", small.RECIPE)


def test_one_writer(folder: Path) -> None:
    with runs.resume(folder), pytest.raises(RunFolderError, match="is being written by another process"):
        runs.resume(folder)
    runs.resume(folder).close()
    with runs.create(folder.parent / "new", small.RECIPE), pytest.raises(RunFolderError, match="another process"):
        runs.resume(folder.parent / "new")


def test_resume_without_permission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(RunFolderError, match="run cannot be written: permission denied"):
        runs.resume(folder)


def test_restore(folder: Path) -> None:
    """Lines beyond the checkpoint and a line cut short are dropped, from memory and from the file."""
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"epoch":3}\n{"epo')
    (folder / ".checkpoint.npz.123.partial").touch()
    with runs.resume(folder) as run:
        assert len(run.records()) == 4
        step, arrays, records = run.restore()
        assert step == 3
        assert arrays["x"].tolist() == [2] * 4
        assert records == [{"epoch": 0}, {"epoch": 1}, {"epoch": 2}]
        run.append({"epoch": 3})
    assert (folder / "metrics.jsonl").read_text().splitlines() == [f'{{"epoch":{i}}}' for i in range(4)]
    assert not list(folder.glob(".*partial"))


def test_restore_before_the_first_checkpoint(tmp_path: Path) -> None:
    with runs.create(tmp_path / "run", small.RECIPE) as run:
        assert run.records() == []
        assert run.restore() is None
        run.append({"epoch": 0})
        assert run.restore() is None
        assert run.records() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"epoch":0}\n', "metrics.jsonl has 1 lines, expected at least the 3 of the checkpoint"),
        (b'{"epoch":0}\n{oops}\n{"epoch":2}\n', "metrics.jsonl, line 2 is damaged"),
    ],
)
def test_damaged_metrics(folder: Path, content: bytes, message: str) -> None:
    (folder / "metrics.jsonl").write_bytes(content)
    with runs.resume(folder) as run, pytest.raises(RunFolderError, match=message):
        run.restore()


def test_unreadable_metrics(folder: Path) -> None:
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()
    with pytest.raises(RunFolderError, match=r"metrics.jsonl cannot be read: is a directory"):
        runs.read(folder).records()


@pytest.mark.parametrize("content", [b"", b"PK no zip", None])
def test_damaged_checkpoint(folder: Path, content: bytes | None) -> None:
    path = folder / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with runs.resume(folder) as run, pytest.raises(RunFolderError, match="run cannot be resumed: checkpoint"):
        run.restore()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", None, "is not a run folder: it has no run.json"),
        ("recipe.json", None, "is not a run folder: it has no recipe.json"),
        ("run.json", "{", "run folder .* is damaged"),
        ("run.json", "[]", "has schema None, expected 'spd_fast.run/1'"),
        ("run.json", '{"schema": "spd_fast.run/2"}', "has schema 'spd_fast.run/2', expected 'spd_fast.run/1'"),
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
    with runs.resume(folder) as run, pytest.raises(ValueError, match="JSON compliant"):
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
        from spd_fast import runs
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        run = runs.resume({str(folder)!r})
        run.restore()
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
        step, arrays, records = run.restore()
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
