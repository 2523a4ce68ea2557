"""`spd_fast.SPDPredictor` with NASLib's interface of predictors.

NASLib need not be installed: it calls the methods of predictors by name, and `spd_fast.cell_of` reads the attributes of its
architectures by name.

References
----------
White et al. 2021, How powerful are performance predictors in neural architecture search?, arXiv:2104.01177, and its code:
``Predictor`` of automl/NASLib.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import checked_array, checked_instance, checked_list, shown
from spd_fast.predictors.spd import SPDPredictor
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.nats_cell import NatsCell
from spd_fast.spaces.notations import cell_of

__all__ = ["NASLibPredictor"]


class NASLibPredictor:
    """A predictor that NASLib can use, for example in ``PredictorEvaluator`` and in BANANAS.

    Parameters
    ----------
    predictor : SPDPredictor, optional
        Default: ``SPDPredictor()``. A text in its place is `ss_type`, which NASLib's own predictors take first.
    encoding_type : str, optional
        It is accepted because NASLib passes one, and has no effect.
    ss_type : str, optional
        NASLib's name of the search space, which must be ``"nasbench101"``.

    Raises
    ------
    TypeError
        If `predictor` is neither a predictor nor a text.
    ValueError
        If the search space is another one.
    """

    def __init__(
        self,
        predictor: SPDPredictor | str | None = None,
        encoding_type: str | None = None,
        *,
        ss_type: str | None = "nasbench101",
    ) -> None:
        if isinstance(predictor, str):
            predictor, ss_type = None, predictor
        if predictor is not None:
            checked_instance("predictor", predictor, SPDPredictor, "an SPDPredictor, or the name of a search space")
        self.predictor = SPDPredictor() if predictor is None else predictor
        self.encoding_type = encoding_type
        self._replaced: dict[str, Any] = {}  # parameters as they were before `set_hyperparams`
        self.set_ss_type(ss_type)

    def set_ss_type(self, ss_type: str | None) -> None:
        """Set the name of the search space."""
        if not (ss_type is None or (isinstance(ss_type, str) and ss_type == "nasbench101")):
            raise ValueError(
                f"ss_type is {shown(ss_type)}, expected 'nasbench101': this predictor knows no cells of other spaces"
            )
        self.ss_type = ss_type

    def pre_process(self) -> None:
        """Do nothing. NASLib calls this before it queries."""

    def pre_compute(self, xtrain: object, xtest: object, unlabeled: object = None) -> None:
        """Do nothing. NASLib calls this to compute on all architectures at once; here, queries do."""

    def set_pre_computations(self, *information: object, **named: object) -> None:
        """Do nothing. NASLib passes zero-cost scores of architectures, which are not used."""

    def fit(self, xtrain: Iterable[Any], ytrain: npt.ArrayLike, train_info: object = None, info: object = None) -> None:
        """Learn from architectures and their accuracies, which may have any unit.

        NASLib's evaluator passes `train_info` and its base class names it `info`; neither is used.

        Raises
        ------
        TypeError
            If an architecture is not one of NAS-Bench-101.
        """
        cells = [_nasbench_cell(each) for each in checked_list("xtrain", xtrain, "architectures")]
        self.predictor.fit(cells, np.asarray(checked_array("ytrain", ytrain), np.float64))

    def query(self, xtest: Any, info: object = None) -> Any:
        """Predict the accuracies of architectures, or of a single one.

        Returns
        -------
        ndarray, shape (n,), or float
        """
        if hasattr(xtest, "to_numpy"):  # a column of pandas
            xtest = xtest.to_numpy()
        single = (
            isinstance(xtest, str | bytes | Cell | NatsCell)
            or not isinstance(xtest, Sequence | np.ndarray)
            or (isinstance(xtest, np.ndarray) and not xtest.ndim)
        )
        if single or (len(xtest) and isinstance(xtest[0], int | np.integer)):  # NASLib's tuple of one architecture
            return float(self.predictor.query([_nasbench_cell(xtest)])[0])
        return self.predictor.query([_nasbench_cell(each) for each in xtest])

    def get_data_reqs(self) -> dict[str, Any]:
        """Return which data NASLib must supply about an architecture: none."""
        return {
            "requires_partial_lc": False,
            "metric": None,
            "requires_hyperparameters": False,
            "hyperparams": {},
            "unlabeled": False,
            "unlabeled_factor": 0,
        }

    def get_hpo_wrapper(self) -> bool:
        """Return False: NASLib need not search hyperparameters."""
        return False

    def get_hyperparams(self) -> dict[str, Any]:
        """Return the parameters of the predictor that are numbers; NASLib rounds all that it gets. `predictor` has the others."""
        return {
            name: value
            for name, value in self.predictor.get_params(deep=False).items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }

    def set_hyperparams(self, hyperparams: Mapping[str, Any] | None) -> None:
        """Set parameters of the predictor. They are those of `SPDPredictor`.

        Raises
        ------
        TypeError
            If they are not named.
        ValueError
            If `SPDPredictor` has no such parameter.
        """
        given = {} if hyperparams is None else hyperparams
        checked_instance("hyperparams", given, Mapping, "a mapping of names of SPDPredictor's parameters, or None")
        before = self.predictor.get_params(deep=False)
        self.predictor.set_params(**{str(name): value for name, value in given.items()})
        self._replaced = {str(name): before[str(name)] for name in given} | self._replaced

    def reset_hyperparams(self) -> None:
        """Undo `set_hyperparams`: the predictor has the parameters that it was made with. NASLib calls this before every fit."""
        self.predictor.set_params(**self._replaced)
        self._replaced = {}


def _nasbench_cell(architecture: Any) -> Cell:
    cell = cell_of(architecture)
    if isinstance(cell, Cell):
        return cell
    raise TypeError(f"architecture {architecture!r} is a cell of NATS-Bench, expected one of NAS-Bench-101")
