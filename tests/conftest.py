"""Fixtures that several test modules share."""

import os
import signal
from pathlib import Path

import pytest

if os.environ.get("SPD_FAST_ISA"):  # before a test loads PyTorch, which looks at the processor once
    from spd_fast.bench.record import hold_peers

    hold_peers()

# A runner that was started in the background ignores Ctrl-C, and every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def project_dir() -> Path:
    """The project's top folder."""
    return PROJECT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real data: $SPD_FAST_DATA, or ../shared/data beside the project. Skips where it is absent."""
    given = os.environ.get("SPD_FAST_DATA")
    folder = Path(given) if given else PROJECT.parent / "shared" / "data"
    if not (folder / "nb101").is_dir():
        if given:
            pytest.fail(f"SPD_FAST_DATA is {given}, which has no folder nb101")
        pytest.skip("no real data: put it at ../shared/data or set SPD_FAST_DATA")
    return folder
