"""Run folders: what a run leaves on the disk while it goes, so that a kill at any moment loses a second or one step of work.

=====================  ============================================================================================
file                   content
=====================  ============================================================================================
``recipe.json``        every setting
``run.json``           schema, version, machine, which truth
``metrics.jsonl``      one JSON object a line, one line per step, written before the next step begins
``checkpoint.npz``     what is needed to go on: replaced as a whole after every step, or every second where steps are shorter
``dish_start.npz``     the dish before learning
``dish.npz``           the learned dish; it is there when the run is finished
``report.html``        the report, with its figures as PNG in ``figures/``
``run.lock``           locked by the process that writes
=====================  ============================================================================================

Lines of metrics are on the disk before the checkpoint that includes them: lines beyond the checkpoint are dropped on resuming,
and so is a last line that was cut short.
"""

import fcntl
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

import spd_fast
from spd_fast.dish import Dish
from spd_fast.files import atomic_write, load_arrays, save_arrays
from spd_fast.recipes import Recipe

__all__ = [
    "SCHEMA",
    "Run",
    "RunFolderError",
    "create",
    "describe_machine",
    "is_run",
    "read",
    "require_vacant",
    "resume",
]

SCHEMA: Final = "spd_fast.run/1"
"""Version of the folder's layout."""

ABOUT, RECIPE, METRICS, CHECKPOINT = "run.json", "recipe.json", "metrics.jsonl", "checkpoint.npz"
DISH_START, DISH, REPORT, FIGURES, LOCK = "dish_start.npz", "dish.npz", "report.html", "figures", "run.lock"

Array = npt.NDArray[Any]


class RunFolderError(RuntimeError):
    """A run folder cannot be created, continued or written to; the message says why and what to do."""


class Run:
    """An open run folder. Made by `create`, `resume` or `read`; closes its lock as a context manager.

    A new folder goes when the context ends with a ValueError or TypeError before the first line of metrics: what was asked
    for cannot run.

    Attributes
    ----------
    path : Path
    recipe : Recipe
    about : dict
        What ``run.json`` holds.
    """

    def __init__(
        self, path: Path, recipe: Recipe, about: dict[str, Any], lock: int | None, *, created: bool = False
    ) -> None:
        self.path, self.recipe, self.about = path, recipe, about
        self._lock = lock
        self._created = created
        self._metrics: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._created and isinstance(error, ValueError | TypeError) and not (self.path / METRICS).exists():
            shutil.rmtree(self.path, ignore_errors=True)  # what was asked for cannot run: nothing to continue
        self.close()

    def close(self) -> None:
        """Release the lock and close the files. Closing twice does nothing."""
        for descriptor in (self._metrics, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._metrics = self._lock = None

    @property
    def finished(self) -> bool:
        """Whether the learned dish is there."""
        return (self.path / DISH).is_file()

    def records(self) -> list[dict[str, Any]]:
        """Return the lines of ``metrics.jsonl``, without a last one that was cut short.

        Raises
        ------
        RunFolderError
            If another line is damaged.
        """
        return [record for record, _ in self._lines()]

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line of metrics; `save_checkpoint` sees to it that it is on the disk.

        Raises
        ------
        RunFolderError
            If it cannot be written; the run can be resumed.
        ValueError
            If the record holds NaN or infinity, which JSON has no word for.
        """
        line = json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        with self._writing(METRICS):
            if self._metrics is None:
                self._metrics = os.open(self.path / METRICS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            written = 0
            while written < len(line):
                written += os.write(self._metrics, line[written:])

    def save_checkpoint(self, step: int, arrays: Mapping[str, Array]) -> None:
        """Replace the checkpoint by one that continues at step `step`, as a whole, when all lines of metrics are on the disk.

        Raises
        ------
        RunFolderError
            If it cannot be written; the former one stays.
        """
        if self._metrics is not None:
            with self._writing(METRICS):
                os.fsync(self._metrics)
        with self._writing(CHECKPOINT):
            save_arrays(self.path / CHECKPOINT, {**arrays, "step": np.array(step)})

    def restore(self) -> tuple[int, dict[str, Array], list[dict[str, Any]]] | None:
        """Return (step, arrays, records) of the checkpoint, or None where there is none yet.

        Lines of metrics beyond the checkpoint are removed from the file.

        Raises
        ------
        RunFolderError
            If the checkpoint is damaged, or metrics that it includes are missing.
        """
        self._remove_partial_files()
        lines = self._lines()
        step, arrays = 0, None
        if (self.path / CHECKPOINT).exists():
            try:
                arrays = load_arrays(self.path / CHECKPOINT, what="checkpoint")
                step = int(arrays.pop("step"))
            except (ValueError, KeyError, OSError) as error:
                raise RunFolderError(f"{self.path} cannot be resumed: {error}") from error
        if len(lines) < step:
            raise RunFolderError(
                f"{self.path} cannot be resumed: {METRICS} has {len(lines)} lines, expected at least the {step} of the checkpoint"
            )
        if (self.path / METRICS).exists():
            with self._writing(METRICS):
                os.truncate(self.path / METRICS, lines[step - 1][1] if step else 0)
        return None if arrays is None else (step, arrays, [record for record, _ in lines[:step]])

    def dishes(self) -> tuple[Dish, Dish]:
        """Return the dish before learning and as it is now: learned, or that of the last checkpoint, if there is one yet.

        Raises
        ------
        RunFolderError
            If one is missing or damaged.
        """
        try:
            start = Dish.load(self.path / DISH_START)
            if self.finished:
                return start, Dish.load(self.path / DISH)
            if not (self.path / CHECKPOINT).exists():
                return start, start
            arrays = load_arrays(self.path / CHECKPOINT, what="checkpoint")
            learned = {name: arrays[name] for name in Dish.__dataclass_fields__ if name in arrays}
            return start, replace(start, **learned)
        except (OSError, ValueError, KeyError) as error:
            raise RunFolderError(f"the dish of {self.path} cannot be read: {error}") from error

    def save_dish(self, dish: Dish, *, start: bool = False) -> None:
        """Write the learned dish, which finishes the run; or, with `start`, the dish before learning.

        Raises
        ------
        RunFolderError
            If it cannot be written.
        """
        name = DISH_START if start else DISH
        with self._writing(name):
            dish.save(self.path / name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the run, as a whole.

        Raises
        ------
        RunFolderError
            If it cannot be written.
        """
        with self._writing(name):
            if "/" in name:
                (self.path / name).parent.mkdir(exist_ok=True)
            with atomic_write(self.path / name) as file:
                file.write(content)

    def _lines(self) -> list[tuple[dict[str, Any], int]]:
        """Return every whole line of metrics with the offset of its end."""
        try:
            content = (self.path / METRICS).read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunFolderError(f"{self.path / METRICS} cannot be read: {_reason(error)}") from error
        lines, end = [], 0
        *whole, _ = content.split(b"\n")
        for number, line in enumerate(whole):
            end += len(line) + 1
            try:
                lines.append((json.loads(line), end))
            except ValueError as error:
                raise RunFolderError(f"{self.path / METRICS}, line {number + 1} is damaged: {error}") from error
        return lines

    def _remove_partial_files(self) -> None:
        for partial in self.path.glob(".*.partial"):
            partial.unlink(missing_ok=True)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFolderError(
                f"{self.path / name} cannot be written: {_reason(error)}; nothing before the last checkpoint is lost, "
                "resume the run when that is mended"
            ) from error


def create(path: str | os.PathLike[str], recipe: Recipe, *, about: Mapping[str, Any] | None = None) -> Run:
    """Create a run folder, as a whole or not at all, and lock it.

    Parameters
    ----------
    path : path
        A folder that does not exist yet, or is empty.
    recipe : Recipe
    about : mapping that JSON can hold, optional
        More for ``run.json``: which truth, for example.

    Raises
    ------
    RunFolderError
        If the folder holds a run or other files, is a file, or cannot be written.
    """
    folder = Path(path)
    require_vacant(folder)
    facts = {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **describe_machine(),
        **(about or {}),
    }
    staged = folder.absolute().parent / f".{folder.absolute().name}.{os.getpid()}.new"
    lock = None
    try:
        staged.mkdir(parents=True)
        (staged / RECIPE).write_text(recipe.to_json(), encoding="utf-8")
        (staged / ABOUT).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        lock = _lock(staged, folder)
        os.rename(staged, folder)
    except OSError as error:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(staged, ignore_errors=True)
        raise RunFolderError(
            f"run folder {folder} cannot be created: {_reason(error)}; choose another folder"
        ) from error
    return Run(folder, recipe, facts, lock, created=True)


def require_vacant(folder: Path) -> None:
    """Raise unless a run folder can be created at `folder`.

    Raises
    ------
    RunFolderError
        If the folder holds a run or other files, is a file, or cannot be read.
    """
    try:
        found = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise RunFolderError(f"run folder {folder} cannot be created: a file is in its way") from None
    except OSError as error:
        raise RunFolderError(f"run folder {folder} cannot be read: {_reason(error)}") from error
    if is_run(folder):
        if (folder / DISH).is_file():
            raise RunFolderError(f"{folder} holds a finished run: choose another folder with --out")
        raise RunFolderError(f"{folder} holds an unfinished run: continue it with --resume, or choose another --out")
    if found:
        shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise RunFolderError(f"{folder} is not a run folder and not empty ({shown}): choose another folder with --out")


def resume(path: str | os.PathLike[str]) -> Run:
    """Open an existing run folder to continue it, and lock it.

    Raises
    ------
    RunFolderError
        If it is no run folder, another process writes it, or it cannot be written.
    """
    folder = Path(path)
    run = read(folder)
    try:
        lock = _lock(folder, folder)
    except OSError as error:
        raise RunFolderError(f"run folder {folder} cannot be written: {_reason(error)}") from error
    return Run(folder, run.recipe, run.about, lock)


def read(path: str | os.PathLike[str]) -> Run:
    """Open a run folder to read it, finished or not, without a lock.

    Raises
    ------
    RunFolderError
        If it is no run folder or is damaged.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise RunFolderError(f"run folder {folder} does not exist")
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        recipe = (folder / RECIPE).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RunFolderError(f"{folder} is not a run folder: it has no {Path(error.filename).name}") from None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"run folder {folder} is damaged: {error}") from error
    schema = about.get("schema") if isinstance(about, dict) else None
    if schema != SCHEMA:
        raise RunFolderError(
            f"run folder {folder} has schema {schema!r}, expected {SCHEMA!r}: it is of another version"
        )
    try:
        return Run(folder, Recipe.from_json(recipe), about, None)
    except ValueError as error:
        raise RunFolderError(f"run folder {folder} is damaged: {error}") from error


def is_run(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds a run, finished or not."""
    return (Path(path) / ABOUT).is_file()


def describe_machine() -> dict[str, Any]:
    """Return versions, instruction set, compiler, processor and processor count of this installation."""
    from spd_fast import _core

    return {
        "version": spd_fast.__version__,
        "instruction_set": _core.isa,
        "compiler": _core.compiler,
        "processor": _processor(),
        "processors": _core.default_threads(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": _version("torch"),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _lock(where: Path, folder: Path) -> int:
    descriptor = os.open(where / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RunFolderError(
            f"run folder {folder} is being written by another process: wait for it or stop it"
        ) from None
    return descriptor


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
