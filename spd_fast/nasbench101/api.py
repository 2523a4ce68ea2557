"""The classes and methods of the official package ``nasbench``, over a table of `spd_fast.nasbench101`.

A script that was written for the official package runs with ``from spd_fast.nasbench101 import api`` in place of
``from nasbench import api``.

References
----------
``nasbench/api.py`` and ``nasbench/lib/model_spec.py`` of google-research/nasbench: names, keys, errors and counters are
theirs, the code is not.
"""

import os
import random
from collections.abc import Iterator, KeysView, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import (
    checked_flag,
    checked_instance,
    checked_integer,
    checked_list,
    checked_number,
    checked_path,
    shown,
)
from spd_fast.nasbench101.convert import convert
from spd_fast.nasbench101.table import METRICS, Table, open_table
from spd_fast.spaces.cell import INPUT, MAX_EDGES, MAX_VERTICES, OPS, OUTPUT, hash_graph

__all__ = ["ModelSpec", "NASBench", "OutOfDomainError"]

_ZIP = b"PK"


class OutOfDomainError(Exception):
    """The benchmark has no such graph, or no such number of epochs."""


class _UnknownHashError(OutOfDomainError, KeyError):
    """A table, which may be of a part of the space, has no such cell; the official code raises KeyError."""

    __str__ = Exception.__str__  # that of KeyError quotes


class _NoHashError(OutOfDomainError, TypeError, ValueError):
    """A graph has no hash. The official code raises TypeError where there is no path, and ValueError for an unknown operation."""


class ModelSpec:
    """A graph with an operation on every vertex. It is pruned if a path leads from its first vertex to its last.

    The graph need not be a cell of the space.

    Parameters
    ----------
    matrix : array-like, shape (V, V), upper triangular
    ops : sequence of V strings
    data_format : str
        It is stored and has no effect.

    Attributes
    ----------
    valid_spec : bool
        Whether a path leads from the first vertex to the last.
    matrix, ops
        The pruned graph; None where there is no path. `original_matrix` and `original_ops` hold the graph as it was given.

    Raises
    ------
    ValueError
        If `matrix` is not square, not upper triangular or not of zeros and ones, or `ops` has another length.
    """

    def __init__(self, matrix: npt.ArrayLike, ops: Sequence[str], data_format: str = "channels_last") -> None:
        ops = checked_list("ops", ops, "names of operations")
        try:
            given = np.array(matrix)
        except (ValueError, TypeError, RuntimeError):  # lists of different lengths
            raise ValueError(f"matrix must be square, got {shown(matrix)}") from None
        if given.dtype.kind not in "biuf":
            raise TypeError(f"matrix is {shown(matrix)}, expected zeros and ones of shape (V, V)")
        if given.ndim != 2 or given.shape[0] != given.shape[1]:
            raise ValueError(f"matrix must be square, got shape {given.shape}")
        if given.shape[0] != len(ops):
            raise ValueError(f"length of ops must match matrix dimensions, got {len(ops)} and {given.shape[0]}")
        if np.tril(given).any():
            raise ValueError("matrix must be upper triangular")
        odd = np.argwhere((given != 0) & (given != 1))
        if len(odd):
            x, y = odd[0].tolist()
            raise ValueError(f"matrix[{x}][{y}] is {given[x, y]}, must be 0 or 1")
        self.original_matrix, self.original_ops, self.data_format = given, list(ops), data_format
        kept = _on_paths(given)
        self.valid_spec = bool(kept)
        self.matrix: npt.NDArray[Any] | None = given[np.ix_(kept, kept)] if kept else None
        self.ops: list[str] | None = [self.original_ops[v] for v in kept] if kept else None

    def hash_spec(self, canonical_ops: Sequence[str]) -> str:
        """Return the official isomorphism-invariant hash; an operation's label is its position in `canonical_ops`.

        The graph need not be a cell of the space.

        Raises
        ------
        OutOfDomainError
            If no path leads from the first vertex to the last, or an operation is not in `canonical_ops`.
        """
        labels = checked_list("canonical_ops", canonical_ops, "names of operations")
        if self.ops is None or self.matrix is None or any(op not in labels for op in self.ops[1:-1]):
            raise _NoHashError(
                f"spec {self.ops} has no path from input to output, or an operation that is not one of {labels}: it has no hash"
            )
        targets = [np.flatnonzero(row).tolist() for row in self.matrix]
        return hash_graph(targets, [labels.index(op) for op in self.ops[1:-1]])


class NASBench:
    """The official interface, on top of a table.

    Parameters
    ----------
    dataset_file : path
        A table that `spd_fast.nasbench101.convert` wrote, or an official TFRecord file. An official file is converted once, into
        a table beside it with ``.npz`` added to its name.
    seed : int, optional
        Seed of the random choice of runs. With a seed, `query` chooses the same runs as the official code.
    """

    def __init__(self, dataset_file: str | os.PathLike[str], seed: int | None = None) -> None:
        self.table = _table_of(Path(checked_path("dataset_file", dataset_file)))
        self.config = {
            "module_vertices": MAX_VERTICES,
            "max_edges": MAX_EDGES,
            "available_ops": list(OPS),
            "num_repeats": self.table.runs,
        }
        self.valid_epochs = set(self.table.budgets)
        self.fixed_statistics: Mapping[str, dict[str, Any]] = _Statistics(self, 0)
        self.computed_statistics: Mapping[str, dict[int, list[dict[str, float]]]] = _Statistics(self, 1)
        self._random = random.Random(None if seed is None else checked_integer("seed", seed))

    def query(self, model_spec: ModelSpec, epochs: int = 108, stop_halfway: bool = False) -> dict[str, Any]:
        """Return a run of a spec that is chosen at random, and add its cost to the budget counters.

        Returns
        -------
        dict
            ``module_adjacency``, ``module_operations``, ``trainable_parameters``, ``training_time``, ``train_accuracy``,
            ``validation_accuracy``, ``test_accuracy``.

        Raises
        ------
        OutOfDomainError
            If the spec is not a cell of the space, or `epochs` is not a budget.
        KeyError
            If the table has no such cell. It is an OutOfDomainError, too.
        """
        if (
            isinstance(epochs, bool)
            or not isinstance(epochs, int | float | np.number)
            or epochs not in self.valid_epochs
        ):
            raise OutOfDomainError(
                f"invalid number of epochs {shown(epochs)}, must be one of {sorted(self.valid_epochs)}"
            )
        row = self._row(self._hash(model_spec))
        run = self._random.randint(0, self.table.runs - 1)
        half = checked_flag("stop_halfway", bool(stop_halfway) if isinstance(stop_halfway, int) else stop_halfway)
        found = self.table.query(row, epochs, run, halfway=half)
        return self._fixed(row) | found._asdict()

    @property
    def training_time_spent(self) -> float:
        """Seconds that the runs which `query` returned took when they were trained. It can be set, as that of the official code."""
        return self.table.training_time_spent

    @training_time_spent.setter
    def training_time_spent(self, seconds: float) -> None:
        self.table.training_time_spent = float(checked_number("training_time_spent", seconds))

    @property
    def total_epochs_spent(self) -> int:
        """Epochs of these runs. It can be set, as that of the official code."""
        return self.table.epochs_spent

    @total_epochs_spent.setter
    def total_epochs_spent(self, epochs: int) -> None:
        self.table.epochs_spent = checked_integer("total_epochs_spent", epochs)

    def is_valid(self, model_spec: ModelSpec) -> bool:
        """Return whether a spec is a cell of the space, in this table or not."""
        try:
            self._hash(model_spec)
        except OutOfDomainError:
            return False
        return True

    def get_metrics_from_spec(self, model_spec: ModelSpec) -> tuple[dict[str, Any], dict[int, list[dict[str, float]]]]:
        """Return (fixed, computed) statistics of a spec, as `get_metrics_from_hash` does for its hash.

        Raises
        ------
        OutOfDomainError
            If the spec is not a cell of the space.
        KeyError
            If the table has no such cell. It is an OutOfDomainError, too.
        """
        return self.get_metrics_from_hash(self._hash(model_spec))

    def get_metrics_from_hash(self, module_hash: str) -> tuple[dict[str, Any], dict[int, list[dict[str, float]]]]:
        """Return (fixed, computed) statistics of a hash. The call adds nothing to the budget counters.

        The computed statistics hold, for each number of epochs, one dictionary for each run.

        Raises
        ------
        KeyError
            If the table has no such cell. It is an OutOfDomainError, too.
        """
        row = self._row(module_hash)
        columns = {
            f"{moment}_{metric}": {
                epochs: self.table.column(metric, epochs=epochs, repeat="all", halfway=moment == "halfway")[
                    row
                ].tolist()
                for epochs in self.table.budgets
            }
            for moment in ("halfway", "final")
            for metric in METRICS
        }
        computed = {
            epochs: [
                {name: values[epochs][run] for name, values in columns.items()}
                for run in range(self.table.runs)
                if columns["final_training_time"][epochs][run] >= 0  # NaN: no such run
            ]
            for epochs in self.table.budgets
        }
        return self._fixed(row), computed

    def get_budget_counters(self) -> tuple[float, int]:
        """Return (seconds of training, epochs): what the runs that `query` returned cost when they were trained."""
        return self.table.training_time_spent, self.table.epochs_spent

    def reset_budget_counters(self) -> None:
        """Set both counters to zero."""
        self.table.reset_budget()

    def hash_iterator(self) -> KeysView[str]:
        """Return the hashes of all cells, ascending: to iterate over, to count, and to look a hash up in."""
        return self.fixed_statistics.keys()

    def _hash(self, model_spec: ModelSpec) -> str:
        """Return the hash of a spec that is a cell of the space."""
        if not all(hasattr(model_spec, name) for name in ("matrix", "ops", "hash_spec")):
            raise TypeError(f"model_spec is {shown(model_spec)}, expected a ModelSpec")
        matrix, ops = model_spec.matrix, model_spec.ops
        if matrix is None or ops is None:
            raise OutOfDomainError("invalid spec, provided graph is disconnected")
        if len(ops) > MAX_VERTICES:
            raise OutOfDomainError(f"too many vertices, got {len(ops)} vertices (max vertices = {MAX_VERTICES})")
        if (edges := int(np.sum(matrix))) > MAX_EDGES:
            raise OutOfDomainError(f"too many edges, got {edges} edges (max edges = {MAX_EDGES})")
        for place, known in ((0, INPUT), (-1, OUTPUT)):
            if ops[place] != known:
                raise OutOfDomainError(f"operation {place} is {ops[place]!r}, should be {known!r}")
        for op in ops[1:-1]:
            if op not in OPS:
                raise OutOfDomainError(f"unsupported op {op} (available ops = {list(OPS)})")
        return model_spec.hash_spec(OPS)

    def _row(self, module_hash: str) -> int:
        try:
            return self.table.row(checked_instance("module_hash", module_hash, str, "32 hexadecimal digits"))
        except ValueError as error:
            raise _UnknownHashError(str(error)) from None

    def _fixed(self, row: int) -> dict[str, Any]:
        cell = self.table[row]
        return {
            "module_adjacency": cell.matrix.astype(np.int8),
            "module_operations": list(cell.ops),
            "trainable_parameters": int(self.table.trainable_parameters[row]),
        }


class _Statistics(Mapping[str, Any]):
    """A mapping from hash to statistics, which the official object holds as a dictionary; here each is read from the table
    when it is asked for."""

    def __init__(self, bench: NASBench, part: int) -> None:
        self._bench, self._part = bench, part

    def __getitem__(self, module_hash: str) -> Any:
        if not isinstance(module_hash, str):  # a dictionary has no other key either
            raise _UnknownHashError(f"module_hash is {shown(module_hash)}, expected 32 hexadecimal digits")
        return self._bench.get_metrics_from_hash(module_hash)[self._part]

    def __contains__(self, module_hash: object) -> bool:
        try:
            return isinstance(module_hash, str) and self._bench.table.row(module_hash) >= 0
        except ValueError:
            return False

    def __iter__(self) -> Iterator[str]:
        table = self._bench.table
        return (table.module_hash[row].tobytes().hex() for row in range(len(table)))

    def __len__(self) -> int:
        return len(self._bench.table)


def _on_paths(matrix: npt.NDArray[Any]) -> list[int]:
    """Return the vertices on paths from the first to the last, in order; an empty list where there is no path. A path has an
    edge."""
    n = len(matrix)
    if n < 2:
        return []
    from_input, to_output = {0}, {n - 1}
    for v in range(n):
        if v in from_input:
            from_input |= set(np.flatnonzero(matrix[v]).tolist())
    for v in reversed(range(n)):
        if v in to_output:
            to_output |= set(np.flatnonzero(matrix[:, v]).tolist())
    return sorted(from_input & to_output) if n - 1 in from_input else []


def _table_of(path: Path) -> Table:
    with path.open("rb") as file:
        if file.read(len(_ZIP)) == _ZIP:
            return open_table(path)
    beside = path.with_name(f"{path.name}.npz")
    if beside.exists() and beside.stat().st_mtime >= path.stat().st_mtime:
        return open_table(beside)
    return convert(path, beside)
