"""One visit: what is known of an individual while it is followed; and the settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fg.boxes import Region
from edge_fg.errors import UsageError
from edge_fg.result import VisitEvent, VisitEventKind
from edge_fg.tracking.motion import MotionSettings
from edge_fg.tracking.smoothing import OpinionPool, SmoothingSettings, StableAnswer
from edge_fg.tracking.track import TrackerSettings


@dataclass(frozen=True)
class VisitSettings:
    """How visits are followed.

    Parameters
    ----------
    padding
        Side of the square that the model sees, in longer sides of the box.
    full_size
        Longer side in pixels above which a larger region does not help.
    ask_s
        Seconds between two classifications of one individual.
    recheck_s
        The same once its answer is settled and not likely to change.
    settled
        Confidence, 0..1, from which an answer is settled.
    settled_evidence
        Number of independent frames that a settled answer needs.
    most_regions
        Largest number of regions of one frame to classify; the others come first on the next.
    shortest_s
        Seconds for which an individual must be seen to be a visit.
    undecided_s
        Seconds after which a visit is reported without a species.
    final
        Confidence, 0..1, from which a visit that ends undecided is reported with its likeliest
        species: no more frames will come, and above 0.5 it is more often right than wrong.
    absence_s
        Seconds of absence after which a visit has ended.
    return_reach
        Largest distance, in sizes, from where an individual was last seen to where it appears
        again.
    nothing
        Labels that mean that no individual is there.
    motion, tracker, smoothing
        Settings of the parts.
    """

    padding: float = 1.6
    full_size: float = 96.0
    ask_s: float = 0.1
    recheck_s: float = 1.0
    settled: float = 0.9
    settled_evidence: float = 2.0
    most_regions: int = 8
    shortest_s: float = 0.6
    undecided_s: float = 3.0
    final: float = 0.5
    absence_s: float = 2.0
    return_reach: float = 2.5
    nothing: frozenset[str] = frozenset({"background"})
    motion: MotionSettings = field(default_factory=MotionSettings)
    tracker: TrackerSettings = field(default_factory=TrackerSettings)
    smoothing: SmoothingSettings = field(default_factory=SmoothingSettings)

    def __post_init__(self) -> None:
        if self.padding < 1.0 or self.full_size <= 0.0 or self.most_regions < 1:
            raise UsageError("padding and most_regions must be at least 1, full_size more than 0")
        for name in ("settled", "final"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name} must be in 0..1, not {getattr(self, name)}")
        for name in ("ask_s", "recheck_s", "shortest_s", "undecided_s", "absence_s"):
            if not getattr(self, name) >= 0.0:
                raise UsageError(f"{name} must not be negative, but is {getattr(self, name)}")


class Moment(NamedTuple):
    """When a frame was taken: seconds of its clock, and the time with a zone, where known."""

    seconds: float
    time: datetime | None


class NamedClass(Protocol):
    """A class with its label."""

    @property
    def label(self) -> str:
        """The name that predictions carry."""


class PredictionLike(Protocol):
    """What a visit needs of a prediction."""

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(classes,), summing to 1."""

    @property
    def labels(self) -> Sequence[NamedClass]:
        """The classes."""


@dataclass(eq=False)
class Visit:
    """One individual: when and where it was seen, and its answer so far.

    Times in seconds are of the frames' clock; the others None where the source doesn't know them.
    """

    number: int  # of its (first) track
    source: str  # the source's name, fit to be shown
    pool: OpinionPool
    answer: StableAnswer
    first_s: float
    first_at: datetime | None
    frames: int  # on which it was seen
    last_s: float = -math.inf
    last_at: datetime | None = None
    region_xywh: Region = (0, 0, 1, 1)  # where it was seen last
    labels: Sequence[NamedClass] = ()  # empty before any prediction
    asked_s: float = -math.inf  # when it was last classified
    sharpest: float = 0.0  # sharpness of its sharpest frame
    announced: bool = False  # whether its start was reported
    announced_class_id: int | None = None  # the class that was reported last

    def add(self, prediction: PredictionLike, time_s: float, quality: float) -> None:
        """Take in the prediction for one frame."""
        self.labels = prediction.labels
        self.pool.add(prediction.probabilities, time_s, quality)
        fused = self.pool.distribution()
        assert fused is not None
        self.answer.update(fused, self.pool.evidence, time_s)

    @property
    def class_id(self) -> int | None:
        """Class of the answer; None while undecided."""
        return self.answer.class_id

    @property
    def label(self) -> str | None:
        """Label of that class."""
        return self._label_of(self.class_id)

    @property
    def confidence(self) -> float | None:
        """Fused probability of that class, 0..1."""
        fused = self.pool.distribution()
        return None if self.class_id is None or fused is None else float(fused[self.class_id])

    @property
    def likeliest(self) -> str | None:
        """Label that is likeliest so far, decided or not; None before any answer."""
        fused = self.pool.distribution()
        return None if fused is None else self.labels[int(np.argmax(fused))].label

    @property
    def duration_s(self) -> float:
        """Seconds between its first and last sighting."""
        return self.last_s - self.first_s

    def best_guess(self, confidence: float, nothing: frozenset[str]) -> int | None:
        """Return the likeliest class if it has this confidence and is not `nothing`."""
        fused = self.pool.distribution()
        if fused is None or fused.max() < confidence or self.likeliest in nothing:
            return None
        return int(np.argmax(fused))

    def continue_as(self, other: Visit) -> None:
        """Take over what was seen of another visit that is a return of this individual."""
        self.last_s, self.last_at, self.region_xywh = other.last_s, other.last_at, other.region_xywh
        self.frames += other.frames
        self.pool, self.answer = other.pool, other.answer

    def event(
        self, kind: VisitEventKind, source_number: int, class_id: int | None, now: Moment
    ) -> VisitEvent:
        """Return an event of this visit as a class (None: undecided), known at the moment `now`."""
        fused = self.pool.distribution()
        confidence, runner_up = None, None
        if fused is not None:
            best = np.argsort(-fused, kind="stable")[:2].tolist()
            runner_up = self._label_of(next((other for other in best if other != class_id), None))
            confidence = None if class_id is None else float(fused[class_id])
        return VisitEvent(
            kind=kind,
            visit=f"{source_number}-{self.number}",
            source=self.source,
            label=self._label_of(class_id),
            class_id=class_id,
            confidence=confidence,
            runner_up=runner_up,
            frames=self.frames,
            started_s=self.first_s,
            ended_s=self.last_s,
            started_at=self.first_at,
            ended_at=self.last_at,
            region_xywh=self.region_xywh,
            time_s=now.seconds,
            time=now.time,
        )

    def _label_of(self, class_id: int | None) -> str | None:
        return None if class_id is None else self.labels[class_id].label
