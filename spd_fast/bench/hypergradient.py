"""The bench of hypergradients: how exact they are in float32, what a reverse step costs, and what a long training costs.

A training step has a reverse step, which carries the derivative back through it. The bench differentiates the loss after T steps of
Adam in the images: 200 of 3 x 16 x 16 pixels, in batches of 20. PyTorch differentiates the same training in the same run
(`spd_fast.reference.pytorch.unrolled`, by autograd with `create_graph`).
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.table import Table

from spd_fast.base.progress import counter_of
from spd_fast.base.types import Array, Progress
from spd_fast.bench import record as records
from spd_fast.bench.inner import CLOCKS
from spd_fast.dish import Dish
from spd_fast.engine.hypergradient import motif_hypergradient
from spd_fast.engine.initial import initial_parameters
from spd_fast.engine.optimizers import Adam
from spd_fast.engine.training import train_motifs
from spd_fast.motif import MotifShape
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.cell_files import random_cells

__all__ = [
    "ENGINE",
    "PYTORCH",
    "run",
    "tables",
]

ENGINE, DIRECT, PYTORCH = "spd_fast", "spd_fast, direct convolutions", "PyTorch"
"""Names of what is timed. Direct convolutions round as a plain sum does."""
IMAGES: Final = 200
LR: Final = 1e-3
STEPS_COMPARED: Final = 10
"""Steps through which accuracy is compared: for many cells, PyTorch's float32 and double are comparable up to here."""
LONG_STEPS: Final = 1000
VERIFIED: Final = 1e-8
"""Largest relative difference of the engine's derivative in double from PyTorch's, through `STEPS_VERIFIED` steps."""
STEPS_VERIFIED: Final = 3
"""So few steps that no gradient is so small that rounding decides its sign."""


def run(
    cells: Sequence[Cell],
    shapes: str = records.ALL,
    *,
    steps: int = 100,
    rounds: int = 3,
    peers: int = 4,
    compared: int = 30,
    long: int = 6,
    long_steps: int = LONG_STEPS,
    tolerance: float = VERIFIED,
    core: int | None = None,
    clock: str = "wall",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Verify the engine against PyTorch in double, then measure its accuracy in float32, then time it, on one pinned thread.

    Parameters
    ----------
    cells : sequence of Cell
        The cells whose training and hypergradient are timed, in turns.
    shapes : str
        Motifs, letters of ABCS.
    steps : int, a multiple of 10
        Number of inner steps that are timed.
    rounds : int
        How often the engine is timed; the median counts. PyTorch is timed once.
    peers : int
        How many of `cells`, spread evenly over them, PyTorch differentiates as well. It keeps all activations of all steps in
        memory.
    compared : int
        Number of random cells on which float32 is compared with double, through 10 steps.
    long : int
        How many of `cells`, spread evenly over them, are differentiated through `long_steps` steps as motif C, each in its
        own process.
    long_steps : int
    tolerance : float
        Largest relative error of the engine's double against PyTorch's, after 3 steps.
    core, clock, progress
        As in `spd_fast.bench.inner.run`.

    Returns
    -------
    dict
        The record: for each shape ``cells``, ``accuracy`` and summaries of both; and ``long``.

    Raises
    ------
    ValueError
        If an argument does not fit.
    RuntimeError
        If the engine's derivative in double differs from PyTorch's.
    """
    motifs = records.motifs_named(shapes)
    if steps < 10 or steps % 10 or rounds < 1 or min(peers, compared, long) < 0 or clock not in CLOCKS:
        raise ValueError(
            f"steps {steps}, rounds {rounds}, peers {peers}, compared {compared}, long {long}, clock {clock!r}: expected a "
            "multiple of 10, at least 1, at least 0 each, 'wall' or 'cpu'"
        )
    advance = counter_of(progress, len(motifs) * (len(cells) + compared) + 4 * long)
    record = records.begin(
        "hypergradient",
        threads=1,
        images=IMAGES,
        batch_size=records.BATCH,
        steps=steps,
        rounds=rounds,
        clock=clock,
        long_steps=long_steps,
        shapes={},
    )
    with records.pinned(core) as chosen:
        record["pinned_to"] = chosen
        for letter, motif in motifs.items():
            shape, dish = motif.shape, _dish(motif)
            _verify(cells[0], shape, dish, tolerance)
            accuracy = []
            for cell in random_cells(compared, seed=1):
                accuracy.append(_accuracy(cell, shape, dish))
                advance(1)
            timed = []
            with_peer = _spread(cells, peers)
            for cell in cells:
                timed.append(_time(cell, shape, dish, steps, rounds, CLOCKS[clock], cell in with_peer))
                advance(1)
            record["shapes"][letter] = {"accuracy": accuracy, "cells": timed, **_summarised(accuracy, timed)}
        record["long"] = _long(_spread(cells, long), long_steps, advance)
    return record


def _spread(cells: Sequence[Cell], n: int) -> list[Cell]:
    """Return `n` of the cells, evenly spread over their order, which is that of their FLOPs."""
    return [cells[round(i)] for i in np.linspace(0, len(cells) - 1, min(n, len(cells)))]


def _engine(
    cell: Cell, shape: MotifShape, dish: Dish, steps: int, dtype: str = "float32", *, direct_convolutions: bool = False
) -> Array:
    order = _order(len(dish.images), steps)
    found = motif_hypergradient(
        [cell],
        shape,
        dish,
        metric="loss",
        epochs=len(order),
        steps=steps,
        batch_size=records.BATCH,
        optimizer=Adam(LR),
        init=[_weights(cell, shape, dtype)],
        order=order,
        threads=1,
        dtype=dtype,
        direct_convolutions=direct_convolutions,
    )
    return np.asarray(found.d_images[0])


def _pytorch(cell: Cell, shape: MotifShape, dish: Dish, steps: int, dtype: str = "float32") -> Array:
    import torch

    from spd_fast.reference import pytorch as reference

    module = reference.build(cell, shape, _weights(cell, shape, dtype), dtype=getattr(torch, dtype))
    arrays = {"images": dish.images, "labels": np.eye(shape.classes)[dish.labels]}
    batches = _order(len(dish.images), steps).reshape(-1, records.BATCH)[:steps]
    value, leaves = reference.unrolled(module, arrays, batches, optimizer="adam", rates=[LR] * steps)
    (found,) = torch.autograd.grad(value, [leaves["images"]])
    return np.asarray(found.numpy())


def _weights(cell: Cell, shape: MotifShape, dtype: str) -> dict[str, Array]:
    """Return initial weights: the same numbers in both precisions."""
    return {name: w.astype(dtype) for name, w in initial_parameters(cell, shape).items()}


def _order(n: int, steps: int) -> npt.NDArray[np.int64]:
    """Return the sample orders of as many epochs as the steps need, shape (epochs, n)."""
    epochs = -(-steps // (n // records.BATCH))
    return np.stack([np.random.default_rng(epoch).permutation(n) for epoch in range(epochs)])


# ---- accuracy


def _verify(cell: Cell, shape: MotifShape, dish: Dish, tolerance: float) -> None:
    ours, theirs = (f(cell, shape, dish, STEPS_VERIFIED, "float64") for f in (_engine, _pytorch))
    error = _distance(ours, theirs)["relative_error"]
    if not error <= tolerance:
        raise RuntimeError(
            f"the hypergradient of {cell!r} is off by {error:.1e}, expected {tolerance:.0e} at most: wrong results are not timed"
        )


def _accuracy(cell: Cell, shape: MotifShape, dish: Dish) -> dict[str, Any]:
    exact = _engine(cell, shape, dish, STEPS_COMPARED, "float64")
    found = {
        ENGINE: _engine(cell, shape, dish, STEPS_COMPARED),
        DIRECT: _engine(cell, shape, dish, STEPS_COMPARED, direct_convolutions=True),
        PYTORCH: _pytorch(cell, shape, dish, STEPS_COMPARED),
    }
    return {"hash": cell.module_hash} | {name: _distance(d, exact) for name, d in found.items()}


def _distance(d: Array, exact: Array) -> dict[str, float]:
    """Return how far a derivative is from the exact one: |d - exact| / |exact|, and the cosine of the angle between them."""
    a, b = d.ravel().astype(np.float64), exact.ravel()
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return {
        "relative_error": float(np.linalg.norm(a - b) / np.linalg.norm(b)),
        "cosine": float(a @ b / norms) if norms else 0.0,
    }


# ---- time


def _time(
    cell: Cell, shape: MotifShape, dish: Dish, steps: int, rounds: int, clock: Callable[[], float], peer: bool
) -> dict[str, Any]:
    """Return the seconds of a training and of the hypergradient through it, with one entry for each round."""
    order = _order(len(dish.images), steps)

    def train() -> None:
        train_motifs(
            [cell],
            shape,
            dish,
            epochs=len(order),
            batch_size=records.BATCH,
            optimizer=Adam(LR),
            order=order,
            threads=1,
            evaluate=False,
        )

    contenders: dict[str, Callable[[], object]] = {
        "training": train,
        ENGINE: lambda: _engine(cell, shape, dish, steps),
        DIRECT: lambda: _engine(cell, shape, dish, steps, direct_convolutions=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(rounds + 1):  # the first round warms up and is not counted
        for name, once in contenders.items():
            taken = _seconds(once, clock)
            if round_:
                seconds[name].append(taken)
    if peer:
        _pytorch(cell, shape, dish, STEPS_VERIFIED)
        seconds[PYTORCH] = [_seconds(lambda: _pytorch(cell, shape, dish, steps), clock)]
    trained = records.median(seconds["training"]) * steps / (len(order) * (len(dish.images) // records.BATCH))
    whole = records.median(seconds[ENGINE])
    return {
        "cell": cell.to_json(),
        "hash": cell.module_hash,
        "seconds": seconds,
        "training_step": trained / steps,
        "reverse_step": (whole - trained) / steps,
    }


def _seconds(once: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    once()
    return clock() - started


def _long(cells: Sequence[Cell], steps: int, advance: Callable[[int], None]) -> list[dict[str, Any]]:
    """Differentiate motifs C through many steps, one after the other, on the processor that this process is pinned to."""
    context = multiprocessing.get_context("spawn")
    found = []
    for cell in cells:
        with ProcessPoolExecutor(1, context) as pool:
            found.append({"hash": cell.module_hash} | pool.submit(_long_one, cell.to_json(), steps).result())
        advance(4)
    return found


def _long_one(cell: dict[str, Any], steps: int) -> dict[str, float]:
    """Return wall and processor seconds of one motif, and by how many MiB the peak of this process's memory exceeds what it
    had at the start. Runs in a process of its own."""
    motif = records.MOTIFS["C"]
    own, shape, dish = Cell.from_json(cell), motif.shape, _dish(motif)
    before = _memory("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    _engine(own, shape, dish, steps)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = _memory("VmHWM")
    return {"seconds": wall, "cpu_seconds": cpu, "more_mib": peak - before, "process_mib": peak}


def _dish(motif: records.BenchMotif) -> Dish:
    return Dish.random(per_class=IMAGES // 10, image_size=motif.side)


def _memory(name: str) -> float:
    """Return the MiB of this process's memory, by Linux's name: now (VmRSS), or at most so far (VmHWM).

    `getrusage` would include the memory of the process that started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) / 1024


# ---- summaries and tables


def _summarised(accuracy: Sequence[dict[str, Any]], timed: Sequence[dict[str, Any]]) -> dict[str, Any]:
    direct_convolutions = [
        records.median(row["seconds"][DIRECT]) / records.median(row["seconds"][ENGINE]) for row in timed
    ]
    ratios = [row["reverse_step"] / row["training_step"] for row in timed]
    faster = [
        row["seconds"][PYTORCH][0] / records.median(row["seconds"][ENGINE])
        for row in timed
        if PYTORCH in row["seconds"]
    ]
    summary: dict[str, Any] = {
        "reverse_over_training": {"median": records.median(ratios), "least": min(ratios), "most": max(ratios)},
        "direct_over_default": records.geometric_mean(direct_convolutions),
        "training_step": float(np.mean([row["training_step"] for row in timed])),
        "reverse_step": float(np.mean([row["reverse_step"] for row in timed])),
    }
    if faster:
        summary["speedup"] = {"geometric_mean": records.geometric_mean(faster), "least": min(faster)}
    if accuracy:
        summary["float32"] = {
            name: {
                measure: {
                    "median": float(np.median(values)),
                    "worst_tenth": float(np.quantile(values, 0.9 if measure == "relative_error" else 0.1)),
                    "worst": float(max(values) if measure == "relative_error" else min(values)),
                }
                for measure in ("relative_error", "cosine")
                for values in [[row[name][measure] for row in accuracy]]
            }
            for name in (ENGINE, DIRECT, PYTORCH)
        }
    return summary


def tables(record: dict[str, Any]) -> list[Table]:
    """Return the record as tables: accuracy, times beside PyTorch, and the long trainings."""
    shapes, machine = record["shapes"], record["machine"]
    where = f"{machine['processor']}, one thread, {machine['instruction_set']}, {record['clock']} clock"
    out = []
    if all("float32" in shape for shape in shapes.values()):
        n = len(next(iter(shapes.values()))["accuracy"])
        out.append(_accuracy_table(shapes, f"float32 against double, {n} random cells, {STEPS_COMPARED} steps of Adam"))
    table = Table(title=f"through {record['steps']} steps, {where}", title_justify="left")
    for i, heading in enumerate(
        (
            "motif",
            "training step, ms",
            "reverse step, ms",
            "reverse / training",
            "direct convolutions, x as long",
            "PyTorch, x ours",
            "least",
        )
    ):
        table.add_column(heading, justify="right" if i else "left")
    for letter, shape in shapes.items():
        ratio, speedup = shape["reverse_over_training"], shape.get("speedup")
        table.add_row(
            letter,
            f"{1e3 * shape['training_step']:.3f}",
            f"{1e3 * shape['reverse_step']:.3f}",
            f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})",
            f"{shape['direct_over_default']:.2f}",
            *((f"{speedup['geometric_mean']:.1f}", f"{speedup['least']:.1f}") if speedup else ("", "")),
        )
    out.append(table)
    if record["long"]:
        out.append(_long_table(record["long"], record["long_steps"], where))
    return out


def _accuracy_table(shapes: dict[str, Any], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    columns = [
        f"{measure}, {which}"
        for measure in ("cosine", "relative error")
        for which in ("median", "worst tenth", "worst")
    ]
    for i, heading in enumerate(("motif", "by", *columns)):
        table.add_column(heading, justify="right" if i > 1 else "left")
    for letter, shape in shapes.items():
        for name, found in shape["float32"].items():
            table.add_row(
                letter,
                name,
                *(f"{found['cosine'][which]:.6f}" for which in ("median", "worst_tenth", "worst")),
                *(f"{found['relative_error'][which]:.1e}" for which in ("median", "worst_tenth", "worst")),
            )
    return table


def _long_table(rows: Sequence[dict[str, Any]], steps: int, where: str) -> Table:
    total = sum(row["seconds"] for row in rows)
    title = f"motifs C through {steps} steps: {total:.1f} s for {len(rows)}, {where}"
    table = Table(title=title, title_justify="left")
    for i, heading in enumerate(("cell", "seconds", "of the processor", "MiB more", "MiB of the process")):
        table.add_column(heading, justify="right" if i else "left")
    for row in rows:
        table.add_row(
            row["hash"][:8],
            f"{row['seconds']:.2f}",
            f"{row['cpu_seconds']:.2f}",
            f"{row['more_mib']:.0f}",
            f"{row['process_mib']:.0f}",
        )
    return table
