"""Pickles read as plain data: nothing in them is imported, called or run.

Loading a pickle runs whatever code the file names. `plain_pickle` interprets the few opcodes that build numbers, strings and
containers, and refuses everything else.
"""

import pickletools
import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

__all__ = [
    "MAX_BYTES",
    "plain_pickle",
    "quoted",
]

_NAMES: Final = {
    ("collections", "OrderedDict"): "dict",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy._core.multiarray", "scalar"): "scalar",
    ("numpy", "dtype"): "dtype",
}
# Limits of what a file may hold. The benchmark's largest files have 1.4 million bytes unpacked, 48,285 opcodes, containers nested 5
# deep and texts of 95 characters. Their values, with shared ones written out each time, have 1.4 million characters.
MAX_BYTES: Final = 1 << 22
"""Largest pickle that is read."""
_MAX_OPCODES: Final = 1 << 18
_MAX_DEPTH: Final = 64
_MAX_TEXT: Final = 1 << 16
_MAX_BITS: Final = 512
_KEY_BITS: Final = 60  # Python's hash of a shorter integer is the integer itself
_MAX_UNFOLDED: Final = 1 << 22
_MAX_QUOTED: Final = 300  # characters of a file's content in a message


@dataclass(frozen=True)
class _Name:
    """A name that unpickling would import. It is never looked up."""

    kind: str


@dataclass(frozen=True)
class _Scalar:
    """The dtype of a numpy scalar: its code and its byte order."""

    code: str
    order: str = "="


@dataclass(slots=True)
class _Part:
    """A value on the stack, with its size. A container that was put into another one takes no more items, so that its size
    stays right."""

    value: Any
    depth: int = 0  # how deep its containers are nested
    unfolded: int = 1  # how many values and characters it has if shared values are written out each time
    placed: bool = False  # whether it is inside a container


def plain_pickle(content: bytes) -> Any:
    """Interpret a pickle of plain data: numbers, strings, bytes, None, containers and numpy's scalars.

    Nothing is imported and nothing is called. Ordered dictionaries become dictionaries, and numpy's scalars Python's numbers.

    Raises
    ------
    ValueError
        If the pickle holds anything else, is damaged, or is larger or nested deeper than the benchmark's files are. It is
        refused before anything too large is built. The message says what was found, and at which byte.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"this pickle has {len(content)} bytes, expected at most {MAX_BYTES}")
    position = 0
    reader = _Reader()
    try:
        for count, (opcode, argument, place) in enumerate(pickletools.genops(content)):
            position = place or 0
            if count == _MAX_OPCODES:
                raise _TooLargeError(f"has more than {_MAX_OPCODES} opcodes")
            if opcode.name == "STOP":
                return reader.found()
            reader.step(opcode.name, argument)
    except _RefusedError as error:
        raise ValueError(
            f"this pickle asks for {error} at byte {position}: only plain data is read, nothing is run"
        ) from None
    except _TooLargeError as error:
        raise ValueError(f"this pickle {error} at byte {position}: no file of the benchmark does") from None
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"damaged pickle at byte {position}: {quoted(error)}") from error
    raise ValueError("damaged pickle: it has no end")


class _RefusedError(Exception):
    """The pickle holds more than plain data."""


class _TooLargeError(Exception):
    """The pickle is larger, or nested deeper, than the limits allow."""


_ATOMS = re.compile(
    "INT|BININT[12]?|LONG[14]?|FLOAT|BINFLOAT|(SHORT_)?BIN(UNICODE8?|BYTES8?)|UNICODE|BINSTRING|SHORT_BINSTRING|STRING"
)
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: Final = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}


class _Reader:
    """Pickle's stack machine with its memo, for the opcodes that build plain data."""

    def __init__(self) -> None:
        self.stack: list[_Part] = []
        self.marked: list[list[_Part]] = []  # what lies below each mark
        self.memo: dict[int, _Part] = {}

    def found(self) -> Any:
        (part,) = self.stack
        if self.marked:
            raise ValueError("a mark was left open")
        return part.value

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            return
        if _ATOMS.fullmatch(name):
            stack.append(_atom(argument))
        elif name in _CONSTANTS:
            stack.append(_Part(_CONSTANTS[name]))
        elif name in _EMPTY:
            stack.append(_Part(_EMPTY[name](), depth=1))
        elif name == "MARK":
            if len(self.marked) == _MAX_DEPTH:
                raise _TooLargeError(f"nests containers more than {_MAX_DEPTH} deep")
            self.marked.append(stack)
            self.stack = []
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            if not 0 <= int(argument) < _MAX_OPCODES:
                raise _TooLargeError(f"numbers more than {_MAX_OPCODES} values")
            self.memo[int(argument)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[int(argument)])
        elif name == "POP":
            stack.pop()
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(_made("TUPLE", [stack.pop() for _ in range(int(name[-1]))][::-1]))
        elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            parts = self.after_mark()
            self.stack.append(_made(name, parts))
        elif name in ("APPEND", "SETITEM"):
            parts = [stack.pop() for _ in range(1 if name == "APPEND" else 2)][::-1]
            _fill(stack[-1], parts)
        elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
            parts = self.after_mark()
            _fill(self.stack[-1], parts)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            module, attribute = (
                argument.split(" ") if name == "GLOBAL" else (stack.pop().value, stack.pop().value)[::-1]
            )
            if not (isinstance(module, str) and isinstance(attribute, str)):
                raise _RefusedError("a name that is no text")
            if (module, attribute) not in _NAMES:
                raise _RefusedError(f"{module}.{attribute}"[:_MAX_QUOTED])
            stack.append(_Part(_Name(_NAMES[module, attribute])))
        elif name == "REDUCE":
            operands, function = stack.pop().value, stack.pop().value
            stack.append(_reduced(function, operands))
        elif name == "BUILD" and isinstance(stack[-2].value, _Scalar):
            state = stack.pop().value
            if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
                raise _RefusedError("a dtype without a byte order")
            stack[-1] = _Part(_Scalar(stack[-1].value.code, state[1]))
        else:
            raise _RefusedError(f"the opcode {name}")

    def after_mark(self) -> list[_Part]:
        parts, self.stack = self.stack, self.marked.pop()
        return parts


def _atom(value: Any) -> _Part:
    if isinstance(value, str | bytes):
        if len(value) > _MAX_TEXT:
            raise _TooLargeError(f"holds a text of more than {_MAX_TEXT} characters")
        return _Part(value, unfolded=1 + len(value))
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise _TooLargeError(f"holds an integer of more than {_MAX_BITS} bits")
    return _Part(value)


def _made(name: str, parts: list[_Part]) -> _Part:
    """Return a new container of these parts."""
    if name == "TUPLE":
        return _counted(_Part(tuple(part.value for part in parts), depth=1), parts)
    made = _Part({"LIST": list, "DICT": dict, "FROZENSET": set}[name](), depth=1)
    _fill(made, parts)
    if name == "FROZENSET":
        made.value = frozenset(made.value)
    return made


def _fill(container: _Part, parts: list[_Part]) -> None:
    if container.placed:
        raise _RefusedError("items added to a container that is inside another")
    _counted(container, parts)
    into, items = container.value, [part.value for part in parts]
    if isinstance(into, dict):
        _require_keys(items[::2])
        into.update(zip(items[::2], items[1::2], strict=True))
    elif isinstance(into, list):
        into.extend(items)
    elif isinstance(into, set):
        _require_keys(items)
        into.update(items)
    else:
        raise _RefusedError(f"items added to a {type(into).__name__}")


def _counted(container: _Part, parts: list[_Part]) -> _Part:
    """Add the sizes of parts to that of the container that they are about to be put into."""
    for part in parts:
        part.placed = True
        container.depth = max(container.depth, part.depth + 1)
        container.unfolded += part.unfolded
    if container.placed:  # it is among its own parts
        raise _RefusedError("a container inside itself")
    if container.depth > _MAX_DEPTH:
        raise _TooLargeError(f"nests containers more than {_MAX_DEPTH} deep")
    if container.unfolded > _MAX_UNFOLDED:
        raise _TooLargeError(f"unfolds to more than {_MAX_UNFOLDED} values and characters")
    return container


def _require_keys(items: list[Any]) -> None:
    """Refuse keys that a file could choose so that their hashes collide, or so that hashing or comparing them takes long."""
    for item in items:
        parts = item if isinstance(item, tuple) else (item,)
        numbers = [part for part in parts if not isinstance(part, str | bytes)]
        if len(parts) > 2 or len(numbers) > 1 or not all(part is None or _is_short(part) for part in numbers):
            raise _RefusedError(
                f"a key of type {type(item).__name__}, expected a text, an integer of less than {_KEY_BITS} bits, or a "
                "pair of which one is a text"
            )


def _is_short(value: Any) -> bool:
    return isinstance(value, int) and value.bit_length() < _KEY_BITS


def _reduced(function: Any, operands: Any) -> _Part:
    kind = function.kind if isinstance(function, _Name) else None
    if kind == "dict" and operands == ():
        return _Part({}, depth=1)
    if kind == "dtype" and re.fullmatch("[biuf][1248]", operands[0]):
        return _Part(_Scalar(operands[0]))
    if kind == "scalar" and isinstance(operands[0], _Scalar) and isinstance(operands[1], bytes):
        dtype = np.dtype(operands[0].order + operands[0].code)
        if len(operands[1]) != dtype.itemsize:
            raise ValueError(f"a number of {len(operands[1])} bytes, expected {dtype.itemsize}")
        return _Part(np.frombuffer(operands[1], dtype)[0].item())
    raise _RefusedError(f"a call of {kind or type(function).__name__} with {len(operands)} arguments")


def quoted(error: Exception) -> str:
    """Return an error as text, cut to a limit, because it may quote the file at any length."""
    text = repr(error)
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."
