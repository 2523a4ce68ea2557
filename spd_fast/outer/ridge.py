"""Ridge regression of the target on the training losses of the steps, which gives step weights."""

import math

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import Array


def ridge_weights(features: Array, target: Array) -> npt.NDArray[np.float64]:
    """Return the coefficients of a ridge regression with a free intercept. The penalty is chosen by leave-one-out
    cross-validation.

    Parameters
    ----------
    features : ndarray, shape (K, T)
    target : ndarray, shape (K,)

    Returns
    -------
    ndarray, shape (T,)

    Notes
    -----
    The coefficients solve ``(X' X + lambda I) w = X' y``. X are the centred features, each divided by its standard deviation, and y is the
    centred target. The penalties are lambda = s_1^2 10^p with the largest singular value s_1 and p = -1, -0.5, ..., 1. The one with the
    smallest mean square of ``(y - X w) / (1 - h)`` is used, where h is the diagonal of the hat matrix: this is the error of every cell when
    it is left out. Smaller penalties, down to p = -6, were no better with 100 labelled cells. With 30 they were far less steady, because
    their choice is then mostly chance (docs/notes/experiments.md).
    """
    spread = features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    x, y = (features - features.mean(axis=0)) / spread, target - target.mean()
    u, s, vt = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    best, solved = math.inf, np.zeros(features.shape[1])
    if s[0] == 0:
        return solved
    for penalty in s[0] ** 2 * 10.0 ** np.arange(-1, 1.5, 0.5):
        shrunk = s**2 / (s**2 + penalty)
        leverage = 1 / len(y) + (u**2) @ shrunk
        error = float(np.mean(((y - u @ (shrunk * (u.T @ y))) / (1 - leverage)) ** 2))
        if error < best:
            best, solved = error, vt.T @ (s / (s**2 + penalty) * (u.T @ y)) / spread
    return solved
