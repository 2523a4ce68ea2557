"""The main job on the command line: rank candidates."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spd_fast.base.display import duration
from spd_fast.cli.apps import app
from spd_fast.cli.commands import Result
from spd_fast.cli.console import command_typed, named_progress, note, out, table_of
from spd_fast.cli.options import Dask, Ray, Threads, executor_of, writable_folder

if TYPE_CHECKING:
    import numpy.typing as npt

    from spd_fast.ranking.rank import Ranking
    from spd_fast.spaces.candidate import MotifCell

_DEMO_LABELLED = 100
_OF_A_SPACE = 2
"""Motifs of each cell of a whole space, without labels."""
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


@app.command(
    continues=True,
    examples=(
        "spd-fast rank candidates.csv --labelled trained.csv",
        "spd-fast rank candidates.csv --labelled trained.csv --budget 5m --out best.csv",
        "spd-fast rank candidates.jsonl",
        "spd-fast rank --neighbours 1000 --labelled trained.csv",
        "spd-fast rank --all",
        "spd-fast rank --all --labelled trained.csv --ray auto --out space.parquet",
    ),
)
def rank(
    candidates: Annotated[
        Path | None,
        typer.Argument(
            metavar="CANDIDATES",
            help="File of cells: .csv, .tsv, .json, .jsonl, .parquet or .npz. Columns that hold no cell are carried through.",
        ),
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Cells that were trained, with the accuracy that they reached. Without it, candidates are ranked by how fast their motifs learn.",
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Rank all 423,624 cells of NAS-Bench-101; give a --budget or a cluster with it."),
    ] = False,
    neighbours: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Rank N cells that differ from the best labelled cells by one change."),
    ] = None,
    file: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The ranked candidates: .csv, .tsv, .json, .jsonl or .parquet. The report is written beside them, as .html.",
        ),
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
    motifs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=8,
            help="Train at most N motifs of each cell. Default: 8; with --all and no labels 2, which take a quarter of the time and rank nearly as well.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Train motifs for at most this long: 90s, 10m, 2h. Default: all of them."),
    ] = None,
    best: Annotated[int, typer.Option(metavar="N", min=0, help="Print and draw the best N.")] = 10,
    threads: Threads = None,
    ray: Ray = None,
    dask: Dask = None,
) -> Result:
    """Rank candidates by predicted accuracy, to find those that are worth training next.

    What is measured is kept in OUT.measured, or with a cluster in OUT.parts, a folder of Parquet files. After Ctrl-C or a kill the same command continues from there.
    """
    from spd_fast.base.files import require_writable as require_file_writable
    from spd_fast.ranking import rank as ranking
    from spd_fast.ranking.tables import require_writable

    page = file.with_suffix(".html")
    require_writable(file)
    require_file_writable(page)
    seconds = None if budget is None else _seconds(budget)
    what = "listing the cells of NAS-Bench-101" if everything else "reading cells"
    with executor_of(ray, dask) as executor, named_progress(what) as update:
        found = ranking.rank(
            _wanted(candidates, everything, neighbours, labelled, accuracy, cell, lower_is_better),
            labelled,
            accuracy,
            cell=cell,
            lower_is_better=lower_is_better,
            motifs=motifs or (_OF_A_SPACE if everything and labelled is None else 8),
            budget=seconds,
            measured=_kept(file, in_parts=executor is not None),
            threads=threads,
            executor=executor,
            progress=update,
        )
        update(f"writing {file}", 1.0)
        found.save(file)
        update(f"writing {page}", 1.0)
        _write_report(found, page, f"labelled cells of {labelled}" if labelled else "none: no cell is labelled")
    shown = _print_best(found, best)
    for sentence in found.advice:
        out.print(f"\n{sentence}", markup=False)
    took = f"{len(found.cells):,} candidates ranked in {duration(found.seconds)}"
    note.print(f"\n{took}; all of them are in {file}, and the report is {page}.", markup=False)
    return Result(_record_of(found, shown, file) | {"report": page}, wrote=file)


@app.command(examples=("spd-fast demo", "spd-fast demo --seconds 10 --out runs/short"))
def demo(
    folder: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            callback=writable_folder,
            help="Folder for the ranked candidates. It is made if it does not exist.",
        ),
    ] = Path("runs/demo"),
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", min=0, help="Time in which motifs are trained.")
    ] = 40,
    threads: Threads = None,
) -> Result:
    """Show what rank does on cells that come with the package: 100 are labelled, all others are ranked, and the ranking is checked.

    It takes about a minute. `spd-fast run --recipe demo` shows how a dish is learned.
    """
    from dataclasses import replace

    from spd_fast.ranking.advice import judged
    from spd_fast.ranking.rank import controls_of, rank
    from spd_fast.truth.table import TruthTable

    folder.mkdir(parents=True, exist_ok=True)
    labelled, others = TruthTable.load().split(_DEMO_LABELLED, seed=0)
    note.print(
        f"{len(labelled)} cells of the truth in the package count as trained, the other {len(others):,} as candidates.\n"
        f"For {seconds:g} seconds, motifs of the candidates are trained, those that may be the best first.",
        markup=False,
    )
    with named_progress("comparing structures") as update:
        found = rank(
            list(others.cells),
            list(labelled.cells),
            labelled.accuracy,
            budget=seconds,
            threads=threads,
            progress=update,
        )
        file, page = folder / "ranked.csv", folder / "report.html"
        update(f"writing {file}", 1.0)
        replace(found, columns={"reached": others.accuracy.tolist()}).save(file)
        about = f"{_DEMO_LABELLED} labelled cells of the truth in the package: {others.describe()}"
        update(f"writing {page}", 1.0)
        _write_report(found, page, about, others.accuracy)
    shown = _print_best(found, 10, drawn=3)
    out.print("\nThese candidates were trained, too, so that the ranking can be checked:", markup=False)
    assert found.accuracy is not None  # there are labelled cells
    verdict = judged(found.accuracy, others.accuracy, controls_of(found.cells))
    for sentence in verdict:
        out.print(f"  {sentence}", markup=False)
    where = f"All ranked candidates are in {file}, and the report is {page}"
    note.print(f"\n{where}. To rank your own: spd-fast rank --help", markup=False)
    return Result(_record_of(found, shown, file) | {"verdict": verdict, "report": page}, wrote=folder)


def _write_report(found: "Ranking", page: Path, truth: str, reached: "npt.ArrayLike | None" = None) -> None:
    from spd_fast import __version__
    from spd_fast.predictors.spd import DEFAULT_CURVES
    from spd_fast.report.page import Made
    from spd_fast.report.ranking import ranking_page

    recipe = f"{DEFAULT_CURVES}, and a Gaussian process on structure and learning curves"
    made = Made(command_typed(), __version__, recipe if found.accuracy is not None else DEFAULT_CURVES, truth)
    ranking_page(found, made, reached).write(page)


def _kept(file: Path, in_parts: bool) -> Path:
    """Return where measurements are kept: where there are some, else in parts or in one file."""
    one, parts = file.with_name(f"{file.name}.measured"), file.with_name(f"{file.name}.parts")
    return parts if parts.exists() or (in_parts and not one.exists()) else one


def _wanted(
    candidates: Path | None,
    everything: bool,
    neighbours: int | None,
    labelled: Path | None,
    accuracy: str | None,
    cell: str | None,
    lower_is_better: bool,
) -> "Path | Sequence[MotifCell]":
    """Return the candidates that the options name: a file, the space, or neighbours of the labelled cells."""
    if sum([candidates is not None, everything, neighbours is not None]) != 1:
        raise ValueError("expected one of a file of candidates, --all and --neighbours")
    if candidates is not None:
        return candidates
    if everything:
        from spd_fast.nasbench101 import enumerate_space

        return enumerate_space()
    if labelled is None:
        raise ValueError("--neighbours are those of labelled cells: name their file with --labelled")
    from spd_fast.ranking.rank import labelled_cells, neighbours_of
    from spd_fast.spaces.cell import Cell

    cells, values, _ = labelled_cells(labelled, accuracy, cell, lower_is_better)
    known = [each for each in cells if isinstance(each, Cell)]
    if len(known) < len(cells):
        raise ValueError("--neighbours are known of cells of NAS-Bench-101 alone: give a file of candidates")
    return neighbours_of(known, values, neighbours or 0)


def _seconds(text: str) -> float:
    """Return the seconds of a time such as 90, 90s, 10m or 2h."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    if found is None:
        raise ValueError(f"--budget is {text!r}, expected a time such as 90s, 10m or 2h")
    return float(found[1]) * _SECONDS[found[2]]


def _record_of(found: "Ranking", best: list[dict[str, Any]], file: Path) -> dict[str, Any]:
    """Return what --json prints of a ranking; all candidates are in its file."""
    from spd_fast.spaces.candidate import name_of

    return {
        "ranked": file,
        "candidates": len(found.cells),
        "labelled": found.labelled,
        "motifs_trained": int(found.replicates.sum()),
        "wall_seconds": found.seconds,
        "core_seconds": found.core_seconds,
        "best": best,
        "label_first": [name_of(cell) for cell in found.label_first],
        "advice": found.advice,
    }


def _print_best(found: "Ranking", n: int, drawn: int | None = None) -> list[dict[str, Any]]:
    """Print the best candidates whose accuracy is not known, and draw them; return their rows of the ranked table."""
    import numpy as np

    from spd_fast.ranking.advice import short_name
    from spd_fast.spaces.cell import Cell

    rows = found.order[np.isnan(found.known[found.order])][:n].tolist()
    if not rows:
        return []
    shown, sign, own = [], -1 if found.lower_is_better else 1, found.own_names
    for place, row in enumerate(rows, start=1):
        line: dict[str, Any] = {"": place}
        if own is not None:
            line |= {"yours": own[row]}
        if found.cells.cell_type is Cell:  # the others' names are long, and stand where they are drawn
            line |= {"cell": short_name(found.cells[row])}
        if found.accuracy is not None and found.lower is not None and found.upper is not None:
            line |= {
                "predicted": sign * float(found.accuracy[row]),
                "90 % interval": "{:.3f} to {:.3f}".format(*sorted([sign * found.lower[row], sign * found.upper[row]])),
            }
        line |= {"label-free score": float(found.label_free[row]), "parameters": f"{found.parameters[row]:,}"}
        if found.outside[rows].any():
            line |= {"tested": "outside" if found.outside[row] else "yes"}
        shown.append(line)
    title = "Train these next" if found.labelled else "The most promising candidates"
    out.print(table_of(title, shown))
    if found.outside[rows].any():
        note.print(
            "Candidates that lie outside what was tested have predictions that are guesses; see below.", markup=False
        )
    for place, row in enumerate(rows[:drawn], start=1):
        out.print(f"\n{place}", markup=False)
        out.print(str(found.cells[row]), markup=False)
    place_of = {row: place for place, row in enumerate(found.order.tolist())}
    table = found.table()
    return [{name: values[place_of[row]] for name, values in table.items()} for row in rows]
