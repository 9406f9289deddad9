"""Corrections of an INT8 graph: each is tried, and kept only where it pays.

No correction helps every model: equalisation wins most on some networks and loses on others. So
each candidate quantises the network, and its outputs are compared with float32 on validation
images that no statistic was taken from. It is kept if the mean softened divergence falls, and by
more than chance explains (see `edge_fg_calibration.corrections.scoring.Score`); else it is left
out, and the result says so with the figures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx
from numpy.typing import NDArray

from edge_fg.errors import ModelError
from edge_fg.progress import ProgressCallback, no_progress
from edge_fg_calibration.corrections.equalisation_trials import EqualiseGroups
from edge_fg_calibration.corrections.int8_recipe import Int8Recipe
from edge_fg_calibration.corrections.range_choice import (
    Choice,
    changes_by_tensor,
    choose_for_all,
    cost_alone,
    costs_alone,
    propose,
    with_changes,
)
from edge_fg_calibration.corrections.rounding import calibrated_weights
from edge_fg_calibration.corrections.scoring import CorrectionTrial, Score, Scorer
from edge_fg_calibration.corrections.zero_point_shift import (
    ShiftPlace,
    find_padded_shift_places,
    find_shift_places,
)
from edge_fg_calibration.graph.channel_groups import find_channel_groups
from edge_fg_calibration.graph.onnx_graph import Graph
from edge_fg_calibration.statistics.channel_statistics import (
    ChannelRange,
    collect_channel_ranges,
    collect_windows,
)
from edge_fg_calibration.statistics.histogram import Histogram

_LOGGER = logging.getLogger("edge_fg")
_LEAST_SHARE_FOR_A_PAD = 0.1
_IMAGES_FOR_A_RANGE = 24


@dataclass(frozen=True)
class Observations:
    """What corrections are fitted to.

    Parameters
    ----------
    few
        Some calibration images, none of them a validation image; single-image batches.
    everything
        Histograms of the quantised tensors of a model over all images that are counted.
    ranges
        Extremes of channels; see `observe_channels`.
    """

    few: Sequence[NDArray[Any]]
    everything: Callable[[onnx.ModelProto], Mapping[str, Histogram]]
    ranges: Mapping[str, ChannelRange]


def observe_channels(
    recipe: Int8Recipe,
    batches: Iterable[NDArray[Any]],
    input_name: str,
    progress: ProgressCallback = no_progress,
    total: int = 0,
) -> dict[str, ChannelRange]:
    """Return the extremes of each channel of the tensors that equalisation asks about."""
    groups = find_channel_groups(Graph(recipe.model))
    quantised = set(recipe.placement.activations)
    wanted = dict.fromkeys(
        name
        for group in groups
        if quantised.intersection(group.tensors)
        for name in (*group.tensors, *(one for one, _ in group.ceilings))
        if name in quantised or name in dict(group.ceilings)
    )
    if not wanted:
        return {}
    return collect_channel_ranges(
        recipe.model,
        batches,
        list(wanted),
        input_name=input_name,
        progress=progress,
        total=total,
    )


@dataclass
class CorrectionTrials:
    """Tries one correction after the other on top of those that were kept.

    Parameters
    ----------
    choice
        The INT8 graph so far.
    scorer
        Where candidates are tried.
    observed
        What they are fitted to.
    histograms
        Of the recipe's quantised activations.
    """

    choice: Choice
    scorer: Scorer
    observed: Observations
    histograms: Mapping[str, Histogram]
    trials: list[CorrectionTrial] = field(default_factory=list)
    _alone: dict[str, Score] = field(default_factory=dict)

    def run(self) -> Choice:
        """Try all corrections and return the choice with those that pay."""
        recipe = self.choice.recipe
        nodes = [place.node for place in recipe.placement.weights]
        few, name = self.observed.few, self.scorer.validation.input_name
        windows = collect_windows(recipe.model, few, nodes, input_name=name)
        self.choice = replace(self.choice, recipe=replace(recipe, windows=windows))
        self._equalise()
        self._keep("bias correction", replace(self.choice.recipe, correct_bias=True))
        self._shift_relu_outputs()
        self._alone = costs_alone(self.choice.recipe, self.scorer)
        self._shift_padded()
        self._choose_ranges()
        self._round_weights()
        return self.choice

    def _equalise(self) -> None:
        if not self.observed.ranges:
            return
        few = self.observed.few[:: -(-len(self.observed.few) // _IMAGES_FOR_A_RANGE)]
        asked = EqualiseGroups(self.choice.recipe, few, self.observed.ranges, self.scorer)
        groups = asked.run()
        self.trials.extend(asked.trials)
        while groups:
            candidate = asked.evened(groups)
            histograms = self.observed.everything(candidate.model)
            found = choose_for_all(candidate, propose(histograms), self.scorer)
            name = f"cross-layer equalisation of {len(groups)} groups of tensors together"
            if self._keep_choice(name, next(iter(found.values()))):
                self.histograms = histograms
                return
            # Not all that was won alone is won together: go on with what won most.
            groups = groups[: len(groups) // 2]

    # All that follows corrects biases, too: what is shifted, clipped or rounded anew shifts means.

    def _shift_relu_outputs(self) -> None:
        recipe = self.choice.recipe
        places = find_shift_places(Graph(recipe.model), recipe.placement.activations)
        positive = tuple(place for place in places if place.activation is not None)
        if positive:
            candidate = replace(recipe, positive=positive, correct_bias=True)
            proposals = propose(self.histograms, _tensors(positive))
            found = choose_for_all(candidate, proposals, self.scorer)
            self._keep_choice("zero-point shift of ReLU outputs", next(iter(found.values())))

    def _shift_padded(self) -> None:
        """Shift tensors in front of padding too, where few cost most: each needs a Pad."""
        recipe, alone = self.choice.recipe, self._alone
        least = _LEAST_SHARE_FOR_A_PAD * sum(score.loss for score in alone.values())
        for place in find_padded_shift_places(Graph(recipe.model), recipe.placement.activations):
            if alone[place.tensor].loss >= least:
                recipe = self.choice.recipe
                positive = (*recipe.positive, place)
                candidate = replace(recipe, positive=positive, correct_bias=True)
                if self._keep(f"zero-point shift of {place.tensor}, with a Pad", candidate):
                    alone[place.tensor] = cost_alone(candidate, place.tensor, self.scorer)

    def _choose_ranges(self) -> None:
        proposals = propose(self.histograms, _tensors(self.choice.recipe.positive))
        changes = changes_by_tensor(self.choice, proposals, self._alone, self.scorer)
        while changes:
            candidate = with_changes(self.choice, changes, self.scorer)
            if self._keep_choice(f"other range methods for {len(changes)} tensors", candidate):
                return
            # Not all that was won alone is won together: go on with what won most.
            changes = changes[: len(changes) // 2]

    def _round_weights(self) -> None:
        recipe = self.choice.recipe
        for gptq, name in ((False, "least-error weight scales"), (True, "GPTQ-style rounding")):
            weights = calibrated_weights(
                recipe.model, recipe.placement, recipe.windows, recipe.limits, gptq=gptq
            )
            if weights:
                self._keep(name, replace(self.choice.recipe, weights=weights, correct_bias=True))

    def _keep(self, name: str, candidate: Int8Recipe) -> bool:
        try:
            score = self.scorer.score(candidate.make())
        except ModelError as error:
            # A graph that nobody foresaw must cost the correction, not the build.
            _LOGGER.warning("%s can't be applied to this model and is left out: %s", name, error)
            return False
        return self._keep_choice(name, replace(self.choice, recipe=candidate, score=score))

    def _keep_choice(self, name: str, candidate: Choice) -> bool:
        before, score = self.choice.score, candidate.score
        kept = score.beats(before)
        won = 100 * (1 - score.loss / before.loss) if before.loss else 0.0
        verdict = "more than chance" if kept else "not more than chance"
        reason = (
            f"softened divergence {'-' if won >= 0 else '+'}{abs(won):.0f} % on {len(score.kl)} "
            f"validation images, {verdict}"
        )
        self.trials.append(noted(name, before, score, kept, reason))
        if kept:
            self.choice = candidate
        return kept


def noted(name: str, before: Score, score: Score, kept: bool, reason: str) -> CorrectionTrial:
    """Return the record of a correction that was tried."""
    return CorrectionTrial(
        name,
        kept,
        before.mean_kl,
        score.mean_kl,
        before.agreement,
        score.agreement,
        reason,
    )


def _tensors(places: Sequence[ShiftPlace]) -> frozenset[str]:
    return frozenset(place.tensor for place in places)
