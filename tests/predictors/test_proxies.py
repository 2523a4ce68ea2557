"""Zero-cost proxies against their definitions in plain PyTorch, on the reference, in double."""

import numpy as np
import pytest
import torch

from spd_fast import MOTIF_C, Cell, MotifShape, NatsCell
from spd_fast.engine.initial import initial_parameters
from spd_fast.engine.probes import activation_agreements, logit_gradient
from spd_fast.predictors import proxies
from spd_fast.reference import pytorch as reference
from spd_fast.spaces.cell_files import random_cells

EDGES = NatsCell.parse(
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"
)
"""No two convolutions of one size leave one node: those share a ReLU in the engine, not in the reference."""
CELLS = [*random_cells(5, seed=11), EDGES]
SHAPES = [MOTIF_C, MotifShape(7, stacks=3, cells_per_stack=2, classes=4)]
SIZES = [(6, (16, 16)), (5, (9, 6))]  # images and their sides, with the shapes above
EPS = float(np.finfo(np.float64).eps)

both_shapes = pytest.mark.parametrize(("shape", "sizes"), list(zip(SHAPES, SIZES, strict=True)), ids=["C", "deep"])


def batch(shape, sizes, seed=0):
    n, sides = sizes
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, shape.image_channels, *sides)), rng.integers(0, shape.classes, n)


def modules(shape):
    """Each cell's motif with the engine's own weights, in training mode."""
    weights = [initial_parameters(cell, shape, dtype="float64") for cell in CELLS]
    return [reference.build(cell, shape, w).train() for cell, w in zip(CELLS, weights, strict=True)]


def test_every_proxy_has_its_definition():
    assert reference.PROXIES.keys() == proxies.PROXIES.keys()


@both_shapes
@pytest.mark.parametrize("name", reference.PROXIES)
def test_scores_are_those_of_the_definition(name, shape, sizes):
    images, labels = batch(shape, sizes)
    got = proxies.score(CELLS, shape, images, labels, name, dtype="float64")
    expected = [
        reference.PROXIES[name](module, torch.tensor(images), torch.tensor(labels)) for module in modules(shape)
    ]
    # Gradients through some ten layers of sums of n <= 9 * 64 products, each rounded by eps sqrt(n) of its size, a factor of 100 for
    # what cancels; jacob_cov divides by eigenvalues that may be as small as 0.01 of their mean. nwot counts: its logarithm alone rounds.
    bound = 100 * 10 * EPS * np.sqrt(9 * 64) * (100 if name == "jacob_cov" else 1)
    np.testing.assert_allclose(got, expected, rtol=1e-13 if name == "nwot" else bound)
    assert len(set(got)) == len(CELLS)


@both_shapes
def test_agreements_are_counted_exactly(shape, sizes):
    images, _ = batch(shape, sizes)
    weights = [initial_parameters(cell, shape, dtype="float64") for cell in CELLS]
    got = activation_agreements(CELLS, shape, images, weights, dtype="float64")
    for kernel, module in zip(got, modules(shape), strict=True):
        codes = reference.relu_codes(module, torch.tensor(images))
        np.testing.assert_array_equal(kernel, (codes @ codes.T + (1 - codes) @ (1 - codes).T).numpy())


@pytest.mark.parametrize("name", reference.PROXIES)
def test_float32_ranks_alike(name):
    """Same scores but for rounding, which may switch a ReLU: one of some ten thousand, in a few places."""
    images, labels = batch(MOTIF_C, (20, (16, 16)))
    single, double = (
        proxies.score(CELLS, MOTIF_C, images, labels, name, dtype=dtype) for dtype in ("float32", "float64")
    )
    np.testing.assert_allclose(single, double, rtol=2e-3)


@pytest.mark.parametrize("name", reference.PROXIES)
def test_scores_do_not_depend_on_company_or_threads(name):
    images, labels = batch(MOTIF_C, SIZES[0])
    together = proxies.score(CELLS, MOTIF_C, images, labels, name, threads=3)
    alone = [proxies.score([cell], MOTIF_C, images, labels, name, threads=1)[0] for cell in CELLS]
    np.testing.assert_array_equal(together, alone)


def test_many_cells_are_taken_in_parts():
    images, labels = batch(MOTIF_C, SIZES[0])
    whole = proxies.score(CELLS, MOTIF_C, images, labels, "snip")
    shares: list[float] = []
    weights = [initial_parameters(cell, MOTIF_C) for cell in CELLS]
    parts = proxies.score(CELLS, MOTIF_C, images, labels, "snip", parameters=weights, at_once=2, progress=shares.append)
    np.testing.assert_array_equal(parts, whole)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(set(shares)) >= 3, "each of the three parts tells its end"


def test_seed_and_replicate_choose_the_weights():
    images, labels = batch(MOTIF_C, SIZES[0])
    first, seed, replicate = (
        proxies.score(CELLS, MOTIF_C, images, labels, "grad_norm", **which)
        for which in ({}, {"seed": 1}, {"replicate": 1})
    )
    assert not (first == seed).any()
    assert not (first == replicate).any()


def test_what_is_not_finite_is_nan():
    images, labels = batch(MOTIF_C, SIZES[0])
    images[1] = images[0]  # two images that open the same ReLUs: the kernel is singular
    labels[1] = labels[0]
    assert np.isnan(proxies.score(CELLS, MOTIF_C, images, labels, "nwot", dtype="float64")).all()
    broken = [{name: w * np.nan for name, w in initial_parameters(cell, MOTIF_C).items()} for cell in CELLS]
    for name in reference.PROXIES:
        assert np.isnan(proxies.score(CELLS, MOTIF_C, images, labels, name, parameters=broken)).all()


def test_synflow_ignores_batch_norm_and_signs():
    images, labels = batch(MOTIF_C, SIZES[0])
    weights = [initial_parameters(cell, MOTIF_C, dtype="float64") for cell in CELLS]
    trained = [{n: (w - 3.0 if ".bn." in n else -w) for n, w in each.items()} for each in weights]
    got, expected = (
        proxies.score(CELLS, MOTIF_C, images, labels, "synflow", parameters=each) for each in (trained, weights)
    )
    np.testing.assert_array_equal(got, expected)


def test_errors():
    images, labels = batch(MOTIF_C, SIZES[0])
    weights = [initial_parameters(cell, MOTIF_C) for cell in CELLS]
    with pytest.raises(TypeError, match="cells is one Cell, expected a sequence"):
        proxies.score(CELLS[0], MOTIF_C, images, labels, "snip")
    with pytest.raises(ValueError, match=r"name is 'zen', expected 'grad_norm', 'snip'"):
        proxies.score(CELLS, MOTIF_C, images, labels, "zen")
    with pytest.raises(ValueError, match="at_once is 0, expected at least 1"):
        proxies.score(CELLS, MOTIF_C, images, labels, "snip", at_once=0)
    with pytest.raises(ValueError, match=r"parameters holds 1 sets of weights, expected 6: one for each cell"):
        proxies.score(CELLS, MOTIF_C, images, labels, "snip", parameters=weights[:1])
    with pytest.raises(ValueError, match=r"parameters holds 1 sets of weights, expected 6"):
        logit_gradient(CELLS, MOTIF_C, images, weights[:1])
    with pytest.raises(ValueError, match="hold negative values, expected none without batch norm"):
        logit_gradient(CELLS, MOTIF_C, images, weights, batch_norm=False)
    with pytest.raises(ValueError, match="images has 2 channels, expected 3"):
        activation_agreements(CELLS, MOTIF_C, images[:, :2], weights)
    with pytest.raises(TypeError, match="cells is one Cell"):
        activation_agreements(Cell(["01", "00"], ["input", "output"]), MOTIF_C, images, weights)
