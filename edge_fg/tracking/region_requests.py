"""Which regions of a frame are classified, and the frames that wait for the predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from edge_fg.boxes import Region, clipped, padded_square
from edge_fg.errors import UsageError
from edge_fg.result import VisitEvent
from edge_fg.sources import Frame
from edge_fg.tracking.smoothing import frame_quality
from edge_fg.tracking.thumbnail import sharpness
from edge_fg.tracking.track import Track
from edge_fg.tracking.visit import Moment, PredictionLike, Visit, VisitSettings

PredictionT = TypeVar("PredictionT", bound=PredictionLike)


@dataclass(eq=False)
class RegionRequest:
    """One region, in pixels, to classify; `quality` is the weight of its prediction, 0..1."""

    visit: Visit
    region_xywh: Region
    quality: float


@dataclass(eq=False)
class PendingFrame:
    """A frame that waits for its predictions: its moment, the requests, and who was seen where.

    `events` are those that need no prediction.
    """

    moment: Moment
    requests: list[RegionRequest]
    seen: list[tuple[Visit, Region]]
    events: list[VisitEvent]

    def add_answers(
        self, regions: Sequence[Region], predictions: Sequence[PredictionT]
    ) -> dict[int, PredictionT]:
        """Give each visit its prediction; return them by the number of the visit.

        A region that was not requested raises UsageError.
        """
        answers: dict[int, PredictionT] = {}
        left = list(self.requests)
        for region, prediction in zip(regions, predictions, strict=True):
            request = next((one for one in left if one.region_xywh == tuple(region)), None)
            if request is None:
                raise UsageError(f"region {tuple(region)} was not proposed for this frame")
            left.remove(request)
            request.visit.add(prediction, self.moment.seconds, request.quality)
            answers[request.visit.number] = prediction
        return answers


def choose_regions(
    frame: Frame, now: float, seen: Sequence[tuple[Track, Visit]], settings: VisitSettings
) -> list[RegionRequest]:
    """Choose the individuals to classify: new ones first, then those that waited longest.

    `now` are the seconds of the frame's clock, and `seen` are the individuals on it.
    """
    due = [
        (track, visit)
        for track, visit in seen
        # Of two that touch, the model would see both at once.
        if not track.merged and _is_due(visit, now, settings)
    ]
    due.sort(key=lambda one: (one[1].asked_s, one[1].pool.count, one[0].number))
    requests = []
    for track, visit in due[: settings.most_regions]:
        visit.asked_s = now
        region = padded_square(track.box, settings.padding, frame.size_wh)
        quality = _quality(frame, track, visit, settings.full_size)
        requests.append(RegionRequest(visit, region, quality))
    return requests


def _is_due(visit: Visit, now: float, settings: VisitSettings) -> bool:
    settled = (
        not visit.answer.challenged
        and (visit.confidence or 0.0) >= settings.settled
        and visit.pool.evidence >= settings.settled_evidence
    )
    wait = settings.recheck_s if settled else settings.ask_s
    # A clock in binary fractions may fall short of the interval by a hair.
    return now - visit.asked_s >= wait - 1e-6


def _quality(frame: Frame, track: Track, visit: Visit, full_size: float) -> float:
    """Return the weight of the prediction for this frame, 0..1."""
    x, y, width, height = clipped(track.box, frame.size_wh)
    detail = sharpness(frame, (x, y, width, height))
    visit.sharpest = max(visit.sharpest, detail)
    quality = frame_quality(detail, visit.sharpest, max(width, height), full_size, track.speed)
    frame_width, frame_height = frame.size_wh
    is_cut_off = 0 in (x, y) or x + width == frame_width or y + height == frame_height
    return 0.5 * quality if is_cut_off else quality
