"""Ranges chosen by what they do to the output, block by block of the network.

One range method for all tensors is a compromise. From the method that serves best as a whole,
each block of consecutive tensors is given each of the next best methods, and a change stays if
the output gets nearer to float32 by more than chance: one round of coordinate descent, with a
number of evaluations that does not grow with the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edge_fg_calibration.bench import Bench, Score
from edge_fg_calibration.histogram import Histogram
from edge_fg_calibration.ranges import METHODS, percentile
from edge_fg_calibration.recipe import Recipe

BLOCKS = 6
"""Blocks of tensors that may have methods of their own."""

ALTERNATIVES = 2
"""Next best methods that each block tries."""

ALL_METHODS: Mapping[str, Callable[[Histogram], float]] = {
    **METHODS,
    "percentile 99.9": partial(percentile, percent=99.9),
    "percentile 99.999": partial(percentile, percent=99.999),
}
"""The four methods, and two other percentiles."""


@dataclass(frozen=True)
class Choice:
    """Ranges and where they come from.

    Parameters
    ----------
    recipe
        The recipe with these ranges.
    score
        How near it is to float32 on the trial pictures.
    method
        The method that serves best as a whole.
    methods
        The method of each tensor.
    """

    recipe: Recipe
    score: Score
    method: str
    methods: Mapping[str, str]


def propose(histograms: Mapping[str, Histogram]) -> dict[str, dict[str, float]]:
    """Return the range of each tensor by each method: ``[method][tensor]``."""
    return {
        method: {name: choose(one) for name, one in histograms.items()}
        for method, choose in ALL_METHODS.items()
    }


def choose_for_all(
    recipe: Recipe, proposals: Mapping[str, Mapping[str, float]], bench: Bench
) -> dict[str, Choice]:
    """Try each method on all tensors; the best comes first."""
    found = []
    for method, limits in proposals.items():
        candidate = replace(recipe, limits=limits)
        score = bench.score(candidate.make())
        found.append(Choice(candidate, score, method, dict.fromkeys(limits, method)))
    found.sort(key=lambda one: one.score.mean_kl)
    return {one.method: one for one in found}


def choose_by_block(
    choices: Mapping[str, Choice],
    proposals: Mapping[str, Mapping[str, float]],
    bench: Bench,
) -> Choice:
    """Start from the first of `choices`, and let blocks change to the next best methods."""
    best, *others = choices.values()
    tensors = np.array(best.recipe.placement.activations)
    for block in np.array_split(tensors, min(BLOCKS, len(tensors))):
        for other in others[:ALTERNATIVES]:
            changed = {str(name): proposals[other.method][str(name)] for name in block}
            limits = {**best.recipe.limits, **changed}
            candidate = replace(best.recipe, limits=limits)
            score = bench.score(candidate.make())
            if score.beats(best.score):
                methods = {**best.methods, **dict.fromkeys(changed, other.method)}
                best = Choice(candidate, score, best.method, methods)
    return best
