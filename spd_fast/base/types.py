"""Types that many modules share."""

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

__all__ = ["Array", "NamedProgress", "Number", "Progress"]

Array = npt.NDArray[Any]
"""An array whose element type a docstring gives."""
Number = float | None
"""A number, or None where there is none: what JSON holds in place of NaN and infinity."""
Progress = Callable[[float], object]
"""``progress(share)`` is told the share of the work that is done, 0 to 1. What it raises stops the work."""
NamedProgress = Callable[[str, float], object]
"""``progress(what, share)`` is told what is being done, and the share of the whole that is done, 0 to 1."""
