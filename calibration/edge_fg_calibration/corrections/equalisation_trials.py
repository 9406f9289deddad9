"""Cross-layer equalisation tried on each channel group by itself, and given to those that gain.

One setting for the whole network is bad: what loses most is often a single tensor, and equalising
all others costs more than it wins. But errors of INT8 tensors are small and nearly add up, so
what a group costs can be measured *alone*: its tensors and the weights that read them in INT8,
everything else in float32. Groups that matter are tried with some exponents, the costliest first,
and each keeps the one that lowers its own cost by more than chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from edge_fg_calibration.corrections.results import CorrectionTrial
from edge_fg_calibration.corrections.scoring import Score, Scorer, record
from edge_fg_calibration.graph.channel_groups import ChannelGroup, find_channel_groups
from edge_fg_calibration.graph.onnx_graph import Graph
from edge_fg_calibration.graph.weights import is_depthwise
from edge_fg_calibration.int8.ranges import mse
from edge_fg_calibration.statistics.channel_statistics import ChannelRange
from edge_fg_calibration.statistics.collection import collect_histograms

LEAST_SHARE = 0.02
"""Share of the summed costs below which a group is not tried."""

MOST_GROUPS = 16
"""Most groups that are tried."""

DEPTHWISE_SETTINGS = (Setting(1.0, headroom=1.0), Setting(1.0), Setting(1.0, extremes=False))
"""Where each reader takes the factor into a weight scale of its own."""

MIXING_SETTINGS = (Setting(1.0, extremes=False), Setting(0.5, extremes=False))
"""Where readers mix channels, and pay with more uneven weights."""


@dataclass
class EqualisationTrials:
    """Tries equalisation on the channel groups of one recipe."""

    recipe: Int8Recipe  # The INT8 graph so far, not equalised
    # Calibration images on which an equalised tensor's new range is estimated.
    few: Sequence[NDArray[Any]]
    ranges: Mapping[str, ChannelRange]  # Statistics of each channel; see `collect_channel_ranges`
    scorer: Scorer  # Where groups are tried

    trials: list[CorrectionTrial] = field(default_factory=list)
    _factors: dict[ChannelGroup, NDArray[np.float64]] = field(default_factory=dict)

    @cached_property
    def _graph(self) -> Graph:
        return Graph(self.recipe.model)

    def run(self) -> list[ChannelGroup]:
        """Return the groups that gain by equalisation, largest gains first."""
        read = {place.activation for place in self.recipe.placement.weights}
        before = {
            group: self.scorer.score_alone(self.recipe, group.tensors)
            for group in find_channel_groups(self._graph)
            if read.intersection(group.tensors)
        }
        costs = {group: score.loss for group, score in before.items()}
        tried: set[ChannelGroup] = set()
        while len(tried) < MOST_GROUPS:
            least = LEAST_SHARE * sum(costs.values())
            left = (one for one in costs if one not in tried)
            group = max(left, key=costs.__getitem__, default=None)
            if group is None or costs[group] < least:
                break
            tried.add(group)
            costs[group] = self._try(group, before[group])
        return sorted(self._factors, key=lambda one: costs[one] - before[one].loss)

    def _try(self, group: ChannelGroup, before: Score) -> float:
        """Try the settings on one group; return what it costs then."""
        tried = []
        for setting, factor in self._settings(group):
            score = self.scorer.score_alone(self._changed({group: factor}), group.tensors)
            tried.append((score, setting, factor))
        tried.sort(key=lambda one: one[0].loss)
        gains = bool(tried) and tried[0][0].beats(before)
        for place, (score, setting, _) in enumerate(tried):
            if gains and place == 0:
                why = "alone in INT8 it diverges less, by more than chance"
            elif gains:
                why = "another exponent does better"
            else:
                why = "alone in INT8 it does not diverge less by more than chance"
            why = f"{why} ({len(score.kl)} validation images)"
            kept = gains and place == 0
            name = _name(group, setting)
            self.trials.append(record(name, kept, before, score, why))
        if not gains:
            return before.loss
        self._factors[group] = tried[0][2]
        return tried[0][0].loss

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

    def equalised(self, groups: Sequence[ChannelGroup]) -> Int8Recipe:
        """Return the recipe with some of the groups that gain equalised.

        Ranges of their tensors are estimates from the few images.
        """
        return self._changed({group: self._factors[group] for group in groups})

    def _changed(self, factors: Mapping[ChannelGroup, NDArray[np.float64]]) -> Int8Recipe:
        """Return the recipe with some groups equalised, their ranges chosen again.

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


def _name(group: ChannelGroup, setting: Setting) -> str:
    what = ", extremes" if setting.extremes else ""
    headroom = f", headroom {setting.headroom:g}" if group.clips else ""
    tensor = group.tensors[-1]
    return f"cross-layer equalisation of {tensor}, exponent {setting.exponent:g}{what}{headroom}"
