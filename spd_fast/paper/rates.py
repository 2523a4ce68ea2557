"""The search for the inner learning rate with which motifs reach the accuracies that the paper states."""

from collections.abc import Callable, Mapping
from typing import Final

from spd_fast.paper.stated import INNER_RATE, PAPER

__all__ = ["MOST_ATTEMPTS", "RATES", "SEARCHED", "closest_rate", "search_rate", "target_accuracy"]

RATES: Final = (INNER_RATE, 7e-5, 1e-4, 1.5e-4, 2e-4, 3e-4, 4e-4, 5e-4, 7e-4, 1e-3, 1.5e-3, 2e-3)
"""The rates that are tried, from the paper's own upwards."""
MOST_ATTEMPTS: Final = len(RATES).bit_length()
"""How many rates a search tries at most: it halves the list each time."""

SEARCHED: Final = {"A": "cassimon_a16", "B": "cassimon_b16", "C": "cassimon_c"}
"""The recipe in which a motif's rate is searched for. After 100 inner epochs motifs A and B are nearly perfect at any rate, so that
their accuracy after 16 says more."""


def target_accuracy(motif: str) -> float:
    """Return the accuracy that the paper states for the recipe of `SEARCHED`.

    It is that of the last five outer epochs; where the paper also states that of the first five, it is the mean of both.
    """
    stated = PAPER[SEARCHED[motif]]
    return (stated.get("accuracy_first", stated["accuracy_last"]) + stated["accuracy_last"]) / 2


def search_rate(target: float, measure: Callable[[float], float]) -> float:
    """Find the rate of `RATES` whose accuracy is closest to the target, by halving the list.

    The search takes it that a larger rate has a larger accuracy.

    Parameters
    ----------
    target : float
        An accuracy, 0 to 1.
    measure : callable
        ``measure(rate)`` returns the accuracy that motifs reach with a rate. It is called `MOST_ATTEMPTS` times at most.

    Examples
    --------
    >>> search_rate(0.5, lambda rate: min(1.0, 1600 * rate))
    0.0003
    """
    tried: dict[float, float] = {}
    low, high = 0, len(RATES)  # all rates before `low` are too small, those from `high` on reach the target
    while low < high:
        middle = (low + high) // 2
        tried[RATES[middle]] = measure(RATES[middle])
        if tried[RATES[middle]] < target:
            low = middle + 1
        else:
            high = middle
    return closest_rate(target, tried)


def closest_rate(target: float, tried: Mapping[float, float]) -> float:
    """Return the rate whose accuracy is closest to the target; of two that are equally close, the smaller one."""
    return min(tried, key=lambda rate: (abs(tried[rate] - target), rate))
