"""The learnable "image_weights": factors of single validation images in the metric "loss"."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from spd_fast.base.types import Array
from spd_fast.learnables.labels import label_matrix
from spd_fast.learnables.learnable import DishForm, Learnable, Picture

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ImageWeights"]


class ImageWeights(Learnable):
    """A factor for each validation image in the metric "loss". The free tensor holds the logarithms.

    The weighted mean of the cross-entropies is the mean cross-entropy of labels that are multiplied by the factors, and so they
    enter the engine. The class of the largest label stays the same, and with it the accuracy.
    """

    meaning = 'factors of single validation images in the metric "loss", through their logarithms'
    picture = Picture("curve", axis="validation image", title="image weight", relative=True)
    changes_training = False
    metrics = direct_metrics = ("loss",)
    of = "validation set"

    def __init__(self) -> None:
        super().__init__("image_weights")

    def begin(self, arrays: dict[str, Array], form: DishForm) -> None:
        """Begin with ones, and turn the validation labels into soft labels."""
        arrays["valid_labels"] = label_matrix(arrays["valid_labels"], form.classes, form.dtype, "valid_labels")
        arrays.setdefault(self.name, np.ones(len(arrays["valid_labels"]), form.dtype))

    def checked(self, values: Any, arrays: Mapping[str, Array]) -> Array:
        """Return finite numbers above 0, one for each validation image. The validation labels must be soft labels."""
        array, labels = np.asarray(values), arrays.get("valid_labels")
        if labels is None or np.ndim(labels) != 2:
            raise ValueError(
                "image_weights are given and valid_labels are not soft labels, expected a validation set with soft labels"
            )
        if array.shape != (len(labels),) or not (np.isfinite(array) & (array > 0)).all():
            raise ValueError(
                f"image_weights have shape {array.shape}, expected ({len(labels)},): finite numbers above 0, one for each "
                "validation image"
            )
        return array

    def to_free(self, value: "Tensor", form: DishForm) -> "Tensor":
        """Return logarithms."""
        return value.log()

    def from_free(self, free: "Tensor", start: "Mapping[str, Tensor]", form: DishForm) -> "Tensor":
        """Return exponentials."""
        return free.exp()

    def enter(self, inputs: dict[str, Any]) -> None:
        """Multiply the labels of each validation image by its factor."""
        factors = inputs.pop(self.name)
        inputs["valid_labels"] = inputs["valid_labels"] * factors[:, None]
