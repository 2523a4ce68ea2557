"""What all charts share: colours, axes and layers of Vega-Lite.

Colours are variables of the page's style, so that one chart is right on light, dark and printed pages. Where a chart stands alone,
as a file, the colour of light pages after the comma is taken.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "FAINT",
    "HEIGHT",
    "INK",
    "LINE",
    "RULE",
    "SECOND",
    "SERIES",
    "Points",
    "axis",
    "coloured",
    "layer",
    "rows_of",
    "single",
    "tip",
    "whole",
]

Points = Sequence[Mapping[str, Any]]
"""Records of one form: what a layer of a chart draws, one mark or one corner of a line each."""

INK, FAINT, RULE = (
    "var(--ink, #1d2430)",
    "var(--faint, #5b6676)",
    "var(--rule, #e6e9ef)",
)
LINE, SECOND = "var(--line, #1f5fd0)", "var(--second, #b5390b)"
SERIES: Final = (LINE, SECOND, "var(--high, #6a3fc4)", "var(--fourth, #18794e)", FAINT)
HEIGHT: Final = 270
_ZOOM: Final = {
    "name": "zoom",
    "select": {
        "type": "interval",
        # a finger scrolls the page, and so does the wheel without the alt key; with the shift key the wheel turns sideways
        "on": "[pointerdown[event.pointerType !== 'touch'], window:pointerup] > window:pointermove!",
        "translate": "[pointerdown[event.pointerType !== 'touch'], window:pointerup] > window:pointermove!",
        "zoom": "wheel![event.altKey]",
    },
    "bind": "scales",
}
_SCHEMA: Final = "https://vega.github.io/schema/vega-lite/v6.json"
_CONFIG: Final[dict[str, Any]] = {
    "background": "transparent",
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "gridColor": RULE,
        "domainColor": FAINT,
        "tickColor": FAINT,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 260,
        "labelOverlap": "parity",
        "tickCount": 8,
    },
    "legend": {
        "labelColor": INK,
        "labelFontSize": 12,
        "labelLimit": 260,
        "orient": "top",
        "direction": "vertical",
        "columns": 2,
        "layout": {"top": {"direction": "vertical", "anchor": "start"}},
        "symbolOpacity": 1,
    },
    "point": {"filled": True},
}


def rows_of(*, named: str | None = None, **columns: npt.NDArray[Any]) -> list[dict[str, Any]]:
    """Return columns as records, without those in which a number is not finite."""
    names = list(columns)
    found = []
    for values in zip(*(np.asarray(column, np.float64).tolist() for column in columns.values()), strict=True):
        if np.isfinite(values).all():
            found.append(dict(zip(names, values, strict=True)) | ({} if named is None else {"series": named}))
    return found


def single(layers: Sequence[Mapping[str, Any]], message: str, *, height: int = HEIGHT) -> dict[str, Any]:
    """Return one chart of some layers, but for its width."""
    size = {"autosize": {"type": "fit-x", "contains": "padding"}, "height": height}
    return whole({**size, "description": message, "layer": list(layers)})


def whole(view: Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification with the form and the style that all have."""
    return {"$schema": _SCHEMA, "config": _CONFIG, **view}


def layer(
    mark: Mapping[str, Any], encoding: Mapping[str, Any], points: Points, *, zoom: bool = False
) -> dict[str, Any]:
    """Return a layer: one mark for each point, or a line through them. One layer of a chart may let the reader move and zoom it."""
    found = {"mark": dict(mark), "encoding": dict(encoding), "data": {"values": [dict(point) for point in points]}}
    return {**found, "params": [_ZOOM]} if zoom else found


def axis(
    field: str,
    title: str,
    *,
    zero: bool = True,
    integers: bool = False,
    log: bool = False,
    domain: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Return the encoding of a number as a place on an axis."""
    scale: dict[str, Any] = {"type": "log"} if log else {"zero": zero, "nice": True}
    if domain is not None:
        scale = {"domain": list(domain)}
    whole_numbers = "datum.value % 1 ? '' : format(datum.value, 'd')"  # no tick between two of them has a number
    ticks: dict[str, Any] = {"labelExpr": whole_numbers} if integers else {"format": ".6~g"}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": ticks}


def coloured(names: Sequence[str], *, field: str = "series", colours: Sequence[str] = SERIES) -> dict[str, Any]:
    """Return the encoding of a name as a colour."""
    scale = {"domain": list(names), "range": [colours[i % len(colours)] for i in range(len(names))]}
    return {"field": field, "type": "nominal", "title": None, "scale": scale}


def tip(field: str, title: str | None = None) -> dict[str, Any]:
    """Return what is shown of a field under the mouse."""
    text = field in ("cell", "group", "series", "row")
    shown = {"field": field, "title": title or field}
    return {**shown, "type": "nominal"} if text else {**shown, "type": "quantitative", "format": ".4~g"}
