"""Recipes: every setting of a run, named, validated and serialisable."""

from spd_fast.recipes.known import get, load, names
from spd_fast.recipes.settings import (
    SCHEMA,
    AdamSettings,
    CMAESSettings,
    DishSettings,
    InnerSettings,
    MotifSettings,
    OuterSettings,
    PerceptronSettings,
    Recipe,
    RMSPropSettings,
    ScaleSettings,
    SGDSettings,
)

__all__ = [
    "SCHEMA",
    "AdamSettings",
    "CMAESSettings",
    "DishSettings",
    "InnerSettings",
    "MotifSettings",
    "OuterSettings",
    "PerceptronSettings",
    "RMSPropSettings",
    "Recipe",
    "SGDSettings",
    "ScaleSettings",
    "get",
    "load",
    "names",
]
