"""What a pipeline counts, and the statistics made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edge_fg.pipeline.batch_size import BatchSizer
from edge_fg.pipeline.sink_group import SinkGroup
from edge_fg.pipeline.source_group import SourceGroup
from edge_fg.pipeline.throttle import Throttle
from edge_fg.telemetry.meter import Meter
from edge_fg.telemetry.process import resident_bytes
from edge_fg.telemetry.stats import PipelineStats, SourceStats


@dataclass(eq=False)
class StatsCollector:
    """Counts answers and makes `PipelineStats`, from the parts of a pipeline.

    The lock of the sources guards these counts too: the statistics are of one moment. The
    attribute ``engine_bytes`` of `classifier` is included, where it has one.
    """

    sources: SourceGroup
    sinks: SinkGroup
    meter: Meter
    sizer: BatchSizer
    throttle: Throttle | None
    classifier: Any
    clock: Callable[[], float]
    state: str = "new"
    by_source: Counter[int] = field(default_factory=Counter)
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def answered(self) -> int:
        """Frames that were answered."""
        return self.by_source.total()

    def start(self) -> None:
        """Note that the pipeline runs."""
        self.state, self.started_at = "running", self.clock()

    def end(self) -> None:
        """Note that the pipeline has ended."""
        self.state, self.ended_at = "ended", self.clock()

    def count(self, number: int, age_s: float) -> None:
        """Count an answer to a frame of source `number`, so many seconds after its capture."""
        with self.sources.lock:
            self.by_source[number] += 1
            self.meter.answered(age_s)

    def stats(self) -> PipelineStats:
        """Return what was done so far."""
        with self.sources.lock:
            stages, age = self.meter.copies()
            sources = tuple(map(self._source_stats, range(len(self.sources.queues))))
            answered, state, uptime = self.answered, self.state, self._uptime()
        return PipelineStats(
            state=state,
            uptime=uptime,
            answered=answered,
            rate=0.0 if state == "ended" else self.meter.rate(),
            batch=self.sizer.current,
            sources=sources,
            sinks=self.sinks.stats(),
            stages={name: histogram.summary() for name, histogram in stages.items()},
            age=age.summary(),
            throttle=self.throttle.stats() if self.throttle else None,
            rss_bytes=resident_bytes(),
            engine_bytes=getattr(self.classifier, "engine_bytes", None),
        )

    def _uptime(self) -> float:
        if self.started_at is None:
            return 0.0
        return (self.clock() if self.ended_at is None else self.ended_at) - self.started_at

    def _source_stats(self, number: int) -> SourceStats:
        source, queue = self.sources.sources[number], self.sources.queues[number]
        return SourceStats(
            name=source.name,
            # Frames may still wait when the last one has been read.
            state="ended" if queue.finished else source.state,
            error=None if queue.error is None else str(queue.error) or type(queue.error).__name__,
            policy=str(queue.policy),
            frames=queue.frames,
            answered=self.by_source[number],
            dropped=dict(queue.dropped),
            waiting=len(queue),
            counters=dict(source.counters),
        )
