"""The bench of single convolutions: every algorithm of the engine beside oneDNN, which is called through PyTorch.

Each has three passes: forward, the gradient in its input (dgrad) and the gradient in its weights (wgrad).
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.table import Table

import spd_fast._core as _core
from spd_fast.base.types import Progress
from spd_fast.bench import record as records

__all__ = ["CHANNELS", "PASSES", "SIDES", "run", "tables"]

PASSES: Final = ("forward", "dgrad", "wgrad")
PEER: Final = "oneDNN"
CHANNELS: Final = [3, 4, 5, 6, 8, 10, 11, 16, 21, 32, 64]
SIDES: Final = [4, 8, 16, 32]
ERROR_LIMIT: Final = 3e-5  # the largest error seen is 9.3e-6
"""Largest difference of a result in float32 from double, relative to the largest value. Wrong code is off by far more."""
WORK: Final = 2e8
"""FLOPs of one measurement, at least: small convolutions are repeated."""


def run(
    *,
    channels: Sequence[int] = CHANNELS,
    sides: Sequence[int] = SIDES,
    rounds: int = 5,
    tolerance: float = ERROR_LIMIT,
    core: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Verify every algorithm against double, then time it, with a batch of 20 in float32 on one pinned thread.

    The time includes the packing of weights. For each image size the algorithms are those that a motif can use there.

    Parameters
    ----------
    channels : sequence of int
        Channels of 3x3 and 1x1 convolutions, of input and output alike. 3 stands for the stem, a 3x3 convolution from 3 to 16
        channels.
    sides : sequence of int
        Sides of the images in pixels.
    rounds : int
        How often each is timed, in turns. Each round has several runs, of which the shortest counts.
    tolerance : float
        Largest error against double, relative to the largest value, of what is timed.
    core, progress
        As in `spd_fast.bench.peak.run`.

    Returns
    -------
    dict
        The record. For each convolution ``seconds`` by algorithm ("oneDNN" is one) and pass, with one entry for each round;
        ``error`` by algorithm and pass, the largest difference from double; ``flop`` of one pass.

    Raises
    ------
    ValueError
        If an argument does not fit.
    RuntimeError
        If a result of an algorithm is wrong.
    """
    if rounds < 1 or not channels or not sides or min(*channels, *sides) < 1:
        raise ValueError(
            f"rounds {rounds}, channels {list(channels)}, sides {list(sides)}: expected at least 1 of each"
        )
    cases = [(size, c, 16 if c == 3 else c, side) for size in (3, 1) for side in sides for c in channels]
    cases = [case for case in cases if case[0] == 3 or case[1] != 3]
    record = records.begin("kernels", batch_size=records.BATCH, rounds=rounds)
    with records.pinned(core) as chosen:
        record["pinned_to"] = chosen
        record["fma_gflops"] = _core.fma_peak(0.2) / 1e9
        record["convolutions"] = []
        for i, case in enumerate(cases):
            record["convolutions"].append(_measure(*case, rounds, tolerance))
            if progress:
                progress((i + 1) / len(cases))
    return record


def _measure(size: int, c_in: int, c_out: int, side: int, rounds: int, tolerance: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = (records.BATCH, c_in, side, side), (c_out, c_in, size, size), (records.BATCH, c_out, side, side)
    x, k, dy = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    flop = 2 * size**2 * c_in * c_out * side**2 * records.BATCH
    repeats = int(np.clip(WORK / flop, 3, 100))
    expected = _peer(x, k, dy, 1, double=True)[0]
    error: dict[str, list[float]] = {}
    seconds: dict[str, list[list[float]]] = {}
    algorithms = _core.kernels.algorithms_at(side, side) if size == 3 else ["direct"]
    for _ in range(rounds):
        for name in algorithms:
            ours = _core.kernels.conv(x, k, dy, algorithm=name, repeats=repeats)
            _note(name, (ours.y, ours.dx, ours.dk), expected, ours.seconds, error, seconds)
            _require_close(name, error[name], tolerance)
        theirs, taken = _peer(x, k, dy, repeats)
        _note(PEER, theirs, expected, taken, error, seconds)
        _require_close(PEER, error[PEER], tolerance)
    return {"size": size, "c_in": c_in, "c_out": c_out, "side": side, "flop": flop, "seconds": seconds, "error": error}


def _note(
    name: str,
    got: Sequence[npt.NDArray[Any]],
    expected: Sequence[npt.NDArray[Any]],
    taken: list[float],
    error: dict[str, list[float]],
    seconds: dict[str, list[list[float]]],
) -> None:
    error[name] = [float(np.abs(g - e).max() / np.abs(e).max()) for g, e in zip(got, expected, strict=True)]
    seconds.setdefault(name, []).append(taken)


def _require_close(name: str, errors: Sequence[float], tolerance: float) -> None:
    if not max(errors) <= tolerance:
        raise RuntimeError(
            f"{name} is off by {max(errors):.1e}, expected {tolerance:.0e} at most: wrong results are not timed"
        )


def _peer(
    x: npt.NDArray[Any], k: npt.NDArray[Any], dy: npt.NDArray[Any], repeats: int, *, double: bool = False
) -> tuple[list[npt.NDArray[Any]], list[float]]:
    """Return the results of PyTorch's three passes, and the shortest time of each over both memory layouts."""
    import torch

    dtype, pad = torch.float64 if double else torch.float32, k.shape[-1] // 2
    best, results = [np.inf] * len(PASSES), []
    for layout in (torch.contiguous_format, torch.channels_last):
        xt, kt, dyt = (torch.tensor(a, dtype=dtype).to(memory_format=layout) for a in (x, k, dy))
        backward = partial(
            torch.ops.aten.convolution_backward, dyt, xt, kt, None, [1, 1], [pad, pad], [1, 1], False, [0, 0], 1
        )
        passes: list[Callable[[], Any]] = [
            partial(torch.conv2d, xt, kt, padding=pad),
            partial(backward, [True, False, False]),
            partial(backward, [False, True, False]),
        ]
        y, (dx, *_), (_, dk, _) = (call() for call in passes)
        results = [result.numpy() for result in (y, dx, dk)]
        for i, call in enumerate(passes):
            for _ in range(repeats):
                started = time.perf_counter()
                call()
                best[i] = min(best[i], time.perf_counter() - started)
    return results, best


def tables(record: dict[str, Any]) -> list[Table]:
    """Return a table of the useful GFLOP/s of every convolution: forward / dgrad / wgrad, the best of all rounds."""
    machine, peak = record["machine"], record["fma_gflops"]
    contenders = list(dict.fromkeys(name for entry in record["convolutions"] for name in entry["seconds"]))
    table = Table(
        title=f"GFLOP/s, forward / dgrad / wgrad: {machine['processor']}, {machine['instruction_set']}, FMA peak {peak:.0f}",
        title_justify="left",
        caption="error: the largest difference of the engine's results from double, relative to the largest value",
        caption_justify="left",
    )
    for heading in ("convolution", *contenders, "best of ours, of peak", "x oneDNN", "error"):
        table.add_column(heading, justify="left" if heading == "convolution" else "right")
    for entry in record["convolutions"]:
        rates = {name: gflops(entry, name) for name in entry["seconds"]}
        ours = np.max([rates[name] for name in rates if name != PEER], axis=0)
        table.add_row(
            f"{entry['size']}x{entry['size']} {entry['c_in']}->{entry['c_out']} @{entry['side']}",
            *(" / ".join(f"{rate:.0f}" for rate in rates[name]) if name in rates else "" for name in contenders),
            " / ".join(f"{rate / peak:.2f}" for rate in ours),
            " / ".join(f"{rate:.1f}" for rate in ours / rates[PEER]),
            f"{max(max(errors) for name, errors in entry['error'].items() if name != PEER):.0e}",
        )
    return [table]


def gflops(entry: dict[str, Any], name: str) -> npt.NDArray[np.float64]:
    """Return the useful GFLOP/s of each pass, from the shortest time of all rounds."""
    return np.asarray(entry["flop"] / np.min(entry["seconds"][name], axis=0) / 1e9)
