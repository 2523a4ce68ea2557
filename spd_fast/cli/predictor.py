"""A predictor that stays: fit it to trained cells once, query it as often as there are new candidates."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from spd_fast.cli.apps import predictor_app
from spd_fast.cli.commands import Result
from spd_fast.cli.console import note, out, progress_bar
from spd_fast.cli.options import Dask, Ray, Threads, executor_of

CellColumn = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column of the cells. Default: found by its name.")
]
PredictorFile = Annotated[
    Path, typer.Argument(metavar="PREDICTOR", help="A file that spd-fast predictor fit wrote (.npz).")
]


@predictor_app.command(
    continues=True,
    examples=(
        "spd-fast predictor fit trained.csv",
        "spd-fast predictor fit trained.csv --accuracy val_loss --lower-is-better",
    ),
)
def fit(
    labelled: Annotated[
        Path,
        typer.Argument(metavar="LABELLED", help="Cells that were trained, with the accuracy that they reached."),
    ],
    file: Annotated[Path, typer.Option("--out", metavar="FILE", help="The predictor to write (.npz).")] = Path(
        "predictor.npz"
    ),
    accuracy: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the accuracies. Default: found by its name.")
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="The column holds losses or errors.")
    ] = False,
    cell: CellColumn = None,
    features: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Groups of features, separated by commas: structure (of the cells), curves (of motifs), dish (learned, which takes long).",
        ),
    ] = "structure,curves",
    threads: Threads = None,
) -> Result:
    """Fit a predictor to trained cells. The files of cells are those that spd-fast rank reads.

    What is measured is kept in OUT.measured until the predictor is written: after Ctrl-C or a kill the same command goes on from there.
    """
    from spd_fast.base.files import require_writable
    from spd_fast.predictors.spd import SPDPredictor
    from spd_fast.ranking.rank import labelled_cells

    if file.suffix.lower() != ".npz":
        raise ValueError(f"--out is {file}, expected a name that ends in .npz")
    require_writable(file)
    kinds = [kind.strip() for kind in features.split(",")]
    cells, values, source = labelled_cells(labelled, accuracy, cell, lower_is_better)
    predictor = SPDPredictor(features=kinds, threads=threads)
    measured = file.with_name(f"{file.name}.measured")
    what = "comparing structures" if kinds == ["structure"] else "training motifs of the labelled cells"
    with progress_bar(what) as update:
        predictor.fit(cast(Any, cells), values, measured=measured, progress=update)
    predictor.notes_ = {"source": source, "lower_is_better": lower_is_better}
    predictor.save(file)
    measured.unlink(missing_ok=True)
    note.print(f"Accuracies were read from {source}.", markup=False)
    note.print(f"The predictor has learned from {len(cells):,} cells; it is in {file}.", markup=False)
    return Result({"predictor": file, "labelled": len(cells), "source": source}, wrote=file)


@predictor_app.command(
    continues=True,
    examples=(
        "spd-fast predictor query predictor.npz candidates.csv",
        "spd-fast predictor query predictor.npz more.jsonl --out predicted.parquet",
    ),
)
def query(
    predictor: PredictorFile,
    candidates: Annotated[
        Path, typer.Argument(metavar="CANDIDATES", help="File of cells, whose other columns are carried through.")
    ],
    file: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The predictions: .csv, .tsv, .json, .jsonl or .parquet.")
    ] = Path("predicted.csv"),
    cell: CellColumn = None,
    threads: Threads = None,
    ray: Ray = None,
    dask: Dask = None,
) -> Result:
    """Predict the accuracies of cells, in the order of their file.

    Predictions are kept in the file OUT.measured. After Ctrl-C or a kill the same command continues from there.
    """
    from spd_fast.predictors.spd import SPDPredictor
    from spd_fast.ranking.querying import query_file
    from spd_fast.ranking.tables import CellTable, read_table, require_writable, with_given, write_table
    from spd_fast.spaces.candidate import name_of

    require_writable(file)
    lower_is_better = bool(SPDPredictor.load(predictor).notes_.get("lower_is_better", False))
    table = CellTable.of(read_table(candidates), str(candidates), cell)
    kept = file.with_name(f"{file.name}.measured")
    with executor_of(ray, dask) as executor, progress_bar("training motifs of the candidates") as update:
        accuracy, std = query_file(
            predictor, table.cells, kept=kept, threads=threads, executor=executor, progress=update
        )
    found = {
        "cell": [name_of(each) for each in table.cells],
        f"predicted_{'loss' if lower_is_better else 'accuracy'}": (-accuracy if lower_is_better else accuracy).tolist(),
        "standard_deviation": std.tolist(),
    }
    write_table(file, with_given(found, table.table))
    note.print(f"Predictions of {len(table.cells):,} cells are in {file}.", markup=False)
    return Result({"predicted": file, "cells": len(table.cells)}, wrote=file)


@predictor_app.command(
    examples=("spd-fast predictor info predictor.npz", "spd-fast predictor info predictor.npz --json")
)
def info(predictor: PredictorFile) -> Result:
    """Show what a predictor has learned from, and how well it predicts the cells that it has learned from."""
    import numpy as np

    from spd_fast.base.ranks import kendall_tau
    from spd_fast.base.sums import mean_of
    from spd_fast.predictors.spd import SPDPredictor
    from spd_fast.ranking.advice import left_out

    loaded = SPDPredictor.load(predictor)
    notes, process = loaded.notes_, loaded.process_
    sign = -1 if notes.get("lower_is_better") else 1
    facts = {
        "predicts": "the score on a learned dish" if process is None else "losses" if sign < 0 else "accuracies",
        "of": "NATS-Bench cells" if loaded.cell_type_.__name__ == "NatsCell" else "NAS-Bench-101 cells",
    }
    if process is not None:
        known = np.sort(sign * process.accuracy)
        sizes = [*([1] if process.has_prior else []), *process.groups]
        groups = np.split(process.features, np.cumsum(sizes)[:-1], axis=1)
        facts |= {
            "from": ", ".join(loaded.parameters_["features"]),
            "labelled cells": f"{len(known):,}, which reached {known[0]:.4g} to {known[-1]:.4g}",
        }
        if len(known) >= 10 and known[0] < known[-1]:
            taus = [
                np.array(kendall_tau(deal, process.accuracy))
                for deal in left_out(groups, process.accuracy, process.has_prior)
            ]
            facts["tau within them"] = f"{float(mean_of(taus)):.2f}, each predicted from others"
    if "source" in notes:
        facts["read from"] = notes["source"]
    width = max(map(len, facts))
    for name, value in facts.items():
        out.print(f"{name:{width}}  {value}", markup=False)
    return Result(facts)
