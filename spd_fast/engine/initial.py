"""Initial weights of motifs."""

import hashlib
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from spd_fast import _core
from spd_fast.base.types import Array
from spd_fast.dish import checked_scales
from spd_fast.engine.specs import Parameters, element_of, specs_of
from spd_fast.motif import MotifShape, Shape, layer_kind
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "initial_parameters",
]

Initializer = Literal["pytorch", "nasbench101", "normal"]


def initial_parameters(
    cell: Candidate,
    shape: Shape,
    *,
    image_shape: tuple[int, int, int] | None = None,
    seed: int = 0,
    replicate: int = 0,
    init: Literal["shared", "motif"] = "shared",
    initializer: Initializer = "pytorch",
    initial_scales: npt.ArrayLike | None = None,
    dtype: npt.DTypeLike = "float32",
) -> dict[str, Array]:
    """The weights that `train_motifs` starts from.

    Every number is keyed by (seed, replicate, layer name, c_out, c_in, tap), with ``init="motif"`` by the cell and the
    shape as well, and by nothing else. A 1x1 convolution is the centre tap of its layer's master tensor.

    Parameters
    ----------
    image_shape : (C, H, W), optional
        Of the images; an `MLPShape` needs it, a `MotifShape` has the same weights for any.
    cell, shape, seed, replicate, init, initializer, initial_scales, dtype
        As in `train_motifs`.

    Returns
    -------
    dict {name: ndarray}
        By the names of a PyTorch state_dict; convolution weights (c_out, c_in, k, k), dense ones (units, features).

    References
    ----------
    PyTorch: uniform in +-1/sqrt(fan_in). Benchmark: ``variance_scaling_initializer`` (normal of variance 1/fan_in, cut at two
    standard deviations) for convolutions, Glorot uniform for the dense layer, whose bias is 0. Normal: Rawal et al. 2020.
    """
    if image_shape is None:
        if not isinstance(shape, MotifShape):
            raise ValueError("image_shape is None, expected (C, H, W): the weights of the first layer depend on it")
        image_shape = (shape.image_channels, 4 << shape.stacks, 4 << shape.stacks)
    (spec,) = specs_of([cell], shape, image_shape)
    return _initial_weights(
        spec, cell, shape, seed, replicate, init, initializer, initial_scales, element_of(dtype), {}
    )


def _initial_weights(
    spec: _core.MotifSpec,
    cell: Candidate,
    shape: Shape,
    seed: int,
    replicate: int,
    init: str,
    initializer: Initializer,
    initial_scales: npt.ArrayLike | None,
    element: npt.DTypeLike,
    shared: dict[tuple[str, tuple[int, ...], int], Array],
) -> dict[str, Array]:
    """`shared` keeps what was drawn, for the layers of other cells that are the same with ``init="shared"``."""
    if init not in ("shared", "motif"):
        raise ValueError(f"init is {init!r}, expected 'shared' or 'motif'")
    if initializer not in ("pytorch", "nasbench101", "normal"):
        raise ValueError(f"initializer is {initializer!r}, expected 'pytorch', 'nasbench101' or 'normal'")
    scales = None if initial_scales is None else checked_scales(initial_scales)
    scope = f"{seed}/{replicate}"
    if init == "motif":
        scope += f"/{cell.key}/{shape!r}"
        shared = {}
    weights = {}
    fan_in = 1
    for name, _, dims in spec.tables()[0]:
        if name.endswith("bn.weight"):
            weights[name] = np.ones(dims, element)
        elif name.endswith("bn.bias"):
            weights[name] = np.zeros(dims, element)
        else:
            fan_in = math.prod(dims[1:]) if len(dims) > 1 else fan_in  # a bias comes behind its weights
            layer = name, dims, fan_in
            if layer not in shared:
                shared[layer] = _drawn(key_of(f"{scope}/{name}"), dims, fan_in, initializer)
            drawn = shared[layer]
            kind = layer_kind(name, dims)
            weights[name] = (drawn if kind is None or scales is None else drawn * scales[kind]).astype(element)
    return weights


def _drawn(key: int, dims: tuple[int, ...], fan_in: int, initializer: Initializer) -> Array:
    rows, columns = dims[0], dims[1] if len(dims) > 1 else 1
    taps = list(range(9)) if dims[2:] == (3, 3) else [4] if len(dims) == 4 else [0]
    uniform = _core.uniforms(key, rows, columns, taps).reshape(dims)
    if initializer == "pytorch":
        return (2 * uniform - 1) / math.sqrt(fan_in)
    from scipy.special import ndtr, ndtri

    if initializer == "normal":
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


def starting_weights(
    specs: Sequence[_core.MotifSpec],
    cells: Sequence[Candidate],
    shape: Shape,
    init: Literal["shared", "motif"] | Sequence[Parameters],
    seed: int,
    replicate: int,
    initializer: Initializer,
    initial_scales: npt.ArrayLike | None,
    element: npt.DTypeLike,
) -> list[dict[str, Array]]:
    if isinstance(init, str):
        shared: dict[tuple[str, tuple[int, ...], int], Array] = {}
        return [
            _initial_weights(spec, cell, shape, seed, replicate, init, initializer, initial_scales, element, shared)
            for spec, cell in zip(specs, cells, strict=True)
        ]
    if len(init) != len(cells):
        raise ValueError(f"init holds {len(init)} sets of weights, expected {len(cells)}, one for each cell")
    return [{name: np.array(array, dtype=element) for name, array in weights.items()} for weights in init]
