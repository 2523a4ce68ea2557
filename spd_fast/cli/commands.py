"""What all commands have in common: their options --quiet, --json and --debug, their examples, errors and exit codes, and the
record of a command that is written beside its results."""

import inspect
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperGroup

from spd_fast.cli.console import command_typed, errors, note, out
from spd_fast.cli.options import Debug, Json, Quiet

__all__ = ["COMMAND_SCHEMA", "Commands", "Result", "command_file"]

COMMAND_SCHEMA = "spd_fast.command/1"
PANELS = {
    "Rank cells": ("rank", "predictor", "demo"),
    "Learn dishes and judge them": (
        "run",
        "watch",
        "report",
        "score",
        "dish-search",
        "train",
        "supernet",
        "recipes",
        "reproduce",
    ),
    "Data": ("truth", "nasbench"),
    "This machine": ("info", "bench"),
}
"""The commands by what people want from them, in the order of `spd-fast --help`."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Result:
    """What a command found.

    Attributes
    ----------
    record : object that JSON can hold
        What --json prints. Numbers that are not finite become null.
    wrote : Path, optional
        The file or the folder of the results. What was run is recorded beside the file, or in the folder.
    settings : mapping
        What the options led to that is not among them, such as the whole recipe.
    """

    record: Any
    wrote: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


class Ordered(TyperGroup):
    """A group that lists its commands in the order of `PANELS`."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = [name for panel in PANELS.values() for name in panel]
        return sorted(super().list_commands(ctx), key=lambda name: names.index(name) if name in names else len(names))


class Commands(typer.Typer):
    """A group of commands. All of them have --quiet and --debug, and those that return a `Result` have --json.

    `panels` are the headings under which the help lists commands, each with their names.
    """

    def __init__(self, *, panels: Mapping[str, Sequence[str]] | None = None, **settings: Any) -> None:
        super().__init__(no_args_is_help=True, **settings)
        self._panel_of = {name: panel for panel, names in (panels or {}).items() for name in names}

    def command(
        self, name: str | None = None, *, examples: Sequence[str] = (), continues: bool = False, **settings: Any
    ) -> Callable[[_Function], _Function]:
        """Add a command, as `typer.Typer.command` does.

        Parameters
        ----------
        examples : sequence of str
            Commands that the help shows.
        continues : bool
            Whether the same command continues after Ctrl-C. Then it is printed.
        """
        if examples:
            settings["epilog"] = "Examples:\n\n" + "\n\n".join(f"  {each}" for each in examples)

        def add(function: _Function) -> _Function:
            settings.setdefault("help", _unwrapped(inspect.getdoc(function) or ""))
            settings.setdefault("rich_help_panel", self._panel_of.get(name or function.__name__))
            super(Commands, self).command(name, **settings)(_with_shared_options(function, continues))
            return function

        return add

    def add_group(self, name: str, **settings: Any) -> "Commands":
        """Add a group of commands, with the arguments of `typer.Typer`, and return it."""
        group = Commands(**settings)
        self.add_typer(group, name=name, rich_help_panel=self._panel_of.get(name))
        return group


def _unwrapped(text: str) -> str:
    """Return a text with each paragraph in one line. Typer breaks lines where a docstring does."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def command_file(wrote: Path) -> Path:
    """Return the file in which the command is recorded that wrote a file or a folder."""
    return wrote / "command.json" if wrote.is_dir() else wrote.with_name(f"{wrote.name}.command.json")


def _with_shared_options(function: Callable[..., Any], continues: bool) -> Callable[..., None]:
    """Return a function with the options that all commands share, which does what these ask for."""
    asked = inspect.signature(function)
    shared: dict[str, Any] = {"quiet": Quiet, "as_json": Json, "debug": Debug}
    if asked.return_annotation is not Result:
        del shared["as_json"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("context", keyword, annotation=typer.Context),
        *(
            inspect.Parameter(name, keyword, default=False, annotation=kind)
            for name, kind in shared.items()
            if name not in asked.parameters
        ),
    ]

    @wraps(function)
    def run(context: typer.Context, quiet: bool, debug: bool, as_json: bool = False, **given: Any) -> None:
        began = time.monotonic()
        if "debug" in asked.parameters:
            given["debug"] = debug
        with errors(debug, again=continues):
            with _silenced(results=as_json, notes=quiet):
                result = function(**given)
            if isinstance(result, Result) and result.wrote is not None:
                _record_command(context, result, time.monotonic() - began)
            if as_json:
                out.out(json.dumps(plain(result.record), indent=2))

    parameters = [each.replace(kind=keyword) for each in asked.parameters.values()]
    run.__signature__ = asked.replace(parameters=[*parameters, *added], return_annotation=None)  # type: ignore[attr-defined]
    return run


@contextmanager
def _silenced(*, results: bool, notes: bool) -> Iterator[None]:
    before = out.quiet, note.quiet
    out.quiet, note.quiet = results, notes
    try:
        yield
    finally:
        out.quiet, note.quiet = before


def _record_command(context: typer.Context, result: Result, seconds: float) -> None:
    """Write beside the results what was run: the command, every option, version and machine."""
    from datetime import UTC, datetime

    from spd_fast.base.files import atomic_write
    from spd_fast.base.machine import describe_machine

    assert result.wrote is not None
    shared = {"quiet", "as_json", "debug", "help"}
    record = {
        "schema": COMMAND_SCHEMA,
        "command": command_typed(),
        "folder": Path.cwd(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "options": {
            max(parameter.opts, key=len): context.params.get(parameter.name)
            for parameter in context.command.params
            if parameter.name not in shared and parameter.name in context.params
        },
        **result.settings,
        "machine": describe_machine(),
    }
    with atomic_write(command_file(result.wrote)) as file:
        file.write((json.dumps(plain(record), indent=2) + "\n").encode())


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: numbers of numpy as those of Python, those that are not finite as None, paths as texts."""
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
