"""What all benches share: motifs, cells, pinning to one processor, peers held to the engine's instruction set, and the record
with machine and settings."""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

import spd_fast._core as _core
from spd_fast.base.files import atomic_write
from spd_fast.base.machine import describe_machine
from spd_fast.motif import MOTIF_A, MOTIF_B, MOTIF_C, MotifShape
from spd_fast.recipes.known import get
from spd_fast.spaces.cell import Cell

__all__ = [
    "ALL",
    "BATCH",
    "MOTIFS",
    "BenchMotif",
    "begin",
    "bench_cells",
    "geometric_mean",
    "hold_peers",
    "median",
    "motifs_named",
    "pinned",
    "write",
]


@dataclass(frozen=True)
class BenchMotif:
    """A motif that the benches train: its shape, and the side of its images in pixels."""

    shape: MotifShape
    side: int


def _trained_by(recipe: str) -> BenchMotif:
    settings = get(recipe)
    assert isinstance(settings.shape, MotifShape)  # the recipe is one of cells
    return BenchMotif(settings.shape, settings.dish.image_size)


MOTIFS: Final[dict[str, BenchMotif]] = {
    "A": BenchMotif(MOTIF_A, 16),
    "B": BenchMotif(MOTIF_B, 16),
    "C": BenchMotif(MOTIF_C, 16),
    "S": _trained_by("curves"),
}
"""The paper's motifs, and S, the motif that ranking trains first (recipe `curves`)."""
ALL: Final = "".join(MOTIFS)
BATCH: Final = 20
"""Images in a batch, of the paper's inner loop and of the recipe `curves`."""
PEERS: Final[dict[str, dict[str, str]]] = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    },
    "baseline": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2",
    },
}
"""Environment variables that hold PyTorch, oneDNN, MKL and XLA to an instruction set of the engine."""


def hold_peers() -> dict[str, str]:
    """Hold PyTorch and JAX to the instruction set that the environment variable SPD_FAST_ISA forces the engine to, so that both sides may
    use the same instructions. Without that variable every side takes the best that the processor has.

    Returns
    -------
    dict of str to str
        The environment variables that hold them; empty if nothing is forced.

    Raises
    ------
    RuntimeError
        If one of them is loaded already and was not held: it looks at the processor once, when it is loaded.
    """
    wanted = PEERS.get(_core.isa, {}) if os.environ.get("SPD_FAST_ISA") else {}
    missing = {name: value for name, value in wanted.items() if value not in os.environ.get(name, "").split()}
    loaded = sorted({"torch", "jax"} & set(sys.modules))
    if missing and loaded:
        settings = " ".join(f"{name}={value}" for name, value in wanted.items())
        raise RuntimeError(
            f"the engine is held to {_core.isa}, but {' and '.join(loaded)} was loaded before this bench and is not: start Python "
            f"with {settings}, or run the bench before anything loads it"
        )
    for name, value in missing.items():
        kept = os.environ.get(name, "") if name == "XLA_FLAGS" else ""
        os.environ[name] = f"{kept} {value}".strip()
    return wanted


def motifs_named(letters: str) -> dict[str, BenchMotif]:
    """Return the motifs of some letters of ABCS.

    Raises
    ------
    ValueError
        If there is no such motif.
    """
    if not letters or set(letters) - set(MOTIFS):
        raise ValueError(f"shapes are {letters!r}, expected letters of {ALL} such as C or AB")
    return {letter: MOTIFS[letter] for letter in letters}


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
    """Hold peers to the engine's instruction set, and start a record: date, commit, machine, compiler, flags, load and what
    holds the peers, then the settings.

    Raises
    ------
    RuntimeError
        As `hold_peers`.
    """
    held = hold_peers()
    return {
        "bench": bench,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": describe_machine()
        | {"system": platform.platform(), "flags": _core.flags, "load_average_at_start": os.getloadavg()},
        "peers_held_by": held,
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
