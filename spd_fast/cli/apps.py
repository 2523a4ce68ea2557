"""The command line's groups of commands."""

import typer

__all__ = ["app", "bench_app", "nasbench_app", "truth_app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Synthetic Petri Dish on a compiled CPU engine: learn a tiny data set on which tiny networks rank cells.",
    epilog="Start with [bold]spd-fast demo[/bold]; it takes a minute and needs no download.",
)
truth_app = typer.Typer(no_args_is_help=True, help="Build and show truths: cells with measured accuracies.")
bench_app = typer.Typer(
    no_args_is_help=True,
    help="Measure speed on this machine, which should be idle. Each bench first verifies that results are right.",
)
nasbench_app = typer.Typer(
    no_args_is_help=True,
    help="NAS-Bench-101: convert its files to a table, query the table, and enumerate the space.",
)
app.add_typer(truth_app, name="truth")
app.add_typer(bench_app, name="bench")
app.add_typer(nasbench_app, name="nasbench")
