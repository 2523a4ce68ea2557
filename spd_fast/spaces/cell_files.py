"""Reading cells from files, and drawing cells at random from a file or from the whole space of NAS-Bench-101."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final

import numpy as np

from spd_fast.base.errors import InvalidCellError
from spd_fast.base.files import load_arrays, other_kind
from spd_fast.base.types import checked_integer, checked_path
from spd_fast.spaces.candidate import Columns
from spd_fast.spaces.cell import MAX_VERTICES, OPS, Cell
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.spaces.nats_cell import NatsCell, NatsColumns
from spd_fast.spaces.notations import cell_of

__all__ = [
    "random_cells",
    "read_cells",
    "sample_cells",
]

_CELLS_IN_SPACE: Final = 423_624


# ---- cells


def random_cells(n: int, seed: int) -> list[Cell]:
    """Draw cells from the whole space as random search on NAS-Bench-101 does. No two of them are isomorphic.

    A graph of 7 vertices is drawn: each edge with probability 1/2, each operation with probability 1/3. It is pruned. It is drawn
    again if it is then outside the space or has the hash of an earlier cell.

    Parameters
    ----------
    n : int, 0 to 423,624
        Drawing most of the space takes hours.
    seed : int, >= 0

    Raises
    ------
    ValueError
        If `n` or `seed` is out of range.
    """
    n, seed = checked_integer("n", n), checked_integer("seed", seed, 0)
    if not 0 <= n <= _CELLS_IN_SPACE:
        raise ValueError(f"n is {n}, expected 0 to {_CELLS_IN_SPACE}: the number of cells in the space")
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn: dict[str, Cell] = {}
    while len(drawn) < n:
        matrix = np.triu(rng.integers(0, 2, (MAX_VERTICES, MAX_VERTICES)), 1)
        interior = [OPS[code] for code in rng.integers(0, len(OPS), MAX_VERTICES - 2)]
        try:
            cell = Cell(matrix, ["input", *interior, "output"])
        except InvalidCellError:
            continue
        drawn.setdefault(cell.module_hash, cell)
    return list(drawn.values())


def sample_cells(n: int, seed: int, source: str | os.PathLike[str] | None = None) -> list[Any]:
    """Draw `n` cells from a file or from the whole space. No two of them are isomorphic.

    Parameters
    ----------
    n : int, >= 0
    seed : int, >= 0
        A larger sample with the same seed begins with the smaller one.
    source : path, optional
        A file that `read_cells` reads. Its cells are ranked by a digest of (seed, module_hash), so that the draw does not depend
        on their order in the file. Cells of which no motif can be trained are not drawn. Default: the whole space of
        NAS-Bench-101, by `random_cells`.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file does not exist, is damaged, or holds fewer than `n` different cells.
    InvalidCellError
        If an entry is not a cell.
    """
    if source is None:
        return random_cells(n, seed)
    n, seed = checked_integer("n", n), checked_integer("seed", seed, 0)
    cells = read_cells(source)
    first_of: dict[bytes, int] = {}
    for row in np.flatnonzero(cells.trainable).tolist():
        digest = cells.module_hash[row]
        first_of.setdefault(digest.tobytes(), row)
    if not 0 <= n <= len(first_of):
        raise ValueError(f"n is {n}, expected 0 to {len(first_of)}: the number of different cells in {source}")
    ranked = sorted(first_of, key=lambda digest: hashlib.blake2b(b"%d/" % seed + digest, digest_size=16).digest())
    return [cells[first_of[digest]] for digest in ranked[:n]]


def read_cells(path: str | os.PathLike[str]) -> Columns[Any]:
    """Read a file of cells.

    Parameters
    ----------
    path : path
        An .npz with columns `vertices`, `edge_bits`, `op_codes`, or with `edge_ops` of cells of NATS-Bench, and optionally
        `module_hash`; or a JSON list of cells in any notation of `spd_fast.cell_of`, such as ``{"matrix": [[...], ...], "ops": [...]}``
        or ``"|op~0|+|op~0|op~1|+..."``; or a JSON object whose ``"cells"`` is such a list. All cells are of one space.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file does not exist or is damaged.
    InvalidCellError
        If an entry is not a cell.
    """
    source = Path(checked_path("path", path))
    if source.suffix == ".npz":
        arrays = load_arrays(source, what="cell file")
        if "edge_ops" in arrays:
            return NatsColumns(arrays["edge_ops"], arrays.get("module_hash"))
        missing = [name for name in ("vertices", "edge_bits", "op_codes") if name not in arrays]
        if missing:
            raise ValueError(
                f"cell file {source} lacks {missing[0]!r}, expected vertices, edge_bits and op_codes"
                f"{other_kind(source, 'cell file')}"
            )
        return CellColumns(*(arrays.get(n) for n in ("vertices", "edge_bits", "op_codes", "module_hash")))  # type: ignore[arg-type]
    if source.is_dir():
        raise IsADirectoryError(f"cell file {source} is a folder, expected a file of cells")
    if not source.is_file():
        raise FileNotFoundError(f"cell file {source} does not exist")
    try:
        records = json.loads(source.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"cell file {source} is neither an .npz nor JSON: {error}{other_kind(source, 'cell file')}"
        ) from error
    if isinstance(records, dict):
        records = records.get("cells")
    if not isinstance(records, list):
        raise ValueError(f'cell file {source} holds no list of cells, expected [{{"matrix": ..., "ops": ...}}, ...]')
    cells: list[Any] = []
    for row, record in enumerate(records):
        try:
            cells.append(cell_of(record))
        except (TypeError, ValueError) as error:
            raise InvalidCellError(f"entry {row} of cell file {source}: {error}") from None
    kind = NatsCell if cells and isinstance(cells[0], NatsCell) else Cell
    odd = next((row for row, cell in enumerate(cells) if not isinstance(cell, kind)), None)
    if odd is not None:
        raise ValueError(
            f"entry {odd} of cell file {source} is a {type(cells[odd]).__name__}, expected a {kind.__name__} as entry 0: cells of one space"
        )
    return NatsColumns.from_cells(cells) if kind is NatsCell else CellColumns.from_cells(cells)
