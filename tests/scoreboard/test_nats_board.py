"""A scoreboard of NATS-Bench's cells: the same rows, and what cannot be on one."""

from pathlib import Path

import numpy as np
import pytest

import small
from spd_fast import recipes
from spd_fast.motif import NATSBENCH, count_flops, count_parameters, full_size_counts
from spd_fast.predictors.spd import SPDPredictor
from spd_fast.scoreboard.board import build_board
from spd_fast.scoreboard.measuring import PROXY_NETWORK
from spd_fast.scoreboard.trial import draw_trial, trial_of_pools
from spd_fast.spaces.nats_cell import NATS_OPS, NatsCell, NatsColumns
from spd_fast.spaces.perceptron import Perceptron
from spd_fast.truth.table import TruthTable, columns_of

QUICK = small.RECIPE.replace({"outer.epochs": 1, "inner.epochs": 2})
NARROW = PROXY_NETWORK.replace({"motif": QUICK.motif.model_dump(), "dish.images": 20, "dish.image_size": 4})
BROKEN = NatsCell(("none", "none", "none", "none", "none", "nor_conv_3x3"))


def made_up_truth(n: int = 130) -> TruthTable:
    """Cells with accuracies that count their 3x3 convolutions; nothing leads through the first two and some others."""
    rng = np.random.default_rng(5)
    codes = np.unique(rng.integers(0, 5, (n, 6)), axis=0)
    rng.shuffle(codes)
    cells = [BROKEN, NatsCell(("none",) * 6), *NatsColumns(codes)]
    accuracy = np.array([0.5 + 0.05 * cell.ops.count("nor_conv_3x3") for cell in cells]) + rng.uniform(
        0, 0.02, len(cells)
    )
    return TruthTable(
        NatsColumns.from_cells(cells), {"test_accuracy": accuracy.reshape(-1, 1, 1)}, budgets=(200,), seeds=(0,)
    )


def test_every_row_is_there() -> None:
    trial = draw_trial(made_up_truth(), pool_sizes=10, test_cells=100, seeds=1)
    board = build_board(trial, QUICK, QUICK, folds=0, proxy_network=NARROW, threads=1)
    kinds = ["structure"] * 7 + ["proxy"] * 5 + ["motif"] * 2 + ["dish"] * 2 + ["predictor"] * 3
    assert [row.kind for row in board.rows] == kinds
    held = list(trial.test_cells.cells)
    expected = {
        "parameters": [count_parameters(cell, NATSBENCH) for cell in held],
        "FLOPs": [count_flops(cell, NATSBENCH, 32) for cell in held],
        "3x3 convolutions": [int((cell.matrix == NATS_OPS.index("nor_conv_3x3")).sum()) for cell in held],
        "few poolings": [-int((cell.matrix == NATS_OPS.index("avg_pool_3x3")).sum()) for cell in held],
    }
    for name, scores in expected.items():
        row = board.row(name)
        assert row is not None
        assert row.scores.tolist() == [scores]
    structure = board.row("GP: structure")
    assert structure is not None
    pool = trial.pool(10, 0)
    predictor = SPDPredictor(features=("structure",)).fit(pool.cells, pool.accuracy)
    assert np.array_equal(structure.scores[0], predictor.query(held))
    for row in board.rows:
        if row.kind in ("motif", "dish"):
            assert np.isfinite(row.scores).all()
    assert {outcome.verdict for outcome in board.outcomes} == {"not measured: the truth is not that of NAS-Bench-101"}


def test_cells_that_nothing_leads_through_are_in_no_trial() -> None:
    truth = made_up_truth()
    left = truth.trainable()
    assert 0 < len(truth) - len(left) < 20
    assert list(left.cells) == [cell for cell in truth.cells if cell.matrix.any()]
    assert left.trainable() is left
    trial = draw_trial(truth, pool_sizes=6, test_cells=100, seeds=2)
    for table in (trial.test_cells, *trial.pools):
        assert table.cells.trainable.all()
    assert set(trial_of_pools(truth, [], test_cells=len(left)).test_cells.hashes) == set(left.hashes)
    with pytest.raises(ValueError, match=f"holds {len(left)} different cells, expected at least"):
        draw_trial(truth, pool_sizes=6, test_cells=len(left))


def test_counts_of_the_full_size_network() -> None:
    cells = list(made_up_truth(40).cells)
    parameters, flops = full_size_counts(cells)
    for cell, each in zip(cells, zip(parameters.tolist(), flops.tolist(), strict=True), strict=True):
        expected = (
            (count_parameters(cell, NATSBENCH), count_flops(cell, NATSBENCH, 32)) if cell.matrix.any() else (0, 0)
        )
        assert each == expected, cell


def test_what_no_board_is_made_of(tmp_path: Path) -> None:
    """It is refused before anything is measured or written."""
    cells = [Perceptron(slope) for slope in np.linspace(0.1, 3, 110)]
    measured = {"test_accuracy": np.linspace(0.1, 0.9, 110).reshape(-1, 1, 1)}
    slopes = TruthTable(columns_of(cells), measured, budgets=(1,), seeds=(0,))
    trial = draw_trial(slopes, pool_sizes=6, test_cells=100, seeds=1)
    with pytest.raises(
        TypeError, match="the truth holds Perceptrons, expected cells of NAS-Bench-101 or of NATS-Bench"
    ):
        build_board(trial, QUICK, QUICK, folder=tmp_path / "board")
    trial = draw_trial(made_up_truth(), pool_sizes=6, test_cells=100, seeds=1)
    slope = recipes.get("rawal_slope")
    for arguments in ((slope, QUICK), (QUICK, slope)):
        with pytest.raises(
            TypeError, match=r"cells\[0\] is NatsCell, expected spd_fast.Perceptron for a PerceptronShape"
        ):
            build_board(trial, *arguments, folder=tmp_path / "board")
    assert not (tmp_path / "board").exists()
