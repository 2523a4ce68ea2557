"""The scoreboard: its statistics by hand and by simulation, no test cell in a pool, boards that continue."""

import itertools
import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

import small
from pages import reads_without_scripts, text_of
from spd_fast import recipes
from spd_fast.base.files import load_arrays
from spd_fast.base.stores import Journal, read_journal
from spd_fast.outer import runs
from spd_fast.outer.fit import fit_dish
from spd_fast.outer.start import start_dish
from spd_fast.predictors import proxies
from spd_fast.predictors import spd as predictor
from spd_fast.predictors.bananas import BananasPredictor
from spd_fast.predictors.readings import LearnedDish
from spd_fast.predictors.spd import SPDPredictor
from spd_fast.recipes.settings import Recipe
from spd_fast.report import board as page
from spd_fast.report.watch import look
from spd_fast.scoreboard import board as scoreboard
from spd_fast.scoreboard.board import GOALS, SCHEMA, Board, outcome_of
from spd_fast.scoreboard.judge import MEASURES, Estimate, judge, precision_at
from spd_fast.scoreboard.measuring import (
    LOW_FIDELITY_NETWORK,
    PROXY_NETWORK,
    SHARED_NETWORK,
    Measuring,
    Parts,
    board_identity,
)
from spd_fast.scoreboard.rows import BEFORE, LEARNED, REAL, extrapolated_loss
from spd_fast.scoreboard.trial import Trial, draw_trial, pool_of_run, trial_of_pools
from spd_fast.scoring import score_cells
from spd_fast.supernet import train_supernet
from spd_fast.truth.table import TruthTable

RECIPE = small.RECIPE
VALID = RECIPE.replace(
    {"dish.valid_images": 6, "outer.learn": ["valid_images"], "outer.metric": "loss", "outer.ranking": "metric"}
)


@pytest.fixture(scope="module")
def trial() -> Trial:
    return draw_trial(TruthTable.load(), pool_sizes=(8, 12), test_cells=100, seeds=2)


NARROW = PROXY_NETWORK.replace({"motif": RECIPE.motif.model_dump(), "dish.images": 20, "dish.image_size": 4})
"""A smaller network for the proxies: their values are tested elsewhere."""


def build_board(trial: Trial, recipe: Recipe, curves: Recipe, **arguments: Any) -> Board:
    return scoreboard.build_board(trial, recipe, curves, proxy_network=NARROW, **arguments)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes for the tiny recipe, and enough of ten for the small network of low fidelity."""
    path = tmp_path_factory.mktemp("images") / "images.npz"
    rng = np.random.default_rng(0)
    np.savez(path, images=rng.integers(0, 256, (720, 2, 5, 5), np.uint8), labels=np.repeat(np.arange(10), 72))
    return path


@pytest.fixture(scope="module")
def board(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> tuple[Board, Path]:
    folder = tmp_path_factory.mktemp("board")
    return build_board(trial, RECIPE, VALID, folds=2, folder=folder, threads=1), folder


# ---- statistics


def correlated(n: int, seeds: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    return truth + rng.normal(size=(seeds, n)), truth


def test_means_are_those_of_scipy() -> None:
    scores, truth = correlated(150, 3)
    scores = np.round(scores, 1)  # with ties
    judged = judge(scores, truth, resamples=50)
    top = truth >= np.quantile(truth, 0.9)
    assert judged.means["tau"] == pytest.approx(
        np.mean([kendalltau(row, truth).statistic for row in scores]), abs=1e-12
    )
    assert judged.means["rho"] == pytest.approx(np.mean([spearmanr(row, truth).statistic for row in scores]), abs=1e-12)
    expected = np.mean([kendalltau(row[top], truth[top]).statistic for row in scores])
    assert judged.means["tau_top"] == pytest.approx(expected, abs=1e-12)


def test_resamples_are_those_of_scipy() -> None:
    """One seed, the draws repeated here: every resample's tau and rho by scipy from the copies themselves."""
    scores, truth = correlated(110, 1)
    judged = judge(scores, truth, resamples=5, seed=3)
    drawn = np.random.default_rng(3).integers(0, 110, (5, 110))
    for sample, rows in enumerate(drawn):
        assert judged.samples["tau"][sample] == pytest.approx(
            kendalltau(scores[0, rows], truth[rows]).statistic, abs=1e-12
        )
        assert judged.samples["rho"][sample] == pytest.approx(
            spearmanr(scores[0, rows], truth[rows]).statistic, abs=1e-12
        )


def test_intervals_hold_the_true_tau() -> None:
    """60 draws of bivariate normals with correlation 1/sqrt(2), of which tau is 2/pi asin(r) = 1/2.

    An interval of 95 % misses 3 of 60, standard deviation 1.7: more than 10 misses are 4 sigma away.
    """
    inside = 0
    for seed in range(60):
        scores, truth = correlated(120, 1, seed)
        estimate = judge(scores, truth, resamples=200).estimate("tau")
        inside += estimate.low <= 0.5 <= estimate.high
    assert inside >= 50


def test_seeds_that_disagree_widen_the_interval() -> None:
    scores, truth = correlated(200, 1)
    alike = judge(np.repeat(scores, 4, axis=0), truth, resamples=300)
    mixed = judge(np.concatenate([scores, -scores, scores, -scores]), truth, resamples=300)
    width = {name: each.estimate("tau") for name, each in (("alike", alike), ("mixed", mixed))}
    assert width["mixed"].high - width["mixed"].low > 3 * (width["alike"].high - width["alike"].low)
    assert alike.estimate("tau") == judge(scores, truth, resamples=300).estimate("tau")


def test_differences_are_paired() -> None:
    """Two scores that are almost the same differ with far less uncertainty than each has."""
    scores, truth = correlated(200, 2)
    other = scores + 0.01 * np.random.default_rng(1).normal(size=scores.shape)
    one, two = judge(scores, truth, resamples=300), judge(other, truth, resamples=300)
    difference = one.minus(two, "tau")
    assert difference.mean == pytest.approx(one.means["tau"] - two.means["tau"])
    own = one.estimate("tau")
    assert difference.high - difference.low < 0.2 * (own.high - own.low)
    assert one.minus(one, "tau") == Estimate(0.0, 0.0, 0.0)


def test_precision_by_hand() -> None:
    truth = np.array([[5.0, 4.0, 3.0, 2.0, 1.0]])
    assert precision_at(2, np.array([[9.0, 1.0, 8.0, 0.0, 0.0]]), truth).tolist() == [0.5]
    assert precision_at(2, truth, truth).tolist() == [1.0]
    # Three tie for the second place: each is taken with probability 1/3, one of them is among the best two.
    assert precision_at(2, np.array([[9.0, 1.0, 1.0, 1.0, 0.0]]), truth)[0] == pytest.approx((1 + 1 / 3) / 2)


def test_scores_that_are_not_finite_rank_last() -> None:
    scores, truth = correlated(100, 1)
    bad, worst = scores.copy(), scores.copy()
    bad[0, :3] = np.nan, -np.inf, np.inf
    worst[0, :3] = scores.min() - 1
    assert judge(bad, truth, resamples=10).means == judge(worst, truth, resamples=10).means
    constant = judge(np.zeros(100), truth, resamples=10)
    assert constant.means["tau"] == constant.means["rho"] == 0
    assert constant.means["precision_10"] == pytest.approx(0.1)


def test_curves_are_extrapolated() -> None:
    t = np.arange(1, 41)
    exact = np.stack([0.5 + 2.0 * t**-0.5, 1.5 * t**-0.3])
    assert extrapolated_loss(exact, 10) == pytest.approx([0.5 + 2.0 * 400**-0.5, 1.5 * 400**-0.3], rel=1e-9)
    rising = extrapolated_loss(np.linspace(1, 2, 40)[None])
    assert rising == pytest.approx([1.5])
    assert np.isnan(extrapolated_loss(np.array([[1.0, np.nan, 1.0, 1.0]]))).all()
    with pytest.raises(ValueError, match=r"step_loss has shape \(2, 3\), expected \(K, T\) with at least 4 steps"):
        extrapolated_loss(np.ones((2, 3)))


def test_a_curve_is_extrapolated_as_it_is_among_others() -> None:
    curves = np.random.default_rng(0).uniform(1, 2, (7, 43))
    whole = extrapolated_loss(curves)
    assert extrapolated_loss(np.asfortranarray(curves)).tobytes() == whole.tobytes()
    for rows in ([0], [6], [5, 1], [2, 3, 4]):
        assert extrapolated_loss(curves[rows]).tobytes() == whole[rows].tobytes()


def test_what_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match=r"scores have shape \(2, 99\), expected \(S, 100\) to match accuracy"):
        judge(np.zeros((2, 99)), np.arange(100))
    with pytest.raises(ValueError, match="there are 6 cells, expected at least 100"):
        judge(np.zeros(6), np.arange(6))


# ---- trials


def test_no_test_cell_is_in_a_pool() -> None:
    truth = TruthTable.load()
    drawn = draw_trial(truth, pool_sizes=50, test_cells=200, seeds=3)
    held = set(drawn.test_cells.hashes)
    assert len(held) == 200
    for pool in drawn.pools:
        assert len(set(pool.hashes)) == 50
        assert not held & set(pool.hashes)
    assert drawn.pools[0].hashes != drawn.pools[1].hashes
    assert drawn.pool_sizes == (50,)
    assert drawn.digest() == draw_trial(truth, pool_sizes=50, test_cells=200, seeds=3).digest()
    assert drawn.digest() != draw_trial(truth, pool_sizes=50, test_cells=200, seeds=3, seed=1).digest()


def test_smaller_pools_begin_the_larger_ones() -> None:
    truth = TruthTable.load()
    both, few = (draw_trial(truth, pool_sizes=sizes, test_cells=200, seeds=2) for sizes in ([50, 20], 20))
    assert both.pool_sizes == (20, 50)
    for seed in range(2):
        assert both.pool(20, seed).hashes == both.pools[seed].hashes[:20] == few.pools[seed].hashes
        assert both.pool(50, seed).hashes == both.pool(99, seed).hashes == both.pools[seed].hashes


def test_no_cell_of_a_run_is_a_test_cell(tmp_path: Path) -> None:
    """A pool of fixed size counts whole, also the cells that no outer epoch compared: here 3 of 15."""
    truth = TruthTable.load()
    recipe = VALID.replace({"outer.pool": 20, "outer.validation_cells": 5, "outer.epochs": 3})
    fit = fit_dish(truth.cells, truth.accuracy, recipe, run=tmp_path / "run")
    pool = pool_of_run(runs.read(tmp_path / "run"), truth)
    assert set(pool) == {truth.hashes[row] for row in (*fit.training_cells, *fit.validation_cells)}
    assert len(pool) == 20
    assert len({each for record in fit.history for each in record.cells}) == 12
    drawn = trial_of_pools(truth, [pool, pool[:8]], test_cells=150)
    assert not set(drawn.test_cells.hashes) & set(pool)
    assert [len(each) for each in drawn.pools] == [len(pool), 8]
    assert drawn.pool_sizes == (len(pool),)


def test_impossible_trials() -> None:
    truth = TruthTable.load().sample(404, 0)
    with pytest.raises(ValueError, match="test_cells is 6, expected at least 100"):
        draw_trial(truth, test_cells=6)
    with pytest.raises(ValueError, match="test_cells is 6, expected at least 100"):
        trial_of_pools(truth, [], test_cells=6)
    with pytest.raises(ValueError, match="pool_sizes is 3, expected at least 6"):
        draw_trial(truth, pool_sizes=3, test_cells=100)
    with pytest.raises(ValueError, match=r"pool_sizes is \[\], expected at least 6"):
        draw_trial(truth, pool_sizes=[], test_cells=100)
    with pytest.raises(ValueError, match="seeds is 0, expected at least 1"):
        draw_trial(truth, test_cells=100, seeds=0)
    with pytest.raises(
        ValueError, match="404 different cells, expected at least 1100: 1000 test cells and 100 labelled"
    ):
        draw_trial(truth)
    with pytest.raises(ValueError, match="1 cells of the runs are not in the truth, the first is abc: give"):
        trial_of_pools(truth, [["abc"]], test_cells=100)
    with pytest.raises(ValueError, match="holds 394 cells that no run has used, expected at least 400"):
        trial_of_pools(truth, [list(truth.hashes[:10])], test_cells=400)


# ---- boards


def test_a_board_holds_what_its_parts_say(board: tuple[Board, Path], trial: Trial) -> None:
    built, _ = board
    kinds = ["structure"] * 7 + ["proxy"] * 5 + ["motif"] * 2 + ["dish"] * 3 + ["predictor"] * 12
    assert [row.kind for row in built.rows] == kinds
    held = trial.test_cells
    for pool_size, seed in itertools.product(trial.pool_sizes, range(2)):
        pool = trial.pool(pool_size, seed)
        recipe = RECIPE.replace({"seed": seed})
        fit = fit_dish(pool.cells, pool.accuracy, recipe)
        learned = row_of(built, LEARNED, pool_size)
        assert np.array_equal(learned.scores[seed], score_cells(fit.dish, recipe, held.cells))
        assert np.array_equal(row_of(built, BEFORE).scores[seed], score_cells(start_dish(recipe), recipe, held.cells))
        for name, kinds in (("GP: structure", ("structure",)), ("GP: structure, curves, dish", predictor.FEATURES)):
            ours = SPDPredictor(recipe, features=kinds, curves=VALID, folds=2).fit(pool.cells, pool.accuracy)
            assert np.array_equal(row_of(built, name, pool_size).scores[seed], ours.query(held.cells))
        bananas = BananasPredictor(seed=seed).fit(pool.cells, pool.accuracy)
        assert np.array_equal(row_of(built, "BANANAS", pool_size).scores[seed], bananas.query(held.cells))
    conv = row_of(built, "3x3 convolutions")
    assert conv.scores.tolist() == [[cell.ops.count("conv3x3-bn-relu") for cell in held.cells]]
    for row in built.rows:
        assert row.query_seconds > 0
        assert (row.pool_size > 0) == (row.kind == "predictor" or row.name == LEARNED)
        assert (row.init_seconds > 0) == (row.pool_size > 0 or row.kind == "structure")
        assert row.judged.means == judge(row.scores, held.accuracy).means
        assert (row.inside_90 is not None) == row.name.startswith("GP")
        assert row.inside_90 is None or 0 < row.inside_90 <= 1
    assert built.row("no such row") is None
    assert built.row(LEARNED, 99) is None


def test_a_board_is_watched(board: tuple[Board, Path]) -> None:
    """Every measurement that was made was planned and no other, so that the count of those who watch it ends at its total."""
    folder = board[1]
    journal = folder / "parts.jsonl"
    state = look(folder)
    assert state.done == state.total == len(read_journal(journal, SCHEMA, remedy="")) - 1, "one record is the plan"
    assert (state.running, state.unit) == (False, "measurements")
    assert state.what == f"scoreboard of small in {folder}"
    assert state.ended.startswith("stopped"), "its page is not written yet"
    (folder / "board.html").touch()
    assert look(folder).ended == "finished"
    (folder / "board.html").unlink()
    with Journal(journal, SCHEMA, remedy=""):
        assert look(folder).running


def test_proxies_are_taken_of_one_batch(board: tuple[Board, Path], trial: Trial) -> None:
    batch = start_dish(NARROW)
    for name in proxies.PROXIES:
        expected = proxies.score(trial.test_cells.cells, NARROW.shape, batch.images, batch.labels, name)
        assert np.array_equal(row_of(board[0], name).scores, [expected]), name


def row_of(built: Board, name: str, pool_size: int | None = None) -> Any:
    row = built.row(name, pool_size)
    assert row is not None
    return row


def test_a_board_continues_where_it_stopped(trial: Trial, board: tuple[Board, Path], tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    shares: list[float] = []

    def stop(what: str, share: float) -> None:
        shares.append(share)
        if what == "learning dish 1 from 8 labelled cells":
            raise StoppedError

    with pytest.raises(StoppedError):
        build_board(trial, RECIPE, VALID, folds=2, folder=tmp_path, progress=stop)
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "parts").iterdir()}
    assert {"dish-8-0.npz", "curves.npz", "before-1.npz", "proxies.npz"} <= kept.keys()
    assert "dish-8-1.npz" not in kept
    again = build_board(
        trial, RECIPE, VALID, folds=2, folder=tmp_path, threads=2, progress=lambda what, share: shares.append(share)
    )
    for file, changed in kept.items():
        assert (tmp_path / "parts" / file).stat().st_mtime_ns == changed
    assert 0 <= min(shares) < max(shares) <= 1
    for ours, theirs in zip(again.rows, board[0].rows, strict=True):
        assert np.array_equal(ours.scores, theirs.scores), ours.name

    def nothing_is_measured(what: str, share: float) -> None:
        raise AssertionError(what)

    fewer = replace(trial, pool_sizes=(12,))
    less = build_board(fewer, RECIPE, VALID, folds=0, folder=tmp_path, progress=nothing_is_measured)
    assert [row.pool_size for row in less.rows if row.name == LEARNED] == [12]
    with pytest.raises(
        ValueError,
        match=r"begun with other settings \(curves\.dish\..*: use those to continue it, or choose another folder",
    ):
        build_board(trial, RECIPE, RECIPE, folder=tmp_path)


def test_what_a_board_continues_with_is_what_was_written(trial: Trial, tmp_path: Path) -> None:
    """A measurement that was changed or exchanged is refused; one whose writing was not recorded is measured again."""

    class StoppedError(Exception):
        pass

    def stop(what: str, share: float) -> None:
        if what == "training motifs: before-1":
            raise StoppedError

    def go_on() -> None:
        with suppress(StoppedError):
            build_board(trial, RECIPE, VALID, folds=0, folder=tmp_path, progress=stop)

    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / ".curves.npz.1.partial").touch()
    go_on()
    parts, journal = tmp_path / "parts", tmp_path / "parts.jsonl"
    assert sorted(path.name for path in parts.iterdir()) == ["before-0.npz", "curves.npz", "proxies.npz"]
    held, before = ((parts / f"{name}.npz").read_bytes() for name in ("curves", "before-0"))
    scores = load_arrays(parts / "before-0.npz", what="part")["score"]
    (parts / "before-0.npz").write_bytes(held)
    with pytest.raises(ValueError, match=r"before-0\.npz is not the one that was written there: choose another folder"):
        go_on()
    (parts / "before-0.npz").write_bytes(before)
    (parts / "curves.npz").write_bytes(held.replace(held[2000:2010], bytes(10)))
    with pytest.raises(ValueError, match=r"measurement .*curves\.npz is damaged"):
        go_on()
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:9])
    (parts / "curves.npz").write_bytes(held)
    (parts / "before-0.npz").write_bytes(b"cut sh")
    go_on()
    assert np.array_equal(load_arrays(parts / "before-0.npz", what="part")["score"], scores)
    journal.write_bytes(b"my notes\n")
    with pytest.raises(ValueError, match=r"parts\.jsonl is not a journal .*: choose another folder"):
        go_on()
    (tmp_path / "busy").mkdir()
    with (
        Journal(tmp_path / "busy" / "parts.jsonl", "any", remedy=""),
        pytest.raises(BlockingIOError, match="is being written by another process"),
    ):
        build_board(trial, RECIPE, VALID, folder=tmp_path / "busy")
    (parts / "identity.json").touch()
    with pytest.raises(
        ValueError, match=r"measurements of an earlier version, with identity\.json: choose another folder"
    ):
        go_on()


def test_a_board_belongs_to_the_content_of_its_images(trial: Trial, images: Path, tmp_path: Path) -> None:
    """Other images at the same path are refused; the same images elsewhere are not."""
    with np.load(images) as held:
        known = dict(held)
    here, there = tmp_path / "here.npz", tmp_path / "there.npz"
    np.savez(here, **known)
    np.savez(there, **known)

    def identity(path: Path, recipe: Recipe = RECIPE) -> dict[str, Any]:
        return board_identity(trial, recipe, VALID, None, path)

    before = identity(here)
    assert identity(there) == before
    for network in ("proxy_network", "low_fidelity_network", "shared_network"):
        assert board_identity(trial, RECIPE, VALID, None, here, **{network: NARROW}) != before
    source = RECIPE.replace({"dish.start": "images", "dish.source": str(here)})
    started = identity(there, source)
    known["images"][3, 0, 0, 0] ^= 1
    np.savez(here, **known)
    differing = [name for name, value in identity(here).items() if before[name] != value]
    assert differing == ["images"]
    assert [name for name, value in identity(there, source).items() if started[name] != value] == ["recipe's source"]


def test_dishes_that_are_given_are_not_learned_again(trial: Trial) -> None:
    trial = replace(trial, pool_sizes=(12,))
    given = [
        LearnedDish(recipe, start_dish(recipe), seconds=2.5 + seed)
        for seed, recipe in enumerate(VALID.replace({"seed": seed}) for seed in (5, 6))
    ]
    built = build_board(trial, VALID, VALID, learned=given, folds=0)
    learned = row_of(built, LEARNED)
    assert np.array_equal(learned.scores[1], score_cells(given[1].dish, given[1].recipe, trial.test_cells.cells))
    assert learned.init_seconds == 3
    assert np.array_equal(learned.scores, row_of(built, BEFORE).scores)
    assert built.row("GP: curves, dish") is None
    lines = text_of(page.board_page(built).html())
    assert "Your 2 dishes, learned from 12 labelled cells, and " in lines
    assert f"Your 2 dishes have a Kendall\u2019s tau of {learned.judged.means['tau']:.2f} [" in lines
    assert "These cells do not show that learning helped: before it, tau is " in lines
    assert "The best row is " in lines
    assert re.search("Use \u201c[^\u201d]*\u201d.* in place of a dish: it ranks these cells better", lines)
    with pytest.raises(ValueError, match="1 dishes were given, expected 2: one for each pool"):
        build_board(trial, VALID, VALID, learned=given[:1], folds=0)
    with pytest.raises(ValueError, match=r"dishes were given for pools of \[8, 12\] cells, expected pools of one size"):
        build_board(replace(trial, pool_sizes=(8, 12)), VALID, VALID, learned=given, folds=0)
    with pytest.raises(ValueError, match="folds is 1, expected 0 or at least 2"):
        build_board(trial, VALID, VALID, folds=1)


def test_rows_on_real_images(trial: Trial, images: Path) -> None:
    low = LOW_FIDELITY_NETWORK.replace({"motif": RECIPE.motif.model_dump(), "inner.epochs": 1, "dish.image_size": 4})
    one_size = replace(trial, pool_sizes=(8,))
    shared = {"motif": RECIPE.motif.model_dump(), "inner.epochs": 1, "dish.image_size": 4}
    networks = {"low_fidelity_network": low, "shared_network": SHARED_NETWORK.replace(shared)}
    built = build_board(one_size, VALID, VALID, folds=0, images=images, **networks)
    real = VALID.replace({"seed": 1, "dish.start": "images", "dish.source": str(images)})
    assert np.array_equal(row_of(built, REAL).scores[1], score_cells(start_dish(real), real, trial.test_cells.cells))
    fidelity = row_of(built, "low-fidelity training")
    # Shares of 200 validation images.
    assert np.allclose(fidelity.scores * 200, np.round(fidelity.scores * 200), atol=1e-4)
    assert len(np.unique(fidelity.scores)) > 5
    assert built.row("low-fidelity extrapolation") is not None
    sliced, trained = row_of(built, "weight sharing"), row_of(built, "weight sharing, own steps")
    assert not np.array_equal(sliced.scores, trained.scores)
    assert sliced.init_seconds == trained.init_seconds > 0
    assert trained.query_seconds > sliced.query_seconds > 0
    used = Measuring(one_size, VALID, VALID, None, 0, images, 1, Parts(), None).on_images(networks["shared_network"])
    dish, cells = start_dish(used), trial.test_cells.cells
    assert np.array_equal(sliced.scores[0], train_supernet(dish, used, cells).score(dish, cells).accuracy)
    assert f"one batch of 20 images of {images}, 4 x 4" in row_of(built, "snip").meaning
    assert np.isfinite(row_of(built, "snip").scores).all()


def measuring(trial: Trial, images: Path) -> Measuring:
    return Measuring(trial, RECIPE, VALID, None, 0, images, 1, Parts(), None)


def test_fewer_images_are_taken_where_a_class_has_too_few(trial: Trial, images: Path, tmp_path: Path) -> None:
    """Of the 960 CIFAR images that circulate a class has 76, and `learned_labels` asks for 80 of each."""
    with np.load(images) as held:
        of_class = np.flatnonzero(held["labels"] == 7)[7:]
        rare = {name: np.delete(held[name], of_class, axis=0) for name in ("images", "labels")}
    np.savez(tmp_path / "rare.npz", **rare)
    asked = recipes.get("learned_labels")
    assert measuring(trial, images).on_images(asked).dish.images == 720, "72 of each, 18 for each of 4 replicates"
    with pytest.raises(
        ValueError, match=r"has 7 images of class 7, too few .*inner\.batch_size is 20, expected at most"
    ):
        measuring(trial, tmp_path / "rare.npz").on_images(asked)
    fewer = measuring(trial, tmp_path / "rare.npz").on_images(LOW_FIDELITY_NETWORK)
    assert (fewer.dish.images, fewer.dish.valid_images) == (50, 20)
    dish = start_dish(fewer)
    assert np.bincount(dish.labels).tolist() == [5] * 10
    assert dish.valid_labels is not None
    assert np.bincount(dish.valid_labels).tolist() == [2] * 10


def nasbench(trial: Trial, pool_size: int, test_cells: int, seeds: int) -> Trial:
    """The trial, claiming to be of another size and of NAS-Bench-101."""
    table = replace(trial.test_cells, provenance={"network": "NAS-Bench-101: 128 stem channels"})
    repeated = table.subset(np.arange(test_cells) % len(table))
    pool = trial.pools[0].subset(np.arange(pool_size) % len(trial.pools[0]))
    return Trial(repeated, (pool,) * seeds, tuple(range(seeds)), (pool_size,))


def test_goals_are_judged_only_where_they_apply(board: tuple[Board, Path], trial: Trial) -> None:
    rows = tuple(replace(row, pool_size={0: 0, 8: 30, 12: 100}[row.pool_size]) for row in board[0].rows)

    def verdicts(asked: Trial) -> list[str]:
        return [outcome_of(goal, rows, asked).verdict for goal in GOALS]

    assert {outcome.verdict for outcome in board[0].outcomes} == {
        "not measured: the truth is not that of NAS-Bench-101"
    }
    assert verdicts(nasbench(trial, 30, 1000, 5))[1:] == ["not measured: the pools have 30 cells"] * 5
    assert "30, 50 cells" in verdicts(replace(nasbench(trial, 50, 1000, 5), pool_sizes=(30, 50)))[1]
    few = verdicts(nasbench(trial, 100, 400, 5))
    assert few[1] == "not measured: 400 test cells and 5 seeds, the goal asks for 1000 and 5"
    assert "not measured" in verdicts(nasbench(trial, 100, 1000, 4))[1]
    whole = nasbench(trial, 100, 1000, 5)
    assert verdicts(whole)[1] == "not reached"
    scores, truth = correlated(200, 2)
    better = judge(scores, truth)
    fine = tuple(replace(row, judged=better) if row.name == LEARNED else row for row in rows)
    goal = replace(GOALS[1], at_least=better.means["tau"] - 0.01)
    assert outcome_of(goal, fine, whole).verdict == "reached"
    assert outcome_of(replace(goal, at_least=better.means["tau"] + 0.01), fine, whole).verdict == "not reached"
    advantage = replace(GOALS[5], at_least=0.0)
    even = tuple(replace(row, judged=better) if row.name in (LEARNED, BEFORE) else row for row in rows)
    assert outcome_of(advantage, even, whole).verdict == "not reached", "its interval reaches 0"
    assert outcome_of(advantage, fine, whole).estimate is not None


# ---- on the disk


def test_files_of_a_board(board: tuple[Board, Path], tmp_path: Path) -> None:
    built, _ = board
    written = page.write(built, tmp_path / "board")
    assert written == tmp_path / "board" / "board.html"
    record = json.loads((tmp_path / "board" / "board.json").read_text())
    assert record["test_cells"] == 100
    assert record["settings"]["recipe"]["name"] == "small"
    table = (tmp_path / "board" / "board.csv").read_text().splitlines()
    heads = table[0].split(",")
    assert len(table) == 1 + len(built.rows)
    assert {*MEASURES, *(f"{name}_low" for name in MEASURES), "init_seconds", "query_seconds", "inside_90"} <= set(
        heads
    )
    text = written.read_text()
    for row in built.rows:
        assert row.name in text
        found = next(each for each in record["rows"] if (each["row"], each["pool_size"]) == (row.name, row.pool_size))
        assert found["tau"]["mean"] == row.judged.means["tau"]
        assert f"{row.judged.means['tau']:.3f} [" in text
    reads_without_scripts(text)
    best = max(built.rows, key=lambda row: row.judged.means["tau"])
    assert f"The best row, \u201c{best.name}\u201d" in text_of(text)
    assert "Your dish" not in text
    assert text.count('<figure class="cell">') == 5
    assert not re.search(r"\b(nan|None|Undefined)\b", text_of(text))
    for name in ("agreement", "cost", "predicted_and_true"):
        assert (tmp_path / "board" / "figures" / f"{name}.svg").read_text().startswith("<svg")


def test_seconds_are_told_in_a_unit_that_fits(board: tuple[Board, Path], tmp_path: Path) -> None:
    built, _ = board
    times = {5e-6: "5 µs", 0.0125: "12.5 ms", 3.0: "3.0 s", 600.0: "10 min"}
    rows = tuple(replace(built.rows[0], init_seconds=value, query_seconds=2e-6) for value in times)
    text = page.write(replace(built, rows=rows), tmp_path).read_text()
    assert re.findall(r'data-head="initialisation"[^>]*>([^<]*)</td><td[^>]*>2 µs</td>', text) == list(times.values())


def test_no_goal_of_ours_is_on_the_page(board: tuple[Board, Path]) -> None:
    assert not re.search(r"\bgoals?\b", text_of(page.board_page(board[0]).html()))
