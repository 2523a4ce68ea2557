"""Checks of arguments: which values are numbers, flags, names and arrays, and what is said of the others."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from spd_fast.base.types import (
    checked_array,
    checked_choice,
    checked_flag,
    checked_instance,
    checked_integer,
    checked_names,
    checked_number,
    checked_progress,
    checked_sequence,
    shown,
)


@pytest.mark.parametrize(
    "value", [3, np.int8(3), np.uint64(3), np.array(3), np.array(3, np.int16), np.array(3, object)]
)
def test_integers_of_every_type_become_plain(value: Any) -> None:
    assert checked_integer("n", value) == 3
    assert type(checked_integer("n", value)) is int
    assert checked_number("n", value) == 3


@pytest.mark.parametrize(
    "value",
    [True, np.True_, np.array(True), 1.0, np.float64(1), "1", np.str_("1"), None, [1], np.array([1]), 1j, Fraction(1)],
)
def test_what_is_no_integer(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^n is .*, expected an integer$"):
        checked_integer("n", value)


def test_integers_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"^n is 0, expected at least 1$"):
        checked_integer("n", np.int64(0), 1)
    with pytest.raises(ValueError, match=r"^n is 9, expected 1 to 8$"):
        checked_integer("n", 9, 1, 8)
    with pytest.raises(ValueError, match=r"^n is 9, expected at most 8$"):
        checked_integer("n", 9, high=8)


@pytest.mark.parametrize(
    "value", [0.5, np.float16(0.5), np.float32(0.5), np.float64(0.5), np.longdouble(0.5), np.array(0.5), Fraction(1, 2)]
)
def test_floats_of_every_type_become_plain(value: Any) -> None:
    assert checked_number("x", value) == 0.5
    assert type(checked_number("x", value)) is float


@pytest.mark.parametrize("value", [True, np.False_, "0.5", b"1", None, [0.5], np.array([0.5]), 1j, np.complex64(1)])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^x is .*, expected a number$"):
        checked_number("x", value)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, np.float32(np.inf), 10**400])
def test_numbers_that_are_not_finite(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^x is (-?inf|nan), expected a finite number$"):
        checked_number("x", value)
    assert checked_number("x", np.inf, 0, finite=False) == np.inf
    with pytest.raises(ValueError, match=r"^x is nan, expected at least 0$"):
        checked_number("x", np.nan, 0, finite=False)
    with pytest.raises(ValueError, match=r"^x is 2, expected 0 to 1$"):
        checked_number("x", 2, 0, 1)


def test_flags_names_and_choices() -> None:
    assert checked_flag("f", np.True_) is True
    for value in (1, "yes", None, np.int64(0)):
        with pytest.raises(TypeError, match=r"^f is .*, expected True or False$"):
            checked_flag("f", value)
    assert type(checked_choice("c", np.str_("a"), ("a", "b"))) is str
    with pytest.raises(ValueError, match=r"^c is 'd', expected 'a', 'b' or 'c'$"):
        checked_choice("c", "d", ("a", "b", "c"))
    with pytest.raises(TypeError, match=r"^c is \['a'\], expected 'a'$"):
        checked_choice("c", ["a"], ("a",))
    for names in (["a"], ("a",), {"a"}, np.array(["a"]), np.array(["a"], object)):
        assert checked_names("names", names, "a") == ("a",)
    with pytest.raises(TypeError, match=r"^names is 'b', expected a sequence of names such as \['b'\]$"):
        checked_names("names", "b", "a")
    with pytest.raises(TypeError, match=r"^names is None, expected a sequence of names such as \['a'\]$"):
        checked_names("names", None, "a")
    with pytest.raises(TypeError, match=r"^names holds 1, expected names such as 'a'$"):
        checked_names("names", ["a", 1], "a")


def test_sequences_arrays_types_and_functions() -> None:
    assert checked_array("a", [1, 2.5]).tolist() == [1, 2.5]
    given = np.arange(3)
    assert checked_array("a", given) is given
    assert checked_array("a", np.array([1, np.float32(0.5)], object)).dtype == np.float64
    with pytest.raises(TypeError, match=r"^a is \[\[1\], \[1, 2\]\], expected an array of numbers$"):
        checked_array("a", [[1], [1, 2]])
    for values, dtype in (([1j], "complex128"), (["1"], "<U1"), ([True], "bool")):
        with pytest.raises(TypeError, match=f"^a has dtype {dtype}, expected real numbers$"):
            checked_array("a", values)
    assert checked_sequence("s", (1,), "integers") == (1,)
    for value in ("12", None, 5, iter(()), {1}):
        with pytest.raises(TypeError, match=r"^s is .*, expected a sequence of integers$"):
            checked_sequence("s", value, "integers")
    assert checked_instance("i", 1, int, "a number") == 1
    with pytest.raises(TypeError, match=r"^i is the class int, expected a number$"):
        checked_instance("i", int, int, "a number")
    assert checked_progress(print) is print
    with pytest.raises(TypeError, match=r"^progress is 3, expected a function or None$"):
        checked_progress(3)


def test_long_values_are_shown_by_their_type() -> None:
    assert shown("a") == "'a'"
    assert shown(np.zeros((9, 9))) == "a ndarray"
    assert shown(list(range(100))) == "a list"
