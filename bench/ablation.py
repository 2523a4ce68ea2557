"""From the paper's dish to one that ranks, one change at a time: the table of docs/experiments.md.

Every row is a recipe, the one before with some settings changed; its dish is not learned. Kendall's tau-b with the truth on cells drawn
at random, for each of two seeds of dish, weights and orders.

    python bench/ablation.py nb101_test108.npz                  # a quarter of an hour on two cores
    python bench/ablation.py nb101_test108.npz --cells 1000
"""

import argparse
from typing import Any

import numpy as np

from spd_fast import TruthTable, recipes
from spd_fast.inner import score_cells, start_dish
from spd_fast.losses import kendall_tau

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
    ("but SGD 0.05, momentum 0.9", {"inner.optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}}),
    ("but the loss at the end", {"outer.metric": "loss", "outer.metric_epochs": None}),
    ("but the probability at the end", {"outer.metric": "probability", "outer.metric_epochs": None}),
    (
        "+ 4 replicates, each with images, weights and orders of its own",
        {"dish.images": 800, "inner.replicates": 4, "inner.split_images": True},
    ),
    ("+ 8 replicates", {"dish.images": 1600, "inner.replicates": 8}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("truth", help="cells and accuracies (.npz), or a table of `spd-fast nasbench convert`")
    parser.add_argument("--cells", type=int, default=400, help="cells that are scored (default: 400)")
    parser.add_argument("--seed", type=int, default=2, help="of the draw of the cells (default: 2)")
    arguments = parser.parse_args()
    sample = TruthTable.load(arguments.truth).sample(arguments.cells, seed=arguments.seed)
    recipe = recipes.get("cassimon_c")
    print("| step | tau, two seeds | mean |\n|---|---|---|", flush=True)
    for what, settings in STEPS:
        changed = recipe.replace(settings)
        taus = []
        for seed in (0, 1):
            seeded = changed.replace({"seed": seed})
            taus.append(kendall_tau(score_cells(start_dish(seeded), seeded, sample.cells), sample.accuracy))
        print(f"| {what} | {taus[0]:.3f}, {taus[1]:.3f} | {np.mean(taus):.3f} |", flush=True)
        if not what.startswith("but"):
            recipe = changed


if __name__ == "__main__":
    main()
