"""Recognition over time: who came, what it is, when it left."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar

from edge_fg.errors import UsageError
from edge_fg.result import Region, Sighting, VisitEvent
from edge_fg.sources import Frame
from edge_fg.tracking.fusion import (
    FusedBelief,
    HeldAnswer,
    steady_quality,
)
from edge_fg.tracking.individual import Individual, PredictionLike
from edge_fg.tracking.motion import (
    MotionFinder,
    distance,
    inside_frame,
    padded_square,
    seconds_of,
)
from edge_fg.tracking.region_requests import Look, Question
from edge_fg.tracking.thumbnail import sharpness
from edge_fg.tracking.tracker import Box, Found, Track, Tracker
from edge_fg.tracking.visit_settings import VisitSettings

__all__ = ["RegionFinder", "VisitFollower", "VisitSettings", "follow_visits"]

PredictionT = TypeVar("PredictionT", bound=PredictionLike)

RegionFinder = Callable[[Frame], Sequence["Found | Box | Region"]]
"""Says where something is: boxes (x, y, width, height) in pixels, with a score as `Found`."""

# Presentation times of B-frames come a little out of order; a looped file goes back further.
_JITTER_S = 0.5
# Frames whose answers may still be under way in a pipeline.
_MOST_PENDING = 256


class VisitFollower(Generic[PredictionT]):
    """Follows the individuals before one camera; used from one thread.

    For each frame in turn: `propose` says where to look, the model is asked about these regions,
    and `update` is told the answers, also when there were none to give.

    Parameters
    ----------
    settings
        How visits are followed.
    regions
        Says where something is, in place of the movement seen by a fixed camera: a detector.
        Scores, where it gives them (`Found`), are compared with `TrackerSettings.new_score`.
    number
        Of the source; the first part of each visit's name.

    Raises
    ------
    MissingDependencyError
        OpenCV is not installed.

    Examples
    --------
    >>> follower = VisitFollower()  # doctest: +SKIP
    >>> for frame in source:  # doctest: +SKIP
    ...     regions = follower.propose(frame)
    ...     predictions = classifier.batch([frame.image] * len(regions), regions)
    ...     sightings, events = follower.update(frame, regions, predictions)
    """

    def __init__(
        self,
        settings: VisitSettings | None = None,
        *,
        regions: RegionFinder | None = None,
        number: int = 1,
    ) -> None:
        self.settings = settings or VisitSettings()
        self.number = number
        self._finder: RegionFinder = regions or MotionFinder(self.settings.motion)
        self._tracker = Tracker(self.settings.tracker)
        self._open: list[Individual] = []
        self._whose: dict[int, Individual] = {}
        self._pending: dict[int, Look] = {}
        self._now: float | None = None

    def propose(self, frame: Frame) -> list[Region]:
        """Return the regions of a frame that the model shall be asked about; perhaps none.

        Parameters
        ----------
        frame
            The next frame. If its clock went back, a looped file for instance, all visits end.
        """
        events: list[VisitEvent] = []
        now = seconds_of(frame)
        if self._now is not None and now < self._now:
            if self._now - now > _JITTER_S:
                events = self.finish()
            else:
                now = self._now
        self._now = now
        found = [_as_found(one) for one in self._finder(frame)]
        tracks = self._tracker.update(found, now, frame.size_wh)
        seen = [(track, self._noted(track, frame, now)) for track in tracks if track.last_s == now]
        questions = self._questions(frame, now, seen)
        while len(self._pending) >= _MOST_PENDING:
            events = self._pending.pop(next(iter(self._pending))).events + events
        shown = [(individual, individual.region) for _, individual in seen]
        self._pending[frame.number] = Look(now, questions, shown, events)
        return [question.region for question in questions]

    def update(
        self,
        frame: Frame,
        regions: Sequence[Region],
        predictions: Sequence[PredictionT],
    ) -> tuple[list[Sighting[PredictionT]], list[VisitEvent]]:
        """Take in what the model says of the regions of a frame.

        Parameters
        ----------
        frame
            A frame that `propose` was given; frames before it that were left out are forgotten.
        regions
            Those that `propose` returned, or some of them.
        predictions
            One for each region.

        Returns
        -------
        sightings, events
            The individuals on this frame, by number; and what became known with it.

        Raises
        ------
        UsageError
            The frame was not proposed, or the regions are not those proposed.
        """
        if len(regions) != len(predictions):
            raise UsageError(f"{len(regions)} regions came with {len(predictions)} predictions")
        look = self._take(frame)
        answers = look.take_in(regions, predictions)
        events = look.events
        for individual in list(self._open):
            events += self._tell(individual, look.time_s)
        sightings = [
            Sighting(
                track=individual.number,
                region_xywh=region,
                prediction=answers.get(id(individual)),
                label=individual.label,
                class_id=individual.index,
                confidence=individual.confidence,
            )
            for individual, region in look.seen
            if not self._is_nothing(individual)
        ]
        return sorted(sightings, key=lambda sighting: sighting.track), events

    def finish(self) -> list[VisitEvent]:
        """End all visits: the source ended, or the camera was lost. It may go on afterwards."""
        events = [event for look in self._pending.values() for event in look.events]
        self._pending.clear()
        for individual in list(self._open):
            events += self._end(individual)
        self._tracker.clear()
        self._now = None
        return events

    def _noted(self, track: Track, frame: Frame, now: float) -> Individual:
        """Return whose track it is, with this frame noted."""
        individual = self._whose.get(track.number)
        if individual is None:
            individual = Individual(
                number=track.number,
                source=frame.source,
                belief=FusedBelief(self.settings.smoothing),
                answer=HeldAnswer(self.settings.smoothing),
                first_s=track.first_s,
                first_at=None
                if frame.time is None
                else frame.time - timedelta(seconds=now - track.first_s),
                # This frame is counted below.
                frames=track.hits - 1,
            )
            self._whose[track.number] = individual
            self._open.append(individual)
        individual.last_s, individual.last_at = now, frame.time
        individual.region = inside_frame(track.box, frame.size_wh)
        individual.frames += 1
        return individual

    def _questions(
        self, frame: Frame, now: float, seen: list[tuple[Track, Individual]]
    ) -> list[Question]:
        """Choose whom the model is asked about: who was never asked, then who waited longest."""
        due = [
            (track, individual)
            for track, individual in seen
            # Of two that touch, the model would name one for both.
            if not track.covered and self._is_due(individual, now)
        ]
        due.sort(key=lambda one: (*one[1].waiting, one[0].number))
        questions = []
        for track, individual in due[: self.settings.most_regions]:
            individual.asked_s = now
            region = padded_square(track.box, self.settings.padding, frame.size_wh)
            quality = self._quality(frame, track, individual)
            questions.append(Question(individual, region, quality))
        return questions

    def _is_due(self, individual: Individual, now: float) -> bool:
        if individual.asked_s is None:
            return True
        settings = self.settings
        settled = (
            not individual.answer.challenged
            and (individual.confidence or 0.0) >= settings.settled
            and individual.belief.evidence >= settings.settled_evidence
        )
        wait = settings.recheck_s if settled else settings.ask_s
        # A clock in binary fractions may fall short of the interval by a hair.
        return now - individual.asked_s >= wait - 1e-6

    def _quality(self, frame: Frame, track: Track, individual: Individual) -> float:
        region = inside_frame(track.box, frame.size_wh)
        detail = sharpness(frame, region)
        individual.sharpest = max(individual.sharpest, detail)
        size = max(region[2:])
        quality = steady_quality(
            detail, individual.sharpest, size, self.settings.full_size, track.speed
        )
        width, height = frame.size_wh
        cut = region[0] == 0 or region[1] == 0
        cut = cut or region[0] + region[2] == width or region[1] + region[3] == height
        return 0.5 * quality if cut else quality

    def _take(self, frame: Frame) -> Look:
        """Return what was seen on a frame; earlier ones, which got no answers, are left out."""
        if frame.number not in self._pending:
            raise UsageError(f"frame {frame.number} was not proposed, or has had its update")
        events: list[VisitEvent] = []
        while True:
            number = next(iter(self._pending))
            look = self._pending.pop(number)
            events += look.events
            if number == frame.number:
                look.events = events
                return look

    def _tell(self, individual: Individual, now: float) -> list[VisitEvent]:
        """Return what became known of an individual."""
        settings = self.settings
        gone = now - individual.last_s > max(settings.absence_s, self._tracker.patience_s)
        if gone and not self._is_awaited(individual, now):
            return self._end(individual)
        if self._is_nothing(individual):
            return self._dismiss(individual)
        if not individual.started:
            return self._start(individual)
        if individual.index != individual.told:
            individual.told = individual.index
            return [individual.event("visit_updated", self.number, individual.index)]
        return []

    def _start(self, individual: Individual) -> list[VisitEvent]:
        settings = self.settings
        if individual.duration_s < settings.shortest_s or individual.likeliest is None:
            return []
        if individual.index is None:
            doubtful = individual.likeliest in settings.nothing
            if doubtful or individual.duration_s < settings.undecided_s:
                return []
        elif (earlier := self._returned(individual)) is not None:
            self._open.remove(individual)
            earlier.continue_as(individual)
            for number in [n for n, one in self._whose.items() if one is individual]:
                self._whose[number] = earlier
            return []
        individual.started, individual.told = True, individual.index
        return [individual.event("visit_started", self.number, individual.index)]

    def _returned(self, individual: Individual) -> Individual | None:
        """Return who left nearby a moment ago and is of the same species."""
        for other in self._open:
            same = other.started and other.index == individual.index
            if same and self._may_be_return(individual, other):
                return other
        return None

    def _is_awaited(self, individual: Individual, now: float) -> bool:
        """Whether somebody appeared in time who may turn out to be this individual."""
        return individual.started and any(
            not other.started
            and now - other.first_s <= self.settings.undecided_s
            and self._may_be_return(other, individual)
            for other in self._open
        )

    def _may_be_return(self, new: Individual, old: Individual) -> bool:
        away = new.first_s - old.last_s
        reach = self.settings.return_reach * max(*new.region[2:], *old.region[2:])
        in_time = 0.0 < away <= max(self.settings.absence_s, self._tracker.patience_s)
        return in_time and distance(new.region, old.region) <= reach

    def _is_nothing(self, individual: Individual) -> bool:
        return individual.label is not None and individual.label in self.settings.nothing

    def _dismiss(self, individual: Individual) -> list[VisitEvent]:
        """Follow no longer what the model holds for nothing, and learn it as scenery.

        A detector can't learn: what it sees again and again is kept, and asked about rarely.
        """
        learns = isinstance(self._finder, MotionFinder)
        if not (individual.started or learns):
            return []
        for track in self._tracker.tracks:
            if self._whose.get(track.number) is individual:
                self._tracker.remove(track)
                if isinstance(self._finder, MotionFinder):
                    self._finder.absorb(individual.region)
        return self._end(individual)

    def _end(self, individual: Individual) -> list[VisitEvent]:
        """Close a visit, and tell of it, if it is one."""
        self._open.remove(individual)
        for number in [n for n, one in self._whose.items() if one is individual]:
            del self._whose[number]
        nothing = self._is_nothing(individual)
        index = individual.told if nothing else individual.index
        if index is None and not nothing:
            index = individual.guess(self.settings.final, self.settings.nothing)
        ended = individual.event("visit_ended", self.number, index)
        if individual.started:
            return [ended]
        short = individual.duration_s < self.settings.shortest_s
        if short or nothing or individual.likeliest in {None, *self.settings.nothing}:
            return []
        return [individual.event("visit_started", self.number, index), ended]


def follow_visits(
    settings: VisitSettings | None = None, *, regions: Callable[[], RegionFinder] | None = None
) -> Callable[[], VisitFollower[Any]]:
    """Return what makes a follower for each source in turn, numbered from 1.

    Parameters
    ----------
    settings
        The same for all.
    regions
        Makes each source's detector; see `VisitFollower`.
    """
    numbers = itertools.count(1)

    def make() -> VisitFollower[Any]:
        finder = regions() if regions is not None else None
        return VisitFollower(settings, regions=finder, number=next(numbers))

    return make


def _as_found(one: Found | Box | Region) -> Found:
    if isinstance(one, Found):
        return one
    x, y, width, height = one
    return Found((x, y, width, height))
