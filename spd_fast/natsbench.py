"""Files of NATS-Bench's topology space (NAS-Bench-201): its cells, and the losses and accuracies of every epoch of training.

The benchmark is published as pickles, one bz2-compressed file for each architecture. Loading a pickle runs whatever code the file
names, so these files are never unpickled: `spd_fast.base.plain_pickle` reads them as plain data.

References
----------
Dong et al. 2021, NATS-Bench, arXiv:2009.00437; Dong and Yang 2020, NAS-Bench-201, arXiv:2001.00326.
"""

import bz2
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spd_fast.base.files import other_kind
from spd_fast.base.plain_pickle import MAX_BYTES, plain_pickle, quoted
from spd_fast.base.types import checked_instance, checked_integer, checked_list, checked_path
from spd_fast.spaces.nats_cell import EDGES, NATS_OPS, NatsCell, NatsColumns
from spd_fast.truth.table import TruthTable

__all__ = [
    "NatsArchitecture",
    "NatsRun",
    "enumerate_space",
    "load_architecture",
    "load_cells",
    "truth",
]

_MAX_RUNS: Final = 64  # of an architecture; the benchmark has 17
_MAX_EPOCHS: Final = 1000  # the benchmark has 200
_MAX_EVAL_SETS: Final = 8  # the benchmark has 3
_ORDER_SEED: Final = 88  # "please do not change this line for reproducibility", say the authors


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
        checked_instance("dataset", dataset, str, "the name of a data set such as 'cifar10'")
        epochs = checked_integer("epochs", epochs)
        found = sorted((r for r in self.runs if (r.dataset, r.epochs) == (dataset, epochs)), key=lambda run: run.seed)
        if not found:
            known = ", ".join(sorted({f"{run.dataset} {run.epochs}" for run in self.runs}))
            raise ValueError(
                f"architecture {self.index} has no run on {dataset} of {epochs!r} epochs, expected one of: {known}"
            )
        return found


def enumerate_space() -> NatsColumns:
    """Return all 15,625 cells of the topology space, in the order of the benchmark's index: row 1234 is its architecture 1234.

    No file is needed. The authors numbered the cells by listing them, the operation of the last edge changing fastest, and shuffling the
    list with a fixed seed (``exps/NAS-Bench-201/main.py`` of D-X-Y/AutoDL-Projects). `load_cells` reads the same cells from the
    benchmark's meta file.

    Examples
    --------
    >>> enumerate_space()[9].text
    '|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|'
    """
    codes = np.indices((len(NATS_OPS),) * len(EDGES)).reshape(len(EDGES), -1).T
    order = list(range(len(codes)))
    random.Random(_ORDER_SEED).shuffle(order)
    return NatsColumns(codes[order])


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
        meta = isinstance(content, Mapping) and "meta_archs" in content
        reader = "; it is the benchmark's meta file, which load_cells reads" if meta else ""
        raise ValueError(f"{os.fspath(path)} is not an architecture of NATS-Bench: {quoted(error)}{reader}") from error


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
        parts = content.values() if isinstance(content, Mapping) else ()
        one = any(isinstance(part, Mapping) and "arch_str" in part for part in parts)
        reader = "; it is an architecture, which load_architecture reads" if one else ""
        raise ValueError(f"{os.fspath(path)} is not the meta file of NATS-Bench: {quoted(error)}{reader}") from error


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
    architectures = checked_list("architectures", architectures, "what load_architecture returned")
    for k, each in enumerate(architectures):
        checked_instance(f"architectures[{k}]", each, NatsArchitecture, "what load_architecture returned")
    checked_instance("dataset", dataset, str, "the name of a data set such as 'cifar10'")
    epochs = checked_integer("epochs", epochs)
    cells = NatsColumns.from_cells(each.cell for each in architectures)
    repeated = len(cells) - len({cell.text for cell in cells})
    if repeated:
        raise ValueError(
            f"{repeated} of {len(cells)} architectures repeat the cell of another, expected different cells"
        )
    chosen = [each.select(dataset, epochs) for each in architectures]
    sets = {"validation": "x-valid", "test": "ori-test"}
    curves = {
        "train_accuracy": [[run.train_accuracy for run in each] for each in chosen],
        "train_loss": [[run.train_loss for run in each] for each in chosen],
    }
    for split, name in sets.items():
        if all(name in run.losses for each in chosen for run in each):
            curves[f"{split}_accuracy"] = [[run.accuracies[name] for run in each] for each in chosen]
            curves[f"{split}_loss"] = [[run.losses[name] for run in each] for each in chosen]
    measurements = {
        name: np.array([np.mean([curve[-1] for curve in each]) for each in found]).reshape(-1, 1, 1)
        for name, found in curves.items()
    }
    provenance = {
        "data": f"{dataset}, NATS-Bench topology",
        "network": "NATS-Bench: 16 stem channels, 3 stacks of 5 cells",
        "averaged_runs": " or ".join(map(str, sorted({len(each) for each in chosen}))),
    }
    return TruthTable(cells, measurements, (epochs,), (0,), provenance=provenance)


def _load(path: str | os.PathLike[str]) -> Any:
    unpacker = bz2.BZ2Decompressor()
    with Path(checked_path("path", path)).open("rb") as file:
        packed = file.read(MAX_BYTES + 1)
    if len(packed) > MAX_BYTES:
        raise ValueError(f"{os.fspath(path)} has more than {MAX_BYTES} bytes")
    try:
        content = unpacker.decompress(packed, MAX_BYTES)
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(
            f"{os.fspath(path)} is not bz2-compressed, or is damaged{other_kind(path, 'NATS-Bench file')}"
        ) from None
    if not unpacker.eof:
        what = "was cut short" if unpacker.needs_input else f"unpacks to more than {MAX_BYTES} bytes"
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
