"""The output of commands: tables, progress and errors."""

import codecs
import io
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import typer
from rich.console import Console

from spd_fast.base.extras import explained

if TYPE_CHECKING:
    from spd_fast.outer.history import OuterEpoch
    from spd_fast.recipes.settings import Recipe

INTERRUPTED = 130
"""Exit code after Ctrl-C, as is usual for shells."""
LINES_WITHOUT_TERMINAL = 20
"""About how many lines of progress a whole run prints if the output is no terminal."""
_ASCII = {
    "├": "|",
    "└": "`",
    "┴": "+",
    "│": "|",
    "─": "-",
    "●": "*",
    "±": "+-",
    "—": "-",
    "…": "...",
}
"""What is printed in place of characters that an output cannot show. The first six draw graphs."""


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


out = Console(highlight=False, soft_wrap=True, width=None if _is_terminal() else 120)
err = Console(stderr=True, highlight=False, soft_wrap=True)


# ---- streams


def repair_streams() -> None:
    """Let the standard streams take all that commands print: closed ones drop it, and characters that their encoding does not
    have become others of ASCII. Names of files that are no text are printed as the bytes that they are."""
    codecs.register_error("spd_fast.ascii", _replaced)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the file stays open to the end, so that no other file gets the stream's number
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="spd_fast.ascii")


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what is written in place of the first character that cannot be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte of a file's name that is no text
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return _ASCII.get(character, "?"), error.start + 1


# ---- errors


@contextmanager
def errors(debug: bool, *, again: bool = False) -> Iterator[None]:
    """Turn an error that the user can correct into one line and exit code 2, and Ctrl-C into exit code 130.

    With `again`, Ctrl-C also prints the command that continues, which is the same command. `spd-fast run` prints its own.
    """
    try:
        yield
    except KeyboardInterrupt:
        if again:
            err.print(f"stopped; continue with: {shlex.join(['spd-fast', *sys.argv[1:]])}", markup=False)
        raise typer.Exit(INTERRUPTED) from None
    except (ValueError, TypeError, OSError, RuntimeError, MemoryError, ImportError) as error:
        if debug:
            raise
        err.print(f"error: {message_of(error)}", style="bold red", markup=False)
        raise typer.Exit(2) from None


def message_of(error: BaseException) -> str:
    """Return the text of an error; for an error of the operating system, the file's name and the system's text."""
    if isinstance(error, ImportError):
        return str(explained(error))
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.filename}: " if error.filename else ""
        return what + error.strerror
    return str(error) or type(error).__name__


class Display:
    """The live progress of a run: a bar on a terminal, otherwise a line from time to time. `fit_dish` calls it."""

    def __init__(self, recipe: "Recipe") -> None:
        self._epochs = recipe.outer.epochs
        self._every = max(1, -(-self._epochs // LINES_WITHOUT_TERMINAL))
        self._taus: list[float] = []
        self._validation_tau: float | None = None
        self._began = time.monotonic()
        self._first: int | None = None
        self._bar: Any = None

    def __enter__(self) -> "Display":
        if out.is_terminal:
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("outer epoch {task.fields[epoch]}/{task.total}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(compact=True),
                console=out,
                speed_estimate_period=120,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=self._epochs, epoch=0, numbers="loss  -    tau  -   ")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, epoch: int, fraction: float, record: "OuterEpoch | None") -> None:
        if self._first is None:
            self._first = epoch
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch + fraction, epoch=epoch + 1)
        if record is None:
            return
        self._taus.append(record.kendall_tau)
        self._validation_tau = self._validation_tau if record.validation_tau is None else record.validation_tau
        numbers = self._numbers(record)
        if self._bar is not None:
            self._bar.update(self._task, numbers=numbers)
        elif (epoch + 1) % self._every == 0 or epoch + 1 == self._epochs:
            left = (time.monotonic() - self._began) / (epoch + 1 - self._first) * (self._epochs - epoch - 1)
            out.print(f"outer epoch {epoch + 1}/{self._epochs}  {numbers}  {duration(left)} left", markup=False)

    def _numbers(self, record: "OuterEpoch") -> str:
        loss = "  -  " if record.loss is None else f"{record.loss:.3f}"
        mean = sum(self._taus) / len(self._taus)
        note = f"  {record.skipped}: skipped" if record.skipped else ""
        validation = "" if self._validation_tau is None else f"  validation tau {self._validation_tau:+.2f}"
        return f"loss {loss}  tau {record.kendall_tau:+.2f} (mean {mean:+.3f}){validation}{note}"


def duration(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


@contextmanager
def progress_bar(what: str) -> Iterator[Any]:
    """Yield a function that shows the share of the work that is done; None if the output is no terminal."""
    if not out.is_terminal:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=out, transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share: bar.update(task, completed=share)


@contextmanager
def named_progress() -> Iterator[Any]:
    """Yield a function that shows what is being done and the share that is done: a bar on a terminal, otherwise a line for
    each thing that is done."""
    if out.is_terminal:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeRemainingColumn(compact=True))
        with Progress(*columns, console=out, transient=True) as bar:
            task = bar.add_task("", total=1.0)
            yield lambda what, share: bar.update(task, completed=share, description=what)
        return
    said: list[str] = []

    def say(what: str, share: float) -> None:
        if said[-1:] != [what]:
            said.append(what)
            out.print(f"{100 * share:3.0f} %  {what}", markup=False)

    yield say


# ---- shared


def table_of(title: str, rows: list[dict[str, Any]]) -> Any:
    """Return rows as a table whose columns are those of the first row."""
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        numeric = isinstance(rows[0][name], (int, float)) and not isinstance(rows[0][name], bool)
        justify: Literal["right", "left"] = "right" if numeric else "left"
        table.add_column(name, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(cell_text(value) for value in row.values()))
    return table


def cell_text(value: Any) -> str:
    """Return the text of a value in a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
