"""Predictors of accuracy: learn from cells whose accuracies are known, predict those of others.

Three kinds of features tell cells apart: *structure* (`spd_fast.features`, nothing is trained), *curves* (how fast motifs
learn on a dish that nobody adapted) and the *dish* (the score on a dish learned from the labelled cells). A Gaussian
process on them is the strongest predictor; a learned dish alone, nothing fitted on top, is the Synthetic Petri Dish as
it was meant. This module needs scikit-learn (``pip install 'spd_fast[predictor]'``).

References
----------
Rasmussen and Williams 2006, Gaussian Processes for Machine Learning: chapter 2 and equation 5.8 (marginal likelihood).
Wolpert 1992, Stacked generalization, Neural Networks 5(2): features learned from labels are taken out of fold.
White et al. 2021, How powerful are performance predictors in neural architecture search?, arXiv:2104.01177: fit and query.
Rawal et al. 2020, Synthetic Petri Dish, arXiv:2005.13092.
"""

import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from scipy.stats import norm, rankdata

from spd_fast import recipes
from spd_fast.base.files import load_arrays, save_arrays
from spd_fast.base.progress import part_of
from spd_fast.base.seeds import derived_seed
from spd_fast.base.sums import mean_of, sum_of
from spd_fast.base.types import Array, Progress
from spd_fast.dish import Dish
from spd_fast.features import structural_features
from spd_fast.outer.start import start_dish
from spd_fast.recipes import Recipe
from spd_fast.scoring import read_score, train_cells
from spd_fast.spaces.candidate import Candidate
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.cell_columns import CellColumns

__all__ = [
    "SCHEMA",
    "GaussianProcess",
    "LearnedDish",
    "MotifReadings",
    "SPDPredictor",
    "fit_gaussian_process",
    "learn_dish",
    "learn_folds",
    "mean_scaled",
    "read_all",
    "read_motifs",
]


try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import (
        ConstantKernel,
        Hyperparameter,
        Kernel,
        NormalizedKernelMixin,
        StationaryKernelMixin,
        WhiteKernel,
    )
    from sklearn.utils.validation import check_is_fitted
    from threadpoolctl import threadpool_limits
except ImportError as error:
    raise ImportError("predictors need scikit-learn: pip install 'spd_fast[predictor]'") from error

SCHEMA: Final = "spd_fast.predictor/2"
"""Version of the file that `SPDPredictor.save` writes."""
FEATURES: Final = ("structure", "curves", "dish")
"""Kinds of features of the Gaussian process, in the order of its groups."""
DEFAULT_RECIPE: Final = "learned_labels"
DEFAULT_CURVES: Final = "curves"
_PIECES: Final = 8
"""Pieces of the inner loop, of about equal length, over which the training loss is averaged."""
Cells = Sequence[Cell] | Array


# ---- reading motifs


@dataclass(frozen=True, eq=False)
class MotifReadings:
    """What the motifs of n cells show on one dish, means over the recipe's replicates.

    Attributes
    ----------
    score : ndarray, shape (n,), float64
        What the recipe ranks by, larger is better: `spd_fast.scoring.score_cells`. NaN where a motif diverged.
    curve : ndarray, shape (n, M), float64
        Logarithms of the training loss averaged over each eighth of the inner loop's steps (over each step where they are
        fewer). NaN where a motif diverged.
    steps : ndarray, shape (n, T), float64
        Training loss of every step. Not finite from a divergence on.
    seconds : ndarray, shape (n,)
        Time of one core for each cell.
    """

    score: Array
    curve: Array
    steps: Array
    seconds: Array


def read_motifs(
    dish: Dish,
    recipe: Recipe,
    cells: Sequence[Candidate],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> MotifReadings:
    """Train the motifs of some cells on a dish, as the recipe says, and read score and learning curve off them.

    Parameters
    ----------
    dish : Dish
        Learned or not.
    recipe : Recipe
        Its motif, inner loop, metric and seed are used.
    cells : sequence of n Cell, NatsCell or SigmoidMLP
    threads, progress
        As in `spd_fast.train_motifs`.

    Raises
    ------
    ValueError
        If dish and recipe do not fit each other.
    """
    scores, curves, trained, seconds = [], [], [], []
    for result in train_cells(dish, recipe, cells, threads=threads, progress=progress):
        steps = np.asarray(result.recorded["step_loss"], np.float64)
        pieces = np.array_split(steps, min(_PIECES, steps.shape[1]), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithms = np.log(np.stack([piece.mean(axis=1) for piece in pieces], axis=1))
        curves.append(np.where(np.isfinite(logarithms) & ~result.diverged[:, None], logarithms, np.nan))
        trained.append(steps)
        scores.append(read_score(result, recipe, dish))
        seconds.append(np.asarray(result.seconds, np.float64))
    return MotifReadings(mean_of(scores), mean_of(curves), mean_of(trained), sum_of(seconds))


def read_all(
    dishes: Sequence["LearnedDish"],
    cells: Sequence[Candidate],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[MotifReadings]:
    """Read the motifs of the same cells on each of several dishes: `read_motifs`."""
    reports = [part_of(progress, k, len(dishes)) for k in range(len(dishes))]
    return [dish.read(cells, threads, report) for dish, report in zip(dishes, reports, strict=True)]


# ---- learned dishes


@dataclass(frozen=True, eq=False)
class LearnedDish:
    """A dish with the recipe that trains motifs on it.

    Attributes
    ----------
    recipe : Recipe
    dish : Dish
    mean, spread : float
        Of the scores of the labelled cells.
    seconds : float
        Wall time of learning the dish.
    """

    recipe: Recipe
    dish: Dish
    mean: float = 0.0
    spread: float = 1.0
    seconds: float = 0.0

    def read(
        self, cells: Sequence[Candidate], threads: int | None = None, progress: Progress | None = None
    ) -> MotifReadings:
        """Return what the motifs of some cells show: `read_motifs`."""
        return read_motifs(self.dish, self.recipe, cells, threads=threads, progress=progress)

    def scaled(self, score: Array) -> Array:
        """Return scores with the labelled cells' mean at 0 and their standard deviation at 1; diverged ones at -3."""
        return np.nan_to_num((score - self.mean) / self.spread, nan=-3.0)


def learn_dish(
    cells: Sequence[Candidate],
    accuracy: npt.ArrayLike,
    recipe: Recipe,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> LearnedDish:
    """Learn a dish from all of some labelled cells: `spd_fast.fit_dish`, whatever pool the recipe would draw.

    As large a share of the cells is kept out as of the recipe's own pool, at least 3. Parameters and errors are those of
    `spd_fast.fit_dish`; `progress` is called with the share done.
    """
    from spd_fast.outer.fit import fit_dish

    pool, kept_out = recipe.outer.pool, recipe.outer.kept_out
    if pool is not None and kept_out:
        kept_out = max(3, kept_out * len(cells) // pool)
    recipe = recipe.replace({"outer.pool": None, "outer.kept_out": kept_out})

    def report(epoch: int, fraction: float, step: object) -> None:
        if progress is not None:
            progress((epoch + min(fraction, 1.0)) / recipe.outer.epochs)

    began = time.perf_counter()
    fit = fit_dish(cells, accuracy, recipe, threads=threads, progress=report)
    return LearnedDish(recipe, fit.dish, seconds=time.perf_counter() - began)


def learn_folds(
    cells: Sequence[Candidate],
    accuracy: npt.ArrayLike,
    recipe: Recipe,
    folds: int,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.float64], list[LearnedDish]]:
    """Learn dishes that have not seen a part of the labelled cells each.

    Parameters
    ----------
    cells : sequence of n Cell, NatsCell or SigmoidMLP
    accuracy : array-like, shape (n,)
    recipe : Recipe
    folds : int, 2 to n
        Parts, drawn with the recipe's seed.
    threads, progress
        As in `learn_dish`.

    Returns
    -------
    scores : ndarray, shape (n,), float64
        For every cell the scaled score on the dish that has not seen it.
    dishes : list of LearnedDish
        One for each part. For other cells, average `LearnedDish.scaled` over them.
    """
    target = np.asarray(accuracy, np.float64)
    order = np.random.default_rng(derived_seed(recipe.seed, "folds")).permutation(len(cells))
    scores, dishes = np.empty(len(cells)), []
    for k in range(folds):
        out = order[k::folds]
        inside = np.setdiff1d(order, out)
        report = part_of(progress, k, folds)
        pool = [cells[int(row)] for row in inside]
        learned = learn_dish(pool, target[inside], recipe, threads=threads, progress=part_of(report, 0, 2))
        score = learned.read(cells, threads, part_of(report, 1, 2)).score
        finite = score[np.isfinite(score)]
        if len(finite) and finite.std() > 0:
            learned = replace(learned, mean=float(finite.mean()), spread=float(finite.std()))
        scores[out] = learned.scaled(score)[out]
        dishes.append(learned)
    return scores, dishes


def mean_scaled(dishes: Sequence[LearnedDish], scores: Sequence[Array]) -> npt.NDArray[np.float64]:
    """Return the mean over dishes of their scaled scores, shape (n,), from their scores, shape (n,) each."""
    return mean_of([dish.scaled(score) for dish, score in zip(dishes, scores, strict=True)])


# ---- the Gaussian process


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """A Gaussian process on groups of features, with its labels: made by `fit_gaussian_process`.

    Attributes
    ----------
    features : ndarray, shape (N, M), float64
        Of the labelled cells.
    groups : tuple of int, sum M
        Columns of each group; columns of one group share a length scale.
    accuracy : ndarray, shape (N,), float64
    theta : ndarray
        Logarithms of the kernel's parameters, as scikit-learn orders them.
    """

    features: Array
    groups: tuple[int, ...]
    accuracy: Array
    theta: Array

    def predict(self, features: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the predicted accuracies, shape (n,), of cells with these features, shape (n, M)."""
        known, place = _standardised(self.features)
        wanted = place(np.asarray(features, np.float64))
        process = _regressor(self.groups, self.theta)
        with _one_thread():
            process.fit(known, _normal_scores(self.accuracy))
            scores = np.concatenate(
                [process.predict(part) for part in np.array_split(wanted, max(1, len(wanted) // 4096))]
            )
        return _accuracies(scores, self.accuracy)


def fit_gaussian_process(features: Iterable[npt.ArrayLike], accuracy: npt.ArrayLike) -> GaussianProcess:
    """Fit a Gaussian process to labelled cells.

    Parameters
    ----------
    features : iterable of array-like, each of shape (N, m)
        Groups of features, for example structure and learning curves. NaN stands for a motif that diverged and counts as the
        largest value of its column.
    accuracy : array-like, shape (N,), finite
        Of any unit.

    Returns
    -------
    GaussianProcess

    Notes
    -----
    The target is the normal score of the accuracy's rank, ``Phi^-1((rank - 1/2) / N)``, because accuracies have a heavy lower
    tail; predictions are mapped back, strictly increasing. Features are standardised over the N cells. The kernel is
    ``a prod_g Matern_3/2(|x_g - x'_g| / l_g) + noise``, one length scale per group, at the largest marginal likelihood that
    L-BFGS finds from one start. One thread, so that the same data gives the same bits.
    """
    parts = [np.asarray(part, np.float64) for part in features]
    table = np.concatenate(parts, axis=1)
    target = np.asarray(accuracy, np.float64)
    groups = tuple(part.shape[1] for part in parts)
    process = _regressor(groups, None)
    with _one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a parameter at its bound: a group that says nothing
        process.fit(_standardised(table)[0], _normal_scores(target))
    return GaussianProcess(table, groups, target, np.asarray(process.kernel_.theta, np.float64))


class _GroupedMatern(StationaryKernelMixin, NormalizedKernelMixin, Kernel):  # type: ignore[misc]
    """Matern kernel of smoothness 3/2 with one length scale for each group of columns.

    ``k = (1 + sqrt(3) r) exp(-sqrt(3) r)`` with ``r**2 = sum_g |x_g - x'_g|**2 / l_g**2`` (Rasmussen and Williams 2006,
    equation 4.17), and ``dk / dlog l_g = 3 |x_g - x'_g|**2 / l_g**2 exp(-sqrt(3) r)``.
    """

    def __init__(self, groups: tuple[int, ...], length_scale: Array) -> None:
        self.groups = groups
        self.length_scale = length_scale

    @property
    def hyperparameter_length_scale(self) -> Any:
        return Hyperparameter("length_scale", "numeric", (1e-1, 1e3), len(self.groups))

    def __call__(self, X: Array, Y: Array | None = None, eval_gradient: bool = False) -> Any:
        ends = np.cumsum(self.groups)
        columns = [slice(end - size, end) for size, end in zip(self.groups, ends, strict=True)]
        other = X if Y is None else Y
        squares = np.stack(
            [
                cdist(X[:, c], other[:, c], "sqeuclidean") / scale**2
                for c, scale in zip(columns, np.atleast_1d(self.length_scale), strict=True)
            ],
            axis=-1,
        )
        r = np.sqrt(3 * squares.sum(axis=-1))
        decay = np.exp(-r)
        if eval_gradient:
            return (1 + r) * decay, 3 * squares * decay[..., None]
        return (1 + r) * decay


def _regressor(groups: tuple[int, ...], theta: Array | None) -> Any:
    """Return an unfitted regressor, its kernel's parameters to be found or given."""
    matern = _GroupedMatern(groups, np.sqrt(np.array(groups, np.float64)))
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * matern + WhiteKernel(0.3, (1e-3, 1e1))
    if theta is None:
        return GaussianProcessRegressor(kernel)
    return GaussianProcessRegressor(kernel.clone_with_theta(theta), optimizer=None)


def _standardised(known: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Return the features of the labelled cells, shifted and scaled, and the function that places others among them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without a finite value is filled with 0
        worst = np.nan_to_num(np.nanmax(known, axis=0))
    filled = np.where(np.isnan(known), worst, known)
    mean, spread = filled.mean(axis=0), filled.std(axis=0)
    spread = np.where(spread > 1e-9 * np.abs(filled).max(axis=0), spread, np.inf)  # a constant column says nothing

    def place(others: Array) -> Array:
        placed: Array = (np.where(np.isnan(others), worst, others) - mean) / spread
        return placed

    return place(known), place


def _normal_scores(accuracy: Array) -> Array:
    return np.asarray(norm.ppf((rankdata(accuracy) - 0.5) / len(accuracy)))


def _accuracies(scores: Array, accuracy: Array) -> npt.NDArray[np.float64]:
    """Map normal scores back to accuracies: linear between those of the labelled cells, and on beyond them."""
    known, first = np.unique(_normal_scores(accuracy), return_index=True)
    values = accuracy[first]
    if len(known) == 1:
        return np.full(len(scores), values[0])
    place = np.clip(np.searchsorted(known, scores) - 1, 0, len(known) - 2)
    slope = np.diff(values) / np.diff(known)
    return np.asarray(values[place] + slope[place] * (scores - known[place]), np.float64)


def _one_thread() -> Any:
    """Keep linear algebra on one thread: where it cuts its work may change the last bit."""
    return threadpool_limits(limits=1)


# ---- the estimator


class SPDPredictor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts the accuracies of cells from labelled ones: a scikit-learn estimator, and what NASLib calls a predictor.

    Parameters
    ----------
    recipe : Recipe or str, optional
        How the dish is learned: a recipe or a recipe's name. Default: ``"learned_labels"``.
    variant : "gaussian_process" or "dish"
        A Gaussian process on `features`, or the pure dish: the score of a cell's motif on the learned dish, nothing fitted
        on top.
    features : sequence of "structure", "curves", "dish"
        What the Gaussian process sees: structural scalars, learning curves of motifs on the dish that nobody
        adapted (`curves`), the score on dishes learned from the labelled cells.
    curves : Recipe or str, optional
        Motif, inner loop and dish before learning of the curves. Default: ``"curves"``.
    folds : int, at least 2
        Dishes that are learned for the feature "dish", each without one part of the labelled cells: in the Gaussian
        process a cell's score comes from the dish that has not seen it. At query time the scores of all are averaged.
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
    edge_bits, op_codes. Same arguments, same bits. A query needs no PyTorch; only learning a dish does.

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
            Of any unit; more is better.
        progress : callable, optional
            Called with the share done, 0 to 1. What it raises stops the fit.

        Raises
        ------
        ValueError, TypeError
            If cells and accuracies do not fit each other, a parameter is unknown, or the recipe needs more cells.
        """
        self._check_parameters()
        pool = _as_cells(cells)
        target = _checked_accuracy(accuracy, len(pool))
        if self.variant == "dish":
            recipe = _recipe(self.recipe, DEFAULT_RECIPE)
            learned = learn_dish(pool, target, recipe, threads=self.threads, progress=progress)
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
                scores, parts = learn_folds(pool, target, recipe, self.folds, threads=self.threads, progress=report)
                groups.append(scores[:, None])
                dishes += parts
        self.dishes_, self.process_ = tuple(dishes), fit_gaussian_process(groups, target)
        return self

    def query(self, cells: Cells, *, progress: Progress | None = None) -> npt.NDArray[np.float64]:
        """Predict cells.

        Parameters
        ----------
        cells : sequence of n Cell, or integer array, shape (n, 3)
        progress : callable, optional

        Returns
        -------
        ndarray, shape (n,), float64
            With a Gaussian process accuracies, in the unit of the labels. With variant "dish" scores of no unit, larger is
            better, -inf where a motif diverged.

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
        """Return `query`, by scikit-learn's name."""
        return self.query(cells)

    def score(self, cells: Cells, accuracy: npt.ArrayLike) -> float:
        """Return Kendall's tau-b of predictions and accuracies, -1 to 1."""
        from spd_fast.base.ranks import kendall_tau

        known = _as_cells(cells)
        return kendall_tau(self.query(known), _checked_accuracy(accuracy, len(known)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a fitted predictor as an .npz of plain arrays with its settings as JSON: no pickles, atomically.

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
            fields = {name: getattr(each.dish, name) for name in Dish.__dataclass_fields__}
            arrays |= {f"dish.{k}.{name}": array for name, array in fields.items() if array is not None}
            arrays[f"scale.{k}"] = np.array([each.mean, each.spread])
        if self.process_ is not None:
            arrays |= {f"process.{name}": np.asarray(value) for name, value in vars(self.process_).items()}
        save_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "SPDPredictor":
        """Read what `save` wrote; the Gaussian process is fitted again to its labels, with the parameters found then.

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
                    f"has schema {settings['schema']!r}, expected {SCHEMA!r}: it is from another version; fit it anew"
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
        tags.regressor_tags.poor_score = (
            True  # the score is tau, of cells: not of scikit-learn's own regression problems
        )
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
    target = np.asarray(accuracy, np.float64)
    if target.shape != (n,):
        raise ValueError(f"accuracy has shape {target.shape}, expected ({n},) to match cells")
    if n < 2:
        raise ValueError(f"{n} labelled cells were given, expected at least 2")
    bad = np.flatnonzero(~np.isfinite(target))
    if len(bad):
        raise ValueError(f"accuracy[{bad[0]}] is {target[bad[0]]}, expected finite numbers")
    return target


def _dish_from(arrays: Mapping[str, Array], k: int, recipe: Recipe) -> LearnedDish:
    fields = {name: arrays.get(f"dish.{k}.{name}") for name in Dish.__dataclass_fields__}
    mean, spread = arrays[f"scale.{k}"].tolist()
    return LearnedDish(
        recipe, Dish(**{name: array for name, array in fields.items() if array is not None}), mean, spread
    )


def _process_from(arrays: Mapping[str, Array]) -> GaussianProcess:
    groups = tuple(arrays["process.groups"].tolist())
    return GaussianProcess(arrays["process.features"], groups, arrays["process.accuracy"], arrays["process.theta"])
