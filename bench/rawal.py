"""The original method, reproduced: what the recipe `rawal_slope` learns over several seeds, and what a dish-search with it finds.

    python bench/rawal.py --seeds 6 --searches 4 --out runs/rawal

The fits learn a dish from 18 labelled slopes: drawn at random for every seed, or those of the released code, which are all at or above 0.37.
Their table has the MSE of whitened scores on the labelled slopes, and Kendall's tau and Pearson's r on all others. Beside them stand the dish
before learning, a Gaussian process on the slope itself with the same labelled slopes, and the outer steps and rate of the released code.
The searches count how many slopes are labelled until the best ones of the truth are found, beside drawing slopes at random. Finished work
is in --out: if the command is stopped, the same command continues.

References
----------
Rawal et al. 2020, Synthetic Petri Dish, arXiv:2005.13092; its six published runs have a train MSE of 0.0003 to 0.0012 and on
their 82 test slopes a mean tau of 0.815.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import spd_fast as spd
from spd_fast import recipes
from spd_fast.base.files import atomic_write
from spd_fast.base.ranks import kendall_tau
from spd_fast.scoring import score_cells

RELEASED = [18, 19, 20, 22, 24, 25, 28, 30, 33, 35, 40, 44, 48, 52, 62, 64, 70, 75]
"""Rows of the released code's 18 training slopes among the 100 of the truth."""

RECIPE = recipes.get("rawal_slope")
FITS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "80 steps": {"outer.epochs": 80},
    "80 steps, rate 0.05, as released": {"outer.epochs": 80, "outer.optimizer.lr": 0.05},
}
START, MAX_LABELLED, SEARCHED = 6, 24, [1, 3, 5]

Array = npt.NDArray[Any]


def fit(truth: spd.TruthTable, pool: list[int], changes: dict[str, Any], seed: int) -> dict[str, float]:
    """Learn a dish on the slopes in these rows and judge it on the others."""
    recipe = RECIPE.replace({"outer.pool": None, "outer.cells": len(pool), **changes})
    began = time.process_time()
    learned = spd.fit_dish([truth.cells[row] for row in pool], truth.accuracy[pool], recipe, seed=seed, threads=1)
    seconds = time.process_time() - began
    others = np.setdiff1d(np.arange(len(truth)), pool)
    scores, before = (score_cells(dish, learned.recipe, truth.cells) for dish in (learned.dish, learned.start))
    by_slope = regressed(truth.cells.slope, truth.accuracy, pool)
    return {
        "train_mse": 2 * (1 - float(np.corrcoef(scores[pool], truth.accuracy[pool])[0, 1])),
        "tau": kendall_tau(scores[others], truth.accuracy[others]),
        "r": float(np.corrcoef(scores[others], truth.accuracy[others])[0, 1]),
        "tau_train": kendall_tau(scores[pool], truth.accuracy[pool]),
        "tau_before": kendall_tau(before[others], truth.accuracy[others]),
        "tau_gaussian_process": kendall_tau(by_slope[others], truth.accuracy[others]),
        "seconds": seconds,
    }


def regressed(slopes: Array, accuracy: Array, pool: list[int]) -> Array:
    """Return the accuracies of all slopes that a Gaussian process on their logarithms predicts from those of the pool."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, WhiteKernel

    process = GaussianProcessRegressor(RBF(1.0) + WhiteKernel(0.1), normalize_y=True)
    x = np.log(slopes)[:, None]
    predicted: Array = process.fit(x[pool], accuracy[pool]).predict(x)
    return predicted


def search(truth: spd.TruthTable, seed: int, folder: Path, changes: dict[str, Any]) -> dict[str, int | None]:
    """Return how many slopes a search labels until one of the best 1, 3, 5 is found; None where it ends before."""
    recipe = RECIPE.replace(changes)
    result = spd.dish_search(
        truth.cells, truth.accuracy, recipe, max_labelled=MAX_LABELLED, start=START, seed=seed, folder=folder, threads=1
    )
    ranks = [int((truth.accuracy > each.accuracy).sum()) for each in result.labelled]
    return {f"best {k}": next((n for n, rank in enumerate(ranks, 1) if rank < k), None) for k in SEARCHED}


def at_random(n: int, k: int, max_labelled: int) -> tuple[float, float]:
    """Return the mean number of labelled candidates until random search finds one of the best k of n, and the chance to
    find one among the first `max_labelled`."""
    missed = np.cumprod([(n - k - i) / (n - i) for i in range(max_labelled)])
    return (n + 1) / (k + 1), 1 - float(missed[-1])


def once(path: Path, done: dict[str, Any], key: str, work: Callable[[], Any]) -> Any:
    """Return the result of this key if it was found before; else find it and write it to the file."""
    if key not in done:
        done[key] = work()
        with atomic_write(path) as file:
            file.write((json.dumps(done, indent=1) + "\n").encode())
        print(key, done[key], flush=True)
    return done[key]


def fits(
    truth: spd.TruthTable, seeds: int, further: dict[str, Any], do: Callable[[str, Callable[[], Any]], Any]
) -> dict[str, dict[str, Array]]:
    """Fit every recipe to slopes drawn for each seed, and to those of the released code: columns of figures by row."""
    rows, tried = {}, f"/{json.dumps(further)}" if further else ""
    for name, changes in FITS.items():
        for pool in ("drawn", "released"):
            found = []
            for seed in range(seeds):
                drawn = np.random.default_rng(seed).permutation(len(truth))[: len(RELEASED)].tolist()
                work = partial(fit, truth, drawn if pool == "drawn" else RELEASED, changes | further, seed)
                found.append(do(f"fit/{name}/{pool}/{seed}{tried}", work))
            rows[f"{name}, 18 slopes {pool}"] = {each: np.array([one[each] for one in found]) for each in found[0]}
    return rows


def tabulated(rows: dict[str, dict[str, Array]]) -> list[str]:
    lines = [
        "| | train MSE | test tau | r | before learning | Gaussian process | processor seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, columns in rows.items():
        tau, mse = columns["tau"], columns["train_mse"]
        figures = [
            f"{mse.mean():.4f} ({', '.join(f'{each:.4f}' for each in mse)})",
            f"**{tau.mean():.3f}** ({', '.join(f'{each:.3f}' for each in tau)})",
            *(f"{columns[each].mean():.3f}" for each in ("r", "tau_before", "tau_gaussian_process")),
            f"{columns['seconds'].mean():.0f}",
        ]
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, help="truth of slopes; default: the one in the package")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--searches", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("runs/rawal"))
    parser.add_argument(
        "--replace",
        type=json.loads,
        default={},
        help='settings of every recipe as JSON, {"outer.epochs": 1}: to try this script',
    )
    options = parser.parse_args()
    truth = spd.TruthTable.load(options.truth) if options.truth else spd.TruthTable.embedded(spd.Perceptron)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "rawal.json"
    done: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if options.seeds:
        rows = fits(truth, options.seeds, options.replace, lambda key, work: once(path, done, key, work))
        print("\n".join(tabulated(rows)))
    searches = [
        once(
            path, done, f"search/{seed}", partial(search, truth, seed, options.out / f"search-{seed}", options.replace)
        )
        for seed in range(options.searches)
    ]
    for k in SEARCHED:
        mean, chance = at_random(len(truth), k, MAX_LABELLED)
        found = [one[f"best {k}"] for one in searches]
        print(
            f"one of the best {k}: found after {found} labelled slopes; at random after {mean:.1f} in the mean, "
            f"among the first {MAX_LABELLED} with chance {chance:.2f}"
        )


if __name__ == "__main__":
    main()
