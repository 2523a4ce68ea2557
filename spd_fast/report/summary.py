"""The numbers of a run's report, computed from its history, with their uncertainty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

import spd_fast.recipes as recipes
from spd_fast.outer.history import OuterEpoch, kept_check, validation_checks
from spd_fast.paper.stated import PAPER
from spd_fast.recipes.settings import Recipe

__all__ = ["MeanAndError", "Summary", "chance_tau_sd", "mean_max_accuracy", "moving_average", "summarise"]

EDGE: Final = 5
"""Number of outer epochs that are averaged at the beginning and at the end, as in the paper (section 5.1)."""


@dataclass(frozen=True)
class MeanAndError:
    """A mean over n values with its standard error; each is NaN if there are too few values for it."""

    mean: float
    error: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "MeanAndError":
        """Return the mean of some values with its standard error."""
        n = len(values)
        mean = float(np.mean(values)) if n else math.nan
        error = float(np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
        return cls(mean, error, n)

    def __str__(self) -> str:
        if self.n == 0:
            return "none"
        return f"{self.mean:+.3f}" if math.isnan(self.error) else f"{self.mean:+.3f} ± {self.error:.3f}"


@dataclass(frozen=True)
class Summary:
    """The numbers of a run's report.

    Attributes
    ----------
    tau : MeanAndError
        Kendall's tau of the ranking scores, over all outer epochs.
    tau_untied : MeanAndError
        The same without the outer epochs in which all ranking scores tie.
    tau_metric : MeanAndError
        Kendall's tau of the metric, over all outer epochs.
    loss_first, loss_last, accuracy_first, accuracy_last : float
        Means over the first and over the last five outer epochs of the outer loss, and of the motifs' highest accuracies.
    perfect, tied : float
        Share of outer epochs in which all motifs are perfect, or all ranking scores tie.
    validation_tau_start, validation_tau_end : float or None
        Tau on the validation cells, of the dish before learning and of the dish that is kept.
    kept_after_epochs : int or None
        The number of outer epochs after which the dish that is kept was found.
    trust : float or None
        Median trust ratio of the outer steps.
    skipped, diverged : int
        The number of outer epochs without an outer step, and the number of motifs that diverged.
    seconds : float
        Wall time of all outer epochs together.
    chance : float
        Standard deviation of tau in one outer epoch if scores and accuracies were independent.
    paper : dict
        The paper's own results of this recipe, by the names above; empty if the paper has none.
    """

    epochs: int
    tau: MeanAndError
    tau_untied: MeanAndError
    tau_metric: MeanAndError
    loss_first: float
    loss_last: float
    accuracy_first: float
    accuracy_last: float
    perfect: float
    tied: float
    validation_tau_start: float | None
    validation_tau_end: float | None
    kept_after_epochs: int | None
    trust: float | None
    skipped: int
    diverged: int
    seconds: float
    chance: float
    paper: dict[str, float]


def summarise(history: Sequence[OuterEpoch], recipe: Recipe) -> Summary:
    """Compute the numbers of the report from a history."""
    accuracy = [record.mean_max_accuracy for record in history if record.mean_max_accuracy is not None]
    losses = [record.loss for record in history if record.loss is not None]
    checks, check = validation_checks(history), kept_check(history, recipe.outer.keep)
    trust = [record.trust for record in history if record.trust is not None]
    return Summary(
        epochs=len(history),
        tau=MeanAndError.of([record.kendall_tau for record in history]),
        tau_untied=MeanAndError.of([record.kendall_tau for record in history if not record.tied]),
        tau_metric=MeanAndError.of([record.kendall_tau_metric for record in history]),
        loss_first=_mean(losses[:EDGE]),
        loss_last=_mean(losses[-EDGE:]),
        accuracy_first=_mean(accuracy[:EDGE]),
        accuracy_last=_mean(accuracy[-EDGE:]),
        perfect=_mean([record.perfect for record in history]),
        tied=_mean([record.tied for record in history]),
        validation_tau_start=checks[0][1] if checks else None,
        validation_tau_end=None if check is None else check[1],
        kept_after_epochs=None if check is None else check[0],
        trust=float(np.median(trust)) if trust else None,
        skipped=sum(bool(record.skipped) for record in history),
        diverged=sum(sum(record.diverged) for record in history),
        seconds=sum(record.seconds for record in history),
        chance=chance_tau_sd(recipe.outer.cells),
        paper=_paper_results(recipe),
    )


def chance_tau_sd(n: int) -> float:
    """Return the standard deviation of Kendall's tau of two independent rankings of `n` cells without ties.

    References
    ----------
    Kendall 1938, A new measure of rank correlation, Biometrika 30: ``sqrt(2 (2n + 5) / (9 n (n - 1)))``.
    """
    return math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))


def moving_average(values: npt.ArrayLike, size: int = 3) -> npt.NDArray[np.float64]:
    """Return the mean of each value and its neighbours. At the ends there are fewer neighbours; NaN values are left out."""
    array = np.asarray(values, np.float64)
    present = np.isfinite(array)
    window = np.ones(size)
    if not len(array):
        return array
    reach = size // 2
    total = np.convolve(np.where(present, array, 0.0), window)[reach : reach + len(array)]
    count = np.convolve(present.astype(float), window)[reach : reach + len(array)]
    average: npt.NDArray[np.float64] = np.divide(total, count, out=np.full(len(array), np.nan), where=count > 0)
    return average


def mean_max_accuracy(history: Sequence[OuterEpoch]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean and the standard deviation of the motifs' highest accuracies in each outer epoch; NaN if all motifs
    diverged."""
    rows = [[value for value in record.max_accuracy if value is not None] for record in history]
    means = np.array([np.mean(row) if row else np.nan for row in rows], np.float64)
    spread = np.array([np.std(row) if row else np.nan for row in rows], np.float64)
    return means, spread


def _paper_results(recipe: Recipe) -> dict[str, float]:
    """Return the paper's results if a recipe has the paper's settings, whatever its seed."""
    if recipe.name not in PAPER or recipes.get(recipe.name).replace({"seed": recipe.seed}) != recipe:
        return {}
    return dict(PAPER[recipe.name])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan
