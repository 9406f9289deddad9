"""Following individuals from frame to frame by where they are."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from edge_fg.errors import UsageError
from edge_fg.tracking.assignment import assign
from edge_fg.tracking.kalman import BoxFilter

Box = tuple[float, float, float, float]
"""(x, y, width, height) in pixels, with fractions."""
TrackState = Literal["tentative", "confirmed", "lost"]

# Half-life of the speed of what is not seen.
_BRAKE_S = 0.25
_UNASSIGNED = 1.0
_INTERVALS = 9


class Found(NamedTuple):
    """A box in which a detector sees something, (x, y, width, height), and how surely, 0..1."""

    box: Box
    score: float = 1.0


@dataclass(frozen=True)
class TrackerSettings:
    """When something is followed, and for how long.

    Parameters
    ----------
    confirm_hits, confirm_s
        Frames and seconds that something must have been seen before it counts.
    lost_s
        Seconds for which something may be hidden before it is given up.
    gate
        Largest squared Mahalanobis distance of a match; 9.21 holds 99 % in two dimensions.
    reach
        Farthest that a match may lie from where it was expected, in sizes.
    resized
        Most that the area may change between two sightings, as a factor.
    new_score
        Score, 0..1, from which a box may be something new; one below only continues what is
        already followed (Zhang et al., "ByteTrack", 2022).
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
        ``tentative`` (perhaps nothing), ``confirmed`` (seen on the last frame) or ``lost``.
    first_s, last_s
        When it was first and last seen, in seconds.
    hits
        Frames on which it was seen.
    covered
        Whether it was, on the last frame, part of a box that holds others too.
    """

    def __init__(self, box: Box, time_s: float) -> None:
        self.number = 0
        self.state: TrackState = "tentative"
        self.first_s = self.last_s = time_s
        self.hits = 1
        self.covered = False
        self._filter = BoxFilter(box)
        self._seen = box

    @property
    def box(self) -> Box:
        """Where it is: as found where it was seen on the last frame, else as expected."""
        return self._seen if self.state != "lost" and not self.covered else self._filter.box

    @property
    def expected(self) -> Box:
        """Where it was expected, or is, once what was found is taken in."""
        return self._filter.box

    @property
    def speed(self) -> float:
        """Its speed in its own sizes a second."""
        return self._filter.speed

    def advance(self, dt: float) -> None:
        """Expect it where it would be `dt` seconds later."""
        self._filter.predict(dt)
        if self.state == "lost":
            self._filter.brake(0.5 ** (dt / _BRAKE_S))

    def see(self, box: Box, time_s: float) -> None:
        """Take in that it was found."""
        self._filter.update(box)
        self._seen = box
        self.last_s = time_s
        self.hits += 1
        self.covered = False

    def cover(self, time_s: float) -> None:
        """Take in that it is somewhere in a box with others: seen, but not where exactly."""
        self.last_s = time_s
        self.hits += 1
        self._filter.brake(0.5)

    def cost(self, box: Box, settings: TrackerSettings) -> float:
        """Return how badly a box fits, 0..1; infinity where it can't be this individual."""
        expected = self._filter.box
        ratio = (box[2] * box[3]) / (expected[2] * expected[3])
        if not 1.0 / settings.resized <= ratio <= settings.resized:
            return math.inf
        overlap = iou(expected, box)
        distance = self._filter.distance(box)
        across = box[0] + box[2] / 2 - expected[0] - expected[2] / 2
        down = box[1] + box[3] / 2 - expected[1] - expected[3] / 2
        far = math.hypot(across, down) > settings.reach * max(*expected[2:], *box[2:])
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
        When something is followed, and for how long.
    """

    def __init__(self, settings: TrackerSettings | None = None) -> None:
        self.settings = settings or TrackerSettings()
        self._tracks: list[Track] = []
        self._count = 0
        self._time: float | None = None
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)

    @property
    def patience_s(self) -> float:
        """Seconds that something may be hidden: `lost_s`, or more where frames are rarer."""
        return max(self.settings.lost_s, 2.5 * self._interval)

    @property
    def _interval(self) -> float:
        return sorted(self._intervals)[len(self._intervals) // 2] if self._intervals else 0.0

    @property
    def tracks(self) -> list[Track]:
        """Everything that is followed, in the order in which it was found."""
        return list(self._tracks)

    def update(
        self,
        found: Sequence[Found],
        time_s: float,
        size_wh: tuple[int, int] | None = None,
    ) -> list[Track]:
        """Take in what was found on one frame.

        Parameters
        ----------
        found
            What was found, in any order.
        time_s
            Seconds of a clock that does not run backwards.
        size_wh
            Width and height of the frame; what has left it is not waited for.

        Returns
        -------
        list of Track
            Those that are confirmed or lost, by number.
        """
        dt = 0.0 if self._time is None else max(0.0, time_s - self._time)
        if self._time is not None:
            self._intervals.append(dt)
        self._time = time_s
        # After a gap, who is at the old place need not be who was there.
        patience = self.patience_s
        self._tracks = [t for t in self._tracks if time_s - t.last_s <= patience]
        for track in self._tracks:
            track.advance(dt)
        # Any order of what was found gives the same tracks and numbers.
        ordered = sorted(found)
        free = self._match(ordered, time_s)
        for track in self._tracks:
            self._settle(track, time_s)
        self._tracks = [t for t in self._tracks if self._is_kept(t, time_s, size_wh)]
        self._tracks += [
            Track(one.box, time_s) for one in free if one.score >= self.settings.new_score
        ]
        for track in self._tracks:
            self._confirm(track, time_s)
        followed = [track for track in self._tracks if track.number]
        return sorted(followed, key=lambda track: track.number)

    def remove(self, track: Track) -> None:
        """Follow a track no longer."""
        self._tracks = [other for other in self._tracks if other is not track]

    def clear(self) -> None:
        """Follow nothing that was followed; numbers go on."""
        self._tracks = []
        self._time = None

    def _match(self, found: list[Found], time_s: float) -> list[Found]:
        """Assign what was found; return what is left over."""
        for track in self._tracks:
            track.covered = False
        crowds = self._crowds(found)
        single = [one for number, one in enumerate(found) if number not in crowds]
        # What has been seen for longer chooses first: a tentative neighbour takes nobody's place.
        for group in (True, False):
            tracks = [t for t in self._tracks if (t.number > 0) is group and not t.covered]
            costs = [[track.cost(one.box, self.settings) for one in single] for track in tracks]
            matched = set()
            for track, column in zip(tracks, assign(costs, _UNASSIGNED), strict=True):
                if column is not None:
                    track.see(single[column].box, time_s)
                    matched.add(column)
            single = [one for number, one in enumerate(single) if number not in matched]
        return single

    def _crowds(self, found: list[Found]) -> set[int]:
        """Find boxes that hold several confirmed individuals, and mark these as covered."""
        crowds = set()
        followed = [track for track in self._tracks if track.number]
        for number, one in enumerate(found):
            inside = [track for track in followed if share_inside(track.expected, one.box) > 0.6]
            if len(inside) < 2:
                continue
            largest = max(track.expected[2] * track.expected[3] for track in inside)
            if one.box[2] * one.box[3] < 1.5 * largest:
                continue
            others = [other for place, other in enumerate(found) if place != number]
            if any(iou(track.expected, o.box) > 0.3 for track in inside for o in others):
                continue
            crowds.add(number)
            for track in inside:
                track.covered = True
        return crowds

    def _settle(self, track: Track, time_s: float) -> None:
        if track.covered:
            track.cover(time_s)
        elif track.number:
            track.state = "confirmed" if track.last_s == time_s else "lost"

    def _is_kept(self, track: Track, time_s: float, size_wh: tuple[int, int] | None) -> bool:
        if track.last_s == time_s:
            return True
        if not track.number:
            # One missed frame in a burst is the detector's; two are nobody's.
            patience = max(0.5 * self.settings.confirm_s, 1.5 * self._interval)
            return track.hits > 1 and time_s - track.last_s <= patience
        if size_wh is not None:
            x, y, width, height = track.expected
            centre = (x + width / 2, y + height / 2)
            if not (0.0 <= centre[0] <= size_wh[0] and 0.0 <= centre[1] <= size_wh[1]):
                return False
        return True

    def _confirm(self, track: Track, time_s: float) -> None:
        settings = self.settings
        enough = track.hits >= settings.confirm_hits
        if not track.number and enough and time_s - track.first_s >= settings.confirm_s:
            self._count += 1
            track.number = self._count
            track.state = "confirmed"


def iou(one: Box, other: Box) -> float:
    """Return the area that two boxes share over that of both together, 0..1."""
    shared = _shared(one, other)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared) if shared else 0.0


def share_inside(box: Box, around: Box) -> float:
    """Return the share of a box, 0..1, that lies inside another."""
    return _shared(box, around) / (box[2] * box[3])


def _shared(one: Box, other: Box) -> float:
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return across * down if across > 0.0 and down > 0.0 else 0.0
