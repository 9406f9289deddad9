"""What a pipeline counts, and how it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from edge_fg.pipeline.batch_size import BatchCost
from edge_fg.pipeline.frame_queue import FrameQueue
from edge_fg.pipeline.result_queue import ResultQueue
from edge_fg.pipeline.sink_worker import SinkWorker
from edge_fg.pipeline.throttle import Throttle
from edge_fg.sources import Source
from edge_fg.telemetry.histogram import Histogram
from edge_fg.telemetry.meter import Meter
from edge_fg.telemetry.process import resident_bytes
from edge_fg.telemetry.stats import PipelineStats, SinkStats, SourceStats


class Reporter:
    """Counts answers and makes `PipelineStats`.

    Parameters
    ----------
    lock
        Guards the queues and these counts: what is told was true at one moment.
    sources, queues
        One queue a source.
    meter, batch, throttle
        Of the pipeline.
    classifier
        Its attribute ``engine_bytes`` is told, where it has one.
    """

    def __init__(
        self,
        lock: threading.RLock,
        sources: Sequence[Source],
        queues: Sequence[FrameQueue],
        meter: Meter,
        batch: BatchCost,
        throttle: Throttle | None,
        classifier: Any,
    ) -> None:
        self.state = "new"
        self.answered = 0
        self.outlets: list[ResultQueue] = []
        self._lock = lock
        self._sources = sources
        self._queues = queues
        self._meter = meter
        self._batch = batch
        self._throttle = throttle
        self._classifier = classifier
        self._by_source = [0] * len(sources)
        self._started_at: float | None = None
        self._ended_at: float | None = None

    def started(self) -> None:
        """Say that the pipeline runs."""
        self.state = "running"
        self._started_at = time.monotonic()

    def ended(self) -> None:
        """Say that the pipeline has ended."""
        self.state = "ended"
        self._ended_at = time.monotonic()

    def count(self, number: int, age: float) -> None:
        """Count an answer to a frame of source `number`, so many seconds after its capture."""
        with self._lock:
            self.answered += 1
            self._by_source[number] += 1
            self._meter.answered(age)

    def __call__(self, workers: Sequence[SinkWorker]) -> PipelineStats:
        """Return what was done so far."""
        with self._lock:
            stages, age = self._meter.copies()
            sources = tuple(map(self._source, range(len(self._sources))))
            answered, state, uptime = self.answered, self.state, self._uptime()
        return PipelineStats(
            state=state,
            uptime=uptime,
            answered=answered,
            rate=0.0 if state == "ended" else self._meter.rate(),
            batch=self._batch.current,
            sources=sources,
            sinks=(*(worker.stats() for worker in workers), *map(_loop, self.outlets)),
            stages={name: histogram.summary() for name, histogram in stages.items()},
            age=age.summary(),
            throttle=self._throttle.stats() if self._throttle else None,
            rss_bytes=resident_bytes(),
            engine_bytes=getattr(self._classifier, "engine_bytes", None),
        )

    def _uptime(self) -> float:
        if self._started_at is None:
            return 0.0
        return (self._ended_at or time.monotonic()) - self._started_at

    def _source(self, number: int) -> SourceStats:
        source, queue = self._sources[number], self._queues[number]
        state = getattr(source, "state", "live")
        return SourceStats(
            name=source.name,
            # Frames may still wait when the last one has been read.
            state="ended" if queue.finished else state,
            error=None if queue.error is None else str(queue.error) or type(queue.error).__name__,
            policy=str(queue.policy),
            frames=queue.frames,
            answered=self._by_source[number],
            dropped=dict(queue.dropped),
            waiting=len(queue),
            counters=dict(getattr(source, "counters", {})),
        )


def _loop(outlet: ResultQueue) -> SinkStats:
    state = "closed" if outlet.finished else "open"
    empty = Histogram().summary()
    return SinkStats("iteration", state, outlet.taken, outlet.dropped, 0, None, len(outlet), empty)
