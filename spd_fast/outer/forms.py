"""The forms in which an outer loop learns: free tensors, and the dish that they make.

A dish is held as a few named tensors, those of `Dish`'s fields. Some of them are learned, each through a free tensor of
its own form: pixels, coefficients of cosines or a generator's parameters for images, weights of classes for labels, logarithms for
learning rates and scales, weights that are about 1 where all steps count alike for steps."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spd_fast.base.types import Array
from spd_fast.dish import Dish, label_matrix
from spd_fast.recipes.settings import Recipe

__all__ = [
    "cosine_basis",
    "dish_of",
    "dish_tensors",
    "free_tensors",
]


def cosine_basis(size: int, n: int) -> npt.NDArray[np.float64]:
    """Return the `n` cosines of lowest frequency over `size` points, as orthonormal rows: shape (n, size).

    Notes
    -----
    Row k is ``c_k cos(pi k (2 x + 1) / (2 size))``, the discrete cosine transform II (Ahmed, Natarajan and Rao 1974).
    """
    frequency, point = np.arange(n)[:, None], np.arange(size)
    rows: npt.NDArray[np.float64] = np.cos(np.pi * frequency * (2 * point + 1) / (2 * size)) * np.sqrt(2 / size)
    rows[0] /= np.sqrt(2)
    return rows


Tensors = Mapping[str, Tensor]
_IN_PROPORTION = ("rates", "initial_scales")


def free_tensors(dish: Dish, recipe: Recipe) -> dict[str, Tensor]:
    """Return the tensors that the outer optimiser changes, by name of what is learned, so that they make this dish.

    Parameters
    ----------
    dish : Dish
        From `spd_fast.outer.start.start_dish`.
    recipe : Recipe
    """
    free: dict[str, Tensor] = {}
    for name in recipe.outer.learn:
        value = torch.from_numpy(np.array(getattr(dish, name)))
        if name in _IN_PROPORTION:
            value = torch.log(value)
        elif name == "step_weights":
            value = value * recipe.steps
        elif name.endswith("images") and recipe.dish.generator is not None:
            bands, channels = recipe.dish.generator, recipe.dish.image_channels
            value = torch.cat([torch.zeros(2 * bands), torch.eye(channels).ravel()]).to(value.dtype)
        elif name.endswith("images") and recipe.dish.basis is not None:
            basis = _basis(recipe.dish.basis, recipe)
            value = basis @ value @ basis.T
        free[name] = value.requires_grad_(name in recipe.stepped and recipe.outer.derivative is not None)
    return free


def dish_tensors(free: Tensors, start: Dish, recipe: Recipe) -> dict[str, Tensor]:
    """Return the fields of the dish as tensors, differentiable in the free ones; what is not learned is as at the start."""
    tensors = {
        name: torch.from_numpy(np.asarray(getattr(start, name)))
        for name in Dish.__dataclass_fields__
        if getattr(start, name) is not None
    }
    for name, value in free.items():
        if name in _IN_PROPORTION:
            value = torch.exp(value)
        elif name == "step_weights":
            value = value / recipe.steps
        elif name.endswith("images") and recipe.dish.generator is not None:
            labels = getattr(start, name.replace("images", "labels"))
            value = _generated(value, tensors[name], labels, recipe)
        elif name.endswith("images") and recipe.dish.basis is not None:
            basis = _basis(recipe.dish.basis, recipe)
            value = basis.T @ value @ basis
        tensors[name] = value
    return tensors


def dish_of(tensors: Tensors) -> Dish:
    """Return the dish with these fields, in memory of its own."""
    return Dish(**{name: tensor.detach().numpy().copy() for name, tensor in tensors.items()})


def _basis(n: int, recipe: Recipe) -> Tensor:
    return torch.from_numpy(cosine_basis(recipe.dish.image_size, n).astype(recipe.dtype))


def _generated(free: Tensor, images: Tensor, labels: Array, recipe: Recipe) -> Tensor:
    """Return the images that a generator makes of those at the start: ``dish.generator``.

    Parameters
    ----------
    free : Tensor, shape (2 B + C^2,)
        Logarithms of the bands' amplitudes, shares of the prototype, the matrix that mixes channels.
    images : Tensor, shape (N, C, H, H)
    labels : ndarray, shape (N,) or (N, classes)
    """
    bands, channels, side = recipe.dish.generator or 0, recipe.dish.image_channels, recipe.dish.image_size
    amplitude, share, mixing = torch.split(free, [bands, bands, channels**2])
    frequency = torch.arange(side, dtype=torch.float64) / side
    radius = torch.sqrt((frequency[:, None] ** 2 + frequency**2) / 2)
    band = (radius * bands).long()
    members = torch.from_numpy(label_matrix(labels, recipe.dish.classes, recipe.dtype)).argmax(dim=1)
    one_hot = torch.nn.functional.one_hot(members, recipe.dish.classes).to(images.dtype)
    to_prototypes = one_hot / one_hot.sum(dim=0).clamp(min=1).sqrt()
    basis = _basis(side, recipe)
    waves = basis @ images @ basis.T
    prototypes = torch.einsum("nk,mk,mchw->nchw", one_hot, to_prototypes, waves)
    made = torch.exp(amplitude)[band] * waves + share[band] * prototypes
    return torch.einsum("dc,nchw->ndhw", mixing.reshape(channels, channels), basis.T @ made @ basis)
