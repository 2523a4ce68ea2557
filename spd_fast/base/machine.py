"""A description of the machine and the installation, for the records of results."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import spd_fast._core as _core

__all__ = [
    "describe_machine",
]


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
