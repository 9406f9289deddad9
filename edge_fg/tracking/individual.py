"""What is known of one individual while it is followed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fg.result import Region, VisitEvent, VisitEventKind
from edge_fg.tracking.fusion import FusedBelief, HeldAnswer


class NamedClass(Protocol):
    """A class with its label."""

    @property
    def label(self) -> str:
        """The name that predictions carry."""


class PredictionLike(Protocol):
    """What a visit needs of an answer of the model."""

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(classes,), summing to 1."""

    @property
    def labels(self) -> Sequence[NamedClass]:
        """The classes."""


@dataclass(eq=False)
class Individual:
    """One individual: when and where it was seen, and what it is held for.

    Parameters
    ----------
    number
        Of its (first) track.
    source
        Name of the source, fit to be shown.
    belief, answer
        What its frames say, and what is given out.
    first_s, first_at
        When it was first seen, by the frames' clock and as wall time (None for files).
    frames
        Frames on which it was seen.
    last_s, last_at
        When it was last seen.
    region
        Where it was seen last: (x, y, width, height) in pixels.
    labels
        The classes; empty before any answer.
    asked_s
        When the model was last asked about it.
    sharpest
        Detail of its sharpest frame.
    started, told
        Whether its visit was told of, and as which class.
    """

    number: int
    source: str
    belief: FusedBelief
    answer: HeldAnswer
    first_s: float
    first_at: datetime | None
    frames: int
    last_s: float = -math.inf
    last_at: datetime | None = None
    region: Region = (0, 0, 1, 1)
    labels: Sequence[NamedClass] = ()
    asked_s: float | None = None
    sharpest: float = 0.0
    started: bool = False
    told: int | None = None

    def take_in(self, prediction: PredictionLike, time_s: float, quality: float) -> None:
        """Take in the model's answer to one frame."""
        self.labels = prediction.labels
        self.belief.add(prediction.probabilities, time_s, quality)
        fused = self.belief.distribution()
        assert fused is not None
        self.answer.update(fused, self.belief.evidence, time_s)

    @property
    def waiting(self) -> tuple[float, int]:
        """What orders those waiting to be asked about: the smallest has waited longest."""
        return -math.inf if self.asked_s is None else self.asked_s, self.belief.count

    @property
    def index(self) -> int | None:
        """Class that it is held for; None while undecided."""
        return self.answer.index

    @property
    def label(self) -> str | None:
        """Label of the class that it is held for."""
        return None if self.index is None else self.labels[self.index].label

    @property
    def confidence(self) -> float | None:
        """Fused probability of that class, 0..1."""
        fused = self.belief.distribution()
        return None if self.index is None or fused is None else float(fused[self.index])

    @property
    def likeliest(self) -> str | None:
        """Label that is likeliest so far, decided or not; None before any answer."""
        fused = self.belief.distribution()
        return None if fused is None else self.labels[int(np.argmax(fused))].label

    def guess(self, confidence: float, nothing: frozenset[str]) -> int | None:
        """Return the likeliest class if it is at least so likely, and something."""
        fused = self.belief.distribution()
        if fused is None:
            return None
        best = int(np.argmax(fused))
        if fused[best] < confidence or self.labels[best].label in nothing:
            return None
        return best

    @property
    def duration_s(self) -> float:
        """Seconds between its first and last sighting."""
        return self.last_s - self.first_s

    def continue_as(self, other: Individual) -> None:
        """Take over what was seen of one that turned out to be this individual come back."""
        self.last_s, self.last_at, self.region = other.last_s, other.last_at, other.region
        self.frames += other.frames
        self.belief, self.answer = other.belief, other.answer

    def event(self, kind: VisitEventKind, source_number: int, index: int | None) -> VisitEvent:
        """Return what is to be told of it now, as class `index` (None: undecided)."""
        fused = self.belief.distribution()
        confidence, runner_up = None, None
        if fused is not None:
            order = np.argsort(-fused, kind="stable")
            others = [int(place) for place in order[:2] if int(place) != index]
            runner_up = self.labels[others[0]].label if others else None
            confidence = None if index is None else float(fused[index])
        return VisitEvent(
            kind=kind,
            visit=f"{source_number}-{self.number}",
            source=self.source,
            label=None if index is None else self.labels[index].label,
            class_id=index,
            confidence=confidence,
            runner_up=runner_up,
            frames=self.frames,
            started_s=self.first_s,
            ended_s=self.last_s,
            started_at=self.first_at,
            ended_at=self.last_at,
            region_xywh=self.region,
        )
