"""A first look at what the float model says to the images, before the long part of a build."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_fg.errors import BudgetError
from edge_fg.labels import Labels
from edge_fg.progress import ProgressCallback
from edge_fg_calibration import ImageSet
from edge_fg_calibration.data.near_chance import near_chance
from edge_fg_calibration.data.out_of_domain import domain_warnings
from edge_fg_calibration.data.sampling import Sample
from edge_fg_tools.building.image_feed import ImageFeed, float_answers
from edge_fg_tools.graph import PreparedModel

_MOST_IMAGES = 256


def image_doubts(
    prepared: PreparedModel,
    feed: ImageFeed,
    chosen: Sample,
    labels: Labels,
    progress: ProgressCallback,
    *,
    allow_low_accuracy: bool,
) -> tuple[str, ...]:
    """Return what the answers to some images make doubtful: labels, preprocessing or images.

    Raises BudgetError where they are right no more often than by chance, unless that is allowed.
    """
    images = _some(chosen)
    answers: list[int] = []
    confidences: list[float] = []
    truths: list[int | None] = []
    for some, rows in float_answers(prepared, feed, images):
        if not np.isfinite(rows).all():
            return ()  # the proof names the node where that begins
        answers.extend(rows.argmax(axis=1).tolist())
        confidences.extend(rows.max(axis=1).tolist())
        truths.extend(image.index for image in some)
        progress("first look", len(answers), len(images))
    low = near_chance(answers, truths, len(labels))
    if low is not None and not allow_low_accuracy:
        raise BudgetError(
            f"the model names only {low[0]} of {low[1]} labelled images right, which is near "
            "chance, and no bundle was written: check the order of --labels and --preprocess (see "
            "docs/preprocessing.md), or give --allow-low-accuracy"
        )
    return domain_warnings(answers, confidences, truths, labels.names)


def _some(chosen: Sample) -> ImageSet:
    """Return images of the hold-out set, evenly spread, and of the other side where it is small."""
    items = chosen.hold_out.items
    items = items[:: -(-len(items) // _MOST_IMAGES)]
    items += chosen.calibration.items[: _MOST_IMAGES - len(items)]
    return replace(chosen.hold_out, items=items)
