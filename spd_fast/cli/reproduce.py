"""The command ``spd-fast reproduce``: the paper's experiments, and the page that compares them with the paper."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from spd_fast.base.progress import TimeLeft
from spd_fast.cli.apps import app
from spd_fast.cli.commands import Result
from spd_fast.cli.console import named_progress, note, out, table_of
from spd_fast.cli.options import Settings, Threads, TruthFile, writable_folder
from spd_fast.cli.recipes import changes_of

if TYPE_CHECKING:
    from spd_fast.paper.metrics import Metrics
    from spd_fast.paper.reproduce import Progressed

PAGE = "reproduction.md"


@app.command(
    continues=True,
    examples=(
        "spd-fast reproduce --truth nasbench101.npz",
        "spd-fast reproduce --settings paper --only cassimon_c --outer-epochs 2",
    ),
)
def reproduce(
    settings: Annotated[
        str,
        typer.Option(
            metavar="paper|level",
            help="[bold]paper[/bold]: the inner rate that the paper states; motifs A and B at 100 inner epochs have 40 outer epochs. "
            "[bold]level[/bold]: search for the rates that reach the paper's accuracies, and use these.",
        ),
    ] = "level",
    truth: TruthFile = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Make this run alone, for example cassimon_c. May be repeated."),
    ] = None,
    outer_epochs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Outer epochs of every run, to try the command out. The paper: 170."),
    ] = None,
    attempt_epochs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Outer epochs of each rate that level tries.")
    ] = 5,
    timed_cells: Annotated[
        int, typer.Option(metavar="N", min=0, help="Random cells whose inner epochs are timed for table 1.")
    ] = 100,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            callback=writable_folder,
            help="Folder of the reproduction. Default: runs/reproduction-SETTINGS-seedN.",
        ),
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(
            "--draw",
            metavar="PAGE.md",
            help="Run nothing; write this page and its figures anew from the metrics (.json) in the folder of the same name beside it. Runs that were made on several machines are put together.",
        ),
    ] = None,
    threads: Threads = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of all runs.")] = 0,
    changes: Settings = None,
) -> Result:
    """Repeat the five experiments of Cassimon et al., and compare every number and figure with the paper's.

    This takes hours. After Ctrl-C, a kill or a crash the same command continues; at most the outer epoch that was interrupted and
    a second before it are lost.
    """
    if draw is not None:
        return _draw(draw)
    from spd_fast.paper.reproduce import Plan, origin_of, paper_truth
    from spd_fast.paper.reproduce import reproduce as run
    from spd_fast.report.reproduction import write_page

    chosen = changes_of(None, changes)
    plan = Plan(cast(Any, settings), tuple(only or ()), outer_epochs, attempt_epochs, timed_cells, seed, chosen)
    where = folder if folder is not None else _default_folder(settings, outer_epochs, seed)
    table = paper_truth(truth)
    note.print(origin_of(table), markup=False)
    about = {"truth_file": None if truth is None else str(truth.absolute())}
    left = _Left()
    with named_progress("reading the cells", left) as update:

        def show(state: "Progressed") -> None:
            left.seconds_left = state.seconds_left
            update(f"{state.part}, {state.piece + 1}/{state.pieces}", state.share)

        metrics = run(where, table, plan, about=about, threads=threads, progress=show)
    page = write_page(where / PAGE, [metrics])
    found = {"reproduction": where, "page": page, "truth": metrics.origin, "numbers": _print_numbers(metrics)}
    note.print(f"metrics in {where / 'metrics.json'}, page in {page}", markup=False)
    rates = {name: made.rate for name, made in metrics.runs.items()}
    return Result(found, wrote=where, settings={"truth": metrics.origin, "rates": rates})


def _default_folder(settings: str, outer_epochs: int | None, seed: int) -> Path:
    shortened = "" if outer_epochs is None else f"-{outer_epochs}-epochs"
    return Path("runs") / f"reproduction-{settings}-seed{seed}{shortened}"


def _print_numbers(metrics: "Metrics") -> list[dict[str, Any]]:
    """Print the numbers that both have, the paper and this reproduction; return all of them for --json."""
    from spd_fast.report.reproduction import numbers_of

    numbers = numbers_of(metrics)
    rows = [
        {"number": each.what, "the paper": each.form(each.paper), "here": each.form(each.ours)}
        for each in numbers
        if each.paper is not None and each.ours is not None
    ]
    out.print(table_of("", rows))
    return [
        {
            "number": each.what,
            "section": each.where,
            "paper": each.paper,
            "here": each.ours,
            "standard_error": each.error,
        }
        for each in numbers
    ]


def _draw(page: Path) -> Result:
    """Write a page from stored metrics."""
    from spd_fast.paper.metrics import Metrics
    from spd_fast.report.reproduction import write_page

    if page.suffix != ".md":
        raise ValueError(f"--draw is {page}, expected the name of a page that ends in .md")
    stored = page.with_suffix("")
    found = sorted(stored.glob("*.json"))
    written = write_page(page, [Metrics.load(path) for path in found])
    note.print(f"page in {written}, from {len(found)} files of metrics in {stored}", markup=False)
    return Result({"page": written, "metrics": found})


class _Left(TimeLeft):
    """The time that is left as the reproduction forecasts it, which knows what its parts cost."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds_left: float | None = None

    def report(self, share: float) -> None:
        """Do nothing: the time does not follow from the share."""

    def seconds(self) -> float | None:
        return self.seconds_left
