"""The pool of an outer loop: its training cells, its validation cells, and the target that metrics are compared with."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from spd_fast.base.seeds import derived_seed
from spd_fast.base.types import Array, checked_array
from spd_fast.recipes.settings import OuterSettings
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "draw_cells",
]


def split_pool(n: int, outer: OuterSettings, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the positions of the training cells and of the validation cells among `n` cells.

    The positions depend on `n`, ``outer.pool``, ``outer.validation_cells`` and the recipe's seed alone.
    """
    size, n_validation = outer.pool or n, outer.validation_cells
    if size == n and not n_validation:
        return np.arange(n), np.arange(0)
    order = np.random.default_rng(derived_seed(seed, "pool")).permutation(n)[:size]
    return order[: size - n_validation], order[size - n_validation :]


def draw_cells(n: int, size: int, epoch: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the positions of the `size` cells that an outer epoch compares, among `n` training cells.

    Each pass over the training cells is a random permutation, which is cut into groups of `size`. Cells that are left
    over at the end are not used in that pass.
    """
    passes, piece = divmod(epoch, n // size)
    order = np.random.default_rng(derived_seed(seed, "cells", passes)).permutation(n)
    return order[piece * size : (piece + 1) * size]


def transformed(truth: Array, outer: OuterSettings) -> Array:
    """Return the target of cells, with which metrics are compared, as ``outer.target`` says: shape (n,), float64."""
    if outer.target == "rank":
        from scipy.stats import rankdata

        ranks: Array = (rankdata(truth) - 1) / max(len(truth) - 1, 1)
        return ranks
    if outer.target == "winsorised":
        share = outer.winsorise
        winsorised: Array = np.clip(truth, *np.quantile(truth, [share, 1 - share]))
        return winsorised
    return truth


def checked_truth(cells: Sequence[Candidate], accuracy: npt.ArrayLike, outer: OuterSettings) -> Array:
    """Return the accuracies as float64, shape (n,); a ValueError says what does not fit the cells or the settings."""
    truth = np.ascontiguousarray(checked_array("accuracy", accuracy), np.float64)
    if truth.shape != (len(cells),):
        raise ValueError(f"accuracy has shape {truth.shape}, expected ({len(cells)},) to match cells")
    bad = np.flatnonzero(~np.isfinite(truth))
    if len(bad):
        raise ValueError(f"accuracy[{bad[0]}] is {truth[bad[0]]}, expected finite numbers")
    fewest = max(outer.pool or 0, outer.cells + outer.validation_cells)
    if len(truth) < fewest:
        what = (
            "uses that many (outer.pool)"
            if fewest == outer.pool
            else "compares outer.cells of them and checks dishes on outer.validation_cells"
        )
        raise ValueError(f"{len(truth)} cells were given, expected at least {fewest}: the recipe {what}")
    return truth
