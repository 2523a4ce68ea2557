"""The output of commands: tables, progress and errors."""

import codecs
import io
import os
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from spd_fast.base.display import bar_of, displayed, duration
from spd_fast.base.extras import explained
from spd_fast.base.progress import TimeLeft

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType
    from rich.table import Column, Table

    _Columns = Sequence[tuple[Column, list[str]]]
    from spd_fast.outer.history import OuterEpoch
    from spd_fast.recipes.settings import Recipe

INTERRUPTED = 130
"""Exit code after Ctrl-C, as is usual for shells."""
LINES_WITHOUT_TERMINAL = 20
"""About how many lines of progress `spd-fast run` prints if the output is no terminal."""
HASH_DIGITS = 12
"""Digits of a cell's hash in a table that would be too wide otherwise. Commands take the first digits of a hash."""
_WRAPPED_FROM = 24
"""Texts of more characters than these are wrapped in tables; shorter ones and numbers stay on their line."""
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

out = Console(highlight=False, soft_wrap=True)
"""Results, on standard output. With --json it prints nothing, and the record of the command is printed in its place."""
note = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress and remarks, on standard error. With --quiet it prints nothing."""
err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Errors, on standard error."""


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
            err.print(f"stopped; continue with: {command_typed()}", markup=False)
        raise typer.Exit(INTERRUPTED) from None
    except (ValueError, TypeError, OSError, RuntimeError, MemoryError, ImportError) as error:
        if debug:
            raise
        err.print(f"error: {message_of(error)}", style="bold red", markup=False)
        raise typer.Exit(2) from None


def command_typed() -> str:
    """Return the command as it was typed, for a shell."""
    return shlex.join(["spd-fast", *sys.argv[1:]])


def message_of(error: BaseException) -> str:
    """Return the text of an error; for an error of the operating system, the file's name and the system's text."""
    if isinstance(error, ImportError):
        return str(explained(error))
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.filename}: " if error.filename else ""
        return what + error.strerror
    return str(error) or type(error).__name__


# ---- progress


class Display:
    """The live progress of a run: a bar on a terminal, otherwise a line from time to time. `fit_dish` calls it.

    `done` is the number of outer epochs that were done before.
    """

    def __init__(self, recipe: "Recipe", done: int = 0) -> None:
        self._epochs, self._done = recipe.outer.epochs, done
        self._every = max(1, -(-self._epochs // LINES_WITHOUT_TERMINAL))
        self._taus: list[float] = []
        self._validation_tau: float | None = None
        self._left = TimeLeft()
        self._left.report(done / max(1, self._epochs))
        self._bar: Any = None

    def __enter__(self) -> "Display":
        if note.is_terminal and not note.quiet:
            from rich.progress import TextColumn

            epochs = TextColumn("outer epoch {task.fields[epoch]}/{task.total}")
            began, narrow = time.monotonic(), 120  # its numbers say more than the bar
            self._bar = bar_of(
                note,
                lambda: _left_text(self._left) or f"{duration(time.monotonic() - began)} so far",
                epochs,
                narrow=narrow,
                transient=False,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                "loss  -    tau  -   ",
                total=self._epochs,
                completed=self._done,
                epoch=min(self._done + 1, self._epochs),
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, epoch: int, fraction: float, record: "OuterEpoch | None") -> None:
        self._left.report((epoch + fraction) / self._epochs)
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch + fraction, epoch=epoch + 1)
        if record is None:
            return
        self._taus.append(record.kendall_tau)
        self._validation_tau = self._validation_tau if record.validation_tau is None else record.validation_tau
        numbers = self._numbers(record)
        if self._bar is not None:
            self._bar.update(self._task, description=numbers)
        elif (epoch + 1) % self._every == 0 or epoch + 1 == self._epochs:
            note.print(
                f"outer epoch {epoch + 1}/{self._epochs}  {numbers}  {_left_text(self._left)}".rstrip(), markup=False
            )

    def _numbers(self, record: "OuterEpoch") -> str:
        loss = "  -  " if record.loss is None else f"{record.loss:.3f}"
        mean = sum(self._taus) / len(self._taus)
        skipped = f"  {record.skipped}: skipped" if record.skipped else ""
        validation = "" if self._validation_tau is None else f"  validation tau {self._validation_tau:+.2f}"
        return f"loss {loss}  tau {record.kendall_tau:+.2f} (mean {mean:+.3f}){validation}{skipped}"


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float], object]]:
    """Yield a function that shows the share of the work that is done, as `named_progress` does."""
    with named_progress(what) as update:
        yield lambda share: update(what, share)


@contextmanager
def named_progress(what: str = "preparing", left: TimeLeft | None = None) -> Iterator[Callable[[str, float], object]]:
    """Yield a function that shows what is being done, the share that is done and one clock, as `displayed` does.

    On a terminal that is a bar, which is there at once. Elsewhere it is a line from time to time, the first after a second.
    """
    with displayed(note, what, left) as update:
        yield update


def _left_text(left: TimeLeft) -> str:
    """Return the time that is left, as long as some is."""
    seconds = left.seconds()
    return f"{duration(seconds)} left" if seconds else ""


# ---- tables


class Fitted:
    """A table that fits the width of the output: hashes are cut to their first digits if it is too wide; if it still is, it is
    printed as several tables below each other, each with the first column."""

    def __init__(self, table: "Table") -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: "ConsoleOptions") -> "Iterator[RenderableType]":
        from rich.text import Text

        width = options.max_width
        columns = [(column, [str(cell) for cell in column.cells]) for column in self.table.columns]
        if _width(columns) > width:
            columns = [(column, [_short(cell) for cell in cells]) for column, cells in columns]
        if self.table.title:
            yield Text(_filled(str(self.table.title), width), style="italic")
        first, *left = columns
        while True:
            block = [first]
            while left and (len(block) == 1 or _width([*block, left[0]]) <= width):
                block.append(left.pop(0))
            yield _table(block)
            if not left:
                break
            yield ""
        if self.table.caption:
            yield Text(_filled(str(self.table.caption), width), style="italic")


def _table(columns: "_Columns") -> "Table":
    """Return a table of columns with their cells. Long texts are wrapped, and headings as their cells allow."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, cells in columns:
        width = None if _wraps(cells) else _column_width(column, cells)
        table.add_column(Text(str(column.header)), justify=column.justify, width=width, overflow="fold")
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*(Text(cell) for cell in row))
    return table


def _width(columns: "_Columns") -> int:
    """Return the least width of a table: that of its columns, and two blanks between them."""
    return sum(_column_width(column, cells) + 2 for column, cells in columns) - 2


def _column_width(column: "Column", cells: Sequence[str]) -> int:
    """Return the least width of a column: that of its cells if they are short, and of the longest word of its heading."""
    widest = _WRAPPED_FROM if _wraps(cells) else max(map(len, cells), default=0)
    return max([widest, *map(len, str(column.header).split())])


def _wraps(cells: Sequence[str]) -> bool:
    return any(len(cell) > _WRAPPED_FROM and " " in cell for cell in cells)


def _filled(text: str, width: int) -> str:
    return "\n".join(textwrap.fill(line, width) for line in text.splitlines())


def _short(text: str) -> str:
    return text[:HASH_DIGITS] if re.fullmatch("[0-9a-f]{32}", text) else text


def table_of(title: str, rows: list[dict[str, Any]]) -> Fitted:
    """Return rows as a table whose columns are those of the first row. It fits the width of the output."""
    from rich.table import Table

    table = Table(title=title or None)
    for name in rows[0]:
        numeric = isinstance(rows[0][name], (int, float)) and not isinstance(rows[0][name], bool)
        table.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(cell_text(value) for value in row.values()))
    return Fitted(table)


def cell_text(value: Any) -> str:
    """Return the text of a value in a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
