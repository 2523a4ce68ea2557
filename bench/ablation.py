"""From the paper's dish to one that ranks, and what learning it takes: the tables of docs/experiments.md.

`steps`: every row is a recipe, the one before with some settings changed; its dish is not learned. `learning`: dishes learned from 100
cells, every row with one cause undone of those that keep the paper's outer loop from converging. `search`: the same numbers learned
along the gradient and by CMA-ES. `labels`: how many labelled cells the weights of steps need. Kendall's tau-b with the truth on cells
drawn at random that no dish has seen, for each of two seeds of dish, weights and orders.

    python bench/ablation.py nb101_test108.npz                  # a quarter of an hour on two cores
    python bench/ablation.py nb101_test108.npz --table learning
    python bench/ablation.py nb101_test108.npz --cells 1000
"""

import argparse
from typing import Any

import numpy as np

from spd_fast import TruthTable, recipes
from spd_fast.inner import score_cells, start_dish, step_weights, train_cells
from spd_fast.losses import kendall_tau
from spd_fast.outer import fit_dish, transformed
from spd_fast.scoreboard import Judged, judge
from spd_fast.steps import ridge_weights

SEEDS = (0, 1)
POOL = 100
POOLS_OF_A_SIZE = 20

# (what changes, settings); a row that is tried and taken back begins with "but".
STEPS: list[tuple[str, dict[str, Any]]] = [
    (
        "the paper: motif C, true-class probability after 100 epochs of Adam 5e-5, weights drawn for every cell",
        {"outer.ranking": "metric", "inner.redraw": False},
    ),
    ("+ shared initial weights", {"inner.init": "shared"}),
    (
        "+ mean training loss instead of the probability at the end",
        {"outer.metric": "training_loss", "outer.gradient": "unrolled"},
    ),
    ("+ inner rate 2e-3, 4 epochs", {"inner.epochs": 4, "inner.optimizer": {"name": "adam", "lr": 2e-3}}),
    ("+ 8 channels, 3 stacks of 1 cell", {"motif": {"stem_channels": 8, "stacks": 3, "cells_per_stack": 1}}),
    ("+ images of 8 x 8", {"dish.image_size": 8}),
    ("+ the benchmark's initialiser", {"inner.initializer": "nasbench101"}),
    ("+ inner rate 5e-3", {"inner.optimizer": {"name": "adam", "lr": 5e-3}}),
    ("+ dense weights doubled", {"inner.initial_scales.dense": 2.0}),
    ("+ the first epoch left out of the score", {"outer.metric_epochs": 3}),
    ("but dense weights not doubled", {"inner.initial_scales.dense": 1.0}),
    ("but motif B", {"motif": "B"}),
    ("but SGD 0.05, momentum 0.9", {"inner.optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}}),
    ("but the loss at the end", {"outer.metric": "loss", "outer.metric_epochs": None}),
    ("but the probability at the end", {"outer.metric": "probability", "outer.metric_epochs": None}),
    (
        "+ 4 replicates, each with images, weights and orders of its own",
        {"dish.images": 800, "inner.replicates": 4, "inner.split_images": True},
    ),
    ("+ 8 replicates", {"dish.images": 1600, "inner.replicates": 8}),
]

# What is learned of `learned_schedule`, short and with one replicate.
SHORT: dict[str, Any] = {
    "dish.images": 200,
    "inner.replicates": 1,
    "outer.replicates": None,
    "outer.epochs": 20,
    "outer.cells": 12,
    "outer.check_every": 10,
}
BY_OPTIMIZER: dict[str, Any] = {"outer.step_weights": "optimizer"}
CAUSES: list[tuple[str, dict[str, Any]]] = [
    ("scales, rates and step weights, by the hypergradient", {}),
    (
        "1: images by the direct gradient, loss at the end",
        {"outer.gradient": "direct", "outer.metric": "loss", "outer.learn": ["images"], **BY_OPTIMIZER},
    ),
    ("2: a loss that is blind to sign", {"outer.loss": "pearson_abs"}),
    ("3: six cells in a step", {"outer.cells": 6}),
    ("4: the loss at the end", {"outer.metric": "loss", "outer.learn": ["rates", "initial_scales"], **BY_OPTIMIZER}),
    ("5: inner rate 5e-5", {"inner.optimizer.lr": 5e-5}),
    ("6: pixels, which are many", {"outer.learn": ["images"], **BY_OPTIMIZER}),
    ("7: weights drawn for every cell", {"inner.init": "motif"}),
    ("8: accuracies as they are", {"outer.target": "plain"}),
    ("motif B", {"motif": "B"}),
]
CMAES: dict[str, Any] = {
    "outer.optimizer": {"name": "cmaes", "sigma": 0.2, "population": 8},
    "outer.schedule": "constant",
    "outer.clip": None,
}
SCALES: dict[str, Any] = {"outer.learn": ["initial_scales"], **BY_OPTIMIZER}
GENERATOR: dict[str, Any] = {"outer.learn": ["images"], "dish.generator": 4, **BY_OPTIMIZER}
SEARCHES: list[tuple[str, dict[str, Any]]] = [
    ("4 scales, gradient", SCALES),
    ("4 scales, CMA-ES", SCALES | CMAES),
    ("a generator of 17 numbers, gradient", GENERATOR),
    ("a generator of 17 numbers, CMA-ES", GENERATOR | CMAES),
    ("44 scales and rates, gradient", {"outer.learn": ["rates", "initial_scales"], **BY_OPTIMIZER}),
    ("44 scales and rates, CMA-ES", {"outer.learn": ["rates", "initial_scales"], **BY_OPTIMIZER} | CMAES),
]


def steps(truth: TruthTable, cells: int, seed: int) -> None:
    """Print what each change is worth where nothing is learned."""
    sample = truth.sample(cells, seed)
    recipe = recipes.get("cassimon_c")
    print("| step | tau, two seeds | mean |\n|---|---|---|", flush=True)
    for what, settings in STEPS:
        changed = recipe.replace(settings)
        taus = []
        for each in SEEDS:
            seeded = changed.replace({"seed": each})
            taus.append(kendall_tau(score_cells(start_dish(seeded), seeded, sample.cells), sample.accuracy))
        print(f"| {what} | {taus[0]:.3f}, {taus[1]:.3f} | {np.mean(taus):.3f} |", flush=True)
        if not what.startswith("but"):
            recipe = changed


def learning(truth: TruthTable, cells: int, seed: int, rows: list[tuple[str, dict[str, Any]]]) -> None:
    """Print tau before and after learning by each of some recipes, each seed from a pool of its own."""
    sample, rest = truth.split(cells, seed)
    first: Judged | None = None
    print(
        "| what is learned, or undone | before | after | learning adds | after, over the first row |\n|---|---|---|---|---|",
        flush=True,
    )
    for what, settings in rows:
        before, after = [], []
        for each in SEEDS:
            recipe = recipes.get("learned_schedule").replace({**SHORT, **settings, "seed": each})
            pool = rest.sample(POOL, each)
            fit = fit_dish(pool.cells, pool.accuracy, recipe)
            before.append(score_cells(fit.start, recipe, sample.cells))
            after.append(score_cells(fit.dish, recipe, sample.cells))
        start, end = judge(before, sample.accuracy), judge(after, sample.accuracy)
        first = first or end
        columns = start.means["tau"], end.estimate("tau"), end.minus(start, "tau"), end.minus(first, "tau")
        print(f"| {what} | {columns[0]:.3f} | " + " | ".join(map(str, columns[1:])) + " |", flush=True)


def labels(truth: TruthTable, cells: int, seed: int) -> None:
    """Print what step weights of pools of several sizes reach on the recipe's dish before learning."""
    sample = truth.sample(cells, seed)
    recipe = recipes.get("learned_schedule")
    trained = train_cells(start_dish(recipe), recipe, sample.cells)
    losses = np.mean([result.recorded["step_loss"] for result in trained], axis=0)
    equal = kendall_tau(-losses @ step_weights(recipe), sample.accuracy)
    print(
        f"equal weights: {equal:.3f}\n\n| labels | tau on the other cells, mean ± standard deviation between pools |\n|---|---|"
    )
    for n in (30, 60, 100, 200):
        taus = []
        for each in range(POOLS_OF_A_SIZE):
            order = np.random.default_rng(each).permutation(cells)
            pool, others = order[:n], order[200:]
            solved = ridge_weights(-losses[pool], transformed(sample.accuracy[pool], recipe))
            taus.append(kendall_tau(-losses[others] @ solved, sample.accuracy[others]))
        print(f"| {n} | {np.mean(taus):.3f} ± {np.std(taus):.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("truth", help="cells and accuracies (.npz), or a table of `spd-fast nasbench convert`")
    parser.add_argument("--table", choices=("steps", "learning", "search", "labels"), default="steps")
    parser.add_argument("--cells", type=int, default=400, help="cells that are scored (default: 400)")
    parser.add_argument("--seed", type=int, default=2, help="of the draw of the cells (default: 2)")
    arguments = parser.parse_args()
    truth = TruthTable.load(arguments.truth)
    question = truth, arguments.cells, arguments.seed
    if arguments.table == "steps":
        steps(*question)
    elif arguments.table == "labels":
        labels(*question)
    else:
        learning(*question, rows=CAUSES if arguments.table == "learning" else SEARCHES)


if __name__ == "__main__":
    main()
