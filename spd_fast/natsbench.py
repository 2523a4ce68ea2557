"""NATS-Bench's topology space (NAS-Bench-201): its cells and what they reached epoch by epoch, losses included.

The benchmark is published as pickles, one bz2-compressed file per architecture. Unpickling runs whatever a file asks for, so
these are never unpickled: `plain_pickle` interprets the few opcodes that build numbers, strings and containers, and
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

from spd_fast.nats_cell import EDGES, NATS_OPS, NatsCell, NatsColumns
from spd_fast.truth import TruthTable

__all__ = [
    "EDGES",
    "NATS_OPS",
    "NatsArchitecture",
    "NatsCell",
    "NatsColumns",
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
_MAX_BYTES: Final = 1 << 28  # unpacked; an architecture has about 0.4 MB, the full benchmark's list of them 1.4 MB


@dataclass(frozen=True)
class NatsRun:
    """One training: a data set, a seed, and T epochs.

    Parameters
    ----------
    dataset : str
        ``"cifar10-valid"``, ``"cifar10"``, ``"cifar100"`` or ``"ImageNet16-120"``.
    seed : int
    epochs : int
        T: 12 or 200 in the published files.
    train_loss, train_accuracy : ndarray, shape (T,), float64
        Mean cross-entropy, and accuracy from 0 to 1, as training saw them.
    losses, accuracies : mapping of str to ndarray, shape (T,), float64
        By evaluation set: ``"x-valid"``, ``"x-test"``, ``"ori-test"``. NaN where an epoch was not evaluated.
    seconds : ndarray, shape (T,), float64
        Training time of every epoch.
    parameters, flops : float
        Of the network, in millions.
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
    """An architecture of the benchmark with all of its trainings, by budget, data set and seed."""

    index: int
    cell: NatsCell
    runs: tuple[NatsRun, ...] = field(repr=False)

    def select(self, dataset: str, epochs: int) -> list[NatsRun]:
        """Return the runs on a data set with a budget, in the order of their seeds.

        Raises
        ------
        ValueError
            If there is none.
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
        If the file is damaged, asks for more than plain data, or holds something else.
    OSError
        If it cannot be read.
    """
    content = _load(path)
    try:
        parts = list(content.values())
        runs = [
            _run(dataset, int(seed), result)
            for part in parts
            for (dataset, seed), result in part["all_results"].items()
        ]
        return NatsArchitecture(int(parts[0]["arch_index"]), NatsCell.parse(parts[0]["arch_str"]), tuple(runs))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} is not an architecture of NATS-Bench: {error!r}") from error


def load_cells(path: str | os.PathLike[str]) -> tuple[NatsCell, ...]:
    """Read the cells of all architectures, by their index, from ``meta.pickle.pbz2``.

    Raises
    ------
    ValueError
        If the file is damaged, asks for more than plain data, or holds something else.
    OSError
        If it cannot be read.
    """
    content = _load(path)
    try:
        return tuple(NatsCell.parse(text) for text in content["meta_archs"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} is not the meta file of NATS-Bench: {error!r}") from error


def truth(architectures: Sequence[NatsArchitecture], *, dataset: str = "cifar10", epochs: int = 200) -> TruthTable:
    """Make a truth of what architectures reached on one data set with one budget: the means of their runs.

    Parameters
    ----------
    architectures : sequence of n NatsArchitecture, no two of one cell
    dataset : str
        As in `NatsRun`.
    epochs : int
        12 or 200.

    Returns
    -------
    TruthTable
        Accuracies and losses after the last epoch: in training, on ``"ori-test"`` as test and, where every run was measured on it, on
        ``"x-valid"`` as validation.

    Raises
    ------
    ValueError
        If an architecture has no such run, or two have one cell.
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
    try:
        content = unpacker.decompress(Path(path).read_bytes(), _MAX_BYTES)
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
    sets = list(result["eval_names"])
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
    return np.array([values.get(key, np.nan) for key in keys], dtype=np.float64)


# ---- pickles as data


class _Mark:
    """Where an opcode's operands begin on the stack."""


@dataclass(frozen=True)
class _Name:
    """A name that the pickle would have imported; never looked up."""

    kind: str


@dataclass(frozen=True)
class _Scalar:
    """What a numpy scalar is read with: a dtype's code."""

    code: str


def plain_pickle(content: bytes) -> Any:
    """Interpret a pickle that holds plain data only: numbers, strings, bytes, None, containers and numpy's scalars.

    Nothing is imported and nothing is called. Ordered dictionaries become dictionaries, numpy's scalars Python's numbers.

    Raises
    ------
    ValueError
        If the pickle asks for anything else, or is damaged. The message names it and the place.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    position = 0
    try:
        for opcode, argument, place in pickletools.genops(content):
            position = place or 0
            if opcode.name == "STOP":
                (found,) = stack
                return found
            _step(opcode.name, argument, stack, memo)
    except _RefusedError as error:
        raise ValueError(
            f"this pickle asks for {error} at byte {position}: only plain data is read, nothing is run"
        ) from None
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"damaged pickle at byte {position}: {error!r}") from error
    raise ValueError("damaged pickle: it has no end")


class _RefusedError(Exception):
    """The pickle asks for more than plain data."""


_ATOMS = re.compile(
    "INT|BININT[12]?|LONG[14]?|FLOAT|BINFLOAT|(SHORT_)?BIN(UNICODE8?|BYTES8?)|UNICODE|BINSTRING|SHORT_BINSTRING|STRING"
)
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: Final = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    if name in ("PROTO", "FRAME"):
        return
    if _ATOMS.fullmatch(name):
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
        stack.append(_EMPTY[name]())
    elif name == "MARK":
        stack.append(_Mark())
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
        memo[int(argument)] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[int(argument)])
    elif name == "POP":
        stack.pop()
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        n = int(name[-1])
        stack[-n:] = [tuple(stack[-n:])]
    elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
        items = _after_mark(stack)
        pairs = zip(items[::2], items[1::2], strict=True) if name == "DICT" else items
        stack.append({"TUPLE": tuple, "LIST": list, "DICT": dict, "FROZENSET": frozenset}[name](pairs))
    elif name in ("APPEND", "SETITEM"):
        items = [stack.pop() for _ in range(1 if name == "APPEND" else 2)][::-1]
        _fill(stack[-1], items)
    elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
        items = _after_mark(stack)
        _fill(stack[-1], items)
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        module, attribute = argument.split(" ") if name == "GLOBAL" else (stack.pop(), stack.pop())[::-1]
        if (module, attribute) not in _NAMES:
            raise _RefusedError(f"{module}.{attribute}")
        stack.append(_Name(_NAMES[module, attribute]))
    elif name == "REDUCE":
        operands, function = stack.pop(), stack.pop()
        stack.append(_reduced(function, operands))
    elif name == "BUILD" and isinstance(stack[-2], _Scalar):
        _, order, *_ = stack.pop()
        stack[-1] = _Scalar(order + stack[-1].code if order in "<>" else stack[-1].code)
    else:
        raise _RefusedError(f"the opcode {name}")


def _after_mark(stack: list[Any]) -> list[Any]:
    at = max(i for i, item in enumerate(stack) if isinstance(item, _Mark))
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _fill(container: Any, items: list[Any]) -> None:
    if isinstance(container, dict):
        container.update(zip(items[::2], items[1::2], strict=True))
    elif isinstance(container, list):
        container.extend(items)
    elif isinstance(container, set):
        container.update(items)
    else:
        raise _RefusedError(f"items added to a {type(container).__name__}")


def _reduced(function: Any, operands: Any) -> Any:
    kind = function.kind if isinstance(function, _Name) else None
    if kind == "dict" and operands == ():
        return {}
    if kind == "dtype" and re.fullmatch("[biuf][1248]", operands[0]):
        return _Scalar(operands[0])
    if kind == "scalar" and isinstance(operands[0], _Scalar) and isinstance(operands[1], bytes):
        (value,) = np.frombuffer(operands[1], np.dtype(operands[0].code)).tolist()
        return value
    raise _RefusedError(f"a call of {kind or type(function).__name__} with {len(operands)} arguments")
