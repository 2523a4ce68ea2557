"""The weights that all cells of a space share, and how they are trained: every step trains the motif of one cell.

A *role* is a named tensor of a supernet, as large as the widest cell of the space needs it. The motif of a cell takes of each role
the first output and input channels that it has; a 1x1 convolution takes the centre of the 3x3 tensor of its role. These are the slices
that ``init="shared"`` draws (`spd_fast.engine.initial`), but for one factor in each layer: the number of inputs by which initial weights are
scaled is here that of the role.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

import spd_fast._core as _core
from spd_fast.base.interrupts import stopped_with_main
from spd_fast.base.machine import thread_count
from spd_fast.base.types import Array, Progress
from spd_fast.dish import Dish
from spd_fast.engine.initial import draw_weights
from spd_fast.engine.inner_loop import InnerLoop
from spd_fast.engine.specs import BATCH_NORM_EPS, checked_image_shape, owned, specs_of, unpack_weights
from spd_fast.engine.training import sample_orders
from spd_fast.learnables.labels import label_matrix
from spd_fast.motif import MotifShape
from spd_fast.spaces.candidate import Candidate
from spd_fast.spaces.cell import Cell
from spd_fast.spaces.nats_cell import NatsCell

__all__ = [
    "DivergedError",
    "Roles",
    "SupernetJob",
    "SupernetState",
]


class DivergedError(ValueError):
    """The loss of a training step is NaN or infinite. The message says which step, and what to change."""


_CONV: Final = "conv3x3-bn-relu"


@cache
def _widest(cell_type: type) -> list[Candidate]:
    """Return cells that together have every role of their space, each with all the channels that any cell has in it."""
    if cell_type is NatsCell:
        return [NatsCell(("nor_conv_3x3",) * 6)]
    ops = ["input", *[_CONV] * 5, "output"]
    cells: list[Candidate] = []
    for projected in ((2, 3, 4), (5, 6)):  # nine edges are the most that a cell has
        matrix = np.eye(7, k=1, dtype=int)
        matrix[0, projected] = 1
        cells.append(Cell(matrix, ops))
    return cells


class Roles:
    """The roles of a supernet, one behind the other in one flat vector.

    Parameters
    ----------
    shape : MotifShape
    cell_type : type
        `Cell` or `NatsCell`: the space.
    image_shape : (C, H, W)

    Attributes
    ----------
    dims : dict {name: tuple of int}
        The shape of the tensor of every role.
    size : int
        Number of weights.
    """

    def __init__(self, shape: MotifShape, cell_type: type, image_shape: tuple[int, ...]) -> None:
        self.shape, self.cell_type, self.image_shape = shape, cell_type, image_shape
        specs = specs_of(_widest(cell_type), shape, image_shape)
        self.dims = {name: dims for spec in specs for name, _, dims in spec.tables.parameters}
        ends = np.cumsum([math.prod(dims) for dims in self.dims.values()]).tolist()
        self.size: int = ends[-1]
        self._places = {
            name: np.arange(end - math.prod(dims), end, dtype=np.int32).reshape(dims)
            for (name, dims), end in zip(self.dims.items(), ends, strict=True)
        }

        self._slices: dict[tuple[str, tuple[int, ...]], npt.NDArray[np.int32]] = {}

    def initial(self, loop: InnerLoop) -> Array:
        """Return drawn initial weights of all roles, shape (size,): those of the widest cells with ``init="shared"``."""
        shared = replace(loop, init="shared")
        drawn = draw_weights(
            _widest(self.cell_type), self.shape, shared, image_shape=checked_image_shape(self.image_shape)
        )
        weights: dict[str, Array] = {name: array for each in drawn for name, array in each.items()}
        return np.concatenate([weights[name].ravel() for name in self.dims])

    def specs(self, cells: Sequence[Candidate]) -> list[_core.MotifSpec]:
        """Return the descriptions from which the engine builds the motifs of cells."""
        return specs_of(cells, self.shape, self.image_shape)

    def slice_of(self, spec: _core.MotifSpec) -> npt.NDArray[np.int32]:
        """Return where each weight of a motif's flat vector is in the supernet's."""
        where = np.empty(spec.tables.n_parameters, np.int32)
        for name, at, dims in spec.tables.parameters:
            if (name, dims) not in self._slices:
                place = self._places[name][tuple(map(slice, dims[:2]))]
                self._slices[name, dims] = (place if place.shape == dims else place[:, :, 1:2, 1:2]).ravel()
            part = self._slices[name, dims]
            where[at : at + len(part)] = part
        return where

    def weights_of(self, spec: _core.MotifSpec, weights: Array) -> dict[str, Array]:
        """Return copies of the weights of a motif by name, from the supernet's weights, shape (size,)."""
        return unpack_weights(spec, weights[self.slice_of(spec)])


@dataclass(frozen=True, eq=False)
class SupernetState:
    """A supernet in training, from which it can be continued.

    Attributes
    ----------
    step : int
        Number of steps that are done.
    weights : ndarray, shape (size,)
        The weights of all roles.
    first, second : ndarray, shape (size,)
        What the optimizer remembers of every weight: Adam's running means of gradients and of their squares, for example.
    step_loss, step_accuracy : ndarray, shape (steps,)
        Loss and accuracy of the batch of every step before its update; NaN for steps that are not done.
    """

    step: int
    weights: Array
    first: Array
    second: Array
    step_loss: npt.NDArray[np.float64]
    step_accuracy: npt.NDArray[np.float64]


class SupernetJob:
    """The training of a supernet on a dish, which can be cut into any number of calls.

    Parameters
    ----------
    loop : InnerLoop
        Its epochs, batch size, optimizer, schedule, seed, distribution of initial weights and arithmetic are used. It leaves out
        a last batch that is smaller than the others (`drop_last`).
    roles : Roles
    dish : Dish
        The training images.
    drawn : sequence of Cell or NatsCell
        The cell of every step.

    Raises
    ------
    ValueError, TypeError
        If cells, dish and loop do not fit each other.
    """

    def __init__(self, loop: InnerLoop, roles: Roles, dish: Dish, drawn: Sequence[Candidate]) -> None:
        self._loop, self._roles, self._drawn = loop, roles, drawn
        n, batch = len(dish.images), loop.batch(len(dish.images))
        self._data = (
            owned(dish.images, loop.dtype),
            label_matrix(dish.labels, roles.shape.classes, loop.dtype),
        )
        orders = sample_orders(loop.order, loop.seed, loop.epochs, n)
        self._order = np.ascontiguousarray(orders[:, : n // batch * batch].reshape(-1, batch))
        self._rates = self._loop.rates(n)
        roles.specs(drawn)  # a cell that does not fit is told before the first step; kept, they would take much memory

    def begin(self) -> SupernetState:
        """Return the state before the first step."""
        weights = self._roles.initial(self._loop)
        none = np.full(len(self._rates), np.nan)
        return SupernetState(0, weights, np.zeros_like(weights), np.zeros_like(weights), none, none)

    def advance(
        self, state: SupernetState, steps: int, *, threads: int | None = None, progress: Progress | None = None
    ) -> SupernetState:
        """Return the state after so many more steps, which is the same to the last bit for any number of threads and of calls.

        Raises
        ------
        DivergedError
            If the loss of a step is NaN or infinite.
        """
        now = slice(state.step, state.step + steps)
        specs = self._roles.specs(self._drawn[now])
        weights, first, second = (vector.copy() for vector in (state.weights, state.first, state.second))
        done = _core.train_supernet(
            specs,
            *self._data,
            self._order[now],
            self._loop.optimizer._for_engine(),
            self._rates[now],
            state.step,
            [self._roles.slice_of(spec) for spec in specs],
            weights,
            first,
            second,
            BATCH_NORM_EPS,
            self._loop.direct_convolutions,
            thread_count(threads),
            stopped_with_main(progress),
        )
        if done.diverged_step >= 0:
            raise DivergedError(
                f"the loss of step {done.diverged_step} of the supernet is not finite: the learning rate {self._loop.optimizer.lr} is "
                "too high, choose a lower inner.optimizer.lr"
            )
        step_loss, step_accuracy = state.step_loss.copy(), state.step_accuracy.copy()
        step_loss[now], step_accuracy[now] = done.step_loss, done.step_accuracy
        return SupernetState(state.step + len(specs), weights, first, second, step_loss, step_accuracy)
