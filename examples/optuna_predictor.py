"""A predictor inside an Optuna study: random cells first, then those that `SPDPredictor` expects most of.

    pip install optuna
    python examples/optuna_predictor.py                                          # on the truth that ships
    python examples/optuna_predictor.py --truth nb101_test108.npz --cells 2000

A trial is a cell, its value the cell's measured accuracy, here looked up in a truth table: put your own training in `objective`. What
is fitted are the finished trials, so a study in a database continues where it was stopped.
"""

import argparse

import numpy as np
import optuna

import spd_fast as spd


def search(
    study: optuna.Study, cells: spd.TruthTable, predictor: spd.SPDPredictor, *, start: int, trials: int, batch: int
) -> None:
    """Try `start` cells at random, then batches of those with the best predictions, up to so many trials."""
    rows = {each: row for row, each in enumerate(cells.hashes)}

    def objective(trial: optuna.Trial) -> float:
        return float(cells.accuracy[rows[trial.suggest_categorical("cell", cells.hashes)]])

    order = np.random.default_rng(0).permutation(len(cells)).tolist()
    while (done := len(tried := [rows[trial.params["cell"]] for trial in finished(study)])) < trials:
        rest = [row for row in order if row not in set(tried)]
        if done >= start:
            known = cells.subset(tried)
            expected = predictor.fit(known.cells, known.accuracy).query(cells.subset(rest).cells)
            rest = [rest[i] for i in np.argsort(-expected, kind="stable")]
        for row in rest[: batch if done >= start else start - done]:
            study.enqueue_trial({"cell": cells.hashes[row]})
            study.optimize(objective, n_trials=1)


def finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that have a value; one that was stopped has none."""
    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))


def main() -> None:
    """Run a study and say how far its best cell lies below the best of the table, beside as many cells at random."""
    parser = argparse.ArgumentParser(description="Search a truth table by an Optuna study with a predictor.")
    parser.add_argument("--truth", help="a truth file; default: the one in the package")
    parser.add_argument("--cells", type=int, help="search so many cells of it; default: all")
    parser.add_argument("--start", type=int, default=20, help="random trials before the first prediction")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--batch", type=int, default=10, help="trials between two fits")
    parser.add_argument("--features", default="structure,curves", help="what the predictor sees")
    parser.add_argument(
        "--storage", help="Optuna storage such as sqlite:///study.db, to continue later; default: memory"
    )
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    truth = spd.TruthTable.load(options.truth)
    cells = truth.sample(len(set(truth.hashes)) if options.cells is None else options.cells, seed=0)
    study = optuna.create_study(
        direction="maximize", storage=options.storage, study_name="spd_fast", load_if_exists=True
    )
    predictor = spd.SPDPredictor(features=tuple(options.features.split(",")))
    search(study, cells, predictor, start=options.start, trials=options.trials, batch=options.batch)
    best, tried = cells.accuracy.max(), len(finished(study))
    print(f"best cell {study.best_trial.params['cell']}")
    print(f"regret of {tried} trials {best - study.best_value:.5f}")
    print(f"regret of as many random cells {best - cells.sample(tried, seed=1).accuracy.max():.5f}")


if __name__ == "__main__":
    main()
