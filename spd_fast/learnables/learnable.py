"""`Learnable`, the class of everything that an outer loop can learn.

A learnable is one array of a dish: training images, labels, rates and so on. Its object holds all that the rest of the package must
know of it: how it begins, what its free tensor is, which values it may have, how it enters the engine and how a report draws it. A
dish's file holds the array under the learnable's name.

A learnable needs no code for its gradient. It enters the engine through the inputs of `spd_fast.torch.measure_training`, which autograd
differentiates: images, labels, the validation set, rates, initial scales and step weights. If an input is computed from several
learnables, for example labels times image weights, autograd applies the chain rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from spd_fast.base.types import Array

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Conditions", "DishForm", "Learnable", "Picture"]


@dataclass(frozen=True, eq=False)
class DishForm:
    """What a learnable needs to know of a recipe.

    Attributes
    ----------
    classes, image_size, image_channels : int
    basis, generator : int or None
        ``dish.basis`` and ``dish.generator``, which say in which form images are learned.
    steps, counted_steps : int
        The number of steps of the inner loop, and how many of the last ones count in the metric "training_loss" before
        learning.
    rates : ndarray, shape (steps,)
        The rates before learning.
    initial_scales : ndarray, shape (4,)
        The initial scales before learning.
    dtype : str
        The dtype of images and soft labels.
    """

    classes: int
    image_size: int
    image_channels: int
    basis: int | None
    generator: int | None
    steps: int
    counted_steps: int
    rates: Array
    initial_scales: Array
    dtype: str


@dataclass(frozen=True)
class Conditions:
    """The settings of a recipe that decide whether something can be learned.

    Attributes
    ----------
    metric : "probability", "loss" or "training_loss"
        What is read off a motif.
    gradient : "direct", "unrolled" or None
        Which gradient of the metric the optimizer follows; None if it uses none.
    window : int or None
        How many of the last inner steps the hypergradient goes through; None means all.
    validation : bool or None
        Whether the dish has a validation set; None if that is not known yet.
    perceptrons : bool or None
        Whether motifs are perceptrons; None if that is not known yet.
    """

    metric: str
    gradient: str | None
    window: int | None
    validation: bool | None = None
    perceptrons: bool | None = None


@dataclass(frozen=True)
class Picture:
    """How a report draws an array of a dish, before and after learning.

    Attributes
    ----------
    kind : "images", "labels", "curve" or "factors"
        "images": a mosaic. "labels": the matrix of the weights of the classes, if it was learned. "curve": a curve over steps or images.
        "factors": a row of the table for each named number.
    figure, labels : str
        For kinds "images" and "labels": the figure's file name. For kind "images": the name of the array with the labels of the images.
    axis, title : str
        The name of a curve's axis, and the title of the curve or of the row. All curves are in one figure.
    relative : bool
        Whether a curve is divided by its largest value, because it has no unit.
    names : tuple of str
        For kind "factors": the names of the numbers.
    """

    kind: Literal["images", "labels", "curve", "factors"]
    figure: str = ""
    labels: str = ""
    axis: str = ""
    title: str = ""
    relative: bool = False
    names: tuple[str, ...] = ()


class Learnable:
    """One thing that an outer loop can learn. Each kind derives from this class and overrides what is different.

    Attributes
    ----------
    name : str
        The name of the dish's array, and the name in ``outer.learn``.
    meaning : str
        What it is, as a part of a sentence that ``spd-fast recipes`` prints.
    picture : Picture or None
        How a report draws it; None if it is not drawn.
    changes_training : bool
        Whether trained weights depend on it. If they depend on nothing that is learned, motifs are trained once.
    metrics : tuple of str
        The metrics that depend on it.
    direct_metrics : tuple of str
        The metrics whose direct gradient reaches it.
    of : "training set", "validation set" or None
        The set that it belongs to. If the dish has a validation set, the direct gradient does not reach the training set.
    """

    meaning: str = ""
    picture: Picture | None = None
    changes_training: bool = True
    metrics: tuple[str, ...] = ("probability", "loss", "training_loss")
    direct_metrics: tuple[str, ...] = ()
    of: Literal["training set", "validation set"] | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def objection(self, conditions: Conditions) -> str | None:
        """Return why it cannot be learned under these conditions, or None if it can."""
        metric, direct = conditions.metric, conditions.gradient == "direct"
        what = f'learn holds "{self.name}"'
        if metric not in self.metrics:
            others = " or ".join(f'"{each}"' for each in self.metrics)
            return f'{what}, on which the metric "{metric}" does not depend: use metric {others}'
        if self.of == "validation set" and conditions.validation is False:
            return f"{what} and dish.valid_images is 0: the dish has no validation set"
        if direct and metric not in self.direct_metrics:
            return f'{what} with metric "{metric}", which the direct gradient does not reach: use gradient "unrolled"'
        if direct and self.of == "training set" and conditions.validation:
            return f'{what} with a validation set, where the direct gradient does not reach it: use gradient "unrolled"'
        return None

    def begin(self, arrays: dict[str, Array], form: DishForm) -> None:
        """Add its values before learning to the arrays of a dish, or bring those that are there into a form that can be learned.

        Raises
        ------
        ValueError
            If the values that are there cannot be learned.
        """

    def checked(self, values: Any, arrays: Mapping[str, Array]) -> Array:
        """Check its values for a dish with these other arrays, and return them as an array.

        Raises
        ------
        ValueError
            If a value is out of bounds, or the shape is wrong.
        """
        raise NotImplementedError(self.name)

    def to_free(self, value: "Tensor", form: DishForm) -> "Tensor":
        """Return the free tensor, from which `from_free` makes `value`."""
        return value

    def from_free(self, free: "Tensor", start: "Mapping[str, Tensor]", form: DishForm) -> "Tensor":
        """Return its values, differentiable in the free tensor. `start` holds the dish before learning."""
        return free

    def enter(self, inputs: dict[str, Any]) -> None:
        """Change the inputs of the engine, which are the arrays or tensors of a dish by name, as this learnable requires."""
