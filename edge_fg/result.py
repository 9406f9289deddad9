"""What the pipeline hands on: results of frames, sightings and visits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from edge_fg.boxes import Region
from edge_fg.public_names import deprecated_alias
from edge_fg.sources import Frame

PredictionT_co = TypeVar("PredictionT_co", covariant=True)
VisitEventKind = Literal["visit_started", "visit_updated", "visit_ended"]


@dataclass(frozen=True, eq=False)
class Sighting(Generic[PredictionT_co]):
    """One individual on one frame.

    Parameters
    ----------
    track
        Number of the individual, from 1, which is never used again for the same source.
    region_xywh
        Where it is: (x, y, width, height) in pixels of the frame.
    prediction
        The model's answer for this region alone; None where it was not asked on this frame.
    label, class_id, confidence
        The answer for the individual, from all frames up to this one; None while undecided.
    """

    track: int
    region_xywh: Region
    prediction: PredictionT_co | None
    label: str | None = None
    class_id: int | None = None
    confidence: float | None = None

    region = deprecated_alias("region_xywh")
    index = deprecated_alias("class_id")


@dataclass(frozen=True)
class VisitEvent:
    """News of one visit.

    ``visit_started`` comes when the individual's species is known for the first time (or, after a
    while, with a label of None), ``visit_updated`` when the answer changes, ``visit_ended`` once
    the individual has been gone for a while.

    Parameters
    ----------
    kind
        What happened.
    visit
        Unique in this process: ``<source number>-<track>``.
    source
        The source's name, fit to be shown.
    label, class_id, confidence
        The species by all frames together, and its probability, 0..1; None where undecided.
    runner_up
        The label that comes next; None where there is none.
    frames
        Frames on which the individual was seen.
    started_s, ended_s
        Seconds of the frame's clock (`position` of files, else `captured`): when it was first
        and last seen.
    started_at, ended_at
        The same as wall time; None where the source doesn't know it (see `Frame.time`).
    region_xywh
        Where it was seen last: (x, y, width, height) in pixels.
    time_s
        Seconds of the frame's clock: when it was known. A visit is known to have ended only some
        time after `ended_s`.
    time
        The same as wall time with a zone, where frames have one.
    """

    kind: VisitEventKind
    visit: str
    source: str
    label: str | None
    class_id: int | None
    confidence: float | None
    runner_up: str | None
    frames: int
    started_s: float
    ended_s: float
    started_at: datetime | None
    ended_at: datetime | None
    region_xywh: Region
    time_s: float
    time: datetime | None

    index = deprecated_alias("class_id")
    started = deprecated_alias("started_s")
    ended = deprecated_alias("ended_s")
    region = deprecated_alias("region_xywh")

    def to_dict(self) -> dict[str, Any]:
        """Return it as ``--events visits`` writes it in one line."""
        return {
            "event": self.kind,
            "time": self.time.isoformat() if self.time else None,
            "time_s": round(self.time_s, 3),
            "visit": self.visit,
            "source": self.source,
            "label": self.label,
            "index": self.class_id,
            "confidence": self.confidence,
            "runner_up": self.runner_up,
            "frames": self.frames,
            "started_s": round(self.started_s, 3),
            "ended_s": round(self.ended_s, 3),
            "started": self.started_at.isoformat() if self.started_at else None,
            "ended": self.ended_at.isoformat() if self.ended_at else None,
            "box": list(self.region_xywh),
        }


@dataclass(frozen=True, eq=False)
class Result(Generic[PredictionT_co]):
    """One frame with its answer; it unpacks into both: ``frame, prediction = result``.

    Parameters
    ----------
    frame
        The frame.
    prediction
        The model's answer for the whole frame; None where only regions of it were classified.
    age_s
        Seconds from the frame's capture to its answer.
    sightings
        The individuals on it, where visits are followed.
    events
        What began, changed or ended with this frame, where visits are followed.
    closing
        True where only `events` are new: its source has ended or was lost, and `frame` is the
        last one, which has been handed on before.
    source_index
        Place of the source in the pipeline's list, from 0: two sources may have the same name.
    """

    frame: Frame
    prediction: PredictionT_co | None
    age_s: float
    sightings: tuple[Sighting[PredictionT_co], ...] = ()
    events: tuple[VisitEvent, ...] = ()
    closing: bool = False
    source_index: int = 0

    age = deprecated_alias("age_s")
    source = deprecated_alias("source_index")

    def __iter__(self) -> Iterator[Any]:
        yield self.frame
        yield self.prediction
