"""The command ``spd-fast score``, which makes a scoreboard."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spd_fast.cli.apps import app
from spd_fast.cli.commands import Result
from spd_fast.cli.console import command_typed, named_progress, note, out, table_of
from spd_fast.cli.options import Settings, Threads, TruthFile, integers, recipe_names, writable_folder
from spd_fast.cli.recipes import recipe_of

if TYPE_CHECKING:
    from spd_fast.scoreboard.board import Board


@app.command(
    continues=True,
    examples=(
        "spd-fast score --recipe learned_labels --truth nb101.npz --images cifar10.npz",
        "spd-fast score runs/c0 runs/c1 runs/c2 --truth nb101.npz --folds 0",
        "spd-fast score --test-cells 200 --pool-sizes 60 --seeds 2 --folds 0",
    ),
)
def score(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN",
            help="Folders of finished runs that differ in their seeds alone. Default: dishes are learned here.",
        ),
    ] = None,
    truth: TruthFile = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=recipe_names,
            help="Recipe by which dishes are learned where no runs are given. Default: learned_labels.",
        ),
    ] = None,
    curves: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=recipe_names,
            help="Recipe of the learning curves: its motif, its inner loop and its dish, which is not learned.",
        ),
    ] = "curves",
    pool_sizes: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Numbers of labelled cells to learn from, separated by commas. Each has rows of its own.",
        ),
    ] = "30,100",
    test_cells: Annotated[int, typer.Option(metavar="N", min=1, help="Number of test cells, at least 100.")] = 1000,
    seeds: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of pools of labelled cells. A dish is learned from each.")
    ] = 5,
    folds: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Parts of a pool for Gaussian processes on dishes; a dish is learned without each part. 0 leaves these rows out.",
        ),
    ] = 5,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Real images: an .npz or a folder of IDX files. Without them, rows that need real images are left out.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", callback=writable_folder, help="Folder of the scoreboard. Default: runs/score-NAME."
        ),
    ] = None,
    threads: Threads = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the draw of the test cells.")] = 0,
    settings: Settings = None,
) -> Result:
    """Make a scoreboard: compare how well learned dishes, predictors and simpler scores rank test cells.

    Every measurement is kept in --out as soon as it is made. After Ctrl-C or a kill the same command continues. With another
    --folds, or with fewer numbers in --pool-sizes, it measures only what is missing.
    """
    from spd_fast.report import board as page
    from spd_fast.scoreboard.board import build_board
    from spd_fast.scoreboard.trial import draw_trial, trial_of_runs
    from spd_fast.truth.table import TruthTable

    table = TruthTable.load(truth)
    if folders:
        if recipe is not None or settings:
            raise ValueError("--recipe and --set are those of the runs that were given: leave them out")
        trial, chosen, learned = trial_of_runs(folders, table, test_cells=test_cells, seed=seed)
    else:
        from spd_fast.predictors.spd import DEFAULT_RECIPE

        chosen, learned = recipe_of(recipe or DEFAULT_RECIPE, None, settings), None
        sizes = integers("--pool-sizes", pool_sizes)
        trial = draw_trial(table, pool_sizes=sizes, test_cells=test_cells, seeds=seeds, seed=seed)
    where = folder if folder is not None else Path("runs") / f"score-{chosen.name}"
    with named_progress("measuring structures") as update:
        board = build_board(
            trial,
            chosen,
            recipe_of(curves, None, None),
            learned=learned,
            folds=folds,
            images=images,
            folder=where,
            threads=threads,
            progress=update,
        )
        update("writing the page", 1.0)
        written = page.write(board, where, command=command_typed())
    _print_board(board)
    note.print(f"board.json, board.csv and figures in {where}, page in {written}", markup=False)
    return Result(board.to_json(), wrote=where, settings={"recipe": json.loads(chosen.to_json())})


def _print_board(board: "Board") -> None:
    rows = [
        {
            "row": row.name,
            "labelled cells": row.pool_size,
            "tau, 95 % interval": str(row.judged.estimate("tau")),
            "rho": f"{row.judged.means['rho']:.3f}",
            "tau of top 10 %": f"{row.judged.means['tau_top']:.3f}",
            "prec. 10": f"{row.judged.means['precision_10']:.2f}",
            "prec. 50": f"{row.judged.means['precision_50']:.2f}",
            "init, wall s": f"{row.init_seconds:.2f}",
            "query, core ms": f"{1e3 * row.query_seconds:.2f}",
            "in 90 %": "" if row.inside_90 is None else f"{row.inside_90:.2f}",
        }
        for row in board.rows
    ]
    trial = board.trial
    out.print(
        table_of(
            f"{len(trial.test_cells)} test cells, {len(trial.seeds)} seed{'s' if len(trial.seeds) > 1 else ''}", rows
        )
    )
    from spd_fast.scoreboard.rows import BEFORE, LEARNED

    for learned in (row for row in board.rows if row.name == LEARNED):
        before = next(row for row in board.rows if row.name == BEFORE)
        gain = learned.judged.minus(before.judged, "tau")
        out.print(
            f"The learned dish with {learned.pool_size} labelled cells over the same dish before learning: tau {gain.mean:+.3f} "
            f"[{gain.low:+.3f}, {gain.high:+.3f}] on the same test cells.",
            markup=False,
        )
