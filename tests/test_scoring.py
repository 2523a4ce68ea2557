"""The dish before learning in all its forms, and scores of cells from recipe and dish alone."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr

import small
from spd_fast import recipes
from spd_fast.base.sums import mean_of, sum_of
from spd_fast.dish import Dish
from spd_fast.engine.training import train
from spd_fast.learnables.images import cosine_basis
from spd_fast.nasbench101 import enumerate_space
from spd_fast.outer.start import start_dish
from spd_fast.predictors import proxies
from spd_fast.recipes.settings import Recipe
from spd_fast.scoring import inner_loops, reference_losses, score_cells, train_cells
from spd_fast.spaces.cell_files import random_cells


def recipe(**changes: Any) -> Recipe:
    """The small recipe with the gradient that reaches everything, changed."""
    settings = {name.replace("__", "."): value for name, value in changes.items()}
    return small.RECIPE.replace({"outer.gradient": "unrolled"} | settings)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twenty dull images of three classes, 2 x 10 x 10, as bytes."""
    path = tmp_path / "images.npz"
    rng = np.random.default_rng(0)
    np.savez(path, images=rng.integers(100, 120, (20, 2, 10, 10), np.uint8), labels=np.arange(20) % 3)
    return path


def test_random_sets_are_different_draws() -> None:
    plain, with_valid = start_dish(recipe()), start_dish(recipe(dish__valid_images=6))
    assert np.array_equal(plain.images, with_valid.images)
    assert plain.valid_images is None
    assert with_valid.valid_images.shape == (6, 2, 5, 5)
    assert with_valid.valid_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert not np.isin(with_valid.valid_images, plain.images).any()


def test_vectors_of_random_bits() -> None:
    """The original's dish: as many bits as classes, both sets alike, half of the bits set within four standard errors."""
    original = recipes.get("rawal_slope")
    start = start_dish(original.replace({"dish.images": 400, "dish.valid_images": 400}))
    assert start.images.shape == start.valid_images.shape == (400, 1, 1, 10)
    assert start.labels.shape == (400, 10)
    assert set(np.unique(start.labels)) == {0, 1}
    assert start.labels.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(4000))
    np.testing.assert_array_equal(start.valid_images, start.images)
    np.testing.assert_array_equal(start.valid_labels, start.labels)
    apart = start_dish(original.replace({"dish.valid_start": "drawn"}))
    assert not np.isin(apart.valid_images, apart.images).any()


def test_validation_set_as_a_copy() -> None:
    """The first two of the four images of each class."""
    dish = start_dish(recipe(dish__valid_images=6, dish__valid_start="copy"))
    rows = [0, 1, 4, 5, 8, 9]
    assert np.array_equal(dish.valid_images, dish.images[rows])
    assert np.array_equal(dish.valid_labels, dish.labels[rows])


def test_real_images(images: Path) -> None:
    """Different images in both sets, balanced, mean 0 and variance 1 over both; the same seed, the same draw."""
    settings = {"dish__start": "images", "dish__source": str(images), "dish__valid_images": 6}
    dish = start_dish(recipe(**settings))
    everything = np.concatenate([dish.images, dish.valid_images])
    assert len(np.unique(everything.reshape(18, -1), axis=0)) == 18
    # sums of 450 float32 numbers of order one
    assert np.allclose(everything.mean(axis=(0, 2, 3)), 0, atol=1e-6)
    assert np.allclose(everything.std(axis=(0, 2, 3)), 1, atol=1e-6)
    assert np.bincount(dish.labels).tolist() == [4, 4, 4]
    assert np.bincount(dish.valid_labels).tolist() == [2, 2, 2]
    with np.load(images) as data:
        blocks = data["images"].reshape(20, 2, 5, 2, 5, 2).mean(axis=(3, 5))  # 10 x 10 averaged to 5 x 5
        labels = data["labels"]
    for image, label in zip(everything, np.concatenate([dish.labels, dish.valid_labels]), strict=True):
        likeness = [np.corrcoef(image.ravel(), block.ravel())[0, 1] for block in blocks[labels == label]]
        assert max(likeness) > 0.99
    assert np.array_equal(start_dish(recipe(**settings)).images, dish.images)
    assert not np.array_equal(start_dish(recipe(**settings, seed=1)).images, dish.images)


def test_real_images_that_do_not_fit(images: Path) -> None:
    settings = {"dish__start": "images", "dish__source": str(images)}
    with pytest.raises(ValueError, match=r"images.npz have 2 channels, expected dish.image_channels \(1\)"):
        start_dish(recipe(**settings, dish__image_channels=1))
    with pytest.raises(ValueError, match=r"has 6 images of class 2, expected at least 7: ask for fewer"):
        start_dish(recipe(**settings, dish__valid_images=9))
    with pytest.raises(FileNotFoundError, match="image file nowhere"):
        start_dish(recipe(dish__start="images", dish__source="nowhere"))


def test_warm_start(tmp_path: Path) -> None:
    begun = start_dish(recipe(dish__valid_images=6, seed=9))
    begun.save(tmp_path / "dish.npz")
    settings = {"dish__start": "dish", "dish__source": str(tmp_path / "dish.npz")}
    dish = start_dish(recipe(**settings, dish__valid_images=6))
    for name in ("images", "labels", "valid_images", "valid_labels"):
        assert np.array_equal(getattr(dish, name), getattr(begun, name))
    with pytest.raises(ValueError, match=r"valid_images of dish .* have shape \(6, 2, 5, 5\), expected \(0, 2, 5, 5\)"):
        start_dish(recipe(**settings))
    with pytest.raises(ValueError, match=r"images of dish .* have shape \(12, 2, 5, 5\), expected \(15, 2, 5, 5\)"):
        start_dish(recipe(**settings, dish__images=15, dish__valid_images=6))


def test_smooth_start() -> None:
    """Random images in a basis are random combinations of it, of variance 1; real ones are projected."""
    plain = start_dish(recipe())
    smooth = start_dish(recipe(dish__basis=2))
    rows = cosine_basis(5, 2)
    assert np.allclose(smooth.images, 5 / 2 * (rows.T @ rows @ plain.images @ rows.T @ rows), atol=1e-6)
    # 12 x 2 images of 4 coefficients: variance 1 within 1 +- 4 sqrt(2 / 96)
    assert abs(smooth.images.var() - 1) < 0.6
    assert np.allclose(start_dish(recipe(dish__basis=5)).images, plain.images, atol=1e-6)


def test_cosine_basis() -> None:
    from scipy.fft import dct

    rows = cosine_basis(16, 6)
    assert np.allclose(rows @ rows.T, np.eye(6), atol=1e-14)
    assert np.allclose(rows @ np.eye(16), dct(np.eye(16), norm="ortho", axis=0)[:6], atol=1e-14)


def test_what_is_learned_begins_in_the_form_it_is_learned_in() -> None:
    learned = recipe(outer__learn=["labels", "rates"], inner__schedule="cosine")
    dish = start_dish(learned)
    assert np.array_equal(dish.labels, np.eye(3)[np.repeat(np.arange(3), 4)])
    steps = np.arange(9)  # 3 epochs of 12 images in batches of 5
    assert np.allclose(dish.rates, 3e-3 * (1 + np.cos(np.pi * steps / 9)) / 2, rtol=1e-12)
    assert inner_loops(learned, dish).first.schedule is dish.rates


@pytest.mark.parametrize(
    ("rates", "got"), [(np.zeros((2, 2)), "0.0"), (np.array([1, -1.0]), "-1.0"), (np.array([np.nan]), "nan")]
)
def test_bad_rates(rates: Any, got: str) -> None:
    with pytest.raises(ValueError, match=rf"rates are .*{got}.*, expected finite numbers of at least 0"):
        Dish(np.zeros((1, 1, 4, 4)), np.zeros(1, int), rates=rates)


def test_rates_of_zero_cannot_be_learned(tmp_path: Path) -> None:
    begun = start_dish(recipe())
    Dish(begun.images, begun.labels, rates=np.zeros(9)).save(tmp_path / "dish.npz")
    settings = {"dish__start": "dish", "dish__source": str(tmp_path / "dish.npz")}
    with pytest.raises(
        ValueError, match=r"the dish .* cannot be learned: rates hold 0\.0, expected above 0: rates are learned through"
    ):
        start_dish(recipe(**settings, outer__learn=["rates"]))


@pytest.mark.parametrize("metric", ["probability", "loss", "training_loss"])
@pytest.mark.parametrize("valid", [0, 6])
def test_scores(metric: str, valid: int) -> None:
    """By hand from `train_motifs`: the mean over replicates, losses turned, on the validation set where there is one."""
    how = recipe(dish__valid_images=valid, inner__replicates=2, outer__ranking="metric")
    how = how.replace({"outer.metric": metric, "outer.metric_epochs": 2 if metric == "training_loss" else None})
    dish, cells = start_dish(how), small.pool()[0]
    loops = [replace(inner_loops(how).of(replicate), record=("step_loss",)) for replicate in range(2)]
    results = [train(loop, cells, how.shape, dish) for loop in loops]
    read = [result.valid if valid else result.train for result in results]
    expected = {
        "probability": np.mean([each.probability for each in read], axis=0),
        "loss": -np.mean([each.loss for each in read], axis=0),
        "training_loss": -np.mean([each.recorded["step_loss"][:, 3:].mean(axis=1) for each in results], axis=0),
    }[metric]
    scores = score_cells(dish, how, cells)
    assert np.allclose(scores, expected, rtol=1e-12)
    assert np.array_equal(score_cells(dish, how, cells[3:5], threads=1), scores[3:5])
    accuracy = score_cells(dish, how.replace({"outer.ranking": "accuracy"}), cells)
    assert np.allclose(accuracy, np.mean([each.accuracy for each in read], axis=0), rtol=1e-12)


def test_replicates_with_images_of_their_own() -> None:
    """Replicate r of two sees images r, r + 2, ...: balanced halves that share nothing."""
    how = recipe(
        inner__replicates=2, inner__split_images=True, outer__ranking="metric", inner__init_distribution="nasbench101"
    )
    dish, cells = start_dish(how), small.pool()[0]
    assert inner_loops(how).first.init_distribution == "nasbench101"
    values = []
    for replicate in range(2):
        part = Dish(dish.images[replicate::2], dish.labels[replicate::2])
        assert np.bincount(part.labels).tolist() == [2, 2, 2]
        values.append(train(inner_loops(how).of(replicate), cells, how.shape, part).train.probability)
    assert np.allclose(score_cells(dish, how, cells), np.mean(values, axis=0), rtol=1e-12)
    assert (how.images_of_a_motif, how.steps_per_epoch) == (6, 2)


def test_scores_of_motifs_that_diverge() -> None:
    how = recipe(
        inner__optimizer={"name": "sgd", "lr": 10.0, "weight_decay": 1.0}, inner__epochs=200
    )  # weights grow ninefold a step
    how = how.replace({"outer.ranking": "metric"})
    dish, cells = start_dish(how), small.pool()[0][:3]
    result = train(inner_loops(how).of(0), cells, how.shape, dish)
    assert result.diverged.any()
    assert np.array_equal(np.isnan(score_cells(dish, how, cells)), result.diverged)


def test_trained_motifs_are_evaluated_only_if_scores_are_read_from_that() -> None:
    how, cells = recipe(outer__metric="training_loss", outer__ranking="metric", inner__epochs=1), small.pool()[0][:1]
    assert train_cells(start_dish(how), how, cells)[0].train is None
    read = how.replace({"outer.metric": "loss"})
    assert train_cells(start_dish(read), read, cells)[0].train is not None


def test_scores_of_some_replicates() -> None:
    how, cells = recipe(inner__replicates=3, inner__epochs=1, outer__ranking="metric"), small.pool()[0][:2]
    dish = start_dish(how)
    each = [score_cells(dish, how, cells, replicates=[replicate]) for replicate in range(3)]
    np.testing.assert_allclose(score_cells(dish, how, cells, replicates=range(2)), (each[0] + each[1]) / 2, rtol=1e-6)
    assert not np.array_equal(each[0], each[1])
    with pytest.raises(ValueError, match=r"replicates is \[0, 3\], expected integers from 0 to 2, at least one"):
        score_cells(dish, how, cells, replicates=[0, 3])
    with pytest.raises(ValueError, match=r"replicates is \[\], expected integers from 0 to 2, at least one"):
        score_cells(dish, how, cells, replicates=[])


def test_progress_of_replicates() -> None:
    shares: list[float] = []
    how = recipe(inner__replicates=2, inner__epochs=4000)
    score_cells(start_dish(how), how, small.pool()[0], progress=shares.append)
    assert shares == sorted(shares)
    assert max(shares) <= 1
    assert any(0 < share < 0.5 for share in shares)


# ---- scores by ranks among reference cells


def ranked_recipe(**changes: Any) -> Recipe:
    """Two replicates of three epochs, of which the last two count."""
    return recipe(
        inner__replicates=2, outer__metric="training_loss", outer__metric_epochs=2, outer__ranking="metric", **changes
    )


def test_normal_scores_of_losses_among_reference_cells() -> None:
    settings, cells = ranked_recipe(), random_cells(60, seed=3)
    dish = start_dish(settings)
    rows = reference_losses(dish, settings, cells)
    steps = np.concatenate([each.recorded["step_loss"] for each in train_cells(dish, settings, cells)])
    losses = steps.reshape(120, 3, -1).mean(axis=2)[:, 1:]
    wanted = np.quantile(losses, norm.cdf(np.arange(-3, 3.1, 0.5)), axis=0).T
    np.testing.assert_allclose(
        rows, wanted, rtol=1e-6
    )  # the product averages losses in double, the engine records float32
    ranked = settings.replace({"outer.reference_losses": rows})
    scores = score_cells(dish, ranked, cells)
    # The reference cells themselves have normal scores: mean 0, standard deviation 1 of each motif and less of their means.
    assert abs(scores.mean()) < 0.1
    assert 0.5 < scores.std() < 1.1
    logs = np.log(losses).reshape(2, 60, 2)
    expected = -np.mean(
        [np.interp(logs[r, :, e], np.log(rows[e]), np.arange(-3, 3.1, 0.5)) for r in (0, 1) for e in (0, 1)], axis=0
    )
    inside = (logs > np.log(rows)[:, 0]).all(axis=(0, 2)) & (logs < np.log(rows)[:, -1]).all(axis=(0, 2))
    assert inside.sum() > 50
    np.testing.assert_allclose(scores[inside], expected[inside], rtol=1e-5, atol=1e-6)
    # One cell alone has the same score.
    assert score_cells(dish, ranked, cells[7:8])[0] == scores[7]


def test_normal_scores_go_on_beyond_the_reference_cells() -> None:
    settings, cells = ranked_recipe(), random_cells(30, seed=3)
    dish = start_dish(settings)
    plain = score_cells(dish, settings, cells)
    low, high = np.linspace(0.01, 0.02, 13).tolist(), np.linspace(100.0, 200.0, 13).tolist()
    for reference in (low, high):  # all losses lie above, or below: the order is that of the mean logarithm of the loss
        scores = score_cells(dish, settings.replace({"outer.reference_losses": [reference, reference]}), cells)
        assert len(set(scores.tolist())) == 30
        assert spearmanr(scores, plain).statistic > 0.97


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"outer.reference_losses": [list(range(1, 14))]},
            "has 1 rows, expected 2: one for each inner epoch that counts",
        ),
        ({"outer.reference_losses": [list(range(1, 14)), [1] * 13]}, "does not increase from above 0"),
        ({"outer.reference_losses": [list(range(13))] * 2}, "does not increase from above 0"),
        ({"outer.reference_losses": [list(range(1, 13))] * 2}, "at least 13 items"),
        (
            {"outer.reference_losses": [list(range(1, 14))] * 2, "outer.ranking": "accuracy"},
            'expected "training_loss" and "metric"',
        ),
        (
            {"outer.reference_losses": [list(range(1, 14))] * 2, "outer.learn": ["labels", "step_weights"]},
            "expected one of the two",
        ),
    ],
)
def test_bad_reference_losses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranked_recipe().replace(changes)


def test_reference_losses_of_too_few_cells() -> None:
    settings = ranked_recipe().replace({"inner.replicates": 1})
    with pytest.raises(ValueError, match="expected those of a few hundred cells"):
        reference_losses(start_dish(settings), settings, random_cells(1, seed=3))


def test_the_dish_of_a_ranked_score_has_no_step_weights() -> None:
    settings = ranked_recipe(outer__reference_losses=[list(range(1, 14))] * 2)
    dish = start_dish(settings)
    weighted = replace(dish, step_weights=np.full(settings.steps, 1 / settings.steps))
    with pytest.raises(ValueError, match=r"the dish has step_weights and the recipe has outer\.reference_losses"):
        score_cells(weighted, settings, random_cells(2, seed=3))


@pytest.mark.verify
def test_the_reference_losses_of_learning_curves_are_those_of_cells_of_the_space() -> None:
    curves = recipes.get("curves")
    space = enumerate_space()
    rows = np.sort(np.random.default_rng(2026).choice(len(space), 400, replace=False))
    found = reference_losses(start_dish(curves), curves, [space[row] for row in rows.tolist()])
    assert curves.outer.reference_losses is not None
    np.testing.assert_allclose(found, curves.outer.reference_losses, rtol=2e-3)


def test_scoring_needs_no_torch() -> None:
    code = "import sys, spd_fast.scoring; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- bits that do not depend on company

COLUMNS = 40


@given(st.integers(1, 40), st.integers(0, 10), st.integers(0, 2**32 - 1), st.sampled_from(["float32", "float64"]))
def test_means_of_a_column_do_not_depend_on_the_others(rows: int, scale: int, seed: int, dtype: Any) -> None:
    """NumPy adds in this order as well where there are at least two columns, and in another where there is one."""
    rng = np.random.default_rng(seed)
    arrays = [
        (rng.standard_normal(COLUMNS) * 10.0 ** rng.integers(-scale, scale + 1)).astype(dtype) for _ in range(rows)
    ]
    whole = mean_of(arrays)
    assert whole.dtype == dtype
    assert whole.tobytes() == np.mean(arrays, axis=0).tobytes()
    assert sum_of(arrays).tobytes() == np.sum(arrays, axis=0).tobytes()
    for n in (1, 2, 7):
        first = int(rng.integers(COLUMNS - n + 1))
        part = slice(first, first + n)
        assert mean_of([array[part] for array in arrays]).tobytes() == whole[part].tobytes()


CROWD = [*small.pool()[0]]


def readings(how: Recipe, rows: list[int]) -> dict[str, Any]:
    """Everything that is read off the motifs of some cells and averaged over replicates or steps."""
    import torch

    from spd_fast.outer.forms import dish_tensors, free_tensors
    from spd_fast.outer.measure import measure_of
    from spd_fast.predictors.readings import motif_readings

    cells, start = [CROWD[row] for row in rows], start_dish(how)
    found: dict[str, Any] = {"score_cells": score_cells(start, how, cells)}
    read = motif_readings(start, how, cells)
    found |= {name: getattr(read, name) for name in ("score", "curve", "step_loss")}
    with torch.no_grad():
        tensors = dish_tensors(free_tensors(start, how.outer.learn, how.form), start, how.form)
        measured = measure_of(CROWD, start, how, None)(tensors, rows, None, None)
    found["metric"] = measured.metric.numpy()
    found |= {name: proxies.score(cells, how.shape, start.images, start.labels, name) for name in proxies.PROXIES}
    names = ("accuracy", "curve_loss", "curve_accuracy", *(["step_loss"] if measured.step_loss is not None else []))
    return found | {name: getattr(measured, name) for name in names}


MANY = {"inner__replicates": 11, "inner__redraw": False, "inner__init": "shared"}
RECIPES = {
    "trained anew": recipe(**MANY, inner__epochs=1, dish__images=30),
    "training loss": recipe(
        **MANY, outer__metric="training_loss", outer__learn=["rates"], outer__ranking="metric", inner__epochs=7
    ),
    "trained once": recipe(
        **MANY, dtype="float64", dish__valid_images=6, outer__learn=["valid_images"], outer__ranking="accuracy"
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_readings_of_a_cell_do_not_depend_on_the_others(name: str) -> None:
    """Of one cell alone, two, some in another order, they are the very bits that all of them together give."""
    how = RECIPES[name]
    rng = np.random.default_rng(1)
    whole = readings(how, list(range(len(CROWD))))
    subsets = [[row] for row in range(len(CROWD))]
    subsets += [rng.permutation(len(CROWD))[:n].tolist() for n in (2, 3, 4, 5, 6, 7, 8, 9)]
    for rows in subsets:
        for what, found in readings(how, rows).items():
            assert found.tobytes() == whole[what][rows].tobytes(), (what, rows)
