"""What a pipeline counts, and how it is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edge_fg.pipeline.batch_size import BatchSizer
from edge_fg.pipeline.sink_group import SinkGroup
from edge_fg.pipeline.source_group import SourceGroup
from edge_fg.pipeline.throttle import Throttle
from edge_fg.telemetry.meter import Meter
from edge_fg.telemetry.process import resident_bytes
from edge_fg.telemetry.stats import PipelineStats, SourceStats


class StatsCollector:
    """Counts answers and makes `PipelineStats`.

    The lock of the sources guards these counts too: what is told was true at one moment.

    Parameters
    ----------
    sources, sinks, meter, batch, throttle, clock
        Of the pipeline.
    classifier
        Its attribute ``engine_bytes`` is told, where it has one.
    """

    def __init__(
        self,
        sources: SourceGroup,
        sinks: SinkGroup,
        meter: Meter,
        batch: BatchSizer,
        throttle: Throttle | None,
        classifier: Any,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = "new"
        self.answered = 0
        self._sources = sources
        self._sinks = sinks
        self._meter = meter
        self._batch = batch
        self._throttle = throttle
        self._classifier = classifier
        self._clock = clock
        self._by_source = [0] * len(sources.queues)
        self._started_at: float | None = None
        self._ended_at: float | None = None

    def started(self) -> None:
        """Say that the pipeline runs."""
        self.state = "running"
        self._started_at = self._clock()

    def ended(self) -> None:
        """Say that the pipeline has ended."""
        self.state = "ended"
        self._ended_at = self._clock()

    def count(self, number: int, age_s: float) -> None:
        """Count an answer to a frame of source `number`, so many seconds after its capture."""
        with self._sources.lock:
            self.answered += 1
            self._by_source[number] += 1
            self._meter.answered(age_s)

    def stats(self) -> PipelineStats:
        """Return what was done so far."""
        with self._sources.lock:
            stages, age = self._meter.copies()
            sources = tuple(map(self._source_stats, range(len(self._by_source))))
            answered, state, uptime = self.answered, self.state, self._uptime()
        return PipelineStats(
            state=state,
            uptime=uptime,
            answered=answered,
            rate=0.0 if state == "ended" else self._meter.rate(),
            batch=self._batch.current,
            sources=sources,
            sinks=self._sinks.stats(),
            stages={name: histogram.summary() for name, histogram in stages.items()},
            age=age.summary(),
            throttle=self._throttle.stats() if self._throttle else None,
            rss_bytes=resident_bytes(),
            engine_bytes=getattr(self._classifier, "engine_bytes", None),
        )

    def _uptime(self) -> float:
        if self._started_at is None:
            return 0.0
        return (self._ended_at or self._clock()) - self._started_at

    def _source_stats(self, number: int) -> SourceStats:
        source, queue = self._sources.sources[number], self._sources.queues[number]
        return SourceStats(
            name=source.name,
            # Frames may still wait when the last one has been read.
            state="ended" if queue.finished else source.state,
            error=None if queue.error is None else str(queue.error) or type(queue.error).__name__,
            policy=str(queue.policy),
            frames=queue.frames,
            answered=self._by_source[number],
            dropped=dict(queue.dropped),
            waiting=len(queue),
            counters=dict(source.counters),
        )
