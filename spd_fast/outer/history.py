"""The history of an outer loop: the records of its outer epochs, and the checks on the validation cells among them."""

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
    """The record of one outer epoch, which is one line of ``metrics.jsonl``. The values of a motif that diverged are None.

    Attributes
    ----------
    epoch : int
        The number of the outer epoch, counted from 0.
    loss, pearson : float or None
        Outer loss, and Pearson's correlation of metric and truth, both before the outer step. None if too many motifs
        diverged, or if the value is not finite.
    kendall_tau : float
        Tau-b of the truth and the recipe's ranking score, which is the accuracy or the metric. 0 if it is undefined (the
        paper, section 5.2).
    kendall_tau_metric : float
        Tau-b of the truth and the metric, even if the recipe ranks by accuracy.
    tied, perfect : bool
        Whether the ranking scores of all motifs are equal, and whether all motifs classify every image correctly.
    cells : tuple of K str
        Hashes of the cells.
    truth : tuple of K float
        The truth of each cell.
    metric, accuracy, max_accuracy : tuple of K float
        The metric of each cell; the accuracy after training, on the set that the metric is read on; and the highest training
        accuracy of any inner epoch (the paper's figure 2). These are means over replicates.
    diverged : tuple of K bool
        Whether a motif of the cell diverged. Such cells take no part in the loss.
    curve_accuracy, curve_accuracy_sd, curve_loss, curve_loss_sd : tuple of float, one for each inner epoch
        Mean and population standard deviation, over the cells that did not diverge, of training accuracy and training loss
        (the paper's figure 3), rounded.
    gradient_norm : float or None
        Euclidean norm of the gradient of the loss in all free tensors, before clipping.
    trust : float or None
        The trust ratio: the actual change of the loss over the change that the gradient predicts for this outer step, for the
        same cells and initial weights. None if it was not measured.
    validation_tau_start, validation_tau : float or None
        Tau-b of the ranking score on the validation cells: before learning, in the first record alone; and after this outer
        epoch, None if there was no check.
    skipped : str
        Why this outer epoch took no outer step; empty if it took one.
    seconds : float
        Wall time of the outer epoch.
    core_seconds : float
        Processor time of this process in the outer epoch, over all threads. Other work of the machine hardly changes it. What
        other processes or machines train is not in it.
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
    core_seconds: float

    @property
    def mean_max_accuracy(self) -> float | None:
        """The mean of `max_accuracy` over the cells that did not diverge."""
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
            raise ValueError(
                f"a line of metrics lacks or adds fields ({odd}), expected those of this version of spd_fast; "
                "read it with the version that wrote it, or start the run anew"
            )
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
        }
        return cls(**fields)


def validation_checks(history: Sequence[OuterEpoch]) -> list[tuple[int, float]]:
    """Return (outer epochs done, tau-b on the validation cells) for every check, beginning with the dish before learning."""
    checks = [(0, record.validation_tau_start) for record in history[:1]] + [
        (record.epoch + 1, record.validation_tau) for record in history
    ]
    return [(done, tau) for done, tau in checks if tau is not None]


def kept_check(history: Sequence[OuterEpoch], keep: Literal["last", "best"]) -> tuple[int, float] | None:
    """Return (outer epochs done, tau-b on the validation cells) of the dish that ``outer.keep`` keeps. Of equally
    good dishes it is the earliest."""
    checks = validation_checks(history)
    if not checks:
        return None
    return checks[-1] if keep == "last" else best_check(checks)


def best_check(checks: Sequence[tuple[int, float]]) -> tuple[int, float]:
    return max(checks, key=lambda check: (check[1], -check[0]))
