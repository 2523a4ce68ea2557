"""Score cells on several processes or machines, by whatever runs joblib's tasks: processes here, Ray or Dask elsewhere.

    python examples/spread.py --recipe curves --cells 64
    pip install 'ray[default]' && python examples/spread.py --backend ray --tasks 256

A motif's result does not depend on which others are trained beside it, so slices of the cells give the same bits wherever they run.
On one machine threads do: `spd_fast.score_cells(..., threads=N)`.
"""

import argparse
import time

import joblib
import numpy as np
import numpy.typing as npt

import spd_fast as spd
from spd_fast import recipes
from spd_fast.outer.start import start_dish


def spread(
    dish: spd.Dish, recipe: spd.Recipe, cells: list[spd.Cell], *, tasks: int, threads: int
) -> npt.NDArray[np.float64]:
    """Score cells in so many tasks of equal shares of the large and the small, the largest first."""
    order = np.argsort([-spd.count_flops(cell, recipe.shape, recipe.dish.image_size) for cell in cells], kind="stable")
    slices = [order[k::tasks] for k in range(tasks)]
    parts = joblib.Parallel()(
        joblib.delayed(spd.score_cells)(dish, recipe, [cells[i] for i in rows], threads=threads) for rows in slices
    )
    scores = np.empty(len(cells))
    for rows, part in zip(slices, parts, strict=True):
        scores[rows] = part
    return scores


def main() -> None:
    """Score cells of a truth table in tasks and say how long it took."""
    parser = argparse.ArgumentParser(description="Score cells by a recipe's unlearned dish, in tasks.")
    parser.add_argument("--recipe", default="curves")
    parser.add_argument("--truth", help="a truth file; default: the one in the package")
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--backend", default="loky", help="loky (processes of this machine), ray, dask, ...")
    parser.add_argument(
        "--workers", type=int, default=-1, help="tasks at once; -1: as many as the backend has room for"
    )
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1, help="threads of each task")
    options = parser.parse_args()
    if options.backend == "ray":
        from ray.util.joblib import register_ray

        register_ray()
    recipe = recipes.load(options.recipe)
    truth = spd.TruthTable.load(options.truth).sample(options.cells, seed=0)
    began = time.perf_counter()
    with joblib.parallel_config(options.backend, n_jobs=options.workers):
        scores = spread(start_dish(recipe), recipe, list(truth.cells), tasks=options.tasks, threads=options.threads)
    print(f"{len(scores)} cells in {time.perf_counter() - began:.1f} s, best {truth.hashes[int(np.nanargmax(scores))]}")


if __name__ == "__main__":
    main()
