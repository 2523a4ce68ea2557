"""From a recipe to the inner loop: keywords of `train_motifs`, seeds, scores of cells."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.progress import part_of
from spd_fast.base.seeds import derived_seed
from spd_fast.base.sums import mean_of
from spd_fast.dish import Dish
from spd_fast.engine.optimizers import SGD, Adam, RMSProp
from spd_fast.engine.training import MotifMetrics, TrainResult, train_motifs
from spd_fast.motif import LAYER_KINDS
from spd_fast.recipes.settings import InnerSettings, Recipe
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "measured",
    "read_score",
    "score_cells",
    "seen",
    "step_weights",
    "train_cells",
    "training_keywords",
]

_OPTIMIZERS: Final = {"adam": Adam, "sgd": SGD, "rmsprop": RMSProp}


def training_keywords(inner: InnerSettings, seed: int, dish: Dish | None = None) -> dict[str, Any]:
    """Return the settings of the inner loop as keywords of `spd_fast.train_motifs`.

    Learning rates and scales of initial weights that the dish has learned take the place of the recipe's.
    """
    options = inner.optimizer.model_dump()
    schedule: Any = None if inner.schedule == "constant" else inner.schedule
    return {
        "epochs": inner.epochs,
        "batch_size": inner.batch_size,
        "optimizer": _OPTIMIZERS[options.pop("name")](**options),
        "schedule": schedule if dish is None or dish.rates is None else dish.rates,
        "init": inner.init,
        "initializer": inner.initializer,
        "initial_scales": recipe_scales(inner) if dish is None or dish.initial_scales is None else dish.initial_scales,
        "seed": seed,
    }


def recipe_scales(inner: InnerSettings) -> npt.NDArray[np.float64]:
    return np.array([getattr(inner.initial_scales, kind) for kind in LAYER_KINDS])


def score_cells(
    dish: Dish,
    recipe: Recipe,
    cells: Sequence[Candidate],
    *,
    threads: int | None = None,
    progress: Callable[[float], object] | None = None,
) -> npt.NDArray[np.float64]:
    """Score cells with a dish: train a motif of each as the recipe says and read what the recipe ranks by.

    Nothing but recipe and dish is needed, no accuracy is looked at, and a cell's score does not depend on which others
    are scored beside it. Initial weights and sample orders are those of the recipe's first outer epoch, which are those of
    every outer epoch unless the recipe redraws them.

    Parameters
    ----------
    dish : Dish
        As `spd_fast.fit_dish` learned it, with this recipe.
    recipe : Recipe
    cells : sequence of n Cell, NatsCell or SigmoidMLP
    threads, progress
        As in `spd_fast.train_motifs`.

    Returns
    -------
    ndarray, shape (n,), float64
        Larger is better: the metric (losses with their sign reversed) or the accuracy, as ``outer.ranking`` says, averaged
        over ``inner.replicates``. NaN where a motif of the cell diverged.

    Raises
    ------
    ValueError
        If dish and recipe do not fit each other.
    """
    results = train_cells(dish, recipe, cells, threads=threads, progress=progress)
    return mean_of([read_score(result, recipe, dish) for result in results])


def train_cells(
    dish: Dish,
    recipe: Recipe,
    cells: Sequence[Candidate],
    *,
    threads: int | None = None,
    progress: Callable[[float], object] | None = None,
) -> list[TrainResult]:
    """Train the motifs of some cells as `score_cells` does and return what they show, with the loss of every step.

    Parameters and errors are those of `score_cells`.

    Returns
    -------
    list of TrainResult
        One for each of ``inner.replicates``.
    """
    training = training_keywords(recipe.inner, derived_seed(recipe.seed, "inner"), dish)
    replicates = recipe.inner.replicates
    return [
        train_motifs(
            cells,
            recipe.shape,
            replace(dish, images=dish.images[seen(recipe, replicate)], labels=dish.labels[seen(recipe, replicate)]),
            replicate=replicate,
            dtype=recipe.dtype,
            threads=threads,
            record=("step_loss",),
            progress=part_of(progress, replicate, replicates),
            **training,
        )
        for replicate in range(replicates)
    ]


def seen(recipe: Recipe, replicate: int) -> slice:
    """Return which training images a replicate's motifs are trained on."""
    return slice(replicate, None, recipe.inner.replicates) if recipe.inner.split_images else slice(None)


def measured(result: TrainResult) -> MotifMetrics:
    """Return the metrics on the set that they are read on: the validation set where there is one."""
    metrics = result.train if result.valid is None else result.valid
    assert metrics is not None  # motifs are always read after training here
    return metrics


def read_score(result: TrainResult, recipe: Recipe, dish: Dish) -> npt.NDArray[np.float64]:
    """Return what the recipe ranks by, of every motif, larger is better: shape (K,), NaN where one diverged."""
    metric = recipe.outer.metric
    if recipe.outer.ranking == "accuracy":
        values = measured(result).accuracy
    elif metric == "training_loss":
        weighted = result.recorded["step_loss"] * step_weights(recipe, dish)
        values = -weighted.sum(axis=-1)  # a product of matrices would not have the same bits for any number of motifs
    else:
        values = measured(result).probability if metric == "probability" else -measured(result).loss
    return np.where(result.diverged, np.nan, np.asarray(values, np.float64))


def step_weights(recipe: Recipe, dish: Dish | None = None) -> npt.NDArray[np.float64]:
    """Return the weight of each step's loss in the metric "training_loss": learned ones, or a mean over those that count.

    Raises
    ------
    ValueError
        If the dish has learned weights for another number of steps than the recipe trains.
    """
    if dish is None or dish.step_weights is None:
        counted = recipe.counted_steps
        return np.repeat([0.0, 1 / counted], [recipe.steps - counted, counted])
    if len(dish.step_weights) != recipe.steps:
        raise ValueError(
            f"the dish has {len(dish.step_weights)} step_weights, expected {recipe.steps}: one for each step"
        )
    return dish.step_weights
