"""The pool of an outer loop: which cells are compared, which are kept out, and what their metrics are compared with."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from spd_fast.base.seeds import derived_seed
from spd_fast.base.types import Array
from spd_fast.recipes.settings import Recipe
from spd_fast.spaces.candidate import Candidate

__all__ = [
    "draw_cells",
]


def split_pool(n: int, recipe: Recipe) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the positions of the training cells and of the validation cells among `n` cells.

    They depend on `n` and the recipe alone.
    """
    size, n_validation = recipe.outer.pool or n, recipe.outer.validation_cells
    if size == n and not n_validation:
        return np.arange(n), np.arange(0)
    order = np.random.default_rng(derived_seed(recipe.seed, "pool")).permutation(n)[:size]
    return order[: size - n_validation], order[size - n_validation :]


def draw_cells(n: int, epoch: int, recipe: Recipe) -> npt.NDArray[np.int64]:
    """Return the positions of the cells that an outer epoch compares, among `n`.

    They depend on the recipe's seed and the epoch alone.

    Each pass over the training cells is a random permutation, cut into groups of ``outer.cells``. Cells left over at
    the end are not used in that pass.
    """
    size = recipe.outer.cells
    passes, piece = divmod(epoch, n // size)
    order = np.random.default_rng(derived_seed(recipe.seed, "cells", passes)).permutation(n)
    return order[piece * size : (piece + 1) * size]


def transformed(truth: Array, recipe: Recipe) -> Array:
    """Return what the metrics of a pool's cells are compared with, as ``outer.target`` says: shape (n,), float64."""
    if recipe.outer.target == "rank":
        from scipy.stats import rankdata

        ranks: Array = (rankdata(truth) - 1) / max(len(truth) - 1, 1)
        return ranks
    if recipe.outer.target == "winsorised":
        share = recipe.outer.winsorise
        winsorised: Array = np.clip(truth, *np.quantile(truth, [share, 1 - share]))
        return winsorised
    return truth


def checked_truth(cells: Sequence[Candidate], accuracy: npt.ArrayLike, recipe: Recipe) -> Array:
    truth = np.ascontiguousarray(accuracy, np.float64)
    if truth.shape != (len(cells),):
        raise ValueError(f"accuracy has shape {truth.shape}, expected ({len(cells)},) to match cells")
    bad = np.flatnonzero(~np.isfinite(truth))
    if len(bad):
        raise ValueError(f"accuracy[{bad[0]}] is {truth[bad[0]]}, expected finite numbers")
    outer = recipe.outer
    fewest = max(outer.pool or 0, outer.cells + outer.validation_cells)
    if len(truth) < fewest:
        what = (
            "uses that many (outer.pool)"
            if fewest == outer.pool
            else "compares outer.cells of them and checks dishes on outer.validation_cells"
        )
        raise ValueError(f"{len(truth)} cells were given, expected at least {fewest}: the recipe {what}")
    return truth
