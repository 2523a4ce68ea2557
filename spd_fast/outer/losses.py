"""Outer losses: how far the metrics of cells disagree with their target, which is the truth or a function of it.

A loss is any function ``loss(metric, accuracy) -> scalar`` of two PyTorch tensors of shape (K,) that is differentiable in the
first. Larger metrics stand for better cells. Recipes name the losses of this module. All but `mse` do not depend on scale and
offset of the metric: those on ranks and pairs standardise its K values (mean 0, population variance 1), so that a difference
of 1 is one standard deviation. If all metrics, or all accuracies, are equal, the losses are not defined. They then have their
value at zero correlation, and the gradient 0, never NaN.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "LOSSES",
    "OuterLoss",
    "listmle",
    "mse",
    "mse_whitened",
    "pairwise_logistic",
    "pairwise_weighted",
    "pearson",
    "pearson_abs",
    "pearson_correlation",
    "soft_kendall",
    "soft_spearman",
]

OuterLoss = Callable[[Tensor, Tensor], Tensor]
_RANK_TEMPERATURE: Final = 0.1
_KENDALL_SLOPE: Final = 2.0


def pearson_correlation(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return Pearson's correlation of two tensors of shape (K,); 0, with gradient 0, if one of them has no spread.

    Parameters
    ----------
    metric, accuracy : Tensor, shape (K,), K >= 2
        Floating point. The arithmetic is in the metric's dtype.

    Raises
    ------
    ValueError
        If the two are not vectors of one length, or are shorter than 2.

    Notes
    -----
    "No spread" means that the values differ by rounding alone: none is further from their mean than ``4 eps max|x|``. The
    correlation of rounding errors could have any value from -1 to 1, and a huge gradient.
    """
    _check_vectors(metric, accuracy)
    target = accuracy.to(metric.dtype)
    if _is_constant(metric) or _is_constant(target):
        return (metric * 0.0).sum()
    x = metric - metric.mean()
    y = target - target.mean()
    x = x / x.detach().abs().max()
    y = y / y.abs().max()
    return (x * y).sum() / torch.sqrt((x * x).sum() * (y * y).sum())


def pearson_abs(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return ``1 - |r|``, which is 0 also for a perfect negative correlation.

    References
    ----------
    Cassimon et al., Predicting Image Classifier Performance Using the Synthetic Petri Dish Method, equation 8.
    """
    return 1 - pearson_correlation(metric, accuracy).abs()


def pearson(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return ``1 - r``: 0 at a perfect positive correlation, 2 at a perfect negative one."""
    return 1 - pearson_correlation(metric, accuracy)


def mse_whitened(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return the mean squared difference of both vectors after whitening (mean 0, population variance 1): ``2 (1 - r)``.

    References
    ----------
    Rawal et al. 2020, Synthetic Petri Dish, arXiv:2005.13092: the loss of the released code.
    """
    return 2 * pearson(metric, accuracy)


def mse(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return the mean squared difference of metric and accuracy, or of two losses with their signs reversed.

    References
    ----------
    Cassimon et al., section 7. They propose it in place of the correlation, so that perfect motifs still count.
    """
    _check_vectors(metric, accuracy)
    return torch.mean((metric - accuracy.to(metric.dtype)) ** 2)


def soft_spearman(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return ``1 - rho``: Spearman's correlation with smooth ranks of the metric; 0 is perfect.

    Notes
    -----
    The smooth rank of value i is, but for an offset, ``sum_j sigmoid((z_i - z_j) / t)`` of the standardised metric z, with
    t = 1/10. It is exact where differences are many t. Ranks of the accuracies are exact, and ties share a rank. The cost is
    O(K^2).

    References
    ----------
    Qin, Liu and Li 2010, A general approximation framework for direct optimization of information retrieval measures,
    Information Retrieval 13(4), equation 11: ranks by sums of logistic functions.
    """
    _check_vectors(metric, accuracy)
    if _is_constant(metric) or _is_constant(accuracy):
        return 1 + 0.0 * metric.sum()
    ranks = torch.sigmoid(_differences(_standardised(metric)) / _RANK_TEMPERATURE).sum(dim=1)
    return pearson(ranks, _signs(accuracy, metric.dtype).sum(dim=1))


def soft_kendall(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return ``1 - tau``: Kendall's tau with tanh in place of the sign of the metric's differences; 0 is perfect.

    Notes
    -----
    tau is the mean of ``tanh(a (z_i - z_j))`` over the pairs with y_i > y_j, of the standardised metric z, with a = 2. This is
    nearly the sign for differences above half a standard deviation. Pairs of equal accuracies are left out. The cost is O(K^2).

    References
    ----------
    Dong et al. 2024, ParZC, arXiv:2402.02105 (differentiable Kendall as the loss of a predictor); Zheng et al. 2023,
    DiffKendall, arXiv:2307.15317, equation 5, which smooths the differences of both vectors.
    """
    _check_vectors(metric, accuracy)
    if _is_constant(metric) or _is_constant(accuracy):
        return 1 + 0.0 * metric.sum()
    better = _signs(accuracy, metric.dtype) > 0
    return 1 - torch.tanh(_KENDALL_SLOPE * _differences(_standardised(metric))[better]).mean()


def pairwise_logistic(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return the mean of ``log(1 + exp(-(z_i - z_j)))`` over the pairs with y_i > y_j, of the standardised metric z.

    It is log 2 if all metrics are equal. It is never 0, because differences of standardised values are bounded. The cost is
    O(K^2).

    References
    ----------
    Burges et al. 2005, Learning to rank using gradient descent (RankNet), equation 3. The released code of Rawal et al. 2020
    has a loss of this kind and does not use it.
    """
    _check_vectors(metric, accuracy)
    if _is_constant(metric) or _is_constant(accuracy):
        return float(np.log(2)) + 0.0 * metric.sum()
    better = _signs(accuracy, metric.dtype) > 0
    return torch.nn.functional.softplus(-_differences(_standardised(metric))[better]).mean()


def pairwise_weighted(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return the loss of `pairwise_logistic` as a weighted mean: a pair's factor is the difference of its accuracies.

    References
    ----------
    Cortes, Mohri and Rastogi 2007, Magnitude-preserving ranking algorithms: pairs count by the size of their difference.
    """
    _check_vectors(metric, accuracy)
    if _is_constant(metric) or _is_constant(accuracy):
        return float(np.log(2)) + 0.0 * metric.sum()
    gaps = torch.relu(_differences(accuracy)).to(metric.dtype)
    penalties = torch.nn.functional.softplus(-_differences(_standardised(metric)))
    return (gaps * penalties).sum() / gaps.sum()


def listmle(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return minus the log-likelihood of the true order under the Plackett-Luce model of the standardised metric, divided
    by K.

    Notes
    -----
    The loss is ``-1/K sum_i log(exp(z_i) / sum_(j >= i) exp(z_j))`` with the cells ordered from the best to the worst. Cells of
    equal accuracy are in the order in which they are given.

    References
    ----------
    Xia et al. 2008, Listwise approach to learning to rank: theory and algorithm, section 4.
    """
    _check_vectors(metric, accuracy)
    if _is_constant(metric) or _is_constant(accuracy):
        return float(np.log(np.arange(1, len(metric) + 1)).mean()) + 0.0 * metric.sum()
    z = _standardised(metric)[torch.argsort(accuracy, descending=True, stable=True)]
    return (torch.logcumsumexp(z.flip(0), dim=0).flip(0) - z).mean()


LOSSES: Final[dict[str, OuterLoss]] = {
    "pearson_abs": pearson_abs,
    "pearson": pearson,
    "mse_whitened": mse_whitened,
    "mse": mse,
    "soft_spearman": soft_spearman,
    "soft_kendall": soft_kendall,
    "pairwise_logistic": pairwise_logistic,
    "pairwise_weighted": pairwise_weighted,
    "listmle": listmle,
}
"""The losses by the names that recipes use."""


def _check_vectors(metric: Tensor, accuracy: Tensor) -> None:
    if metric.ndim != 1 or metric.shape != accuracy.shape or len(metric) < 2:
        raise ValueError(
            f"metric has shape {tuple(metric.shape)} and accuracy {tuple(accuracy.shape)}, "
            "expected two vectors of one length, at least 2"
        )


def _standardised(metric: Tensor) -> Tensor:
    """Return the metric shifted and scaled to mean 0 and population variance 1. It must not be constant."""
    centred = metric - metric.mean()
    centred = centred / centred.detach().abs().max()
    return centred / torch.sqrt(torch.mean(centred * centred))


def _differences(values: Tensor) -> Tensor:
    """Return ``values[i] - values[j]`` at (i, j)."""
    return values[:, None] - values[None, :]


def _signs(accuracy: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the sign of ``accuracy[i] - accuracy[j]`` at (i, j)."""
    return torch.sign(_differences(accuracy)).to(dtype)


def _is_constant(values: Tensor) -> bool:
    values = values.detach()
    largest = values.abs().max()
    return bool((values - values.mean()).abs().max() <= 4 * torch.finfo(values.dtype).eps * largest)
