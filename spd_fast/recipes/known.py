"""The recipes that come with the package, and the function that reads others from files."""

import os
from collections.abc import Callable
from typing import Any, Final

from spd_fast.base.errors import did_you_mean
from spd_fast.base.types import checked_instance
from spd_fast.recipes.settings import (
    AdamSettings,
    DishSettings,
    InnerSettings,
    MotifSettings,
    OuterSettings,
    PerceptronSettings,
    Recipe,
    ScaleSettings,
)

__all__ = [
    "get",
    "load",
    "names",
]


def names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return list(_REGISTRY)


def get(name: str) -> Recipe:
    """Return a recipe by name.

    Raises
    ------
    ValueError
        If there is no recipe of this name.
    """
    checked_instance("name", name, str, "the name of a recipe, one of recipes.names()")
    if name not in _REGISTRY:
        meant = did_you_mean(name, _REGISTRY)
        raise ValueError(f"there is no recipe {name!r}, expected one of {', '.join(_REGISTRY)}{meant}")
    return _REGISTRY[name]()


def load(name_or_path: str | os.PathLike[str]) -> Recipe:
    """Return a recipe by name, or read it from a JSON file.

    Raises
    ------
    TypeError
        If it is neither a text nor a path.
    ValueError
        If it is neither a known name nor a readable recipe file.
    """
    checked_instance("name_or_path", name_or_path, (str, os.PathLike), "a name or a path")
    name_or_path = os.fspath(name_or_path)
    if name_or_path in _REGISTRY:
        return get(name_or_path)
    try:
        with open(name_or_path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        raise ValueError(
            f"{name_or_path!r} is neither a recipe nor a file, expected a path or one of {', '.join(_REGISTRY)}"
            f"{did_you_mean(name_or_path, _REGISTRY)}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe file {name_or_path} cannot be read: {error}") from None
    try:
        return Recipe.from_json(text)
    except ValueError as error:
        raise ValueError(f"recipe file {name_or_path}: {error}") from None


def _cassimon(letter: str, epochs: int) -> Callable[[], Recipe]:
    name = f"cassimon_{letter.lower()}" + ("" if epochs == 100 else str(epochs))
    summary = f"The paper's experiment with motif {letter}" + ("." if epochs == 100 else f", {epochs} inner epochs.")
    return lambda: Recipe(name=name, summary=summary, motif=letter, inner=InnerSettings(epochs=epochs))


def _demo() -> Recipe:
    return Recipe(
        name="demo",
        summary=(
            "A small outer loop that learns something in about a minute. It has the paper's motif C and direct gradient, but it compares twelve "
            "cells at a time, initial weights are shared, the metric is the loss, and the outer loss minds the sign of the correlation."
        ),
        motif="C",
        dish=DishSettings(images=100),
        inner=InnerSettings(epochs=12, optimizer=AdamSettings(lr=2e-3, weight_decay=1e-6), init="shared", redraw=False),
        outer=OuterSettings(epochs=60, cells=12, metric="loss", loss="pearson", ranking="metric"),
    )


def _valid_c() -> Recipe:
    return Recipe(
        name="valid_c",
        summary=(
            "A learned validation set: motifs C are trained once on random images, all of them from shared initial weights. The "
            "images and labels that they are read on are learned from 100 cells, 20 of them validation cells."
        ),
        motif="C",
        dish=DishSettings(images=60, valid_images=40, image_size=8),
        inner=InnerSettings(
            epochs=10, optimizer=AdamSettings(lr=2e-3, weight_decay=1e-6), init="shared", redraw=False, replicates=2
        ),
        outer=OuterSettings(
            epochs=400,
            cells=12,
            pool=100,
            validation_cells=20,
            target="rank",
            metric="loss",
            loss="pairwise_logistic",
            ranking="metric",
            learn=("valid_images", "valid_labels"),
            trust_every=20,
        ),
    )


def _memorising(replicates: int) -> dict[str, Any]:
    """Return the settings of small deep motifs that memorise random images, 200 for each replicate. Of all settings that were
    tried, these rank cells best before anything is learned (docs/experiments.md)."""
    return {
        "motif": MotifSettings(stem_channels=8, stacks=3),
        "dish": DishSettings(images=200 * replicates, image_size=8),
        "inner": InnerSettings(
            epochs=4,
            optimizer=AdamSettings(lr=5e-3),
            init="shared",
            init_distribution="nasbench101",
            initial_scales=ScaleSettings(dense=2.0),
            redraw=False,
            replicates=replicates,
            split_images=True,
        ),
    }


def _learned_labels() -> Recipe:
    return Recipe(
        name="learned_labels",
        summary=(
            "Learned labels: small deep motifs memorise random images, and cells are ranked by how fast they do. The labels are learned from "
            "100 cells, 20 of them validation cells, in 15 outer epochs along the hypergradient. 4 replicates, each on 200 images of its own."
        ),
        **_memorising(replicates=4),
        outer=OuterSettings(
            epochs=15,
            cells=12,
            pool=100,
            validation_cells=20,
            check_every=5,
            target="rank",
            metric="training_loss",
            metric_epochs=3,
            loss="pairwise_weighted",
            ranking="metric",
            learn=("labels",),
            gradient="unrolled",
            optimizer=AdamSettings(lr=1e-2, betas=(0.9, 0.99)),
            clip=2.0,
            trust_every=5,
        ),
    )


def _learned_weights() -> Recipe:
    changed = {"learn": ["labels", "step_weights"], "step_weights": "ridge", "metric_epochs": None}
    labels = _learned_labels().replace({f"outer.{name}": value for name, value in changed.items()})
    return labels.model_copy(
        update={
            "name": "learned_weights",
            "summary": (
                "Learned labels and step weights: small deep motifs memorise random images, and cells are ranked by how fast they do. The labels "
                "are learned along the hypergradient, the step weights by ridge regression, both from 100 cells, 20 of them validation cells."
            ),
        }
    )


def _rawal_slope() -> Recipe:
    return Recipe(
        name="rawal_slope",
        summary=(
            "The original method, which finds the best slope of a sigmoid: perceptrons with one unit in each layer are trained on ten learned "
            "vectors, each labelled with ten random bits. The vectors are learned from 18 of 100 slopes along the hypergradient through 250 steps "
            "(as Rawal et al. 2020, with a larger outer learning rate and twice as many outer epochs)."
        ),
        motif=PerceptronSettings(hidden=1),
        dish=DishSettings(
            images=10,
            image_size=10,
            image_rows=1,
            image_channels=1,
            labels="bits",
            valid_images=10,
            valid_start="copy",
        ),
        inner=InnerSettings(
            epochs=250,
            batch_size=10,
            optimizer=AdamSettings(lr=1e-2),
            init="shared",
            init_distribution="normal",
            redraw=False,
        ),
        outer=OuterSettings(
            epochs=160,
            cells=18,
            pool=18,
            metric="loss",
            loss="mse_whitened",
            ranking="metric",
            learn=("images", "valid_images"),
            gradient="unrolled",
            optimizer=AdamSettings(
                lr=0.2, weight_decay=2e-5
            ),  # the released code: 0.05, 80 epochs (docs/notes/rawal_slope.md); the decay is d/dx of its penalty 1e-5 x^2
            schedule="steps",
        ),
        dtype="float64",
    )


def _learned_schedule() -> Recipe:
    memorising = _memorising(replicates=4)
    plain = {"optimizer": AdamSettings(lr=2e-3), "init_distribution": "pytorch", "initial_scales": ScaleSettings()}
    return Recipe(
        name="learned_schedule",
        summary=(
            "Learned initial scales, rates and step weights: small deep motifs memorise random images, and cells are ranked by how fast they do. "
            "Learning begins with PyTorch's initial weights, one learning rate and the mean of all steps, and uses 100 cells. The step weights "
            "are learned by ridge regression."
        ),
        **(memorising | {"inner": memorising["inner"].model_copy(update=plain)}),
        outer=OuterSettings(
            epochs=30,
            cells=24,
            pool=100,
            replicates=1,
            check_every=15,
            target="rank",
            metric="training_loss",
            loss="pairwise_weighted",
            ranking="metric",
            learn=("rates", "initial_scales", "step_weights"),
            step_weights="ridge",
            gradient="unrolled",
            optimizer=AdamSettings(lr=5e-2, betas=(0.9, 0.99)),
            schedule="cosine",
            clip=2.0,
        ),
    )


_CURVES_REFERENCE: Final = (
    (1.7952, 1.9167, 2.0046, 2.0978, 2.1943, 2.2758, 2.3884, 2.5636, 2.7666, 3.0169, 3.3219, 3.603, 3.883),
    (1.2389, 1.3736, 1.5133, 1.7139, 1.864, 1.9833, 2.0944, 2.1926, 2.3027, 2.4217, 2.548, 2.6861, 2.8707),
    (0.8365, 0.9453, 1.0733, 1.3509, 1.5705, 1.7375, 1.8871, 2.0063, 2.1194, 2.2174, 2.3036, 2.4082, 2.4808),
)
"""Quantiles of the mean training loss of epochs 2 to 4 over 400 cells drawn evenly from the space of NAS-Bench-101, eight motifs of each
(`bench/reference_losses.py`)."""


def _curves() -> Recipe:
    return Recipe(
        name="curves",
        summary=(
            "The learning curves that predictors use: small deep motifs memorise random images, which are not learned. 8 replicates, each on "
            "200 images of its own."
        ),
        **_memorising(replicates=8),
        outer=OuterSettings(
            metric="training_loss",
            metric_epochs=3,
            ranking="metric",
            gradient="unrolled",
            reference_losses=_CURVES_REFERENCE,
        ),
    )


_REGISTRY: Final[dict[str, Callable[[], Recipe]]] = {
    "demo": _demo,
    "valid_c": _valid_c,
    "learned_labels": _learned_labels,
    "learned_weights": _learned_weights,
    "learned_schedule": _learned_schedule,
    "curves": _curves,
    "rawal_slope": _rawal_slope,
    "cassimon_a": _cassimon("A", 100),
    "cassimon_b": _cassimon("B", 100),
    "cassimon_c": _cassimon("C", 100),
    "cassimon_a16": _cassimon("A", 16),
    "cassimon_b16": _cassimon("B", 16),
}
