"""Architecture search over NAS-Bench-101: regularised evolution and random search, in the training time they would have cost.

    spd-fast nasbench convert nasbench_only108.tfrecord --out nasbench_only108.npz
    python examples/search.py nasbench_only108.npz

As in the benchmark's paper: a search trains a cell by drawing one of its runs, pays that run's training time, and goes by its
validation accuracy. Regret is how far the mean test accuracy of the cell it would give back lies below that of the best cell of
the table. Drawn is the median over repetitions with its quartiles.

References
----------
Ying et al. 2019, NAS-Bench-101, arXiv:1902.09635, section 5. Real et al. 2019, regularised evolution, arXiv:1802.01548;
population and tournament are those of the benchmark's example notebook.
"""

import argparse
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spd_fast import nasbench101
from spd_fast.nasbench101 import Table

POPULATION, TOURNAMENT = 50, 10

Search = Callable[[Table, np.random.Generator], Iterator[tuple[int, float]]]


def random_search(table: Table, rng: np.random.Generator) -> Iterator[tuple[int, float]]:
    """Yield (row, validation accuracy) of uniformly drawn cells, without end."""
    while True:
        row = int(rng.integers(len(table)))
        yield row, table.query(row, repeat=rng).validation_accuracy


def regularised_evolution(table: Table, rng: np.random.Generator) -> Iterator[tuple[int, float]]:
    """Yield (row, validation accuracy): mutants of the best of ten out of the youngest fifty cells, without end."""
    population: deque[tuple[float, int]] = deque(maxlen=POPULATION)  # the oldest falls out
    for row, accuracy in random_search(table, rng):
        population.append((accuracy, row))
        yield row, accuracy
        if len(population) == POPULATION:
            break
    while True:
        chosen = rng.choice(POPULATION, TOURNAMENT, replace=False)
        _, parent = max(population[i] for i in chosen)
        row = mutant(table, parent, rng)
        accuracy = table.query(row, repeat=rng).validation_accuracy
        population.append((accuracy, row))
        yield row, accuracy


def mutant(table: Table, parent: int, rng: np.random.Generator) -> int:
    """A mutation of a cell that the table has: of the whole benchmark, the first."""
    while True:
        child = nasbench101.mutate(table[parent], rng)
        try:
            return table.row(child)
        except ValueError:
            continue


def regret(
    table: Table, search: Search, times: npt.NDArray[np.float64], seed: int, test: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Regret at each of the `times`, ascending seconds of training, of one search: shape (len(times),), NaN before its first cell."""
    table.reset_budget()
    found, best, at = np.full(len(times), np.nan), -1.0, 0
    incumbent = np.nan
    for row, accuracy in search(table, np.random.default_rng(seed)):
        while at < len(times) and table.training_time_spent > times[at]:
            found[at] = incumbent
            at += 1
        if at == len(times):
            return found
        if accuracy > best:
            best, incumbent = accuracy, float(np.nanmax(test) - test[row])
    raise AssertionError("a search does not end by itself")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="a table that spd-fast nasbench convert wrote")
    parser.add_argument(
        "--seconds", type=float, default=1e7, help="training time of a search (default: 1e7, four months)"
    )
    parser.add_argument("--repetitions", type=int, default=20, help="searches of each kind (default: 20)")
    parser.add_argument("--out", type=Path, default=Path("regret.png"), help="(default: regret.png)")
    arguments = parser.parse_args()
    table = nasbench101.open(arguments.table)
    test = table.column("test_accuracy")
    times = np.geomspace(arguments.seconds / 1000, arguments.seconds, 60)
    curves = {}
    for name, search in (("random search", random_search), ("regularised evolution", regularised_evolution)):
        runs = np.array([regret(table, search, times, seed, test) for seed in range(arguments.repetitions)])
        curves[name] = np.nanquantile(runs[:, ~np.isnan(runs).all(axis=0)], [0.25, 0.5, 0.75], axis=0)
        print(f"{name}: regret after {arguments.seconds:.3g} s of training {curves[name][1, -1]:.5f}")
    draw(arguments.out, times, curves, arguments.repetitions)
    print(f"drawn in {arguments.out}")


def draw(
    path: Path, times: npt.NDArray[np.float64], curves: dict[str, npt.NDArray[np.float64]], repetitions: int
) -> None:
    """Draw median and quartiles of regret (3, up to len(times)) over training time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, (low, median, high) in curves.items():
        shown = times[-len(median) :]
        (line,) = axes.plot(shown, median, label=name)
        axes.fill_between(shown, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="training time spent (s)", ylabel="test regret")
    axes.set_title(f"median and quartiles of {repetitions} searches")
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
