"""What a piece of work costs beside its work, on a process pool, Dask and Ray: the tables of docs/many_machines.md.

    python bench/executors.py pool dask ray

Pieces that train nothing are handed out with the dish and the cells of a ranking, to two workers of this machine. What the coordinator
spends on a piece is its processor time; the wall time of a piece is that of all pieces, one after the other, divided by their number.
"""

import argparse
import json
import pickle
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import spd_fast as spd
from spd_fast.base.executors import Spread
from spd_fast.base.machine import describe_machine
from spd_fast.outer.start import start_dish
from spd_fast.predictors.readings import MotifReadings
from spd_fast.ranking.measuring import Curves
from spd_fast.scoring import train_cells
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.spaces.cell_files import random_cells

RECIPE = spd.recipes.get("curves")


def nothing(shared: Any, cells: Sequence[Any], replicate: int) -> MotifReadings:
    """Return what a piece returns, without training."""
    n = len(cells)
    return MotifReadings(np.zeros(n), np.zeros((n, 8)), np.zeros((n, RECIPE.steps)), np.zeros(n))


@contextmanager
def executor_named(name: str) -> Iterator[Any]:
    """Start two workers of a kind on this machine."""
    if name == "pool":
        with ProcessPoolExecutor(2, max_tasks_per_child=10**9) as pool:
            yield pool
    elif name == "dask":
        from distributed import Client, LocalCluster

        with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
            yield client
    else:
        import ray

        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", object_store_memory=100 * 2**20)
        yield ray
        ray.shutdown()


def of_pieces(name: str, pieces: int, cells_of_piece: int) -> dict[str, Any]:
    """Measure empty pieces."""
    cells, rows = CellColumns.from_cells(random_cells(cells_of_piece, seed=0)), np.arange(cells_of_piece)
    shared = start_dish(RECIPE), RECIPE, 1
    with executor_named(name) as executor:
        spread = Spread(executor)
        found = {}
        for round_ in ("first", "rest"):
            n = 4 if round_ == "first" else pieces
            spread._cost = spread._seconds = 0.0  # so that every job is a piece
            wall, cpu = time.perf_counter(), time.process_time()
            returned = 0
            for _ in spread.run(nothing, shared, np.full(n, 1e15), lambda *_: (cells[rows], 0)):
                spread._cost = spread._seconds = 0.0
                returned += 1
            assert returned == n
            found[round_] = (time.perf_counter() - wall) / n, (time.process_time() - cpu) / n
    return {
        "executor": name,
        "cells of a piece": cells_of_piece,
        "wall ms of a piece": 1e3 * found["rest"][0],
        "coordinator ms of a piece": 1e3 * found["rest"][1],
    }


def of_keeping(pieces: int, cells_of_piece: int) -> dict[str, Any]:
    """Measure what is done with a piece of a ranking in parts when it has come back."""
    cells = CellColumns.from_cells(random_cells(4000, seed=0))
    with tempfile.TemporaryDirectory() as folder:
        curves = Curves(cells, RECIPE, 1)
        curves.keep_in(Path(folder) / "x.parts")
        rng, began = np.random.default_rng(0), time.process_time()
        for k in range(pieces):
            rows = rng.permutation(4000)[:cells_of_piece]
            curves._keep(rows, k % 8, rng.normal(size=(cells_of_piece, 8)), rng.normal(size=cells_of_piece))
        seconds = time.process_time() - began
        curves.close()
    return {
        "keeping": "in parts",
        "cells of a piece": cells_of_piece,
        "coordinator ms of a piece": 1e3 * seconds / pieces,
    }


class Instant(Executor):
    """So many workers that take no time, and say that a motif has taken theirs."""

    def __init__(self, workers: int, seconds: float) -> None:
        self._max_workers, self.seconds, self.pieces = workers, seconds, 0
        self.rng = np.random.default_rng(0)

    def submit(self, function: Any, *arguments: Any, **_: Any) -> Any:
        """Answer at once."""
        n, future = len(arguments[3]), Future[Any]()
        self.pieces += 1
        seconds = np.full(n, self.seconds)
        read = MotifReadings(
            self.rng.normal(size=n), self.rng.normal(size=(n, 8)), np.zeros((n, RECIPE.steps)), seconds
        )
        future.set_result((float(seconds.sum()), read))
        return future


def of_space(workers: int, seconds: float) -> dict[str, Any]:
    """Measure what this process does while a cluster trains all motifs of the space, but for talking to the cluster."""
    trained, _ = spd.TruthTable.load().split(100, seed=0)
    instant = Instant(workers, seconds)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        cells = spd.nasbench101.enumerate_space()
        found = spd.rank(cells, trained.cells, trained.accuracy, executor=instant, measured=Path(folder) / "x.parts")
        ranked = time.process_time()
        found.save(Path(folder) / "x.parquet")
        return {
            "workers": workers,
            "pieces": instant.pieces,
            "coordinator s": ranked - began,
            "writing s": time.process_time() - ranked,
            "parts MB": sum(path.stat().st_size for path in (Path(folder) / "x.parts").iterdir()) / 1e6,
        }


class Weighing(Executor):
    """One worker in this process, which notes of each piece its seconds and the size of what would travel there and back."""

    def __init__(self) -> None:
        self._max_workers = 64
        self.found: list[tuple[float, int, int]] = []

    def submit(self, function: Any, *arguments: Any, **_: Any) -> Any:
        """Do the piece."""
        future, began = Future[Any](), time.process_time()
        result = function(*arguments)
        seconds = time.process_time() - began
        self.found.append((seconds, len(pickle.dumps(arguments)), len(pickle.dumps(result))))
        future.set_result(result)
        return future


def of_dish(name: str) -> dict[str, Any]:
    """Measure the pieces of the second outer epoch of a recipe."""
    recipe = spd.recipes.get(name).replace(
        {"outer.epochs": 2, "outer.validation_cells": 0, "outer.pool": None, "outer.patience": None}
    )
    cells, accuracy = (
        spd.TruthTable.load(cell_type=recipe.cell_type)
        .trainable()
        .sample(recipe.outer.cells, 0)
        .compared(recipe.outer.truth)
    )
    weighing, before = Weighing(), [0]

    def note(epoch: int, fraction: float, record: object) -> None:
        if record is not None:
            before.append(len(weighing.found))

    spd.fit_dish(cells, accuracy, recipe, executor=weighing, progress=note)
    pieces = np.array(weighing.found[before[1] :])
    return {
        "recipe": name,
        "pieces of an outer epoch": len(pieces),
        "core s of a piece": [round(float(each), 4) for each in np.quantile(pieces[:, 0], [0, 0.5, 1])],
        "core s": float(pieces[:, 0].sum()),
        "MB there": float(pieces[:, 1].sum() / 1e6),
        "MB back": float(pieces[:, 2].sum() / 1e6),
    }


def of_motifs(n: int) -> dict[str, Any]:
    """Measure the processor time of a motif of a ranking, of cells drawn evenly from the space."""
    space, dish = spd.nasbench101.enumerate_space(), start_dish(RECIPE)
    cells = list(space[np.sort(np.random.default_rng(0).permutation(len(space))[:n])])
    train_cells(dish, RECIPE, cells[:8], replicates=[0], threads=1)
    began = time.process_time()
    train_cells(dish, RECIPE, cells, replicates=[0], threads=1)
    return {"motifs": n, "core ms of a motif": 1e3 * (time.process_time() - began) / n}


def main() -> None:
    """Measure what the command names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("executors", nargs="*", help="pool, dask and ray")
    parser.add_argument("--workers", type=int, nargs="*", default=[], help="clusters of so many, which train the space")
    parser.add_argument("--dishes", nargs="*", default=[], help="recipes whose outer epochs are weighed")
    parser.add_argument("--pieces", type=int, default=300)
    parser.add_argument("--motifs", type=int, default=300)
    options = parser.parse_args()
    machine = describe_machine()
    print(json.dumps({name: machine[name] for name in ("processor", "instruction_set")}))
    motifs = of_motifs(options.motifs)
    print(json.dumps(motifs), flush=True)
    for workers in options.workers:
        print(json.dumps(of_space(workers, motifs["core ms of a motif"] / 1e3)), flush=True)
    for name in options.dishes:
        print(json.dumps(of_dish(name)), flush=True)
    for size in (20, 800):
        print(json.dumps(of_keeping(options.pieces, size)), flush=True)
        for name in options.executors:
            print(json.dumps(of_pieces(name, options.pieces, size)), flush=True)


if __name__ == "__main__":
    main()
