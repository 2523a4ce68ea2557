"""The bench of inner epochs: the engine beside PyTorch (and JAX, if asked for) on one core, and many motifs on all cores.

An epoch has 200 images in batches of 20, with Adam: of 3 x 16 x 16 pixels for the paper's motifs A, B and C, of 3 x 8 x 8 for S, the
motif that ranking trains. The bench first compares the step losses of all
contenders. Then it times them in turns, so that other work of the machine slows all of them alike. PyTorch runs the reference
(`spd_fast.reference.pytorch`) with its fastest Adam (fused). It gathers batches by index, as the engine does, and computes no
accuracies.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

import numpy as np
from rich.table import Table

import spd_fast._core as _core
from spd_fast.base.progress import counter_of
from spd_fast.base.types import Progress
from spd_fast.bench import record as records
from spd_fast.dish import Dish
from spd_fast.engine.initial import initial_parameters
from spd_fast.engine.optimizers import Adam
from spd_fast.engine.training import train_motifs
from spd_fast.motif import MotifShape, count_flops
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.cell_files import random_cells

__all__ = ["CLOCKS", "OURS", "run", "tables"]

OURS: Final = "spd_fast"
LAYOUTS: Final = {"PyTorch NCHW": "contiguous_format", "PyTorch channels_last": "channels_last"}
JAX: Final = "JAX"
DEFAULT_ADAM: Final = "PyTorch NCHW, default Adam"
IMAGES: Final = 200
LR, WEIGHT_DECAY = 5e-5, 1e-6
ENGINE_EPOCHS: Final = 10
"""Epochs in one call of the engine. The time includes the call's set-up."""
MANY_EPOCHS: Final = 5
"""Epochs of each of many motifs. Users train motifs for tens of epochs, so that set-up is a smaller part of their time."""
TEAM_CELLS: Final = 4
"""Number of the bench's cells, spread evenly, that are trained one at a time on all cores."""
CLOCKS: Final[dict[str, Callable[[], float]]] = {"wall": time.perf_counter, "cpu": time.process_time}
LOSS_TOLERANCE: Final = 1e-3
"""Largest relative difference of step losses in the first ten steps, in float32. 1e-7 is usual. If a gradient is so small that rounding
decides its sign, Adam nevertheless changes the weight by a whole step, which has changed a loss by 1e-4."""

Epoch = Callable[[], np.ndarray[Any, Any]]


def run(
    cells: Sequence[Cell],
    shapes: str = records.ALL,
    *,
    rounds: int = 7,
    jax: bool = False,
    default_adam: bool = False,
    many: int = 64,
    tolerance: float = LOSS_TOLERANCE,
    core: int | None = None,
    clock: str = "wall",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time an inner epoch of the motif of each cell on one pinned thread, then of `many` random cells on all processors.

    Parameters
    ----------
    cells : sequence of Cell
    shapes : str
        Motifs, letters of ABCS.
    rounds : int
        How often each contender is timed, in turns; the median counts.
    jax : bool
        Whether to time JAX, too. It must be installed. Its compilation, 2 to 4 s for each cell, is not counted.
    default_adam : bool
        Whether to time PyTorch NCHW also with its default Adam. Everywhere else PyTorch uses the fused Adam, which is faster.
    many : int
        Number of random cells that are trained side by side, by the engine and by as many PyTorch processes as there are
        processors. After that, a few of `cells` are trained one at a time on all processors. 0 leaves out both.
    tolerance : float
        How far the step losses of what is timed may be apart, relatively.
    core : int, optional
        Processor to pin to. Default: the last one that this process may use.
    clock : "wall" or "cpu"
        The clock of the first part: "cpu" on a machine that is busy with other work. The `many` are timed by the wall clock.
    progress : callable, optional
        It is called with the share of the work that is done, 0 to 1.

    Returns
    -------
    dict
        The record: for each shape ``cells`` with ``seconds_per_epoch`` by contender and round, their means, speed-ups and
        rates, and ``many`` and ``team``.

    Raises
    ------
    ValueError
        If an argument does not fit.
    ImportError
        If JAX is asked for and not installed.
    RuntimeError
        If the step losses of a contender differ from those of the engine.
    """
    motifs = records.motifs_named(shapes)
    if rounds < 1 or many < 0 or clock not in CLOCKS:
        raise ValueError(
            f"rounds {rounds}, many {many}, clock {clock!r}: expected at least 1, at least 0, 'wall' or 'cpu'"
        )
    dishes = {letter: Dish.random(per_class=IMAGES // 10, image_size=motif.side) for letter, motif in motifs.items()}
    order = np.random.default_rng(0).permutation(IMAGES)
    advance = counter_of(progress, len(motifs) * (len(cells) + (2 if many else 0)))
    record = records.begin(
        "inner",
        threads=1,
        images=IMAGES,
        batch_size=records.BATCH,
        rounds=rounds,
        unit=f"seconds per epoch ({clock} clock)",
        shapes={},
    )
    with records.pinned(core) as chosen:
        record["pinned_to"] = chosen
        peaks = [_core.fma_peak(0.2)]
        for letter, motif in motifs.items():
            rows = []
            for cell in cells:
                contenders = _contenders(cell, motif.shape, dishes[letter], order, jax, default_adam)
                rows.append(_measure(cell, motif, contenders, rounds, CLOCKS[clock], tolerance))
                advance(1)
            peaks.append(_core.fma_peak(0.2))
            record["shapes"][letter] = {"side": motif.side, "cells": rows, **_summarised(rows, max(peaks))}
        record["fma_peak_gflops"] = [peak / 1e9 for peak in peaks]
    if many:
        for letter, motif in motifs.items():
            shape, dish = motif.shape, dishes[letter]
            record["shapes"][letter]["many"] = _measure_many(
                random_cells(many, seed=0), shape, dish, order, min(rounds, 3)
            )
            spread = [cells[i] for i in np.unique(np.linspace(0, len(cells) - 1, TEAM_CELLS, dtype=int))]
            record["shapes"][letter]["team"] = _measure_team(spread, shape, dish, order, rounds)
            advance(2)
    return record


def _settings(threads: int) -> dict[str, Any]:
    optimizer = Adam(lr=LR, weight_decay=WEIGHT_DECAY)
    return {"batch_size": records.BATCH, "optimizer": optimizer, "threads": threads, "evaluate": False}


def _contenders(
    cell: Cell, shape: MotifShape, dish: Dish, order: np.ndarray[Any, Any], jax: bool, default_adam: bool
) -> dict[str, Epoch]:
    """Return what is compared and timed, by name."""
    weights = initial_parameters(cell, shape)

    def engine() -> np.ndarray[Any, Any]:
        orders = np.repeat(order[None], ENGINE_EPOCHS, axis=0)
        return train_motifs(
            [cell],
            shape,
            dish,
            epochs=ENGINE_EPOCHS,
            init=[weights],
            order=orders,
            record=["step_loss"],
            **_settings(1),
        ).recorded["step_loss"][0, : IMAGES // records.BATCH]

    contenders: dict[str, Epoch] = {OURS: engine}
    for name, layout in LAYOUTS.items():
        contenders[name] = _pytorch_epoch(cell, shape, weights, dish, order, layout)
    if default_adam:
        contenders[DEFAULT_ADAM] = _pytorch_epoch(cell, shape, weights, dish, order, "contiguous_format", fused=None)
    if jax:
        from spd_fast.reference.jax import epoch

        contenders[JAX] = epoch(cell, shape, weights, dish, order, records.BATCH, lr=LR, weight_decay=WEIGHT_DECAY)
    return contenders


def _measure(
    cell: Cell,
    motif: records.BenchMotif,
    contenders: dict[str, Epoch],
    rounds: int,
    clock: Callable[[], float],
    tolerance: float,
) -> dict[str, Any]:
    """Compare the step losses, then return the seconds per epoch of each contender, with one entry for each round."""
    losses = {name: run_once() for name, run_once in contenders.items()}  # these epochs also warm up
    apart = max(float(np.abs(other / losses[OURS] - 1).max()) for other in losses.values())
    if not apart <= tolerance:
        raise RuntimeError(
            f"step losses of {cell!r} are {apart:.1e} apart, expected {tolerance:.0e} at most: wrong results are not timed"
        )
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run_once in contenders.items():
            started = clock()
            run_once()
            seconds[name].append((clock() - started) / (ENGINE_EPOCHS if name == OURS else 1))
    return {
        "cell": cell.to_json(),
        "hash": cell.module_hash,
        "gflop_per_epoch": _flop_per_epoch(cell, motif) / 1e9,
        "losses_apart": apart,
        "seconds_per_epoch": seconds,
    }


def _pytorch_epoch(
    cell: Cell,
    shape: MotifShape,
    weights: Any,
    dish: Dish,
    order: np.ndarray[Any, Any],
    layout: str,
    fused: bool | None = True,
) -> Epoch:
    """Return a function that trains for one more epoch and returns the step losses."""
    import torch
    import torch.nn.functional as F

    from spd_fast.reference import pytorch as reference

    memory_format: torch.memory_format = getattr(torch, layout)
    module = reference.build(cell, shape, weights, dtype=torch.float32).to(memory_format=memory_format)  # type: ignore[call-overload]
    images = torch.tensor(dish.images).to(memory_format=memory_format)
    labels = torch.tensor(dish.labels)
    batches = [torch.tensor(order[i : i + records.BATCH]) for i in range(0, len(order), records.BATCH)]
    optimizer = torch.optim.Adam(module.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=fused)

    def epoch() -> np.ndarray[Any, Any]:
        losses = []
        for batch in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(module(images[batch].contiguous(memory_format=memory_format)), labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).double().numpy()

    return epoch


def _flop_per_epoch(cell: Cell, motif: records.BenchMotif) -> int:
    """Return the FLOPs of forward pass, data gradients and weight gradients of convolutions and dense layer.

    A training needs no gradient in the images, so the stem has no data gradient.
    """
    stem = 2 * motif.side**2 * 9 * motif.shape.image_channels * motif.shape.stem_channels
    return IMAGES * (3 * count_flops(cell, motif.shape, motif.side) - stem)


# ---- many motifs at once


def _measure_many(
    cells: Sequence[Cell], shape: MotifShape, dish: Dish, order: np.ndarray[Any, Any], rounds: int
) -> dict[str, Any]:
    """Return the seconds that a few epochs of all cells take, with set-up: on one thread, on all, and in PyTorch processes."""
    processors = len(os.sched_getaffinity(0))
    names = (f"{OURS}, 1 thread", f"{OURS}, {processors} threads", f"PyTorch, {processors} processes")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processors, context, _start_worker, (shape, dish, order)) as pool:
        list(
            pool.map(_pytorch_epochs_from_start, cells[: 2 * processors])
        )  # now every process has imported PyTorch and run once
        for _ in range(rounds):
            for name, threads in zip(names, (1, processors, 0), strict=True):
                started = time.perf_counter()
                if threads:
                    _train(cells, shape, dish, order, MANY_EPOCHS, threads)
                else:
                    list(pool.map(_pytorch_epochs_from_start, cells))
                seconds[name].append(time.perf_counter() - started)
    times = [records.median(seconds[name]) for name in names]
    return {
        "cells": len(cells),
        "epochs": MANY_EPOCHS,
        "processors": processors,
        "seconds": seconds,
        "motif_epochs_per_second": {
            name: len(cells) * MANY_EPOCHS / taken for name, taken in zip(names, times, strict=True)
        },
        "scaling": times[0] / times[1],
        "speedup": times[2] / times[1],
    }


def _measure_team(
    cells: Sequence[Cell], shape: MotifShape, dish: Dish, order: np.ndarray[Any, Any], rounds: int
) -> dict[str, Any]:
    """Return how many times as fast one motif trains on all cores as on one: the median ratio of each cell, measured in
    turns, and the geometric mean over cells."""
    processors = len(os.sched_getaffinity(0))
    scalings = []
    for cell in cells:
        ratios = []
        for _ in range(rounds):
            seconds = []
            for threads in (1, processors):
                started = time.perf_counter()
                _train([cell], shape, dish, order, ENGINE_EPOCHS, threads)
                seconds.append(time.perf_counter() - started)
            ratios.append(seconds[0] / seconds[1])
        scalings.append(ratios)
    return {
        "processors": processors,
        "hashes": [cell.module_hash for cell in cells],
        "scalings": scalings,
        "scaling": records.geometric_mean([records.median(ratios) for ratios in scalings]),
    }


def _train(
    cells: Sequence[Cell], shape: MotifShape, dish: Dish, order: np.ndarray[Any, Any], epochs: int, threads: int
) -> None:
    train_motifs(cells, shape, dish, epochs=epochs, order=np.repeat(order[None], epochs, axis=0), **_settings(threads))


_worker: dict[str, Any] = {}
"""The arguments with which a process of the pool was started."""


def _start_worker(shape: MotifShape, dish: Dish, order: np.ndarray[Any, Any]) -> None:
    import torch

    torch.set_num_threads(1)
    _worker.update(shape=shape, dish=dish, order=order)


def _pytorch_epochs_from_start(cell: Cell) -> None:
    """Train a motif in a process of the pool, in the memory layout that is faster for most cells."""
    weights = initial_parameters(cell, _worker["shape"])
    epoch = _pytorch_epoch(cell, _worker["shape"], weights, _worker["dish"], _worker["order"], "channels_last")
    for _ in range(MANY_EPOCHS):
        epoch()


# ---- summaries and tables


def _medians(row: dict[str, Any]) -> dict[str, float]:
    return {name: records.median(taken) for name, taken in row["seconds_per_epoch"].items()}


def _summarised(rows: Sequence[dict[str, Any]], peak: float) -> dict[str, Any]:
    times = [_medians(row) for row in rows]
    peers = [name for name in times[0] if name != OURS]
    ratios = {name: [row[name] / row[OURS] for row in times] for name in peers}
    best = [min(each) for each in zip(*ratios.values(), strict=True)]
    gflops = sum(row["gflop_per_epoch"] for row in rows) / sum(row[OURS] for row in times)
    return {
        "mean_seconds_per_epoch": {name: float(np.mean([row[name] for row in times])) for name in times[0]},
        "speedup_geometric_mean": {name: records.geometric_mean(ratio) for name, ratio in ratios.items()}
        | {"the best of each cell": records.geometric_mean(best)},
        "speedup_least": min(best),
        "gflops": gflops,
        "share_of_fma_peak": gflops * 1e9 / peak,
    }


def tables(record: dict[str, Any]) -> list[Table]:
    """Return the record as tables: one of cells for each shape, one of many motifs, and the summary."""
    peak = max(record["fma_peak_gflops"])
    out = [_cell_table(letter, shape["cells"], peak) for letter, shape in record["shapes"].items()]
    if all("many" in shape for shape in record["shapes"].values()):
        out.append(_many_table(record))
    return [*out, _summary_table(record)]


def _columns(table: Table, headings: Sequence[str]) -> Table:
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    return table


def _ms(seconds: float) -> str:
    """Return milliseconds with three digits, or all of them where there are more."""
    return f"{1e3 * seconds:.3g}" if seconds < 0.9995 else f"{1e3 * seconds:.0f}"


def _cell_table(letter: str, rows: Sequence[dict[str, Any]], peak: float) -> Table:
    names = list(rows[0]["seconds_per_epoch"])
    title = f"motif {letter}: milliseconds per inner epoch, median (least to most)"
    table = _columns(
        Table(title=title, title_justify="left"), ("cell", "GFLOP", *names, "x NCHW", "x best", "GFLOP/s", "of peak")
    )
    for row in rows:
        times, spread = _medians(row), row["seconds_per_epoch"]
        rate = row["gflop_per_epoch"] / times[OURS]
        best = min(taken for name, taken in times.items() if name != OURS)
        table.add_row(
            row["hash"][:8],
            f"{row['gflop_per_epoch']:.2f}",
            *(f"{_ms(times[n])} ({_ms(min(spread[n]))} to {_ms(max(spread[n]))})" for n in names),
            f"{times['PyTorch NCHW'] / times[OURS]:.1f}",
            f"{best / times[OURS]:.1f}",
            f"{rate:.0f}",
            f"{rate / peak:.2f}",
        )
    return table


def _many_table(record: dict[str, Any]) -> Table:
    first = next(iter(record["shapes"].values()))["many"]
    title = f"{first['cells']} random cells side by side, {first['epochs']} epochs each: motif epochs a second, set-up included"
    names = list(first["motif_epochs_per_second"])
    headings = ("motif", *names, "threads, x 1", "x PyTorch", "one motif at a time, threads, x 1")
    table = _columns(Table(title=title, title_justify="left"), headings)
    for letter, shape in record["shapes"].items():
        many = shape["many"]
        rates = (f"{rate:.1f}" for rate in many["motif_epochs_per_second"].values())
        table.add_row(
            letter, *rates, f"{many['scaling']:.2f}", f"{many['speedup']:.1f}", f"{shape['team']['scaling']:.2f}"
        )
    return table


def _summary_table(record: dict[str, Any]) -> Table:
    machine, shapes = record["machine"], record["shapes"]
    title = f"{machine['processor']}, one thread, {machine['instruction_set']}, {record['unit']}"
    first = next(iter(shapes.values()))
    ratios = [f"x {name}" for name in first["speedup_geometric_mean"]]
    headings = (
        "motif",
        *(f"{name}, s" for name in first["mean_seconds_per_epoch"]),
        *ratios,
        "least",
        "GFLOP/s",
        "of peak",
    )
    table = _columns(Table(title=title, title_justify="left"), headings)
    for letter, shape in shapes.items():
        table.add_row(
            letter,
            *(f"{seconds:.4f}" for seconds in shape["mean_seconds_per_epoch"].values()),
            *(f"{ratio:.1f}" for ratio in shape["speedup_geometric_mean"].values()),
            f"{shape['speedup_least']:.1f}",
            f"{shape['gflops']:.0f}",
            f"{shape['share_of_fma_peak']:.2f}",
        )
    return table
