"""Signs that images are not what a classifier was made for.

A calibration set from another domain gives ranges for activations that never occur in use, and
its hold-out set, being of the same kind, proves a fidelity that means nothing. What the float
model says to the images shows it: it is unsure of nearly all (mean largest probability, the
baseline of D. Hendrycks and K. Gimpel, "A Baseline for Detecting Misclassified and
Out-of-Distribution Examples in Neural Networks", 2017), calls nearly all the same, or names
hardly any image of a known class right. Wrong preprocessing shows in the same ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from edge_fg_calibration.data.near_chance import near_chance

_FEWEST_IMAGES = 20  # Images below which nothing is concluded
_LOW_CONFIDENCE = 0.4  # Mean confidence below which the model is unsure of nearly all
# Share of images of unknown class given one answer above which the set is one-sided.
_ONE_ANSWER = 0.6
_LOW_ACCURACY = 0.2  # Share of images of known class named right below which something is wrong
_FEW_CLASSES = 10  # With fewer classes a common one is no sign
# With few classes: mean confidence, from chance (0) to 1, below which the answers are guesses.
_GUESSING = 0.15
# Share of images with the same answer, and the spread of its probability (of all but the outer
# twentieths), at which the model sees no difference between images; unless it is sure of it.
_SAME_ANSWER, _SAME_CONFIDENCE, _SURE = 0.95, 0.02, 0.85
_CAUSES = "the preprocessing may not be that of the training (see docs/preprocessing.md)"


def domain_warnings(
    answers: Sequence[int],
    confidences: Sequence[float],
    truths: Sequence[int | None],
    labels: Sequence[str],
) -> tuple[str, ...]:
    """Return what makes the images doubtful as calibration and proof; nothing, mostly.

    For each image there is the float model's answer, the probability (0..1) that it gives to it,
    and the true class, None where unknown.
    """
    pairs = list(zip(answers, truths, strict=True))
    known = [answer == truth for answer, truth in pairs if truth is not None]
    unknown = [answer for answer, truth in pairs if truth is None]
    found = _inaccurate(known, near_chance(answers, truths, len(labels)), 1 / max(len(labels), 1))
    if len(answers) < _FEWEST_IMAGES:
        return tuple(found)
    mean = sum(confidences) / len(confidences)
    if mean < _least_confidence(len(labels)):
        found.append(
            f"the float model is unsure of most images (mean confidence {mean:.2f}): {_CAUSES}, or "
            f"they may be from another domain than it was trained on; ranges and proof hold for "
            f"such images only"
        )
    not_right = [
        (answer, sure)
        for (answer, truth), sure in zip(pairs, confidences, strict=True)
        if answer != truth
    ]
    if len(not_right) >= _FEWEST_IMAGES and _sees_no_difference(not_right):
        found.append(
            f"the float model gives {len(not_right)} images the same answer with the same "
            f"confidence, as if it saw no difference between them: {_CAUSES}"
        )
    for answer, count in Counter(unknown).most_common(1):
        one_sided = len(unknown) >= _FEWEST_IMAGES and count > _ONE_ANSWER * len(unknown)
        if one_sided and len(labels) >= _FEW_CLASSES:
            found.append(
                f"the float model calls {count} of {len(unknown)} images of unknown class "
                f"{labels[answer]!r}: {_CAUSES}, or they may be from another domain, or show too "
                f"little of what it knows"
            )
    return tuple(found)


def _inaccurate(known: Sequence[bool], low: tuple[int, int] | None, chance: float) -> list[str]:
    """Return a warning where too few images of known class are named right."""
    right = sum(known) / max(len(known), 1)
    named = f"the float model names only {right:.0%} of the {len(known)} images of known class"
    if low is not None:
        return [
            f"{named} right, near chance: the labels may be in another order, or {_CAUSES}",
        ]
    least = max(_LOW_ACCURACY, 2 * chance)
    if len(known) >= _FEWEST_IMAGES and right < least and chance < _LOW_ACCURACY:
        return [f"{named} right: {_CAUSES}, or labels or images may not be this model's"]
    return []


def _least_confidence(classes: int) -> float:
    """Return the mean confidence below which a model of so many classes knows nothing."""
    chance = 1 / max(classes, 1)
    return _LOW_CONFIDENCE if classes >= _FEW_CLASSES else chance + _GUESSING * (1 - chance)


def _sees_no_difference(answers: Sequence[tuple[int, float]]) -> bool:
    """Say whether nearly all answers, with their confidences, are the same; but not if sure."""
    ((answer, count),) = Counter(answer for answer, _ in answers).most_common(1)
    sure = sorted(one for of, one in answers if of == answer)
    outer = len(sure) // 20
    spread = sure[-1 - outer] - sure[outer]
    same = count >= _SAME_ANSWER * len(answers) and spread <= _SAME_CONFIDENCE
    return same and sum(sure) < _SURE * len(sure)
