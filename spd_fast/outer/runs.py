"""Run folders. A run saves its state as it goes, so that a kill at any moment loses at most a second of work or one outer
epoch.

=====================  ============================================================================================
file                   content
=====================  ============================================================================================
``recipe.json``        every setting
``run.json``           schema, version, machine, which truth, a digest of the recipe; with a checksum
``metrics.jsonl``      a journal (`spd_fast.base.stores`): what the run was begun with, then one line per outer epoch, written before
                       the next one begins; every line is a JSON object with a checksum
``checkpoint.npz``     the state from which the run continues: replaced as a whole after every outer epoch, or every second where
                       outer epochs are shorter
``dish_start.npz``     the dish before learning
``dish.npz``           the learned dish, which exists when the run is finished
``report.html``        the report, with its figures as files in ``figures/``
``run.lock``           the file that the process locks which writes the run
=====================  ============================================================================================

Lines of metrics are on the disk before the checkpoint that includes them. When a run is resumed, lines after the
checkpoint are removed, and so is an incomplete last line.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from spd_fast.base.files import (
    atomic_write,
    is_leftover,
    load_arrays,
    lock_file,
    release,
    remove_leftovers,
    save_arrays,
    sealed,
    unsealed,
)
from spd_fast.base.machine import describe_machine
from spd_fast.base.stores import Journal, read_journal
from spd_fast.base.types import Array
from spd_fast.dish import Dish
from spd_fast.learnables.table import LEARNABLES
from spd_fast.recipes.settings import Recipe

__all__ = [
    "SCHEMA",
    "Run",
    "RunFolderError",
    "create",
    "is_run",
    "read",
    "require_vacant",
    "resume",
]

SCHEMA: Final = "spd_fast.run/2"
"""Version of the folder's layout."""
_METRICS_SCHEMA: Final = "spd_fast.metrics/1"
_REMEDY: Final = "start another run"
ABOUT, RECIPE, METRICS, CHECKPOINT = "run.json", "recipe.json", "metrics.jsonl", "checkpoint.npz"
DISH_START, DISH, REPORT, FIGURES, LOCK = "dish_start.npz", "dish.npz", "report.html", "figures", "run.lock"


class RunFolderError(RuntimeError):
    """A run folder cannot be created, continued or written. The message says why, and what to do."""


class Run:
    """An open run folder, which `create`, `resume` or `read` returns. As a context manager it releases its lock at the end.

    Call `restore` before `append`. If the context ends with a ValueError or TypeError before the first outer epoch, a new
    folder is removed, because what was asked for cannot run.

    Attributes
    ----------
    path : Path
    recipe : Recipe
    about : dict
        The content of ``run.json``.
    """

    def __init__(
        self, path: Path, recipe: Recipe, about: dict[str, Any], lock: int | None, *, created: bool = False
    ) -> None:
        self.path, self.recipe, self.about = path, recipe, about
        self._lock = lock
        self._created = created
        self._journal: Journal | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._created and isinstance(error, ValueError | TypeError) and not self._journal:
            shutil.rmtree(self.path, ignore_errors=True)  # the run could not begin, so there is nothing to continue
        self.close()

    def close(self) -> None:
        """Release the lock and close the files. Closing twice does nothing."""
        if self._journal is not None:
            self._journal.close()
        if self._lock is not None:
            release(self._lock)
        self._journal = self._lock = None

    @property
    def finished(self) -> bool:
        """Whether the run is finished: whether its learned dish exists."""
        return (self.path / DISH).is_file()

    def require_recipe(self, recipe: Recipe) -> None:
        """Raise unless a recipe is the one that the run was begun with.

        Raises
        ------
        ValueError
            If settings differ; the message names them.
        """
        begun = {name: value for name, value, _ in self.recipe.explain()}
        differing = [name for name, value, _ in recipe.explain() if begun.get(name) != value]
        if differing:
            raise ValueError(
                f"{self.path} was begun with another recipe ({', '.join(differing)} differ): resume it with its own, or choose "
                "another folder"
            )

    def records(self) -> list[dict[str, Any]]:
        """Return the records of the outer epochs in ``metrics.jsonl``, without a last line that was cut short.

        Raises
        ------
        RunFolderError
            If the file is damaged, or lacks outer epochs that the checkpoint includes.
        """
        epochs, _ = self._checkpoint()
        try:
            records = read_journal(self.path / METRICS, _METRICS_SCHEMA, remedy=_REMEDY)
        except FileNotFoundError:
            records = []
        except ValueError as error:
            raise RunFolderError(str(error)) from error
        except OSError as error:
            raise RunFolderError(f"{self.path / METRICS} cannot be read: {_reason(error)}") from error
        self._require_epochs(len(records), epochs)
        return records

    def restore(self, identity: Mapping[str, Any]) -> tuple[int, dict[str, Array], list[dict[str, Any]]] | None:
        """Begin or continue: return (outer epochs done, arrays, records) of the checkpoint, or None where there is none yet.

        Records of outer epochs after the checkpoint are removed from the file.

        Parameters
        ----------
        identity : mapping that JSON can hold
            What must be the same when the run is continued, beside the recipe: digests of the data, by names that a user
            knows.

        Raises
        ------
        RunFolderError
            If a file is damaged, or outer epochs that the checkpoint includes are missing.
        ValueError
            If the run was begun with another identity.
        """
        for folder in (self.path, self.path / FIGURES):
            remove_leftovers(folder)
        if self._journal is not None:
            self._journal.close()
        epochs, arrays = self._checkpoint()
        with self._writing(METRICS):
            try:
                journal = Journal(self.path / METRICS, _METRICS_SCHEMA, remedy=_REMEDY)
            except ValueError as error:
                raise RunFolderError(str(error)) from error
        try:
            self._require_epochs(len(journal), epochs)
            with self._writing(METRICS):
                journal.bind(identity)
                journal.keep(epochs)
        except BaseException:
            journal.close()
            raise
        self._journal = journal
        return None if arrays is None else (epochs, arrays, journal.records)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line of metrics; `save_checkpoint` makes sure that it is on the disk.

        Raises
        ------
        RunFolderError
            If it cannot be written; the run can be resumed.
        ValueError
            If the record holds NaN or infinity, which JSON does not have.
        """
        assert self._journal is not None  # restore opens it
        with self._writing(METRICS):
            self._journal.append([record])

    def save_checkpoint(self, epochs: int, arrays: Mapping[str, Array]) -> None:
        """Replace the checkpoint, as a whole, by one after so many outer epochs. All lines of metrics are on the disk before.

        Raises
        ------
        RunFolderError
            If it cannot be written; the checkpoint before stays.
        """
        if self._journal is not None:
            with self._writing(METRICS):
                self._journal.sync()
        with self._writing(CHECKPOINT):
            save_arrays(self.path / CHECKPOINT, {**arrays, "step": np.array(epochs)})

    def dishes(self) -> tuple[Dish, Dish]:
        """Return the dish before learning and the present dish.

        The present dish is the learned dish if the run is finished, or else the dish of the last checkpoint, or else the dish
        before learning.

        Raises
        ------
        RunFolderError
            If one is missing or damaged.
        """
        try:
            start = Dish.load(self.path / DISH_START)
            if self.finished:
                return start, Dish.load(self.path / DISH)
            _, arrays = self._checkpoint()
            learned = {name: array for name, array in (arrays or {}).items() if name in LEARNABLES}
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
        """Write a file of the run, as a whole or not at all.

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

    def _checkpoint(self) -> tuple[int, dict[str, Array] | None]:
        """Return how many outer epochs the checkpoint includes, and its arrays: 0 and None where there is none."""
        if not (self.path / CHECKPOINT).exists():
            return 0, None
        try:
            arrays = load_arrays(self.path / CHECKPOINT, what="checkpoint", listed=True)
            return int(arrays.pop("step")), arrays
        except (ValueError, KeyError, OSError) as error:
            raise RunFolderError(f"run folder {self.path} is damaged: {error}; {_REMEDY}") from error

    def _require_epochs(self, found: int, epochs: int) -> None:
        if found < epochs:
            raise RunFolderError(
                f"run folder {self.path} is damaged: {METRICS} has {found} outer epochs, expected at least the {epochs} of "
                f"the checkpoint; {_REMEDY}"
            )

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFolderError(
                f"{self.path / name} cannot be written: {_reason(error)}; nothing before the last checkpoint is lost, "
                "resume the run when this is corrected"
            ) from error


def create(path: str | os.PathLike[str], recipe: Recipe, *, about: Mapping[str, Any] | None = None) -> Run:
    """Create a run folder, as a whole or not at all, and lock it.

    Parameters
    ----------
    path : path
        A folder that does not exist yet, or is empty.
    recipe : Recipe
    about : mapping that JSON can hold, optional
        More facts for ``run.json``, for example which truth the run uses.

    Raises
    ------
    RunFolderError
        If the folder holds a run or other files, is a file, or cannot be written.
    """
    folder = Path(path)
    require_vacant(folder)
    facts = {
        "schema": SCHEMA,
        "recipe_sha256": _digest(recipe),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **describe_machine(),
        **(about or {}),
    }
    target = folder.absolute()
    _remove_staged(target)
    staged = lock = None
    try:
        staged, lock = _create_staged(target)
        (staged / RECIPE).write_text(recipe.to_json(), encoding="utf-8")
        (staged / ABOUT).write_text(json.dumps(sealed(facts), indent=2) + "\n", encoding="utf-8")
        os.rename(staged, folder)
    except OSError as error:
        if staged is not None and lock is not None:
            release(lock)
            shutil.rmtree(staged, ignore_errors=True)
        raise RunFolderError(
            f"run folder {folder} cannot be created: {_reason(error)}; choose another folder"
        ) from error
    return Run(folder, recipe, facts, lock, created=True)


def _create_staged(target: Path) -> tuple[Path, int]:
    """Create and lock the folder that becomes a run folder. The lock shows other processes that its writer lives."""
    while True:
        staged = target.parent / f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.new"
        staged.mkdir(parents=True)
        with suppress(FileNotFoundError, BlockingIOError):  # another process removed it before it was locked
            return staged, lock_file(staged / LOCK)


def _remove_staged(target: Path) -> None:
    """Remove the folders that processes which were killed in `create` left beside a run folder."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.\d+(-[0-9a-f]+)?\.new")
    with suppress(OSError):
        for staged in [path for path in target.parent.iterdir() if pattern.fullmatch(path.name)]:
            with suppress(OSError):  # its writer lives, or the disk has no locks
                lock = lock_file(staged / LOCK)
                for name in (RECIPE, ABOUT, LOCK):
                    (staged / name).unlink(missing_ok=True)
                release(lock)
                staged.rmdir()


def require_vacant(folder: Path) -> None:
    """Raise unless a run folder can be created at `folder`. Temporary files of killed processes are removed from it.

    Raises
    ------
    RunFolderError
        If the folder holds a run or other files, is a file, or cannot be read.
    """
    try:
        found = sorted(entry.name for entry in folder.iterdir() if not is_leftover(entry.name))
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
    remove_leftovers(folder)


def resume(path: str | os.PathLike[str]) -> Run:
    """Open an existing run folder to continue it, and lock it.

    Raises
    ------
    RunFolderError
        If the folder is not a run folder, another process writes it, or it cannot be written.
    """
    folder = Path(path)
    run = read(folder)
    try:
        lock = _lock(folder)
    except OSError as error:
        raise RunFolderError(f"run folder {folder} cannot be written: {_reason(error)}") from error
    return Run(folder, run.recipe, run.about, lock)


def read(path: str | os.PathLike[str]) -> Run:
    """Open a run folder to read it, finished or not, without a lock.

    Raises
    ------
    RunFolderError
        If the folder is not a run folder, or is damaged.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise RunFolderError(f"run folder {folder} does not exist")
    try:
        text = (folder / ABOUT).read_bytes()
        settings = (folder / RECIPE).read_text(encoding="utf-8")
        found = json.loads(text)
        schema = found.get("schema") if isinstance(found, dict) else None
        if schema != SCHEMA:
            raise RunFolderError(
                f"run folder {folder} has schema {schema!r}, expected {SCHEMA!r}: it is of another version; "
                f"start it anew in another folder, with --recipe {folder / RECIPE}"
            )
        about = unsealed(text)
        recipe = Recipe.from_json(settings)
    except FileNotFoundError as error:
        raise RunFolderError(f"{folder} is not a run folder: it has no {Path(error.filename).name}") from None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"run folder {folder} is damaged: {error}; {_REMEDY}") from error
    if about["recipe_sha256"] != _digest(recipe):
        raise RunFolderError(
            f"{folder / RECIPE} is not what the run was begun with: put the original back, or start another run with it"
        )
    return Run(folder, recipe, about, None)


def is_run(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds a run, finished or not."""
    return (Path(path) / ABOUT).is_file()


def _lock(folder: Path) -> int:
    try:
        return lock_file(folder / LOCK)
    except BlockingIOError:
        raise RunFolderError(
            f"run folder {folder} is being written by another process: wait for it or stop it"
        ) from None


def _digest(recipe: Recipe) -> str:
    return hashlib.sha256(recipe.to_json().encode()).hexdigest()


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
