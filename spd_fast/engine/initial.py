"""The initial weights of motifs: how they are drawn."""

import hashlib
import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Literal

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

_Layer = tuple[str, tuple[int, ...], tuple[int, ...]]
"""The name and the dimensions of what is drawn, and the dimensions of the layer's weights."""


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
        shared: dict[_Layer, Array] = {}
        return [_weights(spec, cell, shape, loop, shared) for spec, cell in zip(specs, cells, strict=True)]
    if len(loop.init) != len(cells):
        raise ValueError(f"init holds {len(loop.init)} sets of weights, expected {len(cells)}, one for each cell")
    return [pack_weights(spec, weights, loop.dtype) for spec, weights in zip(specs, loop.init, strict=True)]


def _weights(
    spec: _core.MotifSpec, cell: Candidate, shape: Shape, loop: InnerLoop, shared: dict[_Layer, Array]
) -> Array:
    """Return drawn initial weights of one motif.

    `shared` collects drawn tensors, because with ``init="shared"`` other cells use the same ones.
    """
    scope = f"{loop.seed}/{loop.replicate}"
    if loop.init == "motif":
        scope += f"/{cell.key}/{shape.key}"
        shared = {}
    tables = spec.tables
    flat = np.zeros(tables.n_parameters, loop.dtype)
    layers: list[tuple[int, _Layer]] = []
    weights: tuple[int, ...] = ()
    for name, at, dims in tables.parameters:
        if len(dims) > 1:
            weights = dims  # the bias follows its layer's weights in the table
            layers.append((at, (name, dims, weights)))
        elif name.endswith("bn.weight"):
            flat[at : at + dims[0]] = 1
        elif not name.endswith("bn.bias"):
            layers.append((at, (name, dims, weights)))
    missing = [layer for _, layer in layers if layer not in shared]
    shared.update(zip(missing, _drawn(missing, scope, loop), strict=True))
    for at, layer in layers:
        drawn = shared[layer]
        flat[at : at + len(drawn)] = drawn
    return flat


def _drawn(layers: Sequence[_Layer], scope: str, loop: InnerLoop) -> list[Array]:
    """Return the drawn weights or biases of each layer, scaled, in one row."""
    if not layers:
        return []
    sizes = [math.prod(dims) for _, dims, _ in layers]
    uniform = _core.uniforms([(key_of(f"{scope}/{name}"), *_extent(dims)) for name, dims, _ in layers])
    drawn = _distributed(uniform, layers, sizes, loop.init_distribution)
    if loop.initial_scales is not None:
        kinds = [layer_kind(name, dims) for name, dims, _ in layers]
        drawn = drawn * np.repeat([1.0 if kind is None else loop.initial_scales[kind] for kind in kinds], sizes)
    drawn = drawn.astype(loop.dtype)
    return [drawn[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]


def _extent(dims: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return rows, columns, the first tap and the number of taps of a tensor."""
    taps = (0, 9) if dims[2:] == (3, 3) else (4, 1) if len(dims) == 4 else (0, 1)
    return dims[0], dims[1] if len(dims) > 1 else 1, *taps


def _distributed(
    uniform: Array, layers: Sequence[_Layer], sizes: Sequence[int], distribution: InitDistribution
) -> Array:
    """Return draws from a distribution, from uniform ones. `sizes` is the number of them in each layer."""

    def each(of_layers: Sequence[Any]) -> Array:
        return np.repeat(of_layers, sizes)

    fan_in = [math.prod(weights[1:]) for _, _, weights in layers]
    if distribution == "pytorch":
        return (2 * uniform - 1) / each([math.sqrt(n) for n in fan_in])
    from scipy.special import ndtr, ndtri

    if distribution == "normal":
        return np.asarray(ndtri(uniform))
    cut = 2.0
    normal: Array = ndtri(ndtr(-cut) + uniform * (ndtr(cut) - ndtr(-cut)))
    of_cut = 0.87962566103423978  # the standard deviation of the cut normal
    of_convolutions = normal * each([math.sqrt(1 / n) for n in fan_in]) / of_cut
    of_dense = (2 * uniform - 1) * each([math.sqrt(6 / sum(dims[:2])) for _, dims, _ in layers])
    n_dims = each([len(dims) for _, dims, _ in layers])
    return np.select([n_dims == 4, n_dims == 2], [of_convolutions, of_dense], 0.0)


def key_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
