"""What the pipeline hands on for each frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from edge_fg.capture import Frame
from edge_fg.streaming.events import VisitEvent

PredictionT_co = TypeVar("PredictionT_co", covariant=True)
Region = tuple[int, int, int, int]
"""(x, y, width, height) in pixels."""


@dataclass(frozen=True, eq=False)
class Sighting(Generic[PredictionT_co]):
    """One individual on one frame.

    Parameters
    ----------
    track
        Number of the individual, from 1, which is never used again for the same source.
    region
        Where it is: (x, y, width, height) in pixels of the frame.
    prediction
        What the model says of this region alone; None where it was not asked on this frame.
    label, index, confidence
        What is held to be true of the individual, from all frames up to this one; None while
        it is undecided.
    """

    track: int
    region: Region
    prediction: PredictionT_co | None
    label: str | None = None
    index: int | None = None
    confidence: float | None = None


@dataclass(frozen=True, eq=False)
class Result(Generic[PredictionT_co]):
    """One frame with its answer.

    Parameters
    ----------
    frame
        The frame.
    prediction
        What the model says of the whole frame; None where only regions of it were looked at.
    age
        Seconds from the frame's capture to its answer.
    sightings
        The individuals on it, where visits are followed.
    events
        What began, changed or ended with this frame, where visits are followed.
    closing
        True where only `events` are new: its source has ended or was lost, and `frame` is the
        last one, which has been handed on before.
    source
        Which of the pipeline's sources it is of, from 0: two of them may have the same name.
    """

    frame: Frame
    prediction: PredictionT_co | None
    age: float
    sightings: tuple[Sighting[PredictionT_co], ...] = ()
    events: tuple[VisitEvent, ...] = ()
    closing: bool = False
    source: int = 0
