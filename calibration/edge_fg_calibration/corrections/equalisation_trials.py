"""Equalisation asked of each channel group by itself, and given only to those that gain.

One setting for the whole network is a bad bargain: what loses most is often a single tensor, and
evening out the channels of all others costs more than it wins. But errors of INT8 tensors are
small and nearly add up, so what a group costs can be measured *alone*: its tensors and the weights
that read them in INT8, everything else in float32. Groups that matter are asked with some
exponents, dearest first, and each keeps the one that lowers its own cost by more than chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fg_calibration.corrections.equalisation import (
    Setting,
    channel_factors,
    rescaled,
)
from edge_fg_calibration.corrections.int8_recipe import Int8Recipe
from edge_fg_calibration.corrections.scoring import ALONE_IMAGES, CorrectionTrial, Score, Scorer
from edge_fg_calibration.graph.channel_groups import ChannelGroup, find_channel_groups
from edge_fg_calibration.graph.onnx_graph import Graph
from edge_fg_calibration.graph.weights import is_depthwise
from edge_fg_calibration.int8.ranges import mse
from edge_fg_calibration.statistics.channel_statistics import ChannelRange
from edge_fg_calibration.statistics.collection import collect_histograms

LEAST_SHARE = 0.02
"""Share of the summed costs below which a group is not worth asking."""

MOST_GROUPS = 16
"""Most groups that are asked."""


DEPTHWISE_SETTINGS = (Setting(1.0, headroom=1.0), Setting(1.0), Setting(1.0, extremes=False))
"""Where each reader takes the factor into a weight scale of its own."""

MIXING_SETTINGS = (Setting(1.0, extremes=False), Setting(0.5, extremes=False))
"""Where readers mix channels, and pay with more uneven weights."""


@dataclass
class EqualiseGroups:
    """Asks the channel groups of one recipe.

    Parameters
    ----------
    recipe
        The INT8 graph so far, not equalised.
    few
        Calibration images on which an evened tensor's new range is estimated.
    ranges
        Extremes of each channel; see `observe_channels`.
    scorer
        Where groups are tried.
    """

    recipe: Int8Recipe
    few: Sequence[NDArray[Any]]
    ranges: Mapping[str, ChannelRange]
    scorer: Scorer

    def __post_init__(self) -> None:
        self.factors: dict[ChannelGroup, NDArray[np.float64]] = {}
        self.gains: dict[ChannelGroup, float] = {}
        self.trials: list[CorrectionTrial] = []

    @cached_property
    def _graph(self) -> Graph:
        return Graph(self.recipe.model)

    def run(self) -> list[ChannelGroup]:
        """Return the groups that gain by being evened out, largest gains first."""
        costs = {
            group: self._alone(self.recipe, group)
            for group in find_channel_groups(self._graph)
            if self._nodes(group)
        }
        now = {group: score.loss for group, score in costs.items()}
        asked: set[ChannelGroup] = set()
        while len(asked) < MOST_GROUPS:
            least = LEAST_SHARE * sum(now.values())
            group = max((one for one in now if one not in asked), key=now.__getitem__, default=None)
            if group is None or now[group] < least:
                break
            asked.add(group)
            now[group] = self._ask(group, costs[group])
        return sorted(self.gains, key=self.gains.__getitem__, reverse=True)

    def _ask(self, group: ChannelGroup, before: Score) -> float:
        """Try the settings on one group; return what it costs then."""
        tried = []
        for setting, factor in self._settings(group):
            score = self._alone(self._changed({group: factor}), group)
            tried.append((score, setting, factor))
        tried.sort(key=lambda one: one[0].loss)
        kept = bool(tried) and tried[0][0].beats(before)
        for place, (score, setting, factor) in enumerate(tried):
            taken = kept and place == 0
            self.trials.append(_noted(group, setting, before, score, taken, other=kept))
            if taken:
                self.factors[group] = factor
                self.gains[group] = before.loss - score.loss
        return tried[0][0].loss if kept else before.loss

    def _settings(self, group: ChannelGroup) -> Iterator[tuple[Setting, NDArray[np.float64]]]:
        graph = self._graph
        alone = all(is_depthwise(graph, graph.producers[key]) for key in group.readers)
        known: list[NDArray[np.float64]] = []
        for setting in DEPTHWISE_SETTINGS if alone else MIXING_SETTINGS:
            quantised = self.recipe.placement.activations
            factor = channel_factors(group, self.ranges, quantised, setting)
            if factor is None or np.ptp(factor) == 0:
                continue
            if any(np.array_equal(factor, one) for one in known):
                continue
            known.append(factor)
            yield setting, factor

    def _nodes(self, group: ChannelGroup) -> frozenset[str]:
        """Return the INT8 nodes that read the group."""
        tensors = set(group.tensors)
        return frozenset(
            place.node for place in self.recipe.placement.weights if place.activation in tensors
        )

    def _alone(self, recipe: Int8Recipe, group: ChannelGroup) -> Score:
        others = recipe.placement.nodes - self._nodes(group)
        return self.scorer.score(recipe.make(others), ALONE_IMAGES)

    def evened(self, groups: Sequence[ChannelGroup]) -> Int8Recipe:
        """Return the recipe with some of the groups that gain evened out.

        Ranges of the evened tensors are estimates from the few images.
        """
        return self._changed({group: self.factors[group] for group in groups})

    def _changed(self, factors: Mapping[ChannelGroup, NDArray[np.float64]]) -> Int8Recipe:
        """Return the recipe with some groups evened out, their ranges chosen anew.

        Clipping that paid while one channel reached far above all others would now cut them all.
        """
        windows = dict(self.recipe.windows)
        for group, factor in factors.items():
            for key in group.readers:
                if key in windows:
                    windows[key] = windows[key].scaled(factor)
        model = rescaled(self.recipe.model, factors)
        quantised = set(self.recipe.placement.activations)
        seen = collect_histograms(
            model,
            self.few,
            [name for group in factors for name in group.tensors if name in quantised],
            input_name=self.scorer.validation.input_name,
        )
        # Of all methods this one is sound with few values, too.
        limits = {**self.recipe.limits, **{name: mse(one) for name, one in seen.items()}}
        return replace(self.recipe, model=model, limits=limits, windows=windows)


def _noted(
    group: ChannelGroup, setting: Setting, before: Score, score: Score, taken: bool, *, other: bool
) -> CorrectionTrial:
    tensor = group.tensors[-1]
    what = ", extremes" if setting.extremes else ""
    headroom = f", headroom {setting.headroom:g}" if group.ceilings else ""
    if taken:
        why = "alone in INT8 it diverges less, by more than chance"
    elif other:
        why = "another exponent does better"
    else:
        why = "alone in INT8 it does not diverge less by more than chance"
    return CorrectionTrial(
        name=f"cross-layer equalisation of {tensor}, exponent {setting.exponent:g}{what}{headroom}",
        kept=taken,
        mean_kl_without=before.mean_kl,
        mean_kl=score.mean_kl,
        agreement_without=before.agreement,
        agreement=score.agreement,
        reason=f"{why} ({len(score.kl)} validation images)",
    )
