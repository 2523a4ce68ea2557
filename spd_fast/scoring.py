"""The inner loop of a recipe, and the scores of cells that come of it."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from spd_fast.base.display import ShownProgress, shown_share
from spd_fast.base.executors import Executor, Spread
from spd_fast.base.progress import part_of
from spd_fast.base.seeds import derived_seed
from spd_fast.base.sums import mean_of
from spd_fast.base.types import (
    Progress,
    checked_instance,
    checked_integer,
    checked_list,
    checked_progress,
    checked_shown_progress,
)
from spd_fast.dish import Dish
from spd_fast.engine.inner_loop import InnerLoop
from spd_fast.engine.optimizers import SGD, Adam, RMSProp
from spd_fast.engine.specs import forward_flops
from spd_fast.engine.training import MotifMetrics, TrainResult, train
from spd_fast.learnables.step_weights import equal_weights
from spd_fast.learnables.table import enter_all
from spd_fast.motif import Shape
from spd_fast.recipes.settings import REFERENCE_SCORES, Recipe, checked_recipe
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "InnerLoops",
    "entered",
    "inner_loops",
    "metrics_read",
    "read_score",
    "reference_losses",
    "replicates_of",
    "score_cells",
    "score_loop",
    "shape_for",
    "spread_motifs",
    "step_weights",
    "train_cells",
    "training_passes",
]

_Result = TypeVar("_Result")
Where = tuple[Dish, Recipe, int]
"""What every piece of spread work is given: the dish, the recipe, and how many threads train its motifs."""

_OPTIMIZERS: Final[dict[str, type[Adam | SGD | RMSProp]]] = {"adam": Adam, "sgd": SGD, "rmsprop": RMSProp}


@dataclass(frozen=True, eq=False)
class InnerLoops:
    """The inner loops of a recipe: one for each replicate and, where initial weights are redrawn, for each outer epoch.

    Attributes
    ----------
    shape : MotifShape or PerceptronShape
        Of the motifs.
    first : InnerLoop
        That of replicate 0 in outer epoch 0; the others differ in their replicate and in their seed.
    seed : int
        The recipe's, from which the seeds of outer epochs are derived.
    replicates : int
        Number of motifs of each cell.
    redraw : bool
        Whether every outer epoch draws initial weights and sample orders anew.
    split_images : bool
        Whether each replicate is trained on images of its own.
    """

    shape: Shape
    first: InnerLoop
    seed: int
    replicates: int
    redraw: bool
    split_images: bool

    def of(self, replicate: int, outer_epoch: int = 0) -> InnerLoop:
        """Return the inner loop of a replicate in an outer epoch."""
        seed = derived_seed(self.seed, "inner", outer_epoch if self.redraw else 0)
        return replace(self.first, seed=seed, replicate=replicate)

    def images(self, replicate: int) -> slice:
        """Return the slice of the training images that the motifs of a replicate are trained on."""
        return slice(replicate, None, self.replicates) if self.split_images else slice(None)


def training_passes(recipe: Recipe) -> int:
    """Return how many forward passes of one image cost as many FLOPs as the training of a motif: a step costs three."""
    return 3 * recipe.inner.epochs * recipe.images_of_a_motif


def inner_loops(recipe: Recipe, dish: Dish | None = None) -> InnerLoops:
    """Return the inner loops of a recipe.

    Parameters
    ----------
    recipe : Recipe
    dish : Dish, optional
        Rates and initial scales that the dish holds are used in place of the recipe's.
    """
    inner, form = recipe.inner, recipe.form
    options = inner.optimizer.model_dump()
    learned = {} if dish is None else dish.arrays()
    first = InnerLoop(
        epochs=inner.epochs,
        batch_size=inner.batch_size,
        optimizer=_OPTIMIZERS[options.pop("name")](**options),
        schedule=learned.get("rates", None if inner.schedule == "constant" else "cosine"),
        init=inner.init,
        init_distribution=inner.init_distribution,
        initial_scales=learned.get("initial_scales", form.initial_scales),
        seed=derived_seed(recipe.seed, "inner", 0),
        dtype=np.dtype(recipe.dtype),
    )
    return InnerLoops(recipe.shape, first, recipe.seed, inner.replicates, inner.redraw, inner.split_images)


def score_cells(
    dish: Dish,
    recipe: Recipe,
    cells: Sequence[Candidate],
    *,
    replicates: Sequence[int] | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: ShownProgress = None,
) -> npt.NDArray[np.float64]:
    """Score cells with a dish: train a motif of each cell as the recipe says, and read its score.

    A score depends on the recipe and the dish alone; no accuracy is used, and other cells in the same call change nothing.
    Initial weights and sample orders are those of the recipe's first outer epoch; unless the recipe redraws them, all outer
    epochs have the same.

    Parameters
    ----------
    dish : Dish
        A dish that `spd_fast.fit_dish` learned with this recipe, for example.
    recipe : Recipe
    cells : sequence of n Cell, NatsCell or Perceptron
    replicates : sequence of int, optional
        The replicates whose scores are averaged, such as ``range(2)`` for a cheaper score. Default: all of ``inner.replicates``.
    threads : int, optional
        As in `spd_fast.train_motifs`.
    executor : concurrent.futures.Executor, dask.distributed.Client, or the module ray, optional
        Where motifs are trained, in place of the threads of this process; `threads` is then the number of threads of each piece of the
        work, 1 by default. The scores have the same bits.
    progress : callable or bool, optional
        It is called with the share of the work that is done, 0 to 1. Default: a bar, as `spd_fast.rank` shows it.

    Returns
    -------
    ndarray, shape (n,), float64
        Scores; larger is better. ``outer.ranking`` says whether they are the metric (minus the loss, for losses) or the
        accuracy. They are means over the replicates, and NaN if a motif of the cell diverged.

    Raises
    ------
    ValueError
        If dish and recipe do not fit each other, or the recipe has no such replicates.
    """
    checked_shown_progress(progress)
    with shown_share(progress, "training motifs") as report:
        if executor is None:
            results = train_cells(dish, recipe, cells, replicates=replicates, threads=threads, progress=report)
            return mean_of([read_score(result, recipe, dish) for result in results])
        wanted = replicates_of(recipe, replicates)
        scores = np.empty((len(wanted), len(cells)))
        spread = Spread(executor, threads)
        for replicate, rows, found in spread_motifs(spread, _scores, dish, recipe, cells, wanted, report):
            scores[np.ix_(np.flatnonzero(np.equal(wanted, replicate)), rows)] = found
        return mean_of(list(scores))


def _scores(where: Where, cells: Sequence[Candidate], replicate: int) -> npt.NDArray[np.float64]:
    """Return the scores of one replicate of cells, on a worker."""
    dish, recipe, threads = where
    (result,) = train_cells(dish, recipe, cells, replicates=[replicate], threads=threads)
    return read_score(result, recipe, dish)


def spread_motifs(
    spread: Spread,
    function: Callable[[Where, Sequence[Candidate], int], _Result],
    dish: Dish,
    recipe: Recipe,
    cells: Sequence[Candidate],
    replicates: Sequence[int],
    progress: Progress | None = None,
) -> Generator[tuple[int, npt.NDArray[np.int64], _Result]]:
    """Spread the motifs of cells over an executor: one of each cell for each of these replicates.

    Parameters
    ----------
    spread : Spread
    function : callable
        ``function((dish, recipe, threads), cells, replicate)`` trains motifs of some of the cells, on a worker.
    dish, recipe, cells
        As in `score_cells`, with its errors.
    replicates : sequence of int
    progress : callable, optional

    Yields
    ------
    replicate : int
    rows : ndarray of int
        Positions of the cells.
    result : what `function` returned of them
    """
    checked_progress(progress)
    checked_instance("dish", dish, Dish, "a spd_fast.Dish")
    costs = forward_flops(cells, checked_recipe(recipe).shape, dish.images.shape[1:]) * training_passes(recipe)
    whole, done = float(costs.sum()) * len(replicates), 0.0
    pieces = spread.run(
        function,
        (dish, recipe, spread.threads),
        np.tile(costs, len(replicates)),
        lambda replicate, places: ([cells[place % len(cells)] for place in places.tolist()], replicate),
        groups=np.repeat(np.asarray(replicates), len(cells)),
    )
    with closing(pieces):
        for replicate, places, result in pieces:
            rows = places % len(cells)
            yield replicate, rows, result
            done += float(costs[rows].sum())
            if progress is not None:
                progress(done / whole if whole else 1.0)


def train_cells(
    dish: Dish,
    recipe: Recipe,
    cells: Sequence[Candidate],
    *,
    replicates: Sequence[int] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[TrainResult]:
    """Train the motifs of cells as `score_cells` does, and return the results with the training loss of every step.

    Errors and all other parameters are those of `score_cells`.

    Parameters
    ----------
    replicates : sequence of int, optional
        The replicates that are trained. Default: all of ``inner.replicates``.

    Returns
    -------
    list of TrainResult
        One result for each replicate.
    """
    checked_progress(progress)
    dish = entered(checked_instance("dish", dish, Dish, "a spd_fast.Dish"))
    wanted = replicates_of(recipe, replicates)
    found = []
    for part, replicate in enumerate(wanted):
        loop, images = score_loop(recipe, dish, replicate)
        report = part_of(progress, part, len(wanted))
        found.append(train(loop, cells, recipe.shape, images, threads=threads, progress=report))
    return found


def replicates_of(recipe: Recipe, replicates: Sequence[int] | None) -> list[int]:
    """Return the replicates that are trained: those that are wanted, checked, or all of the recipe."""
    known = checked_recipe(recipe).inner.replicates
    wanted = list(range(known) if replicates is None else checked_list("replicates", replicates, "integers"))
    if not wanted or any(checked_integer("one of replicates", each) not in range(known) for each in wanted):
        raise ValueError(f"replicates is {wanted}, expected integers from 0 to {known - 1}, at least one")
    return wanted


def score_loop(recipe: Recipe, dish: Dish, replicate: int) -> tuple[InnerLoop, Dish]:
    """Return the inner loop of a replicate from which scores are read, and the dish with the replicate's own images alone.

    The loop records the loss of every step, and evaluates trained motifs only if the score is read from that.
    """
    loops = inner_loops(recipe, dish)
    evaluate = recipe.outer.ranking == "accuracy" or recipe.outer.metric != "training_loss"
    own = loops.images(replicate)
    return (
        replace(loops.of(replicate), record=("step_loss",), evaluate=evaluate),
        replace(dish, images=dish.images[own], labels=dish.labels[own]),
    )


def shape_for(recipe: Recipe, dish: Dish) -> Shape:
    """Return the recipe's motif shape with the channels and the classes of a dish."""
    classes = dish.labels.shape[1] if dish.labels.ndim == 2 else max(2, int(dish.labels.max()) + 1)
    return replace(recipe.shape, image_channels=dish.images.shape[1], classes=classes)


def entered(dish: Dish) -> Dish:
    """Return the dish that the engine gets: learnables that act on images or labels, such as image weights, are applied."""
    return Dish.from_arrays(enter_all(dish.arrays()))


def metrics_read(result: TrainResult) -> MotifMetrics:
    """Return the metrics on the validation set, or on the training set if there is none."""
    metrics = result.train if result.valid is None else result.valid
    assert metrics is not None  # the inner loops of recipes always evaluate motifs after training
    return metrics


def read_score(result: TrainResult, recipe: Recipe, dish: Dish) -> npt.NDArray[np.float64]:
    """Return the score of every motif, as ``outer.ranking`` says: shape (K,). Larger is better; NaN if a motif diverged."""
    metric = recipe.outer.metric
    if recipe.outer.ranking == "accuracy":
        values = metrics_read(result).accuracy
    elif metric == "training_loss" and recipe.outer.reference_losses is not None:
        if dish.step_weights is not None:
            raise ValueError(
                "the dish has step_weights and the recipe has outer.reference_losses, expected one of the two: ranks of epochs have "
                "no weights of steps"
            )
        values = -_normal_scores(_epoch_losses(result, recipe), recipe.outer.reference_losses)
    elif metric == "training_loss":
        weighted = result.recorded["step_loss"] * step_weights(recipe, dish)
        values = -weighted.sum(axis=-1)  # a product of matrices would not have the same bits for any number of motifs
    else:
        values = metrics_read(result).probability if metric == "probability" else -metrics_read(result).loss
    return np.where(result.diverged, np.nan, np.asarray(values, np.float64))


def reference_losses(
    dish: Dish,
    recipe: Recipe,
    cells: Sequence[Candidate],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[tuple[float, ...], ...]:
    """Measure the setting ``outer.reference_losses`` for a recipe: train motifs of random cells, and take quantiles of their losses.

    Parameters
    ----------
    dish : Dish
        A dish that the recipe's motifs are trained on, such as `spd_fast.outer.start.start_dish` makes.
    recipe : Recipe
    cells : sequence of Cell, NatsCell or Perceptron
        A few hundred cells, drawn evenly from the space. Their accuracies need not be known.
    threads, progress
        As in `spd_fast.train_motifs`.

    Returns
    -------
    tuple of tuple of float
        One row for each inner epoch that counts, with 13 losses: quantiles over all replicates of all cells.

    Raises
    ------
    ValueError
        If dish and recipe do not fit each other, or the losses are too few or too much alike to have such quantiles.
    """
    from scipy.special import ndtr

    results = train_cells(dish, recipe, cells, threads=threads, progress=progress)
    losses = np.concatenate([_epoch_losses(result, recipe)[~result.diverged] for result in results])
    if not len(losses):
        raise ValueError(f"{len(cells)} cells left no motif that did not diverge, expected a few hundred cells")
    rows = np.quantile(losses, ndtr(np.array(REFERENCE_SCORES)), axis=0).T
    if not (np.diff(rows) > 0).all():
        raise ValueError(
            f"the losses of {len(losses)} motifs have no increasing quantiles, expected those of a few hundred cells"
        )
    return tuple(tuple(row) for row in rows.tolist())


def _epoch_losses(result: TrainResult, recipe: Recipe) -> npt.NDArray[np.float64]:
    """Return the mean training losses of the inner epochs that count: shape (K, epochs)."""
    counted = np.asarray(result.recorded["step_loss"], np.float64)[:, -recipe.counted_steps :]
    means: npt.NDArray[np.float64] = counted.reshape(len(counted), -1, recipe.steps_per_epoch).mean(axis=-1)
    return means


def _normal_scores(losses: npt.NDArray[np.float64], reference: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Return the means over epochs of the normal scores of losses, shape (K, epochs), among reference losses: shape (K,).

    A score is linear in the logarithm of the loss between two quantiles, and beyond the last ones as it is over the two intervals before.
    """
    scores, at = [], np.array(REFERENCE_SCORES)
    with np.errstate(divide="ignore", invalid="ignore"):
        for loss, known in zip(np.log(losses).T, np.log(reference), strict=True):
            below = at[0] + (loss - known[0]) * (at[2] - at[0]) / (known[2] - known[0])
            above = at[-1] + (loss - known[-1]) * (at[-1] - at[-3]) / (known[-1] - known[-3])
            inside = np.interp(loss, known, at)
            scores.append(np.where(loss < known[0], below, np.where(loss > known[-1], above, inside)))
    return mean_of(scores)


def step_weights(recipe: Recipe, dish: Dish | None = None) -> npt.NDArray[np.float64]:
    """Return the step weights of the metric "training_loss": the dish's learned ones, or equal ones of the last steps.

    Raises
    ------
    ValueError
        If the dish has step weights for another number of steps than the recipe trains.
    """
    if dish is None or dish.step_weights is None:
        return equal_weights(recipe.steps, recipe.counted_steps)
    learned: npt.NDArray[np.float64] = dish.step_weights
    if len(learned) != recipe.steps:
        raise ValueError(f"the dish has {len(learned)} step_weights, expected {recipe.steps}: one for each step")
    return learned
