"""The command ``spd-fast train``: train motifs on a dish."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spd_fast.cli.apps import app
from spd_fast.cli.commands import Result
from spd_fast.cli.console import note, out, progress_bar, table_of
from spd_fast.cli.options import Seed, Settings, Threads, TruthFile, recipe_names
from spd_fast.cli.recipes import recipe_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from spd_fast.engine.training import TrainResult
    from spd_fast.spaces.candidate import Candidate


@app.command(
    examples=(
        "spd-fast train --sample 12",
        "spd-fast train --dish runs/c0/dish.npz --recipe cassimon_c --sample 100",
        "spd-fast train --cells cells.json --set inner.epochs=50 --out curves.npz",
    )
)
def train(
    cells: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File of cells: .csv, .tsv, .json, .jsonl, .parquet or .npz, as rank takes it."
        ),
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option(
            "--cell",
            metavar="TEXT",
            help="A cell as text: NATS-Bench's notation |op~0|+|op~0|op~1|+..., JSON, or NASLib's tuple. May be repeated.",
        ),
    ] = None,
    hashes: Annotated[
        list[str] | None,
        typer.Option(
            "--hash", metavar="HEX", help="A cell of the truth, by its hash or the first digits of it. May be repeated."
        ),
    ] = None,
    sample: Annotated[int | None, typer.Option(metavar="N", min=1, help="Train N random cells of the truth.")] = None,
    dish: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Dish file (.npz). Default: the recipe's unlearned dish.")
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=recipe_names,
            help="Recipe with the motif and the inner loop, by name or JSON file.",
        ),
    ] = "demo",
    truth: TruthFile = None,
    file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Also write the table as .csv, or table and curves as .npz."),
    ] = None,
    threads: Threads = None,
    seed: Seed = None,
    settings: Settings = None,
) -> Result:
    """Train motifs of some cells on a dish, and print what they reach. This is the inner loop alone: the dish does not change."""
    from spd_fast.base.files import require_writable
    from spd_fast.dish import Dish
    from spd_fast.engine import training
    from spd_fast.outer.start import start_dish
    from spd_fast.scoring import entered, inner_loops, shape_for

    if file is not None and file.suffix not in (".csv", ".npz"):
        raise ValueError(f"--out is {file}, expected a name ending in .csv or .npz")
    if file is not None:
        require_writable(file)
    chosen = recipe_of(recipe, seed, settings)
    picked, accuracy = picked_cells(cells, texts or [], hashes or [], sample, truth, chosen.seed)
    images = Dish.load(dish) if dish is not None else start_dish(chosen)
    shape = shape_for(chosen, images)
    with progress_bar("training") as update:
        loop = inner_loops(chosen, images).of(0)
        result = training.train(loop, picked, shape, entered(images), threads=threads, progress=update)
    rows = _training_rows(picked, accuracy, result)
    out.print(table_of(f"{len(picked)} motifs {chosen.motif.name}, {chosen.inner.epochs} epochs", _shown(rows)))
    if file is not None:
        _write_training(file, rows, result)
        note.print(f"written to {file}", markup=False)
    about = {"motif": chosen.motif.name, "epochs": chosen.inner.epochs}
    return Result(
        about | {"cells": rows, "written": file}, wrote=file, settings={"recipe": json.loads(chosen.to_json())}
    )


# ---- train


def picked_cells(
    file: Path | None,
    texts: Sequence[str],
    hashes: Sequence[str],
    sample: int | None,
    truth: Path | None,
    seed: int,
) -> "tuple[list[Any], npt.NDArray[Any] | None]":
    """Return the cells that the command line asks for, with their accuracies if they come from a truth."""
    from spd_fast.ranking.tables import CellTable, read_table
    from spd_fast.spaces.notations import cell_of
    from spd_fast.truth.table import TruthTable

    if sum((file is not None, bool(texts), bool(hashes), sample is not None)) != 1:
        raise ValueError(
            "expected exactly one of --cells FILE, --cell TEXT, --hash HEX and --sample N, to choose the cells"
        )
    if file is not None:
        return list(CellTable.of(read_table(file), str(file)).cells), None
    if texts:
        return [cell_of(text) for text in texts], None
    table = TruthTable.load(truth)
    picked = (
        table.trainable().sample(sample, seed)
        if sample is not None
        else table.subset([table.row(each) for each in hashes])
    )
    return list(picked.cells), picked.accuracy


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows as they are printed: what matters most comes first."""
    diverged = ["diverged"] if any(row["diverged"] for row in rows) else []
    names = [
        "cell",
        *(["truth"] if "truth" in rows[0] else []),
        "accuracy",
        "probability",
        "loss",
        *diverged,
        "parameters",
    ]
    return [{name: row[name] for name in names} | {"core s": row["core_seconds"]} for row in rows]


def _training_rows(
    cells: "Sequence[Candidate]", accuracy: "npt.NDArray[Any] | None", result: "TrainResult"
) -> list[dict[str, Any]]:
    from spd_fast.spaces.candidate import name_of

    assert result.train is not None
    return [
        {
            "cell": name_of(cell),
            "parameters": sum(weights.size for weights in result.parameters[k].values()),
            "accuracy": float(result.train.accuracy[k]),
            "probability": float(result.train.probability[k]),
            "loss": float(result.train.loss[k]),
            "diverged": bool(result.diverged[k]),
            "core_seconds": float(result.seconds[k]),
        }
        | ({} if accuracy is None else {"truth": float(accuracy[k])})
        for k, cell in enumerate(cells)
    ]


def _write_training(file: Path, rows: list[dict[str, Any]], result: "TrainResult") -> None:
    from io import StringIO

    import numpy as np

    from spd_fast.base.files import atomic_write, save_arrays

    if file.suffix == ".csv":
        text = StringIO()
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        with atomic_write(file) as opened:
            opened.write(text.getvalue().encode())
        return
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    save_arrays(file, {**columns, "curve_loss": result.loss, "curve_accuracy": result.accuracy})
