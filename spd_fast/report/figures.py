"""Figures of runs and scoreboards, as PNG bytes, for light and for dark pages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spd_fast.base.types import Array
from spd_fast.learnables.learnable import Picture
from spd_fast.outer.history import OuterEpoch, validation_checks
from spd_fast.report.summary import chance_tau_sd, mean_max_accuracy, moving_average

if TYPE_CHECKING:
    from spd_fast.scoreboard.rows import Row

__all__ = [
    "DARK",
    "LIGHT",
    "Theme",
    "accuracy",
    "agreement",
    "cost",
    "dish_images",
    "inner_curves",
    "kendall_tau",
    "learned_curves",
    "outer_loss",
    "trust",
]

DPI: Final = 144
MAX_CLASSES, MAX_PER_CLASS = 10, 20
TRUST_RANGE: Final = (-1.0, 3.0)
"""Trust ratios outside this range are drawn at its edge, because a ratio to a predicted change near 0 may have any size."""
GAP: Final = 2
"""Pixels between two images of a mosaic."""


@dataclass(frozen=True)
class Theme:
    """The colours of a page."""

    name: str
    page: str
    ink: str
    faint: str
    grid: str
    line: str
    second: str


LIGHT: Final = Theme("light", "#ffffff", "#1d2430", "#667085", "#e6e9ef", "#1f6feb", "#c2410c")
DARK: Final = Theme("dark", "#161b22", "#e6edf3", "#9aa7b5", "#2b333d", "#6cb0ff", "#ff9f5a")


def outer_loss(history: Sequence[OuterEpoch], theme: Theme) -> bytes:
    """Draw the outer loss of every outer epoch, with a moving average of 3."""
    losses = np.array([np.nan if record.loss is None else record.loss for record in history])

    def draw(axes: Axes) -> None:
        epochs = np.arange(len(history))
        axes.plot(epochs, losses, ".", color=theme.faint, markersize=3.5, alpha=0.6, label="one outer epoch")
        axes.plot(epochs, moving_average(losses), color=theme.line, linewidth=1.8, label="moving average of 3")
        axes.set(xlabel="outer epoch", ylabel="outer loss")
        axes.set_ylim(bottom=0)
        _legend(axes, theme)

    return _single(draw, theme)


def accuracy(history: Sequence[OuterEpoch], theme: Theme) -> bytes:
    """Draw the mean of the motifs' highest accuracies with one standard deviation, as moving averages of 3 (the paper's
    figure 2)."""
    means, spread = mean_max_accuracy(history)
    middle, half = moving_average(means), moving_average(spread)

    def draw(axes: Axes) -> None:
        epochs = np.arange(len(history))
        axes.fill_between(
            epochs, middle - half, middle + half, color=theme.line, alpha=0.18, linewidth=0, label="± 1 sd over motifs"
        )
        axes.plot(epochs, middle, color=theme.line, linewidth=1.8, label="mean of the motifs")
        axes.set(xlabel="outer epoch", ylabel="highest accuracy on the dish")
        axes.set_ylim(0, 1.03)
        _legend(axes, theme)

    return _single(draw, theme)


def kendall_tau(history: Sequence[OuterEpoch], theme: Theme) -> bytes:
    """Draw Kendall's tau of every outer epoch and its moving average of 3, with the spread by chance alone (the paper's
    figure 4)."""
    taus = np.array([record.kendall_tau for record in history])
    n = len(history[0].cells) if history else 2

    def draw(axes: Axes) -> None:
        epochs = np.arange(len(history))
        sd = chance_tau_sd(n)
        axes.axhspan(-sd, sd, color=theme.faint, alpha=0.13, linewidth=0, label="chance, ± 1 sd of one epoch")
        axes.axhline(0, color=theme.faint, linewidth=0.8)
        axes.plot(epochs, taus, ".", color=theme.faint, markersize=3.5, alpha=0.6, label="one outer epoch")
        axes.plot(epochs, moving_average(taus), color=theme.line, linewidth=1.8, label="moving average of 3")
        if len(taus):
            axes.axhline(taus.mean(), color=theme.second, linewidth=1.4, linestyle="--", label="mean of all epochs")
        checks = validation_checks(history)
        if checks:
            axes.plot(*np.transpose(checks), color=theme.ink, linewidth=1.8, label="validation cells")
        axes.set(xlabel="outer epoch", ylabel="Kendall's tau")
        axes.set_ylim(-1.05, 1.05)
        axes.set_yticks([-1, -0.5, 0, 0.5, 1])
        _legend(axes, theme, columns=2)

    return _single(draw, theme)


def trust(history: Sequence[OuterEpoch], theme: Theme) -> bytes:
    """Draw the trust ratio of the outer steps for which it was measured."""
    measured = [record for record in history if record.trust is not None]
    epochs = np.array([record.epoch for record in measured])
    ratios = np.array([record.trust for record in measured], np.float64)

    def draw(axes: Axes) -> None:
        axes.axhline(1, color=theme.faint, linewidth=0.8)
        axes.plot(epochs, np.clip(ratios, *TRUST_RANGE), ".", color=theme.line, markersize=4, label="one outer step")
        axes.set(xlabel="outer epoch", ylabel="actual / predicted", ylim=(TRUST_RANGE[0] - 0.1, TRUST_RANGE[1] + 0.1))
        _legend(axes, theme)

    return _single(draw, theme)


def learned_curves(
    start: Mapping[str, Array], dish: Mapping[str, Array], curves: Mapping[str, Picture], theme: Theme
) -> bytes:
    """Draw, before and after learning, the arrays of a dish that are curves: one number for every step, or for every image."""

    def draw(figure: Figure) -> None:
        for axes, (name, picture) in zip(
            figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
        ):
            before, after = start.get(name, dish[name]), dish[name]
            places = np.arange(1, len(after) + 1)
            _style(axes, theme)
            # scores have no unit, so step weights and image weights are compared in shape alone
            scales = [np.abs(values).max() if picture.relative else 1.0 for values in (before, after)]
            axes.step(
                places, before / scales[0], where="mid", color=theme.faint, linewidth=1.2, label="before learning"
            )
            axes.step(places, after / scales[1], where="mid", color=theme.line, linewidth=1.8, label="after learning")
            axes.set(xlabel=picture.axis, ylabel=picture.title + (", of the largest" if picture.relative else ""))
            _legend(axes, theme)

    return _render(draw, theme, (4.6 * len(curves), 2.9))


def inner_curves(history: Sequence[OuterEpoch], theme: Theme) -> bytes:
    """Draw the training accuracy over the inner epochs in the first, the middle and the last outer epoch (the paper's
    figure 3)."""
    chosen = sorted({0, len(history) // 2, len(history) - 1}) if history else []

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, max(len(chosen), 1), sharey=True, squeeze=False)[0]
        for axes, index in zip(panels, chosen, strict=False):
            record = history[index]
            mean, spread = np.array(record.curve_accuracy), np.array(record.curve_accuracy_sd)
            epochs = np.arange(1, len(mean) + 1)
            _style(axes, theme)
            axes.fill_between(epochs, mean - spread, mean + spread, color=theme.line, alpha=0.18, linewidth=0)
            axes.plot(epochs, mean, color=theme.line, linewidth=1.8)
            axes.set_title(f"outer epoch {record.epoch}", fontsize=10, color=theme.ink)
            axes.set(xlabel="inner epoch", ylim=(0, 1.03))
        panels[0].set_ylabel("training accuracy")

    return _render(draw, theme, (9.0, 2.9))


def dish_images(before: npt.NDArray[Any], after: npt.NDArray[Any], labels: npt.NDArray[Any], theme: Theme) -> bytes:
    """Draw the images by class, before and after learning, and the change between the two on a scale of its own.

    A row holds the images of one class; `labels` are the labels before learning.
    """
    reach = 3 * float(before.std()) or 1.0
    before, after = _mosaic(before, labels), _mosaic(after, labels)
    change = after - before
    largest = float(np.nanmax(np.abs(change)))
    panels = [
        ("before learning", before / (2 * reach) + 0.5),
        ("after learning", after / (2 * reach) + 0.5),
        ("change, brightened" if largest else "change: none", change / (2 * largest or 1.0) + 0.5),
    ]
    rows, columns = before.shape[:2]
    width = 9.0
    height = width / 3 * rows / columns + 0.3

    def draw(figure: Figure) -> None:
        for axes, (title, pixels) in zip(figure.subplots(1, 3), panels, strict=True):
            gaps = np.isnan(pixels).any(axis=2, keepdims=True)
            axes.imshow(np.where(gaps, to_rgb(theme.page), np.clip(pixels, 0, 1)), interpolation="nearest")
            axes.set_title(title, fontsize=10, color=theme.ink)
            axes.set_axis_off()

    return _render(draw, theme, (width, height), dpi=3 * DPI // 2)


KIND_MARKS: Final = {"structure": "s", "proxy": "v", "motif": "^", "dish": "D", "predictor": "o"}
"""Marks of the kinds of rows of a scoreboard."""


def agreement(rows: "Sequence[Row]", goals: Sequence[float], theme: Theme) -> bytes:
    """Draw Kendall's tau of every row of a scoreboard with its interval, and the goals as lines."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _style(axes, theme)
        axes.xaxis.set_major_locator(MaxNLocator(8))
        for goal in goals:
            axes.axvline(goal, color=theme.second, linewidth=1.0, linestyle="--")
        for place, row in enumerate(reversed(rows)):
            estimate = row.judged.estimate("tau")
            colour = theme.line if row.pool_size else theme.faint
            axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=1.6, alpha=0.6)
            axes.plot(estimate.mean, place, KIND_MARKS[row.kind], color=colour, markersize=6)
        names = [f"{row.name}, {row.pool_size} labelled cells" if row.pool_size else row.name for row in reversed(rows)]
        axes.set_yticks(range(len(rows)), names)
        axes.set(xlabel="Kendall's tau on test cells, 95 % interval", ylim=(-0.7, len(rows) - 0.3))

    return _render(draw, theme, (8.4, 1.0 + 0.27 * len(rows)))


def cost(rows: "Sequence[Row]", theme: Theme) -> bytes:
    """Draw Kendall's tau of every row of a scoreboard over the time of a query, as White et al. 2021 do (arXiv:2104.01177)."""

    def draw(axes: Axes) -> None:
        for kind, mark in KIND_MARKS.items():
            shown = [row for row in rows if row.kind == kind]
            axes.plot(
                [row.query_seconds for row in shown],
                [row.judged.means["tau"] for row in shown],
                mark,
                color=theme.line if any(row.pool_size for row in shown) else theme.faint,
                markersize=6,
                alpha=0.8,
                label=kind,
            )
        axes.set_xscale("log")
        axes.set(xlabel="seconds of one core for each cell", ylabel="Kendall's tau")
        _legend(axes, theme, columns=5)

    return _single(draw, theme)


def _mosaic(images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return images in one array, a row for each class, with gaps of NaN between images: shape (rows, columns, 3)."""
    labels = labels if labels.ndim == 1 else labels.argmax(axis=1)
    classes = np.unique(labels)[:MAX_CLASSES]
    members = [np.flatnonzero(labels == label)[:MAX_PER_CLASS] for label in classes]
    _, channels, height, width = images.shape
    columns = max(map(len, members))
    mosaic = np.full((len(classes) * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), np.nan)
    for row, indices in enumerate(members):
        for column, index in enumerate(indices):
            image = images[index].transpose(1, 2, 0)
            place = mosaic[row * (height + GAP) :, column * (width + GAP) :][:height, :width]
            place[:] = image if channels == 1 else 0
            if channels > 1:
                place[:, :, : min(channels, 3)] = image[:, :, :3]
    return mosaic


def _single(draw: Callable[[Axes], None], theme: Theme) -> bytes:
    def draw_figure(figure: Figure) -> None:
        axes = figure.subplots()
        _style(axes, theme)
        draw(axes)

    return _render(draw_figure, theme, (7.2, 3.3))


def _render(draw: Callable[[Figure], None], theme: Theme, size: tuple[float, float], *, dpi: int = DPI) -> bytes:
    """Draw a new figure, without pyplot's global state, and return it as PNG."""
    settings: Any = {"font.family": "sans-serif", "font.size": 9, "text.color": theme.ink}
    with rc_context(settings):
        figure = Figure(figsize=size, facecolor=theme.page, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": "spd_fast"})
    return buffer.getvalue()


def _style(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.page)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.grid)
    axes.tick_params(colors=theme.faint, labelcolor=theme.ink, length=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)


def _legend(axes: Axes, theme: Theme, *, columns: int = 3) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        frameon=False,
        labelcolor=theme.ink,
        fontsize=8.5,
        borderaxespad=0.2,
        handlelength=1.6,
    )
