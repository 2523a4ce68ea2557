"""Perceptrons that differ in the slope of their sigmoids, as in the original Synthetic Petri Dish.

A `Perceptron` can be used in place of a `Cell`, and a `PerceptronShape` in place of a `MotifShape`: in training,
hypergradients, recipes, the outer loop and truth tables.

References
----------
Rawal et al. 2020, Synthetic Petri Dish, arXiv:2005.13092, section 4.1: the search for the slope.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, overload

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import checked_array, checked_choice, checked_integer, checked_list, checked_number
from spd_fast.spaces.candidate import Columns, checked_candidates, checked_index, md5

__all__ = [
    "Perceptron",
    "PerceptronColumns",
    "PerceptronShape",
]


@dataclass(frozen=True, order=True)
class Perceptron:
    """A multilayer perceptron whose hidden units are ``sigmoid(slope z)``.

    Parameters
    ----------
    slope : float, finite

    Raises
    ------
    TypeError
        If `slope` is not a number; a boolean is none.
    ValueError
        If it is not finite.
    """

    slope: float

    def __post_init__(self) -> None:
        slope = float(checked_number("slope", self.slope))
        object.__setattr__(self, "slope", slope + 0.0)  # -0.0 becomes 0.0: equal slopes have one key
        if not math.isfinite(self.slope):
            raise ValueError(f"slope is {self.slope}, expected a finite number")

    @property
    def key(self) -> str:
        """A text that is different for perceptrons that are not equal."""
        return f"sigmoid {self.slope!r}"

    @property
    def module_hash(self) -> str:
        """MD5 of `key`, 32 hexadecimal digits."""
        return md5(self.key)


@dataclass(frozen=True)
class PerceptronShape:
    """The network around a slope: `layers` hidden layers of `hidden` units, and a dense layer to the classes.

    The pixels of an image are the features of the first layer.

    Parameters
    ----------
    hidden : int, 1 to 65,536
        Number of units in each hidden layer. Rawal et al. 2020: 1 in motifs, 100 in the truth.
    layers : int, 1 to 64
        Number of hidden layers. Rawal et al. 2020: 2.
    classes : int, 1 to 1000
        Number of classes, which is that of the logits.
    image_channels : int, 1 to 4
    loss : "softmax" or "binary"
        "softmax": the cross-entropy of one class for each image. "binary": the mean over the logits of the cross-entropies of
        one bit for each logit, whose probability is the sigmoid of the logit (Rawal et al. 2020).

    Raises
    ------
    TypeError
        If a number is not an integer; a boolean is none.
    ValueError
        If a value is out of range.
    """

    cell_types: ClassVar[tuple[type, ...]] = (Perceptron,)

    hidden: int
    layers: int = 2
    classes: int = 10
    image_channels: int = 1
    loss: Literal["softmax", "binary"] = "softmax"

    def __post_init__(self) -> None:
        limits = {"hidden": (1, 65_536), "layers": (1, 64), "classes": (1, 1000), "image_channels": (1, 4)}
        for name, (low, high) in limits.items():
            value = checked_integer(name, getattr(self, name))
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, expected {low} to {high}")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "loss", checked_choice("loss", self.loss, ("softmax", "binary")))

    @property
    def key(self) -> str:
        """A text on which the initial weights depend with ``init="motif"``, so that each shape has its own.

        It holds a former name of the class, so that the weights stay the same.
        """
        return (
            f"MLPShape(hidden={self.hidden!r}, layers={self.layers!r}, classes={self.classes!r}, "
            f"image_channels={self.image_channels!r}, loss={self.loss!r})"
        )

    def require_images(self, image_shape: tuple[int, ...]) -> None:
        """Raise unless images of this (C, H, W) fit.

        Raises
        ------
        ValueError
            If they have another number of channels.
        """
        if image_shape[0] != self.image_channels:
            raise ValueError(
                f"images has {image_shape[0]} channels, expected {self.image_channels}, those of the motif shape"
            )


class PerceptronColumns(Columns[Perceptron]):
    """Many perceptrons as a column of slopes. It is indexed as `spd_fast.spaces.cell_columns.CellColumns` is.

    Parameters
    ----------
    slope : array-like, shape (n,), finite
    module_hash : array-like, shape (n, 16), uint8, optional
        The bytes of every perceptron's `Perceptron.module_hash`. They are compared with the slopes.

    Raises
    ------
    ValueError
        If a slope is not finite, or a hash is not that of its slope.
    """

    cell_type = Perceptron
    names = ("slope",)

    def __init__(self, slope: npt.ArrayLike, module_hash: npt.ArrayLike | None = None) -> None:
        self.slope = np.asarray(checked_array("slope", slope), np.float64)
        if self.slope.ndim != 1 or not np.isfinite(self.slope).all():
            raise ValueError(f"slope has shape {self.slope.shape}, expected (n,), finite numbers")
        if module_hash is not None:
            self._require_hashes(module_hash)

    @classmethod
    def from_cells(cls, cells: Iterable[Perceptron]) -> "PerceptronColumns":
        """Pack perceptrons into a column."""
        packed = checked_list("cells", cells, "spd_fast.Perceptron")
        return cls(np.array([cell.slope for cell in checked_candidates(packed, (Perceptron,), "spd_fast.Perceptron")]))

    def __len__(self) -> int:
        return len(self.slope)

    @overload
    def __getitem__(self, index: int) -> Perceptron: ...
    @overload
    def __getitem__(self, index: slice | npt.NDArray[Any]) -> "PerceptronColumns": ...
    def __getitem__(self, index: int | slice | npt.NDArray[Any]) -> "Perceptron | PerceptronColumns":
        index = checked_index(index, len(self))
        if isinstance(index, slice | np.ndarray):
            return PerceptronColumns(self.slope[index])
        return Perceptron(self.slope[index])
