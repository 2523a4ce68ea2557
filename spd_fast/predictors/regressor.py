"""What all predictors have in common: the cells and accuracies that they take, and scikit-learn's names."""

import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import UndefinedMetricWarning

from spd_fast.base.ranks import kendall_tau
from spd_fast.base.types import Array, checked_array
from spd_fast.spaces.candidate import Columns, checked_candidates
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.spaces.nats_cell import NatsCell

__all__ = [
    "CELL_TYPES",
    "CellRegressor",
    "Cells",
    "as_cells",
    "cells_of",
    "checked_labelled",
    "type_of",
    "warn_if_alike",
]

Cells = Sequence[Cell] | Sequence[NatsCell] | Array
"""Cells of one space; of NAS-Bench-101's also as numbers, in an array or a pandas.DataFrame."""
CELL_TYPES: Final = {"Cell": Cell, "NatsCell": NatsCell}
_ALIKE: Final = "all accuracies are alike"


class CellRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn estimator that predicts accuracies of cells by its method `query`, which classes that derive from it have."""

    query: Any

    def predict(
        self, cells: Cells, return_std: bool = False
    ) -> npt.NDArray[np.float64] | tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Predict the accuracies of cells, shape (n,), in the unit of those that were fitted. It is scikit-learn's name for `query`.

        With ``return_std=True`` return the standard deviations of the predictions, shape (n,), too.
        """
        return self.query(cells, return_std=return_std)  # type: ignore[no-any-return]

    def score(self, cells: Cells, accuracy: npt.ArrayLike) -> float:
        """Return Kendall's tau-b of predictions and accuracies, -1 to 1.

        Parameters
        ----------
        cells : cells or numbers
            As in `fit`.
        accuracy : array-like, shape (n,), finite

        Warns
        -----
        sklearn.exceptions.UndefinedMetricWarning
            If there are fewer than 2 cells. The result is NaN then, as that of scikit-learn's own R^2.
        """
        wanted = as_cells(cells)
        known = checked_accuracy(accuracy, len(wanted))
        predicted = self.query(wanted)
        if len(known) < 2:
            warnings.warn(
                f"tau of {len(known)} cells is not defined, it needs at least 2 cells: the score is NaN",
                UndefinedMetricWarning,
                stacklevel=2,
            )
            return float("nan")
        return kendall_tau(predicted, known)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # `score` returns tau, and scikit-learn's own checks have no cells
        return tags


def as_cells(cells: Any) -> Sequence[Any]:
    """Return cells of one space as a sequence: given as one, or as numbers in an array, rows or a DataFrame."""
    if hasattr(cells, "columns") and hasattr(cells, "to_numpy"):
        missing = [name for name in CellColumns.names if name not in cells.columns]
        if missing:
            raise ValueError(
                f"cells is a {type(cells).__name__} without the column {missing[0]!r}, expected {', '.join(CellColumns.names)}"
            )
        return CellColumns(*(checked_array(f"the column {name!r} of cells", cells[name]) for name in CellColumns.names))
    rows = isinstance(cells, Sequence) and len(cells) and isinstance(cells[0], Sequence | np.ndarray)
    if rows and not isinstance(cells[0], str):
        cells = checked_array("cells", cells)
    if isinstance(cells, np.ndarray) and (cells.dtype.kind != "O" or cells.ndim != 1):
        if cells.dtype.kind == "O":
            cells = checked_array("cells", cells)
        if cells.ndim != 2 or cells.shape[1] != 3 or cells.dtype.kind not in "iu":
            raise ValueError(
                f"cells is a {cells.dtype} array of shape {cells.shape}, expected integers of shape (n, 3): vertices, "
                "edge_bits, op_codes; or a sequence of Cell or of NatsCell"
            )
        return CellColumns(*cells.T)
    checked = checked_candidates(cells, tuple(CELL_TYPES.values()), "spd_fast.Cell or spd_fast.NatsCell")
    kind = type_of(checked)
    odd = next(
        (k for k, cell in enumerate(() if isinstance(checked, Columns) else checked) if type(cell) is not kind), None
    )
    if odd is not None:
        raise TypeError(
            f"cells[{odd}] is {type(checked[odd]).__name__}, expected {kind.__name__} as cells[0]: cells of one space"
        )
    return checked


def cells_of(cells: Any, cell_type: type, remedy: str) -> Sequence[Any]:
    """Return cells as a sequence, all of which are of one type. `remedy` ends the message of the TypeError if they are not."""
    wanted = as_cells(cells)
    if len(wanted) and type_of(wanted) is not cell_type:
        raise TypeError(f"cells[0] is {type(wanted[0]).__name__}, expected {cell_type.__name__}: {remedy}")
    return wanted


def type_of(cells: Sequence[Any]) -> type:
    """Return the type of cells, which are all of one."""
    if isinstance(cells, Columns):
        return cells.cell_type
    return type(cells[0]) if len(cells) else Cell


def checked_accuracy(accuracy: npt.ArrayLike, n: int) -> npt.NDArray[np.float64]:
    checked = np.asarray(checked_array("accuracy", accuracy), np.float64)
    if checked.shape != (n,):
        raise ValueError(f"accuracy has shape {checked.shape}, expected ({n},) to match cells")
    bad = np.flatnonzero(~np.isfinite(checked))
    if len(bad):
        raise ValueError(f"accuracy[{bad[0]}] is {checked[bad[0]]}, expected finite numbers")
    return checked


def checked_labelled(cells: Any, accuracy: npt.ArrayLike) -> tuple[Sequence[Any], npt.NDArray[np.float64]]:
    """Return labelled cells as a sequence, with their accuracies.

    Raises
    ------
    ValueError, TypeError
        If cells and accuracies do not fit each other, are no cells or not finite, or are fewer than 2.
    """
    pool = as_cells(cells)
    known = checked_accuracy(accuracy, len(pool))
    if len(known) < 2:
        raise ValueError(f"{len(known)} labelled cells were given, expected at least 2")
    return pool, known


def warn_if_alike(accuracy: npt.NDArray[np.float64]) -> None:
    """Warn the caller of `fit`, which calls this, if all accuracies are alike, so that there is nothing to learn."""
    if np.ptp(accuracy) == 0:
        warnings.warn(
            f"{_ALIKE} ({accuracy[0]}): there is nothing to learn from them, and predictions do not tell cells apart; "
            "give cells of different accuracies",
            stacklevel=3,
        )
