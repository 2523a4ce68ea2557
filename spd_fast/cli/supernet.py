"""The commands ``spd-fast supernet``: weight sharing, as an estimate of the order of cells that needs no labelled cell."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spd_fast.cli.apps import supernet_app
from spd_fast.cli.commands import Result
from spd_fast.cli.console import note, out, progress_bar, table_of
from spd_fast.cli.options import Images, Seed, Settings, Threads, TruthFile
from spd_fast.cli.recipes import changes_of
from spd_fast.cli.train import picked_cells

if TYPE_CHECKING:
    from spd_fast.dish import Dish
    from spd_fast.recipes.settings import Recipe

SHOWN = 20
"""The best cells that are printed."""


@supernet_app.command(
    continues=True,
    examples=(
        "spd-fast supernet train --images fashion-mnist/ --out supernet.npz",
        "spd-fast supernet train --images c.npz --set inner.epochs=5 --out s.npz",
    ),
)
def train(
    images: Images,
    file: Annotated[Path, typer.Option("--out", metavar="FILE", help="The supernet to write (.npz).")],
    cells: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw from the cells of this file, as rank takes it. Default: those of the truth."
        ),
    ] = None,
    truth: TruthFile = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Motif, images and inner loop, by name or JSON file. Default: its own."),
    ] = None,
    threads: Threads = None,
    seed: Seed = None,
    settings: Settings = None,
) -> Result:
    """Train a supernet on real images: in every step, a cell is drawn and its slice of the weights is updated.

    After Ctrl-C or a kill the same command continues; at most about ten seconds of work are lost.
    """
    from spd_fast.base.files import require_writable
    from spd_fast.ranking.tables import CellTable, read_table
    from spd_fast.supernet import train_supernet
    from spd_fast.truth.table import TruthTable

    require_writable(file)
    drawn: Any = (
        TruthTable.load(truth).trainable().cells if cells is None else CellTable.of(read_table(cells), str(cells)).cells
    )
    chosen = _recipe(recipe, images).replace(changes_of(seed, settings))
    with progress_bar("training the supernet") as update:
        trained = train_supernet(_dish(chosen), chosen, drawn, file=file, threads=threads, progress=update)
    steps = len(trained.step_loss)
    last = slice(-min(100, steps), None)
    facts = {
        "steps": steps,
        "weights": len(trained.weights),
        "cells": len(drawn),
        "last_loss": float(trained.step_loss[last].mean()),
        "last_accuracy": float(trained.step_accuracy[last].mean()),
        "seconds": trained.seconds,
    }
    out.print(
        f"{steps:,} steps on {facts['cells']:,} cells, {facts['weights']:,} shared weights, {trained.seconds:.0f} s; on the last batches "
        f"loss {facts['last_loss']:.3f}, accuracy {facts['last_accuracy']:.3f}",
        markup=False,
    )
    note.print(f"written to {file}", markup=False)
    return Result(facts | {"written": file}, wrote=file, settings={"recipe": json.loads(chosen.to_json())})


@supernet_app.command(
    examples=(
        "spd-fast supernet score supernet.npz --images fashion-mnist/ --sample 200",
        "spd-fast supernet score s.npz --images c.npz --cells cells.csv --steps 20",
    ),
)
def score(
    supernet: Annotated[
        Path, typer.Argument(metavar="SUPERNET", help="A file that spd-fast supernet train wrote (.npz).")
    ],
    images: Images,
    cells: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File of the cells to score, as rank takes it.")
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Option("--cell", metavar="TEXT", help="A cell as text. May be repeated.")
    ] = None,
    hashes: Annotated[
        list[str] | None,
        typer.Option("--hash", metavar="HEX", help="A cell of the truth, by its hash. May be repeated."),
    ] = None,
    sample: Annotated[int | None, typer.Option(metavar="N", min=1, help="Score N random cells of the truth.")] = None,
    truth: TruthFile = None,
    steps: Annotated[
        int, typer.Option(metavar="N", min=0, help="Steps of its own that every cell is trained for before.")
    ] = 0,
    rate: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Learning rate of these steps. Default: a tenth of the supernet's."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Also write all scores: .csv, .tsv, .json, .jsonl or .parquet."),
    ] = None,
    threads: Threads = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of --sample.")] = 0,
) -> Result:
    """Score cells by their slices of a supernet: by their accuracy on validation images.

    Of cells of a truth it also says how well the scores rank them.
    """
    import numpy as np

    from spd_fast.base.ranks import kendall_tau
    from spd_fast.ranking.tables import require_writable, write_table
    from spd_fast.scoreboard.judge import MIN_TEST_CELLS, judge
    from spd_fast.spaces.candidate import name_of
    from spd_fast.supernet import Supernet

    if file is not None:
        require_writable(file)
    trained = Supernet.load(supernet)
    picked, accuracy = picked_cells(cells, texts or [], hashes or [], sample, truth, seed)
    dish = _dish(trained.recipe.replace({"dish.source": str(images)}))
    with progress_bar("scoring") as update:
        found = trained.score(dish, picked, steps=steps, rate=rate, threads=threads, progress=update)
    worst_last = np.where(np.isnan(found.score), -np.inf, found.score)
    order = np.argsort(-worst_last, kind="stable")
    table: dict[str, list[Any]] = {
        "cell": [name_of(picked[row]) for row in order],
        **({} if accuracy is None else {"truth": accuracy[order].tolist()}),
        "accuracy": found.accuracy[order].tolist(),
        "loss": found.loss[order].tolist(),
        "core_seconds": found.seconds[order].tolist(),
    }
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    out.print(table_of(f"the best {min(SHOWN, len(rows))} of {len(rows)} cells", rows[:SHOWN]))
    tau = None
    if accuracy is not None:
        finite = np.maximum(worst_last, -1e9)
        tau = kendall_tau(finite, accuracy)
        enough = len(picked) >= MIN_TEST_CELLS
        shown = str(judge(finite, accuracy).estimate("tau")) if enough else f"{tau:.3f}"
        out.print(f"Kendall's tau of the scores with the truth{', 95 % interval' * enough}: {shown}", markup=False)
    if file is not None:
        write_table(file, table)
        note.print(f"written to {file}", markup=False)
    return Result({"cells": rows, "tau": tau, "written": file}, wrote=file)


def _recipe(name: str | None, images: Path) -> "Recipe":
    """Return the recipe of a supernet on these images."""
    import spd_fast.recipes as known
    from spd_fast.images import load_images
    from spd_fast.supernet import RECIPE

    data = load_images(images)
    return (RECIPE if name is None else known.load(name)).replace(
        {
            "dish.start": "images",
            "dish.source": str(images),
            "dish.image_channels": data.train_images.shape[1],
            "dish.classes": max(2, int(data.train_labels.max()) + 1),
        }
    )


def _dish(recipe: "Recipe") -> "Dish":
    from spd_fast.outer.start import start_dish

    return start_dish(recipe)
