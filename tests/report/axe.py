"""Looks for barriers in reports: `python tests/report/axe.py CHROMIUM` makes one page of each kind and lets axe check it.

It needs the packages playwright and axe-playwright-python, and Chromium. `.ci/run` starts it. Each page is opened in light and dark
colours, on a wide and on a narrow screen, and printed. It fails where axe finds a violation, where the browser reports an error (a
script that the policy of the page forbids is one), where no chart is drawn, and where a page is wider than the screen.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, sync_playwright

import small
from spd_fast import NatsCell, rank, recipes
from spd_fast.base.machine import describe_machine
from spd_fast.outer import runs
from spd_fast.outer.fit import fit_dish
from spd_fast.ranking.rank import Ranking
from spd_fast.report import board as board_report
from spd_fast.report.compare import compare
from spd_fast.report.page import Made
from spd_fast.report.ranking import ranking_page
from spd_fast.report.run import build
from spd_fast.scoreboard.board import Board
from spd_fast.scoreboard.rows import structure_rows
from spd_fast.scoreboard.trial import draw_trial
from spd_fast.truth.table import TruthTable

SCREENS = {"wide": 1200, "narrow": 400}
MADE = Made("made for a test", "0", "curves", "the truth in the package")


def pages(folder: Path) -> dict[str, Path]:
    """One page of each kind."""
    trained, others = TruthTable.load().split(30, seed=0)
    others = others.subset(np.arange(120))
    ranked = rank(list(others.cells), list(trained.cells), trained.accuracy, budget=2)
    nats = rank(
        [
            NatsCell(("nor_conv_3x3", "none", "skip_connect", op, "none", "avg_pool_3x3"))
            for op in ("none", "nor_conv_1x1")
        ]
    )
    file = str(small.truth_file(folder))
    for name, recipe in {"a": small.LEARNING, "b": small.CURVE}.items():
        with runs.create(folder / name, recipe, about={"truth": "made up", "truth_file": file, "command": "c"}) as run:
            fit_dish(*small.pool(), recipe, run=run)
    return {
        "ranking": page_of(ranked, folder / "ranking.html", others),
        "ranking of NATS cells": page_of(nats, folder / "nats.html"),
        "run": build(folder / "a"),
        "comparison": compare([folder / "a", folder / "b"], folder / "compared.html", command="c", version="0"),
        "scoreboard": board_report.write(board(), folder / "board"),
    }


def page_of(found: Ranking, path: Path, truth: TruthTable | None = None) -> Path:
    return ranking_page(found, MADE, None if truth is None else truth.accuracy).write(path)


def board() -> Board:
    """A scoreboard with the rows that need no training."""
    trial = draw_trial(TruthTable.load(), pool_sizes=12, test_cells=100, seeds=1)
    settings = {
        name: {"name": recipe.name}
        for name, recipe in {"recipe": recipes.get("demo"), "curves": recipes.get("curves")}.items()
    }
    return Board(
        tuple(structure_rows(trial)), (), trial, {**settings, "machine": describe_machine(), "given_dishes": 0}
    )


def barriers(browser: Browser, path: Path, scheme: str, width: int) -> list[str]:
    """What is wrong with a page, in sentences."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.goto(path.as_uri())
    for chart in page.query_selector_all(".live"):
        chart.wait_for_selector("svg")
    for details in page.query_selector_all("details"):
        details.evaluate("each => each.open = true")
    result = Axe().run(page)
    if result.violations_count:
        found.append(result.generate_report())
    if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
        found.append(f"the page is {wide} pixels wide on a screen of {width}")
    head = page.query_selector(".sortable thead th:nth-child(2)")
    if head is not None:
        head.click()
        page.wait_for_timeout(100)
        if head.get_attribute("aria-sort") != "descending":
            found.append("a table does not sort by a click on its head")
    page.emulate_media(media="print")
    if page.query_selector(".live") and not page.query_selector(".static svg").is_visible():
        found.append("a chart is not there in print")
    context.close()
    return found


def main() -> None:
    """Check all pages."""
    failed = False
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as player:
        browser = player.chromium.launch(executable_path=sys.argv[1], args=["--no-sandbox"])
        for name, path in pages(Path(folder)).items():
            for scheme in ("light", "dark"):
                for screen, width in SCREENS.items():
                    found = barriers(browser, path, scheme, width)
                    failed |= bool(found)
                    print(f"{name}, {scheme}, {screen}: " + ("\n".join(found) or "no barrier"), flush=True)
        browser.close()
    sys.exit(failed)


if __name__ == "__main__":
    main()
