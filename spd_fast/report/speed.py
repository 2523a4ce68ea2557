"""Figures of benches (`spd_fast.bench`), as PNG bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

__all__ = ["FIGURES", "draw", "hypergradient", "inner", "kernels", "peak", "profile", "proxies"]

MARKERS: Final = "os^Dv"
_DPI: Final = 144


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


def draw(record: dict[str, Any], theme: Theme = LIGHT) -> bytes:
    """Return the figure of the record of any bench."""
    return FIGURES[record["bench"]](record, theme)


def inner(record: dict[str, Any], theme: Theme) -> bytes:
    """Draw the time of an inner epoch over the FLOPs of the cells: a panel for each motif shape, a series for each contender."""

    def paint(figure: Figure) -> None:
        for axes, (letter, shape) in zip(_panels(figure, len(record["shapes"])), record["shapes"].items(), strict=True):
            _style(axes, theme)
            flop = [row["gflop_per_epoch"] for row in shape["cells"]]
            for i, name in enumerate(shape["mean_seconds_per_epoch"]):
                times = [np.median(row["seconds_per_epoch"][name]) * 1e3 for row in shape["cells"]]
                colour = theme.line if i == 0 else theme.second if i == 1 else theme.faint
                axes.plot(flop, times, MARKERS[i], color=colour, markersize=4.5, label=name)
            _logarithmic(axes, "GFLOP an epoch", f"motif {letter}: ms per inner epoch")
        _legend(figure.axes[0], theme, columns=2)

    return _render(paint, theme, (4.2 * len(record["shapes"]), 3.6))


def kernels(record: dict[str, Any], theme: Theme) -> bytes:
    """Draw the useful GFLOP/s of each pass of 3x3 and 1x1 convolutions over their channels, for each algorithm and for oneDNN.

    The dashed line is the FMA peak.
    """
    entries = record["convolutions"]
    sizes = sorted({entry["size"] for entry in entries}, reverse=True)
    sides = sorted({entry["side"] for entry in entries})

    names = list(dict.fromkeys(name for entry in entries for name in entry["seconds"]))
    rows = [(size, index, what) for size in sizes for index, what in enumerate(("forward", "dgrad", "wgrad"))]

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(rows), len(sides), squeeze=False, sharex=True, sharey="row")
        for panels, (size, index, what) in zip(grid, rows, strict=True):
            for axes, side in zip(panels, sides, strict=True):
                _style(axes, theme)
                for i, name in enumerate(names):
                    own = [
                        entry
                        for entry in entries
                        if (entry["size"], entry["side"]) == (size, side) and name in entry["seconds"]
                    ]
                    rates = [
                        entry["flop"] / min(taken[index] for taken in entry["seconds"][name]) / 1e9 for entry in own
                    ]
                    colour = theme.second if name == "oneDNN" else theme.line
                    channels = [entry["c_in"] for entry in own]
                    axes.plot(channels, rates, f"-{MARKERS[i]}", color=colour, markersize=3.5, linewidth=1, label=name)
                axes.axhline(record["fma_gflops"], color=theme.faint, linestyle="--", linewidth=1, label="FMA peak")
                axes.set_title(f"{size}x{size} {what} @{side}", fontsize=9, color=theme.ink)
                axes.set_xscale("log", base=2)
                axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panels[0].set_ylabel("GFLOP/s")
            panels[0].set_ylim(bottom=0)
        for axes in grid[-1]:
            axes.set_xlabel("channels")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False, labelcolor=theme.ink)

    return _render(paint, theme, (3.1 * len(sides), 2.1 * 3 * len(sizes)))


def profile(record: dict[str, Any], theme: Theme) -> bytes:
    """Draw the microseconds of each group of parts of a training step, the mean over the cells, with the limit of the core
    that the group comes nearer to."""
    groups = record["groups"][::-1]
    n = len(record["cells"])

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _style(axes, theme)
        times = [group["seconds"] / n * 1e6 for group in groups]
        colours = [
            theme.line if group["share_of_peak"] > group["share_of_l2_rate"] else theme.faint for group in groups
        ]
        axes.barh(range(len(groups)), times, color=colours, height=0.7)
        axes.set_yticks(range(len(groups)), [group["group"] for group in groups])
        for i, (group, taken) in enumerate(zip(groups, times, strict=True)):
            arithmetic, traffic = group["share_of_peak"], group["share_of_l2_rate"]
            nearer = f"{arithmetic:.2f} of the FMA peak" if arithmetic > traffic else f"{traffic:.2f} of L2's read rate"
            share = nearer if max(arithmetic, traffic) else ""
            axes.annotate(
                f" {share}",
                (taken, i),
                va="center",
                fontsize=8,
                color=theme.ink,
                xytext=(2, 0),
                textcoords="offset points",
            )
        axes.set_xlim(right=1.35 * max(times))
        axes.set_xlabel(f"microseconds in a training step, motif {record['shape']}, mean of {n} cells")

    return _render(paint, theme, (7.2, 0.6 + 0.27 * len(groups)))


def hypergradient(record: dict[str, Any], theme: Theme) -> bytes:
    """Draw, for each motif shape, the time of a reverse step over that of a training step, and the distribution of errors in
    float32."""
    shapes = record["shapes"]

    def paint(figure: Figure) -> None:
        time, error = _panels(figure, 2)
        for axes in (time, error):
            _style(axes, theme)
        for i, (letter, shape) in enumerate(shapes.items()):
            steps = [[1e3 * row[f"{name}_step"] for row in shape["cells"]] for name in ("training", "reverse")]
            time.plot(*steps, MARKERS[i], color=theme.line, markersize=4.5, label=f"motif {letter}")
            for name, colour in (("PyTorch", theme.second), ("spd_fast", theme.line)):
                errors = sorted(row[name]["relative_error"] for row in shape["accuracy"])
                share = (np.arange(len(errors)) + 0.5) / max(len(errors), 1)
                error.plot(errors, share, MARKERS[i], color=colour, markersize=3.5, label=f"{name}, {letter}")
        ends = np.array(time.get_xlim())
        time.plot(ends, 3.5 * ends, "--", color=theme.faint, linewidth=1, label="3.5 times")
        _logarithmic(time, "ms of a training step", "ms of a reverse step")
        error.set_xscale("log")
        error.set(xlabel="relative error in float32, 10 steps", ylabel="share of cells")
        for axes in (time, error):
            _legend(axes, theme, columns=2)

    return _render(paint, theme, (8.4, 3.9))


def proxies(record: dict[str, Any], theme: Theme) -> bytes:
    """Draw the milliseconds that the forward pass and each proxy take for a cell: a panel for each motif shape."""

    def paint(figure: Figure) -> None:
        for axes, (letter, rows) in zip(_panels(figure, len(record["shapes"])), record["shapes"].items(), strict=True):
            _style(axes, theme)
            for contender, marker, colour in (("spd_fast", "o", theme.line), ("PyTorch", "s", theme.second)):
                times = [np.median(row["seconds_per_cell"][contender]) * 1e3 for row in rows.values()]
                axes.plot(times, range(len(rows))[::-1], marker, color=colour, markersize=5, label=contender)
            axes.set_yticks(range(len(rows))[::-1], list(rows))
            axes.set_xscale("log")
            axes.set(xlabel="milliseconds a cell", title=f"motif {letter}")
        _legend(figure.axes[0], theme, columns=2)

    return _render(paint, theme, (3.4 * len(record["shapes"]), 2.6))


def peak(record: dict[str, Any], theme: Theme) -> bytes:
    """Draw the read rate over the size of the working set, with the sizes of the caches."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _style(axes, theme)
        sizes = [entry["bytes"] / 1024 for entry in record["read"]]
        axes.plot(
            sizes, [entry["gbytes_per_second"] for entry in record["read"]], "-o", color=theme.line, markersize=3.5
        )
        for name, size in record["caches"].items():
            axes.axvline(size / 1024, color=theme.faint, linestyle="--", linewidth=1)
            axes.annotate(
                name,
                (size / 1024, 1),
                xycoords=("data", "axes fraction"),
                fontsize=8,
                color=theme.ink,
                ha="right",
                va="top",
            )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda kib, _: f"{kib:.0f}" if kib < 1024 else f"{kib / 1024:.0f} Mi")
        )
        axes.set_ylim(bottom=0)
        axes.set(xlabel="working set, KiB", ylabel="GB/s read by one core")

    return _render(paint, theme, (7.2, 3.3))


def _panels(figure: Figure, n: int) -> list[Axes]:
    return list(figure.subplots(1, n, squeeze=False)[0])


def _logarithmic(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(plain)
        axis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=xlabel, ylabel=ylabel)


def _render(draw: Callable[[Figure], None], theme: Theme, size: tuple[float, float], *, dpi: int = _DPI) -> bytes:
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


FIGURES: Final[dict[str, Callable[[dict[str, Any], Theme], bytes]]] = {
    "inner": inner,
    "kernels": kernels,
    "profile": profile,
    "peak": peak,
    "hypergradient": hypergradient,
    "proxies": proxies,
}
"""The figure of each bench."""
