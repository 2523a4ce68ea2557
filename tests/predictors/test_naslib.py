"""NASLib's interface, called as its evaluator calls predictors: architectures as objects, one query for each."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spd_fast.base.errors import InvalidCellError
from spd_fast.predictors.naslib import NASLibPredictor, cell_of
from spd_fast.predictors.spd import SPDPredictor
from spd_fast.spaces.cell import Cell
from spd_fast.truth.table import TruthTable


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
    predictor.set_pre_computations(unlabeled=None, xtrain_zc_info=None)
    assert predictor.get_data_reqs()["requires_partial_lc"] is False
    assert predictor.get_hpo_wrapper() is False
    predictor.fit([Architecture(cell) for cell in train.cells], 100 * train.accuracy, None)
    single = [predictor.query(Architecture(cell), None) for cell in test.cells]
    together = predictor.query([Architecture(cell) for cell in test.cells])
    # One cell or many: the same sums of 40 products in another order, of accuracies below 100.
    assert np.allclose(single, together, rtol=0, atol=40 * 100 * 2**-52 * 10)
    expected = SPDPredictor(features=("structure",)).fit(train.cells, 100 * train.accuracy).query(test.cells)
    assert np.array_equal(together, expected)


def test_hyperparameters() -> None:
    predictor = NASLibPredictor(encoding_type="path")
    predictor.set_hyperparams({"features": ("structure",), "folds": 3})
    assert predictor.get_hyperparams()["folds"] == 3
    assert predictor.predictor.features == ("structure",)
    predictor.reset_hyperparams()
    assert predictor.get_hyperparams() == SPDPredictor().get_params()
    predictor.set_hyperparams(None)
    with pytest.raises(ValueError, match="Invalid parameter 'colour'"):
        predictor.set_hyperparams({"colour": 1})


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
    with pytest.raises(TypeError, match="architecture is a int without matrix and ops"):
        cell_of(3)
    with pytest.raises(InvalidCellError, match=r"architecture \{'matrix'.*no path leads"):
        cell_of({"matrix": [[0, 0], [0, 0]], "ops": ["input", "output"]})
    with pytest.raises(ValueError, match="ss_type is 'darts', expected 'nasbench101'"):
        NASLibPredictor(ss_type="darts")
