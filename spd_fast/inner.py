"""From a recipe to the inner loop: the dish before learning, keywords of `train_motifs`, seeds, scores of cells."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.progress import part_of
from spd_fast.base.seeds import derived_seed
from spd_fast.base.stores import content_digest
from spd_fast.base.sums import mean_of
from spd_fast.dish import Dish, cosine_basis, label_matrix
from spd_fast.engine.optimizers import SGD, Adam, RMSProp
from spd_fast.engine.training import MotifMetrics, TrainResult, learning_rates, train_motifs
from spd_fast.motif import LAYER_KINDS
from spd_fast.recipes import DishSettings, InnerSettings, Recipe
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "measured",
    "read_score",
    "score_cells",
    "seen",
    "source_digest",
    "start_dish",
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
        "initial_scales": _scales(inner) if dish is None or dish.initial_scales is None else dish.initial_scales,
        "seed": seed,
    }


def _scales(inner: InnerSettings) -> npt.NDArray[np.float64]:
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


def start_dish(recipe: Recipe) -> Dish:
    """Return the dish before learning, in the recipe's dtype; labels that will be learned are weights of classes.

    Raises
    ------
    FileNotFoundError
        If the recipe's source is not there.
    ValueError
        If the source is damaged or does not fit the recipe.
    """
    settings = recipe.dish
    if settings.start == "dish":
        start = _saved_dish(settings)
    elif settings.start == "images":
        start = _real_dish(recipe)
    else:
        start = _random_dish(recipe)
    valid_images, valid_labels = start.valid_images, start.valid_labels
    if settings.valid_start == "copy" and settings.valid_images and settings.start != "dish":
        first = (
            np.arange(settings.valid_images)
            if settings.labels == "bits"
            else _of_each_class(start.labels, settings.valid_images // settings.classes)
        )
        valid_images, valid_labels = start.images[first], start.labels[first]
    if valid_images is not None:
        valid_images = _in_basis(valid_images, settings).astype(recipe.dtype)
    rates, scales, weights = start.rates, start.initial_scales, start.step_weights
    if rates is None and "rates" in recipe.outer.learn:
        keywords = training_keywords(recipe.inner, 0)
        rates = learning_rates(keywords["schedule"], keywords["optimizer"].lr, recipe.steps)
    if scales is None and "initial_scales" in recipe.outer.learn:
        scales = _scales(recipe.inner)
    if weights is None and "step_weights" in recipe.outer.learn:
        weights = step_weights(recipe)
    if rates is not None and "rates" in recipe.outer.learn and not (rates > 0).all():
        raise ValueError(
            f"rates of dish {settings.source} hold {rates.min()}, expected above 0: learned in proportion, 0 stays 0"
        )
    return Dish(
        _in_basis(start.images, settings).astype(recipe.dtype),
        _learnable_labels(start.labels, "labels", recipe),
        valid_images,
        None if valid_labels is None else _learnable_labels(valid_labels, "valid_labels", recipe),
        rates,
        scales,
        weights,
    )


def source_digest(recipe: Recipe) -> str | None:
    """Return what identifies the contents of the file or folder that a recipe's dish starts from, None where it has none.

    Raises
    ------
    FileNotFoundError, ValueError
        As `start_dish`.
    """
    from spd_fast.images import load_images

    start, source = recipe.dish.start, recipe.dish.source or ""
    if start == "dish":
        arrays = vars(Dish.load(source))
        return content_digest({name: array for name, array in arrays.items() if array is not None})
    return load_images(source).digest()[:16] if start == "images" else None


def _random_dish(recipe: Recipe) -> Dish:
    settings = recipe.dish

    def drawn(images: int, purpose: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        rng = np.random.default_rng(derived_seed(recipe.seed, purpose))
        sides = (settings.image_rows or settings.image_size, settings.image_size)
        pixels = rng.standard_normal((images, settings.image_channels, *sides)).astype(np.float32)
        if settings.labels == "bits":
            return pixels, rng.integers(0, 2, (images, settings.classes)).astype(np.float64)
        return pixels, np.repeat(np.arange(settings.classes), images // settings.classes)

    valid = drawn(settings.valid_images, "validation set") if settings.valid_images else ()
    return Dish(*drawn(settings.images, "dish"), *valid)


def _real_dish(recipe: Recipe) -> Dish:
    """Draw different real images for both sets, the same number of each class, of each channel mean 0 and variance 1."""
    from spd_fast.images import load_images, resize_images

    settings = recipe.dish
    data = load_images(settings.source or "")
    classes, channels = settings.classes, settings.image_channels
    if data.train_images.shape[1] != channels:
        raise ValueError(
            f"images of {data.name} have {data.train_images.shape[1]} channels, expected dish.image_channels ({channels})"
        )
    counts = [settings.images // classes, settings.valid_images // classes]
    rng = np.random.default_rng(derived_seed(recipe.seed, "dish"))
    rows = [rng.permutation(np.flatnonzero(data.train_labels == label))[: sum(counts)] for label in range(classes)]
    fewest = min(range(classes), key=lambda label: len(rows[label]))
    if len(rows[fewest]) < sum(counts):
        raise ValueError(
            f"{data.name} has {len(rows[fewest])} images of class {fewest}, expected at least {sum(counts)}: "
            "ask for fewer in dish.images and dish.valid_images"
        )

    def dish_of(chosen: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        return (resize_images(data.train_images[chosen], settings.image_size) - mean) / deviation, data.train_labels[
            chosen
        ]

    everything = resize_images(data.train_images[np.concatenate(rows)], settings.image_size)
    mean = everything.mean(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    deviation = everything.std(axis=(0, 2, 3), keepdims=True, dtype=np.float64) + 1e-12
    train = dish_of(np.concatenate([chosen[: counts[0]] for chosen in rows]))
    return Dish(*train, *(dish_of(np.concatenate([chosen[counts[0] :] for chosen in rows])) if counts[1] else ()))


def _saved_dish(settings: DishSettings) -> Dish:
    saved = Dish.load(settings.source or "")
    side = settings.image_size
    for name, images, n in (
        ("images", saved.images, settings.images),
        ("valid_images", saved.valid_images, settings.valid_images),
    ):
        expected = (n, settings.image_channels, settings.image_rows or side, side)
        shape = (0, *expected[1:]) if images is None else images.shape
        if shape != expected:
            raise ValueError(
                f"{name} of dish {settings.source} have shape {shape}, expected {expected} as in the recipe"
            )
    return saved


def _learnable_labels(labels: npt.NDArray[Any], name: str, recipe: Recipe) -> npt.NDArray[Any]:
    if name not in recipe.outer.learn:
        return labels
    return label_matrix(labels, recipe.dish.classes, recipe.dtype, name)


def _of_each_class(labels: npt.NDArray[Any], n: int) -> npt.NDArray[np.int64]:
    """Return the rows of the first `n` images of every class, class by class."""
    return np.concatenate([np.flatnonzero(labels == label)[:n] for label in np.unique(labels)])


def _in_basis(images: npt.NDArray[Any], settings: DishSettings) -> npt.NDArray[Any]:
    """Project images onto the recipe's basis; random ones are scaled up again to variance 1."""
    if settings.basis is None:
        return images
    basis = cosine_basis(settings.image_size, settings.basis)
    scale = settings.image_size / settings.basis if settings.start == "gaussian" else 1.0
    projected: npt.NDArray[Any] = scale * (basis.T @ (basis @ images @ basis.T) @ basis)
    return projected
