"""A scoreboard as files: JSON, CSV, figures as PNG, and one HTML page that opens offline."""

import csv
import json
import os
from io import StringIO
from pathlib import Path
from typing import Any, Final

from spd_fast.base.files import atomic_write
from spd_fast.report import figures
from spd_fast.report.page import embedded, in_themes, template
from spd_fast.scoreboard.board import Board
from spd_fast.scoreboard.judge import MEASURES, Estimate

__all__ = ["write"]

_HEADS: Final = {
    "tau": "Kendall\u2019s tau",
    "rho": "Spearman\u2019s rho",
    "tau_top": "tau inside the true top 10 %",
    "precision_10": "precision at 10",
    "precision_50": "precision at 50",
}


def write(board: Board, folder: str | os.PathLike[str]) -> Path:
    """Write ``board.json``, ``board.csv``, ``board.html`` and ``figures/*.png``; return the page's path.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """
    where = Path(folder)
    (where / "figures").mkdir(parents=True, exist_ok=True)
    measured = [each.goal for each in board.outcomes if each.estimate is not None]
    goals = sorted({goal.at_least for goal in measured if goal.measure == "tau" and goal.over is None})
    pictures = {
        "agreement": in_themes(lambda theme: figures.agreement(board.rows, goals, theme)),
        "cost": in_themes(lambda theme: figures.cost(board.rows, theme)),
    }
    record = board.to_json()
    files: dict[str, bytes] = {f"figures/{name}.png": themes["light"] for name, themes in pictures.items()}
    files["board.json"] = (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()
    files["board.csv"] = _table(record["rows"]).encode()
    files["board.html"] = _page(board, record, pictures).encode()
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


def _page(board: Board, record: dict[str, Any], pictures: dict[str, dict[str, bytes]]) -> str:
    machine = board.settings["machine"]
    return template("board.html.j2", estimate=_estimate, seconds=_seconds).render(
        board=board,
        record=record,
        heads=_HEADS,
        recipe=board.settings["recipe"]["name"],
        settings=json.dumps({name: value for name, value in board.settings.items() if name != "machine"}, indent=2),
        machine=", ".join(f"{name.replace('_', ' ')} {value}" for name, value in machine.items()),
        pictures=embedded(pictures),
    )


def _estimate(value: Estimate) -> str:
    return f"{value.mean:.3f} ({value.low:.3f} to {value.high:.3f})"


def _seconds(value: float) -> str:
    if value < 1e-3:
        return f"{value * 1e6:.0f} \u00b5s"
    if value < 1:
        return f"{value * 1e3:.1f} ms"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"
