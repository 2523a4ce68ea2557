"""Errors of the package."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "InvalidCellError",
    "did_you_mean",
]


class InvalidCellError(ValueError):
    """A graph is not a cell of its space. The message says which limit it breaks, and at which vertex."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return the name that was probably meant, as part of an error message; an empty text if no name is similar."""
    meant = get_close_matches(given, list(known), 1)
    return f" (did you mean {meant[0]}?)" if meant else ""
