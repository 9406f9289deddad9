"""Ranges chosen by what they do to the output, tensor by tensor.

One range method for all tensors is a compromise. Starting from the method that is best as a whole,
each tensor that matters gets the method that costs least when it alone (with the weights that read
it) is INT8: errors of tensors are small and nearly add up, so each can be judged by itself. The
result must do better as a whole, or it is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from edge_fg_calibration.corrections.int8_recipe import Int8Recipe
from edge_fg_calibration.corrections.scoring import Score, Scorer
from edge_fg_calibration.int8.ranges import LEVELS, METHODS, mse, percentile
from edge_fg_calibration.statistics.histogram import Histogram

_LEAST_SHARE = 0.02  # Share of the summed costs below which a tensor is not tried
_MOST_TENSORS = 12  # Most tensors that are tried
_ALIKE = 0.01

ALL_METHODS: Mapping[str, Callable[[Histogram], float]] = {
    **METHODS,
    "percentile 99.9": partial(percentile, percent=99.9),
    "percentile 99.999": partial(percentile, percent=99.999),
}
"""The four methods, and two other percentiles."""


@dataclass(frozen=True)
class RangeChoice:
    """Ranges and where they come from."""

    recipe: Int8Recipe  # The recipe with these ranges
    score: Score  # How near it is to float32 on the validation images
    method: str  # The method that is best as a whole
    methods: Mapping[str, str]  # The method of each tensor


def propose(recipe: Int8Recipe, histograms: Mapping[str, Histogram]) -> dict[str, dict[str, float]]:
    """Return the range of each tensor by each method: ``[method][tensor]``.

    Tensors that the recipe shifts hold nothing below 0 and will be moved to lie around it, which
    gives them twice the levels.
    """
    positive = {place.tensor for place in recipe.positive}
    return {
        method: {
            name: mse(one, levels=2 * LEVELS) if method == "mse" and name in positive else how(one)
            for name, one in histograms.items()
        }
        for method, how in ALL_METHODS.items()
    }


def choose_for_all(
    recipe: Int8Recipe, histograms: Mapping[str, Histogram], scorer: Scorer
) -> list[RangeChoice]:
    """Try each method on all tensors; the best comes first."""
    found = []
    for method, limits in propose(recipe, histograms).items():
        candidate = replace(recipe, limits=limits)
        score = scorer.score(candidate.make())
        found.append(RangeChoice(candidate, score, method, dict.fromkeys(limits, method)))
    return sorted(found, key=lambda one: one.score.loss)


@dataclass(frozen=True)
class Change:
    """Another range for one tensor."""

    tensor: str
    method: str  # Which the range is by
    limit: float  # The range
    gain: float  # Softened divergence (nats) won where the tensor alone is INT8


def changes_by_tensor(
    choice: RangeChoice,
    histograms: Mapping[str, Histogram],
    alone: Mapping[str, Score],
    scorer: Scorer,
) -> list[Change]:
    """Return the method that costs least for each tensor that matters, largest gains first.

    Left out are tensors that lose nothing, beyond chance, by the method they have, which costs
    what `alone` says.
    """
    recipe = choice.recipe
    proposals = propose(recipe, histograms)
    least = _LEAST_SHARE * sum(score.loss for score in alone.values())
    costliest = sorted(alone, key=lambda name: -alone[name].loss)[:_MOST_TENSORS]
    found = []
    for name in (one for one in costliest if alone[one].loss >= least):
        changes = []
        for method, limit in _distinct(recipe.limits[name], proposals, name):
            candidate = replace(recipe, limits={**recipe.limits, name: limit})
            score = scorer.score_alone(candidate, {name})
            if score.beats(alone[name]):
                changes.append(Change(name, method, limit, alone[name].loss - score.loss))
        if changes:
            found.append(max(changes, key=lambda one: one.gain))
    return sorted(found, key=lambda one: -one.gain)


def with_changes(choice: RangeChoice, changes: Sequence[Change], scorer: Scorer) -> RangeChoice:
    """Return a choice with other ranges for some tensors."""
    limits = {**choice.recipe.limits, **{one.tensor: one.limit for one in changes}}
    methods = {**choice.methods, **{one.tensor: one.method for one in changes}}
    changed = replace(choice.recipe, limits=limits)
    return RangeChoice(changed, scorer.score(changed.make()), choice.method, methods)


def _distinct(
    present: float, proposals: Mapping[str, Mapping[str, float]], tensor: str
) -> list[tuple[str, float]]:
    """Return the proposals for a tensor that differ from the present range and each other."""
    known = [present]
    found = []
    for method, limits in proposals.items():
        limit = limits[tensor]
        if all(abs(limit / one - 1) > _ALIKE for one in known):
            known.append(limit)
            found.append((method, limit))
    return found
