"""The command line, ``spd-fast``. Heavy imports are inside the commands, so that help answers at once."""

import csv
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    import numpy.typing as npt
    from rich.table import Table

    from spd_fast.dish import Dish
    from spd_fast.engine.training import TrainResult
    from spd_fast.motif import Shape
    from spd_fast.nasbench101 import Evaluation
    from spd_fast.nasbench101 import Table as NasbenchTable
    from spd_fast.outer.fit import FitResult
    from spd_fast.outer.history import OuterStep
    from spd_fast.outer.runs import Run
    from spd_fast.outer.search import SearchResult
    from spd_fast.predictors.readings import LearnedDish
    from spd_fast.recipes.settings import Recipe
    from spd_fast.scoreboard.board import Board
    from spd_fast.scoreboard.trial import Trial
    from spd_fast.spaces.candidate import Candidate
    from spd_fast.spaces.cell import Cell
    from spd_fast.truth.table import TruthTable

__all__ = ["app", "main"]

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
BENCH_FOLDER = Path("bench/results")
LINES_WITHOUT_TERMINAL = 20
"""About how many progress lines a whole run prints where there is no terminal."""

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, highlight=False, soft_wrap=True)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Synthetic Petri Dish on a compiled CPU engine: learn a tiny data set on which tiny networks rank cells.",
    epilog="Start with [bold]spd-fast run --recipe demo[/bold]; it takes a minute and needs no download.",
)
truth_app = typer.Typer(no_args_is_help=True, help="Build and look at truth: cells and the accuracies they reached.")
app.add_typer(truth_app, name="truth")
bench_app = typer.Typer(
    no_args_is_help=True,
    help="Measure this machine: each bench verifies, then times, on a machine that should be idle.",
)
app.add_typer(bench_app, name="bench")
nasbench_app = typer.Typer(
    no_args_is_help=True,
    help="NAS-Bench-101: its files into a table, what cells reached, and the space without any file.",
)
app.add_typer(nasbench_app, name="nasbench")

TruthFile = Annotated[
    Path | None,
    typer.Option(
        "--truth",
        metavar="FILE",
        help="Cells and accuracies (.npz), or a table of nasbench convert. Default: the one in the package for the recipe.",
    ),
]
Threads = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Default: the processors there are. Does not change results.")
]
Seed = Annotated[int | None, typer.Option(metavar="N", min=0, help="Used in place of the recipe's.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Change a setting: --set inner.epochs=16 --set motif=B. May be repeated."
    ),
]
BenchCells = Annotated[
    Path | None, typer.Option("--cells", metavar="FILE", help="Cells (.json or .npz). Default: the 12 of the bench.")
]
BenchShapes = Annotated[str, typer.Option(metavar="ABC", help="Motif shapes.")]
BenchClock = Annotated[str, typer.Option(metavar="wall|cpu", help="cpu: of a machine that is busy otherwise.")]
BenchRounds = Annotated[int, typer.Option(metavar="N", min=1, help="Times that each is timed, in turns.")]
Core = Annotated[int | None, typer.Option(metavar="N", min=0, help="Processor to pin to. Default: the last.")]
BenchFolder = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder for the record (JSON) and its figure (PNG).")
]
Images = Annotated[
    Path, typer.Option(metavar="PATH", help="Folder of IDX files (MNIST and kin), or an .npz of images and labels.")
]
TruthOut = Annotated[Path, typer.Option("--out", metavar="FILE", help="The truth file to write (.npz).")]
TruthSeeds = Annotated[str, typer.Option(metavar="LIST", help="Seeds of the trainings.")]
TrainImages = Annotated[int, typer.Option(metavar="N", min=1, help="Training images.")]
ValidImages = Annotated[int, typer.Option(metavar="N", min=1, help="Validation images.")]
TestImages = Annotated[int, typer.Option(metavar="N", min=1, help="Test images.")]
BatchSize = Annotated[int, typer.Option(metavar="N", min=1, help="Images in a step.")]
CosineRate = Annotated[float, typer.Option(metavar="RATE", help="Adam's learning rate; falls by a cosine.")]
TableFile = Annotated[Path, typer.Argument(metavar="TABLE", help="A table that nasbench convert wrote (.npz).")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="spd-fast")
    except SystemExit as done:
        if done.code == INTERRUPTED:  # at once: taking the interpreter with its libraries down takes up to two seconds
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise


def _print_version(wanted: bool) -> None:
    if wanted:
        from spd_fast import __version__

        out.print(f"spd-fast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Examples:\n\n  spd-fast run --recipe demo\n\n"
    "  spd-fast run --recipe cassimon_c --truth nb101_test108.npz --out runs/c0 --seed 0\n\n"
    "  spd-fast run --recipe demo --set outer.epochs=10 --set outer.loss=pearson\n\n"
    "  spd-fast run --resume --out runs/c0"
)
def run(
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A recipe's name or its JSON file; see [bold]spd-fast recipes[/bold]."),
    ] = None,
    truth: TruthFile = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Run folder. Default: runs/NAME-seedN.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out where it stopped.")] = False,
    threads: Threads = None,
    seed: Seed = None,
    settings: Settings = None,
    debug: Debug = False,
) -> None:
    """Learn a dish: the outer loop from start to report.

    Ctrl-C, a kill or a crash loses at most the epoch in work and the second before: --resume continues, with the same
    result to the last bit.
    """
    with _errors(debug):
        if recipe is None and not (resume and folder):
            raise ValueError("--recipe is missing: name one, or give --resume with the --out of a run")
        wanted = _recipe(recipe, seed, settings) if recipe is not None else None
        where = folder if folder is not None else _default_folder(wanted)
        with _resumed(where, wanted, seed, settings) if resume else _created(where, wanted, truth) as opened:
            _fit(opened, _truth_of(opened, truth), threads)
            _finish(opened)


@app.command(
    epilog="Examples:\n\n  spd-fast train --sample 12\n\n"
    "  spd-fast train --dish runs/c0/dish.npz --recipe cassimon_c --sample 100 --truth nb101_test108.npz --out scores.csv\n\n"
    "  spd-fast train --cells cells.json --set inner.epochs=50 --out curves.npz"
)
def train(
    cells: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help='JSON list of cells, [{"matrix": [[0, 1], ...], "ops": [...]}], or an .npz of columns.'
        ),
    ] = None,
    hashes: Annotated[
        list[str] | None,
        typer.Option("--hash", metavar="HEX", help="A cell of the truth by its hash, or its first digits. Repeatable."),
    ] = None,
    sample: Annotated[int | None, typer.Option(metavar="N", min=1, help="N random cells of the truth.")] = None,
    dish: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Dish (.npz). Default: the recipe's dish before learning.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(metavar="NAME", help="Motif and inner loop; a recipe's name or JSON file.")
    ] = "demo",
    truth: TruthFile = None,
    file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Also write a .csv (table) or .npz (with curves).")
    ] = None,
    threads: Threads = None,
    seed: Seed = None,
    settings: Settings = None,
    debug: Debug = False,
) -> None:
    """Train motifs of some cells on a dish and print what they reach: the inner loop alone."""
    with _errors(debug):
        from spd_fast.base.seeds import derived_seed
        from spd_fast.dish import Dish
        from spd_fast.engine.training import train_motifs
        from spd_fast.outer.start import start_dish
        from spd_fast.scoring import training_keywords

        if file is not None and file.suffix not in (".csv", ".npz"):
            raise ValueError(f"--out is {file}, expected a name ending in .csv or .npz")
        if file is not None and not os.access(file.absolute().parent, os.W_OK):
            raise ValueError(f"--out is {file}, expected a name in a folder that is there and can be written to")
        chosen = _recipe(recipe, seed, settings)
        picked, accuracy = _picked_cells(cells, hashes or [], sample, truth, chosen.seed)
        images = Dish.load(dish) if dish is not None else start_dish(chosen)
        shape = _shape_for(images, chosen)
        with _progress_bar("training") as update:
            result = train_motifs(
                picked,
                shape,
                images,
                dtype=chosen.dtype,
                threads=threads,
                progress=update,
                **training_keywords(chosen.inner, derived_seed(chosen.seed, "inner"), images),
            )
        rows = _training_rows(picked, accuracy, result)
        out.print(_table(f"{len(picked)} motifs {chosen.motif.name}, {chosen.inner.epochs} epochs", rows))
        if file is not None:
            _write_training(file, rows, result)
            out.print(f"written to {file}")


@app.command(
    epilog="Examples:\n\n  spd-fast score --recipe learned_labels --truth nb101_test108.npz --images cifar10.npz\n\n"
    "  spd-fast score runs/c0 runs/c1 runs/c2 --truth nb101_test108.npz --folds 0\n\n"
    "  spd-fast score --held-out 200 --labels 60 --seeds 2 --folds 0"
)
def score(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]...", help="Finished run folders, one for each seed. Default: dishes learned here."
        ),
    ] = None,
    truth: TruthFile = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="How dishes are learned where no runs are given. Default: learned_labels."),
    ] = None,
    curves: Annotated[
        str, typer.Option(metavar="NAME", help="Motif and unlearned dish of the learning curves; a recipe.")
    ] = "curves",
    labels: Annotated[
        str, typer.Option(metavar="LIST", help="Labelled cells of each pool; of several numbers each is judged.")
    ] = "30,100",
    held_out: Annotated[int, typer.Option(metavar="N", min=1, help="Cells that are scored.")] = 1000,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Pools and dishes.")] = 5,
    folds: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="More dishes for each pool, for the Gaussian process. 0: leave it out."),
    ] = 5,
    images: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Real images (.npz or a folder of IDX files) for the rows that need them."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the board. Default: runs/score-NAME.")
    ] = None,
    threads: Threads = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the draw of the held-out cells.")] = 0,
    settings: Settings = None,
    debug: Debug = False,
) -> None:
    """Judge dishes on cells that they never saw, beside everything that is known without them.

    Measurements are kept in --out as they come: after Ctrl-C or a kill, the same command continues, and with another --folds
    or fewer numbers in --labels only what is missing is measured.
    """
    with _errors(debug, again=True):
        from spd_fast.report import board as page
        from spd_fast.scoreboard.board import build_board
        from spd_fast.scoreboard.trial import draw_trial

        table = _load_truth(truth)
        if folders:
            if recipe is not None or settings:
                raise ValueError("--recipe and --set are those of the runs that were given: leave them out")
            trial, chosen, learned = _trial_of_runs(folders, table, held_out, seed)
        else:
            from spd_fast.predictors.spd import DEFAULT_RECIPE

            chosen, learned = _recipe(recipe or DEFAULT_RECIPE, None, settings), None
            numbers = _integers("--labels", labels)
            trial = draw_trial(table, labels=numbers, held_out=held_out, seeds=seeds, seed=seed)
        where = folder if folder is not None else Path("runs") / f"score-{chosen.name}"
        with _named_progress() as update:
            board = build_board(
                trial,
                chosen,
                _recipe(curves, None, None),
                learned=learned,
                folds=folds,
                images=images,
                folder=where,
                threads=threads,
                progress=update,
            )
        written = page.write(board, where)
        _print_board(board)
        out.print(f"board.json, board.csv and figures in {where}, page in {written}", markup=False)


@app.command(
    epilog="Examples:\n\n  spd-fast search --labels 30 --out runs/slopes\n\n"
    "  spd-fast search --recipe valid_c --truth nb101_test108.npz --cells 2000 --start 30 --per-round 5 --labels 100"
)
def search(
    recipe: Annotated[
        str, typer.Option(metavar="NAME", help="How dishes are learned; a recipe's name or JSON file.")
    ] = "rawal_slope",
    truth: TruthFile = None,
    cells: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Candidates, drawn from the truth. Default: all of it.")
    ] = None,
    labels: Annotated[int, typer.Option(metavar="N", min=1, help="Accuracies to look at, at most.")] = 40,
    start: Annotated[int, typer.Option(metavar="N", min=1, help="Of these, before the first dish, at random.")] = 18,
    per_round: Annotated[
        int, typer.Option(metavar="N", min=2, help="Labels of a round: the best but for one at random.")
    ] = 2,
    stop_at: Annotated[
        float | None, typer.Option(metavar="X", help="Stop when an accuracy reaches this. Default: use all labels.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the search. Default: runs/search-NAME-seedN.")
    ] = None,
    threads: Threads = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of first labels, dishes and random labels.")] = 0,
    settings: Settings = None,
    debug: Debug = False,
) -> None:
    """Search for the best candidate of a truth with a dish that is learned anew on all that was looked at.

    Ctrl-C, a kill or a crash loses at most a second: the same command continues.
    """
    with _errors(debug, again=True):
        from spd_fast.outer.search import dish_search

        chosen = _recipe(recipe, None, settings)
        table = _load_truth(truth, chosen)
        if cells is not None:
            table = table.sample(cells, seed)
        candidates, accuracy = _target(table, chosen)
        with _named_progress() as update:
            result = dish_search(
                candidates,
                accuracy,
                chosen,
                labels=labels,
                start=start,
                per_round=per_round,
                stop_at=stop_at,
                seed=seed,
                folder=folder if folder is not None else Path("runs") / f"search-{chosen.name}-seed{seed}",
                threads=threads,
                progress=update,
            )
        _print_search(result, candidates, accuracy)


@truth_app.command(
    "build",
    epilog="Example:\n\n  spd-fast truth build --images fashion-mnist/ --cells 400 --out truth.npz",
)
def truth_build(
    images: Images,
    file: TruthOut,
    cells: Annotated[int, typer.Option(metavar="N", min=1, help="How many cells to draw.")] = 400,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Draw from these cells. Default: the whole space.")
    ] = None,
    cells_seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the draw.")] = 0,
    stem_channels: Annotated[int, typer.Option(metavar="N", min=1, help="Network: channels of the first stack.")] = 16,
    stacks: Annotated[int, typer.Option(metavar="N", min=1, help="Network: stacks of cells.")] = 3,
    cells_per_stack: Annotated[int, typer.Option(metavar="N", min=1, help="Network: cells in a stack.")] = 1,
    budgets: Annotated[str, typer.Option(metavar="LIST", help="Epochs of each budget.")] = "2,6,18",
    seeds: TruthSeeds = "0,1,2",
    image_size: Annotated[int, typer.Option(metavar="N", min=4, max=64, help="Side of the images in pixels.")] = 16,
    n_train: TrainImages = 5000,
    n_valid: ValidImages = 2000,
    n_test: TestImages = 5000,
    batch_size: BatchSize = 50,
    lr: CosineRate = 5e-3,
    weight_decay: Annotated[float, typer.Option(metavar="RATE", help="Adam's weight decay.")] = 1e-4,
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Train networks of many cells on real images and record what they reach.

    Takes hours. The same command continues after Ctrl-C or a kill: finished trainings are in FILE.journal.
    """
    with _errors(debug, again=True):
        from spd_fast.engine.optimizers import Adam
        from spd_fast.images import load_images
        from spd_fast.motif import MotifShape
        from spd_fast.spaces.cell_files import sample_cells
        from spd_fast.truth.build import build_truth

        data = load_images(images)
        shape = MotifShape(
            stem_channels,
            stacks,
            cells_per_stack,
            classes=int(data.train_labels.max()) + 1,
            image_channels=data.train_images.shape[1],
        )
        with _progress_bar("building truth") as update:
            table = build_truth(
                sample_cells(cells, cells_seed, source),
                data,
                file,
                shape=shape,
                budgets=_integers("--budgets", budgets),
                seeds=_integers("--seeds", seeds),
                batch_size=batch_size,
                optimizer=Adam(lr=lr, weight_decay=weight_decay),
                image_size=image_size,
                n_train=n_train,
                n_valid=n_valid,
                n_test=n_test,
                threads=threads,
                progress=update,
            )
        out.print(table.describe(), markup=False)
        out.print(f"written to {file}")


@truth_app.command(
    "slopes",
    epilog="Example:\n\n  spd-fast truth slopes --images fashion-mnist/ --out slopes.npz",
)
def truth_slopes(
    images: Images,
    file: TruthOut,
    slopes: Annotated[int, typer.Option(metavar="N", min=2, help="Slopes, evenly from --from to --to.")] = 100,
    lowest: Annotated[float, typer.Option("--from", metavar="X", help="The lowest slope.")] = 0.01,
    highest: Annotated[float, typer.Option("--to", metavar="X", help="The highest slope.")] = 2.01,
    hidden: Annotated[int, typer.Option(metavar="N", min=1, help="Units of a hidden layer.")] = 100,
    layers: Annotated[int, typer.Option(metavar="N", min=1, help="Hidden layers.")] = 2,
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="Epochs of training.")] = 4,
    seeds: TruthSeeds = "0,1,2,3,4,5,6,7,8,9",
    n_train: TrainImages = 5000,
    n_valid: ValidImages = 1000,
    n_test: TestImages = 10_000,
    batch_size: BatchSize = 100,
    lr: CosineRate = 5e-3,
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Train perceptrons that differ in the slope of their sigmoids on real images and record what they reach.

    Initial weights are drawn from N(0, 1), once a seed for all slopes (Rawal et al. 2020 have them so in motifs). The same command
    continues after Ctrl-C or a kill.
    """
    with _errors(debug, again=True):
        import numpy as np

        from spd_fast.engine.optimizers import Adam
        from spd_fast.images import load_images
        from spd_fast.spaces.perceptron import MLPShape, SigmoidMLP
        from spd_fast.truth.build import build_truth

        data = load_images(images)
        side = data.train_images.shape[-1]
        shape = MLPShape(
            hidden,
            layers,
            classes=int(data.train_labels.max()) + 1,
            image_channels=data.train_images.shape[1],
        )
        with _progress_bar("building truth") as update:
            table = build_truth(
                [SigmoidMLP(slope) for slope in np.linspace(lowest, highest, slopes)],
                data,
                file,
                shape=shape,
                budgets=[epochs],
                seeds=_integers("--seeds", seeds),
                batch_size=batch_size,
                optimizer=Adam(lr=lr),
                init="shared",
                initializer="normal",
                image_size=side,
                n_train=n_train,
                n_valid=n_valid,
                n_test=n_test,
                threads=threads,
                progress=update,
            )
        out.print(table.describe(), markup=False)
        out.print(f"written to {file}")


@truth_app.command(
    "show",
    epilog="Examples:\n\n  spd-fast truth show\n\n  spd-fast truth show --slopes\n\n  spd-fast truth show nb101_test108.npz",
)
def truth_show(
    file: Annotated[Path | None, typer.Argument(help="Truth file (.npz). Default: the table in the package.")] = None,
    slopes: Annotated[bool, typer.Option("--slopes", help="The table of slopes in the package instead.")] = False,
    best: Annotated[int, typer.Option(metavar="N", min=0, help="List the N best cells.")] = 5,
    draw: Annotated[bool, typer.Option("--draw", help="Draw these cells.")] = False,
    debug: Debug = False,
) -> None:
    """Say which accuracies a truth file holds, and of what."""
    with _errors(debug):
        if slopes and file is not None:
            raise ValueError("--slopes is a table in the package: leave the file out")
        table = _load_truth(file, _recipe("rawal_slope", None, None) if slopes else None)
        out.print(table.describe(), markup=False)
        for row in (-table.accuracy).argsort(kind="stable")[:best]:
            cell = table.cells[int(row)]
            out.print(f"\n{_named(cell)}  {table.accuracy[row]:.4f}", markup=False)
            if draw:
                out.print(str(cell), markup=False)


@nasbench_app.command(
    "convert", epilog="Example:\n\n  spd-fast nasbench convert nasbench_only108.tfrecord --out nasbench_only108.npz"
)
def nasbench_convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="nasbench_only108.tfrecord or nasbench_full.tfrecord, gzipped or not."),
    ],
    file: Annotated[Path, typer.Option("--out", metavar="TABLE", help="The table to write (.npz).")],
    strict: Annotated[
        bool, typer.Option("--strict/--skip-damaged", help="Stop at the first bad record, or pass over and count them.")
    ] = True,
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Turn an official file into a table that opens at once. Takes seconds, needs no TensorFlow."""
    with _errors(debug, again=True):
        import warnings

        from spd_fast import nasbench101

        with warnings.catch_warnings(), _progress_bar("reading") as update:
            warnings.simplefilter("ignore")  # the table tells the same below
            table = nasbench101.convert(source, file, strict=strict, threads=threads, progress=update)
        out.print(table.describe(), markup=False)
        out.print(f"written to {file}", markup=False)


@nasbench_app.command("info", epilog="Example:\n\n  spd-fast nasbench info nasbench_only108.npz --verify")
def nasbench_info(
    file: TableFile,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all of it: checksums, order, and the hash of every graph.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Say what a table holds and where it came from."""
    with _errors(debug):
        from spd_fast import nasbench101

        table = nasbench101.open(file)
        out.print(table.describe(), markup=False)
        if verify:
            table.verify()
            out.print("verified: checksums, order, and the hash of every graph")


@nasbench_app.command(
    "query",
    epilog="Examples:\n\n  spd-fast nasbench query nasbench_only108.npz 00005c142e6f48ac74fdcf73e3439874\n\n"
    "  spd-fast nasbench query nasbench_full.npz --cells cells.json --epochs 36 --halfway",
)
def nasbench_query(
    file: TableFile,
    hashes: Annotated[list[str] | None, typer.Argument(metavar="[HASH]...", help="Cells by their hashes.")] = None,
    cells: Annotated[
        Path | None, typer.Option(metavar="FILE", help='JSON list of cells: [{"matrix": [[0, 1], ...], "ops": [...]}].')
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Budget. Default: the largest.")] = None,
    repeat: Annotated[str, typer.Option(metavar="N|mean", help="One run, or the mean over them.")] = "mean",
    halfway: Annotated[bool, typer.Option("--halfway", help="After half of the epochs.")] = False,
    draw: Annotated[bool, typer.Option("--draw", help="Draw the cells.")] = False,
    debug: Debug = False,
) -> None:
    """Show what cells reached."""
    with _errors(debug):
        from spd_fast import nasbench101
        from spd_fast.spaces.cell_files import read_cells

        wanted: Sequence[Cell | str] = hashes or [] if cells is None else read_cells(cells)
        if not wanted or (hashes and cells is not None):
            raise ValueError("which cells? Give hashes, or --cells FILE")
        table = nasbench101.open(file)
        rows = [table.row(cell) for cell in wanted]
        run: Any = int(repeat) if repeat.isdigit() else repeat
        out.print(
            _table("", [_nasbench_row(table, row, table.query(row, epochs, run, halfway=halfway)) for row in rows])
        )
        for row in rows if draw else []:
            out.print(f"\n{table[row]!r}\n{table[row]}", markup=False)


@nasbench_app.command(
    "sample",
    epilog="Examples:\n\n  spd-fast nasbench sample 100 --out cells.json\n\n"
    "  spd-fast nasbench sample 100 --table nasbench_only108.npz --seed 3",
)
def nasbench_sample(
    n: Annotated[int, typer.Argument(metavar="N", min=1, help="How many cells.")],
    table: Annotated[
        Path | None,
        typer.Option("--table", metavar="TABLE", help="Draw from its cells. Default: from the whole space."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the draw.")] = 0,
    file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Also write the cells as JSON.")] = None,
    debug: Debug = False,
) -> None:
    """Draw cells uniformly, no two of them isomorphic."""
    with _errors(debug):
        from spd_fast import nasbench101

        source: Any = nasbench101.open(table) if table is not None else nasbench101.enumerate_space()
        rows = source.sample(n, seed)
        if table is not None:
            shown = [_nasbench_row(source, int(row), source.query(int(row))) for row in rows]
        else:
            shown = [_cell_row(source[int(row)], int(source.trainable_parameters[row])) for row in rows]
        out.print(_table("", shown))
        if file is not None:
            from spd_fast.base.files import atomic_write

            with atomic_write(file) as opened:
                opened.write((json.dumps([source[int(row)].to_json() for row in rows]) + "\n").encode())
            out.print(f"written to {file}", markup=False)


@nasbench_app.command("enumerate", epilog="Example:\n\n  spd-fast nasbench enumerate --out space.npz")
def nasbench_enumerate(
    file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Also write the columns (.npz).")] = None,
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Count all cells of the space by vertices and edges, without any file."""
    with _errors(debug):
        import numpy as np

        from spd_fast import nasbench101
        from spd_fast.base.files import save_arrays

        space = nasbench101.enumerate_space(threads=threads)
        edges = np.bitwise_count(space.edge_bits)
        rows: list[dict[str, Any]] = [
            {"vertices": v} | {f"{e} edges": int(((space.vertices == v) & (edges == e)).sum()) for e in range(1, 10)}
            for v in range(2, 8)
        ]
        out.print(_table("", [row | {"all": sum(row.values()) - row["vertices"]} for row in rows]))
        parameters = space.trainable_parameters
        out.print(f"{len(space):,} cells, {parameters.min():,} to {parameters.max():,} trainable parameters")
        if file is not None:
            names = ("module_hash", "vertices", "edge_bits", "op_codes", "trainable_parameters")
            save_arrays(file, {name: getattr(space, name) for name in names})
            out.print(f"written to {file}", markup=False)


@app.command(
    epilog="Examples:\n\n  spd-fast recipes\n\n  spd-fast recipes cassimon_c\n\n  spd-fast recipes demo --json > mine.json"
)
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this one in full.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print it as JSON, to edit and pass to run --recipe.")
    ] = False,
    debug: Debug = False,
) -> None:
    """List the recipes, or show every setting of one with its meaning."""
    with _errors(debug):
        from spd_fast import recipes as known

        if name is None:
            rows = [{"recipe": each, "what it is": known.get(each).summary} for each in known.names()]
            out.print(_table("", rows))
        elif as_json:
            print(known.load(name).to_json(), end="")
        else:
            from rich.padding import Padding

            for setting, value, meaning in known.load(name).explain():
                out.print(f"[bold]{setting}[/bold] = {escape(json.dumps(value))}")
                out.print(Padding(escape(meaning), (0, 0, 0, 4)), style="dim", soft_wrap=False)


@app.command(epilog="Example:\n\n  spd-fast report runs/demo-seed0")
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run folder, finished or not.")],
    debug: Debug = False,
) -> None:
    """Write report.html and the figures of a run again."""
    with _errors(debug):
        from spd_fast.report.run import build

        out.print(f"report in {build(folder)}")


@bench_app.command(
    "inner",
    epilog="Examples:\n\n  spd-fast bench inner\n\n  spd-fast bench inner --shapes C --rounds 3 --many 0\n\n  spd-fast bench inner --jax",
)
def bench_inner(
    cells: BenchCells = None,
    shapes: BenchShapes = "ABC",
    rounds: BenchRounds = 7,
    jax: Annotated[bool, typer.Option("--jax", help="Beside JAX too, which must be installed.")] = False,
    default_adam: Annotated[
        bool, typer.Option("--default-adam", help="Beside PyTorch with its default Adam too, not the fused one alone.")
    ] = False,
    many: Annotated[
        int, typer.Option(metavar="N", min=0, help="Random cells that are trained side by side on all cores; 0: none.")
    ] = 64,
    core: Core = None,
    clock: BenchClock = "wall",
    folder: BenchFolder = BENCH_FOLDER,
    debug: Debug = False,
) -> None:
    """Seconds per inner epoch on one core beside PyTorch, and of many motifs, and of one, on all cores."""
    with _errors(debug):
        from spd_fast.bench import inner

        with _progress_bar("bench inner") as update:
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
    shapes: BenchShapes = "ABC",
    steps: Annotated[
        int, typer.Option(metavar="N", min=10, help="Inner steps that are timed; a multiple of 10.")
    ] = 100,
    rounds: BenchRounds = 3,
    peers: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Cells that PyTorch runs too; of motif A, 100 steps take 5 GiB and more."
        ),
    ] = 4,
    compared: Annotated[
        int, typer.Option(metavar="N", min=0, help="Random cells of the comparison of float32 with double.")
    ] = 30,
    long: Annotated[
        int, typer.Option(metavar="N", min=0, help="Motifs C that are differentiated through 1,000 steps.")
    ] = 6,
    core: Core = None,
    clock: BenchClock = "wall",
    folder: BenchFolder = BENCH_FOLDER,
    debug: Debug = False,
) -> None:
    """Derivatives through training: accuracy in float32, a reverse step beside a training step and PyTorch, long ones."""
    with _errors(debug):
        from spd_fast.bench import hypergradient

        with _progress_bar("bench hypergradient") as update:
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
    channels: Annotated[str | None, typer.Option(metavar="LIST", help="Default: those that occur in motifs.")] = None,
    sides: Annotated[str, typer.Option(metavar="LIST", help="Pixels a side.")] = "4,8,16,32",
    rounds: BenchRounds = 5,
    core: Core = None,
    folder: BenchFolder = BENCH_FOLDER,
    debug: Debug = False,
) -> None:
    """GFLOP/s and errors of every convolution kernel beside oneDNN, forward, data gradient and weight gradient."""
    with _errors(debug):
        from spd_fast.bench import kernels

        with _progress_bar("bench kernels") as update:
            record = kernels.run(
                channels=kernels.CHANNELS if channels is None else _integers("--channels", channels),
                sides=_integers("--sides", sides),
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
        list[str] | None, typer.Option("--hash", metavar="HEX", help="A cell of the truth instead. Repeatable.")
    ] = None,
    truth: TruthFile = None,
    shape: Annotated[str, typer.Option(metavar="A|B|C", help="Motif shape.")] = "C",
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Times that each step is run.")] = 200,
    strict: Annotated[bool, typer.Option("--strict", help="Direct convolutions everywhere.")] = False,
    core: Core = None,
    folder: BenchFolder = BENCH_FOLDER,
    debug: Debug = False,
) -> None:
    """Where the time of a training step goes: cycles, FLOPs and bytes of every part; of a single cell, of every op."""
    with _errors(debug):
        from spd_fast.bench import profile

        picked = _picked_cells(None, hashes, None, truth, 0)[0] if hashes else _bench_cells(cells)
        with _progress_bar("bench profile") as update:
            record = profile.run(picked, shape, repeats=repeats, strict=strict, core=core, progress=update)
        _show_bench(record, profile.tables(record), folder)


@bench_app.command("proxies", epilog="Example:\n\n  spd-fast bench proxies --shapes C")
def bench_proxies(
    cells: BenchCells = None,
    shapes: BenchShapes = "ABC",
    rounds: BenchRounds = 5,
    core: Core = None,
    folder: BenchFolder = BENCH_FOLDER,
    debug: Debug = False,
) -> None:
    """Milliseconds that the forward pass and each zero-cost proxy take a cell, beside PyTorch."""
    with _errors(debug):
        from spd_fast.bench import proxies

        with _progress_bar("bench proxies") as update:
            record = proxies.run(_bench_cells(cells), shapes, rounds=rounds, core=core, progress=update)
        _show_bench(record, proxies.tables(record), folder)


@bench_app.command("peak", epilog="Example:\n\n  spd-fast bench peak")
def bench_peak(
    seconds: Annotated[float, typer.Option(metavar="S", help="Time for each figure.")] = 0.2,
    core: Core = None,
    folder: BenchFolder = BENCH_FOLDER,
    debug: Debug = False,
) -> None:
    """What one core can do at most: multiply-adds, and bytes from each cache and from memory."""
    with _errors(debug):
        from spd_fast.bench import peak

        with _progress_bar("bench peak") as update:
            record = peak.run(seconds=seconds, core=core, progress=update)
        _show_bench(record, peak.tables(record), folder)


@app.command()
def info(debug: Debug = False) -> None:
    """Show the version, the instruction set, the number of threads and the truth in the package."""
    with _errors(debug):
        from spd_fast.base.machine import describe_machine

        facts = describe_machine()
        facts["threads"] = facts.pop("processors")  # what --threads is by default
        width = max(map(len, facts))
        for name, value in facts.items():
            out.print(f"{name.replace('_', ' '):{width}}  {value}", markup=False)
        path = _embedded_truth()
        out.print(f"{'truth':{width}}  {path if path.is_file() else 'none in this installation'}", markup=False)
        if path.is_file():
            out.print(_load_truth(None).describe(), markup=False)


# ---- errors


@contextmanager
def _errors(debug: bool, *, again: bool = False) -> Iterator[None]:
    """Turn what a user can mend into one line and exit code 2, and Ctrl-C into exit code 130.

    A run that is interrupted has said how to continue by then; `again` says that the same command does.
    """
    try:
        yield
    except KeyboardInterrupt:
        if again:
            err.print(f"stopped; continue with: {shlex.join(['spd-fast', *sys.argv[1:]])}", markup=False)
        raise typer.Exit(INTERRUPTED) from None
    except (ValueError, TypeError, OSError, RuntimeError, MemoryError, ImportError) as error:
        if debug:
            raise
        err.print(f"error: {_message(error)}", style="bold red", markup=False)
        raise typer.Exit(2) from None


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.filename}: " if error.filename else ""
        return what + error.strerror
    return str(error) or type(error).__name__


# ---- run


def _recipe(name: str, seed: int | None, settings: Sequence[str] | None) -> "Recipe":
    """Return the named recipe with the seed and the settings of the command line."""
    from spd_fast import recipes as known

    changes = _changes(seed, settings)
    recipe = known.load(name)
    return recipe.replace(changes) if changes else recipe


def _changes(seed: int | None, settings: Sequence[str] | None) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for setting in settings or []:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set is {setting!r}, expected NAME=VALUE such as inner.epochs=16")
        try:
            changes[name] = json.loads(text)
        except ValueError:
            changes[name] = text
    if seed is not None:
        changes["seed"] = seed
    return changes


def _default_folder(recipe: "Recipe | None") -> Path:
    assert recipe is not None  # run asks for --out where there is no recipe
    return Path("runs") / f"{recipe.name}-seed{recipe.seed}"


def _created(folder: Path, recipe: "Recipe | None", truth: Path | None) -> "Run":
    from spd_fast.outer import runs

    assert recipe is not None
    runs.require_vacant(folder)
    table = _load_truth(truth, recipe)
    about = {"truth": table.describe(), "truth_file": None if truth is None else str(truth.absolute())}
    return runs.create(folder, recipe, about=about)


def _resumed(folder: Path, recipe: "Recipe | None", seed: int | None, settings: Sequence[str] | None) -> "Run":
    """Open a run to continue it; what the command line says about its recipe must be what it was begun with."""
    from spd_fast.outer import runs

    opened = runs.resume(folder)
    wanted = recipe if recipe is not None else opened.recipe.replace(_changes(seed, settings))
    if wanted != opened.recipe:
        opened.close()
        begun = {name: value for name, value, _ in opened.recipe.explain()}
        differing = [name for name, value, _ in wanted.explain() if begun.get(name) != value]
        raise ValueError(
            f"{folder} was begun with another recipe ({', '.join(differing)} differ): "
            "resume it without --recipe, --seed and --set, or choose another --out"
        )
    return opened


def _truth_of(opened: "Run", given: Path | None) -> "TruthTable":
    """Return the truth of the command line, or else the one that the run was begun with."""
    recorded = opened.about.get("truth_file")
    return _load_truth(given if given is not None else Path(recorded) if recorded else None, opened.recipe)


def _load_truth(path: Path | None, recipe: "Recipe | None" = None) -> "TruthTable":
    """Return a truth, or the one in the package of what the recipe's motifs are made of."""
    from spd_fast.truth.table import TruthTable

    if path is None and not _embedded_truth().is_file():
        raise ValueError("this installation has no truth of its own: give one with --truth FILE")
    if path is None and recipe is not None:
        return TruthTable.embedded(recipe.shape.cell_types[0])
    if path is not None:
        from spd_fast.nasbench101.table import is_table, open_table

        if is_table(path):
            return open_table(path).truth()
    return TruthTable.load(path)


def _embedded_truth() -> Path:
    return Path(__file__).parent / "data" / "truth.npz"


def _fit(opened: "Run", truth: "TruthTable", threads: int | None) -> "FitResult":
    from spd_fast.outer.fit import fit_dish

    recipe = opened.recipe
    cells, accuracy = _target(truth, recipe)
    out.print(
        f"[bold]{recipe.name}[/bold] in {escape(str(opened.path))}: {recipe.outer.epochs} outer epochs of {recipe.outer.cells} motifs "
        f"{recipe.motif.name}, {recipe.inner.epochs} inner epochs each; {_pool(recipe, len(cells))}"
    )
    display = _Display(recipe)
    try:
        with display:
            return fit_dish(cells, accuracy, recipe, run=opened, progress=display, threads=threads)
    except KeyboardInterrupt:
        again = shlex.join(["spd-fast", "run", "--resume", "--out", str(opened.path)])
        err.print(f"stopped; all but the last second is kept. Continue with: {again}", markup=False)
        raise


def _target(truth: "TruthTable", recipe: "Recipe") -> "tuple[Sequence[Candidate], npt.NDArray[Any]]":
    """Return cells and what the recipe compares their motifs with, more is better: accuracies, or losses turned."""
    import numpy as np

    if recipe.outer.truth == "accuracy":
        return truth.cells, truth.accuracy
    if truth.loss is None:
        raise ValueError(
            'outer.truth is "loss" and the truth has none: give another --truth, or --set outer.truth=accuracy'
        )
    finite = truth.subset(np.flatnonzero(np.isfinite(truth.loss)))
    assert finite.loss is not None
    return finite.cells, -finite.loss


def _pool(recipe: "Recipe", n: int) -> str:
    """Say how many accuracies are used."""
    kept = f", {recipe.outer.kept_out} of them kept out" if recipe.outer.kept_out else ""
    return f"{recipe.outer.pool or n} of {n} cells{kept}"


def _finish(opened: "Run") -> None:
    """Write the report and print the numbers that matter."""
    from spd_fast.outer.history import OuterStep
    from spd_fast.report.run import build
    from spd_fast.report.summary import summarise

    page = build(opened.path)
    summary = summarise([OuterStep.from_json(record) for record in opened.records()], opened.recipe)
    out.print(
        f"mean Kendall tau {summary.tau} over {summary.epochs} outer epochs "
        f"(one epoch scatters by {summary.chance:.2f} by chance; not a held-out evaluation)"
    )
    out.print(f"outer loss {summary.loss_first:.3f} in the first epochs, {summary.loss_last:.3f} in the last")
    if summary.kept_start is not None and summary.kept_end is not None:
        chosen = ", chosen by it: optimistic" if opened.recipe.outer.keep == "best" else ""
        out.print(
            f"Kendall tau on {opened.recipe.outer.kept_out} cells kept out: {summary.kept_start:+.3f} before learning, "
            f"{summary.kept_end:+.3f} of the dish that is kept, after {summary.kept_steps} outer epochs{chosen}"
        )
    out.print(f"dish in {opened.path / 'dish.npz'}, report in {page}")


class _Display:
    """Live progress of a run: a bar on a terminal, a line now and then elsewhere. Called by `fit_dish`."""

    def __init__(self, recipe: "Recipe") -> None:
        self._epochs = recipe.outer.epochs
        self._every = max(1, -(-self._epochs // LINES_WITHOUT_TERMINAL))
        self._taus: list[float] = []
        self._kept: float | None = None
        self._began = time.monotonic()
        self._first: int | None = None
        self._bar: Any = None

    def __enter__(self) -> "_Display":
        if out.is_terminal:
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("outer epoch {task.fields[epoch]}/{task.total}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(compact=True),
                console=out,
                speed_estimate_period=120,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=self._epochs, epoch=0, numbers="loss  -    tau  -   ")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, epoch: int, fraction: float, step: "OuterStep | None") -> None:
        if self._first is None:
            self._first = epoch
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch + fraction, epoch=epoch + 1)
        if step is None:
            return
        self._taus.append(step.kendall_tau)
        self._kept = self._kept if step.kept_tau is None else step.kept_tau
        numbers = self._numbers(step)
        if self._bar is not None:
            self._bar.update(self._task, numbers=numbers)
        elif (epoch + 1) % self._every == 0 or epoch + 1 == self._epochs:
            left = (time.monotonic() - self._began) / (epoch + 1 - self._first) * (self._epochs - epoch - 1)
            out.print(f"outer epoch {epoch + 1}/{self._epochs}  {numbers}  {_duration(left)} left", markup=False)

    def _numbers(self, step: "OuterStep") -> str:
        loss = "  -  " if step.loss is None else f"{step.loss:.3f}"
        mean = sum(self._taus) / len(self._taus)
        note = f"  {step.skipped}: skipped" if step.skipped else ""
        kept = "" if self._kept is None else f"  kept out {self._kept:+.2f}"
        return f"loss {loss}  tau {step.kendall_tau:+.2f} (mean {mean:+.3f}){kept}{note}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


@contextmanager
def _progress_bar(what: str) -> Iterator[Any]:
    """Yield a function that shows the share done, on a terminal only."""
    if not out.is_terminal:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=out, transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share: bar.update(task, completed=share)


# ---- train


def _picked_cells(
    file: Path | None, hashes: Sequence[str], sample: int | None, truth: Path | None, seed: int
) -> "tuple[list[Any], npt.NDArray[Any] | None]":
    """Return the cells that the command line asks for, with their accuracies where they come from a truth."""
    from spd_fast.spaces.cell_files import read_cells

    if sum((file is not None, bool(hashes), sample is not None)) != 1:
        raise ValueError("which cells? Give one of --cells FILE, --hash HEX or --sample N")
    if file is not None:
        return list(read_cells(file)), None
    table = _load_truth(truth)
    if sample is not None:
        table = table.sample(sample, seed)
    else:
        table = table.subset([_row_of(table, digits) for digits in hashes])
    return list(table.cells), table.accuracy


def _row_of(table: "TruthTable", digits: str) -> int:
    rows = [row for row, each in enumerate(table.hashes) if each.startswith(digits.lower())]
    if len(rows) != 1:
        raise ValueError(f"--hash {digits} fits {len(rows)} cells of the truth, expected exactly one")
    return rows[0]


def _shape_for(dish: "Dish", recipe: "Recipe") -> "Shape":
    """Return the recipe's motif shape with the channels and classes of the dish."""
    from dataclasses import replace

    classes = dish.labels.shape[1] if dish.labels.ndim == 2 else max(2, int(dish.labels.max()) + 1)
    return replace(recipe.shape, image_channels=dish.images.shape[1], classes=classes)


def _training_rows(
    cells: "Sequence[Candidate]", accuracy: "npt.NDArray[Any] | None", result: "TrainResult"
) -> list[dict[str, Any]]:
    assert result.train is not None
    return [
        {
            "cell": cell.module_hash,
            "parameters": sum(weights.size for weights in result.parameters[k].values()),
            "accuracy": float(result.train.accuracy[k]),
            "probability": float(result.train.probability[k]),
            "loss": float(result.train.loss[k]),
            "diverged": bool(result.diverged[k]),
            "seconds": float(result.seconds[k]),
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


# ---- nasbench


def _cell_row(cell: "Cell", parameters: int) -> dict[str, Any]:
    return {"cell": cell.module_hash, "vertices": cell.n_vertices, "edges": cell.n_edges, "parameters": parameters}


def _nasbench_row(table: "NasbenchTable", row: int, found: "Evaluation") -> dict[str, Any]:
    names = ("seconds", "train", "validation", "test")  # short enough that a hash is not folded
    return {**_cell_row(table[row], int(table.trainable_parameters[row])), **dict(zip(names, found, strict=True))}


# ---- search


def _named(candidate: Any) -> str:
    """What a user knows a candidate by: a slope, or the hash of a cell."""
    return f"slope {candidate.slope:.4f}" if hasattr(candidate, "slope") else str(candidate.module_hash)


def _print_search(result: "SearchResult", candidates: "Sequence[Any]", accuracy: "npt.NDArray[Any]") -> None:
    rows = [
        {
            "label": number,
            "round": each.round,
            "candidate": _named(candidates[each.row]),
            "why": each.why,
            "truth": each.accuracy,
            "best so far": float(best),
        }
        for number, (each, best) in enumerate(zip(result.labelled, result.best_so_far, strict=True), start=1)
    ]
    out.print(_table(f"{len(candidates)} candidates, {len(rows)} labelled", rows))
    best = result.best
    rank = 1 + int((accuracy > best.accuracy).sum())
    out.print(
        f"best: {_named(candidates[best.row])}, {best.accuracy:.4f}, number {rank} of the whole truth", markup=False
    )


# ---- score


def _trial_of_runs(
    folders: Sequence[Path], truth: "TruthTable", held_out: int, seed: int
) -> "tuple[Trial, Recipe, list[LearnedDish]]":
    """Return a trial whose pools are what these runs have used, and their dishes."""
    from spd_fast.outer import runs
    from spd_fast.predictors.readings import LearnedDish
    from spd_fast.scoreboard.trial import pool_of_run, trial_of_pools

    opened = [runs.read(each) for each in folders]
    for each in opened:
        if not each.finished:
            raise ValueError(f"{each.path} is not finished: continue it with spd-fast run --resume --out {each.path}")
    first = opened[0].recipe
    for each in opened:
        if each.recipe.replace({"seed": first.seed}) != first:
            raise ValueError(
                f"{each.path} has another recipe than {opened[0].path}, expected runs that differ in their seeds alone"
            )
    trial = trial_of_pools(truth, [pool_of_run(each, truth) for each in opened], held_out=held_out, seed=seed)
    learned = [
        LearnedDish(each.recipe, each.dishes()[1], seconds=sum(record["seconds"] for record in each.records()))
        for each in opened
    ]
    return trial, first, learned


@contextmanager
def _named_progress() -> Iterator[Any]:
    """Yield a function that shows what is being done and the share done: a bar on a terminal, else a line for each."""
    if out.is_terminal:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeRemainingColumn(compact=True))
        with Progress(*columns, console=out, transient=True) as bar:
            task = bar.add_task("", total=1.0)
            yield lambda what, share: bar.update(task, completed=share, description=what)
        return
    said: list[str] = []

    def say(what: str, share: float) -> None:
        if said[-1:] != [what]:
            said.append(what)
            out.print(f"{100 * share:3.0f} %  {what}", markup=False)

    yield say


def _print_board(board: "Board") -> None:
    rows = [
        {
            "row": row.name,
            "labels": row.labels,
            "tau, 95 % interval": str(row.judged.estimate("tau")),
            "rho": f"{row.judged.means['rho']:.3f}",
            "tau of top 10 %": f"{row.judged.means['tau_top']:.3f}",
            "prec. 10": f"{row.judged.means['precision_10']:.2f}",
            "50": f"{row.judged.means['precision_50']:.2f}",
            "init s": f"{row.init_seconds:.2f}",
            "query ms": f"{1e3 * row.query_seconds:.2f}",
        }
        for row in board.rows
    ]
    trial = board.trial
    out.print(_table(f"{len(trial.held_out)} held-out cells, {len(trial.seeds)} seeds", rows))
    for outcome in board.outcomes:
        colour = {"reached": "green", "not reached": "red"}.get(outcome.verdict, "dim")
        found = "" if outcome.estimate is None else f": {outcome.estimate}"
        out.print(
            f"[{colour}]{outcome.verdict}[/{colour}]  {escape(outcome.goal.meaning)}, "
            f"{outcome.goal.measure.replace('_', ' ')} of at least {outcome.goal.at_least:.2f}{escape(found)}"
        )


# ---- shared


def _table(title: str, rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        numeric = isinstance(rows[0][name], (int, float)) and not isinstance(rows[0][name], bool)
        justify: Literal["right", "left"] = "right" if numeric else "left"
        table.add_column(name, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(_cell_text(value) for value in row.values()))
    return table


def _cell_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _integers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} is {text!r}, expected whole numbers with commas between, such as 2,6,18") from None


if __name__ == "__main__":
    main()
