"""Outer losses: how well the motifs' metrics agree with the accuracies of their cells.

A loss is any torch callable ``loss(metric, accuracy) -> scalar`` of two tensors of shape (K,), differentiable in the
first; larger metrics stand for better cells. The ones here are known by name to recipes. All but `mse` are invariant to
the scale and offset of the metric: those on ranks and pairs see it standardised over its K values (mean 0, population
variance 1), so that a difference of 1 means one standard deviation. Where all metrics, or all accuracies, are equal they
are not defined: there a loss has its value at zero correlation and its gradient is 0, never NaN.
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
    """Return Pearson's correlation of two tensors of shape (K,), 0 with zero gradient where either has no spread.

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
    "No spread" means that rounding is all that distinguishes the values: none is further from their mean than
    ``4 eps max|x|``. Correlating rounding errors would give any value in -1..1 and a huge gradient.
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
    """Return ``1 - |r|``, which is 0 for a perfect negative correlation, too.

    References
    ----------
    Cassimon et al., Predicting Image Classifier Performance Using the Synthetic Petri Dish Method, equation 8.
    """
    return 1 - pearson_correlation(metric, accuracy).abs()


def pearson(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return ``1 - r``: 0 at a perfect positive correlation, 2 at a perfect negative one."""
    return 1 - pearson_correlation(metric, accuracy)


def mse_whitened(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return the mean squared difference of both vectors whitened (mean 0, population variance 1): ``2 (1 - r)``.

    References
    ----------
    Rawal et al. 2020, Synthetic Petri Dish, arXiv:2005.13092: the loss of the released code.
    """
    return 2 * pearson(metric, accuracy)


def mse(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return the mean squared difference of metric and accuracy, or of two losses with their signs reversed.

    References
    ----------
    Cassimon et al., section 7, who propose it in place of the correlation, so that perfect motifs still count.
    """
    _check_vectors(metric, accuracy)
    return torch.mean((metric - accuracy.to(metric.dtype)) ** 2)


def soft_spearman(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return ``1 - rho``: Spearman's correlation with smooth ranks of the metric; 0 is perfect.

    Notes
    -----
    The rank of value i is, but for an offset, ``sum_j sigmoid((z_i - z_j) / t)`` of the standardised metric z, with
    t = 1/10: exact where differences are many t. Ranks of the accuracies are exact, ties share theirs. O(K^2).

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
    ``tau = mean over pairs with y_i > y_j of tanh(a (z_i - z_j))`` of the standardised metric z, with a = 2: the sign, but
    for differences below half a standard deviation. Pairs of equal accuracies are left out. O(K^2).

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
    """Return the mean over pairs with y_i > y_j of ``log(1 + exp(-(z_i - z_j)))``, z the standardised metric.

    log 2 at zero correlation; never 0, since differences of standardised values are bounded. O(K^2).

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
    """Return `pairwise_logistic` with every pair weighted by how far its accuracies lie apart, over the sum of weights.

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
    """Return minus the log-likelihood of the true order under the Plackett-Luce model of the standardised metric, over K.

    Notes
    -----
    ``-1/K sum_i log(exp(z_i) / sum_(j from i on) exp(z_j))``, cells from the best to the worst. Cells of equal accuracy are
    taken in the order in which they are given.

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
    """Shift and scale to mean 0 and population variance 1; the metric is not constant."""
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
