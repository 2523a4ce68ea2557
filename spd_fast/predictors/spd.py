"""`SPDPredictor`: it learns from labelled cells and predicts the accuracies of other cells.

It knows three kinds of features: *structure* (`spd_fast.predictors.features`, for which nothing is trained), *curves* (the learning
curves of motifs on an unlearned dish) and *dish* (the score on a dish that is learned from the labelled cells). A Gaussian process on
these features is the strongest predictor. The score on a learned dish alone is the Synthetic Petri Dish as its authors meant it.
Only learning a dish needs PyTorch.

References
----------
Rasmussen and Williams 2006, Gaussian Processes for Machine Learning: chapter 2 and equation 5.8 (marginal likelihood).
Wolpert 1992, Stacked generalization, Neural Networks 5(2): a labelled cell's feature comes from a dish that was learned without it.
White et al. 2021, How powerful are performance predictors in neural architecture search?, arXiv:2104.01177: fit and query.
Rawal et al. 2020, Synthetic Petri Dish, arXiv:2005.13092.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

import spd_fast.recipes as recipes
from spd_fast.base.files import load_arrays, save_arrays
from spd_fast.base.progress import part_of
from spd_fast.base.types import Array, Progress
from spd_fast.dish import Dish
from spd_fast.outer.start import start_dish
from spd_fast.predictors.features import structural_features
from spd_fast.predictors.gaussian_process import GaussianProcess, fit_gaussian_process
from spd_fast.predictors.readings import LearnedDish, learn_dish, learn_folds, mean_scaled, read_all
from spd_fast.recipes.settings import Recipe
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.cell_columns import CellColumns

__all__ = [
    "SCHEMA",
    "SPDPredictor",
]


SCHEMA: Final = "spd_fast.predictor/2"
"""Version of the file that `SPDPredictor.save` writes."""
FEATURES: Final = ("structure", "curves", "dish")
"""The kinds of features of the Gaussian process, in the order of its groups."""
DEFAULT_RECIPE: Final = "learned_labels"
DEFAULT_CURVES: Final = "curves"
Cells = Sequence[Cell] | Array


# ---- the estimator


class SPDPredictor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts accuracies of cells from those of labelled cells. It is a scikit-learn estimator.

    Parameters
    ----------
    recipe : Recipe or str, optional
        The recipe by which dishes are learned, or its name. Default: ``"learned_labels"``.
    variant : "gaussian_process" or "dish"
        "gaussian_process": predict by a Gaussian process on `features`. "dish": predict by the score on a learned dish alone.
    features : sequence of "structure", "curves", "dish"
        Features of the Gaussian process: structural scalars; learning curves of motifs on an unlearned dish, as `curves` says;
        the score on dishes that are learned from the labelled cells.
    curves : Recipe or str, optional
        The recipe whose motif, inner loop and unlearned dish give the learning curves, or its name. Default: ``"curves"``.
    folds : int, at least 2
        Number of folds of the labelled cells for the feature "dish". One dish is learned without each fold. The score of a
        labelled cell comes from the dish that was learned without it; other cells have the mean score of all dishes.
    threads : int, optional
        Default: the processors that this process may use. Does not change the result.

    Attributes
    ----------
    dishes_ : tuple of LearnedDish
        The dishes that queries train motifs on, with their recipes.
    process_ : GaussianProcess or None
        None with variant "dish".

    Notes
    -----
    Cells are a sequence of n `Cell`, or an integer array of shape (n, 3) with the columns of `CellColumns`: vertices,
    edge_bits, op_codes. The same arguments give the same bits. Only learning a dish needs PyTorch; a query does not.

    Examples
    --------
    >>> from spd_fast import TruthTable
    >>> labelled, others = TruthTable.load().split(60, seed=0)
    >>> predictor = SPDPredictor(features=("structure",)).fit(labelled.cells, labelled.accuracy)
    >>> predictor.score(others.cells, others.accuracy) > 0.3
    True
    """

    dishes_: "tuple[LearnedDish, ...]"
    process_: GaussianProcess | None

    def __init__(
        self,
        recipe: Recipe | str | None = None,
        *,
        variant: Literal["gaussian_process", "dish"] = "gaussian_process",
        features: Sequence[str] = ("structure", "curves"),
        curves: Recipe | str | None = None,
        folds: int = 5,
        threads: int | None = None,
    ) -> None:
        self.recipe = recipe
        self.variant = variant
        self.features = features
        self.curves = curves
        self.folds = folds
        self.threads = threads

    def fit(self, cells: Cells, accuracy: npt.ArrayLike, *, progress: Progress | None = None) -> Self:
        """Learn from labelled cells.

        Parameters
        ----------
        cells : sequence of n Cell, or integer array, shape (n, 3)
        accuracy : array-like, shape (n,), finite
            Accuracies in any unit; more is better.
        progress : callable, optional
            It is called with the share of the work that is done, 0 to 1. An exception that it raises stops the fit.

        Raises
        ------
        ValueError, TypeError
            If cells and accuracies do not fit each other, a parameter is unknown, or the recipe needs more cells.
        """
        self._check_parameters()
        pool = _as_cells(cells)
        known = _checked_accuracy(accuracy, len(pool))
        if self.variant == "dish":
            recipe = _recipe(self.recipe, DEFAULT_RECIPE)
            learned = learn_dish(pool, known, recipe, threads=self.threads, progress=progress)
            self.dishes_, self.process_ = (learned,), None
            return self
        groups: list[Array] = []
        dishes: list[LearnedDish] = []
        kinds = [kind for kind in FEATURES if kind in self.features]
        for k, kind in enumerate(kinds):
            report = part_of(progress, k, len(kinds))
            if kind == "structure":
                groups.append(structural_features(pool))
            elif kind == "curves":
                recipe = _recipe(self.curves, DEFAULT_CURVES)
                dishes.append(LearnedDish(recipe, start_dish(recipe)))
                groups.append(dishes[-1].read(pool, self.threads, report).curve)
            else:
                recipe = _recipe(self.recipe, DEFAULT_RECIPE)
                scores, parts = learn_folds(pool, known, recipe, self.folds, threads=self.threads, progress=report)
                groups.append(scores[:, None])
                dishes += parts
        self.dishes_, self.process_ = tuple(dishes), fit_gaussian_process(groups, known)
        return self

    def query(self, cells: Cells, *, progress: Progress | None = None) -> npt.NDArray[np.float64]:
        """Predict the accuracies of cells.

        Parameters
        ----------
        cells : sequence of n Cell, or integer array, shape (n, 3)
        progress : callable, optional

        Returns
        -------
        ndarray, shape (n,), float64
            With a Gaussian process: accuracies, in the unit of the accuracies that it learned from. With variant "dish": scores
            without a unit; larger is better, and -inf if a motif diverged.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If `fit` has not been called.
        """
        check_is_fitted(self, "dishes_")
        wanted = _as_cells(cells)
        if not len(wanted):
            return np.empty(0)
        readings = read_all(self.dishes_, wanted, threads=self.threads, progress=progress)
        if self.process_ is None:
            return np.nan_to_num(readings[0].score, nan=-np.inf, neginf=-np.inf)
        folds = self.folds if "dish" in self.features else 0
        first = len(self.dishes_) - folds
        groups: list[Array] = []
        if "structure" in self.features:
            groups.append(structural_features(wanted))
        if "curves" in self.features:
            groups.append(readings[0].curve)
        if "dish" in self.features:
            groups.append(mean_scaled(self.dishes_[first:], [read.score for read in readings[first:]])[:, None])
        return self.process_.predict(np.concatenate(groups, axis=1))

    def predict(self, cells: Cells) -> npt.NDArray[np.float64]:
        """Predict the accuracies of cells: scikit-learn's name for `query`."""
        return self.query(cells)

    def score(self, cells: Cells, accuracy: npt.ArrayLike) -> float:
        """Return Kendall's tau-b of predictions and accuracies, -1 to 1."""
        from spd_fast.base.ranks import kendall_tau

        known = _as_cells(cells)
        return kendall_tau(self.query(known), _checked_accuracy(accuracy, len(known)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a fitted predictor as an .npz of plain arrays without pickles, with its settings as JSON: a whole file or none.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If `fit` has not been called.
        OSError
            If the file cannot be written.
        """
        check_is_fitted(self, "dishes_")
        settings: dict[str, Any] = {
            "schema": SCHEMA,
            "parameters": {
                name: json.loads(value.to_json()) if isinstance(value, Recipe) else value
                for name, value in self.get_params(deep=False).items()
            },
            "dishes": [json.loads(dish.recipe.to_json()) for dish in self.dishes_],
        }
        arrays = {"settings": np.frombuffer(json.dumps(settings).encode(), np.uint8)}
        for k, each in enumerate(self.dishes_):
            arrays |= {f"dish.{k}.{name}": array for name, array in each.dish.arrays().items()}
            arrays[f"scale.{k}"] = np.array([each.mean, each.spread])
        if self.process_ is not None:
            arrays |= {
                f"process.{name}": np.asarray(getattr(self.process_, name))
                for name in GaussianProcess.__dataclass_fields__
            }
        save_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "SPDPredictor":
        """Read a file that `save` wrote.

        The Gaussian process is fitted again to the same accuracies, with the saved kernel parameters.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged or not a predictor of this version.
        """
        arrays = load_arrays(path, what="predictor file", listed=True)
        try:
            settings = json.loads(arrays["settings"].tobytes())
            if settings["schema"] != SCHEMA:
                raise ValueError(
                    f"has schema {settings['schema']!r}, expected {SCHEMA!r}: another version of spd_fast wrote it; fit the predictor anew"
                )
            parameters: dict[str, Any] = {
                name: Recipe.from_json(json.dumps(value)) if isinstance(value, dict) else value
                for name, value in settings["parameters"].items()
            }
            loaded = cls(**parameters)
            loaded._check_parameters()
            loaded.dishes_ = tuple(
                _dish_from(arrays, k, Recipe.from_json(json.dumps(recipe)))
                for k, recipe in enumerate(settings["dishes"])
            )
            loaded.process_ = _process_from(arrays) if loaded.variant == "gaussian_process" else None
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"predictor file {os.fspath(path)} cannot be read: {error}") from error
        return loaded

    def _check_parameters(self) -> None:
        if self.variant not in ("gaussian_process", "dish"):
            raise ValueError(f"variant is {self.variant!r}, expected 'gaussian_process' or 'dish'")
        unknown = [kind for kind in self.features if kind not in FEATURES]
        if unknown or not len(self.features):
            raise ValueError(f"features are {list(self.features)}, expected one or more of {', '.join(FEATURES)}")
        if self.folds < 2:
            raise ValueError(f"folds is {self.folds}, expected at least 2")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # `score` returns tau, and scikit-learn's own checks have no cells
        return tags


def _recipe(given: Recipe | str | None, default: str) -> Recipe:
    if isinstance(given, Recipe):
        return given
    return recipes.get(default if given is None else given)


def _as_cells(cells: Cells) -> Sequence[Cell]:
    if isinstance(cells, np.ndarray):
        if cells.ndim != 2 or cells.shape[1] != 3 or cells.dtype.kind not in "iu":
            raise ValueError(
                f"cells is a {cells.dtype} array of shape {cells.shape}, expected integers of shape (n, 3): vertices, "
                "edge_bits, op_codes; or a sequence of Cell"
            )
        return CellColumns(*cells.T)
    for place, cell in enumerate(cells if not isinstance(cells, CellColumns) else ()):
        if not isinstance(cell, Cell):
            raise TypeError(f"cells[{place}] is a {type(cell).__name__}, expected a Cell")
    return cells


def _checked_accuracy(accuracy: npt.ArrayLike, n: int) -> npt.NDArray[np.float64]:
    checked = np.asarray(accuracy, np.float64)
    if checked.shape != (n,):
        raise ValueError(f"accuracy has shape {checked.shape}, expected ({n},) to match cells")
    if n < 2:
        raise ValueError(f"{n} labelled cells were given, expected at least 2")
    bad = np.flatnonzero(~np.isfinite(checked))
    if len(bad):
        raise ValueError(f"accuracy[{bad[0]}] is {checked[bad[0]]}, expected finite numbers")
    return checked


def _dish_from(arrays: Mapping[str, Array], k: int, recipe: Recipe) -> LearnedDish:
    prefix = f"dish.{k}."
    dish = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    mean, spread = arrays[f"scale.{k}"].tolist()
    return LearnedDish(recipe, Dish.from_arrays(dish), mean, spread)


def _process_from(arrays: Mapping[str, Array]) -> GaussianProcess:
    groups = tuple(arrays["process.groups"].tolist())
    return GaussianProcess(arrays["process.features"], groups, arrays["process.accuracy"], arrays["process.theta"])
