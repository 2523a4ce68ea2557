"""The conversion of free tensors, which the outer optimizer changes, to the dish that they make, and back."""

from collections.abc import Container, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from spd_fast.dish import Dish
from spd_fast.learnables.learnable import DishForm
from spd_fast.learnables.table import LEARNABLES

__all__ = ["Tensors", "dish_of", "dish_tensors", "free_tensors"]

Tensors = Mapping[str, Tensor]
"""Tensors by the name of a learnable."""


def free_tensors(
    dish: Dish, learned: Sequence[str], form: DishForm, followed: Container[str] = ()
) -> dict[str, Tensor]:
    """Return the free tensors that make a dish, by name of the learnable.

    Parameters
    ----------
    dish : Dish
        The dish before learning, from `spd_fast.outer.start.start_dish`.
    learned : sequence of str
        Names of learnables.
    form : DishForm
    followed : container of str
        Those of them whose gradient the outer optimizer follows.
    """
    free = {name: LEARNABLES[name].to_free(torch.from_numpy(np.array(getattr(dish, name))), form) for name in learned}
    return {name: value.requires_grad_(name in followed) for name, value in free.items()}


def dish_tensors(free: Tensors, start: Dish, form: DishForm) -> dict[str, Tensor]:
    """Return the arrays of a dish as tensors that are differentiable in the free tensors. Arrays that are not learned are
    those of `start`."""
    begun = {name: torch.from_numpy(np.asarray(array)) for name, array in start.arrays().items()}
    return begun | {name: LEARNABLES[name].from_free(value, begun, form) for name, value in free.items()}


def dish_of(tensors: Tensors) -> Dish:
    """Return the dish with these arrays, in memory of its own."""
    return Dish.from_arrays({name: tensor.detach().numpy().copy() for name, tensor in tensors.items()})
