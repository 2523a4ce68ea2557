"""The machine and the installation: a description for the records of results, and the number of threads of a call."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np

import spd_fast._core as _core
from spd_fast.base.types import checked_integer

__all__ = [
    "describe_machine",
    "thread_count",
]

_MOST_THREADS: Final = 1 << 16
"""More threads than a call ever uses; a larger number would not fit the engine's integers."""


def describe_machine() -> dict[str, Any]:
    """Return versions, instruction set, compiler, processor and processor count of this installation."""
    return {
        "version": _core.version,
        "instruction_set": _core.isa,
        "compiler": _core.compiler,
        "processor": _processor(),
        "processors": _core.default_threads(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": _version("torch"),
    }


def thread_count(threads: int | None) -> int:
    """Return how many threads a call is asked to use: `threads`, or the number of processors that this process may use.

    Raises
    ------
    TypeError, ValueError
        If `threads` is not an integer of at least 1, or None.
    """
    if threads is None:
        return _core.default_threads()
    return min(checked_integer("threads", threads, 1), _MOST_THREADS)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
