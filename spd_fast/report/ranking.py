"""The report of a ranking: which candidates are best, how far to trust that, and what to do next."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import Array
from spd_fast.ranking.advice import short_name
from spd_fast.ranking.rank import Ranking, controls_of
from spd_fast.report import charts
from spd_fast.report.cells import Drawing, draw_cell
from spd_fast.report.page import Figure, Made, Page, Section, Table, Value
from spd_fast.report.verdict import TOP, Verdict, duration, verdict_on

__all__ = ["ranking_page"]

_FEWEST_JUDGED = 10
"""Cells that a verdict needs."""
_LISTED = 50
"""Candidates in the table of the page at most."""
_WITH_INTERVAL = 40
"""Candidates whose intervals are drawn."""
_DRAWN_CURVES = 120
_GIVEN, _LONGEST = 3, 40
"""Columns of the candidates' file that stand in the table, and the most characters of their values."""
_HEADS = {"lower_90": "90 %, from", "upper_90": "90 %, to", "flops": "FLOPs"}


def ranking_page(found: Ranking, made: Made, reached: npt.ArrayLike | None = None) -> Page:
    """Return the report of a ranking.

    Parameters
    ----------
    found : Ranking
    made : Made
    reached : array-like, shape (n,), optional
        What all candidates really reached, in the unit of the labelled cells' accuracies, where it is known and was not used.
    """
    truth = None if reached is None else np.asarray(reached, np.float64)
    verdict, on = _verdict(found, truth)
    fresh = _fresh(found)
    return Page(
        title="Ranked candidates",
        summary=_summary(found),
        made=made,
        tiles=_tiles(found, verdict, on),
        answers=[
            ("Best cells", _best(found, fresh)),
            ("How good", verdict.quality(on) if verdict else _unjudged(found)),
            ("How sure", _how_sure(found, verdict, truth)),
            ("What it cost", _cost(found)),
            ("What to do next", _next(found, fresh, truth)),
        ],
        drawn="The candidates ranked first whose accuracy was not among the labelled cells. Brackets hold 90 % intervals.",
        drawings=_drawings(found, fresh, truth),
        sections=[
            Section("How far to trust this ranking", found.advice),
            *_figures(found, truth, verdict),
            _table(found, truth),
        ],
    )


def _fresh(found: Ranking) -> list[int]:
    """Return the candidates ranked first whose accuracy is not known, each cell once."""
    best: dict[str, int] = {}
    for row in found.order.tolist():
        if len(best) < TOP and np.isnan(found.known[row]):
            best.setdefault(found.cells[row].key, row)
    return list(best.values())


def _shown(found: Ranking, value: float) -> str:
    """Return a predicted or known number as users gave it: a loss has its sign back."""
    return f"{-value if found.lower_is_better else value:.4g}"


def _what(found: Ranking) -> str:
    return "loss" if found.lower_is_better else "accuracy"


def _name(found: Ranking, row: int) -> str:
    """Return what a candidate is called: its users' own name, where the file has a column of names, and the cell's."""
    own = found.own_names
    name = short_name(found.cells[row])
    return name if own is None else f"{own[row]} ({name})"


def _summary(found: Ranking) -> str:
    how = (
        f"by the {_what(found)} that they are expected to reach, learned from {found.labelled:,} labelled cells"
        if found.accuracy is not None
        else "by how fast their motifs learn, because there are too few labelled cells to learn from"
    )
    return f"{len(found.cells):,} candidates, ranked {how}."


def _verdict(found: Ranking, truth: Array | None) -> tuple[Verdict | None, str]:
    """Return the verdict on the candidates, where it is known what they reached, or else on the labelled cells; and on which."""
    if truth is not None and len(truth) >= _FEWEST_JUDGED:
        score = found.label_free if found.accuracy is None else found.accuracy
        on = f"the {len(truth):,} candidates, whose accuracies were known and not used"
        return verdict_on(score, truth, controls_of(found.cells)), on
    if found.left_out is not None:
        each = found.left_out
        on = f"your {len(each.accuracy):,} labelled cells, each predicted from others"
        return verdict_on(each.predicted, each.accuracy, each.controls), on
    return None, ""


def _tiles(found: Ranking, verdict: Verdict | None, on: str) -> list[tuple[str, str]]:
    tiles = []
    if verdict is not None:
        tiles += [
            (str(verdict.tau), f"Kendall\u2019s tau of the ranking on {on}, 95 % interval"),
            (str(verdict.control_tau), f"the same of the best cheap control, {verdict.control}"),
            (
                f"{verdict.hits:.0f} of {TOP}",
                f"ranked first there are among {verdict.of_best} of these cells; of the control\u2019s ten, {verdict.control_hits:.0f}",
            ),
        ]
    return [*tiles, (duration(found.seconds), "to rank them")]


def _best(found: Ranking, fresh: Sequence[int]) -> str:
    if not fresh:
        return "The accuracies of all candidates are known, so there is none left to train."
    names = ", ".join(_name(found, row) for row in fresh)
    strange = int(found.outside[list(fresh)].sum())
    lie = "lies" if strange == 1 else "lie"
    marked = (
        f" {strange} of them, marked below, {lie} outside what was tested, so that their predictions are guesses."
        if strange
        else ""
    )
    return f"{names} (the best first; drawn below).{marked}"


def _unjudged(found: Ranking) -> str:
    return (
        "It cannot be checked here, because nothing was learned from labelled cells and no accuracy of a candidate is known. "
        "The sentences below say how good such rankings were elsewhere."
    )


def _how_sure(found: Ranking, verdict: Verdict | None, truth: Array | None) -> str:
    said = []
    if verdict is not None and truth is not None:
        said.append(f"The brackets hold 95 % intervals over the {verdict.cells:,} candidates.")
        if found.lower is not None and found.upper is not None:
            inside = float(((found.lower <= truth) & (truth <= found.upper)).mean())
            said.append(f"{100 * inside:.0f} % of the candidates reached a value inside their predicted 90 % interval.")
    elif verdict is not None:
        said.append(
            f"The brackets hold 95 % intervals over your {verdict.cells:,} labelled cells. They hold for candidates of the same kind: "
            "the worse, the less alike the two are."
        )
    else:
        said.append("There is no measure of it without labelled cells.")
    return " ".join(said)


def _cost(found: Ranking) -> str:
    motifs = int(found.replicates.sum())
    most = int(found.replicates.max(initial=0))
    never = int((found.replicates == 0).sum())
    left = f" No motif was trained of {never:,} candidates, which are ranked by their structure." if never else ""
    return (
        f"{duration(found.seconds)} of wall time. {motifs:,} motifs of candidates were trained, at most {most} of each, in "
        f"{duration(found.core_seconds)} of one core in this call.{left}"
    )


def _next(found: Ranking, fresh: Sequence[int], truth: Array | None) -> str:
    if truth is not None:
        return (
            "What these candidates reach was known all along, so that the ranking could be checked. Rank candidates of your own: "
            "spd-fast rank CANDIDATES --labelled TRAINED."
        )
    if found.label_first:
        names = ", ".join(map(short_name, found.label_first))
        return (
            f"There are few labelled cells. Train these candidates first, which differ most from each other, add what they reach to the "
            f"labelled cells, and rank again: {names}."
        )
    if not fresh:
        return "Rank other candidates, for example the neighbours of the best labelled cells (--neighbours)."
    strange = (
        " Those outside what was tested teach most about cells like them, but may disappoint."
        if found.outside[list(fresh)].any()
        else ""
    )
    more = " A larger --budget measures the candidates that were left out." if not found.replicates.all() else ""
    return f"Train the {len(fresh)} candidates below at full size, add what they reach to the labelled cells, and rank again.{strange}{more}"


def _drawings(found: Ranking, rows: Sequence[int], truth: Array | None) -> list[Drawing]:
    drawings = []
    for place, row in enumerate(rows, start=1):
        facts = [f"{found.parameters[row] / 1e6:.1f} million parameters"]
        if found.accuracy is not None and found.lower is not None and found.upper is not None:
            ends = sorted([found.lower[row], found.upper[row]], reverse=found.lower_is_better)
            interval = ", ".join(_shown(found, end) for end in ends)
            facts.insert(0, f"predicted {_shown(found, found.accuracy[row])} [{interval}]")
        if truth is not None:
            facts.append(f"reached {_shown(found, truth[row])}")
        if found.outside[row]:
            facts.append("outside what was tested")
        drawing = draw_cell(found.cells[row], f"{place}. {_name(found, row)}", "\n".join(facts))
        drawings += [] if drawing is None else [drawing]
    return drawings


def _figures(found: Ranking, truth: Array | None, verdict: Verdict | None) -> list[Section]:
    ranks = np.empty(len(found.order), np.int64)
    ranks[found.order] = np.arange(len(found.order))
    groups = charts.groups_of(ranks, len(ranks))
    sections = []
    agreement = _agreement(found, truth, groups, verdict)
    if agreement is not None:
        sections.append(Section("Predicted and reached", [agreement[1]], [agreement[0]]))
    if found.accuracy is not None:
        sections.append(Section("The best with their intervals", (), [_intervals(found)]))
    curves = _curves(found, groups)
    if curves is not None:
        sections.append(curves)
    return sections


def _agreement(
    found: Ranking, truth: Array | None, groups: Sequence[str], verdict: Verdict | None
) -> tuple[Figure, str] | None:
    sign, what = (-1, "loss") if found.lower_is_better else (1, "accuracy")
    if verdict is None:
        return None
    tau = f"Kendall\u2019s tau is {verdict.tau}."
    if truth is None:
        assert found.left_out is not None  # or there were no verdict
        cells, value, known = found.left_out.cells, found.left_out.predicted[0], found.left_out.accuracy
        points = [
            {"cell": short_name(cell), "x": sign * float(x), "y": sign * float(y)}
            for cell, x, y in zip(cells, value, known, strict=True)
        ]
        note = "Each labelled cell was predicted from the folds of labelled cells without it."
        message = f"Predicted and reached {what} of {len(points)} labelled cells. {tau}"
        axes = (f"predicted {what}", f"reached {what}")
        return charts.score_and_truth(points, axes, message, diagonal=True), note
    score = found.label_free if found.accuracy is None else sign * found.accuracy
    rows = found.order[_spread(len(found.order), charts.MOST_POINTS)]
    rows = rows[np.isfinite(score[rows])]
    points = [
        {"cell": _name(found, row), "x": float(score[row]), "y": sign * float(truth[row]), "group": groups[row]}
        for row in rows.tolist()
    ]
    named = "label-free score" if found.accuracy is None else f"predicted {what}"
    message = f"{named[0].upper()}{named[1:]} and reached {what} of {len(points):,} candidates. {tau}"
    note = "What the candidates reached was known and not used." + _of(len(points), len(found.order))
    return charts.score_and_truth(
        points, (named, f"reached {what}"), message, diagonal=found.accuracy is not None
    ), note


def _of(drawn: int, n: int) -> str:
    return f" {drawn:,} of the {n:,} candidates are drawn, evenly spaced in the ranking." if drawn < n else ""


def _spread(n: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most so many places among n, the first ten among them and the others evenly spaced."""
    if n <= most:
        return np.arange(n)
    return np.unique(np.concatenate([np.arange(TOP), np.linspace(TOP, n - 1, most - TOP).astype(np.int64)]))


def _intervals(found: Ranking) -> Figure:
    assert found.accuracy is not None
    assert found.lower is not None
    assert found.upper is not None
    sign = -1 if found.lower_is_better else 1
    rows = found.order[:_WITH_INTERVAL].tolist()
    points = [
        {
            "cell": _name(found, row),
            "rank": place,
            "y": sign * float(found.accuracy[row]),
            "low": float(min(sign * found.lower[row], sign * found.upper[row])),
            "high": float(max(sign * found.lower[row], sign * found.upper[row])),
        }
        for place, row in enumerate(rows, start=1)
    ]
    first, last = points[0], points[-1]
    message = (
        f"Predicted {_what(found)} of the first {len(points)} candidates with its 90 % interval: {first['y']:.4g} [{first['low']:.4g}, "
        f"{first['high']:.4g}] for the first, {last['y']:.4g} [{last['low']:.4g}, {last['high']:.4g}] for the last of them."
    )
    return charts.best_intervals(points, _what(found), message)


def _curves(found: Ranking, groups: Sequence[str]) -> Section | None:
    measured = found.order[np.isfinite(found.curves[found.order]).all(axis=1)]
    if not len(measured):
        return None
    rows = measured[_spread(len(measured), _DRAWN_CURVES)].tolist()
    points = [
        {"cell": _name(found, row), "x": part, "y": float(np.exp(loss)), "group": groups[row]}
        for row in reversed(rows)  # so that the best lie on top
        for part, loss in enumerate(found.curves[row], start=1)
    ]
    ends = {
        group: float(np.mean([np.exp(found.curves[row, -1]) for row in measured.tolist() if groups[row] == group]))
        for group in charts.GROUPS
        if any(groups[row] == group for row in measured.tolist())
    }
    said = ", ".join(f"{end:.3g} ({group})" for group, end in ends.items())
    message = f"Learning curves of motifs, coloured by rank. In the last part of the training the mean loss is {said}."
    note = (
        "The training loss of each candidate\u2019s motifs on random images, the geometric mean of its motifs in each part of the training."
        + _of(len(rows), len(measured))
    )
    return Section("Learning curves", [note], [charts.learning_curves(points, message)])


def _table(found: Ranking, truth: Array | None) -> Section:
    n = min(_LISTED, len(found.order))
    table = {name: values[:n] for name, values in replace(found, columns={}).table().items()}
    if truth is not None:
        sign = -1 if found.lower_is_better else 1
        table[f"reached_{_what(found)}"] = (sign * truth[found.order[:n]]).tolist()
    given = {name: [values[row] for row in found.order[:n].tolist()] for name, values in found.columns.items()}
    short = [name for name, values in given.items() if all(len(str(value)) <= _LONGEST for value in values)]
    table |= {f"your {name}" if name in table else name: given[name] for name in short[:_GIVEN]}
    table = {name: values for name, values in table.items() if any(value == value for value in values)}  # not all NaN
    names = [name for name in table if name not in ("rank", "cell")]
    rows = [
        [
            Value(f"{table['rank'][i]}. {table['cell'][i][:12]}", table["rank"][i]),
            *(_entry(table[name][i]) for name in names),
        ]
        for i in range(n)
    ]
    notes = []
    if n < len(found.order):
        notes = [f"The first {n} of {len(found.order):,}. The table that was written beside this page has all."]
    heads = ["rank and cell", *(_HEADS.get(name, name.replace("_", " ")) for name in names)]
    return Section("Ranked candidates", notes, [Table("Ranked candidates, the best first", heads, rows)])


def _entry(value: Any) -> Value:
    if isinstance(value, float):
        return Value("", "") if np.isnan(value) else Value(f"{value:.4g}", value)
    if isinstance(value, int):
        large = next(((unit, name) for unit, name in ((10**9, "G"), (10**6, "M")) if value >= unit), None)
        return Value(f"{value / large[0]:.2f} {large[1]}" if large else f"{value:,}", value)
    return Value(str(value), value)
