"""From a recipe to what the inner loop is given: keywords of `train_motifs`, the dish before learning, seeds."""

import hashlib
from typing import Any, Final

from spd_fast.dish import Dish
from spd_fast.recipes import InnerSettings, Recipe
from spd_fast.train import SGD, Adam, RMSProp

__all__ = ["derived_seed", "start_dish", "training_keywords"]

_OPTIMIZERS: Final = {"adam": Adam, "sgd": SGD, "rmsprop": RMSProp}


def training_keywords(inner: InnerSettings, seed: int) -> dict[str, Any]:
    """Return the settings of the inner loop as keywords of `spd_fast.train_motifs`."""
    options = inner.optimizer.model_dump()
    return {
        "epochs": inner.epochs,
        "batch_size": inner.batch_size,
        "optimizer": _OPTIMIZERS[options.pop("name")](**options),
        "schedule": None if inner.schedule == "constant" else inner.schedule,
        "init": inner.init,
        "seed": seed,
    }


def start_dish(recipe: Recipe) -> Dish:
    """Return the dish before learning, in the recipe's dtype."""
    dish = recipe.dish
    start = Dish.random(
        per_class=dish.images // dish.classes,
        classes=dish.classes,
        image_size=dish.image_size,
        image_channels=dish.image_channels,
        seed=derived_seed(recipe.seed, "dish"),
    )
    return Dish(start.images.astype(recipe.dtype), start.labels)


def derived_seed(seed: int, purpose: str, index: int = 0) -> int:
    """Return a seed for one purpose, in 0..2^63 - 1: independent of the others, the same on every machine."""
    text = f"spd_fast/{seed}/{purpose}/{index}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
