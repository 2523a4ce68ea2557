"""The bench of untrained motifs: the forward pass over a set of images, and the zero-cost proxies, beside PyTorch.

The bench first compares the scores of both. Then it times them in turns on one pinned thread. The engine scores all cells in one call, as
a user would; PyTorch scores them one after the other, and its modules are built before the clock starts.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.table import Table

from spd_fast.base.types import Progress
from spd_fast.bench import record as records
from spd_fast.dish import Dish
from spd_fast.engine.gradients import pack_motifs, read_motifs
from spd_fast.engine.initial import initial_parameters
from spd_fast.engine.specs import Parameters
from spd_fast.motif import MotifShape
from spd_fast.predictors import proxies
from spd_fast.spaces.candidate import MotifCell
from spd_fast.spaces.cell import Cell

__all__ = ["FORWARD", "IMAGES", "NAMES", "pytorch", "run", "tables"]

FORWARD: Final = "forward"
NAMES: Final = [FORWARD, *proxies.PROXIES]
"""What is timed: the forward pass and every zero-cost proxy."""
IMAGES: Final = 60
"""Images in the batch that all proxies are computed on."""
TOLERANCE: Final = 1e-2
"""Largest relative difference of scores in float32: rounding switches single ReLUs, and jacob_cov divides by small eigenvalues."""

Scores = npt.NDArray[np.float64]
Call = Callable[[], Scores]


def run(
    cells: Sequence[Cell],
    shapes: str = records.ALL,
    *,
    rounds: int = 5,
    tolerance: float = TOLERANCE,
    core: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare the scores, then time the forward pass and each proxy.

    Parameters
    ----------
    cells : sequence of Cell
    shapes : str
        Motifs, letters of ABCS.
    rounds : int
        How often each is timed, in turns; the median counts.
    tolerance : float
        How far the scores of what is timed may be apart, relatively.
    core, progress
        As in `spd_fast.bench.peak.run`.

    Returns
    -------
    dict
        The record. For each shape, and for "forward" and each proxy: ``seconds_per_cell`` of both contenders with one entry for
        each round, ``speedup``, the ratio of their medians, and ``apart``, the relative difference of the scores.

    Raises
    ------
    ValueError
        If an argument does not fit.
    RuntimeError
        If a score differs from that of the reference.
    """
    motifs = records.motifs_named(shapes)
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, expected at least 1")
    steps = [(letter, name) for letter in motifs for name in NAMES]
    record = records.begin("proxies", images=IMAGES, cells=len(cells), rounds=rounds, shapes={})
    with records.pinned(core) as chosen:
        record["pinned_to"] = chosen
        for i, (letter, name) in enumerate(steps):
            rows, motif = record["shapes"].setdefault(letter, {}), motifs[letter]
            dish = Dish.random(per_class=IMAGES // 10, image_size=motif.side)
            rows[name] = _measure(cells, motif.shape, dish, name, rounds, tolerance)
            if progress:
                progress((i + 1) / len(steps))
    return record


def _measure(
    cells: Sequence[Cell], shape: MotifShape, dish: Dish, name: str, rounds: int, tolerance: float
) -> dict[str, Any]:
    weights = [initial_parameters(cell, shape) for cell in cells]
    ours, theirs = _engine(cells, shape, dish, name, weights), pytorch(cells, shape, dish, name, weights)
    found, expected = ours(), theirs()()
    apart = float(np.abs(found / expected - 1).max())
    if not apart <= tolerance:
        raise RuntimeError(
            f"scores of {name} are {apart:.1e} apart, expected {tolerance:.0e} at most: wrong results are not timed"
        )
    seconds: dict[str, list[float]] = {"spd_fast": [], "PyTorch": []}
    for _ in range(rounds):
        for contender, call in zip(seconds, (ours, theirs()), strict=True):
            started = time.perf_counter()
            call()
            seconds[contender].append((time.perf_counter() - started) / len(cells))
    medians = [records.median(taken) for taken in seconds.values()]
    return {"seconds_per_cell": seconds, "speedup": medians[1] / medians[0], "apart": apart}


def _engine(cells: Sequence[Cell], shape: MotifShape, dish: Dish, name: str, weights: Sequence[Parameters]) -> Call:
    if name != FORWARD:
        return lambda: proxies.score(cells, shape, dish.images, dish.labels, name, parameters=weights, threads=1)
    motifs = pack_motifs(cells, shape, weights, dish.images.shape[1:])
    return lambda: read_motifs(motifs, dish.images, dish.labels, gradients=False, threads=1).loss


def pytorch(
    cells: Sequence[MotifCell], shape: MotifShape, dish: Dish, name: str, weights: Sequence[Parameters]
) -> Callable[[], Call]:
    """Return a function that builds the modules and returns the function that scores them, which uses them up."""
    import torch

    from spd_fast.reference import pytorch as reference

    images, labels = torch.tensor(dish.images), torch.tensor(dish.labels)

    def forward(module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(module(x), y))

    score = forward if name == FORWARD else reference.PROXIES[name]

    def build() -> Call:
        modules = [
            reference.build(cell, shape, w, dtype=torch.float32).train() for cell, w in zip(cells, weights, strict=True)
        ]
        return lambda: np.array([score(module, images, labels) for module in modules])

    return build


def tables(record: dict[str, Any]) -> list[Table]:
    """Return a table of milliseconds for each cell: the median, and the least and the most in brackets."""
    machine = record["machine"]
    table = Table(
        title=f"milliseconds a cell, {record['images']} images, one thread: {machine['processor']}, {machine['instruction_set']}",
        title_justify="left",
    )
    for heading in ("motif", "", "spd_fast", "PyTorch", "x"):
        table.add_column(heading, justify="left" if heading in ("motif", "") else "right")
    for letter, rows in record["shapes"].items():
        for name, row in rows.items():
            times = (
                f"{1e3 * records.median(t):.3g} ({1e3 * min(t):.3g} to {1e3 * max(t):.3g})"
                for t in row["seconds_per_cell"].values()
            )
            table.add_row(letter, name, *times, f"{row['speedup']:.1f}")
    return [table]
