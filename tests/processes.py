"""Other processes that tests start: watched with a deadline, and ended with all that they started, whatever the test does.
And a limit of the files of this one, which stands for a full disk.
"""

import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

DEADLINE = 300.0
"""Seconds. On a busy machine the interpreter and its libraries take a minute to load."""


class Process:
    """A process in a group of its own, from `started`. What it says goes to files: no pipe fills up, no reading waits."""

    def __init__(self, command: Sequence[object], folder: Path, env: Mapping[str, str] | None) -> None:
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=env,
                start_new_session=True,
                text=True,
            )
        self.pid = self._process.pid

    @property
    def out(self) -> str:
        """What it has written to stdout by now."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it has written to stderr by now."""
        return self._err.read_text()

    def say(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def send(self, what: signal.Signals) -> None:
        """Send a signal to the process, and to none that it started; nothing happens where it has ended."""
        os.kill(self.pid, what)  # it is not reaped before `end`, so nobody else has its number

    def ended(self) -> bool:
        """Return whether it has ended, by itself or by a signal."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def reaches(self, condition: Callable[[], bool], seconds: float = DEADLINE) -> bool:
        """Wait until a condition holds; return False where the process ended without it."""
        deadline = time.monotonic() + seconds
        while True:
            ended = self.ended()  # before the condition: what it did last counts
            if condition():
                return True
            if ended:
                return False
            assert time.monotonic() < deadline, f"nothing came within {seconds} s; {self._said()}"
            time.sleep(0.001)

    def wait(self, seconds: float = DEADLINE) -> int:
        """Wait until it has ended; return its exit code, or minus the signal that ended it."""
        self.reaches(lambda: False, seconds)
        status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert status is not None
        return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status

    def end(self) -> None:
        """Kill it and all that it started, and reap it."""
        with suppress(ProcessLookupError, PermissionError):  # where none is left
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(BrokenPipeError):
            self._process.communicate()

    def _said(self) -> str:
        return f"it said {self.out!r} and {self.err!r}"


@contextmanager
def started(command: Sequence[object], *, env: Mapping[str, str] | None = None) -> Iterator[Process]:
    """Start a process; at the end of the block, error or not, it and all that it started are killed."""
    with tempfile.TemporaryDirectory() as folder:
        process = Process(command, Path(folder), env)
        try:
            yield process
        finally:
            process.end()


def size(path: Path) -> int:
    """Return the size of a file that another process may remove at any moment; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Within the block this process can write no file beyond so many bytes: the system refuses, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))  # Python ignores the signal that comes with it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def lose(pid: int) -> None:
    """Kill a process that something which the test started has started; nothing happens where it has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Return the processes that a process, or another one of these, has started."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def command(pid: int) -> str:
    """Return how a process calls itself; an empty text where it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return ""
