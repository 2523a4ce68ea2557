"""Training and hypergradients by an executor: piece by piece, put together to the same bits as `train` and `differentiate` return."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from spd_fast.base.executors import Spread
from spd_fast.base.types import Progress
from spd_fast.dish import Dish
from spd_fast.engine.hypergradient import Hypergradient, Reverse, differentiate
from spd_fast.engine.inner_loop import InnerLoop
from spd_fast.engine.specs import forward_flops
from spd_fast.engine.training import TrainResult, train
from spd_fast.motif import Shape
from spd_fast.spaces.candidate import Candidate

__all__ = ["differentiate_by", "train_by"]

_Record = TypeVar("_Record")
_Common = tuple[Any, Shape, Dish, int]


def train_by(
    spread: Spread,
    loop: InnerLoop,
    cells: Sequence[Candidate],
    shape: Shape,
    dish: Dish,
    *,
    progress: Progress | None = None,
) -> TrainResult:
    """Return what `spd_fast.engine.training.train` returns."""
    return _by(spread, _trained, None, loop, cells, shape, dish, progress)


def differentiate_by(
    spread: Spread,
    loop: InnerLoop,
    reverse: Reverse,
    cells: Sequence[Candidate],
    shape: Shape,
    dish: Dish,
    *,
    progress: Progress | None = None,
) -> Hypergradient:
    """Return what `spd_fast.engine.hypergradient.differentiate` returns."""
    return _by(spread, _differentiated, reverse, loop, cells, shape, dish, progress)


def _trained(common: _Common, loop: InnerLoop, cells: Sequence[Candidate]) -> TrainResult:
    _, shape, dish, threads = common
    return train(loop, cells, shape, dish, threads=threads)


def _differentiated(common: _Common, loop: InnerLoop, cells: Sequence[Candidate]) -> Hypergradient:
    reverse, shape, dish, threads = common
    return differentiate(loop, reverse, cells, shape, dish, threads=threads)


def _by(
    spread: Spread,
    function: Callable[[_Common, InnerLoop, Sequence[Candidate]], _Record],
    reverse: Reverse | None,
    loop: InnerLoop,
    cells: Sequence[Candidate],
    shape: Shape,
    dish: Dish,
    progress: Progress | None,
) -> _Record:
    trainings = 1 if reverse is None else 4
    costs = forward_flops(cells, shape, dish.images.shape[1:]) * (3 * trainings * loop.epochs * len(dish.images))
    init = loop.init

    def arguments(_: int, places: npt.NDArray[np.int64]) -> tuple[InnerLoop, list[Candidate]]:
        own = loop if isinstance(init, str) else replace(loop, init=[init[place] for place in places.tolist()])
        return own, [cells[place] for place in places.tolist()]

    whole, done = max(float(costs.sum()), 1.0), 0.0
    found, order = [], []
    with closing(spread.run(function, (reverse, shape, dish, spread.threads), costs, arguments)) as pieces:
        for _, places, record in pieces:
            found.append(record)
            order.append(places)
            done += float(costs[places].sum())
            if progress is not None:
                progress(done / whole)
    joined: _Record = _joined(found, np.argsort(np.concatenate(order)))
    return joined


def _joined(parts: Sequence[Any], order: npt.NDArray[np.int64]) -> Any:
    """Return records, lists or arrays of some motifs each as one of all motifs, in this order. What has no axis of motifs is alike in all."""
    first = parts[0]
    if is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in fields(first)]
        return type(first)(**{name: _joined([getattr(part, name) for part in parts], order) for name in names})
    if isinstance(first, dict):
        return {name: _joined([part[name] for part in parts], order) for name in first}
    if isinstance(first, tuple):
        return tuple(_joined([part[k] for part in parts], order) for k in range(len(first)))
    if isinstance(first, list):
        every = [each for part in parts for each in part]
        return [every[place] for place in order.tolist()]
    if isinstance(first, np.ndarray):
        array = np.concatenate(list(parts))
        return array[order] if len(array) == len(order) else array
    return first
