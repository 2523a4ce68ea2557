"""Processes that tests start end with the test."""

import signal
import sys
import time
from pathlib import Path

import pytest

import processes
from processes import started

SLEEP = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"]


def is_at_work(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # not reaped, or just being so


def is_gone(pid: int) -> bool:
    deadline = time.monotonic() + processes.DEADLINE
    while is_at_work(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def test_a_failing_test_leaves_nothing_behind() -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    found = []

    def fail() -> None:
        with started([sys.executable, "-c", code]) as process:
            assert process.reaches(lambda: process.out.endswith("\n"))
            found.extend([process.pid, int(process.out)])
            assert all(map(is_at_work, found))
            raise RuntimeError("the test failed")

    with pytest.raises(RuntimeError, match="the test failed"):
        fail()
    assert len(found) == 2
    assert all(map(is_gone, found))


def test_a_child_that_outlives_its_parent_is_ended() -> None:
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"
    with started([sys.executable, "-c", code]) as process:
        assert process.wait() == 0
        child = int(process.out)
        assert is_at_work(child)
    assert is_gone(child)


def test_deadlines() -> None:
    with started(SLEEP) as process:
        assert process.reaches(lambda: process.out == "ready\n")
        with pytest.raises(AssertionError, match=r"nothing came within 0\.05 s; it said 'ready\\n' and ''"):
            process.reaches(lambda: False, seconds=0.05)
        with pytest.raises(AssertionError, match=r"nothing came within 0\.05 s"):
            process.wait(seconds=0.05)
        assert not process.ended()


def test_how_a_process_ended() -> None:
    with started([sys.executable, "-c", "import sys; print(input()); sys.exit('no')"]) as process:
        process.say("hello")
        assert not process.reaches(lambda: False)
        assert process.ended()
        assert process.wait() == 1
        assert (process.out, process.err) == ("hello\n", "no\n")
        process.send(signal.SIGINT)  # too late: nothing happens
    with started(SLEEP) as process:
        assert process.reaches(lambda: process.out == "ready\n")
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    with started([sys.executable, "-c", "import os; print(os.environ['HERE'])"], env={"HERE": "yes"}) as process:
        assert process.wait() == 0
        assert process.out == "yes\n"


def test_sizes_of_files_that_come_and_go(tmp_path: Path) -> None:
    assert processes.size(tmp_path / "file") == 0
    (tmp_path / "file").write_bytes(b"abc")
    assert processes.size(tmp_path / "file") == 3
