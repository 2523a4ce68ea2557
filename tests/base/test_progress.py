"""The time that a work still takes, from the shares that it reports."""

from collections.abc import Sequence

import pytest

from spd_fast.base.progress import TimeLeft


def left_after(reports: Sequence[tuple[float, float]], now: float) -> float | None:
    """The seconds that are left at a time, after shares that were reported at (time, share)."""
    times = iter([*(time for time, _ in reports), now])
    left = TimeLeft(lambda: next(times, now))
    for _, share in reports:
        left.report(share)
    return left.seconds()


def test_nothing_is_said_before_the_speed_is_known() -> None:
    assert left_after([], 1) is None
    assert left_after([(1, 0.1)], 2) is None
    assert left_after([(1, 0.1), (5, 0.1)], 6) is None


def test_work_that_was_done_before_counts_for_nothing() -> None:
    """Half was there; then a tenth took ten seconds, so that four tenths take forty."""
    assert left_after([(0, 0.5), (10, 0.6)], 10) == pytest.approx(40)


def test_time_passes_between_reports() -> None:
    assert left_after([(0, 0.0), (10, 0.5)], 14) == pytest.approx(6)
    assert left_after([(0, 0.0), (10, 0.5)], 99) == 0


def test_the_speed_is_that_of_the_last_part() -> None:
    """Of 200 seconds the first hundred were slow; the window holds the second hundred alone."""
    reports = [(10.0 * k, 0.001 * k) for k in range(11)] + [(100 + 10.0 * k, 0.01 + 0.05 * k) for k in range(1, 11)]
    assert left_after(reports, 200) == pytest.approx((1 - 0.51) / 0.005, rel=1e-9)


def test_a_smaller_share_begins_another_work() -> None:
    assert left_after([(0, 0.2), (10, 0.9), (20, 0.0), (30, 0.5)], 30) == pytest.approx(10)
    assert left_after([(0, 0.2), (10, 0.9), (20, 0.0)], 20) is None
