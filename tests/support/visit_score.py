"""How well visits are followed: reported visits against the truth of the built-in clip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_fg.boxes import Region, iou
from edge_fg.recognition.classifier import Classifier
from edge_fg.recognition.prediction import Prediction
from edge_fg.result import Sighting, VisitEvent
from edge_fg.sources import Frame
from edge_fg.tracking.visits import VisitFollower, VisitSettings
from edge_fg_tools.fieldguide.clip import CLIP_FPS, FrameTruth, render_clip

# Two boxes show the same bird; two visits are the same one.
_SAME_PLACE = 0.3
_SAME_VISIT = 0.5


@dataclass(frozen=True)
class ScoredVisit:
    """A visit as it happened or as it was reported.

    Parameters
    ----------
    name
        For people.
    label
        The species; None where it was reported without one.
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
    """The visits of a clip that happened, and those that were reported.

    Parameters
    ----------
    pairs
        Each visit that happened with the reported one at the same time and place; None where
        there is none.
    false_reports
        Reported visits that did not happen.
    single_frames, single_right
        Regions of a bird that the model classified, and how often its single answer was right.
    classified, frames
        Regions that the model classified, and frames of the clip.
    """

    pairs: tuple[tuple[ScoredVisit, ScoredVisit | None], ...]
    false_reports: tuple[ScoredVisit, ...]
    single_frames: int
    single_right: int
    classified: int
    frames: int

    @property
    def found(self) -> int:
        """Number of visits that happened and were reported."""
        return sum(reported is not None for _, reported in self.pairs)

    @property
    def precision(self) -> float:
        """Share of the reported visits that happened, 0..1; 1 where none was reported."""
        reported = self.found + len(self.false_reports)
        return self.found / reported if reported else 1.0

    @property
    def recall(self) -> float:
        """Share of the visits that happened that were reported, 0..1; 1 where none happened."""
        return self.found / len(self.pairs) if self.pairs else 1.0

    @property
    def species_right(self) -> int:
        """Number of visits that were reported with the right species."""
        return sum(
            reported is not None and reported.label == true.label for true, reported in self.pairs
        )

    @property
    def species_share(self) -> float:
        """The same as a share of all visits that happened, 0..1."""
        return self.species_right / len(self.pairs) if self.pairs else 1.0

    @property
    def single_share(self) -> float:
        """Share of single regions that the model named right, 0..1."""
        return self.single_right / self.single_frames if self.single_frames else 1.0


def true_visits(truth: Iterable[FrameTruth]) -> list[ScoredVisit]:
    """Collect the visits of a clip; a species that is away for a second starts a new one."""
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


def reported_visits(
    events: Iterable[VisitEvent], sightings: Iterable[tuple[int, Sighting[Prediction]]]
) -> list[ScoredVisit]:
    """Collect the visits that were reported.

    Parameters
    ----------
    events
        All events of one follower; those of the kind ``visit_ended`` count.
    sightings
        Numbers of frames, and the individuals seen on them.
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
    """Compare what was reported with what happened.

    A reported visit and one that happened are the same if they are at one place (intersection over
    union of at least 0.3) on at least half of the frames of either; the best pairs first.
    """
    happened, reported = true_visits(truth), reported_visits(events, sightings)
    ranked = sorted(
        (
            (true.overlap(one), i, k)
            for i, true in enumerate(happened)
            for k, one in enumerate(reported)
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
            (true, reported[match[i]] if i in match else None) for i, true in enumerate(happened)
        ),
        false_reports=tuple(one for k, one in enumerate(reported) if k not in match.values()),
        single_frames=len(single),
        single_right=sum(single),
        classified=sum(sighting.prediction is not None for _, sighting in sightings),
        frames=len(truth),
    )


def clip_frames(seed: int) -> Iterable[tuple[Frame, FrameTruth]]:
    """Render the clip as frames of a file, with what they show."""
    for image, truth in render_clip(seed):
        yield Frame(image, truth.frame, f"fieldguide://{seed}", position=truth.time_s), truth


def follow_clip(
    frames: Iterable[tuple[Frame, FrameTruth]],
    classifier: Classifier,
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
        seen, new = follower.update(frame, regions, predictions)
        sightings += [(frame.number, sighting) for sighting in seen]
        events += new
    return score_visits(truth, [*events, *follower.finish()], sightings)


def _bird_at(truth: FrameTruth, region: Region) -> str | None:
    """Return the label of the bird at a region; None where there is none."""
    best = max(truth.birds, key=lambda bird: iou(bird.box_xywh, region), default=None)
    if best is None or iou(best.box_xywh, region) < _SAME_PLACE:
        return None
    return best.label
