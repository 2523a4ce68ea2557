"""Sums and means whose bits do not depend on how many cells are in a batch."""

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

    NumPy's and PyTorch's own sums add in an order that depends on the shape, so that a cell's last bit would depend on how many
    others are beside it.
    """
    return functools.reduce(operator.add, arrays)


def mean_of(arrays: Sequence[_Array]) -> _Array:
    """Return the mean of arrays, or tensors, of one shape: their `sum_of` over their number."""
    mean: _Array = operator.truediv(sum_of(arrays), len(arrays))
    return mean
