"""Signs that images are not what a classifier was made for.

A calibration set from another domain gives ranges for activations that never occur in use, and
its hold-out set, being of the same kind, proves a fidelity that means nothing. What the float
model says to the images shows it: it is unsure of nearly all (mean largest probability, the
baseline of D. Hendrycks and K. Gimpel, "A Baseline for Detecting Misclassified and
Out-of-Distribution Examples in Neural Networks", 2017), calls nearly all the same, or names
hardly any image of a known class right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_FEWEST_IMAGES = 20  # Images below which nothing is concluded
_LOW_CONFIDENCE = 0.4  # Mean confidence below which the model is unsure of nearly all
# Share of images of unknown class given one answer above which the set is one-sided.
_ONE_ANSWER = 0.6
_LOW_ACCURACY = 0.2  # Share of images of known class named right below which something is wrong
_FEW_CLASSES = 10  # With fewer classes a common one is no sign


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
    if len(answers) < _FEWEST_IMAGES:
        return ()
    found = []
    pairs = list(zip(answers, truths, strict=True))
    known = [answer == truth for answer, truth in pairs if truth is not None]
    unknown = [answer for answer, truth in pairs if truth is None]
    chance = 1 / max(len(labels), 1)
    right = sum(known) / max(len(known), 1)
    least = max(_LOW_ACCURACY, 2 * chance)
    if len(known) >= _FEWEST_IMAGES and right < least and chance < _LOW_ACCURACY:
        found.append(
            f"the float model names only {right:.0%} of the {len(known)} images of known "
            f"class right: labels, preprocessing or images may not be this model's"
        )
    if len(labels) < _FEW_CLASSES:
        return tuple(found)
    mean = sum(confidences) / len(confidences)
    if mean < _LOW_CONFIDENCE:
        found.append(
            f"the float model is unsure of most images (mean confidence {mean:.2f}): they may be "
            f"from another domain than it was trained on; ranges and proof hold for such "
            f"images only"
        )
    for answer, count in Counter(unknown).most_common(1):
        if len(unknown) >= _FEWEST_IMAGES and count > _ONE_ANSWER * len(unknown):
            found.append(
                f"the float model calls {count} of {len(unknown)} images of unknown class "
                f"{labels[answer]!r}: they may be from another domain, or show too little of what "
                f"it knows"
            )
    return tuple(found)
