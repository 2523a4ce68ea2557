"""The rows of the scoreboard: each is one way to score cells, with the judgement of its scores."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from spd_fast.base.sums import mean_of
from spd_fast.base.types import Array
from spd_fast.motif import full_size_counts
from spd_fast.predictors.features import NATS_SCALARS, SCALARS, structural_features
from spd_fast.predictors.gaussian_process import fit_gaussian_process
from spd_fast.recipes.settings import MotifSettings
from spd_fast.scoreboard.judge import Judged, judge
from spd_fast.scoreboard.measuring import OWN_STEPS, Measuring
from spd_fast.scoreboard.trial import Trial
from spd_fast.spaces.candidate import Columns
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.nats_cell import NatsCell

__all__ = [
    "Row",
    "extrapolated_loss",
]

_HORIZON: Final = 10.0
MIN_STEPS: Final = 4
"""Fewest steps of a learning curve that is extrapolated."""
# ---- the rows

Kind = Literal["structure", "proxy", "motif", "dish", "predictor"]


@dataclass(frozen=True, eq=False)
class Row:
    """One way to score cells, with its rank agreement and its cost.

    Attributes
    ----------
    name, meaning : str
    kind : "structure", "proxy", "motif", "dish" or "predictor"
        Where the score comes from: the cell's graph; an untrained network; motifs on images that were not learned; motifs on a
        dish; a predictor that learned from labelled cells.
    pool_size : int
        How many labelled cells the row learned from.
    scores : ndarray, shape (S, n) or (1, n)
        Larger is better.
    init_seconds : float
        Seconds before the first query, mean over seeds, without the training of the labelled cells' full-size networks.
    query_seconds : float
        Seconds of one core for each cell.
    judged : Judged
    inside_90 : float or None
        The share of the accuracies of the test cells inside their predicted 90 % intervals, mean over seeds. None for a row that predicts
        no intervals.
    """

    name: str
    kind: Kind
    meaning: str
    pool_size: int
    scores: Array
    init_seconds: float
    query_seconds: float
    judged: Judged
    inside_90: float | None = None


LEARNED, BEFORE, REAL = "learned dish", "dish before learning", "real images as dish"
GP_CURVES, GP_CURVES_DISH = "GP: curves", "GP: curves, dish"
GP_STRUCTURE = "GP: structure"
GP_BOTH, GP_ALL = "GP: structure, curves", "GP: structure, curves, dish"


def _row(
    trial: Trial,
    name: str,
    kind: Kind,
    meaning: str,
    scores: Sequence[Array],
    *,
    pool_size: int = 0,
    init_seconds: float = 0.0,
    query_seconds: float = 0.0,
) -> Row:
    table = np.stack(scores)
    return Row(
        name, kind, meaning, pool_size, table, init_seconds, query_seconds, judge(table, trial.test_cells.accuracy)
    )


_STRUCTURE: Final[dict[type, tuple[tuple[str, str, str, int], ...]]] = {
    Cell: (
        ("parameters", "log_parameters", "trainable parameters of the full-size network", 1),
        ("FLOPs", "log_flops", "floating-point operations of the full-size network", 1),
        ("3x3 convolutions", "conv3x3", "their number in the cell", 1),
        ("3x3 convolutions on a path", "conv3x3_on_path", "the most on one path from input to output", 1),
        ("depth", "longest_path", "edges of the longest path", 1),
        ("short path", "shortest_path", "fewer edges of the shortest path", -1),
        ("few max-pools", "maxpool3x3", "fewer max-pools in the cell", -1),
    ),
    NatsCell: (
        ("parameters", "parameters", "trainable parameters of the full-size network, edges on no path left out", 1),
        ("FLOPs", "flops", "floating-point operations of the full-size network, edges on no path left out", 1),
        ("3x3 convolutions", "nor_conv_3x3", "their number on paths from node 0 to node 3", 1),
        ("3x3 convolutions on a path", "conv3x3_on_path", "the most on one path from node 0 to node 3", 1),
        ("depth", "longest_path", "convolutions and poolings of the longest path", 1),
        ("short path", "shortest_path", "fewer convolutions and poolings of the shortest path", -1),
        ("few poolings", "avg_pool_3x3", "fewer poolings on paths from node 0 to node 3", -1),
    ),
}
"""The rows of structure of each type of cells: name, scalar, meaning, and the sign by which more should be better."""


def structure_rows(trial: Trial) -> list[Row]:
    """Return the rows that score by one structural scalar, with the sign by which more should be better."""
    cells = trial.test_cells.cells
    began = time.perf_counter()
    _scalars(cells[:1])
    ready = time.perf_counter()
    found = _scalars(cells)
    each = (time.perf_counter() - ready) / len(cells)
    return [
        _row(trial, name, "structure", meaning, [sign * found[scalar]], init_seconds=ready - began, query_seconds=each)
        for name, scalar, meaning, sign in _STRUCTURE[cells.cell_type]
    ]


def _scalars(cells: Columns[Any]) -> dict[str, Array]:
    """Return structural scalars of cells by name, shape (n,) each."""
    if cells.cell_type is Cell:
        return dict(zip(SCALARS, structural_features(cells).T, strict=True))
    parameters, flops = full_size_counts(cells)
    scalars = zip(NATS_SCALARS, structural_features(cells).T, strict=True)
    return {**dict(scalars), "parameters": parameters, "flops": flops}


def proxy_rows(m: "Measuring") -> list[Row]:
    """Return the rows of zero-cost proxies: scores of an untrained network on one batch."""
    from spd_fast.predictors.proxies import PROXIES

    found, dish, network = m.proxies(), m.proxy_recipe().dish, m.proxy_network.motif
    assert isinstance(network, MotifSettings)  # it is one of cells, or they could not be scored
    where = "random images" if m.images is None else f"images of {m.images}"
    return [
        _row(
            m.trial,
            name,
            "proxy",
            f"zero-cost proxy of an untrained network with {network.stem_channels} channels, {network.stacks} stacks of "
            f"{network.cells_per_stack} cells, on one batch of {dish.images} {where}, {dish.image_size} x {dish.image_size}",
            [found[name]],
            query_seconds=float(found[f"{name}_seconds"]),
        )
        for name in PROXIES
    ]


def motif_rows(m: "Measuring") -> list[Row]:
    """Return the rows of motifs, and of short trainings of a small network, on images that were not learned."""
    curves = m.curves_of_test_cells()
    n = len(m.trial.test_cells)
    rows = [
        _row(
            m.trial,
            "speed of learning",
            "motif",
            f"recipe {m.curves.name}: score of the motif on the unlearned dish",
            [curves["score"]],
            query_seconds=float(curves["seconds"].sum()) / n,
        ),
        _row(
            m.trial,
            "learning-curve extrapolation",
            "motif",
            f"minus the training loss of the same motif, extrapolated to {_HORIZON} times the steps (the paper, section 2.2)",
            [-extrapolated_loss(curves["step_loss"])],
            query_seconds=float(curves["seconds"].sum()) / n,
        ),
    ]
    if m.images is None:
        return rows
    real = [m.scores_on("real", seed) for seed in range(len(m.trial.seeds))]
    n_real = m.on_images(m.recipe).dish.images
    fidelity, n_low = m.low_fidelity(), m.on_images(m.low_fidelity_network).dish.images
    return [
        *rows,
        _row(
            m.trial,
            REAL,
            "motif",
            f"the recipe's motif and metric on {n_real} images of {m.images}, which are not learned",
            [each["score"] for each in real],
            query_seconds=_mean_seconds(real, n),
        ),
        _row(
            m.trial,
            "low-fidelity training",
            "motif",
            f"validation accuracy of a small network after {m.low_fidelity_network.inner.epochs} epochs on {n_low} real images (the paper, section 2.1)",
            [fidelity["accuracy"]],
            query_seconds=float(fidelity["seconds"].sum()) / n,
        ),
        _row(
            m.trial,
            "low-fidelity extrapolation",
            "motif",
            f"minus the training loss of that network, extrapolated to {_HORIZON} times the steps (section 2.2)",
            [-extrapolated_loss(fidelity["step_loss"])],
            query_seconds=float(fidelity["seconds"].sum()) / n,
        ),
    ]


def shared_rows(m: "Measuring") -> list[Row]:
    """Return the rows of weight sharing, which need real images: slices of one set of weights, as they are and trained on."""
    if m.images is None:
        return []
    recipe = m.on_images(m.shared_network)
    rows = []
    for name, steps in (("weight sharing", 0), ("weight sharing, own steps", OWN_STEPS)):
        found = m.weight_sharing(steps)
        then = f" after {steps} steps of its own" if steps else ""
        rows.append(
            _row(
                m.trial,
                name,
                "motif",
                f"validation accuracy of the cell's slice of a supernet{then}; the supernet was trained on the test cells for "
                f"{recipe.inner.epochs} epochs of {recipe.dish.images} real images (the paper, section 2.3)",
                [found["score"]],
                init_seconds=float(found["init_seconds"]),
                query_seconds=float(found["seconds"].sum()) / len(m.trial.test_cells),
            )
        )
    return rows


def dish_rows(m: "Measuring") -> list[Row]:
    """Return the rows that score by motifs on a dish alone, before and after the dish was learned."""
    seeds = range(len(m.trial.seeds))
    n = len(m.trial.test_cells)
    before = [m.scores_on("before", seed) for seed in seeds]
    what = f"recipe {m.recipe.name}: {m.recipe.outer.metric} of motif {m.recipe.motif.name}"
    rows = [
        _row(
            m.trial,
            BEFORE,
            "dish",
            f"{what}, on the dish before learning",
            [each["score"] for each in before],
            query_seconds=_mean_seconds(before, n),
        )
    ]
    for pool_size in m.trial.pool_sizes:
        after = [m.scores_on_learned(pool_size, seed) for seed in seeds]
        rows.append(
            _row(
                m.trial,
                LEARNED,
                "dish",
                f"{what}, on the learned dish; nothing fitted on top",
                [each["score"] for each in after],
                pool_size=pool_size,
                init_seconds=float(np.mean([m.dish(pool_size, seed).seconds for seed in seeds])),
                query_seconds=_mean_seconds(after, n),
            )
        )
    return rows


def predictor_rows(m: "Measuring") -> list[Row]:
    """Return the rows of Gaussian processes on structure, learning curves and learned dishes."""
    combinations = {
        GP_STRUCTURE: ("structure",),
        GP_CURVES: ("curves",),
        GP_BOTH: ("structure", "curves"),
    }
    if m.folds:
        combinations |= {GP_CURVES_DISH: ("curves", "dish"), GP_ALL: ("structure", "curves", "dish")}
    return [
        _predictor_row(m, name, kinds, pool_size)
        for name, kinds in combinations.items()
        for pool_size in m.trial.pool_sizes
    ]


def bananas_rows(m: "Measuring") -> list[Row]:
    """Return the rows of BANANAS' predictor, which are for cells of NAS-Bench-101 alone."""
    rows = []
    for pool_size in m.trial.pool_sizes if m.has_bananas else ():
        found = [m.bananas(pool_size, seed) for seed in range(len(m.trial.seeds))]
        rows.append(
            _row(
                m.trial,
                "BANANAS",
                "predictor",
                "ensemble of 5 networks of 10 layers on paths of up to 3 operations (the paper, section 5.4)",
                [each["score"] for each in found],
                pool_size=pool_size,
                init_seconds=float(np.mean([each["init_seconds"] for each in found])),
                query_seconds=float(np.mean([each["query_seconds"] for each in found])),
            )
        )
    return rows


def _predictor_row(m: "Measuring", name: str, kinds: Sequence[str], pool_size: int) -> Row:
    scores, inits, queries, inside = [], [], [], []
    has_prior = "curves" in kinds and m.curves.outer.reference_losses is not None
    for seed in range(len(m.trial.seeds)):
        features = [m.features(kind, pool_size, seed) for kind in kinds]
        if has_prior:
            features.insert(0, m.prior(pool_size, seed))
        began = time.perf_counter()
        process = fit_gaussian_process(
            [each.pool for each in features], m.trial.pool(pool_size, seed).accuracy, has_prior=has_prior
        )
        fitted = time.perf_counter()
        together = np.concatenate([each.test_cells for each in features], axis=1)
        scores.append(process.predict(together))
        predicted = time.perf_counter()
        _, lower, upper = process.predict_interval(together, 0.9)
        reached = m.trial.test_cells.accuracy
        inside.append(np.mean((lower <= reached) & (reached <= upper)))
        inits.append(sum(each.init_seconds for each in features) + fitted - began)
        queries.append(sum(each.query_seconds for each in features) + (predicted - fitted) / len(m.trial.test_cells))
    row = _row(
        m.trial,
        name,
        "predictor",
        f"on {', '.join(kinds)} of the labelled cells",
        scores,
        pool_size=pool_size,
        init_seconds=float(np.mean(inits)),
        query_seconds=float(np.mean(queries)),
    )
    return replace(row, inside_90=float(mean_of([np.asarray(share) for share in inside])))


def _mean_seconds(readings: Sequence[Mapping[str, Array]], n: int) -> float:
    return float(np.mean([each["seconds"].sum() for each in readings])) / n


def extrapolated_loss(step_loss: npt.ArrayLike, horizon: float = _HORIZON) -> npt.NDArray[np.float64]:
    """Extrapolate learning curves by a power law.

    Parameters
    ----------
    step_loss : array-like, shape (K, T), T >= 4
        Training loss of every step. A row that is not finite gives NaN.
    horizon : float
        Extrapolate to this multiple of the T steps.

    Returns
    -------
    ndarray, shape (K,)
        Loss at ``horizon * T`` steps.

    Raises
    ------
    ValueError
        If `step_loss` has not two axes, or has fewer than 4 steps.

    Notes
    -----
    The curve is ``a + b t**-c`` with a, b >= 0. For every c of a grid from 0.1 to 2, a and b are fitted by least squares; the c
    with the smallest error is used. It is one of the curves that Domhan, Springenberg and Hutter 2015 combine (Speeding up
    automatic hyperparameter optimization of deep neural networks by extrapolation of learning curves, table 1: pow3).
    """
    # the order in which NumPy adds depends on the layout in memory
    curves = np.ascontiguousarray(step_loss, np.float64)
    if curves.ndim != 2 or curves.shape[1] < MIN_STEPS:
        raise ValueError(f"step_loss has shape {curves.shape}, expected (K, T) with at least {MIN_STEPS} steps")
    t = np.arange(1, curves.shape[1] + 1, dtype=np.float64)
    best = np.full(len(curves), np.inf)
    found = np.full(len(curves), np.nan)
    for c in np.linspace(0.1, 2.0, 20):
        x = t**-c
        b = np.maximum(
            ((curves - curves.mean(axis=1, keepdims=True)) * (x - x.mean())).sum(axis=1) / ((x - x.mean()) ** 2).sum(),
            0,
        )
        a = np.maximum(curves.mean(axis=1) - b * x.mean(), 0)
        b = np.where(a > 0, b, np.maximum((curves * x).sum(axis=1) / (x * x).sum(), 0))
        error = ((curves - a[:, None] - b[:, None] * x) ** 2).sum(axis=1)
        better = error < best
        best[better] = error[better]
        found[better] = (a + b * (horizon * t[-1]) ** -c)[better]
    return found
