"""Progress that people see: who sees a bar unasked, one bar at a time, one clock, and no bar that looks finished while work goes on."""

import io
import re
import time
from typing import Any

import pytest
from rich.console import Console

from spd_fast.base import display
from spd_fast.base.display import displayed, shown_progress, shown_share


def terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, legacy_windows=False)


def lines_of(console: Console) -> list[str]:
    """Return every state of the bar."""
    assert isinstance(console.file, io.StringIO)
    plain = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", console.file.getvalue())
    return [line.strip() for line in re.split(r"[\r\n]+", plain) if line.strip()]


def test_a_callback_is_called_itself_and_nobody_sees_a_bar_in_a_pipe() -> None:
    told: list[Any] = []
    with shown_progress(lambda *said: told.append(said), "work") as update:
        assert update is not None
        update("part", 0.5)
    assert told == [("part", 0.5)]
    for silent in (None, False):
        with shown_share(silent, "work") as share:
            assert share is None


def test_a_bar_is_shown_where_somebody_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unasked on a terminal, after a second; one at a time; never if it was refused."""
    console = terminal()
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    with shown_progress(None, "work") as update:
        assert update is not None
        update("short", 0.5)
    assert lines_of(console) == []
    monkeypatch.setattr(display, "_PATIENCE", 0.0)
    with shown_share(None, "work") as share:
        assert share is not None
        share(0.5)
        with shown_progress(True, "within") as within:
            assert within is None
    assert any(re.match(r"[-|/\\] +work .* 50 % 0:00 (so far|left)", line) for line in lines_of(console))
    with shown_progress(False, "work") as update:
        assert update is None


def test_a_notebook_without_widgets_shows_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There rich would warn at every step that it cannot draw a bar."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(display, "_has_widgets", lambda: False)
    monkeypatch.setattr(display, "FIRST_LINE_SECONDS", 0.01)
    with shown_progress(None, "work") as update:
        assert update is not None
        update("part", 0.5)
        deadline, told = time.monotonic() + 10, ""
        while " 50 %  part, 0:0" not in told and time.monotonic() < deadline:
            time.sleep(0.01)
            told += capsys.readouterr().err
    assert " 50 %  part, 0:0" in told


def test_a_bar_is_not_finished_before_the_work_is() -> None:
    console = terminal()
    with displayed(console, "reading") as update:
        update("training", 0.4)
        update("writing a.csv", 1.0)
    first, last = lines_of(console)[0], lines_of(console)[-1]
    assert re.match(r"[-|/\\] +reading .* 0:00 so far", first)
    assert re.match(r"[-|/\\] +writing a.csv .* 0:00 so far", last)
    assert not any("%" in line for line in (first, last)), "of these nobody knows how long they take"


@pytest.mark.parametrize("width", [40, 80])
def test_a_bar_fits_the_terminal(width: int) -> None:
    console = terminal(width)
    with displayed(console, "x") as update:
        update("training motif 1 of 8 of 423,624 cells of NAS-Bench-101, of which many have nine edges", 0.5)
    last = lines_of(console)[-1]
    assert len(last) <= width
    assert re.search(r"training motif 1 of .* 50 % 0:00 (left|so far)$", last)
