"""Rank agreement of two vectors."""

import numpy as np
import numpy.typing as npt

__all__ = [
    "kendall_tau",
]


def kendall_tau(score: npt.ArrayLike, accuracy: npt.ArrayLike) -> float:
    """Return Kendall's tau-b of two vectors; 0 if it is undefined.

    Parameters
    ----------
    score, accuracy : array-like, shape (K,)
        Finite numbers. The variant b corrects for ties.

    Returns
    -------
    float
        -1 to 1. It is 0 if all scores or all accuracies tie, or if there are fewer than two: the paper counts an outer epoch in
        which all motifs are perfect as 0.

    References
    ----------
    Cassimon et al., section 5.2. Kendall 1945, The treatment of ties in ranking problems, Biometrika 33(3).
    """
    from scipy.stats import kendalltau

    x, y = np.asarray(score, np.float64), np.asarray(accuracy, np.float64)
    if len(x) < 2 or np.all(x == x[0]) or np.all(y == y[0]):
        return 0.0
    return float(kendalltau(x, y, variant="b").statistic)
