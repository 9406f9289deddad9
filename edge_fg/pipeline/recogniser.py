"""From frames to results: regions, the model, visits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
        """Return where to look on this frame; nothing where nobody is there."""

    def update(
        self, frame: Frame, regions: Sequence[Region], predictions: Sequence[Any], /
    ) -> tuple[Sequence[Sighting[Any]], Sequence[VisitEvent]]:
        """Return who is on this frame, from what the model says of each region."""

    def finish(self) -> Sequence[VisitEvent]:
        """End the open visits: the source has ended or was lost; frames may still follow."""


FollowerFactory = Callable[[int], Follower]
"""Makes the follower of a source, given its number from 1: names of visits begin with it."""


@dataclass(frozen=True)
class Unusable:
    """A frame that the model can't take, and why."""

    error: ImageError


@dataclass
class _Job:
    """One frame or region to ask for; `answer` is filled in."""

    place: int
    frame: Frame
    region: Region | None
    answer: Any = None


class Recogniser(Generic[PredictionT]):
    """Answers frames of several sources, as many at once as pays.

    Parameters
    ----------
    adapter
        Asks the model.
    followers
        One a source; None where visits are not followed.
    batch
        Says how many to ask for at once.
    meter
        Is told how long it took.
    charge
        Called with the number of a source and the seconds that its frame cost.
    clock
        Seconds, the same clock as `Frame.captured`.
    """

    def __init__(
        self,
        adapter: ClassifierAdapter[PredictionT],
        followers: Sequence[Follower] | None,
        batch: BatchSizer,
        meter: Meter,
        charge: Callable[[int, float], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._adapter = adapter
        self._followers = followers
        self._batch = batch
        self._meter = meter
        self._charge = charge
        self._clock = clock
        # Sources of which frames came since their visits were last closed.
        self._unclosed: set[int] = set()

    def __call__(
        self, taken: Sequence[tuple[int, Frame]]
    ) -> list[tuple[int, Result[PredictionT] | Unusable]]:
        """Return the result of each frame, with the number of its source.

        Parameters
        ----------
        taken
            (number of the source, frame); at most one of each source where visits are followed.
        """
        proposed = [self._regions(number, frame) for number, frame in taken]
        jobs = [
            _Job(place, taken[place][1], region)
            for place, regions in enumerate(proposed)
            for region in regions
        ]
        begin = 0
        for size in self._batch.split(len(jobs)) if self._adapter.batches else [1] * len(jobs):
            self._ask(jobs[begin : begin + size], taken)
            begin += size
        answers: list[list[Any]] = [[] for _ in taken]
        for job in jobs:
            answers[job.place].append(job.answer)
        return [
            (number, self._result(number, frame, regions, found))
            for (number, frame), regions, found in zip(taken, proposed, answers, strict=True)
        ]

    def close(self, number: int, last: Frame | None) -> Result[PredictionT] | None:
        """Return a result with the visits that end with source `number`; None where none does."""
        if self._followers is None or last is None or number not in self._unclosed:
            return None
        self._unclosed.discard(number)
        events = tuple(self._followers[number].finish())
        if not events:
            return None
        age = self._clock() - last.captured
        return Result(last, None, age, events=events, closing=True, source=number)

    def _regions(self, number: int, frame: Frame) -> Sequence[Region | None]:
        if self._followers is None:
            return (None,)
        started = self._clock()
        regions = self._followers[number].propose(frame)
        self._meter.add("visits", self._clock() - started)
        return regions

    def _ask(self, jobs: Sequence[_Job], taken: Sequence[tuple[int, Frame]]) -> None:
        started = self._clock()
        try:
            answers = self._adapter.several(
                [job.frame for job in jobs], [job.region for job in jobs]
            )
        except ImageError as error:
            # Only the frame that it is about must suffer.
            if len(jobs) == 1:
                jobs[0].answer = Unusable(error)
            else:
                for job in jobs:
                    self._ask([job], taken)
            return
        seconds = self._clock() - started
        self._batch.add(len(jobs), seconds)
        for job, answer in zip(jobs, answers, strict=True):
            job.answer = answer
            self._charge(taken[job.place][0], seconds / len(jobs))
        self._write_down(answers[0], seconds / len(jobs), len(jobs))

    def _write_down(self, answer: Any, each: float, count: int) -> None:
        latency = getattr(answer, "latency", None)
        preprocess = getattr(latency, "preprocess_ms", None)
        for _ in range(count):
            if preprocess is None:
                self._meter.add("inference", each)
            else:
                self._meter.add("preprocess", preprocess / 1e3 / count)
                self._meter.add("inference", latency.inference_ms / 1e3 / count)  # type: ignore[union-attr]

    def _result(
        self, number: int, frame: Frame, regions: Sequence[Region | None], answers: list[Any]
    ) -> Result[PredictionT] | Unusable:
        for answer in answers:
            if isinstance(answer, Unusable):
                return answer
        if self._followers is None:
            return Result(frame, answers[0], self._clock() - frame.captured, source=number)
        started = self._clock()
        self._unclosed.add(number)
        looked = [region for region in regions if region is not None]
        sightings, events = self._followers[number].update(frame, looked, answers)
        ended = self._clock()
        self._meter.add("visits", ended - started)
        age = ended - frame.captured
        return Result(frame, None, age, tuple(sightings), tuple(events), source=number)
