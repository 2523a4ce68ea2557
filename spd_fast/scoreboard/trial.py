"""The trial, which is the question that a scoreboard answers: test cells, and a pool of labelled cells for every seed."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spd_fast.base.types import checked_instance, checked_integer, checked_list, checked_names, checked_path, plain
from spd_fast.outer import runs
from spd_fast.outer.runs import Run
from spd_fast.predictors.readings import LearnedDish
from spd_fast.recipes.settings import Recipe
from spd_fast.scoreboard.judge import MIN_TEST_CELLS
from spd_fast.truth.table import TruthTable

__all__ = [
    "Trial",
    "draw_trial",
    "pool_of_run",
    "trial_of_pools",
    "trial_of_runs",
]


# ---- the question


@dataclass(frozen=True, eq=False)
class Trial:
    """Test cells, and a pool of labelled cells for every seed. No pool holds a test cell.

    Attributes
    ----------
    test_cells : TruthTable, n cells
    pools : tuple of S TruthTable
        The labelled cells of each seed.
    seeds : tuple of S int
        Seeds of the pools, which also seed the dishes.
    pool_sizes : tuple of int, ascending
        The sizes of the pools that the rows learn from. A smaller pool is the beginning of the larger one.
    """

    test_cells: TruthTable
    pools: tuple[TruthTable, ...]
    seeds: tuple[int, ...]
    pool_sizes: tuple[int, ...]

    def pool(self, pool_size: int, seed: int) -> TruthTable:
        """Return the first `pool_size` cells of a seed's pool, or all of a smaller pool."""
        pool_size, seed = (
            checked_integer("pool_size", pool_size, 0),
            checked_integer("seed", seed, 0, len(self.pools) - 1),
        )
        return self.pools[seed].subset(np.arange(min(pool_size, len(self.pools[seed]))))

    def digest(self) -> str:
        """Return a digest of cells, accuracies and seeds: 16 hexadecimal digits."""
        digest = hashlib.sha256(repr(self.seeds).encode())
        for table in (self.test_cells, *self.pools):
            digest.update("".join(table.hashes).encode())
            digest.update(table.accuracy.tobytes())
        return digest.hexdigest()[:16]


def draw_trial(
    truth: TruthTable, *, pool_sizes: int | Sequence[int] = 100, test_cells: int = 1000, seeds: int = 5, seed: int = 0
) -> Trial:
    """Draw test cells and pools uniformly from a truth table, with no test cell in any pool.

    Cells of which no motif can be trained are left out (`TruthTable.trainable`). They are told from others without any score.

    Parameters
    ----------
    truth : TruthTable
    pool_sizes : int or sequence of int, at least 6
        How many cells a pool has. If there are several sizes, a smaller pool is the beginning of the largest one.
    test_cells : int, at least 100
        Number of test cells. They are the same for every seed; pools differ.
    seeds : int, at least 1
        Number of pools.
    seed : int
        Seed of the draw of the test cells.

    Raises
    ------
    ValueError
        If a number is too small, or the table holds fewer different cells than a pool and the test cells need.
    """
    _require_truth(truth)
    test_cells, seeds, seed = (
        _checked_test_cells(test_cells),
        checked_integer("seeds", seeds, 1),
        checked_integer("seed", seed),
    )
    given = plain(pool_sizes)
    sizes = [given] if isinstance(given, int) else checked_list("pool_sizes", given, "integers, or an integer")
    numbers = sorted({checked_integer("pool_sizes", size) for size in sizes})
    if not numbers or numbers[0] < 6:
        raise ValueError(f"pool_sizes is {pool_sizes}, expected at least 6")
    truth, most = truth.trainable(), numbers[-1]
    if len(set(truth.hashes)) < test_cells + most:
        raise ValueError(
            f"the truth holds {len(set(truth.hashes))} different cells, expected at least {test_cells + most}: "
            f"{test_cells} test cells and {most} labelled cells; ask for fewer"
        )
    tested, rest = truth.split(test_cells, seed)
    return Trial(tested, tuple(rest.sample(most, each) for each in range(seeds)), tuple(range(seeds)), tuple(numbers))


def _require_truth(truth: TruthTable) -> None:
    checked_instance("truth", truth, TruthTable, "a spd_fast.TruthTable; TruthTable.load reads one")


def _checked_test_cells(test_cells: int) -> int:
    n = checked_integer("test_cells", test_cells)
    if n < MIN_TEST_CELLS:
        raise ValueError(
            f"test_cells is {n}, expected at least {MIN_TEST_CELLS}: fewer cells say nothing about a ranking"
        )
    return n


def trial_of_pools(
    truth: TruthTable, pools: Sequence[Sequence[str]], *, test_cells: int = 1000, seed: int = 0
) -> Trial:
    """Draw test cells for given pools, which are the hashes of the cells that finished runs have used.

    Raises
    ------
    ValueError
        If the truth lacks a cell of a pool or has too few others, or `test_cells` is too small.
    """
    _require_truth(truth)
    test_cells, seed = _checked_test_cells(test_cells), checked_integer("seed", seed)
    pools = [checked_names("one of pools", pool, truth.hashes[0]) for pool in checked_list("pools", pools, "hashes")]
    rows = {each: row for row, each in enumerate(truth.hashes)}
    seen = {each for pool in pools for each in pool}
    missing = sorted(seen - rows.keys())
    if missing:
        raise ValueError(
            f"{len(missing)} cells of the runs are not in the truth, the first is {missing[0]}: give the truth of the runs"
        )
    others = truth.subset([row for each, row in rows.items() if each not in seen]).trainable()
    if len(others) < test_cells:
        raise ValueError(
            f"the truth holds {len(others)} cells that no run has used, expected at least {test_cells}: ask for fewer test cells"
        )
    return Trial(
        others.sample(test_cells, seed),
        tuple(truth.subset([rows[each] for each in pool]) for pool in pools),
        tuple(range(len(pools))),
        (max(map(len, pools), default=0),),
    )


def pool_of_run(run: Run, truth: TruthTable) -> list[str]:
    """Return the hashes of the cells whose accuracies a run has used: its training cells and its validation cells.

    Of a pool of fixed size these are all of its cells, also the few that no outer epoch compared: all were labelled, and the
    target may hold ranks among all of them.

    Parameters
    ----------
    run : Run
    truth : TruthTable
        The truth that the run was begun with.
    """
    from spd_fast.outer.pool import split_pool

    used = {each for record in run.records() for each in record["cells"]}
    training_cells, validation_cells = split_pool(len(truth), run.recipe.outer, run.recipe.seed)
    pool = (
        (*training_cells.tolist(), *validation_cells.tolist()) if run.recipe.outer.pool else validation_cells.tolist()
    )
    return sorted(used | {truth.hashes[row] for row in pool})


def trial_of_runs(
    folders: Sequence[str | os.PathLike[str]], truth: TruthTable, *, test_cells: int = 1000, seed: int = 0
) -> tuple[Trial, Recipe, list[LearnedDish]]:
    """Draw test cells for finished runs, whose pools are the cells that they have used.

    Parameters
    ----------
    folders : sequence of path
        Run folders of one recipe, which differ in their seeds alone.
    truth : TruthTable
        The one that the runs were begun with. Cells of which no motif can be trained are left out, as `spd-fast run` does.
    test_cells, seed
        As in `trial_of_pools`.

    Returns
    -------
    Trial
    Recipe
        The recipe of the first run.
    list of LearnedDish
        The learned dish of each run.

    Raises
    ------
    ValueError
        If a run is not finished, or has another recipe than the first one; or as in `trial_of_pools`.
    RunFolderError
        If a folder holds no run, or is damaged.
    """
    _require_truth(truth)
    test_cells, seed = _checked_test_cells(test_cells), checked_integer("seed", seed)
    paths = [checked_path("one of folders", each) for each in checked_list("folders", folders, "run folders")]
    if not paths:
        raise ValueError("folders is empty, expected at least one run folder")
    truth, opened = truth.trainable(), [runs.read(each) for each in paths]
    for each in opened:
        if not each.finished:
            raise ValueError(f"{each.path} is not finished: continue it with spd-fast run --resume --out {each.path}")
    first = opened[0].recipe
    for each in opened:
        if each.recipe.replace({"seed": first.seed}) != first:
            raise ValueError(
                f"{each.path} has another recipe than {opened[0].path}, expected runs that differ in their seeds alone"
            )
    trial = trial_of_pools(truth, [pool_of_run(each, truth) for each in opened], test_cells=test_cells, seed=seed)
    learned = [
        LearnedDish(each.recipe, each.dishes()[1], seconds=sum(record["seconds"] for record in each.records()))
        for each in opened
    ]
    return trial, first, learned
