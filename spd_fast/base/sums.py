"""Sums and means in which the bits of a cell's result do not depend on how many other cells are computed with it."""

import functools
import operator
from collections.abc import Sequence
from typing import TypeVar

__all__ = [
    "mean_of",
    "sum_of",
]

_Array = TypeVar("_Array")


def sum_of(arrays: Sequence[_Array]) -> _Array:
    """Return the sum of arrays, or tensors, of one shape, added one after the other.

    The order in which NumPy's and PyTorch's own sums add depends on the shape of the arrays. The last bit of a cell's result would
    then depend on the number of other cells.
    """
    return functools.reduce(operator.add, arrays)


def mean_of(arrays: Sequence[_Array]) -> _Array:
    """Return the mean of arrays, or tensors, of one shape: their `sum_of` divided by their number."""
    mean: _Array = operator.truediv(sum_of(arrays), len(arrays))
    return mean
