"""From frames to results: regions, the model, visits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from edge_fg.boxes import Region
from edge_fg.errors import ImageError
from edge_fg.pipeline.batch_size import BatchSizer
from edge_fg.pipeline.classifier_adapter import ClassifierAdapter
from edge_fg.result import Result, Sighting, VisitEvent
from edge_fg.sources import Frame
from edge_fg.telemetry.meter import Meter

PredictionT = TypeVar("PredictionT")


class Follower(Protocol):
    """Follows the visits of one source; used from one thread."""

    def propose(self, frame: Frame, /) -> Sequence[Region]:
        """Return the regions of this frame to classify; none where no individual is."""

    def update(
        self, frame: Frame, regions: Sequence[Region], predictions: Sequence[Any], /
    ) -> tuple[Sequence[Sighting[Any]], Sequence[VisitEvent]]:
        """Return the individuals on this frame, from the prediction for each region."""

    def finish(self) -> Sequence[VisitEvent]:
        """End the open visits: the source has ended or was lost; more frames may follow."""


FollowerFactory = Callable[[int], Follower]
"""Makes the follower of a source, given its number from 1: names of visits begin with it."""


@dataclass(eq=False)
class _Request:
    """One frame, or one region of it, for the model.

    `answer` is filled in: an ImageError where the model can't take it.
    """

    source_number: int
    frame: Frame
    region: Region | None
    answer: Any = None


@dataclass(eq=False)
class Recogniser(Generic[PredictionT]):
    """Answers frames of several sources, in batches of the size that pays."""

    adapter: ClassifierAdapter[PredictionT]
    followers: Sequence[Follower] | None  # one a source; None where visits are not followed
    sizer: BatchSizer
    meter: Meter
    charge: Callable[[int, float], None]  # gets a source's number and what its frame cost (s)
    clock: Callable[[], float]  # seconds, the same clock as `Frame.captured`
    # Sources of which frames came since their visits were last closed.
    unclosed: set[int] = field(default_factory=set)

    def __call__(
        self, taken: Sequence[tuple[int, Frame]]
    ) -> list[tuple[int, Result[PredictionT] | ImageError]]:
        """Return the result of each frame, or why the model can't take it.

        With it comes the number of its source. Where visits are followed, at most one frame of
        each source is taken.
        """
        by_frame = [self._requests(number, frame) for number, frame in taken]
        waiting = itertools.chain.from_iterable(by_frame)
        for size in self.sizer.split(sum(map(len, by_frame))):
            self._ask(list(itertools.islice(waiting, size)))
        return [
            (number, self._result(number, frame, answered))
            for (number, frame), answered in zip(taken, by_frame, strict=True)
        ]

    def close(self, number: int, last: Frame | None) -> Result[PredictionT] | None:
        """Return a result with the visits that end with source `number`; None where none does."""
        if self.followers is None or last is None or number not in self.unclosed:
            return None
        self.unclosed.discard(number)
        events = tuple(self.followers[number].finish())
        if not events:
            return None
        age_s = self.clock() - last.captured
        return Result(last, None, age_s, events=events, closing=True, source_index=number)

    def _requests(self, number: int, frame: Frame) -> list[_Request]:
        if self.followers is None:
            return [_Request(number, frame, None)]
        started = self.clock()
        regions = self.followers[number].propose(frame)
        self.meter.add("visits", self.clock() - started)
        return [_Request(number, frame, region) for region in regions]

    def _ask(self, requests: Sequence[_Request]) -> None:
        started = self.clock()
        try:
            answers = self.adapter.several(
                [request.frame for request in requests], [request.region for request in requests]
            )
        except ImageError as error:
            # Only the frame that has the error must fail.
            if len(requests) == 1:
                requests[0].answer = error
            else:
                for request in requests:
                    self._ask([request])
            return
        seconds = self.clock() - started
        self.sizer.add(len(requests), seconds)
        for request, answer in zip(requests, answers, strict=True):
            request.answer = answer
            self.charge(request.source_number, seconds / len(requests))
        self._meter_latency(answers[0], seconds, len(requests))

    def _meter_latency(self, answer: Any, seconds: float, count: int) -> None:
        latency: Any = getattr(answer, "latency", None)
        preprocess_ms = getattr(latency, "preprocess_ms", None)
        for _ in range(count):
            if preprocess_ms is None:
                self.meter.add("inference", seconds / count)
            else:
                self.meter.add("preprocess", preprocess_ms / 1e3 / count)
                self.meter.add("inference", latency.inference_ms / 1e3 / count)

    def _result(
        self, number: int, frame: Frame, requests: Sequence[_Request]
    ) -> Result[PredictionT] | ImageError:
        answers = [request.answer for request in requests]
        for answer in answers:
            if isinstance(answer, ImageError):
                return answer
        if self.followers is None:
            return Result(frame, answers[0], self.clock() - frame.captured, source_index=number)
        started = self.clock()
        self.unclosed.add(number)
        regions = [request.region for request in requests if request.region is not None]
        sightings, events = self.followers[number].update(frame, regions, answers)
        ended = self.clock()
        self.meter.add("visits", ended - started)
        age_s = ended - frame.captured
        return Result(frame, None, age_s, tuple(sightings), tuple(events), source_index=number)
