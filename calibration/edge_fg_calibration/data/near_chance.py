"""Whether a model's answers have anything to do with the truth.

Two questions, each at 99 %: could answers that know nothing of the image be right as often, and is
a usable model certainly right more often? Only two times yes is "near chance", so that few images
give no verdict. What answers are worth that know nothing is found by permuting the truths (R. A.
Fisher, "The Design of Experiments", 1935): it allows for how common each class is. Where nearly all
answers are the same, a usable model is measured against these, else against one class in all: a
good model has little to tell apart where nearly all images show one class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_SIGNIFICANCE = 0.01
_USABLE = 1 / 3  # Of the way from chance to always right
_PERMUTATIONS = 999
_SAME_ANSWER = 0.95  # Share of images


def near_chance(
    answers: Sequence[int], truths: Sequence[int | None], classes: int
) -> tuple[int, int] | None:
    """Return how many of how many images are named right where that is near chance, else None.

    Images of unknown class (None) don't count. The same values give the same verdict.
    """
    pairs = [(one, truth) for one, truth in zip(answers, truths, strict=True) if truth is not None]
    if not pairs:
        return None
    given, true = np.array(pairs).T
    images, right = len(pairs), int((given == true).sum())
    chance = 1 / classes
    if len(set(true.tolist())) == 1:
        # No permutation changes anything: every class is as likely.
        as_good = 1 - _at_most(right - 1, images, chance)
    else:
        random = np.random.default_rng(0)
        drawn = [int((given == random.permutation(true)).sum()) for _ in range(_PERMUTATIONS)]
        as_good = (1 + sum(one >= right for one in drawn)) / (1 + _PERMUTATIONS)
        if np.bincount(given).max() >= _SAME_ANSWER * images:
            chance = max(chance, sum(drawn) / len(drawn) / images)
    usable = chance + _USABLE * (1 - chance)
    if as_good > _SIGNIFICANCE and _at_most(right, images, usable) < _SIGNIFICANCE:
        return right, images
    return None


def _at_most(right: int, images: int, probability: float) -> float:
    """Return the binomial probability of at most `right` right answers."""
    if probability >= 1:
        return float(right >= images)
    logs = (math.log(probability), math.log1p(-probability))
    return math.fsum(
        math.exp(
            math.lgamma(images + 1)
            - math.lgamma(k + 1)
            - math.lgamma(images - k + 1)
            + k * logs[0]
            + (images - k) * logs[1]
        )
        for k in range(right + 1)
    )
