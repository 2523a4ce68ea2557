"""The function that the outer loop differentiates: from a dish to a metric of every cell.

To measure cells, the outer loop trains their motifs on the dish. If training depends on nothing that is learned, and initial weights
are never redrawn, each motif is trained once and read again in every outer epoch. That gives the same metric and gradient for a
fraction of the work.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor

from spd_fast.base.executors import Spread
from spd_fast.base.progress import part_of
from spd_fast.base.sums import mean_of
from spd_fast.base.types import Array, Progress
from spd_fast.dish import Dish
from spd_fast.engine.gradients import PackedMotifs, pack_motifs
from spd_fast.engine.spreading import train_by
from spd_fast.engine.training import TrainResult, train
from spd_fast.learnables.table import LEARNABLES, enter_all
from spd_fast.outer.forms import Tensors
from spd_fast.recipes.settings import Recipe
from spd_fast.scoring import InnerLoops, inner_loops, metrics_read, step_weights
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
    """Metrics of K cells: means over the replicates of each cell; NaN if a motif of the cell diverged.

    Attributes
    ----------
    metric : Tensor, shape (K,)
        The recipe's metric, differentiable in the dish's tensors. Losses keep their sign.
    accuracy : ndarray, shape (K,), float64
        Accuracy after training, on the set that the metric is read on.
    curve_loss, curve_accuracy : ndarray, shape (K, epochs)
        Training loss and accuracy of every inner epoch.
    step_loss : ndarray, shape (K, steps), or None
        Training loss of every inner step, with the metric "training_loss".
    is_loss : bool
        Whether the metric is a loss, of which less is better.
    ranked_by_accuracy : bool
        Whether cells are ranked by `accuracy`, not by the metric.
    """

    metric: Tensor
    accuracy: Array
    curve_loss: Array
    curve_accuracy: Array
    step_loss: Array | None
    is_loss: bool
    ranked_by_accuracy: bool

    @property
    def score(self) -> Tensor:
        """The metric with the sign of losses reversed, so that more is better."""
        return -self.metric if self.is_loss else self.metric

    @property
    def ranking(self) -> Array:
        """The score that ``outer.ranking`` asks for, accuracy or metric: shape (K,), float64. More is better."""
        return self.accuracy if self.ranked_by_accuracy else self.score.detach().double().numpy()


Measure = Callable[[Tensors, Sequence[int], int | None, Progress | None], CellMetrics]
"""``measure(tensors, rows, epoch, progress)`` measures the cells in these rows with the initial weights, sample orders and
replicates of an outer epoch. If the epoch is None, it measures as `spd_fast.score_cells` does, with all replicates."""


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a recipe asks for when cells are measured."""

    loops: InnerLoops
    metric: Asked
    step_weights: Tensor | None  # with the metric "training_loss": those that count where none are learned
    ranked_by_accuracy: bool
    replicates: int | None  # number that an outer epoch measures; None: all

    @classmethod
    def by(cls, recipe: Recipe) -> Self:
        outer = recipe.outer
        asked = Asked(outer.metric, outer.derivative or "unrolled", outer.window)
        weights = torch.from_numpy(step_weights(recipe)) if outer.metric == "training_loss" else None
        return cls(inner_loops(recipe), asked, weights, outer.ranking == "accuracy", outer.replicates)

    def replicates_in(self, epoch: int | None) -> list[int]:
        """Return the replicates that an outer epoch measures."""
        every = self.loops.replicates
        if epoch is None or self.replicates is None:
            return list(range(every))
        return [(epoch * self.replicates + place) % every for place in range(self.replicates)]

    def answer(
        self,
        metrics: Sequence[Tensor],
        accuracies: Sequence[Array],
        curves: tuple[Array, Array],
        step_losses: Sequence[Array] = (),
    ) -> CellMetrics:
        """Return the metrics of cells as means over what was read in each replicate."""
        return CellMetrics(
            mean_of(metrics),
            mean_of(accuracies),
            *curves,
            step_loss=mean_of(step_losses) if step_losses else None,
            is_loss=self.metric.metric != "probability",
            ranked_by_accuracy=self.ranked_by_accuracy,
        )


def measure_of(
    cells: Sequence[Candidate], start: Dish, recipe: Recipe, threads: int | None, spread: Spread | None = None
) -> Measure:
    """Return the function that measures cells as the recipe says.

    Parameters
    ----------
    cells : sequence of Cell, NatsCell or Perceptron
        The cells that rows refer to.
    start : Dish
        The dish before learning.
    recipe : Recipe
    threads : int, optional
    spread : Spread, optional
        The executor that trains and differentiates motifs. What is read of motifs that are trained once is read here.
    """
    asked = _Asked.by(recipe)
    if trains_once(recipe):
        return _TrainedOnce(cells, start, inner_loops(recipe, start), asked, threads, spread)

    def measure(tensors: Tensors, rows: Sequence[int], epoch: int | None, progress: Progress | None) -> CellMetrics:
        return _trained_anew([cells[row] for row in rows], tensors, asked, epoch, threads, spread, progress)

    return measure


def trains_once(recipe: Recipe) -> bool:
    """Return whether the trained motifs are the same in every outer epoch, because training depends on nothing that is
    learned and nothing that is redrawn."""
    return not recipe.inner.redraw and not any(LEARNABLES[name].changes_training for name in recipe.outer.learn)


def _trained_anew(
    cells: Sequence[Candidate],
    tensors: Tensors,
    asked: _Asked,
    epoch: int | None,
    threads: int | None,
    spread: Spread | None,
    progress: Progress | None,
) -> CellMetrics:
    entered, loops = enter_all(tensors), asked.loops
    scales = entered.get("initial_scales", torch.from_numpy(loops.first.initial_scales))
    weights_of_steps = None if asked.step_weights is None else entered.get("step_weights", asked.step_weights)
    replicates = asked.replicates_in(epoch)
    metrics, results = [], []
    for part, replicate in enumerate(replicates):
        inputs = Inputs(
            entered["images"][loops.images(replicate)],
            entered["labels"][loops.images(replicate)],
            entered.get("valid_images"),
            entered.get("valid_labels"),
            entered.get("rates"),
            scales,
            weights_of_steps,
        )
        metric, result = measure_training(
            loops.of(replicate, epoch or 0),
            inputs,
            asked.metric,
            cells,
            loops.shape,
            threads=threads,
            spread=spread,
            progress=part_of(progress, part, len(replicates)),
        )
        metrics.append(metric)
        results.append(result)
    losses = [result.recorded["step_loss"] for result in results if "step_loss" in result.recorded]
    return asked.answer(metrics, [metrics_read(result).accuracy for result in results], _curves(results), losses)


class _TrainedOnce:
    """Measures cells with motifs that are trained once, when the cell is first measured."""

    def __init__(
        self,
        cells: Sequence[Candidate],
        start: Dish,
        loops: InnerLoops,
        asked: _Asked,
        threads: int | None,
        spread: Spread | None,
    ) -> None:
        self._cells, self._start, self._loops, self._asked = cells, start, loops, asked
        self._threads, self._spread = threads, spread
        self._place: dict[int, int] = {}  # by row of a cell, its place in the motifs and curves below
        self._motifs: list[PackedMotifs] = []  # one entry for each replicate
        self._curves = (np.empty((0, loops.first.epochs)), np.empty((0, loops.first.epochs)))

    def __call__(
        self, tensors: Tensors, rows: Sequence[int], epoch: int | None, progress: Progress | None
    ) -> CellMetrics:
        self._train_missing([row for row in rows if row not in self._place], progress)
        places = [self._place[row] for row in rows]
        entered = enter_all(tensors)
        metrics, accuracies = [], []
        for motifs in [self._motifs[replicate] for replicate in self._asked.replicates_in(epoch)]:
            metric, reading = packed_metrics(
                motifs.take(places),
                entered["valid_images"],
                entered["valid_labels"],
                metric=cast(Any, self._asked.metric.metric),
                threads=self._threads,
            )
            metrics.append(metric)
            accuracies.append(np.where(np.isfinite(reading.loss), reading.accuracy, np.nan))
        loss, accuracy = self._curves
        return self._asked.answer(metrics, accuracies, (loss[places], accuracy[places]))

    def _train_missing(self, rows: Sequence[int], progress: Progress | None) -> None:
        if not rows:
            return
        loops, cells = self._loops, [self._cells[row] for row in rows]
        images, labels = self._start.images, self._start.labels
        results = []
        for replicate in range(loops.replicates):
            part = Dish(images[loops.images(replicate)], labels[loops.images(replicate)])
            loop, report = replace(loops.of(replicate), evaluate=False), part_of(progress, replicate, loops.replicates)
            results.append(
                train(loop, cells, loops.shape, part, threads=self._threads, progress=report)
                if self._spread is None
                else train_by(self._spread, loop, cells, loops.shape, part, progress=report)
            )
        packed = [
            pack_motifs(cells, loops.shape, _known_parameters(result), images.shape[1:], dtype=loops.first.dtype)
            for result in results
        ]
        self._motifs = [old + new for old, new in zip(self._motifs, packed, strict=True)] if self._motifs else packed
        loss, accuracy = _curves(results)
        self._curves = (np.concatenate([self._curves[0], loss]), np.concatenate([self._curves[1], accuracy]))
        self._place |= {row: len(self._place) + k for k, row in enumerate(rows)}


def _known_parameters(result: TrainResult) -> list[Mapping[str, Array]]:
    """Return the weights of motifs. Those of a motif that diverged are NaN, so that all of its metrics are NaN."""
    return [
        {name: np.full_like(array, np.nan) for name, array in weights.items()} if diverged else weights
        for weights, diverged in zip(result.parameters, result.diverged, strict=True)
    ]


def _curves(results: Sequence[TrainResult]) -> tuple[Array, Array]:
    """Return the training loss and accuracy of every inner epoch, means over replicates: shape (K, epochs) each."""
    return mean_of([each.loss for each in results]), mean_of([each.accuracy for each in results])
