"""The sinks of a pipeline, and the loops over its results."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from edge_fg.pipeline.result_queue import ResultQueue
from edge_fg.pipeline.sink_worker import SinkWorker
from edge_fg.result import Result
from edge_fg.sinks.base import Sink
from edge_fg.sources import Source
from edge_fg.telemetry.histogram import Histogram
from edge_fg.telemetry.meter import Meter
from edge_fg.telemetry.stats import SinkStats

GRACE: Final = 5.0
"""Seconds that a sink gets to write what waits when the pipeline is stopped."""


@dataclass(eq=False)
class SinkGroup:
    """Hands results to the sinks, each through its worker, and to the loops over the pipeline."""

    sinks: Sequence[Sink]
    blocking: bool  # whether recognition waits for sinks that say nothing of it themselves
    fail: Callable[[BaseException], None]  # gets the error of a sink that must lose nothing
    meter: Meter
    clock: Callable[[], float]
    workers: list[SinkWorker] = field(default_factory=list, init=False)
    loops: list[ResultQueue] = field(default_factory=list, init=False)
    deadline: float | None = field(default=None, init=False)

    @property
    def threads(self) -> set[threading.Thread]:
        """The threads that call the sinks."""
        return {worker.thread for worker in self.workers}

    @property
    def queues(self) -> list[ResultQueue]:
        """The queues of all that take results."""
        return [*(worker.queue for worker in self.workers), *self.loops]

    def open(self, sources: Sequence[Source]) -> None:
        """Open the sinks, one after the other."""
        for sink in self.sinks:
            sink.open(sources)
            promised = getattr(sink, "lossless", None)
            blocking = self.blocking if promised is None else bool(promised)
            fatal = self.fail if promised else None
            self.workers.append(SinkWorker(sink, blocking, fatal, self.meter, clock=self.clock))

    def start(self) -> None:
        """Start the threads of those that are open; may be called again."""
        for worker in self.workers:
            worker.start()

    def put(self, result: Result[Any]) -> None:
        """Hand a result to all of them."""
        for queue in self.queues:
            queue.put(result)

    def hurry(self) -> None:
        """Stop waiting for slow sinks; they get `GRACE` seconds to write what waits."""
        self.deadline = self.clock() + GRACE
        for queue in self.queues:
            queue.unblock()

    def finish(self) -> None:
        """Tell all of them that no more results will come."""
        for queue in self.queues:
            queue.finish()

    def closers(self) -> list[Callable[[], None]]:
        """Return a function for each sink that waits until it is closed."""
        return [partial(worker.join, lambda: self.deadline) for worker in self.workers]

    def stats(self) -> tuple[SinkStats, ...]:
        """Return what they have done so far."""
        return (*(worker.stats() for worker in self.workers), *map(_loop_stats, self.loops))


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
