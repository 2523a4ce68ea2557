"""The outer loop: what it records, that it learns what it is told, that it repeats and resumes to the bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import small
from spd_fast import measure, outer, runs
from spd_fast.inner import derived_seed, start_dish, training_keywords
from spd_fast.losses import kendall_tau
from spd_fast.outer import FitResult, OuterStep, draw_cells, fit_dish
from spd_fast.train import train_motifs


def fit(**arguments: Any) -> FitResult:
    cells, accuracy = small.pool()
    return fit_dish(cells, accuracy, **({"recipe": small.RECIPE} | arguments))


def untimed(history: tuple[OuterStep, ...]) -> list[OuterStep]:
    return [replace(step, seconds=0.0) for step in history]


def assert_same(one: FitResult, other: FitResult) -> None:
    assert np.array_equal(one.dish.images, other.dish.images)
    assert untimed(one.history) == untimed(other.history)


@pytest.fixture(scope="module")
def whole() -> FitResult:
    """The small recipe, never interrupted, with one thread."""
    return fit(threads=1)


def test_first_step_by_hand(whole: FitResult) -> None:
    """Everything recorded of epoch 0 from `train_motifs` directly, and Adam's first step, lr * sign, in the images."""
    recipe = small.RECIPE
    cells, accuracy = small.pool()
    chosen = draw_cells(small.POOL, 0, recipe)
    start = start_dish(recipe)
    keywords = training_keywords(recipe.inner, derived_seed(recipe.seed, "inner", 0))
    result = train_motifs([cells[i] for i in chosen], recipe.shape, start, **keywords)
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
    assert [step.epoch for step in whole.history] == list(range(small.RECIPE.outer.epochs))
    for step in whole.history:
        assert OuterStep.from_json(step.to_json()) == step
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
    drawn = [draw_cells(10, epoch, recipe) for epoch in range(6)]
    first, second = np.concatenate(drawn[:3]).tolist(), np.concatenate(drawn[3:]).tolist()
    assert len(set(first)) == len(set(second)) == 9
    assert first != second


def test_redrawn_or_fixed_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    plain = measure.train_and_measure

    def spy(*args: Any, **kwargs: Any) -> Any:
        seeds.append(kwargs["seed"])
        return plain(*args, **kwargs)

    monkeypatch.setattr(measure, "train_and_measure", spy)
    fit(recipe=small.RECIPE.replace({"outer.epochs": 3}))
    assert len(set(seeds)) == 3
    seeds.clear()
    fit(recipe=small.RECIPE.replace({"outer.epochs": 3, "inner.redraw": False}))
    assert len(set(seeds)) == 1


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
        (lambda metric, truth: metric.sum() * torch.inf, "the outer loss is not finite"),
        (lambda metric, truth: (metric - metric.detach()).sqrt().sum(), "the gradient is not finite"),
    ],
)
def test_what_is_not_finite_is_not_followed(loss: Any, reason: str) -> None:
    result = fit(recipe=small.RECIPE.replace({"outer.epochs": 1}), loss=loss)
    assert result.history[0].skipped == reason
    assert result.history[0].gradient_norm is None
    assert np.array_equal(result.dish.images, result.start.images)


def test_motif_that_diverged_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One broken motif: counted, recorded as None, not in the loss; two of four: the step is skipped."""
    plain = measure.train_and_measure
    broken = 1

    def breaking(images: Any, labels: Any, cells: Any, **keywords: Any) -> Any:
        element = str(images.dtype).removeprefix("torch.")
        normal = {name: value for name, value in keywords.items() if name in ("shape", "seed", "init")}
        start = train_motifs(
            cells, normal.pop("shape"), start_dish(small.RECIPE), epochs=0, dtype=element, **normal
        ).initial
        for k in range(broken):
            start[k] = {name: np.full_like(array, np.nan) for name, array in start[k].items()}
        return plain(images, labels, cells, **{**keywords, "init": start})

    monkeypatch.setattr(measure, "train_and_measure", breaking)
    recipe = small.RECIPE.replace({"outer.epochs": 2})
    result = fit(recipe=recipe)
    step = result.history[0]
    assert step.diverged == (True, False, False, False)
    assert step.metric[0] is step.accuracy[0] is step.max_accuracy[0] is None
    assert step.pearson == pytest.approx(np.corrcoef(step.metric[1:], step.truth[1:])[0, 1], abs=1e-9)
    assert not step.perfect
    assert step.skipped == ""
    assert np.isfinite(result.dish.images).all()
    assert not np.array_equal(result.dish.images, result.start.images)

    broken = 2
    result = fit(recipe=recipe)
    assert [step.skipped for step in result.history] == ["2 of 4 motifs diverged"] * 2
    assert result.history[0].loss is None
    assert np.array_equal(result.dish.images, result.start.images)

    broken = 4
    step = fit(recipe=recipe).history[0]
    assert (step.kendall_tau, step.pearson, step.curve_accuracy, step.mean_max_accuracy) == (0, None, (), None)


class StopError(Exception):
    pass


def stop_in(epoch: int) -> Any:
    """Stop in the middle of an epoch's training."""

    def progress(at: int, fraction: float, step: OuterStep | None) -> None:
        if at == epoch and step is None:
            raise StopError

    return progress


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint after every step, however short."""
    monkeypatch.setattr(outer, "CHECKPOINT_SECONDS", 0.0)


@pytest.mark.parametrize("epoch", [0, 3])
@pytest.mark.usefixtures("every_step")
def test_resumed_run_is_the_same(epoch: int, whole: FitResult, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        fit(run=tmp_path / "run", progress=stop_in(epoch))
    assert len((tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines()) == epoch if epoch else True
    with runs.resume(tmp_path / "run") as opened:
        assert not opened.finished
        assert_same(fit(run=opened), whole)
        assert opened.finished
        assert untimed(tuple(map(OuterStep.from_json, opened.records()))) == untimed(whole.history)


@pytest.mark.usefixtures("every_step")
def test_death_between_metrics_and_checkpoint(
    whole: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line of an epoch is on the disk and its checkpoint is not: the epoch is done again."""
    save = runs.Run.save_checkpoint

    def dying(self: runs.Run, step: int, arrays: Any) -> None:
        if step == 3:
            raise StopError
        save(self, step, arrays)

    with monkeypatch.context() as patched:
        patched.setattr(runs.Run, "save_checkpoint", dying)
        with pytest.raises(StopError):
            fit(run=tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    assert len(metrics.read_bytes().splitlines()) == 3
    with metrics.open("ab") as file:
        file.write(b'{"epoch": 3, "lo')  # and the next one was cut short
    with runs.resume(tmp_path / "run") as opened:
        assert_same(fit(run=opened), whole)
    assert len(metrics.read_bytes().splitlines()) == small.RECIPE.outer.epochs


def test_resuming_a_finished_run_changes_nothing(whole: FitResult, tmp_path: Path) -> None:
    assert_same(fit(run=tmp_path / "run"), whole)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with runs.resume(tmp_path / "run") as opened:
        assert_same(fit(run=opened), whole)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.usefixtures("every_step")
def test_resuming_with_something_else(tmp_path: Path) -> None:
    cells, accuracy = small.pool()
    with pytest.raises(StopError):
        fit(run=tmp_path / "run", progress=stop_in(2))
    with runs.resume(tmp_path / "run") as opened:
        with pytest.raises(ValueError, match=r"the recipe differs from the one that .*run was begun with"):
            fit(run=opened, recipe=small.RECIPE.replace({"inner.epochs": 4}))
        with pytest.raises(ValueError, match="was begun with another truth"):
            fit_dish(cells, accuracy[::-1], opened.recipe, run=opened)
        with pytest.raises(ValueError, match="was begun with another truth"):
            fit_dish(cells[::-1], accuracy, opened.recipe, run=opened)
        with pytest.raises(ValueError, match="was begun with another loss"):
            fit(run=opened, loss=lambda metric, truth: metric.sum())


@pytest.mark.usefixtures("every_step")
def test_checkpoint_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(StopError):
        fit(run=tmp_path / "run", progress=stop_in(2))
    with runs.resume(tmp_path / "run") as opened:
        step, arrays, _ = opened.restore()
        opened.save_checkpoint(step, arrays | {"free.images": arrays["images"][:3]})
        with pytest.raises(runs.RunFolderError, match=r"images have shape \(3, 2, 5, 5\), expected \(12, 2, 5, 5\)"):
            fit(run=opened)
        opened.save_checkpoint(step, {"images": arrays["images"]})
        with pytest.raises(runs.RunFolderError, match="its checkpoint does not fit: 'identity'"):
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
        ValueError, match="3 cells were given, expected at least 4: the recipe compares and keeps out that many"
    ):
        fit_dish(small.pool()[0][:3], np.zeros(3), small.RECIPE)


def test_record_of_another_version(whole: FitResult) -> None:
    record = whole.history[0].to_json()
    del record["loss"]
    with pytest.raises(ValueError, match="a line of metrics does not fit this version: loss missing or unknown"):
        OuterStep.from_json(record)
