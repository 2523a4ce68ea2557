"""Options that several commands share."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from spd_fast.base.extras import required
from spd_fast.cli.console import errors

if TYPE_CHECKING:
    from spd_fast.base.executors import Executor

_PATIENCE: Final = 60.0
"""Seconds in which the scheduler of a cluster may write its file."""


def writable_folder(folder: Path | None) -> Path | None:
    """Return the folder of an option. One that could not be made or written to is refused before the work is done."""
    if folder is not None:
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        with errors(debug=False):
            if not there.is_dir():
                raise NotADirectoryError(f"--out is {folder}, expected a folder: the file {there} is in its way")
            if not os.access(there, os.W_OK | os.X_OK):
                raise PermissionError(f"--out is {folder}, but the folder {there} may not be written to")
    return folder


def recipe_names(begun: str) -> list[str]:
    """Return the recipes whose names begin so, for the completion in shells."""
    import spd_fast.recipes as recipes

    return [name for name in recipes.names() if name.startswith(begun)]


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", rich_help_panel="For every command", help="Print results alone: no progress and no remarks."
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", rich_help_panel="For every command", help="Print the results as JSON, for scripts."),
]
Debug = Annotated[
    bool, typer.Option("--debug", rich_help_panel="For every command", help="Show the traceback of an error.")
]
TruthFile = Annotated[
    Path | None,
    typer.Option(
        "--truth",
        metavar="FILE",
        help="Truth file (.npz), or a table that nasbench convert wrote. Default: the truth that ships with the package.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Default: all processors, and 1 for each piece of work on a cluster. The results do not depend on it.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        rich_help_panel="More than one machine",
        help="Train motifs on a Ray cluster: HOST:6379, ray://HOST:10001, or auto for the one that this machine belongs to. "
        "The results do not depend on it.",
    ),
]
Dask = Annotated[
    str | None,
    typer.Option(
        "--dask",
        metavar="ADDRESS",
        rich_help_panel="More than one machine",
        help="Train motifs on a Dask cluster: tcp://HOST:8786, or the scheduler's file (.json). The results do not depend on it.",
    ),
]
Seed = Annotated[int | None, typer.Option(metavar="N", min=0, help="Seed, in place of the recipe's.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Change a setting: --set inner.epochs=16 --set motif=B. May be repeated."
    ),
]
BenchCells = Annotated[
    Path | None,
    typer.Option(
        "--cells", metavar="FILE", help="File of cells (.json or .npz). Default: the 12 cells of the benches."
    ),
]
BenchShapes = Annotated[
    str, typer.Option(metavar="ABCS", help="Motifs: A, B and C of the paper, and S, which ranking trains first.")
]
BenchClock = Annotated[str, typer.Option(metavar="wall|cpu", help="Choose cpu if the machine is busy with other work.")]
BenchRounds = Annotated[int, typer.Option(metavar="N", min=1, help="How often each is timed, in turns.")]
Core = Annotated[int | None, typer.Option(metavar="N", min=0, help="Processor to pin to. Default: the last one.")]
BenchFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        callback=writable_folder,
        help="Folder for the record (JSON) and its figure (PNG). Default: nothing is written.",
    ),
]
Images = Annotated[
    Path, typer.Option(metavar="PATH", help="Folder of IDX files (as MNIST has them), or an .npz of images and labels.")
]
TruthOut = Annotated[Path, typer.Option("--out", metavar="FILE", help="The truth file to write (.npz).")]
TruthSeeds = Annotated[str, typer.Option(metavar="LIST", help="Seeds of the trainings.")]
TrainImages = Annotated[int, typer.Option(metavar="N", min=1, help="Training images.")]
ValidImages = Annotated[int, typer.Option(metavar="N", min=1, help="Validation images.")]
TestImages = Annotated[int, typer.Option(metavar="N", min=1, help="Test images.")]
BatchSize = Annotated[int, typer.Option(metavar="N", min=1, help="Images in a batch.")]
CosineRate = Annotated[float, typer.Option(metavar="RATE", help="Adam's first learning rate; a cosine takes it to 0.")]
TableFile = Annotated[Path, typer.Argument(metavar="TABLE", help="A table that nasbench convert wrote (.npz).")]


@contextmanager
def executor_of(ray: str | None, dask: str | None) -> "Iterator[Executor | None]":
    """Connect to the cluster that --ray or --dask names, for the block; yield None without one.

    Raises
    ------
    ValueError
        If both are given.
    OSError
        If nobody answers at the address.
    """
    if ray is not None and dask is not None:
        raise ValueError("--ray and --dask are given, expected one of them")
    if ray is not None:
        module = required("ray", "--ray")
        try:
            module.init(address=ray, logging_level="ERROR", log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConnectionError(f"--ray is {ray}, but no Ray cluster can be reached there: {error}") from None
        try:
            yield module
        finally:
            module.shutdown()
    elif dask is not None:
        client: Any = required("distributed", "--dask").Client
        if dask.endswith(".json"):
            _wait_for(Path(dask))
        where = {"scheduler_file": dask} if dask.endswith(".json") else {"address": dask}
        try:
            connected = client(**where)
        except (OSError, ValueError) as error:
            raise ConnectionError(f"--dask is {dask}, but no Dask scheduler can be reached there: {error}") from None
        with connected:
            yield connected
    else:
        yield None


def _wait_for(file: Path) -> None:
    """Wait for the file that a Dask scheduler writes; it begins together with the command in batch jobs."""
    began = time.monotonic()
    while not file.exists():
        if time.monotonic() - began > _PATIENCE:
            raise ConnectionError(
                f"--dask is {file}, but there is no such file after {_PATIENCE:.0f} s: start dask scheduler --scheduler-file {file}, or correct "
                "the name"
            )
        time.sleep(0.2)


def integers(option: str, text: str) -> list[int]:
    """Return the whole numbers of an option, which are separated by commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} is {text!r}, expected whole numbers separated by commas, such as 2,6,18") from None
