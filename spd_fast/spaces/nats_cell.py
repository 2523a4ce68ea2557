"""Cells of NATS-Bench's topology space (NAS-Bench-201): four nodes with an operation on each of the six edges between them.

References
----------
Dong et al. 2021, NATS-Bench, arXiv:2009.00437; Dong and Yang 2020, NAS-Bench-201, arXiv:2001.00326.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final, overload

import numpy as np
import numpy.typing as npt

from spd_fast.base.errors import InvalidCellError
from spd_fast.base.types import checked_integer, checked_list, shown
from spd_fast.spaces.candidate import Columns, checked_candidates, checked_index, md5, require_rows
from spd_fast.spaces.cell import checked_channels

__all__ = [
    "EDGES",
    "NATS_OPS",
    "NATS_PATHS",
    "NatsCell",
    "NatsColumns",
]

NATS_OPS: Final = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""Operations of edges. The code of an operation is its position here. A convolution is ReLU, convolution and batch norm in this
order."""
EDGES: Final = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""The edges (source, target) between the four nodes, in the order of `NatsCell.ops`. A node is the sum of its incoming edges."""
NATS_PATHS: Final = ((3,), (0, 4), (1, 5), (0, 2, 5))
"""The paths from node 0 to node 3, as positions in `EDGES`."""
_NODES: Final = 4


@dataclass(frozen=True)
class NatsCell:
    """A cell of four nodes with an operation on each of its six edges.

    Motifs are made of it as of a `Cell`, in a `spd_fast.MotifShape`. The stem is a convolution with batch norm and becomes node 0 of
    the first cell. A ReLU follows node 3 of the last cell, before the average pooling. If channels double between stacks, a 1x1
    convolution with batch norm projects the pooled input. Edges that lie on no path from node 0 to node 3 are left out; in the
    benchmark's own networks they add at most a constant.

    Parameters
    ----------
    ops : tuple of 6 str
        One of `NATS_OPS` for each edge, in the order of `EDGES`.

    Raises
    ------
    ValueError
        If there are not six operations, or one is unknown.

    Examples
    --------
    >>> NatsCell.parse("|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|").ops[5]
    'nor_conv_1x1'
    """

    ops: tuple[str, ...]

    n_vertices: ClassVar = _NODES
    ops_on_edges: ClassVar = True
    op_codes: ClassVar[tuple[int, ...]] = ()
    """Vertices have no operations. `matrix` holds those of the edges."""

    def __post_init__(self) -> None:
        ops = checked_list("ops", self.ops, f"{len(EDGES)} names of operations")
        if len(ops) != len(EDGES) or any(not isinstance(op, str) or op not in NATS_OPS for op in ops):
            raise InvalidCellError(f"ops are {tuple(ops)}, expected {len(EDGES)} of {', '.join(NATS_OPS)}")
        object.__setattr__(self, "ops", tuple(map(str, ops)))

    @classmethod
    def parse(cls, text: str) -> "NatsCell":
        """Read a cell in the benchmark's own notation, which lists the edges into nodes 1, 2 and 3, each as ``op~source``. White
        space around the text is left out.

        Raises
        ------
        TypeError
            If it is no text.
        ValueError
            If the text is not in this notation.
        """
        if not isinstance(text, str):
            raise TypeError(
                f"cell is {shown(text)}, expected a text in the benchmark's notation |op~0|+|op~0|op~1|+..."
            )
        text = text.strip()
        nodes = text.split("+")
        edges = [edge.split("~") for node in nodes for edge in re.findall(r"[^|]+", node)]
        cell = cls(tuple(edge[0] for edge in edges))
        if cell.text != text:
            raise ValueError(f"cell is {text!r}, expected the benchmark's notation, such as {cell.text!r}")
        return cell

    def to_json(self) -> dict[str, str]:
        """Return the cell as a dictionary that `json.dumps` takes. It holds the cell's `text`."""
        return {"nats": self.text}

    @property
    def text(self) -> str:
        """The cell in the benchmark's own notation, which `parse` reads."""
        into = {
            target: "".join(f"|{op}~{x}" for op, (x, y) in zip(self.ops, EDGES, strict=True) if y == target)
            for target in (1, 2, 3)
        }
        return "+".join(f"{edges}|" for edges in into.values())

    def __str__(self) -> str:
        return self.text

    @property
    def key(self) -> str:
        """A text that is different for cells that are not equal: `text`."""
        return self.text

    @cached_property
    def module_hash(self) -> str:
        """MD5 of `text`, 32 hexadecimal digits. Cells with different operations have different hashes, even if they compute the
        same function."""
        return md5(self.text)

    @cached_property
    def matrix(self) -> npt.NDArray[np.uint8]:
        """Codes of the operations from node to node, shape (4, 4), uint8. Edges on no path from node 0 to node 3 have 0."""
        matrix = np.zeros((_NODES, _NODES), np.uint8)
        for op, edge in zip(self.ops, EDGES, strict=True):
            matrix[edge] = NATS_OPS.index(op)
        reached, reaching = np.zeros((2, _NODES), bool)
        reached[0] = reaching[-1] = True
        for node in range(_NODES):
            reached[matrix[node] > 0] |= reached[node]
        for node in reversed(range(_NODES)):
            reaching[node] |= bool(reaching[matrix[node] > 0].any())
        matrix *= np.outer(reached, reaching)
        matrix.flags.writeable = False
        return matrix

    def vertex_channels(self, c_in: int, c_out: int) -> tuple[int, ...]:
        """Return the channels of the cell's input and of nodes 1 to 3, which all have `c_out`.

        Raises
        ------
        InvalidCellError
            If no path of operations leads from node 0 to node 3. The output of such a network does not depend on its input.
        """
        c_in, c_out = checked_integer("c_in", c_in, 1), checked_integer("c_out", c_out, 1)
        if not self.matrix.any():
            raise InvalidCellError(
                f"no path of operations leads from node 0 to node 3 of {self.text}: there is nothing to train; leave such cells "
                "out, as TruthTable.trainable does"
            )
        return (c_in, *[c_out] * (_NODES - 1))

    def conv_counts(self, channels: Sequence[int]) -> tuple[int, int]:
        """Return (convolution weights, channels under a batch norm) if the vertices have these channels."""
        checked_channels(channels, _NODES)
        c_in, c = channels[0], channels[-1]
        codes = self.matrix.ravel().tolist()
        narrow, wide = codes.count(NATS_OPS.index("nor_conv_1x1")), codes.count(NATS_OPS.index("nor_conv_3x3"))
        projected = c_in if c_in != c else 0
        return c * (c * (narrow + 9 * wide) + projected), c * (narrow + wide + (projected > 0))


class NatsColumns(Columns[NatsCell]):
    """Many cells as a table of operation codes. A `NatsCell` is built when it is touched.

    Indexing with an integer returns a `NatsCell`; with a slice or an integer array it returns the rows as `NatsColumns`.

    Parameters
    ----------
    edge_ops : array-like of integers, shape (n, 6)
        Positions in `NATS_OPS`, with the edges in the order of `EDGES`.
    module_hash : array-like, shape (n, 16), uint8, optional
        The bytes of every cell's `NatsCell.module_hash`. They are compared with the cells.

    Raises
    ------
    ValueError
        If a shape, type or code is wrong, or a hash is not that of its cell. The message names the row.
    """

    cell_type = NatsCell
    names = ("edge_ops",)

    def __init__(self, edge_ops: npt.ArrayLike, module_hash: npt.ArrayLike | None = None) -> None:
        try:
            codes = np.asarray(edge_ops)
        except (ValueError, RuntimeError):  # lists of different lengths
            raise TypeError(f"edge_ops is {shown(edge_ops)}, expected integers of shape (n, {len(EDGES)})") from None
        if codes.ndim != 2 or codes.shape[1] != len(EDGES) or codes.dtype.kind not in "iu":
            raise ValueError(f"edge_ops is {codes.dtype} {codes.shape}, expected integers of shape (n, {len(EDGES)})")
        known: npt.NDArray[np.bool_] = np.all((codes >= 0) & (codes < len(NATS_OPS)), axis=1)
        require_rows(known, f"edge_ops outside 0 to {len(NATS_OPS) - 1}")
        self.edge_ops = codes.astype(np.uint8)
        if module_hash is not None:
            self._require_hashes(module_hash)

    @property
    def trainable(self) -> npt.NDArray[np.bool_]:
        """Whether a path of operations leads from node 0 to node 3 of each cell, shape (n,)."""
        reached: npt.NDArray[np.bool_] = np.any(self.used, axis=1)
        return reached

    @cached_property
    def used(self) -> npt.NDArray[np.bool_]:
        """Which edges lie on a path of operations from node 0 to node 3, shape (n, 6)."""
        used = np.zeros(self.edge_ops.shape, bool)
        for path in NATS_PATHS:
            used[:, path] |= np.all(self.edge_ops[:, path] > 0, axis=1, keepdims=True)
        used.flags.writeable = False
        return used

    @classmethod
    def from_cells(cls, cells: Iterable[NatsCell]) -> "NatsColumns":
        """Pack cells into columns."""
        packed = checked_candidates(checked_list("cells", cells, "spd_fast.NatsCell"), (NatsCell,), "spd_fast.NatsCell")
        codes = [[NATS_OPS.index(op) for op in cell.ops] for cell in packed]
        return cls(np.array(codes, np.uint8).reshape(-1, len(EDGES)))

    def __len__(self) -> int:
        return len(self.edge_ops)

    @overload
    def __getitem__(self, index: int) -> NatsCell: ...
    @overload
    def __getitem__(self, index: slice | npt.NDArray[np.integer]) -> "NatsColumns": ...
    def __getitem__(self, index: int | slice | npt.NDArray[np.integer]) -> "NatsCell | NatsColumns":
        index = checked_index(index, len(self))
        if isinstance(index, slice | np.ndarray):
            return NatsColumns(self.edge_ops[index])
        return NatsCell(tuple(NATS_OPS[code] for code in self.edge_ops[range(len(self))[index]]))
