"""Keeping a live source alive: what comes, what is lost, when to try again."""

from __future__ import annotations

import logging
import math
import threading
import time

from edge_fg.errors import SourceError
from edge_fg.sources.live.capture_thread import CaptureThread
from edge_fg.sources.live.connection import CapturedImage, Connection, CorruptedData, Opener
from edge_fg.sources.live.frame_buffer import FrameBuffer
from edge_fg.sources.live.freeze_detector import ImageMonitor
from edge_fg.sources.live.reconnection import Reconnection
from edge_fg.sources.live.watchdog import WATCHDOG
from edge_fg.sources.options import SourceOptions
from edge_fg.sources.state import SourceStatus

_logger = logging.getLogger("edge_fg")

# Threads that may hang in a driver at one time; beyond that nothing is opened any more, so that
# a driver that never comes back costs this many threads and not one a try.
_MAX_HUNG = 2
_STALL_S = 2.0
_GRACE_S = 1.0


class Supervisor:
    """Runs the capture thread of a live source, and another one after a loss or a hang.

    The source is ``connecting``, then ``live`` with its first image, ``stalled`` while no new image
    comes, and ``lost`` from the end of a connection to the next try.
    """

    def __init__(
        self,
        name: str,
        opener: Opener,
        options: SourceOptions,
        status: SourceStatus,
        buffer: FrameBuffer,
    ) -> None:
        self._name = name
        self._opener = opener
        self._options = options
        self._status = status
        self._buffer = buffer
        self._changed = threading.Condition()
        self._monitor = ImageMonitor(name, options, status)
        self._reconnection = Reconnection(options)
        self._grace = min(_GRACE_S, options.timeout)
        self._hung: list[CaptureThread] = []
        self._capture: CaptureThread | None = None
        self._stopped = False
        self._error: BaseException | None = None
        self.check_every = min(_STALL_S, options.timeout) / 8
        self.next_wanted = -math.inf
        self.fps: float | None = None
        self.size_wh: tuple[int, int] | None = None
        self.frame_count: int | None = None

    def start(self) -> None:
        """Start capturing."""
        self._start_capture(0.0)
        WATCHDOG.watch(self)

    def wait_until_connected(self) -> None:
        """Wait until the first connection stands; raises what the first try failed with."""
        limit, state = self._options.timeout, self._reconnection
        with self._changed:
            self._changed.wait_for(
                lambda: state.connected or self._error or self._stopped, limit + self._grace
            )
            if state.connected or self._stopped:
                return
            # What a connection says that the watchdog has interrupted is not the reason.
            error = None if self._capture and self._capture.interrupted else self._error
        late = SourceError(f"can't open {self._name}: it doesn't answer within {limit:g} s")
        self.stop()
        raise error or late

    @property
    def threads(self) -> set[threading.Thread]:
        """The threads that capture and watch now."""
        capture = self._capture
        return {thread for thread in (WATCHDOG.thread, capture and capture.thread) if thread}

    def stop(self) -> None:
        """Stop capturing; waits a little for the thread, not for one that hangs."""
        with self._changed:
            # It stays one of `threads`: this may run in it, and listeners hear of the end in it.
            capture = None if self._stopped else self._capture
            self._stopped = True
            self._changed.notify_all()
        WATCHDOG.forget(self)
        self._buffer.close()
        if capture is not None:
            capture.leave(_GRACE_S)

    def may_open(self, thread: CaptureThread) -> bool:
        """Return whether a connection may be opened: not while too many threads hang."""
        with self._changed:
            self._hung = [capture for capture in self._hung if capture.thread.is_alive()]
            may = len(self._hung) < _MAX_HUNG and self._is_current(thread)
        if may:
            self._status.change("connecting", "opening it")
        return may

    def opened(self, thread: CaptureThread, connection: Connection) -> None:
        """Note that a connection stands; the source is live with its first image."""
        with self._changed:
            if self._is_current(thread):
                self._reconnection.opened(time.monotonic())
                self.fps, self.size_wh = connection.fps, connection.size_wh
                self.frame_count = connection.frame_count
                self._changed.notify_all()

    def received(
        self, thread: CaptureThread, image: CapturedImage | CorruptedData | None
    ) -> str | None:
        """Take an image or what came in its place; a reason to give the connection up, or None.

        An image that was left undecoded (None) says nothing about the state.
        """
        if not self._is_current(thread):
            return None
        if image is None:
            self._buffer.add_lost(1)
            self._status.add("dropped")
            return None
        if isinstance(image, CorruptedData):
            self._status.add("corrupted", image.count)
            self._buffer.add_lost(image.count)
            _logger.debug("%s: an image is left out, %s", self._name, image.reason)
            silent = time.monotonic() - thread.progress[1]
            late = silent > self._options.timeout
            return f"nothing but damaged images for {silent:.1f} s" if late else None
        if (still_s := self._monitor.frozen_for(image)) is not None:
            # A new connection often fixes a frozen camera; it gets as long as the first.
            age = image.captured - self._reconnection.opened_at
            stuck = age > (self._options.frozen_after or math.inf)
            return f"its image has stood still for {still_s:.1f} s" if stuck else None
        with self._changed:
            if not self._is_current(thread):
                return None
            back = self._reconnection.image_came()
        if back:
            self._status.add("reconnects")
        self._status.change("live", "images come")
        self._buffer.put(image)
        return None

    def lost(self, thread: CaptureThread, error: SourceError) -> float | None:
        """Decide after a loss: seconds to wait for the next try, or None to end."""
        with self._changed:
            if not self._is_current(thread):
                return None
            again = self._reconnection.without_image
            delay = self._reconnection.lost(time.monotonic())
        if delay is None:
            seen = self._status.counters["frames"] + len(self._buffer)
            self._end(self._reconnection.given_up(self._name, seen, error))
            return None
        # A camera that is away for a week must not fill the log with a warning every minute.
        level = logging.INFO if again else logging.WARNING
        self._status.change("lost", f"{error}; next try in {delay:.1f} s", level=level)
        return delay

    def failed(self, thread: CaptureThread, error: BaseException) -> None:
        """Pass on what no further try can fix."""
        if self._is_current(thread):
            self._end(error)

    def check(self) -> None:
        """Notice when the capture thread is late; interrupt it, at last leave it to itself."""
        try:
            self._check()
        # Perhaps no thread captures any more: a program that waits for frames must hear of it.
        except BaseException as error:  # noqa: BLE001
            self._end(error)

    def _check(self) -> None:
        capture, limit = self._capture, self._options.timeout
        phase, since = capture.progress if capture else ("waiting", 0.0)
        silent = time.monotonic() - since
        if capture is None or phase == "waiting" or self._stopped:
            return
        if phase == "reading" and silent > min(_STALL_S, limit / 2):
            self._status.change("stalled", f"no image for {silent:.1f} s", only_from="live")
        if silent <= limit + self._grace:
            return  # the connection's own time-out comes first
        if not capture.interrupted:
            capture.interrupt()
        elif silent > limit + 2 * self._grace:
            delay = self.lost(capture, SourceError(f"no answer for {silent:.1f} s"))
            with self._changed:
                self._hung.append(capture)
                if delay is None:
                    self._capture = None
            capture.leave()
            _logger.warning("%s hangs: its thread is left to itself", self._name)
            if delay is not None:
                self._start_capture(delay)

    def _is_current(self, thread: CaptureThread) -> bool:
        with self._changed:
            return thread is self._capture and not self._stopped

    def _end(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()
        WATCHDOG.forget(self)
        self._buffer.finish(error)

    def _start_capture(self, delay: float) -> None:
        capture = CaptureThread(self._opener, self, self._name, delay)
        with self._changed:
            if self._stopped:
                return
            self._capture = capture
        capture.thread.start()
