"""The main job on the command line: rank candidates."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spd_fast.cli.apps import app
from spd_fast.cli.console import duration, errors, named_progress, out, table_of
from spd_fast.cli.options import Debug, Threads

if TYPE_CHECKING:
    from spd_fast.ranking.rank import Ranking

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


@app.command(
    epilog="Examples:\n\n  spd-fast rank candidates.csv --labelled trained.csv\n\n"
    "  spd-fast rank candidates.csv --labelled trained.csv --budget 5m --out ranked.csv\n\n"
    "  spd-fast rank candidates.jsonl"
)
def rank(
    candidates: Annotated[
        Path,
        typer.Argument(
            metavar="CANDIDATES",
            help="File of cells: .csv, .tsv, .json, .jsonl, .parquet or .npz. Columns that hold no cell are carried through.",
        ),
    ],
    labelled: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Cells that were trained, with the accuracy that they reached. Without it the speed of learning ranks, which needs no labels.",
        ),
    ] = None,
    file: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="The ranked candidates: .csv, .tsv, .json, .jsonl or .parquet."),
    ] = Path("ranked.csv"),
    accuracy: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the accuracies. Default: found by its name.")
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="The column holds losses or errors.")
    ] = False,
    cell: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of the cells in both files. Default: found by its name."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Train motifs for at most this long: 90s, 10m, 2h. Default: all of them."),
    ] = None,
    best: Annotated[int, typer.Option(metavar="N", min=0, help="Print and draw the best N.")] = 10,
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Rank candidates by the accuracy that they are expected to reach: which of them are worth training next.

    What is measured is kept in OUT.measured as it comes: after Ctrl-C or a kill the same command goes on from there.
    """
    with errors(debug, again=True):
        from spd_fast.ranking import rank as ranking
        from spd_fast.ranking.tables import require_writable

        require_writable(file)
        seconds = None if budget is None else _seconds(budget)
        with named_progress() as update:
            found = ranking.rank(
                candidates,
                labelled,
                accuracy,
                cell=cell,
                lower_is_better=lower_is_better,
                budget=seconds,
                measured=file.with_name(f"{file.name}.measured"),
                threads=threads,
                progress=update,
            )
        found.save(file)
        _print_best(found, best)
        for sentence in found.advice:
            out.print(f"\n{sentence}", markup=False)
        out.print(
            f"\n{len(found.cells):,} candidates ranked in {duration(found.seconds)}; all of them are in {file}.",
            markup=False,
        )


def _seconds(text: str) -> float:
    """Return the seconds of a time such as 90, 90s, 10m or 2h."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    if found is None:
        raise ValueError(f"--budget is {text!r}, expected a time such as 90s, 10m or 2h")
    return float(found[1]) * _SECONDS[found[2]]


def _print_best(found: "Ranking", n: int) -> None:
    import numpy as np

    rows = [row for row in found.order.tolist() if np.isnan(found.known[row])][:n]
    if not rows:
        return
    shown = []
    for place, row in enumerate(rows, start=1):
        line = {"": place, "cell": found.cells[row].module_hash[:12]}
        if found.accuracy is not None and found.lower is not None and found.upper is not None:
            line |= {
                "predicted": float(found.accuracy[row]),
                "90 % interval": f"{found.lower[row]:.3f} to {found.upper[row]:.3f}",
            }
        line |= {"label-free score": float(found.label_free[row]), "parameters": f"{found.parameters[row]:,}"}
        shown.append(line)
    title = "Train these next" if found.labelled else "The most promising candidates"
    out.print(table_of(title, shown))
    for place, row in enumerate(rows, start=1):
        out.print(f"\n{place}", markup=False)
        out.print(str(found.cells[row]), markup=False)
