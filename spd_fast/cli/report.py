"""The commands ``spd-fast report``, which writes pages of runs, and ``spd-fast watch``, which shows a running work."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spd_fast.base.display import duration
from spd_fast.cli.apps import app
from spd_fast.cli.commands import Result
from spd_fast.cli.console import command_typed, named_progress, note, out

if TYPE_CHECKING:
    from rich.console import Group

    from spd_fast.report.watch import State


@app.command(examples=("spd-fast report runs/demo-seed0", "spd-fast report runs/c0 runs/c1 --out compared.html"))
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, finished or not.")],
    file: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="The page that compares several runs."),
    ] = Path("comparison.html"),
) -> Result:
    """Write the report of a run anew, or compare several runs on one page.

    The report of one run is RUN/report.html.
    """
    if len(folders) == 1:
        from spd_fast.report.run import build

        with named_progress("writing the report"):
            page = build(folders[0])
        note.print(f"report in {page}", markup=False)
        return Result({"report": page})
    from spd_fast import __version__
    from spd_fast.base.files import require_writable
    from spd_fast.report.compare import compare

    require_writable(file)
    with named_progress("comparing the runs"):
        page = compare(folders, file, command=command_typed(), version=__version__)
    note.print(f"{len(folders)} runs compared in {page}", markup=False)
    return Result({"report": page})


@app.command(examples=("spd-fast watch runs/demo-seed0", "spd-fast watch ranked.csv", "spd-fast watch runs/score-demo"))
def watch(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run folder, the folder of a scoreboard, of spd-fast dish-search or of spd-fast reproduce, or the file that a ranking, "
            "spd-fast predictor or spd-fast truth build writes.",
        ),
    ],
    every: Annotated[float, typer.Option(metavar="S", min=0.1, help="Seconds between two readings of the files.")] = 2,
) -> Result:
    """Show how far a running command is: an outer loop, a ranking, a scoreboard, a search, a reproduction, a predictor, or a truth.

    It ends with the work, or by Ctrl-C, which stops nothing but the watching. The files of the work are only read.
    """
    from spd_fast.report.watch import look

    began = time.monotonic()
    state = look(path)
    wait = max(every, 10 * (time.monotonic() - began))  # where much has to be read, it is read less often
    if not out.is_terminal:
        said = None
        while True:
            if (line := _line(state)) != said:
                said = line
                out.print(line, markup=False)
            if not state.running:
                return Result(asdict(state))
            time.sleep(wait)
            state = _again(path, state)
    from rich.live import Live

    with Live(_panel(state), console=out, auto_refresh=False) as live:
        while state.running:
            time.sleep(wait)
            state = _again(path, state)
            live.update(_panel(state), refresh=True)
    return Result(asdict(state))


def _again(path: Path, before: "State") -> "State":
    """Look once more. Some journals are removed when the file is written, so where such a one is gone the work is done."""
    from dataclasses import replace

    from spd_fast.report.watch import look

    try:
        return look(path)
    except (FileNotFoundError, ValueError):
        written = path.with_suffix("") if path.suffix in (".journal", ".measured") else path
        if not written.exists() or not before.removed:
            raise
        return replace(before, done=before.total or before.done, running=False, ended="finished", seconds_left=0.0)


def _line(state: "State") -> str:
    of = f"/{state.total:,}" if state.total is not None else ""
    left = f"; {duration(state.seconds_left)} left" if state.running and state.seconds_left is not None else ""
    facts = "".join(f"; {name}: {value}" for name, value in state.facts)
    return f"{state.done:,}{of} {state.unit}{facts}{left}" + (f"; {state.ended}" if state.ended else "")


def _panel(state: "State") -> "Group":
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2))
    of = f" of {state.total:,}" if state.total is not None else ""
    facts.add_row(Text(state.unit), Text(f"{state.done:,}{of}"))
    for name, value in state.facts:
        facts.add_row(Text(name), Text(value))
    if state.running and state.seconds_left is not None:
        facts.add_row(Text("left"), Text(duration(state.seconds_left)))
    bar = [] if state.total is None else [ProgressBar(total=max(state.total, 1), completed=state.done, width=60)]
    end = Text(state.ended or "Ctrl-C ends the watching; the work goes on.", style="dim")
    return Group(Text(state.what, style="bold"), *bar, facts, end)
