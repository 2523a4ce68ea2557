"""Progress callbacks for the parts of a work, and the time that the rest of it takes."""

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line loads this file, and numpy only when a command needs it
    from spd_fast.base.types import NamedProgress, Progress

__all__ = ["TimeLeft", "counter_of", "named_part", "part_of", "share_of"]


def share_of(progress: "Progress | None", before: float, size: float) -> "Progress | None":
    """Return a progress callback for a part of the work. `before` is the share of the work before the part, `size` that of
    the part."""
    if progress is None:
        return None
    return lambda share: progress(before + share * size)


def part_of(progress: "Progress | None", part: int, parts: int) -> "Progress | None":
    """Return a progress callback for one of several equal parts of the work."""
    if progress is None:
        return None
    return lambda share: progress((part + share) / parts)


def named_part(progress: "NamedProgress | None", what: str, before: float, size: float) -> "Progress | None":
    """Return a progress callback for a part of the work, as `share_of` does, which also says what is being done."""
    return None if progress is None else share_of(lambda share: progress(what, share), before, size)


def counter_of(progress: "Progress | None", parts: int) -> Callable[[int], None]:
    """Return a function that is told how many more of several equal parts of the work are done, and reports the share."""
    done = 0

    def advance(by: int) -> None:
        nonlocal done
        done += by
        if progress:
            progress(done / parts)

    return advance


class TimeLeft:
    """Estimates how long a work still takes, from the shares of it that were done at different times.

    The speed is that of the last minute, or of the later half of the time if that is longer. What was done before the first
    report counts for nothing, so that a work that is continued is not taken to be faster than it is.

    Parameters
    ----------
    clock : callable
        Returns the present time in seconds.

    Examples
    --------
    >>> times = iter([0.0, 10.0, 12.0])
    >>> left = TimeLeft(lambda: next(times))
    >>> left.report(0.5)
    >>> left.report(0.6)
    >>> round(left.seconds())  # after two more seconds
    38
    """

    _WINDOW = 60.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reports: deque[tuple[float, float]] = deque()
        self._began: float | None = None

    def report(self, share: float) -> None:
        """Report the share that is done now, 0 to 1. A smaller share than the last one begins another work, and 0 begins it now."""
        now = self._clock()
        if self._reports and (share < self._reports[-1][1] or share == 0):
            self._reports.clear()
            self._began = None
        self._began = now if self._began is None else self._began
        self._reports.append((now, share))
        oldest = now - max(self._WINDOW, (now - self._began) / 2)
        while len(self._reports) > 2 and self._reports[1][0] <= oldest:
            self._reports.popleft()

    def seconds(self) -> float | None:
        """Return the seconds that are left; None as long as the speed is not known."""
        if not self._reports:
            return None
        (first, before), (last, done) = self._reports[0], self._reports[-1]
        if done <= before or last <= first:
            return None
        whole = (1 - done) * (last - first) / (done - before)
        return max(0.0, whole - (self._clock() - last))
