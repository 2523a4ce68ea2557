"""The autograd bridge: its gradients against central differences, what it passes through, what it refuses."""

from typing import Any

import numpy as np
import pytest
import torch

from spd_fast.dish import Dish
from spd_fast.engine.gradients import motif_gradient, pack_motifs
from spd_fast.engine.hypergradient import motif_hypergradient
from spd_fast.engine.inner_loop import InnerLoop
from spd_fast.engine.optimizers import SGD, Adam
from spd_fast.engine.training import TrainResult, train_motifs
from spd_fast.motif import MotifShape
from spd_fast.outer.losses import pearson
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.cell_files import random_cells
from spd_fast.torch import Asked, Inputs, measure_training, motif_metrics, packed_metrics

SHAPE = MotifShape(6, 1, 1, classes=3, image_channels=2)
INNER: dict[str, Any] = {"epochs": 2, "batch_size": 4, "optimizer": Adam(lr=2e-3)}
TRAINING: dict[str, Any] = {**INNER, "gradient": "direct"}


def cells() -> list[Cell]:
    return random_cells(3, 1)


def some_images(n: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    images = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 2, 5, 6))).to(dtype)
    return images.requires_grad_()


LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def trained(
    inputs: Inputs, cells: list[Cell], metric: Any = "probability", gradient: Any = "direct", **training: Any
) -> tuple[torch.Tensor, TrainResult]:
    """Return the metrics of trained motifs, and what their training gave."""
    return measure_training(InnerLoop.of(**INNER, **training), inputs, Asked(metric, gradient), cells, SHAPE)


def directional(function: Any, at: torch.Tensor, direction: torch.Tensor, step: float = 1e-5) -> float:
    with torch.no_grad():
        ends = [float(function(at + sign * step * direction)) for sign in (1, -1)]
    return (ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize("metric", ["probability", "loss"])
def test_direct_gradient_through_a_loss(metric: Any) -> None:
    """d loss(metrics(images)) with the trained weights held fixed, by central differences in double."""
    images, target = some_images(8, 0), torch.tensor([0.9, 0.85, 0.93])
    metrics, result = trained(Inputs(images, LABELS), cells(), metric)
    pearson(metrics, target).backward()

    def loss_at(x: torch.Tensor) -> torch.Tensor:
        values, _ = motif_gradient(
            cells(), SHAPE, x.numpy(), LABELS.numpy(), result.parameters, metric=metric, dtype="float64"
        )
        return pearson(torch.from_numpy(values), target)

    direction = torch.from_numpy(np.random.default_rng(1).normal(size=images.shape))
    expected = directional(loss_at, images.detach(), direction)
    # truncation about step^2 = 1e-10 of the third derivative, rounding about 1e-16 / step = 1e-11
    assert float((images.grad * direction).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_those_of_train_motifs(dtype: torch.dtype) -> None:
    images = some_images(8, 0, dtype)
    metrics = motif_metrics(images, LABELS, cells(), shape=SHAPE, **INNER)
    assert metrics.dtype == dtype
    assert metrics.requires_grad
    name = str(dtype).removeprefix("torch.")
    dish = Dish(images.detach().numpy(), LABELS.numpy())
    result = train_motifs(cells(), SHAPE, dish, dtype=name, **INNER)
    assert np.array_equal(metrics.detach().numpy(), result.train.probability.astype(name))
    metrics.sum().backward()
    assert images.grad.dtype == dtype


def test_metric_on_a_validation_set() -> None:
    """The metric is read on the validation images, and the direct gradient reaches them alone."""
    images, valid = some_images(8, 0), some_images(5, 1)
    valid_labels = torch.tensor([0, 1, 2, 1, 0])
    metrics, result = trained(Inputs(images, LABELS, valid, valid_labels), cells())
    assert np.array_equal(metrics.detach().numpy(), result.valid.probability)
    metrics[1].backward()
    assert images.grad is None
    _, expected = motif_gradient(
        cells(), SHAPE, valid.detach().numpy(), valid_labels.numpy(), result.parameters, dtype="float64"
    )
    assert np.array_equal(valid.grad.numpy(), expected[1])


def test_gradient_of_soft_labels() -> None:
    """d loss / d labels of the set that the metric is read on, by central differences."""
    rng = np.random.default_rng(2)
    images, valid = some_images(8, 0), some_images(5, 1)
    soft = torch.from_numpy(rng.dirichlet(np.ones(3), 5)).requires_grad_()
    metrics, result = trained(Inputs(images, LABELS, valid, soft), cells(), "loss")
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (metrics * weights).sum().backward()

    def loss_at(labels: torch.Tensor) -> float:
        values, _ = motif_gradient(
            cells(), SHAPE, valid.detach().numpy(), labels.numpy(), result.parameters, metric="loss", dtype="float64"
        )
        return float((torch.from_numpy(values) * weights).sum())

    direction = torch.from_numpy(rng.normal(size=soft.shape))
    expected = directional(loss_at, soft.detach(), direction)  # the loss is linear in the labels
    assert float((soft.grad * direction).sum()) == pytest.approx(expected, rel=1e-9)


def test_probability_does_not_depend_on_soft_labels() -> None:
    soft = torch.eye(3, dtype=torch.float64)[LABELS].requires_grad_()
    motif_metrics(some_images(8, 0), soft, cells(), shape=SHAPE, **TRAINING).sum().backward()
    assert torch.equal(soft.grad, torch.zeros_like(soft))


def test_motif_left_out_leaves_no_nan() -> None:
    """A diverged motif has metric NaN; where the loss leaves it out the gradient is finite."""
    images = some_images(8, 0, torch.float32)
    normal, broken = cells()[:2]
    start = train_motifs([normal, broken], SHAPE, _dish(images), epochs=0).initial
    start[1] = {name: np.full_like(array, np.nan) for name, array in start[1].items()}
    metrics, result = trained(Inputs(images, LABELS, init=start), [normal, broken])
    assert result.diverged.tolist() == [False, True]
    assert torch.isnan(metrics[1])
    metrics[:1].sum().backward()
    assert torch.isfinite(images.grad).all()
    assert images.grad.abs().sum() > 0


def _dish(images: torch.Tensor) -> Any:
    return Dish(images.detach().numpy(), LABELS.numpy())


@pytest.mark.parametrize("direct_convolutions", [False, True])
def test_direct_convolutions_reach_the_gradient(direct_convolutions: bool) -> None:
    """Bit by bit the gradient of motifs that are read in the same way, which is not that of the other way."""
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 2, 8, 8)).astype(np.float32)).requires_grad_()
    metrics, result = trained(Inputs(images, LABELS), cells(), direct_convolutions=direct_convolutions)
    metrics.sum().backward()
    same, other = (
        motif_gradient(
            cells(),
            SHAPE,
            images.detach().numpy(),
            LABELS.numpy(),
            result.parameters,
            factors=np.ones(3),
            direct_convolutions=how,
        )[1]
        for how in (direct_convolutions, not direct_convolutions)
    )
    assert np.array_equal(images.grad, same)
    assert not np.array_equal(images.grad, other)


def test_weight_that_is_not_finite() -> None:
    images = some_images(8, 0)
    (motif_metrics(images, LABELS, cells(), shape=SHAPE, **TRAINING) * torch.inf).sum().backward()
    assert torch.isnan(images.grad).all()


def test_zero_weight_everywhere() -> None:
    images = some_images(8, 0)
    (motif_metrics(images, LABELS, cells(), shape=SHAPE, **TRAINING) * 0).sum().backward()
    assert torch.equal(images.grad, torch.zeros_like(images))


def test_other_optimizers_and_threads_pass_through() -> None:
    images = some_images(8, 0)
    seen: list[float] = []
    adam = motif_metrics(images, LABELS, cells(), shape=SHAPE, **TRAINING)
    arguments: dict[str, Any] = {**TRAINING, "optimizer": SGD(lr=0.1, momentum=0.9), "progress": seen.append}
    one = motif_metrics(images, LABELS, cells(), shape=SHAPE, threads=1, **arguments)
    two = motif_metrics(images, LABELS, cells(), shape=SHAPE, threads=2, **arguments)
    assert torch.equal(one, two)
    assert (one != adam).all()
    assert seen[-1] == 1


def test_unrolled_gradient_reaches_everything_that_training_saw() -> None:
    """Through Adam, batch norm and the outer loss to images, soft labels, validation set, rates and initial weights."""
    rng = np.random.default_rng(5)
    given: dict[str, torch.Tensor] = {
        "images": some_images(8, 0),
        "labels": torch.from_numpy(rng.dirichlet(np.ones(3), 8)).requires_grad_(),
        "valid_images": some_images(5, 1),
        "valid_labels": torch.from_numpy(rng.dirichlet(np.ones(3), 5)).requires_grad_(),
        "rates": torch.full((4,), 2e-3, dtype=torch.float64, requires_grad=True),
    }
    start = trained(Inputs(given["images"], given["labels"]), cells())[1].initial
    init = [{name: torch.tensor(w, requires_grad=True) for name, w in motif.items()} for motif in start]
    target, arguments = torch.tensor([0.9, 0.85, 0.93]), {**TRAINING, "gradient": "unrolled", "metric": "loss"}

    def outer(values: dict[str, torch.Tensor], weights: Any) -> torch.Tensor:
        values = dict(values)
        images, labels = values.pop("images"), values.pop("labels")
        return pearson(motif_metrics(images, labels, cells(), shape=SHAPE, init=weights, **values, **arguments), target)

    outer(given, init).backward()
    for name, tensor in given.items():
        assert tensor.grad is not None
        direction = tensor.grad.sign()
        slope = float(tensor.grad.abs().sum())
        errors = []
        for step in (1e-7, 1e-8, 1e-9):

            def at(x: torch.Tensor, name: str = name) -> torch.Tensor:
                return outer({key: v.detach() for key, v in given.items()} | {name: x}, init)

            errors.append(abs(directional(at, tensor.detach(), direction, step) / slope - 1))
        assert min(errors) < 1e-5, (name, errors)
    weight = init[1]["stem.conv.weight"]
    assert weight.grad is not None
    moved = [dict(motif) for motif in init]

    def at_weight(x: torch.Tensor) -> torch.Tensor:
        moved[1]["stem.conv.weight"] = x
        return outer({key: v.detach() for key, v in given.items()}, moved)

    slopes = [directional(at_weight, weight.detach(), weight.grad.sign(), step) for step in (1e-7, 1e-8, 1e-9)]
    assert min(abs(slope / float(weight.grad.abs().sum()) - 1) for slope in slopes) < 1e-5


def test_unrolled_gradient_reaches_scales_and_weights_of_steps() -> None:
    """Through a weighted sum of step losses, by central differences along sign(gradient)."""
    images = some_images(8, 0).detach()
    given = {
        "initial_scales": torch.tensor([1.0, 0.8, 1.2, 2.0], dtype=torch.float64, requires_grad=True),
        "step_weights": torch.tensor([0.1, 0.5, -0.3, 1.0], dtype=torch.float64, requires_grad=True),
        "rates": torch.full((4,), 2e-3, dtype=torch.float64, requires_grad=True),
    }

    def outer(values: dict[str, torch.Tensor]) -> torch.Tensor:
        z = motif_metrics(images, LABELS, cells(), shape=SHAPE, metric="training_loss", **INNER, **values)
        return pearson(z, torch.tensor([0.9, 0.85, 0.93]))

    outer(given).backward()
    for name, tensor in given.items():
        assert tensor.grad is not None
        assert (tensor.grad != 0).sum() >= 3  # the last rate changes no loss

        def at(x: torch.Tensor, name: str = name) -> torch.Tensor:
            return outer({key: v.detach() for key, v in given.items()} | {name: x})

        slopes = [directional(at, tensor.detach(), tensor.grad.sign(), step) for step in (1e-6, 1e-7, 1e-8)]
        assert min(abs(slope / float(tensor.grad.abs().sum()) - 1) for slope in slopes) < 1e-6, name


def test_unrolled_is_the_default_and_a_window_of_nothing_is_direct() -> None:
    gradients = []
    for how in ({}, {"gradient": "unrolled"}, {"window": 0}, {"gradient": "direct"}):
        images, valid = some_images(8, 0), some_images(4, 1)
        arguments = {**INNER, **how}
        motif_metrics(
            images, LABELS, cells(), shape=SHAPE, valid_images=valid, valid_labels=LABELS[:4], **arguments
        ).sum().backward()
        gradients.append((images.grad, valid.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert gradients[0][0].any()
    assert not gradients[2][0].any()
    assert gradients[3][0] is None
    assert all(torch.equal(gradients[0][1], valid) for _, valid in gradients)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"gradient": "implicit"}, ValueError, "gradient is 'implicit', expected 'unrolled' or 'direct'"),
        ({"metric": "accuracy"}, ValueError, "metric is 'accuracy', expected"),
        ({"metric": "training_loss"}, ValueError, 'metric is "training_loss", which has no direct gradient'),
        ({"step_weights": torch.ones(4)}, ValueError, 'step_weights are given with metric "probability"'),
        (
            {"metric": "training_loss", "gradient": "unrolled", "step_weights": torch.ones(3)},
            ValueError,
            r"step_weights have shape \(3,\), expected \(4,\)",
        ),
        ({"initial_scales": torch.ones(3)}, ValueError, "initial_scales are .*, expected 4 finite numbers above 0"),
        (
            {"initial_scales": torch.ones(4, requires_grad=True), "gradient": "unrolled", "window": 2},
            ValueError,
            "initial_scales are differentiated with window 2, expected drawn weights",
        ),
        (
            {"initial_scales": torch.ones(4, requires_grad=True), "gradient": "unrolled", "init": [{}]},
            ValueError,
            "initial_scales are differentiated with explicit weights as init",
        ),
        ({"window": 5}, ValueError, "window is 5, expected None: it belongs to gradient"),
        ({"rates": torch.ones(4), "schedule": "cosine"}, ValueError, "rates and schedule are both given"),
        ({"rates": torch.ones(3)}, ValueError, r"schedule has shape \(3,\), expected \(4,\)"),
        ({"dtype": "float64"}, TypeError, "dtype cannot be set here: it follows images"),
        ({"statistics": "running"}, TypeError, "statistics cannot be set here"),
        ({"evaluate": False}, TypeError, "evaluate cannot be set here"),
        ({"images": np.zeros((8, 2, 5, 6))}, TypeError, "images is a ndarray, expected a torch.Tensor"),
        ({"images": torch.zeros(8, 2, 5, 6, dtype=torch.float16)}, TypeError, "images is torch.float16 on cpu"),
        ({"labels": [0] * 8}, TypeError, "labels is a list, expected a torch.Tensor"),
        ({"labels": torch.zeros(7, dtype=torch.int64)}, ValueError, r"labels has shape \(7,\)"),
        ({"valid_images": torch.zeros(2, 2, 5, 6, dtype=torch.float64)}, ValueError, "valid_labels is missing"),
        (
            {"valid_images": torch.zeros(2, 2, 5, 6), "valid_labels": torch.tensor([0, 1])},
            TypeError,
            "valid_images has dtype torch.float32, expected torch.float64 to match images",
        ),
        ({"epochs": -1}, ValueError, "epochs is -1"),
    ],
)
def test_refused(changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments = {"images": some_images(8, 0), "labels": LABELS, "cells": cells(), "shape": SHAPE, **TRAINING, **changes}
    with pytest.raises(kind, match=message):
        motif_metrics(arguments.pop("images"), arguments.pop("labels"), arguments.pop("cells"), **arguments)


@pytest.mark.parametrize(("window", "given"), [(None, None), (2, None), (None, [0.0, 0.5, -1.0, 2.0])])
def test_training_loss(window: int | None, given: list[float] | None) -> None:
    """The weighted losses of the steps, and their derivative, from `train_motifs` and `motif_hypergradient` directly."""
    images = some_images(8, 0)
    dish = Dish(images.detach().numpy(), LABELS.numpy())
    z = motif_metrics(
        images,
        LABELS,
        cells(),
        shape=SHAPE,
        metric="training_loss",
        step_weights=None if given is None else torch.tensor(given),
        window=window,
        **INNER,
    )
    (z * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
    result = train_motifs(cells(), SHAPE, dish, record=["step_loss"], dtype="float64", **INNER)
    weights = np.full(4, 1 / 4) if given is None else given
    assert np.allclose(z.detach(), (result.recorded["step_loss"] * weights).sum(axis=1), rtol=1e-14)
    found = motif_hypergradient(
        cells(), SHAPE, dish, metric_weight=0, step_weights=weights, window=window, dtype="float64", **INNER
    )
    # double: sums of three terms in one order or another
    assert np.allclose(images.grad, np.tensordot([1.0, -2.0, 0.5], found.d_images, 1), rtol=1e-12, atol=1e-15)


def test_reading_trained_motifs() -> None:
    """Metric and gradients as `motif_metrics` has them with the direct gradient, for soft labels too."""
    images, labels = some_images(8, 0), torch.eye(3, dtype=torch.float64)[LABELS] + 0.1
    labels.requires_grad_()
    weights = torch.tensor([1.0, -2.0, 0.5])
    expected = motif_metrics(images, labels, cells(), shape=SHAPE, metric="loss", **TRAINING)
    (expected * weights).sum().backward()
    d_images, d_labels = images.grad, labels.grad
    images.grad = labels.grad = None
    dish = Dish(images.detach().numpy(), labels.detach().numpy())
    result = train_motifs(cells(), SHAPE, dish, dtype="float64", **INNER)
    motifs = pack_motifs(cells(), SHAPE, result.parameters, tuple(images.shape[1:]), dtype="float64")
    z, reading = packed_metrics(motifs, images, labels, metric="loss")
    assert torch.equal(z, expected)
    assert np.array_equal(reading.accuracy, result.train.accuracy)
    (z * weights).sum().backward()
    assert torch.equal(images.grad, d_images)
    assert torch.equal(labels.grad, d_labels)
    with torch.no_grad():
        quiet, without = packed_metrics(motifs, images, labels, metric="loss")
    assert torch.equal(quiet, z)
    assert (len(reading.d_images), len(without.d_images)) == (3, 0), "without autograd no gradient is computed"
    one, _ = packed_metrics(motifs.take([2]), images, labels, metric="loss")
    assert torch.equal(one, expected[2:])
    with pytest.raises(
        TypeError, match=r"images has dtype torch\.float32, expected torch\.float64, that of the motifs"
    ):
        packed_metrics(motifs, images.float(), labels)


def test_arrays_that_are_changed_before_the_backward_change_nothing() -> None:
    how = {"shape": SHAPE, "epochs": 2, "batch_size": 4}
    gradients = []
    for changed in (False, True):
        images = some_images(8, 0)
        arrays = {"order": np.array([np.arange(8), np.arange(8)]), "schedule": np.full(4, 0.01)}
        z = motif_metrics(images, LABELS, cells(), **how, **arrays)
        if changed:
            arrays["order"][:] = arrays["order"][:, ::-1].copy()
            arrays["schedule"][:] = 0.5
        z.sum().backward()
        gradients.append(images.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("changed", ["images", "valid_images", "rates"])
def test_no_gradient_of_what_was_changed_since(changed: str) -> None:
    """The gradient of a training is taken on what was trained on, as autograd does it everywhere."""
    tensors = {
        "images": some_images(8, 0),
        "valid_images": some_images(8, 1),
        "rates": torch.full((4,), 0.01, dtype=torch.float64),
    }
    how = {"valid_labels": LABELS, "shape": SHAPE, "epochs": 2, "batch_size": 4}
    z = motif_metrics(tensors["images"], LABELS, cells(), **how, **{n: tensors[n] for n in ("valid_images", "rates")})
    with torch.no_grad():
        tensors[changed] += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()
