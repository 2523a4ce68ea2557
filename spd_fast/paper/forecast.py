"""The time that is left of a work of many parts, from the floating-point operations that are left and the speed so far."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Forecast"]


class Forecast:
    """Says how long the parts of a work will take.

    Each part consists of pieces, whose floating-point operations are known before they are computed. A kind of motif has a
    speed of its own: that of the pieces of its kind that are done. A kind of which nothing is done has the speed of all pieces.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}
        self._flops: dict[str, npt.NDArray[np.float64]] = {}
        self._seconds: dict[str, npt.NDArray[np.float64]] = {}  # NaN where a piece is not done yet

    def plan(self, part: str, kind: str, flops: Sequence[float] | npt.NDArray[np.float64]) -> None:
        """Add a part of some kind, with the floating-point operations of each of its pieces."""
        self._kinds[part] = kind
        self._flops[part] = np.asarray(flops, np.float64)
        self._seconds[part] = np.full(len(self._flops[part]), np.nan)

    def done(self, part: str, piece: int, seconds: float) -> None:
        """Record the seconds that a piece took. Pieces beyond those that are planned are left out."""
        if piece < len(self._seconds[part]):
            self._seconds[part][piece] = seconds

    def drop(self, part: str) -> None:
        """Remove the pieces of a part that are not done, because they are not needed."""
        done = np.isfinite(self._seconds[part])
        self._flops[part], self._seconds[part] = self._flops[part][done], self._seconds[part][done]

    def seconds_left(self, part: str | None = None, fraction: float = 0.0) -> float | None:
        """Return the seconds that everything will still take; None as long as no piece is done.

        Parameters
        ----------
        part : str, optional
            The part whose next piece is being computed.
        fraction : float
            The share of that piece that is done, 0 to 1.
        """
        if not any(np.isfinite(seconds).any() for seconds in self._seconds.values()):
            return None
        left = 0.0
        for name, kind in self._kinds.items():
            missing = self._flops[name][np.isnan(self._seconds[name])]
            if len(missing):
                left += self._seconds_per_flop(kind) * (
                    missing.sum() - (fraction * missing[0] if name == part else 0.0)
                )
        return left

    def seconds_whole(self) -> float:
        """Return the seconds of everything, done or not; 0 as long as no piece is done."""
        done = float(sum(np.nansum(seconds) for seconds in self._seconds.values()))
        return done + (self.seconds_left() or 0.0)

    def _seconds_per_flop(self, kind: str) -> float:
        same = self._sums([name for name, other in self._kinds.items() if other == kind])
        seconds, flops = same if same[1] else self._sums(list(self._kinds))
        return seconds / flops

    def _sums(self, parts: Sequence[str]) -> tuple[float, float]:
        """Return the seconds and the floating-point operations of the pieces of some parts that are done."""
        done = {name: np.isfinite(self._seconds[name]) for name in parts}
        return (
            float(sum(self._seconds[name][rows].sum() for name, rows in done.items())),
            float(sum(self._flops[name][rows].sum() for name, rows in done.items())),
        )
