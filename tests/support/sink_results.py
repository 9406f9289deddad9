"""Results as a pipeline hands them on, with real predictions."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np

from edge_fg.labels import Label, Labels
from edge_fg.pipeline import Result, Sighting, VisitEvent
from edge_fg.recognition.prediction import Latency, Prediction
from edge_fg.sources import Frame
from edge_fg.sources.base import BaseSource

LABELS = Labels([Label(0, "Burrowing Owl"), Label(1, "Little Owl"), Label(2, "Great, Tit")])
NOON = datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))


class Camera(BaseSource):
    """A source that is only looked at, never read."""

    def _read(self) -> None:
        raise AssertionError("nobody reads this source")


def grey(width: int = 64, height: int = 48, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def prediction(*probabilities: float) -> Prediction:
    values = np.array(probabilities or (0.7, 0.2, 0.1), np.float32)
    return Prediction(values, LABELS, Latency(1.25, 2.5, 3.75))


def result(number: int = 0, image: np.ndarray | None = None, **changed) -> Result:
    frame = {"source": "clip.mp4", "position": number / 10, "captured": 100 + number / 10}
    frame.update({k: changed.pop(k) for k in ("time", "captured") if k in changed})
    if "path" in changed:
        frame["source"] = changed.pop("path")
    values = {"prediction": prediction(), "age_s": 0.01, **changed}
    return Result(Frame(grey() if image is None else image, number, **frame), **values)


def sighting(track: int, region, label: str | None, confidence: float | None = 0.9) -> Sighting:
    index = None if label is None else 0
    sure = None if label is None else confidence
    return Sighting(track, region, prediction(), label, index, sure)


def event(kind: str = "visit_ended", visit: str = "1-1", label: str | None = "Little Owl"):
    return VisitEvent(
        kind, visit, "cam", label, None if label is None else 1, 0.875, "Burrowing Owl", 12,
        1.0, 4.5, NOON, NOON + timedelta(seconds=3.5), (1, 2, 30, 40),
        6.5, NOON + timedelta(seconds=5.5),
    )  # fmt: skip
