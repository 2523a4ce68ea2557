"""The bench of scoring at scale: cells a second and core, where the time of a cell goes, and zero-cost proxies of PyTorch on the same cells.

Parts of the training are told apart by calls that do more and more of the work: descriptions of the motifs alone, then their initial weights, then
a call of the engine that trains no epoch, then the whole training. All are timed in turns on one pinned thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from rich.table import Table

from spd_fast.base.progress import counter_of
from spd_fast.base.types import Progress
from spd_fast.bench import record as records
from spd_fast.bench.inner import CLOCKS
from spd_fast.bench.proxies import FORWARD, IMAGES, NAMES, pytorch
from spd_fast.dish import Dish
from spd_fast.engine.initial import initial_parameters, starting_weights
from spd_fast.engine.specs import specs_of
from spd_fast.engine.training import train
from spd_fast.motif import MotifShape
from spd_fast.outer.start import start_dish
from spd_fast.predictors.readings import motif_readings, readings_of
from spd_fast.recipes.known import get
from spd_fast.recipes.settings import Recipe
from spd_fast.scoring import score_loop
from spd_fast.spaces.candidate import MotifCell

__all__ = ["PARTS", "run", "tables"]

PARTS: Final = ("descriptions", "initial weights", "plans and memory", "training steps", "reading")
"""What the time of a motif consists of: describing it to the engine; drawing and placing its weights; the engine's plan, memory and arrays of
results; the steps themselves; and the score and the curve that are read off the losses."""


def run(
    cells: Sequence[MotifCell],
    recipe: str = "curves",
    *,
    motifs: int = 2,
    rounds: int = 5,
    peers: int = 12,
    clock: str = "wall",
    core: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time the score of cells and its parts, then PyTorch's zero-cost proxies on the first of the cells.

    Parameters
    ----------
    cells : sequence of n Cell or NatsCell
    recipe : str
        Name of a recipe whose score is read from training losses.
    motifs : int
        Number of motifs of each cell. One is timed, and counts so often.
    rounds : int
        How often each is timed, in turns; the median counts.
    peers : int
        Cells that PyTorch computes its proxies of, the first ones; 0: none, and PyTorch is not loaded.
    clock : "wall" or "cpu"
        "cpu" on a machine that is busy with other work.
    core, progress
        As in `spd_fast.bench.peak.run`.

    Returns
    -------
    dict
        The record. ``seconds_per_cell`` has one entry for each round: the whole score. ``parts`` has the median seconds a cell of each part,
        ``cells_per_second`` their rate on this core, and ``proxies`` seconds a cell for PyTorch's forward pass and each proxy.

    Raises
    ------
    ValueError
        If an argument does not fit.
    """
    chosen = get(recipe)
    if chosen.outer.metric != "training_loss":
        raise ValueError(f"recipe {recipe!r} reads {chosen.outer.metric!r}, expected one that reads training losses")
    if not len(cells) or min(rounds, motifs) < 1 or peers < 0 or clock not in CLOCKS:
        raise ValueError(
            f"{len(cells)} cells, motifs {motifs}, rounds {rounds}, peers {peers}, clock {clock!r}: expected at least 1, at least 1, at least 1, "
            "at least 0, 'wall' or 'cpu'"
        )
    compared = list(cells[:peers])
    record = records.begin(
        "score", recipe=recipe, motifs=motifs, cells=len(cells), peers=len(compared), rounds=rounds, clock=clock
    )
    advance = counter_of(progress, rounds + len(NAMES) * bool(compared))
    with records.pinned(core) as pinned_to:
        record["pinned_to"] = pinned_to
        calls = _calls(cells, chosen)
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call()  # warm
        for _ in range(rounds):
            for name, call in calls.items():
                taken[name].append(_seconds(call, clock) / len(cells))
            advance(1)
        descriptions, weights, no_epoch, training, reading, whole = (
            motifs * records.median(times) for times in taken.values()
        )
        found = (descriptions, weights - descriptions, no_epoch - weights, training - no_epoch, reading)
        record["seconds_per_cell"] = [motifs * seconds for seconds in taken["whole"]]
        record["parts"] = dict(zip(PARTS, found, strict=True))
        record["cells_per_second"] = 1 / whole
        record["proxies"] = {}
        for name in NAMES if compared else ():
            record["proxies"][name] = _pytorch_seconds(compared, chosen, name, rounds, clock)
            advance(1)
    return record


def _calls(cells: Sequence[MotifCell], recipe: Recipe) -> dict[str, Callable[[], object]]:
    """Return calls that do more and more of the training of a motif of each cell; then one that reads the motifs, and one that does all."""
    dish, shape, size = start_dish(recipe), recipe.shape, recipe.dish.image_size
    loop, part = score_loop(recipe, dish, 0)
    image_shape = (recipe.dish.image_channels, size, size)

    def weights() -> object:
        return starting_weights(specs_of(cells, shape, image_shape), cells, shape, loop)

    trained = train(loop, cells, shape, part, threads=1)
    return {
        "descriptions": lambda: specs_of(cells, shape, image_shape),
        "weights": weights,
        "no epoch": lambda: train(replace(loop, epochs=0), cells, shape, part, threads=1),
        "training": lambda: train(loop, cells, shape, part, threads=1),
        "reading": lambda: readings_of([trained], recipe, dish),
        "whole": lambda: motif_readings(dish, recipe, cells, replicates=[0], threads=1),
    }


def _pytorch_seconds(
    cells: Sequence[MotifCell], recipe: Recipe, name: str, rounds: int, clock: str
) -> dict[str, list[float]]:
    shape = recipe.shape
    assert isinstance(shape, MotifShape)  # the cells are trained in it
    dish = Dish.random(per_class=IMAGES // 10, image_size=recipe.dish.image_size)
    build = pytorch(cells, shape, dish, name, [initial_parameters(cell, shape) for cell in cells])
    return {"seconds_per_cell": [_seconds(build(), clock) / len(cells) for _ in range(rounds)]}


def _seconds(call: Callable[[], object], clock: str) -> float:
    now = CLOCKS[clock]
    started = now()
    call()
    return now() - started


def tables(record: dict[str, Any]) -> list[Table]:
    """Return the parts of a cell's time, and the proxies beside the whole of it."""
    machine = record["machine"]
    where = f"{machine['processor']}, {machine['instruction_set']}, {record['clock']} clock"
    times = record["seconds_per_cell"]
    whole = records.median(times)
    parts = Table(
        title=f"recipe {record['recipe']}, {record['motifs']} motifs of each of {record['cells']} cells: "
        f"{record['cells_per_second']:.1f} cells a second and core\n{where}",
        title_justify="left",
    )
    for heading in ("part", "ms a cell", "share"):
        parts.add_column(heading, justify="left" if heading == "part" else "right")
    for name, seconds in record["parts"].items():
        parts.add_row(name, f"{1e3 * seconds:.3g}", f"{seconds / whole:.1%}")
    parts.add_row("all", f"{1e3 * whole:.3g} ({1e3 * min(times):.3g} to {1e3 * max(times):.3g})", "")
    if not record["proxies"]:
        return [parts]
    peers = Table(
        title=f"PyTorch on {record['peers']} of the cells: one batch of {IMAGES} images", title_justify="left"
    )
    for heading in ("proxy", "ms a cell", "times the score's"):
        peers.add_column(heading, justify="left" if heading == "proxy" else "right")
    for name, row in record["proxies"].items():
        seconds = records.median(row["seconds_per_cell"])
        peers.add_row(f"{name} pass" if name == FORWARD else name, f"{1e3 * seconds:.3g}", f"{seconds / whole:.2f}")
    return [parts, peers]
