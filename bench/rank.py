"""How good a ranking is: the tables of docs/rank.md.

For each draw, cells of a truth are dealt out to labelled cells and candidates, without repeated cells. The candidates are ranked
four times: with all motifs measured, by `SPDPredictor`, with a budget of a quarter of the time that measuring all of
them took, and by structure alone. The first two must agree: they are the same predictor. Then intervals are judged: from the cells of a draw, which are all
measured by now, labelled cells are drawn anew, in several numbers, and the share of the other cells' accuracies inside
their 90 % intervals is counted.

    python bench/rank.py nb101_test108.npz --out rank.json    # 200 seconds of one core for each draw

Each draw is printed and written as it comes.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from spd_fast import Ranking, SPDPredictor, TruthTable, rank, recipes
from spd_fast.base.files import atomic_write
from spd_fast.base.machine import describe_machine
from spd_fast.base.ranks import kendall_tau
from spd_fast.base.types import Array
from spd_fast.predictors.features import structural_features
from spd_fast.predictors.gaussian_process import fit_gaussian_process
from spd_fast.ranking.measuring import Curves

POOLS = (10, 15, 30, 100, 300)
WAYS = ("structure", "budget", "all", "predictor")
DEALS = 8  # of each number of labelled cells, in each draw


def judged(score: Array, reached: Array) -> dict[str, float]:
    """Return tau, and how many of the ten candidates ranked first are truly among the best tenth and among the best ten."""
    first = set(np.argsort(-score, kind="stable")[:10].tolist())
    best = np.argsort(-reached, kind="stable").tolist()
    return {
        "tau": kendall_tau(score, reached),
        "in_best_tenth": len(first & set(best[: max(10, len(best) // 10)])),
        "in_best_ten": len(first & set(best[:10])),
    }


def intervals(cells: Any, curves: Curves, accuracy: Array, seed: int) -> list[dict[str, float]]:
    """Return the share of accuracies inside 90 % intervals, and their median width, for every number of labelled cells."""
    rows, found = np.arange(len(cells)), []
    everything = (
        curves.mean_score()[:, None],
        structural_features(cells),
        curves.mean_curve(rows, len(curves.score)),
    )
    for n in POOLS:
        for deal in range(DEALS if n < len(cells) // 2 else 0):
            order = np.random.default_rng([seed, n, deal]).permutation(len(cells))
            known, others = order[:n], order[n:]
            process = fit_gaussian_process([each[known] for each in everything], accuracy[known], has_prior=True)
            score, lower, upper = process.predict_interval(
                np.concatenate([each[others] for each in everything], axis=1)
            )
            inside = (lower <= accuracy[others]) & (accuracy[others] <= upper)
            found.append(
                {
                    "labelled": n,
                    "inside": float(inside.mean()),
                    "width": float(np.median(upper - lower)),
                    "tau": kendall_tau(score, accuracy[others]),
                }
            )
    return found


def draw(truth: TruthTable, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Rank the candidates of one draw in four ways, and judge intervals."""
    both = truth.sample(options.labelled + options.candidates, seed)
    rows = np.arange(len(both))
    labelled, others = both.subset(rows[: options.labelled]), both.subset(rows[options.labelled :])
    given = (list(others.cells), list(labelled.cells), labelled.accuracy)
    found: dict[str, Any] = {"seed": seed}

    def keep(name: str, score: Array, seconds: float, ranking: Ranking | None = None) -> None:
        motifs = 0.0 if ranking is None else float(ranking.replicates.mean())
        found[name] = judged(score, others.accuracy) | {"seconds": seconds, "motifs": motifs}

    with TemporaryDirectory() as folder:
        measured = Path(folder) / "measured"
        ranking = rank(*given, measured=measured, threads=options.threads)
        assert ranking.accuracy is not None
        keep("all", ranking.accuracy, ranking.seconds, ranking)
        curves = Curves(both.cells, recipes.get("curves"), options.threads)
        curves.keep_in(measured)
        curves.close()
    found["intervals"] = intervals(both.cells, curves, both.accuracy, seed)
    structure = rank(*given, budget=0)
    assert structure.accuracy is not None
    keep("structure", structure.accuracy, structure.seconds, structure)
    found["label_free"] = {"tau": kendall_tau(ranking.label_free, others.accuracy)}
    budget = rank(*given, budget=options.share * ranking.seconds, threads=options.threads)
    assert budget.accuracy is not None
    keep("budget", budget.accuracy, budget.seconds, budget)
    if seed >= options.predictors:
        return found
    began = time.perf_counter()
    predictor = SPDPredictor(threads=options.threads).fit(labelled.cells, labelled.accuracy)
    keep("predictor", predictor.query(others.cells), time.perf_counter() - began)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", type=Path, help="truth file")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--labelled", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--share", type=float, default=0.25, help="budget, as a share of the time that all motifs take")
    parser.add_argument(
        "--predictors", type=int, default=10**6, help="draws in which SPDPredictor is fitted, too; default: all"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--out", type=Path, help="file for the figures (JSON); draws that it has are not measured again"
    )
    options = parser.parse_args()
    truth = TruthTable.load(options.truth)
    settings = {name: getattr(options, name) for name in ("labelled", "candidates", "share")}
    before = json.loads(options.out.read_text()) if options.out is not None and options.out.exists() else None
    if before is not None and before["settings"] != settings:
        parser.error(f"{options.out} was begun with {before['settings']}, expected {settings}: choose another file")
    draws = [] if before is None else before["draws"]
    for seed in range(len(draws), options.draws):
        draws.append(draw(truth, seed, options))
        for name in filter(draws[-1].__contains__, WAYS):
            print(f"draw {seed} {name:9}", {key: round(value, 4) for key, value in draws[-1][name].items()}, flush=True)
        if options.out is not None:
            record = {"machine": describe_machine(), "settings": settings, "draws": draws}
            with atomic_write(options.out) as file:
                file.write(json.dumps(record, indent=1).encode())
    print(
        "\n| ranked by | tau | of the first ten in the best tenth | in the best ten | motifs of a candidate |\n|---|---|---|---|---|"
    )
    for name in WAYS:
        keys, having = ("tau", "in_best_tenth", "in_best_ten", "motifs"), [each for each in draws if name in each]
        if not having:
            continue
        tau, tenth, ten, motifs = (np.mean([each[name][key] for each in having]) for key in keys)
        print(f"| {name} | {tau:.3f} | {tenth:.1f} | {ten:.1f} | {motifs:.1f} |")
    print("\n| labelled | draws | inside 90 % intervals | standard deviation | median width |\n|---|---|---|---|---|")
    for n in POOLS:
        rows = [each for found in draws for each in found["intervals"] if each["labelled"] == n]
        if rows:
            inside, width = np.array([[each["inside"], each["width"]] for each in rows]).T
            print(f"| {n} | {len(rows)} | {inside.mean():.3f} | {inside.std():.3f} | {width.mean():.4f} |")


if __name__ == "__main__":
    main()
