"""The profile of a training step: seconds, cycles, FLOPs and bytes of every part of every op, beside the limits of the core.

An op is one piece of a motif's plan, for example a convolution with its batch norm. Its parts are its forward pass, its gradients and so
on. The floor of a part is the time that it would take at the limits of the core.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from rich.table import Table

from spd_fast.base.types import Progress
from spd_fast.bench import record as records
from spd_fast.bench.peak import ceilings
from spd_fast.dish import Dish
from spd_fast.engine.probes import step_profile
from spd_fast.motif import count_flops
from spd_fast.spaces.candidate import MotifCell

__all__ = ["BESIDE", "cost", "groups", "require_flops", "run", "stored", "tables"]

BESIDE: Final = "beside the ops"
ADDED: Final = ("seconds", "floor_seconds", "storing_seconds", "cycles")
FLOAT: Final = 4
TITLES: Final = {
    ("sum", "forward"): "normalise, ReLU, add",
    ("sum", "backward"): "ReLU and add, backward",
    ("pool", "forward"): "pooling",
    ("pool", "backward"): "pooling, backward",
    ("head", "forward"): "head",
    ("head", "backward"): "head, backward",
    ("conv", "statistics"): "batch-norm statistics",
    ("conv", "norm_backward"): "normalise and ReLU, backward",
    (BESIDE, "load"): "load the batch",
    (BESIDE, "loss"): "loss",
    (BESIDE, "optimizer"): "optimizer",
    (BESIDE, "running"): "running statistics",
}
"""Names of groups of parts, by kind of op and part. Groups of convolutions are named after their size instead."""

NEEDED: Final = {"direct": 1.0, "winograd": 1 / 2, "winograd2d": 1 / 4, "channels": 4 / 9}
"""Multiply-adds of an algorithm, as a share of those of the direct convolution (`csrc/plan/plan.cpp`)."""


def run(
    cells: Sequence[MotifCell],
    shape: str = "C",
    *,
    repeats: int = 200,
    direct_convolutions: bool = False,
    core: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Profile one training step of the motif of each cell, with a batch of 20 images and Adam, on one pinned
    thread.

    Parameters
    ----------
    cells : sequence of Cell or NatsCell
    shape : "A", "B", "C" or "S"
    repeats : int
        How often each step is run; the median counts.
    direct_convolutions, core, progress
        As in `spd_fast.train_motifs` and `spd_fast.bench.peak.run`.

    Returns
    -------
    dict
        The record. For each cell ``rows``: op, part, algorithm, seconds, cycles, flop and bytes (see `cost`), FLOPs and bytes a
        second, and shares of the FMA peak and of the step; and ``groups``, the sums of rows by group.

    Raises
    ------
    ValueError
        If an argument does not fit.
    RuntimeError
        If the convolutions of the plan are not those that `spd_fast.count_flops` counts.
    """
    if len(shape) != 1:
        raise ValueError(f"shapes are {shape!r}, expected one letter of {records.ALL}: a profile is of one motif")
    motif = records.motifs_named(shape)[shape]
    dish = Dish.random(per_class=records.BATCH // 10, image_size=motif.side)
    record = records.begin(
        "profile",
        shape=shape,
        batch_size=records.BATCH,
        image_size=motif.side,
        repeats=repeats,
        direct_convolutions=direct_convolutions,
    )
    with records.pinned(core) as chosen:
        record["pinned_to"] = chosen
        record["ceilings"] = top = ceilings()
        record["cells"] = []
        for i, cell in enumerate(cells):
            measured = step_profile(
                cell, motif.shape, dish.images, dish.labels, repeats=repeats, direct_convolutions=direct_convolutions
            )
            rows = _rows(measured, top)
            require_flops(rows, count_flops(cell, motif.shape, motif.side) * records.BATCH)
            whole, timed = (float(np.median(measured[name])) for name in ("whole", "timed"))
            entry = {
                "cell": cell.to_json(),
                "hash": cell.module_hash,
                "step_seconds": whole,
                "timed_step_seconds": timed,
            }
            entry["quartiles"] = np.quantile(measured["whole"], [0.25, 0.75]).tolist()
            record["cells"].append({**entry, "rows": rows, "groups": groups(rows)})
            if progress:
                progress((i + 1) / len(cells))
        record["groups"] = groups([row for entry in record["cells"] for row in entry["rows"]])
    return record


def cost(op: dict[str, Any], part: str, measured: dict[str, Any]) -> tuple[int, int]:
    """Count the FLOPs and bytes of a part of an op.

    Returns
    -------
    flop : int
        Useful FLOPs: two per multiply-add of convolutions and of the dense layer, counted as for a direct convolution. Zero
        padding counts; padding lanes, which fill the last vector of a row, do not. 0 for all other parts.
    bytes : int
        Bytes read and written, from whichever cache: each array once for every pass over it, with its padding lanes.
    """
    n, elements = records.BATCH, op.get("elements", 0)
    flop = values = 0  # a value has FLOAT bytes
    match op["kind"], part:
        case "conv", ("forward" | "dgrad" | "wgrad"):
            weights = op["size"] ** 2 * op["c_in"] * op["c_out"]
            flop = 2 * weights * op["height"] * op["width"] * n
            values = elements * ((op["c_in"] if part == "dgrad" else op["terms"]) + op["c_out"]) + weights
        case "conv", "statistics":
            values = elements * op["c_out"]
        case "conv", "norm_backward":  # one pass for its sums, another one for its result
            values = elements * (2 * (op["c_out"] + op["flows"]) + op["c_out"])
        case "sum", "forward":
            values = elements * (op["terms"] + op["channels"] * (3 if op["relu"] else 1))
        case "sum", "backward":
            adding = op["flows"] + op["channels"] if op["gathers"] else 0
            values = elements * (adding + (2 * op["channels"] if op["relu"] else 0))
        case "pool", "forward":
            values = op["channels"] * (op["elements_in"] + elements + _winners(op, measured))
        case "pool", "backward":
            values = op["gathered"] * elements + op["channels"] * (
                op["elements_in"] + elements + _winners(op, measured)
            )
        case "head", "forward":
            flop, values = 2 * n * op["channels"] * op["classes"], elements * op["terms"]
        case "head", "backward":
            flop, values = 4 * n * op["channels"] * op["classes"], _one_vector(op, measured)
        case _, "optimizer":  # it reads weight, gradient and two states, and writes all of them but the gradient
            values = 7 * measured["parameters"]
        case _, "load":
            values = 2 * n * measured["image_values"]
    return flop, FLOAT * values


def stored(op: dict[str, Any], part: str) -> int:
    """Count the bytes that Winograd's transforms store in a part of a convolution, before and after its multiply-adds.

    A transform makes 36 values of every 16 pixels that are read, or 6 of every 4 if it runs along columns only. The results are
    stored as well. A weight gradient (wgrad) transforms both of its inputs; the stem keeps one of them in registers.
    """
    each = {"direct": 0.0, "winograd": 6 / 4, "winograd2d": 36 / 16, "channels": 0.0}[op[part]]
    read, written = (op["c_in"], op["c_out"]) if part != "dgrad" else (op["c_out"], op["c_in"])
    if part == "wgrad":
        values = each * (read if op["keeps"] else read + written)
    else:
        values = each * read + written if each else 0.0
    return int(FLOAT * op["elements"] * values)


def _one_vector(op: dict[str, Any], measured: dict[str, Any]) -> int:
    """Return the values of an array with one vector for each block of images and channel, which serves all pixels."""
    vectors = op["height"] * -(-op["width"] // int(measured["lanes"]))
    return int(op["elements"] * op["channels"] // vectors)


def _winners(op: dict[str, Any], measured: dict[str, Any]) -> int:
    """Return the size of a channel's record of pooling winners, counted in values.

    3x3 pooling has 14 bytes for two rows of a vector, 2x2 pooling has four bytes for each vector, average pooling has none.
    """
    vectors = int(op["elements"]) // int(measured["lanes"])
    if op["average"]:
        return 0
    return 14 * vectors * -(-op["height"] // 2) // op["height"] // FLOAT if op["size"] == 3 else vectors


def _rows(measured: dict[str, Any], top: dict[str, float]) -> list[dict[str, Any]]:
    seconds = np.median(measured["seconds"], axis=0)
    step = float(np.median(measured["timed"]))
    rows = []
    for index, op in enumerate([*measured["ops"], {"kind": BESIDE}]):
        for part, taken in zip(measured["parts"], seconds[index].tolist(), strict=True):
            if taken == 0:
                continue
            flop, bytes_ = cost(op, part, measured)
            algorithm = op.get(part) if op["kind"] == "conv" else None
            rows.append(
                {
                    "op": _name(op),
                    "part": part,
                    "group": _group(op, part),
                    "algorithm": algorithm,
                    "seconds": taken,
                    "floor_seconds": _floor(flop, bytes_, algorithm, top),
                    "storing_seconds": stored(op, part) / top["written_bytes"] if algorithm else 0.0,
                    "cycles": taken * top["cycles"],
                    "flop": flop,
                    "bytes": bytes_,
                    **_rates(flop, bytes_, taken, step, top),
                }
            )
    return rows


def _floor(flop: float, bytes_: float, algorithm: str | None, top: dict[str, float]) -> float:
    """Return the floor in seconds: the algorithm's multiply-adds at the FMA peak; if there are none, the bytes at L2's rate."""
    return flop * NEEDED.get(algorithm or "direct", 1.0) / top["flops"] if flop else bytes_ / top["l2_bytes"]


def _rates(flop: float, bytes_: float, seconds: float, step: float, top: dict[str, float]) -> dict[str, float]:
    return {
        "gflops": flop / seconds / 1e9,
        "share_of_peak": flop / seconds / top["flops"],
        "gbytes_per_second": bytes_ / seconds / 1e9,
        "share_of_l2_rate": bytes_ / seconds / top["l2_bytes"],
        "share_of_step": seconds / step,
    }


def _name(op: dict[str, Any]) -> str:
    if op["kind"] == "conv":
        size, c_in, c_out = op["size"], op["c_in"], op["c_out"]
        first, *others = op["names"]  # layers that read the same input are one convolution: stacks.0.0.projection1+3
        names = "+".join([first, *(re.sub(r".*\D", "", name) for name in others)])
        return f"{names}: {size}x{size} {c_in}->{c_out} @{op['height']}"
    if op["kind"] == "pool":
        return (
            f"{'average' if op['average'] else 'max'}-pool {op['size']}x{op['size']} {op['channels']} @{op['height']}"
        )
    return f"{op['kind']} {op['channels']} @{op['height']}" if "channels" in op else str(op["kind"])


def _group(op: dict[str, Any], part: str) -> str:
    if part in ("forward", "dgrad", "wgrad") and op["kind"] == "conv":
        return f"{op['size']}x{op['size']} {part}"
    return TITLES[op["kind"], part]


def require_flops(rows: Sequence[dict[str, Any]], expected: int) -> None:
    """Refuse the rows of a plan that does not compute what is counted.

    Raises
    ------
    RuntimeError
        If the forward parts have another number of FLOPs.
    """
    counted = sum(row["flop"] for row in rows if row["part"] == "forward")
    if counted != expected:
        raise RuntimeError(
            f"the plan's forward pass has {counted} FLOPs, expected {expected}: a wrong plan is not timed"
        )


def groups(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the sums of rows by group; the group that takes longest comes first."""
    found: dict[str, dict[str, Any]] = {}
    total = sum(row["seconds"] for row in rows)
    for row in rows:
        into = found.setdefault(
            row["group"],
            {"group": row["group"], **dict.fromkeys(ADDED, 0.0), "flop": 0, "bytes": 0},
        )
        for name in (*ADDED, "flop", "bytes"):
            into[name] += row[name]
    for into in found.values():
        peak = next(row["gflops"] / row["share_of_peak"] for row in rows if row["flop"]) * 1e9
        rate = next(row["gbytes_per_second"] / row["share_of_l2_rate"] for row in rows if row["bytes"]) * 1e9
        top = {"flops": peak, "l2_bytes": rate}
        into.update(_rates(into["flop"], into["bytes"], into["seconds"], total, top))
    return sorted(found.values(), key=lambda into: -into["seconds"])


def tables(record: dict[str, Any]) -> list[Table]:
    """Return the record as tables: groups over all cells, and before them, for a single cell, every part of every op."""
    machine, top = record["machine"], record["ceilings"]
    where = (
        f"{machine['processor']}, {machine['instruction_set']}, {top['cycles'] / 1e9:.2f} GHz; "
        f"FMA peak {top['flops'] / 1e9:.0f} GFLOP/s, L2 read {top['l2_bytes'] / 1e9:.0f} GB/s"
    )
    cells = record["cells"]
    step = sum(entry["step_seconds"] for entry in cells) / len(cells)
    timed = sum(entry["timed_step_seconds"] for entry in cells) / len(cells)
    of = f"motif {record['shape']}, {len(cells)} cell{'s' if len(cells) > 1 else ''}"
    title = f"{of}: one step {1e6 * step:.0f} us, {1e6 * timed:.0f} with its parts timed"
    out = []
    if len(cells) == 1:
        labels = [(row["op"], row["part"], row["algorithm"] or "") for row in cells[0]["rows"]]
        out.append(_table(f"cell {cells[0]['hash'][:8]}, {title}", ("op", "part", "by"), labels, cells[0]["rows"]))
    summed = record["groups"]
    out.append(_table(title, ("part",), [(row["group"],) for row in summed], summed, cells=len(cells)))
    floor, storing = (sum(row[name] for row in summed) / len(cells) for name in ("floor_seconds", "storing_seconds"))
    out[-1].caption = (
        f"{where}\nfloor of the step, with each algorithm's multiply-adds at that peak and everything else at that rate: "
        f"{1e6 * floor:.0f} us, {floor / step:.0%} of the step; stores of Winograd's transforms at "
        f"{top['written_bytes'] / 1e9:.0f} GB/s: {1e6 * storing:.0f} us, floor and stores: {(floor + storing) / step:.0%}"
    )
    return out


def _table(
    title: str,
    headings: Sequence[str],
    labels: Sequence[Sequence[str]],
    rows: Sequence[dict[str, Any]],
    *,
    cells: int = 1,
) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for heading in headings:
        table.add_column(heading)
    for heading in (
        "us",
        "cycles",
        "of step",
        "floor us",
        "stores us",
        "MFLOP",
        "GFLOP/s",
        "of peak",
        "KB",
        "GB/s",
        "of L2",
    ):
        table.add_column(heading, justify="right")
    for label, row in zip(labels, rows, strict=True):
        arithmetic = [f"{row['flop'] / cells / 1e6:.2f}", f"{row['gflops']:.0f}", f"{row['share_of_peak']:.2f}"]
        traffic = [
            f"{row['bytes'] / cells / 1e3:.0f}",
            f"{row['gbytes_per_second']:.0f}",
            f"{row['share_of_l2_rate']:.2f}",
        ]
        table.add_row(
            *label,
            f"{row['seconds'] / cells * 1e6:.1f}",
            f"{row['cycles'] / cells:.0f}",
            f"{row['share_of_step']:.1%}",
            f"{row['floor_seconds'] / cells * 1e6:.1f}",
            f"{row['storing_seconds'] / cells * 1e6:.1f}" if row["storing_seconds"] else "",
            *(arithmetic if row["flop"] else ["", "", ""]),
            *(traffic if row["bytes"] else ["", "", ""]),
        )
    return table
