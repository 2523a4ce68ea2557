"""Architecture search over NAS-Bench-101: regularised evolution and random search, in the training that they would have cost.

    spd-fast nasbench convert nasbench_only108.tfrecord --out nasbench_only108.npz
    python examples/search.py nasbench_only108.npz

As in the benchmark's paper: a search trains a cell by drawing one of its runs, pays that run's training time, and goes by its
validation accuracy. Regret is how far the mean test accuracy of the cell it would give back lies below that of the best cell of
the table. Drawn is the median over repetitions with its quartiles.

A truth of NAS-Bench-101's cells is taken as well (nb101_test108.npz). It knows neither runs, nor validation accuracies, nor times: then a
training gives the mean test accuracy itself and costs its epochs, so the search is spared the noise that a real one has.

References
----------
Ying et al. 2019, NAS-Bench-101, arXiv:1902.09635, section 5. Real et al. 2019, regularised evolution, arXiv:1802.01548;
population and tournament are those of the benchmark's example notebook.
"""

import argparse
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spd_fast import Cell, TruthTable, nasbench101
from spd_fast.nasbench101.table import is_table

POPULATION, TOURNAMENT = 50, 10

Training = tuple[int, float, float]  # row, the accuracy that the search goes by, cost


@dataclass(frozen=True)
class Benchmark:
    """What a search may ask. row: of a cell, or None where the benchmark lacks it; train: (accuracy, cost) of one training of a row."""

    cells: Sequence[Cell]
    test: npt.NDArray[np.floating]  # mean test accuracy, what regret is counted in
    row: Callable[[Cell], int | None]
    train: Callable[[int, np.random.Generator], tuple[float, float]]
    unit: str  # of cost
    budget: float  # of a search, where none is given


def of_table(path: Path) -> Benchmark:
    """The benchmark's own runs, validation accuracies and times."""
    table = nasbench101.open(path)

    def row(cell: Cell) -> int | None:
        try:
            return table.row(cell)
        except ValueError:
            return None

    def train(at: int, rng: np.random.Generator) -> tuple[float, float]:
        run = table.query(at, repeat=rng)
        return run.validation_accuracy, run.training_time

    return Benchmark(table, table.column("test_accuracy"), row, train, "seconds of training", 1e7)


def of_truth(path: Path) -> Benchmark:
    """Mean test accuracies alone."""
    truth = TruthTable.load(path)
    row_of = {module_hash: row for row, module_hash in enumerate(truth.hashes)}
    return Benchmark(
        truth.nasbench_cells,
        truth.accuracy,
        lambda cell: row_of.get(cell.module_hash),
        lambda at, rng: (float(truth.accuracy[at]), truth.budget),
        "epochs of training",
        2000 * truth.budget,
    )


def random_search(benchmark: Benchmark, rng: np.random.Generator) -> Iterator[Training]:
    """Train uniformly drawn cells, without end."""
    while True:
        row = int(rng.integers(len(benchmark.cells)))
        yield row, *benchmark.train(row, rng)


def regularised_evolution(benchmark: Benchmark, rng: np.random.Generator) -> Iterator[Training]:
    """Train mutants of the best of ten out of the youngest fifty cells, without end."""
    population: deque[tuple[float, int]] = deque(maxlen=POPULATION)  # the oldest falls out
    for row, accuracy, cost in random_search(benchmark, rng):
        population.append((accuracy, row))
        yield row, accuracy, cost
        if len(population) == POPULATION:
            break
    while True:
        chosen = rng.choice(POPULATION, TOURNAMENT, replace=False)
        _, parent = max(population[i] for i in chosen)
        row = mutant(benchmark, parent, rng)
        accuracy, cost = benchmark.train(row, rng)
        population.append((accuracy, row))
        yield row, accuracy, cost


def mutant(benchmark: Benchmark, parent: int, rng: np.random.Generator) -> int:
    """A mutation of a cell that the benchmark has: of the whole space, the first."""
    while True:
        row = benchmark.row(nasbench101.mutate(benchmark.cells[parent], rng))
        if row is not None:
            return row


Search = Callable[[Benchmark, np.random.Generator], Iterator[Training]]


def regret(
    benchmark: Benchmark, search: Search, budgets: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.float64]:
    """Regret of one search when it has spent each of the `budgets`, ascending; NaN before its first cell."""
    found, best, incumbent, spent, at = np.full(len(budgets), np.nan), -1.0, np.nan, 0.0, 0
    most = float(np.nanmax(benchmark.test))
    for row, accuracy, cost in search(benchmark, np.random.default_rng(seed)):
        spent += cost
        while at < len(budgets) and spent > budgets[at]:
            found[at] = incumbent
            at += 1
        if at == len(budgets):
            return found
        if accuracy > best:
            best, incumbent = accuracy, most - float(benchmark.test[row])
    raise AssertionError("a search does not end by itself")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="a table that spd-fast nasbench convert wrote, or a truth")
    parser.add_argument(
        "--budget", type=float, help="cost of a search (default: of a table 1e7 seconds, of a truth 2000 trainings)"
    )
    parser.add_argument("--repetitions", type=int, default=20, help="searches of each kind (default: 20)")
    parser.add_argument("--out", type=Path, default=Path("regret.png"), help="(default: regret.png)")
    arguments = parser.parse_args()
    benchmark = (of_table if is_table(arguments.file) else of_truth)(arguments.file)
    most = arguments.budget or benchmark.budget
    budgets = np.geomspace(most / 1000, most, 60)
    curves = {}
    for name, search in (("random search", random_search), ("regularised evolution", regularised_evolution)):
        runs = np.array([regret(benchmark, search, budgets, seed) for seed in range(arguments.repetitions)])
        curves[name] = np.nanquantile(runs[:, ~np.isnan(runs).all(axis=0)], [0.25, 0.5, 0.75], axis=0)
        low, median, high = curves[name][:, -1]
        print(
            f"{name}: regret after {most:.3g} {benchmark.unit}: quartiles {low:.5f} to {high:.5f}, median {median:.5f}"
        )
    draw(arguments.out, budgets, curves, f"{benchmark.unit} spent", arguments.repetitions)
    print(f"drawn in {arguments.out}")


def draw(
    path: Path,
    budgets: npt.NDArray[np.float64],
    curves: dict[str, npt.NDArray[np.float64]],
    cost: str,
    repetitions: int,
) -> None:
    """Draw median and quartiles of regret (3, up to len(budgets)) over what was spent."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, (low, median, high) in curves.items():
        shown = budgets[-len(median) :]
        (line,) = axes.plot(shown, median, label=name)
        axes.fill_between(shown, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel=cost, ylabel="test regret")
    axes.set_title(f"median and quartiles of {repetitions} searches")
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
