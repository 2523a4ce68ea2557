"""Files of NATS-Bench's topology space (NAS-Bench-201): its cells, and the losses and accuracies of every epoch of training.

The benchmark is published as pickles, one bz2-compressed file for each architecture. Loading a pickle runs whatever code the file
names, so these files are never unpickled. `plain_pickle` interprets the few opcodes that build numbers, strings and containers, and
refuses everything else.

References
----------
Dong et al. 2021, NATS-Bench, arXiv:2009.00437; Dong and Yang 2020, NAS-Bench-201, arXiv:2001.00326.
"""

import bz2
import os
import pickletools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spd_fast.spaces.nats_cell import NatsCell, NatsColumns
from spd_fast.truth.table import TruthTable

__all__ = [
    "NatsArchitecture",
    "NatsRun",
    "load_architecture",
    "load_cells",
    "plain_pickle",
    "truth",
]

_NAMES: Final = {
    ("collections", "OrderedDict"): "dict",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy._core.multiarray", "scalar"): "scalar",
    ("numpy", "dtype"): "dtype",
}
# Limits of what a file may hold. The benchmark's largest files have 1.4 million bytes unpacked, 48,285 opcodes, containers nested 5
# deep and texts of 95 characters. Their values, with shared ones written out each time, have 1.4 million characters.
_MAX_BYTES: Final = 1 << 22
_MAX_OPCODES: Final = 1 << 18
_MAX_DEPTH: Final = 64
_MAX_TEXT: Final = 1 << 16
_MAX_BITS: Final = 512
_KEY_BITS: Final = 60  # Python's hash of a shorter integer is the integer itself
_MAX_UNFOLDED: Final = 1 << 22
_MAX_RUNS: Final = 64  # of an architecture; the benchmark has 17
_MAX_EPOCHS: Final = 1000  # the benchmark has 200
_MAX_EVAL_SETS: Final = 8  # the benchmark has 3
_MAX_QUOTED: Final = 300  # characters of a file's content in a message


@dataclass(frozen=True)
class NatsRun:
    """One training of an architecture on a data set, with a seed, for T epochs.

    Parameters
    ----------
    dataset : str
        ``"cifar10-valid"``, ``"cifar10"``, ``"cifar100"`` or ``"ImageNet16-120"``.
    seed : int
    epochs : int
        T: 12 or 200 in the published files.
    train_loss, train_accuracy : ndarray, shape (T,), float64
        Mean cross-entropy, and accuracy from 0 to 1, of the training images in each epoch.
    losses, accuracies : mapping of str to ndarray, shape (T,), float64
        The same on each evaluation set, ``"x-valid"``, ``"x-test"`` or ``"ori-test"``. NaN where an epoch was not evaluated.
    seconds : ndarray, shape (T,), float64
        Training time of every epoch.
    parameters, flops : float
        Parameters and FLOPs of the network, in millions, as the benchmark states them.
    """

    dataset: str
    seed: int
    epochs: int
    train_loss: npt.NDArray[np.float64]
    train_accuracy: npt.NDArray[np.float64]
    losses: Mapping[str, npt.NDArray[np.float64]]
    accuracies: Mapping[str, npt.NDArray[np.float64]]
    seconds: npt.NDArray[np.float64]
    parameters: float
    flops: float


@dataclass(frozen=True)
class NatsArchitecture:
    """An architecture of the benchmark: its number, its cell, and all of its trainings."""

    index: int
    cell: NatsCell
    runs: tuple[NatsRun, ...] = field(repr=False)

    def select(self, dataset: str, epochs: int) -> list[NatsRun]:
        """Return the runs on a data set with this number of epochs, in the order of their seeds.

        Raises
        ------
        ValueError
            If there is no such run.
        """
        found = sorted((r for r in self.runs if (r.dataset, r.epochs) == (dataset, epochs)), key=lambda run: run.seed)
        if not found:
            known = ", ".join(sorted({f"{run.dataset} {run.epochs}" for run in self.runs}))
            raise ValueError(
                f"architecture {self.index} has no run on {dataset} of {epochs} epochs, expected one of: {known}"
            )
        return found


def load_architecture(path: str | os.PathLike[str]) -> NatsArchitecture:
    """Read one file of the unpacked topology benchmark, such as ``000011.pickle.pbz2``.

    Raises
    ------
    ValueError
        If the file is damaged, would run code, or is not an architecture.
    OSError
        If it cannot be read.
    """
    content = _load(path)
    try:
        parts = list(_at_most(_MAX_RUNS, content, "budgets").values())
        runs = [
            _run(dataset, int(seed), result)
            for part in parts
            for (dataset, seed), result in _at_most(_MAX_RUNS, part["all_results"], "runs").items()
        ]
        return NatsArchitecture(int(parts[0]["arch_index"]), NatsCell.parse(parts[0]["arch_str"]), tuple(runs))
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} is not an architecture of NATS-Bench: {_quoted(error)}") from error


def load_cells(path: str | os.PathLike[str]) -> tuple[NatsCell, ...]:
    """Read the cells of all architectures, in the order of their index, from ``meta.pickle.pbz2``.

    Raises
    ------
    ValueError
        If the file is damaged, would run code, or is not the benchmark's meta file.
    OSError
        If it cannot be read.
    """
    content = _load(path)
    try:
        return tuple(NatsCell.parse(text) for text in content["meta_archs"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} is not the meta file of NATS-Bench: {_quoted(error)}") from error


def truth(architectures: Sequence[NatsArchitecture], *, dataset: str = "cifar10", epochs: int = 200) -> TruthTable:
    """Make a truth of architectures: the mean over their runs on one data set with one budget.

    Parameters
    ----------
    architectures : sequence of n NatsArchitecture, no two with the same cell
    dataset : str
        As in `NatsRun`.
    epochs : int
        12 or 200.

    Returns
    -------
    TruthTable
        Accuracies and losses after the last epoch. Those of training are the benchmark's own, the test images are
        ``"ori-test"``, and the validation images ``"x-valid"``, if every run was measured on them.

    Raises
    ------
    ValueError
        If an architecture has no such run, or two have the same cell.
    """
    cells = NatsColumns.from_cells(each.cell for each in architectures)
    repeated = len(cells) - len({cell.text for cell in cells})
    if repeated:
        raise ValueError(
            f"{repeated} of {len(cells)} architectures repeat the cell of another, expected different cells"
        )
    runs = [each.select(dataset, epochs) for each in architectures]
    sets = {"validation": "x-valid", "test": "ori-test"}
    curves = {
        "train_accuracy": [[run.train_accuracy for run in each] for each in runs],
        "train_loss": [[run.train_loss for run in each] for each in runs],
    }
    for split, name in sets.items():
        if all(name in run.losses for each in runs for run in each):
            curves[f"{split}_accuracy"] = [[run.accuracies[name] for run in each] for each in runs]
            curves[f"{split}_loss"] = [[run.losses[name] for run in each] for each in runs]
    measurements = {
        name: np.array([np.mean([curve[-1] for curve in each]) for each in found]).reshape(-1, 1, 1)
        for name, found in curves.items()
    }
    provenance = {
        "data": f"{dataset}, NATS-Bench topology",
        "network": "NATS-Bench: 16 stem channels, 3 stacks of 5 cells",
        "averaged_runs": " or ".join(map(str, sorted({len(each) for each in runs}))),
    }
    return TruthTable(cells, measurements, (epochs,), (0,), provenance=provenance)


def _load(path: str | os.PathLike[str]) -> Any:
    unpacker = bz2.BZ2Decompressor()
    with Path(path).open("rb") as file:
        packed = file.read(_MAX_BYTES + 1)
    if len(packed) > _MAX_BYTES:
        raise ValueError(f"{os.fspath(path)} has more than {_MAX_BYTES} bytes")
    try:
        content = unpacker.decompress(packed, _MAX_BYTES)
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(f"{os.fspath(path)} is not bz2-compressed, or is damaged") from None
    if not unpacker.eof:
        what = "was cut short" if unpacker.needs_input else f"unpacks to more than {_MAX_BYTES} bytes"
        raise ValueError(f"{os.fspath(path)} {what}")
    try:
        return plain_pickle(content)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def _run(dataset: str, seed: int, result: Mapping[str, Any]) -> NatsRun:
    epochs = int(result["epochs"])
    if not 1 <= epochs <= _MAX_EPOCHS:
        raise ValueError(f"a run has {epochs} epochs, expected 1 to {_MAX_EPOCHS}")
    sets = _at_most(_MAX_EVAL_SETS, result["eval_names"], "evaluation sets")
    if not all(isinstance(name, str) for name in (dataset, *sets)):
        raise TypeError("a data set or an evaluation set is not named by a text")
    return NatsRun(
        dataset=dataset,
        seed=seed,
        epochs=epochs,
        train_loss=_curve(result["train_losses"], epochs),
        train_accuracy=_curve(result["train_acc1es"], epochs) / 100,
        losses={name: _curve(result["eval_losses"], epochs, f"{name}@") for name in sets},
        accuracies={name: _curve(result["eval_acc1es"], epochs, f"{name}@") / 100 for name in sets},
        seconds=_curve(result["train_times"], epochs),
        parameters=float(result["params"]),
        flops=float(result["flop"]),
    )


def _curve(values: Mapping[Any, float], epochs: int, prefix: str = "") -> npt.NDArray[np.float64]:
    keys = [f"{prefix}{epoch}" if prefix else epoch for epoch in range(epochs)]
    curve = np.array([values.get(key, np.nan) for key in keys], dtype=np.float64)
    if curve.shape != (epochs,):
        raise ValueError(f"a curve has shape {curve.shape}, expected ({epochs},): one number for each epoch")
    return curve


def _at_most(most: int, container: Any, of: str) -> Any:
    if len(container) > most:
        raise ValueError(f"it has {len(container)} {of}, expected at most {most}")
    return container


def _quoted(error: Exception) -> str:
    """Return an error as text, cut to a limit, because it may quote the file at any length."""
    text = repr(error)
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."


# ---- pickles as data


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
    if len(content) > _MAX_BYTES:
        raise ValueError(f"this pickle has {len(content)} bytes, expected at most {_MAX_BYTES}")
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
        raise ValueError(f"damaged pickle at byte {position}: {_quoted(error)}") from error
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
