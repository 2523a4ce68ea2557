"""The settings of an inner loop and its optimizers as records: what they are equal to, what they refuse."""

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spd_fast.engine.hypergradient import Reverse
from spd_fast.engine.inner_loop import InnerLoop
from spd_fast.engine.optimizers import SGD, Adam, RMSProp
from spd_fast.motif import MotifShape
from spd_fast.spaces.perceptron import Perceptron, PerceptronShape

positive = st.floats(0, 1e6)
shares = st.floats(0, 1, exclude_max=True)
OPTIMIZERS = {
    Adam: {"lr": positive, "betas": st.tuples(shares, shares), "eps": positive, "weight_decay": positive},
    SGD: {"lr": positive, "momentum": positive, "nesterov": st.booleans(), "weight_decay": positive},
    RMSProp: {
        "lr": positive,
        "alpha": st.floats(0, 1),
        "eps": positive,
        "momentum": positive,
        "weight_decay": positive,
    },
}
optimizers = st.one_of(st.builds(kind, **numbers) for kind, numbers in OPTIMIZERS.items())
integers = st.integers(0, 2**63 - 1)
written = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(0, 7),
        "batch_size": st.integers(1, 30),
        "optimizer": st.none() | optimizers,
        "schedule": st.sampled_from([None, "cosine"]),
        "seed": integers,
        "replicate": integers,
        "init": st.sampled_from(["shared", "motif"]),
        "init_distribution": st.sampled_from(["pytorch", "nasbench101", "normal"]),
        "initial_scales": st.none() | st.lists(st.floats(1e-3, 1e3), min_size=4, max_size=4),
        "order": st.none() | st.lists(st.permutations(range(5)), max_size=3),
        "drop_last": st.booleans(),
        "dtype": st.sampled_from(["float32", "float64", np.float64]),
        "direct_convolutions": st.booleans(),
        "statistics": st.sampled_from(["batch", "running"]),
        "batch_norm_momentum": st.floats(0, 1),
        "evaluate": st.booleans(),
        "record": st.lists(st.sampled_from(["step_loss", "step_accuracy"]), unique=True),
    },
)
"""Settings of an inner loop as people write them."""


@given(optimizers, st.data())
def test_an_optimizer_is_its_numbers(one: Any, data: st.DataObject) -> None:
    """A truth in work belongs to the text of its optimizer: it must be that of any equal one, and of no other."""
    kind, numbers = type(one), dataclasses.asdict(one)
    other = data.draw(st.builds(kind, **OPTIMIZERS[kind]))
    for same in (
        kind(**numbers),
        pickle.loads(pickle.dumps(one)),
        dataclasses.replace(other, **numbers),
        eval(repr(one)),
    ):
        assert (same, hash(same), repr(same)) == (one, hash(one), repr(one))
    assert (repr(other) == repr(one)) == (other == one)
    name = data.draw(st.sampled_from(sorted(numbers)))
    changed = dataclasses.replace(one, **{name: getattr(other, name)})
    assert dataclasses.asdict(changed) == numbers | {name: getattr(other, name)}


def content(loop: InnerLoop) -> dict[str, Any]:
    """Every setting, arrays with their dtype as text."""
    fields = {field.name: getattr(loop, field.name) for field in dataclasses.fields(loop)}
    return {
        name: (value.dtype, value.tolist()) if isinstance(value, np.ndarray) else value
        for name, value in fields.items()
    }


@settings(deadline=None)
@given(written, written, st.sampled_from([int, np.int64, np.uint64]))
def test_an_inner_loop_is_its_settings(one: dict[str, Any], other: dict[str, Any], kind: Any) -> None:
    loop = InnerLoop.of(**one)
    fields = {field.name: getattr(loop, field.name) for field in dataclasses.fields(loop)}
    counts = {name: kind(fields[name]) for name in ("epochs", "batch_size", "seed", "replicate")}
    for same in (
        InnerLoop(**fields),
        InnerLoop.of(**fields),
        InnerLoop(**fields | counts),
        dataclasses.replace(InnerLoop.of(**other), **fields),
        pickle.loads(pickle.dumps(loop)),
    ):
        assert content(same) == content(loop)
        assert type(same.seed) is int, "the text of a seed keys sample orders"
    changed = content(InnerLoop.of(**one | other))
    assert {name: changed[name] for name in fields if name not in other} == {
        name: value for name, value in content(loop).items() if name not in other
    }


@given(written, st.integers(1, 50))
def test_steps_are_those_of_the_batches(settings: dict[str, Any], images: int) -> None:
    loop = InnerLoop.of(**settings)
    batches = [min(loop.batch_size, images - first) for first in range(0, images, loop.batch_size)]
    assert loop.batch(images) == batches[0]
    if loop.drop_last:
        batches = [n for n in batches if n == batches[0]]
    assert loop.steps(images) == loop.epochs * len(batches)
    rates = loop.rates(images)
    assert rates.shape == (loop.steps(images),)
    assert ((rates >= 0) & (rates <= loop.optimizer.lr)).all()


@pytest.mark.parametrize("wrong", [True, False, np.True_, 1.5, "1", None, np.array([1, 2])], ids=repr)
@pytest.mark.parametrize(
    ("record", "name"),
    [
        *((MotifShape, name) for name in ("stem_channels", "stacks", "cells_per_stack", "classes", "image_channels")),
        *((PerceptronShape, name) for name in ("hidden", "layers", "classes", "image_channels")),
        *((InnerLoop, name) for name in ("epochs", "batch_size", "seed", "replicate")),
        *((Reverse, name) for name in ("window", "steps")),
    ],
)
def test_what_is_no_integer_is_refused(record: Any, name: str, wrong: Any) -> None:
    needed = {MotifShape: {"stem_channels": 4}, PerceptronShape: {"hidden": 4}}.get(record, {})
    if wrong is None and record is Reverse:
        assert getattr(Reverse(**{name: None}), name) is None
        return
    with pytest.raises(TypeError, match=rf"^{name} is .*, expected an integer$"):
        record(**needed | {name: wrong})


@pytest.mark.parametrize("wrong", [True, False, np.True_, "1", None, 1j], ids=repr)
@pytest.mark.parametrize(
    ("record", "name"),
    [
        *(
            (kind, name)
            for kind, numbers in OPTIMIZERS.items()
            for name in numbers
            if name not in ("betas", "nesterov")
        ),
        (InnerLoop, "batch_norm_momentum"),
        (Reverse, "metric_weight"),
        (Reverse, "memory_mib"),
        (Perceptron, "slope"),
    ],
)
def test_what_is_no_number_is_refused(record: Any, name: str, wrong: Any) -> None:
    owner = f"{record.__name__}\\." if record in OPTIMIZERS else ""
    with pytest.raises(TypeError, match=rf"^{owner}{name} is .*, expected a number$"):
        record(**{name: wrong})


def test_betas_are_numbers_each() -> None:
    with pytest.raises(TypeError, match=r"^Adam\.betas is True, expected a number$"):
        Adam(betas=(0.9, True))


def test_what_is_recorded_is_a_sequence() -> None:
    with pytest.raises(TypeError, match=r"record is 'step_loss', expected a sequence of names such as \['step_loss'\]"):
        InnerLoop.of(record="step_loss")
