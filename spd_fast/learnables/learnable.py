"""What everything that can be learned has in common.

A learnable is one array of a dish: training images, labels, learning rates and so on. Its object says all that the rest of
the package asks of it: where it begins, in which form it is learned, which values it may take, how it enters the engine
and how a report draws it. It is saved as the array of its name in the dish's file.

Its gradient needs no words of its own. A learnable enters the engine through the inputs of
`spd_fast.torch.measure_training`, which autograd differentiates: images, labels, the validation set, learning rates,
scales of initial weights, weights of steps. What is computed from several of them, as labels that are weighted, has its
gradient by the chain rule.
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
        ``dish.basis`` and ``dish.generator``: the form in which images are learned.
    steps, counted_steps : int
        Steps of the inner loop, and how many of the last ones count in the metric "training_loss" before learning.
    rates : ndarray, shape (steps,)
        Learning rates before learning.
    initial_scales : ndarray, shape (4,)
        Factors of the initial weights before learning.
    dtype : str
        Of images and soft labels.
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
    """What decides whether something can be learned at all.

    Attributes
    ----------
    metric : "probability", "loss" or "training_loss"
        What is read off a motif.
    gradient : "direct", "unrolled" or None
        Which gradient of the metric is followed; None where the optimizer looks at none.
    window : int or None
        How many of the last inner steps are unrolled; None means all.
    validation : bool or None
        Whether the dish has a validation set; None where that is not known yet.
    perceptrons : bool or None
        Whether motifs are perceptrons; None where that is not known yet.
    """

    metric: str
    gradient: str | None
    window: int | None
    validation: bool | None = None
    perceptrons: bool | None = None


@dataclass(frozen=True)
class Picture:
    """How a report draws what was learned, beside what it was before.

    Attributes
    ----------
    kind : "images", "curve" or "factors"
        A mosaic of images; a curve over steps or images; a row of the table for each of a few named numbers.
    figure, labels : str
        For kind "images": the figure's file name, and the array that says of which class each image is.
    axis, title : str
        What a curve runs over, and what it, or the row, shows. All curves share one figure.
    relative : bool
        Whether a curve is divided by its largest value, because it has no unit.
    names : tuple of str
        Of the numbers, for kind "factors".
    """

    kind: Literal["images", "curve", "factors"]
    figure: str = ""
    labels: str = ""
    axis: str = ""
    title: str = ""
    relative: bool = False
    names: tuple[str, ...] = ()


class Learnable:
    """One thing that an outer loop can learn. A kind of its own derives from this class and says what differs.

    Attributes
    ----------
    name : str
        The dish's array, and the word in ``outer.learn``.
    meaning : str
        What it is, as a part of a sentence: `spd-fast recipes` lists it.
    picture : Picture or None
        How a report draws it; None: not at all.
    changes_training : bool
        Whether trained weights depend on it. Where nothing that is learned changes them, motifs are trained once.
    metrics : tuple of str
        The metrics that change with it.
    direct_metrics : tuple of str
        Those of them whose direct gradient reaches it.
    of : "training set", "validation set" or None
        The images that it belongs to. With a validation set the direct gradient does not reach what belongs to the training set.
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
        """Return why it cannot be learned under these conditions, or None where it can."""
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
        """Put what it is before learning into the arrays of a dish, where they lack it or hold it in a form that cannot be learned.

        Raises
        ------
        ValueError
            If what the arrays hold cannot be learned.
        """

    def checked(self, values: Any, arrays: Mapping[str, Array]) -> Array:
        """Return its values as an array that is inside its bounds, for a dish that holds these other arrays.

        Raises
        ------
        ValueError
            If they are not inside its bounds, or have a wrong shape.
        """
        raise NotImplementedError(self.name)

    def to_free(self, value: "Tensor", form: DishForm) -> "Tensor":
        """Return the tensor that the outer optimizer changes: `from_free` makes `value` of it."""
        return value

    def from_free(self, free: "Tensor", start: "Mapping[str, Tensor]", form: DishForm) -> "Tensor":
        """Return its values, differentiable in the free tensor. `start` holds the dish before learning."""
        return free

    def enter(self, inputs: dict[str, Any]) -> None:
        """Change the inputs of the engine: arrays, or tensors, of a whole dish by name, this one's among them."""
