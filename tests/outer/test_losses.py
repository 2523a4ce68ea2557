"""Outer losses against their definitions, their gradients, and where they are undefined."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from spd_fast.base.ranks import kendall_tau
from spd_fast.outer.losses import (
    LOSSES,
    listmle,
    mse,
    mse_whitened,
    pairwise_logistic,
    pairwise_weighted,
    pearson,
    pearson_abs,
    pearson_correlation,
    soft_kendall,
    soft_spearman,
)


def vectors(seed: int, k: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=k), requires_grad=True), torch.tensor(rng.uniform(0.8, 0.95, k))


@pytest.mark.parametrize("seed", range(5))
def test_values_by_definition(seed: int) -> None:
    x, y = vectors(seed)
    r = float(np.corrcoef(x.detach(), y)[0, 1])
    z = [(v - v.mean()) / v.std() for v in (x.detach().numpy(), y.numpy())]
    # a handful of operations on numbers of order one, in double
    assert pearson_correlation(x, y).item() == pytest.approx(r, abs=1e-14)
    assert pearson(x, y).item() == pytest.approx(1 - r, abs=1e-14)
    assert pearson_abs(x, y).item() == pytest.approx(1 - abs(r), abs=1e-14)
    assert mse_whitened(x, y).item() == pytest.approx(np.mean((z[0] - z[1]) ** 2), abs=1e-13)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(3))
def test_gradients(name: str, seed: int) -> None:
    x, y = vectors(seed)
    assert torch.autograd.gradcheck(lambda metric: LOSSES[name](metric, y), x)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "mse"])
def test_scale_and_offset_do_not_matter(name: str) -> None:
    x, y = vectors(0)
    assert LOSSES[name](1e-6 * x + 3, y).item() == pytest.approx(LOSSES[name](x, y).item(), abs=1e-7)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_float32_neither_under_nor_overflows(scale: float) -> None:
    x = (scale * torch.arange(6.0)).requires_grad_()
    loss = pearson(x, torch.arange(6.0) ** 2)
    loss.backward()
    expected = 1 - np.corrcoef(np.arange(6), np.arange(6) ** 2)[0, 1]
    assert loss.item() == pytest.approx(expected, abs=8 * float(np.finfo(np.float32).eps))  # two sums of six terms
    assert torch.isfinite(x.grad).all()


def standardised(x: torch.Tensor) -> list[float]:
    values = x.detach().numpy()
    return ((values - values.mean()) / values.std()).tolist()


def with_a_tie(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = vectors(seed)
    y[2] = y[4]
    return x, y


@pytest.mark.parametrize("seed", range(5))
def test_losses_on_ranks_and_pairs_by_definition(seed: int) -> None:
    """Loop by loop, in plain numbers; a handful of operations on numbers of order one, in double."""
    x, y = with_a_tie(seed)
    z, truth, n = standardised(x), y.tolist(), len(y)
    assert mse(x, y).item() == pytest.approx(sum((a - b) ** 2 for a, b in zip(x.tolist(), truth, strict=True)) / n)

    better = [(i, j) for i in range(n) for j in range(n) if truth[i] > truth[j]]
    assert len(better) == n * (n - 1) // 2 - 1
    expected = sum(math.log(1 + math.exp(-(z[i] - z[j]))) for i, j in better) / len(better)
    assert pairwise_logistic(x, y).item() == pytest.approx(expected, abs=1e-13)
    gaps = sum(truth[i] - truth[j] for i, j in better)
    expected = sum((truth[i] - truth[j]) * math.log(1 + math.exp(-(z[i] - z[j]))) for i, j in better) / gaps
    assert pairwise_weighted(x, y).item() == pytest.approx(expected, abs=1e-13)
    expected = 1 - sum(math.tanh(2 * (z[i] - z[j])) for i, j in better) / len(better)
    assert soft_kendall(x, y).item() == pytest.approx(expected, abs=1e-13)

    soft = [sum(1 / (1 + math.exp(-10 * (z[i] - z[j]))) for j in range(n)) for i in range(n)]
    expected = 1 - np.corrcoef(soft, rankdata(truth))[0, 1]
    assert soft_spearman(x, y).item() == pytest.approx(expected, abs=1e-13)

    order = sorted(range(n), key=lambda i: (-truth[i], i))
    terms = [math.exp(z[i]) / sum(math.exp(z[j]) for j in order[place:]) for place, i in enumerate(order)]
    assert listmle(x, y).item() == pytest.approx(-sum(map(math.log, terms)) / n, abs=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_smooth_ranks_and_signs_of_values_far_apart(seed: int) -> None:
    """Where all differences are many temperatures, the smooth versions are Spearman's and Kendall's own."""
    rng = np.random.default_rng(seed)
    x, y = torch.tensor(rng.permutation(np.arange(6.0))), torch.tensor(rng.normal(size=6))
    # neighbours are 0.586 standard deviations apart: sigmoid(5.86) misses 1 by 0.003, tanh(1.17) by 0.18
    assert soft_spearman(x, y).item() == pytest.approx(1 - spearmanr(x, y).statistic, abs=0.01)
    assert soft_kendall(x, y).item() == pytest.approx(1 - kendall_tau(x, y), abs=0.18)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "mse"])
def test_better_order_costs_less(name: str) -> None:
    y = torch.arange(6.0)
    right, nearly, wrong = y, y[[0, 1, 3, 2, 4, 5]], y.flip(0)
    values = [LOSSES[name](x, y).item() for x in (right, nearly, wrong)]
    assert values[0] < values[1]
    if name != "pearson_abs":  # which is content with a negative correlation
        assert values[1] < values[2]


@pytest.mark.parametrize(
    ("name", "at_zero"),
    [
        ("pearson_abs", 1.0),
        ("pearson", 1.0),
        ("mse_whitened", 2.0),
        ("soft_spearman", 1.0),
        ("soft_kendall", 1.0),
        ("pairwise_logistic", math.log(2)),
        ("pairwise_weighted", math.log(2)),
        ("listmle", math.log(math.factorial(5)) / 5),
    ],
)
@pytest.mark.parametrize(
    "values",
    [[0.5] * 5, [0.0] * 5, [1.0, 1.0, 1 - 6e-8, 1.0, 1.0]],
    ids=["equal", "zero", "equal up to rounding"],
)
def test_no_spread(name: str, at_zero: float, values: list[float]) -> None:
    metric = torch.tensor(values, requires_grad=True)
    loss = LOSSES[name](metric, torch.arange(5.0))
    loss.backward()
    assert loss.item() == pytest.approx(at_zero, rel=1e-7)
    assert torch.equal(metric.grad, torch.zeros(5))
    other = torch.arange(5.0, requires_grad=True)
    loss = LOSSES[name](other, metric.detach())
    loss.backward()
    assert loss.item() == pytest.approx(at_zero, rel=1e-7)
    assert torch.equal(other.grad, torch.zeros(5))


@pytest.mark.parametrize(("x", "y"), [((3,), (4,)), ((2, 2), (2, 2)), ((1,), (1,))])
@pytest.mark.parametrize("name", LOSSES)
def test_wrong_shapes(name: str, x: tuple[int, ...], y: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected two vectors of one length, at least 2"):
        LOSSES[name](torch.zeros(x), torch.zeros(y))


def tau_b(x: list[int], y: list[int]) -> float:
    """Tau-b from its definition, in whole numbers up to the root."""
    pairs = list(itertools.combinations(range(len(x)), 2))
    score = sum(int(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j])) for i, j in pairs)
    untied = [sum(v[i] != v[j] for i, j in pairs) for v in (x, y)]
    return score / (untied[0] * untied[1]) ** 0.5 if all(untied) else 0.0


@settings(deadline=None)  # the first call imports scipy
@given(st.integers(2, 8).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n)] * 2)))
def test_kendall_tau_by_definition(pair: tuple[list[int], list[int]]) -> None:
    assert kendall_tau(*pair) == pytest.approx(tau_b(*pair), abs=1e-12)


def test_kendall_tau_of_ties() -> None:
    """The paper's rule: 0 where all motifs are perfect."""
    assert kendall_tau([1.0] * 6, [0.9, 0.91, 0.92, 0.93, 0.94, 0.95]) == 0
    assert kendall_tau([1, 2, 3], [1, 1, 1]) == 0
    assert kendall_tau([1], [2]) == 0
    assert kendall_tau([], []) == 0
