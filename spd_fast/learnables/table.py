"""The table of all learnables. A new learnable is a file beside this one and a line here."""

from collections.abc import Mapping
from typing import Any, Final

from spd_fast.base.types import Array
from spd_fast.learnables.image_weights import ImageWeights
from spd_fast.learnables.images import Images
from spd_fast.learnables.initial_scales import InitialScales
from spd_fast.learnables.labels import Labels
from spd_fast.learnables.learnable import Learnable
from spd_fast.learnables.rates import Rates
from spd_fast.learnables.step_weights import StepWeights

__all__ = ["ADDED", "LEARNABLES", "enter_all"]

LEARNABLES: Final[dict[str, Learnable]] = {
    each.name: each
    for each in (
        Images(),
        Labels(),
        Images(validation=True),
        Labels(validation=True),
        Rates(),
        InitialScales(),
        StepWeights(),
        ImageWeights(),
    )
}
"""Every learnable by its name, in the order in which dishes hold them."""

ADDED: Final = tuple(LEARNABLES)[4:]
"""The learnables that a dish holds only if they were learned: all but images and labels."""


def enter_all(arrays: Mapping[str, Array | Any]) -> dict[str, Any]:
    """Return the inputs of the engine that the arrays or tensors of a dish make, by name."""
    inputs = dict(arrays)
    for name in arrays:
        LEARNABLES[name].enter(inputs)
    return inputs
