"""How the classifier is called: with one frame, or several frames and regions at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_fg.boxes import Region
from edge_fg.sources import Frame

PredictionT = TypeVar("PredictionT")
PredictionT_co = TypeVar("PredictionT_co", covariant=True)


class FrameClassifier(Protocol[PredictionT_co]):
    """Anything that answers a frame: H x W x 3, uint8, BGR.

    Where it also has a method ``batch(frames, regions)``, as `edge_fg.Classifier` has, that is
    called: with several frames, and with a region (x, y, width, height) or None for each.
    Where it has an attribute ``takes_raw`` that is true, whole frames that the camera gave as raw
    bytes come as `RawFrame`, and with ``batch`` their regions too; else they are converted before.
    """

    def __call__(self, frame: NDArray[np.uint8], /) -> PredictionT_co:
        """Return the answer to one frame."""


class ClassifierAdapter(Generic[PredictionT]):
    """Calls a classifier in the best way that it offers; see `FrameClassifier`."""

    def __init__(self, classifier: FrameClassifier[PredictionT]) -> None:
        self._classifier = classifier
        self._batch: Any = getattr(classifier, "batch", None)
        self._takes_raw = bool(getattr(classifier, "takes_raw", False))
        self.batches = self._batch is not None  # whether several frames can be given at once

    def one(self, frame: Frame) -> PredictionT:
        """Return the answer to one whole frame."""
        return self._classifier(self._pixels(frame))

    def several(
        self, frames: Sequence[Frame], regions: Sequence[Region | None]
    ) -> list[PredictionT]:
        """Return the answer to each frame, or to one region of it."""
        if self._batch is not None:
            pixels = [self._pixels(frame) for frame in frames]
            some = any(region is not None for region in regions)
            return list(self._batch(pixels, list(regions) if some else None))
        return [
            self.one(frame) if region is None else self._classifier(_cut(frame.image, region))
            for frame, region in zip(frames, regions, strict=True)
        ]

    def _pixels(self, frame: Frame) -> Any:
        return frame.pixels if self._takes_raw else frame.image


def _cut(image: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
    x, y, width, height = region
    return np.ascontiguousarray(image[y : y + height, x : x + width])
