"""The command ``spd-fast recipes``, and the recipe that the options of other commands name."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from spd_fast.cli.apps import app
from spd_fast.cli.console import errors, out, table_of
from spd_fast.cli.options import Debug

if TYPE_CHECKING:
    from spd_fast.recipes.settings import Recipe


@app.command(
    epilog="Examples:\n\n  spd-fast recipes\n\n  spd-fast recipes cassimon_c\n\n  spd-fast recipes demo --json > mine.json"
)
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show all settings of this recipe.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the recipe as JSON, to edit it and pass it to run --recipe.")
    ] = False,
    debug: Debug = False,
) -> None:
    """List the recipes, or show every setting of one with its meaning."""
    with errors(debug):
        import spd_fast.recipes as known

        if name is None:
            rows = [{"recipe": each, "what it is": known.get(each).summary} for each in known.names()]
            out.print(table_of("", rows))
        elif as_json:
            print(known.load(name).to_json(), end="")
        else:
            from rich.padding import Padding

            for setting, value, meaning in known.load(name).explain():
                out.print(f"[bold]{setting}[/bold] = {escape(json.dumps(value))}")
                out.print(Padding(escape(meaning), (0, 0, 0, 4)), style="dim", soft_wrap=False)


# ---- run


def recipe_of(name: str, seed: int | None, settings: Sequence[str] | None) -> "Recipe":
    """Return the named recipe with the seed and the settings of the command line."""
    import spd_fast.recipes as known

    changes = changes_of(seed, settings)
    recipe = known.load(name)
    return recipe.replace(changes) if changes else recipe


def changes_of(seed: int | None, settings: Sequence[str] | None) -> dict[str, Any]:
    """Return the settings that the command line changes, by dotted name."""
    changes: dict[str, Any] = {}
    for setting in settings or []:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set is {setting!r}, expected NAME=VALUE such as inner.epochs=16")
        try:
            changes[name] = json.loads(text)
        except ValueError:
            changes[name] = text
    if seed is not None:
        changes["seed"] = seed
    return changes
