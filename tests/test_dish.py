"""Dishes of any content: what comes back from files, and what changing an array changes."""

import dataclasses
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spd_fast.dish import Dish
from spd_fast.learnables.table import ADDED, LEARNABLES


@st.composite
def dishes(draw: st.DrawFn) -> Dish:
    """Any dish of few small images."""
    channels, height, width, classes = (draw(st.integers(1, most)) for most in (4, 3, 3, 4))
    dtype = np.dtype(draw(st.sampled_from(["float32", "float64"])))
    numbers = st.floats(-(2.0**100), 2.0**100, width=8 * dtype.itemsize, allow_subnormal=False)

    def some() -> tuple[Any, Any]:
        n = draw(st.integers(1, 4))
        images = draw(arrays.arrays(dtype, (n, channels, height, width), elements=numbers))
        soft = draw(st.booleans())
        labels = (
            arrays.arrays(dtype, (n, classes), elements=numbers)
            if soft
            else arrays.arrays(np.int64, n, elements=st.integers(0, classes - 1))
        )
        return images, draw(labels)

    held = dict(zip(("images", "labels"), some(), strict=True))
    if draw(st.booleans()):
        held |= dict(zip(("valid_images", "valid_labels"), some(), strict=True))
        if held["valid_labels"].ndim == 2 and draw(st.booleans()):
            n = len(held["valid_images"])
            held["image_weights"] = draw(arrays.arrays(np.float64, n, elements=st.floats(0.1, 10)))
    steps = draw(st.integers(1, 5))
    added = {
        "rates": arrays.arrays(np.float64, steps, elements=st.floats(0, 1e6)),
        "initial_scales": arrays.arrays(np.float64, 4, elements=st.floats(1e-6, 1e6)),
        "step_weights": arrays.arrays(np.float64, steps, elements=st.floats(0.1, 1e6)),
    }
    for name, values in added.items():
        if draw(st.booleans()):
            held[name] = draw(values)
    return Dish(**held)


def content(dish: Dish) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in dish.arrays().items()}


@settings(deadline=None)
@given(dishes())
def test_a_dish_comes_back_from_everything_it_is_written_to(dish: Dish) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dish.save(Path(folder) / "dish.npz")
        read = Dish.load(Path(folder) / "dish.npz")
    for again in (read, Dish.from_arrays(dish.arrays()), pickle.loads(pickle.dumps(dish)), dataclasses.replace(dish)):
        assert content(again) == content(dish)


@settings(deadline=None)
@given(dishes(), st.data())
def test_replace_changes_what_it_names_and_nothing_else(dish: Dish, data: st.DataObject) -> None:
    before = content(dish)
    name = data.draw(st.sampled_from(sorted(before)))
    values = getattr(dish, name)
    changed = dataclasses.replace(dish, **{name: values[::-1].copy()})
    assert np.array_equal(getattr(changed, name), values[::-1])
    assert {each: found for each, found in content(changed).items() if each != name} == {
        each: found for each, found in before.items() if each != name
    }
    assert content(dish) == before
    added = [each for each in ADDED if each in before]
    bare = dataclasses.replace(dish, **dict.fromkeys(added))
    assert list(content(bare)) == [each for each in LEARNABLES if each in before and each not in added]
