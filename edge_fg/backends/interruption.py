"""Long calls into a runtime that don't make the program deaf to Ctrl-C and SIGTERM."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

ResultT = TypeVar("ResultT")

# What was told to stop mostly does so at once; a program that ends doesn't wait for the rest.
_STOP_SECONDS = 5.0


def interruptible(call: Callable[[], ResultT], stop: Callable[[], None]) -> ResultT:
    """Return what `call` returns; what interrupts the wait calls `stop` and goes on to the caller.

    Python runs the handlers of signals in the main thread, between its own instructions: there,
    `call` gets a thread of its own. Other threads get no signals and make the call themselves.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    future: Future[ResultT] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  raised by the future
            future.set_exception(error)

    thread = threading.Thread(target=work, name="edge_fg-run", daemon=True)
    alone = False
    try:
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter ends
            alone = True
            return call()
        return future.result()
    finally:
        if future.done():
            thread.join()
        elif not alone:
            # Also where `start` was interrupted, and the thread doesn't know itself yet: one that
            # is in a runtime when the interpreter ends would abort the program.
            stop()
            with contextlib.suppress(KeyboardInterrupt):
                wait([future], _STOP_SECONDS)
