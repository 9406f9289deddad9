"""The loop that takes frames, answers them and hands the results on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from edge_fg.pipeline.batch_size import BatchSizer
from edge_fg.pipeline.recogniser import Recogniser, Unusable
from edge_fg.pipeline.scheduler import Turn
from edge_fg.pipeline.sink_group import SinkGroup
from edge_fg.pipeline.source_group import SourceGroup
from edge_fg.pipeline.stats_collector import StatsCollector
from edge_fg.pipeline.throttle import Throttle
from edge_fg.telemetry.meter import Meter


class AnswerLoop:
    """Answers the frames of all sources, one turn after the other.

    Parameters
    ----------
    sources, sinks
        Where frames come from and results go.
    recognise
        Answers frames.
    batch
        Says how many to take at once.
    meter, counts
        Are told what was done.
    throttle
        Limits the rate; None never does.
    max_frames
        Stop after so many answers; None to go on to the end.
    clock
        Seconds, the same clock as `Frame.captured`.
    """

    def __init__(
        self,
        sources: SourceGroup,
        sinks: SinkGroup,
        recognise: Recogniser[Any],
        *,
        batch: BatchSizer,
        meter: Meter,
        counts: StatsCollector,
        throttle: Throttle | None,
        max_frames: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = sources
        self._sinks = sinks
        self._recognise = recognise
        self._batch = batch
        self._meter = meter
        self._counts = counts
        self._throttle = throttle
        self._limit = max_frames
        self._clock = clock

    def run(self) -> BaseException | None:
        """Answer frames until the end; return the error if all sources ended with one."""
        scheduler, not_before = self._sources.scheduler, None
        while (turn := scheduler.take(self._most, not_before)) is not None:
            started = self._clock()
            self._sources.log_failures(turn.closing)
            self._close_visits(turn.closing)
            if turn.frames:
                self._answer(turn, started)
                self._sources.hint.end(self._clock() - started)
                not_before = self._rest_until(started, len(turn.frames))
            if self._left() == 0:
                break
        failure = None if turn is not None or scheduler.stopped else self._sources.failure()
        self._close_visits(range(len(self._sources.queues)))
        return failure

    def _left(self) -> int | None:
        return None if self._limit is None else max(0, self._limit - self._counts.answered)

    def _most(self, waiting: int) -> int:
        left = self._left()
        return self._batch.choose(waiting if left is None else min(waiting, left))

    def _answer(self, turn: Turn, now: float) -> None:
        queues = self._sources.queues
        for number, frame in turn.frames:
            self._meter.add("queue", max(0.0, now - frame.captured))
            self._sources.hint.begin(number, now)
        failed: set[int] = set()
        for number, result in self._recognise(turn.frames):
            if number in failed:
                queues[number].leave_out()
            elif isinstance(result, Unusable):
                queues[number].fail(result.error)
                failed.add(number)
            else:
                self._counts.count(number, result.age_s)
                self._sinks.put(result)

    def _rest_until(self, started: float, count: int) -> float | None:
        limit = self._throttle.rate_limit() if self._throttle else None
        return None if limit is None else started + count / limit

    def _close_visits(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            result = self._recognise.close(number, self._sources.queues[number].last)
            if result is not None:
                self._sinks.put(result)
