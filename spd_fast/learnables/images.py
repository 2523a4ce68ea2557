"""The learnables "images" and "valid_images": by their pixels, by coefficients of cosines, or by the numbers of a generator."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import Array
from spd_fast.learnables.labels import label_matrix
from spd_fast.learnables.learnable import DishForm, Learnable, Picture

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Images", "cosine_basis", "in_basis"]


class Images(Learnable):
    """The images of the training set, or of the validation set."""

    direct_metrics = ("probability", "loss")

    def __init__(self, *, validation: bool = False) -> None:
        super().__init__("valid_images" if validation else "images")
        self.labels = "valid_labels" if validation else "labels"
        self.meaning = "the validation images" if validation else "the training images (the paper)"
        self.picture = Picture("images", figure="validation_set" if validation else "dish", labels=self.labels)
        self.of = "validation set" if validation else "training set"
        if validation:
            self.changes_training = False
            self.metrics = self.direct_metrics

    def to_free(self, value: "Tensor", form: DishForm) -> "Tensor":
        """Return pixels; with a basis, coefficients of cosines; with a generator, its numbers, which change nothing at first."""
        import torch

        if form.generator is not None:
            bands, channels = form.generator, form.image_channels
            return torch.cat([torch.zeros(2 * bands), torch.eye(channels).ravel()]).to(value.dtype)
        if form.basis is not None:
            basis = _cosines(form.basis, form)
            return basis @ value @ basis.T
        return value

    def from_free(self, free: "Tensor", start: "Mapping[str, Tensor]", form: DishForm) -> "Tensor":
        """Return the images that pixels, coefficients or the numbers of a generator make."""
        if form.generator is not None:
            return _generated(free, start[self.name], start[self.labels].numpy(), form)
        if form.basis is not None:
            basis = _cosines(form.basis, form)
            return basis.T @ free @ basis
        return free


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


def in_basis(images: Array, basis: int, scale: float) -> Array:
    """Return images projected onto the `basis` x `basis` cosines of lowest frequency, times a factor."""
    cosines = cosine_basis(images.shape[-1], basis)
    projected: Array = scale * (cosines.T @ (cosines @ images @ cosines.T) @ cosines)
    return projected


def _cosines(n: int, form: DishForm) -> "Tensor":
    import torch

    return torch.from_numpy(cosine_basis(form.image_size, n).astype(form.dtype))


def _generated(free: "Tensor", images: "Tensor", labels: Array, form: DishForm) -> "Tensor":
    """Return the images that a generator makes of those before learning (see ``dish.generator``).

    Parameters
    ----------
    free : Tensor, shape (2 B + C^2,)
        The logarithms of the B bands' amplitudes, their shares of the prototype, and the matrix that mixes C channels.
    images : Tensor, shape (N, C, H, H)
    labels : ndarray, shape (N,) or (N, classes)
    """
    import torch

    bands, channels, side = form.generator or 0, form.image_channels, form.image_size
    amplitude, share, mixing = torch.split(free, [bands, bands, channels**2])
    frequency = torch.arange(side, dtype=torch.float64) / side
    radius = torch.sqrt((frequency[:, None] ** 2 + frequency**2) / 2)
    band = (radius * bands).long()
    members = torch.from_numpy(label_matrix(labels, form.classes, form.dtype)).argmax(dim=1)
    one_hot = torch.nn.functional.one_hot(members, form.classes).to(images.dtype)
    to_prototypes = one_hot / one_hot.sum(dim=0).clamp(min=1).sqrt()
    basis = _cosines(side, form)
    waves = basis @ images @ basis.T
    prototypes = torch.einsum("nk,mk,mchw->nchw", one_hot, to_prototypes, waves)
    made = torch.exp(amplitude)[band] * waves + share[band] * prototypes
    return torch.einsum("dc,nchw->ndhw", mixing.reshape(channels, channels), basis.T @ made @ basis)
