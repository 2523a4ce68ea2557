"""The seconds of an inner epoch over random cells: the paper's table 1."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from spd_fast.base.machine import describe_machine
from spd_fast.base.stores import Journal, content_digest
from spd_fast.dish import Dish
from spd_fast.engine.optimizers import Adam
from spd_fast.engine.training import train_motifs
from spd_fast.motif import MOTIF_A, MOTIF_B, MOTIF_C, MotifShape
from spd_fast.paper.stated import INNER_RATE
from spd_fast.spaces.cell import Cell

__all__ = ["EPOCHS", "MOTIFS", "SCHEMA", "time_epochs"]

SCHEMA: Final = "spd_fast.epoch_times/1"
MOTIFS: Final[Mapping[str, MotifShape]] = {"A": MOTIF_A, "B": MOTIF_B, "C": MOTIF_C}
EPOCHS: Final = 3
"""Inner epochs of each training that is timed."""


def time_epochs(
    path: Path,
    cells: Sequence[Cell],
    motifs: Sequence[str],
    *,
    advanced: Callable[[str, int, float], object] | None = None,
) -> dict[str, list[float]]:
    """Time an inner epoch of each cell's motif on one thread: 200 images of 3 x 16 x 16, batches of 20, Adam.

    Parameters
    ----------
    path : path
        The journal of the measurement. What it holds already is not measured again.
    cells : sequence of n Cell
    motifs : sequence of str
        Letters of ABC.
    advanced : callable, optional
        ``advanced(motif, number, seconds)`` is called for each cell when its training is done, with the training's seconds.

    Returns
    -------
    dict of str to list of n float
        By motif, the seconds of an inner epoch of each cell.

    Raises
    ------
    ValueError
        If the journal is damaged, or was begun with other cells or on another machine.
    OSError
        If it cannot be read or written.
    """
    dish = Dish.random(per_class=20, image_size=16)
    about = describe_machine()
    identity = {
        "cells": content_digest({"cells": np.array([cell.module_hash for cell in cells])}),
        "epochs": EPOCHS,
        **{name: about[name] for name in ("processor", "instruction_set", "version")},
    }
    seconds: dict[str, list[float]] = {motif: [] for motif in motifs}
    with Journal(path, SCHEMA, remedy="remove it, and the times are measured anew") as journal:
        journal.bind(identity)
        known = {(record["motif"], record["cell"]): float(record["seconds"]) for record in journal.records}
        for motif in motifs:
            for number, cell in enumerate(cells):
                key = (motif, cell.module_hash)
                if key not in known:
                    known[key] = _seconds(cell, MOTIFS[motif], dish)
                    journal.append([_record(motif, cell, known[key])])
                seconds[motif].append(known[key])
                if advanced:
                    advanced(motif, number, known[key] * EPOCHS)
        journal.sync()
    return seconds


def _seconds(cell: Cell, shape: MotifShape, dish: Dish) -> float:
    result = train_motifs(
        [cell],
        shape,
        dish,
        epochs=EPOCHS,
        optimizer=Adam(lr=INNER_RATE, weight_decay=1e-6),
        init="motif",
        threads=1,
        evaluate=False,
    )
    return float(result.seconds[0]) / EPOCHS


def _record(motif: str, cell: Cell, seconds: float) -> dict[str, Any]:
    return {"motif": motif, "cell": cell.module_hash, "seconds": seconds}
