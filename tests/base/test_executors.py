"""Work that is spread over executors: all of it comes back once, with the same bits, whatever dies on the way."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from spd_fast.base import executors
from spd_fast.base.executors import Spread

COSTS = np.random.default_rng(0).uniform(1e8, 1e9, 100)


def squares(shared: float, places: npt.NDArray[np.int64], group: int) -> npt.NDArray[np.float64]:
    return shared + group + places.astype(float) ** 2


def dies(shared: Path, places: npt.NDArray[np.int64], group: int) -> npt.NDArray[np.int64]:
    """The last piece kills its process."""
    if 99 in places:
        os._exit(1)
    return places


def fails(shared: str, places: npt.NDArray[np.int64], group: int) -> None:
    raise ValueError(shared)


def arguments(group: int, places: npt.NDArray[np.int64]) -> tuple[Any, ...]:
    return places, group


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    """Two processes that are not forked, because this one has threads."""
    with ProcessPoolExecutor(2, max_tasks_per_child=1000) as pool:
        yield pool


def collected(executor: Executor, **options: Any) -> tuple[npt.NDArray[np.float64], list[int]]:
    found = np.full(len(COSTS), np.nan)
    sizes = []
    for group, places, values in Spread(executor).run(squares, 0.5, COSTS, arguments, **options):
        assert np.isnan(found[places]).all(), "nothing comes twice"
        found[places] = values - group
        sizes.append(len(places))
    return found, sizes


def test_everything_comes_back_once(processes: Executor) -> None:
    groups = np.arange(100) % 3
    for pool in (processes, ThreadPoolExecutor(3)):
        for options in ({}, {"groups": groups}, {"longest_first": False}):
            found, sizes = collected(pool, **options)
            assert np.array_equal(found, 0.5 + np.arange(100.0) ** 2)
            assert len(sizes) > 3


def test_the_longest_comes_first() -> None:
    begun: list[int] = []

    def note(shared: None, places: npt.NDArray[np.int64], group: int) -> None:
        begun.extend(places.tolist())

    with ThreadPoolExecutor(1) as pool:
        for longest_first, order in ((True, np.argsort(-COSTS)), (False, np.arange(100))):
            begun.clear()
            list(Spread(pool).run(note, None, COSTS, arguments, longest_first=longest_first))
            assert begun == order.tolist()


def test_an_error_of_the_work_is_raised_as_it_is(processes: Executor) -> None:
    with pytest.raises(ValueError, match="no such thing"):
        list(Spread(processes).run(fails, "no such thing", COSTS, arguments))


def test_a_process_that_dies_ends_the_pool_and_keeps_what_is_done() -> None:
    """The job that kills is the last one."""
    done: list[int] = []
    with ProcessPoolExecutor(1, max_tasks_per_child=1000) as pool:
        spread = Spread(pool)
        pieces = spread.run(dies, None, np.full(100, 1e9), arguments, longest_first=False)
        with pytest.raises(BrokenExecutor, match=r"a process of the ProcessPoolExecutor died.*begin again with a new"):
            done.extend(place for _, _, places in pieces for place in places.tolist())
        assert len(done) > 50
        assert done == sorted(set(done))
        with pytest.raises(BrokenExecutor, match="begin again with a new executor"):
            list(spread.run(squares, 0.5, COSTS, arguments))


def test_other_builds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bits would differ."""
    with ThreadPoolExecutor(1) as pool:
        pieces = Spread(pool).run(squares, 0.5, COSTS, arguments)
        monkeypatch.setattr(executors._core, "isa", "other")
        handed_out = executors._Build(executors._core.version, "avx2")
        with pytest.raises(RuntimeError, match=r"instruction set other, expected .* with avx2 .* set SPD_FAST_ISA"):
            executors._run(handed_out, squares, 0.5, np.arange(3), 0)
        list(pieces)


class Losing(executors._Pool):
    """A cluster that loses some workers."""

    def __init__(self, executor: Any, losses: int) -> None:
        super().__init__(executor)
        self.losses = losses

    def submit(self, function: Any, *arguments: Any) -> Any:
        self.losses -= 1
        return self._executor.submit(lost if self.losses >= 0 else function, *arguments)

    def was_lost(self, error: BaseException) -> bool:
        return isinstance(error, ConnectionError)


def lost(*arguments: Any) -> None:
    raise ConnectionError("the machine is gone")


def test_a_piece_whose_worker_was_lost_is_begun_again() -> None:
    with ThreadPoolExecutor(2) as pool:
        spread = Spread(pool)
        spread._backend = Losing(pool, 4)
        found = np.concatenate([values for _, _, values in spread.run(squares, 0.0, COSTS, arguments)])
        assert np.array_equal(np.sort(found), np.arange(100.0) ** 2)
        spread._backend = Losing(pool, 10**6)
        with pytest.raises(
            RuntimeError, match=r"lost its worker 5 times, the last time by: the machine is gone; it may"
        ):
            list(spread.run(squares, 0.0, COSTS, arguments))


def test_what_has_not_begun_is_cancelled() -> None:
    begun, go = [], threading.Event()

    def wait(shared: None, places: npt.NDArray[np.int64], group: int) -> None:
        begun.append(places)
        go.wait()

    with ThreadPoolExecutor(1) as pool:
        over = time.monotonic() + 0.2
        pieces = Spread(pool).run(wait, None, np.full(9, 1e12), arguments, until=lambda: time.monotonic() > over)
        threading.Timer(1.5, go.set).start()
        assert len(list(pieces)) == 1, "what has begun is waited for, and nothing else begins"
        go.clear()
        begun.clear()
        pieces = Spread(pool).run(wait, None, np.full(9, 1e12), arguments)
        threading.Timer(0.1, go.set).start()
        next(pieces)
        pieces.close()
    assert len(begun) <= 2


def test_what_is_no_executor() -> None:
    with pytest.raises(TypeError, match=r"executor is 'ray', expected a concurrent\.futures\.Executor, a dask"):
        Spread("ray")
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="threads is 0, expected at least 1"):
        Spread(pool, 0)
