"""What can be learned: one object each, and one that was added by a file and a line, the weights of single images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import small
from spd_fast.dish import Dish
from spd_fast.engine.training import train
from spd_fast.learnables.learnable import Conditions
from spd_fast.learnables.table import ADDED, LEARNABLES, enter_all
from spd_fast.outer.fit import fit_dish
from spd_fast.outer.forms import dish_of, dish_tensors, free_tensors
from spd_fast.outer.measure import measure_of, trains_once
from spd_fast.outer.start import start_dish
from spd_fast.report.run import build
from spd_fast.scoring import entered, inner_loops, metrics_read, score_cells

WEIGHTED = small.RECIPE.replace(
    {
        "name": "weighted",
        "dtype": "float64",
        "dish.valid_images": 6,
        "inner.init": "shared",
        "inner.redraw": False,
        "outer.metric": "loss",
        "outer.ranking": "metric",
        "outer.learn": ["image_weights"],
        "outer.loss": "pairwise_logistic",
        "outer.target": "rank",
    }
)
"""Weights of the validation images in the score, and nothing else, are learned."""


def test_recipes_explain_every_learnable() -> None:
    (meaning,) = [meaning for name, _, meaning in small.RECIPE.explain() if name == "outer.learn"]
    for name, each in LEARNABLES.items():
        assert each.meaning
        assert f'"{name}": {each.meaning}.' in meaning


def test_every_learnable_has_its_name_and_a_place_in_a_dish() -> None:
    assert list(LEARNABLES) == [each.name for each in LEARNABLES.values()]
    assert set(LEARNABLES) == set(Dish.__dataclass_fields__)
    for name in ADDED:
        assert getattr(start_dish(small.RECIPE), name) is None


@pytest.mark.parametrize("name", LEARNABLES)
def test_free_tensors_make_what_they_came_from(name: str) -> None:
    """A logarithm and back, or a product and a quotient: a few roundings of numbers of order one."""
    recipe = WEIGHTED
    form, arrays = recipe.form, start_dish(recipe).arrays()
    LEARNABLES[name].begin(arrays, form)
    dish = Dish.from_arrays(arrays)
    made = dish_of(dish_tensors(free_tensors(dish, [name], form), dish, form))
    assert np.allclose(getattr(made, name), getattr(dish, name), rtol=1e-13, atol=1e-13)


def test_conditions_that_nothing_can_be_learned_under() -> None:
    nothing = Conditions("accuracy", None, None)
    for name, each in LEARNABLES.items():
        assert (each.objection(nothing) or "").startswith(
            f'learn holds "{name}", on which the metric "accuracy" does not depend'
        )


# ---- weights of single images


def test_image_weights_are_off_by_default() -> None:
    assert start_dish(small.LEARNING).image_weights is None
    assert set(enter_all(start_dish(small.LEARNING).arrays())) == {
        "images",
        "labels",
        "valid_images",
        "valid_labels",
        "rates",
    }


def test_image_weights_weight_the_loss() -> None:
    """By hand from the logits: minus the weighted mean of the validation images' cross-entropies."""
    cells, weights = small.pool()[0], np.array([0.5, 1.0, 2.0, 0.1, 3.0, 1.0])
    start = start_dish(WEIGHTED)
    assert np.array_equal(start.image_weights, np.ones(6))
    dish = replace(start, image_weights=weights)
    result = train(inner_loops(WEIGHTED).of(0), cells, WEIGHTED.shape, start)
    logits = metrics_read(result).logits
    true = np.take_along_axis(logits, start.valid_labels.argmax(axis=1)[None, :, None], axis=2)[..., 0]
    losses = np.log(np.exp(logits).sum(axis=2)) - true
    # sums of six terms of order one in double
    assert np.allclose(score_cells(dish, WEIGHTED, cells), -(losses * weights).mean(axis=1), rtol=1e-13)
    assert np.array_equal(score_cells(start, WEIGHTED, cells), -metrics_read(result).loss)
    accuracy = WEIGHTED.replace({"outer.ranking": "accuracy"})
    assert np.array_equal(score_cells(dish, accuracy, cells), score_cells(start, accuracy, cells))
    assert entered(dish).image_weights is None


@pytest.mark.parametrize("gradient", ["direct", "unrolled"])
def test_gradient_of_image_weights(gradient: str) -> None:
    """By central differences through the whole measurement; weights alone do not change training, so both gradients are the same."""
    recipe = WEIGHTED.replace({"outer.gradient": gradient})
    start = start_dish(recipe)
    free = free_tensors(start, ["image_weights"], recipe.form, ["image_weights"])["image_weights"]
    measure = measure_of(small.pool()[0], start, recipe, 1)

    def metric(values: torch.Tensor) -> torch.Tensor:
        return measure(dish_tensors({"image_weights": values}, start, recipe.form), [0, 1, 2], None, None).metric.sum()

    metric(free).backward()
    for place in range(3):
        step = torch.zeros(6, dtype=torch.float64)
        step[place] = 1e-6
        with torch.no_grad():
            difference = (metric(free + step) - metric(free - step)) / 2e-6
        # the third derivative is of the size of the first: 1e-12 of it, and the rounding of the losses over the step, 1e-16 / 1e-6
        assert float(free.grad[place]) == pytest.approx(float(difference), rel=1e-8, abs=1e-9)


def test_image_weights_are_learned_saved_and_drawn(tmp_path: Path) -> None:
    assert trains_once(WEIGHTED)
    cells, accuracy = small.pool()
    fit = fit_dish(cells, accuracy, WEIGHTED, run=tmp_path / "run")
    saved = Dish.load(tmp_path / "run" / "dish.npz")
    assert np.array_equal(saved.image_weights, fit.dish.image_weights)
    assert (saved.image_weights != 1).all()
    assert np.array_equal(score_cells(saved, WEIGHTED, cells), score_cells(fit.dish, WEIGHTED, cells))
    build(tmp_path / "run")
    assert (tmp_path / "run" / "figures" / "image_weights.svg").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"outer.metric": "probability"},
            'learn holds "image_weights", on which the metric "probability" does not depend: use metric "loss"',
        ),
        (
            {"dish.valid_images": 0},
            'learn holds "image_weights" and dish.valid_images is 0: the dish has no validation set',
        ),
    ],
)
def test_where_image_weights_cannot_be_learned(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WEIGHTED.replace(changes)


@pytest.mark.parametrize("weights", [np.ones(5), np.zeros(6), np.full(6, np.nan), -np.ones(6)])
def test_bad_image_weights(weights: np.ndarray) -> None:
    start = start_dish(WEIGHTED)
    with pytest.raises(ValueError, match=r"image_weights have shape .*, expected \(6,\): finite numbers above 0"):
        replace(start, image_weights=weights)
    with pytest.raises(ValueError, match="image_weights are given and valid_labels are not soft labels"):
        Dish(start.images, start.labels, image_weights=np.ones(6))
