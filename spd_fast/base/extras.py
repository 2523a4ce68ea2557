"""Packages that are not needed by everybody: extras of the installation, imported where they are used."""

from importlib import import_module
from typing import Any, Final

__all__ = ["explained", "required"]

_EXTRAS: Final = {
    "torch": ("learn", "PyTorch"),
    "PIL": ("learn", "Pillow"),
    "cmaes": ("learn", "cmaes"),
    "pandas": ("tables", "pandas"),
    "pyarrow": ("tables", "pyarrow"),
    "ray": ("ray", "Ray"),
    "distributed": ("dask", "Dask"),
}
"""By the name of a module: the extra that brings it, and what it is called."""


def required(module: str, what: str) -> Any:
    """Return a module of an extra.

    Parameters
    ----------
    module : str
        Its name, one of those that an extra brings.
    what : str
        What needs it, for the message: ``"learning a dish"``.

    Raises
    ------
    ImportError
        If it is not installed. The message says what needs it and how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise _missing(module, what) from error


def explained(error: ImportError) -> ImportError:
    """Return an error that says how to install what is missing, or the same error if no extra brings it."""
    package = (error.name or "").split(".")[0]
    return _missing(package, "this") if isinstance(error, ModuleNotFoundError) and package in _EXTRAS else error


def _missing(module: str, what: str) -> ImportError:
    extra, called = _EXTRAS[module.split(".")[0]]
    return ImportError(f"{what} needs {called}, which is not installed: pip install 'spd_fast[{extra}]'", name=module)
