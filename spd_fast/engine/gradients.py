"""Reading trained motifs on a set of images, and the derivatives of their metrics at fixed weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

import spd_fast._core as _core
from spd_fast.base.interrupts import stopped_with_main
from spd_fast.base.machine import thread_count
from spd_fast.base.types import (
    Array,
    Progress,
    checked_array,
    checked_choice,
    checked_flag,
    checked_instance,
    checked_integer,
    checked_list,
    checked_progress,
)
from spd_fast.dish import Dish
from spd_fast.engine.specs import (
    BATCH_NORM_EPS,
    Parameters,
    checked_cells,
    checked_image_shape,
    element_of,
    flat_parameters,
    owned,
    require_memory,
    specs_of,
    unpack_weights,
)
from spd_fast.learnables.labels import label_matrix
from spd_fast.motif import Shape
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "MotifEvaluation",
    "PackedMotifs",
    "motif_gradient",
    "pack_motifs",
    "parameter_gradient",
    "read_motifs",
    "weighted_sum",
]

Metric = Literal["probability", "loss"]


def motif_gradient(
    cells: Sequence[Candidate],
    shape: Shape,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    parameters: Sequence[Parameters],
    *,
    metric: Metric = "probability",
    factors: npt.ArrayLike | None = None,
    threads: int | None = None,
    dtype: npt.DTypeLike = "float32",
    direct_convolutions: bool = False,
) -> tuple[Array, Array]:
    """Return the metric of trained motifs and its direct gradient: d metric / d images with the trained weights held fixed.

    The metric is read with batch statistics of the whole set, and the gradient includes their dependence on the images.

    Parameters
    ----------
    cells : sequence of K Cell, NatsCell or Perceptron
    shape : MotifShape
    images : ndarray, shape (N, C, H, W)
    labels : ndarray, shape (N,) int or (N, classes) float
    parameters : sequence of K dicts {name: ndarray}
        Weights of the motifs, as ``TrainResult.parameters``.
    metric : "probability" or "loss"
        Mean probability of the true class (Cassimon et al., eq. 4), or mean cross-entropy.
    factors : ndarray, shape (K,), optional
        If given, the gradients of the cells are multiplied by these factors and summed.
    threads, dtype, direct_convolutions
        As in `train_motifs`.

    Returns
    -------
    values : ndarray, shape (K,)
    d_images : ndarray, shape (K, N, C, H, W), or (N, C, H, W) where `factors` is given

    Raises
    ------
    ValueError, TypeError
        If images, labels, parameters or factors do not fit each other, or a setting is unknown.
    """
    require_metric(metric)
    dish = Dish(images, labels)  # type: ignore[arg-type]
    motifs = pack_motifs(cells, shape, parameters, dish.images.shape[1:], dtype=dtype)
    reading = read_motifs(
        motifs, images, labels, metric=metric, threads=threads, direct_convolutions=direct_convolutions
    )
    values: Array = getattr(reading, metric)
    if factors is None:
        return values, reading.d_images
    checked = np.asarray(checked_array("factors", factors), dtype=motifs.element)
    if checked.shape != (len(cells),):
        raise ValueError(f"factors has shape {checked.shape}, expected ({len(cells)},): one for each cell")
    return values, weighted_sum(checked, reading.d_images)


def weighted_sum(factors: Array, arrays: Array) -> Array:
    """Return sum_k factors[k] arrays[k], added in the order of k. An array whose factor is 0 is left out, even if it holds
    NaN."""
    total = np.zeros(arrays.shape[1:], arrays.dtype)
    for factor, array in zip(factors, arrays, strict=True):
        if factor != 0:
            total += factor * array
    return total


@dataclass(frozen=True, eq=False)
class PackedMotifs:
    """K trained motifs in the engine's own format. `pack_motifs` makes them, and `read_motifs` reads them as often as needed.

    Attributes
    ----------
    specs : list of K MotifSpec
        The engine's descriptions of the motifs, made of `sources`.
    weights : list of K ndarray, shape (parameters of the motif,), read-only
    image_shape : (C, H, W)
        Shape of the images on which they are read.
    classes : int
    element : dtype
        float32 or float64.
    sources : list of K (candidate, shape)
        What each motif is made of. With it motifs can be copied and pickled.
    """

    specs: list[_core.MotifSpec]
    weights: list[Array]
    image_shape: tuple[int, ...]
    classes: int
    element: np.dtype[Any]
    sources: list[tuple[Candidate, Shape]]

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.weights, self.image_shape, self.classes, self.element, self.sources)

    def __len__(self) -> int:
        return len(self.specs)

    def __add__(self, other: "PackedMotifs") -> "PackedMotifs":
        """Return the motifs of both, those of `self` first.

        Raises
        ------
        ValueError
            If image shapes, numbers of classes or element types differ.
        """
        if not isinstance(other, PackedMotifs):
            return NotImplemented
        for what in ("image_shape", "classes", "element"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                raise ValueError(f"motifs of {what} {theirs} are added to motifs of {what} {mine}, expected the same")
        return replace(
            self,
            specs=self.specs + other.specs,
            weights=self.weights + other.weights,
            sources=self.sources + other.sources,
        )

    def take(self, rows: Sequence[int]) -> "PackedMotifs":
        """Return the motifs in these rows, in this order. Weights are not copied."""
        rows = [checked_integer("one of rows", row) for row in checked_list("rows", rows, "integers")]
        return replace(
            self,
            specs=[self.specs[k] for k in rows],
            weights=[self.weights[k] for k in rows],
            sources=[self.sources[k] for k in rows],
        )


def _unpickled(
    weights: list[Array],
    image_shape: tuple[int, ...],
    classes: int,
    element: np.dtype[Any],
    sources: list[tuple[Candidate, Shape]],
) -> PackedMotifs:
    """Return packed motifs from all that they hold but the engine's descriptions, which are made anew."""
    specs = [specs_of([cell], shape, image_shape)[0] for cell, shape in sources]
    for each in weights:
        each.flags.writeable = False
    return PackedMotifs(specs, weights, image_shape, classes, element, sources)


@dataclass(frozen=True, eq=False)
class MotifEvaluation:
    """Metrics of K trained motifs on a set of N images, with their derivatives at fixed weights.

    Attributes
    ----------
    probability, loss, accuracy : ndarray, shape (K,)
        As in `MotifMetrics`.
    d_images : ndarray, shape (K, N, C, H, W)
        Derivatives of the chosen metric in the images. Without gradients the shape is (0, N, C, H, W).
    d_labels : ndarray, shape (K, N, classes)
        Derivatives of the chosen metric in soft labels. They are 0 for "probability".
    """

    probability: Array
    loss: Array
    accuracy: Array
    d_images: Array
    d_labels: Array


def pack_motifs(
    cells: Sequence[Candidate],
    shape: Shape,
    parameters: Sequence[Parameters],
    image_shape: tuple[int, ...],
    *,
    dtype: npt.DTypeLike = "float32",
) -> PackedMotifs:
    """Pack trained weights once, for many calls of `read_motifs`.

    Parameters
    ----------
    cells : sequence of K Cell, NatsCell or Perceptron
    shape : MotifShape
    parameters : sequence of K dicts {name: ndarray}
        Weights, as ``TrainResult.parameters``. They are copied.
    image_shape : (C, H, W)
        Shape of the images on which the motifs will be read.
    dtype : "float32" or "float64"

    Raises
    ------
    ValueError, TypeError
        If the weights do not belong to the cells, or the images do not fit the shape.
    """
    element = element_of(dtype)
    specs = specs_of(cells, shape, image_shape)
    weights = flat_parameters(specs, parameters, element)
    for each in weights:
        each.flags.writeable = False
    sources = [(cell, shape) for cell in checked_cells(cells, shape)]
    return PackedMotifs(specs, weights, checked_image_shape(image_shape), shape.classes, np.dtype(element), sources)


def read_motifs(
    motifs: PackedMotifs,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    metric: Metric = "probability",
    gradients: bool = True,
    threads: int | None = None,
    direct_convolutions: bool = False,
) -> MotifEvaluation:
    """Read trained motifs: compute their metrics on a set of images.

    Batch norm uses the statistics of the whole set, and gradients include their dependence on the images.

    Parameters
    ----------
    motifs : PackedMotifs
    images : ndarray, shape (N, C, H, W)
        Images of the shape that the motifs were packed for.
    labels : ndarray, shape (N,) int or (N, classes) float
    metric : "probability" or "loss"
        The metric whose derivatives are taken.
    gradients : bool
        Whether to compute derivatives.
    threads, direct_convolutions
        As in `train_motifs`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `motif_gradient`. Also if there is no motif, or if the images have another shape than the motifs were packed for.
    """
    require_metric(metric)
    checked_instance("motifs", motifs, PackedMotifs, "what pack_motifs returned")
    if not len(motifs):
        raise ValueError("motifs is empty, expected at least one")
    out = _gradient(
        motifs, images, labels, metric, False, checked_flag("gradients", gradients), threads, direct_convolutions
    )
    return MotifEvaluation(**{name: getattr(out, name) for name in MotifEvaluation.__dataclass_fields__})


def parameter_gradient(
    cells: Sequence[Candidate],
    shape: Shape,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    parameters: Sequence[Parameters],
    *,
    threads: int | None = None,
    dtype: npt.DTypeLike = "float32",
    direct_convolutions: bool = False,
    progress: Progress | None = None,
) -> tuple[Array, list[dict[str, Array]], Array]:
    """Return the mean cross-entropy of each motif over the whole set, with its gradients in the weights and in the
    images.

    Parameters are those of `motif_gradient`, `progress` that of `train_motifs`.

    Returns
    -------
    loss : ndarray, shape (K,)
    d_parameters : list of K dicts {name: ndarray}
    d_images : ndarray, shape (K, N, C, H, W)
    """
    dish = Dish(images, labels)  # type: ignore[arg-type]
    motifs = pack_motifs(cells, shape, parameters, dish.images.shape[1:], dtype=dtype)
    out = _gradient(motifs, images, labels, "loss", True, True, threads, direct_convolutions, progress)
    gradients = [unpack_weights(spec, flat) for spec, flat in zip(motifs.specs, out.d_parameters, strict=True)]
    return out.loss, gradients, out.d_images


def _gradient(
    motifs: PackedMotifs,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    metric: Metric,
    want_parameters: bool,
    want_images: bool,
    threads: int | None,
    direct_convolutions: bool,
    progress: Progress | None = None,
) -> _core.Gradient:
    dish = Dish(images, labels)  # type: ignore[arg-type]
    if dish.images.shape[1:] != motifs.image_shape:
        raise ValueError(
            f"images has shape {dish.images.shape}, expected (N, {', '.join(map(str, motifs.image_shape))}), for which the motifs "
            "were packed: pack them for these images"
        )
    require_memory(motifs.specs, len(dish.images), motifs.element, backward=want_parameters or want_images)
    return _core.gradient(
        motifs.specs,
        owned(dish.images, motifs.element),
        label_matrix(dish.labels, motifs.classes, motifs.element),
        motifs.weights,
        metric,
        BATCH_NORM_EPS,
        want_parameters,
        want_images,
        checked_flag("direct_convolutions", direct_convolutions),
        thread_count(threads),
        stopped_with_main(checked_progress(progress)),
    )


def require_metric(metric: str) -> None:
    checked_choice("metric", metric, ("probability", "loss"))
