"""Weight sharing: one set of weights for all cells of a space, trained on real images, by which cells are ranked.

A supernet holds the weights of every role of a motif (`spd_fast.engine.supernet`). Every step of its training draws a cell, takes the
weights of that cell's motif, and updates them on a batch. Afterwards each cell is scored by its slice of the weights: by the accuracy
of its motif on validation images, as it is or after a few steps of its own.

References
----------
Bender et al. 2018, Understanding and simplifying one-shot architecture search (ICML): shared weights, and scores by slices of them.
Guo et al. 2020, Single path one-shot neural architecture search with uniform sampling, arXiv:1904.00420: one cell in each step, drawn
uniformly, and batch-norm statistics taken anew before a cell is scored.
Yu et al. 2020, Evaluating the search phase of neural architecture search, arXiv:1902.08142: weight sharing on NAS-Bench-101.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

import spd_fast._core as _core
from spd_fast.base.files import load_arrays, other_kind, require_writable, save_arrays
from spd_fast.base.machine import thread_count
from spd_fast.base.progress import share_of
from spd_fast.base.seeds import derived_seed
from spd_fast.base.stores import Journal, content_digest
from spd_fast.base.types import (
    Array,
    Progress,
    checked_instance,
    checked_integer,
    checked_number,
    checked_path,
    checked_progress,
)
from spd_fast.dish import Dish
from spd_fast.engine.specs import checked_cells
from spd_fast.engine.supernet import DivergedError, Roles, SupernetJob, SupernetState
from spd_fast.engine.training import sample_orders, train
from spd_fast.motif import MotifShape
from spd_fast.recipes.settings import (
    AdamSettings,
    DishSettings,
    InnerSettings,
    MotifSettings,
    OuterSettings,
    Recipe,
    checked_recipe,
)
from spd_fast.scoring import entered, inner_loops, read_score, shape_for
from spd_fast.spaces.candidate import Candidate, Columns
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.nats_cell import NatsCell

__all__ = ["RECIPE", "Supernet", "SupernetScores", "train_supernet"]

SCHEMA: Final = "spd_fast.supernet/1"
"""Version of the file that `Supernet.save` writes."""
_JOURNAL: Final = "spd_fast.supernet_journal/1"
_REMEDY: Final = "delete the journal to begin anew, or choose another file"
_SAVE_SECONDS: Final = 10.0  # about what a kill may cost
_FIRST_STEPS, _MOST_STEPS = 5, 1000  # of one call; memory grows with them
_SCORED_AT_ONCE: Final = 100  # cells; progress is told after them, and memory grows with them
_OWN_RATE: Final = 0.1  # the learning rate of a cell's own steps, as a share of the supernet's

RECIPE: Final = Recipe(
    name="supernet",
    summary="Weight sharing: all cells share one set of weights, which is trained on real images, a cell drawn in every step.",
    motif=MotifSettings(stem_channels=8, stacks=3),
    dish=DishSettings(images=5000, valid_images=1000, image_size=8),
    inner=InnerSettings(
        epochs=100, batch_size=50, optimizer=AdamSettings(lr=1e-2), schedule="cosine", init="shared", redraw=False
    ),
    outer=OuterSettings(metric="loss", ranking="accuracy", learn=("valid_images",)),
)
"""The settings of a supernet unless others are given. Its images are real ones only if `dish` says so."""


@dataclass(frozen=True, eq=False)
class SupernetScores:
    """How n cells score by their slices of a supernet's weights.

    Attributes
    ----------
    score : ndarray, shape (n,)
        What `ranking` of the recipe says, accuracy or minus the loss; larger is better. NaN if the cell's own steps diverged.
    accuracy, loss : ndarray, shape (n,)
        Accuracy and mean cross-entropy on the validation images, with the batch norm of these images.
    seconds : ndarray, shape (n,)
        Seconds of one core for each cell.
    """

    score: Array
    accuracy: Array
    loss: Array
    seconds: Array


@dataclass(frozen=True, eq=False)
class Supernet:
    """The weights that all cells of a space share. `train_supernet` returns it.

    Attributes
    ----------
    recipe : Recipe
    cell_type : type
        `Cell` or `NatsCell`: the cells that can be scored.
    shape : MotifShape
        Of the motifs.
    image_shape : (C, H, W)
    weights : ndarray, shape (n,)
        The weights of all roles; `roles` says where each one is.
    step_loss, step_accuracy : ndarray, shape (steps,)
        Loss and accuracy of the batch of every step, before its update.
    seconds : float
        Wall time of the training.
    identity : mapping that JSON can hold
        What the weights depend on: the recipe, and digests of the cells and the dish.
    """

    recipe: Recipe
    cell_type: type
    shape: MotifShape
    image_shape: tuple[int, int, int]
    weights: Array
    step_loss: Array
    step_accuracy: Array
    seconds: float
    identity: Mapping[str, Any]

    @cached_property
    def roles(self) -> Roles:
        """The named tensors of which `weights` consists."""
        return Roles(self.shape, self.cell_type, self.image_shape)

    def weights_of(self, cells: Sequence[Candidate]) -> list[dict[str, Array]]:
        """Return the weights of the motif of each cell by name, as ``init`` of `spd_fast.train_motifs` takes them.

        Raises
        ------
        TypeError
            If a cell is of another space.
        """
        specs = self.roles.specs(self._checked(cells))
        return [self.roles.weights_of(spec, self.weights) for spec in specs]

    def score(
        self,
        dish: Dish,
        cells: Sequence[Candidate],
        *,
        steps: int = 0,
        rate: float | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> SupernetScores:
        """Score cells by the accuracy of their motifs on validation images.

        Parameters
        ----------
        dish : Dish
            The dish that the supernet was trained on. Its validation set is read as one batch, whose statistics batch norm uses.
        cells : sequence of n Cell or NatsCell
            They need not be cells that were drawn in training.
        steps : int, >= 0
            Steps of its own that each cell is trained for before, from its slice of the weights. All cells see the same batches;
            after all training images they come in another order.
        rate : float, optional
            Learning rate of these steps, which is constant. Default: a tenth of the recipe's.
        threads, progress
            As in `spd_fast.train_motifs`.

        Raises
        ------
        ValueError
            If the dish is another one than that of the training, or has no validation set.
        TypeError
            If a cell is of another space.
        """
        checked_instance("dish", dish, Dish, "a spd_fast.Dish")
        cells, steps = self._checked(cells), checked_integer("steps", steps, 0)
        thread_count(threads)
        checked_progress(progress)
        if dish.valid_images is None:
            raise ValueError("dish has no validation images, on which cells are scored: expected dish.valid_images")
        if content_digest(dish.arrays()) != self.identity["dish"]:
            raise ValueError(
                "dish is not the one that the supernet was trained on: expected the same images, with the same recipe"
            )
        dish = entered(dish)
        loop = replace(inner_loops(self.recipe, dish).of(0), evaluate=False)
        batch, n = loop.batch(len(dish.images)), len(dish.images)
        lr = float(checked_number("rate", loop.optimizer.lr * _OWN_RATE if rate is None else rate, 0))
        whole = n // batch * batch
        orders = sample_orders(None, derived_seed(self.recipe.seed, "own steps"), max(1, -(-steps * batch // whole)), n)
        seen = orders[:, :whole].ravel()[: max(1, steps) * batch]  # one epoch of these images is all steps
        own = replace(dish, images=dish.images[seen], labels=dish.labels[seen])
        order = np.arange(len(seen))[None] if steps else None
        loop = replace(
            loop,
            epochs=int(steps > 0),
            batch_size=batch,
            order=order,
            optimizer=replace(loop.optimizer, lr=lr),
            schedule=None,
        )
        parts = []
        for at in range(0, len(cells), _SCORED_AT_ONCE):
            chunk = [cells[row] for row in range(at, min(at + _SCORED_AT_ONCE, len(cells)))]
            report = share_of(progress, at / len(cells), len(chunk) / len(cells))
            result = train(
                replace(loop, init=self.weights_of(chunk)), chunk, self.shape, own, threads=threads, progress=report
            )
            assert result.valid is not None
            score = read_score(result, self.recipe, dish)
            read = (np.where(result.diverged, np.nan, each) for each in (result.valid.accuracy, result.valid.loss))
            parts.append((score, *read, result.seconds))
        return SupernetScores(*map(np.concatenate, zip(*parts, strict=True)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the supernet as an .npz of plain arrays: a whole file or none.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        facts = {
            "cells": self.cell_type.__name__,
            "classes": self.shape.classes,
            "image_shape": list(self.image_shape),
            "recipe": json.loads(self.recipe.to_json()),
            "identity": dict(self.identity),
        }
        save_arrays(
            checked_path("path", path),
            {
                "schema": np.array(SCHEMA),
                "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
                "weights": self.weights,
                "step_loss": self.step_loss,
                "step_accuracy": self.step_accuracy,
                "seconds": np.array(self.seconds),
            },
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Supernet":
        """Read a file that `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged or not a supernet of this version.
        """
        arrays = load_arrays(checked_path("path", path), what="supernet file")
        try:
            schema = str(arrays["schema"])
            if schema != SCHEMA:
                raise ValueError(f"has schema {schema!r}, expected {SCHEMA!r}: train the supernet anew")
            facts = json.loads(arrays["facts"].tobytes())
            recipe = Recipe.from_json(json.dumps(facts["recipe"]))
            channels, height, width = facts["image_shape"]
            assert isinstance(recipe.shape, MotifShape)
            found = cls(
                recipe,
                {each.__name__: each for each in (Cell, NatsCell)}[facts["cells"]],
                replace(recipe.shape, classes=facts["classes"], image_channels=channels),
                (channels, height, width),
                arrays["weights"],
                arrays["step_loss"],
                arrays["step_accuracy"],
                float(arrays["seconds"]),
                facts["identity"],
            )
            if found.weights.shape != (found.roles.size,):
                raise ValueError(f"weights have shape {found.weights.shape}, expected ({found.roles.size},)")
            return found
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(
                f"supernet file {os.fspath(path)} cannot be read: {what}{other_kind(path, 'supernet file')}"
            ) from error

    def _checked(self, cells: Sequence[Candidate]) -> Sequence[Candidate]:
        cells = checked_cells(cells, self.shape)
        wrong = next((row for row, kind in enumerate(_types(cells)) if kind is not self.cell_type), None)
        if wrong is not None:
            raise TypeError(
                f"cells[{wrong}] is {type(cells[wrong]).__name__}, expected spd_fast.{self.cell_type.__name__}: the supernet is of that space"
            )
        return cells


def train_supernet(
    dish: Dish,
    recipe: Recipe,
    cells: Sequence[Candidate],
    *,
    file: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Supernet:
    """Train a supernet: in every step one of the cells is drawn, and its slice of the weights is updated on a batch.

    Parameters
    ----------
    dish : Dish
        Training images, and the validation images on which cells will be scored: real ones, such as
        `spd_fast.outer.start.start_dish` makes of a recipe.
    recipe : Recipe
        Its motif, its inner loop and its seed are used; `RECIPE` is one that was made for this. `inner.epochs` is the length of the
        training; a last batch of an epoch that is smaller than the others is left out.
    cells : sequence of Cell or of NatsCell
        The cells that are drawn, each with the same probability. Their accuracies are not needed.
    file : path, optional
        Where the supernet is written when it is trained. While it is, a journal and a checkpoint lie beside the file. After a
        kill, the same call continues. If the file exists, it must be the one that this same call wrote; then it is read.
    threads : int, optional
        Default: the processors that this process may use. They share each step; the weights do not depend on their number.
    progress : callable, optional
        It is called about ten times a second with the share of the steps that is done, 0 to 1.

    Returns
    -------
    Supernet

    Raises
    ------
    ValueError
        If cells, dish and recipe do not fit each other, a loss is not finite, or the journal was begun with other settings; the
        message names them.
    TypeError
        If the motifs of the recipe are not made of such cells.
    FileExistsError
        If `file` exists and is not what this call writes.
    BlockingIOError
        If another process writes the same file.
    OSError
        If `file` cannot be written.

    Notes
    -----
    The optimizer counts the steps of the supernet: in Adam's corrections 1 - beta^t, t is the number of the step, as in PyTorch's
    SparseAdam. What it remembers of a weight, and the weight, change only in steps whose cell has that weight. Batch norm uses the
    statistics of the batch. A kill loses about ten seconds of work.
    """
    checked_instance("dish", dish, Dish, "a spd_fast.Dish")
    checked_recipe(recipe)
    thread_count(threads)
    checked_progress(progress)
    shape = shape_for(recipe, dish)
    if not isinstance(shape, MotifShape):
        raise TypeError(f"the motifs of recipe {recipe.name!r} are perceptrons, expected motifs of cells")
    for name, got, expected in (
        ("init", recipe.inner.init, "shared"),
        ("replicates", recipe.inner.replicates, 1),
    ):
        if got != expected:
            raise ValueError(
                f"inner.{name} of recipe {recipe.name!r} is {got!r}, expected {expected!r}: all cells share one set of weights"
            )
    if (recipe.outer.metric, recipe.outer.ranking) == ("training_loss", "metric"):
        raise ValueError(
            f"outer.metric of recipe {recipe.name!r} is 'training_loss' with outer.ranking 'metric', expected 'loss' or 'probability', or the "
            "ranking 'accuracy': the slices of a supernet are read on validation images"
        )
    cells = checked_cells(cells, shape)
    kinds = set(_types(cells))
    if len(kinds) > 1:
        raise TypeError("cells are of NAS-Bench-101 and of NATS-Bench, expected cells of one space")
    if file is not None:
        require_writable(checked_path("file", file))
    loop = replace(inner_loops(recipe, dish).of(0), drop_last=True)
    steps = loop.steps(len(dish.images))
    rows = np.random.default_rng(derived_seed(recipe.seed, "supernet")).integers(len(cells), size=steps).tolist()
    once = {row: cells[row] for row in set(rows)}
    drawn = [once[row] for row in rows]
    keys = ";".join(cell.key for cell in drawn)
    settings = json.loads(recipe.to_json())
    settings["dish"]["source"] = None  # images count by their content, wherever they lie
    identity = {
        "version": _core.version,
        "recipe": settings,
        "cells": hashlib.sha256(keys.encode()).hexdigest()[:16],
        "dish": content_digest(dish.arrays()),
    }
    dish = entered(dish)
    channels, height, width = dish.images.shape[1:]
    roles = Roles(shape, kinds.pop(), (channels, height, width))
    job = SupernetJob(loop, roles, dish, drawn)

    def finished(state: SupernetState, seconds: float) -> Supernet:
        return Supernet(
            recipe,
            roles.cell_type,
            shape,
            (channels, height, width),
            state.weights,
            state.step_loss,
            state.step_accuracy,
            seconds,
            identity,
        )

    if file is None:
        return finished(*_trained(job, steps, None, threads, progress))
    target = Path(file)
    with Journal(f"{target}.journal", _JOURNAL, remedy=_REMEDY) as journal:
        built = _built(target, identity, journal)
        if built is None:
            journal.bind(identity)
            kept = _Checkpoint(Path(f"{target}.checkpoint"), journal)
            if not len(journal):  # one of a training whose journal was removed
                kept.path.unlink(missing_ok=True)
            try:
                built = finished(*_trained(job, steps, kept, threads, progress))
            except DivergedError:  # it would diverge again
                kept.path.unlink(missing_ok=True)
                journal.delete()
                raise
            built.save(target)
        Path(f"{target}.checkpoint").unlink(missing_ok=True)
        journal.delete()
    if progress is not None:
        progress(1.0)
    return built


class _Checkpoint:
    """The last saved state of a supernet in training. Its journal names it before it is written, so that a checkpoint that no
    record names is not this training's."""

    def __init__(self, path: Path, journal: Journal) -> None:
        self.path, self._journal = path, journal

    def read(self, job: SupernetJob) -> tuple[SupernetState, float]:
        """Return the saved state, or the state before the first step, and the seconds until then."""
        known = {each["content"] for each in self._journal.records}
        if not self.path.exists() or not known:
            return job.begin(), 0.0
        arrays = load_arrays(self.path, what="checkpoint", listed=True)
        if content_digest(arrays) not in known:
            raise ValueError(f"checkpoint {self.path} is not the one that was written there: {_REMEDY}")
        step, seconds = int(arrays.pop("step")), float(arrays.pop("seconds"))
        return SupernetState(step=step, **arrays), seconds

    def write(self, state: SupernetState, seconds: float) -> None:
        """Replace the saved state as a whole."""
        numbers = {"step": np.array(state.step), "seconds": np.array(seconds)}
        arrays: dict[str, Array] = {**vars(state), **numbers}
        self._journal.append([{"step": state.step, "content": content_digest(arrays)}])
        self._journal.sync()
        save_arrays(self.path, arrays)


def _trained(
    job: SupernetJob, steps: int, kept: _Checkpoint | None, threads: int | None, progress: Progress | None
) -> tuple[SupernetState, float]:
    """Return the state after all steps, and the seconds that they took."""
    state, seconds = (job.begin(), 0.0) if kept is None else kept.read(job)
    size = _FIRST_STEPS
    while state.step < steps:
        began = time.perf_counter()
        now = min(size, steps - state.step)
        report = share_of(progress, state.step / steps, now / steps)
        state = job.advance(state, now, threads=threads, progress=report)
        spent = time.perf_counter() - began
        seconds += spent
        if kept is not None and state.step < steps:
            kept.write(state, seconds)
        size = int(np.clip(_SAVE_SECONDS / max(spent, 1e-6) * now, 1, _MOST_STEPS))
    return state, seconds


def _built(file: Path, identity: Mapping[str, Any], journal: Journal) -> Supernet | None:
    """Return the supernet that the same call wrote before, or None where there is no file.

    Raises
    ------
    FileExistsError
        If the file is another one.
    """
    if not file.exists():
        return None
    try:
        found = Supernet.load(file)
    except (ValueError, OSError):
        found = None
    if found is not None and found.identity == json.loads(json.dumps(identity)):
        return found
    if not len(journal):
        journal.delete()
    raise FileExistsError(f"{file} exists already: choose another name, or move it away")


def _types(cells: Sequence[Candidate]) -> list[type]:
    """Return the type of every cell; of columns, the one of all rows."""
    return [cells.cell_type] if isinstance(cells, Columns) else [type(cell) for cell in cells]
