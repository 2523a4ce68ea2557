"""The dish before learning, which a recipe describes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from spd_fast.base.seeds import derived_seed
from spd_fast.base.stores import content_digest
from spd_fast.base.types import Array
from spd_fast.dish import Dish
from spd_fast.learnables.images import in_basis
from spd_fast.learnables.table import LEARNABLES
from spd_fast.recipes.settings import DishSettings, Recipe

__all__ = [
    "source_digest",
    "start_dish",
]


def start_dish(recipe: Recipe) -> Dish:
    """Return the dish before learning, in the recipe's dtype. Labels that will be learned are soft labels.

    Raises
    ------
    FileNotFoundError
        If the recipe's source does not exist.
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
    arrays = start.arrays() | {"images": _in_basis(start.images, settings).astype(recipe.dtype)}
    if valid_images is not None and valid_labels is not None:
        arrays |= {"valid_images": valid_images, "valid_labels": valid_labels}
    form = recipe.form
    for name in recipe.outer.learn:
        try:
            LEARNABLES[name].begin(arrays, form)
        except ValueError as error:
            raise ValueError(f"the dish {settings.source} cannot be learned: {error}") from error
    return Dish.from_arrays(arrays)


def source_digest(recipe: Recipe) -> str | None:
    """Return a digest of the images or the dish that a recipe's dish starts from; None if it starts from random images.

    Raises
    ------
    FileNotFoundError, ValueError
        As `start_dish`.
    """
    from spd_fast.images import load_images

    start, source = recipe.dish.start, recipe.dish.source or ""
    if start == "dish":
        return content_digest(Dish.load(source).arrays())
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
    """Return a dish of real images, no image twice in its two sets and the same number of every class. Each channel has
    mean 0 and variance 1."""
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


def _of_each_class(labels: npt.NDArray[Any], n: int) -> npt.NDArray[np.int64]:
    """Return the rows of the first `n` images of every class, class by class."""
    return np.concatenate([np.flatnonzero(labels == label)[:n] for label in np.unique(labels)])


def _in_basis(images: Array, settings: DishSettings) -> Array:
    """Return images projected onto the recipe's basis. Random images are scaled to variance 1 again."""
    if settings.basis is None:
        return images
    return in_basis(
        images, settings.basis, settings.image_size / settings.basis if settings.start == "gaussian" else 1.0
    )
