"""The sources of a pipeline: a queue and a reader for each, and whose frame is next."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from edge_fg.pipeline.frame_queue import FrameQueue
from edge_fg.pipeline.next_frame_hint import NextFrameHint
from edge_fg.pipeline.policy import Policy, is_lossless, makes_wait
from edge_fg.pipeline.scheduler import Scheduler
from edge_fg.pipeline.source_reader import SourceReader
from edge_fg.sources import Source
from edge_fg.telemetry.meter import Meter
from edge_fg.telemetry.stats import SourceStats

_logger = logging.getLogger("edge_fg")


class SourceGroup:
    """The sources of a pipeline; their queues share one lock.

    With `one_each`, at most one frame of each source is taken at once. Of a source that loses no
    frame, only `max_frames` are read. `meter` is told how long each frame was waited for; `clock`
    gives the seconds of `Frame.captured`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        policies: Sequence[Policy],
        one_each: bool,
        max_frames: int | None,
        meter: Meter,
        clock: Callable[[], float],
    ) -> None:
        self.sources = sources
        self.lossless = all(map(makes_wait, policies, [source.live for source in sources]))
        self.lock = threading.RLock()
        changed = threading.Condition(self.lock)
        self.queues = [
            FrameQueue(policy, live=source.live, lock=self.lock, changed=changed, clock=clock)
            for policy, source in zip(policies, sources, strict=True)
        ]
        self.scheduler = Scheduler(self.queues, changed, one_each=one_each, clock=clock)
        self.hint = NextFrameHint(sources, policies)
        self._readers = [
            SourceReader(
                source,
                queue,
                limit=max_frames if is_lossless(queue.policy) else None,
                waited=lambda seconds: meter.add("capture", seconds),
                clock=clock,
            )
            for source, queue in zip(sources, self.queues, strict=True)
        ]

    @property
    def threads(self) -> set[threading.Thread]:
        """The threads that read and watch the sources."""
        return {thread for reader in self._readers for thread in reader.threads}

    @property
    def answered(self) -> int:
        """Frames that were answered."""
        return sum(queue.answered for queue in self.queues)

    def stats(self) -> tuple[SourceStats, ...]:
        """Return what they have done so far."""
        with self.lock:
            return tuple(map(_source_stats, self.sources, self.queues))

    def start(self) -> None:
        """Start reading."""
        for reader in self._readers:
            reader.start()

    def stop(self) -> None:
        """Hand on no more frames, and drop those that wait; returns at once."""
        self.scheduler.stop()
        for queue in self.queues:
            queue.close()

    def drain(self) -> None:
        """Read no more; frames that wait can be taken. Returns at once."""
        for reader in self._readers:
            reader.stop()
            # The read that is under way may take long, and its frame would be refused.
            reader.queue.finish()

    def closers(self) -> list[Callable[[], None]]:
        """Return a function for each source that closes it and waits for its thread."""
        return [reader.close for reader in self._readers]

    def log_failures(self, numbers: Sequence[int]) -> None:
        """Log which of the sources that ended have failed while others continue."""
        for number in numbers:
            error = self.queues[number].error
            if error is not None and len(self.queues) > 1:
                name = self.sources[number].name
                _logger.error("%s has failed, the others continue: %s", name, error)

    def failure(self) -> BaseException | None:
        """Return the first error if all sources have failed."""
        errors = [queue.error for queue in self.queues]
        return errors[0] if all(error is not None for error in errors) else None


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
