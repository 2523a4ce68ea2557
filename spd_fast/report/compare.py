"""Several runs on one page: which settings differ, their curves laid over each other, tau on validation cells, and cost."""

import os
from collections.abc import Sequence
from pathlib import Path

from spd_fast.base.files import atomic_write
from spd_fast.outer.history import validation_checks
from spd_fast.report import charts
from spd_fast.report.page import Figure, Made, Page, Section, Table, Value
from spd_fast.report.run import Reading, read_run
from spd_fast.report.summary import MeanAndError
from spd_fast.report.verdict import duration

__all__ = ["compare", "comparison_page"]


def compare(
    paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], *, command: str, version: str
) -> Path:
    """Write a page that compares runs, finished or not, and return its path.

    Raises
    ------
    RunFolderError
        If a folder is not a run folder, has no finished outer epoch yet, or is damaged.
    ValueError
        If a folder is named twice.
    OSError
        If the page cannot be written.
    """
    real = [Path(path).resolve() for path in paths]
    twice = next((path for path, found in zip(paths, real, strict=True) if real.count(found) > 1), None)
    if twice is not None:
        raise ValueError(f"{os.fspath(twice)} is named twice, expected different runs")
    page = comparison_page([read_run(path) for path in paths], command=command, version=version)
    with atomic_write(out) as file:
        file.write(page.html().encode())
    return Path(out)


def comparison_page(readings: Sequence[Reading], *, command: str, version: str) -> Page:
    """Return the page that compares runs."""
    names = _names(readings)
    deciding = _deciding(readings)
    best = max(range(len(readings)), key=lambda k: deciding[k].mean)
    recipes = sorted({reading.run.recipe.name for reading in readings})
    return Page(
        title=f"{len(readings)} runs compared",
        summary=f"Runs of {', '.join(recipes)}.",
        made=Made(command, version, _each(names, [_recipe(reading) for reading in readings]), _truths(readings, names)),
        warning=_warning(readings, names),
        tiles=[(str(deciding[best]), f"{_measure(readings)} of the best run, {names[best]}")],
        answers=[
            ("Best run", _best(readings, names, best)),
            ("How good", _beside(readings, names, best)),
            (
                "How sure",
                "The signs \u00b1 are standard errors over the outer epochs of one run. Runs of one recipe differ by their seeds alone, so compare "
                "several seeds of each recipe. None of this is an evaluation on test cells.",
            ),
            ("What it cost", _each(names, [f"{duration(each.summary.seconds)} of wall time" for each in readings])),
            (
                "What to do next",
                "Judge the dishes of runs of one recipe on test cells, beside every cheap way to score them: spd-fast score RUN RUN... --folds 0",
            ),
        ],
        sections=[
            Section("Settings that differ", *_differences(readings, names)),
            Section("Results", (), [_results(readings, names)]),
            *_curves(readings, names),
        ],
    )


def _names(readings: Sequence[Reading]) -> list[str]:
    """Return the shortest ends of the folders' paths that tell the runs apart."""
    parts = [reading.run.path.resolve().parts for reading in readings]
    depth = next(n for n in range(1, max(map(len, parts)) + 1) if len({path[-n:] for path in parts}) == len(parts))
    return ["/".join(path[-depth:]) for path in parts]


def _each(names: Sequence[str], texts: Sequence[str]) -> str:
    return "\n".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))


def _recipe(reading: Reading) -> str:
    run = reading.run
    return f"{run.recipe.name}, seed {run.recipe.seed}, version {run.about['version']}"


def _truths(readings: Sequence[Reading], names: Sequence[str]) -> str:
    truths = [str(reading.run.about.get("truth", "not recorded: started from Python")) for reading in readings]
    return truths[0] if len(set(truths)) == 1 else _each(names, truths)


def _warning(readings: Sequence[Reading], names: Sequence[str]) -> str:
    said = []
    unfinished = [name for name, reading in zip(names, readings, strict=True) if not reading.run.finished]
    if unfinished:
        said.append(f"Not finished: {', '.join(unfinished)}.")
    if len({str(reading.run.about.get("truth")) for reading in readings}) > 1:
        said.append("These runs were made with different truths, so their tau cannot be compared.")
    return " ".join(said)


def _checked(readings: Sequence[Reading]) -> bool:
    return all(reading.summary.validation_tau_end is not None for reading in readings)


def _measure(readings: Sequence[Reading]) -> str:
    return (
        "Kendall\u2019s tau on validation cells"
        if _checked(readings)
        else "Mean Kendall\u2019s tau of all outer epochs"
    )


def _deciding(readings: Sequence[Reading]) -> list[MeanAndError]:
    """Return the tau by which each run is compared: on its validation cells where all runs have some."""
    kept = [reading.summary.validation_tau_end for reading in readings]
    return [
        reading.summary.tau if tau is None or None in kept else MeanAndError(tau, float("nan"), 1)
        for reading, tau in zip(readings, kept, strict=True)
    ]


def _best(readings: Sequence[Reading], names: Sequence[str], best: int) -> str:
    reading = readings[best]
    cells = ", ".join(name[:12] for name, _, _ in reading.last[:5])
    return f"{names[best]} has the largest tau. The cells that scored best in its last outer epochs are {cells}."


def _beside(readings: Sequence[Reading], names: Sequence[str], best: int) -> str:
    measure, control = _measure(readings), readings[best].control
    others = ", ".join(f"{tau} ({name})" for name, tau in zip(names, _deciding(readings), strict=True))
    beside = (
        "It cannot be compared with a cheap control, because its cells are not known here."
        if control is None
        else f"On the cells of its outer epochs, where its own mean is {readings[best].summary.tau}, the best cheap control, {control[0]}, has tau {control[1]}."
    )
    return f"{measure}: {others}.\n{beside}"


def _differences(readings: Sequence[Reading], names: Sequence[str]) -> tuple[list[str], list[Figure | Table]]:
    explained = [{name: str(value) for name, value, _ in reading.run.recipe.explain()} for reading in readings]
    settings = list(dict.fromkeys(name for each in explained for name in each))
    rows: list[list[Value | str]] = [
        [name, *(each.get(name, "") for each in explained)]
        for name in settings
        if len({each.get(name) for each in explained}) > 1
    ]
    if not rows:
        return ["All settings are the same."], []
    return [], [Table("Settings that differ between the runs", ["setting", *names], rows)]


def _results(readings: Sequence[Reading], names: Sequence[str]) -> Table:
    rows: list[list[Value | str]] = []
    for name, reading in zip(names, readings, strict=True):
        summary, control = reading.summary, reading.control
        rows.append(
            [
                name,
                Value(f"{summary.epochs} of {reading.run.recipe.outer.epochs}", summary.epochs),
                Value(str(summary.tau), summary.tau.mean),
                Value("", "") if control is None else Value(str(control[1]), control[1].mean, control[0]),
                _number(summary.validation_tau_start),
                _number(summary.validation_tau_end),
                Value(f"{summary.loss_last:.3f}", summary.loss_last) if summary.loss_last == summary.loss_last else "",
                Value(duration(summary.seconds), summary.seconds),
            ]
        )
    heads = (
        "run",
        "outer epochs",
        "mean tau",
        "tau of the best cheap control",
        "validation tau before learning",
        "validation tau of the dish kept",
        "outer loss, last epochs",
        "wall time",
    )
    return Table("Results of the runs", heads, rows)


def _number(value: float | None) -> Value:
    return Value("", "") if value is None else Value(f"{value:+.3f}", value)


def _curves(readings: Sequence[Reading], names: Sequence[str]) -> list[Section]:
    def series(of: str) -> dict[str, list[float]]:
        return {
            name: [float("nan") if getattr(record, of) is None else getattr(record, of) for record in reading.history]
            for name, reading in zip(names, readings, strict=True)
        }

    means = ", ".join(f"{reading.summary.tau} ({name})" for name, reading in zip(names, readings, strict=True))
    tau = charts.laid_over(
        "kendall_tau", "Kendall\u2019s tau", series("kendall_tau"), f"Mean Kendall\u2019s tau: {means}."
    )
    ends = ", ".join(f"{reading.summary.loss_last:.3g} ({name})" for name, reading in zip(names, readings, strict=True))
    loss = charts.laid_over("outer_loss", "outer loss", series("loss"), f"Outer loss in the last epochs: {ends}.")
    sections = [
        Section("Kendall\u2019s tau", ["Moving averages of 3 outer epochs."], [tau]),
        Section("Outer loss", ["Moving averages of 3 outer epochs."], [loss]),
    ]
    checks = {
        name: points
        for name, reading in zip(names, readings, strict=True)
        if (points := validation_checks(reading.history))
    }
    if checks:
        said = ", ".join(
            f"from {points[0][1]:+.3f} to {points[-1][1]:+.3f} ({name})" for name, points in checks.items()
        )
        figure = charts.validation(checks, f"Kendall\u2019s tau on the validation cells goes {said}.")
        sections.insert(0, Section("Kendall\u2019s tau on the validation cells", (), [figure]))
    return sections
