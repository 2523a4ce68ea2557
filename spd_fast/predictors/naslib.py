"""NASLib's predictor interface over `spd_fast.SPDPredictor`.

NASLib need not be installed: it calls predictors by the names of their methods, and its NAS-Bench-101 architectures are
read by theirs.

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
    """A predictor as NASLib calls it: for ``PredictorEvaluator``, BANANAS and the others.

    Parameters
    ----------
    predictor : SPDPredictor, optional
        Default: ``SPDPredictor()``.
    ss_type : str
        NASLib's name of the search space: ``"nasbench101"`` is the only one there is.
    encoding_type : str, optional
        Taken because NASLib gives one; cells are used as they are.

    Raises
    ------
    ValueError
        If the search space is another.
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
        """Take the name of the search space."""
        if ss_type not in (None, "nasbench101"):
            raise ValueError(
                f"ss_type is {ss_type!r}, expected 'nasbench101': cells of other spaces are not known here"
            )
        self.ss_type = ss_type

    def pre_process(self) -> None:
        """Do what is needed before any architecture is queried: nothing."""

    def pre_compute(self, xtrain: object, xtest: object, unlabeled: object = None) -> None:
        """Compute on all architectures at once: nothing, queries are batched already."""

    def set_pre_computations(self, **information: object) -> None:
        """Take zero-cost scores of architectures: they are not used."""

    def fit(self, xtrain: Iterable[Any], ytrain: npt.ArrayLike, train_info: object = None) -> None:
        """Learn from architectures and their accuracies, in any unit."""
        self.predictor.fit([cell_of(each) for each in xtrain], np.asarray(ytrain, np.float64))

    def query(self, xtest: Any, info: object = None) -> Any:
        """Predict architectures, or a single one.

        Returns
        -------
        ndarray, shape (n,), or float
        """
        if isinstance(xtest, Sequence | np.ndarray):
            return self.predictor.query([cell_of(each) for each in xtest])
        return float(self.predictor.query([cell_of(xtest)])[0])

    def get_data_reqs(self) -> dict[str, Any]:
        """Return what must be known of an architecture beside itself: nothing."""
        return {
            "requires_partial_lc": False,
            "metric": None,
            "requires_hyperparameters": False,
            "hyperparams": {},
            "unlabeled": False,
            "unlabeled_factor": 0,
        }

    def get_hpo_wrapper(self) -> bool:
        """Return whether NASLib should search hyperparameters: no."""
        return False

    def get_hyperparams(self) -> dict[str, Any]:
        """Return the parameters of the predictor."""
        return cast(dict[str, Any], self.predictor.get_params(deep=False))

    def set_hyperparams(self, hyperparams: Mapping[str, Any] | None) -> None:
        """Set parameters of the predictor, those of `SPDPredictor`."""
        self.predictor.set_params(**(hyperparams or {}))

    def reset_hyperparams(self) -> None:
        """Go back to the default parameters."""
        self.predictor = SPDPredictor()


def cell_of(architecture: Any) -> Cell:
    """Return the cell of a NASLib architecture, a NAS-Bench-101 specification, or a mapping.

    Parameters
    ----------
    architecture : Cell, or object with ``get_spec()``, ``spec`` or ``matrix`` and ``ops``, or mapping of these two

    Raises
    ------
    TypeError
        If it is none of them.
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
