"""Splitting calibration images: most give the statistics, some only judge what comes of them.

What is chosen on the images that it was fitted to always looks good. So no statistic is taken
from the validation split, and range methods and corrections are compared on it. The hold-out set
is another thing: it plays no part in the build but the proof.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fg_calibration.statistics.cache import IdentifiedBatches, digest_of

_MOST_VALIDATION_IMAGES = 128  # Validation images beyond which more would only cost time
_FEWEST = 64
_USUAL_STRIDE = 5
_BATCH = 16


def validation_stride(total: int) -> int:
    """Return n where every n-th image is a validation image; 1 where all serve both purposes.

    A fifth are, a third of small sets; of fewer than 64 images none can be spared.
    """
    if total < _FEWEST:
        return 1
    return max(-(-total // _MOST_VALIDATION_IMAGES), min(_USUAL_STRIDE, total // 32))


class CalibrationImages:
    """Calibration images, split into those that are counted and those that judge.

    `batches` gives the network inputs (n x 3 x H x W each) from the start, at each call; a `total`
    of 0 counts them.
    """

    def __init__(self, batches: Callable[[], Iterable[NDArray[Any]]], total: int = 0) -> None:
        self._batches = batches
        total = total or sum(len(batch) for batch in batches())
        self._stride = validation_stride(total)
        self.is_split = self._stride > 1  # Whether statistics leave the validation images out
        # How many images the statistics are taken from.
        self.counted = total - total // self._stride if self.is_split else total
        # The validation images, at most `_MOST_VALIDATION_IMAGES`, in batches like theirs.
        self.validation = self._validation()

    def statistics(self) -> Iterable[NDArray[Any]]:
        """Return the images that statistics are taken from: all, where there is no split.

        Statistics of `IdentifiedBatches` can still be cached: what is left out is part of their
        key.
        """
        images, stride = self._batches(), self._stride
        if not self.is_split:
            return images
        if not isinstance(images, IdentifiedBatches):
            return _without(images, stride)
        start, at = images.start, images.at
        return replace(
            images,
            start=lambda: _without(start(), stride),
            images=digest_of(images.images, stride),
            order=digest_of(images.order, stride),
            at=None if at is None else lambda place: at(place + place // (stride - 1)),
        )

    def some(self, count: int) -> list[NDArray[Any]]:
        """Return about `count` of the images for statistics, evenly spread, one by one."""
        step = max(1, self.counted // count)
        return _every(self.statistics(), step, 0, count)

    def _validation(self) -> list[NDArray[Any]]:
        batches = iter(self._batches())
        first = next(batches, None)
        if first is None:
            return []
        images = itertools.chain([first], batches)
        chosen = _every(images, self._stride, self._stride - 1, _MOST_VALIDATION_IMAGES)
        size = min(len(first), _BATCH)
        return [np.concatenate(chosen[at : at + size]) for at in range(0, len(chosen), size)]


def _every(batches: Iterable[NDArray[Any]], step: int, first: int, most: int) -> list[NDArray[Any]]:
    """Return a copy of every `step`-th image from `first` on, at most so many."""
    chosen: list[NDArray[Any]] = []
    number = 0
    for batch in batches:
        for place in range((first - number) % step, len(batch), step):
            chosen.append(batch[place : place + 1].copy())
            if len(chosen) == most:
                return chosen
        number += len(batch)
    return chosen


def _without(batches: Iterable[NDArray[Any]], stride: int) -> Iterator[NDArray[Any]]:
    """Leave out every image that is a validation image."""
    number = 0
    for batch in batches:
        keep = [n for n in range(len(batch)) if (number + n) % stride != stride - 1]
        number += len(batch)
        if keep:
            yield batch[keep]
