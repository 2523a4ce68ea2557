"""From the paper's dish to one that ranks, and what learning it takes: the tables of docs/notes/experiments.md.

`changes`: every row is a recipe, which is the one before with some settings changed; its dish is not learned.
`sweep`: every row changes one setting of the recipe that `changes` arrives at.
`learning`: dishes are learned from 100 cells. Several causes keep the paper's outer loop from converging; every row restores one of them.
`pools`: dishes are learned from more and from fewer cells.
`optimizers`: the same numbers are learned along the gradient and by CMA-ES.
`step_weights`: step weights are learned from pools of several sizes.

Every table has Kendall's tau-b with the truth on cells that are drawn at random and that no dish has seen. It is the mean over several seeds
of dish, weights and orders (and pool), with the interval that holds 95 % of resampled cells and seeds.

    python bench/ablation.py nb101_test108.npz --cells 400 --seeds 2                        # a quarter of an hour on two cores
    python bench/ablation.py nb101_test108.npz --table learning --figure learning.png

Costs are processor times. The cost of learning a dish includes the checks on validation cells.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from spd_fast import TruthTable, recipes
from spd_fast.base.ranks import kendall_tau
from spd_fast.base.sums import mean_of
from spd_fast.outer.fit import fit_dish
from spd_fast.outer.history import validation_checks
from spd_fast.outer.pool import transformed
from spd_fast.outer.ridge import ridge_weights
from spd_fast.outer.start import start_dish
from spd_fast.recipes.settings import Recipe
from spd_fast.scoreboard.judge import Judged, judge
from spd_fast.scoring import score_cells, step_weights, train_cells

VALIDATION_CELLS = 200  # the outer loop gets so many cells on which dishes are checked, for the figure alone
LARGEST_POOL = 300
POOLS_OF_A_SIZE = 20

# (name of the change, settings). A change whose name begins with "but" is tried and taken back.
CHANGES: list[tuple[str, dict[str, Any]]] = [
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
    ("+ the benchmark's distribution of initial weights", {"inner.init_distribution": "nasbench101"}),
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

# Changes of the recipe of the last row above that has one replicate.
SWEEP: list[tuple[str, dict[str, Any]]] = [
    (
        "**as it is**: motif of 3 stacks, 8 channels; 200 images of 8 x 8, 4 epochs, 5e-3, mean loss of the last 3 epochs",
        {},
    ),
    ("50 images", {"dish.images": 50}),
    ("100 images", {"dish.images": 100}),
    ("400 images", {"dish.images": 400}),
    ("100 images, batches of 10", {"dish.images": 100, "inner.batch_size": 10}),
    ("4 x 4", {"dish.image_size": 4}),
    ("6 x 6", {"dish.image_size": 6}),
    ("12 x 12", {"dish.image_size": 12}),
    ("16 x 16", {"dish.image_size": 16}),
    ("2 epochs", {"inner.epochs": 2, "outer.metric_epochs": 1}),
    ("8 epochs", {"inner.epochs": 8, "outer.metric_epochs": 7}),
    ("16 epochs", {"inner.epochs": 16, "outer.metric_epochs": 15}),
    ("rate 1e-3", {"inner.optimizer.lr": 1e-3}),
    ("rate 2e-3", {"inner.optimizer.lr": 2e-3}),
    ("rate 1e-2", {"inner.optimizer.lr": 1e-2}),
    ("rate 2e-2", {"inner.optimizer.lr": 2e-2}),
    ("4 channels", {"motif.stem_channels": 4}),
    ("16 channels", {"motif.stem_channels": 16}),
    ("2 stacks", {"motif.stacks": 2}),
    ("3 stacks of 2 cells", {"motif.cells_per_stack": 2}),
    ("motif C on 16 x 16", {"motif": "C", "dish.image_size": 16}),
    ("motif B on 16 x 16", {"motif": "B", "dish.image_size": 16}),
    ("all 4 epochs count", {"outer.metric_epochs": None}),
    ("the last epoch counts", {"outer.metric_epochs": 1}),
    ("loss at the end", {"outer.metric": "loss", "outer.metric_epochs": None}),
    ("probability at the end", {"outer.metric": "probability", "outer.metric_epochs": None}),
    (
        "loss at the end on 200 other images, which random labels do not fit",
        {"outer.metric": "loss", "outer.metric_epochs": None, "dish.valid_images": 200},
    ),
]

# Settings by which `learned_schedule` learns for a short time, with one replicate.
SHORT: dict[str, Any] = {
    "dish.images": 200,
    "inner.replicates": 1,
    "outer.replicates": None,
    "outer.epochs": 20,
    "outer.cells": 12,
    "outer.check_every": 5,
    "outer.pool": 100 + VALIDATION_CELLS,
    "outer.validation_cells": VALIDATION_CELLS,
}
BY_OPTIMIZER: dict[str, Any] = {"outer.step_weights": "optimizer"}
CAUSES: list[tuple[str, dict[str, Any]]] = [
    ("scales, rates and step weights, by the hypergradient", {}),
    (
        "1: images by the direct gradient, loss at the end",
        {"outer.gradient": "direct", "outer.metric": "loss", "outer.learn": ["images"], **BY_OPTIMIZER},
    ),
    ("2: a loss that is blind to sign", {"outer.loss": "pearson_abs"}),
    ("3: six cells in an outer step", {"outer.cells": 6}),
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
POOLS: list[tuple[str, dict[str, Any]]] = [
    (f"{what}, {n} cells", {**settings, "outer.pool": n + VALIDATION_CELLS})
    for what, settings in (("scales, rates, step weights", {}), ("labels", {"outer.learn": ["labels"], **BY_OPTIMIZER}))
    for n in (30, 60, 100, LARGEST_POOL)
]
SCALES: dict[str, Any] = {"outer.learn": ["initial_scales"], **BY_OPTIMIZER}
GENERATOR: dict[str, Any] = {"outer.learn": ["images"], "dish.generator": 4, **BY_OPTIMIZER}
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("4 scales, gradient", SCALES),
    ("4 scales, CMA-ES", SCALES | CMAES),
    ("a generator of 17 numbers, gradient", GENERATOR),
    ("a generator of 17 numbers, CMA-ES", GENERATOR | CMAES),
    ("44 scales and rates, gradient", {"outer.learn": ["rates", "initial_scales"], **BY_OPTIMIZER}),
    ("44 scales and rates, CMA-ES", {"outer.learn": ["rates", "initial_scales"], **BY_OPTIMIZER} | CMAES),
]


def changes(question: "Question") -> None:
    """Print what each change is worth where nothing is learned."""
    recipe = recipes.get("cassimon_c")
    print("| change | tau | ms a cell |\n|---|---|---|", flush=True)
    for what, settings in CHANGES[: question.rows]:
        changed = recipe.replace(settings)
        judged, cost = unlearned(question, changed)
        print(f"| {what} | {judged.estimate('tau')} | {cost:.1f} |", flush=True)
        if not what.startswith("but"):
            recipe = changed


def sweep(question: "Question") -> None:
    """Print what one change of a recipe is worth where nothing is learned, beside the recipe as it is."""
    base = recipes.get("curves").replace({"dish.images": 200, "inner.replicates": 1})
    unchanged: Judged | None = None
    print("| changed | tau | against as it is | inside the top 10 % | ms a cell |\n|---|---|---|---|---|", flush=True)
    for what, settings in SWEEP[: question.rows]:
        judged, cost = unlearned(question, base.replace(settings))
        unchanged = unchanged or judged
        against = "" if judged is unchanged else judged.minus(unchanged, "tau")
        print(
            f"| {what} | {judged.estimate('tau')} | {against} | {judged.means['tau_top']:.3f} | {cost:.1f} |",
            flush=True,
        )


def unlearned(question: "Question", recipe: Recipe) -> tuple[Judged, float]:
    """Return how the dishes before learning rank, and the milliseconds of processor time for a cell."""
    scores, before = [], time.process_time()
    for seed in question.seeds:
        seeded = recipe.replace({**question.changes, "seed": seed})
        scores.append(score_cells(start_dish(seeded), seeded, question.sample.cells))
    spent = time.process_time() - before
    return judge(scores, question.sample.accuracy), 1e3 * spent / len(scores) / len(question.sample.cells)


def learning(question: "Question", rows: list[tuple[str, dict[str, Any]]]) -> None:
    """Print tau before and after learning with each of some recipes; each seed has a pool of its own."""
    first: Judged | None = None
    curves: dict[str, list[tuple[int, float]]] = {}
    print(
        "| what is learned, or undone | before | after | learning adds | after, over the first row | tau on the pool in the last 5 epochs | s |\n"
        "|---|---|---|---|---|---|---|",
        flush=True,
    )
    for what, settings in rows[: question.rows]:
        before, after, checks, pool_taus, started = [], [], [], [], time.process_time()
        for seed in question.seeds:
            recipe = recipes.get("learned_schedule").replace({**SHORT, **settings, **question.changes, "seed": seed})
            pool = question.rest.sample(LARGEST_POOL + VALIDATION_CELLS, seed)
            fit = fit_dish(pool.cells, pool.accuracy, recipe)
            checks.append(validation_checks(fit.history))
            pool_taus += [record.kendall_tau_metric for record in fit.history[-5:]]
            spent = time.process_time() - started
            before.append(score_cells(fit.start, recipe, question.sample.cells))
            after.append(score_cells(fit.dish, recipe, question.sample.cells))
            started = time.process_time() - spent
        start, end = judge(before, question.sample.accuracy), judge(after, question.sample.accuracy)
        first = first or end
        against = "" if end is first else end.minus(first, "tau")
        columns = (
            f"{start.means['tau']:.3f}",
            end.estimate("tau"),
            end.minus(start, "tau"),
            against,
            f"{mean_of(pool_taus):.2f}",
        )
        print(f"| {what} | {' | '.join(map(str, columns))} | {spent / len(question.seeds):.0f} |", flush=True)
        curves[what] = [(epoch, mean_of([dict(check)[epoch] for check in checks])) for epoch, _ in checks[0]]
        if question.figure:
            draw(curves, question.figure)


def draw(curves: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """Draw tau on the validation cells over outer epochs: a panel for every row, with the other rows faint behind it."""
    columns = 3
    figure = Figure(figsize=(10, 2.3 * -(-len(curves) // columns)), layout="constrained")
    panels = figure.subplots(-(-len(curves) // columns), columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, what in zip(panels, curves, strict=False):
        for other in curves.values():
            panel.plot(*np.transpose(other), color="#d0d5dd", linewidth=0.8)
        panel.plot(*np.transpose(curves[what]), color="#1f6feb", linewidth=2, marker="o", markersize=3)
        panel.set_title(what, fontsize=8)
        panel.axhline(0, color="#667085", linewidth=0.6)
    for panel in panels[len(curves) :]:
        panel.remove()
    figure.supxlabel("outer epoch", fontsize=9)
    figure.supylabel(f"Kendall's tau on {VALIDATION_CELLS} validation cells", fontsize=9)
    figure.savefig(path, dpi=130)


def learned_step_weights(question: "Question") -> None:
    """Print tau of step weights that are learned from pools of several sizes, on the recipe's dish before learning."""
    sample, cells = question.sample, len(question.sample.cells)
    recipe = recipes.get("learned_schedule").replace(question.changes)
    trained = train_cells(start_dish(recipe), recipe, sample.cells)
    losses = mean_of([result.recorded["step_loss"] for result in trained])
    equal = kendall_tau(-losses @ step_weights(recipe), sample.accuracy)
    print(
        f"equal step weights: {equal:.3f}\n\n| labelled cells | tau on the other cells, mean ± standard deviation between pools |\n|---|---|"
    )
    for n in (30, 60, 100, 200):
        taus = []
        for each in range(POOLS_OF_A_SIZE):
            order = np.random.default_rng(each).permutation(cells)
            pool, others = order[:n], order[200:]
            solved = ridge_weights(-losses[pool], transformed(sample.accuracy[pool], recipe.outer))
            taus.append(kendall_tau(-losses[others] @ solved, sample.accuracy[others]))
        mean = mean_of(taus)
        deviation = mean_of([(tau - mean) ** 2 for tau in taus]) ** 0.5
        print(f"| {n} | {mean:.3f} ± {deviation:.3f} |", flush=True)


@dataclass(frozen=True)
class Question:
    """What a table is measured on, and how much of it."""

    sample: TruthTable  # the cells that are scored
    rest: TruthTable  # the cells that pools are drawn from
    seeds: range
    figure: Path | None
    rows: int | None  # how many rows of the table; None: all
    changes: dict[str, Any]  # of every recipe


TABLES: dict[str, Callable[[Question], None]] = {
    "changes": changes,
    "sweep": sweep,
    "learning": lambda question: learning(question, CAUSES),
    "pools": lambda question: learning(question, POOLS),
    "optimizers": lambda question: learning(question, OPTIMIZERS),
    "step_weights": learned_step_weights,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("truth", help="cells and accuracies (.npz), or a table of `spd-fast nasbench convert`")
    parser.add_argument(
        "--table", nargs="+", choices=TABLES, default=["changes"], help="one or several (default: changes)"
    )
    parser.add_argument("--cells", type=int, default=1000, help="cells that are scored (default: 1000)")
    parser.add_argument("--seeds", type=int, default=3, help="of dish, weights, orders and pool (default: 3)")
    parser.add_argument("--draw", type=int, default=2, help="seed of the draw of the cells (default: 2)")
    parser.add_argument(
        "--figure", type=Path, help="PNG of tau on validation cells over outer epochs, where dishes are learned"
    )
    parser.add_argument("--rows", type=int, help="first rows of the table alone (default: all)")
    parser.add_argument(
        "--replace",
        type=json.loads,
        default={},
        help='settings of every recipe as JSON, {"inner.epochs": 1}: to try this script',
    )
    arguments = parser.parse_args()
    sample, rest = TruthTable.load(arguments.truth).split(arguments.cells, arguments.draw)
    seeds = range(arguments.seeds)
    question = Question(sample, rest, seeds, arguments.figure, arguments.rows, arguments.replace)
    for table in arguments.table:
        TABLES[table](question)


if __name__ == "__main__":
    main()
