"""How well a bundle answers on a set of images, alone or against another."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import UsageError
from edge_fg.labels import Labels
from edge_fg.progress import ProgressCallback, no_progress
from edge_fg.recognition.classifier import Classifier
from edge_fg_calibration import (
    ImageSet,
    batches,
    compare,
    read_image_set,
    resolve_labels,
)
from edge_fg_calibration.data.near_chance import near_chance

_LOGGER = logging.getLogger("edge_fg")
_BATCH = 4
_TOP = 5


def evaluate(
    classifier: Classifier,
    images: Path,
    *,
    against: Classifier | None = None,
    against_name: str = "",
    progress: ProgressCallback = no_progress,
) -> dict[str, Any]:
    """Return accuracy and, with `against`, fidelity, as the command line prints them.

    `images` is a directory or CSV, as for a build. Raises DatasetError where the set can't be used
    or none of its images can be read, UsageError where the two don't have the same classes.
    """
    if against is not None and against.labels.names != classifier.labels.names:
        raise UsageError(f"{against_name} has other classes: its answers can't be compared")
    classifiers = [classifier] if against is None else [classifier, against]
    indices, (probabilities, *reference) = _answer_all(classifiers, images, progress)
    document = _accuracy(probabilities, indices, classifier.labels.names)
    low = near_chance(probabilities.argmax(axis=1).tolist(), indices, probabilities.shape[1])
    if low is not None:
        _LOGGER.warning(
            "only %d of %d labelled images are named right, which is near chance: check the order "
            "of the labels and the preprocessing (see docs/preprocessing.md)",
            *low,
        )
    if against is not None:
        fidelity = compare(
            reference[0],
            probabilities,
            kind="probabilities",
            indices=indices,
            labels=classifier.labels.names,
        )
        document["against"] = {
            "name": against_name,
            "agreement": fidelity.agreement,
            "agreement_labelled": fidelity.agreement_labelled,
            "mean_kl": fidelity.mean_kl,
            "worst_classes": [dict(one) for one in fidelity.worst_classes],
        }
    return document


def labelled_set(source: Path, labels: Labels) -> ImageSet:
    """Read a set of images, and warn of names that don't stand for one of `labels`, or another.

    Raises DatasetError where there are no images or the CSV is malformed.
    """
    images, unclear = resolve_labels(read_image_set(source), labels)
    meant = {one.label: labels.find(one.label) for one in images.items if one.label}
    shared = [name for name in unclear if meant[name]]
    unknown = [name for name in unclear if not meant[name]]
    if unknown:
        _LOGGER.warning(
            "%s names classes that the model lacks, %d in all (such as `%s`): their images count "
            "for agreement, not for accuracy",
            source,
            len(unknown),
            unknown[0],
        )
    if shared:
        _LOGGER.warning(
            "%s: `%s` may be class %s%s: its images count for agreement, not for accuracy; name "
            "them by the index (a folder `0`, or the column `index`)",
            source,
            shared[0],
            " or ".join(map(str, meant[shared[0]][:4])),
            f" ({len(shared) - 1} more names are unclear)" if len(shared) > 1 else "",
        )
    other = [
        one
        for one in images.items
        if one.index is not None and one.index not in (meant.get(one.label or "") or (one.index,))
    ]
    if other:
        _LOGGER.warning(
            "%s: index and label name different classes in %d of its rows (such as %s: `%s`, "
            "%d); the index is used",
            source,
            len(other),
            other[0].path.name,
            other[0].label,
            other[0].index,
        )
    return images


def _answer_all(
    classifiers: list[Classifier], source: Path, progress: ProgressCallback
) -> tuple[list[int | None], list[NDArray[np.float32]]]:
    """Return the right class of each image, and each classifier's probabilities (N x classes)."""
    images = labelled_set(source, classifiers[0].labels)
    indices: list[int | None] = []
    rows: list[list[NDArray[np.float32]]] = [[] for _ in classifiers]
    for some, frames in batches(images, list, _BATCH, _leave_out):
        indices.extend(image.index for image in some)
        for classifier, answers in zip(classifiers, rows, strict=True):
            answers.extend(p.probabilities for p in classifier.batch(frames))
        progress("evaluate", len(indices), len(images))
    progress("evaluate", len(images), len(images))
    return indices, [np.stack(answers) for answers in rows]


def _leave_out(_path: Path, error: Exception) -> None:
    _LOGGER.warning("left out: %s", error)


def _accuracy(
    probabilities: NDArray[np.float32], indices: list[int | None], names: list[str]
) -> dict[str, Any]:
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :_TOP]
    hits: defaultdict[int, list[bool]] = defaultdict(list)
    within_top = 0
    for row, index in zip(order, indices, strict=True):
        if index is not None:
            hits[index].append(bool(row[0] == index))
            within_top += int(index in row)
    labelled = sum(map(len, hits.values()))
    right = sum(map(sum, hits.values()))
    return {
        "images": len(indices),
        "labelled": labelled,
        "top1": right / labelled if labelled else None,
        "top5": within_top / labelled if labelled else None,
        "per_class": [
            {"index": i, "label": names[i], "images": len(h), "top1": sum(h) / len(h)}
            for i, h in sorted(hits.items())
        ],
    }
