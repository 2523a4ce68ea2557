"""In which order motifs are trained, and how long that takes.

One motif of every cell comes first. Four fifths of the candidates get a second one, the best fifth a third one, and the best eighth
all of them: fewer and fewer candidates get more and more, as in successive halving. Then all others get theirs. A budget of
time may end this at any point.

References
----------
Jamieson and Talwalkar 2016, Non-stochastic Best Arm Identification and Hyperparameter Optimization, arXiv:1502.07943.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.executors import Spread
from spd_fast.base.types import Array, NamedProgress
from spd_fast.predictors.gaussian_process import GaussianProcess, fit_gaussian_process
from spd_fast.ranking.measuring import Curves

__all__ = ["FEWEST_LABELLED", "SHARE", "Judge", "Pace", "about", "measure"]

FEWEST_LABELLED: Final = 10
"""Labelled cells that a Gaussian process needs to be of use; with fewer, cells are ranked without labels."""
SHARE: Final = 0.9
"""Probability that an interval of a predicted accuracy is meant to hold."""
SHARES: Final = (1.0, 0.8, 0.2, 0.125)
"""Shares of the candidates that get a first, a second, a third, and each further motif before the others get theirs. They were
chosen on development cells: with a quarter of the time, tau lost least where the ten candidates ranked first were as good as with
all motifs."""
_CHUNK_SECONDS: Final = 1.0
"""Length of a piece of work, after which it is kept on the disk and the budget is looked at."""
_FIRST_CHUNK: Final = 32
"""Cells in the first piece, whose time tells how long the others take."""
_ROUNDED_TO: Final = ((7200, 1800, 3600, "h"), (600, 300, 60, "min"), (90, 60, 60, "min"), (0, 10, 1, "s"))
"""From so many seconds on, times are told to so many seconds, in a unit of so many seconds with this name."""


class Judge:
    """Predicts accuracies from structure and from as many replicates of learning curves as a cell has.

    Parameters
    ----------
    curves : Curves
    structure : ndarray, shape (n, M)
        Structural features of the cells of `curves`.
    pool : ndarray of int, shape (m,)
        Rows of the labelled cells.
    target : ndarray, shape (m,)
        Their accuracies.
    """

    def __init__(self, curves: Curves, structure: Array, pool: npt.NDArray[np.int64], target: Array) -> None:
        self.curves, self.structure, self.pool, self.target = curves, structure, pool, target
        self._processes: dict[int, GaussianProcess] = {}

    @property
    def learns(self) -> bool:
        """Whether there are labelled cells enough to learn from, which do not all have one accuracy."""
        return len(self.pool) >= FEWEST_LABELLED and bool(np.ptp(self.target) > 0)

    def groups(self, rows: npt.NDArray[np.int64], replicates: int) -> list[Array]:
        """Return the groups of features of cells: structure; if there are replicates, the label-free score of the first ones before it, which is
        the prior score, and their curves behind it."""
        if not replicates:
            return [self.structure[rows]]
        score = self.curves.mean_score_of(rows, replicates)
        return [score[:, None], self.structure[rows], self.curves.mean_curve(rows, replicates)]

    def groups_of_pool(self) -> list[Array]:
        """Return the features of the labelled cells, with all replicates that each of them has; none if none are learned from."""
        return self.groups(self.pool, self.learned_replicates) if self.learns else []

    @property
    def learned_replicates(self) -> int:
        """The number of first replicates that were measured of every labelled cell."""
        return int(self.curves.done[self.pool].min())

    def predict(self, rows: npt.NDArray[np.int64]) -> tuple[Array, Array, Array] | None:
        """Return predicted accuracies of cells with their intervals, shape (len(rows),) each; None where nothing can be learned."""
        if not self.learns:
            return None
        found = np.empty((3, len(rows)))
        levels = np.minimum(self.curves.done[rows], self.learned_replicates)
        for level in np.unique(levels).tolist():
            here = np.flatnonzero(levels == level)
            features = np.concatenate(self.groups(rows[here], level), axis=1)
            found[:, here] = self._process(level).predict_interval(features, SHARE)
        return found[0], found[1], found[2]

    def promise(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the rows in the order in which they are worth measuring: what may be best comes first."""
        predicted = self.predict(rows)
        value = np.nan_to_num(self.curves.mean_score()[rows], nan=-np.inf) if predicted is None else predicted[2]
        return rows[np.argsort(-value, kind="stable")]

    def _process(self, level: int) -> GaussianProcess:
        if level not in self._processes:
            self._processes[level] = fit_gaussian_process(
                self.groups(self.pool, level), self.target, has_prior=level > 0
            )
        return self._processes[level]


@dataclass
class Pace:
    """How fast motifs are trained.

    Attributes
    ----------
    cost, seconds : float
        FLOPs of all motifs that were trained so far, for one image each, and the wall time that they took together.
    """

    cost: float = 0.0
    seconds: float = 0.0

    @property
    def known(self) -> bool:
        """Whether anything was trained yet."""
        return self.cost > 0

    def add(self, cost: float, seconds: float) -> None:
        """Take note of a piece of work."""
        self.cost += cost
        self.seconds += max(seconds, 1e-6)

    def time_of(self, cost: float) -> float:
        """Return the seconds that motifs of so many FLOPs will take. Time is taken to be proportional to FLOPs."""
        return cost * self.seconds / self.cost

    def fitting(self, costs: npt.NDArray[np.int64], seconds: float) -> int:
        """Return how many of the first motifs with these FLOPs can be trained in so many seconds: at least one."""
        if not self.known:
            return _FIRST_CHUNK
        return max(1, int(np.searchsorted(np.cumsum(costs), seconds * self.cost / self.seconds, side="right")))


def about(seconds: float) -> str:
    """Return a duration in words, rounded so that it does not change with every second."""
    for least, step, unit, name in _ROUNDED_TO:
        if seconds >= least:
            return f"about {max(step, math.ceil(seconds / step) * step) / unit:g} {name}"
    raise AssertionError("the last step begins at 0")


def measure(
    judge: Judge,
    wanted: npt.NDArray[np.int64],
    budget: float | None,
    progress: NamedProgress | None,
    spread: Spread | None = None,
) -> None:
    """Train motifs of the labelled cells and of the candidates until all are measured, or the budget is spent.

    Before the first motifs, but for a few that are timed, `progress` is told how long the others will take.

    Parameters
    ----------
    judge : Judge
    wanted : ndarray of int
        Rows of the candidates.
    budget : float, optional
        Seconds after which no further piece of work is begun.
    progress : callable, optional
        It is called after every piece with what is being done and with the share that is done: of the FLOPs of all motifs, to which
        their time is taken to be proportional, or of the budget if that is shorter.
    spread : Spread, optional
        The executor that trains motifs. Without a budget, it trains all of them in the order of their length: which cells may be the
        best is then not asked.
    """
    curves, replicates, pace = judge.curves, judge.curves.score.shape[0], Pace()
    pool = judge.pool if judge.learns else np.empty(0, np.int64)
    everything = np.union1d(wanted, pool)
    curves.plan(len(everything) * replicates)
    costs = np.maximum(curves.cost, 1)  # a cell that nothing leads through takes no time, but it is to be counted
    whole = float(costs[everything].sum()) * replicates
    done = float((costs * curves.has.sum(axis=0))[everything].sum())
    began, already, announced, returned = time.perf_counter(), done, False, 0
    if progress is not None:
        progress(f"training motifs of {len(everything):,} cells", 0.0)

    def is_over() -> bool:
        return budget is not None and time.perf_counter() - began >= budget

    def work() -> Iterator[tuple[str, Generator[npt.NDArray[np.int64]]]]:
        if spread is not None and budget is None:
            place, here = np.nonzero(~curves.has[:, everything])
            yield (
                f"{replicates} motifs of {len(everything):,} cells",
                curves.measure_by(spread, everything[here], place),
            )
            return
        for rows, each in _passes(judge, np.setdiff1d(wanted, pool), pool, replicates):
            which = f"motif {each + 1} of {replicates} of {len(rows):,} cells"
            if spread is None:
                yield which, _pieces(curves, rows, each, pace, is_over)
            else:
                together = np.full(len(rows), each)
                yield which, curves.measure_by(spread, rows, together, longest_first=False, until=is_over)

    for which, pieces in work():
        with closing(pieces):
            started = time.perf_counter()
            for piece in pieces:
                pace.add(float(costs[piece].sum()), time.perf_counter() - started)
                done += float(costs[piece].sum())
                if progress is not None:
                    spent, left = time.perf_counter() - began, pace.time_of(whole - done)
                    share = (done - already) / (whole - already)
                    if budget is not None and budget < spent + left:
                        share = min(1.0, spent / budget)
                    returned += 1
                    # on a cluster, the first pieces tell the time only when every worker has returned one
                    if announced or (spread is not None and returned < spread.slots()):
                        progress(f"training {which}", share)
                    else:
                        announced = True
                        progress(_announcement(len(everything), pace.time_of(whole - done), budget), share)
                started = time.perf_counter()
        if is_over():
            return


def _pieces(
    curves: Curves, rows: npt.NDArray[np.int64], replicate: int, pace: Pace, is_over: Callable[[], bool]
) -> Generator[npt.NDArray[np.int64]]:
    """Measure cells with the threads of this process, in pieces; yield each when it is measured."""
    costs = np.maximum(curves.cost, 1)
    while len(rows) and not is_over():
        size = pace.fitting(costs[rows], _CHUNK_SECONDS)
        piece, rows = rows[:size], rows[size:]
        curves.measure(piece, replicate)
        yield piece


def _announcement(cells: int, seconds: float, budget: float | None) -> str:
    what = f"training all motifs of {cells:,} cells takes {about(seconds)}"
    return what if budget is None or budget >= seconds else f"{what}, of which the budget is {about(budget)}"


def _passes(
    judge: Judge, others: npt.NDArray[np.int64], pool: npt.NDArray[np.int64], replicates: int
) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    """Yield rows of which a replicate is to be trained next, and that replicate.

    A process that reads r replicates learns from the labelled cells' first r, so these go before the candidates'. That the
    rows were measured is looked up when the next ones are asked for.
    """
    done, front = judge.curves.done, others
    for replicate in range(replicates):
        yield pool[done[pool] == replicate], replicate
        share = SHARES[min(replicate, len(SHARES) - 1)]
        front = judge.promise(front)[: math.ceil(share * len(others))]
        yield front[done[front] == replicate], replicate
    for replicate in range(replicates):
        yield judge.promise(others[done[others] == replicate]), replicate
