"""Recognition over time: who came, what it is, when it left."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from edge_fg.boxes import Box, Region
from edge_fg.errors import UsageError
from edge_fg.result import Sighting, VisitEvent
from edge_fg.sources import Frame
from edge_fg.tracking.motion import MotionFinder, seconds_of
from edge_fg.tracking.open_visits import OpenVisits
from edge_fg.tracking.region_requests import PendingFrame, choose_regions
from edge_fg.tracking.track import Detection
from edge_fg.tracking.tracker import Tracker
from edge_fg.tracking.visit import Moment, PredictionLike, VisitSettings

__all__ = ["RegionFinder", "VisitFollower", "VisitSettings", "follow_visits"]

PredictionT = TypeVar("PredictionT", bound=PredictionLike)

RegionFinder = Callable[[Frame], Sequence["Detection | Box"]]
"""Finds individuals: boxes (x, y, width, height) in pixels, with a score as `Detection`."""

# Presentation times of B-frames come a little out of order; a looped file goes back further.
_JITTER_S = 0.5
# Frames whose answers may still be under way in a pipeline.
_MOST_PENDING = 256


class VisitFollower(Generic[PredictionT]):
    """Follows the individuals in front of one camera; used from one thread.

    For each frame in turn: `propose` returns the regions to classify, and `update` takes the
    predictions, also when there are none.

    Parameters
    ----------
    settings
        How visits are followed.
    regions
        Finds individuals in place of the motion before a fixed camera: a detector. Scores, where
        it gives them (`Detection`), are compared with `TrackerSettings.new_score`.
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
        # A detector can't learn what belongs to the scene.
        learn = self._finder.absorb if isinstance(self._finder, MotionFinder) else None
        self._visits = OpenVisits(self.settings, self._tracker, learn, number)
        self._pending: dict[int, PendingFrame] = {}
        self._now = Moment(-math.inf, None)  # of the last frame

    def propose(self, frame: Frame) -> list[Region]:
        """Return the regions of the next frame to classify; perhaps none.

        If the frame's clock went back, as that of a looped file, all visits end.
        """
        now = seconds_of(frame)
        events = self.finish() if self._now.seconds - now > _JITTER_S else []
        now = max(now, self._now.seconds)
        self._now = Moment(now, frame.time)
        detections = [_as_detection(one) for one in self._finder(frame)]
        tracks = self._tracker.update(detections, now, frame.size_wh)
        seen = [
            (track, self._visits.add_sighting(track, frame, now))
            for track in tracks
            if track.last_s == now
        ]
        requests = choose_regions(frame, now, seen, self.settings)
        while len(self._pending) >= _MOST_PENDING:
            events = self._pending.pop(next(iter(self._pending))).events + events
        places = [(visit, visit.region_xywh) for _, visit in seen]
        self._pending[frame.number] = PendingFrame(self._now, requests, places, events)
        return [request.region_xywh for request in requests]

    def update(
        self,
        frame: Frame,
        regions: Sequence[Region],
        predictions: Sequence[PredictionT],
    ) -> tuple[list[Sighting[PredictionT]], list[VisitEvent]]:
        """Take in the predictions for the regions of a frame.

        Parameters
        ----------
        frame
            A frame that `propose` was given; earlier frames without an update are dropped.
        regions
            Those that `propose` returned, or some of them.
        predictions
            One for each region.

        Returns
        -------
        sightings, events
            The individuals on this frame, by number; and the events up to it.

        Raises
        ------
        UsageError
            The frame was not proposed, or the regions are not those proposed.
        """
        if len(regions) != len(predictions):
            raise UsageError(f"{len(regions)} regions came with {len(predictions)} predictions")
        pending = self._take(frame)
        answers = pending.add_answers(regions, predictions)
        events = pending.events + self._visits.update(pending.moment)
        sightings = [
            Sighting(
                track=visit.number,
                region_xywh=region,
                prediction=answers.get(visit.number),
                label=visit.label,
                class_id=visit.class_id,
                confidence=visit.confidence,
            )
            for visit, region in pending.seen
            if not self._visits.is_nothing(visit)
        ]
        return sorted(sightings, key=lambda sighting: sighting.track), events

    def finish(self) -> list[VisitEvent]:
        """End all visits: the source ended, or the camera was lost. More frames may follow."""
        events = [event for pending in self._pending.values() for event in pending.events]
        self._pending.clear()
        events += self._visits.end_all(self._now)
        self._tracker.clear()
        self._now = Moment(-math.inf, None)
        return events

    def _take(self, frame: Frame) -> PendingFrame:
        """Return a pending frame; earlier ones, which got no predictions, are dropped."""
        if frame.number not in self._pending:
            raise UsageError(f"frame {frame.number} was not proposed, or has had its update")
        events: list[VisitEvent] = []
        while (number := next(iter(self._pending))) != frame.number:
            events += self._pending.pop(number).events
        pending = self._pending.pop(number)
        pending.events = events + pending.events
        return pending


def follow_visits(
    settings: VisitSettings | None = None, *, regions: Callable[[], RegionFinder] | None = None
) -> Callable[[int], VisitFollower[Any]]:
    """Return a function that makes the follower of a source, given the source's number.

    Parameters
    ----------
    settings
        The same for all.
    regions
        Makes the detector of each source; see `VisitFollower`.
    """

    def make(number: int) -> VisitFollower[Any]:
        finder = regions() if regions is not None else None
        return VisitFollower(settings, regions=finder, number=number)

    return make


def _as_detection(one: Detection | Box) -> Detection:
    return one if isinstance(one, Detection) else Detection((one[0], one[1], one[2], one[3]))
