"""The commands ``spd-fast nasbench``: the files, the cells and the space of NAS-Bench-101."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spd_fast.cli.apps import nasbench_app
from spd_fast.cli.commands import Result
from spd_fast.cli.console import note, out, progress_bar, table_of
from spd_fast.cli.options import TableFile, Threads

if TYPE_CHECKING:
    from spd_fast.nasbench101 import Evaluation
    from spd_fast.nasbench101 import Table as NasbenchTable
    from spd_fast.spaces.cell import Cell


@nasbench_app.command(
    "convert",
    continues=True,
    examples=(
        "spd-fast nasbench convert nasbench_only108.tfrecord --out nb101.npz",
        "spd-fast nasbench convert cut.tfrecord --out nb101.npz --skip-damaged",
    ),
)
def nasbench_convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="nasbench_only108.tfrecord or nasbench_full.tfrecord, gzipped or not."),
    ],
    file: Annotated[Path, typer.Option("--out", metavar="TABLE", help="The table to write (.npz).")],
    strict: Annotated[
        bool,
        typer.Option(
            "--strict/--skip-damaged", help="Stop at the first bad record, or leave out bad ones and count them."
        ),
    ] = True,
    threads: Threads = None,
) -> Result:
    """Convert an official file to a table. This takes seconds, and the table opens at once. TensorFlow is not needed."""
    import warnings

    import spd_fast.nasbench101 as nasbench101

    with warnings.catch_warnings(), progress_bar("reading") as update:
        warnings.simplefilter("ignore")  # the description of the table below says the same
        table = nasbench101.convert(source, file, strict=strict, threads=threads, progress=update)
    out.print(table.describe(), markup=False)
    note.print(f"written to {file}", markup=False)
    return Result(_facts_of(table) | {"written": file})


@nasbench_app.command(
    "info", examples=("spd-fast nasbench info nb101.npz", "spd-fast nasbench info nb101.npz --verify")
)
def nasbench_info(
    file: TableFile,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check checksums, the order of rows, and the hash of every graph.")
    ] = False,
) -> Result:
    """Describe a table: what it holds and where it came from."""
    import spd_fast.nasbench101 as nasbench101

    table = nasbench101.open(file)
    out.print(table.describe(), markup=False)
    if verify:
        with progress_bar("verifying"):
            table.verify()
        out.print("verified: checksums, order, and the hash of every graph")
    return Result(_facts_of(table) | {"verified": verify})


@nasbench_app.command(
    "query",
    examples=(
        "spd-fast nasbench query nb101.npz 00005c142e6f",
        "spd-fast nasbench query nb101.npz --cells cells.json --epochs 36 --halfway",
    ),
)
def nasbench_query(
    file: TableFile,
    hashes: Annotated[
        list[str] | None, typer.Argument(metavar="HASH", help="Hashes of cells, or the first digits of them.")
    ] = None,
    cells: Annotated[
        Path | None, typer.Option(metavar="FILE", help='JSON list of cells: [{"matrix": [[0, 1], ...], "ops": [...]}].')
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Budget in epochs. Default: the largest.")] = None,
    repeat: Annotated[str, typer.Option(metavar="N|mean", help="The number of a run, or the mean over runs.")] = "mean",
    halfway: Annotated[bool, typer.Option("--halfway", help="Show values after half of the epochs.")] = False,
    draw: Annotated[bool, typer.Option("--draw", help="Draw the graphs of the cells, too.")] = False,
) -> Result:
    """Show the accuracies that cells reached, and their training times."""
    import spd_fast.nasbench101 as nasbench101
    from spd_fast.spaces.cell_files import read_cells

    wanted: Sequence[Cell | str] = hashes or [] if cells is None else read_cells(cells)
    if not wanted or (hashes and cells is not None):
        raise ValueError("no cells were given: give hashes, or --cells FILE")
    table = nasbench101.open(file)
    rows = [_row_of(table, cell) for cell in wanted]
    run: Any = int(repeat) if repeat.isdigit() else repeat
    shown = [_nasbench_row(table, row, table.query(row, epochs, run, halfway=halfway)) for row in rows]
    out.print(table_of("", shown))
    for row in rows if draw else []:
        out.print(f"\n{table[row]!r}\n{table[row]}", markup=False)
    return Result(shown)


@nasbench_app.command(
    "sample",
    examples=(
        "spd-fast nasbench sample 100 --out cells.json",
        "spd-fast nasbench sample 100 --table nb101.npz --seed 3",
    ),
)
def nasbench_sample(
    n: Annotated[int, typer.Argument(metavar="N", min=1, help="Number of cells.")],
    table: Annotated[
        Path | None,
        typer.Option(
            "--table", metavar="TABLE", help="Draw from the cells of this table. Default: from the whole space."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the draw.")] = 0,
    file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Also write the cells as JSON.")] = None,
) -> Result:
    """Draw cells uniformly, no two of them isomorphic."""
    import spd_fast.nasbench101 as nasbench101
    from spd_fast.base.files import atomic_write, require_writable

    if file is not None:
        require_writable(file)
    with progress_bar("enumerating the space"):
        source: Any = nasbench101.open(table) if table is not None else nasbench101.enumerate_space()
    rows = source.sample(n, seed)
    if table is not None:
        shown = [_nasbench_row(source, int(row), source.query(int(row))) for row in rows]
    else:
        shown = [_cell_row(source[int(row)], int(source.trainable_parameters[row])) for row in rows]
    out.print(table_of("", shown))
    if file is not None:
        with atomic_write(file) as opened:
            opened.write((json.dumps([source[int(row)].to_json() for row in rows]) + "\n").encode())
        note.print(f"written to {file}", markup=False)
    graphs = [{**line, **source[int(row)].to_json()} for line, row in zip(shown, rows, strict=True)]
    return Result(graphs, wrote=file)


@nasbench_app.command(
    "enumerate", examples=("spd-fast nasbench enumerate", "spd-fast nasbench enumerate --out space.npz")
)
def nasbench_enumerate(
    file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Also write the columns (.npz).")] = None,
    threads: Threads = None,
) -> Result:
    """Enumerate all cells of the space, and count them by vertices and edges. No file is needed."""
    import numpy as np

    import spd_fast.nasbench101 as nasbench101
    from spd_fast.base.files import require_writable, save_arrays

    if file is not None:
        require_writable(file)
    with progress_bar("enumerating the space"):
        space = nasbench101.enumerate_space(threads=threads)
    edges = np.bitwise_count(space.edge_bits)
    rows: list[dict[str, Any]] = [
        {"vertices": v} | {f"{e} edges": int(((space.vertices == v) & (edges == e)).sum()) for e in range(1, 10)}
        for v in range(2, 8)
    ]
    rows = [row | {"all": sum(row.values()) - row["vertices"]} for row in rows]
    out.print(table_of("", rows))
    parameters = space.trainable_parameters
    out.print(f"{len(space):,} cells, {parameters.min():,} to {parameters.max():,} trainable parameters")
    if file is not None:
        names = ("module_hash", "vertices", "edge_bits", "op_codes", "trainable_parameters")
        save_arrays(file, {name: getattr(space, name) for name in names})
        note.print(f"written to {file}", markup=False)
    least, most = int(parameters.min()), int(parameters.max())
    return Result({"cells": len(space), "parameters": {"least": least, "most": most}, "counts": rows, "written": file})


# ---- nasbench


def _facts_of(table: "NasbenchTable") -> dict[str, Any]:
    """Return what a table holds, for --json."""
    return {
        "cells": len(table),
        "budgets": list(table.budgets),
        "runs": table.runs,
        "provenance": dict(table.provenance),
    }


def _row_of(table: "NasbenchTable", wanted: "Cell | str") -> int:
    """Return the row of a cell, which is given as a `Cell`, a hash, or the first digits of a hash."""
    if not isinstance(wanted, str) or not re.fullmatch("[0-9a-fA-F]{1,31}", wanted):
        return table.row(wanted)
    import numpy as np

    whole, half = divmod(len(wanted), 2)
    fits = (table.module_hash[:, :whole] == np.frombuffer(bytes.fromhex(wanted[: 2 * whole]), np.uint8)).all(axis=1)
    if half:
        fits &= table.module_hash[:, whole] >> 4 == int(wanted[-1], 16)
    rows = np.flatnonzero(fits)
    if len(rows) != 1:
        raise ValueError(
            f"the hash {wanted} fits {len(rows):,} cells of {table.path}, expected exactly one: give more digits"
        )
    return int(rows[0])


def _cell_row(cell: "Cell", parameters: int) -> dict[str, Any]:
    return {"cell": cell.module_hash, "vertices": cell.n_vertices, "edges": cell.n_edges, "parameters": parameters}


def _nasbench_row(table: "NasbenchTable", row: int, found: "Evaluation") -> dict[str, Any]:
    names = ("training s", "train", "validation", "test")
    return {**_cell_row(table[row], int(table.trainable_parameters[row])), **dict(zip(names, found, strict=True))}
