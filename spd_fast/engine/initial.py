"""The initial weights of motifs: how they are drawn."""

import hashlib
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

import spd_fast._core as _core
from spd_fast.base.types import Array
from spd_fast.engine.inner_loop import InitDistribution, InnerLoop
from spd_fast.engine.specs import pack_weights, specs_of, unpack_weights
from spd_fast.motif import MotifShape, Shape, layer_kind
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "draw_weights",
    "initial_parameters",
    "starting_weights",
]

_Drawn = dict[tuple[str, tuple[int, ...], tuple[int, ...]], Array]
"""Drawn tensors by the name and the dimensions of what is drawn, and those of the layer's weights."""


def initial_parameters(
    cell: Candidate,
    shape: Shape,
    *,
    image_shape: tuple[int, int, int] | None = None,
    seed: int = 0,
    replicate: int = 0,
    init: Literal["shared", "motif"] = "shared",
    init_distribution: InitDistribution = "pytorch",
    initial_scales: npt.ArrayLike | None = None,
    dtype: npt.DTypeLike = "float32",
) -> dict[str, Array]:
    """Return the initial weights of a motif, from which `train_motifs` starts.

    Every weight depends on (seed, replicate, layer name, c_out, c_in, tap) and nothing else; with ``init="motif"`` also on the
    cell and the shape. A tap is one of the nine places of a 3x3 convolution. A 1x1 convolution takes the centre tap of the 3x3
    tensor of its layer's name.

    Parameters
    ----------
    image_shape : (C, H, W), optional
        Shape of the images. A `PerceptronShape` needs it; the weights of a `MotifShape` do not depend on it.
    cell, shape, seed, replicate, init, init_distribution, initial_scales, dtype
        As in `train_motifs`.

    Returns
    -------
    dict {name: ndarray}
        Names are those of a PyTorch state_dict. Weights of convolutions have the shape (c_out, c_in, k, k), those of dense
        layers (units, features).

    References
    ----------
    "pytorch" is PyTorch's default, uniform in +-1/sqrt(fan_in). "nasbench101" is the benchmark's: TensorFlow's
    ``variance_scaling_initializer`` for convolutions (normal with variance 1/fan_in, cut at two standard deviations), and Glorot
    uniform for the dense layer, whose bias is 0. "normal" is N(0, 1), of Rawal et al. 2020.
    """
    loop = InnerLoop.of(
        seed=seed,
        replicate=replicate,
        init=init,
        init_distribution=init_distribution,
        initial_scales=initial_scales,
        dtype=dtype,
    )
    return draw_weights([cell], shape, loop, image_shape=image_shape)[0]


def draw_weights(
    cells: Sequence[Candidate], shape: Shape, loop: InnerLoop, *, image_shape: tuple[int, int, int] | None = None
) -> list[dict[str, Array]]:
    """Return the initial weights of the motif of each cell, as `initial_parameters` does, for an inner loop.

    Raises
    ------
    ValueError
        If `image_shape` is missing where the weights of the first layer depend on it.
    """
    if image_shape is None:
        if not isinstance(shape, MotifShape):
            raise ValueError("image_shape is None, expected (C, H, W): the weights of the first layer depend on it")
        image_shape = (shape.image_channels, 4 << shape.stacks, 4 << shape.stacks)
    specs = specs_of(cells, shape, image_shape)
    flat = starting_weights(specs, cells, shape, loop)
    return [unpack_weights(spec, vector) for spec, vector in zip(specs, flat, strict=True)]


def starting_weights(
    specs: Sequence[_core.MotifSpec], cells: Sequence[Candidate], shape: Shape, loop: InnerLoop
) -> list[Array]:
    """Return the initial weights of the motif of each cell as the engine's flat vector: those that the inner loop holds, or drawn ones.

    Raises
    ------
    ValueError
        If the inner loop holds weights for another number of cells, or weights that do not fit a motif.
    """
    if isinstance(loop.init, str):
        shared: _Drawn = {}
        return [_weights(spec, cell, shape, loop, shared) for spec, cell in zip(specs, cells, strict=True)]
    if len(loop.init) != len(cells):
        raise ValueError(f"init holds {len(loop.init)} sets of weights, expected {len(cells)}, one for each cell")
    return [pack_weights(spec, weights, loop.dtype) for spec, weights in zip(specs, loop.init, strict=True)]


def _weights(spec: _core.MotifSpec, cell: Candidate, shape: Shape, loop: InnerLoop, shared: _Drawn) -> Array:
    """Return drawn initial weights of one motif.

    `shared` collects drawn tensors, because with ``init="shared"`` other cells use the same ones.
    """
    scope = f"{loop.seed}/{loop.replicate}"
    if loop.init == "motif":
        scope += f"/{cell.key}/{shape.key}"
        shared = {}
    tables = spec.tables
    flat = np.zeros(tables.n_parameters, loop.dtype)
    weights_of_layer: tuple[int, ...] = ()
    for name, at, dims in tables.parameters:
        if name.endswith("bn.weight"):
            flat[at : at + dims[0]] = 1
        elif not name.endswith("bn.bias"):
            if len(dims) > 1:
                weights_of_layer = dims  # the bias follows its layer's weights in the table
            layer = name, dims, weights_of_layer
            drawn = shared.get(layer)
            if drawn is None:
                drawn = shared[layer] = _drawn(key_of(f"{scope}/{name}"), name, dims, weights_of_layer, loop)
            flat[at : at + len(drawn)] = drawn
    return flat


def _drawn(key: int, name: str, dims: tuple[int, ...], weights_of_layer: tuple[int, ...], loop: InnerLoop) -> Array:
    """Return the drawn weights or biases of a layer, scaled, in one row. `weights_of_layer` are the dimensions of the layer's weights."""
    drawn = _distributed(key, dims, math.prod(weights_of_layer[1:]), loop.init_distribution)
    kind = layer_kind(name, dims)
    scaled = drawn if kind is None or loop.initial_scales is None else drawn * loop.initial_scales[kind]
    return scaled.astype(loop.dtype).ravel()


def _distributed(key: int, dims: tuple[int, ...], fan_in: int, init_distribution: InitDistribution) -> Array:
    rows, columns = dims[0], dims[1] if len(dims) > 1 else 1
    taps = list(range(9)) if dims[2:] == (3, 3) else [4] if len(dims) == 4 else [0]
    uniform = _core.uniforms(key, rows, columns, taps).reshape(dims)
    if init_distribution == "pytorch":
        return (2 * uniform - 1) / math.sqrt(fan_in)
    from scipy.special import ndtr, ndtri

    if init_distribution == "normal":
        return np.asarray(ndtri(uniform))
    if len(dims) == 4:
        cut = 2.0
        normal: Array = ndtri(ndtr(-cut) + uniform * (ndtr(cut) - ndtr(-cut)))
        return normal * math.sqrt(1 / fan_in) / 0.87962566103423978  # standard deviation of the cut normal
    if len(dims) == 2:
        return (2 * uniform - 1) * math.sqrt(6 / (rows + columns))
    return np.zeros(dims)


def key_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
