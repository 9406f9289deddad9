"""The thread that holds a connection, so that one which hangs holds up nobody else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

from edge_fg.errors import EdgeFGError, SourceError
from edge_fg.sources.live.connection import (
    CapturedImage,
    Connection,
    CorruptedData,
    EncodedImage,
    Opener,
)
from edge_fg.sources.live.frame_interval import FrameInterval

_logger = logging.getLogger("edge_fg")

# How often a thread that may not open a connection asks whether it may now.
_ASK_S = 0.25

Phase = Literal["waiting", "opening", "reading"]


class CaptureListener(Protocol):
    """What a capture thread reports to; all of it is called in that thread."""

    # Moment of the monotonic clock before which no image will be taken. It is read without a
    # lock: an old value does no harm.
    next_wanted: float

    def may_open(self, thread: CaptureThread) -> bool:
        """Return whether a connection may be opened; if so, it is opened at once."""

    def opened(self, thread: CaptureThread, connection: Connection) -> None:
        """Note that a connection stands."""

    def received(
        self, thread: CaptureThread, image: CapturedImage | CorruptedData | None
    ) -> str | None:
        """Take an image or what came in its place; a reason to give the connection up, or None.

        As an image, None stands for one that was left undecoded.
        """

    def lost(self, thread: CaptureThread, error: SourceError) -> float | None:
        """Note that there is no connection; seconds to wait for the next try, None to end."""

    def failed(self, thread: CaptureThread, error: BaseException) -> None:
        """Note that the thread ends, because of something that no further try can fix."""


class CaptureThread:
    """Opens a connection, reads it, and begins again when it is lost, in a thread of its own.

    What a library raises at an odd answer of the camera `name` is a loss like any other. The first
    connection is made after `delay` seconds. A thread that was told to go (`leave`) reports nothing
    any more; it closes its connection and ends as soon as the call that it is in returns, which for
    a driver that hangs may be never.
    """

    def __init__(self, opener: Opener, listener: CaptureListener, name: str, delay: float) -> None:
        self._opener = opener
        self._listener = listener
        self._name = name
        self._delay = delay
        self._gone = threading.Event()
        # Reentrant: while a thread holds it, the interpreter may collect the source as garbage in
        # that thread, and so interrupt this one.
        self._lock = threading.RLock()
        self._connection: Connection | None = None
        self._phase: Phase = "waiting"
        self._since = time.monotonic()
        self.interrupted = False  # since it began what it is doing
        self.thread = threading.Thread(
            target=self._run, name=f"edge_fg-capture-{name}", daemon=True
        )

    @property
    def progress(self) -> tuple[Phase, float]:
        """What it is doing, and since when in seconds of the monotonic clock.

        While it reads, the time is that of the last image, also of one left undecoded.
        """
        with self._lock:
            return self._phase, self._since

    def leave(self, wait: float = 0.0) -> None:
        """Tell it to go, and wait for the end of its thread for so many seconds at most."""
        self._gone.set()
        self.interrupt()
        if wait and self.thread.ident is not None and self.thread is not threading.current_thread():
            self.thread.join(wait)

    def interrupt(self) -> None:
        """Make the call that it is in return, where the connection can do that."""
        with self._lock:
            self.interrupted = True
            connection = self._connection
        if connection is not None:
            connection.interrupt()

    def _enter(self, phase: Phase) -> None:
        with self._lock:
            self._phase, self._since = phase, time.monotonic()
            self.interrupted = False

    def _run(self) -> None:
        try:
            delay: float | None = self._delay
            while delay is not None and self._wait(delay):
                delay = self._use_connection()
        # Whatever it is, the program that waits for frames must hear of it, or it waits for ever.
        except BaseException as error:  # noqa: BLE001
            if not self._gone.is_set():
                self._listener.failed(self, error)

    @contextmanager
    def _odd_answers_in_words(self) -> Iterator[None]:
        try:
            yield
        except EdgeFGError:
            raise
        except Exception as error:
            _logger.debug("%s answered oddly", self._name, exc_info=True)
            # The error's own text may repeat the address with its password.
            raise SourceError(
                f"{self._name} answered what can't be understood ({type(error).__name__})"
            ) from None

    def _wait(self, delay: float) -> bool:
        """Wait before the next connection; False when there is to be none."""
        self._enter("waiting")
        if self._gone.wait(delay):
            return False
        while not self._listener.may_open(self):
            if self._gone.wait(_ASK_S):
                return False
        return True

    def _use_connection(self) -> float | None:
        """Open a connection and read it to its end; seconds to wait for the next, None to end."""
        connection = self._opener()
        with self._lock:
            self._connection = connection
        error: SourceError | None = None
        try:
            self._enter("opening")
            if not self._gone.is_set():
                with self._odd_answers_in_words():
                    connection.open()
                self._read(connection)
        except SourceError as raised:
            error = raised
        finally:
            with self._lock:
                self._connection = None
            try:
                connection.close()
            except Exception:
                _logger.debug("%s could not be closed", self._name, exc_info=True)
            self._enter("waiting")
        if error is None or self._gone.is_set():
            return None
        return self._listener.lost(self, error)

    def _read(self, connection: Connection) -> None:
        """Read until the thread was told to go; another reason to stop is raised."""
        if not self._gone.is_set():
            self._enter("reading")
            self._listener.opened(self, connection)
        interval = FrameInterval()
        while not self._gone.is_set():
            with self._odd_answers_in_words():
                received = connection.read()
            if self._gone.is_set():
                return
            if received is None:
                raise SourceError("the stream ended")
            image = (
                self._decode(received, interval) if isinstance(received, EncodedImage) else received
            )
            if isinstance(image, CorruptedData):
                interval.reset()
            else:
                self._enter("reading")
            reason = self._listener.received(self, image)
            if reason is not None:
                raise SourceError(reason)

    def _decode(
        self, encoded: EncodedImage, interval: FrameInterval
    ) -> CapturedImage | CorruptedData | None:
        """Decode an image; None where the next one will be here before one is wanted."""
        began = time.monotonic()
        interval.arrived(began)
        if interval.next_in_time(self._listener.next_wanted):
            return None
        with self._odd_answers_in_words():
            image = encoded.decode()
        interval.decoded(time.monotonic() - began)
        return image
