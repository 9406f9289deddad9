"""The thread that holds a connection, so that one which hangs holds up nobody else."""

from __future__ import annotations

import threading
import time
from typing import Literal, Protocol

from edge_fg.errors import SourceError
from edge_fg.sources.live.connection import Coded, Connection, Corrupted, Opener, Shot
from edge_fg.sources.live.frame_interval import Rhythm

# How often a thread that may not open a connection looks whether it may now.
_LOOK_S = 0.25

Phase = Literal["waiting", "opening", "reading"]


class Desk(Protocol):
    """Whom a worker reports to; all of it is called in the worker's thread.

    Attributes
    ----------
    wanted
        Moment of the monotonic clock before which nobody will take an image. Read without a
        lock: one that is an image old does no harm.
    """

    wanted: float

    def may_open(self) -> bool:
        """Whether a connection may be opened now."""

    def opening(self, worker: Worker) -> None:
        """Note that a connection is about to be opened."""

    def opened(self, worker: Worker, connection: Connection) -> None:
        """Note that a connection stands."""

    def arrived(self, worker: Worker, shot: Shot) -> str | None:
        """Take an image; a reason to give the connection up, or None to go on."""

    def skipped(self, worker: Worker) -> None:
        """Note that an image came which was left undecoded."""

    def corrupted(self, worker: Worker, what: Corrupted) -> str | None:
        """Note that something came that is no image; a reason to give up, or None."""

    def lost(self, worker: Worker, error: SourceError) -> float | None:
        """Note that there is no connection; seconds to wait for the next try, None to end."""

    def failed(self, worker: Worker, error: BaseException) -> None:
        """Note that the worker ends, because of something that no further try can mend."""


class Worker:
    """Opens a connection, reads it, and begins again when it is lost, in a thread of its own.

    A worker that was told to go (`leave`) reports nothing any more; it closes its connection and
    ends as soon as the call that it is in returns, which for a driver that hangs may be never.

    Parameters
    ----------
    opener
        Makes the connections.
    desk
        Whom to report to.
    name
        Of the thread; holds no credentials.
    delay
        Seconds to wait before the first connection.
    """

    def __init__(self, opener: Opener, desk: Desk, name: str, delay: float = 0.0) -> None:
        self._opener = opener
        self._desk = desk
        self._delay = delay
        self._gone = threading.Event()
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._phase: Phase = "waiting"
        self._since = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        """Whether its thread still runs."""
        return self._thread.is_alive()

    @property
    def progress(self) -> tuple[Phase, float]:
        """What it is doing, and since when in seconds of the monotonic clock.

        While it reads, the time is that of the last image, also of one left undecoded.
        """
        with self._lock:
            return self._phase, self._since

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def leave(self) -> None:
        """Tell it to go; returns at once."""
        self._gone.set()
        self.interrupt()

    def interrupt(self) -> None:
        """Make the call that it is in return, where the connection can do that."""
        with self._lock:
            connection = self._connection
        if connection is not None:
            connection.interrupt()

    def join(self, timeout: float) -> bool:
        """Wait for the end of its thread; whether it has ended."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _enter(self, phase: Phase) -> None:
        with self._lock:
            self._phase, self._since = phase, time.monotonic()

    def _run(self) -> None:
        try:
            delay: float | None = self._delay
            while delay is not None and self._wait(delay):
                delay = self._one_connection()
        # Whatever it is, it belongs to whoever waits for frames and would wait for ever.
        except BaseException as error:  # noqa: BLE001
            if not self._gone.is_set():
                self._desk.failed(self, error)

    def _wait(self, delay: float) -> bool:
        """Wait before the next connection; False when there is to be none."""
        self._enter("waiting")
        if self._gone.wait(delay):
            return False
        while not self._desk.may_open():
            if self._gone.wait(_LOOK_S):
                return False
        return True

    def _one_connection(self) -> float | None:
        connection = self._opener()
        with self._lock:
            self._connection = connection
        error = SourceError("it was closed")
        try:
            self._enter("opening")
            if not self._gone.is_set():
                self._desk.opening(self)
                connection.open()
                error = self._read(connection)
        except SourceError as raised:
            error = raised
        finally:
            with self._lock:
                self._connection = None
            connection.close()
            self._enter("waiting")
        return None if self._gone.is_set() else self._desk.lost(self, error)

    def _read(self, connection: Connection) -> SourceError:
        """Read until there is a reason to stop."""
        if not self._gone.is_set():
            self._enter("reading")
            self._desk.opened(self, connection)
        rhythm = Rhythm()
        while not self._gone.is_set():
            got = connection.read()
            if self._gone.is_set():
                break
            if got is None:
                return SourceError("the stream ended")
            image = self._decoded(got, rhythm) if isinstance(got, Coded) else got
            if image is None:
                self._enter("reading")
                self._desk.skipped(self)
                continue
            if isinstance(image, Corrupted):
                rhythm.forget()
                reason = self._desk.corrupted(self, image)
            else:
                self._enter("reading")
                reason = self._desk.arrived(self, image)
            if reason is not None:
                return SourceError(reason)
        return SourceError("it was closed")

    def _decoded(self, coded: Coded, rhythm: Rhythm) -> Shot | Corrupted | None:
        """Decode an image, unless the next one will be here before anybody wants one."""
        began = time.monotonic()
        rhythm.came(began)
        if rhythm.needless(self._desk.wanted):
            return None
        image = coded.decode()
        rhythm.decoded(time.monotonic() - began)
        return image
