"""Types that many modules share."""

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

__all__ = ["Array", "NamedProgress", "Number", "Progress"]

Array = npt.NDArray[Any]
"""An array. A docstring says which element type it has."""
Number = float | None
"""A finite number, or None in place of NaN and infinity, which JSON does not have."""
Progress = Callable[[float], object]
"""``progress(share)`` is called with the share of the work that is done, 0 to 1. An exception that it raises stops the work."""
NamedProgress = Callable[[str, float], object]
"""``progress(what, share)`` is called with what is being done and the share of the work that is done, 0 to 1."""
