"""The charts of reports, as specifications of Vega-Lite, and pictures of dishes."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.extras import required
from spd_fast.base.types import Array
from spd_fast.learnables.learnable import Picture as Drawn
from spd_fast.outer.history import OuterEpoch, validation_checks
from spd_fast.report.page import Figure, Picture
from spd_fast.report.summary import chance_tau_sd, mean_max_accuracy, moving_average
from spd_fast.report.vega import (
    FAINT,
    HEIGHT,
    LINE,
    SECOND,
    SERIES,
    Points,
    axis,
    coloured,
    layer,
    rows_of,
    single,
    tip,
)

if TYPE_CHECKING:
    from spd_fast.scoreboard.rows import Row

__all__ = [
    "GROUPS",
    "accuracy",
    "agreement",
    "best_intervals",
    "cost",
    "dish_images",
    "dish_labels",
    "groups_of",
    "heaviest_images",
    "inner_curves",
    "kendall_tau",
    "laid_over",
    "learned_curve",
    "learning_curves",
    "outer_loss",
    "score_and_truth",
    "trust",
    "validation",
]

GROUPS: Final = ("ranked first to tenth", "rest of the first tenth", "rest of the better half", "worse half")
"""Groups of ranks, the best first."""
_GROUP_COLOURS: Final = (SECOND, "var(--high, #6a3fc4)", LINE, "var(--low, #8a94a3)")
MOST_POINTS: Final = 1000
"""Cells that a chart draws at most, so that pages stay small."""
MAX_CLASSES, MAX_PER_CLASS = 10, 20
TRUST_RANGE: Final = (-1.0, 3.0)
"""Trust ratios outside this range are drawn at its edge, because a ratio to a predicted change near 0 may have any size."""
_IMAGE_GAP: Final = 2
"""Pixels between two images of a mosaic."""
_BLOCK: Final = 3
"""Pixels of a number in a picture of labels, in each direction."""


# ---- cells


def groups_of(ranks: npt.NDArray[np.int64], n: int) -> list[str]:
    """Return the group of each rank, counted from 0, among n cells."""
    ends = (10, max(10, n // 10), max(10, n // 2))
    return [GROUPS[sum(rank >= end for end in ends)] for rank in ranks.tolist()]


def score_and_truth(points: Points, axes: tuple[str, str], message: str, *, diagonal: bool = False) -> Figure:
    """Draw what cells were expected to reach and what they reached.

    Parameters
    ----------
    points : sequence of {"cell", "x", "y"}, and "group" if they are coloured by it
    axes : (str, str)
        Titles of the two.
    message : str
    diagonal : bool
        Whether both have one unit; then the line on which they are equal is drawn.
    """
    coloured = bool(points) and "group" in points[0]
    tips = [tip("cell"), tip("x", axes[0]), tip("y", axes[1])]
    encoding = {
        "x": axis("x", axes[0], zero=False),
        "y": axis("y", axes[1], zero=False),
        "tooltip": [*tips, tip("group", "rank")] if coloured else tips,
    }
    if coloured:
        encoding |= {"color": _groups(), "shape": _shapes()}
    layers = [layer({"type": "point", "size": 34, "opacity": 0.75, "color": LINE}, encoding, points, zoom=True)]
    if diagonal and points:
        ends = [min(point[name] for point in points for name in "xy"), max(p[name] for p in points for name in "xy")]
        line = {"type": "line", "color": FAINT, "strokeDash": [4, 4], "strokeWidth": 1}
        along = {"x": axis("x", axes[0], zero=False), "y": axis("y", axes[1], zero=False)}
        layers.insert(0, layer(line, along, [{"x": end, "y": end} for end in ends]))
    return _chart("predicted_and_true", message, layers)


def learning_curves(points: Points, message: str) -> Figure:
    """Draw the learning curves of motifs, coloured by rank: points of {"cell", "x", "y", "group"}."""
    encoding = {
        "x": axis("x", "part of the training", integers=True, zero=False),
        "y": axis("y", "training loss", log=True),
        "detail": {"field": "cell"},
        "color": _groups(),
        "tooltip": [tip("cell"), tip("group", "rank"), tip("x", "part"), tip("y", "loss")],
    }
    mark = {"type": "line", "strokeWidth": 1.4, "opacity": 0.7}
    return _chart("learning_curves", message, [layer(mark, encoding, points, zoom=True)])


def best_intervals(points: Points, what: str, message: str) -> Figure:
    """Draw predictions with their intervals over the rank: points of {"cell", "rank", "y", "low", "high"}."""
    tips = [tip("cell"), tip("rank"), tip("y", f"predicted {what}"), tip("low"), tip("high")]
    x = axis("rank", "rank", integers=True, zero=False)
    ends = {"x": x, "y": axis("low", f"{what}, 90 % interval", zero=False), "y2": {"field": "high"}, "tooltip": tips}
    middle = {"x": x, "y": axis("y", f"{what}, 90 % interval", zero=False), "tooltip": tips}
    layers = [
        layer({"type": "rule", "color": LINE, "strokeWidth": 2, "opacity": 0.6}, ends, points),
        layer({"type": "point", "color": LINE, "size": 40, "opacity": 1}, middle, points, zoom=True),
    ]
    return _chart("best_intervals", message, layers)


# ---- runs


def outer_loss(history: Sequence[OuterEpoch], message: str) -> Figure:
    """Draw the outer loss of every outer epoch, with a moving average of 3."""
    losses = np.array([np.nan if record.loss is None else record.loss for record in history])
    return _over_epochs("outer_loss", "outer loss", message, {"one outer epoch": losses}, averaged=True)


def accuracy(history: Sequence[OuterEpoch], message: str) -> Figure:
    """Draw the mean of the motifs' highest accuracies with one standard deviation, as moving averages of 3 (the paper's
    figure 2)."""
    means, spread = mean_max_accuracy(history)
    middle, half = moving_average(means), moving_average(spread)
    band = rows_of(x=np.arange(len(history)), low=middle - half, high=middle + half)
    return _over_epochs(
        "accuracy", "highest accuracy on the dish", message, {"mean of the motifs": middle}, band=band, domain=[0, 1]
    )


def kendall_tau(history: Sequence[OuterEpoch], message: str) -> Figure:
    """Draw Kendall's tau of every outer epoch and its moving average of 3, with the spread by chance alone (the paper's
    figure 4)."""
    taus = np.array([record.kendall_tau for record in history])
    sd = chance_tau_sd(len(history[0].cells)) if history else 1.0
    everywhere = np.arange(len(history))
    band = rows_of(x=everywhere, low=np.full(len(taus), -sd), high=np.full(len(taus), sd))
    checks = validation_checks(history)
    return _over_epochs(
        "kendall_tau",
        "Kendall's tau",
        message,
        {"one outer epoch": taus},
        averaged=True,
        band=band,
        checks=[{"x": done, "y": tau, "series": "validation cells"} for done, tau in checks],
        domain=[-1, 1],
    )


def trust(history: Sequence[OuterEpoch], message: str) -> Figure:
    """Draw the trust ratio of the outer steps for which it was measured."""
    ratios = np.array([np.nan if record.trust is None else record.trust for record in history], np.float64)
    clipped = np.clip(ratios, *TRUST_RANGE)
    return _over_epochs("trust", "actual over predicted change", message, {"one outer step": clipped})


def inner_curves(history: Sequence[OuterEpoch], message: str) -> Figure:
    """Draw the training accuracy over the inner epochs in the first, the middle and the last outer epoch (the paper's
    figure 3)."""
    chosen = sorted({0, len(history) // 2, len(history) - 1}) if history else []
    points: list[dict[str, Any]] = []
    for record in (history[index] for index in chosen):
        mean, spread = np.array(record.curve_accuracy), np.array(record.curve_accuracy_sd)
        name = f"outer epoch {record.epoch}"
        points += rows_of(x=np.arange(1, len(mean) + 1), y=mean, low=mean - spread, high=mean + spread, named=name)
    encoding = {
        "x": axis("x", "inner epoch", integers=True, zero=False),
        "y": axis("y", "training accuracy", domain=[0, 1]),
        "color": coloured([f"outer epoch {history[index].epoch}" for index in chosen]),
        "tooltip": [tip("series", "of"), tip("x", "inner epoch"), tip("y", "accuracy")],
    }
    band = {**encoding, "y": axis("low", "training accuracy", domain=[0, 1]), "y2": {"field": "high"}}
    layers = [
        layer({"type": "area", "opacity": 0.12}, band, points),
        layer({"type": "line", "strokeWidth": 2, "point": {"size": 14}}, encoding, points, zoom=True),
    ]
    return _chart("inner_curves", message, layers)


def learned_curve(name: str, before: Array, after: Array, drawn: Drawn, message: str) -> Figure:
    """Draw, before and after learning, an array of a dish that is a curve: one number for every step, or for every image."""
    # scores have no unit, so step weights and image weights are compared in shape alone
    scales = [float(np.abs(values).max()) or 1.0 if drawn.relative else 1.0 for values in (before, after)]
    places = np.arange(1, len(after) + 1)
    title = drawn.title + (", of the largest" if drawn.relative else "")
    points = [
        *rows_of(x=places, y=before / scales[0], named="before learning"),
        *rows_of(x=places, y=after / scales[1], named="after learning"),
    ]
    encoding = {
        "x": axis("x", drawn.axis, integers=True, zero=False),
        "y": axis("y", title),
        "color": coloured(["before learning", "after learning"], colours=(FAINT, LINE)),
        "tooltip": [tip("series", "state"), tip("x", drawn.axis), tip("y", title)],
    }
    mark = {"type": "line", "interpolate": "step", "strokeWidth": 1.8, "point": {"size": 12}}
    return _chart(name, message, [layer(mark, encoding, points, zoom=True)])


def laid_over(name: str, title: str, series: Mapping[str, npt.ArrayLike], message: str) -> Figure:
    """Draw the moving average of a number of every outer epoch of several runs, laid over each other."""
    averages = {each: moving_average(values) for each, values in series.items()}
    return _over_epochs(name, title, message, averages)


def validation(checks: Mapping[str, Sequence[tuple[int, float]]], message: str) -> Figure:
    """Draw Kendall's tau on the validation cells of several runs: (outer epochs done, tau) of every check."""
    points = [{"x": done, "y": tau, "series": name} for name, each in checks.items() for done, tau in each]
    encoding = {
        "x": axis("x", "outer epochs done", integers=True, zero=False),
        "y": axis("y", "Kendall's tau", zero=False),
        "color": coloured(list(checks)),
        "tooltip": [tip("series", "run"), tip("x", "outer epochs done"), tip("y", "tau")],
    }
    mark = {"type": "line", "strokeWidth": 2, "point": {"size": 24}}
    return _chart("validation_tau", message, [layer(mark, encoding, points, zoom=True)])


def dish_images(
    name: str, before: npt.NDArray[Any], after: npt.NDArray[Any] | None, labels: npt.NDArray[Any], message: str
) -> Picture:
    """Draw the images by class, before and after learning, and the change between the two on a scale of its own.

    A row holds the images of one class; `labels` are the labels before learning. Without `after`, for images that were not learned, they
    are drawn once.
    """
    reach = 3 * float(before.std()) or 1.0
    first = _mosaic(before, labels)
    if after is None:
        return Picture(name, message, (("not learned", _png(first / (2 * reach) + 0.5)),))
    return Picture(name, message, _before_and_after(first, _mosaic(after, labels), reach))


def dish_labels(name: str, before: npt.NDArray[Any], after: npt.NDArray[Any], message: str) -> Picture:
    """Draw the labels of images, before and after learning, and the change between the two on a scale of its own.

    A row holds the weights of one class, a column the label of one image; `before` and `after` have shape (N, classes).
    """
    chosen = np.concatenate(_by_class(before))
    reach = float(max(np.abs(before[chosen]).max(), np.abs(after[chosen]).max())) or 1.0
    first, last = (np.repeat(_blocks(values[chosen].T)[:, :, None], 3, axis=2) for values in (before, after))
    return Picture(name, message, _before_and_after(first, last, reach))


def _before_and_after(
    first: npt.NDArray[np.float64], last: npt.NDArray[np.float64], reach: float
) -> tuple[tuple[str, bytes], ...]:
    """Return pictures of values up to `reach`, before and after learning, and of the change; 0 is grey."""
    change = last - first
    largest = float(np.nanmax(np.abs(change)))
    return (
        ("before learning", _png(first / (2 * reach) + 0.5)),
        ("after learning", _png(last / (2 * reach) + 0.5)),
        ("change, brightened" if largest else "change: none", _png(change / (2 * largest or 1.0) + 0.5)),
    )


def heaviest_images(images: npt.NDArray[Any], weights: Array, n: int = 8) -> Picture:
    """Draw the images whose weights are farthest from 0, each with its weight."""
    rows = np.argsort(-np.abs(weights), kind="stable")[:n]
    reach = 3 * float(images.std()) or 1.0
    one = np.zeros(1, np.int64)
    panels = tuple(
        (f"image {row + 1}, weight {weights[row]:.3g}", _png(_mosaic(images[row : row + 1] / (2 * reach) + 0.5, one)))
        for row in rows.tolist()
    )
    share = float(np.abs(weights[rows]).sum() / (np.abs(weights).sum() or 1.0))
    message = (
        f"The {len(rows)} of {len(weights)} validation images that weigh most have {100 * share:.0f} % of all weight."
    )
    return Picture("image_weights_most", message, panels)


# ---- scoreboards

KIND_MARKS: Final = {
    "structure": "square",
    "proxy": "triangle-down",
    "motif": "triangle-up",
    "dish": "diamond",
    "predictor": "circle",
}
"""Marks of the kinds of rows of a scoreboard."""
_KIND_WORDS: Final = {
    "structure": "structure alone",
    "proxy": "zero-cost proxy",
    "motif": "motifs on unlearned images",
    "dish": "the dish alone",
    "predictor": "predictor",
}


def agreement(rows: "Sequence[Row]", message: str) -> Figure:
    """Draw Kendall's tau of every row of a scoreboard with its interval."""
    points = [_of_row(row) for row in rows]
    names = list(dict.fromkeys(point["row"] for point in points))
    y = {"field": "row", "type": "nominal", "sort": names, "title": None, "axis": {"grid": False, "labelLimit": 230}}
    tips = [tip("row"), tip("tau", "Kendall's tau"), tip("low"), tip("high"), tip("rho", "Spearman's rho")]
    title = "Kendall's tau on test cells, 95 % interval"
    colour = coloured(["no labels", "learned from labelled cells"], field="learned", colours=(FAINT, LINE))
    across = axis("low", title, zero=False)
    across["axis"] |= {"tickCount": 5}  # so few that each has its number
    ends = {"x": across, "x2": {"field": "high"}, "y": y, "color": colour, "tooltip": tips}
    middle = {"x": {**across, "field": "tau"}, "y": y, "color": colour, "shape": _kinds(), "tooltip": tips}
    layers = [
        layer({"type": "rule", "strokeWidth": 2, "opacity": 0.6}, ends, points),
        layer({"type": "point", "size": 60, "opacity": 1}, middle, points),
    ]
    chart = single(layers, message, height=40 + 21 * len(names))
    # names of rows are long, and in the reader's font they may be longer than in the one that the chart was measured with
    return Figure("agreement", message, chart | {"padding": {"left": 40, "top": 5, "right": 5, "bottom": 5}})


def cost(rows: "Sequence[Row]", message: str) -> Figure:
    """Draw Kendall's tau of every row of a scoreboard over the time of a query, as White et al. 2021 do (arXiv:2104.01177)."""
    points = [_of_row(row) for row in rows]
    encoding = {
        "x": axis("seconds", "seconds of one core for each cell", zero=False, log=True),
        "y": axis("tau", "Kendall's tau", zero=False),
        "color": coloured(["no labels", "learned from labelled cells"], field="learned", colours=(FAINT, LINE)),
        "shape": _kinds(),
        "tooltip": [tip("row"), tip("tau", "Kendall's tau"), tip("seconds", "seconds of a query")],
    }
    mark = {"type": "point", "size": 70, "opacity": 0.9}
    return _chart("cost", message, [layer(mark, encoding, [p for p in points if p["seconds"] > 0], zoom=True)])


def _of_row(row: "Row") -> dict[str, Any]:
    tau = row.judged.estimate("tau")
    return {
        "row": f"{row.name}, {row.pool_size} labelled" if row.pool_size else row.name,
        "kind": _KIND_WORDS[row.kind],
        "learned": "learned from labelled cells" if row.pool_size else "no labels",
        "tau": tau.mean,
        "low": tau.low,
        "high": tau.high,
        "rho": row.judged.means["rho"],
        "seconds": row.query_seconds,
    }


def _kinds() -> dict[str, Any]:
    scale = {"domain": list(_KIND_WORDS.values()), "range": [KIND_MARKS[kind] for kind in _KIND_WORDS]}
    return {"field": "kind", "type": "nominal", "title": None, "scale": scale}


# ---- shared


def _over_epochs(
    name: str,
    title: str,
    message: str,
    series: Mapping[str, npt.NDArray[Any]],
    *,
    averaged: bool = False,
    band: Points = (),
    checks: Points = (),
    domain: Sequence[float] | None = None,
) -> Figure:
    """Draw numbers of outer epochs: as lines, or as dots with a line through their moving average."""
    points = [
        point
        for each, values in series.items()
        for point in rows_of(x=np.arange(len(values)), y=np.asarray(values, np.float64), named=each)
    ]
    average = [
        point
        for values in series.values()
        for point in rows_of(x=np.arange(len(values)), y=moving_average(values), named="moving average of 3")
        if averaged
    ]
    names = list(dict.fromkeys(point["series"] for point in [*points, *average, *checks]))
    colours = (FAINT, LINE, SECOND) if averaged else SERIES
    encoding = {
        "x": axis("x", "outer epoch", integers=True, zero=False),
        "y": axis("y", title, domain=domain, zero=domain is None),
        "color": coloured(names, colours=colours),
        "tooltip": [tip("series", "line"), tip("x", "outer epoch"), tip("y", title)],
    }
    dots = {"type": "point", "size": 20, "opacity": 0.75}
    line = {"type": "line", "strokeWidth": 2, "point": {"size": 12}}
    layers = [layer(dots if averaged else line, encoding, points, zoom=True)]
    if average or checks:
        layers.append(layer({"type": "line", "strokeWidth": 2}, encoding, [*average, *checks]))
    if band:
        y = axis("low", title, domain=domain, zero=domain is None)
        area = {"x": encoding["x"], "y": y, "y2": {"field": "high"}}
        layers.insert(0, layer({"type": "area", "color": FAINT, "opacity": 0.15}, area, band))
    return _chart(name, message, layers)


def _chart(name: str, message: str, layers: Sequence[Mapping[str, Any]], *, height: int = HEIGHT) -> Figure:
    return Figure(name, message, single(layers, message, height=height))


def _groups() -> dict[str, Any]:
    return coloured(GROUPS, field="group", colours=_GROUP_COLOURS)


def _shapes() -> dict[str, Any]:
    scale = {"domain": list(GROUPS), "range": ["diamond", "triangle-up", "circle", "square"]}
    return {"field": "group", "type": "nominal", "title": None, "scale": scale}


def _mosaic(images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return images in one array, a row for each class, with gaps of NaN between images: shape (rows, columns, 3)."""
    members = _by_class(labels)
    _, channels, height, width = images.shape
    gap = _IMAGE_GAP
    columns = max(map(len, members))
    mosaic = np.full((len(members) * (height + gap) - gap, columns * (width + gap) - gap, 3), np.nan)
    for row, indices in enumerate(members):
        for column, index in enumerate(indices):
            image = images[index].transpose(1, 2, 0)
            place = mosaic[row * (height + gap) :, column * (width + gap) :][:height, :width]
            place[:] = image if channels == 1 else 0
            if channels > 1:
                place[:, :, : min(channels, 3)] = image[:, :, :3]
    return mosaic


def _by_class(labels: npt.NDArray[Any]) -> list[npt.NDArray[np.int64]]:
    """Return the images of each class that are drawn."""
    labels = labels if labels.ndim == 1 else labels.argmax(axis=1)
    classes = np.unique(labels)[:MAX_CLASSES]
    return [np.flatnonzero(labels == label)[:MAX_PER_CLASS] for label in classes]


def _blocks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return a matrix each of whose numbers is a block of pixels."""
    return np.asarray(values, np.float64).repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)


def _png(pixels: npt.NDArray[np.float64]) -> bytes:
    """Return a mosaic as PNG, three pixels wide for each of its own; gaps are transparent."""
    picture = required("PIL.Image", "the report of a dish")
    gaps: npt.NDArray[np.bool_] = np.asarray(np.isnan(pixels).any(axis=2))
    colours = np.where(gaps[:, :, None], 0.0, np.clip(np.nan_to_num(pixels), 0, 1))
    image = np.concatenate([np.rint(255 * colours), np.where(gaps, 0, 255)[:, :, None]], axis=2).astype(np.uint8)
    buffer = BytesIO()
    picture.fromarray(image.repeat(3, axis=0).repeat(3, axis=1)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
