"""Seconds per inner epoch on one pinned thread: the engine beside PyTorch eager, NCHW and channels_last, in one run.

An epoch is the paper's: 200 images of 3 x 16 x 16 pixels in batches of 20, Adam. First the step losses of all three are compared;
then they are timed in turns, so that whatever else the machine does meets all alike. PyTorch runs the same motif as the
tests' witness, with its fastest Adam (fused), gathering batches by index as the engine does, and without accuracies.

    python bench/inner.py                      # A, B and C, a few minutes
    python bench/inner.py --shapes C --rounds 3
"""

# ruff: noqa: E402 -- the environment and the path are set before PyTorch and the witness are imported

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch starts its pool
sys.path.insert(0, str(HERE.parent))

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table

import spd_fast
from spd_fast import (
    MOTIF_A,
    MOTIF_B,
    MOTIF_C,
    Adam,
    Cell,
    Dish,
    MotifShape,
    _core,
    count_flops,
    train_motifs,
)
from spd_fast.bench import witness
from spd_fast.train import initial_parameters

SHAPES = {"A": MOTIF_A, "B": MOTIF_B, "C": MOTIF_C}
SIDE, IMAGES, BATCH = 16, 200, 20
LR, WEIGHT_DECAY = 5e-5, 1e-6
ENGINE_EPOCHS = 10  # in one call, as a user's call trains many; its set-up is part of the time
CONTENDERS = ("spd_fast", "PyTorch NCHW", "PyTorch channels_last")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
LOSS_TOLERANCE = 1e-4  # relative, of ten steps in float32: 1e-6 is usual, and a switched ReLU may move it


def main() -> None:
    arguments = parse_arguments()
    os.sched_setaffinity(0, {arguments.core})
    torch.set_num_threads(1)
    cells = [Cell.from_json(record) for record in read_records(arguments.cells)]
    dish = Dish.random(per_class=IMAGES // 10, image_size=SIDE)
    order = np.random.default_rng(0).permutation(IMAGES)[None]
    record: dict[str, Any] = describe_run(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    peaks = [_core.fma_peak(0.2)]
    for name in arguments.shapes:
        rows = [
            measure(cell, SHAPES[name], dish, order, arguments.rounds, CLOCKS[arguments.clock])
            for cell in track(cells, f"motif {name}", console=console, transient=True)
        ]
        peaks.append(_core.fma_peak(0.2))
        record["shapes"][name] = {"cells": rows, **summarised(rows, max(peaks))}
        console.print(drawn(name, rows, max(peaks)))
    record["fma_peak_gflops"] = [peak / 1e9 for peak in peaks]
    console.print(drawn_summary(record))
    out = arguments.out or HERE / "results" / f"inner-{record['date'][:10]}-{record['commit'][:7]}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    console.print(f"written to {out}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cells", type=Path, default=HERE / "cells.json", help="JSON list of cells (default: the 12 here)"
    )
    parser.add_argument("--shapes", type=list, default=list(SHAPES), metavar="ABC", help="motif shapes (default: ABC)")
    parser.add_argument("--rounds", type=int, default=7, help="times that each is timed (default: 7)")
    parser.add_argument(
        "--core", type=int, default=max(os.sched_getaffinity(0)), help="processor to pin to (default: the last)"
    )
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: of a machine that is busy otherwise (default: wall)"
    )
    parser.add_argument("--out", type=Path, help="JSON file (default: bench/results/inner-DATE-COMMIT.json)")
    arguments = parser.parse_args()
    unknown = set(arguments.shapes) - set(SHAPES)
    if unknown or arguments.rounds < 1:
        parser.error("--shapes takes letters of ABC, --rounds at least 1")
    return arguments


def read_records(path: Path) -> list[Any]:
    records = json.loads(path.read_text())
    return records["cells"] if isinstance(records, dict) else records


def measure(
    cell: Cell, shape: MotifShape, dish: Dish, order: np.ndarray, rounds: int, clock: Callable[[], float]
) -> dict[str, Any]:
    """Verify, then time: seconds per epoch of each contender, one entry a round."""
    weights = initial_parameters(cell, shape)
    orders = np.repeat(order, ENGINE_EPOCHS, axis=0)
    settings = {
        "batch_size": BATCH,
        "optimizer": Adam(lr=LR, weight_decay=WEIGHT_DECAY),
        "threads": 1,
        "evaluate": False,
    }

    def engine() -> None:
        train_motifs([cell], shape, dish, epochs=ENGINE_EPOCHS, init=[weights], order=orders, **settings)

    epochs: dict[str, Callable[[], Any]] = {"spd_fast": engine}
    first = train_motifs([cell], shape, dish, epochs=1, init=[weights], order=order, record=["step_loss"], **settings)
    losses = {"spd_fast": first.recorded["step_loss"][0]}
    for name, layout in (("PyTorch NCHW", torch.contiguous_format), ("PyTorch channels_last", torch.channels_last)):
        epochs[name] = pytorch_epoch(cell, shape, weights, dish, order[0], layout)
        losses[name] = epochs[name]()
    apart = max(np.abs(other / losses["spd_fast"] - 1).max() for other in losses.values())
    if not apart <= LOSS_TOLERANCE:
        raise SystemExit(
            f"step losses of {cell!r} are {apart:.1e} apart, expected {LOSS_TOLERANCE:.0e}: not timing what is wrong"
        )
    for epoch in epochs.values():  # warm-up
        epoch()
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds):
        for name, epoch in epochs.items():
            started = clock()
            epoch()
            seconds[name].append((clock() - started) / (ENGINE_EPOCHS if name == "spd_fast" else 1))
    return {
        "cell": {"matrix": ["".join(map(str, row)) for row in cell.matrix], "ops": cell.ops},
        "gflop_per_epoch": flop_per_epoch(cell, shape) / 1e9,
        "losses_apart": float(apart),
        "seconds_per_epoch": seconds,
    }


def pytorch_epoch(
    cell: Cell, shape: MotifShape, weights: Any, dish: Dish, order: np.ndarray, layout: torch.memory_format
) -> Callable[[], np.ndarray]:
    """A function that trains on for one epoch and returns the step losses."""
    module = witness.build(cell, shape, weights, dtype=torch.float32).to(memory_format=layout)
    images = torch.tensor(dish.images).to(memory_format=layout)
    labels, batches = torch.tensor(dish.labels), torch.tensor(order).split(BATCH)
    optimizer = torch.optim.Adam(module.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)

    def epoch() -> np.ndarray:
        losses = []
        for batch in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(module(images[batch].contiguous(memory_format=layout)), labels[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).double().numpy()

    return epoch


def flop_per_epoch(cell: Cell, shape: MotifShape) -> int:
    """Forward, data gradient and weight gradient of convolutions and dense; no gradient in the images."""
    stem = 2 * SIDE**2 * 9 * shape.image_channels * shape.stem_channels
    return IMAGES * (3 * count_flops(cell, shape, SIDE) - stem)


def medians(row: dict[str, Any]) -> list[float]:
    return [statistics.median(row["seconds_per_epoch"][name]) for name in CONTENDERS]


def geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def summarised(rows: Sequence[dict[str, Any]], peak: float) -> dict[str, Any]:
    times = np.array([medians(row) for row in rows])
    ratios = times[:, 1:] / times[:, :1]
    gflops = sum(row["gflop_per_epoch"] for row in rows) / times[:, 0].sum()
    return {
        "mean_seconds_per_epoch": dict(zip(CONTENDERS, times.mean(axis=0).tolist(), strict=True)),
        "speedup_geometric_mean": {
            CONTENDERS[1]: geometric_mean(ratios[:, 0]),
            CONTENDERS[2]: geometric_mean(ratios[:, 1]),
            "the better of each cell": geometric_mean(ratios.min(axis=1)),
        },
        "speedup_least": float(ratios.min()),
        "gflops": gflops,
        "share_of_fma_peak": gflops * 1e9 / peak,
    }


def drawn(name: str, rows: Sequence[dict[str, Any]], peak: float) -> Table:
    table = Table(title=f"motif {name}: milliseconds per inner epoch, median (least to most)")
    for heading in ("cell", "GFLOP", *CONTENDERS, "x NCHW", "x better", "GFLOP/s", "of peak"):
        table.add_column(heading, justify="left" if heading == "cell" else "right")
    for row in rows:
        times = medians(row)
        spread = [row["seconds_per_epoch"][contender] for contender in CONTENDERS]
        rate = row["gflop_per_epoch"] / times[0]
        table.add_row(
            Cell.from_json(row["cell"]).module_hash[:8],
            f"{row['gflop_per_epoch']:.2f}",
            *(f"{1e3 * t:.3g} ({1e3 * min(s):.3g} to {1e3 * max(s):.3g})" for t, s in zip(times, spread, strict=True)),
            f"{times[1] / times[0]:.1f}",
            f"{min(times[1:]) / times[0]:.1f}",
            f"{rate:.0f}",
            f"{rate * 1e9 / peak:.2f}",
        )
    return table


def drawn_summary(record: dict[str, Any]) -> Table:
    table = Table(title=f"{record['machine']['processor']}, one thread, {record['isa']}, {record['unit']}")
    headings = (
        "motif",
        *(f"{name}, s" for name in CONTENDERS),
        "x NCHW",
        "x channels_last",
        "x better",
        "least",
        "GFLOP/s",
        "of peak",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "motif" else "right")
    for name, shape in record["shapes"].items():
        table.add_row(
            name,
            *(f"{seconds:.4f}" for seconds in shape["mean_seconds_per_epoch"].values()),
            *(f"{ratio:.1f}" for ratio in shape["speedup_geometric_mean"].values()),
            f"{shape['speedup_least']:.1f}",
            f"{shape['gflops']:.0f}",
            f"{shape['share_of_fma_peak']:.2f}",
        )
    return table


def describe_run(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "bench": "inner",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {"processor": processor(), "processors": os.cpu_count(), "system": platform.platform()},
        "pinned_to": arguments.core,
        "threads": 1,
        "load_average_at_start": os.getloadavg(),
        "spd_fast": spd_fast.__version__,
        "isa": _core.isa,
        "compiler": _core.compiler,
        "flags": getattr(_core, "flags", None),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "images": [IMAGES, 3, SIDE, SIDE],
        "batch_size": BATCH,
        "rounds": arguments.rounds,
        "unit": f"seconds per epoch ({arguments.clock} clock)",
        "shapes": {},
    }


def commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", HERE, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
