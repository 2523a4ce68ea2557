"""Ridge regression of the target on the losses of the inner steps."""

import math

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import Array


def ridge_weights(features: Array, target: Array) -> npt.NDArray[np.float64]:
    """Return the weights of a ridge regression with a free intercept; its penalty is chosen by leave-one-out
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
    ``(X' X + lambda I) w = X' y`` of features over their own standard deviations and centred values. Of the penalties lambda = s_1^2 10^p, s_1
    the largest singular value and p = -1, -0.5, ..., 1, the one of least squared error of ``(y - X w) / (1 - h)``, h the diagonal of the hat
    matrix: what every cell's error is where it is left out. Smaller penalties, down to 10^-6, were no better with 100 labels and far less
    steady with 30: what leaving out prefers is then mostly chance (docs/experiments.md).
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
