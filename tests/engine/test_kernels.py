"""Every kernel against its scalar reference in the same element type, and the reference against PyTorch in double."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spd_fast import _core

CHANNELS = [1, 3, 5, 8, 10, 11, 16, 21, 32, 64]
SIDES = [4, 5, 8, 12, 16, 32]
CONVOLUTIONS = [(1, "direct"), *((3, name) for name in _core.kernels.algorithms)]
KERNELS = _core.kernels


def arrays(seed, *shapes, dtype):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def rounding(dtype, n_terms):
    """Error of a sum of n products in any order, against another order: eps * sqrt(n), a factor of 8 for the worst of many."""
    return 8 * np.finfo(dtype).eps * np.sqrt(n_terms)


def fields(record):
    """The values of a record of the extension, without the seconds that it took."""
    return [getattr(record, name) for name in record.__match_args__ if name != "seconds"]


def assert_close(got, expected, bound):
    scale = np.abs(expected).max()
    assert np.abs(got - expected).max() <= bound * max(scale, 1e-30)


def torch_conv(x, k, dy):
    x, k = (torch.tensor(a.astype(np.float64), requires_grad=True) for a in (x, k))
    y = F.conv2d(x, k, padding=k.shape[-1] // 2)
    y.backward(torch.tensor(dy.astype(np.float64)))
    return y.detach().numpy(), x.grad.numpy(), k.grad.numpy()


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("n", [1, 3])
def test_conv_reference_is_pytorchs(size, n):
    x, k, dy = arrays(0, (n, 3, 5, 7), (4, 3, size, size), (n, 4, 5, 7), dtype=np.float64)
    for got, expected in zip(fields(KERNELS.conv_ref(x, k, dy)), torch_conv(x, k, dy), strict=True):
        assert_close(got, expected, 1e-14)


# What the transforms of an algorithm multiply rounding by, as they add and subtract more than the sum they stand for: of independent inputs
# of variance 1, the terms of the last output row have variance 94 where the three products of a column have 3; along rows the same again.
AMPLIFIED = {"direct": 1, "channels": 1, "winograd": (94 / 3) ** 0.5, "winograd2d": 94 / 3}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("size", "algorithm"), CONVOLUTIONS, ids=lambda v: str(v))
@pytest.mark.parametrize("side", [2, *SIDES])
@pytest.mark.parametrize("channels", CHANNELS)
def test_conv_equals_the_reference(channels, side, size, algorithm, dtype):
    n = 3 if side <= 8 else 1  # an odd number leaves a last block with images missing
    for c_in, c_out in [(channels, channels), (channels, 5)]:
        x, k, dy = arrays(
            channels, (n, c_in, side, side), (c_out, c_in, size, size), (n, c_out, side, side), dtype=dtype
        )
        y, dx, dk = fields(KERNELS.conv(x, k, dy, algorithm=algorithm))
        slow = c_in * side > 500  # for the reference's loops
        expected = torch_conv(x, k, dy) if slow else fields(KERNELS.conv_ref(x, k, dy))
        assert_close(y, expected[0], AMPLIFIED[algorithm] * rounding(dtype, c_in * size**2))
        assert_close(dx, expected[1], AMPLIFIED[algorithm] * rounding(dtype, c_out * size**2))
        assert_close(dk, expected[2], AMPLIFIED[algorithm] * rounding(dtype, n * side**2))
        always_fits = {"winograd": [4], "winograd2d": [4, 8] if dtype == np.float32 else []}.get(algorithm, [])
        if side in always_fits:  # other roundings than direct's: it was not direct that ran
            direct = fields(KERNELS.conv(x, k, dy))
            assert all((a != b).any() for a, b in zip((y, dx, dk), direct, strict=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape",
    [
        (20, 3, 1, 1),
        (1, 3, 2, 3),
        (3, 5, 7, 17),
        (3, 4, 8, 13),
        (9, 3, 12, 6),
        (27, 5, 16, 16),  # more tile rows than are transformed together, an odd number of them
        (23, 3, 12, 16),
        (2, 2, 28, 28),
        (3, 3, 52, 16),
        (1, 2, 64, 64),
        (5, 1, 33, 6),
        (23, 9, 2, 2),
        (300, 3, 2, 2),  # two slices
        (21, 1, 16, 16),  # few channels, several rounds
        (22, 2, 8, 16),
        (3, 3, 32, 64),
    ],
)
@pytest.mark.parametrize(("size", "algorithm"), CONVOLUTIONS)
def test_conv_of_odd_shapes(shape, size, algorithm, dtype):
    n, c_in, height, width = shape
    x, k, dy = arrays(1, shape, (7, c_in, size, size), (n, 7, height, width), dtype=dtype)
    found = fields(KERNELS.conv(x, k, dy, algorithm=algorithm))
    for got, expected in zip(found, torch_conv(x, k, dy), strict=True):
        assert_close(got, expected, AMPLIFIED[algorithm] * rounding(dtype, 9 * 7 + n * height * width))


@pytest.mark.parametrize("threads", [2, 3, 5, 16])
@pytest.mark.parametrize("n", [7, 8, 9, 20, 23])
@pytest.mark.parametrize(("size", "algorithm"), CONVOLUTIONS)
def test_a_team_does_not_change_a_bit_of_a_weight_gradient(size, algorithm, n, threads):
    """With one slice of the batch and with two, alike and not, and where one has fewer rounds than the other."""
    for c_in, side in ((3, 16), (7, 16), (7, 8), (4, 32), (7, 2)):
        x, k, dy = arrays(2, (n, c_in, side, side), (5, c_in, size, size), (n, 5, side, side), dtype=np.float32)
        alone, team = (KERNELS.conv(x, k, dy, algorithm=algorithm, threads=t).dk for t in (1, threads))
        np.testing.assert_array_equal(team, alone)


@pytest.mark.parametrize("side", [2, 4, 5, 16, 32, 64])
def test_an_algorithm_runs_where_it_fits(side):
    """Elsewhere direct convolution does, to the last bit."""
    x, k, dy = arrays(3, (2, 4, side, side), (5, 4, 3, 3), (2, 5, side, side), dtype=np.float32)
    fitting = KERNELS.algorithms_at(side, side)
    assert fitting[0] == "direct"
    assert {2: {"channels"}, 4: {"winograd", "winograd2d"}}.get(side, set()) <= set(fitting)
    direct = fields(KERNELS.conv(x, k, dy))
    for name in KERNELS.algorithms[1:]:
        found = fields(KERNELS.conv(x, k, dy, algorithm=name))
        for own, expected in zip(found, direct, strict=True):
            assert np.array_equal(own, expected) == (name not in fitting)


def test_an_unknown_algorithm_is_refused():
    x, k, dy = arrays(0, (1, 1, 4, 4), (1, 1, 3, 3), (1, 1, 4, 4), dtype=np.float32)
    with pytest.raises(
        ValueError, match="algorithm is 'fft', expected 'direct', 'winograd', 'winograd2d' or 'channels'"
    ):
        KERNELS.conv(x, k, dy, algorithm="fft")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_batch_norm_equals_the_reference(channels, side, offset, dtype):
    n = 5
    y, gamma, beta, dz = arrays(
        side, (n, channels, side, side), channels, channels, (n, channels, side, side), dtype=np.float64
    )
    y += offset
    # Rounding y alone moves (y - mean) by eps * |offset|: the bound grows with it. A pixel within that of ReLU's kink may switch: no
    # gradient arrives there.
    bound = rounding(dtype, n * side**2) * (1 + offset)
    first = KERNELS.batch_norm(y, gamma, beta, dz, 1e-5, ref=True)
    mean, var, gamma_, beta_ = (a[:, None, None] for a in (first.mean, first.var, gamma, beta))
    dz[np.abs((y - mean) / np.sqrt(var + 1e-5) * gamma_ + beta_) < 4 * bound] = 0
    assert dz.any()
    expected = KERNELS.batch_norm(y, gamma, beta, dz, 1e-5, ref=True)
    got = KERNELS.batch_norm(*(a.astype(dtype) for a in (y, gamma, beta, dz)), 1e-5)
    # mean, dgamma and dbeta are sums whose terms cancel: their error is relative to the sum of absolute terms.
    x_hat, pixels = (y - mean) / np.sqrt(var + 1e-5), (0, 2, 3)
    assert (np.abs(got.mean - expected.mean) <= bound * np.abs(y).mean(pixels)).all()
    assert (np.abs(got.dgamma - expected.dgamma) <= bound * np.abs(dz * x_hat).sum(pixels)).all()
    assert (np.abs(got.dbeta - expected.dbeta) <= bound * np.abs(dz).sum(pixels)).all()
    for name in ("z", "var", "dy"):
        assert_close(getattr(got, name), getattr(expected, name), bound)


def test_batch_norm_reference_is_pytorchs():
    y, gamma, beta, dz = arrays(2, (3, 4, 5, 6), 4, 4, (3, 4, 5, 6), dtype=np.float64)
    yt, gt, bt = (torch.tensor(a, requires_grad=True) for a in (y, gamma, beta))
    z = F.relu(F.batch_norm(yt, None, None, gt, bt, training=True, eps=1e-5))
    z.backward(torch.tensor(dz))
    got = KERNELS.batch_norm(y, gamma, beta, dz, 1e-5, ref=True)
    for name, expected in {"z": z.detach(), "dy": yt.grad, "dgamma": gt.grad, "dbeta": bt.grad}.items():
        assert_close(getattr(got, name), expected.numpy(), 1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("side", [*SIDES, 2, 7, 17, 40, 64])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("channels", CHANNELS)
def test_maxpool_is_the_references_and_pytorchs(channels, side, size, ties, dtype):
    n = 5 if channels * side <= 500 else 2  # the last block of images is not full
    (x,) = arrays(3, (n, channels, side, side), dtype=dtype)
    if ties:  # as after ReLU and after another pooling
        x = np.maximum(np.round(x), 0)
    out = side if size == 3 else side // 2
    (dy,) = arrays(4, (n, channels, out, out), dtype=dtype)
    y, dx = fields(KERNELS.maxpool(x, dy, size))
    expected_y, expected_dx = fields(KERNELS.maxpool(x, dy, size, ref=True))
    np.testing.assert_array_equal(y, expected_y)
    assert_close(dx, expected_dx, rounding(dtype, 9))
    xt = torch.tensor(x, requires_grad=True)
    yt = F.max_pool2d(xt, 3, 1, 1) if size == 3 else F.max_pool2d(xt, 2)
    yt.backward(torch.tensor(dy))
    np.testing.assert_array_equal(y, yt.detach().numpy())
    assert_close(dx, xt.grad.numpy(), rounding(dtype, 9))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape", [(5, 3, side, side) for side in [*SIDES, 1, 2, 7, 17, 64]] + [(2, 5, 7, 33), (9, 1, 33, 6)]
)
def test_avgpool_is_the_references_and_pytorchs(shape, dtype):
    x, dy = arrays(6, shape, shape, dtype=dtype)
    xt = torch.tensor(x.astype(np.float64), requires_grad=True)
    yt = F.avg_pool2d(xt, 3, 1, 1, count_include_pad=False)
    yt.backward(torch.tensor(dy.astype(np.float64)))
    for ref in (False, True):
        y, dx = fields(KERNELS.avgpool(x, dy, ref=ref))
        assert_close(y, yt.detach().numpy(), rounding(dtype, 9))
        assert_close(dx, xt.grad.numpy(), rounding(dtype, 9))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("side", [*SIDES, 1, 7, 17, 64])
def test_relu_is_the_references_and_pytorchs(side, dtype):
    x, dz = arrays(7, (5, 3, side, side), (5, 3, side, side), dtype=dtype)
    x = np.round(x, 1)  # zeros among them
    got, references = fields(KERNELS.relu(x, dz)), fields(KERNELS.relu(x, dz, ref=True))
    xt = torch.tensor(x, requires_grad=True)
    zt = F.relu(xt)
    zt.backward(torch.tensor(dz))
    for part, reference, expected in zip(got, references, (zt.detach(), xt.grad), strict=True):
        np.testing.assert_array_equal(part, reference)
        np.testing.assert_array_equal(part, expected.numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("side", [*SIDES, 1, 2, 7, 17, 64])
@pytest.mark.parametrize("channels", CHANNELS)
def test_head_equals_the_reference(channels, side, dtype):
    n, classes = 5, {1: 16, 2: 37}.get(side, 7)  # classes that fill a vector, that take several
    x, weight, bias = arrays(side, (n, channels, side, side), (classes, channels), classes, dtype=dtype)
    label = np.random.default_rng(0).dirichlet(np.ones(classes), n).astype(dtype)
    expected = fields(KERNELS.head(*(a.astype(np.float64) for a in (x, weight, bias, label)), ref=True))
    got = fields(KERNELS.head(x, weight, bias, label))
    bound = rounding(dtype, side**2 + channels)
    scale = np.abs(expected[1]).max() + 1  # a logit's rounding is a relative error of its probability
    assert abs(got[0] - expected[0]) <= bound * scale
    for got_part, expected_part in zip(got[1:], expected[1:], strict=True):
        assert_close(got_part, expected_part, bound * scale)


def test_head_reference_is_pytorchs():
    x, weight, bias = (
        torch.tensor(a, requires_grad=True) for a in arrays(1, (3, 4, 5, 6), (7, 4), 7, dtype=np.float64)
    )
    label = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(7), 3))
    logit = F.linear(x.mean(dim=(2, 3)), weight, bias)
    loss = F.cross_entropy(logit, label)
    loss.backward()
    arrays_ = [t.detach().numpy() for t in (x, weight, bias, label)]
    got = fields(KERNELS.head(*arrays_, ref=True))
    for part, expected in zip(got, (loss.detach(), logit.detach(), x.grad, weight.grad, bias.grad), strict=True):
        assert_close(np.asarray(part), expected.numpy(), 1e-13)


def test_uniform_numbers_are_keyed_by_their_place_alone():
    both = _core.uniforms([(7, 6, 5, 0, 9), (8, 6, 5, 0, 9)])
    whole, other = both.reshape(2, 6, 5, 9)
    np.testing.assert_array_equal(_core.uniforms([(7, 3, 2, 4, 1)]), whole[:3, :2, 4].ravel())
    assert ((both > 0) & (both < 1)).all()
    assert not np.array_equal(whole, other)


def test_philox_known_answer():
    """The first word of Philox4x32-10 with counter and key 0 (Random123's known-answer file): 6627e8d5 e169c58d."""
    bits = (0x6627E8D5 << 32 | 0xE169C58D) >> 12
    assert _core.uniforms([(0, 1, 1, 0, 1)])[0] == (bits + 0.5) * 2.0**-52


CELL = {
    "vertices": 3, "ops_on_edges": False, "matrix": [0, 1, 0, 0, 0, 1, 0, 0, 0], "ops": [0], "channels": [[4, 4, 4]] * 2, "stem_channels": 4,
    "stacks": 2, "cells_per_stack": 1, "classes": 3, "image_channels": 1, "height": 4, "width": 4,
}  # fmt: skip
PERCEPTRON = {
    "hidden": [2], "slope": 1.0, "loss": "softmax", "classes": 3, "image_channels": 1, "height": 4, "width": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"vertices": 1}, "vertices is 1, expected 2 to 7"),
        ({"vertices": 8}, "vertices is 8, expected 2 to 7"),
        ({"matrix": [0, 1, 0, 0]}, "matrix has 4 entries, expected 9: the square of vertices"),
        ({"ops": []}, "ops has 0 entries, expected 1: one for each interior vertex"),
        ({"ops_on_edges": True}, "ops has 1 entries, expected 0: the matrix holds the operations"),
        ({"channels": [[4, 4, 4]]}, "channels has 1 entries, expected 2: one for each cell"),
        ({"channels": [[4, 4, 4], [4, 4]]}, "channels of a cell has 2 entries, expected 3: one for each vertex"),
        ({"stem_channels": 0}, "stem_channels is 0, expected at least 1"),
        ({"stacks": 0}, "stacks is 0, expected at least 1"),
        ({"cells_per_stack": 0}, "cells_per_stack is 0, expected at least 1"),
        ({"width": 1}, "images of 4 x 1 are too small to be halved between 2 stacks"),
        ({"stacks": 40, "channels": [[4, 4, 4]] * 40}, "images of 4 x 4 are too small to be halved between 40 stacks"),
        ({"hidden": []}, "hidden is empty, expected the units of each hidden layer"),
        ({"hidden": [2, 0]}, "hidden is 0, expected at least 1"),
        ({"loss": "hinge"}, "loss is 'hinge', expected 'softmax' or 'binary'"),
        ({"slope": 1.0, "classes": 0}, "classes is 0, expected at least 1"),
        ({"image_channels": 0}, "image_channels is 0, expected at least 1"),
        ({"height": 0}, "height is 0, expected at least 1"),
    ],
)
def test_a_spec_whose_fields_do_not_fit_together_is_refused(changed, message):
    of_a_perceptron = not PERCEPTRON.keys().isdisjoint(changed.keys() - CELL.keys())
    with pytest.raises(ValueError, match=f"^{message}$"):
        _core.MotifSpec.perceptron(**PERCEPTRON | changed) if of_a_perceptron else _core.MotifSpec(**CELL | changed)


def test_the_tables_of_a_spec_are_made_once_and_cannot_be_changed():
    spec = _core.MotifSpec.perceptron(**PERCEPTRON)
    assert list(spec.tables.parameters) == [
        ("hidden1.weight", 0, (2, 16)),
        ("hidden1.bias", 32, (2,)),
        ("dense.weight", 34, (3, 2)),
        ("dense.bias", 40, (3,)),
    ]
    assert (spec.tables.n_parameters, spec.tables.running, spec.tables.batch_norms) == (43, (), 0)
    assert spec.tables.parameters is spec.tables.parameters
    with pytest.raises(AttributeError):
        spec.tables.n_parameters = 44


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch": 0}, "batch is 0, expected at least 1"),
        ({"order": np.array([[0, 1, 2, 3, 5]])}, "an entry of order is 5, expected 0 to N - 1"),
        ({"order": np.array([[0, 1, 2, 3, -1]])}, "an entry of order is -1, expected 0 to N - 1"),
        ({"steps": 4}, "steps is 4, expected 0 to 3"),
        ({"steps": -1}, "steps is -1, expected 0 to 3"),
        ({"first_step": 3}, "first_step is 3, expected 0 to steps"),
    ],
)
def test_settings_of_a_training_are_checked(changed, message):
    arguments = {
        "specs": [_core.MotifSpec.perceptron(**PERCEPTRON)], "images": np.ones((5, 1, 4, 4)), "labels": np.ones((5, 3)),
        "valid_images": None, "valid_labels": None, "order": np.arange(5)[None], "batch": 2, "drop_last": False,
        "optimizer": _core.Optimizer("sgd"), "rates": np.ones(3), "initial": [np.ones(43)], "steps": 2, "first_step": 0,
        "metric": "loss", "metric_weight": 1.0, "step_weights": None, "batch_norm_eps": 1e-5, "memory": 0.0,
        "direct_convolutions": False, "threads": 1, "progress": None,
    }  # fmt: skip
    assert np.isfinite(_core.hypergradient(**arguments).value).all()
    with pytest.raises(ValueError, match=message):
        _core.hypergradient(**arguments | changed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_arrays_of_a_call_have_one_element_type(dtype):
    """Which is the engine's; another one would be converted, and weights that are trained in place be lost."""
    spec = _core.MotifSpec.perceptron(**PERCEPTRON)
    images, labels = np.ones((5, 1, 4, 4), dtype), np.eye(3, dtype=dtype)[[0, 1, 2, 0, 1]]
    weights = np.ones(spec.tables.n_parameters, dtype)

    def gradient(parameters):
        return _core.gradient([spec], images, labels, [parameters], "loss", 1e-5, True, True, False, 1, None)

    found = gradient(weights)
    assert found.d_images.dtype == found.d_labels.dtype == found.d_parameters[0].dtype == dtype
    other = np.float64 if dtype == np.float32 else np.float32
    with pytest.raises(TypeError, match="incompatible function arguments"):
        gradient(weights.astype(other))
    with pytest.raises(ValueError, match=r"parameters has shape .*, expected"):
        gradient(weights[:-1])
    with pytest.raises(ValueError, match="expected one vector of parameters for each motif"):
        _core.gradient([spec], images, labels, [], "loss", 1e-5, True, True, False, 1, None)
    with pytest.raises(ValueError, match="metric is 'error', expected 'loss' or 'probability'"):
        _core.gradient([spec], images, labels, [weights], "error", 1e-5, True, True, False, 1, None)
