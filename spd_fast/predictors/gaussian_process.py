"""The Gaussian process by which predictors learn from groups of features."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property, partial
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
from threadpoolctl import ThreadpoolController

from spd_fast.base.interrupts import stopped_with_main
from spd_fast.base.sums import mean_of
from spd_fast.base.types import Array, checked_array, checked_flag, checked_list, checked_number

__all__ = [
    "GaussianProcess",
    "fit_gaussian_process",
]


_WIDER: Final = 9.0
"""N labelled cells give standard deviations 1 + 9 / N times as large as the kernel says. Its parameters count as known there, though
they were found from the same N cells. The number was chosen on development cells, so that intervals hold their share of
the accuracies with 10 to 300 labelled cells: docs/rank.md."""


_MOST_LIKELIHOOD: Final = 1000
"""Labelled cells from which the kernel's parameters are found, at most. The likelihood is computed about thirty times, at a cost that grows with
the cube of their number."""


_EXPECTED_SLOPE: Final = 0.85
_SLOPE_WEIGHT: Final = 10.0
"""The slope of accuracies over prior scores, both as normal scores, that is expected before any cell is labelled, and the number of labelled cells
that it counts as much as."""


# ---- the Gaussian process


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """A Gaussian process on groups of features, with the accuracies that it learned from.

    With a prior score it is the mean of two processes: one of the accuracies, and one of how they differ from what the prior
    score alone predicts. `fit_gaussian_process` makes it.

    Attributes
    ----------
    features : ndarray, shape (N, M), float64
        The features of the N labelled cells. With a prior score that is the first column.
    groups : tuple of int
        The number of columns of each group; their sum is M, or M - 1 with a prior score. The columns of a group share a length scale.
    accuracy : ndarray, shape (N,), float64
    theta : ndarray, shape (P,) or (2, P)
        Logarithms of the kernel's parameters, as scikit-learn orders them. With a prior score the second row is of the second process.
    """

    features: Array
    groups: tuple[int, ...]
    accuracy: Array
    theta: Array

    @property
    def has_prior(self) -> bool:
        """Whether there is a prior score."""
        return self.theta.ndim == 2

    @cached_property
    def _fitted(self) -> tuple[list[tuple[Any, float]], Callable[[Array], tuple[Array, Array]]]:
        """The regressors, whose kernel matrices are factorised once, with the slope of the prior score that each one adds; and the function
        that returns prior scores and standardised features."""
        prior, place = _placing(self.features, self.has_prior)
        with _one_thread():
            processes = [
                (_regressor(self.groups, theta).fit(*known), slope)
                for theta, (slope, *known) in zip(
                    np.atleast_2d(self.theta), _tasks(*place(self.features), self.accuracy, prior), strict=True
                )
            ]
        return processes, place

    def predict(self, features: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the predicted accuracies, shape (n,), of cells with these features, shape (n, M)."""
        processes, _ = self._fitted
        with _one_thread():
            scores = np.concatenate(
                [
                    mean_of(
                        [
                            process.predict(part) + slope * prior if slope else process.predict(part)
                            for process, slope in processes
                        ]
                    )
                    for prior, part in self._pieces(features)
                ]
            )
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
        processes, _ = self._fitted
        means, spreads = [], []
        with _one_thread():
            for prior, part in self._pieces(features):
                found = [process.predict(part, return_std=True) for process, _ in processes]
                means.append(
                    mean_of(
                        [
                            mean + slope * prior if slope else mean
                            for (mean, _), (_, slope) in zip(found, processes, strict=True)
                        ]
                    )
                )
                spreads.append(mean_of([spread for _, spread in found]))
        return np.concatenate(means), np.concatenate(spreads) * (1 + _WIDER / len(self.accuracy))

    def _pieces(self, features: npt.ArrayLike) -> list[tuple[Array, Array]]:
        """Return prior scores and standardised features in pieces, so that kernel matrices stay small."""
        given, columns = np.asarray(checked_array("features", features), np.float64), sum(self.groups) + self.has_prior
        if given.ndim != 2 or given.shape[1] != columns:
            raise ValueError(f"features has shape {given.shape}, expected (n, {columns})")
        prior, wanted = self._fitted[1](given)
        n = max(1, len(wanted) // 4096)
        return list(zip(np.array_split(prior, n), np.array_split(wanted, n), strict=True))


def fit_gaussian_process(
    features: Iterable[npt.ArrayLike], accuracy: npt.ArrayLike, *, has_prior: bool = False
) -> GaussianProcess:
    """Fit a Gaussian process to labelled cells.

    Parameters
    ----------
    features : iterable of array-like, each of shape (N, m)
        Groups of features, for example structure and learning curves. NaN stands for a motif that diverged and is
        replaced by the largest value of its column.
    accuracy : array-like, shape (N,), finite
        Accuracies in any unit.
    has_prior : bool
        Whether the first group is no feature but a prior score, shape (N, 1): a score that needs no labels, such as the
        label-free score, on about the scale of normal scores. More is better.

    Returns
    -------
    GaussianProcess

    Notes
    -----
    With a prior score the predictions are the means of two processes: one is fitted as described below; the other one to the same normal
    scores less the prior score times a slope. The slope is that of a regression in which 0.85 is expected beforehand, with the weight of ten
    labelled cells. So few labels predict about as well as none, and the prior score does no harm where it says little.

    The process is fitted to the normal scores of the accuracies' ranks, ``Phi^-1((rank - 1/2) / N)``, because the distribution
    of accuracies has a heavy lower tail. Predictions are mapped back to accuracies by a strictly increasing function. Features
    are standardised over the N cells. The kernel is ``a (1 + sqrt(3) r) exp(-sqrt(3) r) + noise`` with
    ``r**2 = sum_g |x_g - x'_g|**2 / l_g**2``, a Matern kernel with one length scale for each group. Its parameters have the
    largest marginal likelihood that L-BFGS finds from one start. Linear algebra runs on one thread, so that the same data gives
    the same bits.

    It is meant for up to about 5,000 labelled cells. With more than 1,000 the kernel's parameters are found from 1,000 of them, evenly spread
    in the order of their accuracies (the "subset of data" of Rasmussen and Williams 2006, section 8.3.1); predictions rest on all of them. Their
    kernel matrix is factorised at the first prediction, in a time that grows with the cube of their number. It takes 8 N^2 bytes, twice
    that with a prior score, and several times as much while it is made. docs/scoreboard.md has the times.
    """
    has_prior = checked_flag("has_prior", has_prior)
    known = np.asarray(checked_array("accuracy", accuracy), np.float64)
    listed = checked_list("features", features, "groups of features, arrays of shape (N, m)")
    parts = [np.asarray(checked_array("a group of features", part), np.float64) for part in listed]
    if not parts or any(part.ndim != 2 or known.shape != part.shape[:1] for part in parts):
        raise ValueError(
            f"features have shapes {[part.shape for part in parts]} with {known.shape} accuracies, expected one or more groups (N, m) "
            "with an accuracy for each of N cells"
        )
    if has_prior and (len(parts) < 2 or parts[0].shape[1] != 1):
        raise ValueError(
            f"features have shapes {[part.shape for part in parts]} with has_prior, expected a column of prior scores and one or more groups"
        )
    table = np.concatenate(parts, axis=1)
    groups = tuple(part.shape[1] for part in parts[has_prior:])
    prior, place = _placing(table, has_prior)
    thetas, chosen = [], _spread_out(known)
    with _one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at its bound: the group predicts nothing
        for _, x, y in _tasks(*place(table), known, prior):
            thetas.append(np.asarray(_regressor(groups, None).fit(x[chosen], y[chosen]).kernel_.theta, np.float64))
    return GaussianProcess(table, groups, known, np.stack(thetas) if has_prior else thetas[0])


def _spread_out(accuracy: Array) -> Array:
    """Return the positions of the labelled cells from which the kernel's parameters are found: of all, or of some that are evenly spread in the
    order of their accuracies."""
    n = len(accuracy)
    if n <= _MOST_LIKELIHOOD:
        return np.arange(n)
    return np.sort(np.argsort(accuracy, kind="stable")[np.linspace(0, n - 1, _MOST_LIKELIHOOD).round().astype(int)])


def _placing(known: Array, has_prior: bool) -> tuple[bool, Callable[[Array], tuple[Array, Array]]]:
    """Return whether there is a prior score, and the function that takes features apart: into prior scores, less their mean over the labelled
    cells, and standardised features. A cell without a prior score has the least one of the labelled cells."""
    _, place = _standardised(known[:, has_prior:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no cell has one
        worst = float(np.nan_to_num(np.nanmin(known[:, 0])))

    middle = float(np.where(np.isnan(known[:, 0]), worst, known[:, 0]).mean())
    return has_prior, partial(_taken_apart, worst, middle, has_prior, place)


def _taken_apart(
    worst: float, middle: float, has_prior: bool, place: Callable[[Array], Array], features: Array
) -> tuple[Array, Array]:
    prior: Array = np.where(np.isnan(features[:, 0]), worst, features[:, 0]) - middle
    return prior, place(features[:, has_prior:])


def _tasks(prior: Array, features: Array, accuracy: Array, has_prior: bool) -> list[tuple[float, Array, Array]]:
    """Return what the processes are fitted to: the slope of the prior score, standardised features, and normal scores less the slope times the
    prior score."""
    scores = _normal_scores(accuracy)
    if not has_prior:
        return [(0.0, features, scores)]
    slope = float((_SLOPE_WEIGHT * _EXPECTED_SLOPE + prior @ scores) / (_SLOPE_WEIGHT + prior @ prior))
    return [(0.0, features, scores), (slope, features, scores - slope * prior)]


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
        stop = stopped_with_main(None)  # a fit calls the kernel again and again
        if stop is not None:
            stop(0.0)
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
    return _linear_algebra().limit(limits=1)


@cache
def _linear_algebra() -> Any:
    """Return what sets the threads of the libraries that NumPy and SciPy compute with. Finding them takes milliseconds, as long as everything
    else that the prediction of a cell needs."""
    return ThreadpoolController().select(user_api="blas")
