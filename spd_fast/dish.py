"""The dish: synthetic images with their labels, on which motifs are trained and read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spd_fast.base.files import load_arrays, save_arrays
from spd_fast.motif import LAYER_KINDS

__all__ = [
    "Dish",
    "checked_scales",
    "label_matrix",
]

_SIDES = range(1, 65)
_CHANNELS = range(1, 5)


@dataclass(frozen=True, eq=False)
class Dish:
    """Images and labels to train motifs on; optionally a separate set to read them on, and what else was learned.

    Parameters
    ----------
    images : ndarray, shape (N, C, H, W), float
        C in 1..4, H and W in 1..64 (for cells 4..64); usually about zero mean and unit variance. Other dtypes become float32.
    labels : ndarray, shape (N,) int or (N, classes) float
        Class of each image, counted from 0, or the weight of each class (soft labels; finite, of any sum).
    valid_images, valid_labels : ndarray, optional
        The same for the validation set; both or neither. Channels and sides are those of `images`.
    rates : ndarray, shape (steps,), float, optional
        Learning rate of every step of the inner loop, finite and at least 0. Used by `spd_fast.scoring.training_keywords`, not
        by `train_motifs`, whose `schedule` takes them.
    initial_scales : ndarray, shape (4,), float, optional
        Factors of the initial weights of stem, 3x3 convolutions, 1x1 convolutions and dense layer, finite and above 0. Used
        and taken likewise.
    step_weights : ndarray, shape (steps,), float, optional
        Weights of the training losses of the inner loop's steps in the metric "training_loss", finite, of any sign and sum.

    Raises
    ------
    TypeError
        If an array does not hold numbers, or hard labels are not integers.
    ValueError
        If a shape or a range does not fit, or an image holds NaN or infinity.
    """

    images: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    valid_images: npt.NDArray[Any] | None = None
    valid_labels: npt.NDArray[Any] | None = None
    rates: npt.NDArray[Any] | None = None
    initial_scales: npt.NDArray[Any] | None = None
    step_weights: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", _checked_images(self.images, "images"))
        object.__setattr__(self, "labels", _checked_labels(self.labels, len(self.images), "labels", "images"))
        if self.rates is not None:
            object.__setattr__(self, "rates", _checked_rates(self.rates))
        if self.initial_scales is not None:
            object.__setattr__(self, "initial_scales", checked_scales(self.initial_scales))
        if self.step_weights is not None:
            object.__setattr__(self, "step_weights", _checked_step_weights(self.step_weights))
        if (self.valid_images is None) != (self.valid_labels is None):
            missing = "valid_labels" if self.valid_labels is None else "valid_images"
            raise ValueError(f"{missing} is missing: give valid_images and valid_labels, or neither")
        if self.valid_images is None or self.valid_labels is None:
            return
        images = _checked_images(self.valid_images, "valid_images")
        if images.shape[1:] != self.images.shape[1:]:
            raise ValueError(
                f"valid_images has shape {images.shape}, expected (n, {', '.join(map(str, self.images.shape[1:]))}) to match images"
            )
        object.__setattr__(self, "valid_images", images)
        labels = _checked_labels(self.valid_labels, len(images), "valid_labels", "valid_images")
        object.__setattr__(self, "valid_labels", labels)

    @classmethod
    def random(
        cls, *, per_class: int = 20, classes: int = 10, image_size: int = 16, image_channels: int = 3, seed: int = 0
    ) -> "Dish":
        """Standard normal images with balanced labels 0, 0, ..., 1, ...: where the paper starts (section 3.3)."""
        for name, value in (("per_class", per_class), ("classes", classes)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        shape = (per_class * classes, image_channels, image_size, image_size)
        images = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        return cls(images, np.repeat(np.arange(classes), per_class))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz of plain arrays, atomically."""
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__}
        save_arrays(path, {name: array for name, array in arrays.items() if array is not None})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Dish":
        """Read what `save` wrote (or any .npz with arrays `images` and `labels`). Never unpickles.

        Raises
        ------
        FileNotFoundError, ValueError
            If the file is not there, is not an .npz, or its arrays do not make a dish.
        """
        arrays: Mapping[str, npt.NDArray[Any]] = load_arrays(path, what="dish file")
        missing = [name for name in ("images", "labels") if name not in arrays]
        if missing:
            raise ValueError(f"dish file {os.fspath(path)} has no array {missing[0]!r}, expected 'images' and 'labels'")
        return cls(**{name: arrays[name] for name in cls.__dataclass_fields__ if name in arrays})


def _checked_rates(rates: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(rates, np.float64)
    if array.ndim != 1 or not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError(f"rates are {array.tolist()}, expected finite numbers of at least 0, one for each step")
    return array


def checked_scales(scales: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return factors of initial weights as an array of shape (4,), one for each of `LAYER_KINDS`.

    Raises
    ------
    ValueError
        If there are more or fewer, or one is not a finite number above 0.
    """
    array = np.array(scales, np.float64)
    if array.shape != (len(LAYER_KINDS),) or not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(
            f"initial_scales are {array.tolist()}, expected {len(LAYER_KINDS)} finite numbers above 0: {', '.join(LAYER_KINDS)}"
        )
    return array


def _checked_step_weights(weights: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(weights, np.float64)
    if array.ndim != 1 or not np.isfinite(array).all() or not array.any():
        raise ValueError(f"step_weights are {array.tolist()}, expected finite numbers, one for each step, not all 0")
    return array


def label_matrix(
    labels: npt.NDArray[Any], classes: int, dtype: npt.DTypeLike, name: str = "labels"
) -> npt.NDArray[Any]:
    """Return labels as weights of classes in a new array of shape (N, classes): hard ones become one-hot rows.

    Raises
    ------
    ValueError
        If a hard label is outside 0..classes - 1, or soft labels have another number of classes.
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


def _checked_images(images: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    array = np.asarray(images)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} has dtype {array.dtype}, expected floating point")
    if array.ndim != 4 or not len(array):
        raise ValueError(f"{name} has shape {array.shape}, expected (N, C, H, W) with N at least 1")
    if array.shape[1] not in _CHANNELS:
        raise ValueError(f"{name} has {array.shape[1]} channels (axis 1), expected 1 to 4; the layout is (N, C, H, W)")
    if array.shape[2] not in _SIDES or array.shape[3] not in _SIDES:
        raise ValueError(f"{name} is {array.shape[2]} x {array.shape[3]} pixels, expected sides of 1 to 64")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=(1, 2, 3)))
    if bad.size:
        raise ValueError(
            f"{name}[{bad[0]}] holds NaN or infinity ({bad.size} of {len(array)} images do), expected finite"
        )
    return array


def _checked_labels(labels: npt.ArrayLike, n: int, name: str, of: str) -> npt.NDArray[Any]:
    array = np.asarray(labels)
    if array.ndim not in (1, 2) or len(array) != n:
        raise ValueError(f"{name} has shape {array.shape}, expected ({n},) or ({n}, classes) to match {of}.shape[0]")
    if array.ndim == 1:
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} has dtype {array.dtype}, expected integers (or a matrix of soft labels)")
        negative = np.flatnonzero(array < 0)
        if negative.size:
            raise ValueError(f"{name}[{negative[0]}] is {array[negative[0]]}, expected classes counted from 0")
        return array.astype(np.int64)
    if array.dtype.kind != "f":
        raise TypeError(
            f"{name} has dtype {array.dtype}, expected floating point for soft labels of shape (N, classes)"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity, expected finite weights")
    return array
