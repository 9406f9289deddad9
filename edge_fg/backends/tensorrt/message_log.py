"""What TensorRT says of its work, and failed calls as errors."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, SupportsInt

from edge_fg.errors import BackendError, DeviceMemoryError
from edge_fg.printing import escape_record

if TYPE_CHECKING:
    from edge_fg.backends.tensorrt.api import Logger, TensorRT

_KEPT_MESSAGES = 100
_QUOTED_CHARACTERS = 300
_LEVELS = (logging.ERROR, logging.ERROR, logging.WARNING, logging.DEBUG, logging.DEBUG)
# Not every word of memory: an illegal access is another failure.
_OUT_OF_MEMORY = re.compile(r"out ?of ?memory|allocat|bad_alloc|not enough.*memory", re.IGNORECASE)
_log = logging.getLogger("edge_fg.tensorrt")
_log.addFilter(escape_record)  # what stands at "edge_fg" is not asked for the records of this one


@dataclass(frozen=True)
class Message:
    """One message of TensorRT: its level in Python's logging, and the text on one line."""

    level: int
    text: str


class MessageLog:
    """Receives what one of the libraries says in this process.

    TensorRT keeps the first logger that a process registers and ignores the others, so there is one
    for each library (`edge_fg.backends.tensorrt.library.message_log`), which passes every message
    to Python's logging (``edge_fg.tensorrt``) and to a `collect` that is under way. A call of
    TensorRT that fails returns False or None: `failure` says why. Thread-safe.
    """

    def __init__(self, trt: TensorRT, title: str) -> None:
        self._title = title
        self._collecting = threading.Lock()
        self._kept: deque[Message] | None = None
        self._errors = threading.local()
        self.kernels = ""
        """What the library lists of the kernels of the plan that it built last."""
        receive = self._receive

        class Receiver(trt.ILogger):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: SupportsInt, msg: str) -> None:
                receive(int(severity), msg)

        self.handle: Logger = Receiver()
        """To give to TensorRT."""

    def _receive(self, severity: int, text: str) -> None:
        if text.startswith("Layers:"):
            self.kernels = text
        level = _LEVELS[severity] if 0 <= severity < len(_LEVELS) else logging.DEBUG
        message = Message(level, " ".join(text.split()))
        # An error becomes an exception of ours; in the log it is a detail.
        _log.log(min(level, logging.INFO), "%s", message.text)
        kept = self._kept
        if kept is not None and level >= logging.WARNING:
            kept.append(message)
        if level >= logging.ERROR:
            self._errors.last = message.text

    def forget_error(self) -> None:
        """Forget what `last_error` would return, before a call that may fail."""
        self._errors.last = ""

    def last_error(self) -> str:
        """Return the last error that a call in this thread met, or an empty text."""
        text: str = getattr(self._errors, "last", "")
        return shortened(text)

    def failure(self, action: str, said: str | None = None) -> BackendError:
        """Return the error to raise where a call failed.

        `action` is what was tried, to be read after "can't"; `said` is why, None for the last
        error since `forget_error`.
        """
        why = self.last_error() if said is None else said
        if is_shortage(why):
            return DeviceMemoryError(
                f"{self._title} can't {action}, GPU memory ran out ({why}): choose a smaller "
                "max_batch, fewer contexts or the int8-fp16 variant, or close what else uses the "
                "GPU"
            )
        return BackendError(f"{self._title} can't {action}: {why or 'it gives no reason'}")

    @contextlib.contextmanager
    def collect(self) -> Iterator[deque[Message]]:
        """Collect warnings and errors while the block runs, one block at a time.

        Messages carry no mark of the object that they are about; blocks in other threads
        wait, so that none reads the errors of another.
        """
        with self._collecting:
            self._kept = deque(maxlen=_KEPT_MESSAGES)
            self.kernels = ""
            try:
                yield self._kept
            finally:
                self._kept = None


def is_shortage(text: str) -> bool:
    """Say whether `text` tells of memory that ran out."""
    return _OUT_OF_MEMORY.search(text) is not None


def quote(messages: Iterable[Message]) -> str:
    """Return the first errors among `messages` on one line, or an empty text."""
    errors = dict.fromkeys(m.text for m in messages if m.level >= logging.ERROR)
    return shortened("; ".join(list(errors)[:3]))


def shortened(text: str) -> str:
    """Return `text` on one line, of a length that fits a message."""
    text = " ".join(text.split())
    return text if len(text) <= _QUOTED_CHARACTERS else f"{text[: _QUOTED_CHARACTERS - 3]}..."
