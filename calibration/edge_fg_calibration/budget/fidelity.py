"""How near a variant's outputs are to the float32 model's, over all images and per class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import UsageError

OutputKind: TypeAlias = Literal["logits", "probabilities"]

PROBABILITY_FLOOR = 1e-12
"""Added to each stored probability before the logarithm, both distributions renormalised.

A float32 softmax underflows to 0, whose logarithm would make one image decide the mean.
Logits need no floor.
"""

MINIMUM_CLASS_IMAGES = 5
"""Images of a class below which nothing is said about it: one image would be everything."""

_WORST_CLASSES = 10


@dataclass(frozen=True)
class Fidelity:
    """A candidate against the reference, on the same images.

    Parameters
    ----------
    images
        Images compared.
    agreement
        Share (0..1) whose most likely class is the same.
    mean_kl, max_kl
        Kullback-Leibler divergence KL(reference || candidate) in nats.
    labelled
        Images whose true class is known.
    agreement_labelled
        `agreement` among those; None where there are none.
    top1_reference, top1, top5_reference, top5
        Accuracy (0..1) on the labelled images; None where there are none.
    worst_classes
        Classes, as the reference names them, with the least agreement:
        ``{"index", "label" (if known), "images", "agreement"}``, worst first.
    worst_class_drop
        Largest loss of top-1 accuracy of one true class with at least
        `MINIMUM_CLASS_IMAGES` images; None where no class has as many.
    """

    images: int
    agreement: float
    mean_kl: float
    max_kl: float
    labelled: int
    agreement_labelled: float | None
    top1_reference: float | None
    top1: float | None
    top5_reference: float | None
    top5: float | None
    worst_classes: tuple[dict[str, Any], ...]
    worst_class_drop: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-able values."""
        return {**asdict(self), "worst_classes": [dict(one) for one in self.worst_classes]}


@dataclass(frozen=True)
class ImageRecord:
    """One image's comparison.

    Parameters
    ----------
    index
        True class, None where unknown.
    reference_top1, top1
        Most likely class of each.
    reference_confidence, confidence
        Its probability (0..1) of each.
    kl
        KL(reference || candidate) in nats.
    """

    index: int | None
    reference_top1: int
    top1: int
    reference_confidence: float
    confidence: float
    kl: float


def compare(
    reference: NDArray[np.floating[Any]],
    candidate: NDArray[np.floating[Any]],
    *,
    kind: OutputKind,
    indices: Sequence[int | None],
    labels: Sequence[str] | None = None,
) -> Fidelity:
    """Compare two outputs of the same images.

    Parameters
    ----------
    reference, candidate
        Outputs, N x classes.
    kind
        Whether they are logits or probabilities.
    indices
        True class of each image, None where unknown.
    labels
        Class names for `Fidelity.worst_classes`.

    Raises
    ------
    UsageError
        There are no images, shapes or lengths differ, a value is NaN or infinite, or an index
        is not a class.
    """
    kl = divergences(reference, candidate, kind)
    _check_indices(indices, *reference.shape)
    first, second = reference.argmax(axis=1), candidate.argmax(axis=1)
    same = first == second
    known = np.array([index is not None for index in indices], dtype=bool)
    truth = np.array([index for index in indices if index is not None], dtype=np.intp)
    return Fidelity(
        images=len(same),
        agreement=float(same.mean()),
        mean_kl=float(kl.mean()),
        max_kl=float(kl.max()),
        labelled=int(known.sum()),
        agreement_labelled=_share(same[known]),
        top1_reference=_share(first[known] == truth),
        top1=_share(second[known] == truth),
        top5_reference=_share(_in_top5(reference[known], truth)),
        top5=_share(_in_top5(candidate[known], truth)),
        worst_classes=_worst_classes(first, same, labels),
        worst_class_drop=_worst_drop(first[known] == truth, second[known] == truth, truth),
    )


def image_records(
    reference: NDArray[np.floating[Any]],
    candidate: NDArray[np.floating[Any]],
    *,
    kind: OutputKind,
    indices: Sequence[int | None],
) -> list[ImageRecord]:
    """Return the comparison image by image; parameters and errors as for `compare`."""
    kl = divergences(reference, candidate, kind)
    _check_indices(indices, *reference.shape)
    p = np.exp(log_probabilities(reference, kind))
    q = np.exp(log_probabilities(candidate, kind))
    first, second = reference.argmax(axis=1), candidate.argmax(axis=1)
    return [
        ImageRecord(
            index=index,
            reference_top1=int(first[n]),
            top1=int(second[n]),
            reference_confidence=float(p[n, first[n]]),
            confidence=float(q[n, second[n]]),
            kl=float(kl[n]),
        )
        for n, index in enumerate(indices)
    ]


def _check_indices(indices: Sequence[int | None], images: int, classes: int) -> None:
    if len(indices) != images:
        raise UsageError(f"{len(indices)} true classes for {images} images")
    wrong = [one for one in indices if one is not None and not 0 <= one < classes]
    if wrong:
        raise UsageError(f"index {wrong[0]} is not one of {classes} classes")


def log_probabilities(output: NDArray[np.floating[Any]], kind: OutputKind) -> NDArray[np.float64]:
    """Return the natural logarithms of the probabilities that outputs stand for, N x classes."""
    values = output.astype(np.float64)
    if kind == "probabilities":
        values = np.log(np.maximum(values, 0.0) + PROBABILITY_FLOOR)
    values -= values.max(axis=1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
    return values


def divergences(
    reference: NDArray[np.floating[Any]], candidate: NDArray[np.floating[Any]], kind: OutputKind
) -> NDArray[np.float64]:
    """Return KL(reference || candidate) of each image in nats, shape (N,); errors as `compare`."""
    if reference.ndim != 2 or reference.shape != candidate.shape or not reference.size:
        raise UsageError(
            f"outputs of the same images are needed, N x classes: got {reference.shape} and "
            f"{candidate.shape}"
        )
    for name, output in (("reference", reference), ("candidate", candidate)):
        bad = np.flatnonzero(~np.isfinite(output).all(axis=1))
        if bad.size:
            raise UsageError(
                f"the {name}'s output is NaN or infinite for {bad.size} of {len(output)} images, "
                f"first for image {bad[0]}"
            )
    log_p, log_q = log_probabilities(reference, kind), log_probabilities(candidate, kind)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    # Never negative, except by rounding.
    return np.asarray(np.maximum(kl, 0.0), dtype=np.float64)


def _share(right: NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if right.size else None


def _in_top5(output: NDArray[np.floating[Any]], truth: NDArray[np.intp]) -> NDArray[np.bool_]:
    best = np.argsort(-output, axis=1, kind="stable")[:, :5]
    return np.asarray((best == truth[:, None]).any(axis=1))


def _common_classes(classes: NDArray[np.intp]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield each class of at least `MINIMUM_CLASS_IMAGES` images, and which images are its."""
    for index in np.unique(classes):
        members = classes == index
        if members.sum() >= MINIMUM_CLASS_IMAGES:
            yield int(index), members


def _worst_classes(
    named: NDArray[np.intp], same: NDArray[np.bool_], labels: Sequence[str] | None
) -> tuple[dict[str, Any], ...]:
    found = []
    for index, members in _common_classes(named):
        one: dict[str, Any] = {"index": index}
        if labels is not None and index < len(labels):
            one["label"] = labels[index]
        agreement = float(same[members].mean())
        found.append({**one, "images": int(members.sum()), "agreement": agreement})
    found.sort(key=lambda one: (one["agreement"], -one["images"], one["index"]))
    return tuple(found[:_WORST_CLASSES])


def _worst_drop(
    before: NDArray[np.bool_], after: NDArray[np.bool_], truth: NDArray[np.intp]
) -> float | None:
    each = (before[one].mean() - after[one].mean() for _, one in _common_classes(truth))
    return max(map(float, each), default=None)
