"""Following individuals from frame to frame by where they are."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from edge_fg.boxes import area, centre, intersection, iou
from edge_fg.tracking.assignment import assign
from edge_fg.tracking.track import Detection, Track, TrackerSettings

_UNASSIGNED = 1.0
_INTERVALS = 9


class Tracker:
    """Follows several individuals; numbers are never used twice.

    Boxes of a constant-velocity Kalman filter are assigned to what was found by overlap and
    distance, as in Bewley et al., "Simple Online and Realtime Tracking" (2016), with the gates of
    Wojke et al., "Simple Online and Realtime Tracking with a Deep Association Metric" (2017).
    Where individuals touch and are found as one, each stays where it is expected until they part.
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
        self, found: Sequence[Detection], time_s: float, size_wh: tuple[int, int] | None = None
    ) -> list[Track]:
        """Take in the detections of one frame; return the confirmed and lost tracks, by number.

        `time_s` is of a clock that does not run backwards. Where the frame's size is given, the
        track of an object that has left it ends.
        """
        dt = 0.0
        if self._time is not None:
            dt = max(0.0, time_s - self._time)
            self._intervals.append(dt)
        self._time = time_s
        # After a gap, another individual may be at the old place.
        max_hidden_s = self.max_hidden_s
        self._tracks = [t for t in self._tracks if time_s - t.last_s <= max_hidden_s]
        for track in self._tracks:
            track.advance(dt)
        # Sorted, so that any order of the detections gives the same tracks and numbers.
        free = self._match(sorted(found), time_s)
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
