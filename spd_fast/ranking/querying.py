"""Predictions of many cells by a saved predictor, piece by piece, kept on the disk as they come."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from spd_fast.base.executors import Executor, Spread
from spd_fast.base.files import load_arrays
from spd_fast.base.progress import share_of
from spd_fast.base.stores import Journal, content_digest
from spd_fast.base.types import Progress
from spd_fast.predictors.spd import SPDPredictor
from spd_fast.spaces.candidate import MotifCell

__all__ = ["SCHEMA", "query_file"]

SCHEMA: Final = "spd_fast.predictions/1"
"""Version of the journal's records."""
_PIECE: Final = 64
"""Cells in a piece of work, which is kept on the disk when it is done: a few seconds of training."""
_SPREAD: Final = 16
"""Cells for each processor of an executor that are measured at once: a few seconds, too."""


def query_file(
    path: str | os.PathLike[str],
    cells: Sequence[MotifCell],
    *,
    kept: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Predict the accuracies of cells by the predictor in a file, which `SPDPredictor.save` wrote.

    Parameters
    ----------
    path : path
        The predictor. It needs a Gaussian process.
    cells : sequence of n Cell or of n NatsCell
        Cells that occur twice are measured once.
    kept : path, optional
        File that keeps predictions: a query that was interrupted goes on from there.
    threads : int, optional
        Default: the processors that this process may use. Does not change the result.
    executor : concurrent.futures.Executor, dask.distributed.Client, or the module ray, optional
        Where motifs are trained, as in `spd_fast.score_cells`. Then several pieces are measured at once, and kept when all of them are.
    progress : callable, optional
        It is called with the share of the work that is done, 0 to 1.

    Returns
    -------
    accuracy, std : ndarray, shape (n,) each, float64
        As `SPDPredictor.query` returns them for pieces of 64 different cells. (For all cells in one call the last bits may differ.)

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        If the predictor cannot be read or is for other cells, or `kept` has predictions of another predictor or other cells.
    """
    predictor = SPDPredictor.load(path)
    predictor.threads = threads
    unique = list({cell.key: cell for cell in cells}.values())
    row = {cell.key: k for k, cell in enumerate(unique)}
    pieces = [unique[start : start + _PIECE] for start in range(0, len(unique), _PIECE)]
    found: list[dict[str, Any]] = []
    with ExitStack() as opened:
        journal = None
        if kept is not None:
            remedy = f"remove {os.fspath(kept)} or choose another name with --out"
            journal = opened.enter_context(Journal(kept, SCHEMA, remedy=remedy))
            keys = np.array([cell.key for cell in unique])
            fitted = content_digest(load_arrays(path, what="predictor file"))
            journal.bind({"predictor": fitted, "cells": content_digest({"keys": keys}), "n_cells": len(keys)})
            found = list(journal.records)
        at_once = 1 if executor is None else max(1, _SPREAD * Spread(executor, threads).slots() // _PIECE)
        for number, piece in enumerate(pieces[len(found) :]):
            if executor is not None and number % at_once == 0:
                here = len(found)
                together = [cell for each in pieces[here : here + at_once] for cell in each]
                # which keeps what the motifs show
                report = share_of(progress, here / len(pieces), len(pieces[here : here + at_once]) / len(pieces))
                predictor.query(cast(Any, together), executor=executor, progress=report or False)
            accuracy, std = predictor.query(cast(Any, piece), return_std=True, progress=False)
            found.append({"accuracy": accuracy.tolist(), "std": std.tolist()})
            if journal is not None:
                journal.append(found[-1:])
            if progress is not None and executor is None:
                progress(len(found) / len(pieces))
    rows = [row[cell.key] for cell in cells]
    both = [np.concatenate([np.array(each[name], np.float64) for each in found])[rows] for name in ("accuracy", "std")]
    return both[0], both[1]
