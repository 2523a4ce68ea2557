"""The page of a reproduction of the paper: every number beside the paper's own, and its figures, from stored metrics."""

import math
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np

from spd_fast.base.files import atomic_write
from spd_fast.base.types import Array
from spd_fast.paper.metrics import Metrics, RunMetrics, Setting, joined
from spd_fast.paper.rates import SEARCHED, closest_rate, target_accuracy
from spd_fast.paper.stated import (
    CELLS,
    INNER_RATE,
    LABEL_SECONDS,
    LARGER_B,
    OUTER_EPOCHS,
    PAPER,
    QUERY_EPOCHS,
    SECONDS_PER_EPOCH,
)
from spd_fast.report.page import Figure, static_svg
from spd_fast.report.summary import EDGE, MeanAndError, chance_tau_sd, moving_average
from spd_fast.report.vega import HEIGHT, INK, LINE, SECOND, Points, axis, coloured, layer, rows_of, single, whole

__all__ = ["FIGURE_FOLDER", "Number", "numbers_of", "statements_of", "write_page"]

FIGURE_FOLDER: Final = "figures"
PANEL_WIDTH: Final = 210
"""Width in pixels of each of the three panels of figures 3 and 6."""
LONG: Final = ("cassimon_a", "cassimon_b", "cassimon_c")
SHORT: Final = ("cassimon_a16", "cassimon_b16", "cassimon_c")
"""Runs of figures 2 to 4, and of figures 5 to 7, in which motif C is that of the long run."""
COLOURS: Final = {"A": LINE, "B": SECOND, "C": "var(--fourth, #18794e)"}
SETTINGS: Final = {
    "paper": f"The inner rate is {INNER_RATE:g}, as the paper states it",
    "level": "Each motif has the inner rate that reaches the paper's accuracies",
}
SMALL: Final = "--only cassimon_c --outer-epochs 1 --timed-cells 1 --set inner.epochs=1 --set dish.images=20"
"""With these the command of the page takes a few seconds; the tests of the pages run it so."""
CAPTIONS: Final = {
    "figure2": "Figure 2 of the paper: the mean of the six motifs' highest accuracies, with one standard deviation over "
    "motifs, both as moving averages of 3.",
    "figure3": "Figure 3 of the paper: training accuracy over the inner epochs, mean and one standard deviation over the "
    "six motifs, in the first, the middle and the last outer epoch.",
    "figure4": "Figure 4 of the paper: Kendall's tau of the six motifs' accuracies and the truth, as a moving average of 3.",
    "figure5": "Figure 5 of the paper: as figure 2, with 16 inner epochs for motifs A and B.",
    "figure6": "Figure 6 of the paper: as figure 3, over 16 inner epochs.",
    "figure7": "Figure 7 of the paper: as figure 4, with 16 inner epochs for motifs A and B.",
}


@dataclass(frozen=True)
class Number:
    """A number of the paper beside ours.

    Attributes
    ----------
    row : str
        The name under which ``explanations.toml`` explains it.
    what, where : str
        What it is, and where the paper states it.
    paper, ours : float or None
        None if the paper does not state it, or if it was not measured.
    form : callable
        How it is written.
    error : float or None
        Standard error of ours. None for a number that has none.
    paper_error : float or None
        Standard error of the paper's, reckoned from ours. None: it is taken to be as large as ours.
    run : str
        The recipe, if it is a number of a run.
    """

    row: str
    what: str
    where: str
    paper: float | None
    ours: float | None
    form: Callable[[float], str]
    error: float | None = None
    paper_error: float | None = None
    run: str = ""

    def equals(self) -> bool:
        """Return whether ours is written as the paper's is."""
        return self.paper is not None and self.ours is not None and self.form(self.paper) == self.form(self.ours)

    def agrees(self) -> bool:
        """Return whether ours is within two standard errors of the difference."""
        if self.paper is None or self.ours is None:
            return False
        error = self.error or 0.0
        return abs(self.ours - self.paper) <= 2 * math.hypot(
            error, error if self.paper_error is None else self.paper_error
        )


def write_page(path: str | os.PathLike[str], stored: Sequence[Metrics], *, stem: str = "reproduction") -> Path:
    """Write the page, in Markdown, and its figures in the folder ``figures`` beside it. Nothing is trained.

    Parameters
    ----------
    path : path
        The page.
    stored : sequence of Metrics
        What was measured; parts of one kind of settings, such as runs on several machines, are put together. Without any the page has
        the paper's numbers alone.
    stem : str
        How the names of the figures begin.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ValueError
        If stored metrics do not go together (`spd_fast.paper.metrics.joined`).
    OSError
        If a file cannot be written.
    """
    page = Path(path)
    stored = joined(stored)
    page.parent.mkdir(parents=True, exist_ok=True)
    parts = [_introduction(stored)]
    for metrics in stored:
        links = {}
        for figure in _figures(metrics):
            link = f"{FIGURE_FOLDER}/{stem}-{metrics.settings}-{figure.name}.svg"
            (page.parent / FIGURE_FOLDER).mkdir(exist_ok=True)
            _write(page.parent / link, static_svg(figure).encode())
            links[figure.name] = link
        parts.append(_section(metrics, links))
    if not stored:
        parts.append(_numbers_table(_stated_numbers(), None))
    _write(page, "\n".join(parts).encode())
    return page


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


# ---- numbers


def numbers_of(metrics: Metrics) -> list[Number]:
    """Return every number that the paper states in sections 5.1 to 5.4, beside ours."""
    return [*_ranking_numbers(metrics), *_time_numbers(metrics), *_cost_numbers(metrics)]


def _ranking_numbers(metrics: Metrics) -> list[Number]:
    what = "share of cells in which motif B has more parameters than motif A"
    runs = [number for name in PAPER for number in _run_numbers(name, metrics.runs.get(name))]
    return [*runs, Number("larger_b", what, "5.1", LARGER_B, metrics.larger_b, _percent)]


def _stated_numbers() -> list[Number]:
    """Return the numbers of the paper's runs without ours."""
    return [number for name in PAPER for number in _run_numbers(name, None)]


def _run_numbers(name: str, run: RunMetrics | None) -> list[Number]:
    """Return the numbers of a run: those that the paper states, and the same ones where it states none."""
    section = "5.3" if name.endswith("16") else "5.1"
    ranking = "5.3" if name.endswith("16") else "5.2"
    edge = EDGE if run is None else min(EDGE, len(run.tau))
    rows: dict[str, tuple[str, str, Callable[[float], str]]] = {
        "accuracy_first": (f"mean highest accuracy, first {edge} outer epochs", section, _percent),
        "accuracy_last": (f"mean highest accuracy, last {edge} outer epochs", section, _percent),
        "perfect": ("outer epochs in which all motifs are perfect", section, _percent),
        "tau": ("mean Kendall's tau, with zeros", ranking, _signed),
        "tau_untied": ("mean Kendall's tau, without zeros", ranking, _signed),
        "control": ("control: mean Kendall's tau of the number of 3x3 convolutions in the same cells", "", _signed),
        "loss_change": ("change of the outer loss, last tenth of the outer epochs minus first tenth", "", _signed),
    }
    ours = {} if run is None else _means(run)
    numbers = []
    for row, (what, where, form) in rows.items():
        stated, mean = PAPER[name].get(row), ours.get(row)
        known = mean is not None and mean.n > 0
        error = mean.error if mean is not None and known and math.isfinite(mean.error) else None
        # the paper's mean is over more outer epochs than that of a shorter run, but for the first and the last few
        shorter = run is not None and not row.startswith("accuracy")
        scale = math.sqrt(len(run.tau) / OUTER_EPOCHS) if run is not None and shorter else 1.0
        numbers.append(
            Number(
                row=row,
                what=f"{_title(name)}: {what}",
                where=where if stated is not None else "",
                paper=stated,
                ours=mean.mean if mean is not None and known else None,
                form=form,
                error=error,
                paper_error=None if error is None else scale * error,
                run=name,
            )
        )
    return numbers


def _means(run: RunMetrics) -> dict[str, MeanAndError]:
    """Return the means of a run over its outer epochs, by the rows of `_run_numbers`."""
    accuracy = [value for value in run.accuracy if value is not None]
    return {
        "accuracy_first": MeanAndError.of(accuracy[:EDGE]),
        "accuracy_last": MeanAndError.of(accuracy[-EDGE:]),
        "perfect": MeanAndError.of(run.perfect),
        "tau": MeanAndError.of(run.tau),
        "tau_untied": MeanAndError.of([tau for tau, tied in zip(run.tau, run.tied, strict=True) if not tied]),
        "control": MeanAndError.of(run.control_tau),
        "loss_change": _change([value for value in run.loss if value is not None]),
    }


def _change(values: Sequence[float]) -> MeanAndError:
    """Return the mean of the last tenth of some values minus that of their first tenth; nothing if these are fewer than 2 values."""
    tenth = len(values) // 10
    if tenth < 2:
        return MeanAndError.of(())
    first, last = MeanAndError.of(values[:tenth]), MeanAndError.of(values[-tenth:])
    return MeanAndError(last.mean - first.mean, math.hypot(first.error, last.error), tenth)


def _time_numbers(metrics: Metrics) -> list[Number]:
    """Return table 1: the seconds of an inner epoch over cells."""
    numbers = []
    for motif, stated in SECONDS_PER_EPOCH.items():
        values = metrics.epoch_seconds.get(motif)
        ours: Sequence[float] | None = metrics.full_size_seconds if motif == "NAS-Bench-101" else _spread(values)
        what = "full-size training of NAS-Bench-101" if motif == "NAS-Bench-101" else f"motif {motif}"
        for place, name in enumerate(("least", "mean", "standard deviation", "most")):
            error = float(np.std(values)) / math.sqrt(len(values)) if name == "mean" and values else None
            numbers.append(
                Number(
                    row="seconds",
                    what=f"{what}: seconds of an epoch, {name}",
                    where="table 1",
                    paper=stated[place],
                    ours=None if ours is None else ours[place],
                    form=_seconds,
                    error=error,
                )
            )
    return numbers


def _spread(values: Sequence[float] | None) -> tuple[float, float, float, float] | None:
    if not values:
        return None
    return min(values), float(np.mean(values)), float(np.std(values)), max(values)


def _cost_numbers(metrics: Metrics) -> list[Number]:
    """Return table 2 and the query times: the cost before the first query, and that of each query (White et al. 2021)."""
    numbers = []
    for name in LONG:
        run, motif = metrics.runs.get(name), name[-1].upper()
        stated = SECONDS_PER_EPOCH[motif].mean
        labels, dish = CELLS * OUTER_EPOCHS * LABEL_SECONDS, CELLS * OUTER_EPOCHS * QUERY_EPOCHS * stated
        our_labels = None if run is None else run.cells * len(run.tau) * LABEL_SECONDS
        our_dish = None if run is None else sum(run.core_seconds)
        whole = None if our_labels is None or our_dish is None else our_labels + our_dish
        values = metrics.epoch_seconds.get(motif)
        for row, what, where, paper, ours in (
            ("labelling", "initialisation, to label the cells", "table 2", labels, our_labels),
            ("dish", "initialisation, to learn the dish", "table 2", dish, our_dish),
            ("labelling", "initialisation in all", "table 2", labels + dish, whole),
            ("query", "query of a cell", "5.4", QUERY_EPOCHS * stated, _query(values)),
        ):
            numbers.append(Number(row, f"motif {motif}: {what}", where, paper, ours, _duration))
    return numbers


def _query(values: Sequence[float] | None) -> float | None:
    return QUERY_EPOCHS * float(np.mean(values)) if values else None


# ---- statements


def statements_of(metrics: Metrics) -> list[tuple[str, str, str, str]]:
    """Return what the paper says in words: (statement, section, what we found, whether it holds)."""
    runs = metrics.runs
    means = {name: _means(run) for name, run in runs.items()}
    seconds = {motif: float(np.mean(values)) for motif, values in metrics.epoch_seconds.items() if values}
    statements = [
        (
            "Motif B has more parameters than motif A in around 80 % of cells.",
            "5.1",
            f"in {_percent(metrics.larger_b)}",
            _holds(abs(metrics.larger_b - LARGER_B) < 0.05),
        )
    ]
    if {"cassimon_a", "cassimon_b"} <= set(runs):
        a, b = (_accuracy(runs[name]) for name in ("cassimon_a", "cassimon_b"))
        statements.append(
            (
                "Motif B has a higher mean accuracy than motif A, with a lower standard deviation.",
                "5.1",
                f"B {_percent(b[0])} with {_percent(b[1])}, A {_percent(a[0])} with {_percent(a[1])}",
                _holds(b[0] > a[0] and b[1] < a[1]),
            )
        )
    if "cassimon_c" in runs and len(runs["cassimon_c"].tau) >= 2 * EDGE:
        first, last = means["cassimon_c"]["accuracy_first"], means["cassimon_c"]["accuracy_last"]
        error = math.hypot(first.error, last.error)
        rise = last.mean - first.mean
        statements.append(
            (
                "The accuracy of motif C rises a little while its dish is learned.",
                "5.1",
                f"by {100 * rise:+.1f} ± {100 * error:.1f} points, from {_percent(first.mean)} to {_percent(last.mean)}",
                _holds(rise > 2 * error),
            )
        )
    for name, run in runs.items():
        half = len(run.tau) // 2
        if half >= EDGE:
            early, late = MeanAndError.of(run.tau[:half]), MeanAndError.of(run.tau[half:])
            error = math.hypot(early.error, late.error)
            statements.append(
                (
                    f"{_title(name)}: the outer loop brings no meaningful improvement of tau.",
                    "5.3" if name.endswith("16") else "5.2",
                    f"first half {early}, second half {late}",
                    _holds(late.mean - early.mean <= 2 * error),
                )
            )
    if {"cassimon_a16", "cassimon_b16"} <= set(runs):
        shares = {name: means[name]["perfect"].mean for name in ("cassimon_a16", "cassimon_b16")}
        statements.append(
            (
                "With 16 inner epochs there is no outer epoch in which all motifs are perfect.",
                "5.3",
                ", ".join(f"{_title(name)} {_percent(share)}" for name, share in shares.items()),
                _holds(not any(shares.values())),
            )
        )
    if {"A", "B"} <= set(seconds):
        statements.append(
            (
                "Motif A takes longer to train than motif B.",
                "5.4",
                f"A {_seconds(seconds['A'])}, B {_seconds(seconds['B'])} an inner epoch",
                _holds(seconds["A"] > seconds["B"]),
            )
        )
    if set(LONG) <= set(runs):
        taus = {name[-1].upper(): means[name]["tau"] for name in LONG}
        order = sorted(taus, key=lambda motif: -taus[motif].mean)
        statements.append(
            (
                "Of the long runs motif B has the highest tau and motif C the lowest.",
                "5.2",
                ", ".join(f"{motif} {taus[motif]}" for motif in order),
                _holds(order == ["B", "A", "C"]),
            )
        )
    return statements


def _accuracy(run: RunMetrics) -> tuple[float, float]:
    """Return the mean over outer epochs of the mean and of the standard deviation of the motifs' highest accuracies."""
    means = [value for value in run.accuracy if value is not None]
    spreads = [value for value in run.accuracy_sd if value is not None]
    return MeanAndError.of(means).mean, MeanAndError.of(spreads).mean


def _holds(fact: bool) -> str:
    return "holds" if fact else "does not hold"


# ---- page


def _introduction(stored: Sequence[Metrics]) -> str:
    lines = [
        "# The paper, run again",
        "",
        'This page tells whoever wants to repeat the experiments of Cassimon et al., "Predicting Image Classifier Performance',
        'Using the Synthetic Petri Dish Method" ("the paper"), what comes out with this package, beside what the paper states.',
        "The words are those of the glossary of the package. `spd-fast reproduce` writes this page from the metrics that the",
        "runs left, and `make reproduction` writes it anew from those in `docs/reproduction/`.",
        "",
        "There are five runs: motifs A, B and C with 100 inner epochs, and A and B with 16. An outer epoch compares six fresh",
        f"cells, and the paper's runs have {OUTER_EPOCHS} outer epochs. The stated inner rate is {INNER_RATE:g}. Two kinds of settings are run:",
        "",
        "* `--settings paper` trains with the stated rate. The two long runs of motifs A and B have 40 outer epochs.",
        "* `--settings level` first searches, for each motif, for the rate with which motifs reach the paper's accuracies, and",
        "  trains all five runs with these rates.",
        "",
        "<!-- needs: nasbench101.npz -->",
        f"<!-- small: --truth => {SMALL} --truth -->",
        "```sh",
        "spd-fast reproduce --settings level --truth nasbench101.npz",
        "```",
        "",
        "With `--settings paper` in place of `level` the same command makes the other runs. The truth is a table that",
        "`spd-fast nasbench convert` wrote. Without `--truth` the truth that ships with the package is used, which is not the",
        "paper's. Each command writes its folder's `metrics.json` and a page like this one.",
        "",
        "A ± is one standard error over outer epochs. Six cells say little: Kendall's tau of one outer epoch has a standard",
        f"deviation of {chance_tau_sd(CELLS):.2f} by chance alone, so the mean of {OUTER_EPOCHS} outer epochs has one of "
        f"{chance_tau_sd(CELLS) / math.sqrt(OUTER_EPOCHS):.3f}. A number of ours is",
        "called equal to the paper's if the two are less than two standard errors of their difference apart. The paper does not",
        "state its own error, which is reckoned from ours and the number of outer epochs.",
        "",
        "A control that trains nothing tells what a tau is worth: below those of each run stands that of the number of 3x3",
        "convolutions in the same six cells.",
        "",
    ]
    missing = [f"`{settings}`" for settings in get_args(Setting) if settings not in {each.settings for each in stored}]
    if stored and missing:
        lines += [f"This page has no runs with the settings {' and '.join(missing)}.", ""]
    if not stored:
        lines += [
            "The runs have not been made yet. The table below has the numbers that they will be compared with.",
            "",
        ]
    return "\n".join(lines)


def _section(metrics: Metrics, links: Mapping[str, str]) -> str:
    lines = [f"## {SETTINGS[metrics.settings]}", "", metrics.origin, "", *_in_short(metrics), _runs_table(metrics)]
    if metrics.attempts:
        lines += ["### The search for rates", "", _attempts_table(metrics)]
    lines += ["### Figures", ""]
    for name, link in links.items():
        lines += [CAPTIONS[name], "", f"![{CAPTIONS[name]}]({link})", ""]
    lines += [
        "### Accuracies and ranking",
        "",
        _numbers_table(_ranking_numbers(metrics), metrics),
        "### Table 1: seconds of an inner epoch",
        "",
        "Here each random cell is trained alone, on one thread. Seconds are wall time, which other work of the machine lengthens.",
        "",
        _numbers_table(_time_numbers(metrics), metrics),
        "### Table 2: initialisation and query",
        "",
        "White et al. (2021, arXiv:2104.01177) count what a score costs before the first query, and what each query costs. To label",
        f"a cell counts as the paper's full-size training, {LABEL_SECONDS:.0f} s. Learning the dish costs the processor time of our run.",
        "",
        _numbers_table(_cost_numbers(metrics), metrics),
    ]
    lines += ["### Statements", "", _table(("the paper says", "section", "here", ""), statements_of(metrics))]
    return "\n".join(lines)


def _in_short(metrics: Metrics) -> list[str]:
    """Return a paragraph that says how many numbers agree, and how the best run ranks beside the control."""
    long_enough = {name: run for name, run in metrics.runs.items() if len(run.tau) >= 2 * EDGE}
    compared = [
        number
        for number in _ranking_numbers(metrics)
        if number.run in long_enough and number.paper is not None and number.ours is not None
    ]
    if not compared:
        return []
    agreeing = sum(number.equals() or number.agrees() for number in compared)
    means = {name: _means(run) for name, run in long_enough.items()}
    best = max(means, key=lambda name: means[name]["tau"].mean)
    return [
        f"Of the {len(compared)} accuracies, shares of perfect outer epochs and taus that the paper states of these runs, "
        f"{agreeing} are equal to ours within two standard errors. The run that ranks best, {_title(best)}, has a mean tau of {means[best]['tau']}; that of the control is "
        f"{means[best]['control']}.",
        "",
    ]


def _runs_table(metrics: Metrics) -> str:
    rows = [
        (
            _title(name),
            f"{run.rate:g}",
            f"{len(run.tau)} of {run.outer_epochs}",
            _duration(sum(run.seconds)),
            _duration(sum(run.core_seconds)),
            ", ".join(str(run.about[key]) for key in ("processor", "instruction_set") if key in run.about)
            + f", processors: {run.about.get('processors', '?')}",
        )
        for name, run in metrics.runs.items()
    ]
    wall = _duration(sum(sum(run.seconds) for run in metrics.runs.values()))
    core = _duration(sum(sum(run.core_seconds) for run in metrics.runs.values()))
    table = _table(("run", "inner rate", "outer epochs", "wall time", "core time", "machine"), rows)
    return (
        f"{table}\nCore time is processor time over all threads: two cores that do nothing else need about half of it. Wall time also has the\n"
        f"machine's other work, and pauses, in it. All runs together took {core} of core time and {wall} of wall time.\n"
    )


def _attempts_table(metrics: Metrics) -> str:
    rows = []
    for motif, tried in metrics.attempts.items():
        target = target_accuracy(motif)
        chosen = closest_rate(target, {float(rate): accuracy for rate, accuracy in tried.items()})
        for rate, accuracy in sorted(tried.items(), key=lambda item: float(item[0])):
            mark = "chosen" if float(rate) == chosen else ""
            rows.append((motif, f"`{SEARCHED[motif]}`", rate, _percent(accuracy), _percent(target), mark))
    header = ("motif", "recipe", "inner rate", "mean highest accuracy", "the paper", "")
    return _table(header, rows)


def _numbers_table(numbers: Sequence[Number], metrics: Metrics | None) -> str:
    rows, notes = [], list[str]()
    for number in numbers:
        if number.paper is None and number.ours is None:
            continue
        ours = "" if number.ours is None else number.form(number.ours)
        if number.ours is not None and number.error is not None:
            ours += f" ± {number.form(number.error).lstrip('+')}"
        both = number.paper is not None and number.ours is not None
        difference = _difference(number) if both else ""
        where = f" ({number.where})" if number.where else ""
        paper = "" if number.paper is None else number.form(number.paper)
        rows.append(
            (number.what + where, paper, ours or "not measured", difference, _explanation(number, metrics, notes))
        )
    table = _table(("number", "the paper", "here", "difference", "explanation"), rows)
    return "\n".join([table, *(f"{i}. {note}" for i, note in enumerate(notes, 1)), ""]) if notes else table


def _difference(number: Number) -> str:
    assert number.paper is not None
    assert number.ours is not None
    if number.form in (_percent, _signed):
        points = 100 if number.form is _percent else 1
        return f"{points * (number.ours - number.paper):+.{1 if points > 1 else 3}f}" + (
            " points" if points > 1 else ""
        )
    return f"{number.ours / number.paper:.3g} times"


def _explanation(number: Number, metrics: Metrics | None, notes: list[str]) -> str:
    """Return what stands in the table. A longer text is added to the notes below it, once."""
    if metrics is None or number.paper is None or number.ours is None:
        return ""
    if number.run and len(metrics.runs[number.run].tau) < 2 * EDGE:
        return "too few outer epochs to compare"
    if number.equals():
        return "equal"
    if number.agrees():
        return "equal within two standard errors"
    found = [
        entry["text"]
        for entry in _explanations()
        if number.row in entry["rows"]
        and entry.get("settings", metrics.settings) == metrics.settings
        and number.run in entry.get("runs", [number.run])
    ]
    if not found:
        return "not explained"
    text = found[-1]  # later entries are more special
    if text not in notes:
        notes.append(text)
    return f"note {notes.index(text) + 1}"


@cache
def _explanations() -> list[dict[str, Any]]:
    text = (files("spd_fast.paper") / "explanations.toml").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = tomllib.loads(text)["explanations"]
    return entries


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _title(name: str) -> str:
    motif = name.removeprefix("cassimon_")[0].upper()
    return f"motif {motif}, {16 if name.endswith('16') else 100} inner epochs"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _seconds(value: float) -> str:
    return f"{value:.3g} s"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


# ---- figures


def _figures(metrics: Metrics) -> list[Figure]:
    """Return the figures for which there are runs."""
    drawn = []
    for names, accuracy, curves, taus in ((LONG, 2, 3, 4), (SHORT, 5, 6, 7)):
        runs = {run.motif: run for run in (metrics.runs[name] for name in names if name in metrics.runs)}
        if not runs or (names is SHORT and set(runs) == {"C"}):
            continue
        drawn += [
            _accuracy_figure(f"figure{accuracy}", runs),
            _curves_figure(f"figure{curves}", runs, 16 if names is SHORT else None),
            _tau_figure(f"figure{taus}", runs),
        ]
    return drawn


def _accuracy_figure(name: str, runs: Mapping[str, RunMetrics]) -> Figure:
    """Draw the means of the motifs' highest accuracies with one standard deviation over motifs, as moving averages of 3."""
    points = []
    for motif, run in runs.items():
        middle, half = moving_average(_floats(run.accuracy)), moving_average(_floats(run.accuracy_sd))
        points += _band(np.arange(len(middle)), middle, half, _label(motif, run))
    layers = _layers(runs, points, "outer epoch", "mean highest accuracy", (0, 1.05))
    return Figure(name, CAPTIONS[name], _on_white(single(layers, CAPTIONS[name])))


def _tau_figure(name: str, runs: Mapping[str, RunMetrics]) -> Figure:
    """Draw Kendall's tau as a moving average of 3."""
    points = []
    for motif, run in runs.items():
        tau = moving_average(_floats(run.tau))
        points += rows_of(x=np.arange(len(tau)), y=tau, named=_label(motif, run))
    layers = _layers(runs, points, "outer epoch", "Kendall's tau", (-1.05, 1.05))
    return Figure(name, CAPTIONS[name], _on_white(single(layers, CAPTIONS[name])))


def _curves_figure(name: str, runs: Mapping[str, RunMetrics], epochs: int | None) -> Figure:
    """Draw the inner curves, at most so many inner epochs of them: a panel for the first, middle and last outer epoch."""
    panels = []
    for place in range(max(len(run.curves) for run in runs.values())):
        points, shown = [], set()
        for motif, run in runs.items():
            if place >= len(run.curves):
                continue
            epoch, curve = sorted(run.curves.items(), key=lambda item: int(item[0]))[place]
            mean, sd = (_floats(curve[key])[:epochs] for key in ("accuracy", "accuracy_sd"))
            points += _band(np.arange(1, len(mean) + 1), mean, sd, _label(motif, run))
            shown.add(int(epoch))
        title = "outer epoch " + ", ".join(map(str, sorted(shown)))
        layers = _layers(runs, points, "inner epoch", "training accuracy" if place == 0 else "", (0, 1.05))
        heading = {"text": title, "fontSize": 12, "fontWeight": "normal", "color": INK}
        panels.append({"width": PANEL_WIDTH, "height": HEIGHT, "title": heading, "layer": layers})
    return Figure(name, CAPTIONS[name], _on_white(whole({"description": CAPTIONS[name], "hconcat": panels})))


def _layers(
    runs: Mapping[str, RunMetrics], points: Points, across: str, up: str, domain: tuple[float, float]
) -> list[dict[str, Any]]:
    """Return a line for each motif, and under it the band of the points that have one."""
    colours = coloured([_label(*each) for each in runs.items()], colours=[COLOURS[motif] for motif in runs])
    x = axis("x", across, integers=True, zero=False)
    x["axis"] |= {"tickCount": 6}  # a panel has room for no more
    encoding = {"x": x, "color": colours}
    y = {name: axis(name, up, domain=domain) for name in ("y", "low")}
    drawn = [layer({"type": "line", "strokeWidth": 2}, {**encoding, "y": y["y"]}, points)]
    if points and "low" in points[0]:
        mark = {"type": "area", "opacity": 0.15, "clip": True}
        drawn.insert(0, layer(mark, {**encoding, "y": y["low"], "y2": {"field": "high"}}, points))
    return drawn


def _band(x: Array, middle: Array, half: Array, name: str) -> list[dict[str, Any]]:
    return rows_of(x=x, y=middle, low=middle - half, high=middle + half, named=name)


def _on_white(specification: dict[str, Any]) -> dict[str, Any]:
    """Return a chart with a white ground, since the page that shows it is not ours and may be dark."""
    return {**specification, "background": "white"}


def _label(motif: str, run: RunMetrics) -> str:
    return f"motif {motif}, {run.inner_epochs} inner epochs"


def _floats(values: Sequence[float | None]) -> Array:
    return np.array([math.nan if value is None else value for value in values], np.float64)
