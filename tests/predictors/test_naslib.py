"""NASLib's interface, called as its evaluator calls predictors: architectures as objects, one query for each."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spd_fast.base.errors import InvalidCellError
from spd_fast.predictors.naslib import NASLibPredictor
from spd_fast.predictors.spd import SPDPredictor
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.notations import cell_of
from spd_fast.truth.table import TruthTable

CODES = ["input", "output", "maxpool3x3", "conv1x1-bn-relu", "conv3x3-bn-relu"]


class Architecture:
    """What NASLib's NAS-Bench-101 graphs offer: a specification of 7 vertices, blank ones filled with a convolution."""

    def __init__(self, cell: Cell) -> None:
        n = cell.n_vertices
        places = [*range(n - 1), 6]
        self.matrix = np.zeros((7, 7), dtype="int8")
        self.matrix[np.ix_(places, places)] = cell.matrix
        self.ops = [*cell.ops[:-1], *["conv3x3-bn-relu"] * (7 - n), "output"]

    def get_spec(self) -> dict[str, Any]:
        return {"matrix": self.matrix, "ops": self.ops}


def test_naslibs_evaluation_runs() -> None:
    train, rest = TruthTable.load().split(40, 0)
    test = rest.sample(20, 0)
    ours = SPDPredictor(features=("structure",))
    predictor = NASLibPredictor(ours)
    predictor.set_ss_type("nasbench101")
    predictor.pre_process()
    predictor.pre_compute([], [], None)
    predictor.set_pre_computations(None, xtrain_zc_info=None)
    predictor.reset_hyperparams()
    assert predictor.get_data_reqs()["requires_partial_lc"] is False
    assert predictor.get_hpo_wrapper() is False
    rounded = {name: np.round(value, 4) for name, value in predictor.get_hyperparams().items()}
    assert rounded == {"folds": 5}
    predictor.fit([Architecture(cell) for cell in train.cells], 100 * train.accuracy, train_info=None)
    predictor.fit([Architecture(cell) for cell in train.cells], 100 * train.accuracy, info=None)
    assert predictor.predictor is ours
    single = [predictor.query(Architecture(cell), None) for cell in test.cells]
    together = predictor.query([Architecture(cell) for cell in test.cells])
    # One cell or many: the same sums of 40 products in another order, of accuracies below 100.
    assert np.allclose(single, together, rtol=0, atol=40 * 100 * 2**-52 * 10)
    naslibs = [
        (*(each := Architecture(cell)).matrix.ravel(), 0, *map(CODES.index, each.ops[1:])) for cell in test.cells
    ]
    assert np.array_equal(predictor.query(naslibs), together)
    assert predictor.query(naslibs[0]) == single[0]
    expected = SPDPredictor(features=("structure",)).fit(train.cells, 100 * train.accuracy).query(test.cells)
    assert np.array_equal(together, expected)


def test_hyperparameters() -> None:
    ours = SPDPredictor(folds=4, threads=1)
    predictor = NASLibPredictor(ours, "path")
    assert predictor.get_hyperparams() == {"folds": 4, "threads": 1}
    predictor.set_hyperparams({"features": ("structure",), "folds": 3})
    predictor.set_hyperparams({"folds": 2})
    assert predictor.get_hyperparams() == {"folds": 2, "threads": 1}
    assert ours.features == ("structure",)
    predictor.set_hyperparams(None)
    with pytest.raises(ValueError, match="Invalid parameter 'colour'"):
        predictor.set_hyperparams({"colour": 1})
    predictor.reset_hyperparams()
    assert predictor.predictor is ours
    assert ours.get_params() == SPDPredictor(folds=4, threads=1).get_params()


def test_architectures_of_every_kind() -> None:
    cell = TruthTable.load().cells[3]
    padded = Architecture(cell)
    assert cell_of(cell) is cell
    for architecture in (
        padded,
        padded.get_spec(),
        SimpleNamespace(spec=padded.get_spec()),
        SimpleNamespace(matrix=padded.matrix, ops=padded.ops),
    ):
        assert cell_of(architecture) == cell


def test_what_is_no_architecture() -> None:
    predictor = NASLibPredictor("nasbench101")
    with pytest.raises(TypeError, match="a cell is given as float"):
        predictor.fit([3.5], [0.5])
    with pytest.raises(InvalidCellError, match="no path leads"):
        predictor.query({"matrix": [[0, 0], [0, 0]], "ops": ["input", "output"]})
    with pytest.raises(TypeError, match="is a cell of NATS-Bench, expected one of NAS-Bench-101"):
        predictor.query((2, 2, 0, 4, 2, 1))
    for wrong in (lambda: NASLibPredictor(ss_type="darts"), lambda: NASLibPredictor("darts", "path")):
        with pytest.raises(ValueError, match="ss_type is 'darts', expected 'nasbench101'"):
            wrong()
    with pytest.raises(TypeError, match=r"predictor is \{\}, expected an SPDPredictor, or the name of a search space"):
        NASLibPredictor({})  # type: ignore[arg-type]
