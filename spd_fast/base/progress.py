"""Progress callbacks for the parts of a work."""

from collections.abc import Callable

from spd_fast.base.types import NamedProgress, Progress

__all__ = ["counter_of", "named_part", "part_of", "share_of"]


def share_of(progress: Progress | None, before: float, size: float) -> Progress | None:
    """Return a progress callback for a part of the work. `before` is the share of the work before the part, `size` that of
    the part."""
    if progress is None:
        return None
    return lambda share: progress(before + share * size)


def part_of(progress: Progress | None, part: int, parts: int) -> Progress | None:
    """Return a progress callback for one of several equal parts of the work."""
    if progress is None:
        return None
    return lambda share: progress((part + share) / parts)


def named_part(progress: NamedProgress | None, what: str, before: float, size: float) -> Progress | None:
    """Return a progress callback for a part of the work, as `share_of` does, which also says what is being done."""
    return None if progress is None else share_of(lambda share: progress(what, share), before, size)


def counter_of(progress: Progress | None, parts: int) -> Callable[[int], None]:
    """Return a function that is told how many more of several equal parts of the work are done, and reports the share."""
    done = 0

    def advance(by: int) -> None:
        nonlocal done
        done += by
        if progress:
            progress(done / parts)

    return advance
