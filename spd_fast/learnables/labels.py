"""The learnables "labels" and "valid_labels": soft labels of any sign and sum."""

from typing import Any

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import Array
from spd_fast.learnables.learnable import DishForm, Learnable, Picture

__all__ = ["Labels", "label_matrix"]


class Labels(Learnable):
    """The labels of the training set, or of the validation set."""

    direct_metrics = ("loss",)

    def __init__(self, *, validation: bool = False) -> None:
        super().__init__("valid_labels" if validation else "labels")
        which = "validation" if validation else "training"
        self.meaning = f"the labels of the {which} images, as soft labels of any sign and sum"
        self.picture = Picture("labels", figure=self.name)
        self.of = "validation set" if validation else "training set"
        if validation:
            self.changes_training = False
            self.metrics = self.direct_metrics

    def begin(self, arrays: dict[str, Array], form: DishForm) -> None:
        """Turn hard labels into soft labels."""
        arrays[self.name] = label_matrix(arrays[self.name], form.classes, form.dtype, self.name)


def label_matrix(
    labels: npt.NDArray[Any], classes: int, dtype: npt.DTypeLike, name: str = "labels"
) -> npt.NDArray[Any]:
    """Return labels as soft labels in a new array of shape (N, classes). Hard labels become one-hot rows.

    Raises
    ------
    ValueError
        If a hard label is not one of 0 to classes - 1, or soft labels have another number of classes.
    """
    if labels.ndim == 2:
        if labels.shape[1] != classes:
            raise ValueError(f"{name} has {labels.shape[1]} classes, expected {classes}, those of the motif shape")
        return np.array(labels, dtype, order="C")
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        at = int(outside[0])
        raise ValueError(
            f"{name}[{at}] is {labels[at]}, expected 0 to {classes - 1}: the motif shape has {classes} classes"
        )
    matrix = np.zeros((len(labels), classes), dtype=dtype)
    matrix[np.arange(len(labels)), labels] = 1
    return matrix
