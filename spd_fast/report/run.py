"""The report of a run: what its dish learned, how well it ranks, what that cost, and what to do next."""

import math
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from spd_fast.base.ranks import kendall_tau
from spd_fast.base.types import Array
from spd_fast.dish import Dish
from spd_fast.learnables.learnable import Picture as Drawn
from spd_fast.learnables.table import LEARNABLES
from spd_fast.outer import runs
from spd_fast.outer.history import OuterEpoch, validation_checks
from spd_fast.ranking.rank import controls_of
from spd_fast.report import charts
from spd_fast.report.cells import Drawing, draw_cell
from spd_fast.report.page import Figure, Made, Page, Section, Table, Value, static_svg
from spd_fast.report.summary import EDGE, MeanAndError, Summary, summarise
from spd_fast.report.verdict import duration
from spd_fast.spaces.candidate import Candidate
from spd_fast.spaces.perceptron import Perceptron
from spd_fast.truth.table import TruthTable

__all__ = ["Reading", "build", "read_run"]

_BEST = 5
"""Cells that are drawn."""
FROM_PYTHON = "not recorded: the run was started from Python"


@dataclass(frozen=True, eq=False)
class Reading:
    """A run with its history, its numbers, and what a cheap control reached on the same cells."""

    run: runs.Run
    history: list[OuterEpoch]
    summary: Summary

    @cached_property
    def cells(self) -> dict[str, Candidate]:
        """The cells that were compared, by their hashes; empty where their truth cannot be read any more."""
        if "truth_file" not in self.run.about:
            return {}
        try:
            truth = TruthTable.load(self.run.about["truth_file"], cell_type=self.run.recipe.cell_type)
        except (OSError, ValueError):
            return {}
        rows = {name: row for row, name in enumerate(truth.hashes)}
        compared = dict.fromkeys(name for record in self.history for name in record.cells)
        return {name: truth.cells[rows[name]] for name in compared} if rows.keys() >= compared.keys() else {}

    @cached_property
    def control(self) -> tuple[str, MeanAndError, MeanAndError] | None:
        """The best cheap control: its name, its tau over all outer epochs, and by how much the run's is larger."""
        cells = list(self.cells.values())
        if not cells or isinstance(cells[0], Perceptron):
            return None
        place = {name: row for row, name in enumerate(self.cells)}
        taus = {}
        for name, values in controls_of(cells).items():  # type: ignore[arg-type]
            each = [
                kendall_tau(values[[place[cell] for cell in record.cells]], record.truth) for record in self.history
            ]
            taus[name] = np.array(each) * (1.0 if np.mean(each) >= 0 else -1.0)
        best = max(taus, key=lambda name: float(taus[name].mean()))
        own = np.array([record.kendall_tau for record in self.history])
        return best, MeanAndError.of(taus[best].tolist()), MeanAndError.of((own - taus[best]).tolist())

    def scores(self, record: OuterEpoch) -> list[tuple[str, float, float]]:
        """Return (hash, score, truth) of the cells of an outer epoch that did not diverge; a larger score is better."""
        outer = self.run.recipe.outer
        values, sign = (
            (record.accuracy, 1.0)
            if outer.ranking == "accuracy"
            else (record.metric, 1.0 if outer.metric == "probability" else -1.0)
        )
        return [
            (name, sign * value, truth)
            for name, value, truth in zip(record.cells, values, record.truth, strict=True)
            if value is not None
        ]

    @property
    def last(self) -> list[tuple[str, float, float]]:
        """The cells of the last outer epochs as `scores` returns them, each as it was compared last; the best first."""
        latest = {each[0]: each for record in self.history[-EDGE:] for each in self.scores(record)}
        return sorted(latest.values(), key=lambda each: -each[1])


def read_run(path: str | os.PathLike[str]) -> Reading:
    """Read a run, finished or not.

    Raises
    ------
    RunFolderError
        If the folder is not a run folder, has no finished outer epoch yet, or is damaged.
    """
    run = runs.read(path)
    try:
        history = [OuterEpoch.from_json(record) for record in run.records()]
    except ValueError as error:
        raise runs.RunFolderError(f"{run.path / runs.METRICS} cannot be read: {error}") from error
    if not history:
        raise runs.RunFolderError(f"{run.path} has no finished outer epoch yet: there is nothing to report")
    return Reading(run, history, summarise(history, run.recipe))


def build(path: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` and the files in ``figures/`` of a run, finished or not, and return the page's path.

    The page holds its figures and needs no other file and no network.

    Raises
    ------
    RunFolderError
        If the folder is not a run folder, has no finished outer epoch yet, is damaged or cannot be written.
    """
    reading = read_run(path)
    page, run = _page(reading), reading.run
    for figure in page.figures():
        if isinstance(figure, Figure):
            run.write(f"{runs.FIGURES}/{figure.name}.svg", static_svg(figure).encode())
        else:
            for title, content in figure.panels:
                run.write(f"{runs.FIGURES}/{figure.name}_{re.sub('[^a-z0-9]+', '_', title)}.png", content)
    run.write(runs.REPORT, page.html().encode())
    return run.path / runs.REPORT


def _page(reading: Reading) -> Page:
    run, history, summary = reading.run, reading.history, reading.summary
    recipe = run.recipe
    warning = (
        ""
        if run.finished
        else f"This run is not finished: {summary.epochs} of {recipe.outer.epochs} outer epochs are done. Everything below is about those."
    )
    edge = min(EDGE, len(history))
    return Page(
        title=f"A run of the recipe {recipe.name}",
        summary=recipe.summary,
        made=made_of(run),
        warning=warning,
        tiles=_tiles(reading, edge),
        answers=[
            ("Best cells", _best(reading)),
            ("How good", _quality(reading)),
            ("How sure", _how_sure(reading)),
            ("What it cost", _cost(reading)),
            ("What to do next", _next(reading)),
        ],
        drawn=f"The cells that scored best among those compared in the last {edge} outer epochs.",
        drawings=_drawings(reading),
        sections=[
            *_history_sections(reading),
            *_dish_sections(run),
            _results(reading),
            Section(
                "Every setting",
                parts=[Table("Every setting of the recipe", ("setting", "value", "meaning"), _settings(run))],
                folded=True,
            ),
        ],
    )


def made_of(run: runs.Run) -> Made:
    """Return what a run was made with."""
    about = run.about
    file = about.get("truth_file")
    truth = str(about.get("truth", FROM_PYTHON))
    return Made(
        command=str(about.get("command", FROM_PYTHON)),
        version=str(about["version"]),
        recipe=f"{run.recipe.name}, seed {run.recipe.seed}, begun {about['created']}; its settings have the digest {about['recipe_sha256'][:12]}",
        truth=truth if file is None else f"{truth}\nfrom {file}",
        machine=_machine(about),
    )


def _machine(about: Mapping[str, Any]) -> str:
    names = ("processor", "processors", "instruction_set", "compiler", "python", "torch")
    return ", ".join(f"{name.replace('_', ' ')} {about[name]}" for name in names if name in about)


# ---- the answer


def _tiles(reading: Reading, edge: int) -> list[tuple[str, str]]:
    summary, control = reading.summary, reading.control
    tiles = [(str(summary.tau), "mean Kendall\u2019s tau of all outer epochs, \u00b1 standard error")]
    if control is not None:
        tiles.append((str(control[1]), f"the same of the best cheap control, {control[0]}"))
    if summary.validation_tau_end is not None:
        tiles.append(
            (
                f"{summary.validation_tau_end:+.3f}",
                "Kendall\u2019s tau on the validation cells, of the dish that is kept",
            )
        )
    losses = f"{_number(summary.loss_first)} \u2192 {_number(summary.loss_last)}"
    return [*tiles, (losses, f"outer loss, first and last {edge} epochs")]


def _best(reading: Reading) -> str:
    names = ", ".join(name[:12] for name, _, _ in reading.last[:_BEST])
    lost = "" if reading.cells else " Their graphs are not in the run folder, so they are not drawn."
    return f"{names} scored best among the cells of the last outer epochs.{lost}"


def _quality(reading: Reading) -> str:
    summary, recipe = reading.summary, reading.run.recipe
    first, chance = _first_is_best(reading)
    said = [
        f"Within an outer epoch, the scores of its cells agree with the truth by a Kendall\u2019s tau of {summary.tau} on average (1: the same order, 0: chance).",
        f"The cell ranked first was truly the best in {_percent(first)} of the outer epochs; chance would give {_percent(chance)}.",
    ]
    if summary.validation_tau_start is not None and summary.validation_tau_end is not None:
        said.append(
            f"On {recipe.outer.validation_cells} validation cells tau was {summary.validation_tau_start:+.3f} before learning and "
            f"{summary.validation_tau_end:+.3f} with the dish that is kept."
        )
    if reading.control is None:
        beside = "It cannot be compared with a cheap control, because the compared cells are not known here."
    else:
        name, tau, more = reading.control
        nearly = more.mean < 2 * more.error or math.isnan(more.error)
        verdict = "does nearly as well or better" if nearly else "does not do as well"
        beside = f"On the same cells, {name} alone {verdict}: tau {tau}. The difference of the two, the run less the control, is {more}."
    return " ".join(said) + "\n" + beside


def _first_is_best(reading: Reading) -> tuple[float, float]:
    """Return in which share of the outer epochs the cell ranked first is truly the best, and what chance would give. Ties share."""
    shares, chances = [], []
    for record in reading.history:
        found = reading.scores(record)
        if not found:
            continue
        top, best = max(score for _, score, _ in found), max(record.truth)
        first = [truth for _, score, truth in found if score == top]
        shares.append(float(np.mean([truth == best for truth in first])))
        chances.append(float(np.mean([truth == best for truth in record.truth])))
    return (float(np.mean(shares)), float(np.mean(chances))) if shares else (math.nan, math.nan)


def _how_sure(reading: Reading) -> str:
    summary, outer = reading.summary, reading.run.recipe.outer
    said = [
        f"With {outer.cells} cells, tau of a single outer epoch scatters around 0 with a standard deviation of {summary.chance:.2f} by chance "
        "alone, so only the mean over many means something."
    ]
    said.append(
        "The same cells of the pool are compared again and again, so agreement on them shows that the dish fits them, not that it predicts "
        "other cells."
        if outer.pool
        else "The cells of an epoch are ranked before the dish is changed for them, but they are few, and each epoch has another dish."
    )
    if outer.keep == "best":
        said.append(
            f"The {outer.validation_cells} validation cells choose the dish that is kept, so tau on them is optimistic."
        )
    said.append(
        "This is not an evaluation on test cells: it does not say how well the learned dish ranks cells it has not seen."
    )
    return " ".join(said)


def _cost(reading: Reading) -> str:
    summary, recipe = reading.summary, reading.run.recipe
    return (
        f"{duration(summary.seconds)} of wall time for {summary.epochs} outer epochs of {recipe.outer.cells} motifs with "
        f"{recipe.inner.epochs} inner epochs each, and the full-size trainings of {_labelled(reading)} labelled cells."
    )


def _labelled(reading: Reading) -> str:
    pool = reading.run.recipe.outer.pool
    return str(pool) if pool else f"up to {len({name for record in reading.history for name in record.cells})}"


def _next(reading: Reading) -> str:
    path = shlex.quote(str(reading.run.path))
    if not reading.run.finished:
        return f"Continue it: spd-fast run --resume --out {path}"
    file = reading.run.about.get("truth_file")
    truth = f" --truth {shlex.quote(str(file))}" if file else ""
    if issubclass(reading.run.recipe.cell_type, Perceptron):
        return "Try other seeds, and compare the runs: spd-fast report RUN RUN..."
    return (
        f"Judge the dish on test cells, beside every cheap way to score them: spd-fast score {path}{truth} --folds 0 "
        "(with --test-cells 200 it takes a fifth of the time).\n"
        "To rank cells rather than learn a dish, spd-fast rank is the shorter way."
    )


def _drawings(reading: Reading) -> list[Drawing]:
    drawn = [
        draw_cell(
            reading.cells[name], f"{place}. {name[:12]}", f"score {score:.4g}\n{_truth_word(reading)} {truth:.4g}"
        )
        for place, (name, score, truth) in enumerate(reading.last[:_BEST], start=1)
        if name in reading.cells
    ]
    return [each for each in drawn if each is not None]


def _truth_word(reading: Reading) -> str:
    return "reached the accuracy" if reading.run.recipe.outer.truth == "accuracy" else "truth"


# ---- figures


def _history_sections(reading: Reading) -> list[Section]:
    run, history, summary = reading.run, reading.history, reading.summary
    outer = run.recipe.outer
    last = reading.last
    points = [{"cell": name[:12], "x": score, "y": truth} for name, score, truth in last]
    tau = kendall_tau([score for _, score, _ in last], [truth for _, _, truth in last])
    score_and_truth = charts.score_and_truth(
        points,
        (f"score ({outer.ranking} of the motifs)", "truth"),
        f"Score and truth of the {len(points)} cells compared in the last {min(EDGE, len(history))} outer epochs. Kendall\u2019s tau is {tau:+.2f}.",
    )
    kept = validation_checks(history)
    validation = f" On the validation cells tau goes from {kept[0][1]:+.3f} to {kept[-1][1]:+.3f}." if kept else ""
    sections = [
        Section(
            "Score and truth",
            ["The scores are of several outer epochs, each of which had its own dish."],
            [score_and_truth],
        ),
        Section(
            "Kendall\u2019s tau",
            [
                f"Rank agreement of the motifs\u2019 {outer.ranking} with the truth (tau-b), 0 where all motifs tie. Mean of all {summary.tau.n} epochs "
                f"{summary.tau}; without those in which all tie {summary.tau_untied} ({summary.tau_untied.n} epochs). The band holds what chance "
                "gives in one epoch, \u00b1 1 standard deviation."
            ],
            [
                charts.kendall_tau(
                    history,
                    f"Kendall\u2019s tau over {summary.epochs} outer epochs: {summary.tau} on average.{validation}",
                )
            ],
        ),
        Section(
            "Outer loss",
            [
                f"How far the motifs\u2019 metrics disagree with the accuracies of their cells ({outer.loss}), in each outer epoch before its step."
            ],
            [
                charts.outer_loss(
                    history,
                    f"Outer loss over the outer epochs: {_number(summary.loss_first)} in the first, {_number(summary.loss_last)} in the last.",
                )
            ],
        ),
    ]
    if summary.trust is not None:
        sections.append(
            Section(
                "Trust ratio",
                [
                    f"Actual change of the outer loss over the change that the gradient predicts for the step, measured on the same motifs every "
                    f"{outer.trust_every} epochs. Near 1 the gradient predicts well what the steps do; far from 1 the steps are too long, or the "
                    "gradient predicts nothing."
                ],
                [
                    charts.trust(
                        history, f"Actual over predicted change of the outer loss: {summary.trust:.2f} at the median."
                    )
                ],
            )
        )
    accuracy = (
        f"from {_percent(summary.accuracy_first)} in the first epochs to {_percent(summary.accuracy_last)} in the last"
    )
    return [
        *sections,
        Section(
            "Accuracy of the motifs on the dish",
            [
                "Mean over the motifs of the highest accuracy of any inner epoch, \u00b1 1 standard deviation over the motifs; moving average of 3."
            ],
            [charts.accuracy(history, f"The mean of the motifs\u2019 highest accuracies goes {accuracy}.")],
        ),
        Section(
            "Inner loop",
            ["Mean of the motifs \u00b1 1 standard deviation."],
            [charts.inner_curves(history, _inner_message(history))],
        ),
    ]


def _inner_message(history: Sequence[OuterEpoch]) -> str:
    ends = [
        f"{_percent(history[index].curve_accuracy[-1])} in outer epoch {history[index].epoch}"
        for index in sorted({0, len(history) // 2, len(history) - 1})
        if history[index].curve_accuracy
    ]
    return f"Training accuracy over the inner epochs ends at {', '.join(ends) or 'no value: all motifs diverged'}."


def _dish_sections(run: runs.Run) -> list[Section]:
    """Return what was learned, before and after; images that were not learned are drawn once, behind it."""
    start, dish = (each.arrays() for each in run.dishes())
    learned = set(run.recipe.outer.learn)
    images, curves, labels, fixed = list[Section](), list[Figure](), list[Section](), list[Section]()
    for name, picture in _drawn(dish).items():
        if picture.kind == "images":
            section = _images_section(run, name, picture, start, dish[name] if name in learned else None)
            (images if name in learned else fixed).append(section)
        elif picture.kind == "labels" and name in learned:
            labels.append(_labels_section(name, picture, start[name], dish[name]))
        elif picture.kind == "curve":
            before, after = start.get(name, dish[name]), dish[name]
            message = f"{picture.title[0].upper()}{picture.title[1:]}: {_range(before)} before learning, {_range(after)} after."
            curves.append(charts.learned_curve(name, before, after, picture, message))
    sections = [*images, *labels]
    if curves:
        notes = ["The learned numbers of every step of the inner loop, or of every validation image."]
        sections.append(Section("What else was learned" if sections else "What was learned", notes, curves))
    if "image_weights" in dish and "valid_images" in dish:
        heaviest = charts.heaviest_images(dish["valid_images"], dish["image_weights"])
        sections.append(
            Section(
                "Images weighted in the score",
                ["The metric weighs the cross-entropy of every validation image."],
                [heaviest],
            )
        )
    return [*sections, *fixed]


def _images_section(
    run: runs.Run, name: str, picture: Drawn, start: Mapping[str, Array], after: Array | None
) -> Section:
    """Return the section with images of the dish: before and after learning, or once if they were not learned."""
    before, labels = start[name], start[picture.labels]
    if run.recipe.dish.labels == "bits":
        labels = np.arange(len(labels))  # these images have no classes, so each gets a row
    validation = picture.figure == "validation_set"
    what = "validation images" if validation else "images of the dish"
    notes = [
        f"One row per class, at most {charts.MAX_CLASSES} classes and {charts.MAX_PER_CLASS} images of each. Grey is 0"
        + ("." if after is None else "; before and after share one scale."),
        *(["The metric is read on these images."] if validation else []),
    ]
    if after is None:
        others = _listed([LEARNABLES[each].name.replace("_", " ") for each in run.recipe.outer.learn])
        message = f"The {len(before)} {what}. They were not learned and are the same before and after; learned were: {others}."
        title = "The validation images, which were not learned" if validation else "The images, which were not learned"
    else:
        change = float(np.abs(after - before).mean() / (np.abs(before).mean() or 1.0))
        message = (
            f"The {len(after)} {what} before and after learning: the mean change of a pixel is {_percent(change)} of the mean "
            "absolute value before."
        )
        title = "The validation set" if validation else "The dish before and after learning"
    return Section(title, notes, [charts.dish_images(picture.figure, before, after, labels, message)])


def _labels_section(name: str, picture: Drawn, before: Array, after: Array) -> Section:
    """Return the section with learned labels, before and after learning."""
    validation = name == "valid_labels"
    what = "validation images" if validation else "training images"
    moved = int(np.sum(before.argmax(axis=1) != after.argmax(axis=1)))
    change = float(np.abs(after - before).mean())
    message = (
        f"The labels of the {len(after)} {what} before and after learning: the weight of a class changes by {change:.3g} on average and by "
        f"{float(np.abs(after - before).max()):.3g} at most, and {moved} images get their largest weight in another class."
    )
    notes = [
        "A label holds a weight of each class. One column per image, one row per class; at most "
        f"{charts.MAX_CLASSES} classes of images and {charts.MAX_PER_CLASS} images of each. Grey is 0, white positive, black negative; before "
        "and after share one scale."
    ]
    title = "The validation labels before and after learning" if validation else "The labels before and after learning"
    return Section(title, notes, [charts.dish_labels(picture.figure, before, after, message)])


def _listed(words: Sequence[str]) -> str:
    return " and ".join(word for word in (", ".join(words[:-1]), words[-1]) if word)


def _range(values: Array) -> str:
    return f"{values.min():.3g} to {values.max():.3g}"


def _drawn(dish: Mapping[str, Array]) -> dict[str, Drawn]:
    """Return how the arrays of a dish are drawn, by name; those that are not drawn are left out."""
    pictures = {name: LEARNABLES[name].picture for name in dish}
    return {name: picture for name, picture in pictures.items() if picture is not None}


# ---- tables


def _settings(run: runs.Run) -> list[list[Value | str]]:
    return [[name, str(value), meaning] for name, value, meaning in run.recipe.explain()]


def _results(reading: Reading) -> Section:
    summary = reading.summary
    rows = [*_rows(summary), *_factor_rows(*reading.run.dishes())]
    heads, notes = ["what", "this run"], []
    if summary.paper:
        heads.append("the paper")
        notes = [
            "The paper: Cassimon et al., Predicting Image Classifier Performance Using the Synthetic Petri Dish Method, one run of each "
            "setting; its truth is the validation accuracy of NAS-Bench-101 at 108 epochs."
        ]
    return Section("Results", notes, [Table("Results of the run", heads, [row[: len(heads)] for row in rows])])


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


def _number(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.3f}"


def _percent(value: float) -> str:
    return "none" if math.isnan(value) else f"{100 * value:.1f} %"
