"""Errors of the package."""

__all__ = [
    "InvalidCellError",
]


class InvalidCellError(ValueError):
    """A graph is not a cell of its space. The message says which limit it breaks, and at which vertex."""
