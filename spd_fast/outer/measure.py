"""What the outer loop differentiates: from a dish to a metric of every cell.

To measure cells, their motifs are trained on the dish. If only the validation set is learned and initial weights are
never redrawn, each motif is trained once and evaluated again in every epoch, which gives the same metric and gradient
for a fraction of the work.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from spd_fast.base.progress import part_of
from spd_fast.base.sums import mean_of
from spd_fast.base.types import Array, Progress
from spd_fast.dish import Dish
from spd_fast.engine.gradients import PackedMotifs, pack_motifs
from spd_fast.engine.training import TrainResult, train
from spd_fast.learnables.table import LEARNABLES, enter_all
from spd_fast.outer.forms import Tensors
from spd_fast.recipes.settings import Recipe
from spd_fast.scoring import images_of_replicate, inner_loop, metrics_read, step_weights
from spd_fast.spaces.candidate import Candidate
from spd_fast.torch import Asked, Inputs, measure_training, packed_metrics

__all__ = [
    "CellMetrics",
    "Measure",
    "measure_of",
    "trains_once",
]


@dataclass(frozen=True, eq=False)
class CellMetrics:
    """Metrics of K cells: means over the motifs of each cell, one a replicate; NaN if one of these motifs diverged.

    Attributes
    ----------
    metric : Tensor, shape (K,)
        The recipe's metric; losses keep their sign. Differentiable in the dish's tensors.
    accuracy : ndarray, shape (K,), float64
        Accuracy after training, on the set that the metric is read on.
    curve_loss, curve_accuracy : ndarray, shape (K, epochs)
        Training loss and accuracy of every inner epoch.
    step_loss : ndarray, shape (K, steps), or None
        Training loss of every inner step, with the metric "training_loss".
    """

    metric: Tensor
    accuracy: Array
    curve_loss: Array
    curve_accuracy: Array
    step_loss: Array | None = None

    def score(self, recipe: Recipe) -> Tensor:
        """Return the metric, with the sign of losses reversed, so that more is better."""
        return self.metric if recipe.outer.metric == "probability" else -self.metric

    def ranking(self, recipe: Recipe) -> Array:
        """Return the score as ``outer.ranking`` says, more is better: shape (K,), float64."""
        return self.accuracy if recipe.outer.ranking == "accuracy" else self.score(recipe).detach().double().numpy()


Measure = Callable[[Tensors, Sequence[int], int | None, Progress | None], CellMetrics]
"""``measure(tensors, rows, epoch, progress)`` measures the cells at these rows with the initial weights, sample orders
and replicates of an outer epoch; with None for the epoch, as `spd_fast.score_cells` does."""


def measure_of(cells: Sequence[Candidate], start: Dish, recipe: Recipe, threads: int | None) -> Measure:
    """Return the function that measures cells as the recipe says.

    Parameters
    ----------
    cells : sequence of Cell, NatsCell or Perceptron
        What rows refer to.
    start : Dish
        Before learning.
    recipe : Recipe
    threads : int, optional
    """
    if trains_once(recipe):
        return _TrainedOnce(cells, start, recipe, threads)

    def measure(tensors: Tensors, rows: Sequence[int], epoch: int | None, progress: Progress | None) -> CellMetrics:
        return _trained_anew([cells[row] for row in rows], tensors, recipe, epoch, threads, progress)

    return measure


def trains_once(recipe: Recipe) -> bool:
    """Return whether the trained motifs are the same in every outer epoch, because nothing that training depends on is
    learned."""
    return not recipe.inner.redraw and not any(LEARNABLES[name].changes_training for name in recipe.outer.learn)


def _trained_anew(
    cells: Sequence[Candidate],
    tensors: Tensors,
    recipe: Recipe,
    epoch: int | None,
    threads: int | None,
    progress: Progress | None,
) -> CellMetrics:
    entered = enter_all(tensors)
    scales = entered.get("initial_scales", torch.from_numpy(recipe.form.initial_scales))
    weights = _step_weights(entered, recipe) if recipe.outer.metric == "training_loss" else None
    asked = Asked(recipe.outer.metric, recipe.outer.derivative or "unrolled", recipe.outer.window)
    replicates = _replicates(recipe, epoch)
    metrics, results = [], []
    for part, replicate in enumerate(replicates):
        inputs = Inputs(
            entered["images"][images_of_replicate(recipe, replicate)],
            entered["labels"][images_of_replicate(recipe, replicate)],
            entered.get("valid_images"),
            entered.get("valid_labels"),
            entered.get("rates"),
            scales,
            weights,
        )
        metric, result = measure_training(
            inner_loop(recipe, outer_epoch=epoch or 0, replicate=replicate),
            inputs,
            asked,
            cells,
            recipe.shape,
            threads=threads,
            progress=part_of(progress, part, len(replicates)),
        )
        metrics.append(metric)
        results.append(result)
    accuracy = mean_of([metrics_read(result).accuracy for result in results])
    losses = [result.recorded["step_loss"] for result in results if "step_loss" in result.recorded]
    step_loss = mean_of(losses) if losses else None
    return CellMetrics(mean_of(metrics), accuracy, *_curves(results), step_loss)


def _replicates(recipe: Recipe, epoch: int | None) -> list[int]:
    """Return the replicates that an outer epoch measures."""
    every = recipe.inner.replicates
    if epoch is None or recipe.outer.replicates is None:
        return list(range(every))
    return [(epoch * recipe.outer.replicates + place) % every for place in range(recipe.outer.replicates)]


def _step_weights(entered: Tensors, recipe: Recipe) -> Tensor:
    return entered["step_weights"] if "step_weights" in entered else torch.from_numpy(step_weights(recipe))


class _TrainedOnce:
    """Measures cells with motifs that are trained once, when their cell is first measured."""

    def __init__(self, cells: Sequence[Candidate], start: Dish, recipe: Recipe, threads: int | None) -> None:
        self._cells, self._start, self._recipe, self._threads = cells, start, recipe, threads
        self._place: dict[int, int] = {}  # row -> place in what follows
        self._motifs: list[PackedMotifs] = []  # one entry per replicate
        self._curves: tuple[Array, ...] = (np.empty((0, recipe.inner.epochs)), np.empty((0, recipe.inner.epochs)))

    def __call__(
        self, tensors: Tensors, rows: Sequence[int], epoch: int | None, progress: Progress | None
    ) -> CellMetrics:
        self._train_missing([row for row in rows if row not in self._place], progress)
        places = [self._place[row] for row in rows]
        entered = enter_all(tensors)
        metrics, accuracies = [], []
        for motifs in [self._motifs[replicate] for replicate in _replicates(self._recipe, epoch)]:
            metric, reading = packed_metrics(
                motifs.take(places),
                entered["valid_images"],
                entered["valid_labels"],
                metric=cast(Any, self._recipe.outer.metric),
                threads=self._threads,
            )
            metrics.append(metric)
            accuracies.append(np.where(np.isfinite(reading.loss), reading.accuracy, np.nan))
        loss, accuracy = (curve[places] for curve in self._curves)
        return CellMetrics(mean_of(metrics), mean_of(accuracies), loss, accuracy)

    def _train_missing(self, rows: Sequence[int], progress: Progress | None) -> None:
        if not rows:
            return
        recipe, cells = self._recipe, [self._cells[row] for row in rows]
        images, labels = self._start.images, self._start.labels
        results = [
            train(
                replace(inner_loop(recipe, self._start, replicate=replicate), evaluate=False),
                cells,
                recipe.shape,
                Dish(images[images_of_replicate(recipe, replicate)], labels[images_of_replicate(recipe, replicate)]),
                threads=self._threads,
                progress=part_of(progress, replicate, recipe.inner.replicates),
            )
            for replicate in range(recipe.inner.replicates)
        ]
        packed = [
            pack_motifs(cells, recipe.shape, _known_parameters(result), images.shape[1:], dtype=recipe.dtype)
            for result in results
        ]
        self._motifs = [old + new for old, new in zip(self._motifs, packed, strict=True)] if self._motifs else packed
        self._curves = tuple(np.concatenate(pair) for pair in zip(self._curves, _curves(results), strict=True))
        self._place |= {row: len(self._place) + k for k, row in enumerate(rows)}


def _known_parameters(result: TrainResult) -> list[Mapping[str, Array]]:
    """Return the weights of motifs; NaN where one diverged, so that all of its metrics are NaN."""
    return [
        {name: np.full_like(array, np.nan) for name, array in weights.items()} if diverged else weights
        for weights, diverged in zip(result.parameters, result.diverged, strict=True)
    ]


def _curves(results: Sequence[TrainResult]) -> tuple[Array, Array]:
    """Return loss and accuracy of every inner epoch, means over replicates: shape (K, epochs) each."""
    return mean_of([each.loss for each in results]), mean_of([each.accuracy for each in results])
