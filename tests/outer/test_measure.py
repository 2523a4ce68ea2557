"""What the outer loop differentiates: forms of what is learned, and two ways of measuring that must agree."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import small
from spd_fast.dish import Dish
from spd_fast.engine.gradients import pack_motifs, read_motifs
from spd_fast.engine.training import train
from spd_fast.outer.forms import dish_of, dish_tensors, free_tensors
from spd_fast.outer.measure import measure_of, trains_once
from spd_fast.outer.start import start_dish
from spd_fast.recipes.settings import Recipe
from spd_fast.scoring import inner_loops, score_cells, step_weights, train_cells
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.perceptron import Perceptron

EVERYTHING = ["images", "labels", "valid_images", "valid_labels", "rates", "initial_scales"]
CURVE = {
    "outer__learn": ["images", "rates", "initial_scales", "step_weights"],
    "outer__gradient": "unrolled",
    "outer__metric": "training_loss",
    "outer__metric_epochs": 2,
    "dish__valid_images": 0,
}
VALID = {
    "dish.valid_images": 6,
    "inner.init": "shared",
    "inner.redraw": False,
    "inner.replicates": 2,
    "outer.learn": ["valid_images", "valid_labels"],
    "outer.metric": "loss",
    "outer.ranking": "metric",
    "dtype": "float64",
}


def recipe(**changes: Any) -> Recipe:
    settings = {name.replace("__", "."): value for name, value in changes.items()}
    return small.RECIPE.replace(VALID | settings)


def free_of(start: Dish, how: Recipe) -> dict[str, torch.Tensor]:
    """The free tensors of all that a recipe learns; those that its outer optimizer changes ask for a gradient."""
    return free_tensors(start, how.outer.learn, how.form, how.optimized)


@pytest.mark.parametrize("changes", [{"outer__learn": EVERYTHING, "outer__gradient": "unrolled"}, CURVE])
@pytest.mark.parametrize("basis", [None, 3])
def test_free_tensors_make_the_dish_they_came_from(basis: int | None, changes: dict[str, Any]) -> None:
    how = recipe(**changes, dish__basis=basis)
    start = start_dish(how)
    free = free_of(start, how)
    assert list(free) == list(how.outer.learn)
    if basis:
        assert free["images"].shape == (12, 2, 3, 3)
    dish = dish_of(dish_tensors(free, start, how.form))
    for name in how.outer.learn:
        # a product with an orthonormal basis and back, or a logarithm and back: a few roundings of numbers of order one
        assert np.allclose(getattr(dish, name), getattr(start, name), rtol=1e-13, atol=1e-13)
    with torch.no_grad():
        free["images"] += 1
    assert np.array_equal(start.images, start_dish(how).images)


def test_what_is_not_learned_stays() -> None:
    how = recipe(outer__learn=["valid_labels"])
    start = start_dish(how)
    tensors = dish_tensors({name: value + 1 for name, value in free_of(start, how).items()}, start, how.form)
    dish = dish_of(tensors)
    for name in ("images", "labels", "valid_images"):
        assert np.array_equal(getattr(dish, name), getattr(start, name))
    assert np.array_equal(dish.valid_labels, start.valid_labels + 1)


@pytest.mark.parametrize("form", ["dish__basis", "dish__generator"])
@pytest.mark.parametrize("changes", [{"outer__learn": EVERYTHING, "outer__gradient": "unrolled"}, CURVE])
def test_derivatives_of_the_forms(changes: dict[str, Any], form: str) -> None:
    how = recipe(**changes, **{form: 3})
    start = start_dish(how)
    free = free_of(start, how)

    def fields(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tensors = dish_tensors(dict(zip(free, values, strict=True)), start, how.form)
        return tuple(tensors[name] for name in free)

    assert torch.autograd.gradcheck(fields, tuple(free.values()))


def test_generator_by_hand() -> None:
    """Amplitudes, shares and mixing that are not those of the start, in numpy and scipy."""
    from scipy.fft import dctn, idctn

    how = recipe(outer__learn=["images", "valid_images"], outer__gradient="unrolled", dish__generator=3)
    start = start_dish(how)
    free = free_of(start, how)
    assert {name: tuple(value.shape) for name, value in free.items()} == {"images": (10,), "valid_images": (10,)}
    begun = dish_tensors(free, start, how.form)
    assert np.allclose(begun["images"].detach(), start.images, atol=1e-13)  # to the waves and back
    values = np.random.default_rng(0).normal(size=10)
    made = dish_tensors({"images": torch.from_numpy(values)}, start, how.form)["images"].numpy()
    waves = dctn(start.images, axes=(2, 3), norm="ortho")
    expected = np.zeros_like(waves)
    for i in range(5):
        for j in range(5):
            band = int(3 * np.hypot(i, j) / 5 / np.sqrt(2))
            for image, label in enumerate(start.labels):
                same = start.labels == label
                prototype = waves[same, :, i, j].sum(axis=0) / np.sqrt(same.sum())
                expected[image, :, i, j] = np.exp(values[band]) * waves[image, :, i, j] + values[3 + band] * prototype
    mixed = np.einsum("dc,nchw->ndhw", values[6:].reshape(2, 2), idctn(expected, axes=(2, 3), norm="ortho"))
    assert np.allclose(made, mixed, atol=1e-12)


def test_replicates_take_turns() -> None:
    """Epochs measure two of three replicates each; what scores cells measures all."""
    how = recipe(**CURVE, inner__replicates=3, outer__replicates=2)
    start = start_dish(how)
    measured, tensors, three = (
        measure_of(small.pool()[0], start, how, 1),
        dish_tensors({}, start, how.form),
        small.pool()[0][:3],
    )
    found = [measured(tensors, [0, 1, 2], epoch, None).metric.numpy() for epoch in (0, 1, 3, None)]
    losses = [each.recorded["step_loss"] @ step_weights(how) for each in train_cells(start, how, three)]
    for z, replicates in zip(found, ([0, 1], [2, 0], [0, 1], [0, 1, 2]), strict=True):
        assert np.allclose(z, np.mean([losses[r] for r in replicates], axis=0), rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "once"),
    [
        ({}, True),
        ({"outer__gradient": "unrolled"}, True),
        ({"inner__redraw": True}, False),
        ({"outer__learn": EVERYTHING, "outer__gradient": "unrolled"}, False),
    ],
)
def test_when_motifs_are_trained_once(changes: dict[str, Any], once: bool) -> None:
    assert trains_once(recipe(**changes)) == once


def gradients(how: Recipe, epoch: int, rows: list[int]) -> tuple[Any, dict[str, np.ndarray]]:
    start = start_dish(how)
    free = free_of(start, how)
    cell_metrics = measure_of(small.pool()[0], start, how, None)(dish_tensors(free, start, how.form), rows, epoch, None)
    (cell_metrics.metric * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
    return cell_metrics, {name: value.grad.numpy() for name, value in free.items() if value.grad is not None}


@pytest.mark.parametrize("metric", ["loss", "probability"])
@pytest.mark.parametrize("gradient", ["direct", "unrolled"])
def test_trained_once_is_trained_anew(metric: str, gradient: str) -> None:
    """Metric, accuracy, curves and gradient of the kept motifs against motifs trained for the occasion.

    `redraw` with the seeds of epoch 0 gives the latter the same initial weights.
    """
    learn = ["valid_images", "valid_labels"] if metric == "loss" else ["valid_images"]
    how = recipe(outer__metric=metric, outer__gradient=gradient, outer__learn=learn)
    once, found = gradients(how, 5, [1, 4, 2])
    anew, expected = gradients(how.replace({"inner.redraw": True}), 0, [1, 4, 2])
    assert torch.equal(once.metric, anew.metric)
    assert np.array_equal(once.accuracy, anew.accuracy)
    assert np.array_equal(once.curve_loss, anew.curve_loss)
    assert np.array_equal(once.curve_accuracy, anew.curve_accuracy)
    assert set(found) == set(expected) == set(learn)
    for name in learn:
        assert np.abs(expected[name]).max() > 1e-4
        # double: sums of at most a few hundred terms in another order
        assert np.allclose(found[name], expected[name], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("learn", [["valid_images"], EVERYTHING])
def test_replicates_with_images_of_their_own(learn: list[str]) -> None:
    """Both ways of measuring give what `score_cells` gives, and a gradient reaches every image."""
    how = recipe(inner__split_images=True, outer__learn=learn, outer__gradient="unrolled")
    cell_metrics, found = gradients(how, 0, [0, 1, 2])
    scores = score_cells(start_dish(how), how, small.pool()[0][:3])
    assert np.allclose(cell_metrics.ranking, scores, rtol=1e-12)
    for name, gradient in found.items():
        assert np.abs(gradient.reshape(len(gradient), -1)).max(axis=1).min() > 0, name


class Noted(list[Cell]):
    """Cells that note which of them are looked up, which is done to train their motifs."""

    def __init__(self, cells: list[Cell]) -> None:
        super().__init__(cells)
        self.rows: list[int] = []

    def __getitem__(self, row: Any) -> Any:
        self.rows.append(row)
        return super().__getitem__(row)


def test_motifs_are_trained_once() -> None:
    """Whatever is asked for when, in whatever order; and what comes back belongs to the rows asked for."""
    how = recipe()
    start = start_dish(how)
    cells = Noted(small.pool()[0])
    measured = measure_of(cells, start, how, 1)
    tensors = dish_tensors({}, start, how.form)
    first = measured(tensors, [3, 1], 0, None)
    second = measured(tensors, [5, 1, 3], 7, None)
    assert cells.rows == [3, 1, 5]
    assert torch.equal(second.metric[[2, 1]], first.metric)
    assert np.array_equal(second.curve_loss[[2, 1]], first.curve_loss)
    whole = measure_of(small.pool()[0], start, how, 2)(tensors, [1, 3, 5], 0, None)
    assert torch.equal(whole.metric, second.metric[[1, 2, 0]])


def test_motif_that_diverged_shows_nothing() -> None:
    """Even where its last weights are finite numbers; the others are as they were, and no NaN reaches their gradient.

    A slope that is infinite in float32 has no sigmoid at 0, which is what black images and biases of 0 make of it: training
    ends before its first step. On the validation images the same weights have a loss.
    """
    how = recipe(
        motif={"hidden": 3, "layers": 1},
        inner__replicates=1,
        inner__init_distribution="nasbench101",
        outer__learn=["valid_images"],
        dtype="float32",
    )
    start = start_dish(how)
    start = replace(start, images=np.zeros_like(start.images))
    cells = [Perceptron(slope) for slope in (0.5, 1e39, 2.0)]
    result = train(inner_loops(how).of(0), cells, how.shape, start)
    assert result.diverged.tolist() == [False, True, False]
    motifs = pack_motifs(cells, how.shape, result.parameters, start.images.shape[1:])
    assert np.isfinite(read_motifs(motifs, start.valid_images, start.valid_labels, gradients=False).loss).all()

    free = free_of(start, how)
    tensors = dish_tensors(free, start, how.form)
    found = measure_of(cells, start, how, None)(tensors, [0, 1, 2], 0, None)
    expected = measure_of(cells, start, how, None)(tensors, [0, 2], 0, None)
    assert torch.isnan(found.metric).tolist() == [False, True, False]
    assert np.isnan(found.accuracy).tolist() == [False, True, False]
    assert torch.equal(found.metric[[0, 2]], expected.metric)
    found.metric[[0, 2]].sum().backward()
    assert torch.isfinite(free["valid_images"].grad).all()


def test_scores_are_those_of_what_was_learned() -> None:
    """Rates, scales and weights of steps as a step of the outer loop leaves them: `score_cells` measures what it measured."""
    how = recipe(**CURVE)
    start = start_dish(how)
    rng = np.random.default_rng(0)
    moved = {
        name: value.detach() + 0.3 * torch.from_numpy(rng.normal(size=value.shape))
        for name, value in free_of(start, how).items()
    }
    tensors = dish_tensors(moved, start, how.form)
    found = measure_of(small.pool()[0], start, how, None)(tensors, [0, 1, 2], 0, None)
    scores = score_cells(dish_of(tensors), how, small.pool()[0][:3])
    assert np.allclose(found.ranking, scores, rtol=1e-12)
    for name in moved:
        other = replace(dish_of(tensors), **{name: getattr(start, name)})
        assert np.abs(score_cells(other, how, small.pool()[0][:3]) - scores).min() > 1e-6, name


def test_step_weights_begin_as_a_mean() -> None:
    how = recipe(**CURVE)
    assert start_dish(how).step_weights == pytest.approx([0.0] * 3 + [1 / 6] * 6)
    plain = how.replace({"outer.learn": ["images"]})
    assert start_dish(plain).step_weights is None
    three = small.pool()[0][:3]
    assert np.array_equal(score_cells(start_dish(plain), plain, three), score_cells(start_dish(how), how, three))
    alone = how.replace({"outer.learn": ["step_weights"]})
    with pytest.raises(ValueError, match="the dish has 9 step_weights, expected 6: one for each step"):
        score_cells(start_dish(alone), alone.replace({"inner.epochs": 2}), three)


@pytest.mark.parametrize("metric", ["probability", "loss", "training_loss"])
def test_scores_turn_losses(metric: str) -> None:
    how = recipe(outer__metric=metric, outer__gradient="unrolled", outer__learn=["images"])
    start = start_dish(how)
    found = measure_of(small.pool()[0], start, how, None)(dish_tensors({}, start, how.form), [0, 1, 2], 0, None)
    turned = 1 if metric == "probability" else -1
    assert torch.equal(found.score, turned * found.metric)
    assert np.array_equal(found.ranking, turned * found.metric.numpy())
    assert np.array_equal(replace(found, ranked_by_accuracy=True).ranking, found.accuracy)
