"""Progress that people see: a bar on a terminal and in a notebook, a line from time to time elsewhere.

One clock stands beside the share that is done: the time that is left, or, where that is not known, the time that has passed. A share of
0 or 1 says nothing of the time: work goes on before the first part is done, and after the last one, in results, files and reports.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from spd_fast.base.interrupts import stopped_with_main
from spd_fast.base.progress import TimeLeft

if TYPE_CHECKING:  # the command line loads this file, and numpy only when a command needs it
    from rich.console import Console

    from spd_fast.base.types import NamedProgress, Progress

__all__ = [
    "ShownNamedProgress",
    "ShownProgress",
    "bar_of",
    "displayed",
    "duration",
    "seen",
    "shown_progress",
    "shown_share",
]

FIRST_LINE_SECONDS, LINE_SECONDS, LONGEST_LINE_SECONDS = 1.0, 5.0, 60.0
"""Without a terminal, the first line of progress comes after the first of these times, the next after the second. Then the
time between lines grows with the time that has passed, up to the third."""
_PATIENCE: float = 1.0
"""Seconds after which a function of the package that was not asked for a bar shows one."""
_NARROW: int = 60
"""Columns of a terminal below which the bar itself is left out, so that what is being done has room."""

ShownNamedProgress = Callable[[str, float], object] | bool | None
"""How a function that is called in Python shows its progress. A function is called as `NamedProgress`. None: a bar if the standard
error is a terminal or a notebook and the work takes longer than a second. True: progress in any case. False: none."""
ShownProgress = Callable[[float], object] | bool | None
"""The same for works that have no named parts."""

_displaying = threading.Lock()
"""Held while progress is displayed: what is called meanwhile displays none of its own."""


# ---- what Python functions show


@contextmanager
def shown_progress(progress: ShownNamedProgress, what: str) -> "Iterator[NamedProgress | None]":
    """Yield what a function of the package calls with its progress, or None if nobody is to see it.

    Parameters
    ----------
    progress : callable, bool or None
        As it was given to the function.
    what : str
        What is being done until the function says something else.
    """
    if callable(progress):
        yield progress
        return
    from rich.console import Console

    settings: dict[str, Any] = {"stderr": True, "highlight": False, "soft_wrap": True}
    console = Console(**settings)
    asked, notebook = progress is True, console.is_jupyter
    if notebook and not _has_widgets():  # without them rich draws nothing there, but warns
        console = Console(**settings, force_jupyter=False)
    if _displaying.locked() or not (asked or (progress is None and (notebook or seen(console)))):
        yield None
    else:
        with displayed(console, what, patience=0.0 if asked else _PATIENCE) as update:
            yield update


@contextmanager
def shown_share(progress: ShownProgress, what: str) -> "Iterator[Progress | None]":
    """Yield what a work without named parts calls with its progress, as `shown_progress` does.

    In another thread than the main one, calling it ends the work when the main thread was interrupted.
    """
    if callable(progress):
        yield stopped_with_main(progress)
        return
    with shown_progress(progress, what) as update:
        yield stopped_with_main(None if update is None else lambda share: update(what, share))


def seen(console: "Console") -> bool:
    """Return whether somebody sees a bar: on a terminal that can move its cursor, or in a notebook."""
    return console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal)


def _has_widgets() -> bool:
    """Return whether notebooks can draw a bar; otherwise they show lines."""
    return find_spec("ipywidgets") is not None


# ---- the display


@contextmanager
def displayed(
    console: "Console", what: str, left: TimeLeft | None = None, *, patience: float = 0.0
) -> "Iterator[NamedProgress]":
    """Yield a function that shows what is being done, the share that is done, and one clock.

    Parameters
    ----------
    console : Console
        Where it is shown. A quiet one shows nothing.
    what : str
        What is being done until the function is called.
    left : TimeLeft, optional
        Estimates the time that is left from the shares; a work that knows more of its time gives its own.
    patience : float
        Seconds before which a bar is not shown.
    """
    state = _State(what, TimeLeft() if left is None else left)
    first = _displaying.acquire(blocking=False)
    try:
        if console.quiet:
            yield state.update
        elif seen(console):
            with _Bar(console, state, patience) as bar:
                yield bar.update
        else:
            lines = _Lines(console, state)
            try:
                yield state.update
            finally:
                lines.stop()
    finally:
        if first:
            _displaying.release()


class _State:
    """What is being done, the share that is done, and the clock that is shown beside them."""

    def __init__(self, what: str, left: TimeLeft) -> None:
        self.what, self.left = what, left
        self.share: float | None = None
        self._began = time.monotonic()

    def update(self, what: str, share: float) -> None:
        self.what, self.share = what, share
        self.left.report(share)

    @property
    def known(self) -> float | None:
        """The share that is done, if a share says how much is left to do."""
        return self.share if self.share is not None and self.share < 1 else None

    @property
    def passed(self) -> float:
        """The seconds since the beginning."""
        return time.monotonic() - self._began

    def clock(self) -> str:
        seconds = None if self.known is None else self.left.seconds()
        return f"{duration(self.passed)} so far" if seconds is None else f"{duration(seconds)} left"


class _Bar:
    """A bar that is drawn by rich, from the first report after a time on."""

    def __init__(self, console: "Console", state: _State, patience: float) -> None:
        self._state, self._patience = state, patience
        self._bar = bar_of(console, state.clock)
        self._task = self._bar.add_task(state.what, total=None)
        self._started = False

    def __enter__(self) -> "_Bar":
        self._start_in_time()
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            self._bar.stop()

    def update(self, what: str, share: float) -> None:
        self._state.update(what, share)
        known = self._state.known
        self._bar.update(self._task, completed=known or 0.0, description=what)
        self._bar.tasks[0].total = None if known is None else 1.0  # because `update` takes None for "as before"
        self._start_in_time()

    def _start_in_time(self) -> None:
        if not self._started and self._state.passed >= self._patience:
            self._bar.start()
            self._started = True


class _Lines:
    """Prints lines of progress from a thread of its own, so that they come while one piece of the work takes long, too."""

    def __init__(self, console: "Console", state: _State) -> None:
        self._console, self._state = console, state
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._print_lines, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _print_lines(self) -> None:
        pause = FIRST_LINE_SECONDS
        while not self._stopped.wait(pause):
            known = self._state.known
            share = "" if known is None else f"{100 * known:3.0f} %  "
            self._console.print(f"{share}{self._state.what}, {self._state.clock()}", markup=False)
            pause = min(max(LINE_SECONDS, self._state.passed / 10), LONGEST_LINE_SECONDS)


def bar_of(
    console: "Console", clock: Callable[[], str], *before: Any, narrow: int = _NARROW, transient: bool = True
) -> Any:
    """Return a progress bar of rich with one clock at its end; `before` are columns in front of it.

    A task without a total has no share: its bar moves and does not fill. On a terminal of fewer than `narrow` columns there is no bar,
    but the share in per cent.
    """
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task
    from rich.table import Column
    from rich.text import Text

    class DoingColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(task.description, no_wrap=True, overflow="crop")

    class ShareColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.total is None else f"{task.percentage:3.0f} %", style="progress.percentage")

    class ClockColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(clock())

    doing = DoingColumn(Column(no_wrap=False))  # alone is cut where the line is too long
    bar = [] if console.width < narrow and not console.is_jupyter else [BarColumn(bar_width=20)]
    after = (*bar, *(each(Column(no_wrap=True)) for each in (ShareColumn, ClockColumn)))
    return Progress(SpinnerColumn("line"), *before, doing, *after, console=console, transient=transient)


def duration(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
