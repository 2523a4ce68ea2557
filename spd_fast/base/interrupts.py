"""Ctrl-C during calls into compiled code.

Python answers signals in its main thread alone, and only while that runs Python. Calls of the engine ask for signals on the
thread that made them, about ten times a second. The functions here do the rest: calls that do not ask, and calls that another
thread than the main one made.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from spd_fast.base.types import Progress

__all__ = ["interruptible", "stopped_with_main"]

_WAIT: Final = 0.05  # seconds between two looks at signals
T = TypeVar("T")


def interruptible(call: Callable[[], T]) -> T:
    """Return what a call into compiled code returns, and let Ctrl-C interrupt it.

    The call runs in another thread, for which this one waits. When the wait is interrupted, or the main thread was, the call goes
    on to its end in the background, and what it returns is dropped.
    """
    look = stopped_with_main(None)
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="spd_fast call", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_WAIT)
        if look is not None:
            look(0.0)
    if raised:
        raise raised[0]
    return returned[0]


def stopped_with_main(progress: Progress | None) -> Progress | None:
    """Return a progress callback for a call of the engine, which ends the call when the main thread was interrupted.

    In the main thread it is `progress`, because the engine asks for signals there. In another thread it raises KeyboardInterrupt
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
