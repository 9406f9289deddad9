"""All that takes results: the sinks, and the loops over a pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from edge_fg.pipeline.result_queue import ResultQueue
from edge_fg.pipeline.sink_worker import SinkWorker
from edge_fg.result import Result
from edge_fg.sinks.protocol import Sink
from edge_fg.sources import Source
from edge_fg.telemetry.histogram import Histogram
from edge_fg.telemetry.meter import Meter
from edge_fg.telemetry.stats import SinkStats

GRACE: Final = 5.0
"""Seconds that a sink gets to write what waits when the pipeline is stopped."""


class SinkGroup:
    """The sinks of a pipeline, a worker for each, and the loops that iterate over it.

    Parameters
    ----------
    sinks
        Opened by `open`.
    blocking
        Whether recognition waits for sinks that promise nothing themselves.
    fail
        Called with an error of a sink that promised to lose nothing.
    meter
        Is told how long the sinks took.
    clock
        Seconds.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        blocking: bool,
        fail: Callable[[BaseException], None],
        meter: Meter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sinks = sinks
        self._blocking = blocking
        self._fail = fail
        self._meter = meter
        self._clock = clock
        self._workers: list[SinkWorker] = []
        self._loops: list[ResultQueue] = []
        self._deadline: float | None = None

    @property
    def threads(self) -> set[threading.Thread]:
        """The threads that call the sinks."""
        return {worker.thread for worker in self._workers}

    def open(self, sources: Sequence[Source]) -> None:
        """Open the sinks, one after the other."""
        for sink in self._sinks:
            sink.open(sources)
            promised = getattr(sink, "lossless", None)
            self._workers.append(
                SinkWorker(
                    sink,
                    blocking=self._blocking if promised is None else bool(promised),
                    fatal=self._fail if promised else None,
                    meter=self._meter,
                    clock=self._clock,
                )
            )

    def start(self) -> None:
        """Start the threads of those that are open; may be called again."""
        for worker in self._workers:
            worker.start()

    def attach(self, *, blocking: bool, notify: Callable[[], None] | None) -> ResultQueue:
        """Return a queue that gets every result from now on, for a loop."""
        results = ResultQueue(4 if blocking else 1, blocking=blocking, notify=notify)
        self._loops.append(results)
        return results

    def put(self, result: Result[Any]) -> None:
        """Hand a result to all."""
        for queue in self._queues():
            queue.put(result)

    def hurry(self) -> None:
        """Let recognition wait no longer; sinks get a few seconds for what waits."""
        self._deadline = self._clock() + GRACE
        for queue in self._queues():
            queue.give_way()

    def finish(self) -> None:
        """Say that no result will come any more."""
        for queue in self._queues():
            queue.finish()

    def closers(self) -> list[Callable[[], None]]:
        """Return what waits for each sink to be closed."""
        return [partial(worker.join, lambda: self._deadline) for worker in self._workers]

    def stats(self) -> tuple[SinkStats, ...]:
        """Return what they have done so far."""
        return (*(worker.stats() for worker in self._workers), *map(_loop_stats, self._loops))

    def _queues(self) -> list[ResultQueue]:
        return [*(worker.queue for worker in self._workers), *self._loops]


def _loop_stats(results: ResultQueue) -> SinkStats:
    return SinkStats(
        name="iteration",
        state="closed" if results.finished else "open",
        written=results.taken,
        dropped=results.dropped,
        failures=0,
        error=None,
        waiting=len(results),
        latency=Histogram().summary(),
    )
