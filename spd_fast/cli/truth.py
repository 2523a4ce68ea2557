"""The commands ``spd-fast truth``, which build truths and show them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spd_fast.cli.apps import truth_app
from spd_fast.cli.commands import Result
from spd_fast.cli.console import note, out, progress_bar
from spd_fast.cli.dish_search import facts_of_candidate
from spd_fast.cli.options import (
    BatchSize,
    CosineRate,
    Dask,
    Images,
    Ray,
    TestImages,
    Threads,
    TrainImages,
    TruthOut,
    TruthSeeds,
    ValidImages,
    executor_of,
    integers,
)

if TYPE_CHECKING:
    from spd_fast.images import ImageData
    from spd_fast.spaces.candidate import Candidate
    from spd_fast.truth.table import TruthTable


@truth_app.command(
    "build",
    continues=True,
    examples=(
        "spd-fast truth build --images fashion-mnist/ --out truth.npz",
        "spd-fast truth build --images cifar10.npz --cells 50 --out small.npz",
    ),
)
def truth_build(
    images: Images,
    file: TruthOut,
    cells: Annotated[int, typer.Option(metavar="N", min=1, help="Number of cells to draw.")] = 400,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Draw from the cells of this file. Default: the whole space."),
    ] = None,
    cells_seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the draw of cells.")] = 0,
    stem_channels: Annotated[int, typer.Option(metavar="N", min=1, help="Network: channels of the first stack.")] = 16,
    stacks: Annotated[int, typer.Option(metavar="N", min=1, help="Network: stacks of cells.")] = 3,
    cells_per_stack: Annotated[int, typer.Option(metavar="N", min=1, help="Network: cells in a stack.")] = 1,
    budgets: Annotated[
        str, typer.Option(metavar="LIST", help="Budgets, in epochs. Each is a training of its own.")
    ] = "2,6,18",
    seeds: TruthSeeds = "0,1,2",
    image_size: Annotated[int, typer.Option(metavar="N", min=4, max=64, help="Side of the images in pixels.")] = 16,
    n_train: TrainImages = 5000,
    n_valid: ValidImages = 2000,
    n_test: TestImages = 5000,
    batch_size: BatchSize = 50,
    lr: CosineRate = 5e-3,
    weight_decay: Annotated[float, typer.Option(metavar="RATE", help="Adam's weight decay.")] = 1e-4,
    threads: Threads = None,
    ray: Ray = None,
    dask: Dask = None,
) -> Result:
    """Train networks of many cells on real images, and record their accuracies and losses.

    This takes hours. After Ctrl-C or a kill the same command continues; finished trainings are in FILE.journal.
    """
    from spd_fast.base.files import require_writable
    from spd_fast.engine.optimizers import Adam
    from spd_fast.images import load_images
    from spd_fast.motif import MotifShape
    from spd_fast.spaces.cell_files import sample_cells

    require_writable(file)
    data = load_images(images)
    shape = MotifShape(
        stem_channels,
        stacks,
        cells_per_stack,
        classes=int(data.train_labels.max()) + 1,
        image_channels=data.train_images.shape[1],
    )
    return _build(
        file,
        sample_cells(cells, cells_seed, source),
        data,
        shape=shape,
        budgets=integers("--budgets", budgets),
        seeds=integers("--seeds", seeds),
        batch_size=batch_size,
        optimizer=Adam(lr=lr, weight_decay=weight_decay),
        image_size=image_size,
        n_train=n_train,
        n_valid=n_valid,
        n_test=n_test,
        threads=threads,
        ray=ray,
        dask=dask,
    )


@truth_app.command(
    "slopes",
    continues=True,
    examples=(
        "spd-fast truth slopes --images fashion-mnist/ --out slopes.npz",
        "spd-fast truth slopes --images mnist/ --slopes 20 --seeds 0,1 --out few.npz",
    ),
)
def truth_slopes(
    images: Images,
    file: TruthOut,
    slopes: Annotated[
        int, typer.Option(metavar="N", min=2, help="Number of slopes, evenly spaced from --from to --to.")
    ] = 100,
    lowest: Annotated[float, typer.Option("--from", metavar="X", help="The lowest slope.")] = 0.01,
    highest: Annotated[float, typer.Option("--to", metavar="X", help="The highest slope.")] = 2.01,
    hidden: Annotated[int, typer.Option(metavar="N", min=1, help="Units of each hidden layer.")] = 100,
    layers: Annotated[int, typer.Option(metavar="N", min=1, help="Number of hidden layers.")] = 2,
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="Epochs of training.")] = 4,
    seeds: TruthSeeds = "0,1,2,3,4,5,6,7,8,9",
    n_train: TrainImages = 5000,
    n_valid: ValidImages = 1000,
    n_test: TestImages = 10_000,
    batch_size: BatchSize = 100,
    lr: CosineRate = 5e-3,
    threads: Threads = None,
    ray: Ray = None,
    dask: Dask = None,
) -> Result:
    """Train perceptrons that differ in the slope of their sigmoids on real images, and record their accuracies and losses.

    Initial weights are drawn from N(0, 1), and all slopes of a seed share them (as the motifs of Rawal et al. 2020 do). After
    Ctrl-C or a kill the same command continues.
    """
    import numpy as np

    from spd_fast.base.files import require_writable
    from spd_fast.engine.optimizers import Adam
    from spd_fast.images import load_images
    from spd_fast.spaces.perceptron import Perceptron, PerceptronShape

    require_writable(file)
    data = load_images(images)
    shape = PerceptronShape(
        hidden,
        layers,
        classes=int(data.train_labels.max()) + 1,
        image_channels=data.train_images.shape[1],
    )
    return _build(
        file,
        [Perceptron(slope) for slope in np.linspace(lowest, highest, slopes)],
        data,
        shape=shape,
        budgets=[epochs],
        seeds=integers("--seeds", seeds),
        batch_size=batch_size,
        optimizer=Adam(lr=lr),
        init="shared",
        init_distribution="normal",
        image_size=data.train_images.shape[-1],
        n_train=n_train,
        n_valid=n_valid,
        n_test=n_test,
        threads=threads,
        ray=ray,
        dask=dask,
    )


@truth_app.command(
    "import",
    examples=(
        "spd-fast truth import nats.csv --epochs 200 --out nats.npz",
        "spd-fast truth import mine.jsonl --split validation --epochs 108 --out t.npz",
    ),
)
def truth_import(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help="Table of cells with their accuracies: .csv, .tsv, .json, .jsonl, .parquet or .npz, as rank takes it.",
        ),
    ],
    file: TruthOut,
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="Epochs that the networks were trained for.")],
    accuracy: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the accuracies. Default: found by its name.")
    ] = None,
    cell: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the cells. Default: found by its name.")
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Images that the accuracies are of: test, validation or train.")
    ] = "test",
) -> Result:
    """Make a truth, for --truth of other commands, of a table of cells of NAS-Bench-101 or NATS-Bench and their accuracies."""
    import numpy as np

    from spd_fast.base.files import require_writable
    from spd_fast.base.types import checked_choice
    from spd_fast.ranking.tables import CellTable, read_table
    from spd_fast.truth.table import TruthTable, write_truth

    require_writable(file)
    name = f"{checked_choice('--split', split, ('test', 'validation', 'train'))}_accuracy"
    found = CellTable.of(read_table(table), str(table), cell)
    values, where = found.accuracy(accuracy)
    write_truth(
        file,
        cells=found.cells,
        budgets=[epochs],
        seeds=[0],
        arrays={name: np.asarray(values).reshape(-1, 1, 1)},
        provenance={"data": where},
    )
    out.print(TruthTable.load(file).describe(), markup=False)
    note.print(f"written to {file}", markup=False)
    return Result({"written": file, "cells": len(found.cells), "accuracies": where}, wrote=file)


@truth_app.command(
    "show",
    examples=(
        "spd-fast truth show",
        "spd-fast truth show --slopes",
        "spd-fast truth show nb101.npz --best 3 --draw",
    ),
)
def truth_show(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Truth file (.npz). Default: the truth of cells in the package."),
    ] = None,
    slopes: Annotated[bool, typer.Option("--slopes", help="Show the truth of slopes in the package.")] = False,
    best: Annotated[int, typer.Option(metavar="N", min=0, help="List the N best candidates.")] = 5,
    draw: Annotated[bool, typer.Option("--draw", help="Draw the graphs of these cells.")] = False,
) -> Result:
    """Describe a truth file: its cells, accuracies and networks."""
    if slopes and file is not None:
        raise ValueError("--slopes shows a truth in the package: leave out the file, or leave out --slopes")
    from spd_fast.spaces.candidate import name_of
    from spd_fast.spaces.cell import Cell
    from spd_fast.spaces.perceptron import Perceptron
    from spd_fast.truth.table import TruthTable

    table = TruthTable.load(file, cell_type=Perceptron if slopes else Cell)
    out.print(table.describe(), markup=False)
    shown = []
    for row in (-table.accuracy).argsort(kind="stable")[:best].tolist():
        cell = table.cells[row]
        out.print(f"\n{name_of(cell)}  {table.accuracy[row]:.4f}", markup=False)
        shown.append(facts_of_candidate(cell) | {"accuracy": float(table.accuracy[row])})
        if draw:
            out.print(str(cell), markup=False)
    return Result(facts_of(table) | {"best": shown})


def facts_of(table: "TruthTable") -> dict[str, Any]:
    """Return what a truth holds, for --json."""
    return {
        "cells": len(table),
        "accuracy_of": table.accuracy_name,
        "budget": table.budget,
        "budgets": list(table.budgets),
        "seeds": list(table.seeds),
        "measurements": list(table.measurements),
        "accuracy": {"least": table.accuracy.min(), "most": table.accuracy.max()} if len(table) else None,
        "provenance": table.provenance,
    }


def _build(
    file: Path, cells: "Sequence[Candidate]", data: "ImageData", *, ray: str | None, dask: str | None, **settings: Any
) -> Result:
    """Build a truth, with the settings of `build_truth`, and describe it."""
    from spd_fast.truth.build import build_truth

    with executor_of(ray, dask) as executor, progress_bar("building truth") as update:
        table = build_truth(cells, data, file, executor=executor, progress=update, **settings)
    out.print(table.describe(), markup=False)
    note.print(f"written to {file}", markup=False)
    return Result(facts_of(table) | {"written": file})
