"""What the paper proposes in its section 7: other outer losses, each with the direct gradient and with the hypergradient.

    python bench/losses.py --estimate                                                # how long it takes here; learns nothing
    python bench/losses.py --out runs/losses                                         # motif C, 3 seeds, 170 outer epochs
    python bench/losses.py --out runs/losses-B --motifs B --seeds 0 --outer-epochs 85  # motif B
    python bench/losses.py --draw runs/losses/losses.json runs/losses-B/losses.json  # one table of both
    python bench/losses.py --draw runs/losses/losses.json --figure losses.svg          # and their outer losses as lines
    python bench/losses.py --draw runs/losses/losses.json --compare                  # and differences between the learned dishes

The settings are the paper's (`spd-fast recipes cassimon_c`) but for 16 inner epochs, the inner rate 3e-4, with which motifs learn
something in them, and the score, which is the metric. A dish is learned from six fresh cells in each outer epoch. It is judged on test
cells, of which no outer epoch sees any, beside the same dish before learning. --out holds a run folder for every run (`spd-fast report`
shows one) and the scores of the test cells. After Ctrl-C or a kill the same command continues, and a later command adds seeds,
motifs, losses and gradients. At its end the command writes the table of all that it was asked for, from these files, to losses.md,
and what the table needs to one small record, losses.json; both replace those of an earlier command in this folder. The work
may so be divided among folders and machines: --draw puts records together.

Intervals hold 95 % of resamples: of test cells and seeds for their tau, of seeds and of the outer epochs of each for all else.

The truth that ships has accuracies and losses. NAS-Bench-101 has no losses: with --truth, name the losses that need none.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spd_fast import Cell, TruthTable, recipes
from spd_fast.base.files import atomic_write
from spd_fast.base.ranks import kendall_tau
from spd_fast.base.stores import Journal, content_digest
from spd_fast.cli.console import duration
from spd_fast.dish import Dish
from spd_fast.outer import runs
from spd_fast.outer.fit import fit_dish
from spd_fast.outer.history import OuterEpoch
from spd_fast.outer.start import start_dish
from spd_fast.predictors.features import NATS_SCALARS, SCALARS, structural_features
from spd_fast.recipes.settings import Recipe
from spd_fast.report.page import Figure, static_svg
from spd_fast.report.summary import moving_average
from spd_fast.report.vega import INK, axis, coloured, layer, rows_of, whole
from spd_fast.scoreboard.judge import Estimate, Judged, judge
from spd_fast.scoreboard.measuring import Parts
from spd_fast.scoring import score_cells

LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "pearson_abs": ("1 - abs(r), the paper's", {"outer.loss": "pearson_abs"}),
    "pearson": ("1 - r", {"outer.loss": "pearson"}),
    "mse": ("MSE of accuracy", {"outer.loss": "mse"}),
    "mse_losses": ("MSE of losses", {"outer.loss": "mse", "outer.metric": "loss", "outer.truth": "loss"}),
}
GRADIENTS = {"direct": "direct", "unrolled": "hypergradient"}
SETTINGS: dict[str, Any] = {"inner.epochs": 16, "inner.optimizer.lr": 3e-4, "outer.ranking": "metric"}
SCHEMA = "spd_fast.losses/1"
RECORD = "spd_fast.losses.record/1"
# Costs relative to one motif C that is trained with the direct gradient; they only divide the time left between jobs.
MOTIF_COSTS = {"A": 8.5, "B": 2.75, "C": 1.0}
GRADIENT_COSTS = {"direct": 1.0, "unrolled": 5.0}
# Structural scalars of NAS-Bench-101's cells, and of NATS-Bench's.
CONTROLS = {"3x3 convolutions": ("conv3x3", "nor_conv_3x3"), "parameters": ("log_parameters", "log_weights")}
DIGITS = 6  # of the figures in a record
EDGE = 0.1  # the share of the outer epochs that counts as the first ones, and as the last ones
RESAMPLES = 1000
ALIKE = 0.95  # Kendall's tau of scores that are the same but for rounding; 60 motifs B have 0.993 with AVX2 and with the baseline
SMOOTH = 15  # outer epochs of a moving average in the figure
CAPTION = "The outer loss over the outer epochs, as a moving average, with the least and the most of the seeds."

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Row:
    """A row of the table: one motif, one loss, one gradient."""

    motif: str
    loss: str
    gradient: str

    def recipe(self, changes: dict[str, Any], seed: int) -> Recipe:
        """Return the recipe of one seed."""
        settings = {**SETTINGS, **LOSSES[self.loss][1], "outer.gradient": self.gradient, **changes, "seed": seed}
        return recipes.get(f"cassimon_{self.motif.lower()}").replace(settings)

    def name(self, seed: int) -> str:
        """Return the name of the run folder."""
        return f"{self.motif}-{self.loss}-{self.gradient}-seed{seed}"

    def before(self, seed: int) -> str:
        """Return the name of the scores before learning, which are the same for all rows of a motif and a metric."""
        return f"{self.motif}-before-{'loss' if self.loss == 'mse_losses' else 'probability'}-seed{seed}"


@dataclass(frozen=True)
class Record:
    """What the table needs of finished runs: the content of losses.json.

    Attributes
    ----------
    test_cells, accuracy : list
        Hashes and accuracies of the test cells.
    settings : dict
        What --replace changed in every recipe.
    scores : dict of str to list of float
        Scores of the test cells, by the name of a run, or of what was scored before learning.
    runs : dict of str to dict
        By the name of a run: its motif, loss, gradient and seed; ``tau`` of the six cells, outer ``losses`` and ``core_seconds`` of
        its outer epochs; and what the run folder says of machine and versions.
    """

    test_cells: list[str]
    accuracy: list[float]
    settings: dict[str, Any]
    scores: dict[str, list[float]]
    runs: dict[str, dict[str, Any]]

    def save(self, path: Path) -> None:
        """Write the record, as a whole or not at all."""
        with atomic_write(path) as file:
            file.write((json.dumps({"schema": RECORD, **asdict(self)}) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Read what `save` wrote; ValueError if it is not one."""
        try:
            fields = json.loads(path.read_bytes())
            if fields.pop("schema") != RECORD:
                raise ValueError("its schema is another one")
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, expected a losses.json of this script ({RECORD}): {error!r}") from None

    @classmethod
    def joined(cls, parts: "Sequence[Record]") -> "Record":
        """Put together the records of other seeds, motifs, losses or gradients, which are judged on the same test cells.

        Scores before learning that are in several records may differ as much as they do between processors. The first are taken.
        """
        first = parts[0]
        scores, found = dict(first.scores), dict(first.runs)
        for part in parts[1:]:
            if (part.test_cells, part.accuracy) != (first.test_cells, first.accuracy):
                raise ValueError("the records have different test cells, expected runs of one truth")
            if part.settings != first.settings:
                raise ValueError(
                    f"--replace was {first.settings} and {part.settings}, expected the same in all records"
                )
            twice = sorted({*part.runs} & {*found})
            if twice:
                raise ValueError(f"two records have the run {twice[0]}, expected each run in one of them")
            for name in {*part.scores} & {*scores}:
                if not _alike(part.scores[name], scores[name]):
                    raise ValueError(f"two records have different scores {name}, expected the same settings")
            scores = part.scores | scores
            found |= part.runs
        return cls(first.test_cells, first.accuracy, first.settings, scores, found)

    def table(self) -> str:
        """Return the table: a row for every motif, loss and gradient, over all seeds that are there."""
        lines = [
            "| motif | outer loss | gradient | seeds x outer epochs | tau of test cells, dish before learning | learned dish | "
            "learning adds | tau of the six cells, all outer epochs | second half minus first | outer loss, first outer epochs | "
            "last minus first | core minutes a run |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row, found in self.rows():
            seeds = [run["seed"] for run in found]
            before = judge([self.scores[row.before(seed)] for seed in seeds], self.accuracy)
            after = judge([self.scores[row.name(seed)] for seed in seeds], self.accuracy)
            losses = [run["losses"] for run in found]
            first, change = trend(losses) if all(losses) else ("none", "none")
            lengths = {len(run["tau"]) for run in found}
            columns = (
                f"motif {row.motif}",
                LOSSES[row.loss][0],
                GRADIENTS[row.gradient],
                f"{len(seeds)} x {', '.join(map(str, sorted(lengths)))}",
                before.estimate("tau"),
                after.estimate("tau"),
                after.minus(before, "tau"),
                mean_over([run["tau"] for run in found]),
                trend([run["tau"] for run in found], 0.5)[1],
                first,
                change,
                f"{sum(sum(run['core_seconds']) for run in found) / len(found) / 60:.1f}",
            )
            lines.append(f"| {' | '.join(map(str, columns))} |")
        return "\n".join(lines) + "\n"

    def comparison(self, truth: TruthTable) -> str:
        """Return a second table: how much better each learned dish ranks the test cells than others do, on the same cells and seeds.

        The others are the dish of the paper's loss by the same gradient, that of the same loss by the direct gradient, and two
        controls, for which nothing is trained. "none" stands where one of them has no run of some seed. `truth` holds the cells.
        """
        row_of = {bytes(digest).hex(): row for row, digest in enumerate(truth.cells.module_hash)}
        if missing := {*self.test_cells} - {*row_of}:
            raise ValueError(f"{len(missing)} test cells are not in this truth, expected the --truth of the runs")
        cells = truth.cells[np.array([row_of[module_hash] for module_hash in self.test_cells])]
        of_cells = cells.cell_type is Cell
        scalars = dict(zip(SCALARS if of_cells else NATS_SCALARS, structural_features(cells).T, strict=True))
        scores = self.scores | {what: scalars[names[not of_cells]].tolist() for what, names in CONTROLS.items()}

        @cache
        def judged(*names: str) -> Judged:
            return judge([scores[name] for name in names], self.accuracy)

        control_taus = ", ".join(f"{what} {judged(what).estimate('tau')}" for what in CONTROLS)
        lines = [
            f"Tau of the controls on the test cells: {control_taus}.",
            "",
            "| motif | outer loss | gradient | tau minus that of the paper's loss | minus that of the direct gradient | "
            f"{' | '.join(f'minus that of the number of {what}' for what in CONTROLS)} |",
            "|---|---|---|---|---|---|---|",
        ]
        for row, found in self.rows():
            seeds = [run["seed"] for run in found]
            learned = judged(*map(row.name, seeds))
            columns: list[object] = [f"motif {row.motif}", LOSSES[row.loss][0], GRADIENTS[row.gradient]]
            for other in (replace(row, loss="pearson_abs"), replace(row, gradient="direct")):
                names = [other.name(seed) for seed in seeds]
                is_there = other != row and all(name in scores for name in names)
                columns.append(learned.minus(judged(*names), "tau") if is_there else "none")
            columns += [learned.minus(judged(*[what] * len(seeds)), "tau") for what in CONTROLS]
            lines.append(f"| {' | '.join(map(str, columns))} |")
        return "\n".join(lines) + "\n"

    def rows(self) -> "list[tuple[Row, list[dict[str, Any]]]]":
        """Return each motif, loss and gradient that was run, in the order of the tables, with its runs in the order of their seeds."""
        found: dict[Row, list[dict[str, Any]]] = {}
        for run in sorted(self.runs.values(), key=lambda run: run["seed"]):
            found.setdefault(Row(run["motif"], run["loss"], run["gradient"]), []).append(run)
        order = [*MOTIF_COSTS, *LOSSES, *GRADIENTS]
        return sorted(
            found.items(),
            key=lambda item: [order.index(part) for part in (item[0].motif, item[0].loss, item[0].gradient)],
        )

    def figure(self) -> str:
        """Return a picture (SVG) of the outer losses: a row of panels for each motif, a panel for each loss, a line for each gradient.

        Raises ValueError if no run has an outer loss.
        """
        rows = []
        for motif in MOTIF_COSTS:
            of_motif = [run for run in self.runs.values() if run["motif"] == motif and run["losses"]]
            losses = [loss for loss in LOSSES if any(run["loss"] == loss for run in of_motif)]
            if losses:
                rows.append({"hconcat": [_panel(motif, loss, of_motif) for loss in losses]})
        if not rows:
            raise ValueError("no run of these records has an outer loss, expected one to draw")
        ground = {"background": "white"}  # the page that shows it may be dark
        return static_svg(Figure("losses", CAPTION, whole({"description": CAPTION, "vconcat": rows}) | ground))


def _alike(first: Sequence[float], second: Sequence[float]) -> bool:
    """Return whether scores are the same but for rounding. A motif that diverged is below all others."""
    one, other = (np.nan_to_num(scores, nan=np.finfo(np.float64).min) for scores in (first, second))
    return np.array_equal(one, other) or kendall_tau(one, other) >= ALIKE


def _panel(motif: str, loss: str, of_motif: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the panel of a loss, with a scale of its own."""
    points = []
    for gradient, name in GRADIENTS.items():
        runs = [run["losses"] for run in of_motif if (run["loss"], run["gradient"]) == (loss, gradient)]
        if runs:
            smooth = np.array([moving_average(run[: min(map(len, runs))], SMOOTH) for run in runs])
            x = np.arange(smooth.shape[1])
            points += rows_of(x=x, y=smooth.mean(0), low=smooth.min(0), high=smooth.max(0), named=name)
    across = axis("x", "outer epoch", integers=True, zero=False)
    across["axis"] |= {"tickCount": 4}
    encoding = {"x": across, "color": coloured(list(GRADIENTS.values()))}
    ranges = {"y": axis("low", "outer loss", zero=False), "y2": {"field": "high"}}
    layers = [
        layer({"type": "area", "opacity": 0.15}, {**encoding, **ranges}, points),
        layer({"type": "line", "strokeWidth": 2}, {**encoding, "y": axis("y", "outer loss", zero=False)}, points),
    ]
    heading = {"text": f"motif {motif}, {LOSSES[loss][0]}", "fontSize": 12, "fontWeight": "normal", "color": INK}
    return {"width": 170, "height": 170, "title": heading, "layer": layers}


@dataclass(frozen=True)
class Job:
    """A piece of the work, with its cost relative to others."""

    what: str
    cost: float
    done: bool
    work: Callable[[Callable[[float], None]], None]


class Clock:
    """Prints which job runs, the share of all work that is done, and the time left: at the beginning of a job and once a minute."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._began = self._said = time.monotonic()
        self._total = sum(job.cost for job in jobs)
        self._found = self._done = sum(job.cost for job in jobs if job.done)

    def say(self, job: Job, share: float) -> None:
        """Report the share of a job that is done."""
        now, done = time.monotonic(), self._done + share * job.cost
        if share > 0 and now - self._said < 60:
            return
        self._said, here = now, done - self._found
        left = duration((now - self._began) / here * (self._total - done)) if here > 0 else "not known yet"
        print(f"{100 * done / self._total:3.0f} % done, time left {left}: {job.what}", flush=True)

    def finish(self, job: Job) -> None:
        """Count a job as done."""
        self._done += job.cost


@dataclass(frozen=True)
class Experiment:
    """The rows and seeds that are asked for, and the cells on which they are learned and judged."""

    rows: list[Row]
    seeds: list[int]
    epochs: int  # outer epochs
    further: dict[str, Any]  # settings of every recipe
    test: TruthTable
    rest: TruthTable
    folder: Path
    threads: int | None

    @property
    def changes(self) -> dict[str, Any]:
        """The settings that all rows have in common."""
        return {"outer.epochs": self.epochs, **self.further}

    def jobs(self, parts: Parts, journal: Journal) -> list[Job]:
        """Return all work in order, with what is done already."""
        kept = {record["part"] for record in journal.records}
        jobs: dict[str, Job] = {}
        scoring = len(self.test)
        for row in self.rows:
            for seed in self.seeds:
                recipe, name, before = row.recipe(self.changes, seed), row.name(seed), row.before(seed)
                cost, folder = MOTIF_COSTS[row.motif], self.folder / name
                fitting = recipe.outer.epochs * recipe.outer.cells * GRADIENT_COSTS[row.gradient]
                fitted = runs.is_run(folder) and runs.read(folder).finished
                if fitted:
                    runs.read(folder).require_recipe(recipe)
                jobs[before] = Job(
                    f"scores {before}",
                    cost * scoring,
                    before in kept,
                    self._scoring(parts, before, recipe, lambda recipe=recipe: start_dish(recipe)),
                )
                jobs[f"fit {name}"] = Job(f"learns {name}", cost * fitting, fitted, self._fitting(folder, recipe))
                jobs[name] = Job(
                    f"scores {name}",
                    cost * scoring,
                    name in kept,
                    self._scoring(parts, name, recipe, lambda folder=folder: runs.read(folder).dishes()[1]),
                )
        return list(jobs.values())

    def _fitting(self, folder: Path, recipe: Recipe) -> Callable[[Callable[[float], None]], None]:
        cells, target = self.rest.compared(recipe.outer.truth)

        def work(report: Callable[[float], None]) -> None:
            def progress(epoch: int, fraction: float, record: OuterEpoch | None) -> None:
                report((epoch + fraction) / recipe.outer.epochs)

            if not runs.is_run(folder):
                fit_dish(cells, target, recipe, run=folder, progress=progress, threads=self.threads)
                return
            with runs.resume(folder) as opened:
                opened.require_recipe(recipe)
                fit_dish(cells, target, recipe, run=opened, progress=progress, threads=self.threads)

        return work

    def _scoring(
        self, parts: Parts, name: str, recipe: Recipe, dish: Callable[[], Dish]
    ) -> Callable[[Callable[[float], None]], None]:
        def work(report: Callable[[float], None]) -> None:
            def measure(report: Callable[[float], object]) -> dict[str, Array]:
                return {"score": score_cells(dish(), recipe, self.test.cells, threads=self.threads, progress=report)}

            parts.keep(name, measure, report)

        return work

    def record(self, parts: Parts) -> Record:
        """Return what the table needs, from the stored scores and run folders."""

        def stored(name: str) -> list[float]:
            def missing(report: Callable[[float], object]) -> dict[str, Array]:
                raise AssertionError("every job is done before the record is made")

            scores = parts.keep(name, missing, lambda share: None)["score"]
            return [float(f"{score:.{DIGITS}g}") for score in scores]

        scores: dict[str, list[float]] = {}
        found: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            for seed in self.seeds:
                name, before = row.name(seed), row.before(seed)
                run = runs.read(self.folder / name)
                records = run.records()
                scores |= {before: stored(before), name: stored(name)}
                found[name] = {
                    **asdict(row),
                    "seed": seed,
                    "tau": [round(record["kendall_tau_metric"], DIGITS) for record in records],
                    "losses": [round(record["loss"], DIGITS) for record in records if record["loss"] is not None],
                    "core_seconds": [round(record["core_seconds"], 3) for record in records],
                    "about": {key: value for key, value in run.about.items() if key != "truth_file"},
                }
        accuracy = [float(value) for value in self.test.accuracy]
        return Record([cell.module_hash for cell in self.test.cells], accuracy, self.further, scores, found)


def trend(values: list[list[float]], edge: float = EDGE) -> tuple[str, Estimate]:
    """Return the mean over the first outer epochs of each run, which are this share of all, and that over as many last ones minus it,
    with the interval."""
    edges = [max(1, int(edge * len(run))) for run in values]
    first = [run[:edge] for run, edge in zip(values, edges, strict=True)]
    last = [run[-edge:] for run, edge in zip(values, edges, strict=True)]
    early, late = (resampled_means(part, seed) for seed, part in enumerate((first, last)))
    mean = float(np.mean([np.mean(run) for run in first]))
    difference = late - early
    low, high = np.quantile(difference, [0.025, 0.975])
    return f"{mean:.4f}", Estimate(float(np.mean([np.mean(run) for run in last])) - mean, float(low), float(high))


def mean_over(values: list[list[float]]) -> Estimate:
    """Return the mean over seeds of the mean over their outer epochs, with its 95 % bootstrap interval."""
    low, high = np.quantile(resampled_means(values, 0), [0.025, 0.975])
    return Estimate(float(np.mean([np.mean(run) for run in values])), float(low), float(high))


def resampled_means(values: list[list[float]], seed: int) -> Array:
    """Return the means of resamples: seeds are drawn with replacement, and outer epochs within each of them."""
    rng = np.random.default_rng(seed)
    runs_of = [np.array(run) for run in values]
    drawn = []
    for _ in range(RESAMPLES):
        chosen = [runs_of[each] for each in rng.integers(0, len(values), len(values))]
        drawn.append(np.mean([rng.choice(run, len(run)).mean() for run in chosen]))
    return np.array(drawn)


def estimate(experiment: Experiment) -> None:
    """Print how long all jobs take here, from one outer epoch of every motif and gradient and 24 scores of every motif."""
    total, times = 0.0, {}
    for row in experiment.rows:
        recipe = row.recipe(experiment.changes, experiment.seeds[0])
        key, epochs = (row.motif, row.gradient), recipe.outer.epochs
        if key not in times:
            one = recipe.replace({"outer.epochs": 1})
            cells, target = experiment.rest.compared(one.outer.truth)
            learned = fit_dish(cells, target, one, threads=experiment.threads)
            began = time.monotonic()
            score_cells(learned.dish, one, experiment.test.cells[np.arange(24)], threads=experiment.threads)
            times[key] = learned.history[0].seconds, (time.monotonic() - began) / 24
        epoch, score = times[key]
        one_run = epoch * epochs + score * len(experiment.test)
        total += len(experiment.seeds) * one_run
        what = f"motif {row.motif}, {row.loss}, {GRADIENTS[row.gradient]}"
        print(f"{what}: {epoch:.2f} s an outer epoch, {duration(one_run)} a run", flush=True)
    print(f"all {len(experiment.rows) * len(experiment.seeds)} runs: {duration(total)}")


def measure(experiment: Experiment) -> None:
    """Do what is not done, then write the table."""
    folder = experiment.folder
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    with Journal(folder / "losses.jsonl", SCHEMA, remedy="choose another folder") as journal:
        tables = {"test cells": experiment.test, "other cells": experiment.rest}
        digests = {what: content_digest(table_arrays(table)) for what, table in tables.items()}
        journal.bind({**digests, "--replace": experiment.further})
        parts = Parts(folder / "parts", journal)
        jobs = experiment.jobs(parts, journal)
        clock = Clock(jobs)
        for job in jobs:
            if job.done:
                continue
            clock.say(job, 0)
            job.work(lambda share, job=job: clock.say(job, share))
            clock.finish(job)
        record = experiment.record(parts)
    record.save(folder / "losses.json")
    with atomic_write(folder / "losses.md") as file:
        file.write(record.table().encode())
    print(record.table(), end="")


def table_arrays(truth: TruthTable) -> dict[str, Array]:
    """Return the cells and numbers of a truth on which the experiment depends."""
    losses = {} if truth.loss is None else {"loss": truth.loss}
    return {"cells": truth.cells.module_hash, "accuracy": truth.accuracy, **losses}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, help="cells and accuracies (.npz); default: the truth that ships")
    parser.add_argument("--out", type=Path, default=Path("runs/losses"), help="folder of all runs (runs/losses)")
    parser.add_argument("--motifs", nargs="+", choices=MOTIF_COSTS, default=["C"], help="default: C")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES), help="default: all")
    parser.add_argument("--gradients", nargs="+", choices=GRADIENTS, default=list(GRADIENTS), help="default: both")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--outer-epochs", type=int, default=170, help="default: 170")
    parser.add_argument("--test-cells", type=int, default=400, help="default: 400, at least 100")
    parser.add_argument("--threads", type=int, help="default: the processors that this process may use")
    parser.add_argument("--estimate", action="store_true", help="only say how long it takes here")
    parser.add_argument(
        "--draw", type=Path, nargs="+", metavar="RECORD", help="learn nothing; print the table of these records"
    )
    parser.add_argument("--figure", type=Path, help="with --draw: also write their outer losses as a picture (.svg)")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="with --draw: also print differences between the learned dishes, and controls",
    )
    parser.add_argument("--replace", type=json.loads, default={}, help="settings of every recipe as JSON, to try this")
    options = parser.parse_args()
    rows = [Row(*each) for each in product(options.motifs, options.losses, options.gradients)]
    try:
        if options.draw:
            record = Record.joined([Record.load(path) for path in options.draw])
            print(record.table(), end="")
            if options.compare:
                print(f"\n{record.comparison(TruthTable.load(options.truth))}", end="")
            if options.figure:
                with atomic_write(options.figure) as file:
                    file.write(record.figure().encode())
            return 0
        if options.figure or options.compare:
            raise ValueError("--figure and --compare need --draw, which names the records")
        if min(options.seeds) < 0 or options.test_cells < 100:
            raise ValueError(
                f"--seeds are {options.seeds} and --test-cells {options.test_cells}, expected at least 0 and 100"
            )
        truth = TruthTable.load(options.truth)
        if "mse_losses" in options.losses and truth.loss is None:
            others = " ".join(name for name in LOSSES if name != "mse_losses")
            raise ValueError(f"{options.truth} holds no losses, which mse_losses compares: add --losses {others}")
        test, rest = truth.split(options.test_cells, 0)
        seeds, epochs = sorted({*options.seeds}), options.outer_epochs
        experiment = Experiment(rows, seeds, epochs, options.replace, test, rest, options.out, options.threads)
        for row in rows:
            row.recipe(experiment.changes, 0)  # what cannot run is told before anything is written
        (estimate if options.estimate else measure)(experiment)
    except (ValueError, OSError, runs.RunFolderError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what is done is saved, and the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
