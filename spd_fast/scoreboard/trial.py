"""The question that a scoreboard answers: held-out cells, and a pool of labelled cells for every seed."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spd_fast.outer import runs
from spd_fast.outer.runs import Run
from spd_fast.predictors.readings import LearnedDish
from spd_fast.recipes.settings import Recipe
from spd_fast.scoreboard.judge import MIN_HELD_OUT
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
    """Held-out cells, and labelled pools for every seed; no cell of a pool is held out.

    Attributes
    ----------
    held_out : TruthTable, n cells
    pools : tuple of S TruthTable
        The labelled cells of each seed.
    seeds : tuple of S int
        They also seed the dishes.
    labels : tuple of int, ascending
        Numbers of labelled cells that are tried: of each pool the first so many.
    """

    held_out: TruthTable
    pools: tuple[TruthTable, ...]
    seeds: tuple[int, ...]
    labels: tuple[int, ...]

    def pool(self, labels: int, seed: int) -> TruthTable:
        """Return the first `labels` cells of a seed's pool: all of a pool that is smaller."""
        return self.pools[seed].subset(np.arange(min(labels, len(self.pools[seed]))))

    def digest(self) -> str:
        """Return what identifies the cells, accuracies and seeds: 16 hexadecimal digits."""
        digest = hashlib.sha256(repr(self.seeds).encode())
        for table in (self.held_out, *self.pools):
            digest.update("".join(table.hashes).encode())
            digest.update(table.accuracy.tobytes())
        return digest.hexdigest()[:16]


def draw_trial(
    truth: TruthTable, *, labels: int | Sequence[int] = 100, held_out: int = 1000, seeds: int = 5, seed: int = 0
) -> Trial:
    """Draw held-out cells and pools uniformly from a truth table, no held-out cell in any pool.

    Parameters
    ----------
    truth : TruthTable
    labels : int or several, at least 6
        Cells of each pool. Of several numbers the smaller pools are the beginnings of the largest.
    held_out : int, at least 100
        Cells that are scored. The same for every seed; pools differ.
    seeds : int, at least 1
        How many pools.
    seed : int
        Of the draw of the held-out cells.

    Raises
    ------
    ValueError
        If a number is too small, or the table holds fewer different cells than one pool and the held-out cells.
    """
    if held_out < MIN_HELD_OUT:
        raise ValueError(
            f"held_out is {held_out}, expected at least {MIN_HELD_OUT}: fewer cells say nothing about a ranking"
        )
    numbers = sorted({labels} if isinstance(labels, int) else set(labels))
    if not numbers or numbers[0] < 6:
        raise ValueError(f"labels is {labels}, expected at least 6")
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}, expected at least 1")
    most = numbers[-1]
    if len(set(truth.hashes)) < held_out + most:
        raise ValueError(
            f"the truth holds {len(set(truth.hashes))} different cells, expected at least {held_out + most}: "
            f"{held_out} held out and {most} labelled; ask for fewer"
        )
    held, rest = truth.split(held_out, seed)
    return Trial(held, tuple(rest.sample(most, each) for each in range(seeds)), tuple(range(seeds)), tuple(numbers))


def trial_of_pools(truth: TruthTable, pools: Sequence[Sequence[str]], *, held_out: int = 1000, seed: int = 0) -> Trial:
    """Draw held-out cells for pools that are given, by the hashes of their cells: those that finished runs have used.

    Raises
    ------
    ValueError
        If the truth lacks a cell of a pool or has too few others, or `held_out` is too small.
    """
    if held_out < MIN_HELD_OUT:
        raise ValueError(
            f"held_out is {held_out}, expected at least {MIN_HELD_OUT}: fewer cells say nothing about a ranking"
        )
    rows = {each: row for row, each in enumerate(truth.hashes)}
    seen = {each for pool in pools for each in pool}
    missing = sorted(seen - rows.keys())
    if missing:
        raise ValueError(
            f"{len(missing)} cells of the runs, {missing[0]} first, are not in the truth: give the runs' own"
        )
    others = truth.subset([row for each, row in rows.items() if each not in seen])
    if len(others) < held_out:
        raise ValueError(
            f"the truth holds {len(others)} cells that no run has seen, expected at least {held_out}: ask for fewer"
        )
    return Trial(
        others.sample(held_out, seed),
        tuple(truth.subset([rows[each] for each in pool]) for pool in pools),
        tuple(range(len(pools))),
        (max(map(len, pools), default=0),),
    )


def pool_of_run(run: Run, truth: TruthTable) -> list[str]:
    """Return the hashes of the cells whose accuracies a run has used: those it compared and those it kept out.

    Parameters
    ----------
    run : Run
    truth : TruthTable
        The one that the run was begun with.
    """
    from spd_fast.outer.pool import split_pool

    seen = {each for record in run.records() for each in record["cells"]}
    _, kept_out = split_pool(len(truth), run.recipe)
    return sorted(seen | {truth.hashes[row] for row in kept_out.tolist()})


def trial_of_runs(
    folders: Sequence[str | os.PathLike[str]], truth: TruthTable, *, held_out: int = 1000, seed: int = 0
) -> tuple[Trial, Recipe, list[LearnedDish]]:
    """Draw held-out cells for finished runs, whose pools are the cells that they have used.

    Parameters
    ----------
    folders : sequence of path
        Run folders of one recipe, which differ in their seeds alone.
    truth : TruthTable
        The one that the runs were begun with.
    held_out, seed
        As in `trial_of_pools`.

    Returns
    -------
    Trial
    Recipe
        That of the first run.
    list of LearnedDish
        One for each run.

    Raises
    ------
    ValueError
        If a run is not finished, or has another recipe than the first; as `trial_of_pools`.
    RunFolderError
        If a folder holds no run, or is damaged.
    """
    opened = [runs.read(each) for each in folders]
    for each in opened:
        if not each.finished:
            raise ValueError(f"{each.path} is not finished: continue it with spd-fast run --resume --out {each.path}")
    first = opened[0].recipe
    for each in opened:
        if each.recipe.replace({"seed": first.seed}) != first:
            raise ValueError(
                f"{each.path} has another recipe than {opened[0].path}, expected runs that differ in their seeds alone"
            )
    trial = trial_of_pools(truth, [pool_of_run(each, truth) for each in opened], held_out=held_out, seed=seed)
    learned = [
        LearnedDish(each.recipe, each.dishes()[1], seconds=sum(record["seconds"] for record in each.records()))
        for each in opened
    ]
    return trial, first, learned
