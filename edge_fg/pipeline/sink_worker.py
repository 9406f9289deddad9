"""One thread for each sink: slow and failing sinks do not delay the others."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from edge_fg.pipeline.result_queue import CAPACITY, ResultQueue
from edge_fg.result import Result
from edge_fg.sinks.base import Sink
from edge_fg.telemetry.histogram import Histogram
from edge_fg.telemetry.meter import Meter
from edge_fg.telemetry.stats import SinkStats

_logger = logging.getLogger("edge_fg")

FAILURES_IN_A_ROW: Final = 5
"""Errors in a row after which a sink is paused."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds of the pause, doubled after each attempt that fails."""

CLOSING_GRACE: Final = 60.0
"""Seconds more for a sink that is finishing: a long video is checked and forced onto the disk."""

_CHECK_S = 0.1


class SinkWorker:
    """Gives results to one sink, which is open already; this worker's thread closes it.

    With `blocking`, recognition waits where the sink is slow. `fatal` is called with an error that
    must end the pipeline; None where none does. `meter` is told how long each result took.
    """

    def __init__(
        self,
        sink: Sink,
        blocking: bool,
        fatal: Callable[[BaseException], None] | None,
        meter: Meter,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue = ResultQueue(CAPACITY, blocking=blocking)
        self._sink = sink
        self._fatal = fatal
        self._meter = meter
        self._clock = clock
        self._lock = threading.Lock()
        self._latency = Histogram()
        self._written = self._failures = self._skipped = self._in_a_row = 0
        self._error: str | None = None
        self._kinds: set[str] = set()
        self._pause = FIRST_PAUSE
        self._again_at = -math.inf  # end of the pause
        self._state = "open"
        self._closing = False
        self.thread = threading.Thread(
            target=self._work, name=f"edge_fg-sink-{sink.name}", daemon=True
        )

    def start(self) -> None:
        """Start the thread; may be called again."""
        if self.thread.ident is None:
            self.thread.start()

    def join(self, deadline: Callable[[], float | None]) -> None:
        """Wait until the sink has taken everything, and abandon it at the clock's `deadline`.

        The deadline is called again and again, and gives None while there is no hurry.
        """
        if self.thread is threading.current_thread():
            return
        while self.thread.is_alive() and self._clock() < (deadline() or math.inf):
            self.thread.join(_CHECK_S)
        if not self.thread.is_alive():
            return
        left = len(self.queue)
        self.queue.close()
        self.thread.join(_CHECK_S)
        until = self._clock() + CLOSING_GRACE
        while self.thread.is_alive() and self._closing and self._clock() < until:
            self.thread.join(_CHECK_S)
        if self.thread.is_alive():
            _logger.error("sink %s does not return: it was abandoned", self._sink.name)
        elif left:
            _logger.warning("sink %s was stopped with %d results unwritten", self._sink.name, left)

    def stats(self) -> SinkStats:
        """Return what it has done so far."""
        with self._lock:
            return SinkStats(
                self._sink.name,
                self._state,
                self._written,
                self.queue.dropped + self._skipped,
                self._failures,
                self._error,
                len(self.queue),
                self._latency.copy().summary(),
            )

    def _work(self) -> None:
        while (result := self.queue.wait()) is not None or not self.queue.finished:
            if result is not None:
                self._write(result)
            del result
        self._closing = True
        try:
            self._sink.close()
        # A sink that can't finish has lost something: log and count it like other errors.
        except Exception as error:  # noqa: BLE001
            self._fail(error, None)
        with self._lock:
            self._state = "closed"

    def _write(self, result: Result[Any]) -> None:
        if self._clock() < self._again_at:
            self.queue.carry(result.events)
            with self._lock:
                self._skipped += 1
            return
        started = self._clock()
        try:
            self._sink(result)
        # Whatever a sink raises is its own failure and must not stop anything else.
        except Exception as error:  # noqa: BLE001
            self._fail(error, result)
            return
        seconds = self._clock() - started
        self._meter.add("sink", seconds)
        with self._lock:
            self._latency.add(seconds)
            self._written += 1
            self._in_a_row = 0
            if self._state == "failing":
                self._pause, self._state = FIRST_PAUSE, "open"
                self._kinds.clear()
                _logger.info("sink %s works again", self._sink.name)

    def _fail(self, error: Exception, result: Result[Any] | None) -> None:
        message = " ".join(str(error).split()) or type(error).__name__
        if result is not None:
            self.queue.carry(result.events)
        with self._lock:
            self._failures += 1
            self._in_a_row += 1
            self._error = message
            new = type(error).__name__ not in self._kinds
            self._kinds.add(type(error).__name__)
        if new:
            _logger.error("sink %s failed: %s: %s", self._sink.name, type(error).__name__, message)
        if self._fatal is not None:
            self._fatal(error)
            self.queue.close()
        elif self._in_a_row >= FAILURES_IN_A_ROW and result is not None:
            # During a pause results are skipped at once: a queue that blocks stays empty.
            with self._lock:
                self._state = "failing"
                self._again_at = self._clock() + self._pause
                pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
            _logger.warning("sink %s is paused for %g s", self._sink.name, pause)
