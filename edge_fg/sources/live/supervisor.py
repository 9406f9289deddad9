"""Keeping a live source alive: what comes, what is lost, when to try again."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from dataclasses import dataclass

from edge_fg.errors import SourceError
from edge_fg.sources.live.backoff import Backoff
from edge_fg.sources.live.connection import Connection, Corrupted, Opener, Shot
from edge_fg.sources.live.freeze_detector import ImageWatch, Look
from edge_fg.sources.live.reader import Worker
from edge_fg.sources.options import CaptureOptions
from edge_fg.sources.state import StateBoard

_logger = logging.getLogger("edge_fg")

# Threads that may hang in a driver at one time; beyond that nothing is opened any more, so that
# a driver that never comes back costs this many threads and not one a try.
_MAX_HUNG = 2
# A connection that stood so long has proven itself: the waits begin small again.
_PROVEN_S = 5.0
_STALL_S = 2.0
_GRACE_S = 1.0
# Nobody may have a source rest for longer: it must notice an image that stands still.
_MAX_REST_S = 1.0


@dataclass
class Arrival:
    """An image on its way to the reader, and how many were lost before it."""

    shot: Shot
    dropped: int


class Feed:
    """Hands images of a live source from the thread that reads to the one that wants them.

    It keeps the newest images (`CaptureOptions.buffer`), watches over the reading thread while
    somebody waits for an image, leaves a thread that hangs to itself and starts another.

    Parameters
    ----------
    name
        The source's name, fit to be shown.
    opener
        Makes its connections.
    options
        Time-outs, waits, and what counts as frozen or black.
    board
        Where state and counters are kept.
    """

    def __init__(
        self, name: str, opener: Opener, options: CaptureOptions, board: StateBoard
    ) -> None:
        self._name = name
        self._opener = opener
        self._options = options
        self._board = board
        self._changed = threading.Condition()
        self._waiting: deque[Arrival] = deque()
        self._backoff = Backoff(*options.backoff, options.seed)
        self._watch = ImageWatch()
        self._hung: list[Worker] = []
        self._worker: Worker | None = None
        self._stopped = False
        self._error: BaseException | None = None
        self._first_error: SourceError | None = None
        self._connected = False
        self._losing = True  # until the first image there is a connection to be won
        self._was_live = False
        self._failures = 0
        self._opened_at = 0.0
        self._missed = 0
        self._black_said = False
        self._interrupted = False
        self.wanted = -math.inf
        self.fps: float | None = None
        self.size_wh: tuple[int, int] | None = None
        self.frame_count: int | None = None

    # ------------------------------------------------------------ for the reader

    def start(self) -> None:
        """Start reading."""
        self._replace_worker(0.0)

    def connect(self) -> None:
        """Wait until the first connection stands.

        Raises
        ------
        EdgeFGError
            The first try failed; there will be no other.
        """
        with self._changed:
            while not (self._connected or self._first_error or self._error or self._stopped):
                self._changed.wait(self._until_look())
                if self._overdue():
                    break
            if self._connected or self._stopped:
                return
            error = self._error or self._first_error
        self.stop()
        if error is None:
            limit = self._options.timeout
            error = SourceError(f"can't open {self._name}: it doesn't answer within {limit:g} s")
        raise error

    def take(self) -> Arrival | None:
        """Return the oldest image that waits, waiting for one; None once it was stopped.

        Raises
        ------
        EdgeFGError
            There will be no more images.
        """
        while True:
            with self._changed:
                if not (self._waiting or self._stopped or self._error):
                    self._changed.wait(self._until_look())
                if self._waiting:
                    return self._waiting.popleft()
                if self._stopped:
                    return None
                if self._error is not None:
                    error, self._error, self._stopped = self._error, None, True
                    raise error
            self._look_after()

    def wanted_at(self, moment: float) -> None:
        """Hear that nobody takes an image before `moment`; see `LiveSource.wanted_at`."""
        # One attribute, set at a stroke: the thread that reads needs no lock.
        self.wanted = min(moment, time.monotonic() + _MAX_REST_S)

    def stop(self) -> None:
        """Stop reading; waits a little for the thread, not for one that hangs."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            worker, self._worker = self._worker, None
            self._changed.notify_all()
        if worker is not None:
            worker.leave()
            if not worker.join(_GRACE_S):
                _logger.debug("the thread that reads %s is left to end by itself", self._name)

    # ------------------------------------------------------------ for the thread that reads

    def may_open(self) -> bool:
        """Whether a connection may be opened: not while too many threads hang."""
        with self._changed:
            self._hung = [worker for worker in self._hung if worker.alive]
            return len(self._hung) < _MAX_HUNG

    def opening(self, worker: Worker) -> None:
        """Note that a connection is about to be opened."""
        if self._is_current(worker):
            self._board.change("connecting", "opening it")

    def opened(self, worker: Worker, connection: Connection) -> None:
        """Note that a connection stands; it is live with its first image."""
        with self._changed:
            if worker is not self._worker:
                return
            self._connected = True
            self._opened_at = time.monotonic()
            self.fps, self.size_wh = connection.fps, connection.size_wh
            self.frame_count = connection.frame_count
            self._changed.notify_all()

    def arrived(self, worker: Worker, shot: Shot) -> str | None:
        """Take an image; a reason to give the connection up, or None to go on."""
        if not self._is_current(worker):
            return None
        look = self._watch.look(shot.pixels, shot.captured)
        frozen = (
            self._options.frozen_after is not None and look.still_s > self._options.frozen_after
        )
        if frozen:
            return self._frozen(look, shot)
        self._tell_of(look, shot)
        with self._changed:
            if worker is not self._worker:
                return None
            back = self._losing and self._was_live
            self._was_live = True
            self._losing, self._interrupted = False, False
            self._failures = 0
            self._waiting.append(Arrival(shot, self._missed))
            self._missed = 0
            if len(self._waiting) > self._options.buffer:
                lost = self._waiting.popleft()
                self._waiting[0].dropped += 1 + lost.dropped
                self._board.add("dropped")
            self._changed.notify_all()
        if back:
            self._board.add("reconnects")
        self._board.change("live", "images come")
        return None

    def skipped(self, worker: Worker) -> None:
        """Count an image that came and was left undecoded.

        It proves nothing about the state: that is for images that can be looked at.
        """
        with self._changed:
            if worker is not self._worker or self._stopped:
                return
            self._missed += 1
        self._board.add("dropped")

    def corrupted(self, worker: Worker, what: Corrupted) -> str | None:
        """Count what is no image; a reason to give up when nothing else comes."""
        if not self._is_current(worker):
            return None
        self._board.add("corrupted", what.count)
        _logger.debug("%s: an image is left out, %s", self._name, what.reason)
        with self._changed:
            self._missed += what.count
        silent = time.monotonic() - worker.progress[1]
        late = silent > self._options.timeout
        return f"nothing but damaged images for {silent:.1f} s" if late else None

    def lost(self, worker: Worker, error: SourceError) -> float | None:
        """Decide after a loss: seconds to wait for the next try, or None to end."""
        with self._changed:
            if worker is not self._worker:
                return None
            stood = time.monotonic() - self._opened_at
            if not self._losing and stood >= _PROVEN_S:
                self._backoff.reset()
            again = self._losing
            limit = self._options.reconnect
            first = not (self._connected or self._options.wait)
            if first:
                self._first_error = error
            elif limit is not None and self._failures >= limit:
                self._error = self._given_up(error)
            self._failures += 1
            self._losing = True
            ended = first or self._error is not None
            delay = 0.0 if ended else self._backoff.next()
            self._changed.notify_all()
        if ended:
            return None
        # A camera that is away for a week must not fill the log with a warning every minute.
        level = logging.INFO if again else logging.WARNING
        self._board.change("lost", f"{error}; next try in {delay:.1f} s", level=level)
        return delay

    def failed(self, worker: Worker, error: BaseException) -> None:
        """Pass on what no further try can mend."""
        with self._changed:
            if worker is self._worker:
                self._error = error
                self._changed.notify_all()

    # ------------------------------------------------------------ inside

    def _is_current(self, worker: Worker) -> bool:
        with self._changed:
            return worker is self._worker and not self._stopped

    def _given_up(self, error: SourceError) -> SourceError:
        seen = self._board.counters["frames"] + len(self._waiting)
        tries = f", also after {self._failures} more tries" if self._failures else ""
        return SourceError(f"{self._name} gave no more frames after {seen}{tries}: {error}")

    def _frozen(self, look: Look, shot: Shot) -> str | None:
        limit = self._options.frozen_after
        assert limit is not None
        self._board.add("frozen")
        if self._board.change("stalled", f"the same image for {look.still_s:.1f} s"):
            self._board.add("stalls")
        # A camera that froze is often mended by a new connection, which gets as long as the first.
        stuck = shot.captured - self._opened_at > limit
        return f"its image has stood still for {look.still_s:.1f} s" if stuck else None

    def _tell_of(self, look: Look, shot: Shot) -> None:
        if look.resized:
            self._board.add("size_changes")
            image = shot.pixels
            size = image.shape[1::-1] if hasattr(image, "shape") else image.size_wh
            _logger.info("%s gives %d x %d pixels now", self._name, *size)
        limit = self._options.black_after
        if limit is None:
            return
        if look.black_s is not None:
            self._board.add("black")
        if look.black_s is not None and look.black_s > limit and not self._black_said:
            self._black_said = True
            _logger.warning(
                "%s has shown black for %.0f s: night, a cap on the lens, or a broken sensor",
                *(self._name, look.black_s),
            )
        elif look.black_s is None and self._black_said:
            self._black_said = False
            _logger.info("%s shows images again", self._name)

    # ------------------------------------------------------------ watching over the thread

    @property
    def _grace(self) -> float:
        return min(_GRACE_S, self._options.timeout)

    def _overdue(self) -> bool:
        """Whether the thread is later than the connection's own time-out should allow."""
        if self._worker is None:
            return False
        phase, since = self._worker.progress
        late = time.monotonic() - since - self._options.timeout
        return phase != "waiting" and late > self._grace

    def _until_look(self) -> float:
        """Seconds after which to look at the thread again."""
        return min(_STALL_S, self._options.timeout) / 8

    def _look_after(self) -> None:
        worker = self._worker
        if worker is None:
            return
        phase, since = worker.progress
        silent = time.monotonic() - since
        if phase == "reading" and silent > min(_STALL_S, self._options.timeout / 2):
            reason = f"no image for {silent:.1f} s"
            if self._board.change("stalled", reason, only_from="live"):
                self._board.add("stalls")
        if phase == "waiting" or not self._overdue():
            return
        if not self._interrupted:
            self._interrupted = True
            worker.interrupt()
        elif silent > self._options.timeout + 2 * self._grace:
            self._abandon(worker, f"no answer for {silent:.1f} s")

    def _abandon(self, worker: Worker, reason: str) -> None:
        """Leave a thread that hangs to itself, and go on with another."""
        delay = self.lost(worker, SourceError(reason))
        with self._changed:
            self._hung.append(worker)
            self._interrupted = False
            if delay is None:
                self._worker = None
        worker.leave()
        _logger.warning("%s hangs: its thread is left to itself", self._name)
        if delay is not None:
            self._replace_worker(delay)

    def _replace_worker(self, delay: float) -> None:
        worker = Worker(self._opener, self, f"edge_fg-capture-{self._name}", delay)
        with self._changed:
            if self._stopped:
                return
            self._worker = worker
        worker.start()
