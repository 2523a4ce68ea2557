"""`spd_fast.SPDPredictor` with NASLib's interface of predictors.

NASLib need not be installed: it calls the methods of predictors by name, and this module reads the attributes of its
NAS-Bench-101 architectures by name.

References
----------
White et al. 2021, How powerful are performance predictors in neural architecture search?, arXiv:2104.01177, and its code:
``Predictor`` of automl/NASLib.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from spd_fast.base.errors import InvalidCellError
from spd_fast.predictors.spd import SPDPredictor
from spd_fast.spaces.cell import Cell

__all__ = [
    "NASLibPredictor",
    "cell_of",
]


class NASLibPredictor:
    """A predictor that NASLib can use, for example in ``PredictorEvaluator`` and in BANANAS.

    Parameters
    ----------
    predictor : SPDPredictor, optional
        Default: ``SPDPredictor()``.
    ss_type : str
        NASLib's name of the search space, which must be ``"nasbench101"``.
    encoding_type : str, optional
        It is accepted because NASLib passes one, and has no effect.

    Raises
    ------
    ValueError
        If the search space is another one.
    """

    def __init__(
        self,
        predictor: SPDPredictor | None = None,
        *,
        ss_type: str | None = "nasbench101",
        encoding_type: str | None = None,
    ) -> None:
        self.predictor = SPDPredictor() if predictor is None else predictor
        self.encoding_type = encoding_type
        self.hyperparams: dict[str, Any] | None = None
        self.set_ss_type(ss_type)

    def set_ss_type(self, ss_type: str | None) -> None:
        """Set the name of the search space."""
        if ss_type not in (None, "nasbench101"):
            raise ValueError(
                f"ss_type is {ss_type!r}, expected 'nasbench101': this predictor knows no cells of other spaces"
            )
        self.ss_type = ss_type

    def pre_process(self) -> None:
        """Do nothing. NASLib calls this before it queries."""

    def pre_compute(self, xtrain: object, xtest: object, unlabeled: object = None) -> None:
        """Do nothing. NASLib calls this to compute on all architectures at once; here, queries do."""

    def set_pre_computations(self, **information: object) -> None:
        """Do nothing. NASLib passes zero-cost scores of architectures, which are not used."""

    def fit(self, xtrain: Iterable[Any], ytrain: npt.ArrayLike, train_info: object = None) -> None:
        """Learn from architectures and their accuracies, which may have any unit."""
        self.predictor.fit([cell_of(each) for each in xtrain], np.asarray(ytrain, np.float64))

    def query(self, xtest: Any, info: object = None) -> Any:
        """Predict the accuracies of architectures, or of a single one.

        Returns
        -------
        ndarray, shape (n,), or float
        """
        if isinstance(xtest, Sequence | np.ndarray):
            return self.predictor.query([cell_of(each) for each in xtest])
        return float(self.predictor.query([cell_of(xtest)])[0])

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
        """Return the parameters of the predictor."""
        return cast(dict[str, Any], self.predictor.get_params(deep=False))

    def set_hyperparams(self, hyperparams: Mapping[str, Any] | None) -> None:
        """Set parameters of the predictor. They are those of `SPDPredictor`."""
        self.predictor.set_params(**(hyperparams or {}))

    def reset_hyperparams(self) -> None:
        """Replace the predictor by one with default parameters."""
        self.predictor = SPDPredictor()


def cell_of(architecture: Any) -> Cell:
    """Return the cell of a NASLib architecture, a NAS-Bench-101 specification, or a mapping.

    Parameters
    ----------
    architecture : Cell, object or mapping
        An object has ``get_spec()``, ``spec``, or ``matrix`` and ``ops``; a mapping has ``"matrix"`` and ``"ops"``.

    Raises
    ------
    TypeError
        If it is none of these.
    InvalidCellError
        If its graph is not a cell of the space.
    """
    if isinstance(architecture, Cell):
        return architecture
    spec = architecture.get_spec() if hasattr(architecture, "get_spec") else architecture
    if not isinstance(spec, Mapping):
        spec = getattr(spec, "spec", spec)
    if not isinstance(spec, Mapping):
        spec = {name: getattr(spec, name, None) for name in ("matrix", "ops")}
    matrix, ops = spec.get("matrix"), spec.get("ops")
    if matrix is None or ops is None:
        raise TypeError(
            f"architecture is a {type(architecture).__name__} without matrix and ops, expected a cell of NAS-Bench-101"
        )
    try:
        return Cell(np.asarray(matrix), list(ops))
    except InvalidCellError as error:
        raise InvalidCellError(f"architecture {architecture!r}: {error}") from None
