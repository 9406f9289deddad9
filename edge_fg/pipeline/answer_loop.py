"""The loop that takes frames, has them answered and hands the results on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from edge_fg.errors import ImageError
from edge_fg.pipeline.batch_size import BatchSizer
from edge_fg.pipeline.recogniser import Recogniser
from edge_fg.pipeline.scheduler import Turn
from edge_fg.pipeline.sink_group import SinkGroup
from edge_fg.pipeline.source_group import SourceGroup
from edge_fg.pipeline.throttle import Throttle
from edge_fg.telemetry.meter import Meter


@dataclass(eq=False)
class AnswerLoop:
    """Answers the frames of all sources, one turn after the other.

    It ends after `max_frames` answers (None: all frames); `throttle` limits their rate;
    `clock` gives the seconds of `Frame.captured`.
    """

    sources: SourceGroup
    sinks: SinkGroup
    recognise: Recogniser[Any]
    sizer: BatchSizer
    meter: Meter
    throttle: Throttle | None
    max_frames: int | None
    clock: Callable[[], float]

    def run(self) -> BaseException | None:
        """Answer frames until the end; return the error if all sources ended with one."""
        scheduler, not_before = self.sources.scheduler, None
        while (turn := scheduler.take(self._choose_size, not_before)) is not None:
            started = self.clock()
            self.sources.log_failures(turn.closing)
            self._close_visits(turn.closing)
            if turn.frames:
                self._answer(turn, started)
                self.sources.hint.turn_ended(self.clock() - started)
                limit = self.throttle.rate_limit() if self.throttle else None
                not_before = None if limit is None else started + len(turn.frames) / limit
            if self.max_frames is not None and self.sources.answered >= self.max_frames:
                break
        all_ended = turn is None and not scheduler.stopped
        failure = self.sources.failure() if all_ended else None
        self._close_visits(range(len(self.sources.queues)))
        return failure

    def _choose_size(self, waiting: int) -> int:
        if self.max_frames is not None:
            waiting = min(waiting, self.max_frames - self.sources.answered)
        return self.sizer.choose(waiting)

    def _answer(self, turn: Turn, now: float) -> None:
        queues = self.sources.queues
        for number, frame in turn.frames:
            self.meter.add("queue", max(0.0, now - frame.captured))
            self.sources.hint.turn_began(number, now)
        failed: set[int] = set()
        for number, result in self.recognise(turn.frames):
            if number in failed:
                queues[number].leave_out()
            elif isinstance(result, ImageError):
                queues[number].fail(result)
                failed.add(number)
            else:
                with self.sources.lock:  # the statistics are of one moment
                    queues[number].answered += 1
                    self.meter.answered(result.age_s)
                self.sinks.put(result)

    def _close_visits(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            result = self.recognise.close(number, self.sources.queues[number].last)
            if result is not None:
                self.sinks.put(result)
