"""The state of a pipeline, and its statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_fg.pipeline.batch_size import BatchSizer
from edge_fg.pipeline.frame_queue import FrameQueue
from edge_fg.pipeline.sink_group import SinkGroup
from edge_fg.pipeline.source_group import SourceGroup
from edge_fg.pipeline.throttle import Throttle
from edge_fg.sources import Source
from edge_fg.telemetry.meter import Meter
from edge_fg.telemetry.process import resident_bytes
from edge_fg.telemetry.stats import PipelineStats, SourceStats


@dataclass(eq=False)
class StatsCollector:
    """Makes `PipelineStats` from the parts of a pipeline, all counts of one moment.

    The attribute ``engine_bytes`` of `classifier` is included, where it has one.
    """

    sources: SourceGroup
    sinks: SinkGroup
    meter: Meter
    sizer: BatchSizer
    throttle: Throttle | None
    classifier: Any
    clock: Callable[[], float]
    state: str = "new"
    started_at: float | None = None
    ended_at: float | None = None

    def start(self) -> None:
        """Note that the pipeline runs."""
        self.state, self.started_at = "running", self.clock()

    def end(self) -> None:
        """Note that the pipeline has ended."""
        self.state, self.ended_at = "ended", self.clock()

    def stats(self) -> PipelineStats:
        """Return what was done so far."""
        with self.sources.lock:
            stages, age = self.meter.copies()
            sources = tuple(map(_source_stats, self.sources.sources, self.sources.queues))
            answered, state, uptime = self.sources.answered, self.state, self._uptime()
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


def _source_stats(source: Source, queue: FrameQueue) -> SourceStats:
    return SourceStats(
        name=source.name,
        # Frames may still wait when the last one has been read.
        state="ended" if queue.finished else source.state,
        error=None if queue.error is None else str(queue.error) or type(queue.error).__name__,
        policy=str(queue.policy),
        frames=queue.frames,
        answered=queue.answered,
        dropped=dict(queue.dropped),
        waiting=len(queue),
        counters=dict(source.counters),
    )
