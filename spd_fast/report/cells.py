"""Cells drawn as graphs: where vertices and edges lie in an SVG. The template draws them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from spd_fast.spaces.candidate import Candidate
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.nats_cell import EDGES, NatsCell

__all__ = ["Drawing", "draw_cell"]

_BOX: Final = (88, 24)
"""Width and height of a vertex."""
_GAP: Final = {Cell: 46, NatsCell: 62}
"""Distance between the middles of two vertices."""
_REACH: Final = {Cell: (19, 9), NatsCell: (14, 48)}
"""How far an edge swings out that passes by one vertex, and how much farther for each further one. Names need room in between."""
_LETTER: Final = 6.2
"""Width of a letter, about."""
_OPS: Final = {
    "conv3x3-bn-relu": ("3x3 conv", "strong"),
    "conv1x1-bn-relu": ("1x1 conv", "second"),
    "maxpool3x3": ("3x3 max-pool", "plain"),
    "nor_conv_3x3": ("3x3 conv", "strong"),
    "nor_conv_1x1": ("1x1 conv", "second"),
    "avg_pool_3x3": ("3x3 avg-pool", "plain"),
    "skip_connect": ("skip", "plain"),
}
"""Words and class of each operation."""


class Vertex(NamedTuple):
    """A box with a text: the middle, the size, and the class by which it is coloured."""

    x: float
    y: float
    width: float
    height: float
    text: str
    kind: str


class Edge(NamedTuple):
    """A path, the triangle at its end, and a text with its place, the side on which it begins there, and its class."""

    path: str
    tip: str
    text: str
    x: float
    y: float
    anchor: str
    kind: str


@dataclass(frozen=True)
class Drawing:
    """A cell as a graph, from top to bottom.

    Attributes
    ----------
    title : str
        The line above it.
    facts : str
        The line under it.
    meaning : str
        The graph in words.
    left, width, height : float
        The part of the plane that it takes, which begins at (left, 0).
    """

    title: str
    facts: str
    meaning: str
    left: float
    width: float
    height: float
    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]


def draw_cell(cell: Candidate, title: str, facts: str = "") -> Drawing | None:
    """Draw a cell of NAS-Bench-101 or of NATS-Bench; return None for other candidates.

    Vertices stand one under the other in the order of the graph. Edges to the next vertex are straight, others swing out, to the
    left and to the right by turns, and farther the more vertices they pass by.
    """
    if isinstance(cell, Cell):
        names = [("input", "end"), *(_OPS[op] for op in cell.ops[1:-1]), ("output", "end")]
        links = [(int(a), int(b), ("", "plain")) for a, b in zip(*cell.matrix.nonzero(), strict=True)]
        width, height = _BOX
        words = "; ".join(
            f"{_called(names, b)} from {' and '.join(_called(names, a) for a, to, _ in links if to == b)}"
            for b in range(1, len(names))
        )
    elif isinstance(cell, NatsCell):
        names = [("in", "end"), ("1", "end"), ("2", "end"), ("out", "end")]
        links = [(a, b, _OPS[op]) for (a, b), op in zip(EDGES, cell.ops, strict=True) if op != "none"]
        width, height = 34, _BOX[1]
        words = "; ".join(f"{op} from {names[a][0]} to {names[b][0]}" for a, b, (op, _) in links) or "no edge"
    else:
        return None
    gap = _GAP[type(cell)]
    places = [height / 2 + 2 + gap * k for k in range(len(names))]
    vertices = tuple(Vertex(0, y, width, height, text, kind) for (text, kind), y in zip(names, places, strict=True))
    edges = tuple(_edges(links, places, width, height, _REACH[type(cell)]))
    left, right = (max([width / 2, *(_extent(edge, side) for edge in edges)]) + 3 for side in (-1, 1))
    return Drawing(title, facts, words, -left, left + right, places[-1] + height / 2 + 2, vertices, edges)


def _called(names: list[tuple[str, str]], vertex: int) -> str:
    inner = 0 < vertex < len(names) - 1
    return f"{vertex} ({names[vertex][0]})" if inner else names[vertex][0]


def _extent(edge: Edge, side: int) -> float:
    """Return how far an edge and its text go to the left (-1) or to the right (1)."""
    before, after = {"start": (0, 1), "middle": (0.5, 0.5), "end": (1, 0)}[edge.anchor]
    return side * edge.x + len(edge.text) * _LETTER * (after if side > 0 else before)


def _edges(
    links: list[tuple[int, int, tuple[str, str]]],
    places: list[float],
    width: float,
    height: float,
    reach: tuple[float, float],
) -> Iterator[Edge]:
    side = -1
    for a, b, (text, kind) in sorted(links, key=lambda link: (link[1] - link[0], link[0])):
        top, bottom = places[a], places[b]
        if b == a + 1:
            end = bottom - height / 2
            path = f"M0 {top + height / 2:g}V{end - 5:g}"
            yield Edge(path, f"0,{end:g} -4,{end - 7:g} 4,{end - 7:g}", text, 0, (top + bottom) / 2 + 2, "middle", kind)
            continue
        side = -side
        edge = side * width / 2
        out = edge + side * (reach[0] + reach[1] * (b - a - 2))
        # a little under and above the middle, so that edges into and out of one vertex do not meet
        top, bottom = top + 4, bottom - 4
        path = (
            f"M{edge:g} {top:g}C{out:g} {top:g} {out:g} {top:g} {out:g} {(top + bottom) / 2:g}"
            f"S{out:g} {bottom:g} {edge + side * 5:g} {bottom:g}"
        )
        tip = f"{edge:g},{bottom:g} {edge + side * 7:g},{bottom - 4:g} {edge + side * 7:g},{bottom + 4:g}"
        anchor = "start" if side > 0 else "end"
        yield Edge(path, tip, text, out + side * 3, (top + bottom) / 2 + 4, anchor, kind)
