"""Visits: an individual came, what it is, when it left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

VisitEventKind = Literal["visit_started", "visit_updated", "visit_ended"]


@dataclass(frozen=True)
class VisitEvent:
    """Something that became known of one visit.

    ``visit_started`` comes when the individual's species is settled for the first time (or can't
    be settled, with a label of None), ``visit_updated`` when the answer changes, ``visit_ended``
    once it has been gone for a while.

    Parameters
    ----------
    kind
        What happened.
    visit
        Unique in this process: ``<source number>-<track>``.
    source
        The source's name, fit to be shown.
    label, index, confidence
        The species that all frames together speak for, 0..1; None where they decide for none.
    runner_up
        The label that comes next; None where there is none.
    frames
        Frames on which the individual was seen.
    started, ended
        Seconds of the frame's clock (`position` of files, else `captured`): when it was first
        and last seen.
    started_at, ended_at
        The same as wall time with a zone, for live sources; None for files.
    region
        Where it was seen last: (x, y, width, height) in pixels.
    """

    kind: VisitEventKind
    visit: str
    source: str
    label: str | None
    index: int | None
    confidence: float | None
    runner_up: str | None
    frames: int
    started: float
    ended: float
    started_at: datetime | None
    ended_at: datetime | None
    region: tuple[int, int, int, int]

    def to_dict(self) -> dict[str, Any]:
        """Return what stands in one line of ``--events visits``."""
        return {
            "event": self.kind,
            "visit": self.visit,
            "source": self.source,
            "label": self.label,
            "index": self.index,
            "confidence": self.confidence,
            "runner_up": self.runner_up,
            "frames": self.frames,
            "started_s": round(self.started, 3),
            "ended_s": round(self.ended, 3),
            "started": self.started_at.isoformat() if self.started_at else None,
            "ended": self.ended_at.isoformat() if self.ended_at else None,
            "box": list(self.region),
        }
