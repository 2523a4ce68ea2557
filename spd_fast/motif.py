"""Motif shapes: how a cell becomes a network, and the parameters and FLOPs of that network.

A network is a stem (3x3 convolution, batch norm, ReLU), then stacks of cells with a 2x2 max-pool and a doubling of
channels between stacks, then a global average pool and a dense layer. A motif is a tiny network of this kind.

References
----------
Ying et al. 2019, NAS-Bench-101, arXiv:1902.09635: the network around a cell and the width of its vertices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from spd_fast.base.types import checked_instance, checked_integer, plain
from spd_fast.spaces.candidate import MotifCell, require_rows
from spd_fast.spaces.cell import MAX_VERTICES, Cell
from spd_fast.spaces.cell_columns import CellColumns
from spd_fast.spaces.nats_cell import NATS_OPS, NatsCell, NatsColumns

__all__ = [
    "LAYER_KINDS",
    "MOTIF_A",
    "MOTIF_B",
    "MOTIF_C",
    "NASBENCH101",
    "NATSBENCH",
    "MotifShape",
    "Shape",
    "cell_channels",
    "count_flops",
    "count_flops_table",
    "count_parameters",
    "count_parameters_table",
    "full_size_counts",
    "layer_kind",
]

LAYER_KINDS: Final = ("stem", "conv3x3", "conv1x1", "dense")
"""Kinds of layers whose weights are drawn and can be scaled. Projections of a cell's input are 1x1 convolutions."""
_SHORTEST_SIDE: Final = 4
_IMAGE_SIZE: Final = 32
"""Side of the images of both benchmarks."""


class Shape(Protocol):
    """How a candidate becomes a network: a `MotifShape`, or a `spd_fast.spaces.perceptron.PerceptronShape`."""

    cell_types: ClassVar[tuple[type, ...]]
    """The types of the candidates."""

    @property
    def classes(self) -> int:
        """The number of classes, which is that of the logits."""

    @property
    def image_channels(self) -> int:
        """The number of channels of the images."""

    @property
    def key(self) -> str:
        """A text on which the initial weights depend with ``init="motif"``, so that each shape has its own."""

    def require_images(self, image_shape: tuple[int, ...]) -> None:
        """Raise ValueError unless images of this (C, H, W) fit."""


@dataclass(frozen=True)
class MotifShape:
    """The network built around a cell.

    Parameters
    ----------
    stem_channels : int, >= 1
        Output channels of the stem, and of the cells of the first stack. They double from stack to stack.
    stacks : int, >= 1
        Stacks of cells, with a 2x2 max-pool of stride 2 between them.
    cells_per_stack : int, >= 1
    classes : int, 2 to 1000
    image_channels : int, 1 to 4

    Raises
    ------
    TypeError
        If a value is not an integer; a boolean is none.
    ValueError
        If a value is out of range.
    """

    cell_types: ClassVar[tuple[type, ...]] = (Cell, NatsCell)

    stem_channels: int
    stacks: int = 1
    cells_per_stack: int = 1
    classes: int = 10
    image_channels: int = 3

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high = {"classes": (2, 1000), "image_channels": (1, 4)}.get(field.name, (1, None))
            object.__setattr__(self, field.name, checked_integer(field.name, getattr(self, field.name), low, high))

    def require_images(self, image_shape: tuple[int, ...]) -> None:
        """Raise unless images of this (C, H, W) fit.

        Raises
        ------
        ValueError
            If they have other channels, a side of less than 4, or one that cannot be halved between all stacks.
        """
        channels, height, width = image_shape
        if channels != self.image_channels:
            raise ValueError(
                f"images has {channels} channels, expected {self.image_channels}, those of the motif shape"
            )
        if min(height, width) < _SHORTEST_SIDE:
            raise ValueError(f"images is {height} x {width} pixels, expected sides of {_SHORTEST_SIDE} to 64")
        smallest = 1 << (self.stacks - 1)
        if min(height, width) < smallest:
            raise ValueError(
                f"images are {height} x {width} pixels, expected sides of at least {smallest} "
                f"to be halved between {self.stacks} stacks"
            )

    def cell_io(self) -> list[tuple[int, int, int, int]]:
        """Return (stack, cell, c_in, c_out) of every cell position, in the order of the network."""
        positions = []
        c_in = self.stem_channels
        for stack in range(self.stacks):
            c_out = self.stem_channels << stack
            for cell in range(self.cells_per_stack):
                positions.append((stack, cell, c_in, c_out))
                c_in = c_out
        return positions

    @property
    def key(self) -> str:
        """A text on which the initial weights depend with ``init="motif"``, so that each shape has its own."""
        return (
            f"MotifShape(stem_channels={self.stem_channels!r}, stacks={self.stacks!r}, cells_per_stack={self.cells_per_stack!r}, "
            f"classes={self.classes!r}, image_channels={self.image_channels!r})"
        )

    @property
    def out_channels(self) -> int:
        """Channels of the last stack, which the dense layer reads."""
        return self.stem_channels << (self.stacks - 1)


MOTIF_A: Final = MotifShape(32, 1, 3)
"""The paper's motif A: 32 stem channels, one stack of three cells."""
MOTIF_B: Final = MotifShape(16, 3, 1)
"""The paper's motif B: 16 stem channels, three stacks of one cell."""
MOTIF_C: Final = MotifShape(16, 1, 1)
"""The paper's motif C: 16 stem channels, one cell."""
NASBENCH101: Final = MotifShape(128, 3, 3)
"""The benchmark's own network: 128 stem channels, three stacks of three cells."""
NATSBENCH: Final = MotifShape(16, 3, 5)
"""NATS-Bench's own network: 16 stem channels, three stacks of five cells. The residual blocks between its stacks, which are the same
for every cell, are left out."""


def layer_kind(name: str, dims: Sequence[int]) -> int | None:
    """Return the position in `LAYER_KINDS` of the layer with weights of this name and shape; None for batch norm and
    biases."""
    kind = {"stem.conv.weight": "stem", "dense.weight": "dense"}.get(name)
    if kind is None and len(dims) == 4:
        kind = f"conv{dims[2]}x{dims[3]}"
    return None if kind is None else LAYER_KINDS.index(kind)


def cell_channels(cell: MotifCell, shape: MotifShape) -> list[tuple[int, ...]]:
    """Return `Cell.vertex_channels` of every cell position of `shape`, in the order of the network.

    Raises
    ------
    ValueError
        If `shape` has fewer stem channels than interior vertices feed the output of `cell`, or nothing leads there.
    """
    return [cell.vertex_channels(c_in, c_out) for _, _, c_in, c_out in shape.cell_io()]


def count_parameters(cell: MotifCell, shape: MotifShape) -> int:
    """Count the trainable parameters of `cell` in `shape`.

    Convolution weights (they have no bias), weight and bias of every batch norm, weight and bias of the dense layer.
    Running statistics are not trainable.

    Parameters
    ----------
    cell : Cell or NatsCell
    shape : MotifShape
        ``NASBENCH101`` gives the number that the benchmark states.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If `shape` has fewer stem channels than interior vertices feed the output of `cell`, or nothing leads there.

    Examples
    --------
    >>> cell = Cell(["01", "00"], ["input", "output"])
    >>> count_parameters(cell, MOTIF_C)  # stem 3*9*16 + 2*16, projection 16*16 + 2*16, dense 16*10 + 10
    922
    """
    return _count(cell, shape, _parameter_terms(_checked_shape(shape)))


def count_flops(cell: MotifCell, shape: MotifShape, image_size: int | tuple[int, int] = 16) -> int:
    """Count the floating-point operations of one image's forward pass of `cell` in `shape`.

    Two per multiply-add of convolutions and of the dense layer, zero padding counted as if it were data. Batch norm,
    pooling, additions and biases are not counted. A training step costs about three times as much per image.

    Parameters
    ----------
    cell : Cell or NatsCell
    shape : MotifShape
    image_size : int or (int, int)
        Side of a square image, or (height, width), in pixels. Pooling between stacks halves it, rounding down.

    Raises
    ------
    ValueError
        If pooling leaves no pixel, or if `shape` has fewer stem channels than interior vertices feed the output.

    Examples
    --------
    >>> count_flops(Cell(["01", "00"], ["input", "output"]), MOTIF_C)  # 2 * (256 * (3*9*16 + 16*16) + 16*10)
    352576
    """
    return _count(cell, shape, _flop_terms(_checked_shape(shape), image_size))


def count_parameters_table(
    vertices: npt.ArrayLike, edge_bits: npt.ArrayLike, op_codes: npt.ArrayLike, shape: MotifShape
) -> npt.NDArray[np.int64]:
    """Count the trainable parameters of many cells at once: `count_parameters` of every row of a table.

    Parameters
    ----------
    vertices, edge_bits, op_codes : array-like of integers, shape (n,)
        Pruned cells packed as `Cell.from_bits` takes them. Ranges are checked, paths and limits are not.
    shape : MotifShape

    Returns
    -------
    ndarray, shape (n,), int64

    Raises
    ------
    ValueError
        If the columns differ in length or a value is out of range, or if `shape` has fewer stem channels than interior
        vertices feed the output of a cell. The message names the row.
    """
    return _count_table(vertices, edge_bits, op_codes, shape, _parameter_terms(_checked_shape(shape)))


def count_flops_table(
    vertices: npt.ArrayLike,
    edge_bits: npt.ArrayLike,
    op_codes: npt.ArrayLike,
    shape: MotifShape,
    image_size: int | tuple[int, int] = 16,
) -> npt.NDArray[np.int64]:
    """Count the floating-point operations of many cells at once: `count_flops` of every row of a table.

    Columns, result and errors are those of `count_parameters_table`.
    """
    return _count_table(vertices, edge_bits, op_codes, shape, _flop_terms(_checked_shape(shape), image_size))


def full_size_counts(cells: Sequence[MotifCell]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count the trainable parameters of cells in their benchmark's own network, and its FLOPs for one image of 32 x 32.

    Parameters
    ----------
    cells : sequence of n Cell in `NASBENCH101`, or of n NatsCell in `NATSBENCH`

    Returns
    -------
    parameters, flops : ndarray, shape (n,), int64
        0 where no path leads through a cell of NATS-Bench.
    """
    if not len(cells) or isinstance(cells[0], Cell):
        columns = cells if isinstance(cells, CellColumns) else CellColumns.from_cells(cast(Any, cells))
        table = (columns.vertices, columns.edge_bits, columns.op_codes)
        return count_parameters_table(*table, NASBENCH101), count_flops_table(*table, NASBENCH101, _IMAGE_SIZE)
    nats = cells if isinstance(cells, NatsColumns) else NatsColumns.from_cells(cast(Any, cells))
    codes = np.where(nats.used, nats.edge_ops, 0)
    convs = np.array([NATS_OPS.index(op) for op in ("nor_conv_1x1", "nor_conv_3x3")])
    alike = np.column_stack([(codes[:, None] == convs[:, None]).sum(axis=2), nats.trainable])
    _, first, which = np.unique(alike, axis=0, return_index=True, return_inverse=True)
    counts = [
        (count_parameters(cell, NATSBENCH), count_flops(cell, NATSBENCH, _IMAGE_SIZE)) if cell.matrix.any() else (0, 0)
        for cell in nats[first]
    ]
    parameters, flops = np.array(counts, np.int64)[which.ravel()].T
    return parameters, flops


@dataclass(frozen=True)
class _Terms:
    """A count as a sum: `fixed`, and per cell position `per_weight` x weights + `per_norm` x normalised channels.

    `positions` holds (c_in, c_out, per_weight, per_norm) of every cell position.
    """

    fixed: int
    positions: list[tuple[int, int, int, int]]


def _parameter_terms(shape: MotifShape) -> _Terms:
    stem = shape.image_channels * 9 * shape.stem_channels + 2 * shape.stem_channels
    dense = shape.out_channels * shape.classes + shape.classes
    return _Terms(stem + dense, [(c_in, c_out, 1, 2) for _, _, c_in, c_out in shape.cell_io()])


def _flop_terms(shape: MotifShape, image_size: int | tuple[int, int]) -> _Terms:
    given = plain(image_size)
    sides = tuple(given) if isinstance(given, tuple | list | np.ndarray) else (given, given)
    if len(sides) != 2:
        raise ValueError(f"image_size is {image_size}, expected an integer or (height, width)")
    height, width = (checked_integer("image_size", side) for side in sides)
    if min(height, width) >> (shape.stacks - 1) < 1:
        raise ValueError(
            f"image_size is {height}x{width}, expected at least {1 << (shape.stacks - 1)} pixels a side: "
            f"pooling halves it {shape.stacks - 1} times"
        )
    pixels = [(height >> stack) * (width >> stack) for stack in range(shape.stacks)]
    stem = pixels[0] * shape.image_channels * 9 * shape.stem_channels
    dense = shape.out_channels * shape.classes
    positions = [(c_in, c_out, 2 * pixels[stack], 0) for stack, _, c_in, c_out in shape.cell_io()]
    return _Terms(2 * (stem + dense), positions)


def _checked_shape(shape: MotifShape) -> MotifShape:
    return checked_instance("shape", shape, MotifShape, "a spd_fast.MotifShape")


def _count(cell: MotifCell, shape: MotifShape, terms: _Terms) -> int:
    checked_instance("cell", cell, shape.cell_types, "one spd_fast.Cell or spd_fast.NatsCell")
    total = terms.fixed
    for c_in, c_out, per_weight, per_norm in terms.positions:
        channels = cell.vertex_channels(c_in, c_out)
        weights, normalised = cell.conv_counts(channels)
        total += per_weight * weights + per_norm * normalised
    return total


def _count_table(
    vertices: npt.ArrayLike, edge_bits: npt.ArrayLike, op_codes: npt.ArrayLike, shape: MotifShape, terms: _Terms
) -> npt.NDArray[np.int64]:
    from spd_fast.spaces.table_loops import weighted_counts

    table = CellColumns(vertices, edge_bits, op_codes)
    n, bits, codes = (column.astype(np.int64) for column in (table.vertices, table.edge_bits, table.op_codes))
    to_output = bits >> (n - 1) * (n - 2) // 2
    fan_in = np.sum(to_output[:, None] >> np.arange(1, MAX_VERTICES - 1) & 1, axis=1)
    fault = f"more interior vertices feeding its output than the shape has stem channels ({shape.stem_channels})"
    require_rows(fan_in <= shape.stem_channels, fault)
    counts: npt.NDArray[np.int64] = weighted_counts(n, bits, codes, np.array(terms.positions, np.int64))
    return counts + terms.fixed
