"""The report of a run: figures as PNG, and one HTML page that opens offline."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spd_fast.base.types import Array
from spd_fast.dish import Dish
from spd_fast.learnables.learnable import Picture
from spd_fast.learnables.table import LEARNABLES
from spd_fast.outer import runs
from spd_fast.outer.history import OuterEpoch
from spd_fast.report import figures
from spd_fast.report.page import embedded, in_themes, template
from spd_fast.report.summary import EDGE, Summary, summarise

__all__ = [
    "build",
]


def build(path: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` and ``figures/*.png`` of a run, finished or not, and return the page's path.

    The page holds its figures and needs no other file and no network.

    Raises
    ------
    RunFolderError
        If the folder is not a run folder, has no finished outer epoch yet, is damaged or cannot be written.
    """
    run = runs.read(path)
    try:
        history = [OuterEpoch.from_json(record) for record in run.records()]
    except ValueError as error:
        raise runs.RunFolderError(f"{run.path / runs.METRICS} cannot be read: {error}") from error
    if not history:
        raise runs.RunFolderError(f"{run.path} has no finished outer epoch yet: there is nothing to report")
    pictures = _pictures(run, history)
    for name, themes in pictures.items():
        run.write(f"{runs.FIGURES}/{name}.png", themes["light"])
    run.write(runs.REPORT, _page(run, history, pictures).encode())
    return run.path / runs.REPORT


def _pictures(run: runs.Run, history: Sequence[OuterEpoch]) -> dict[str, dict[str, bytes]]:
    start, dish = (each.arrays() for each in run.dishes())
    pictures = {
        "outer_loss": in_themes(lambda theme: figures.outer_loss(history, theme)),
        "accuracy": in_themes(lambda theme: figures.accuracy(history, theme)),
        "kendall_tau": in_themes(lambda theme: figures.kendall_tau(history, theme)),
        "inner_curves": in_themes(lambda theme: figures.inner_curves(history, theme)),
    }
    curves: dict[str, Picture] = {}
    for name, picture in _drawn(dish).items():
        if picture.kind == "images":
            labels = start[picture.labels]
            if run.recipe.dish.labels == "bits":
                labels = np.arange(len(labels))  # these images have no classes, so each gets a row
            draw = partial(figures.dish_images, start[name], dish[name], labels)
            pictures[picture.figure] = in_themes(draw)
        elif picture.kind == "curve":
            curves[name] = picture
    if curves:
        pictures["per_step"] = in_themes(lambda theme: figures.learned_curves(start, dish, curves, theme))
    if any(record.trust is not None for record in history):
        pictures["trust"] = in_themes(lambda theme: figures.trust(history, theme))
    return pictures


def _drawn(dish: Mapping[str, Array]) -> dict[str, Picture]:
    """Return how the arrays of a dish are drawn, by name; those that are not drawn are left out."""
    pictures = {name: LEARNABLES[name].picture for name in dish}
    return {name: picture for name, picture in pictures.items() if picture is not None}


def _page(run: runs.Run, history: Sequence[OuterEpoch], pictures: dict[str, dict[str, bytes]]) -> str:
    summary = summarise(history, run.recipe)
    return template("report.html.j2", number=_number, percent=_percent).render(
        recipe=run.recipe,
        settings=run.recipe.explain(),
        about=run.about,
        machine=_machine(run.about),
        summary=summary,
        rows=[*_rows(summary), *_factor_rows(*run.dishes())],
        edge=min(EDGE, len(history)),
        finished=run.finished,
        duration=_duration(summary.seconds),
        shown=(figures.MAX_CLASSES, figures.MAX_PER_CLASS),
        pictures=embedded(pictures),
    )


def _rows(summary: Summary) -> list[tuple[str, str, str]]:
    """Return the rows of the table of results: (what, this run, the paper)."""
    n = min(EDGE, summary.epochs)
    paper = summary.paper

    def of_paper(name: str, form: Callable[[float], str] = "{:+.3f}".format) -> str:
        return form(paper[name]) if name in paper else ""

    return [
        ("Kendall's tau, mean of all outer epochs", str(summary.tau), of_paper("tau")),
        (
            f"Kendall's tau, without the {summary.epochs - summary.tau_untied.n} epochs in which all motifs tie",
            str(summary.tau_untied),
            of_paper("tau_untied"),
        ),
        ("Kendall's tau of the metric", str(summary.tau_metric), ""),
        (
            f"highest accuracy on the dish, first {n} epochs",
            _percent(summary.accuracy_first),
            of_paper("accuracy_first", _percent),
        ),
        (
            f"highest accuracy on the dish, last {n} epochs",
            _percent(summary.accuracy_last),
            of_paper("accuracy_last", _percent),
        ),
        ("outer epochs in which all motifs are perfect", _percent(summary.perfect), of_paper("perfect", _percent)),
        ("outer epochs in which all ranking scores tie", _percent(summary.tied), ""),
        (f"outer loss, first {n} epochs", _number(summary.loss_first), ""),
        (f"outer loss, last {n} epochs", _number(summary.loss_last), ""),
        *_validation_rows(summary),
        ("motifs that diverged", str(summary.diverged), ""),
        ("outer epochs without an outer step", str(summary.skipped), ""),
    ]


def _validation_rows(summary: Summary) -> list[tuple[str, str, str]]:
    rows = []
    if summary.validation_tau_start is not None and summary.validation_tau_end is not None:
        rows += [
            ("Kendall's tau on the validation cells, before learning", f"{summary.validation_tau_start:+.3f}", ""),
            (
                f"the same after {summary.kept_after_epochs} outer epochs: the dish that is kept",
                f"{summary.validation_tau_end:+.3f}",
                "",
            ),
        ]
    if summary.trust is not None:
        rows.append(("median trust ratio of an outer step", f"{summary.trust:.3f}", ""))
    return rows


def _factor_rows(start: Dish, dish: Dish) -> list[tuple[str, str, str]]:
    """Return a row for each learned number that has a name, such as the initial scale of a kind of layer."""
    before, after = start.arrays(), dish.arrays()
    return [
        (f"{picture.title}, {what}, before and after learning", f"{was:.3f}, {now:.3f}", "")
        for name, picture in _drawn(after).items()
        if picture.kind == "factors" and name in before
        for what, was, now in zip(picture.names, before[name], after[name], strict=True)
    ]


def _machine(about: dict[str, Any]) -> str:
    names = ("processor", "processors", "instruction_set", "compiler", "python", "torch")
    return ", ".join(f"{name.replace('_', ' ')} {about[name]}" for name in names if name in about)


def _number(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.3f}"


def _percent(value: float) -> str:
    return "none" if math.isnan(value) else f"{100 * value:.1f} %"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
