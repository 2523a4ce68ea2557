"""Progress of work that consists of parts."""

from spd_fast.base.types import NamedProgress, Progress

__all__ = ["named_part", "part_of", "share_of"]


def share_of(progress: Progress | None, before: float, size: float) -> Progress | None:
    """Return a progress callback for a part of the work: the share of the whole that comes before it, and its own."""
    if progress is None:
        return None
    return lambda share: progress(before + share * size)


def part_of(progress: Progress | None, part: int, parts: int) -> Progress | None:
    """Return a progress callback for one of several equal parts of the work."""
    if progress is None:
        return None
    return lambda share: progress((part + share) / parts)


def named_part(progress: NamedProgress | None, what: str, before: float, size: float) -> Progress | None:
    """Return `share_of` where the callback is also told what is being done."""
    return None if progress is None else share_of(lambda share: progress(what, share), before, size)
