"""Following individuals from frame to frame by where they are."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from edge_fg.boxes import Box, area, centre, centre_distance, intersection, iou
from edge_fg.errors import UsageError
from edge_fg.tracking.assignment import assign
from edge_fg.tracking.kalman import BoxFilter

TrackState = Literal["tentative", "confirmed", "lost"]

# Half-life of the speed of what is not seen.
_BRAKE_S = 0.25
_UNASSIGNED = 1.0
_INTERVALS = 9


class Detection(NamedTuple):
    """A box (x, y, width, height) in which a detector sees an object, and its score, 0..1."""

    box_xywh: Box
    score: float = 1.0


@dataclass(frozen=True)
class TrackerSettings:
    """When a track starts, what continues it, and when it ends.

    Parameters
    ----------
    confirm_hits, confirm_s
        Frames and seconds for which an object must be seen before its track is confirmed.
    lost_s
        Seconds for which an object may be hidden before its track ends.
    gate
        Largest squared Mahalanobis distance of a match; 9.21 holds 99 % in two dimensions.
    reach
        Largest distance of a match from the expected place, in sizes of the object.
    resized
        Largest change of the area between two frames, as a factor.
    new_score
        Score, 0..1, from which a box may start a track; one below it only continues a track
        (Zhang et al., "ByteTrack", 2022).
    """

    confirm_hits: int = 3
    confirm_s: float = 0.12
    lost_s: float = 1.0
    gate: float = 9.21
    reach: float = 2.0
    resized: float = 5.0
    new_score: float = 0.5

    def __post_init__(self) -> None:
        if self.confirm_hits < 1 or self.confirm_s < 0.0 or self.lost_s < 0.0:
            raise UsageError("confirm_hits must be at least 1, confirm_s and lost_s not negative")
        if not (self.gate > 0.0 and self.reach > 0.0 and self.resized >= 1.0):
            raise UsageError("gate and reach must be more than 0, resized at least 1")


class Track:
    """One individual; made and changed by `Tracker` alone.

    Attributes
    ----------
    number
        From 1, in the order in which they were confirmed; 0 while tentative.
    state
        ``tentative`` (not sure yet), ``confirmed`` (seen on the last frame) or ``lost``.
    first_s, last_s
        When it was first and last seen, in seconds.
    hits
        Frames on which it was seen.
    merged
        Whether it was, on the last frame, part of a box that holds others too.
    """

    def __init__(self, box: Box, time_s: float) -> None:
        self.number = 0
        self.state: TrackState = "tentative"
        self.first_s = self.last_s = time_s
        self.hits = 1
        self.merged = False
        self._filter = BoxFilter(box)
        self._seen = box

    @property
    def box(self) -> Box:
        """Where it is: as detected, if it was seen alone on the last frame; else as predicted."""
        return self._seen if self.state != "lost" and not self.merged else self._filter.box

    @property
    def expected(self) -> Box:
        """Where the filter predicts it; after a detection, where the filter places it."""
        return self._filter.box

    @property
    def speed(self) -> float:
        """Its speed in its own sizes a second."""
        return self._filter.speed

    def advance(self, dt: float) -> None:
        """Predict where it is `dt` seconds later."""
        self._filter.predict(dt)
        if self.state == "lost":
            self._filter.brake(0.5 ** (dt / _BRAKE_S))

    def see(self, box: Box, time_s: float) -> None:
        """Take in its detection."""
        self._filter.update(box)
        self._seen = box
        self.last_s = time_s
        self.hits += 1
        self.merged = False

    def see_merged(self, time_s: float) -> None:
        """Take in that it is somewhere in a box with others: seen, at no exact place."""
        self.last_s = time_s
        self.hits += 1
        self._filter.brake(0.5)

    def cost(self, box: Box, settings: TrackerSettings) -> float:
        """Return how badly a box fits, 0..1; infinity where it can't be this individual."""
        expected = self._filter.box
        ratio = area(box) / area(expected)
        if not 1.0 / settings.resized <= ratio <= settings.resized:
            return math.inf
        overlap = iou(expected, box)
        distance = self._filter.distance(box)
        reach = settings.reach * max(*expected[2:], *box[2:])
        far = centre_distance(box, expected) > reach
        if far or (distance > settings.gate and overlap < 0.3):
            return math.inf
        return 0.5 * (1.0 - overlap) + 0.5 * min(1.0, distance / settings.gate)


class Tracker:
    """Follows several individuals; numbers are never used twice.

    Boxes of a constant-velocity Kalman filter are assigned to what was found by overlap and
    distance, as in Bewley et al., "Simple Online and Realtime Tracking" (2016), with the gates of
    Wojke et al., "Simple Online and Realtime Tracking with a Deep Association Metric" (2017).
    Where individuals touch and are found as one, each stays where it is expected until they part.

    Parameters
    ----------
    settings
        When tracks start and end.
    """

    def __init__(self, settings: TrackerSettings | None = None) -> None:
        self.settings = settings or TrackerSettings()
        self._tracks: list[Track] = []
        self._count = 0
        self._time: float | None = None
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)

    @property
    def max_hidden_s(self) -> float:
        """Seconds for which an object may be hidden: `lost_s`, or more at low frame rates."""
        return max(self.settings.lost_s, 2.5 * self._interval)

    @property
    def _interval(self) -> float:
        return sorted(self._intervals)[len(self._intervals) // 2] if self._intervals else 0.0

    @property
    def tracks(self) -> list[Track]:
        """All tracks, tentative ones too, in the order in which they started."""
        return list(self._tracks)

    def update(
        self,
        found: Sequence[Detection],
        time_s: float,
        size_wh: tuple[int, int] | None = None,
    ) -> list[Track]:
        """Take in the detections of one frame.

        Parameters
        ----------
        found
            The detections, in any order.
        time_s
            Seconds of a clock that does not run backwards.
        size_wh
            Width and height of the frame; the track of an object that has left it ends.

        Returns
        -------
        list of Track
            Those that are confirmed or lost, by number.
        """
        dt = 0.0 if self._time is None else max(0.0, time_s - self._time)
        if self._time is not None:
            self._intervals.append(dt)
        self._time = time_s
        # After a gap, another individual may be at the old place.
        max_hidden_s = self.max_hidden_s
        self._tracks = [t for t in self._tracks if time_s - t.last_s <= max_hidden_s]
        for track in self._tracks:
            track.advance(dt)
        # Any order of the detections gives the same tracks and numbers.
        ordered = sorted(found)
        free = self._match(ordered, time_s)
        for track in self._tracks:
            self._settle(track, time_s)
        self._tracks = [t for t in self._tracks if self._is_kept(t, time_s, size_wh)]
        self._tracks += [
            Track(one.box_xywh, time_s) for one in free if one.score >= self.settings.new_score
        ]
        for track in self._tracks:
            self._confirm(track, time_s)
        followed = [track for track in self._tracks if track.number]
        return sorted(followed, key=lambda track: track.number)

    def remove(self, track: Track) -> None:
        """End a track."""
        self._tracks = [other for other in self._tracks if other is not track]

    def clear(self) -> None:
        """End all tracks; numbers continue."""
        self._tracks = []
        self._time = None

    def _match(self, found: list[Detection], time_s: float) -> list[Detection]:
        """Assign detections to tracks; return those that are left over."""
        for track in self._tracks:
            track.merged = False
        merged = self._merged(found)
        single = [one for number, one in enumerate(found) if number not in merged]
        # Confirmed tracks choose first: a tentative neighbour must not take their detections.
        for group in (True, False):
            tracks = [t for t in self._tracks if (t.number > 0) is group and not t.merged]
            costs = [
                [track.cost(one.box_xywh, self.settings) for one in single] for track in tracks
            ]
            matched = set()
            for track, column in zip(tracks, assign(costs, _UNASSIGNED), strict=True):
                if column is not None:
                    track.see(single[column].box_xywh, time_s)
                    matched.add(column)
            single = [one for number, one in enumerate(single) if number not in matched]
        return single

    def _merged(self, found: list[Detection]) -> set[int]:
        """Find boxes that hold several confirmed individuals, and mark these as merged."""
        merged = set()
        followed = [track for track in self._tracks if track.number]
        for number, one in enumerate(found):
            inside = [
                track
                for track in followed
                if intersection(track.expected, one.box_xywh) > 0.6 * area(track.expected)
            ]
            if len(inside) < 2:
                continue
            if area(one.box_xywh) < 1.5 * max(area(track.expected) for track in inside):
                continue
            others = [other for place, other in enumerate(found) if place != number]
            if any(iou(track.expected, o.box_xywh) > 0.3 for track in inside for o in others):
                continue
            merged.add(number)
            for track in inside:
                track.merged = True
        return merged

    def _settle(self, track: Track, time_s: float) -> None:
        if track.merged:
            track.see_merged(time_s)
        elif track.number:
            track.state = "confirmed" if track.last_s == time_s else "lost"

    def _is_kept(self, track: Track, time_s: float, size_wh: tuple[int, int] | None) -> bool:
        if track.last_s == time_s:
            return True
        if not track.number:
            # A detector may miss one frame of an object; after two the track ends.
            longest_s = max(0.5 * self.settings.confirm_s, 1.5 * self._interval)
            return track.hits > 1 and time_s - track.last_s <= longest_s
        if size_wh is not None:
            x, y = centre(track.expected)
            return 0.0 <= x <= size_wh[0] and 0.0 <= y <= size_wh[1]
        return True

    def _confirm(self, track: Track, time_s: float) -> None:
        settings = self.settings
        enough = track.hits >= settings.confirm_hits
        if not track.number and enough and time_s - track.first_s >= settings.confirm_s:
            self._count += 1
            track.number = self._count
            track.state = "confirmed"
