"""BANANAS' predictor: each network against one trained alone by PyTorch's own layers, its encoding, its errors, the same bits."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

from spd_fast.base.seeds import derived_seed
from spd_fast.predictors.bananas import BananasPredictor
from spd_fast.predictors.features import path_encoding
from spd_fast.spaces.cell import OPS, Cell
from spd_fast.spaces.nats_cell import NATS_OPS, NatsCell
from spd_fast.truth.table import TruthTable

SMALL: dict[str, Any] = {"ensemble": 2, "layers": 2, "width": 6, "epochs": 12, "batch_size": 8}


@pytest.fixture(scope="module")
def labelled() -> TruthTable:
    return TruthTable.load().sample(20, 0)


@pytest.fixture(scope="module")
def others() -> TruthTable:
    return TruthTable.load().split(20, 0)[1].sample(30, 1)


@pytest.mark.parametrize("loss", ["mape", "mae"])
def test_a_network_is_the_one_that_pytorch_trains_alone(loss: str, labelled: TruthTable, others: TruthTable) -> None:
    """The second network of two, from nn.Linear, the loss as the article writes it, in float64.

    Both round differently. 36 steps of Adam, each of at most 0.01, move a weight by at most 0.36, and a step's relative rounding is a
    few eps = 1.2e-7; 1e-4 of an error of some per cent is three orders of magnitude above that and far below a step.
    """
    predictor = BananasPredictor(**SMALL, loss=loss, seed=3).fit(labelled.cells, labelled.accuracy)
    errors = torch.from_numpy(100 * (1 - labelled.accuracy))
    inputs = torch.from_numpy(path_encoding(labelled.cells)[:, :40].astype(np.float64))
    rng = np.random.default_rng(derived_seed(3, "bananas weights"))
    network = nn.Sequential(nn.Linear(40, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1)).double()
    for layer in (each for each in network if isinstance(each, nn.Linear)):
        reach = (6 / (layer.in_features + layer.out_features)) ** 0.5
        drawn = rng.uniform(-reach, reach, (2, layer.in_features, layer.out_features))[1]
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(drawn.T))
            layer.bias.zero_()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, betas=(0.9, 0.99), eps=1e-7)
    bound = predictor.lower_bound_
    for epoch in range(12):
        orders = np.random.default_rng(derived_seed(3, "bananas orders", epoch))
        order = orders.permuted(np.tile(np.arange(20), (2, 1)), axis=1)[1]
        for start in (0, 8, 16):
            rows = order[start : start + 8]
            found, wanted = network(inputs[rows])[:, 0], errors[rows]
            value = (found - bound) / (wanted - bound) - 1 if loss == "mape" else found - wanted
            optimizer.zero_grad()
            value.abs().mean().backward()
            optimizer.step()
    tested = torch.from_numpy(path_encoding(others.cells)[:, :40].astype(np.float64))
    expected = 1 - network(tested)[:, 0].detach().numpy() / 100
    mean, spread = predictor.query(others.cells, return_std=True)
    first = BananasPredictor(**SMALL, loss=loss, seed=3).fit(labelled.cells, labelled.accuracy)
    first.weights_ = tuple(weight[1:] for weight in first.weights_)
    first.biases_ = tuple(bias[1:] for bias in first.biases_)
    np.testing.assert_allclose(first.query(others.cells), expected, atol=1e-6)
    # Of two numbers the mean is half way between them, and the standard deviation half their distance.
    np.testing.assert_allclose(np.abs(expected - mean), spread, atol=1e-6)


def test_the_encoding_is_cut_behind_paths_of_so_many_operations(labelled: TruthTable) -> None:
    """Cells that differ on a path of four operations alone look alike to an encoding that is cut at three."""
    deep = [
        Cell(
            ["010000", "001000", "000100", "000010", "000001", "000000"],
            ["input", OPS[0], OPS[0], OPS[0], last, "output"],
        )
        for last in OPS[:2]
    ]
    for longest, alike in ((3, True), (4, False)):
        predictor = BananasPredictor(**SMALL, longest_path=longest).fit(labelled.cells, labelled.accuracy)
        assert len(predictor.weights_[0][0]) == {3: 40, 4: 121}[longest]
        one, two = predictor.query(deep)
        assert (one == two) == alike


def test_it_learns(labelled: TruthTable) -> None:
    """With the published settings it fits its labelled cells; tau of 20 unrelated pairs has standard deviation 0.16."""
    predictor = BananasPredictor(loss="mae").fit(labelled.cells, labelled.accuracy)
    assert predictor.score(labelled.cells, labelled.accuracy) > 0.6


def test_same_seed_same_bits(labelled: TruthTable, others: TruthTable) -> None:
    """With another number of PyTorch's threads, too, which is as before afterwards."""
    first = BananasPredictor(**SMALL).fit(labelled.cells, labelled.accuracy).query(others.cells)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        predictor = BananasPredictor(**SMALL).fit(labelled.cells, labelled.accuracy)
        second = predictor.query(others.cells)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(first, second)
    numbers = np.stack([getattr(others.nasbench_cells, name) for name in others.nasbench_cells.names], axis=1)
    assert np.array_equal(predictor.predict(numbers.astype(np.int64)), first)
    copy = clone(predictor).set_params(seed=1).fit(labelled.cells, labelled.accuracy)
    assert not np.array_equal(copy.query(others.cells), first)
    assert predictor.query([]).shape == (0,)


def test_the_bound_is_below_every_error(labelled: TruthTable) -> None:
    def bound(accuracy: Any, **arguments: Any) -> float:
        return BananasPredictor(**SMALL | {"epochs": 1}, **arguments).fit(labelled.cells, accuracy).lower_bound_

    spread = np.linspace(0, 0.1, 20)
    assert bound(0.9 - spread) == 4.5
    assert bound(0.97 - spread) == pytest.approx(2.5)
    assert bound(1 - spread) == -0.5
    assert bound(0.9 - spread, lower_bound=8) == 8
    with pytest.raises(
        ValueError, match="lower_bound is 10 per cent, expected less than 10, the smallest error of the"
    ):
        bound(0.9 - spread, lower_bound=10)
    assert bound(0.9 - spread, lower_bound=10, loss="mae") == 10


def test_bad_input_is_refused(labelled: TruthTable) -> None:
    cells, accuracy = labelled.cells, labelled.accuracy
    nats = [NatsCell([NATS_OPS[1]] * 6)] * 20
    with pytest.raises(
        ValueError, match=r"accuracy\[0\] is 9.*, expected shares from 0 to 1: divide accuracies in per"
    ):
        BananasPredictor().fit(cells, 90 + accuracy)
    with pytest.raises(ValueError, match="1 labelled cells were given, expected at least 2"):
        BananasPredictor().fit(cells[:1], accuracy[:1])
    with pytest.raises(ValueError, match=r"accuracy has shape \(19,\), expected \(20,\) to match cells"):
        BananasPredictor().fit(cells, accuracy[1:])
    with pytest.raises(
        TypeError, match=r"cells\[0\] is NatsCell, expected Cell: the path encoding is that of NAS-Bench"
    ):
        BananasPredictor().fit(nats, accuracy)
    with pytest.raises(NotFittedError):
        BananasPredictor().query(cells)
    for name, value, message in (
        ("loss", "mse", "loss is 'mse', expected"),
        ("lower_bound", float("nan"), "lower_bound is nan, expected a finite number"),
        ("longest_path", 6, "longest_path is 6, expected 0 to 5"),
        ("ensemble", 0, "ensemble is 0, expected at least 1"),
        ("lr", 0, "lr is 0, expected a number above 0"),
        ("seed", -1, "seed is -1, expected at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            BananasPredictor(**{name: value}).fit(cells, accuracy)
    fitted = BananasPredictor(**SMALL).fit(cells, accuracy)
    with pytest.raises(TypeError, match=r"cells\[0\] is NatsCell, expected Cell"):
        fitted.query(nats)
    with pytest.raises(TypeError, match="return_std is 1, expected"):
        fitted.query(cells, return_std=1)  # type: ignore[call-overload]
    with pytest.warns(UserWarning, match=r"all accuracies are alike \(0.9\)") as caught:
        fitted.fit(cells, np.full(20, 0.9))
    assert Path(caught[0].filename).name == Path(__file__).name


def test_a_fit_that_is_stopped_changes_nothing(labelled: TruthTable) -> None:
    predictor = BananasPredictor(**SMALL).fit(labelled.cells, labelled.accuracy)
    before, shares = predictor.query(labelled.cells), list[float]()

    def stop(share: float) -> None:
        shares.append(share)
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predictor.set_params(seed=1).fit(labelled.cells, labelled.accuracy, progress=stop)
    assert shares == [epoch / 12 for epoch in range(1, 8)]
    assert np.array_equal(predictor.query(labelled.cells), before)


def test_a_fit_in_another_thread_stops_with_the_main_thread() -> None:
    truth = TruthTable.load()
    endless = BananasPredictor(epochs=10**6, layers=1)
    try:
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(endless.fit, truth.cells[:10], truth.accuracy[:10])
            time.sleep(0.1)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert isinstance(future.exception(), KeyboardInterrupt)
