"""Recipes: all settings of a run under one name. They are checked when they are made, and can be written as JSON.

`get`, `load` and `names` find the recipes that come with the package; `spd_fast.recipes.settings` defines every setting.
"""

from spd_fast.recipes.known import get, load, names

__all__ = ["get", "load", "names"]
