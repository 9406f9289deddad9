"""Splitting calibration images into those that are counted and those that serve as a trial.

What is chosen on the images that it was fitted to always looks good, so some images are kept
out of all statistics: whether a correction pays is asked on them. The images of the proof are none
of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fg_calibration.statistics.cache import IdentifiedBatches, digest_of

MOST_VALIDATION_IMAGES = 128
"""ValidationSplit images beyond which more would only cost time."""

_FEWEST = 64
_USUAL_STRIDE = 5
_BATCH = 16

Batches = Callable[[], Iterable[NDArray[Any]]]


def validation_stride(total: int) -> int:
    """Return n where every n-th image is a validation image; 1 where all serve both purposes.

    A fifth are, a third of small sets; of fewer than 64 images none can be spared.
    """
    if total < _FEWEST:
        return 1
    return max(-(-total // MOST_VALIDATION_IMAGES), min(_USUAL_STRIDE, total // 32))


def validation_images(batches: Batches, stride: int) -> list[NDArray[Any]]:
    """Return every `stride`-th image, at most `MOST_VALIDATION_IMAGES`, in batches like theirs."""
    chosen: list[NDArray[Any]] = []
    size = number = 0
    for batch in batches():
        size = size or min(len(batch), _BATCH)
        for place in range(len(batch)):
            if number % stride == stride - 1 and len(chosen) < MOST_VALIDATION_IMAGES:
                chosen.append(batch[place : place + 1].copy())
            number += 1
        if len(chosen) == MOST_VALIDATION_IMAGES:
            break
    return [np.concatenate(chosen[at : at + size]) for at in range(0, len(chosen), size or 1)]


def statistics_images(batches: Batches, stride: int) -> Iterable[NDArray[Any]]:
    """Return the images that `validation_images` leaves, or all of them where the stride is 1.

    Statistics of `IdentifiedBatches` can still be kept: what is left out is part of their key.
    """
    images = batches()
    if stride == 1:
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


def some_images(images: Iterable[NDArray[Any]], count: int, total: int) -> list[NDArray[Any]]:
    """Return about `count` images evenly spread over `total`."""
    step = max(1, total // count)
    chosen: list[NDArray[Any]] = []
    number = 0
    for batch in images:
        for place in range(len(batch)):
            if number % step == 0 and len(chosen) < count:
                chosen.append(batch[place : place + 1].copy())
            number += 1
    return chosen


def count_images(batches: Batches) -> int:
    """Return how many images there are, reading them all."""
    return sum(len(batch) for batch in batches())


def _without(batches: Iterable[NDArray[Any]], stride: int) -> Iterator[NDArray[Any]]:
    number = 0
    for batch in batches:
        keep = [n for n in range(len(batch)) if (number + n) % stride != stride - 1]
        number += len(batch)
        if keep:
            yield batch[keep]
