"""What a command makes of its process: whose its standard output is, and how signals end it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TextIO

_OUT, _ERRORS = 1, 2
_SOON_SECONDS = 0.01


@contextlib.contextmanager
def own_standard_output() -> Iterator[TextIO | None]:
    """Yield standard output, for answers alone; None where it is closed.

    Until the block ends, whatever else is written there goes to standard error: libraries print
    from Python (ONNX Runtime) and from C (OpenCV, FFmpeg, TensorRT).
    """
    for descriptor in (_OUT, _ERRORS):
        _occupy(descriptor)
    with contextlib.ExitStack() as undone:
        ours = sys.stdout
        # In a test or a notebook it is something else, and the descriptor belongs to others.
        if isinstance(ours, io.TextIOWrapper) and _descriptor_of(ours) == _OUT:
            ours.flush()
            kept = os.dup(_OUT)
            ours = undone.enter_context(
                open(kept, "w", encoding=ours.encoding, errors=ours.errors)  # noqa: PTH123
            )
            undone.callback(os.dup2, kept, _OUT)
            os.dup2(_ERRORS, _OUT)
        undone.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield ours


@contextlib.contextmanager
def ended_as_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, so that it can finish its files.

    A SIGHUP that is ignored when the command starts, as by nohup, stays ignored, and so does a
    Ctrl-C, as in the background of a script. No import is interrupted, since a library would turn
    that into any error, and then look as if it were not installed: it is finished first.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            # A lost terminal may tell it more than once: nobody asks for a faster end.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            _leave_lost_terminal()
        if not _is_importing(frame):
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, _SOON_SECONDS)

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        # Python drops an interrupt that falls into a destructor or weak reference: send another.
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, _SOON_SECONDS)
        else:
            hook_before(unraisable)

    asked = [
        one for one in (signal.SIGHUP, signal.SIGINT) if signal.getsignal(one) != signal.SIG_IGN
    ]
    listened = (signal.SIGTERM, signal.SIGALRM, *asked)
    before = {one: signal.signal(one, interrupt) for one in listened}
    hook_before, sys.unraisablehook = sys.unraisablehook, again
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook_before
        for one, handler in before.items():
            signal.signal(one, handler)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _occupy(descriptor: int) -> None:
    """Keep a closed descriptor from becoming that of a file, into which libraries would print."""
    try:
        os.fstat(descriptor)
    except OSError:
        _point_at_nothing(descriptor)


def _leave_lost_terminal() -> None:
    """Let what is still printed go nowhere, instead of failing, where the terminal has gone."""
    with contextlib.suppress(OSError):
        if stat.S_ISCHR(os.fstat(_ERRORS).st_mode):
            try:
                os.write(_ERRORS, b"")
            except OSError:
                _point_at_nothing(_ERRORS)


def _point_at_nothing(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)


def _descriptor_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except OSError:
        return None
