"""How well visits are followed: what was told of them against the clip's truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fg.boxes import Region, iou
from edge_fg.recognition.prediction import Prediction
from edge_fg.result import Sighting, VisitEvent
from edge_fg.sources import Frame
from edge_fg.tracking.visits import VisitFollower, VisitSettings
from edge_fg_tools.fieldguide.clip import CLIP_FPS, FrameTruth, render_clip

# Two boxes show the same bird; two visits are the same one.
_SAME_PLACE = 0.3
_SAME_VISIT = 0.5


class RegionClassifier(Protocol):
    """What `edge_fg.load` returns, as far as it is needed here."""

    def batch(
        self, frames: Sequence[NDArray[np.uint8]], regions: Sequence[Region], /
    ) -> list[Prediction]:
        """Return what the model says of each region."""


@dataclass(frozen=True)
class ScoredVisit:
    """A visit as it was or as it was told.

    Parameters
    ----------
    name
        To be read by people.
    label
        The species; None where it was told without one.
    boxes
        (x, y, width, height) in pixels by number of the frame.
    """

    name: str
    label: str | None
    boxes: dict[int, Region]

    def overlap(self, other: ScoredVisit) -> float:
        """Return the share of both visits' frames on which they are at one place, 0..1."""
        shared = self.boxes.keys() & other.boxes.keys()
        same = sum(iou(self.boxes[n], other.boxes[n]) >= _SAME_PLACE for n in shared)
        return same / len(self.boxes.keys() | other.boxes.keys())


@dataclass(frozen=True)
class VisitScore:
    """What was told of the visits of a clip, beside what happened.

    Parameters
    ----------
    pairs
        Visits that happened with those told that are at the same time and place; None where
        there is none.
    invented
        Visits told that did not happen.
    single_frames, single_right
        Regions of a bird that the model was asked about, and how often it alone was right.
    asked, frames
        Regions asked about, and frames there were.
    """

    pairs: tuple[tuple[ScoredVisit, ScoredVisit | None], ...]
    invented: tuple[ScoredVisit, ...]
    single_frames: int
    single_right: int
    asked: int
    frames: int

    @property
    def found(self) -> int:
        """Visits that happened and were told."""
        return sum(told is not None for _, told in self.pairs)

    @property
    def precision(self) -> float:
        """Share of the visits told that happened, 0..1; 1 where none was told."""
        told = self.found + len(self.invented)
        return self.found / told if told else 1.0

    @property
    def recall(self) -> float:
        """Share of the visits that happened that were told, 0..1; 1 where none happened."""
        return self.found / len(self.pairs) if self.pairs else 1.0

    @property
    def species_right(self) -> int:
        """Visits that happened and were told with the right species at their end."""
        return sum(told is not None and told.label == true.label for true, told in self.pairs)

    @property
    def species_share(self) -> float:
        """The same as a share of all visits that happened, 0..1."""
        return self.species_right / len(self.pairs) if self.pairs else 1.0

    @property
    def single_share(self) -> float:
        """Share of single regions that the model named right, 0..1."""
        return self.single_right / self.single_frames if self.single_frames else 1.0


def true_visits(truth: Iterable[FrameTruth]) -> list[ScoredVisit]:
    """Collect the visits of a clip: a species that comes again after a second, comes anew."""
    visits: list[ScoredVisit] = []
    open_visits: dict[int, ScoredVisit] = {}
    for moment in truth:
        for bird in moment.birds:
            visit = open_visits.get(bird.index)
            if visit is None or moment.frame - max(visit.boxes) > CLIP_FPS:
                visit = ScoredVisit(f"{bird.label} from {moment.time_s:.1f} s", bird.label, {})
                open_visits[bird.index] = visit
                visits.append(visit)
            visit.boxes[moment.frame] = bird.box_xywh
    return visits


def told_visits(
    events: Iterable[VisitEvent], sightings: Iterable[tuple[int, Sighting[Prediction]]]
) -> list[ScoredVisit]:
    """Collect the visits that were told.

    Parameters
    ----------
    events
        All events of one follower; those of the kind ``visit_ended`` count.
    sightings
        Numbers of frames, and who was seen on them.
    """
    places: dict[str, dict[int, Region]] = {}
    for number, sighting in sightings:
        places.setdefault(str(sighting.track), {})[number] = sighting.region_xywh
    return [
        ScoredVisit(event.visit, event.label, places[event.visit.rpartition("-")[2]])
        for event in events
        if event.kind == "visit_ended"
    ]


def score_visits(
    truth: Sequence[FrameTruth],
    events: Sequence[VisitEvent],
    sightings: Sequence[tuple[int, Sighting[Prediction]]],
) -> VisitScore:
    """Compare what was told with what happened.

    A visit told and one that happened are the same if they are at one place (intersection over
    union of at least 0.3) on at least half of the frames of either; the best pairs first.
    """
    happened, told = true_visits(truth), told_visits(events, sightings)
    ranked = sorted(
        (
            (true.overlap(one), i, k)
            for i, true in enumerate(happened)
            for k, one in enumerate(told)
        ),
        reverse=True,
    )
    match: dict[int, int] = {}
    for overlap, i, k in ranked:
        if overlap >= _SAME_VISIT and i not in match and k not in match.values():
            match[i] = k
    single = [
        sighting.prediction.label == bird
        for number, sighting in sightings
        if sighting.prediction is not None
        and (bird := _bird_at(truth[number], sighting.region_xywh)) is not None
    ]
    return VisitScore(
        pairs=tuple(
            (true, told[match[i]] if i in match else None) for i, true in enumerate(happened)
        ),
        invented=tuple(one for k, one in enumerate(told) if k not in match.values()),
        single_frames=len(single),
        single_right=sum(single),
        asked=sum(sighting.prediction is not None for _, sighting in sightings),
        frames=len(truth),
    )


def clip_frames(seed: int) -> Iterable[tuple[Frame, FrameTruth]]:
    """Render the clip as frames of a file, with what they show."""
    for image, truth in render_clip(seed):
        yield Frame(image, truth.frame, f"fieldguide://{seed}", position=truth.time_s), truth


def follow_clip(
    frames: Iterable[tuple[Frame, FrameTruth]],
    classifier: RegionClassifier,
    settings: VisitSettings | None = None,
) -> VisitScore:
    """Follow the visits of a clip and compare them with its truth.

    Parameters
    ----------
    frames
        See `clip_frames`; frame numbers count from 0.
    classifier
        The reference model.
    settings
        How visits are followed.
    """
    follower: VisitFollower[Prediction] = VisitFollower(settings)
    truth: list[FrameTruth] = []
    events: list[VisitEvent] = []
    sightings: list[tuple[int, Sighting[Prediction]]] = []
    for frame, shown in frames:
        truth.append(shown)
        regions = follower.propose(frame)
        predictions = classifier.batch([frame.image] * len(regions), regions) if regions else []
        seen, told = follower.update(frame, regions, predictions)
        sightings += [(frame.number, sighting) for sighting in seen]
        events += told
    return score_visits(truth, [*events, *follower.finish()], sightings)


def _bird_at(truth: FrameTruth, region: Region) -> str | None:
    """Return the label of the bird at a region; None where there is none."""
    best = max(truth.birds, key=lambda bird: iou(bird.box_xywh, region), default=None)
    if best is None or iou(best.box_xywh, region) < _SAME_PLACE:
        return None
    return best.label
