"""How well scores rank cells: measures of rank agreement with the truth, with intervals."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import Array, checked_array, checked_choice, checked_instance, checked_integer

__all__ = [
    "MEASURES",
    "Estimate",
    "Judged",
    "judge",
    "precision_at",
]

MEASURES: Final = ("tau", "rho", "tau_top", "precision_10", "precision_50")
"""Measures of rank agreement: Kendall's tau-b; Spearman's rho; tau-b inside the true top 10 %; share of the 10 and of
the 50 best-scored cells that are among the truly best 10 and 50."""
TOP: Final = 0.1
MIN_TEST_CELLS: Final = 100
"""Smallest number of test cells of a trial. With 100, tau has a standard error of 0.07."""
_COLUMNS: Final = 250  # of the matrices of signs at a time
_RESAMPLES: Final = 1000
_CONFIDENCE: Final = 0.95


# ---- the judgement


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, eq=False)
class Judged:
    """The measures of one row.

    Attributes
    ----------
    means : dict of measure to float
    samples : dict of measure to ndarray, shape (B,)
        The measure on every resample. All rows of a board have the same resamples.
    """

    means: dict[str, float]
    samples: dict[str, Array]

    def estimate(self, measure: str) -> Estimate:
        """Return a measure with its interval."""
        checked_choice("measure", measure, MEASURES)
        return _estimate(self.means[measure], self.samples[measure])

    def minus(self, other: "Judged", measure: str) -> Estimate:
        """Return the difference of a measure between two rows, on the same cells and seeds, with its interval."""
        checked_instance("other", other, Judged, "what judge returned")
        checked_choice("measure", measure, MEASURES)
        return _estimate(self.means[measure] - other.means[measure], self.samples[measure] - other.samples[measure])


def judge(scores: npt.ArrayLike, accuracy: npt.ArrayLike, *, resamples: int = _RESAMPLES, seed: int = 0) -> Judged:
    """Judge scores of cells by their accuracies.

    Parameters
    ----------
    scores : array-like, shape (S, n) or (n,)
        Scores of n cells for S seeds; larger is better. Cells whose score is not finite, because a motif diverged, share
        the last place.
    accuracy : array-like, shape (n,), n >= 100
    resamples : int
        The number B of bootstrap resamples.
    seed : int
        Seed of the resamples. Use the same seed for all scores that are compared.

    Returns
    -------
    Judged

    Raises
    ------
    ValueError
        If shapes do not fit each other, or there are fewer than 100 cells.

    Notes
    -----
    A resample draws n cells with replacement, the same for all seeds, and S seeds with replacement; its value of a measure is
    the mean over the drawn seeds. With S = 1 the interval covers the uncertainty of the cells alone. Two copies of a cell tie
    in both rankings, and tau-b leaves out such pairs. The true top 10 % are those of all n cells. Copies among the best cells
    of a resample raise precision a little, so its interval is slightly optimistic; its mean is not.
    """
    truth = np.asarray(checked_array("accuracy", accuracy), np.float64)
    table = np.atleast_2d(np.asarray(checked_array("scores", scores), np.float64))
    resamples, seed = checked_integer("resamples", resamples, 1), checked_integer("seed", seed, 0)
    if table.ndim != 2 or truth.ndim != 1 or table.shape[1:] != truth.shape:
        raise ValueError(f"scores have shape {np.shape(scores)}, expected (S, {len(truth)}) to match accuracy")
    n = len(truth)
    if n < MIN_TEST_CELLS:
        raise ValueError(f"there are {n} cells, expected at least {MIN_TEST_CELLS}: fewer say nothing about a ranking")
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, n, (resamples, n))
    counts = np.stack([np.bincount(row, minlength=n) for row in drawn]).astype(np.float64)
    top = truth >= np.quantile(truth, 1 - TOP)
    per_seed: dict[str, list[Array]] = {name: [] for name in MEASURES}
    everyone = np.arange(n)[None]
    for row in table:
        score = np.where(np.isfinite(row), row, np.nanmin(row[np.isfinite(row)], initial=0.0) - 1.0)
        for name, both in {
            "tau": (_taus(score, truth, np.ones((1, n))), _taus(score, truth, counts)),
            "rho": (_rhos(score, truth, everyone), _rhos(score, truth, drawn)),
            "tau_top": (
                _taus(score[top], truth[top], np.ones((1, int(top.sum())))),
                _taus(score[top], truth[top], counts[:, top]),
            ),
            "precision_10": (precision_at(10, score[None], truth[None]), precision_at(10, score[drawn], truth[drawn])),
            "precision_50": (precision_at(50, score[None], truth[None]), precision_at(50, score[drawn], truth[drawn])),
        }.items():
            per_seed[name].append(np.concatenate(both))
    seeds = rng.integers(0, len(table), (resamples, len(table)))
    means, samples = {}, {}
    for name, rows in per_seed.items():
        values = np.stack(rows)
        means[name] = float(values[:, 0].mean())
        samples[name] = values[:, 1:][seeds, np.arange(resamples)[:, None]].mean(axis=1)
    return Judged(means, samples)


def precision_at(k: int, scores: Array, accuracy: Array) -> npt.NDArray[np.float64]:
    """Return the share of the `k` best-scored cells that are among the `k` truly best.

    Parameters
    ----------
    k : int
    scores, accuracy : ndarray, shape (B, n), finite
        B rankings of n cells, one in each row.

    Returns
    -------
    ndarray, shape (B,)
        0 to 1. If cells tie at the k-th place, the expected share when ties are broken at random.

    Raises
    ------
    ValueError
        If the shapes differ or have not two axes, or `k` is not 1 to n.
    """
    scores, accuracy = checked_array("scores", scores), checked_array("accuracy", accuracy)
    if scores.ndim != 2 or scores.shape != accuracy.shape:
        raise ValueError(f"scores has shape {scores.shape} and accuracy {accuracy.shape}, expected (B, n) of both")
    k = checked_integer("k", k, 1, scores.shape[1])
    inside = [_places_inside(k, values) for values in (scores, accuracy)]
    share: npt.NDArray[np.float64] = (inside[0] * inside[1]).sum(axis=1) / k
    return share


def _places_inside(k: int, values: Array) -> Array:
    """Return the probability that each cell is among the k largest of its row if ties are broken at random."""
    edge = -np.partition(-values, k - 1, axis=1)[:, k - 1 : k]
    above, tied = values > edge, values == edge
    left = k - above.sum(axis=1, keepdims=True)
    inside: Array = above + tied * (left / tied.sum(axis=1, keepdims=True))
    return inside


def _taus(score: Array, truth: Array, counts: Array) -> Array:
    """Return tau-b for every row of `counts`, shape (B, n), which says how often each cell counts; 0 if tau is
    undefined.

    ``tau_b = c' (s o t) c / sqrt((c' |s| c) (c' |t| c))`` with a row c of counts, the matrices s and t of the signs of all
    differences, and their product o entry by entry. Columns are taken some at a time, so that memory is bounded and Ctrl-C is heard;
    all sums are of whole numbers, so that changes no bit.
    """
    both, of_score, of_truth = np.zeros((3, len(counts)))
    for start in range(0, len(score), _COLUMNS):
        at = slice(start, start + _COLUMNS)
        s, t = (np.sign(values[:, None] - values[at]) for values in (score, truth))
        for total, matrix in ((both, s * t), (of_score, np.abs(s)), (of_truth, np.abs(t))):
            total += ((counts @ matrix) * counts[:, at]).sum(axis=1)
    scale = np.sqrt(of_score * of_truth)
    taus: Array = np.divide(both, scale, out=np.zeros(len(counts)), where=scale > 0)
    return taus


def _rhos(score: Array, truth: Array, drawn: Array) -> Array:
    """Return Spearman's rho of the cells in every row of `drawn`, shape (B, n); 0 where it is undefined."""
    from scipy.stats import rankdata

    x, y = (rankdata(values[drawn], axis=1) - (drawn.shape[1] + 1) / 2 for values in (score, truth))
    scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    rhos: Array = np.divide((x * y).sum(axis=1), scale, out=np.zeros(len(drawn)), where=scale > 0)
    return rhos


def _estimate(mean: float, samples: Array) -> Estimate:
    low, high = np.quantile(samples, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Estimate(float(mean), float(low), float(high))
