"""How far a ranking can be relied on, and what to do next, in sentences.

Everything is reckoned from the labelled cells themselves: they are dealt out to folds, and each fold is predicted from the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from spd_fast.base.ranks import kendall_tau
from spd_fast.base.seeds import derived_seed
from spd_fast.base.sums import mean_of
from spd_fast.base.types import Array
from spd_fast.predictors.gaussian_process import fit_gaussian_process
from spd_fast.ranking.measuring import Curves
from spd_fast.spaces.candidate import MotifCell, name_of
from spd_fast.spaces.nats_cell import NatsCell

__all__ = ["FEW", "LeftOut", "advise", "first_to_label", "judged", "left_out", "outside_tested", "short_name"]

ALL_MOTIFS: Final = 8
"""Motifs of a cell with which the figures below were measured, where nothing else is said."""
FOLDS: Final = 5
"""Parts into which labelled cells are dealt out to see how well they predict each other."""
DEALS: Final = 3
"""Times that they are dealt out."""
FEW: Final = 30
"""With fewer labelled cells, more of them help most."""
_ON_TEST_CELLS: Final = {0: "0.68", 10: "0.66", 15: "0.67", 30: "0.70", 100: "0.75", 300: "0.79"}
"""Kendall's tau on about 1,000 other cells of NAS-Bench-101 with so many labelled cells: docs/rank.md, means of five draws."""
_WITHOUT_LABELS: Final = {8: _ON_TEST_CELLS[0], 3: "0.68", 2: "0.67", 1: "0.66"}
"""The same without labels, by the number of motifs that are trained of each cell."""
_BY_STRUCTURE: Final = "0.63"
"""The same with 100 labelled cells where no motif of a candidate is trained."""
_NAMED: Final = 5
"""So many candidates outside what was tested are named."""
_NEARLY: Final = 0.03
"""A control that is so near in tau does nearly as well."""


@dataclass(frozen=True, eq=False)
class LeftOut:
    """What was predicted of m labelled cells from the others.

    Attributes
    ----------
    cells : list of m Cell or NatsCell
    accuracy : ndarray, shape (m,)
    predicted : ndarray, shape (DEALS, m)
        Each cell is predicted from the folds without it, once for each time that the cells are dealt out.
    controls : dict of ndarray, shape (m,)
        Cheap scores of the same cells by name: counts, parameters, depth.
    """

    cells: list[MotifCell]
    accuracy: Array
    predicted: Array
    controls: dict[str, Array]


def advise(
    found: LeftOut | None,
    target: npt.NDArray[np.float64],
    curves: Curves,
    wanted: npt.NDArray[np.int64],
    first: Sequence[MotifCell],
    outside: Sequence[MotifCell],
    nats: bool,
) -> list[str]:
    """Return sentences on how far a ranking can be relied on.

    Parameters
    ----------
    found : LeftOut or None
        What was predicted of the labelled cells; None where nothing was learned.
    target : ndarray, shape (m,)
        Accuracies of the labelled cells.
    curves : Curves
        What was measured.
    wanted : ndarray of int
        Rows of the candidates in it.
    first : sequence of Cell or of NatsCell
        The candidates that should be labelled first; empty where there are labelled cells enough.
    outside : sequence of Cell or of NatsCell
        The candidates that lie outside what was tested, as `outside_tested` says; the first ones are named.
    nats : bool
        Whether the cells are those of NATS-Bench.
    """
    said = []
    if found is not None:
        controls = found.controls
        tau = float(mean_of([np.array(kendall_tau(each, target)) for each in found.predicted]))
        said.append(
            f"Within your {len(target)} labelled cells, predictions of cells that were left out agree with their accuracies by a "
            f"Kendall's tau of {tau:.2f} (1: the same order, 0: chance)."
        )
        best = max(controls, key=lambda name: abs(kendall_tau(controls[name], target)))
        alone = abs(kendall_tau(controls[best], target))
        if alone >= tau - _NEARLY:
            said.append(f"Ranking these cells by {best} alone does as well: tau {alone:.2f}. Be wary of this ranking.")
        else:
            said.append(f"The best cheap control on the same cells is {best}: tau {alone:.2f}.")
    known = max(n for n in _ON_TEST_CELLS if n <= len(target)) if found is not None else 0
    what = f"{known} labelled cells" if known else "no labels"
    most = curves.score.shape[0]
    reached = _WITHOUT_LABELS.get(most) if not known else _ON_TEST_CELLS[known] if most == ALL_MOTIFS else None
    if reached is not None:
        trained = (
            "all motifs" if most == ALL_MOTIFS else "a single motif" if most == 1 else f"{most} motifs of each cell"
        )
        said.append(
            f"With {what} and {trained} trained, tau on 1,000 other cells of NAS-Bench-101 was {reached} when we measured it."
        )
    if nats and reached is not None:
        said.append("Your cells are those of NATS-Bench, of which that figure says nothing.")
    if len(outside):
        more = f" and {len(outside) - _NAMED:,} more" if len(outside) > _NAMED else ""
        lie = "lies" if len(outside) == 1 else "lie"
        said.append(
            f"{len(outside):,} of {len(wanted):,} candidates {lie} outside what was tested: each differs in structure from every labelled "
            "cell more than any of these differs from the nearest other one, so its prediction is a guess. The column outside_tested "
            f"marks them: {', '.join(map(short_name, outside[:_NAMED]))}{more}."
        )
    never, partly = (
        int((curves.done[wanted] == 0).sum()),
        int(((curves.done[wanted] > 0) & (curves.done[wanted] < most)).sum()),
    )
    if never:
        said.append(
            f"No motif of {never:,} candidates was trained: they are ranked "
            + (
                "last."
                if found is None
                else f"by their structure, which alone had a tau of {_BY_STRUCTURE} with 100 labelled cells."
            )
        )
    if partly:
        said.append(
            f"Fewer than {most} motifs of each of {partly:,} candidates were trained. A larger budget measures the rest."
        )
    if len(first):
        how_many = f"{len(target)} labelled cells are few." if len(target) else "No cell is labelled."
        said.append(
            f"{how_many} These candidates differ most from each other, so train them first and rank "
            f"again: {', '.join(map(short_name, first))}."
        )
    return said


def short_name(cell: MotifCell) -> str:
    """Return what sentences name a cell by: the first digits of its hash, or NATS-Bench's text of it."""
    return name_of(cell) if isinstance(cell, NatsCell) else cell.module_hash[:12]


def left_out(groups: Sequence[Array], target: npt.NDArray[np.float64], has_prior: bool) -> Array:
    """Return predictions of m labelled cells, each from the folds without it, for several deals: shape (DEALS, m).

    `groups` are the features of the cells, shape (m, ...) each; `has_prior` is that of `fit_gaussian_process`.
    """
    n, deals = len(target), []
    for deal in range(DEALS):
        order = np.random.default_rng(derived_seed(deal, "advice")).permutation(n)
        predicted = np.empty(n)
        for fold in range(FOLDS):
            out = order[fold::FOLDS]
            inside = np.setdiff1d(order, out)
            process = fit_gaussian_process([group[inside] for group in groups], target[inside], has_prior=has_prior)
            predicted[out] = process.predict(np.concatenate([group[out] for group in groups], axis=1))
        deals.append(predicted)
    return np.stack(deals)


def outside_tested(labelled: Array, candidates: Array) -> npt.NDArray[np.bool_]:
    """Return which candidates lie outside what was tested, shape (n,).

    The labelled cells are what predictions are tested on. A candidate lies outside if its nearest labelled cell is farther away than
    the nearest other labelled cell is from any labelled one. If labelled cells and candidates are drawn alike, about one
    candidate in m + 1 lies outside by chance.

    Parameters
    ----------
    labelled : ndarray, shape (m, M)
        Structural features of the labelled cells, m at least 2.
    candidates : ndarray, shape (n, M)
        Those of the candidates.

    Notes
    -----
    The distance is Euclidean, in units of each feature's standard deviation over all cells of both kinds, so that a feature that all
    labelled cells share counts, too. A labelled cell that is among the candidates has distance 0.
    """
    spread = np.concatenate([labelled, candidates]).std(axis=0)
    known, others = (table / np.where(spread > 0, spread, 1.0) for table in (labelled, candidates))
    between = cdist(known, known)
    np.fill_diagonal(between, np.inf)
    pieces = np.array_split(others, max(1, len(others) // 4096))
    nearest = np.concatenate([cdist(piece, known).min(axis=1) for piece in pieces])
    return np.asarray(nearest > between.min(axis=1).max() * (1 + 1e-12))


def first_to_label(structure: Array, n: int) -> npt.NDArray[np.int64]:
    """Return `n` rows that differ most from each other: the first is nearest to the mean, each further one is farthest from those
    before it (Gonzalez 1985, Clustering to minimize the maximum intercluster distance)."""
    spread = structure.std(axis=0)
    scaled = (structure - structure.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    chosen = [int(np.argmin((scaled**2).sum(axis=1)))]
    nearest = ((scaled - scaled[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < min(n, len(scaled)):
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, ((scaled - scaled[chosen[-1]]) ** 2).sum(axis=1))
    return np.array(chosen, np.int64)


def judged(
    predicted: npt.ArrayLike, accuracy: npt.ArrayLike, controls: Mapping[str, Array], top: int = 10
) -> list[str]:
    """Return sentences on how well a ranking agrees with what its candidates really reached.

    Parameters
    ----------
    predicted, accuracy : array-like, shape (n,)
    controls : mapping of str to ndarray, shape (n,)
        Cheap scores of the same candidates by name.
    top : int
        Number of best candidates that are looked at.
    """
    score, reached = np.asarray(predicted, np.float64), np.asarray(accuracy, np.float64)
    taus = {name: kendall_tau(values, reached) for name, values in controls.items()}
    best = max(taus, key=lambda name: abs(taus[name]))
    chosen = np.argsort(-score, kind="stable")[:top]
    truly_best = np.argsort(-reached, kind="stable")[: len(reached) // 10]
    hits = len(np.intersect1d(chosen, truly_best))
    return [
        f"The ranking agrees with what the {len(reached):,} candidates really reached by a Kendall's tau of "
        f"{kendall_tau(score, reached):.2f}; the best cheap control, {best}, by {abs(taus[best]):.2f}.",
        f"Of the {len(chosen)} candidates ranked first, {hits} are truly among the best tenth. They reached "
        f"{100 * reached[chosen].mean():.1f} % on average, all candidates {100 * reached.mean():.1f} %, the best one {100 * reached.max():.1f} %.",
    ]
