"""Recipes: what the paper says, round trips, and refusals."""

import json
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small
from spd_fast import recipes
from spd_fast.motif import MOTIF_A, MOTIF_B, MOTIF_C, MotifShape
from spd_fast.recipes.settings import AdamSettings, MotifSettings, Recipe, RMSPropSettings, SGDSettings, checked_recipe
from spd_fast.spaces.perceptron import PerceptronShape

PAPER = {
    "cassimon_a": (MOTIF_A, 100),
    "cassimon_b": (MOTIF_B, 100),
    "cassimon_c": (MOTIF_C, 100),
    "cassimon_a16": (MOTIF_A, 16),
    "cassimon_b16": (MOTIF_B, 16),
}


@pytest.mark.parametrize(("name", "shape", "epochs"), [(name, *rest) for name, rest in PAPER.items()])
def test_paper(name: str, shape: MotifShape, epochs: int) -> None:
    """Section 3.3 and 4 of Cassimon et al., number by number."""
    recipe = recipes.get(name)
    assert recipe.name == name
    assert recipe.shape == shape
    assert recipe.dish.model_dump() == {
        "images": 200,
        "classes": 10,
        "image_size": 16,
        "image_rows": None,
        "image_channels": 3,
        "labels": "classes",
        "start": "gaussian",
        "source": None,
        "valid_images": 0,
        "valid_start": "drawn",
        "basis": None,
        "generator": None,
    }
    assert (recipe.inner.epochs, recipe.inner.batch_size, recipe.inner.init) == (epochs, 20, "motif")
    assert recipe.inner.optimizer == AdamSettings(lr=5e-5, weight_decay=1e-6)
    assert (recipe.outer.epochs, recipe.outer.cells, recipe.outer.pool) == (170, 6, None)
    assert recipe.outer.optimizer == AdamSettings(lr=1e-2, weight_decay=0)
    assert (recipe.outer.metric, recipe.outer.loss, recipe.outer.gradient) == ("probability", "pearson_abs", "direct")


def test_names() -> None:
    assert set(recipes.names()) == {
        *PAPER,
        "curves",
        "demo",
        "valid_c",
        "learned_labels",
        "learned_weights",
        "learned_schedule",
        "rawal_slope",
    }


@pytest.mark.parametrize("name", recipes.names())
def test_json_round_trip(name: str) -> None:
    recipe = recipes.get(name)
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    "optimizer",
    [SGDSettings(name="sgd", lr=0.1, momentum=0.9, nesterov=True), RMSPropSettings(name="rmsprop", lr=0.2)],
)
def test_other_optimizers_round_trip(optimizer: SGDSettings | RMSPropSettings) -> None:
    recipe = recipes.get("demo").replace({"inner.optimizer": optimizer.model_dump()})
    assert recipe.inner.optimizer == optimizer
    assert Recipe.from_json(recipe.to_json()) == recipe


rates = st.floats(1e-9, 10)
decays = st.floats(0, 1, exclude_max=True)
optimizers = st.one_of(
    st.fixed_dictionaries({"name": st.just("adam"), "lr": rates, "betas": st.tuples(decays, decays)}),
    st.fixed_dictionaries({"name": st.just("sgd"), "lr": rates, "momentum": decays}),
    st.fixed_dictionaries({"name": st.just("rmsprop"), "lr": rates, "alpha": decays, "weight_decay": st.floats(0, 10)}),
)
changes = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**63 - 1),
        "dtype": st.sampled_from(["float32", "float64"]),
        "motif": st.builds(MotifSettings, stem_channels=st.integers(1, 1024), stacks=st.integers(1, 5)).map(
            MotifSettings.model_dump
        ),
        "dish.images": st.integers(10, 10_000).map(lambda n: 10 * n),
        "dish.image_size": st.integers(16, 64),
        "dish.image_channels": st.integers(1, 4),
        "inner.epochs": st.integers(1, 100_000),
        "inner.batch_size": st.integers(1, 100),
        "inner.optimizer": optimizers,
        "inner.schedule": st.sampled_from(["constant", "cosine"]),
        "inner.init": st.sampled_from(["motif", "shared"]),
        "inner.init_distribution": st.sampled_from(["pytorch", "nasbench101", "normal"]),
        "inner.initial_scales.dense": st.floats(1e-3, 100),
        "inner.replicates": st.integers(1, 1000),
        "inner.redraw": st.booleans(),
        "outer.epochs": st.integers(1, 1_000_000),
        "outer.cells": st.integers(3, 100_000),
        "outer.target": st.sampled_from(["plain", "rank", "winsorised"]),
        "outer.winsorise": st.floats(1e-3, 0.49),
        "outer.metric": st.sampled_from(["probability", "loss"]),
        "outer.loss": st.sampled_from(["pearson_abs", "mse_whitened", "listmle"]),
        "outer.ranking": st.sampled_from(["accuracy", "metric"]),
        "outer.optimizer.lr": rates,
        "outer.schedule": st.sampled_from(["constant", "cosine", "steps"]),
        "outer.clip": st.none() | st.floats(1e-3, 1e6),
        "outer.saturation": st.none() | st.floats(1e-3, 1),
        "outer.trust_every": st.integers(0, 1000),
    },
)
"""Changes of the recipe "demo" that fit each other."""
searched = st.fixed_dictionaries(
    {
        "outer.optimizer": st.fixed_dictionaries(
            {"name": st.just("cmaes"), "sigma": st.floats(1e-6, 10)},
            optional={"population": st.none() | st.integers(4, 10_000)},
        )
    },
    optional={"seed": st.integers(0, 2**63 - 1), "outer.epochs": st.integers(1, 1_000_000)},
)
"""Changes of "demo" that have it search by CMA-ES."""
of_perceptrons = st.fixed_dictionaries(
    {},
    optional={
        "motif": st.fixed_dictionaries({"hidden": st.integers(1, 65_536), "layers": st.integers(1, 64)}),
        "dish.images": st.integers(10, 10_000),
        "dish.image_size": st.integers(4, 64),
        "dish.image_rows": st.integers(1, 64),
        "inner.epochs": st.integers(1, 100_000),
        "inner.optimizer": optimizers,
        "outer.optimizer": st.fixed_dictionaries(
            {"name": st.just("adam"), "lr": rates},
            optional={"betas": st.tuples(decays, decays), "eps": st.floats(1e-12, 1)},
        ),
        "outer.window": st.none() | st.integers(1, 1000),
    },
)
"""Changes of the recipe "rawal_slope", whose motifs are perceptrons."""
begun = st.one_of(
    st.tuples(st.just(name), some)
    for name, some in (("demo", changes), ("demo", searched), ("rawal_slope", of_perceptrons))
)
"""A recipe to begin with, and changes of it."""


def explained(recipe: Recipe) -> dict[str, Any]:
    return {name: value for name, value, _ in recipe.explain()}


@settings(deadline=None)
@given(begun)
def test_every_recipe_comes_back_from_json(begun: tuple[str, dict[str, Any]]) -> None:
    name, changes = begun
    recipe = recipes.get(name).replace(changes)
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.to_json() == recipe.to_json()
    assert again.shape == recipe.shape


@settings(deadline=None)
@given(begun)
def test_replace_changes_what_it_names_and_nothing_else(begun: tuple[str, dict[str, Any]]) -> None:
    original, changes = recipes.get(begun[0]), begun[1]
    recipe = original.replace(changes)
    before, after = explained(original), explained(recipe)
    for name, value in changes.items():
        inside = value.items() if isinstance(value, dict) else [(None, value)]
        for key, expected in inside:
            assert after[name if key is None else f"{name}.{key}"] == expected
    untouched = [name for name in before if not any(f"{name}.".startswith(f"{changed}.") for changed in changes)]
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}
    assert original.replace(dict(reversed(changes.items()))) == recipe, "in any order"
    assert recipe.replace({}) == recipe
    assert recipe.replace(after) == recipe, "every setting under its own name"


@settings(deadline=None)
@given(st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=20))
def test_unknown_names_are_refused(name: str) -> None:
    demo = recipes.get("demo")
    fields = json.loads(demo.to_json())
    for group in ("", "dish.", "inner.", "outer.optimizer."):
        inside = fields
        for part in group.split(".")[:-1]:
            inside = inside[part]
        if name in inside:
            continue
        with pytest.raises(ValueError, match=f"{group}{name} is not a setting.*: expected one of"):
            demo.replace({group + name: 1})
        inside[name] = 1
        with pytest.raises(ValueError, match=f"{name} is not a setting"):
            Recipe.from_json(json.dumps(fields))
        del inside[name]
    with pytest.raises(ValueError, match=f"inner.epochs.{name} is not a setting"):
        demo.replace({f"inner.epochs.{name}": 1})


@pytest.mark.parametrize("name", recipes.names())
def test_a_boolean_is_no_number(name: str) -> None:
    recipe = recipes.get(name)
    numbers = [
        key
        for key, value in explained(recipe).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    assert len(numbers) > 20
    for key in numbers:
        with pytest.raises(ValueError, match=f"{key} is True: input should be a valid (integer|number)"):
            recipe.replace({key: True})


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("outer.epochs", np.int64(1), 1),
        ("outer.epochs", np.array(1), 1),
        ("seed", np.uint8(3), 3),
        ("inner.optimizer.lr", np.float32(0.5), 0.5),
        ("inner.optimizer.lr", np.array(0.5), 0.5),
        ("outer.learn", np.array(["images"]), ("images",)),
        ("outer.learn", [np.str_("images")], ("images",)),
        ("inner.redraw", np.True_, True),
        ("inner.optimizer", {"name": "adam", "lr": np.float64(0.5), "betas": np.array([0.5, 0.9])}, None),
    ],
    ids=repr,
)
def test_values_of_numpy_are_taken_as_plain_ones(name: str, value: Any, plain: Any) -> None:
    changed = small.RECIPE.replace({name: value})
    found = reduce(getattr, name.split("."), changed)
    if plain is None:
        assert isinstance(found, AdamSettings)
        assert (found.lr, found.betas) == (0.5, (0.5, 0.9))
    else:
        assert found == plain
        assert type(found) is type(plain)
    assert Recipe.from_json(changed.to_json()) == changed


@pytest.mark.parametrize("value", [np.float64(1), np.True_, "1", np.str_("1"), 1j, np.array([1])])
def test_what_is_no_integer_of_numpy(value: Any) -> None:
    with pytest.raises(ValueError, match=r"outer.epochs is .*: input should be a valid integer"):
        small.RECIPE.replace({"outer.epochs": value})


@pytest.mark.parametrize("value", [np.inf, np.nan, np.float32(np.inf), 1j, "0.1", True])
def test_what_is_no_rate(value: Any) -> None:
    with pytest.raises(ValueError, match=r"inner.optimizer.lr is .*: input should be"):
        small.RECIPE.replace({"inner.optimizer.lr": value})


def test_a_recipe_by_another_name_than_a_text() -> None:
    """`open` would read the file whose number was given."""
    for value in (1, True, None, ["demo"]):
        with pytest.raises(TypeError, match=r"name is .*, expected the name of a recipe"):
            recipes.get(value)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"name_or_path is .*, expected a name or a path"):
            recipes.load(value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the name of a setting is 1, expected a dotted name"):
        small.RECIPE.replace({1: 2})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="settings is None, expected a mapping of dotted names"):
        small.RECIPE.replace(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="text is None, expected the text that to_json returned"):
        Recipe.from_json(None)  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"recipe is 'curves', expected a spd_fast.Recipe, such as spd_fast.recipes.get\('curves'\)"
    ):
        checked_recipe("curves")


def test_every_setting_is_explained() -> None:
    rows = recipes.get("cassimon_c").explain()
    assert [name for name, _, meaning in rows if not meaning] == []
    assert ("inner.epochs", 100) in [(name, value) for name, value, _ in rows]


def test_motif_by_name_or_numbers() -> None:
    recipe = recipes.get("demo").replace({"motif": "B"})
    assert recipe.motif.name == "B"
    custom = recipe.replace({"motif": {"stem_channels": 7, "stacks": 2}})
    assert custom.motif.name == "7 channels, 2x1"
    assert custom.shape == MotifShape(7, 2, 1)


def test_the_original_method() -> None:
    """The settings of the released code of Rawal et al. 2020, number by number, but for the outer rate and steps, 0.05 and 80 there."""
    recipe = recipes.get("rawal_slope")
    assert recipe.motif.name == "1-1"
    assert recipe.shape == PerceptronShape(1, layers=2, classes=10, image_channels=1, loss="binary")
    dish, inner, outer = recipe.dish, recipe.inner, recipe.outer
    assert (dish.images, dish.image_rows, dish.image_size, dish.labels) == (10, 1, 10, "bits")
    assert (dish.valid_images, dish.valid_start) == (10, "copy")
    assert (inner.epochs, inner.batch_size, inner.optimizer) == (250, 10, AdamSettings(lr=0.01))
    assert (inner.init, inner.init_distribution, inner.redraw) == ("shared", "normal", False)
    assert (outer.epochs, outer.cells, outer.pool, outer.gradient) == (160, 18, 18, "unrolled")
    assert (outer.metric, outer.loss, outer.learn) == ("loss", "mse_whitened", ("images", "valid_images"))
    assert (outer.optimizer, outer.schedule) == (AdamSettings(lr=0.2, weight_decay=2e-5), "steps")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inner.epochs": 0}, "inner.epochs is 0: input should be greater than or equal to 1"),
        ({"inner.epochs": 2.5}, r"inner.epochs is 2.5: input should be a valid integer"),
        ({"inner.epochs": "7"}, "inner.epochs is '7': input should be a valid integer"),
        ({"inner.redraw": 1}, "inner.redraw is 1: input should be a valid boolean"),
        ({"seed": -1}, "seed is -1"),
        ({"dtype": "float16"}, "dtype is 'float16': input should be 'float32' or 'float64'"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"motif": "D"}, "unknown motif 'D', expected one of A, B, C"),
        ({"motif": {"stem_channels": 0}}, "motif.stem_channels is 0"),
        ({"dish.images": 201}, r"images is 201, expected a multiple of classes \(10\)"),
        ({"dish.image_size": 3}, "dish.image_size is 3"),
        ({"inner.batch_size": 300}, r"inner.batch_size is 300, expected at most dish.images \(100\)"),
        ({"motif": {"stem_channels": 4, "stacks": 6}}, "dish.image_size is 16, expected at least 32"),
        ({"outer.optimizer.lr": float("nan")}, "outer.optimizer.lr is nan: input should be a finite number"),
        ({"inner.optimizer.betas": [0.9]}, "inner.optimizer.betas"),
        ({"inner.optimizer": {"name": "sgd"}}, "inner.optimizer.lr is missing"),
        ({"inner.optimizer": {"name": "lion", "lr": 1}}, "'lion'"),
        ({"inner.optimizer": "sgd"}, "inner.optimizer is 'sgd', expected an object"),
        ({"inner.optimizer": {"name": "sgd", "lr": 0.1, "nesterov": True}}, "nesterov is set and momentum is 0"),
        ({"inner.optimizer": {"name": "sgd", "lr": 0.1, "eps": 1}}, "inner.optimizer.eps is not a setting"),
        ({"outer.loss": "rmse"}, "outer.loss is 'rmse': input should be 'pearson_abs'"),
        ({"outer.cells": 2}, "outer.cells is 2"),
        ({"dish.valid_images": 15}, r"valid_images is 15, expected a multiple of classes \(10\)"),
        ({"dish.start": "images"}, 'source is None, expected a path with start "images"'),
        ({"dish.source": "x.npz"}, "source is 'x.npz', expected None with start \"gaussian\""),
        (
            {"dish.valid_images": 200, "dish.valid_start": "copy"},
            r"valid_images is 200, expected at most images \(100\)",
        ),
        ({"dish.labels": "bits"}, 'dish.labels is "bits", expected "classes": motifs of cells'),
        ({"dish.image_rows": 3}, "dish.image_rows is 3, expected at least 4 for motifs of cells"),
        ({"dish.image_rows": 8, "dish.generator": 4}, "generator is 4, expected None with image_rows or labels"),
        ({"dish.image_rows": 8, "dish.basis": 4}, "basis is 4, expected None with image_rows"),
        (
            {"dish.start": "images", "dish.source": "x", "dish.image_rows": 8},
            'start "images" makes square images of one class each',
        ),
        ({"motif": {"hidden": 0}}, "motif.hidden is 0"),
        ({"motif": {"hidden": 3, "stacks": 2}}, "motif.stacks is not a setting"),
        ({"dish.basis": 17}, r"basis is 17, expected at most image_size \(16\)"),
        (
            {"outer.pool": 20, "outer.validation_cells": 9},
            r"pool is 20 with validation_cells 9, expected at least cells \(12\)",
        ),
        ({"dish.basis": 3, "dish.generator": 3}, "basis is 3 and generator 3, expected one of them or neither"),
        ({"dish.generator": 0}, "dish.generator is 0"),
        ({"outer.replicates": 2}, r"outer.replicates is 2, expected at most inner.replicates \(1\)"),
        (
            {"outer.step_weights": "ridge"},
            'step_weights is "ridge" and learn is .*, expected "step_weights" among them',
        ),
        ({"outer.validation_cells": 2}, "validation_cells is 2, expected 0 or at least 3"),
        ({"outer.patience": 5}, "patience is 5 and validation_cells is 0"),
        ({"outer.keep": "best"}, 'keep is "best" and validation_cells is 0'),
        ({"outer.window": 5}, 'window is 5, expected None with gradient "direct"'),
        ({"outer.metric_epochs": 2}, 'metric_epochs is 2, expected None with metric "loss"'),
        (
            {"outer.metric_epochs": 13, "outer.metric": "training_loss", "outer.gradient": "unrolled"},
            r"outer.metric_epochs is 13, expected at most inner.epochs \(12\)",
        ),
        (
            {"inner.split_images": True, "inner.replicates": 3},
            r"dish.images is 100, expected a multiple of dish.classes \(10\) times inner.replicates \(3\)",
        ),
        (
            {"inner.split_images": True, "inner.replicates": 10},
            r"inner.batch_size is 20, expected at most dish.images over inner.replicates \(10\)",
        ),
        ({"outer.learn": []}, r"outer.learn is \[\]"),
        ({"outer.learn": ["images", "images"]}, "learn is .'images', 'images'., expected each name once"),
        (
            {"outer.learn": ["weights"]},
            "outer.learn.0: learn holds 'weights', expected one of images, labels",
        ),
        (
            {"outer.metric": "training_loss"},
            'learn holds "images" with metric "training_loss", which the direct gradient',
        ),
        (
            {
                "outer.metric": "training_loss",
                "outer.gradient": "unrolled",
                "dish.valid_images": 10,
                "outer.learn": ["valid_images"],
            },
            'learn holds "valid_images", on which the metric "training_loss" does not depend',
        ),
        ({"outer.learn": ["initial_scales"]}, 'learn holds "initial_scales" with metric "loss", which the direct'),
        (
            {"outer.learn": ["step_weights"]},
            'learn holds "step_weights", on which the metric "loss" does not depend: use metric "training_loss"',
        ),
        (
            {"outer.learn": ["initial_scales"], "outer.gradient": "unrolled", "outer.window": 5},
            'learn holds "initial_scales" and window is 5, expected None',
        ),
        ({"inner.initial_scales.dense": 0.0}, "inner.initial_scales.dense is 0.0: input should be greater than 0"),
        ({"outer.learn": ["rates"]}, 'learn holds "rates" with metric "loss", which the direct gradient'),
        ({"outer.optimizer": {"name": "cmaes"}}, "outer.optimizer.sigma is missing"),
        ({"outer.optimizer": {"name": "cmaes", "sigma": 0.1, "population": 3}}, "outer.optimizer.population is 3"),
        (
            {"outer.optimizer": {"name": "cmaes", "sigma": 0.1}, "outer.clip": 2.0},
            'clip is 2.0, expected None with optimizer "cmaes", which has no gradient',
        ),
        (
            {"outer.optimizer": {"name": "cmaes", "sigma": 0.1}, "outer.learn": ["step_weights"]},
            'learn holds "step_weights", on which the metric "loss" does not depend: use metric "training_loss"',
        ),
        (
            {"outer.learn": ["labels"], "outer.metric": "probability"},
            'learn holds "labels" with metric "probability", which',
        ),
        ({"outer.learn": ["valid_images"]}, 'learn holds "valid_images" and dish.valid_images is 0'),
        ({"dish.valid_images": 10}, 'learn holds "images" with a validation set'),
        ({"outer.saturation": 0.0}, "outer.saturation is 0.0"),
        ({"outer.winsorise": 0.5}, "outer.winsorise is 0.5"),
        (
            {"inner.epoch": 3},
            r"inner.epoch is not a setting \(did you mean inner.epochs\?\): expected one of epochs, .* in place of epoch",
        ),
        (
            {"outher.epochs": 3},
            r"outher.epochs is not a setting \(did you mean outer.epochs\?\): expected one of name, .* in place of outher",
        ),
        ({"seed.low": 3}, "seed.low is not a setting"),
    ],
)
def test_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipes.get("demo").replace(changes)


def test_missing_and_unknown_fields() -> None:
    with pytest.raises(ValueError, match="recipe 'x': motif is missing"):
        Recipe(name="x")
    with pytest.raises(ValueError, match="colour is not a setting"):
        Recipe(name="x", motif="C", colour="red")


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        recipes.get("demo").seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "recipe is not JSON"),
        ("[1]", "recipe is a JSON list, expected an object"),
        ('{"name": "x"}', "recipe has schema None, expected 'spd_fast.recipe/2'"),
        ('{"schema": "spd_fast.recipe/2"}', "name is missing; motif is missing"),
    ],
)
def test_bad_json(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.from_json(text)
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=f"recipe file .*r.json: .*{message}"):
        recipes.load(str(tmp_path / "r.json"))


def test_load(tmp_path: Path) -> None:
    changed = recipes.get("demo").replace({"seed": 5})
    (tmp_path / "r.json").write_text(changed.to_json())
    assert recipes.load(str(tmp_path / "r.json")) == changed
    assert recipes.load("demo") == recipes.get("demo")
    with pytest.raises(ValueError, match="'nope' is neither a recipe nor a file, expected a path or one of demo"):
        recipes.load("nope")
    with pytest.raises(ValueError, match="cannot be read"):
        recipes.load(str(tmp_path))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read"):
        recipes.load(str(tmp_path / "binary.json"))


def test_get_unknown() -> None:
    with pytest.raises(ValueError, match="there is no recipe 'cassimon_d', expected one of demo"):
        recipes.get("cassimon_d")


def test_json_holds_every_number_of_the_motif() -> None:
    """A recipe file stays true when the named shapes change."""
    assert json.loads(recipes.get("cassimon_a").to_json())["motif"] == {
        "stem_channels": 32,
        "stacks": 1,
        "cells_per_stack": 3,
    }


@pytest.mark.parametrize("changes", [{"inner.initial_scales.dense": 2.0}, {"outer.learn": ["initial_scales"]}])
def test_a_perceptron_has_no_layers_of_cells(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="initial_scales are set or learned, expected motifs of cells"):
        recipes.get("rawal_slope").replace(changes)


def test_an_old_name_of_a_setting_is_told_the_new_one() -> None:
    """Nothing reads the old names; the error says which setting was meant, of a misspelt one too."""
    recipe = recipes.get("valid_c")
    with pytest.raises(ValueError, match=r"outer.kept_out is not a setting \(did you mean outer.validation_cells\?\)"):
        recipe.replace({"outer.kept_out": 5})
    with pytest.raises(
        ValueError, match=r"inner.initializer is not a setting \(did you mean inner.init_distribution\?\)"
    ):
        Recipe(name="x", motif="C", inner={"initializer": "normal"})
    with pytest.raises(ValueError, match=r"inner.epoch is not a setting \(did you mean inner.epochs\?\)"):
        recipe.replace({"inner.epoch": 5})
    old = recipe.to_json().replace("spd_fast.recipe/2", "spd_fast.recipe/1")
    with pytest.raises(
        ValueError, match=r"has schema 'spd_fast.recipe/1', expected .*: another version of spd_fast wrote it"
    ):
        Recipe.from_json(old)
