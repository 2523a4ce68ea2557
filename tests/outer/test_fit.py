"""The outer loop: what it records, that it learns what it is told, that it repeats and resumes to the bit."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import small
from spd_fast.base.ranks import kendall_tau
from spd_fast.dish import Dish
from spd_fast.engine.training import train
from spd_fast.outer import runs
from spd_fast.outer.fit import FitResult, fit_dish
from spd_fast.outer.history import OuterEpoch, validation_checks
from spd_fast.outer.optimizers import Descent, clip_norm
from spd_fast.outer.pool import draw_cells, split_pool, transformed
from spd_fast.outer.start import start_dish
from spd_fast.recipes.settings import Recipe
from spd_fast.scoring import inner_loops, score_cells
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.perceptron import Perceptron


def fit(**arguments: Any) -> FitResult:
    cells, accuracy = small.pool()
    return fit_dish(cells, accuracy, **({"recipe": small.RECIPE} | arguments))


def untimed(history: tuple[OuterEpoch, ...]) -> list[OuterEpoch]:
    return [replace(step, seconds=0.0, core_seconds=0.0) for step in history]


def assert_same(one: FitResult, other: FitResult) -> None:
    assert np.array_equal(one.dish.images, other.dish.images)
    assert untimed(one.history) == untimed(other.history)


@pytest.fixture(scope="module")
def whole() -> FitResult:
    """The small recipe, never interrupted, with one thread."""
    return fit(threads=1)


@pytest.mark.parametrize(
    ("accuracy", "changes"),
    [
        (np.full(small.POOL, 0.5), {}),
        (np.full(small.POOL, 0.5), {"outer.target": "rank"}),
        (np.r_[0.1, np.full(small.POOL - 1, 0.5)], {"outer.target": "winsorised", "outer.winsorise": 0.2}),
    ],
    ids=["alike", "ranks", "winsorised"],
)
def test_targets_that_are_alike_are_told_once(accuracy: Any, changes: dict[str, Any]) -> None:
    recipe = small.RECIPE.replace({"outer.epochs": 2} | changes)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit_dish(small.pool()[0], accuracy, recipe, threads=1)
    assert ["there is nothing to rank by" in str(each.message) for each in told] == [True]
    assert told[0].filename == __file__


def test_first_step_by_hand(whole: FitResult) -> None:
    """Everything recorded of epoch 0 from `train_motifs` directly, and Adam's first step, lr * sign, in the images."""
    recipe = small.RECIPE
    cells, accuracy = small.pool()
    chosen = draw_cells(small.POOL, recipe.outer.cells, 0, recipe.seed)
    start = start_dish(recipe)
    result = train(inner_loops(recipe).of(0), [cells[i] for i in chosen], recipe.shape, start)
    step = whole.history[0]
    assert step.cells == tuple(cells[i].module_hash for i in chosen)
    assert step.truth == tuple(accuracy[chosen])
    assert step.metric == tuple(map(float, result.train.probability.astype(np.float32)))
    assert step.accuracy == tuple(map(float, result.train.accuracy))
    assert step.max_accuracy == tuple(map(float, result.accuracy.max(axis=1)))
    assert np.allclose(step.curve_accuracy, result.accuracy.mean(axis=0), atol=1e-5)
    assert np.allclose(step.curve_loss_sd, result.loss.std(axis=0), atol=1e-5)
    correlation = np.corrcoef(step.metric, accuracy[chosen])[0, 1]
    assert step.pearson == pytest.approx(correlation, abs=1e-9)
    assert step.loss == pytest.approx(1 - abs(correlation), abs=1e-5)  # in float32
    assert step.kendall_tau == kendall_tau(result.train.accuracy, accuracy[chosen])
    assert step.gradient_norm > 0
    assert step.skipped == ""
    assert np.array_equal(whole.start.images, start.images)
    one = fit(recipe=recipe.replace({"outer.epochs": 1})).dish
    moved = np.abs(one.images - start.images)
    assert np.allclose(moved, recipe.outer.optimizer.lr, rtol=0.05)


def test_history_covers_every_epoch(whole: FitResult) -> None:
    assert all(step.core_seconds > 0 for step in whole.history)
    assert [step.epoch for step in whole.history] == list(range(small.RECIPE.outer.epochs))
    for step in whole.history:
        assert OuterEpoch.from_json(step.to_json()) == step
        assert len(step.curve_accuracy) == small.RECIPE.inner.epochs


def test_same_bits_with_more_threads(whole: FitResult) -> None:
    assert_same(fit(threads=2), whole)
    assert_same(fit(threads=None), whole)


def test_torch_thread_count_is_left_alone(whole: FitResult) -> None:
    before = torch.get_num_threads()
    fit(recipe=small.RECIPE.replace({"outer.epochs": 1}))
    assert torch.get_num_threads() == before


def test_seed_changes_everything(whole: FitResult) -> None:
    other = fit(seed=8)
    assert not np.array_equal(other.start.images, whole.start.images)
    assert other.history[0].cells != whole.history[0].cells
    assert_same(fit(seed=small.RECIPE.seed), whole)


def test_cells_are_fresh_until_the_pool_is_used_up() -> None:
    recipe = small.RECIPE.replace({"outer.cells": 3})
    drawn = [draw_cells(10, recipe.outer.cells, epoch, recipe.seed) for epoch in range(6)]
    first, second = np.concatenate(drawn[:3]).tolist(), np.concatenate(drawn[3:]).tolist()
    assert len(set(first)) == len(set(second)) == 9
    assert first != second


def endless(metric: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A loss that no dish follows."""
    return metric.sum() * torch.inf


@pytest.mark.parametrize(("redraw", "different"), [(True, 3), (False, 1)])
def test_redrawn_or_fixed_weights(redraw: bool, different: int) -> None:
    """The same cells on a dish that stays as it is: their metrics change with the weights alone."""
    cells, accuracy = small.pool()
    recipe = small.RECIPE.replace({"outer.epochs": 3, "inner.redraw": redraw})
    history = fit_dish(cells[:4], accuracy[:4], recipe, loss=endless).history
    metrics = [dict(zip(step.cells, step.metric, strict=True)) for step in history]
    assert len({tuple(found[cell.module_hash] for cell in cells[:4]) for found in metrics}) == different


def test_unrolled_gradient_changes_the_dish_otherwise() -> None:
    recipe = small.RECIPE.replace({"outer.epochs": 1})
    direct, unrolled = (fit(recipe=recipe.replace({"outer.gradient": how})) for how in ("direct", "unrolled"))
    assert direct.history[0].loss == unrolled.history[0].loss
    assert direct.history[0].gradient_norm != unrolled.history[0].gradient_norm
    assert not np.array_equal(direct.dish.images, unrolled.dish.images)


def test_float64() -> None:
    result = fit(recipe=small.RECIPE.replace({"dtype": "float64", "outer.epochs": 2}))
    assert result.dish.images.dtype == np.float64


def test_loss_as_metric_counts_less_as_better() -> None:
    """With metric "loss" the outer loss and tau see its negative; the record holds the loss itself."""
    step = fit(
        recipe=small.RECIPE.replace({"outer.epochs": 1, "outer.metric": "loss", "outer.loss": "pearson"})
    ).history[0]
    assert step.pearson == pytest.approx(-np.corrcoef(step.metric, step.truth)[0, 1], abs=1e-9)
    assert step.loss == pytest.approx(1 - step.pearson, abs=1e-5)
    assert step.kendall_tau_metric == kendall_tau(-np.array(step.metric), step.truth)


def test_ranking_by_metric() -> None:
    step = fit(recipe=small.RECIPE.replace({"outer.epochs": 1, "outer.ranking": "metric"})).history[0]
    assert step.kendall_tau == step.kendall_tau_metric == kendall_tau(step.metric, step.truth)


def test_a_loss_of_ones_own_is_minimised() -> None:
    """The loop follows the gradient: the mean probability of always the same motifs rises."""
    cells, accuracy = small.pool()
    recipe = small.RECIPE.replace({"outer.epochs": 25, "inner.redraw": False, "outer.optimizer.lr": 0.03})
    result = fit_dish(cells[:4], accuracy[:4], recipe, loss=lambda metric, truth: -metric.mean())
    means = [np.mean(step.metric) for step in result.history]
    assert means[-1] > means[0] + 0.02
    assert result.history[0].loss == pytest.approx(-means[0], abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda metric, truth: metric, "loss returned a tensor of shape \\(4,\\), expected a scalar"),
        (lambda metric, truth: 3.0, "loss returned a float, expected a scalar"),
        (lambda metric, truth: metric.detach().sum(), "expected a scalar tensor that depends on the metric"),
    ],
)
def test_bad_loss(loss: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        fit(loss=loss)


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (endless, "the outer loss is not finite"),
        (lambda metric, truth: (metric - metric.detach()).sqrt().sum(), "the gradient is not finite"),
    ],
)
def test_what_is_not_finite_is_not_followed(loss: Any, reason: str) -> None:
    result = fit(recipe=small.RECIPE.replace({"outer.epochs": 1}), loss=loss)
    assert result.history[0].skipped == reason
    assert result.history[0].gradient_norm is None
    assert np.array_equal(result.dish.images, result.start.images)


STEEP = small.RECIPE.replace({"motif": {"hidden": 3, "layers": 1}})
"""For perceptrons."""


def perceptrons(n: int, broken: int) -> list[Perceptron]:
    """Perceptrons of which the first diverge: their slopes are infinite in float32."""
    return [Perceptron(1e39 * (k + 1) if k < broken else 0.5 + k) for k in range(n)]


def fit_broken(broken: int) -> FitResult:
    """Two epochs of four motifs of which some diverge."""
    return fit_dish(perceptrons(4, broken), small.pool()[1][:4], STEEP.replace({"outer.epochs": 2}))


def test_motif_that_diverged_is_left_out() -> None:
    """One motif diverges: counted, recorded as None, not in the loss; two of four: the step is skipped."""
    result = fit_broken(1)
    step = result.history[0]
    k = step.cells.index(perceptrons(4, 1)[0].module_hash)
    others = [each for each in range(4) if each != k]
    assert step.diverged == tuple(each == k for each in range(4))
    assert step.metric[k] is step.accuracy[k] is step.max_accuracy[k] is None
    metric, truth = (np.array(values, np.float64)[others] for values in (step.metric, step.truth))
    assert step.pearson == pytest.approx(np.corrcoef(metric, truth)[0, 1], abs=1e-9)
    assert not step.perfect
    assert step.skipped == ""
    assert np.isfinite(result.dish.images).all()
    assert not np.array_equal(result.dish.images, result.start.images)

    result = fit_broken(2)
    assert [step.skipped for step in result.history] == ["2 of 4 motifs diverged"] * 2
    assert result.history[0].loss is None
    assert np.array_equal(result.dish.images, result.start.images)

    step = fit_broken(4).history[0]
    assert (step.kendall_tau, step.pearson, step.curve_accuracy, step.mean_max_accuracy) == (0, None, (), None)


class StopError(Exception):
    pass


def stop_in(epoch: int) -> Any:
    """Stop in the middle of an epoch's training."""

    def progress(at: int, fraction: float, step: OuterEpoch | None) -> None:
        if at == epoch and step is None:
            raise StopError

    return progress


@pytest.mark.parametrize("epoch", [0, 3])
def test_resumed_run_is_the_same(epoch: int, whole: FitResult, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        fit(run=tmp_path / "run", progress=stop_in(epoch), checkpoint_seconds=0)
    with runs.resume(tmp_path / "run") as opened:
        assert len(opened.records()) == epoch
        assert not opened.finished
        assert_same(fit(run=opened), whole)
        assert opened.finished
        assert untimed(tuple(map(OuterEpoch.from_json, opened.records()))) == untimed(whole.history)


def test_death_between_metrics_and_checkpoint(whole: FitResult, tmp_path: Path) -> None:
    """The line of an epoch is on the disk and its checkpoint is not: the epoch is done again."""
    metrics, checkpoint = (tmp_path / "run" / name for name in ("metrics.jsonl", "checkpoint.npz"))
    before: list[bytes] = []

    def stop(at: int, fraction: float, step: OuterEpoch | None) -> None:
        if at == 1 and step is not None:
            before.append(checkpoint.read_bytes())
        stop_after(2)(at, fraction, step)

    with pytest.raises(StopError):
        fit(run=tmp_path / "run", progress=stop, checkpoint_seconds=0)
    checkpoint.write_bytes(before[0])
    assert len(runs.read(tmp_path / "run").records()) == 3
    with metrics.open("ab") as file:
        file.write(b'{"epoch": 3, "lo')  # and the next one was cut short
    with runs.resume(tmp_path / "run") as opened:
        assert_same(fit(run=opened), whole)
    assert len(metrics.read_bytes().splitlines()) == 1 + small.RECIPE.outer.epochs


def test_resuming_a_finished_run_changes_nothing(whole: FitResult, tmp_path: Path) -> None:
    assert_same(fit(run=tmp_path / "run"), whole)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with runs.resume(tmp_path / "run") as opened:
        assert_same(fit(run=opened), whole)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_resuming_with_something_else(tmp_path: Path) -> None:
    cells, accuracy = small.pool()
    with pytest.raises(StopError):
        fit(run=tmp_path / "run", progress=stop_in(2), checkpoint_seconds=0)
    with runs.resume(tmp_path / "run") as opened:
        with pytest.raises(ValueError, match=r"the recipe differs from the one that .*run was begun with"):
            fit(run=opened, recipe=small.RECIPE.replace({"inner.epochs": 4}))
        with pytest.raises(ValueError, match=r"was begun with other settings \(truth is"):
            fit_dish(cells, accuracy[::-1], opened.recipe, run=opened)
        with pytest.raises(ValueError, match=r"was begun with other settings \(cells is"):
            fit_dish(cells[::-1], accuracy, opened.recipe, run=opened)
        with pytest.raises(ValueError, match=r"loss is '.*lambda.*', begun with"):
            fit(run=opened, loss=lambda metric, truth: metric.sum())


def test_checkpoint_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(StopError):
        fit(run=tmp_path / "run", progress=stop_in(2), checkpoint_seconds=0)
    with runs.resume(tmp_path / "run") as opened:
        header, *_ = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        step, arrays, _ = opened.restore(json.loads(header)["identity"])
        opened.save_checkpoint(step, arrays | {"free.images": arrays["images"][:3]})
        with pytest.raises(runs.RunFolderError, match=r"images have shape \(3, 2, 5, 5\), expected \(12, 2, 5, 5\)"):
            fit(run=opened)
        opened.save_checkpoint(step, {"images": arrays["images"]})
        with pytest.raises(runs.RunFolderError, match=r"its checkpoint does not fit: 'free\.images'"):
            fit(run=opened)


@pytest.mark.parametrize(
    ("accuracy", "message"),
    [
        (np.zeros(3), r"accuracy has shape \(3,\), expected \(10,\) to match cells"),
        (np.full(10, np.nan), r"accuracy\[0\] is nan, expected finite numbers"),
    ],
)
def test_bad_truth(accuracy: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_dish(small.pool()[0], accuracy, small.RECIPE)


def test_too_few_cells() -> None:
    with pytest.raises(
        ValueError, match=r"3 cells were given, expected at least 4: the recipe compares outer\.cells of them"
    ):
        fit_dish(small.pool()[0][:3], np.zeros(3), small.RECIPE)


# ---- what the paper does not have


@pytest.fixture(scope="module")
def learning() -> FitResult:
    """Everything learned at once, never interrupted, with one thread."""
    return fit(recipe=small.LEARNING, threads=1)


def test_everything_learned_changes_and_nothing_else(learning: FitResult) -> None:
    for name in small.LEARNING.outer.learn:
        assert np.abs(getattr(learning.dish, name) - getattr(learning.start, name)).max() > 1e-3 * (name != "rates")
    assert (learning.dish.rates != learning.start.rates).all()
    only = fit(recipe=small.LEARNING.replace({"outer.learn": ["valid_labels"], "outer.epochs": 4}))
    for name in ("images", "labels", "valid_images"):
        assert np.array_equal(getattr(only.dish, name), getattr(only.start, name))


def test_same_bits_with_more_threads_whatever_is_learned(learning: FitResult) -> None:
    assert_same(fit(recipe=small.LEARNING, threads=2), learning)


@pytest.mark.parametrize("learn", [["valid_images", "valid_labels"], list(small.LEARNING.outer.learn)])
def test_resumed_run_is_the_same_whatever_is_learned(learn: list[str], tmp_path: Path) -> None:
    recipe = small.LEARNING.replace({"outer.learn": learn})
    expected = fit(recipe=recipe)
    with pytest.raises(StopError):
        fit(recipe=recipe, run=tmp_path / "run", progress=stop_after(3), checkpoint_seconds=0)
    _, now = runs.read(tmp_path / "run").dishes()
    assert np.abs(now.valid_images - expected.start.valid_images).max() > 0
    with runs.resume(tmp_path / "run") as opened:
        found = fit(recipe=recipe, run=opened)
    assert_same(found, expected)
    for name in learn:
        assert np.array_equal(getattr(found.dish, name), getattr(expected.dish, name))


def stop_after(epoch: int) -> Any:
    def progress(at: int, fraction: float, step: OuterEpoch | None) -> None:
        if at == epoch and step is not None:
            raise StopError

    return progress


def test_short_steps_share_a_checkpoint(tmp_path: Path) -> None:
    """One at the end, whatever the clock says; a run that was stopped before the first begins again."""
    there: list[bool] = []

    def look(at: int, fraction: float, step: OuterEpoch | None) -> None:
        if step is not None:
            there.append((tmp_path / "run" / "checkpoint.npz").exists())

    with pytest.raises(StopError):
        fit(run=tmp_path / "run", progress=stop_after(2), checkpoint_seconds=3600)
    assert not (tmp_path / "run" / "checkpoint.npz").exists()
    start, now = runs.read(tmp_path / "run").dishes()
    assert np.array_equal(start.images, now.images)
    with runs.resume(tmp_path / "run") as opened:
        resumed = fit(run=opened, progress=look, checkpoint_seconds=3600)
    assert there == [False] * (small.RECIPE.outer.epochs - 1) + [True]
    assert_same(resumed, fit())


def test_validation_cells_choose_the_dish(learning: FitResult) -> None:
    """Tau before learning and of the dish that is kept, which is the best of those checked, computed by `score_cells`
    alone."""
    cells, accuracy = small.pool()
    kept = list(learning.validation_cells)
    checks = validation_checks(learning.history)
    assert [steps for steps, _ in checks] == [0, 2, 4, 6]

    def tau(dish: Any) -> float:
        return kendall_tau(score_cells(dish, learning.recipe, [cells[i] for i in kept]), accuracy[kept])

    assert tau(learning.start) == checks[0][1]
    assert tau(learning.dish) == learning.validation_tau == max(tau for _, tau in checks)
    compared = {name for step in learning.history for name in step.cells}
    assert not compared & {cells[i].module_hash for i in kept}
    assert sorted([*learning.training_cells, *kept]) == list(range(small.POOL))

    last = fit(recipe=small.LEARNING.replace({"outer.keep": "last"}))
    assert validation_checks(last.history) == checks
    assert tau(last.dish) == last.validation_tau == checks[-1][1]


STEADY = small.LEARNING.replace(
    {"outer.schedule": "constant", "outer.validation_cells": 6, "outer.optimizer.lr": 0.3, "outer.keep": "best"}
)
"""Steps so long that they change how the validation cells are ranked, and that do not depend on how many will follow."""


@pytest.fixture(scope="module")
def two() -> FitResult:
    """Two epochs of it."""
    return fit(recipe=STEADY.replace({"outer.epochs": 2, "outer.keep": "last"}))


def pool_as_ranked_by(dish: Dish) -> tuple[list[Cell], Any]:
    """The pool, but for accuracies of the validation cells, which nothing but the checks reads: a dish ranks them without a mistake."""
    cells, accuracy = small.pool()
    _, kept = split_pool(small.POOL, STEADY.outer, STEADY.seed)
    accuracy[kept] = score_cells(dish, STEADY, [cells[i] for i in kept])
    return cells, accuracy


def test_the_best_dish_is_the_one_that_was_looked_at(two: FitResult) -> None:
    """Of checks after 0, 2, 4 and 6 epochs the second and the third are the best: the earlier is kept, the last dish of a run of two."""
    whole = fit_dish(*pool_as_ranked_by(two.dish), STEADY)
    checks = dict(validation_checks(whole.history))
    assert list(checks) == [0, 2, 4, 6]
    assert checks[2] == pytest.approx(1)
    assert checks[2] == checks[4] > max(checks[0], checks[6])
    assert np.array_equal(two.dish.images, whole.dish.images)
    assert not np.array_equal(whole.dish.images, whole.start.images)


def test_patience(two: FitResult) -> None:
    """Tau is best after two epochs: stop at the first check that is three epochs or more after that."""
    found = fit_dish(*pool_as_ranked_by(two.dish), STEADY.replace({"outer.epochs": 50, "outer.patience": 3}))
    assert [steps for steps, _ in validation_checks(found.history)] == [0, 2, 4, 6]
    assert len(found.history) == 6


def test_a_dish_that_only_gets_worse_is_not_kept(two: FitResult) -> None:
    found = fit_dish(*pool_as_ranked_by(two.start), STEADY.replace({"outer.epochs": 4}))
    before, *later = (tau for _, tau in validation_checks(found.history))
    assert before == pytest.approx(1)
    assert max(later) < 0.9
    assert np.array_equal(found.dish.images, found.start.images)
    assert found.validation_tau == before


def test_pool_is_a_draw_of_what_is_given() -> None:
    recipe = small.LEARNING.replace({"outer.pool": 8, "outer.validation_cells": 3})
    compared, kept = split_pool(100, recipe.outer, 7)
    assert (len(compared), len(kept), len({*compared, *kept})) == (5, 3, 8)
    assert np.array_equal(split_pool(100, recipe.outer, 7)[0], compared)
    assert not np.array_equal(split_pool(100, recipe.outer, 8)[0], compared)
    assert split_pool(4, small.RECIPE.outer, 0)[0].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"10 cells were given, expected at least 30: the recipe uses that many"):
        fit(recipe=small.RECIPE.replace({"outer.pool": 30}))


def test_targets() -> None:
    truth = np.array([0.9, 0.1, 0.93, 0.9, 0.94])
    assert transformed(truth, small.RECIPE.outer) is truth
    assert transformed(truth, small.LEARNING.outer).tolist() == [0.375, 0.0, 0.75, 0.375, 1.0]
    clipped = transformed(truth, small.RECIPE.replace({"outer.target": "winsorised", "outer.winsorise": 0.25}).outer)
    assert clipped.tolist() == [0.9, 0.9, 0.93, 0.9, 0.93]


def test_target_reaches_the_loss() -> None:
    seen: list[Any] = []

    def loss(metric: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(target.tolist())
        return metric.sum()

    found = fit(recipe=small.RECIPE.replace({"outer.target": "rank", "outer.epochs": 1}), loss=loss)
    _, accuracy = small.pool()
    ranks = {value: rank / 9 for rank, value in enumerate(sorted(accuracy))}
    assert seen[0] == pytest.approx([ranks[value] for value in found.history[0].truth])


def test_saturated_steps_change_nothing() -> None:
    """Motifs perfect on two images: no step where too many are, a step where the recipe does not mind."""
    recipe = small.RECIPE.replace({"dish.images": 3, "inner.epochs": 200, "inner.batch_size": 3, "outer.epochs": 1})
    step = fit(recipe=recipe).history[0]
    assert step.perfect
    assert step.skipped == ""
    guarded = fit(recipe=recipe.replace({"outer.saturation": 1.0}))
    assert guarded.history[0].skipped == "4 of 4 motifs are perfect"
    assert guarded.history[0].loss == step.loss
    assert guarded.history[0].gradient_norm is None
    assert np.array_equal(guarded.dish.images, guarded.start.images)


def test_clip_norm_by_hand() -> None:
    assert clip_norm(2.0, []) == np.inf
    assert clip_norm(2.0, [3.0]) == 6.0
    # means: 1, 1, then 0.9 + 0.1 min(10, 2) = 1.1, whatever was skipped
    assert clip_norm(2.0, [1.0, 1.0, None, 10.0]) == pytest.approx(2.2)


def test_clipped_step() -> None:
    """A constant gradient, clipped to nothing from the second step on: Adam goes on by what it remembers of the first.

    m = 0.9 * 0.1 g / (1 - 0.81), v = 0.999 * 0.001 g^2 / (1 - 0.998): a step of 0.670 learning rates.
    """
    recipe = small.RECIPE.replace({"inner.redraw": False, "outer.epochs": 2, "outer.clip": 1e-6, "dtype": "float64"})
    cells, accuracy = small.pool()
    two = fit_dish(cells[:4], accuracy[:4], recipe, loss=linear)
    one = fit_dish(cells[:4], accuracy[:4], recipe.replace({"outer.epochs": 1}), loss=linear)
    moved = np.abs(two.dish.images - one.dish.images)
    assert np.median(moved) == pytest.approx(0.670 * recipe.outer.optimizer.lr, rel=2e-3)
    assert two.history[1].gradient_norm > 1e-3  # recorded as it was


def linear(metric: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return metric.sum()


def moves(recipe: Recipe) -> tuple[list[float], list[int]]:
    """How far each outer step of Adam goes along a gradient that never changes, which is its learning rate; and how many
    steps its running means know of."""
    free = {"images": torch.zeros(1, dtype=torch.float64, requires_grad=True)}
    descent = Descent(free, recipe.outer.optimizer, recipe.outer)
    places, steps = [0.0], []
    for epoch in range(recipe.outer.epochs):
        descent.take(free["images"].sum(), lambda: None, epoch, [])
        places.append(free["images"].item())
        steps.append(int(descent.state()["0.step"]))
    return list(-np.diff(places)), steps


def test_cosine_schedule() -> None:
    rates, _ = moves(small.RECIPE.replace({"outer.schedule": "cosine", "outer.epochs": 5}))
    # Adam's eps is 1e-8 of the gradient, 1.
    assert np.array(rates) / small.RECIPE.outer.optimizer.lr == pytest.approx(
        [0.1 + 0.9 * (1 + np.cos(np.pi * share)) / 2 for share in (0, 0.25, 0.5, 0.75, 1)], rel=1e-7
    )


def test_schedule_in_steps() -> None:
    """Rawal et al. 2020: 0.05, 0.02, 0.008 over 20, 30 and 30 of 80 epochs; here 2, 3 and 3 of 8, each with a new optimiser."""
    recipe = small.RECIPE.replace({"outer.schedule": "steps", "outer.epochs": 8, "outer.optimizer.lr": 0.05})
    rates, steps = moves(recipe)
    assert rates == pytest.approx([0.05] * 2 + [0.02] * 3 + [0.008] * 3, rel=1e-7)
    assert steps == [1, 2, 1, 2, 3, 1, 2, 3]


def test_trust_ratio() -> None:
    """Near 1 for a step so short that the loss is straight; the loss after the step is the next epoch's where cells stay."""
    recipe = small.LEARNING.replace(
        {
            "outer.learn": ["valid_images", "valid_labels"],
            "outer.trust_every": 1,
            "outer.validation_cells": 0,
            "outer.keep": "last",
            "dtype": "float64",
        }
    )
    cells, accuracy = small.pool()
    # relative curvature of the loss along the step times its length 1e-7
    short = fit_dish(cells[:4], accuracy[:4], recipe.replace({"outer.optimizer.lr": 1e-7, "outer.epochs": 3}))
    assert [step.trust for step in short.history] == pytest.approx([1.0] * 3, abs=1e-3)
    long = fit_dish(cells[:4], accuracy[:4], recipe.replace({"outer.optimizer.lr": 0.5, "outer.epochs": 2}))
    first, second = long.history
    assert abs(first.trust - 1) > 1e-2
    predicted = (second.loss - first.loss) / first.trust
    assert predicted < 0
    assert [step.trust is None for step in fit(recipe=small.LEARNING).history] == [False, True] * 3


@pytest.mark.parametrize(
    "loss",
    [
        lambda metric, target: metric.sum() * (1 if torch.is_grad_enabled() else torch.inf),
        lambda metric, target: metric.sum() * 0,
    ],
    ids=["no loss after the step", "no change was predicted"],
)
def test_a_step_without_a_trust_ratio(loss: Any) -> None:
    step = fit(recipe=small.RECIPE.replace({"outer.epochs": 1, "outer.trust_every": 1}), loss=loss).history[0]
    assert step.gradient_norm is not None
    assert step.trust is None


def test_validation_cells_that_diverge_rank_last() -> None:
    recipe = STEEP.replace({"outer.epochs": 1, "outer.validation_cells": 4, "outer.ranking": "metric"})
    _, kept = split_pool(8, recipe.outer, recipe.seed)
    cells, accuracy = perceptrons(8, 0), small.pool()[1][:8]
    cells[kept[0]] = perceptrons(1, 1)[0]
    found = fit_dish(cells, accuracy, recipe)
    scores = score_cells(found.start, recipe, [cells[i] for i in kept])
    assert np.isnan(scores).tolist() == [True, False, False, False]
    last = [scores[1:].min() - 1, *scores[1:]]
    assert found.history[0].validation_tau_start == kendall_tau(last, accuracy[kept])


@pytest.mark.parametrize(
    "name", ["mse", "mse_whitened", "soft_spearman", "soft_kendall", "pairwise_logistic", "listmle"]
)
def test_every_loss_is_followed(name: str) -> None:
    """Four cells, always the same: the loss falls."""
    recipe = small.LEARNING.replace(
        {
            "outer.learn": ["valid_images", "valid_labels"],
            "outer.loss": name,
            "outer.validation_cells": 0,
            "outer.keep": "last",
            "outer.epochs": 15,
        }
    )
    cells, accuracy = small.pool()
    history = fit_dish(cells[:4], accuracy[:4], recipe).history
    assert history[-1].loss < history[0].loss


def test_begun_with_another_start(tmp_path: Path) -> None:
    """The file of a warm start was exchanged between beginning and resuming."""
    path = tmp_path / "dish.npz"
    start_dish(small.RECIPE).save(path)
    recipe = small.RECIPE.replace({"dish.start": "dish", "dish.source": str(path)})
    with pytest.raises(StopError):
        fit(recipe=recipe, run=tmp_path / "run", progress=stop_in(2), checkpoint_seconds=0)
    start_dish(small.RECIPE.replace({"seed": 1})).save(path)
    with (
        runs.resume(tmp_path / "run") as opened,
        pytest.raises(
            ValueError, match=r"begun with other settings \(start is .*: use those to continue it, or start another run"
        ),
    ):
        fit(recipe=recipe, run=opened)


def test_record_of_another_version(whole: FitResult) -> None:
    record = whole.history[0].to_json()
    del record["loss"]
    with pytest.raises(ValueError, match=r"a line of metrics lacks or adds fields \(loss\), expected those"):
        OuterEpoch.from_json(record)
