"""Outer losses: how well the motifs' metrics agree with the accuracies of their cells.

A loss is any torch callable ``loss(metric, accuracy) -> scalar`` of two tensors of shape (K,), differentiable in the
first; larger metrics stand for better cells. The ones here are known by name to recipes. Every one of them is
invariant to the scale and offset of the metric, and none of them is defined when all metrics, or all accuracies, are
equal: there the loss is 1 (2 for `mse_whitened`, as at zero correlation) and its gradient is 0, never NaN.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["LOSSES", "OuterLoss", "kendall_tau", "mse_whitened", "pearson", "pearson_abs", "pearson_correlation"]

OuterLoss = Callable[[Tensor, Tensor], Tensor]


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
    if metric.ndim != 1 or metric.shape != accuracy.shape or len(metric) < 2:
        raise ValueError(
            f"metric has shape {tuple(metric.shape)} and accuracy {tuple(accuracy.shape)}, "
            "expected two vectors of one length, at least 2"
        )
    target = accuracy.to(metric.dtype)
    if _is_constant(metric) or _is_constant(target):
        return (metric * 0.0).sum()
    x = metric - metric.mean()
    y = target - target.mean()
    x = x / x.detach().abs().max()
    y = y / y.abs().max()
    return (x * y).sum() / torch.sqrt((x * x).sum() * (y * y).sum())


def pearson_abs(metric: Tensor, accuracy: Tensor) -> Tensor:
    """Return ``1 - |r|``, which is content with a perfect negative correlation.

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


LOSSES: Final[dict[str, OuterLoss]] = {
    "pearson_abs": pearson_abs,
    "pearson": pearson,
    "mse_whitened": mse_whitened,
}
"""The losses by the names that recipes use."""


def kendall_tau(score: npt.ArrayLike, accuracy: npt.ArrayLike) -> float:
    """Return Kendall's tau-b of two vectors, 0 where it is undefined.

    Parameters
    ----------
    score, accuracy : array-like, shape (K,)
        Finite numbers. Tied pairs are discounted (the variant b).

    Returns
    -------
    float
        -1 to 1. 0 where all scores, or all accuracies, tie or where there are fewer than two: the paper counts an outer
        epoch in which all motifs are perfect as 0.

    References
    ----------
    Cassimon et al., section 5.2. Kendall 1945, The treatment of ties in ranking problems, Biometrika 33(3).
    """
    from scipy.stats import kendalltau

    x, y = np.asarray(score, np.float64), np.asarray(accuracy, np.float64)
    if len(x) < 2 or np.all(x == x[0]) or np.all(y == y[0]):
        return 0.0
    return float(kendalltau(x, y, variant="b").statistic)


def _is_constant(values: Tensor) -> bool:
    values = values.detach()
    largest = values.abs().max()
    return bool((values - values.mean()).abs().max() <= 4 * torch.finfo(values.dtype).eps * largest)
