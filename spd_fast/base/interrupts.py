"""Ctrl-C during calls into compiled code.

Python answers signals in its main thread alone, and only while that runs Python. Compiled calls ask for signals on the thread that
made them, about ten times a second. The function here does the rest, for calls that another thread than the main one made.
"""

import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line loads this file, and numpy only when a command needs it
    from spd_fast.base.types import Progress

__all__ = ["stopped_with_main"]


def stopped_with_main(progress: "Progress | None") -> "Progress | None":
    """Return a progress callback for a compiled call, which ends the call when the main thread was interrupted.

    In the main thread it is `progress`, because compiled calls ask for signals there. In another thread it raises KeyboardInterrupt
    while the main thread handles one: as it leaves a block that waits for the other threads, or at the end of the process.
    """
    if threading.current_thread() is threading.main_thread():
        return progress

    def report(share: float) -> None:
        if _main_was_interrupted():
            raise KeyboardInterrupt
        if progress is not None:
            progress(share)

    return report


def _main_was_interrupted() -> bool:
    main = threading.main_thread()
    handled: Any = sys._current_exceptions().get(main.ident or 0)
    if isinstance(handled, tuple):  # before Python 3.12: type, value and traceback
        handled = handled[1]
    at_the_end = getattr(threading, "_SHUTTING_DOWN", False) or not main.is_alive()
    return isinstance(handled, KeyboardInterrupt) or (
        at_the_end and getattr(sys, "last_type", None) is KeyboardInterrupt
    )
