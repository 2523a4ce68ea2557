"""Figures of benches (`spd_fast.bench`), as PNG bytes."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from spd_fast.report.vega import FAINT, INK, LINE, SECOND, axis, coloured, layer, whole

__all__ = ["FIGURES", "draw", "hypergradient", "inner", "kernels", "peak", "profile", "proxies", "score"]

_MARKS: Final = ("circle", "square", "triangle-up", "diamond", "triangle-down")
_SHOWN: Final = (LINE, SECOND, FAINT, FAINT, FAINT)
"""Colours of contenders: the engine's first, then the one that it is compared with."""


def draw(record: dict[str, Any]) -> bytes:
    """Return the figure of the record of any bench."""
    import vl_convert

    text = json.dumps(whole({**FIGURES[record["bench"]](record), "background": "white"}))
    # a picture of pixels has no style: of each variable its colour on light pages is taken
    png: bytes = vl_convert.vegalite_to_png(re.sub(r"var\(--\w+, (#\w+)\)", r"\1", text), scale=2)
    return png


def inner(record: dict[str, Any]) -> dict[str, Any]:
    """Draw the time of an inner epoch over the FLOPs of the cells: a panel for each motif shape, a series for each contender."""
    panels = []
    for letter, shape in record["shapes"].items():
        names = list(shape["mean_seconds_per_epoch"])
        points = [
            {"x": row["gflop_per_epoch"], "y": float(np.median(row["seconds_per_epoch"][name])) * 1e3, "series": name}
            for row in shape["cells"]
            for name in names
        ]
        encoding = {
            "x": axis("x", "GFLOP an epoch", log=True),
            "y": axis("y", f"motif {letter}: ms per inner epoch", log=True),
            **_contenders(names),
        }
        panels.append(_panel([layer({"type": "point", "opacity": 1}, encoding, points)], 300, 260))
    return _beside(panels)


def kernels(record: dict[str, Any]) -> dict[str, Any]:
    """Draw the useful GFLOP/s of each pass of 3x3 and 1x1 convolutions over their channels, for each algorithm and for oneDNN.

    The dashed line is the FMA peak.
    """
    entries = record["convolutions"]
    sides = sorted({entry["side"] for entry in entries})
    names = list(dict.fromkeys(name for entry in entries for name in entry["seconds"]))
    colours = [SECOND if name == "oneDNN" else LINE for name in names]
    rows = []
    for size in sorted({entry["size"] for entry in entries}, reverse=True):
        for index, what in enumerate(("forward", "dgrad", "wgrad")):
            panels = []
            for side in sides:
                points = [
                    {
                        "x": entry["c_in"],
                        "y": entry["flop"] / min(taken[index] for taken in entry["seconds"][name]) / 1e9,
                        "series": name,
                    }
                    for entry in entries
                    if (entry["size"], entry["side"]) == (size, side)
                    for name in entry["seconds"]
                ]
                x = axis("x", "channels", log=True)
                encoding = {"x": x, "y": axis("y", "GFLOP/s"), **_contenders(names, colours=colours)}
                line = {"type": "line", "strokeWidth": 1, "point": {"size": 16}}
                top = layer(
                    {"type": "rule", "color": FAINT, "strokeDash": [5, 4]},
                    {"y": axis("y", "GFLOP/s")},
                    [{"y": record["fma_gflops"]}],
                )
                title = f"{size}x{size} {what} @{side}"
                panels.append(_panel([layer(line, encoding, points), top], 200, 130, title))
            rows.append(_beside(panels))
    return {"vconcat": rows}


def profile(record: dict[str, Any]) -> dict[str, Any]:
    """Draw the microseconds of each group of parts of a training step, the mean over the cells, with the limit of the core
    that the group comes nearer to."""
    n = len(record["cells"])
    points = []
    for group in record["groups"]:
        arithmetic, traffic = group["share_of_peak"], group["share_of_l2_rate"]
        nearer = f"{arithmetic:.2f} of the FMA peak" if arithmetic > traffic else f"{traffic:.2f} of L2's read rate"
        points.append(
            {
                "group": group["group"],
                "x": group["seconds"] / n * 1e6,
                "text": nearer if max(arithmetic, traffic) else "",
                "series": "arithmetic" if arithmetic > traffic else "memory",
            }
        )
    title = f"microseconds in a training step, motif {record['shape']}, mean of {n} cells"
    x = axis("x", title)
    x["scale"] = {"domain": [0, 1.35 * max(point["x"] for point in points)]}
    y = _names("group", [point["group"] for point in points])
    colour = {**coloured(["arithmetic", "memory"], colours=(LINE, FAINT)), "legend": None}
    bars = layer({"type": "bar", "height": {"band": 0.7}}, {"x": x, "y": y, "color": colour}, points)
    words = {"type": "text", "align": "left", "dx": 4, "color": INK}
    text = layer(words, {"x": x, "y": y, "text": {"field": "text"}}, points)
    return _panel([bars, text], 560, 26 * len(points))


def hypergradient(record: dict[str, Any]) -> dict[str, Any]:
    """Draw, for each motif shape, the time of a reverse step over that of a training step, and the distribution of errors in
    float32, if these were measured."""
    steps, errors = [], []
    for letter, shape in record["shapes"].items():
        steps += [
            {"x": 1e3 * row["training_step"], "y": 1e3 * row["reverse_step"], "series": f"motif {letter}"}
            for row in shape["cells"]
        ]
        for name in ("PyTorch", "spd_fast"):
            found = sorted(row[name]["relative_error"] for row in shape["accuracy"])
            errors += [
                {"x": error, "y": (place + 0.5) / len(found), "series": f"{name}, {letter}"}
                for place, error in enumerate(found)
            ]
    x, y = axis("x", "ms of a training step", log=True), axis("y", "ms of a reverse step; dashed: 3.5 times", log=True)
    ends = [extreme(point["x"] for point in steps) for extreme in (min, max)]
    dots = {"type": "point", "opacity": 1}
    names = list(dict.fromkeys(point["series"] for point in steps))
    times = [
        layer(dots, {"x": x, "y": y, **_contenders(names, colours=(LINE,))}, steps),
        layer(
            {"type": "line", "strokeDash": [5, 4], "color": FAINT},
            {"x": x, "y": y},
            [{"x": end, "y": 3.5 * end} for end in ends],
        ),
    ]
    drawn = list(dict.fromkeys(point["series"] for point in errors))
    encoding = {
        "x": axis("x", "relative error in float32, 10 steps", log=True),
        "y": axis("y", "share of cells"),
        **_contenders(drawn, colours=[SECOND if name.startswith("PyTorch") else LINE for name in drawn]),
    }
    panels = [_panel(times, 300, 280), *([_panel([layer(dots, encoding, errors)], 300, 280)] if errors else [])]
    return {**_beside(panels), "resolve": {"scale": {"color": "independent", "shape": "independent"}}}


def proxies(record: dict[str, Any]) -> dict[str, Any]:
    """Draw the milliseconds that the forward pass and each proxy take for a cell: a panel for each motif shape."""
    panels = []
    for letter, rows in record["shapes"].items():
        points = [
            {"row": name, "x": float(np.median(row["seconds_per_cell"][contender])) * 1e3, "series": contender}
            for contender in ("spd_fast", "PyTorch")
            for name, row in rows.items()
        ]
        encoding = {
            "x": axis("x", "milliseconds a cell", log=True),
            "y": _names("row", list(rows)),
            **_contenders(["spd_fast", "PyTorch"]),
        }
        mark = {"type": "point", "opacity": 1, "size": 50}
        panels.append(_panel([layer(mark, encoding, points)], 220, 26 * len(rows), f"motif {letter}"))
    return _beside(panels)


def score(record: dict[str, Any]) -> dict[str, Any]:
    """Draw the milliseconds of a cell's score by its parts, and beside it PyTorch's proxies of the same cells."""
    parts = [{"row": name, "x": seconds * 1e3} for name, seconds in record["parts"].items()]
    whole = {"row": "score", "x": float(np.median(record["seconds_per_cell"])) * 1e3, "series": "spd_fast"}
    peers = [
        {"row": name, "x": float(np.median(row["seconds_per_cell"])) * 1e3, "series": "PyTorch"}
        for name, row in record["proxies"].items()
    ]
    panels = []
    for points, names in ((parts, None), ([whole, *peers], ["spd_fast", "PyTorch"])):
        colour = {"color": coloured(names)} if names else {"color": {"value": LINE}}
        encoding = {"x": axis("x", "milliseconds a cell"), "y": _names("row", [p["row"] for p in points]), **colour}
        bars = layer({"type": "bar", "height": {"band": 0.7}}, encoding, points)
        panels.append(_panel([bars], 260, 26 * len(points), "" if names else f"recipe {record['recipe']}"))
    return _beside(panels)


def peak(record: dict[str, Any]) -> dict[str, Any]:
    """Draw the read rate over the size of the working set, with the sizes of the caches."""
    rates = [{"x": entry["bytes"] / 1024, "y": entry["gbytes_per_second"]} for entry in record["read"]]
    caches = [{"x": size / 1024, "name": name} for name, size in record["caches"].items()]
    x = axis("x", "working set, KiB", log=True)
    y = axis("y", "GB/s read by one core")
    line = {"type": "line", "color": LINE, "point": {"color": LINE, "size": 16}}
    words = {"type": "text", "align": "right", "baseline": "top", "dx": -3, "color": INK}
    layers = [
        layer(line, {"x": x, "y": y}, rates),
        layer({"type": "rule", "color": FAINT, "strokeDash": [5, 4]}, {"x": x}, caches),
        layer(words, {"x": x, "y": {"value": 0}, "text": {"field": "name"}}, caches),
    ]
    return _panel(layers, 560, 240)


def _panel(layers: Sequence[Mapping[str, Any]], width: int, height: int, title: str = "") -> dict[str, Any]:
    named = {"title": {"text": title, "fontSize": 12, "fontWeight": "normal", "color": INK}} if title else {}
    return {"width": width, "height": height, "layer": list(layers), **named}


def _beside(panels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"hconcat": list(panels)}


def _contenders(names: Sequence[str], *, colours: Sequence[str] = _SHOWN) -> dict[str, Any]:
    """Return the encodings that tell series apart: by colour and by mark."""
    marks = {"domain": list(names), "range": [_MARKS[i % len(_MARKS)] for i in range(len(names))]}
    shape = {"field": "series", "type": "nominal", "title": None, "scale": marks}
    return {"color": coloured(names, colours=colours), "shape": shape}


def _names(field: str, names: Sequence[str]) -> dict[str, Any]:
    return {"field": field, "type": "nominal", "sort": list(names), "title": None}


FIGURES: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "inner": inner,
    "kernels": kernels,
    "profile": profile,
    "peak": peak,
    "hypergradient": hypergradient,
    "proxies": proxies,
    "score": score,
}
"""The figure of each bench."""
