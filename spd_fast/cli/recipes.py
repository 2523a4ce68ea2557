"""The command ``spd-fast recipes``, and the recipe that the options of other commands name."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from spd_fast.cli.apps import app
from spd_fast.cli.commands import Result
from spd_fast.cli.console import out, table_of
from spd_fast.cli.options import recipe_names

if TYPE_CHECKING:
    from spd_fast.recipes.settings import Recipe


@app.command(
    examples=(
        "spd-fast recipes",
        "spd-fast recipes cassimon_c",
        "spd-fast recipes demo --json > mine.json",
    )
)
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Show all settings of this recipe.", autocompletion=recipe_names),
    ] = None,
) -> Result:
    """List the recipes, or show every setting of one with its meaning.

    With --json a recipe is printed as a file that --recipe of other commands takes.
    """
    import spd_fast.recipes as known

    if name is None:
        rows = [{"recipe": each, "summary": known.get(each).summary} for each in known.names()]
        out.print(table_of("", rows))
        return Result(rows)
    from rich.padding import Padding

    recipe = known.load(name)
    for setting, value, meaning in recipe.explain():
        out.print(f"[bold]{setting}[/bold] = {escape(json.dumps(value))}")
        out.print(Padding(escape(meaning), (0, 0, 0, 4)), style="dim", soft_wrap=False)
    return Result(json.loads(recipe.to_json()))


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
