"""Multilayer perceptrons on the engine: kernels, trainings and hypergradients against references, PyTorch and central differences."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import spd_fast as spd
from spd_fast import _core
from spd_fast.engine.gradients import parameter_gradient
from spd_fast.engine.hypergradient import motif_hypergradient
from spd_fast.engine.initial import initial_parameters
from spd_fast.engine.probes import step_profile
from spd_fast.spaces.perceptron import PerceptronColumns

KERNELS = _core.kernels
SLOPES = [spd.Perceptron(slope) for slope in (0.3, 1.0, 2.01)]
SHAPES = [spd.PerceptronShape(5, layers=2, classes=4, loss=loss) for loss in ("softmax", "binary")]
OPTIMIZERS = [spd.Adam(1e-2, weight_decay=1e-3), spd.SGD(0.2, momentum=0.9, weight_decay=1e-3)]


def rounding(dtype, n_terms):
    """Error of a sum of n products in any order, against another order: eps * sqrt(n), a factor of 8 for the worst of many."""
    return 8 * np.finfo(dtype).eps * np.sqrt(n_terms)


def fields(record):
    """The values of a record of the extension."""
    return [getattr(record, name) for name in record.__match_args__]


def assert_close(got, expected, bound):
    assert np.abs(got - expected).max() <= bound * max(np.abs(expected).max(), 1e-30)


def make_dish(n=18, n_valid=7, classes=4, features=(2, 5), seed=0, valid=True, dtype=np.float64):
    rng = np.random.default_rng(seed)

    def some(count):
        return rng.standard_normal((count, 1, *features)).astype(dtype), rng.uniform(0.1, 0.9, (count, classes))

    return spd.Dish(*some(n), *(some(n_valid) if valid else (None, None)))


def logits_of(weights, images, slope):
    x = images.flatten(1)
    for layer in range(1, sum(name.endswith(".bias") for name in weights)):
        x = torch.sigmoid(slope * F.linear(x, weights[f"hidden{layer}.weight"], weights[f"hidden{layer}.bias"]))
    return F.linear(x, weights["dense.weight"], weights["dense.bias"])


def cross_entropy(logits, labels, loss):
    if loss == "binary":
        return F.binary_cross_entropy_with_logits(logits, labels)
    return -(labels * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


# ---- what is trained

shapes = st.builds(
    spd.PerceptronShape,
    st.integers(1, 65_536),
    layers=st.integers(1, 64),
    classes=st.integers(1, 1000),
    image_channels=st.integers(1, 4),
    loss=st.sampled_from(["softmax", "binary"]),
)
slopes = st.floats(allow_nan=False, allow_infinity=False)


@given(shapes, shapes, st.sampled_from([int, np.int64, np.uint32]))
def test_a_shape_is_its_numbers(shape, other, kind):
    """Initial weights with init "motif" are keyed by the key of a shape: it must be that of any equal one, and of no other."""
    fields = dataclasses.asdict(shape)
    again = spd.PerceptronShape(**{name: kind(value) if name != "loss" else value for name, value in fields.items()})
    named = eval(repr(shape), {"PerceptronShape": spd.PerceptronShape})
    for same in (again, pickle.loads(pickle.dumps(shape)), dataclasses.replace(other, **fields), named):
        assert same == shape
        assert hash(same) == hash(shape)
        assert (repr(same), same.key) == (repr(shape), shape.key)
    assert (repr(shape) == repr(other)) == (shape.key == other.key) == (shape == other)


@given(slopes, slopes)
def test_a_perceptron_is_its_slope(slope, other):
    one = spd.Perceptron(slope)
    same = spd.Perceptron(np.float64(slope))
    assert (same, same.key, same.module_hash, repr(same)) == (one, one.key, one.module_hash, repr(one))
    assert float(one.key.removeprefix("sigmoid ")) == slope
    assert (spd.Perceptron(other).key == one.key) == (other == slope)
    assert list(PerceptronColumns.from_cells([one, spd.Perceptron(other)])) == [one, spd.Perceptron(other)]
    assert spd.Perceptron(0.0).key == spd.Perceptron(-0.0).key


# ---- kernels


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("units", [1, 6, 7, 100])
@pytest.mark.parametrize("features", [1, 10, 33])
@pytest.mark.parametrize("n", [1, 7, 8, 16, 37])
def test_dense_equals_the_reference(n, features, units, dtype):
    rng = np.random.default_rng(n)
    shapes = [(n, features), (units, features), (units,), (n, units)]
    inputs = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    got = fields(KERNELS.dense(*inputs, slope=0.7))
    expected = fields(KERNELS.dense(*(a.astype(np.float64) for a in inputs), slope=0.7, ref=True))
    for got_part, expected_part in zip(got, expected, strict=True):
        scale = np.sqrt(features) + 1  # z's rounding is a relative error of its sigmoid
        assert_close(got_part, expected_part, scale * rounding(dtype, n + features + units))


def test_dense_reference_is_pytorchs():
    rng = np.random.default_rng(1)
    x, weight, bias = (torch.tensor(rng.standard_normal(s), requires_grad=True) for s in [(5, 6), (3, 6), (3,)])
    da = torch.tensor(rng.standard_normal((5, 3)))
    a = torch.sigmoid(1.7 * F.linear(x, weight, bias))
    a.backward(da)
    got = fields(KERNELS.dense(*(t.detach().numpy() for t in (x, weight, bias, da)), slope=1.7, ref=True))
    for part, expected in zip(got, (a.detach(), x.grad, weight.grad, bias.grad), strict=True):
        assert_close(part, expected.numpy(), 1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("side", [1, 5])
@pytest.mark.parametrize("bits", [7, 130])
def test_binary_head_equals_the_reference_and_pytorchs(bits, side, dtype):
    rng = np.random.default_rng(side)
    inputs = [rng.standard_normal(shape).astype(dtype) for shape in [(5, 3, side, side), (bits, 3), (bits,)]]
    label = rng.uniform(size=(5, bits)).astype(dtype)
    got = fields(KERNELS.head(*inputs, label, loss="binary"))
    double = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in (*inputs, label)]
    logit = F.linear(double[0].mean(dim=(2, 3)), *double[1:3])
    loss = F.binary_cross_entropy_with_logits(logit, double[3])
    loss.backward()
    by_pytorch = [loss.detach(), logit.detach(), *(t.grad for t in double[:3])]
    reference = fields(KERNELS.head(*(t.detach().numpy() for t in double), loss="binary", ref=True))
    for got_part, reference_part, expected in zip(got, reference, by_pytorch, strict=True):
        assert_close(np.asarray(reference_part), expected.numpy(), 1e-14)
        assert_close(np.asarray(got_part), expected.numpy(), 4 * rounding(dtype, side**2 + 3))


def test_large_logits_have_a_finite_loss():
    x, weight, bias = np.full((1, 1, 1, 1), 500.0), np.array([[1.0], [-1.0]]), np.zeros(2)
    found = KERNELS.head(x, weight, bias, np.array([[1.0, 1.0]]), loss="binary")
    assert found.loss == pytest.approx(250)
    assert found.dx.ravel() == pytest.approx(0.5)


# ---- trainings


def trained_by_pytorch(weights, slope, dish, optimizer, order, batch, loss):
    """Losses of every step and weights at the end, in double."""
    names = list(weights)
    w = {name: torch.tensor(weights[name], dtype=torch.float64, requires_grad=True) for name in names}
    settings = {"lr": optimizer.lr, "weight_decay": optimizer.weight_decay}
    step = (
        torch.optim.Adam(w.values(), **settings)
        if isinstance(optimizer, spd.Adam)
        else torch.optim.SGD(w.values(), momentum=optimizer.momentum, **settings)
    )
    images, labels = torch.tensor(dish.images), torch.tensor(dish.labels)
    losses = []
    for row in order:
        for i in range(0, len(row), batch):
            step.zero_grad()
            value = cross_entropy(logits_of(w, images[row[i : i + batch]], slope), labels[row[i : i + batch]], loss)
            value.backward()
            step.step()
            losses.append(value.item())
    return losses, {name: value.detach().numpy() for name, value in w.items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.loss)
def test_training_is_pytorchs(shape, optimizer):
    """Thirty steps in double: errors of 1e-16 a step grow by a training of such rates to no more than 1e-11."""
    dish = make_dish()
    order = np.stack([np.random.default_rng(i).permutation(18) for i in range(10)])
    how = {
        "epochs": 10,
        "batch_size": 7,
        "optimizer": optimizer,
        "order": order,
        "init_distribution": "normal",
        "seed": 3,
    }
    got = spd.train_motifs(SLOPES, shape, dish, dtype="float64", record=["step_loss"], **how)
    for k, candidate in enumerate(SLOPES):
        losses, weights = trained_by_pytorch(got.initial[k], candidate.slope, dish, optimizer, order, 7, shape.loss)
        np.testing.assert_allclose(got.recorded["step_loss"][k], losses, rtol=1e-11)
        for name, value in weights.items():
            np.testing.assert_allclose(got.parameters[k][name], value, atol=1e-11)
        images, labels = torch.tensor(dish.valid_images), torch.tensor(dish.valid_labels)
        logits = logits_of({n: torch.tensor(v) for n, v in weights.items()}, images, candidate.slope)
        np.testing.assert_allclose(got.valid.logits[k], logits.numpy(), atol=1e-10)
        assert got.valid.loss[k] == pytest.approx(cross_entropy(logits, labels, shape.loss).item(), rel=1e-10)
        if shape.loss == "binary":
            bits = labels > 0.5
            probability = torch.where(bits, torch.sigmoid(logits), 1 - torch.sigmoid(logits)).mean()
            assert got.valid.probability[k] == pytest.approx(probability.item(), rel=1e-10)
            assert got.valid.accuracy[k] == pytest.approx(((logits > 0) == bits).double().mean().item())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.loss)
def test_float_is_as_close_as_its_rounding(shape):
    dish = make_dish()
    how = {"epochs": 4, "batch_size": 7, "optimizer": spd.Adam(1e-2), "record": ["step_loss"]}
    single, double = (
        spd.train_motifs(SLOPES, shape, dish, dtype=dtype, **how).recorded["step_loss"]
        for dtype in ("float32", "float64")
    )
    np.testing.assert_allclose(single, double, rtol=12 * 8 * np.finfo(np.float32).eps)  # 12 steps


@pytest.mark.parametrize("metric", ["loss", "probability"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.loss)
def test_direct_gradient_is_pytorchs(shape, metric):
    dish = make_dish()
    weights = initial_parameters(SLOPES[1], shape, image_shape=(1, 2, 5), init_distribution="normal", dtype="float64")
    values, d_images = spd.motif_gradient(
        SLOPES[1:2], shape, dish.images, dish.labels, [weights], metric=metric, dtype="float64"
    )
    images, labels = torch.tensor(dish.images, requires_grad=True), torch.tensor(dish.labels)
    logits = logits_of({n: torch.tensor(w) for n, w in weights.items()}, images, 1.0)
    if metric == "loss":
        expected = cross_entropy(logits, labels, shape.loss)
    elif shape.loss == "softmax":
        expected = torch.softmax(logits, dim=1)[torch.arange(18), labels.argmax(dim=1)].mean()
    else:
        expected = torch.where(labels > 0.5, torch.sigmoid(logits), 1 - torch.sigmoid(logits)).mean()
    expected.backward()
    assert values[0] == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(d_images[0], images.grad.numpy(), atol=1e-14)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_and_company_do_not_change_a_bit(threads):
    shape, dish = spd.PerceptronShape(40, layers=3, classes=4), make_dish(n=50)
    how = {"epochs": 3, "batch_size": 20, "optimizer": spd.Adam(1e-2)}
    one = spd.train_motifs(SLOPES, shape, dish, threads=1, **how)
    many = spd.train_motifs(SLOPES, shape, dish, threads=threads, **how)
    team = spd.train_motifs(SLOPES[1:2], shape, dish, threads=threads, **how)
    np.testing.assert_array_equal(one.valid.logits, many.valid.logits)
    np.testing.assert_array_equal(one.valid.logits[1], team.valid.logits[0])
    same = {"epochs": 2, "batch_size": 20, "optimizer": spd.Adam(1e-2)}
    alone, together = (motif_hypergradient(SLOPES, shape, dish, threads=n, **same) for n in (1, threads))
    np.testing.assert_array_equal(alone.d_images, together.d_images)
    np.testing.assert_array_equal(
        alone.d_images[1], motif_hypergradient(SLOPES[1:2], shape, dish, threads=threads, **same).d_images[0]
    )


def test_running_statistics_read_large_sets_in_pieces():
    shape, dish = SHAPES[0], make_dish(n=230)
    how = {"epochs": 1, "batch_size": 50, "optimizer": spd.Adam(1e-2), "dtype": "float64"}
    whole, pieces = (spd.train_motifs(SLOPES, shape, dish, statistics=s, **how) for s in ("batch", "running"))
    np.testing.assert_allclose(pieces.train.logits, whole.train.logits, rtol=1e-12)
    assert not any(whole.running)


def test_a_diverged_perceptron_is_a_result():
    result = spd.train_motifs(SLOPES, SHAPES[0], make_dish(), epochs=3, batch_size=9, optimizer=spd.SGD(1e308))
    assert result.diverged.all()


# ---- hypergradients


def unrolled(start, slope, dish, optimizer, order, batch, step_weights, metric_weight, loss):
    x, q, vx, vq = inputs = [
        torch.tensor(getattr(dish, name), requires_grad=True)
        for name in ("images", "labels", "valid_images", "valid_labels")
    ]
    first = {name: torch.tensor(value, requires_grad=True) for name, value in start.items()}
    w = dict(first)
    a = {name: torch.zeros_like(v) for name, v in w.items()}
    b = {name: torch.zeros_like(v) for name, v in w.items()}
    value = torch.zeros((), dtype=torch.float64)
    batches = [row[i : i + batch] for row in order for i in range(0, len(row), batch)]
    for t, rows in enumerate(batches[: len(step_weights)]):
        step_loss = cross_entropy(logits_of(w, x[rows], slope), q[rows], loss)
        value = value + step_weights[t] * step_loss
        gradients = torch.autograd.grad(step_loss, list(w.values()), create_graph=True)
        for name, g in zip(list(w), gradients, strict=True):
            g = g + optimizer.weight_decay * w[name]
            if isinstance(optimizer, spd.Adam):
                b1, b2 = optimizer.betas
                a[name], b[name] = b1 * a[name] + (1 - b1) * g, b2 * b[name] + (1 - b2) * g * g
                corrected = torch.sqrt(b[name] / (1 - b2 ** (t + 1))) + optimizer.eps
                update = optimizer.lr * a[name] / (1 - b1 ** (t + 1)) / corrected
            else:
                a[name] = optimizer.momentum * a[name] + g
                update = optimizer.lr * a[name]
            w[name] = w[name] - update
    value = value + metric_weight * cross_entropy(logits_of(w, vx, slope), vq, loss)
    return value.item(), [d.numpy() for d in torch.autograd.grad(value, [*inputs, *first.values()])]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.loss)
def test_hypergradient_agrees_with_create_graph(shape, optimizer):
    dish = make_dish()
    order = np.stack([np.random.default_rng(i).permutation(18) for i in range(4)])
    step_weights = np.linspace(-1, 1, 10)
    how = {"order": order, "batch_size": 7, "optimizer": optimizer, "init_distribution": "normal", "dtype": "float64"}
    got = motif_hypergradient(
        SLOPES, shape, dish, metric="loss", metric_weight=2.0, step_weights=step_weights, epochs=4, steps=10, **how
    )
    starts = spd.train_motifs(SLOPES, shape, dish, epochs=0, init_distribution="normal", dtype="float64").initial
    for k, candidate in enumerate(SLOPES):
        value, derivatives = unrolled(
            starts[k], candidate.slope, dish, optimizer, order, 7, step_weights, 2.0, shape.loss
        )
        assert got.value[k] == pytest.approx(value, rel=1e-11)
        names = ("d_images", "d_labels", "d_valid_images", "d_valid_labels")
        found = [*(getattr(got, name)[k] for name in names), *got.d_initial[k].values()]
        for ours, theirs in zip(found, derivatives, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-9 * np.abs(theirs).max())


@pytest.mark.parametrize("metric", ["loss", "probability"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.loss)
def test_hypergradient_agrees_with_central_differences(shape, metric):
    """Nothing switches in a perceptron: along any direction, through 40 steps of Adam."""
    dish = make_dish()
    how = {
        "metric": metric,
        "epochs": 20,
        "batch_size": 9,
        "optimizer": spd.Adam(1e-2),
        "init_distribution": "normal",
        "dtype": "float64",
    }
    exact = motif_hypergradient(SLOPES, shape, dish, **how)
    fields = ("images", "labels", "valid_images", "valid_labels")
    for name in ("images", "valid_images", "labels"):
        direction = np.random.default_rng(0).standard_normal(getattr(dish, name).shape)
        h = 1e-5
        ends = []
        for s in (1, -1):
            moved = {each: getattr(dish, each) for each in fields} | {name: getattr(dish, name) + s * h * direction}
            ends.append(motif_hypergradient(SLOPES, shape, spd.Dish(**moved), **how).value)
        slopes = (getattr(exact, f"d_{name}") * direction).reshape(len(SLOPES), -1).sum(axis=1)
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * h), slopes, rtol=1e-6)


def test_metrics_are_differentiable_in_pytorch():
    """The original's motif and inner loop, through the bridge: inputs of both sets."""
    rng = np.random.default_rng(0)
    shape = spd.PerceptronShape(1, layers=2, classes=10, loss="binary")
    labels = torch.tensor(np.round(rng.uniform(size=(10, 10))))
    images = torch.tensor(rng.standard_normal((10, 1, 1, 10)), requires_grad=True)
    valid = images.detach().clone().requires_grad_()
    training = {"epochs": 250, "batch_size": 10, "optimizer": spd.Adam(1e-2), "init_distribution": "normal"}
    z = spd.torch.motif_metrics(
        images, labels, SLOPES, shape=shape, valid_images=valid, valid_labels=labels, metric="loss", **training
    )
    assert z.std() > 0
    z.sum().backward()
    assert images.grad.abs().max() > 0
    assert valid.grad.abs().max() > 0


# ---- what is refused, what it is


def test_initial_weights_are_shared_between_slopes():
    weights = [
        initial_parameters(each, SHAPES[0], image_shape=(1, 2, 5), init_distribution="normal", dtype="float64")
        for each in SLOPES
    ]
    for name in weights[0]:
        np.testing.assert_array_equal(weights[0][name], weights[2][name])
    apart = initial_parameters(SLOPES[0], SHAPES[0], image_shape=(1, 2, 5), init="motif", init_distribution="normal")
    assert not np.array_equal(apart["dense.weight"], weights[0]["dense.weight"])
    many = initial_parameters(SLOPES[0], spd.PerceptronShape(100), image_shape=(1, 10, 10), init_distribution="normal")
    assert list(many) == [f"{layer}.{part}" for layer in ("hidden1", "hidden2", "dense") for part in ("weight", "bias")]
    drawn = many["hidden1.weight"]
    assert drawn.shape == (100, 100)
    assert drawn.mean() == pytest.approx(0, abs=4 / 100)  # four standard errors
    assert drawn.std() == pytest.approx(1, abs=4 / 100 / np.sqrt(2))
    assert np.abs(many["hidden2.bias"]).max() > 1


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, "slope is nan", lambda: spd.Perceptron(float("nan"))),
        (TypeError, "hidden is 1.5, expected an integer", lambda: spd.PerceptronShape(1.5)),
        (ValueError, "layers is 0, expected 1 to 64", lambda: spd.PerceptronShape(1, layers=0)),
        (ValueError, "loss is 'mse', expected 'softmax' or 'binary'", lambda: spd.PerceptronShape(1, loss="mse")),
        (
            TypeError,
            r"cells\[0\] is Perceptron, expected spd_fast.Cell or spd_fast.NatsCell for a MotifShape",
            lambda: spd.train_motifs(SLOPES, spd.MOTIF_C, spd.Dish.random(per_class=1)),
        ),
        (
            ValueError,
            "images has 3 channels, expected 1",
            lambda: spd.train_motifs(SLOPES, SHAPES[0], spd.Dish.random(per_class=1)),
        ),
        (TypeError, "cells is one Perceptron", lambda: spd.train_motifs(SLOPES[0], SHAPES[0], make_dish())),
        (TypeError, "shape is str", lambda: spd.train_motifs(SLOPES, "C", make_dish())),
        (ValueError, "image_shape is None", lambda: initial_parameters(SLOPES[0], SHAPES[0])),
        (
            ValueError,
            "init_distribution is 'zeros'",
            lambda: spd.train_motifs(SLOPES, SHAPES[0], make_dish(), init_distribution="zeros"),
        ),
        (ValueError, r"slope has shape \(1, 1\)", lambda: PerceptronColumns([[1.0]])),
        (
            ValueError,
            "row 0 of the table has a module_hash that is not its cell's",
            lambda: PerceptronColumns([1.0], np.zeros((1, 16), np.uint8)),
        ),
    ],
)
def test_bad_arguments(error, match, call):
    with pytest.raises(error, match=match):
        call()


def test_a_step_is_profiled_op_by_op():
    dish = make_dish(dtype=np.float32)
    weights_of_profile = step_profile(SLOPES[0], SHAPES[0], dish.images, dish.labels, repeats=1)
    assert [op["kind"] for op in weights_of_profile["ops"]] == ["dense", "dense", "head"]
    loss, d_parameters, _ = parameter_gradient(
        SLOPES[:1],
        SHAPES[0],
        dish.images,
        dish.labels,
        [initial_parameters(SLOPES[0], SHAPES[0], image_shape=(1, 2, 5))],
    )
    assert np.isfinite(loss).all()
    assert d_parameters[0]["hidden1.weight"].shape == (5, 10)


def test_keys_of_shapes_draw_the_weights_that_they_always_drew() -> None:
    """With ``init="motif"`` initial weights depend on this text: it must not follow the names of classes."""
    assert spd.PerceptronShape(1).key == "MLPShape(hidden=1, layers=2, classes=10, image_channels=1, loss='softmax')"
    assert spd.MOTIF_C.key == "MotifShape(stem_channels=16, stacks=1, cells_per_stack=1, classes=10, image_channels=3)"
