"""The report of a run: its numbers by hand, its page whole and self-contained, whatever the state of the run."""

import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small
from pages import outline, reads_without_scripts, text_of
from spd_fast import recipes
from spd_fast.dish import Dish
from spd_fast.outer import runs
from spd_fast.outer.fit import FitResult, fit_dish
from spd_fast.outer.history import OuterEpoch
from spd_fast.paper.stated import PAPER
from spd_fast.report import charts
from spd_fast.report.page import static_svg
from spd_fast.report.run import build, read_run
from spd_fast.report.summary import (
    MeanAndError,
    chance_tau_sd,
    mean_max_accuracy,
    moving_average,
    summarise,
)
from spd_fast.spaces.perceptron import Perceptron
from spd_fast.truth.table import TruthTable

CHARTS = ("predicted_and_true", "outer_loss", "accuracy", "kendall_tau", "inner_curves")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FitResult]:
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, fit_dish(*small.pool(), small.RECIPE, run=path)


def test_moving_average() -> None:
    assert moving_average([3, 6, 9, 0]).tolist() == [4.5, 6, 5, 4.5]
    assert moving_average([1, np.nan, 3]).tolist() == [1, 2, 3]
    assert np.isnan(moving_average([np.nan, np.nan, np.nan, 1])[:2]).all()
    assert moving_average([5]).tolist() == [5]
    assert moving_average([]).tolist() == []


def test_estimate() -> None:
    estimate = MeanAndError.of([0.1, 0.3, 0.2, 0.4])
    assert estimate.mean == pytest.approx(0.25)
    assert estimate.error == pytest.approx(np.std([0.1, 0.3, 0.2, 0.4], ddof=1) / 2)
    assert str(estimate) == "+0.250 ± 0.065"
    assert str(MeanAndError.of([-0.5])) == "-0.500"
    assert str(MeanAndError.of([])) == "none"


def test_chance_tau_sd() -> None:
    """Against all orders of four, and a simulation's known value for six."""
    from itertools import permutations

    from spd_fast.base.ranks import kendall_tau

    taus = [kendall_tau(order, range(4)) for order in permutations(range(4))]
    assert chance_tau_sd(4) == pytest.approx(np.std(taus))
    assert chance_tau_sd(6) == pytest.approx(0.3549, abs=1e-4)


def steps(finished: tuple[Path, FitResult], **changes: list[Any]) -> list[OuterEpoch]:
    """Copies of the first step with fields changed, one step per entry."""
    first = finished[1].history[0]
    n = len(next(iter(changes.values())))
    return [
        replace(first, epoch=i, seconds=2.0, **{name: values[i] for name, values in changes.items()}) for i in range(n)
    ]


def test_summary(finished: tuple[Path, FitResult]) -> None:
    history = steps(
        finished,
        kendall_tau=[0.2, 0.0, 0.4],
        tied=[False, True, False],
        perfect=[False, True, False],
        loss=[0.5, None, 0.3],
        skipped=["", "why", ""],
        max_accuracy=[(0.5, 0.7, None, 0.6), (1.0,) * 4, (None,) * 4],
        diverged=[(False, False, True, False), (False,) * 4, (True,) * 4],
    )
    summary = summarise(history, small.RECIPE)
    assert (summary.tau.mean, summary.tau.n) == (pytest.approx(0.2), 3)
    assert (summary.tau_untied.mean, summary.tau_untied.n) == (pytest.approx(0.3), 2)
    assert summary.loss_first == summary.loss_last == pytest.approx(0.4)
    assert summary.accuracy_first == pytest.approx(0.8)
    assert summary.perfect == summary.tied == pytest.approx(1 / 3)
    assert (summary.skipped, summary.diverged, summary.seconds, summary.epochs) == (1, 5, 6.0, 3)
    means, spread = mean_max_accuracy(history)
    assert means[:2] == pytest.approx([0.6, 1.0])
    assert spread[0] == pytest.approx(np.std([0.5, 0.7, 0.6]))
    assert np.isnan(means[2])


def test_the_paper_stands_beside_its_own_settings_only(finished: tuple[Path, FitResult]) -> None:
    history = finished[1].history
    for name, results in PAPER.items():
        assert summarise(history, recipes.get(name)).paper == results
        assert summarise(history, recipes.get(name).replace({"seed": 5})).paper == results
        assert summarise(history, recipes.get(name).replace({"inner.epochs": 5})).paper == {}
    assert summarise(history, small.RECIPE).paper == {}


PNG = b"\x89PNG\r\n\x1a\n"


def test_page(finished: tuple[Path, FitResult]) -> None:
    path, fit = finished
    page = build(path)
    assert page == path / "report.html"
    html = page.read_text(encoding="utf-8")
    reads_without_scripts(html)
    for name in CHARTS:
        assert (path / "figures" / f"{name}.svg").read_text().startswith("<svg")
    assert html.count('<div class="static"><svg') == len(CHARTS)
    assert html.count("data:image/png;base64,") == 3  # the dish before, after, and the change
    assert "not an evaluation on test cells" in html
    assert "is not finished" not in html
    assert ">the paper</th>" not in html
    assert "not recorded: the run was started from Python" in html
    assert str(summarise(fit.history, small.RECIPE).tau) in html
    for name, _, meaning in small.RECIPE.explain():
        assert f">{name}</th>" in html
        assert meaning
    assert not [name for name in ("nan", "None", "Undefined") if re.search(rf"\b{name}\b", text_of(html))]
    assert outline(html)[:3] == [(1, "A run of the recipe small"), (2, "The answer"), (2, "Score and truth")]


def test_a_run_is_held_against_a_cheap_control(finished: tuple[Path, FitResult], tmp_path: Path) -> None:
    """Where its truth can be read, the best of the cheap scores is judged on the same cells of the same outer epochs."""
    from spd_fast.base.ranks import kendall_tau
    from spd_fast.ranking.rank import controls_of

    assert read_run(finished[0]).control is None
    file = small.truth_file(tmp_path)
    with runs.create(
        tmp_path / "run", small.RECIPE, about={"truth": "", "truth_file": str(file), "command": "c"}
    ) as run:
        fit = fit_dish(*small.pool(), small.RECIPE, run=run)
    reading = read_run(tmp_path / "run")
    assert reading.control is not None
    name, tau, more = reading.control
    values = dict(zip((cell.module_hash for cell in small.pool()[0]), controls_of(small.pool()[0])[name], strict=True))
    taus = [kendall_tau([values[cell] for cell in record.cells], record.truth) for record in fit.history]
    assert tau.mean == pytest.approx(abs(np.mean(taus)))
    assert more.mean == pytest.approx(reading.summary.tau.mean - tau.mean)
    html = build(tmp_path / "run").read_text()
    assert f"the same of the best cheap control, {name}" in html
    assert html.count('<figure class="cell">') == 5
    file.unlink()
    assert "cannot be compared with a cheap control" in build(tmp_path / "run").read_text()


def test_page_of_a_run_of_the_paper(finished: tuple[Path, FitResult], tmp_path: Path) -> None:
    with runs.create(tmp_path / "run", recipes.get("cassimon_c"), about={"truth": "<b>bold</b>"}) as run:
        run.restore({})
        dish = Dish(np.zeros((2, 3, 16, 16)), np.array([0, 1]))
        run.save_dish(dish, start=True)
        run.save_dish(dish)
        for step in finished[1].history:
            run.append(step.to_json())
    html = build(tmp_path / "run").read_text(encoding="utf-8")
    assert ">the paper</th>" in html
    assert "48.5 %" in html
    assert "-0.002" in html
    assert "&lt;b&gt;bold" in html


def test_page_of_an_unfinished_run(finished: tuple[Path, FitResult], tmp_path: Path) -> None:
    """One epoch done: from the checkpoint, and said so."""

    def stop(epoch: int, fraction: float, step: OuterEpoch | None) -> None:
        if step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_dish(*small.pool(), small.RECIPE, run=tmp_path / "run", progress=stop)
    html = build(tmp_path / "run").read_text(encoding="utf-8")
    assert "This run is not finished: 1 of 6 outer epochs are done." in html
    assert "spd-fast run --resume --out" in html


def test_page_of_a_run_with_validation_cells(tmp_path: Path) -> None:
    """Its own pictures, and the numbers of `FitResult`."""
    fit = fit_dish(*small.pool(), small.LEARNING, run=tmp_path / "run")
    html = build(tmp_path / "run").read_text(encoding="utf-8")
    assert (tmp_path / "run" / "figures" / "trust.svg").read_text().startswith("<svg")
    assert (tmp_path / "run" / "figures" / "validation_set_after_learning.png").read_bytes().startswith(PNG)
    summary = summarise(fit.history, small.LEARNING)
    assert summary.validation_tau_end == fit.validation_tau
    assert summary.validation_tau_start == fit.history[0].validation_tau_start
    assert summary.trust == np.median([step.trust for step in fit.history if step.trust is not None])
    for number in (summary.validation_tau_start, summary.validation_tau_end, summary.trust):
        assert f"{number:+.3f}".removeprefix("+") in html
    assert "so tau on them is optimistic" in html
    assert not re.search(r"\b(nan|None|Undefined)\b", text_of(html))


def test_page_of_a_run_that_learned_a_schedule(tmp_path: Path) -> None:
    """Rates and step weights drawn, scales in the table; searched without gradients, so no trust ratio."""
    search = {"outer.optimizer": {"name": "cmaes", "sigma": 0.2, "population": 4}, "outer.epochs": 2}
    fit = fit_dish(*small.pool(), small.CURVE.replace(search), run=tmp_path / "run")
    html = build(tmp_path / "run").read_text(encoding="utf-8")
    for name in ("rates", "step_weights"):
        assert (tmp_path / "run" / "figures" / f"{name}.svg").is_file()
    assert not (tmp_path / "run" / "figures" / "trust.svg").exists()
    assert "factor of the initial weights, dense, before and after learning" in html
    assert f"1.000, {fit.dish.initial_scales[3]:.3f}" in html
    assert not re.search(r"\b(nan|None|Undefined)\b", text_of(html))


def test_what_was_learned_is_drawn(tmp_path: Path) -> None:
    """Labels alone are learned: their matrix is drawn before and after, and the images once, which say that they were not."""
    recipe = small.CURVE.replace({"outer.learn": ["labels"], "outer.epochs": 1})
    fit = fit_dish(*small.pool(), recipe, run=tmp_path / "run")
    text = text_of(build(tmp_path / "run").read_text(encoding="utf-8"))
    figures = {path.name for path in (tmp_path / "run" / "figures").glob("*.png")}
    changed = ("before_learning", "after_learning", "change_brightened")
    assert figures == {"dish_not_learned.png", *(f"labels_{each}.png" for each in changed)}
    assert "The labels before and after learning" in text
    assert (
        "The 12 images of the dish. They were not learned and are the same before and after; learned were: labels."
        in text
    )
    assert f"by {np.abs(fit.dish.labels - fit.start.labels).max():.3g} at most" in text
    assert "The dish before and after learning" not in text


def test_pictures_of_labels() -> None:
    """A row for each class, a column for each image: the pixels are those of the matrix."""
    from PIL import Image

    labels = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    picture = charts.dish_labels("labels", labels, labels * -1, "labels")
    (_, first), (_, last), (title, _) = picture.panels
    assert title == "change, brightened"
    assert [np.asarray(Image.open(BytesIO(each)))[4::9, 4::9, 0].tolist() for each in (first, last)] == [
        [[255, 255, 128], [128, 128, 255]],  # the images of the first class come first
        [[0, 0, 128], [128, 128, 0]],
    ]


def test_page_of_the_original_method(tmp_path: Path) -> None:
    """Perceptrons, vectors of bits, the package's slopes: a picture of both sets, one vector a row."""
    recipe = recipes.get("rawal_slope").replace({"outer.epochs": 2, "inner.epochs": 5})
    truth = TruthTable.embedded(Perceptron)
    fit_dish(truth.cells, truth.accuracy, recipe, run=tmp_path / "run")
    page = build(tmp_path / "run").read_text()
    assert "rawal_slope" in page
    for name in ("dish", "validation_set"):
        assert (tmp_path / "run" / "figures" / f"{name}_before_learning.png").read_bytes().startswith(PNG)


def test_nothing_to_report(tmp_path: Path) -> None:
    with runs.create(tmp_path / "run", small.RECIPE) as run:
        with pytest.raises(runs.RunFolderError, match="has no finished outer epoch yet: there is nothing to report"):
            build(tmp_path / "run")
        run.restore({})
        run.append({"epoch": 0})
    with pytest.raises(
        runs.RunFolderError, match=r"metrics.jsonl cannot be read: a line of metrics lacks or adds fields"
    ):
        build(tmp_path / "run")
    with pytest.raises(runs.RunFolderError, match="does not exist"):
        build(tmp_path / "nowhere")


def test_charts_of_odd_histories(finished: tuple[Path, FitResult]) -> None:
    """Skipped epochs, motifs that all diverged, a single epoch."""
    history = steps(
        finished,
        loss=[None, None],
        max_accuracy=[(None,) * 4] * 2,
        curve_accuracy=[(), ()],
        curve_accuracy_sd=[(), ()],
    )
    for draw in (charts.outer_loss, charts.accuracy, charts.kendall_tau, charts.inner_curves):
        for each in (history, history[:1]):
            assert static_svg(draw(each, "nothing")).startswith("<svg")


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_of_any_dish(channels: int) -> None:
    images = np.random.default_rng(0).normal(size=(7, channels, 4, 6))
    dish = Dish(images, np.array([0, 0, 0, 1, 1, 2, 2]))
    soft = Dish(np.zeros((30, channels, 4, 4)), np.eye(15)[np.arange(30) % 15])
    for each in (dish, soft):
        picture = charts.dish_images("dish", each.images, each.images, each.labels, "a dish")
        assert [title for title, _ in picture.panels] == ["before learning", "after learning", "change: none"]
        assert all(content.startswith(PNG) for _, content in picture.panels)
    heaviest = charts.heaviest_images(images, np.arange(7.0), n=2)
    assert [title for title, _ in heaviest.panels] == ["image 7, weight 6", "image 6, weight 5"]
    assert "have 52 % of all weight" in heaviest.message
