"""What all benches share: motif shapes, cells, pinning to one processor, and the record with machine and settings."""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

import spd_fast._core as _core
from spd_fast.base.files import atomic_write
from spd_fast.base.machine import describe_machine
from spd_fast.motif import MOTIF_A, MOTIF_B, MOTIF_C, MotifShape
from spd_fast.spaces.cell import Cell

__all__ = [
    "BATCH",
    "SHAPES",
    "SIDE",
    "begin",
    "bench_cells",
    "geometric_mean",
    "median",
    "pinned",
    "shapes_named",
    "write",
]

SHAPES: Final[dict[str, MotifShape]] = {"A": MOTIF_A, "B": MOTIF_B, "C": MOTIF_C}
SIDE: Final = 16
BATCH: Final = 20
"""Side of the images in pixels, and images in a batch, of the paper's inner loop."""


def shapes_named(letters: str) -> dict[str, MotifShape]:
    """Return the motif shapes of some letters of ABC.

    Raises
    ------
    ValueError
        If there is no such shape.
    """
    unknown = sorted(set(letters) - set(SHAPES))
    if unknown or not letters:
        raise ValueError(f"shapes are {letters!r}, expected letters of ABC such as C or AB")
    return {letter: SHAPES[letter] for letter in letters}


def bench_cells() -> list[Cell]:
    """Return the 12 cells of the benches, which are spread over the range of FLOPs."""
    text = files("spd_fast.bench").joinpath("cells.json").read_text(encoding="utf-8")
    return [Cell.from_json(record) for record in json.loads(text)]


@contextmanager
def pinned(core: int | None) -> Iterator[int]:
    """Pin this process to one processor, and PyTorch to one thread. Default: the last processor that this process may use.

    Raises
    ------
    ValueError
        If this process may not use that processor.
    """
    import torch

    allowed, threads = os.sched_getaffinity(0), torch.get_num_threads()
    chosen = max(allowed) if core is None else core
    if chosen not in allowed:
        raise ValueError(f"core is {chosen}, expected one that this process may use: {sorted(allowed)}")
    os.sched_setaffinity(0, {chosen})
    torch.set_num_threads(1)
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, allowed)
        torch.set_num_threads(threads)


def begin(bench: str, **settings: Any) -> dict[str, Any]:
    """Start a record: date, commit, machine, compiler, flags and load, then the settings."""
    return {
        "bench": bench,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": describe_machine()
        | {"system": platform.platform(), "flags": _core.flags, "load_average_at_start": os.getloadavg()},
        **settings,
    }


def write(record: dict[str, Any], folder: Path, figure: bytes) -> list[Path]:
    """Write the record as JSON and its figure as PNG into `folder`, and return the paths.

    The names consist of the bench, its shape if it has only one, the date and the commit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = "-".join(
        [record["bench"], *([record["shape"]] if "shape" in record else []), record["date"][:10], record["commit"][:7]]
    )
    contents = {f"{stem}.json": (json.dumps(record, indent=1) + "\n").encode(), f"{stem}.png": figure}
    for name, content in contents.items():
        with atomic_write(folder / name) as file:
            file.write(content)
    return [folder / name for name in contents]


def median(values: Sequence[float]) -> float:
    """Return the middle value."""
    return float(statistics.median(values))


def geometric_mean(values: Sequence[float]) -> float:
    """Return exp(mean(log))."""
    return float(np.exp(np.mean(np.log(values))))


def _commit() -> str:
    """Return the commit of the repository that this package lies in, with "+changes" if files differ from it; "unknown" if
    there is no repository."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
