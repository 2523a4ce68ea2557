"""The learnable "initial_scales": factors of the initial weights."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import Array
from spd_fast.learnables.learnable import Conditions, DishForm, Learnable, Picture
from spd_fast.motif import LAYER_KINDS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["InitialScales", "checked_scales"]


class InitialScales(Learnable):
    """A factor of the initial weights for each kind of layer. The free tensor holds the logarithms."""

    meaning = (
        "factors of the initial weights by kind of layer, through their logarithms (Zhu et al. 2021, GradInit, "
        "arXiv:2102.08098, learn one for each layer)"
    )
    picture = Picture("factors", title="factor of the initial weights", names=LAYER_KINDS)

    def __init__(self) -> None:
        super().__init__("initial_scales")

    def objection(self, conditions: Conditions) -> str | None:
        """Return why they cannot be learned, or None: a window does not reach initial weights, and perceptrons have other
        layers."""
        if conditions.window is not None:
            return f'learn holds "{self.name}" and window is {conditions.window}, expected None: a window does not reach them'
        if conditions.perceptrons:
            return "initial_scales are set or learned, expected motifs of cells: a perceptron has other layers"
        return super().objection(conditions)

    def begin(self, arrays: dict[str, Array], form: DishForm) -> None:
        """Begin with the initial scales of the recipe."""
        arrays.setdefault(self.name, form.initial_scales)

    def checked(self, values: Any, arrays: Mapping[str, Array]) -> Array:
        """Return finite numbers above 0, shape (4,)."""
        return checked_scales(values)

    def to_free(self, value: "Tensor", form: DishForm) -> "Tensor":
        """Return logarithms."""
        return value.log()

    def from_free(self, free: "Tensor", start: "Mapping[str, Tensor]", form: DishForm) -> "Tensor":
        """Return exponentials."""
        return free.exp()


def checked_scales(scales: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return initial scales as an array of shape (4,), one for each of `LAYER_KINDS`.

    Raises
    ------
    ValueError
        If their number is another one, or one is not a finite number above 0.
    """
    array = np.array(scales, np.float64)
    if array.shape != (len(LAYER_KINDS),) or not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(
            f"initial_scales are {array.tolist()}, expected {len(LAYER_KINDS)} finite numbers above 0: {', '.join(LAYER_KINDS)}"
        )
    return array
