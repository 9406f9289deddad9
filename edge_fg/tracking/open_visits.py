"""The open visits at one camera, and when events are reported."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from edge_fg.boxes import Region, centre_distance, clipped
from edge_fg.result import VisitEvent
from edge_fg.sources import Frame
from edge_fg.tracking.smoothing import OpinionPool, StableAnswer
from edge_fg.tracking.track import Track
from edge_fg.tracking.tracker import Tracker
from edge_fg.tracking.visit import Moment, Visit, VisitSettings


class OpenVisits:
    """Keeps a visit for each individual that is followed, until it has been gone for a while.

    Tracks of `VisitSettings.nothing` are removed from `tracker`, and `learn_as_scene` is called
    with their regions. It is None where a detector finds regions, which can't learn: then the
    track is kept, and classified rarely. `source_number` is the first part of each visit's name.
    """

    def __init__(
        self,
        settings: VisitSettings,
        tracker: Tracker,
        learn_as_scene: Callable[[Region], None] | None,
        source_number: int,
    ) -> None:
        self._settings = settings
        self._tracker = tracker
        self._learn_as_scene = learn_as_scene
        self._source_number = source_number
        self._open: list[Visit] = []
        self._by_track: dict[int, Visit] = {}

    def add_sighting(self, track: Track, frame: Frame, now: float) -> Visit:
        """Note that an individual is on a frame; return its visit, a new one if need be."""
        visit = self._by_track.get(track.number)
        if visit is None:
            since = timedelta(seconds=now - track.first_s)
            visit = Visit(
                number=track.number,
                source=frame.source,
                pool=OpinionPool(self._settings.smoothing),
                answer=StableAnswer(self._settings.smoothing),
                first_s=track.first_s,
                first_at=None if frame.time is None else frame.time - since,
                # This frame is counted below.
                frames=track.hits - 1,
            )
            self._by_track[track.number] = visit
            self._open.append(visit)
        visit.last_s, visit.last_at = now, frame.time
        visit.region_xywh = clipped(track.box, frame.size_wh)
        visit.frames += 1
        return visit

    def update(self, now: Moment) -> list[VisitEvent]:
        """Return the events up to `now`."""
        return [event for visit in list(self._open) for event in self._update_one(visit, now)]

    def end_all(self, now: Moment) -> list[VisitEvent]:
        """End all visits, and return their events."""
        return [event for visit in list(self._open) for event in self._end(visit, now)]

    def is_nothing(self, visit: Visit) -> bool:
        """Return whether the answer is that no individual is there."""
        return visit.label is not None and visit.label in self._settings.nothing

    @property
    def _absence_s(self) -> float:
        return max(self._settings.absence_s, self._tracker.max_hidden_s)

    def _update_one(self, visit: Visit, now: Moment) -> list[VisitEvent]:
        absent_s = now.seconds - visit.last_s
        if absent_s > self._absence_s and not self._may_return(visit, now.seconds):
            return self._end(visit, now)
        if self.is_nothing(visit):
            return self._dismiss(visit, now)
        if not visit.announced:
            return self._start(visit, now)
        if visit.class_id != visit.announced_class_id:
            visit.announced_class_id = visit.class_id
            return [visit.event("visit_updated", self._source_number, visit.class_id, now)]
        return []

    def _start(self, visit: Visit, now: Moment) -> list[VisitEvent]:
        """Report a visit once it is long enough and decided, unless it continues another."""
        settings = self._settings
        if visit.duration_s < settings.shortest_s or visit.likeliest is None:
            return []
        if visit.class_id is None:
            doubtful = visit.likeliest in settings.nothing
            if doubtful or visit.duration_s < settings.undecided_s:
                return []
        elif (earlier := self._earlier_part(visit)) is not None:
            self._open.remove(visit)
            earlier.continue_as(visit)
            tracks = self._by_track.items()
            self._by_track = {n: earlier if one is visit else one for n, one in tracks}
            return []
        visit.announced, visit.announced_class_id = True, visit.class_id
        return [visit.event("visit_started", self._source_number, visit.class_id, now)]

    def _earlier_part(self, visit: Visit) -> Visit | None:
        """Return the visit of an individual of the same species that left nearby a moment ago."""
        for other in self._open:
            same = other.announced and other.class_id == visit.class_id
            if same and self._may_be_same(visit, other):
                return other
        return None

    def _may_return(self, visit: Visit, now: float) -> bool:
        """Whether an individual appeared in time that may turn out to be this one."""
        return visit.announced and any(
            not other.announced
            and now - other.first_s <= self._settings.undecided_s
            and self._may_be_same(other, visit)
            for other in self._open
        )

    def _may_be_same(self, new: Visit, old: Visit) -> bool:
        away_s = new.first_s - old.last_s
        size = max(*new.region_xywh[2:], *old.region_xywh[2:])
        near = centre_distance(new.region_xywh, old.region_xywh) <= (
            self._settings.return_reach * size
        )
        return near and 0.0 < away_s <= self._absence_s

    def _dismiss(self, visit: Visit, now: Moment) -> list[VisitEvent]:
        """End the tracks of what is no individual, and learn it as part of the scene."""
        if not visit.announced and self._learn_as_scene is None:
            return []
        for track in self._tracker.tracks:
            if self._by_track.get(track.number) is visit:
                self._tracker.remove(track)
                if self._learn_as_scene is not None:
                    self._learn_as_scene(visit.region_xywh)
        return self._end(visit, now)

    def _end(self, visit: Visit, now: Moment) -> list[VisitEvent]:
        """Close a visit, and report it if it was long enough to be one."""
        settings = self._settings
        self._open.remove(visit)
        self._by_track = {n: one for n, one in self._by_track.items() if one is not visit}
        nothing = self.is_nothing(visit)
        class_id = visit.announced_class_id if nothing else visit.class_id
        if class_id is None and not nothing:
            class_id = visit.best_guess(settings.final, settings.nothing)
        ended = visit.event("visit_ended", self._source_number, class_id, now)
        if visit.announced:
            return [ended]
        short = visit.duration_s < settings.shortest_s
        if short or nothing or visit.likeliest in {None, *settings.nothing}:
            return []
        return [visit.event("visit_started", self._source_number, class_id, now), ended]
