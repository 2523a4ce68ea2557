"""A scoreboard as files: JSON, CSV, figures as SVG, and one HTML page that opens offline."""

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Final

import numpy as np

from spd_fast.base.files import atomic_write
from spd_fast.report import charts
from spd_fast.report.cells import Drawing, draw_cell
from spd_fast.report.page import Figure, Made, Page, Section, Table, Value, static_svg
from spd_fast.report.verdict import duration
from spd_fast.scoreboard.board import Board
from spd_fast.scoreboard.judge import MEASURES, Estimate
from spd_fast.scoreboard.rows import BEFORE, LEARNED, Row

__all__ = ["board_page", "write"]

_HEADS: Final = {
    "tau": "Kendall\u2019s tau",
    "rho": "Spearman\u2019s rho",
    "tau_top": "tau inside the true top 10 %",
    "precision_10": "precision at 10",
    "precision_50": "precision at 50",
}
_CHEAP: Final = ("structure", "proxy")
"""Kinds of rows that serve as cheap controls."""
_NEARLY: Final = 0.03
"""A row whose tau is so near does nearly as well."""
_BEST: Final = 5
"""Cells that are drawn."""
FROM_PYTHON: Final = "not recorded: the scoreboard was made from Python"


def write(board: Board, folder: str | os.PathLike[str], *, command: str = FROM_PYTHON) -> Path:
    """Write ``board.json``, ``board.csv``, ``board.html`` and ``figures/*.svg``; return the page's path.

    Parameters
    ----------
    board : Board
    folder : path
    command : str
        The command that made the board, for the page.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """
    where = Path(folder)
    (where / "figures").mkdir(parents=True, exist_ok=True)
    record, page = board.to_json(), board_page(board, command=command)
    files: dict[str, bytes] = {
        f"figures/{figure.name}.svg": static_svg(figure).encode()
        for figure in page.figures()
        if isinstance(figure, Figure)
    }
    files["board.json"] = (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()
    files["board.csv"] = _table(record["rows"]).encode()
    files["board.html"] = page.html().encode()
    for name, content in files.items():
        with atomic_write(where / name) as file:
            file.write(content)
    return where / "board.html"


def _table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as CSV; an estimate takes three columns."""
    flat = []
    for row in rows:
        record: dict[str, Any] = {}
        for name, value in row.items():
            if name in MEASURES:
                record |= {name: value["mean"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
            else:
                record[name] = value
        flat.append(record)
    text = StringIO()
    table = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(flat)
    return text.getvalue()


def board_page(board: Board, *, command: str = FROM_PYTHON) -> Page:
    """Return the page of a scoreboard. It answers for the dishes that were given to the board, or else for its best row."""
    trial, settings = board.trial, board.settings
    yours = _yours(board)
    best = _best(board.rows)
    shown = best if yours is None else yours.row
    control = _control(board.rows, shown)
    machine = settings["machine"]
    sizes = " and ".join(map(str, trial.pool_sizes))
    seeds = f"{len(trial.seeds)} seed{'s' if len(trial.seeds) > 1 else ''} of pool and dish"
    return Page(
        title=f"Scoreboard of {settings['recipe']['name']}",
        summary=f"{len(trial.test_cells):,} test cells, {seeds}, pools of {sizes} labelled cells."
        if yours is None
        else f"{yours.subject}, learned from {sizes} labelled cells, and {len(board.rows) - 1} other ways to score {len(trial.test_cells):,} "
        "test cells.",
        made=Made(
            command=command,
            version=str(machine["version"]),
            recipe=f"{settings['recipe']['name']}, with learning curves of {settings['curves']['name']}",
            truth=trial.test_cells.describe(),
            machine=", ".join(
                f"{name.replace('_', ' ')} {value}" for name, value in machine.items() if name != "version"
            ),
        ),
        tiles=[
            (_short(best.judged.estimate("tau")), f"Kendall\u2019s tau of the best row, {_name(best)}")
            if yours is None
            else (_short(yours.row.judged.estimate("tau")), f"Kendall\u2019s tau of {yours.subject.lower()}"),
            (_short(control.judged.estimate("tau")), f"the same of {_name(control)}"),
            (
                f"{10 * shown.judged.means['precision_10']:.1f} of 10",
                f"ranked first are among the truly best ten; of {_name(control)}, {10 * control.judged.means['precision_10']:.1f}",
            ),
        ],
        answers=[
            ("Best cells", _best_cells(board, shown)),
            ("How good", _quality(best, control) if yours is None else _quality_of_yours(yours, best, control)),
            ("How sure", _how_sure(board, shown, picked=yours is None)),
            ("What it cost", _cost(shown, control)),
            ("What to do next", _next(best, control) if yours is None else _next_with_yours(yours, best, control)),
        ],
        drawn=f"The test cells to which {_name(shown)} gives the best scores, as means over the seeds.",
        drawings=_drawings(board, shown),
        sections=[
            Section(
                "Rank agreement",
                ["Rows that learned from labelled cells are coloured."],
                [charts.agreement(board.rows, _range_message(board.rows))],
            ),
            Section("Score and truth", (), [_score_and_truth(board, shown)]),
            Section("Every row", _NOTES, [_every_row(board)]),
            Section(
                "Agreement and cost",
                (),
                [charts.cost(board.rows, _cost_message(shown, control))],
            ),
            Section(
                "Every setting",
                verbatim=json.dumps({name: value for name, value in settings.items() if name != "machine"}, indent=2),
                folded=True,
            ),
        ],
    )


_NOTES: Final = (
    "Each value is a mean over seeds. The brackets hold the 95 % interval of 1,000 resamples of cells and seeds, which are the same for all "
    "rows. Rows that depend on no seed show the uncertainty of the cells alone.",
    "Precision at k is the share of the k best-scored cells that are among the k truly best. \u201cIn 90 % interval\u201d is the share of the cells "
    "whose accuracy lies inside the interval that was predicted for it; it should be 0.90.",
    "Initialisation is all work before the first query, in seconds of wall time, but without the training of the labelled cells\u2019 full-size "
    "networks (White et al. 2021, arXiv:2104.01177, count that, too). A query is in seconds of one core.",
)


@dataclass(frozen=True, eq=False)
class _Yours:
    """The dishes that were given to a board: their row, that of the same dishes before learning, and what they are called."""

    row: Row
    before: Row
    subject: str

    @property
    def have(self) -> str:
        """The subject with its verb."""
        return f"{self.subject} {'has' if self.subject == 'Your dish' else 'have'}"


def _yours(board: Board) -> _Yours | None:
    """Return the dishes that were given to the board; None if it learned its own."""
    n = board.settings["given_dishes"]
    row, before = board.row(LEARNED), board.row(BEFORE)
    if not n or row is None or before is None:
        return None
    return _Yours(row, before, "Your dish" if n == 1 else f"Your {n} dishes")


def _best(rows: Sequence[Row]) -> Row:
    return max(rows, key=lambda row: row.judged.means["tau"])


def _control(rows: Sequence[Row], best: Row) -> Row:
    """Return the cheapest row whose tau is nearly that of a good one or more, or else the best of the cheap controls."""
    near = [row for row in rows if row.judged.means["tau"] >= best.judged.means["tau"] - _NEARLY and row is not best]
    cheaper = [row for row in near if (row.pool_size, row.query_seconds) < (best.pool_size, best.query_seconds)]
    if cheaper:
        return min(cheaper, key=lambda row: (row.pool_size, row.query_seconds))
    cheap = [row for row in rows if row.kind in _CHEAP and row is not best]
    return _best(cheap or rows)


def _name(row: Row) -> str:
    return f"\u201c{row.name}\u201d" + (f" with {row.pool_size} labelled cells" if row.pool_size else "")


def _short(value: Estimate) -> str:
    return f"{value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _quality(best: Row, control: Row) -> str:
    more = best.judged.minus(control.judged, "tau")
    nearly = more.mean <= _NEARLY or more.low <= 0
    beside = (
        f"{_name(control)} is cheaper and does nearly as well"
        if nearly
        else f"No cheaper row does nearly as well: the best cheap control is {_name(control)}"
    )
    return (
        f"The best row, {_name(best)}, agrees with the truth by a Kendall\u2019s tau of {_short(best.judged.estimate('tau'))} (1: the same order, 0: "
        f"chance), and {10 * best.judged.means['precision_10']:.1f} of its first ten are among the truly best ten.\n{beside}, with tau "
        f"{_short(control.judged.estimate('tau'))} and {10 * control.judged.means['precision_10']:.1f} of ten. The difference in tau is {_short(more)}."
    )


def _quality_of_yours(yours: _Yours, best: Row, control: Row) -> str:
    row = yours.row
    gain, over = row.judged.minus(yours.before.judged, "tau"), row.judged.minus(control.judged, "tau")
    learned = "Learning made a difference" if gain.low > 0 else "These cells do not show that learning helped"
    cheaper = "does not do as well" if over.low > 0 else "does better" if over.high < 0 else "does as well or nearly so"
    said = [
        f"{yours.have} a Kendall\u2019s tau of {_short(row.judged.estimate('tau'))} with the truth (1: the same order, 0: chance), and "
        f"{10 * row.judged.means['precision_10']:.1f} of the first ten are among the truly best ten.",
        f"{learned}: before it, tau is {_short(yours.before.judged.estimate('tau'))}, and the difference {_short(gain)}.",
        f"{_name(control)} is cheaper and {cheaper}, with tau {_short(control.judged.estimate('tau'))}; the difference is {_short(over)}.",
    ]
    if best is not row:
        more = best.judged.minus(row.judged, "tau")
        said.append(
            f"The best row is {_name(best)}, with tau {_short(best.judged.estimate('tau'))}: a difference of {_short(more)}."
        )
    return "\n".join(said)


def _how_sure(board: Board, shown: Row, *, picked: bool) -> str:
    seeds = len(board.trial.seeds)
    said = [
        f"The brackets hold 95 % intervals over {len(board.trial.test_cells):,} test cells, none of which is in a pool, and {seeds} "
        f"seed{'s' if seeds > 1 else ''}."
    ]
    if picked:
        said.append(
            f"The best of {len(board.rows)} rows was picked on these cells, so its figures are a little optimistic."
        )
    if shown.inside_90 is not None:
        said.append(
            f"{100 * shown.inside_90:.0f} % of the accuracies lie inside the 90 % intervals that {_name(shown)} predicts."
        )
    return " ".join(said)


def _cost(best: Row, control: Row) -> str:
    return " ".join(
        f"{_name(row)[0].upper()}{_name(row)[1:]} took {_seconds(row.init_seconds)} before its first query and {_seconds(row.query_seconds)} of one "
        f"core for each cell."
        for row in (best, control)
    )


def _next(best: Row, control: Row) -> str:
    if best.judged.minus(control.judged, "tau").low <= 0:
        return f"Use {_name(control)}: it is cheaper, and these cells cannot tell the two apart."
    if best.pool_size:
        return f"Label {best.pool_size} cells of your own and rank the others: spd-fast rank CANDIDATES --labelled TRAINED."
    return "Rank cells without labels, by the speed of learning: spd-fast rank CANDIDATES."


def _next_with_yours(yours: _Yours, best: Row, control: Row) -> str:
    use = best if best.judged.minus(control.judged, "tau").low > 0 else control
    over = yours.row.judged.minus(use.judged, "tau")
    if use is yours.row or over.low > 0 or (use is not control and over.high >= 0):
        return "Score your own cells on the dish, in Python: spd_fast.score_cells(dish, recipe, cells)."
    why = "ranks these cells better" if over.high < 0 else "is cheaper, and these cells cannot tell that it ranks worse"
    return f"Use {_name(use)} in place of a dish: it {why}. spd-fast rank CANDIDATES --labelled TRAINED learns no dish, either."


def _order(best: Row) -> list[int]:
    score = best.scores.mean(axis=0)
    order: list[int] = np.argsort(-np.where(np.isfinite(score), score, -np.inf), kind="stable").tolist()
    return order


def _best_cells(board: Board, best: Row) -> str:
    names = ", ".join(board.trial.test_cells.hashes[row][:12] for row in _order(best)[:_BEST])
    return f"{names} are ranked first among the test cells by {_name(best)}."


def _drawings(board: Board, best: Row) -> list[Drawing]:
    cells, score = board.trial.test_cells, best.scores.mean(axis=0)
    drawn = [
        draw_cell(
            cells.cells[row],
            f"{place}. {cells.hashes[row][:12]}",
            f"score {score[row]:.4g}\nreached {cells.accuracy[row]:.4g}",
        )
        for place, row in enumerate(_order(best)[:_BEST], start=1)
    ]
    return [each for each in drawn if each is not None]


def _score_and_truth(board: Board, best: Row) -> Figure:
    cells, score = board.trial.test_cells, best.scores[0]
    order = [row for row in _order(best) if np.isfinite(score[row])]
    groups = charts.groups_of(np.arange(len(order)), len(order))
    points = [
        {
            "cell": cells.hashes[row][:12],
            "x": float(score[row]),
            "y": float(cells.accuracy[row]),
            "group": groups[place],
        }
        for place, row in enumerate(order)
    ][: charts.MOST_POINTS]
    message = (
        f"Score by {_name(best)}, first seed, and accuracy of {len(points):,} test cells. Kendall\u2019s tau over all seeds is "
        f"{_short(best.judged.estimate('tau'))}."
    )
    return charts.score_and_truth(points, ("score", "accuracy"), message)


def _range_message(rows: Sequence[Row]) -> str:
    best, worst = _best(rows), min(rows, key=lambda row: row.judged.means["tau"])
    return (
        f"Kendall\u2019s tau of all {len(rows)} rows with 95 % intervals, from {worst.judged.means['tau']:.2f} ({_name(worst)}) to "
        f"{best.judged.means['tau']:.2f} ({_name(best)})."
    )


def _cost_message(best: Row, control: Row) -> str:
    ends = " and ".join(
        f"{_name(row)} has tau {row.judged.means['tau']:.2f} for {_seconds(row.query_seconds)}"
        for row in (best, control)
    )
    return f"Kendall\u2019s tau of every row over the seconds of a query: {ends}."


def _every_row(board: Board) -> Table:
    heads = ["row", "labelled cells", *_HEADS.values(), "initialisation", "query, one core", "in 90 % interval"]
    rows: list[list[Value | str]] = []
    for row in board.rows:
        measures = [(str(row.judged.estimate(name)), row.judged.means[name]) for name in _HEADS]
        rows.append(
            [
                Value(row.name, row.name, row.meaning),
                Value(str(row.pool_size), row.pool_size),
                *(Value(text, mean) for text, mean in measures),
                Value(_seconds(row.init_seconds), row.init_seconds),
                Value(_seconds(row.query_seconds), row.query_seconds),
                Value("", "") if row.inside_90 is None else Value(f"{row.inside_90:.2f}", row.inside_90),
            ]
        )
    return Table("Every row of the scoreboard", heads, rows)


def _seconds(value: float) -> str:
    if value < 1e-3:
        return f"{value * 1e6:.0f} \u00b5s"
    return f"{value * 1e3:.1f} ms" if value < 1 else duration(value)
