"""Types that many modules share, and the checks of arguments at the public doors.

A check returns the argument as a plain value, or raises one sentence that says which argument it is, what came, and what is expected.
A number may come as any type of numbers: Python's, numpy's, or an array without axes. A text is no number, and neither is a boolean.
"""

import math
import numbers
import operator
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, SupportsIndex, TypeVar, cast

import numpy as np
import numpy.typing as npt

from spd_fast.base.errors import did_you_mean

__all__ = [
    "Array",
    "NamedProgress",
    "Number",
    "Progress",
    "WrongTypeError",
    "checked_array",
    "checked_choice",
    "checked_flag",
    "checked_instance",
    "checked_integer",
    "checked_list",
    "checked_names",
    "checked_number",
    "checked_path",
    "checked_progress",
    "checked_sequence",
    "checked_shown_progress",
    "plain",
    "shown",
]

Array = npt.NDArray[Any]
"""An array. A docstring says which element type it has."""
Number = float | None
"""A finite number, or None in place of NaN and infinity, which JSON does not have."""
Progress = Callable[[float], object]
"""``progress(share)`` is called with the share of the work that is done, 0 to 1. An exception that it raises stops the work."""
NamedProgress = Callable[[str, float], object]
"""``progress(what, share)`` is called with what is being done and the share of the work that is done, 0 to 1."""


class WrongTypeError(TypeError, ValueError):
    """A text was given where a number or a list is expected. It is caught as either: `int`, too, raises ValueError for texts alone."""


_Kind = TypeVar("_Kind")
_LONGEST: int = 60
"""Characters of a value that an error message shows. Of a longer one it names the type."""


def plain(value: Any) -> Any:
    """Return numpy's scalars, and arrays without axes, as Python's numbers, texts and booleans; other values as they are."""
    if getattr(value, "shape", None) == () and getattr(getattr(value, "dtype", None), "kind", "f") in "biufcOU":
        return value.item()
    return value


def shown(value: object) -> str:
    """Return a value as an error message shows it: the value itself if it is short, else its type."""
    text = repr(value)
    return text if len(text) <= _LONGEST and "\n" not in text else f"a {type(value).__name__}"


def checked_integer(name: str, value: object, low: int | None = None, high: int | None = None) -> int:
    """Return a value as a plain integer.

    Raises
    ------
    TypeError
        If it is no integer. A boolean is none, though Python counts with it; a float is none, even if it is whole. For a text the error
        is a ValueError, too.
    ValueError
        If it is below `low` or above `high`.
    """
    given = plain(value)
    try:
        if isinstance(given, bool):
            raise TypeError
        number = operator.index(cast(SupportsIndex, given))
    except TypeError:
        raise _not_a(given)(f"{name} is {shown(value)}, expected an integer") from None
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"{name} is {number}, expected {_range(low, high)}")
    return number


def checked_number(
    name: str, value: object, low: float | None = None, high: float | None = None, *, finite: bool = True
) -> float:
    """Return a value as a plain integer or float.

    Raises
    ------
    TypeError
        If it is no real number. A boolean is none, though Python counts with it. For a text the error is a ValueError, too.
    ValueError
        If it is NaN or infinite (unless `finite` is false), below `low` or above `high`.
    """
    given = plain(value)
    if isinstance(given, bool) or not isinstance(given, numbers.Real):
        raise _not_a(given)(f"{name} is {shown(value)}, expected a number")
    try:
        number = float(given)
    except OverflowError:
        number = math.inf
    if finite and not math.isfinite(number):
        raise ValueError(f"{name} is {number}, expected a finite number")
    if (low is not None and not number >= low) or (high is not None and not number <= high):
        raise ValueError(f"{name} is {given}, expected {_range(low, high)}")
    whole: Any = given
    return whole if type(whole) is int else number


def _not_a(given: object) -> type[TypeError]:
    """Return the type of the error for a value of a wrong type."""
    return WrongTypeError if isinstance(given, str) else TypeError


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def checked_flag(name: str, value: object) -> bool:
    """Return a value as a plain boolean.

    Raises
    ------
    TypeError
        If it is no boolean.
    """
    given = plain(value)
    if not isinstance(given, bool):
        raise TypeError(f"{name} is {shown(value)}, expected True or False")
    return given


def checked_choice(name: str, value: Any, choices: Collection[str]) -> Any:
    """Return a text that is one of several.

    Raises
    ------
    TypeError
        If it is no text.
    ValueError
        If it is another text.
    """
    given = plain(value)
    expected = _either([repr(choice) for choice in choices])
    if not isinstance(given, str):
        raise TypeError(f"{name} is {shown(value)}, expected {expected}")
    if given not in choices:
        raise ValueError(f"{name} is {given!r}, expected {expected}{did_you_mean(given, choices)}")
    return str(given)


def _either(words: Sequence[str]) -> str:
    return " or ".join(word for word in (", ".join(words[:-1]), words[-1]) if word)


def checked_names(name: str, value: Any, example: str) -> tuple[str, ...]:
    """Return texts as a tuple: those of a list, an array, a set or another collection.

    Raises
    ------
    TypeError
        If the value is no collection of texts. A single text is none, though Python goes through its letters; for one the error is a
        ValueError, too.
    """
    given = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(given, str | bytes) or not isinstance(given, Collection):
        example = given if isinstance(given, str) else example
        raise _not_a(given)(f"{name} is {shown(value)}, expected a sequence of names such as {[example]}")
    names = [plain(each) for each in given]
    odd = [each for each in names if not isinstance(each, str)]
    if odd:
        raise TypeError(f"{name} holds {shown(odd[0])}, expected names such as {example!r}")
    return tuple(map(str, names))


def checked_instance(name: str, value: object, kinds: type[_Kind] | tuple[type[_Kind], ...], expected: str) -> _Kind:
    """Return a value that is of a type, or of one of several.

    Raises
    ------
    TypeError
        If it is of another. `expected` says in the message what to give.
    """
    if not isinstance(value, kinds):
        what = f"the class {value.__name__}" if isinstance(value, type) else shown(value)
        raise TypeError(f"{name} is {what}, expected {expected}")
    return value


def checked_path(name: str, value: Any) -> str | os.PathLike[str]:
    """Return the path of a file: a text, or a path object.

    Raises
    ------
    TypeError
        If it is something else. An integer is none, though Python opens the file of that number.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} is {shown(value)}, expected a path")
    return value


def checked_list(name: str, value: Any, expected: str) -> list[Any]:
    """Return the elements of a sequence or of another iterable as a list.

    Raises
    ------
    TypeError
        If it cannot be iterated, or is a text. `expected` says in the message what it should hold.
    """
    if (
        not isinstance(value, Iterable)
        or isinstance(value, str | bytes | type)
        or (isinstance(value, np.ndarray) and not value.ndim)
    ):
        raise TypeError(f"{name} is {shown(value)}, expected a sequence of {expected}")
    return list(value)


def checked_sequence(name: str, value: Any, expected: str) -> Any:
    """Return a value that has a length and can be indexed by position: a sequence, or an array with axes.

    Raises
    ------
    TypeError
        If it is something else. `expected` says in the message what the sequence should hold.
    """
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return value
    if isinstance(value, np.ndarray) and value.ndim:
        return value
    raise TypeError(f"{name} is {shown(value)}, expected a sequence of {expected}")


def checked_array(name: str, value: Any) -> Array:
    """Return an array-like of real numbers as an array. It is not copied if it is one.

    Raises
    ------
    TypeError
        If it holds anything but integers and floats, or rows of different lengths.
    ValueError
        If it is a masked array in which something is masked.
    """
    if np.ma.is_masked(value):
        raise ValueError(f"{name} has masked entries, expected a number in each: leave these rows out")
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":  # numbers of Python, such as a column of a table may hold
            array = np.array([checked_number(name, each, finite=False) for each in array.flat]).reshape(array.shape)
    except (ValueError, TypeError, RuntimeError):
        raise TypeError(f"{name} is {shown(value)}, expected an array of numbers") from None
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {array.dtype}, expected real numbers")
    return array


def checked_progress(progress: Any) -> Any:
    """Return what is called with the progress of some work: a callable, or None.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if progress is not None and not callable(progress):
        raise TypeError(f"progress is {shown(progress)}, expected a function or None")
    return progress


def checked_shown_progress(progress: Any) -> Any:
    """Return how the progress of some work is shown: a callable, True, False, or None.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise TypeError(f"progress is {shown(progress)}, expected a function, True, False or None")
    return progress
