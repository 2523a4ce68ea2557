"""pandas, which is an extra: it is imported where a data frame is asked for."""

from importlib import import_module
from typing import Any

__all__ = ["pandas_for"]


def pandas_for(what: str) -> Any:
    """Return the module pandas.

    Raises
    ------
    ImportError
        If it is not installed. The message says what needs it.
    """
    try:
        return import_module("pandas")
    except ImportError as error:
        raise ImportError(f"{what} needs pandas, which is not installed: pip install pandas") from error
