"""What is recorded of an outer loop, and what the records say of the validation cells."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from spd_fast.base.types import Number

__all__ = [
    "OuterEpoch",
    "kept_check",
    "validation_checks",
]


@dataclass(frozen=True)
class OuterEpoch:
    """The record of one outer epoch: one line of ``metrics.jsonl``. The value of a motif that diverged is None.

    Attributes
    ----------
    epoch : int
        Counted from 0.
    loss, pearson : float or None
        Outer loss, and Pearson's correlation of metric and truth, both before the step. None where the step was
        skipped.
    kendall_tau : float
        Tau-b of the recipe's ranking score (accuracy or metric) and truth; 0 where it is undefined (the paper, section 5.2).
    kendall_tau_metric : float
        Tau-b of the metric and truth, even where the recipe ranks by accuracy.
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
    validation_tau_start, validation_tau : float or None
        Tau-b of the ranking score on the validation cells: before learning (in the first record alone) and after the
        step (None in epochs without a check).
    skipped : str
        Why this epoch did not change the dish; empty if it did.
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
    validation_tau_start: Number
    validation_tau: Number
    skipped: str
    seconds: float

    @property
    def mean_max_accuracy(self) -> float | None:
        """Mean of `max_accuracy` over the motifs that did not diverge."""
        values = [value for value in self.max_accuracy if value is not None]
        return float(np.mean(values)) if values else None

    def to_json(self) -> dict[str, Any]:
        """Return the record as a dictionary that `json.dumps` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "OuterEpoch":
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


def validation_checks(history: Sequence[OuterEpoch]) -> list[tuple[int, float]]:
    """Return (outer epochs done, tau-b on the validation cells) of every dish that was checked, beginning with the dish
    before learning."""
    checks = [(0, record.validation_tau_start) for record in history[:1]] + [
        (record.epoch + 1, record.validation_tau) for record in history
    ]
    return [(done, tau) for done, tau in checks if tau is not None]


def kept_check(history: Sequence[OuterEpoch], keep: Literal["last", "best"]) -> tuple[int, float] | None:
    """Return (outer epochs done, tau-b on the validation cells) of the dish that ``outer.keep`` keeps; of equally good
    ones, the earliest."""
    checks = validation_checks(history)
    if not checks:
        return None
    return checks[-1] if keep == "last" else best_check(checks)


def best_check(checks: Sequence[tuple[int, float]]) -> tuple[int, float]:
    return max(checks, key=lambda check: (check[1], -check[0]))
