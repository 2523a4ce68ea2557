"""Steps of the outer loop: CMA-ES finds, repeats and resumes; ridge regression leaves each cell out."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import small
from spd_fast.outer import runs
from spd_fast.outer.fit import FitResult, fit_dish
from spd_fast.outer.optimizers import Descent, Evolution, NothingToStep, optimizer_of
from spd_fast.outer.ridge import ridge_weights
from spd_fast.recipes.settings import CMAESSettings, Recipe

SEARCHING = small.CURVE.replace(
    {"outer.optimizer": {"name": "cmaes", "sigma": 0.2, "population": 5}, "outer.epochs": 3}
)
RIDGE = small.CURVE.replace({"outer.step_weights": "ridge", "outer.check_every": 3, "outer.epochs": 4})


def fit(recipe: Recipe, **arguments: Any) -> FitResult:
    cells, accuracy = small.pool()
    return fit_dish(cells, accuracy, recipe, **arguments)


def assert_same(one: FitResult, other: FitResult) -> None:
    for name in one.recipe.outer.learn:
        assert np.array_equal(getattr(one.dish, name), getattr(other.dish, name)), name
    assert [step.loss for step in one.history] == [step.loss for step in other.history]


# ---- CMA-ES


def bowl(sigma: float, seed: int, generations: int) -> torch.Tensor:
    """The mean after some generations on squared distances from (1, -2, 3), two of them in one tensor."""
    free = {"a": torch.zeros(2), "b": torch.zeros(1)}
    step = Evolution(free, CMAESSettings(name="cmaes", sigma=sigma, population=8), seed)

    def loss() -> float:
        return float((torch.cat([free["a"], free["b"]]) - torch.tensor([1.0, -2.0, 3.0])).square().sum())

    for epoch in range(generations):
        step.take(torch.tensor(loss()), loss, epoch, [])
    return torch.cat([free["a"], free["b"]])


def test_evolution_finds_the_bottom_of_a_bowl() -> None:
    # a factor of about 1/2 in the distance every 3 dimensions' generations: 60 generations leave less than 1e-3
    assert torch.allclose(bowl(0.5, 0, 60), torch.tensor([1.0, -2.0, 3.0]), atol=1e-2)
    assert torch.equal(bowl(0.5, 0, 5), bowl(0.5, 0, 5))
    assert not torch.equal(bowl(0.5, 0, 5), bowl(0.5, 1, 5))


def test_what_has_no_loss_ranks_last() -> None:
    """One half of the space diverges: the mean moves into the other, and told losses rebuild the strategy."""
    free = {"a": torch.zeros(2)}
    step = Evolution(free, SEARCHING.outer.optimizer, 0)
    for epoch in range(4):
        step.take(torch.tensor(0.0), lambda: None if free["a"][0] < 0 else 0.0, epoch, [])
    assert free["a"][0] > 0
    assert np.isinf(step.state()["told"]).any()
    again = Evolution({"a": torch.zeros(2)}, SEARCHING.outer.optimizer, 0)
    again.restore(step.state())
    assert np.array_equal(again.strategy.mean, step.strategy.mean)
    assert np.array_equal(again.strategy.ask(), step.strategy.ask())


def test_search_lowers_the_loss_of_a_dish() -> None:
    cells, accuracy = small.pool()
    recipe = SEARCHING.replace({"outer.epochs": 12, "outer.cells": 4})
    history = fit_dish(cells[:4], accuracy[:4], recipe).history
    assert history[-1].loss < history[0].loss - 0.01
    assert all(step.gradient_norm is None and step.trust is None and not step.skipped for step in history)


def test_search_needs_no_gradient() -> None:
    followed: list[bool] = []

    def loss(metric: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        followed.append(metric.requires_grad or torch.is_grad_enabled())
        return (metric - target).square().mean()

    result = fit(SEARCHING.replace({"outer.gradient": "direct"}), loss=loss)
    assert len(followed) > SEARCHING.outer.epochs
    assert not any(followed)
    for name in SEARCHING.outer.learn:
        assert (getattr(result.dish, name) != getattr(result.start, name)).all()


@pytest.mark.parametrize("recipe", [SEARCHING, RIDGE], ids=["cmaes", "ridge"])
def test_same_bits_with_more_threads_and_after_a_stop(recipe: Recipe, tmp_path: Path) -> None:
    expected = fit(recipe, threads=1)
    assert_same(fit(recipe, threads=2), expected)

    def stop(epoch: int, fraction: float, step: Any) -> None:
        if epoch == 1 and step is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(recipe, run=tmp_path / "run", progress=stop, checkpoint_seconds=0)
    with runs.resume(tmp_path / "run") as opened:
        assert len(opened.records()) == 2
        assert_same(fit(recipe, run=opened), expected)


def test_too_many_numbers_to_search() -> None:
    with pytest.raises(ValueError, match=r"CMA-ES would search 600 numbers, expected at most 500: learn fewer"):
        fit(SEARCHING.replace({"outer.learn": ["images"]}))


def test_without_cmaes_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests need cmaes, so that this process has it: Python is told that it has not."""
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(
        ImportError, match=r"outer.optimizer \"cmaes\" needs cmaes, .*: pip install 'spd_fast\[learn\]'"
    ):
        fit(SEARCHING)


# ---- ridge regression


def test_ridge_leaves_each_cell_out() -> None:
    """The penalty is the one of least error where cells are really left out, and the weights are its closed form."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 6)) * [1, 2, 3, 1, 1, 5] + 7
    y = x @ [1, 0, -0.5, 0, 0.2, 0] + 4 * rng.normal(size=20)
    spread = x.std(axis=0)

    def weights(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
        z = (x - x.mean(axis=0)) / spread
        return np.linalg.solve(z.T @ z + penalty * np.eye(6), z.T @ (y - y.mean())) / spread

    largest = np.linalg.svd((x - x.mean(axis=0)) / spread, compute_uv=False)[0] ** 2
    errors = {}
    for penalty in largest * 10.0 ** np.arange(-1, 1.5, 0.5):
        left = []
        for k in range(20):
            others = np.delete(np.arange(20), k)
            w = weights(x[others], y[others], penalty)
            left.append(y[k] - y[others].mean() - (x[k] - x[others].mean(axis=0)) @ w)
        errors[penalty] = np.mean(np.square(left))
    best = min(errors, key=lambda penalty: errors[penalty])
    assert largest * 0.11 < best < largest * 9  # neither the smallest nor the largest
    # the leverage of a cell holds features centred with it, brute force those centred without: equal by algebra
    assert np.allclose(ridge_weights(x, y), weights(x, y, best), rtol=1e-9)


def test_ridge_of_what_says_nothing() -> None:
    assert not ridge_weights(np.ones((5, 3)), np.arange(5.0)).any()
    one = ridge_weights(np.stack([np.arange(8.0), np.ones(8)], axis=1), np.arange(8.0))
    assert one[0] == pytest.approx(1 / 1.1)  # shrunk by the smallest penalty, a tenth of its own sum of squares
    assert one[1] == 0


def test_step_weights_by_ridge() -> None:
    """Of the cells that are compared, all replicates, after three steps and at the end; the others are stepped as ever."""
    from spd_fast.outer.pool import transformed
    from spd_fast.scoring import train_cells

    result = fit(RIDGE)
    cells, accuracy = small.pool()
    losses = np.mean([each.recorded["step_loss"] for each in train_cells(result.dish, RIDGE, cells)], axis=0)
    expected = ridge_weights(-losses, transformed(accuracy, RIDGE.outer))
    assert np.allclose(
        result.dish.step_weights, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max()
    )  # held in float32
    assert (result.dish.rates[:-1] != result.start.rates[:-1]).all()
    # the losses of a dish that keeps its equal weights to the end differ only after the regression of the third step
    plain = fit(RIDGE.replace({"outer.check_every": 100}))
    same = [one.loss == other.loss for one, other in zip(result.history, plain.history, strict=True)]
    assert same == [True, True, True, False]


def test_step_weights_alone() -> None:
    result = fit(RIDGE.replace({"outer.learn": ["step_weights"], "outer.epochs": 1, "outer.validation_cells": 3}))
    assert [step.skipped for step in result.history] == ["step weights alone are learned, by ridge regression"]
    assert not np.array_equal(result.dish.step_weights, result.start.step_weights)
    assert np.array_equal(result.dish.images, result.start.images)
    assert result.validation_tau is not None


def test_the_recipe_chooses_the_step() -> None:
    free = {"a": torch.zeros(2, requires_grad=True)}
    assert isinstance(optimizer_of(free, small.CURVE.outer, 0), Descent)
    assert isinstance(optimizer_of(free, SEARCHING.outer, 0), Evolution)
    assert isinstance(optimizer_of({}, SEARCHING.outer, 0), NothingToStep)
