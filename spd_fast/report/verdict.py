"""How good a ranking is beside the cheapest control that does nearly as well, in numbers with intervals and in sentences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.ranks import kendall_tau
from spd_fast.base.types import Array

__all__ = ["Interval", "Verdict", "duration", "verdict_on"]

TOP: Final = 10
"""Number of cells ranked first that are looked at."""
_RESAMPLES: Final = 300
_NEARLY: Final = 0.03
"""A control whose tau is so near does nearly as well."""


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, samples: npt.ArrayLike) -> "Interval":
        """Return a number with the interval of its values on resamples."""
        low, high = np.quantile(np.asarray(samples), [0.025, 0.975])
        return cls(float(value), float(low), float(high))

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Verdict:
    """A ranking beside a control, on cells whose accuracy is known.

    Attributes
    ----------
    cells : int
        Number of cells.
    tau, control_tau, advantage : Interval
        Kendall's tau of the ranking, of the control, and the difference, on the same resamples of cells.
    control : str
        The best of the cheap controls, in words.
    hits, control_hits : float
        How many of the ten that are ranked first are truly among the `best`.
    best : int
        The size of the best tenth, or ten where that is more.
    """

    cells: int
    tau: Interval
    control: str
    control_tau: Interval
    advantage: Interval
    hits: float
    control_hits: float
    best: int

    @property
    def nearly(self) -> bool:
        """Whether the control does nearly as well, or the data cannot tell."""
        return self.advantage.value < _NEARLY or self.advantage.low <= 0

    @property
    def of_best(self) -> str:
        """Which cells count as best, in words."""
        return "the truly best tenth" if self.best > TOP else "the truly best ten"

    def quality(self, on: str) -> str:
        """Return sentences that say how good the ranking is: `on` names the cells."""
        chance = TOP * self.best / self.cells
        if self.nearly:
            beside = (
                f"{self.control[0].upper()}{self.control[1:]} alone does nearly as well: tau {self.control_tau}, "
                f"{self.control_hits:.0f} of ten. Be wary of this ranking."
            )
        else:
            beside = (
                f"No cheap control does nearly as well: the best one, {self.control}, has tau {self.control_tau} and "
                f"{self.control_hits:.0f} of ten. The ranking's tau is larger by {self.advantage}."
            )
        return (
            f"On {on}, the ranking agrees with the accuracies by a Kendall\u2019s tau of {self.tau} (1: the same order, 0: chance). "
            f"Of the ten ranked first, {self.hits:.0f} are among {self.of_best}; chance would give {chance:.1f}.\n{beside}"
        )


def verdict_on(scores: npt.ArrayLike, truth: npt.ArrayLike, controls: Mapping[str, Array]) -> Verdict:
    """Compare a ranking with cheap controls on cells whose accuracy is known.

    Parameters
    ----------
    scores : array-like, shape (n,) or (D, n)
        Larger is better. Several rankings of the same cells are averaged in their tau and hits.
    truth : array-like, shape (n,)
    controls : mapping of str to ndarray, shape (n,)
        Cheap scores by name, at least one, of either sign.

    Notes
    -----
    Intervals are those of the bootstrap over cells (Efron and Tibshirani 1993, chapter 13), with one seed. Scores that are not
    finite share the last place. All controls cost next to nothing, so the best one is the cheapest that does nearly as well.
    """
    table, reached = np.atleast_2d(np.asarray(scores, np.float64)), np.asarray(truth, np.float64)
    table = np.where(np.isfinite(table), table, np.min(table[np.isfinite(table)], initial=0.0) - 1.0)
    taus = {name: kendall_tau(values, reached) for name, values in controls.items()}
    control = max(taus, key=lambda name: abs(taus[name]))
    alone = np.asarray(controls[control], np.float64) * (1.0 if taus[control] >= 0 else -1.0)
    n = len(reached)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, n, (_RESAMPLES, n))
    own = np.array([_mean_tau(table[:, rows], reached[rows]) for rows in drawn])
    other = np.array([kendall_tau(alone[rows], reached[rows]) for rows in drawn])
    tau = _mean_tau(table, reached)
    best = max(TOP, n // 10)
    return Verdict(
        cells=n,
        tau=Interval.of(tau, own),
        control=control,
        control_tau=Interval.of(abs(taus[control]), other),
        advantage=Interval.of(tau - abs(taus[control]), own - other),
        hits=float(np.mean([_hits(each, reached, best) for each in table])),
        control_hits=_hits(alone, reached, best),
        best=best,
    )


def duration(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _mean_tau(table: Array, truth: Array) -> float:
    return float(np.mean([kendall_tau(each, truth) for each in table]))


def _hits(score: Array, truth: Array, best: int) -> float:
    """Return how many of the ten cells of the largest scores are among the best; the expected number where scores tie."""
    top = min(TOP, len(score))
    edge = np.sort(score)[-top]
    above, tied = score > edge, score == edge
    chosen = above + tied * ((top - above.sum()) / tied.sum())
    good = truth >= np.sort(truth)[-min(best, len(truth))]
    return float(chosen[good].sum())
