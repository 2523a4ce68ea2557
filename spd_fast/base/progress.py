"""Progress of work that consists of parts."""

from collections.abc import Callable

__all__ = [
    "part_of",
]


def part_of(progress: Callable[[float], object] | None, part: int, parts: int) -> Callable[[float], object] | None:
    """Return a callback for one of several equal parts of the work that `progress` is told of."""
    if progress is None:
        return None
    return lambda share: progress((part + share) / parts)
