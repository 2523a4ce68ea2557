"""Building a truth: networks of many cells are trained on real images, and their accuracies and losses are recorded.

Every (cell, budget, seed) is a training from scratch with a cosine schedule over its budget, as in NAS-Bench-101. A
build takes hours and may be killed at any moment: every result is written to a journal beside the output, and the same call
continues from there. The truth file is written at the end, as a whole.
"""

import hashlib
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

import spd_fast._core as _core
from spd_fast.base.display import ShownProgress, shown_share
from spd_fast.base.executors import Executor, Spread
from spd_fast.base.machine import describe_machine, thread_count
from spd_fast.base.stores import Journal
from spd_fast.base.types import (
    Array,
    checked_instance,
    checked_integer,
    checked_path,
    checked_sequence,
    checked_shown_progress,
)
from spd_fast.dish import Dish
from spd_fast.engine.inner_loop import InitDistribution, InnerLoop
from spd_fast.engine.optimizers import SGD, Adam, RMSProp
from spd_fast.engine.specs import forward_flops
from spd_fast.engine.training import TrainResult, train
from spd_fast.images import ImageData, load_images, resize_images
from spd_fast.motif import MotifShape, Shape
from spd_fast.spaces.candidate import Candidate, Columns
from spd_fast.spaces.perceptron import PerceptronShape
from spd_fast.truth.journal import JOURNAL, BuildSettings, Work, journal_path, records_of
from spd_fast.truth.table import MEASUREMENTS, TruthTable, columns_of, write_truth

__all__ = [
    "build_truth",
]


@dataclass(frozen=True, eq=False)
class _Splits:
    """The normalised images of the three splits. The dish's validation set holds the validation images, then the test
    images."""

    dish: Dish
    labels: dict[str, npt.NDArray[np.int64]]


def build_truth(
    cells: Sequence[Candidate],
    data: ImageData | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    shape: Shape,
    budgets: Sequence[int] = (2, 6, 18),
    seeds: Sequence[int] = (0, 1, 2),
    batch_size: int = 50,
    optimizer: Adam | SGD | RMSProp | None = None,
    init: Literal["shared", "motif"] = "motif",
    init_distribution: InitDistribution = "pytorch",
    batch_norm_momentum: float = 0.1,
    image_size: int = 16,
    n_train: int = 5000,
    n_valid: int = 2000,
    n_test: int = 5000,
    split_seed: int = 0,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: ShownProgress = None,
    provenance: Mapping[str, Any] | None = None,
) -> TruthTable:
    """Train a network of every cell at every budget with every seed, and write a truth file.

    Parameters
    ----------
    cells : sequence of Cell, of NatsCell or of Perceptron, no two with the same `module_hash`
        `sample_cells` draws such cells.
    data : ImageData or path
        Images, or a path that `load_images` reads.
    out : path
        The truth file to write, an .npz. If the file exists, it must be the one that this same call wrote; then it is read.
        While the build runs, its journal lies beside the file (`journal_path`).
    shape : MotifShape, or PerceptronShape
        The network around each cell or slope. Its image channels and classes must be those of the data.
    budgets : sequence of int, >= 1, ascending
        Epochs of training. Each budget is a training of its own, with its own initial weights and cosine schedule.
    seeds : sequence of int
        Seeds of initial weights and sample orders.
    batch_size : int
    optimizer : Adam, SGD or RMSProp, optional
        Default: ``Adam(lr=5e-3, weight_decay=1e-4)``.
    init : "motif" or "shared"
        "motif": every cell has initial weights of its own. "shared": all cells of a seed start as alike as they can, so that
        the differences between cells are less noisy than their accuracies.
    init_distribution, batch_norm_momentum
        As in `train_motifs`.
    image_size : int, 4 to 64
        Side to which images are resampled (`resize_images`).
    n_train, n_valid, n_test : int, >= 1
        Number of images in each split. Training and validation images are drawn from the data's training set, test images from
        its test set, or from the rest of the training set if there is no test set.
    split_seed : int
        Seed of the splits, which are the same for all `seeds`.
    threads : int, optional
        Default: the processors that this process may use.
    executor : concurrent.futures.Executor, dask.distributed.Client, or the module ray, optional
        Where networks are trained, as in `spd_fast.score_cells`. Measurements have the same bits, but for the seconds.
    progress : callable or bool, optional
        It is called about ten times a second with the share of the work that is done, 0 to 1, by computing cost. Default: a bar, as
        `spd_fast.rank` shows it.
    provenance : mapping, optional
        More facts for the file's provenance, for example where the cells come from.

    Returns
    -------
    TruthTable
        The table written to `out`.

    Raises
    ------
    FileExistsError
        If `out` exists and is not the file that this call writes.
    BlockingIOError
        If another process builds the same file.
    TypeError
        If a budget or a seed is not an integer; a boolean is none.
    ValueError
        If an argument does not fit the data, or the journal of an interrupted build has other settings; the message names
        them.
    OSError
        If `out` cannot be written.

    Notes
    -----
    Networks are evaluated with batch norm's running statistics. Pixels are normalised by the mean and the standard deviation of
    the training images, for each channel. If a network diverged, its loss is NaN and its accuracy is that of predicting class
    0. The same arguments give the same measurements, whatever was interrupted and resumed and on any number of threads; only
    ``seconds`` and the times in `provenance` differ.

    A killed build loses at most the trainings in progress, about a minute of work. To abandon a build, delete its journal.
    """
    checked_path("out", out)
    checked_instance("shape", shape, (MotifShape, PerceptronShape), "a spd_fast.MotifShape")
    batch_size, image_size = checked_integer("batch_size", batch_size, 1), checked_integer("image_size", image_size, 1)
    n_train, n_valid = checked_integer("n_train", n_train), checked_integer("n_valid", n_valid)
    n_test, split_seed = checked_integer("n_test", n_test), checked_integer("split_seed", split_seed)
    thread_count(threads)
    checked_shown_progress(progress)
    spread = Spread.of(executor, threads)
    optimizer = optimizer if optimizer is not None else Adam(lr=5e-3, weight_decay=1e-4)
    data = data if isinstance(data, ImageData) else load_images(data)
    columns = _checked_cells(cells)
    budgets, seeds = _checked_axis("budgets", budgets, lowest=1), _checked_axis("seeds", seeds)
    splits = _split(data, shape, image_size, {"train": n_train, "validation": n_valid, "test": n_test}, split_seed)
    settings = BuildSettings(
        cells=hashlib.sha256(";".join(cell.key for cell in columns).encode()).hexdigest(),
        n_cells=len(columns),
        images=data.digest(),
        shape=asdict(cast(Any, shape)),
        budgets=budgets,
        seeds=seeds,
        batch_size=batch_size,
        optimizer=repr(optimizer),
        init=init,
        init_distribution=init_distribution,
        batch_norm_momentum=batch_norm_momentum,
        image_size=image_size,
        n_train=n_train,
        n_valid=n_valid,
        n_test=n_test,
        split_seed=split_seed,
        version=_core.version,
    )
    loop = InnerLoop(
        batch_size=batch_size,
        optimizer=optimizer,
        schedule="cosine",
        init=init,
        init_distribution=init_distribution,
        statistics="running",
        batch_norm_momentum=batch_norm_momentum,
    )
    out = Path(out)
    remedy = "delete the journal to begin anew, or choose another output"
    with (
        Journal(journal_path(out), JOURNAL, remedy=remedy) as journal,
        shown_share(progress, "building truth") as report,
    ):
        if _is_built(out, settings, journal):
            journal.delete()
            if report:
                report(1.0)
            return TruthTable.load(out)
        journal.bind(asdict(settings))
        done = {(each["cell"], each["budget"], each["seed"]): each for each in journal.records}
        costs = forward_flops(columns, shape, splits.dish.images.shape[1:])
        work = Work(costs, budgets, seeds, lambda *key: key in done, report)
        training = _Training(columns, loop, shape, splits, threads)
        with closing(training.here(work) if spread is None else training.by(spread, work)) as parts:
            for budget, seed, rows, measured in parts:
                records = records_of(measured, rows, budget, seed)
                journal.append(records)
                journal.sync()
                done |= {(each["cell"], each["budget"], each["seed"]): each for each in records}
        arrays = _tabulated(done, len(columns), budgets, seeds)
        write_truth(
            out,
            cells=columns,
            budgets=budgets,
            seeds=seeds,
            arrays=arrays,
            provenance=_provenance(data, settings, arrays) | dict(provenance or {}),
        )
        journal.delete()
    return TruthTable.load(out)


_Part = tuple[int, int, npt.NDArray[np.int64], dict[str, Array]]
"""Budget, seed, rows of cells, and what was measured of them."""
_Shared = tuple[InnerLoop, Shape, _Splits, int]


@dataclass(frozen=True, eq=False)
class _Training:
    """What is trained, and the two ways to do that."""

    columns: Columns[Any]
    loop: InnerLoop
    shape: Shape
    splits: _Splits
    threads: int | None

    def here(self, work: Work) -> Generator[_Part]:
        """Train with the threads of this process."""
        for budget, seed, rows in work.chunks(4 * (self.threads or _core.default_threads())):
            started = time.perf_counter()
            result = train(
                replace(self.loop, epochs=budget, seed=seed, replicate=budget),
                [self.columns[row] for row in rows],
                self.shape,
                self.splits.dish,
                threads=self.threads,
                progress=work.reporter(budget, rows),
            )
            yield budget, seed, rows, _measurements(result, self.splits.labels)
            work.finished(budget, seed, rows, time.perf_counter() - started)

    def by(self, spread: Spread, work: Work) -> Generator[_Part]:
        """Train by an executor."""
        axes, groups, rows, costs = work.jobs()
        shared: _Shared = self.loop, self.shape, self.splits, spread.threads
        started = time.perf_counter()
        pieces = spread.run(
            _measured,
            shared,
            costs * 3 * len(self.splits.dish.images),
            lambda group, places: ([self.columns[row] for row in rows[places].tolist()], *axes[group]),
            groups=groups,
        )
        with closing(pieces):
            for group, places, measured in pieces:
                budget, seed = axes[group]
                yield budget, seed, rows[places], measured
                work.finished(budget, seed, rows[places], time.perf_counter() - started)
                started = time.perf_counter()


def _measured(shared: _Shared, cells: Sequence[Candidate], budget: int, seed: int) -> dict[str, Array]:
    """Train networks of some cells and measure them, on a worker."""
    loop, shape, splits, threads = shared
    result = train(
        replace(loop, epochs=budget, seed=seed, replicate=budget), cells, shape, splits.dish, threads=threads
    )
    return _measurements(result, splits.labels)


def _is_built(out: Path, settings: BuildSettings, journal: Journal) -> bool:
    """Return whether the file is there and was written by the same build, which was killed just after or is called again.

    Raises
    ------
    FileExistsError
        If the file is another one.
    """
    if not out.exists():
        return False
    try:
        built = TruthTable.load(out).provenance.get("build")
    except (ValueError, OSError):
        built = None
    if built == settings.digest():
        return True
    if not len(journal):
        journal.delete()
    raise FileExistsError(f"{out} exists already: choose another name, or move it away")


def _checked_cells(cells: Sequence[Candidate]) -> Columns[Any]:
    if not len(checked_sequence("cells", cells, "spd_fast.Cell")):
        raise ValueError("cells is empty, expected at least one Cell")
    columns = columns_of(cells)
    first_of: dict[str, int] = {}
    for row, cell in enumerate(columns):
        earlier = first_of.setdefault(cell.module_hash, row)
        if earlier != row:
            raise ValueError(f"cells[{row}] is isomorphic to cells[{earlier}], expected different cells")
    return columns


def _checked_axis(name: str, values: Sequence[int], lowest: int = 0) -> tuple[int, ...]:
    axis = tuple(checked_integer(f"one of the {name}", value) for value in checked_sequence(name, values, "integers"))
    if not axis or list(axis) != sorted(set(axis)) or axis[0] < lowest:
        raise ValueError(f"{name} are {list(axis)}, expected different integers of at least {lowest}, ascending")
    return axis


def _split(data: ImageData, shape: Shape, image_size: int, counts: dict[str, int], split_seed: int) -> _Splits:
    """Draw the images of the three splits, resample them and normalise them."""
    channels = data.train_images.shape[1]
    if channels != shape.image_channels:
        raise ValueError(
            f"{data.name} has images of {channels} channels, expected {shape.image_channels}, those of shape"
        )
    classes = 1 + max(int(labels.max()) for labels in (data.train_labels, data.test_labels) if labels is not None)
    if classes > shape.classes:
        raise ValueError(f"{data.name} has labels 0 to {classes - 1}, expected {shape.classes} classes, those of shape")
    shape.require_images((channels, image_size, image_size))
    for name, n in counts.items():
        if n < 1:
            raise ValueError(f"{n} {name} images are asked for, expected at least 1")
    order = np.random.Generator(np.random.PCG64(split_seed)).permutation(len(data.train_images))
    fit_and_valid = counts["train"] + counts["validation"]
    needed = fit_and_valid + (counts["test"] if data.test_images is None else 0)
    if needed > len(order):
        raise ValueError(
            f"n_train, n_valid and n_test ask for {needed} of the images in {data.name}, which has {len(order)}: ask for fewer"
        )
    chosen = {
        "train": (data.train_images, data.train_labels, order[: counts["train"]]),
        "validation": (data.train_images, data.train_labels, order[counts["train"] : fit_and_valid]),
        "test": (data.train_images, data.train_labels, order[fit_and_valid:needed]),
    }
    if data.test_images is not None and data.test_labels is not None:
        rest = np.random.Generator(np.random.PCG64(split_seed)).permutation(len(data.test_images))
        if counts["test"] > len(rest):
            raise ValueError(
                f"n_test is {counts['test']}, expected at most {len(rest)}: the test images of {data.name}"
            )
        chosen["test"] = (data.test_images, data.test_labels, rest[: counts["test"]])
    images = {name: resize_images(source[rows], image_size) for name, (source, _, rows) in chosen.items()}
    labels = {name: source[rows] for name, (_, source, rows) in chosen.items()}
    mean = images["train"].mean(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    deviation = images["train"].std(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    if not (deviation > 0).all():
        raise ValueError(f"the training images of {data.name} are constant, expected images that differ")
    images = {name: ((array - mean) / deviation).astype(np.float32) for name, array in images.items()}
    dish = Dish(
        images["train"],
        labels["train"],
        np.concatenate([images["validation"], images["test"]]),
        np.concatenate([labels["validation"], labels["test"]]),
    )
    return _Splits(dish, labels)


def _measurements(result: TrainResult, labels: Mapping[str, Array]) -> dict[str, Array]:
    """Return accuracies and losses on the three splits, shape (K,) each.

    The validation logits are those of the validation images, then of the test images.
    """
    assert result.train is not None
    assert result.valid is not None
    validation, test = np.split(result.valid.logits, [len(labels["validation"])], axis=1)
    found: dict[str, Array] = {"seconds": result.seconds}
    for split, logits in (("train", result.train.logits), ("validation", validation), ("test", test)):
        z = logits.astype(np.float64)
        z[result.diverged] = np.nan  # argmax of NaN is class 0
        true = labels[split]
        found[f"{split}_accuracy"] = (z.argmax(axis=2) == true).mean(axis=1)
        top = z.max(axis=2, keepdims=True)
        log_total = np.log(np.exp(z - top).sum(axis=2)) + top[:, :, 0]
        found[f"{split}_loss"] = (log_total - z[:, np.arange(len(true)), true]).mean(axis=1)
    return found


def _tabulated(
    records: Mapping[tuple[int, int, int], Mapping[str, Any]],
    n: int,
    budgets: tuple[int, ...],
    seeds: tuple[int, ...],
) -> dict[str, npt.NDArray[np.floating]]:
    arrays = {name: np.empty((n, len(budgets), len(seeds)), np.float32) for name in MEASUREMENTS}
    for (cell, budget, seed), record in records.items():
        for name, array in arrays.items():
            array[cell, budgets.index(budget), seeds.index(seed)] = float(record[name])
    return dict(arrays)


def _provenance(data: ImageData, settings: BuildSettings, arrays: Mapping[str, Array]) -> dict[str, Any]:
    machine = describe_machine()
    size, test_set = settings.image_size, "the test set" if data.test_images is not None else "the same set"
    elsewhere = ("cells", "n_cells", "budgets", "seeds", "version")  # in arrays of the file, or under other names below
    facts = {name: value for name, value in asdict(settings).items() if name not in elsewhere}
    return facts | {
        "data": Path(data.name).name,
        "images_sha256": facts.pop("images"),
        "build": settings.digest(),
        "splits": f"{settings.n_train} training and {settings.n_valid} validation images, {settings.n_test} test images from {test_set}",
        "preprocessing": f"resampled by area to {size} x {size}, normalised by mean and deviation of the training images",
        "schedule": "cosine to 0 over each budget, every budget trained from scratch",
        "statistics": "batch norm's running statistics",
        "thread_hours": round(float(arrays["seconds"].sum(dtype=np.float64)) / 3600, 3),
        "machine": machine["processor"],
        "engine": f"spd_fast {machine['version']}, {machine['instruction_set']}, {machine['compiler']}",
        "date": date.today().isoformat(),
    }
