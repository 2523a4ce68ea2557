"""Errors of the package."""

__all__ = [
    "InvalidCellError",
]


class InvalidCellError(ValueError):
    """A cell lies outside the NAS-Bench-101 space; the message names the limit and the offending vertex."""
