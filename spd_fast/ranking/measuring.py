"""Learning curves of many cells, replicate by replicate, kept on the disk as they come."""

import os
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

import spd_fast._core as _core
from spd_fast.base.executors import Spread
from spd_fast.base.stores import Journal, array_of, content_digest, text_of
from spd_fast.base.sums import mean_of
from spd_fast.base.types import Array
from spd_fast.dish import Dish
from spd_fast.motif import MotifShape, count_flops, count_flops_table
from spd_fast.outer.start import start_dish
from spd_fast.predictors.readings import motif_readings, readings_of_piece
from spd_fast.ranking.parts import Parts, is_folder_of_parts
from spd_fast.recipes.settings import Recipe
from spd_fast.scoring import training_passes
from spd_fast.spaces.candidate import Columns
from spd_fast.spaces.cell_columns import CellColumns

__all__ = [
    "ORDER",
    "SCHEMA",
    "Curves",
    "flops_of",
]

SCHEMA: Final = "spd_fast.curves/2"
"""Version of the journal's records."""
ORDER: Final = (6, 7, 4, 2, 3, 1, 5, 0)
"""The replicates of the recipe `curves` in the order in which they are trained. Their random images differ in how well they rank, so that few
replicates rank best where the best ones come first. The order was chosen on development cells (docs/notes/label_free.md)."""


@dataclass(eq=False)
class Curves:
    """What motifs of cells show on an unlearned dish, replicate by replicate.

    Attributes
    ----------
    cells : CellColumns or NatsColumns, length n
        No two the same.
    recipe : Recipe
        Motif, dish and inner loop, of eight replicates.
    threads : int, optional
    motifs : int, optional
        Number of replicates R of each cell that are measured at most, the first ones of `ORDER`. Default: all of them.
    cost : ndarray, shape (n,), int
        FLOPs of each cell's motif for one image; 0 where nothing leads through a cell.
    curve : ndarray, shape (R, n, M), float64
        Learning curve of each replicate of each cell, in the order of `ORDER`; NaN where it was not measured or a motif diverged.
    score : ndarray, shape (R, n), float64
        Label-free score of each replicate of each cell: that of `spd_fast.scoring.score_cells`, about 0 for a middling
        cell of the space; larger is better. NaN as in `curve`.
    done : ndarray, shape (n,), int
        Number of first replicates that were measured of each cell.
    has : ndarray, shape (R, n), bool, read-only
        Which replicates were measured of each cell. An executor may measure a later one before an earlier one.
    seconds : float
        Seconds of one core in which this object trained motifs.
    """

    cells: Columns[Any]
    recipe: Recipe
    threads: int | None
    motifs: int | None = None
    cost: npt.NDArray[np.int64] = field(init=False)
    curve: Array = field(init=False)
    score: Array = field(init=False)
    done: npt.NDArray[np.int64] = field(init=False)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        n, replicates = len(self.cells), self.motifs or len(ORDER)
        pieces = min(8, self.recipe.steps)
        self.curve = np.full((replicates, n, pieces), np.nan)
        self.score = np.full((replicates, n), np.nan)
        self.done = np.zeros(n, np.int64)
        self._kept = np.zeros((len(ORDER), n), bool)
        self.cost = flops_of(self.cells, cast(MotifShape, self.recipe.shape), self.recipe.dish.image_size)
        self._dish: Dish = start_dish(self.recipe)
        self._journal: Journal | None = None
        self._planned: dict[str, int] | None = None
        self._parts: Parts | None = None

    @property
    def has(self) -> npt.NDArray[np.bool_]:
        """Which replicates were measured of each cell, shape (R, n)."""
        return self._kept[: len(self.score)]

    def keep_in(self, path: str | os.PathLike[str]) -> None:
        """Keep measurements from now on, and take those that were kept already: in a file, or in a folder of Parquet files (`Parts`).

        Raises
        ------
        ValueError
            If there are measurements of other cells or of another recipe, or something is damaged.
        OSError
            If it cannot be written, or another process writes it.
        ImportError
            If a folder is meant and pyarrow is not installed.
        """
        in_parts = is_folder_of_parts(path)
        if in_parts:
            self._parts = Parts(path, self.cells, self.curve.shape[2])
        remedy = f"remove {os.fspath(path)} or choose another name with --out"
        journal = Journal(self._parts.journal if self._parts else path, SCHEMA, remedy=remedy)
        self._journal = journal  # so that `close` closes it, whatever is raised below
        recipe = self.recipe.model_dump(mode="json")
        journal.bind(
            {
                "version": _core.version,
                "cells": content_digest({name: getattr(self.cells, name) for name in self.cells.names}),
                "recipe": recipe,
            }
        )
        if self._parts is not None:
            for rows, replicates, curve, score in self._parts.read():
                self._take(rows, replicates, curve, score)
        for record in journal.records:
            if "motifs" in record:
                self._planned = {name: int(record[name]) for name in ("motifs", "of_each")}
                continue
            rows, place = array_of(record["rows"], np.int64), int(record["place"])
            measured = array_of(record["curve"]).reshape(len(rows), -1), array_of(record["score"])
            # a process may have died after it had written a part, before it emptied the journal
            if self._parts is not None:
                fresh = ~self._kept[place, rows]
                self._parts.add(rows[fresh], place, measured[0][fresh], measured[1][fresh])
            self._take(rows, np.full(len(rows), place), *measured)

    def plan(self, motifs: int) -> None:
        """Note how many motifs there are to train without a budget, for those who watch the file."""
        planned = {"motifs": motifs, "of_each": len(self.score)}
        if self._journal is not None and planned != self._planned:
            self._journal.append([planned])
            self._planned = planned

    def finish(self) -> None:
        """Write what is in the journal as the last part, where measurements are kept in parts."""
        if self._parts is not None and self._journal is not None:
            planned = self._planned
            self._parts.write()
            self._journal.keep(1)  # the first plan; without any record the journal would take other cells
            if planned is not None:
                self._journal.append([planned])

    def close(self) -> None:
        """Close the file."""
        if self._journal is not None:
            self._journal.close()

    def measure(self, rows: npt.NDArray[np.int64], place: int) -> None:
        """Train one motif of each of these cells, whose replicate has this place in `ORDER`, and remember what it shows: NaN of a cell that
        nothing leads through."""
        trained = self.cost[rows] > 0
        curve, score = self._nothing(len(rows))
        if trained.any():
            found = motif_readings(
                self._dish,
                self.recipe,
                [self.cells[row] for row in rows[trained].tolist()],
                replicates=[ORDER[place]],
                threads=self.threads,
            )
            self.seconds += float(found.seconds.sum())
            curve[trained], score[trained] = found.curve, found.score
        self._keep(rows, place, curve, score)

    def measure_by(
        self,
        spread: Spread,
        rows: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
        *,
        longest_first: bool = True,
        until: Callable[[], bool] | None = None,
    ) -> Generator[npt.NDArray[np.int64]]:
        """Train motifs by an executor, as `measure` does: of each of these rows the replicate of the place beside it, in any order.

        The rows of each piece are yielded when it is kept. The last arguments are those of `Spread.run`.
        """
        empty = self.cost[rows] == 0
        for place in np.unique(places[empty]).tolist():
            here = rows[empty & (places == place)]
            self._keep(here, place, *self._nothing(len(here)))
            yield here
        rows, places = rows[~empty], places[~empty]
        pieces = spread.run(
            readings_of_piece,
            (self._dish, self.recipe, spread.threads),
            self.cost[rows] * training_passes(self.recipe),
            lambda place, which: (self.cells[rows[which]], ORDER[place]),  # as columns, of which workers make cells
            groups=places,
            longest_first=longest_first,
            until=until,
        )
        with closing(pieces):
            for place, which, found in pieces:
                self.seconds += float(found.seconds.sum())
                self._keep(rows[which], place, found.curve, found.score)
                yield rows[which]

    def _nothing(self, n: int) -> tuple[Array, Array]:
        return np.full((n, self.curve.shape[2]), np.nan), np.full(n, np.nan)

    def _keep(self, rows: npt.NDArray[np.int64], place: int, curve: Array, score: Array) -> None:
        self._take(rows, np.full(len(rows), place), curve, score)
        if self._journal is None:
            return
        record = {"place": place, "rows": text_of(rows), "curve": text_of(curve), "score": text_of(score)}
        self._journal.append([record])
        if self._parts is not None and self._parts.add(rows, place, curve, score):
            self.finish()

    def _take(self, rows: npt.NDArray[np.int64], places: npt.NDArray[np.int64], curve: Array, score: Array) -> None:
        self._kept[places, rows] = True
        wanted = places < len(self.score)  # there may be more, of a ranking that took more motifs
        rows, places = rows[wanted], places[wanted]
        self.curve[places, rows], self.score[places, rows] = curve[wanted], score[wanted]
        self.done[rows] = np.logical_and.accumulate(self.has[:, rows], axis=0).sum(axis=0)

    def first(self, replicates: int) -> list[int]:
        """Return the places of so many first replicates, in the order in which `spd_fast.predictors` adds them, so that sums have the same bits."""
        return sorted(range(replicates), key=ORDER.__getitem__)

    def mean_score_of(self, rows: npt.NDArray[np.int64], replicates: int) -> Array:
        """Return the label-free scores of cells as means over their first replicates: shape (len(rows),)."""
        return mean_of([self.score[place, rows] for place in self.first(replicates)])

    def mean_curve(self, rows: npt.NDArray[np.int64], replicates: int) -> Array:
        """Return the learning curves of cells as means over their first replicates: shape (len(rows), M)."""
        return mean_of([self.curve[place, rows] for place in self.first(replicates)])

    def mean_curves(self) -> Array:
        """Return the learning curves of all cells as means over the replicates that were measured, NaN where there are none."""
        found = np.full(self.curve.shape[1:], np.nan)
        for replicates in np.unique(self.done[self.done > 0]).tolist():
            rows = np.flatnonzero(self.done == replicates)
            found[rows] = self.mean_curve(rows, replicates)
        return found

    def mean_score(self) -> Array:
        """Return the scores of all cells as means over the replicates that were measured, NaN where there are none."""
        total = np.zeros(len(self.cells))
        for place in self.first(len(self.score)):
            total += np.where(place < self.done, self.score[place], 0.0)
        return np.where(self.done > 0, total / np.maximum(self.done, 1), np.nan)


def flops_of(cells: Columns[Any], shape: MotifShape, image_size: int | tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the FLOPs of the network of this shape around each cell, for one image; 0 where nothing leads through a cell."""
    if isinstance(cells, CellColumns):
        return count_flops_table(cells.vertices, cells.edge_bits, cells.op_codes, shape, image_size)
    return np.array([count_flops(cell, shape, image_size) if cell.matrix.any() else 0 for cell in cells], np.int64)
