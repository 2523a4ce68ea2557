"""Types that many modules share, and what tells whether a value is a number of such a type."""

import numbers
import operator
from collections.abc import Callable
from typing import Any, SupportsIndex, cast

import numpy.typing as npt

__all__ = ["Array", "NamedProgress", "Number", "Progress", "checked_integer", "checked_number"]

Array = npt.NDArray[Any]
"""An array. A docstring says which element type it has."""
Number = float | None
"""A finite number, or None in place of NaN and infinity, which JSON does not have."""
Progress = Callable[[float], object]
"""``progress(share)`` is called with the share of the work that is done, 0 to 1. An exception that it raises stops the work."""
NamedProgress = Callable[[str, float], object]
"""``progress(what, share)`` is called with what is being done and the share of the work that is done, 0 to 1."""


def checked_integer(name: str, value: object) -> int:
    """Return a value as a plain integer.

    Raises
    ------
    TypeError
        If it is no integer. A boolean is none, though Python counts with it.
    """
    try:
        if not isinstance(value, bool):
            return operator.index(cast(SupportsIndex, value))
    except TypeError:
        pass
    raise TypeError(f"{name} is {value!r}, expected an integer")


def checked_number(name: str, value: object) -> float:
    """Return a value as it is.

    Raises
    ------
    TypeError
        If it is no real number. A boolean is none, though Python counts with it.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}, expected a number")
    return cast(float, value)
