"""One track: where an individual is, and how well a detection fits it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from edge_fg.boxes import Box, area, centre_distance, iou
from edge_fg.errors import UsageError
from edge_fg.tracking.kalman import BoxFilter

TrackState = Literal["tentative", "confirmed", "lost"]
"""Not sure yet, seen on the last frame, or not seen on it."""

# Half-life of the speed of what is not seen.
_BRAKE_S = 0.25


class Detection(NamedTuple):
    """A box (x, y, width, height) in which a detector sees an object, and its score, 0..1."""

    box_xywh: Box
    score: float = 1.0


@dataclass(frozen=True)
class TrackerSettings:
    """When a track starts, what continues it, and when it ends."""

    # Frames and seconds for which an object must be seen before its track is confirmed.
    confirm_hits: int = 3
    confirm_s: float = 0.12
    lost_s: float = 1.0  # Seconds for which an object may be hidden before its track ends
    # Largest squared Mahalanobis distance of a match; 9.21 holds 99 % in two dimensions.
    gate: float = 9.21
    # Largest distance of a match from the expected place, in sizes of the object.
    reach: float = 2.0
    resized: float = 5.0  # Largest change of the area between two frames, as a factor
    # Score, 0..1, from which a box may start a track; one below it only continues a track (Zhang et
    # al., "ByteTrack", 2022).
    new_score: float = 0.5

    def __post_init__(self) -> None:
        if self.confirm_hits < 1 or self.confirm_s < 0.0 or self.lost_s < 0.0:
            raise UsageError("confirm_hits must be at least 1, confirm_s and lost_s not negative")
        if not (self.gate > 0.0 and self.reach > 0.0 and self.resized >= 1.0):
            raise UsageError("gate and reach must be more than 0, resized at least 1")


class Track:
    """One individual; made and changed by `Tracker` alone."""

    def __init__(self, box: Box, time_s: float) -> None:
        self.number = 0  # from 1, in the order in which they were confirmed; 0 while tentative
        self.state: TrackState = "tentative"
        self.first_s = self.last_s = time_s  # when it was first and last seen, in seconds
        self.hits = 1  # frames on which it was seen
        self.merged = False  # whether it was last seen in a box that holds others too
        self._filter = BoxFilter(box)
        self._seen = box

    @property
    def box(self) -> Box:
        """Where it is: as detected, if it was seen alone on the last frame; else as predicted."""
        return self._seen if self.state != "lost" and not self.merged else self.expected

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
        expected = self.expected
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
