"""The description from which the engine builds a motif, and the conversion of weights by name to the engine's flat vector."""

import math
import os
from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any

import numpy as np
import numpy.typing as npt

import spd_fast._core as _core
from spd_fast.base.types import Array, checked_array, checked_instance, checked_integer, checked_sequence, shown
from spd_fast.motif import MotifShape, Shape, cell_channels
from spd_fast.spaces.candidate import Candidate, MotifCell, checked_candidates
from spd_fast.spaces.perceptron import Perceptron, PerceptronShape

__all__ = [
    "checked_cells",
    "forward_flops",
]

BATCH_NORM_EPS = 1e-5
Parameters = Mapping[str, Array]


def forward_flops(cells: Sequence[Candidate], shape: Shape, image_shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return the floating-point operations of one image's forward pass of each motif, shape (K,). A multiply-add counts as 2.

    Parameters
    ----------
    cells, shape
        As in `train_motifs`.
    image_shape : (C, H, W)
    """
    return np.array([spec.flops() for spec in specs_of(cells, shape, image_shape)])


def flat_parameters(
    specs: Sequence[_core.MotifSpec], parameters: Sequence[Parameters], element: npt.DTypeLike
) -> list[Array]:
    checked_sequence("parameters", parameters, "weights by name, one dict for each cell")
    if len(parameters) != len(specs):
        raise ValueError(
            f"parameters holds {len(parameters)} sets of weights, expected {len(specs)}, one for each cell"
        )
    return [pack_weights(spec, weights, element) for spec, weights in zip(specs, parameters, strict=True)]


def specs_of(cells: Sequence[Candidate], shape: Shape, image_shape: tuple[int, ...]) -> list[_core.MotifSpec]:
    checked = checked_cells(cells, shape)
    image_shape = checked_image_shape(image_shape)
    shape.require_images(image_shape)
    return [_spec(shape, cell, image_shape) for cell in checked]


def checked_image_shape(image_shape: Any) -> tuple[int, int, int]:
    """Return (C, H, W) as plain integers."""
    sides = tuple(checked_sequence("image_shape", image_shape, "3 integers: (C, H, W)"))
    if len(sides) != 3:
        raise ValueError(f"image_shape has {len(sides)} numbers, expected 3: (C, H, W)")
    channels, height, width = (checked_integer("one of image_shape", side, 1) for side in sides)
    return channels, height, width


@singledispatch
def _spec(shape: Any, cell: Any, image_shape: tuple[int, ...]) -> _core.MotifSpec:
    """Return the description from which the engine builds a motif.

    `checked_cells` makes sure before that shape and cell fit each other.
    """
    raise NotImplementedError(type(shape))


@_spec.register
def _(shape: MotifShape, cell: MotifCell, image_shape: tuple[int, ...]) -> _core.MotifSpec:
    return _core.MotifSpec(
        vertices=cell.n_vertices,
        ops_on_edges=cell.ops_on_edges,
        matrix=cell.matrix.ravel().tolist(),
        ops=list(cell.op_codes),
        channels=[list(channels) for channels in cell_channels(cell, shape)],
        stem_channels=shape.stem_channels,
        stacks=shape.stacks,
        cells_per_stack=shape.cells_per_stack,
        classes=shape.classes,
        image_channels=shape.image_channels,
        height=image_shape[1],
        width=image_shape[2],
    )


@_spec.register
def _(shape: PerceptronShape, cell: Perceptron, image_shape: tuple[int, ...]) -> _core.MotifSpec:
    return _core.MotifSpec.perceptron(
        hidden=[shape.hidden] * shape.layers,
        slope=cell.slope,
        loss=shape.loss,
        classes=shape.classes,
        image_channels=shape.image_channels,
        height=image_shape[1],
        width=image_shape[2],
    )


def pack_weights(spec: _core.MotifSpec, weights: Parameters, element: npt.DTypeLike) -> Array:
    """Return named weights as the engine's flat vector."""
    checked_instance(
        "one of the sets of weights", weights, Mapping, "a dict of arrays by name, as TrainResult.parameters holds them"
    )
    slices = spec.tables.parameters
    missing = [name for name, _, _ in slices if name not in weights]
    foreign = sorted(str(name) for name in set(weights) - {name for name, _, _ in slices})
    if missing or foreign:
        what = f"lack {missing[0]!r}" if missing else f"hold {foreign[0]!r}, which the motif does not have"
        raise ValueError(f"weights {what}; expected the names of TrainResult.parameters")
    flat = np.zeros(spec.tables.n_parameters, element)
    for name, offset, dims in slices:
        array = checked_array(f"weights {name!r}", weights[name])
        if array.shape != dims:
            raise ValueError(f"weights {name!r} have shape {array.shape}, expected {dims}")
        flat[offset : offset + array.size] = array.ravel()
    return flat


def unpack_weights(spec: _core.MotifSpec, flat: Array) -> dict[str, Array]:
    return {name: flat[at : at + math.prod(dims)].reshape(dims) for name, at, dims in spec.tables.parameters}


def unpack_running(spec: _core.MotifSpec, values: Array) -> dict[str, Array]:
    rows = {"running_mean": 0, "running_var": 1}
    return {
        name: values[rows[name.rpartition(".")[2]], at : at + math.prod(dims)] for name, at, dims in spec.tables.running
    }


def checked_cells(cells: Sequence[Candidate], shape: Shape) -> Sequence[Candidate]:
    """Return the cells if they fit the shape.

    Raises
    ------
    TypeError
        If `cells` is no sequence, if `shape` cannot hold the type of a cell, or if `shape` is not a motif shape.
    ValueError
        If `cells` is empty.
    """
    shapes = (MotifShape, PerceptronShape)
    if not isinstance(shape, shapes):
        raise TypeError(f"shape is {type(shape).__name__}, expected spd_fast.MotifShape or spd_fast.PerceptronShape")
    kinds = " or ".join(f"spd_fast.{kind.__name__}" for kind in shape.cell_types)
    checked = checked_candidates(cells, shape.cell_types, f"{kinds} for a {type(shape).__name__}")
    if not len(checked):
        raise ValueError(f"cells is empty, expected at least one {kinds}")
    return checked


def owned(array: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> Array:
    """Return a copy for the engine, so that callbacks and other threads cannot change the array after it was checked."""
    return np.array(array, dtype, order="C")


def element_of(dtype: npt.DTypeLike) -> npt.DTypeLike:
    try:
        element = np.dtype(dtype if dtype is not None else "O")  # numpy takes None for float64
    except TypeError:
        raise TypeError(f"dtype is {shown(dtype)}, expected 'float32' or 'float64'") from None
    if element not in (np.float32, np.float64):
        raise TypeError(f"dtype is {element}, expected float32 or float64")
    return element


def require_memory(specs: Sequence[_core.MotifSpec], n: int, element: npt.DTypeLike, *, backward: bool) -> None:
    needed = (
        max(spec.memory(n, backward=backward) for spec in specs) * np.dtype(element).itemsize // 4
    )  # `memory` is in bytes for float32
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > installed // 2:
        raise MemoryError(
            f"batch statistics over {n} images need {needed / 2**30:.1f} GiB for each thread, expected at most half of the machine's "
            f"{installed / 2**30:.1f} GiB: use statistics='running', or fewer images"
        )
