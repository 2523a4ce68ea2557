"""Real images with labels: they are read from files and resized."""

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.files import load_arrays, other_kind
from spd_fast.base.types import Array, checked_array, checked_instance, checked_integer, checked_path

__all__ = [
    "ImageData",
    "load_images",
    "resize_images",
]

IDX_FILES: Final = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


# ---- images


@dataclass(frozen=True, eq=False)
class ImageData:
    """Real images with their labels.

    Attributes
    ----------
    train_images : ndarray, shape (N, C, H, W), uint8 or float
    train_labels : ndarray, shape (N,), int
    test_images, test_labels : ndarray or None
        The test set; None if there is none.
    name : str
        The folder or file that they come from, for messages and provenance.
    """

    train_images: Array
    train_labels: Array
    test_images: Array | None
    test_labels: Array | None
    name: str

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
            if (images is None) != (labels is None):
                raise ValueError(f"{self.name} has {split} images or {split} labels, expected both or neither")
            if images is None:
                continue
            for kind, array in (("images", images), ("labels", labels)):
                checked_instance(f"{self.name}: {split} {kind}", array, np.ndarray, "an array")
            if not len(images):
                raise ValueError(f"{self.name} has no {split} images, expected at least one")
            if images.ndim == 3:
                images = images[:, None]
                object.__setattr__(self, f"{split}_images", images)
            if images.ndim != 4 or not 1 <= images.shape[1] <= 4 or images.dtype.kind not in "uif":
                raise ValueError(
                    f"{self.name}: {split} images are {images.dtype} {images.shape}, expected numbers of shape (N, H, W) or (N, C, H, W), C 1 to 4"
                )
            if labels.ndim != 1 or labels.dtype.kind not in "ui" or len(labels) != len(images):
                raise ValueError(
                    f"{self.name}: {split} labels are {labels.dtype} {labels.shape}, expected integers of shape ({len(images)},)"
                )
            if images.dtype.kind == "f" and not np.isfinite(images).all():
                raise ValueError(f"{self.name}: {split} images hold NaN or infinity, expected finite numbers")
            object.__setattr__(self, f"{split}_labels", labels.astype(np.int64))
        if self.test_images is not None and self.test_images.shape[1:] != self.train_images.shape[1:]:
            raise ValueError(
                f"{self.name}: test images are {self.test_images.shape[1:]}, expected {self.train_images.shape[1:]} as in training"
            )

    def digest(self) -> str:
        """Return the SHA-256 of all images and labels, 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def load_images(path: str | os.PathLike[str]) -> ImageData:
    """Read real images with their labels.

    Parameters
    ----------
    path : path
        A folder with the four IDX files that MNIST has (``train-images-idx3-ubyte`` and so on, plain or .gz); or an .npz with
        arrays ``images`` (N, H, W) or (N, C, H, W) and ``labels`` (N,), and optionally ``test_images`` and ``test_labels``.

    Raises
    ------
    FileNotFoundError
        If the path or one of its files does not exist.
    ValueError
        If a file is not what its name says or was cut short, or if shapes disagree.
    """
    source = Path(checked_path("path", path))
    if source.is_dir():
        arrays = {name: _read_idx(_plain_or_gz(source, file)) for name, file in IDX_FILES.items()}
        return ImageData(**arrays, name=os.fspath(source))
    arrays = load_arrays(source, what="image file")
    missing = [name for name in ("images", "labels") if name not in arrays]
    if missing:
        held = ", ".join(arrays) or "no arrays"
        raise ValueError(
            f"image file {source} holds {held}, but no {missing[0]!r}; expected 'images' and 'labels'"
            f"{other_kind(source, 'image file')}"
        )
    return ImageData(
        arrays["images"], arrays["labels"], arrays.get("test_images"), arrays.get("test_labels"), os.fspath(source)
    )


def _plain_or_gz(folder: Path, name: str) -> Path:
    candidates = [folder / name, folder / f"{name}.gz"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{folder} has neither {name} nor {name}.gz: expected the four IDX files of an image set")


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an IDX file of bytes. It begins with 0, 0, the type 8, the number of axes and their big-endian lengths."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"IDX file {path} is damaged or was cut short: {error}") from error
    axes = 3 if "idx3" in path.name else 1
    if content[:4] != bytes([0, 0, 8, axes]):
        raise ValueError(
            f"IDX file {path} begins with {content[:4].hex(' ') or 'nothing'}, expected 00 00 08 0{axes}: bytes on {axes} axes"
        )
    header = 4 + 4 * axes
    if len(content) < header:
        raise ValueError(f"IDX file {path} has {len(content)} bytes, expected a header of {header}: cut short")
    shape = np.frombuffer(content, dtype=">u4", count=axes, offset=4).astype(np.int64)
    expected = header + int(np.prod(shape))
    if len(content) != expected:
        raise ValueError(
            f"IDX file {path} has {len(content)} bytes, expected {expected} for its shape {tuple(shape.tolist())}: cut short or damaged"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def resize_images(images: Array, size: int) -> npt.NDArray[np.float32]:
    """Resample images to `size` x `size` pixels by area: each new pixel is the mean of the image over the area that it covers.

    Parameters
    ----------
    images : ndarray, shape (N, C, H, W)
    size : int, >= 1

    Returns
    -------
    ndarray, shape (N, C, size, size), float32
        Computed in double.

    Notes
    -----
    The image counts as piecewise constant. New pixel i covers the old rows i H / size to (i + 1) H / size; a row that it covers
    in part counts for that part. There is no padding. If size divides H and W, this is the average over blocks.
    """
    images, size = checked_array("images", images), checked_integer("size", size, 1)
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"images has shape {images.shape}, expected (N, C, H, W) with pixels")
    rows, columns = (_area_weights(n, size) for n in images.shape[2:])
    resized = np.empty((*images.shape[:2], size, size), np.float32)
    for at in range(0, len(images), 1024):
        resized[at : at + 1024] = rows @ images[at : at + 1024].astype(np.float64) @ columns.T
    return resized


def _area_weights(old: int, new: int) -> npt.NDArray[np.float64]:
    edges = np.arange(new + 1) * (old / new)
    pixels = np.arange(old)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: npt.NDArray[np.float64] = np.clip(covered, 0, None) * (new / old)
    return weights
