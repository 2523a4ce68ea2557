"""The bench of the machine's limits: how many multiply-adds one core can do in a second, and how many bytes it can read from
each cache and from memory, and write."""

import os
from pathlib import Path
from typing import Any, Final

from rich.table import Table

import spd_fast._core as _core
from spd_fast.base.types import Progress
from spd_fast.bench import record as records

__all__ = ["ceilings", "run", "tables"]

SIZES: Final = [int(2**exponent * step) for exponent in range(12, 29) for step in (1, 1.5)]
"""Sizes of the working sets in bytes: 4 KiB to 384 MiB."""

IN_L1: Final = 16 << 10
"""A working set that lies in the L1 cache, in bytes: half of a usual L1."""


def run(*, seconds: float = 0.2, core: int | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Measure the peak of fused multiply-adds, the clock, and the read rate of working sets from 4 KiB to 384 MiB.

    Parameters
    ----------
    seconds : float, > 0
        Time for each measurement; the best rate within it counts.
    core : int, optional
        Processor to pin to. Default: the last one that this process may use.
    progress : callable, optional
        It is called with the share of the work that is done, 0 to 1.

    Returns
    -------
    dict
        The record: ``fma_gflops`` (float32), ``clock_ghz``, ``caches`` in bytes by name, ``read`` with bytes and GB/s of each
        working set, ``levels`` with the read rate of each cache and of memory in GB/s, and ``write_gbytes_per_second`` of a
        working set of 16 KiB.
    """
    if not seconds > 0:
        raise ValueError(f"seconds is {seconds}, expected more than 0")
    record = records.begin("peak", seconds=seconds)
    with records.pinned(core) as chosen:
        record["pinned_to"] = chosen
        record["fma_gflops"] = _core.fma_peak(seconds) / 1e9
        record["write_gbytes_per_second"] = _core.write_rate(IN_L1, seconds) / 1e9
        record["clock_ghz"] = _core.clock_rate(seconds) / 1e9
        record["caches"] = caches(chosen)
        record["read"] = []
        for i, size in enumerate(SIZES):
            record["read"].append({"bytes": size, "gbytes_per_second": _core.read_rate(size, seconds) / 1e9})
            if progress:
                progress((i + 1) / len(SIZES))
        record["levels"] = levels(record["read"], record["caches"])
    return record


def ceilings(seconds: float = 0.1) -> dict[str, float]:
    """Measure the limits of the processor that this runs on: FLOP/s, cycles/s, and bytes/s from L2, from memory and into L1."""
    sizes = caches(min(os.sched_getaffinity(0)))
    last = max(sizes.values(), default=32 << 20)
    return {
        "flops": _core.fma_peak(seconds),
        "cycles": _core.clock_rate(seconds),
        "l2_bytes": _core.read_rate(sizes.get("L2", 1 << 20) // 2, seconds),
        "written_bytes": _core.write_rate(IN_L1, seconds),
        "memory_bytes": _core.read_rate(4 * last, seconds),
    }


def caches(core: int) -> dict[str, int]:
    """Return the sizes of a processor's data caches L1, L2 and L3 in bytes; empty if Linux does not state them."""
    found = {}
    for folder in sorted(Path(f"/sys/devices/system/cpu/cpu{core}/cache").glob("index*")):
        level, kind, size = ((folder / name).read_text(encoding="utf-8").strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found[f"L{level}"] = int(size.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}[size[-1]]
    return found


def levels(read: list[dict[str, float]], sizes: dict[str, int]) -> dict[str, float]:
    """Return the read rate of each cache (a working set of about half of it) and of memory (the largest set), in GB/s."""
    wanted = {name: size / 2 for name, size in sizes.items()} | {"memory": float(SIZES[-1])}
    return {
        name: min(read, key=lambda entry: abs(entry["bytes"] - bytes_))["gbytes_per_second"]
        for name, bytes_ in wanted.items()
    }


def tables(record: dict[str, Any]) -> list[Table]:
    """Return the record as a table."""
    machine = record["machine"]
    table = Table(title=f"{machine['processor']}, one core, {machine['instruction_set']}", title_justify="left")
    table.add_column("what")
    table.add_column("most", justify="right")
    table.add_row("multiply-adds, float32", f"{record['fma_gflops']:.0f} GFLOP/s")
    table.add_row("clock", f"{record['clock_ghz']:.2f} GHz")
    for name, rate in record["levels"].items():
        size = record["caches"].get(name)
        table.add_row(f"read {name}" + (f" ({size >> 10} KiB)" if size else ""), f"{rate:.0f} GB/s")
    table.add_row(f"write L1 ({IN_L1 >> 10} KiB)", f"{record['write_gbytes_per_second']:.0f} GB/s")
    return [table]
