"""A run so small that tests can do many: shared by the tests of the outer loop, run folders, reports and doors."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from spd_fast.recipes.settings import AdamSettings, DishSettings, InnerSettings, OuterSettings, Recipe
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.cell_files import random_cells
from spd_fast.truth.table import write_truth

RECIPE = Recipe(
    name="small",
    summary="For tests.",
    motif={"stem_channels": 6},
    dish=DishSettings(images=12, classes=3, image_size=5, image_channels=2),
    inner=InnerSettings(epochs=3, batch_size=5, optimizer=AdamSettings(lr=3e-3)),
    outer=OuterSettings(epochs=6, cells=4),
    seed=7,
)
LEARNING = RECIPE.replace(
    {
        "name": "learning",
        "dish.valid_images": 6,
        "dish.basis": 3,
        "inner.init": "shared",
        "inner.redraw": False,
        "inner.replicates": 2,
        "outer.learn": ["images", "labels", "valid_images", "valid_labels", "rates"],
        "outer.gradient": "unrolled",
        "outer.metric": "loss",
        "outer.loss": "pairwise_logistic",
        "outer.target": "rank",
        "outer.ranking": "metric",
        "outer.validation_cells": 4,
        "outer.keep": "best",
        "outer.check_every": 2,
        "outer.trust_every": 2,
        "outer.clip": 2.0,
        "outer.schedule": "cosine",
    }
)
"""The same with every part of the outer loop that the paper does not have."""
CURVE = RECIPE.replace(
    {
        "inner.init": "shared",
        "inner.redraw": False,
        "inner.replicates": 2,
        "name": "curve",
        "outer.gradient": "unrolled",
        "outer.metric": "training_loss",
        "outer.ranking": "metric",
        "outer.loss": "pairwise_logistic",
        "outer.target": "rank",
        "outer.learn": ["rates", "initial_scales", "step_weights"],
    }
)
"""Few numbers learned from the losses of the inner steps."""
POOL = 10


def pool() -> tuple[list[Cell], npt.NDArray[np.float64]]:
    """Cells with made-up accuracies."""
    return random_cells(POOL, 3), np.random.default_rng(3).uniform(0.8, 0.95, POOL)


def truth_file(folder: Path) -> Path:
    """Write the pool as a truth file."""
    cells, accuracy = pool()
    path = folder / "truth.npz"
    write_truth(
        path,
        cells=cells,
        budgets=[4],
        seeds=[0],
        arrays={"test_accuracy": accuracy.reshape(-1, 1, 1)},
        provenance={"data": "made up"},
    )
    return path


def recipe_file(folder: Path, **changes: object) -> Path:
    """Write the recipe as JSON; names of settings with `__` in place of the dot."""
    path = folder / "small.json"
    path.write_text(RECIPE.replace({name.replace("__", "."): value for name, value in changes.items()}).to_json())
    return path
