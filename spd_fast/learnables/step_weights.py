"""The learnable "step_weights": factors of the steps' training losses in the metric "training_loss", of any sign and sum."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from spd_fast.base.types import Array
from spd_fast.learnables.learnable import DishForm, Learnable, Picture

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["StepWeights", "equal_weights"]


class StepWeights(Learnable):
    """A factor of each step's training loss in the metric "training_loss"."""

    meaning = 'factors of the training losses of the inner steps in the metric "training_loss"'
    picture = Picture("curve", axis="inner step", title="step weight", relative=True)
    metrics = ("training_loss",)

    def __init__(self) -> None:
        super().__init__("step_weights")

    def begin(self, arrays: dict[str, Array], form: DishForm) -> None:
        """Begin with the mean over the counted steps."""
        arrays.setdefault(self.name, equal_weights(form.steps, form.counted_steps))

    def checked(self, values: Any, arrays: Mapping[str, Array]) -> Array:
        """Return finite numbers, not all 0, shape (steps,)."""
        array = np.asarray(values, np.float64)
        if array.ndim != 1 or not np.isfinite(array).all() or not array.any():
            raise ValueError(
                f"step_weights are {array.tolist()}, expected finite numbers, one for each step, not all 0"
            )
        return array

    def to_free(self, value: "Tensor", form: DishForm) -> "Tensor":
        """Return the step weights times their number: ones if all steps count alike."""
        return value * form.steps

    def from_free(self, free: "Tensor", start: "Mapping[str, Tensor]", form: DishForm) -> "Tensor":
        """Return the step weights, whose sum is 1 if all steps count alike."""
        return free / form.steps


def equal_weights(steps: int, counted: int) -> Array:
    """Return the step weights of a mean over the last `counted` steps: shape (steps,)."""
    return np.repeat([0.0, 1 / counted], [steps - counted, counted])
