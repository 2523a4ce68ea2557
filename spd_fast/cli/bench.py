"""Commands that measure this machine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spd_fast.cli.apps import bench_app
from spd_fast.cli.commands import Result
from spd_fast.cli.console import Fitted, note, out, progress_bar
from spd_fast.cli.options import (
    BenchCells,
    BenchClock,
    BenchFolder,
    BenchRounds,
    BenchShapes,
    Core,
    TruthFile,
    integers,
)
from spd_fast.cli.train import picked_cells

if TYPE_CHECKING:
    from rich.table import Table

    from spd_fast.base.types import Progress
    from spd_fast.spaces.cell import Cell


@bench_app.command(
    "inner",
    examples=(
        "spd-fast bench inner",
        "spd-fast bench inner --shapes C --rounds 3 --many 0",
        "spd-fast bench inner --jax",
    ),
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
    folder: BenchFolder = None,
) -> Result:
    """Time an inner epoch on one core beside PyTorch, then many motifs side by side on all cores, then one motif on all cores."""
    from spd_fast.bench import inner

    with _measuring("bench inner", folder) as update:
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
    return _show_bench(record, inner.tables(record), folder)


@bench_app.command(
    "hypergradient",
    examples=(
        "spd-fast bench hypergradient",
        "spd-fast bench hypergradient --shapes C --steps 20 --compared 0 --long 0",
    ),
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
    folder: BenchFolder = None,
) -> Result:
    """Measure hypergradients: their accuracy in float32, the time of a reverse step beside a training step and beside
    PyTorch, and the time and memory of long trainings."""
    from spd_fast.bench import hypergradient

    with _measuring("bench hypergradient", folder) as update:
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
    return _show_bench(record, hypergradient.tables(record), folder)


@bench_app.command("kernels", examples=("spd-fast bench kernels", "spd-fast bench kernels --channels 8,16 --sides 16"))
def bench_kernels(
    channels: Annotated[
        str | None, typer.Option(metavar="LIST", help="Numbers of channels. Default: those of motifs.")
    ] = None,
    sides: Annotated[str, typer.Option(metavar="LIST", help="Sides of the images in pixels.")] = "4,8,16,32",
    rounds: BenchRounds = 5,
    core: Core = None,
    folder: BenchFolder = None,
) -> Result:
    """Measure GFLOP/s and errors of every convolution kernel beside oneDNN: forward, data gradient and weight gradient."""
    from spd_fast.bench import kernels

    with _measuring("bench kernels", folder) as update:
        record = kernels.run(
            channels=kernels.CHANNELS if channels is None else integers("--channels", channels),
            sides=integers("--sides", sides),
            rounds=rounds,
            core=core,
            progress=update,
        )
    return _show_bench(record, kernels.tables(record), folder)


@bench_app.command(
    "profile",
    examples=(
        "spd-fast bench profile --shape A",
        "spd-fast bench profile --shape C --cells one-cell.json",
    ),
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
    folder: BenchFolder = None,
) -> Result:
    """Show where the time of a training step goes: cycles, FLOPs and bytes of every part of the step, and for a single cell of
    every op."""
    from spd_fast.bench import profile

    picked = picked_cells(None, [], hashes, None, truth, 0)[0] if hashes else _bench_cells(cells)
    with _measuring("bench profile", folder) as update:
        record = profile.run(
            picked, shape, repeats=repeats, direct_convolutions=direct_convolutions, core=core, progress=update
        )
    return _show_bench(record, profile.tables(record), folder)


@bench_app.command("proxies", examples=("spd-fast bench proxies", "spd-fast bench proxies --shapes C"))
def bench_proxies(
    cells: BenchCells = None,
    shapes: BenchShapes = "ABCS",
    rounds: BenchRounds = 5,
    core: Core = None,
    folder: BenchFolder = None,
) -> Result:
    """Measure the milliseconds that the forward pass and each zero-cost proxy take for a cell, beside PyTorch."""
    from spd_fast.bench import proxies

    with _measuring("bench proxies", folder) as update:
        record = proxies.run(_bench_cells(cells), shapes, rounds=rounds, core=core, progress=update)
    return _show_bench(record, proxies.tables(record), folder)


@bench_app.command(
    "score",
    examples=("spd-fast bench score", "spd-fast bench score --motifs 8 --drawn 100 --peers 0 --clock cpu"),
)
def bench_score(
    cells: Annotated[
        Path | None,
        typer.Option("--cells", metavar="FILE", help="File of cells (.json or .npz). Default: drawn ones."),
    ] = None,
    drawn: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=1504,
            help="Number of cells drawn from the truth in the package, whose cells were drawn evenly from NAS-Bench-101.",
        ),
    ] = 200,
    recipe: Annotated[
        str, typer.Option(metavar="NAME", help="Recipe whose score is read from training losses.")
    ] = "curves",
    motifs: Annotated[int, typer.Option(metavar="N", min=1, help="Number of motifs of each cell.")] = 2,
    rounds: BenchRounds = 5,
    peers: Annotated[
        int, typer.Option(metavar="N", min=0, help="Cells that PyTorch computes its proxies of; 0: none.")
    ] = 12,
    core: Core = None,
    clock: BenchClock = "wall",
    folder: BenchFolder = None,
) -> Result:
    """Measure how many cells a second and core the label-free score takes, where the time of a cell goes, and zero-cost proxies of PyTorch
    beside it."""
    from spd_fast.bench import score
    from spd_fast.spaces.cell_files import read_cells
    from spd_fast.truth.table import TruthTable

    picked = list(TruthTable.load().sample(drawn, 0).cells if cells is None else read_cells(cells))
    with _measuring("bench score", folder) as update:
        record = score.run(
            picked, recipe, motifs=motifs, rounds=rounds, peers=peers, clock=clock, core=core, progress=update
        )
    return _show_bench(record, score.tables(record), folder)


@bench_app.command("peak", examples=("spd-fast bench peak", "spd-fast bench peak --seconds 1 --out results"))
def bench_peak(
    seconds: Annotated[float, typer.Option(metavar="S", help="Seconds for each measurement.")] = 0.2,
    core: Core = None,
    folder: BenchFolder = None,
) -> Result:
    """Measure the limits of one core: multiply-adds a second, and bytes a second from each cache and from memory."""
    from spd_fast.bench import peak

    with _measuring("bench peak", folder) as update:
        record = peak.run(seconds=seconds, core=core, progress=update)
    return _show_bench(record, peak.tables(record), folder)


# ---- bench


def _bench_cells(file: Path | None) -> "list[Cell]":
    from spd_fast.bench.record import bench_cells
    from spd_fast.spaces.cell_files import read_cells

    return bench_cells() if file is None else list(read_cells(file))


@contextmanager
def _measuring(what: str, folder: Path | None) -> "Iterator[Progress]":
    """Make the folder of the record, and show the progress of a bench. PyTorch, beside which benches measure, must be there."""
    from spd_fast.base.extras import required
    from spd_fast.bench.record import hold_peers

    hold_peers()  # before PyTorch is loaded, which looks at the processor then
    required("torch", f"spd-fast {what}")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with progress_bar(what) as update:
        yield update


def _show_bench(record: dict[str, Any], tables: "Sequence[Table]", folder: Path | None) -> Result:
    for table in tables:
        out.print(Fitted(table))
        out.print()
    if folder is not None:
        from spd_fast.bench.record import write
        from spd_fast.report.speed import draw

        for path in write(record, folder, draw(record)):
            note.print(f"written to {path}", markup=False)
    return Result(record)
