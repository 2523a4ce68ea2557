"""A page that opens offline: a verdict, cells as graphs, figures that can be hovered and zoomed, and tables that sort.

A page is one file. Its scripts are inline: Vega-Embed, which draws the figures, and a sorter of tables. A content security policy
names the digest of each, so that nothing else can run, whatever the data hold. Every figure is there as a static picture, too, for
print and for readers without scripts.
"""

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from spd_fast.base.files import atomic_write
from spd_fast.report.cells import Drawing

__all__ = ["Figure", "Made", "Page", "Picture", "Section", "Table", "Value", "figure_html", "static_svg"]

_START: Final = (
    "for (const each of document.querySelectorAll('script.chart'))"
    " vegaEmbed(each.previousElementSibling, JSON.parse(each.textContent))"
)
"""Hands every specification on the page to Vega-Embed, which is bundled with it. The options are in the specifications."""
_STATIC_WIDTH: Final = 560
"""Width in pixels of a figure where no script runs."""


@dataclass(frozen=True)
class Figure:
    """A chart.

    Attributes
    ----------
    name : str
        The name of its file, where one is written.
    message : str
        What the figure shows, with its numbers: a sentence for readers who do not see it.
    specification : dict
        A chart of Vega-Lite, but for its width.
    """

    name: str
    message: str
    specification: dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """Images as they are, side by side: (title, PNG) of each; `message` says what they show."""

    name: str
    message: str
    panels: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Value:
    """An entry of a table: its text, the number or text by which it is sorted, and a note under it."""

    text: str
    sort: float | str | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table. The first entry of a row is its head.

    Attributes
    ----------
    title : str
        What the table holds, for readers who do not see it.
    heads : sequence of str
    rows : sequence of sequence of Value or str
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Value | str]]


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading, sentences, and what they are about.

    Attributes
    ----------
    folded : bool
        Whether the reader opens it.
    verbatim : str
        A text that keeps its lines.
    """

    title: str
    notes: Sequence[str] = ()
    parts: Sequence[Figure | Picture | Table] = ()
    drawings: Sequence[Drawing] = ()
    verbatim: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Made:
    """What a report was made with, which every report states.

    Attributes
    ----------
    command : str
        The command line, or a sentence that says that it was made from Python.
    version, recipe, truth, machine : str
    """

    command: str
    version: str
    recipe: str
    truth: str
    machine: str = ""

    def rows(self) -> list[tuple[str, str]]:
        """Return (what, value) of everything that is known."""
        named = (
            ("command", self.command),
            ("version", f"spd_fast {self.version}"),
            ("recipe", self.recipe),
            ("truth", self.truth),
            ("machine", self.machine),
        )
        return [(name, value) for name, value in named if value]


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes
    ----------
    title, summary : str
    tiles : sequence of (str, str)
        The most important numbers, each with what it is.
    answers : sequence of (str, str)
        How good, how sure, what it cost, what to do next: each with sentences.
    warning : str
        What a reader must know before anything else.
    drawings : sequence of Drawing
        The best cells.
    drawn : str
        What these cells are.
    """

    title: str
    summary: str
    made: Made
    answers: Sequence[tuple[str, str]]
    tiles: Sequence[tuple[str, str]] = ()
    warning: str = ""
    drawn: str = ""
    drawings: Sequence[Drawing] = ()
    sections: Sequence[Section] = field(default_factory=tuple)

    def figures(self) -> list[Figure | Picture]:
        """Return all charts and pictures of the page."""
        return [part for section in self.sections for part in section.parts if not isinstance(part, Table)]

    def html(self) -> str:
        """Return the page as text."""
        scripts = (_chart_script(), _text("sortable.min.js"))
        text: str = (
            _environment()
            .get_template("page.html.j2")
            .render(page=self, scripts=scripts, policy=_policy(scripts), style=_text("style.css"))
        )
        return text

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page, as a whole or not at all, and return its path.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        with atomic_write(path) as file:
            file.write(self.html().encode())
        return Path(path)


def static_svg(figure: Figure) -> str:
    """Return a chart as SVG."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg({**figure.specification, "width": _STATIC_WIDTH})
    return svg


def figure_html(figure: Figure) -> dict[str, Any]:
    """Return what the template needs of a chart: its static picture, and its specification as JSON that can stand in a page."""
    options = {"ast": True, "renderer": "svg", "actions": False}
    live = {**figure.specification, "width": "container", "usermeta": {"embedOptions": options}}
    text = json.dumps(live, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return {"svg": static_svg(figure), "specification": text}


@cache
def _chart_script() -> str:
    import vl_convert

    script: str = vl_convert.javascript_bundle(_START)
    # a page would end the script at these words; in texts of JavaScript a backslash before such a character changes nothing
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(scripts: Sequence[str]) -> str:
    """Return a content security policy that allows these scripts and no others, and nothing from elsewhere."""
    digests = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts
    )
    return (
        f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _text(name: str) -> str:
    return (files("spd_fast.report") / name).read_text(encoding="utf-8")


def _environment() -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_text),
    )
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    environment.globals |= {"figure_html": figure_html, "value": _value, "kind": lambda part: type(part).__name__}
    return environment


def _value(entry: Value | str) -> Value:
    return entry if isinstance(entry, Value) else Value(entry)
