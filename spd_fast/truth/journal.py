"""The journal of a truth that is being built: its settings, its records, and the trainings that are left to do."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import Array, Progress

__all__ = [
    "journal_path",
]

_CHUNK_SECONDS: Final = 60.0  # about what a kill may cost
JOURNAL: Final = "spd_fast.truth_journal/3"


# ---- the build


@dataclass(frozen=True)
class BuildSettings:
    """All settings that the measurements depend on. A journal belongs to one set of them."""

    cells: str  # a digest of the cells
    n_cells: int
    images: str  # a digest of the images
    shape: dict[str, Any]
    budgets: tuple[int, ...]
    seeds: tuple[int, ...]
    batch_size: int
    optimizer: str
    init: str
    init_distribution: str
    batch_norm_momentum: float
    image_size: int
    n_train: int
    n_valid: int
    n_test: int
    split_seed: int
    version: str

    def digest(self) -> str:
        """Return the digest by which the file that a build wrote names its build."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


def journal_path(out: str | os.PathLike[str]) -> Path:
    """Return the path of the journal of a build that writes `out`: ``truth.npz.journal`` for ``truth.npz``."""
    return Path(f"{os.fspath(out)}.journal")


def records_of(
    measured: Mapping[str, Array], rows: npt.NDArray[np.int64], budget: int, seed: int
) -> list[dict[str, int | float | str]]:
    """Return one record for each row. NaN and infinity, which JSON does not have, become text."""
    return [
        {"cell": int(row), "budget": budget, "seed": seed}
        | {
            name: number if math.isfinite(number := float(values[k])) else str(number)
            for name, values in measured.items()
        }
        for k, row in enumerate(rows)
    ]


class Work:
    """The trainings that are left to do, in chunks that keep every thread busy for about a minute, and the share that is
    done.

    Chunks may have any size, because the result of a motif does not depend on the other motifs of a call.
    """

    def __init__(
        self,
        costs: npt.NDArray[np.float64],
        budgets: tuple[int, ...],
        seeds: tuple[int, ...],
        done: Callable[[int, int, int], bool],
        progress: Progress | None,
    ) -> None:
        self._costs = costs
        self._groups = {
            (budget, seed): np.array([row for row in range(len(costs)) if not done(row, budget, seed)], dtype=np.int64)
            for seed in seeds
            for budget in budgets
        }
        self._total = float(costs.sum()) * sum(budgets) * len(seeds)
        self._left = sum(self.cost(budget, rows) for (budget, _), rows in self._groups.items())
        self._rate = 0.0  # cost that is done in a second
        self._progress = progress

    def cost(self, budget: int, rows: npt.NDArray[np.int64]) -> float:
        """Return the cost of training these rows, in the unit of the costs."""
        return float(self._costs[rows].sum()) * budget

    def chunks(self, fewest: int) -> Iterator[tuple[int, int, npt.NDArray[np.int64]]]:
        """Yield (budget, seed, rows): at least `fewest` rows if there are as many, and more rows if they take less time."""
        self._report(0)
        for (budget, seed), rows in self._groups.items():
            while len(rows):
                within = np.cumsum(self._costs[rows]) * budget <= self._rate * _CHUNK_SECONDS
                size = max(fewest, int(within.sum()))
                if len(rows) - size < fewest:
                    size = len(rows)
                yield budget, seed, rows[:size]
                rows = rows[size:]

    def jobs(
        self,
    ) -> tuple[list[tuple[int, int]], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the (budget, seed) of each group of trainings, and of each training its group, its row and its cost."""
        self._report(0)
        groups = np.repeat(np.arange(len(self._groups)), [len(rows) for rows in self._groups.values()])
        rows = np.concatenate([np.empty(0, np.int64), *self._groups.values()])
        budgets = np.array([budget for budget, _ in self._groups])
        return list(self._groups), groups, rows, self._costs[rows] * budgets[groups]

    def reporter(self, budget: int, rows: npt.NDArray[np.int64]) -> Progress:
        cost = self.cost(budget, rows)
        return lambda share: self._report(share * cost)

    def finished(self, budget: int, seed: int, rows: npt.NDArray[np.int64], seconds: float) -> None:
        cost = self.cost(budget, rows)
        self._left -= cost
        self._rate = cost / max(seconds, 1e-3)
        self._report(0)

    def _report(self, in_work: float) -> None:
        if self._progress is not None:
            self._progress(min(1.0, max(0.0, 1 - (self._left - in_work) / self._total)))
