"""What all pages share: templates, style, and figures for light and dark pages."""

import base64
from collections.abc import Callable, Mapping
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

from spd_fast.report import figures

__all__ = ["embedded", "in_themes", "template"]


def template(name: str, **filters: Callable[..., str]) -> Template:
    """Return a template of this folder, which may use these filters."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda file: (files("spd_fast.report") / file).read_text(encoding="utf-8")),
    )
    environment.filters |= filters
    return environment.get_template(name)


def in_themes(draw: Callable[[figures.Theme], bytes]) -> dict[str, bytes]:
    """Draw a figure once for light and once for dark pages; return the PNGs by the theme's name."""
    return {theme.name: draw(theme) for theme in (figures.LIGHT, figures.DARK)}


def embedded(pictures: Mapping[str, Mapping[str, bytes]]) -> dict[str, dict[str, str]]:
    """Return figures in base64, in which form pages hold them."""
    return {
        name: {theme: base64.b64encode(png).decode() for theme, png in themes.items()}
        for name, themes in pictures.items()
    }
