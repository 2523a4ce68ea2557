"""Zero-cost proxies: scores of cells that are read off an untrained motif by one or two passes over a batch of images.

They are controls: a learned dish should rank cells better than scores that cost almost nothing.

References
----------
M. S. Abdelfattah, A. Mehrotra, L. Dudziak and N. D. Lane 2021, "Zero-Cost Proxies for Lightweight NAS", arXiv:2101.08134,
and the definitions of its published code (SamsungLabs/zero-cost-nas); J. Mellor, J. Turner, A. Storkey and E. J. Crowley,
"Neural Architecture Search without Training", arXiv:2006.04647, versions 1 (jacob_cov) and 3 (nwot).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.progress import share_of
from spd_fast.base.types import (
    Array,
    Progress,
    checked_array,
    checked_choice,
    checked_instance,
    checked_integer,
    checked_progress,
    checked_sequence,
)
from spd_fast.engine.gradients import parameter_gradient
from spd_fast.engine.initial import draw_weights
from spd_fast.engine.inner_loop import InnerLoop
from spd_fast.engine.probes import activation_agreements, logit_gradient
from spd_fast.engine.specs import Parameters, checked_cells
from spd_fast.motif import Shape
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "PROXIES",
    "score",
]

JACOBIAN_SHIFT: Final = 1e-5
"""It is added to eigenvalues to keep their logarithms and inverses finite (Mellor et al., published code)."""
AT_ONCE: Final = 256
"""Number of cells whose gradients are in memory at the same time."""


def score(
    cells: Sequence[Candidate],
    shape: Shape,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    name: str,
    *,
    parameters: Sequence[Parameters] | None = None,
    seed: int = 0,
    replicate: int = 0,
    threads: int | None = None,
    dtype: npt.DTypeLike = "float32",
    at_once: int = AT_ONCE,
    progress: Progress | None = None,
) -> npt.NDArray[np.float64]:
    """Score each cell by a zero-cost proxy of its motif; higher should mean a better cell.

    Parameters
    ----------
    cells : sequence of K Cell or NatsCell
    shape : MotifShape
    images : ndarray, shape (N, C, H, W)
        One batch; batch norm uses its statistics. synflow uses only the shape of the images.
    labels : ndarray, shape (N,) int or (N, classes) float
        Only grad_norm and snip use them.
    name : "grad_norm", "snip", "synflow", "jacob_cov" or "nwot"
        See Notes.
    parameters : sequence of K dicts {name: ndarray}, optional
        Weights of the motifs. Default: the initial weights of `train_motifs`, which `seed` and `replicate` choose.
    threads, dtype, progress
        As in `train_motifs`. synflow is computed in float64 whatever `dtype` is, because it grows with every layer.
    at_once : int, at least 1
        Number of cells whose gradients are in memory together. It does not change the scores.

    Returns
    -------
    ndarray, shape (K,), float64
        NaN if a score is not finite. nwot is not finite if two images open the same ReLUs, for example.

    Raises
    ------
    ValueError, TypeError, MemoryError
        If an argument does not fit; the message says what was expected.

    Notes
    -----
    L is the mean cross-entropy of the batch; w are the weights of convolutions and of the dense layer, without batch norm and
    biases.

    * grad_norm is the sum over layers of ``||dL/dw||``.
    * snip is the sum over weights of ``|w dL/dw|`` (Lee et al. 2019, arXiv:1810.02340).
    * synflow is the sum over weights of ``w dR/dw``. R is the sum of the logits of an image of ones in the network with absolute
      weights and without batch norm (Tanaka et al. 2020, arXiv:2006.05467).
    * jacob_cov is ``-sum_i log(v_i + k) + 1 / (v_i + k)`` with k = 1e-5. The v_i are the eigenvalues of the correlation matrix of
      the rows of d (sum of all logits) / d images, one row for each image.
    * nwot is ``log |det K|``. ``K[i, j]`` is the number of ReLUs that are open for both of the images i and j, or for neither.
      If several convolutions of one size leave the same node of a `NatsCell`, their ReLU counts once.
    """
    cells = checked_cells(cells, shape)
    name = checked_choice("name", name, PROXIES)
    images = checked_array("images", images)
    if images.ndim != 4:
        raise ValueError(f"images has shape {images.shape}, expected (N, C, H, W)")
    if parameters is not None:
        checked_sequence("parameters", parameters, "weights by name, one dict for each cell")
        for k, each in enumerate(parameters):
            checked_instance(
                f"parameters[{k}]", each, Mapping, "a dict of arrays by name, as TrainResult.parameters holds them"
            )
        if len(parameters) != len(cells):
            raise ValueError(
                f"parameters holds {len(parameters)} sets of weights, expected {len(cells)}: one for each cell"
            )
    at_once = checked_integer("at_once", at_once, 1)
    checked_progress(progress)
    values = np.full(len(cells), np.nan)
    loop = InnerLoop.of(seed=seed, replicate=replicate, dtype=dtype)
    for first in range(0, len(cells), at_once):
        some = cells[first : first + at_once]
        weights = draw_weights(some, shape, loop) if parameters is None else parameters[first : first + at_once]
        how = {
            "threads": threads,
            "dtype": dtype,
            "progress": share_of(progress, first / len(cells), len(some) / len(cells)),
        }
        with np.errstate(all="ignore"):  # values that are not finite become NaN below
            values[first : first + len(some)] = PROXIES[name](_Batch(some, shape, images, labels, weights, how))
    return np.where(np.isfinite(values), values, np.nan)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Motifs, and the images that they are scored on."""

    cells: Sequence[Candidate]
    shape: Shape
    images: npt.ArrayLike
    labels: npt.ArrayLike
    parameters: Sequence[Parameters]
    how: dict[str, Any]

    def loss_gradients(self) -> list[dict[str, Array]]:
        return parameter_gradient(self.cells, self.shape, self.images, self.labels, self.parameters, **self.how)[1]


def _grad_norm(of: _Batch) -> Array:
    return np.array(
        [sum(np.linalg.norm(g.astype(np.float64)) for _, g in _layers(each)) for each in of.loss_gradients()]
    )


def _snip(of: _Batch) -> Array:
    return _saliency(of.loss_gradients(), of.parameters)


def _synflow(of: _Batch) -> Array:
    ones = np.ones((1, *np.shape(of.images)[1:]))
    absolute = [{name: np.abs(np.asarray(w, np.float64)) for name, w in each.items()} for each in of.parameters]
    how = {**of.how, "dtype": "float64"}
    gradients, _ = logit_gradient(of.cells, of.shape, ones, absolute, batch_norm=False, direct_convolutions=True, **how)
    return _saliency(gradients, absolute)


def _jacob_cov(of: _Batch) -> Array:
    _, jacobians = logit_gradient(of.cells, of.shape, of.images, of.parameters, **of.how)
    rows = jacobians.reshape(*jacobians.shape[:2], -1).astype(np.float64)
    return np.array([_eigenvalue_score(np.corrcoef(each)) for each in rows])


def _eigenvalue_score(correlation: Array) -> float:
    if not np.isfinite(correlation).all():
        return np.nan
    shifted = np.linalg.eigvalsh(np.atleast_2d(correlation)) + JACOBIAN_SHIFT
    return -float(np.sum(np.log(shifted) + 1 / shifted))


def _nwot(of: _Batch) -> Array:
    kernels = activation_agreements(of.cells, of.shape, of.images, of.parameters, **of.how).astype(np.float64)
    return np.asarray(np.linalg.slogdet(kernels)[1])


def _layers(weights: Parameters) -> list[tuple[str, Array]]:
    """Return the weights of convolutions and of the dense layer."""
    return [(name, w) for name, w in weights.items() if w.ndim > 1]


def _saliency(gradients: Sequence[Parameters], parameters: Sequence[Parameters]) -> Array:
    """Return the sum of |w dw| over the layers of each motif."""
    return np.array(
        [
            sum(np.abs(g.astype(np.float64) * np.asarray(weights[name])).sum() for name, g in _layers(of))
            for of, weights in zip(gradients, parameters, strict=True)
        ]
    )


PROXIES: Final[dict[str, Callable[[_Batch], Array]]] = {
    "grad_norm": _grad_norm,
    "snip": _snip,
    "synflow": _synflow,
    "jacob_cov": _jacob_cov,
    "nwot": _nwot,
}
"""The function that computes each proxy, by name."""
