"""Measurements of untrained motifs for zero-cost proxies, and the profile of a training step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import spd_fast._core as _core
from spd_fast.base.interrupts import stopped_with_main
from spd_fast.base.machine import thread_count
from spd_fast.base.types import Array, Progress, checked_array, checked_flag, checked_integer, checked_progress
from spd_fast.dish import Dish
from spd_fast.engine.initial import initial_parameters
from spd_fast.engine.optimizers import Adam
from spd_fast.engine.specs import (
    BATCH_NORM_EPS,
    Parameters,
    element_of,
    flat_parameters,
    owned,
    pack_weights,
    require_memory,
    specs_of,
    unpack_weights,
)
from spd_fast.learnables.labels import label_matrix
from spd_fast.motif import MotifShape, Shape
from spd_fast.spaces.candidate import Candidate, MotifCell

__all__ = [
    "activation_agreements",
    "logit_gradient",
    "step_profile",
]


def logit_gradient(
    cells: Sequence[Candidate],
    shape: Shape,
    images: npt.ArrayLike,
    parameters: Sequence[Parameters],
    *,
    batch_norm: bool = True,
    threads: int | None = None,
    dtype: npt.DTypeLike = "float32",
    direct_convolutions: bool = False,
    progress: Progress | None = None,
) -> tuple[list[dict[str, Array]], Array]:
    """Return the gradient of the sum of all logits of all images, in the weights and in the images, for each motif.

    Parameters
    ----------
    batch_norm : bool
        If true, batch norm uses the statistics of the whole set, and the gradient includes them. If false, batch norm and ReLUs
        are left out; the network is then linear but for max-pooling. Neither weights nor images may be negative, so that the
        ReLUs would change nothing.
    cells, shape, images, parameters, threads, dtype, direct_convolutions, progress
        As in `motif_gradient` and `train_motifs`.

    Returns
    -------
    d_parameters : list of K dicts {name: ndarray}
        Without batch norm, the entries of batch norm have no meaning.
    d_images : ndarray, shape (K, N, C, H, W)

    Raises
    ------
    ValueError, TypeError, MemoryError
        If an argument does not fit; without batch norm, if a weight or an image is negative.
    """
    specs, data, flat = _proxy_inputs(cells, shape, images, parameters, dtype)
    if not checked_flag("batch_norm", batch_norm):
        for spec, weights in zip(specs, flat, strict=True):
            for name, values in unpack_weights(spec, weights).items():
                if ".bn." in name:
                    values[...] = name.endswith("weight")
        if min(data.min(), *(weights.min() for weights in flat)) < 0:
            raise ValueError(
                "weights or images hold negative values, expected none without batch norm: take absolute values"
            )
    out = _core.logit_gradient(
        specs,
        data,
        flat,
        batch_norm,
        BATCH_NORM_EPS,
        checked_flag("direct_convolutions", direct_convolutions),
        thread_count(threads),
        checked_progress(progress),
    )
    return [unpack_weights(spec, each) for spec, each in zip(specs, out.d_parameters, strict=True)], np.stack(
        out.d_images
    )


def activation_agreements(
    cells: Sequence[Candidate],
    shape: Shape,
    images: npt.ArrayLike,
    parameters: Sequence[Parameters],
    *,
    threads: int | None = None,
    dtype: npt.DTypeLike = "float32",
    direct_convolutions: bool = False,
    progress: Progress | None = None,
) -> npt.NDArray[np.int64]:
    """Return, for each pair of images, how many ReLUs of a motif are open for both or for neither.

    Batch norm uses the statistics of the set. Parameters are those of `logit_gradient`.

    Returns
    -------
    ndarray, shape (K, N, N), int64
        The diagonal holds the number of ReLUs.
    """
    specs, data, flat = _proxy_inputs(cells, shape, images, parameters, dtype)
    return np.stack(
        _core.activations(
            specs,
            data,
            flat,
            BATCH_NORM_EPS,
            checked_flag("direct_convolutions", direct_convolutions),
            thread_count(threads),
            stopped_with_main(checked_progress(progress)),
        )
    )


def step_profile(
    cell: MotifCell,
    shape: MotifShape,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    repeats: int = 100,
    direct_convolutions: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure the time of every part of every op of a training step, in float32 on one thread.

    All N images are one batch. The optimizer is Adam with learning rate 0: a step then costs the same and leaves the weights as
    they are.

    Parameters
    ----------
    repeats : int
        How often the step is run with its parts timed, at least 1. It is run as often without timing its parts.
    cell, shape, images, labels, direct_convolutions, progress
        As in `train_motifs` and `motif_gradient`.

    Returns
    -------
    dict
        ``whole`` and ``timed``, ndarray, shape (repeats,): seconds of a step, without and with its parts timed.
        ``seconds``, ndarray, shape (repeats, ops + 1, parts): seconds of the parts; the last row is work beside the ops.
        ``parts``: names of the parts. ``ops``: a dict for each op of the plan with its ``kind`` ("conv", which includes its batch
        norm, "sum", "pool" or "head"), the ``names`` of its layers if it is a convolution, sizes and algorithms. ``elements``
        is the size of one channel of the batch with its padding lanes; ``terms`` and ``flows`` are the numbers of channels of all
        tensors that the forward pass and the backward pass add. ``parameters``: the number of weights. ``image_values``:
        the number of values of one image. ``lanes``: pixels in a vector.
    """
    repeats = checked_integer("repeats", repeats, 1)
    direct_convolutions = checked_flag("direct_convolutions", direct_convolutions)
    checked_progress(progress)
    dish = Dish(images, labels)  # type: ignore[arg-type]
    (spec,) = specs_of([cell], shape, dish.images.shape[1:])
    out = _core.profile(
        spec,
        owned(dish.images, np.float32),
        label_matrix(dish.labels, shape.classes, np.float32),
        pack_weights(spec, initial_parameters(cell, shape, image_shape=dish.images.shape[1:]), np.float32),
        Adam()._for_engine(),
        0.0,
        0.1,
        BATCH_NORM_EPS,
        direct_convolutions,
        repeats,
        stopped_with_main(progress),
    )
    weights = [(name, at) for name, at, dims in spec.tables.parameters if len(dims) == 4]
    ops = []
    for op in out.ops:
        kind = type(op).__name__.removesuffix("Op").lower()
        ops.append({"kind": kind} | {name: getattr(op, name) for name in op.__match_args__ if name != "weight"})
        if isinstance(op, _core.ConvOp):
            end = op.weight + op.c_out * op.c_in * op.size**2
            ops[-1]["names"] = [name.removesuffix(".conv.weight") for name, at in weights if op.weight <= at < end]
    rest = ("parts", "parameters", "lanes", "whole", "timed", "seconds")
    return {"ops": ops, "image_values": dish.images[0].size} | {name: getattr(out, name) for name in rest}


def _proxy_inputs(
    cells: Sequence[Candidate],
    shape: Shape,
    images: npt.ArrayLike,
    parameters: Sequence[Parameters],
    dtype: npt.DTypeLike,
) -> tuple[list[_core.MotifSpec], Array, list[Array]]:
    if not isinstance(shape, MotifShape):
        raise TypeError(
            f"shape is {type(shape).__name__}, expected spd_fast.MotifShape: proxies are of motifs of cells"
        )
    element = element_of(dtype)
    array = checked_array("images", images)
    dish = Dish(array, np.zeros(len(array) if array.ndim else 0, np.int64))
    specs = specs_of(cells, shape, dish.images.shape[1:])
    require_memory(specs, len(dish.images), element, backward=True)
    return specs, owned(dish.images, element), flat_parameters(specs, parameters, element)
