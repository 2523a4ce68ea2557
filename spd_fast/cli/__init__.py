"""The command line, ``spd-fast``. Slow imports are inside the commands, so that ``--help`` answers at once."""

import os
import sys
from typing import Annotated

import typer

from spd_fast.cli import (  # noqa: F401 - they add their commands
    bench,
    dish_search,
    nasbench,
    predictor,
    rank,
    recipes,
    report,
    reproduce,
    run,
    score,
    supernet,
    train,
    truth,
)
from spd_fast.cli.apps import app
from spd_fast.cli.commands import Result
from spd_fast.cli.console import INTERRUPTED, out, repair_streams
from spd_fast.cli.truth import facts_of

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    repair_streams()
    try:
        app(prog_name="spd-fast")
    except SystemExit as done:
        if done.code == INTERRUPTED:  # exit at once: a regular shutdown of the interpreter takes up to two seconds
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


@app.command(examples=("spd-fast info", "spd-fast info --json"))
def info() -> Result:
    """Show the version, the instruction set, the number of threads and the truth that ships with the package."""
    from spd_fast.base.machine import describe_machine
    from spd_fast.truth.table import TruthTable

    facts = describe_machine()
    facts["threads"] = facts.pop("processors")  # the default of --threads
    width = max(map(len, facts))
    for name, value in facts.items():
        out.print(f"{name.replace('_', ' '):{width}}  {value}", markup=False)
    try:
        truth = TruthTable.embedded()
    except ValueError:
        truth = None
    text = "none in this installation" if truth is None else f"in the package\n{truth.describe()}"
    out.print(f"{'truth':{width}}  {text}", markup=False)
    return Result(facts | {"truth": None if truth is None else facts_of(truth)})
