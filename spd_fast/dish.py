"""The dish: a tiny data set on which motifs are trained and their metrics are read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spd_fast.base.files import load_arrays, other_kind, save_arrays
from spd_fast.base.types import Array, checked_array, checked_instance, checked_integer, checked_path, shown
from spd_fast.learnables.table import ADDED, LEARNABLES

__all__ = ["Dish"]

_SIDES = range(1, 65)
_CHANNELS = range(1, 5)


if TYPE_CHECKING:

    @dataclass(frozen=True, eq=False)
    class _Added:
        def __getattr__(self, name: str) -> Any: ...

else:
    _Added = make_dataclass(
        "_Added",
        [(name, "Array | None", field(default=None)) for name in ADDED],
        frozen=True,
        eq=False,
        kw_only=True,
    )
    """An optional field for each learnable that a dish holds only if it was learned."""


@dataclass(frozen=True, eq=False)
class Dish(_Added):
    """Images and labels to train motifs on; optionally a validation set to read metrics on, and other learned values.

    Parameters
    ----------
    images : ndarray, shape (N, C, H, W), float
        C is 1 to 4, H and W are 1 to 64 (for cells 4 to 64). Mean 0 and variance 1 are usual. Dtypes other than float32 and
        float64 become float32.
    labels : ndarray, shape (N,) int or (N, classes) float
        Hard labels, which are classes counted from 0; or soft labels, which are finite numbers of any sign and sum.
    valid_images, valid_labels : ndarray, optional
        Images and labels of the validation set; both or neither. Channels and sides are those of `images`.
    rates, initial_scales, step_weights and others : ndarray, optional
        What else was learned: one array for each learnable in `spd_fast.learnables.table.ADDED`, whose file gives its shape and
        bounds. They are used when a recipe trains motifs on the dish (`spd_fast.score_cells`), but not by `train_motifs`.

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", _checked_images(self.images, "images"))
        object.__setattr__(self, "labels", _checked_labels(self.labels, len(self.images), "labels", "images"))
        self._check_validation_set()
        arrays = self.arrays()
        for name in ADDED:
            if name in arrays:
                object.__setattr__(self, name, LEARNABLES[name].checked(checked_array(name, arrays[name]), arrays))

    def _check_validation_set(self) -> None:
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
        """Return a dish of random images, with the same number of images of each class, ordered by class.

        Pixels are drawn from N(0, 1). With the default sizes it is the dish before learning of Cassimon et al. (section 3.3).

        Parameters
        ----------
        per_class : int, at least 1
            Images of each class.
        classes : int, at least 1
        image_size : int, 1 to 64 (for cells 4 to 64)
            Height and width in pixels.
        image_channels : int, 1 to 4
        seed : int, at least 0

        Returns
        -------
        Dish
            With images of shape (per_class * classes, image_channels, image_size, image_size), float32, and hard labels.

        Raises
        ------
        ValueError, TypeError
            If a number is out of its range, or no whole number.
        """
        per_class, classes = checked_integer("per_class", per_class, 1), checked_integer("classes", classes, 1)
        image_size = checked_integer("image_size", image_size, 1, max(_SIDES))
        image_channels = checked_integer("image_channels", image_channels, 1, max(_CHANNELS))
        seed = checked_integer("seed", seed, 0)
        shape = (per_class * classes, image_channels, image_size, image_size)
        images = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        return cls(images, np.repeat(np.arange(classes), per_class))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the dish to `path`, an .npz of plain arrays, as a whole or not at all.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        save_arrays(checked_path("path", path), self.arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Dish":
        """Read a dish that `save` wrote, or any .npz with arrays `images` and `labels`. Pickles are never loaded.

        Raises
        ------
        FileNotFoundError, ValueError
            If the file does not exist, is not an .npz, or its arrays do not make a dish.
        """
        arrays: Mapping[str, npt.NDArray[Any]] = load_arrays(checked_path("path", path), what="dish file")
        missing = [name for name in ("images", "labels") if name not in arrays]
        if missing:
            raise ValueError(
                f"dish file {os.fspath(path)} has no array {missing[0]!r}, expected 'images' and 'labels'"
                f"{other_kind(path, 'dish file')}"
            )
        return cls.from_arrays(arrays)

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of the dish by name."""
        held = {name: getattr(self, name) for name in LEARNABLES}
        return {name: array for name, array in held.items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> "Dish":
        """Return the dish with these arrays, by name. Arrays of other names are ignored.

        Raises
        ------
        ValueError, TypeError
            If `arrays` has no "images" or "labels", or its arrays do not make a dish.
        """
        checked_instance("arrays", arrays, Mapping, "a mapping of names to arrays")
        missing = [name for name in ("images", "labels") if name not in arrays]
        if missing:
            raise ValueError(f"there is no array {missing[0]!r}, expected 'images' and 'labels'")
        return cls(**{name: arrays[name] for name in LEARNABLES if name in arrays})


def _array(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError):
        raise TypeError(f"{name} is {shown(values)}, expected an array of numbers") from None


def _checked_images(images: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    array = _array(images, name)
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
    array = _array(labels, name)
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
        raise ValueError(f"{name} holds NaN or infinity, expected finite numbers")
    return array
