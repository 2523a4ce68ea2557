"""The Gaussian process by which predictors learn from groups of features."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from scipy.stats import norm, rankdata
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import (
    ConstantKernel,
    Hyperparameter,
    Kernel,
    NormalizedKernelMixin,
    StationaryKernelMixin,
    WhiteKernel,
)
from threadpoolctl import threadpool_limits

from spd_fast.base.types import Array, checked_array, checked_list, checked_number

__all__ = [
    "GaussianProcess",
    "fit_gaussian_process",
]


_WIDER: Final = 9.0
"""N labelled cells give standard deviations 1 + 9 / N times as large as the kernel says. Its parameters count as known there, though
they were found from the same N cells. The number was chosen on development cells, so that intervals hold their share of
the accuracies with 10 to 300 labelled cells: docs/rank.md."""


# ---- the Gaussian process


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """A Gaussian process on groups of features, with the accuracies that it learned from.

    `fit_gaussian_process` makes it.

    Attributes
    ----------
    features : ndarray, shape (N, M), float64
        The features of the N labelled cells.
    groups : tuple of int, sum M
        The number of columns of each group. The columns of a group share a length scale.
    accuracy : ndarray, shape (N,), float64
    theta : ndarray
        Logarithms of the kernel's parameters, as scikit-learn orders them.
    """

    features: Array
    groups: tuple[int, ...]
    accuracy: Array
    theta: Array

    @cached_property
    def _fitted(self) -> tuple[Any, Callable[[Array], Array]]:
        """The regressor, whose kernel matrix is factorised once, and the function that standardises features."""
        known, place = _standardised(self.features)
        process = _regressor(self.groups, self.theta)
        with _one_thread():
            process.fit(known, _normal_scores(self.accuracy))
        return process, place

    def predict(self, features: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the predicted accuracies, shape (n,), of cells with these features, shape (n, M)."""
        process, place = self._fitted
        with _one_thread():
            scores = np.concatenate([process.predict(part) for part in _pieces(place, features, sum(self.groups))])
        return accuracies_of(scores, self.accuracy)

    def predict_interval(
        self, features: npt.ArrayLike, share: float = 0.9
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the predicted accuracies with the ends of the intervals that hold this share of the probability.

        Parameters
        ----------
        features : array-like, shape (n, M)
        share : float, above 0 and below 1

        Returns
        -------
        accuracy, lower, upper : ndarray, shape (n,) each
            The intervals are those of a measured accuracy, its noise included, and need not be symmetric. They are wider than those
            of the kernel alone, by ``1 + 9 / N`` with N labelled cells, because its parameters are not known but estimated.
        """
        if not 0 < checked_number("share", share) < 1:
            raise ValueError(f"share is {share}, expected above 0 and below 1")
        mean, spread = self._scores(features)
        reach = norm.ppf((1 + share) / 2)
        return (
            accuracies_of(mean, self.accuracy),
            accuracies_of(mean - reach * spread, self.accuracy),
            accuracies_of(mean + reach * spread, self.accuracy),
        )

    def predict_std(self, features: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the predicted accuracies with their standard deviations, shape (n,) each.

        A standard deviation is half the distance between the accuracies at plus and at minus one standard deviation of the normal
        score. It is that of a measured accuracy, its noise included, and as much wider as `predict_interval` says.
        """
        mean, spread = self._scores(features)
        above, below = (accuracies_of(mean + sign * spread, self.accuracy) for sign in (1, -1))
        return accuracies_of(mean, self.accuracy), (above - below) / 2

    def _scores(self, features: npt.ArrayLike) -> tuple[Array, Array]:
        """Return means and standard deviations of normal scores, shape (n,) each."""
        process, place = self._fitted
        with _one_thread():
            found = [process.predict(part, return_std=True) for part in _pieces(place, features, sum(self.groups))]
        mean, spread = (np.concatenate([each[k] for each in found]) for k in range(2))
        return mean, spread * (1 + _WIDER / len(self.accuracy))


def _pieces(place: Callable[[Array], Array], features: npt.ArrayLike, columns: int) -> list[Array]:
    """Return standardised features in pieces, so that kernel matrices stay small."""
    given = np.asarray(checked_array("features", features), np.float64)
    if given.ndim != 2 or given.shape[1] != columns:
        raise ValueError(f"features has shape {given.shape}, expected (n, {columns})")
    wanted = place(given)
    return np.array_split(wanted, max(1, len(wanted) // 4096))


def fit_gaussian_process(features: Iterable[npt.ArrayLike], accuracy: npt.ArrayLike) -> GaussianProcess:
    """Fit a Gaussian process to labelled cells.

    Parameters
    ----------
    features : iterable of array-like, each of shape (N, m)
        Groups of features, for example structure and learning curves. NaN stands for a motif that diverged and is
        replaced by the largest value of its column.
    accuracy : array-like, shape (N,), finite
        Accuracies in any unit.

    Returns
    -------
    GaussianProcess

    Notes
    -----
    The process is fitted to the normal scores of the accuracies' ranks, ``Phi^-1((rank - 1/2) / N)``, because the distribution
    of accuracies has a heavy lower tail. Predictions are mapped back to accuracies by a strictly increasing function. Features
    are standardised over the N cells. The kernel is ``a (1 + sqrt(3) r) exp(-sqrt(3) r) + noise`` with
    ``r**2 = sum_g |x_g - x'_g|**2 / l_g**2``, a Matern kernel with one length scale for each group. Its parameters have the
    largest marginal likelihood that L-BFGS finds from one start. Linear algebra runs on one thread, so that the same data gives
    the same bits.
    """
    known = np.asarray(checked_array("accuracy", accuracy), np.float64)
    listed = checked_list("features", features, "groups of features, arrays of shape (N, m)")
    parts = [np.asarray(checked_array("a group of features", part), np.float64) for part in listed]
    if not parts or any(part.ndim != 2 or known.shape != part.shape[:1] for part in parts):
        raise ValueError(
            f"features have shapes {[part.shape for part in parts]} with {known.shape} accuracies, expected one or more groups (N, m) "
            "with an accuracy for each of N cells"
        )
    table = np.concatenate(parts, axis=1)
    groups = tuple(part.shape[1] for part in parts)
    process = _regressor(groups, None)
    with _one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at its bound: the group predicts nothing
        process.fit(_standardised(table)[0], _normal_scores(known))
    return GaussianProcess(table, groups, known, np.asarray(process.kernel_.theta, np.float64))


class GroupedMatern(StationaryKernelMixin, NormalizedKernelMixin, Kernel):  # type: ignore[misc]
    """Matern kernel of smoothness 3/2 with one length scale for each group of columns.

    ``k = (1 + sqrt(3) r) exp(-sqrt(3) r)`` with ``r**2 = sum_g |x_g - x'_g|**2 / l_g**2`` (Rasmussen and Williams 2006,
    equation 4.17), and ``dk / dlog l_g = 3 |x_g - x'_g|**2 / l_g**2 exp(-sqrt(3) r)``.
    """

    def __init__(self, groups: tuple[int, ...], length_scale: Array) -> None:
        self.groups = groups
        self.length_scale = length_scale

    @property
    def hyperparameter_length_scale(self) -> Any:
        return Hyperparameter("length_scale", "numeric", (1e-1, 1e3), len(self.groups))

    def __call__(self, X: Array, Y: Array | None = None, eval_gradient: bool = False) -> Any:
        ends = np.cumsum(self.groups)
        columns = [slice(end - size, end) for size, end in zip(self.groups, ends, strict=True)]
        other = X if Y is None else Y
        squares = np.stack(
            [
                cdist(X[:, c], other[:, c], "sqeuclidean") / scale**2
                for c, scale in zip(columns, np.atleast_1d(self.length_scale), strict=True)
            ],
            axis=-1,
        )
        r = np.sqrt(3 * squares.sum(axis=-1))
        decay = np.exp(-r)
        if eval_gradient:
            return (1 + r) * decay, 3 * squares * decay[..., None]
        return (1 + r) * decay


def _regressor(groups: tuple[int, ...], theta: Array | None) -> Any:
    """Return an unfitted regressor. `theta` are its kernel's parameters; with None they are found by the fit."""
    matern = GroupedMatern(groups, np.sqrt(np.array(groups, np.float64)))
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * matern + WhiteKernel(0.3, (1e-3, 1e1))
    if theta is None:
        return GaussianProcessRegressor(kernel)
    return GaussianProcessRegressor(kernel.clone_with_theta(theta), optimizer=None)


def _standardised(known: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Return the standardised features of the labelled cells, and the function that standardises those of others in the
    same way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without a finite value is filled with 0
        worst = np.nan_to_num(np.nanmax(known, axis=0))
    filled = np.where(np.isnan(known), worst, known)
    mean, spread = filled.mean(axis=0), filled.std(axis=0)
    spread = np.where(spread > 1e-9 * np.abs(filled).max(axis=0), spread, np.inf)  # a constant column becomes 0

    place = partial(_placed, worst, mean, spread)
    return place(known), place


def _placed(worst: Array, mean: Array, spread: Array, others: Array) -> Array:
    placed: Array = (np.where(np.isnan(others), worst, others) - mean) / spread
    return placed


def _normal_scores(accuracy: Array) -> Array:
    return np.asarray(norm.ppf((rankdata(accuracy) - 0.5) / len(accuracy)))


def accuracies_of(scores: Array, accuracy: Array) -> npt.NDArray[np.float64]:
    """Map normal scores back to accuracies: linearly between the labelled cells, and linearly beyond them."""
    known, first = np.unique(_normal_scores(accuracy), return_index=True)
    values = accuracy[first]
    if len(known) == 1:
        return np.full(len(scores), values[0])
    place = np.clip(np.searchsorted(known, scores) - 1, 0, len(known) - 2)
    slope = np.diff(values) / np.diff(known)
    return np.asarray(values[place] + slope[place] * (scores - known[place]), np.float64)


def _one_thread() -> Any:
    """Run linear algebra on one thread, because its last bit may depend on how threads divide the work."""
    return threadpool_limits(limits=1)
