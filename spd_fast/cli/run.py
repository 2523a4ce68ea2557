"""The command ``spd-fast run``, which learns a dish."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from spd_fast.cli.apps import app
from spd_fast.cli.commands import Result
from spd_fast.cli.console import Display, command_typed, err, named_progress, note, out
from spd_fast.cli.options import Dask, Ray, Seed, Settings, Threads, TruthFile, executor_of, recipe_names
from spd_fast.cli.recipes import changes_of, recipe_of

if TYPE_CHECKING:
    from spd_fast.base.executors import Executor
    from spd_fast.outer.fit import FitResult
    from spd_fast.outer.runs import Run
    from spd_fast.recipes.settings import Recipe
    from spd_fast.truth.table import TruthTable


@app.command(
    examples=(
        "spd-fast run --recipe demo",
        "spd-fast run --recipe cassimon_c --truth nb101.npz --out runs/c0 --seed 0",
        "spd-fast run --recipe demo --set outer.epochs=10 --set outer.loss=pearson",
        "spd-fast run --resume --out runs/c0",
    )
)
def run(
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=recipe_names,
            help="A recipe's name or its JSON file; see [bold]spd-fast recipes[/bold].",
        ),
    ] = None,
    truth: TruthFile = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Run folder. Default: runs/NAME-seedN."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out where it stopped.")] = False,
    threads: Threads = None,
    ray: Ray = None,
    dask: Dask = None,
    seed: Seed = None,
    settings: Settings = None,
) -> Result:
    """Learn a dish: run the outer loop of a recipe, and write a report.

    After Ctrl-C, a kill or a crash, --resume continues. At most the outer epoch that was interrupted and a second before it
    are lost, and the result is the same to the last bit.
    """
    if recipe is None and not (resume and folder):
        raise ValueError("--recipe is missing: name one, or give --resume with the --out of a run")
    wanted = recipe_of(recipe, seed, settings) if recipe is not None else None
    where = folder if folder is not None else _default_folder(wanted)
    with _resumed(where, wanted, seed, settings) if resume else _created(where, wanted, truth) as opened:
        with executor_of(ray, dask) as executor:
            _fit(opened, _truth_of(opened, truth), threads, executor)
        return _finish(opened)


def _default_folder(recipe: "Recipe | None") -> Path:
    assert recipe is not None  # without a recipe, `run` requires --out
    return Path("runs") / f"{recipe.name}-seed{recipe.seed}"


def _created(folder: Path, recipe: "Recipe | None", truth: Path | None) -> "Run":
    from spd_fast.outer import runs
    from spd_fast.truth.table import TruthTable

    assert recipe is not None
    runs.require_vacant(folder)
    table = TruthTable.load(truth, cell_type=recipe.cell_type)
    about = {"truth": table.describe(), "truth_file": None if truth is None else str(truth.absolute())}
    about["command"] = command_typed()
    return runs.create(folder, recipe, about=about)


def _resumed(folder: Path, recipe: "Recipe | None", seed: int | None, settings: Sequence[str] | None) -> "Run":
    """Open a run to continue it. What the command line says of its recipe must be what the run was begun with."""
    from spd_fast.outer import runs

    opened = runs.resume(folder)
    try:
        opened.require_recipe(recipe if recipe is not None else opened.recipe.replace(changes_of(seed, settings)))
    except ValueError:
        opened.close()
        raise
    return opened


def _truth_of(opened: "Run", given: Path | None) -> "TruthTable":
    """Return the truth that the command line names, or else the one that the run was begun with."""
    from spd_fast.truth.table import TruthTable

    table = TruthTable.load(given or opened.about.get("truth_file"), cell_type=opened.recipe.cell_type)
    return table.trainable()


def _fit(opened: "Run", truth: "TruthTable", threads: int | None, executor: "Executor | None") -> "FitResult":
    from spd_fast.outer.fit import fit_dish

    recipe = opened.recipe
    cells, accuracy = truth.compared(recipe.outer.truth)
    note.print(
        f"[bold]{recipe.name}[/bold] in {escape(str(opened.path))}: {recipe.outer.epochs} outer epochs; "
        f"each trains {recipe.outer.cells} motifs ({recipe.motif.name}) for {recipe.inner.epochs} inner epochs; "
        f"{_pool(recipe, len(cells))}"
    )
    if opened.finished:
        note.print("this run is finished: nothing is left to learn")
        return fit_dish(cells, accuracy, recipe, run=opened, progress=False, threads=threads)
    display = Display(recipe, done=len(opened.records()))
    try:
        with display:
            return fit_dish(cells, accuracy, recipe, run=opened, progress=display, threads=threads, executor=executor)
    except KeyboardInterrupt:
        again = shlex.join(["spd-fast", "run", "--resume", "--out", str(opened.path)])
        err.print(f"stopped; all but the last second of work is saved. Continue with: {again}", markup=False)
        raise


def _pool(recipe: "Recipe", n: int) -> str:
    """Return a text that says how many cells the pool has."""
    validation = f", {recipe.outer.validation_cells} of them validation cells" if recipe.outer.validation_cells else ""
    return f"{recipe.outer.pool or n} of {n} cells{validation}"


def _finish(opened: "Run") -> Result:
    """Write the report and print its most important numbers."""
    from spd_fast.outer.history import OuterEpoch
    from spd_fast.report.run import build
    from spd_fast.report.summary import summarise

    with named_progress("writing the report"):
        page = build(opened.path)
    summary = summarise([OuterEpoch.from_json(record) for record in opened.records()], opened.recipe)
    out.print(
        f"mean Kendall tau {summary.tau} over {summary.epochs} outer epochs "
        f"(one epoch scatters by {summary.chance:.2f} by chance; not an evaluation on test cells)"
    )
    out.print(f"outer loss {summary.loss_first:.3f} in the first epochs, {summary.loss_last:.3f} in the last")
    if summary.validation_tau_start is not None and summary.validation_tau_end is not None:
        chosen = "; the dish was chosen by this tau, so tau is optimistic" if opened.recipe.outer.keep == "best" else ""
        out.print(
            f"Kendall tau on {opened.recipe.outer.validation_cells} validation cells: {summary.validation_tau_start:+.3f} before learning, "
            f"{summary.validation_tau_end:+.3f} with the dish that is kept, after {summary.kept_after_epochs} outer epochs{chosen}"
        )
    note.print(f"dish in {opened.path / 'dish.npz'}, report in {page}", markup=False)
    found = {
        "run": opened.path,
        "report": page,
        "outer_epochs": summary.epochs,
        "mean_tau": summary.tau.mean,
        "outer_loss": {"first": summary.loss_first, "last": summary.loss_last},
        "validation_tau": {"start": summary.validation_tau_start, "end": summary.validation_tau_end},
        "kept_after_epochs": summary.kept_after_epochs,
    }
    return Result(found, wrote=opened.path, settings={"recipe": json.loads(opened.recipe.to_json())})
