"""Pickles as plain data: what comes back, what is refused, and that nothing is run."""

import collections
import contextlib
import pickle
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_fast.base.plain_pickle import plain_pickle

SHORT = st.integers(-(2**59) + 1, 2**59 - 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | SHORT | st.tuples(st.text(), SHORT), inner)
        | st.sets(SHORT)
    ),
    max_leaves=20,
)


@given(PLAIN)
def test_plain_data_comes_back(value: Any) -> None:
    """As pickle itself reads it, in the protocols that build every kind of plain data without calls."""
    for protocol in range(4, pickle.HIGHEST_PROTOCOL + 1):
        content = pickle.dumps(value, protocol)
        assert repr(plain_pickle(content)) == repr(pickle.loads(content))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_what_the_benchmark_uses_comes_back(protocol: int) -> None:
    shared = [1, 2]
    value = collections.OrderedDict(
        a=1, b=[shared, shared, (), (1,), (1, 2, 3, 4)], c={"d": {5, 6}, "e": frozenset([7])}
    )
    if protocol < 4:
        del value["c"]  # sets are made by calls there
    assert plain_pickle(pickle.dumps(value, protocol)) == value
    assert type(plain_pickle(pickle.dumps(collections.OrderedDict(a=1), protocol))) is dict


@pytest.mark.parametrize(
    "scalar", [np.float64(0.1), np.float32(0.5), np.int64(-3), np.uint8(200), np.bool_(True), np.int32(7)]
)
def test_numpy_scalars_come_back(scalar: Any) -> None:
    found = plain_pickle(pickle.dumps({"x": [scalar, scalar]}, 4))
    assert found == {"x": [scalar.item()] * 2}
    assert type(found["x"][0]) is type(scalar.item())


class Evil:
    """Calls what it is given when unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_run(protocol: int, tmp_path: Path) -> None:
    import os

    touched = tmp_path / "touched"
    content = pickle.dumps(Evil(os.mkdir, str(touched)), protocol)
    with pytest.raises(
        ValueError, match=r"this pickle asks for posix.mkdir at byte \d+: only plain data is read, nothing is run"
    ):
        plain_pickle(content)
    assert not touched.exists()
    pickle.loads(content)
    assert touched.exists()  # so the test can fail


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Evil(eval, "1"), 4), r"asks for builtins\.eval"),
        (pickle.dumps(Evil(eval, "1"), 0), r"asks for __builtin__\.eval"),
        (pickle.dumps(np.zeros(3), 4), r"asks for numpy\._?core"),
        (pickle.dumps(collections.OrderedDict, 4)[:-1] + b"(K\x01tR.", "asks for a call of dict with 1 arguments"),
        (b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93\x8c\x01O\x85R.", "asks for a call of dtype with 1 arguments"),
        (b"\x80\x04K\x01)R.", "asks for a call of int with 0 arguments"),
        (b"\x80\x04}K\x01b.", "asks for the opcode BUILD"),
        (b"\x80\x04)K\x01a.", "asks for items added to a tuple"),
        (b"\x80\x02cposix\nsystem\n.", r"asks for posix\.system"),
        (b"\x80\x02Pabc\n.", "asks for the opcode PERSID"),
        (b"\x82\x01.", "asks for the opcode EXT1"),
        (b"\x80\x04K\x01K\x02.", "damaged pickle at byte"),
        (b"\x80\x04.", "damaged pickle at byte"),
        (b"\x80\x04K", "damaged pickle at byte"),
        (b"\x80\x04e.", "damaged pickle at byte"),
        (b"\x80\x04h\x05.", "damaged pickle at byte"),
        (b"\x80\x04]K\x01", "damaged pickle"),
        (b"", "damaged pickle"),
        (b"hello", "damaged pickle at byte"),
    ],
)
def test_everything_else_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plain_pickle(content)


def long(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


DTYPE = b"cnumpy\ndtype\n\x8c\x02f8\x85R"


HARM = {
    "nested tuples": (
        b"K\x01" + b"\x85" * 10**6 + b"K\x01s.",
        "nests containers more than 64 deep at byte 66: no file",
    ),
    "nested lists": (b"]" * 10**4 + b"a" * 10**4 + b".", "nests containers more than 64 deep"),
    "marks": (b"(" * 16000 + b"t" * 16000 + b".", "nests containers more than 64 deep"),
    "a list in itself": (b"]q\x00h\x00a.", "asks for a container inside itself"),
    "a list in itself through another": (b"]q\x00]h\x00aa.", "items added to a container that is inside another"),
    "changed when counted": (b"]q\x00]h\x00a0h\x00K\x01a.", "items added to a container that is inside another"),
    "pairs of pairs": (b"K\x01" + b"q\x00h\x00\x86" * 40 + b".", "unfolds to more than 4194304 values and characters"),
    "one text many times": (
        b"](X" + struct.pack("<I", 2**16) + b"a" * 2**16 + b"q\x00" + b"h\x00" * 100 + b"e.",
        "unfolds to more than 4194304 values",
    ),
    "a long text": (b"X" + struct.pack("<I", 2**21) + b"a" * 2**21 + b".", "a text of more than 65536 characters"),
    "a long integer": (b"\x8b" + struct.pack("<I", 2**21) + b"a" * 2**21 + b".", "an integer of more than 512 bits"),
    "opcodes": (b"N0" * 2**20 + b".", "has more than 262144 opcodes"),
    "bytes": (b"N0" * 2**21 + b".", "has 4194305 bytes, expected at most 4194304"),
    "keys of one hash": (
        b"}(" + b"".join(long(k * (2**61 - 1)) + b"N" for k in range(1, 40000)) + b"u.",
        "a key of type int, expected a text, an integer of less than 60 bits, or a pair of which one is a text",
    ),
    "pairs of integers": (b"}K\x01K\x02\x86Ns.", "a key of type tuple"),
    "members of one hash": (
        b"(" + b"".join(long(k * (2**61 - 1)) for k in range(1, 40000)) + b"\x91.",
        "a key of type int",
    ),
    "a list as a key": (b"}]Ns.", "a key of type list"),
    "memo keys of one hash": (
        b"N" + b"".join(b"p%d\n" % (k * (2**61 - 1)) for k in range(1, 40000)) + b".",
        "numbers more than 262144 values",
    ),
    "a long state": (
        DTYPE + b"(" + b"N" * 100_000 + b"tq\x00b" + b"h\x00b" * 50_000 + b".",
        "a dtype without a byte order",
    ),
    "a scalar of many": (
        b"cnumpy.core.multiarray\nscalar\n" + DTYPE + b"B" + struct.pack("<I", 8000) + b"a" * 8000 + b"\x86R.",
        "a number of 8000 bytes, expected 8",
    ),
    "a long name": (b"c" + b"a" * 2**21 + b"\nb\n.", "this pickle asks for a{300} at byte 0"),
    "a name that is no text": (b"]]\x93.", "asks for a name that is no text"),
    "an error that quotes": (b"S" + b"a" * 2**21 + b"\n.", r"no string quotes around b'a+\.\.\."),
    "an open mark": (b"(N.", "a mark was left open"),
    "too few for a pair": (b"N\x86.", "damaged pickle at byte 1: IndexError"),
}


@pytest.mark.parametrize("name", HARM)
def test_pickles_made_to_do_harm(name: str) -> None:
    """Each is refused at once, in one short sentence, whatever it would have grown to."""
    content, message = HARM[name]
    began = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        plain_pickle(content)
    assert time.process_time() - began < 2
    assert len(str(caught.value)) < 500


def test_many_keys_that_share_their_last_bits() -> None:
    """The worst that integers which are their own hashes can do to a dictionary."""
    content = b"}(" + b"".join(long(k << 42) + b"N" for k in range(1, 80000)) + b"u."
    began = time.process_time()
    assert len(plain_pickle(content)) == 79999
    assert time.process_time() - began < 2


@given(st.binary(max_size=200))
def test_any_bytes_are_data_or_an_error(noise: bytes) -> None:
    good = pickle.dumps({"a": [1.0, "b", (None, True)]}, 4)
    for content in (noise, good[:10] + noise, good[:-1] + noise):
        with contextlib.suppress(ValueError):  # and no other error
            plain_pickle(content)
