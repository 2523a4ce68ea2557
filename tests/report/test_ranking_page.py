"""The report of a ranking: its verdict against a computation by hand, its cells as graphs, its texts escaped."""

import re
from dataclasses import replace

import numpy as np
import pytest

from pages import outline, reads_without_scripts, text_of
from spd_fast import rank
from spd_fast.base.ranks import kendall_tau
from spd_fast.ranking.rank import Ranking
from spd_fast.report.cells import draw_cell
from spd_fast.report.page import Made
from spd_fast.report.ranking import ranking_page
from spd_fast.report.verdict import duration, verdict_on
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.nats_cell import NatsCell
from spd_fast.spaces.perceptron import Perceptron
from spd_fast.truth.table import TruthTable

MADE = Made("spd-fast rank '<b>.csv'", "0.0", "curves", "of a test")


@pytest.fixture(scope="module")
def ranked() -> tuple[Ranking, TruthTable]:
    trained, others = TruthTable.load().split(30, seed=0)
    others = others.subset(np.arange(120))
    return rank(list(others.cells), list(trained.cells), trained.accuracy, budget=0), others


def test_a_ranking_whose_truth_is_known(ranked: tuple[Ranking, TruthTable]) -> None:
    found, others = ranked
    html = ranking_page(found, MADE, others.accuracy).html()
    reads_without_scripts(html)
    text = text_of(html)
    assert outline(html)[:3] == [(1, "Ranked candidates"), (2, "The answer"), (2, "The best cells")]
    assert found.accuracy is not None
    assert f"Kendall\u2019s tau of {kendall_tau(found.accuracy, others.accuracy):.2f} [" in text
    best = set(np.argsort(-others.accuracy, kind="stable")[:12].tolist())
    hits = len(best & set(found.order[:10].tolist()))
    assert f"Of the ten ranked first, {hits} are among the truly best tenth; chance would give 1.0" in text
    assert html.count('<figure class="cell">') == 10
    assert "spd-fast rank '<b>.csv'" in text
    assert "<b>.csv" not in html
    assert "No motif was trained of 120 candidates" in text
    assert not re.search(r"\b(nan|None|Undefined)\b", text)


def test_a_ranking_is_judged_on_its_labelled_cells(ranked: tuple[Ranking, TruthTable]) -> None:
    found, _ = ranked
    assert found.left_out is not None
    taus = [kendall_tau(each, found.left_out.accuracy) for each in found.left_out.predicted]
    page = ranking_page(found, MADE)
    assert page.tiles[0][0].startswith(f"{np.mean(taus):.2f} [")
    assert "your 30 labelled cells, each predicted from others" in text_of(page.html())


def test_losses_are_shown_as_losses(ranked: tuple[Ranking, TruthTable]) -> None:
    found, _ = ranked
    assert found.accuracy is not None
    page = ranking_page(replace(found, lower_is_better=True), MADE)
    best = -float(found.accuracy[found.order[0]])
    assert page.drawings[0].facts.startswith(f"predicted {best:.4g} [")
    assert "predicted loss" in page.html()


def test_a_ranking_without_labels() -> None:
    """No verdict is made up, and the curves are drawn."""
    page = ranking_page(rank(list(TruthTable.load().cells)[:4]), MADE)
    html = page.html()
    reads_without_scripts(html)
    assert "It cannot be checked here" in text_of(html)
    assert "Learning curves" in [title for _, title in outline(html)]
    assert not re.search(r"\b(nan|None|Undefined)\b", text_of(html))


def test_what_comes_from_data_is_escaped(ranked: tuple[Ranking, TruthTable]) -> None:
    found, _ = ranked
    evil = "</script><img src=x onerror=alert(1)>"
    columns = {
        "name": [evil] * len(found.cells),
        "parameters": ["few"] * len(found.cells),
        "cell": ["x" * 99] * len(found.cells),
    }
    html = ranking_page(replace(found, advice=(evil,), columns=columns), replace(MADE, truth=evil)).html()
    assert evil not in html
    heads = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', html)
    assert heads[-4:] == ["parameters", "FLOPs", "name", "your parameters"]
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in html


def test_verdict() -> None:
    """Beside a control that ranks better, one that ranks the other way round, and one that says nothing."""
    rng = np.random.default_rng(0)
    truth = np.arange(200.0)
    noise = truth + rng.normal(0, 60, 200)
    weak = verdict_on(noise, truth, {"itself": -truth, "nothing": np.zeros(200)})
    assert (weak.control, weak.control_tau.value, weak.control_hits, weak.best) == ("itself", 1.0, 10.0, 20)
    assert weak.nearly
    assert "Itself alone does nearly as well" in weak.quality("them")
    strong = verdict_on(np.stack([truth, noise]), truth, {"nothing": np.zeros(200)})
    assert strong.tau.value == pytest.approx((1 + kendall_tau(noise, truth)) / 2)
    assert strong.tau.low < strong.tau.value < strong.tau.high
    assert strong.control_hits == pytest.approx(1.0)  # a tenth of ten, because all tie
    assert not strong.nearly
    assert verdict_on([np.nan, *truth[1:]], truth, {"nothing": truth}).tau.value == 1.0


def test_durations() -> None:
    assert [duration(seconds) for seconds in (3.21, 42, 600, 7500)] == ["3.2 s", "42 s", "10 min", "2 h 05 min"]


def test_cells_as_graphs() -> None:
    """A box for each vertex, a path for each edge, and the graph in words; nothing is drawn of a perceptron."""
    cell = Cell(
        [[0, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], ["input", "conv3x3-bn-relu", "maxpool3x3", "output"]
    )
    drawn = draw_cell(cell, "one")
    assert drawn is not None
    assert [vertex.text for vertex in drawn.vertices] == ["input", "3x3 conv", "3x3 max-pool", "output"]
    assert len(drawn.edges) == 5
    assert (
        drawn.meaning
        == "1 (3x3 conv) from input; 2 (3x3 max-pool) from input and 1 (3x3 conv); output from input and 2 (3x3 max-pool)"
    )
    nats = draw_cell(NatsCell(("nor_conv_3x3", "none", "skip_connect", "none", "none", "avg_pool_3x3")), "two")
    assert nats is not None
    assert [edge.text for edge in nats.edges] == ["3x3 conv", "skip", "3x3 avg-pool"]
    assert draw_cell(Perceptron(1.0), "three") is None
