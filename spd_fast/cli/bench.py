"""Commands that measure this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from spd_fast.cli.apps import bench_app
from spd_fast.cli.console import errors, out, progress_bar
from spd_fast.cli.options import (
    BENCH_FOLDER,
    BenchCells,
    BenchClock,
    BenchFolder,
    BenchRounds,
    BenchShapes,
    Core,
    Debug,
    TruthFile,
    integers,
)
from spd_fast.cli.train import picked_cells

if TYPE_CHECKING:
    from rich.table import Table

    from spd_fast.spaces.cell import Cell


@bench_app.command(
    "inner",
    epilog="Examples:\n\n  spd-fast bench inner\n\n  spd-fast bench inner --shapes C --rounds 3 --many 0\n\n  spd-fast bench inner --jax",
)
def bench_inner(
    cells: BenchCells = None,
    shapes: BenchShapes = "ABCS",
    rounds: BenchRounds = 7,
    jax: Annotated[bool, typer.Option("--jax", help="Time JAX, too. It must be installed.")] = False,
    default_adam: Annotated[
        bool,
        typer.Option("--default-adam", help="Time PyTorch also with its default Adam, not only with the fused one."),
    ] = False,
    many: Annotated[
        int, typer.Option(metavar="N", min=0, help="Train N random cells side by side on all cores; 0: none.")
    ] = 64,
    core: Core = None,
    clock: BenchClock = "wall",
    folder: BenchFolder = BENCH_FOLDER,
    debug: Debug = False,
) -> None:
    """Time an inner epoch on one core beside PyTorch, then many motifs side by side on all cores, then one motif on all cores."""
    with errors(debug):
        from spd_fast.bench import inner

        with progress_bar("bench inner") as update:
            record = inner.run(
                _bench_cells(cells),
                shapes,
                rounds=rounds,
                jax=jax,
                default_adam=default_adam,
                many=many,
                core=core,
                clock=clock,
                progress=update,
            )
        _show_bench(record, inner.tables(record), folder)


@bench_app.command(
    "hypergradient",
    epilog="Examples:\n\n  spd-fast bench hypergradient\n\n"
    "  spd-fast bench hypergradient --shapes C --steps 20 --compared 0 --long 0",
)
def bench_hypergradient(
    cells: BenchCells = None,
    shapes: BenchShapes = "ABCS",
    steps: Annotated[
        int, typer.Option(metavar="N", min=10, help="Number of inner steps that are timed, a multiple of 10.")
    ] = 100,
    rounds: BenchRounds = 3,
    peers: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Cells that PyTorch differentiates, too. 100 steps of motif A take 5 GiB and more."
        ),
    ] = 4,
    compared: Annotated[
        int, typer.Option(metavar="N", min=0, help="Random cells on which float32 is compared with double.")
    ] = 30,
    long: Annotated[
        int, typer.Option(metavar="N", min=0, help="Motifs C that are differentiated through 1,000 steps.")
    ] = 6,
    core: Core = None,
    clock: BenchClock = "wall",
    folder: BenchFolder = BENCH_FOLDER,
    debug: Debug = False,
) -> None:
    """Measure hypergradients: their accuracy in float32, the time of a reverse step beside a training step and beside
    PyTorch, and the time and memory of long trainings."""
    with errors(debug):
        from spd_fast.bench import hypergradient

        with progress_bar("bench hypergradient") as update:
            record = hypergradient.run(
                _bench_cells(cells),
                shapes,
                steps=steps,
                rounds=rounds,
                peers=peers,
                compared=compared,
                long=long,
                core=core,
                clock=clock,
                progress=update,
            )
        _show_bench(record, hypergradient.tables(record), folder)


@bench_app.command("kernels", epilog="Example:\n\n  spd-fast bench kernels --channels 8,16 --sides 16")
def bench_kernels(
    channels: Annotated[
        str | None, typer.Option(metavar="LIST", help="Numbers of channels. Default: those of motifs.")
    ] = None,
    sides: Annotated[str, typer.Option(metavar="LIST", help="Sides of the images in pixels.")] = "4,8,16,32",
    rounds: BenchRounds = 5,
    core: Core = None,
    folder: BenchFolder = BENCH_FOLDER,
    debug: Debug = False,
) -> None:
    """Measure GFLOP/s and errors of every convolution kernel beside oneDNN: forward, data gradient and weight gradient."""
    with errors(debug):
        from spd_fast.bench import kernels

        with progress_bar("bench kernels") as update:
            record = kernels.run(
                channels=kernels.CHANNELS if channels is None else integers("--channels", channels),
                sides=integers("--sides", sides),
                rounds=rounds,
                core=core,
                progress=update,
            )
        _show_bench(record, kernels.tables(record), folder)


@bench_app.command(
    "profile",
    epilog="Examples:\n\n  spd-fast bench profile --shape A\n\n  spd-fast bench profile --shape C --cells one-cell.json",
)
def bench_profile(
    cells: BenchCells = None,
    hashes: Annotated[
        list[str] | None,
        typer.Option("--hash", metavar="HEX", help="Profile this cell of the truth instead. May be repeated."),
    ] = None,
    truth: TruthFile = None,
    shape: Annotated[str, typer.Option(metavar="A|B|C|S", help="Motif.")] = "C",
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="How often each step is run.")] = 200,
    direct_convolutions: Annotated[
        bool,
        typer.Option("--direct-convolutions", help="Run every convolution directly, none by Winograd's algorithm."),
    ] = False,
    core: Core = None,
    folder: BenchFolder = BENCH_FOLDER,
    debug: Debug = False,
) -> None:
    """Show where the time of a training step goes: cycles, FLOPs and bytes of every part of the step, and for a single cell of
    every op."""
    with errors(debug):
        from spd_fast.bench import profile

        picked = picked_cells(None, hashes, None, truth, 0)[0] if hashes else _bench_cells(cells)
        with progress_bar("bench profile") as update:
            record = profile.run(
                picked, shape, repeats=repeats, direct_convolutions=direct_convolutions, core=core, progress=update
            )
        _show_bench(record, profile.tables(record), folder)


@bench_app.command("proxies", epilog="Example:\n\n  spd-fast bench proxies --shapes C")
def bench_proxies(
    cells: BenchCells = None,
    shapes: BenchShapes = "ABCS",
    rounds: BenchRounds = 5,
    core: Core = None,
    folder: BenchFolder = BENCH_FOLDER,
    debug: Debug = False,
) -> None:
    """Measure the milliseconds that the forward pass and each zero-cost proxy take for a cell, beside PyTorch."""
    with errors(debug):
        from spd_fast.bench import proxies

        with progress_bar("bench proxies") as update:
            record = proxies.run(_bench_cells(cells), shapes, rounds=rounds, core=core, progress=update)
        _show_bench(record, proxies.tables(record), folder)


@bench_app.command("peak", epilog="Example:\n\n  spd-fast bench peak")
def bench_peak(
    seconds: Annotated[float, typer.Option(metavar="S", help="Seconds for each measurement.")] = 0.2,
    core: Core = None,
    folder: BenchFolder = BENCH_FOLDER,
    debug: Debug = False,
) -> None:
    """Measure the limits of one core: multiply-adds a second, and bytes a second from each cache and from memory."""
    with errors(debug):
        from spd_fast.bench import peak

        with progress_bar("bench peak") as update:
            record = peak.run(seconds=seconds, core=core, progress=update)
        _show_bench(record, peak.tables(record), folder)


# ---- bench


def _bench_cells(file: Path | None) -> "list[Cell]":
    from spd_fast.bench.record import bench_cells
    from spd_fast.spaces.cell_files import read_cells

    return bench_cells() if file is None else list(read_cells(file))


def _show_bench(record: dict[str, Any], tables: "Sequence[Table]", folder: Path) -> None:
    from spd_fast.bench.record import write
    from spd_fast.report.speed import draw

    wide = Console(highlight=False, width=None if out.is_terminal else 180)
    for table in tables:
        wide.print(table)
    for path in write(record, folder, draw(record)):
        out.print(f"written to {path}", markup=False)
