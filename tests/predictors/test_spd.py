"""Predictors: what the Gaussian process learns, that no label leaks, that files and scikit-learn's conventions hold."""

import copy
import json
import pickle
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, rankdata
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.utils.estimator_checks import check_estimator
from threadpoolctl import threadpool_info

import small
import spd_fast as spd
from spd_fast.base.errors import InvalidCellError
from spd_fast.base.files import load_arrays, save_arrays
from spd_fast.base.ranks import kendall_tau
from spd_fast.base.seeds import derived_seed
from spd_fast.dish import Dish
from spd_fast.outer.start import start_dish
from spd_fast.predictors import gaussian_process, readings
from spd_fast.predictors.features import NATS_SCALARS, structural_features
from spd_fast.predictors.gaussian_process import GaussianProcess, fit_gaussian_process
from spd_fast.predictors.readings import LearnedDish, learn_dish, learn_folds, mean_scaled, motif_readings
from spd_fast.predictors.spd import SPDPredictor
from spd_fast.recipes.settings import Recipe
from spd_fast.scoring import score_cells
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.spaces.nats_cell import NATS_OPS, NatsCell, NatsColumns
from spd_fast.truth.table import TruthTable

RECIPE = small.RECIPE
VALID = RECIPE.replace(
    {"dish.valid_images": 6, "outer.learn": ["valid_images"], "outer.metric": "loss", "outer.ranking": "metric"}
)
ALL = ("structure", "curves", "dish")


@pytest.fixture(scope="module")
def labelled() -> TruthTable:
    return TruthTable.load().sample(40, 0)


@pytest.fixture(scope="module")
def others() -> TruthTable:
    return TruthTable.load().split(40, 0)[1].sample(30, 1)


def small_predictor(**changes: Any) -> SPDPredictor:
    return SPDPredictor(RECIPE, **{"features": ALL, "curves": VALID, "folds": 2} | changes)


@pytest.fixture(scope="module")
def fitted(labelled: TruthTable) -> SPDPredictor:
    return small_predictor().fit(labelled.cells, labelled.accuracy)


# ---- motifs


def test_readings_are_those_of_the_inner_loop() -> None:
    cells, _ = small.pool()
    one, two = VALID, VALID.replace({"inner.replicates": 2})
    dish = start_dish(one)
    first, both = (motif_readings(dish, recipe, cells) for recipe in (one, two))
    assert np.array_equal(both.score, score_cells(dish, two, cells))
    assert first.curve.shape == both.curve.shape == (len(cells), 8)
    # 12 images in batches of 5 make 3 steps an epoch and 9 in all: eight pieces, the first of two steps.
    ends = [0, *range(2, 10)]
    for column, (start, end) in enumerate(pairwise(ends)):
        assert np.allclose(first.curve[:, column], np.log(first.step_loss[:, start:end].mean(axis=1)), rtol=1e-12)
    alone = motif_readings(dish, one, cells[:1])
    assert np.array_equal(alone.curve[0], first.curve[0])
    assert (first.seconds > 0).all()


def test_motifs_that_diverge_are_marked_and_rank_last() -> None:
    cells, accuracy = small.pool()
    dish = start_dish(VALID)
    wild = Dish(dish.images * np.float32(1e38), dish.labels, dish.valid_images, dish.valid_labels)
    with np.errstate(all="raise"):
        read = motif_readings(wild, VALID, cells)
    assert np.isnan(read.score).all()
    assert np.isnan(read.curve).all()
    pure = SPDPredictor(VALID, variant="dish")
    pure.dishes_, pure.process_ = (LearnedDish(VALID, wild),), None
    assert np.isneginf(pure.query(cells)).all()
    assert (LearnedDish(VALID, wild, 0.0, 1.0).scaled(read.score) == -3).all()
    process = fit_gaussian_process([read.curve], accuracy)
    assert np.isfinite(process.predict(read.curve)).all()


# ---- the Gaussian process


def test_one_group_is_scikit_learns_own_matern() -> None:
    """The same prior, the same marginal likelihood, so the same optimum and predictions.

    Both stop where L-BFGS sees relative changes below 2e-9 (its factr of 1e7 times eps); the likelihood is flat there, so that
    parameters agree to about the root of it, 5e-5, and predictions of unit scale likewise.
    """
    rng = np.random.default_rng(0)
    x, wanted = rng.normal(size=(50, 3)), rng.normal(size=(20, 3))
    y = np.sin(x[:, 0]) + 0.1 * rng.normal(size=50)
    ours = fit_gaussian_process([x], y)
    known = (x - x.mean(axis=0)) / x.std(axis=0)
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(np.sqrt(3), (1e-1, 1e3), nu=1.5) + WhiteKernel(0.3, (1e-3, 1e1))
    order = np.argsort(np.argsort(y))
    scores = norm.ppf((order + 0.5) / 50)
    theirs = GaussianProcessRegressor(kernel).fit(known, scores)
    assert np.allclose(ours.theta, theirs.kernel_.theta, atol=1e-3)
    predicted = theirs.predict((wanted - x.mean(axis=0)) / x.std(axis=0))
    back = np.interp(predicted, np.sort(scores), np.sort(y))
    inside = np.abs(predicted) < np.max(scores)
    assert np.allclose(ours.predict(wanted)[inside], back[inside], atol=1e-3 * np.ptp(y))


def test_the_kernels_gradient_by_central_differences() -> None:
    """Error of a central difference with h = 1e-5: h^2 / 6 times a third derivative of order 10, and eps / h = 2e-11."""
    x = np.random.default_rng(1).normal(size=(6, 5))
    kernel = gaussian_process.GroupedMatern((2, 3), np.array([0.7, 1.9]))
    value, gradient = kernel(x, eval_gradient=True)
    assert np.allclose(np.diag(value), 1)
    h = 1e-5
    for g in range(2):
        shift = h * np.eye(2)[g]
        above, below = (kernel.clone_with_theta(kernel.theta + sign * shift)(x) for sign in (1, -1))
        assert np.allclose(gradient[:, :, g], (above - below) / (2 * h), atol=1e-8)


def test_a_group_that_says_nothing_is_left_out() -> None:
    """Noise in a group of its own must not cost what the other group knows: its length scale goes up."""
    rng = np.random.default_rng(2)
    x, noise = rng.normal(size=(80, 2)), rng.normal(size=(80, 4))
    y = x[:, 0] + x[:, 1]
    process = fit_gaussian_process([x, noise], y)
    scales = np.exp(process.theta[1:3])
    assert scales[1] > 3 * scales[0]
    wanted = rng.normal(size=(40, 6))
    assert kendall_tau(process.predict(wanted), wanted[:, :2].sum(axis=1)) > 0.8


def test_predictions_go_up_with_normal_scores_and_meet_the_labels() -> None:
    accuracy = np.array([0.1, 0.5, 0.9, 0.91])
    knots = norm.ppf((np.arange(4) + 0.5) / 4)
    assert np.allclose(gaussian_process.accuracies_of(knots, accuracy), accuracy, rtol=1e-12)
    grid = gaussian_process.accuracies_of(np.linspace(-4, 4, 101), accuracy)
    assert (np.diff(grid) > 0).all()
    assert np.array_equal(gaussian_process.accuracies_of(np.zeros(2), np.full(3, 0.7)), [0.7, 0.7])


def test_many_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number, the kernel's parameters are found from some of the labels, spread over the accuracies; predictions rest on all."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    y = x[:, 0] + 0.1 * rng.normal(size=60)
    whole = fit_gaussian_process([x], y)
    monkeypatch.setattr(gaussian_process, "_MOST_LIKELIHOOD", 60)
    assert np.array_equal(fit_gaussian_process([x], y).theta, whole.theta)
    monkeypatch.setattr(gaussian_process, "_MOST_LIKELIHOOD", 20)
    sizes = []
    regressor = gaussian_process._regressor

    def spied(groups: tuple[int, ...], theta: Any) -> Any:
        made = regressor(groups, theta)
        fit = made.fit
        made.fit = lambda x, y: (sizes.append((len(x), float(np.ptp(y)))), fit(x, y))[1]
        return made

    monkeypatch.setattr(gaussian_process, "_regressor", spied)
    some = fit_gaussian_process([x], y)
    assert len(some.predict(x[:1])) == 1
    # Both ends are among the 20: the normal scores of ranks 1 and 60 of 60.
    assert sizes == [(20, pytest.approx(2 * norm.ppf(59.5 / 60))), (60, pytest.approx(2 * norm.ppf(59.5 / 60)))]
    assert np.array_equal(some.features, x)
    assert kendall_tau(some.predict(x), y) > 0.8
    assert np.array_equal(fit_gaussian_process([x], y).theta, some.theta)


def test_a_prediction_does_not_look_for_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding those whose threads are set takes longer than the prediction. It is done once, and they run on one thread."""
    gaussian_process._linear_algebra()
    monkeypatch.setattr(gaussian_process, "ThreadpoolController", None)
    with gaussian_process._one_thread():
        found = [each for each in threadpool_info() if each["user_api"] == "blas"]
    assert found
    assert {each["num_threads"] for each in found} == {1}


def test_constant_and_missing_features() -> None:
    rng = np.random.default_rng(3)
    x = np.column_stack([rng.normal(size=30), np.full(30, 7.0), np.full(30, np.nan)])
    x[4, 0] = np.nan
    process = fit_gaussian_process([x], rng.normal(size=30))
    wanted = np.array([[0.0, 7.0, np.nan], [0.0, 8.0, 1.0], [np.nan, 7.0, np.nan]])
    found = process.predict(wanted)
    assert np.isfinite(found).all()
    # Sums of 30 products in another order: 30 eps of the largest label, below 1e-13.
    assert abs(found[0] - found[1]) < 1e-13, "a column that was constant, or empty, among the labels says nothing"
    assert abs(found[2] - process.predict([[np.nanmax(x[:, 0]), 7.0, np.nan]])[0]) < 1e-13


def test_with_a_prior_score_the_mean_of_two_processes_predicts() -> None:
    """One learns accuracies, the other what the prior score leaves of them; each is scikit-learn's own process."""
    rng = np.random.default_rng(5)
    x, prior, y = rng.normal(size=(40, 2)), rng.normal(size=40), rng.normal(size=40)
    y += prior
    wanted, wanted_prior = rng.normal(size=(9, 2)), rng.normal(size=9)
    ours = fit_gaussian_process([prior[:, None], x], y, has_prior=True)
    assert ours.has_prior
    assert ours.groups == (2,)
    assert ours.theta.shape == (2, 3)
    scores = norm.ppf((rankdata(y) - 0.5) / 40)
    centred = prior - prior.mean()
    slope = (10 * 0.85 + centred @ scores) / (10 + centred @ centred)
    means = []
    for theta, b in zip(ours.theta, (0.0, slope), strict=True):
        alone = gaussian_process._regressor((2,), theta).fit((x - x.mean(axis=0)) / x.std(axis=0), scores - b * centred)
        means.append(alone.predict((wanted - x.mean(axis=0)) / x.std(axis=0)) + b * (wanted_prior - prior.mean()))
    expected = gaussian_process.accuracies_of(np.mean(means, axis=0), y)
    features = np.column_stack([wanted_prior, wanted])
    assert np.allclose(ours.predict(features), expected, rtol=1e-9)
    assert np.array_equal(ours.predict_interval(features)[0], ours.predict_std(features)[0])
    assert np.allclose(ours.predict(features), ours.predict_std(features)[0], rtol=1e-9)
    # A cell whose motifs diverged has the least prior score of the labelled cells.
    missing, least = features[:1].copy(), features[:1].copy()
    missing[0, 0], least[0, 0] = np.nan, prior.min()
    assert np.array_equal(ours.predict(missing), ours.predict(least))


def test_few_labels_with_a_prior_score_predict_about_as_well_as_it_does_alone() -> None:
    """And a prior score that says nothing costs little where labels are many."""
    rng = np.random.default_rng(6)
    x, good, bad = rng.normal(size=(400, 6)), rng.normal(size=400), rng.normal(size=400)
    y = good + 0.3 * x[:, 0] + 0.3 * rng.normal(size=400)

    def tau(n: int, prior: np.ndarray | None) -> float:
        table = x if prior is None else np.column_stack([prior, x])
        groups = [x[:n]] if prior is None else [prior[:n, None], x[:n]]
        process = fit_gaussian_process(groups, y[:n], has_prior=prior is not None)
        return kendall_tau(process.predict(table[200:]), y[200:])

    assert tau(10, good) > max(tau(10, None) + 0.2, 0.8 * kendall_tau(good[200:], y[200:]))
    useful = y + 0.5 * rng.normal(size=400)
    x = np.column_stack([x, useful])
    assert tau(200, bad) > tau(200, None) - 0.05


def test_errors_of_a_prior_score() -> None:
    x, y = np.eye(4), np.arange(4.0)
    for groups in ([x], [x, x]):
        with pytest.raises(
            ValueError, match="with has_prior, expected a column of prior scores and one or more groups"
        ):
            fit_gaussian_process(groups, y, has_prior=True)
    process = fit_gaussian_process([x[:, :1], x], y, has_prior=True)
    with pytest.raises(ValueError, match=r"features has shape \(4, 4\), expected \(n, 5\)"):
        process.predict(x)


# ---- the predictor


@pytest.mark.parametrize("variant", ["gaussian_process", "dish"])
def test_bits_do_not_depend_on_threads_or_grouping(labelled: TruthTable, others: TruthTable, variant: str) -> None:
    one, two = (small_predictor(variant=variant, threads=n).fit(labelled.cells, labelled.accuracy) for n in (1, 3))
    together = one.query(others.cells)
    assert np.array_equal(together, two.query(others.cells))
    if variant == "dish":
        parts = [one.query(others.cells[i : i + 1])[0] for i in range(5)]
        assert np.array_equal(together[:5], parts)


def test_single_queries_agree_with_a_batch(fitted: SPDPredictor, others: TruthTable) -> None:
    """Features are equal to the last bit; matrix products of other shapes may add in another order (40 terms)."""
    together = fitted.query(others.cells)
    for i in range(5):
        scale = np.abs(together[i])
        assert abs(fitted.query([others.cells[i]])[0] - together[i]) < 1e-9 * scale


@pytest.mark.parametrize("recipe", [VALID, small.CURVE.replace({"outer.step_weights": "ridge"})])
def test_the_pure_dish_is_the_outer_loop_and_nothing_else(
    tmp_path: Path, labelled: TruthTable, others: TruthTable, recipe: Recipe
) -> None:
    pure = SPDPredictor(recipe, variant="dish").fit(labelled.cells, labelled.accuracy)
    fit = spd.fit_dish(labelled.cells, labelled.accuracy, recipe)
    assert np.array_equal(pure.query(others.cells), score_cells(fit.dish, recipe, others.cells))
    assert pure.process_ is None
    pure.save(tmp_path / "p.npz")
    assert np.array_equal(SPDPredictor.load(tmp_path / "p.npz").query(others.cells), pure.query(others.cells))


def test_no_label_reaches_the_features_of_its_own_cell(labelled: TruthTable) -> None:
    """With other accuracies in one part, the scores of that part are the same: its dish has not seen them."""
    cells, accuracy = labelled.cells, labelled.accuracy
    scores, dishes = learn_folds(cells, accuracy, RECIPE, 2)
    order = np.random.default_rng(derived_seed(RECIPE.seed, "folds")).permutation(len(cells))
    part = order[0::2]
    changed = accuracy.copy()
    changed[part] = changed[part][::-1]
    others, _ = learn_folds(cells, changed, RECIPE, 2)
    assert np.array_equal(others[part], scores[part])
    read = [dish.read(cells).score for dish in dishes]
    assert np.array_equal(scores[part], dishes[0].scaled(read[0])[part])
    assert np.allclose(mean_scaled(dishes, read), (dishes[0].scaled(read[0]) + dishes[1].scaled(read[1])) / 2)
    assert abs(dishes[0].scaled(read[0]).mean()) < 1e-12


def test_a_dish_is_learned_from_all_labels(labelled: TruthTable) -> None:
    recipe = RECIPE.replace({"outer.pool": 10})
    shares: list[float] = []
    learned = learn_dish(labelled.cells, labelled.accuracy, recipe, progress=shares.append)
    assert learned.recipe.outer.pool is None
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert learned.seconds > 0


def test_structure_predicts_the_embedded_truth(others: TruthTable) -> None:
    """60 labels, 300 others: tau 0.6 or more was found for every seed of 0 to 4; 0.45 is far below their spread."""
    table, rest = TruthTable.load().split(60, 0)
    predictor = SPDPredictor(features=("structure",)).fit(table.cells, table.accuracy)
    assert predictor.score(rest.cells, rest.accuracy) > 0.45
    assert table.accuracy.min() - 0.1 < predictor.query(rest.cells).min()
    percent = SPDPredictor(features=("structure",)).fit(table.cells, 100 * table.accuracy)
    assert np.allclose(percent.query(rest.cells), 100 * predictor.query(rest.cells), rtol=1e-9)


def test_structure_predicts_the_benchmark(data_dir: Path) -> None:
    """100 labels, 3,000 test cells: tau 0.62 +- 0.02 over pools was found by other code on 15 such scalars.

    The mean of five pools has a standard error of 0.009, the test cells add 0.012: 0.06 is four of both together.
    """
    test_cells, rest = TruthTable.load(data_dir / "nb101" / "nb101_test108.npz").split(3000, 1)
    taus = []
    for seed in range(5):
        pool = rest.sample(100, seed)
        predictor = SPDPredictor(features=("structure",)).fit(pool.cells, pool.accuracy)
        taus.append(predictor.score(test_cells.cells, test_cells.accuracy))
    assert abs(np.mean(taus) - 0.62) < 0.06


def test_features_are_used_in_one_order(labelled: TruthTable, others: TruthTable) -> None:
    a, b = (
        SPDPredictor(features=kinds, curves=VALID).fit(labelled.cells, labelled.accuracy)
        for kinds in (("structure", "curves"), ["curves", "structure"])
    )
    assert np.array_equal(a.query(others.cells), b.query(others.cells))
    assert a.process_ is not None
    assert a.process_.groups == (17, 8)


def test_progress_runs_from_start_to_end(labelled: TruthTable, others: TruthTable) -> None:
    shares: list[float] = []
    predictor = small_predictor().fit(labelled.cells, labelled.accuracy, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    shares.clear()
    predictor.query(others.cells, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_the_motifs_of_a_cell_are_trained_once(labelled: TruthTable, others: TruthTable, tmp_path: Path) -> None:
    shares: list[float] = []
    predictor = small_predictor().fit(labelled.cells, labelled.accuracy)
    first = predictor.query(others.cells, progress=shares.append)
    assert shares
    shares.clear()
    assert np.array_equal(predictor.query(others.cells, progress=shares.append), first)
    backwards = predictor.query(list(others.cells)[::-1], progress=shares.append)
    assert np.allclose(
        backwards, first[::-1], rtol=1e-9
    )  # a product of matrices has other last bits for rows elsewhere
    assert predictor.score(others.cells, others.accuracy) == kendall_tau(first, others.accuracy)
    assert not shares, "nothing was trained"
    twice = [others.cells[0], labelled.cells[0], others.cells[0]]
    predicted = predictor.query(twice, progress=shares.append)
    assert shares, "one cell is new"
    assert np.allclose(predicted[[0, 2]], first[0], rtol=1e-9)
    shares.clear()
    predictor.save(tmp_path / "p.npz")
    again = SPDPredictor.load(tmp_path / "p.npz")
    assert np.array_equal(again.query(others.cells, progress=shares.append), first)
    assert shares, "a file holds no readings"


@pytest.mark.parametrize("n", [12, 30, 100])
def test_intervals_hold_about_their_share_of_the_accuracies(n: int) -> None:
    """Means of 20 draws from the truth that ships, by structure alone. Between draws the share differs by 0.1 with 12 labelled cells
    and by 0.04 with 100, so that three standard errors are at most 0.07."""
    truth, shares = TruthTable.load(), []
    structure = structural_features(truth.cells)
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(truth))
        known, rest = order[:n], order[n : n + 300]
        process = fit_gaussian_process([structure[known]], truth.accuracy[known])
        _, lower, upper = process.predict_interval(structure[rest])
        shares.append(np.mean((lower <= truth.accuracy[rest]) & (truth.accuracy[rest] <= upper)))
    assert 0.83 < np.mean(shares) < 0.97


def test_arrays_of_packed_cells_are_cells(fitted: SPDPredictor, others: TruthTable) -> None:
    columns = others.cells
    packed = np.column_stack([columns.vertices, columns.edge_bits, columns.op_codes]).astype(np.int64)
    assert np.array_equal(fitted.query(packed), fitted.query(columns))
    assert np.array_equal(fitted.query(list(columns)), fitted.query(columns))
    assert fitted.query([]).shape == (0,)


# ---- files


@pytest.mark.parametrize("variant", ["gaussian_process", "dish"])
def test_a_saved_predictor_gives_the_same_bits(
    tmp_path: Path, labelled: TruthTable, others: TruthTable, variant: str
) -> None:
    predictor = small_predictor(variant=variant).fit(labelled.cells, labelled.accuracy)
    predictor.notes_ = {"source": "mine.csv"}
    predictor.save(tmp_path / "p.npz")
    again = SPDPredictor.load(tmp_path / "p.npz")
    assert again.notes_ == {"source": "mine.csv"}
    assert np.array_equal(again.query(others.cells), predictor.query(others.cells))
    assert again.get_params()["recipe"] == RECIPE
    again.save(tmp_path / "q.npz")
    assert (tmp_path / "q.npz").read_bytes() == (tmp_path / "p.npz").read_bytes()


def test_queries_need_no_torch(tmp_path: Path, fitted: SPDPredictor, others: TruthTable) -> None:
    fitted.save(tmp_path / "p.npz")
    others.save(tmp_path / "t.npz")
    script = (
        "import sys, spd_fast as spd\n"
        f"cells = spd.TruthTable.load({str(tmp_path / 't.npz')!r}).cells\n"
        f"print(spd.SPDPredictor.load({str(tmp_path / 'p.npz')!r}).query(cells).tobytes().hex())\n"
        "assert 'torch' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == fitted.query(others.cells).tobytes().hex()


def test_files_that_are_no_predictor(tmp_path: Path, fitted: SPDPredictor) -> None:
    with pytest.raises(FileNotFoundError, match=r"predictor file .* does not exist"):
        SPDPredictor.load(tmp_path / "none.npz")
    spd.Dish.random(per_class=1).save(tmp_path / "dish.npz")
    with pytest.raises(ValueError, match=r"predictor file .*dish\.npz cannot be read: 'settings'"):
        SPDPredictor.load(tmp_path / "dish.npz")
    fitted.save(tmp_path / "p.npz")
    arrays = load_arrays(tmp_path / "p.npz", what="predictor file")
    settings = json.loads(arrays["settings"].tobytes())
    for changes, message in (
        (
            {"schema": "spd_fast.predictor/0"},
            "has schema 'spd_fast.predictor/0', expected 'spd_fast.predictor/3'.*fit the predictor anew",
        ),
        ({"parameters": settings["parameters"] | {"variant": "forest"}}, "variant is 'forest'"),
        ({"parameters": settings["parameters"] | {"colour": 1}}, "unexpected keyword argument 'colour'"),
    ):
        text = json.dumps(settings | changes).encode()
        save_arrays(tmp_path / "bad.npz", arrays | {"settings": np.frombuffer(text, np.uint8)})
        with pytest.raises(ValueError, match=message):
            SPDPredictor.load(tmp_path / "bad.npz")


# ---- mistakes


def test_wrong_arguments(labelled: TruthTable) -> None:
    cells, accuracy = labelled.cells, labelled.accuracy
    structure = SPDPredictor(features=("structure",))
    with pytest.raises(NotFittedError, match="not fitted"):
        structure.query(cells)
    with pytest.raises(NotFittedError, match="not fitted"):
        structure.save("nowhere.npz")
    with pytest.raises(ValueError, match=r"variant is 'forest', expected 'gaussian_process' or 'dish'"):
        SPDPredictor(variant="forest").fit(cells, accuracy)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"features are \['colour'\], expected one or more of structure, curves, dish"):
        SPDPredictor(features=("colour",)).fit(cells, accuracy)
    with pytest.raises(ValueError, match=r"features are \[\], expected one or more"):
        SPDPredictor(features=()).fit(cells, accuracy)
    with pytest.raises(ValueError, match="folds is 1, expected at least 2"):
        SPDPredictor(folds=1).fit(cells, accuracy)
    with pytest.raises(ValueError, match=r"accuracy has shape \(3,\), expected \(40,\) to match cells"):
        structure.fit(cells, accuracy[:3])
    with pytest.raises(ValueError, match=r"1 labelled cells were given, expected at least 2"):
        structure.fit(cells[:1], accuracy[:1])
    with pytest.raises(ValueError, match=r"accuracy\[2\] is nan, expected finite numbers"):
        structure.fit(cells, np.where(np.arange(40) == 2, np.nan, accuracy))
    with pytest.raises(TypeError, match=r"cells\[1\] is str, expected spd_fast.Cell or spd_fast.NatsCell"):
        structure.fit([cells[0], "cell"], accuracy[:2])  # type: ignore[list-item]
    with pytest.raises(
        ValueError, match=r"cells is a float64 array of shape \(2, 3\), expected integers of shape \(n, 3\)"
    ):
        structure.fit(np.zeros((2, 3)), accuracy[:2])
    with pytest.raises(ValueError, match="there is no recipe 'none'"):
        SPDPredictor("none", variant="dish").fit(cells, accuracy)
    with pytest.raises(InvalidCellError, match="no path"):
        SPDPredictor(features=("curves",), curves=VALID).fit(np.array([[3, 1, 0], [3, 3, 0]]), accuracy[:2])


def test_a_fit_that_was_stopped_goes_on(labelled: TruthTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the third piece of learning curves, and again in the second of two folds: nothing that was done is done again."""
    monkeypatch.setattr(readings, "_PIECE_CELLS", 15)
    trained: list[int] = []
    plain = readings.motif_readings

    def counted(dish: Dish, recipe: Recipe, cells: Any, **how: Any) -> Any:
        trained.append(len(cells))
        return plain(dish, recipe, cells, **how)

    monkeypatch.setattr(readings, "motif_readings", counted)
    cells, accuracy, kept = labelled.cells, labelled.accuracy, tmp_path / "kept"
    whole = small_predictor().fit(cells, accuracy)
    for share, done in ((0.376, [15, 15, 10]), (0.76, [10, 40])):
        trained.clear()

        def stop(at: float, end: float = share) -> None:
            if at >= end:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            small_predictor().fit(cells, accuracy, measured=kept, progress=stop)
        assert trained == done
    trained.clear()
    again = small_predictor(threads=2).fit(cells, accuracy, measured=kept)
    assert trained == [40], "the motifs of the second fold alone"
    assert again.process_ is not None
    assert whole.process_ is not None
    for name in GaussianProcess.__dataclass_fields__:
        assert np.array_equal(getattr(again.process_, name), getattr(whole.process_, name)), name
    for one, other in zip(again.dishes_, whole.dishes_, strict=True):
        assert all(np.array_equal(one.dish.arrays()[name], array) for name, array in other.dish.arrays().items())
        assert (one.recipe, one.mean, one.spread) == (other.recipe, other.mean, other.spread)
    with pytest.raises(ValueError, match=r"kept was begun with other settings \(accuracy is .*remove .*kept or choose"):
        small_predictor().fit(cells, 1 - accuracy, measured=kept)


def test_what_a_progress_raises_stops_the_fit(labelled: TruthTable) -> None:
    class StoppedError(Exception):
        pass

    def stop(share: float) -> None:
        raise StoppedError

    predictor = SPDPredictor(RECIPE, variant="dish")
    with pytest.raises(StoppedError):
        predictor.fit(labelled.cells, labelled.accuracy, progress=stop)
    assert not hasattr(predictor, "dishes_")


@pytest.mark.parametrize("name", ["features", "accuracy", "theta", "groups"])
def test_a_damaged_process_is_told_when_it_is_read(tmp_path: Path, fitted: SPDPredictor, name: str) -> None:
    fitted.save(tmp_path / "p.npz")
    arrays = dict(load_arrays(tmp_path / "p.npz", what="predictor file", listed=True))
    shorter = {f"process.{name}": arrays[f"process.{name}"][1:]}
    save_arrays(tmp_path / "short.npz", arrays | shorter)
    with pytest.raises(ValueError, match=r"short.npz cannot be read: process.\w+ is float64 .*, expected float64"):
        SPDPredictor.load(tmp_path / "short.npz")
    save_arrays(tmp_path / "none.npz", {key: array for key, array in arrays.items() if key not in shorter})
    with pytest.raises(ValueError, match=f"none.npz cannot be read: 'process.{name}' is missing"):
        SPDPredictor.load(tmp_path / "none.npz")


# ---- parameters, spaces, standard deviations


@pytest.mark.parametrize(
    "parameters",
    [
        {"folds": np.int64(3)},
        {"folds": np.array(3)},
        {"threads": np.int32(1)},
        {"features": np.array(["structure"])},
        {"features": {"structure"}},
        {"features": ["structure"], "variant": np.str_("gaussian_process")},
        {"curves": np.str_("curves")},
    ],
    ids=repr,
)
def test_parameters_of_numpy_are_saved_as_plain_ones(
    parameters: dict[str, Any], tmp_path: Path, labelled: TruthTable
) -> None:
    predictor = SPDPredictor(**{"features": ("structure",)} | parameters).fit(labelled.cells, labelled.accuracy)
    predictor.save(tmp_path / "p.npz")
    again = SPDPredictor.load(tmp_path / "p.npz")
    assert np.array_equal(again.query(labelled.cells), predictor.query(labelled.cells))
    for name, value in parameters.items():
        assert predictor.get_params()[name] is value  # scikit-learn: a fit leaves parameters as they were given
        assert type(again.parameters_[name]) in (int, str, tuple)


def test_parameters_of_a_wrong_kind_are_refused_before_the_work(labelled: TruthTable) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"features": None}, "features is None, expected a sequence of names such as"),
        ({"features": "structure"}, "features is 'structure', expected a sequence of names such as"),
        ({"features": [1]}, "features holds 1, expected names"),
        ({"folds": 2.0}, r"folds is 2\.0, expected an integer"),
        ({"folds": True}, "folds is True, expected an integer"),
        ({"threads": "1"}, "threads is '1', expected an integer"),
        ({"variant": 1}, "variant is 1, expected 'gaussian_process' or 'dish'"),
        ({"curves": 1}, "curves is 1, expected a spd_fast.Recipe, its name, or None"),
        ({"recipe": ["demo"]}, "recipe is .*, expected a spd_fast.Recipe, its name, or None"),
    ]
    for parameters, message in wrong:
        with pytest.raises(TypeError, match=message):
            SPDPredictor(**parameters).fit(labelled.cells, labelled.accuracy)
    with pytest.raises(ValueError, match="threads is 0, expected at least 1"):
        SPDPredictor(threads=0).fit(labelled.cells, labelled.accuracy)
    with pytest.raises(ValueError, match="folds is 41, expected at most 40, the number of labelled cells"):
        SPDPredictor(features=("dish",), folds=41).fit(labelled.cells, labelled.accuracy)


def test_parameters_that_change_act_at_the_next_fit(tmp_path: Path, labelled: TruthTable, others: TruthTable) -> None:
    predictor = small_predictor().fit(labelled.cells, labelled.accuracy)
    first = predictor.query(others.cells)
    predictor.set_params(features=("structure",), folds=3, variant="dish", curves=RECIPE)
    assert np.array_equal(predictor.query(others.cells), first)
    predictor.save(tmp_path / "p.npz")
    again = SPDPredictor.load(tmp_path / "p.npz")
    assert np.array_equal(again.query(others.cells), first)
    assert again.get_params()["folds"] == 2
    predictor.set_params(variant="gaussian_process").fit(labelled.cells, labelled.accuracy)
    assert predictor.dishes_ == ()
    assert not np.array_equal(predictor.query(others.cells), first)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_predictor_that_was_asked_is_copied(copied: Any, labelled: TruthTable, others: TruthTable) -> None:
    predictor = small_predictor(features=("structure", "curves")).fit(labelled.cells, labelled.accuracy)
    first = predictor.query(others.cells)
    assert np.array_equal(copied(predictor).query(others.cells), first)


def test_cells_in_the_tables_of_others(labelled: TruthTable) -> None:
    pandas = pytest.importorskip("pandas")
    x = packed(labelled.cells)
    frame = pandas.DataFrame(x, columns=["vertices", "edge_bits", "op_codes"])
    objects = np.array(list(labelled.cells), dtype=object)
    fits = lambda given: SPDPredictor(features=("structure",)).fit(given, labelled.accuracy).query(given)  # noqa: E731
    same = fits(x)
    for given in (
        frame,
        frame[["op_codes", "edge_bits", "vertices"]],
        frame.astype(object),
        objects,
        pandas.Series(list(labelled.cells)),
        x.tolist(),
        x.astype(object),
    ):
        assert np.array_equal(fits(given), same)
    assert np.array_equal(fits(frame.sample(frac=1, random_state=0).sort_index()), same)
    with pytest.raises(
        ValueError, match="cells is a DataFrame without the column 'op_codes', expected vertices, edge_bits"
    ):
        fits(frame[["vertices", "edge_bits"]])
    with pytest.raises(TypeError, match=r"the column 'vertices' of cells is .*, expected an array of numbers"):
        fits(frame.assign(vertices="two"))
    for given, name in (
        (labelled, "TruthTable.*give its .cells"),
        (iter(labelled.cells), "a list of them"),
        ("cells", "'cells'"),
    ):
        with pytest.raises(TypeError, match=f"cells is .*{name}"):
            fits(given)
    with pytest.raises(TypeError, match=r"cells is one Cell, expected a sequence: \[cell\]"):
        fits(labelled.cells[0])


def test_the_standard_deviation_is_half_the_interval_of_one_sigma(
    fitted: SPDPredictor, labelled: TruthTable, others: TruthTable
) -> None:
    """The share of one sigma is Phi(1) - Phi(-1); its quantile comes back as 1 within some eps, which the slope of the
    accuracies carries into the ends."""
    accuracy, std = fitted.query(others.cells, return_std=True)
    assert np.array_equal(accuracy, fitted.query(others.cells))
    assert (std > 0).all()
    process = fitted.process_
    assert process is not None
    groups = np.concatenate([process.features[:3]])
    _, lower, upper = process.predict_interval(groups, norm.cdf(1) - norm.cdf(-1))
    assert np.allclose(process.predict_std(groups)[1], (upper - lower) / 2, rtol=1e-12)
    assert np.array_equal(fitted.predict(others.cells, return_std=True)[1], std)
    assert [each.shape for each in fitted.query([], return_std=True)] == [(0,), (0,)]
    with pytest.raises(TypeError, match="return_std is 1, expected True or False"):
        fitted.query(others.cells, return_std=1)  # type: ignore[call-overload]
    dish = small_predictor(variant="dish").fit(labelled.cells, labelled.accuracy)
    with pytest.raises(ValueError, match="return_std is True with variant 'dish', expected variant 'gaussian_process'"):
        dish.query(others.cells, return_std=True)
    for share in (0.0, 1.0, 1.5):
        with pytest.raises(ValueError, match=f"share is {share}, expected above 0 and below 1"):
            process.predict_interval(groups, share)


def nats_cells(n: int) -> list[NatsCell]:
    """Random cells with a path: their last edge from node 0 to node 3 is a convolution."""
    codes = np.random.default_rng(0).integers(0, 5, (n, 6))
    codes[:, 3] = 3
    return [NatsCell(tuple(NATS_OPS[code] for code in row)) for row in codes]


def test_cells_of_nats_bench(tmp_path: Path, labelled: TruthTable) -> None:
    cells = nats_cells(60)
    weights = structural_features(cells)[:, NATS_SCALARS.index("log_weights")]
    predictor = small_predictor(features=("structure", "curves")).fit(cells[:40], weights[:40])
    assert predictor.cell_type_ is NatsCell
    first = predictor.query(cells[40:])
    assert np.array_equal(first, predictor.query(NatsColumns.from_cells(cells[40:])))
    assert predictor.score(cells[40:], weights[40:]) > 0.5  # the accuracy is one of the scalars
    predictor.save(tmp_path / "p.npz")
    again = SPDPredictor.load(tmp_path / "p.npz")
    assert np.array_equal(again.query(cells[40:]), first)
    for each in (predictor, again):
        with pytest.raises(
            TypeError, match=r"cells\[0\] is Cell, expected NatsCell: the predictor was fitted to cells of"
        ):
            each.query(labelled.cells)
    with pytest.raises(TypeError, match=r"cells\[40\] is Cell, expected NatsCell as cells\[0\]: cells of one space"):
        predictor.fit([*cells[:40], labelled.cells[0]], np.arange(41.0))
    learned = small_predictor(variant="dish").fit(cells[:20], weights[:20])
    assert np.isfinite(learned.query(cells[40:])).all()


def test_a_score_of_fewer_than_two_cells_is_nan_and_says_so(labelled: TruthTable) -> None:
    predictor = SPDPredictor(features=("structure",)).fit(labelled.cells, labelled.accuracy)
    for n in (0, 1):
        with pytest.warns(UndefinedMetricWarning, match=f"tau of {n} cells is not defined, it needs at least 2 cells"):
            assert np.isnan(predictor.score(labelled.cells[:n], labelled.accuracy[:n]))
    with pytest.warns(UndefinedMetricWarning, match="at least 2 cells"):
        scores = cross_val_score(predictor, list(labelled.cells[:5]), labelled.accuracy[:5], cv=LeaveOneOut())
    assert np.isnan(scores).all()


@pytest.mark.parametrize("how", [{}, {"variant": "dish"}], ids=["process", "dish"])
def test_accuracies_that_are_alike_are_told_once(how: dict[str, Any], labelled: TruthTable) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        predictor = small_predictor(**how).fit(labelled.cells, np.full(40, 0.5))
    assert [str(each.message)[:34] for each in told] == ["all accuracies are alike (0.5): th"]
    assert told[0].filename == __file__
    if not how:
        assert (predictor.query(labelled.cells) == 0.5).all()


# ---- scikit-learn

TABLES_OF_NUMBERS = {
    "check_complex_data",
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_dtype_object",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_estimator_sparse_tag",
    "check_estimators_dtypes",
    "check_estimators_empty_data_messages",
    "check_estimators_fit_returns_self",
    "check_estimators_nan_inf",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_fit2d_predict1d",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_n_features_in",
    "check_n_features_in_after_fitting",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
    "check_regressor_data_not_an_array",
    "check_regressors_int",
    "check_regressors_no_decision_function",
    "check_regressors_train",
    "check_requires_y_none",
    "check_supervised_y_2d",
}
"""Checks of scikit-learn that fit tables of random numbers, which are no cells and are refused."""


def test_scikit_learns_own_checks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(SPDPredictor(features=("structure",)), on_fail=None, on_skip=None)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    passed = {result["check_name"] for result in results if result["status"] == "passed"}
    assert failed <= TABLES_OF_NUMBERS
    assert {"check_estimator_cloneable", "check_get_params_invariance", "check_set_params"} <= passed
    assert {"check_no_attributes_set_in_init", "check_parameters_default_constructible"} <= passed
    assert {"check_estimators_unfitted", "check_estimator_repr", "check_valid_tag_types"} <= passed


def test_what_those_checks_are_after_with_cells(labelled: TruthTable, others: TruthTable) -> None:
    predictor = SPDPredictor(features=("structure",))
    before = predictor.get_params()
    assert predictor.fit(labelled.cells, labelled.accuracy) is predictor
    assert predictor.get_params() == before
    first = predictor.predict(others.cells)
    assert np.array_equal(predictor.fit(labelled.cells, labelled.accuracy).predict(others.cells), first)
    copy = clone(predictor)
    assert not hasattr(copy, "process_")
    assert np.array_equal(copy.fit(labelled.cells, labelled.accuracy).predict(others.cells), first)
    order = np.random.default_rng(0).permutation(len(others))
    assert np.allclose(predictor.predict(others.cells[order]), first[order], rtol=1e-9)


def test_cross_validation_takes_cells(labelled: TruthTable) -> None:
    for cells in (list(labelled.cells), packed(labelled.cells)):
        taus = cross_val_score(SPDPredictor(features=("structure",)), cells, labelled.accuracy, cv=4)
        assert taus.shape == (4,)
        assert taus.mean() > 0.2


def packed(columns: CellColumns) -> Any:
    return np.column_stack([columns.vertices, columns.edge_bits, columns.op_codes]).astype(np.int64)


def test_a_process_is_plain_data(fitted: SPDPredictor) -> None:
    process = fitted.process_
    assert isinstance(process, GaussianProcess)
    assert process.groups == (17, 8, 1)
    assert process.features.shape == (40, 26)
