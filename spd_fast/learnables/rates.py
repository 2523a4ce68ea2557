"""The learnable "rates": the learning rates of the inner loop's steps."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import Array
from spd_fast.learnables.learnable import DishForm, Learnable, Picture

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Rates", "learning_rates"]


class Rates(Learnable):
    """The learning rate of every step (Such et al. 2020, GTN, arXiv:1912.07768). The free tensor holds the logarithms."""

    meaning = "the learning rate of every inner step, through its logarithm (Such et al. 2020, GTN, arXiv:1912.07768)"
    picture = Picture("curve", axis="inner step", title="learning rate")

    def __init__(self) -> None:
        super().__init__("rates")

    def begin(self, arrays: dict[str, Array], form: DishForm) -> None:
        """Begin with the rates of the recipe's optimizer and schedule."""
        rates = arrays.setdefault(self.name, form.rates)
        if not (rates > 0).all():
            raise ValueError(f"rates hold {rates.min()}, expected above 0: rates are learned through their logarithms")

    def checked(self, values: Any, arrays: Mapping[str, Array]) -> Array:
        """Return finite numbers of at least 0, shape (steps,)."""
        array = np.asarray(values, np.float64)
        if array.ndim != 1 or not (np.isfinite(array) & (array >= 0)).all():
            raise ValueError(f"rates are {array.tolist()}, expected finite numbers of at least 0, one for each step")
        return array

    def to_free(self, value: "Tensor", form: DishForm) -> "Tensor":
        """Return logarithms."""
        return value.log()

    def from_free(self, free: "Tensor", start: "Mapping[str, Tensor]", form: DishForm) -> "Tensor":
        """Return exponentials."""
        return free.exp()


def learning_rates(
    schedule: Literal["cosine"] | npt.ArrayLike | None, lr: float, steps: int
) -> npt.NDArray[np.float64]:
    """Return the rates, which are the learning rates of all steps: shape (steps,).

    `schedule` is as in `train_motifs`, `lr` is the optimizer's learning rate.

    Raises
    ------
    ValueError
        If the schedule is unknown, or if its array has another length or is not finite.
    """
    if schedule is None:
        return np.full(steps, lr)
    if isinstance(schedule, str):
        if schedule != "cosine":
            raise ValueError(f"schedule is {schedule!r}, expected None, 'cosine' or an array of rates")
        return lr * (1 + np.cos(np.pi * np.arange(steps) / max(steps, 1))) / 2
    rates = np.ascontiguousarray(schedule, np.float64)
    if rates.shape != (steps,):
        raise ValueError(f"schedule has shape {rates.shape}, expected ({steps},): one rate for each step")
    if not np.isfinite(rates).all():
        raise ValueError("schedule holds NaN or infinity, expected finite rates")
    return rates
