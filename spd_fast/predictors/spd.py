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
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final, Literal, Self, overload

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

import spd_fast._core as _core
import spd_fast.recipes as recipes
from spd_fast.base.display import ShownProgress, shown_share
from spd_fast.base.executors import Executor, checked_executor
from spd_fast.base.files import load_arrays, other_kind, save_arrays
from spd_fast.base.progress import part_of
from spd_fast.base.stores import Measurements, content_digest
from spd_fast.base.types import (
    Array,
    Progress,
    checked_choice,
    checked_flag,
    checked_instance,
    checked_integer,
    checked_names,
    checked_path,
    checked_shown_progress,
    plain,
)
from spd_fast.dish import Dish
from spd_fast.outer.start import start_dish
from spd_fast.predictors.features import structural_features
from spd_fast.predictors.gaussian_process import GaussianProcess, fit_gaussian_process
from spd_fast.predictors.readings import KeptReadings, LearnedDish, learn_dish, learn_folds, mean_scaled, read_kept
from spd_fast.predictors.regressor import (
    CELL_TYPES,
    CellRegressor,
    Cells,
    cells_of,
    checked_labelled,
    type_of,
    warn_if_alike,
)
from spd_fast.recipes.settings import Recipe
from spd_fast.spaces.cell import Cell

__all__ = [
    "MEASURED",
    "SCHEMA",
    "SPDPredictor",
]


SCHEMA: Final = "spd_fast.predictor/3"
"""Version of the file that `SPDPredictor.save` writes."""
MEASURED: Final = "spd_fast.fit/1"
"""Version of the journal of a fit."""
FEATURES: Final = ("structure", "curves", "dish")
"""The kinds of features of the Gaussian process, in the order of its groups."""
DEFAULT_RECIPE: Final = "learned_labels"
DEFAULT_CURVES: Final = "curves"


# ---- the estimator


class SPDPredictor(CellRegressor):
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
    cell_type_ : type
        The type of the cells that it learned from: `Cell` or `NatsCell`. A query takes cells of this type alone.
    parameters_ : dict
        The parameters of the last fit. Parameters that are set later act at the next fit; `save` writes those of the last.
    notes_ : mapping that JSON can hold
        Facts about the labelled cells which `save` writes and `load` reads, such as the file that they came from. `fit` empties it.

    Notes
    -----
    With learning curves of a recipe that has `outer.reference_losses`, as ``"curves"`` has, the label-free score is the prior of the Gaussian
    process (`fit_gaussian_process`): with few labelled cells it predicts about as well as that score alone.

    Cells are a sequence of n `Cell` or of n `NatsCell`. Cells of NAS-Bench-101 may also be an integer array of shape (n, 3), or a
    list of such rows, with the columns of `CellColumns`: vertices, edge_bits, op_codes; or a pandas.DataFrame with columns of these
    names. The same arguments give the same bits. Only learning a dish needs PyTorch; a query does not. The motifs of a cell that
    is queried are trained once: what they showed is kept until the next fit.

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
    cell_type_: type = Cell
    parameters_: dict[str, Any]
    notes_: Mapping[str, Any] = MappingProxyType({})
    _kept: list[KeptReadings]

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

    def fit(
        self,
        cells: Cells,
        accuracy: npt.ArrayLike,
        *,
        measured: str | os.PathLike[str] | None = None,
        progress: ShownProgress = None,
    ) -> Self:
        """Learn from labelled cells.

        Parameters
        ----------
        cells : sequence of n Cell or of n NatsCell, or integers, shape (n, 3)
        accuracy : array-like, shape (n,), finite
            Accuracies in any unit; more is better.
        measured : path, optional
            File that keeps what was measured: the learning curves of the labelled cells, and the dishes of folds. A fit that was
            interrupted goes on from there.
        progress : callable or bool, optional
            It is called with the share of the work that is done, 0 to 1. An exception that it raises stops the fit. Default: a bar, as
            `spd_fast.rank` shows it.

        Raises
        ------
        ValueError, TypeError
            If cells and accuracies do not fit each other, a parameter is unknown, the recipe needs more cells, or `measured` has
            measurements of another fit.

        Warns
        -----
        UserWarning
            If all accuracies are alike, so that there is nothing to learn.
        """
        parameters = self._checked_parameters()
        checked_shown_progress(progress)
        if measured is not None:
            checked_path("measured", measured)
        pool, known = checked_labelled(cells, accuracy)
        kind_of_cells = type_of(pool)
        with (
            warnings.catch_warnings(),
            _kept_in(measured, pool, known, parameters) as kept,
            shown_share(progress, "training motifs of the labelled cells") as report,
        ):
            warn_if_alike(known)
            if np.ptp(known) == 0:
                warnings.filterwarnings("ignore", "all training cells have")  # of each dish, which says it again
            self.dishes_, self.process_ = self._learned(pool, known, parameters, kept, report)
        self.cell_type_, self.parameters_, self.notes_ = kind_of_cells, parameters, {}
        self._readings()
        return self

    def _learned(
        self,
        pool: Sequence[Any],
        known: Array,
        parameters: Mapping[str, Any],
        kept: Measurements | None,
        progress: Progress | None,
    ) -> tuple[tuple[LearnedDish, ...], GaussianProcess | None]:
        """Return the dishes and the Gaussian process that labelled cells teach with these parameters."""
        threads, folds = parameters["threads"], parameters["folds"]
        if parameters["variant"] == "dish":
            recipe = _recipe(parameters["recipe"], DEFAULT_RECIPE)
            return (learn_dish(pool, known, recipe, threads=threads, progress=progress),), None
        groups: list[Array] = []
        prior: list[Array] = []
        dishes: list[LearnedDish] = []
        kinds = [kind for kind in FEATURES if kind in parameters["features"]]
        if "dish" in kinds and folds > len(known):
            raise ValueError(f"folds is {folds}, expected at most {len(known)}, the number of labelled cells")
        trained = [kind for kind in kinds if kind != "structure"]
        for kind in kinds:
            report = part_of(progress, trained.index(kind), len(trained)) if kind in trained else None
            if kind == "structure":
                groups.append(structural_features(pool))
            elif kind == "curves":
                recipe = _recipe(parameters["curves"], DEFAULT_CURVES)
                dishes.append(LearnedDish(recipe, start_dish(recipe)))
                score, curve = read_kept(dishes[-1], pool, kept, threads=threads, progress=report)
                groups.append(curve)
                if (
                    recipe.outer.reference_losses is not None
                ):  # the score is a normal score among cells of NAS-Bench-101
                    prior.append(score[:, None])
            else:
                recipe = _recipe(parameters["recipe"], DEFAULT_RECIPE)
                scores, parts = learn_folds(pool, known, recipe, folds, kept=kept, threads=threads, progress=report)
                groups.append(scores[:, None])
                dishes += parts
        return tuple(dishes), fit_gaussian_process([*prior, *groups], known, has_prior=bool(prior))

    @overload
    def query(
        self,
        cells: Cells,
        *,
        return_std: Literal[False] = False,
        executor: Executor | None = None,
        progress: ShownProgress = None,
    ) -> npt.NDArray[np.float64]: ...
    @overload
    def query(
        self,
        cells: Cells,
        *,
        return_std: Literal[True],
        executor: Executor | None = None,
        progress: ShownProgress = None,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
    def query(
        self,
        cells: Cells,
        *,
        return_std: bool = False,
        executor: Executor | None = None,
        progress: ShownProgress = None,
    ) -> npt.NDArray[np.float64] | tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Predict the accuracies of cells.

        Parameters
        ----------
        cells : sequence of n Cell or of n NatsCell, or integers, shape (n, 3)
            Cells of the type that `fit` learned from.
        return_std : bool
            Whether to return the standard deviations of the accuracies, too, which only a Gaussian process has.
        executor : concurrent.futures.Executor, dask.distributed.Client, or the module ray, optional
            Where motifs are trained, as in `spd_fast.score_cells`.
        progress : callable or bool, optional
            As in `fit`.

        Returns
        -------
        accuracy : ndarray, shape (n,), float64
            With a Gaussian process: accuracies, in the unit of the accuracies that it learned from. With variant "dish": scores
            without a unit; larger is better, and -inf if a motif diverged.
        std : ndarray, shape (n,), float64
            With `return_std`: the standard deviation of each, in the same unit (`GaussianProcess.predict_std`).

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If `fit` has not been called.
        TypeError
            If cells are of another type than those that `fit` learned from.
        ValueError
            If standard deviations are asked for with variant "dish".
        """
        check_is_fitted(self, "dishes_")
        checked_shown_progress(progress)
        checked_executor(executor, self.threads)
        with_std = checked_flag("return_std", return_std)
        if with_std and self.process_ is None:
            raise ValueError(
                "return_std is True with variant 'dish', expected variant 'gaussian_process': a dish gives scores alone"
            )
        wanted = cells_of(
            cells, self.cell_type_, "the predictor was fitted to cells of that space; fit another to these"
        )
        if not len(wanted):
            return (np.empty(0), np.empty(0)) if with_std else np.empty(0)
        with shown_share(progress, "training motifs") as report:
            parts = [part_of(report, k, len(self.dishes_)) for k in range(len(self.dishes_))]
            read = [
                kept.read(wanted, self.threads, part, executor)
                for kept, part in zip(self._readings(), parts, strict=True)
            ]
        if self.process_ is None:
            return np.nan_to_num(read[0][0], nan=-np.inf, neginf=-np.inf)
        kinds = self.parameters_["features"]
        first = int("curves" in kinds)  # the dish of learning curves comes before those of the folds
        groups: list[Array] = [read[0][0][:, None]] if self.process_.has_prior else []
        if "structure" in kinds:
            groups.append(structural_features(wanted))
        if "curves" in kinds:
            groups.append(read[0][1])
        if "dish" in kinds:
            groups.append(mean_scaled(self.dishes_[first:], [score for score, _ in read[first:]])[:, None])
        features = np.concatenate(groups, axis=1)
        return self.process_.predict_std(features) if with_std else self.process_.predict(features)

    def _readings(self) -> list[KeptReadings]:
        """Return what is kept of the readings of cells on each dish. Of dishes that are new nothing is kept yet."""
        kept: list[KeptReadings] = self.__dict__.get("_kept", [])
        if [id(each.dish) for each in kept] != [id(dish) for dish in self.dishes_]:
            kept = self._kept = [KeptReadings(dish) for dish in self.dishes_]
        return kept

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
                for name, value in self.parameters_.items()
            },
            "cells": self.cell_type_.__name__,
            "notes": dict(self.notes_),
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
        save_arrays(checked_path("path", path), arrays)

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
        arrays = load_arrays(checked_path("path", path), what="predictor file", listed=True)
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
            loaded.parameters_ = loaded._checked_parameters()
            loaded.cell_type_ = CELL_TYPES[checked_choice("cells", settings.get("cells", "Cell"), CELL_TYPES)]
            loaded.dishes_ = tuple(
                _dish_from(arrays, k, Recipe.from_json(json.dumps(recipe)))
                for k, recipe in enumerate(settings["dishes"])
            )
            loaded._readings()
            loaded.notes_ = dict(settings["notes"])
            loaded.process_ = _process_from(arrays) if loaded.variant == "gaussian_process" else None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(
                f"predictor file {os.fspath(path)} cannot be read: {what}{other_kind(path, 'predictor file')}"
            ) from error
        return loaded

    def _checked_parameters(self) -> dict[str, Any]:
        """Return the parameters as plain values, which a file can hold. Those of the estimator stay as they were given."""
        features = checked_names("features", self.features, FEATURES[0])
        if set(features) - set(FEATURES) or not features:
            raise ValueError(f"features are {list(features)}, expected one or more of {', '.join(FEATURES)}")
        parameters: dict[str, Any] = {
            "recipe": self.recipe,
            "variant": checked_choice("variant", self.variant, ("gaussian_process", "dish")),
            "features": tuple(kind for kind in FEATURES if kind in features),
            "curves": self.curves,
            "folds": checked_integer("folds", self.folds, 2),
            "threads": None if self.threads is None else checked_integer("threads", self.threads, 1),
        }
        for name in ("recipe", "curves"):
            if parameters[name] is not None:
                parameters[name] = plain(parameters[name])
                checked_instance(name, parameters[name], (Recipe, str), "a spd_fast.Recipe, its name, or None")
        return parameters


@contextmanager
def _kept_in(
    path: str | os.PathLike[str] | None, cells: Sequence[Any], accuracy: Array, parameters: Mapping[str, Any]
) -> Iterator[Measurements | None]:
    """Open the file that keeps what a fit measures, to begin it or to continue. Accuracies count where dishes are learned from them."""
    if path is None:
        yield None
        return
    kinds = parameters["features"]
    identity: dict[str, Any] = {
        "version": _core.version,
        "cells": content_digest({"keys": np.array([cell.key for cell in cells])}),
        "n_cells": len(cells),
    }
    if "curves" in kinds:
        identity["curves"] = json.loads(_recipe(parameters["curves"], DEFAULT_CURVES).to_json())
    if "dish" in kinds:
        identity |= {
            "accuracy": content_digest({"accuracy": accuracy}),
            "recipe": json.loads(_recipe(parameters["recipe"], DEFAULT_RECIPE).to_json()),
            "folds": parameters["folds"],
        }
    remedy = f"remove {os.fspath(path)} or choose another name"
    with Measurements(path, MEASURED, identity, remedy=remedy) as kept:
        yield kept


def _recipe(given: Recipe | str | None, default: str) -> Recipe:
    return given if isinstance(given, Recipe) else recipes.get(default if given is None else given)


def _dish_from(arrays: Mapping[str, Array], k: int, recipe: Recipe) -> LearnedDish:
    prefix = f"dish.{k}."
    dish = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    mean, spread = arrays[f"scale.{k}"].tolist()
    return LearnedDish(recipe, Dish.from_arrays(dish), mean, spread)


def _process_from(arrays: Mapping[str, Array]) -> GaussianProcess:
    features, accuracy, theta, sizes = (
        arrays[f"process.{name}"] for name in ("features", "accuracy", "theta", "groups")
    )
    groups = tuple(checked_integer("one of process.groups", size, 1) for size in sizes.tolist())
    rows = theta.shape[:-1]
    wanted = {
        "features": (len(accuracy), sum(groups) + (rows == (2,))),
        "accuracy": (len(accuracy),),
        "theta": (*((2,) if rows else ()), len(groups) + 2),
    }
    for name, array in (("features", features), ("accuracy", accuracy), ("theta", theta)):
        if array.shape != wanted[name] or array.dtype != np.float64:
            raise ValueError(f"process.{name} is {array.dtype} {array.shape}, expected float64 {wanted[name]}")
    return GaussianProcess(features, groups, accuracy, theta)
