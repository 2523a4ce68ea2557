"""What is recorded of an outer loop, and what the records say of the cells kept out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spd_fast.base.types import Number
from spd_fast.recipes.settings import Recipe

__all__ = [
    "OuterStep",
    "kept_look",
    "kept_looks",
]


@dataclass(frozen=True)
class OuterStep:
    """What is recorded of one outer epoch: one line of ``metrics.jsonl``. None stands where a motif diverged.

    Attributes
    ----------
    epoch : int
        Counted from 0.
    loss, pearson : float or None
        Outer loss, and the signed correlation of metric and truth; before the step. None where the step was skipped.
    kendall_tau : float
        Tau-b of the recipe's ranking score (accuracy or metric) and truth; 0 where it is undefined (the paper, section 5.2).
    kendall_tau_metric : float
        The same of the metric, whatever the recipe ranks by.
    tied, perfect : bool
        Whether the ranking scores of all motifs are equal; whether all motifs classify the whole dish correctly.
    cells : tuple of K str
        Hashes of the cells.
    truth, metric, accuracy, max_accuracy : tuple of K float
        Accuracy of the cell; metric of its motif, and its accuracy after training on the set that the metric is read on; the
        highest accuracy of any inner epoch, as training saw it (the paper's figure 2). Means over replicates.
    diverged : tuple of K bool
        Motifs that diverged take no part in the loss.
    curve_accuracy, curve_accuracy_sd, curve_loss, curve_loss_sd : tuple of floats, one per inner epoch
        Mean and population standard deviation over the motifs that did not diverge (the paper's figure 3), rounded.
    gradient_norm : float or None
        Euclidean norm of the gradient of the loss in everything that is learned, before clipping.
    trust : float or None
        Actual change of the loss over the change that the gradient predicts for the step that was taken, same cells, same
        initial weights; None where it was not measured. Near 1: the step does what the gradient says.
    kept_tau_start, kept_tau : float or None
        Tau-b of the ranking score on the cells kept out: of the dish before learning, in the first record alone; of the dish
        after the step, None where nobody looked.
    skipped : str
        Why nothing was changed in this epoch; empty where it was.
    seconds : float
        Wall time of the epoch.
    """

    epoch: int
    loss: Number
    pearson: Number
    kendall_tau: float
    kendall_tau_metric: float
    tied: bool
    perfect: bool
    cells: tuple[str, ...]
    truth: tuple[float, ...]
    metric: tuple[Number, ...]
    accuracy: tuple[Number, ...]
    max_accuracy: tuple[Number, ...]
    diverged: tuple[bool, ...]
    curve_accuracy: tuple[float, ...]
    curve_accuracy_sd: tuple[float, ...]
    curve_loss: tuple[float, ...]
    curve_loss_sd: tuple[float, ...]
    gradient_norm: Number
    trust: Number
    kept_tau_start: Number
    kept_tau: Number
    skipped: str
    seconds: float

    @property
    def mean_max_accuracy(self) -> float | None:
        """Mean of `max_accuracy` over the motifs that did not diverge."""
        values = [value for value in self.max_accuracy if value is not None]
        return float(np.mean(values)) if values else None

    def to_json(self) -> dict[str, Any]:
        """Return the step as a dictionary that `json.dumps` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "OuterStep":
        """Read what `to_json` returned.

        Raises
        ------
        ValueError
            If a field is missing or unknown.
        """
        names = set(cls.__dataclass_fields__)
        if set(record) != names:
            odd = ", ".join(sorted(set(record) ^ names))
            raise ValueError(f"a line of metrics does not fit this version: {odd} missing or unknown")
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
        }
        return cls(**fields)


def kept_looks(history: Sequence[OuterStep]) -> list[tuple[int, float]]:
    """Return (steps taken, tau-b on the cells kept out) of every dish that was looked at, that before learning first."""
    looks = [(0, step.kept_tau_start) for step in history[:1]] + [(step.epoch + 1, step.kept_tau) for step in history]
    return [(steps, tau) for steps, tau in looks if tau is not None]


def kept_look(history: Sequence[OuterStep], recipe: Recipe) -> tuple[int, float] | None:
    """Return (steps taken, tau-b on the cells kept out) of the dish that is kept; of equals the earliest."""
    looks = kept_looks(history)
    if not looks:
        return None
    return looks[-1] if recipe.outer.keep == "last" else best_look(looks)


def best_look(looks: Sequence[tuple[int, float]]) -> tuple[int, float]:
    return max(looks, key=lambda look: (look[1], -look[0]))
