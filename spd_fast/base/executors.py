"""Executors: where motifs are trained, if not by the threads of this process.

`Spread` cuts work into pieces, hands them to an executor, longest first, and returns their results as they come. An executor is a
`concurrent.futures.Executor`, a `dask.distributed.Client`, or the module `ray` after ``ray.init()``.

A piece is a call of a function that depends on its arguments alone, so it may run anywhere, and twice. If a worker dies, Ray's and Dask's
pieces that it had are run by another one, and nothing else is lost. A process pool of `concurrent.futures` cannot be used any more when one
of its processes died; then an error says so, after all results that are there were returned.
"""

import time
import warnings
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import BrokenExecutor, CancelledError, Future
from concurrent.futures import Executor as PoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

import spd_fast._core as _core
from spd_fast.base.types import checked_integer, shown

__all__ = ["Executor", "Spread", "checked_executor"]

Executor = object
"""A `concurrent.futures.Executor`, a `dask.distributed.Client`, or the module `ray` after ``ray.init()``."""

_SHORTEST, _LONGEST = 0.2, 10.0
"""Seconds of work in a piece: the last pieces are short, so that all workers end at about the same time; a long one is what a lost worker
costs."""
_HANDLING: Final = 0.005
"""Seconds of this process for a piece: where many workers are kept busy, their pieces are longer, so that it can keep up."""
_TRIES: Final = 5
"""How often a piece is begun before it is taken to be what kills its workers."""
_FIRST_PACE: Final = 2e10
"""FLOPs of training per second and core that are expected until the first piece has come back."""
_ASKED_AGAIN: Final = 5.0
"""Seconds after which an executor is asked anew how many pieces it runs at once: clusters grow and shrink."""
_UNKNOWN_SLOTS: Final = 512
"""Pieces that are handed out at once, by half, to an executor that does not tell how many it runs."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Build:
    """What has to be the same wherever pieces run, for their results to have the same bits."""

    version: str
    isa: str


def _run(build: _Build, function: Callable[..., Any], shared: Any, *arguments: Any) -> tuple[float, Any]:
    """Run a piece on a worker: return its seconds and its result."""
    here = _Build(_core.version, _core.isa)
    if here != build:
        raise RuntimeError(
            f"a worker has spd_fast {here.version} with the instruction set {here.isa}, expected {build.version} with {build.isa} as where "
            "the work was begun, because results would differ in their last bits: install one version everywhere, and set "
            "SPD_FAST_ISA to one instruction set that all machines have"
        )
    began = time.perf_counter()
    result = function(shared, *arguments)
    return time.perf_counter() - began, result


# ---- what the kinds of executors have in common


class _Backend(Protocol):
    """What `Spread` needs of an executor."""

    @property
    def tries(self) -> int:
        """How many workers a call loses before its loss is told."""

    def slots(self) -> int | None:
        """Return how many pieces run at once; None if that is not known."""

    def share(self, value: object) -> Any:
        """Return what stands for a value that many pieces take, so that it travels once to each machine or worker."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Begin a call."""

    def withdraw(self, future: "Future[Any]") -> bool:
        """End a call if it is certain that it has not begun; return whether it was ended."""

    def cancel(self, future: "Future[Any]") -> None:
        """End a call whose result nobody needs any more, if that is possible."""

    def was_lost(self, error: BaseException) -> bool:
        """Return whether the worker was lost, so that another one may run the call."""

    def own_error(self, error: BaseException) -> BaseException:
        """Return the error that the function itself raised."""


class _Pool:
    """A `concurrent.futures.Executor`: threads or processes of this machine, or whatever else has its interface."""

    tries = 1

    def __init__(self, executor: PoolExecutor) -> None:
        self._executor = executor

    def slots(self) -> int | None:
        found = [getattr(self._executor, name, None) for name in ("_max_workers", "num_workers")]
        return next((int(each) for each in found if isinstance(each, int) and each > 0), None)

    def share(self, value: object) -> Any:
        return value

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        return self._executor.submit(function, *arguments)

    def withdraw(self, future: "Future[Any]") -> bool:
        return future.cancel()

    def cancel(self, future: "Future[Any]") -> None:
        future.cancel()

    def was_lost(self, error: BaseException) -> bool:
        return False

    def own_error(self, error: BaseException) -> BaseException:
        return error


class _Dask:
    """A `dask.distributed.Client`. Its scheduler gives the calls of a lost worker to others by itself."""

    def __init__(self, client: Any) -> None:
        import dask.config
        import distributed

        if client.asynchronous:
            raise ValueError(
                "executor is an asynchronous Dask client, expected one that was made without asynchronous=True"
            )
        self._client, self._killed = client, distributed.KilledWorker
        self.tries = 1 + int(dask.config.get("distributed.scheduler.allowed-failures", 3))
        self._futures: dict[Future[Any], Any] = {}

    def slots(self) -> int | None:
        return max(1, sum(map(int, self._client.nthreads().values())))

    def share(self, value: object) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")  # it is sent once, and not with each call
            # a call, unlike scattered data, is run again where all workers that had its result are lost
            return self._client.submit(_itself, value, pure=False)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        answer: Future[Any] = Future()
        future = self._futures[answer] = self._client.submit(function, *arguments, pure=False)
        future.add_done_callback(lambda done: self._hand_over(done, answer))
        return answer

    def withdraw(self, future: "Future[Any]") -> bool:
        return False

    def cancel(self, future: "Future[Any]") -> None:
        of_dask = self._futures.pop(future, None)
        if of_dask is not None:
            of_dask.cancel()

    def was_lost(self, error: BaseException) -> bool:
        return isinstance(error, self._killed)

    def own_error(self, error: BaseException) -> BaseException:
        return error

    def _hand_over(self, done: Any, answer: "Future[Any]") -> None:
        try:
            result = done.result()
        except BaseException as error:
            answer.set_exception(error)
        else:
            answer.set_result(result)
        self._futures.pop(answer, None)


class _Ray:
    """Tasks of Ray. A task is begun again by `Spread` and not by Ray, which would count to the same limit once more."""

    tries = 1

    def __init__(self, ray: Any, threads: int) -> None:
        if not ray.is_initialized():
            raise ValueError(
                "executor is the module ray, which is not connected: call ray.init() with the cluster's address"
            )
        most = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
        if most < threads:
            raise ValueError(
                f"threads is {threads}, expected at most {most:g}: no node of the Ray cluster has more processors"
            )
        self._ray, self._threads = ray, threads
        self._tasks: dict[Callable[..., Any], Any] = {}  # a function is sent to the cluster once
        self._references: dict[Future[Any], Any] = {}

    def slots(self) -> int | None:
        return max(1, int(self._ray.cluster_resources().get("CPU", 0)) // self._threads)

    def share(self, value: object) -> Any:
        return self._ray.put(value)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        if function not in self._tasks:
            self._tasks[function] = self._ray.remote(num_cpus=self._threads, max_retries=0)(function)
        reference = self._tasks[function].remote(*arguments)
        future: Future[Any] = reference.future()
        self._references[future] = reference
        future.add_done_callback(lambda done: self._references.pop(done, None))
        return future

    def withdraw(self, future: "Future[Any]") -> bool:
        return False

    def cancel(self, future: "Future[Any]") -> None:
        reference = self._references.pop(future, None)
        if reference is not None:
            self._ray.cancel(reference)

    def was_lost(self, error: BaseException) -> bool:
        names = (
            "WorkerCrashedError",
            "NodeDiedError",
            "LocalRayletDiedError",
            "ObjectLostError",
            "ObjectReconstructionFailedError",
            "OutOfMemoryError",
            "RaySystemError",
        )
        return isinstance(error, tuple(getattr(self._ray.exceptions, name) for name in names))

    def own_error(self, error: BaseException) -> BaseException:
        cause = getattr(error, "cause", None)
        return cause if isinstance(cause, BaseException) else error


def _itself(value: Any) -> Any:
    return value


def _backend_of(executor: Executor, threads: int) -> _Backend:
    if isinstance(executor, PoolExecutor):
        return _Pool(executor)
    if any(each.__module__ == "distributed.client" and each.__name__ == "Client" for each in type(executor).__mro__):
        return _Dask(executor)
    if getattr(executor, "__name__", "") == "ray" and hasattr(executor, "is_initialized"):
        return _Ray(executor, threads)
    raise TypeError(
        f"executor is {shown(executor)}, expected a concurrent.futures.Executor, a dask.distributed.Client, the module ray, or None"
    )


# ---- the work


@dataclass(eq=False)
class _Piece:
    group: int
    places: npt.NDArray[np.int64]
    cost: float
    tries: int = 0


class _Jobs:
    """Jobs that are left, in groups: a piece has jobs of one group."""

    def __init__(self, costs: npt.NDArray[np.float64], groups: npt.NDArray[np.int64], longest_first: bool) -> None:
        order = np.argsort(-costs, kind="stable") if longest_first else np.arange(len(costs))
        self._costs = costs
        self._queues = {int(group): order[groups[order] == group] for group in dict.fromkeys(groups[order].tolist())}
        self.left = float(costs.sum())

    def take(self, cost: float) -> _Piece | None:
        """Return the next jobs, of about this cost, or one; None if there is none left."""
        if not self._queues:
            return None
        # of the groups' next jobs the longest
        group = (
            max(self._queues, key=lambda each: self._costs[self._queues[each][0]])
            if len(self._queues) > 1
            else next(iter(self._queues))
        )
        queue = self._queues[group]
        size = max(1, int(np.searchsorted(np.cumsum(self._costs[queue[: 1 << 14]]), cost, side="right")))
        taken, rest = queue[:size], queue[size:]
        if len(rest):
            self._queues[group] = rest
        else:
            del self._queues[group]
        piece = _Piece(group, taken, float(self._costs[taken].sum()))
        self.left -= piece.cost
        return piece


class Spread:
    """Work that is spread over an executor, by one call after the other.

    Parameters
    ----------
    executor : concurrent.futures.Executor, dask.distributed.Client, or the module ray
    threads : int, optional
        Threads of each piece. Default: 1, because executors run as many pieces at once as they have processors.

    Raises
    ------
    TypeError
        If the executor is something else.
    ValueError
        If Ray is not connected, or none of its nodes has so many processors.
    """

    def __init__(self, executor: Executor, threads: int | None = None) -> None:
        self.threads = 1 if threads is None else checked_integer("threads", threads, 1)
        self._backend = _backend_of(executor, self.threads)
        self._what = executor.__name__ if hasattr(executor, "__name__") else type(executor).__name__
        self._cost = self._seconds = 0.0  # of the pieces that have come back
        self._slots, self._asked = 0, -np.inf

    @classmethod
    def of(cls, executor: Executor | None, threads: int | None) -> "Spread | None":
        """Return None without an executor, where the threads of this process do the work."""
        return None if executor is None else cls(executor, threads)

    def slots(self) -> int:
        """Return how many pieces run at once."""
        if time.monotonic() - self._asked > _ASKED_AGAIN:
            self._slots, self._asked = self._backend.slots() or _UNKNOWN_SLOTS, time.monotonic()
        return self._slots

    def run(
        self,
        function: Callable[..., _Result],
        shared: object,
        costs: npt.ArrayLike,
        arguments: Callable[[int, npt.NDArray[np.int64]], tuple[Any, ...]],
        *,
        groups: npt.ArrayLike | None = None,
        longest_first: bool = True,
        until: Callable[[], bool] | None = None,
    ) -> "Generator[tuple[int, npt.NDArray[np.int64], _Result]]":
        """Do jobs, piece by piece, and yield what comes back, in the order in which it does.

        Whoever closes the iterator, or raises an error while it waits, cancels what has not begun.

        Parameters
        ----------
        function : callable
            ``function(shared, *arguments(group, places))`` does the jobs at these places, on a worker. It is a function of a module, and its
            result depends on its arguments alone.
        shared : object
            An argument of every piece.
        costs : array-like, shape (n,)
            FLOPs of each job, or anything that its time is proportional to.
        arguments : callable
            It is called here, when a piece is handed out.
        groups : array-like of int, shape (n,), optional
            A piece has jobs of one group. Default: one group.
        longest_first : bool
            Whether long jobs begin before short ones, so that no worker waits long for the last one. Otherwise jobs begin in their order.
        until : callable, optional
            It is asked before each piece. From when it returns True on, no piece is begun, and those that have begun are waited for.

        Yields
        ------
        group : int
        places : ndarray of int
        result : what the function returned

        Raises
        ------
        BrokenExecutor
            If a process pool lost one of its processes.
        RuntimeError
            If a piece lost its worker five times (on Dask, which tries four workers itself, twenty times), or a worker has another version or instruction set.
        Exception
            What the function raises.
        """
        costs = np.maximum(np.asarray(costs, np.float64), 1.0)  # what takes no time is to be counted
        group_of = np.zeros(len(costs), np.int64) if groups is None else np.asarray(groups, np.int64)
        return self._run(function, shared, _Jobs(costs, group_of, longest_first), arguments, until or (lambda: False))

    def _run(
        self,
        function: Callable[..., _Result],
        shared: object,
        jobs: _Jobs,
        arguments: Callable[[int, npt.NDArray[np.int64]], tuple[Any, ...]],
        until: Callable[[], bool],
    ) -> "Generator[tuple[int, npt.NDArray[np.int64], _Result]]":
        build, handle = _Build(_core.version, _core.isa), self._backend.share(shared)
        done: SimpleQueue[Future[Any]] = SimpleQueue()
        pending: dict[Future[Any], _Piece] = {}
        again: deque[_Piece] = deque()
        broken: BaseException | None = None
        try:
            while True:
                while broken is None and len(pending) < 2 * self.slots() and not until():
                    piece = again.popleft() if again else jobs.take(self._next_cost(jobs.left))
                    if piece is None:
                        break
                    piece.tries += 1
                    try:
                        future = self._backend.submit(
                            _run, build, function, handle, *arguments(piece.group, piece.places)
                        )
                    except BrokenExecutor as error:
                        broken = error
                        break
                    pending[future] = piece
                    future.add_done_callback(done.put)
                if until():
                    for future in [each for each in pending if self._backend.withdraw(each)]:
                        del pending[future]
                if not pending:
                    break
                try:
                    future = done.get(timeout=0.1)
                except Empty:
                    continue
                piece = pending.pop(future, None)
                if piece is None:
                    continue  # it was withdrawn
                failure = _error_of(future)
                if failure is None:
                    seconds, result = future.result()
                    self._cost, self._seconds = self._cost + piece.cost, self._seconds + seconds
                    yield piece.group, piece.places, result
                elif isinstance(failure, BrokenExecutor):
                    broken = failure
                elif self._backend.was_lost(failure):
                    again.append(self._once_more(piece, failure))
                else:
                    raise self._backend.own_error(failure)
            if broken is not None:
                raise BrokenExecutor(
                    f"a process of the {self._what} died, and Python cannot start it again ({broken}): begin again with a new executor; "
                    "what was kept in a file is not done again"
                ) from broken
        finally:
            for future in pending:
                with suppress(Exception):
                    self._backend.cancel(future)

    def _next_cost(self, left: float) -> float:
        pace = self._cost / self._seconds if self._seconds else _FIRST_PACE
        shortest = max(_SHORTEST, _HANDLING * self.slots())
        return pace * min(max(left / pace / (2 * self.slots()), shortest), max(_LONGEST, shortest))

    def _once_more(self, piece: _Piece, error: BaseException) -> _Piece:
        if piece.tries >= _TRIES:
            raise RuntimeError(
                f"a piece of work lost its worker {piece.tries * self._backend.tries} times, the last time by: {error}; it may need more "
                "memory than the workers have: give them more, or fewer threads each, and begin again"
            ) from error
        return piece


def _error_of(future: "Future[Any]") -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error


def checked_executor(executor: Executor | None, threads: int | None = None) -> Executor | None:
    """Return an executor that `Spread` takes, or None.

    Raises
    ------
    TypeError, ValueError
        As `Spread`.
    """
    if executor is not None:
        Spread(executor, threads)
    return executor
