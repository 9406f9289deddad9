"""Moving range from the channels of an activation into the weights around it.

An INT8 activation has one scale for all channels, a weight one for each output channel. Where
channel c of an activation is multiplied by s_c in the convolution that makes it and divided by
s_c in those that read it, the network computes the same, and a channel that used a small part
of the range uses more of it. A depthwise reader takes 1 / s_c into the scale of its own output
channel; any other reader pays with more uneven weights. After M. Nagel, M. van Baalen,
T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction" (ICCV 2019), but from observed activations, as in G. Xiao et al., "SmoothQuant"
(ICML 2023). Extremes of channels depend on single values; what few values exceed says better
how coarsely a channel is rounded.

One setting for the whole network is bad: what loses most is often a single tensor, and equalising
all others costs more than it wins. But errors of INT8 tensors are small and nearly add up, so
what a group costs can be measured *alone*: its tensors and the weights that read them in INT8,
everything else in float32. Groups that matter are tried with some exponents, the costliest first,
and each keeps the one that lowers its own cost by more than chance.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg_calibration.corrections.int8_recipe import Int8Recipe
from edge_fg_calibration.corrections.results import CorrectionTrial
from edge_fg_calibration.corrections.scoring import Score, Scorer, record
from edge_fg_calibration.graph.channel_groups import ChannelGroup, find_channel_groups
from edge_fg_calibration.graph.editing import with_arrays
from edge_fg_calibration.graph.onnx_graph import Graph
from edge_fg_calibration.graph.weights import from_rows, is_depthwise, over_window, weight_rows
from edge_fg_calibration.int8.ranges import mse
from edge_fg_calibration.statistics.channel_statistics import ChannelRange
from edge_fg_calibration.statistics.collection import collect_histograms

_LEAST_SHARE = 0.02  # Share of the summed costs below which a group is not tried
_MOST_GROUPS = 16  # Most groups that are tried
# How far below the limit of its Clip the observed maximum of a lifted channel stays.
_HEADROOM = 1.3
_LARGEST_FACTOR = 64.0
_SATURATED = 0.999


@dataclass(frozen=True)
class Setting:
    """One way to equalise a group."""

    exponent: float  # How much of the difference between channels is removed, 0 (none) to 1 (all)
    # Whether channels are compared by their extremes, or by what few values exceed
    # (`ChannelRange.usual`).
    extremes: bool = True
    # Behind a Clip no factor lifts the observed maximum times this above the limit, and a channel
    # that reaches the limit is left as it is, so that the Clip can stay.
    headroom: float = _HEADROOM


# Where each reader takes the factor into a weight scale of its own.
_DEPTHWISE_SETTINGS = (Setting(1.0, headroom=1.0), Setting(1.0), Setting(1.0, extremes=False))
# Where readers mix channels, and pay with more uneven weights.
_MIXING_SETTINGS = (Setting(1.0, extremes=False), Setting(0.5, extremes=False))


def channel_factors(
    group: ChannelGroup,
    ranges: Mapping[str, ChannelRange],
    quantised: Collection[str],
    setting: Setting,
) -> NDArray[np.float64] | None:
    """Return the factor of each channel of a group, None where it has no quantised tensor.

    Needs the ranges of the group's quantised tensors and of its `clips`. Factors are above 0,
    shape (channels,). Behind a Clip none is below 1; elsewhere the largest channel keeps its range.
    """
    tensors = [name for name in group.tensors if name in quantised]
    if not tensors:
        return None
    share = np.zeros(group.channels)
    for name in tensors:
        size = ranges[name].magnitude if setting.extremes else ranges[name].usual
        share = np.maximum(share, size / (size.max() or 1.0))
    alive = share > 0
    factors = np.ones(group.channels)
    factors[alive] = np.minimum(share[alive] ** -setting.exponent, _LARGEST_FACTOR)
    for name, limit in group.clips:
        high = np.maximum(ranges[name].high, limit / _LARGEST_FACTOR)
        room = np.where(high >= _SATURATED * limit, 1.0, limit / (setting.headroom * high))
        factors = np.minimum(factors, np.maximum(room, 1.0))
    return factors


def rescaled(
    model: onnx.ModelProto, factors: Mapping[ChannelGroup, NDArray[np.float64]]
) -> onnx.ModelProto:
    """Return a copy in which channel c of each tensor of a group is multiplied by its factor.

    Requires groups of this model. Ensures that outputs are the same except for rounding, as long as
    no Clip of a group acts on other values than before (see `channel_factors`).
    """
    graph = Graph(model)
    arrays: dict[str, NDArray[np.float64]] = {}

    def stored(name: str) -> NDArray[np.float64]:
        return arrays[name] if name in arrays else graph.array(name).astype(np.float64)

    for group, factor in factors.items():
        for key in dict.fromkeys((*group.makers, *group.readers)):
            node = graph.producers[key]
            weight = stored(node.input[1])
            rows = weight_rows(node, weight)
            if key in group.makers:
                rows = rows * factor.reshape(len(rows), -1, 1)
                if len(node.input) > 2 and node.input[2]:
                    arrays[node.input[2]] = stored(node.input[2]) * factor
            if key in group.readers:
                rows = rows * over_window(1 / factor, len(rows), rows.shape[2])[:, None]
            arrays[node.input[1]] = from_rows(node, rows, weight.shape)
    return with_arrays(model, arrays)


@dataclass
class EqualisationTrials:
    """Tries equalisation on the channel groups of one recipe."""

    recipe: Int8Recipe  # The INT8 graph so far, not equalised
    # Calibration images on which an equalised tensor's new range is estimated.
    few: Sequence[NDArray[Any]]
    scorer: Scorer  # Where groups are tried
    trials: list[CorrectionTrial] = field(default_factory=list)
    _factors: dict[ChannelGroup, NDArray[np.float64]] = field(default_factory=dict)

    @cached_property
    def _graph(self) -> Graph:
        return Graph(self.recipe.model)

    @cached_property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """The channel groups that INT8 nodes read."""
        read = {place.activation for place in self.recipe.placement.weights}
        found = find_channel_groups(self._graph)
        return tuple(group for group in found if read.intersection(group.tensors))

    @property
    def observed(self) -> list[str]:
        """The tensors whose channel ranges `run` needs."""
        clipped = [name for group in self.groups for name, _ in group.clips]
        return list(dict.fromkeys([*self._quantised(self.groups), *clipped]))

    def run(self, ranges: Mapping[str, ChannelRange]) -> list[ChannelGroup]:
        """Return the groups that gain by equalisation, largest gains first."""
        before = {
            group: self.scorer.score_alone(self.recipe, group.tensors) for group in self.groups
        }
        costs = {group: score.loss for group, score in before.items()}
        tried: set[ChannelGroup] = set()
        while len(tried) < _MOST_GROUPS:
            least = _LEAST_SHARE * sum(costs.values())
            left = (one for one in costs if one not in tried)
            group = max(left, key=costs.__getitem__, default=None)
            if group is None or costs[group] < least:
                break
            tried.add(group)
            costs[group] = self._try(group, before[group], ranges)
        return sorted(self._factors, key=lambda one: costs[one] - before[one].loss)

    def _try(self, group: ChannelGroup, before: Score, ranges: Mapping[str, ChannelRange]) -> float:
        """Try the settings on one group; return what it costs then."""
        tried = []
        for setting, factor in self._settings(group, ranges):
            score = self.scorer.score_alone(self._changed({group: factor}), group.tensors)
            tried.append((score, setting, factor))
        tried.sort(key=lambda one: one[0].loss)
        cost = before.loss
        why = "alone in INT8 it does not diverge less by more than chance"
        for place, (score, setting, factor) in enumerate(tried):
            kept = place == 0 and score.beats(before)
            if kept:
                self._factors[group], cost = factor, score.loss
                why = "alone in INT8 it diverges less, by more than chance"
            elif group in self._factors:
                why = "another exponent does better"
            reason = f"{why} ({len(score.kl)} validation images)"
            self.trials.append(record(_name(group, setting), kept, before, score, reason))
        return cost

    def _settings(
        self, group: ChannelGroup, ranges: Mapping[str, ChannelRange]
    ) -> Iterator[tuple[Setting, NDArray[np.float64]]]:
        graph = self._graph
        alone = all(is_depthwise(graph, graph.producers[key]) for key in group.readers)
        quantised = self._quantised([group])
        known: list[NDArray[np.float64]] = []
        for setting in _DEPTHWISE_SETTINGS if alone else _MIXING_SETTINGS:
            factor = channel_factors(group, ranges, quantised, setting)
            if factor is None or np.ptp(factor) == 0:
                continue
            if not any(np.array_equal(factor, one) for one in known):
                known.append(factor)
                yield setting, factor

    def _quantised(self, groups: Iterable[ChannelGroup]) -> list[str]:
        """Return the groups' tensors that have an INT8 range."""
        ranged = set(self.recipe.placement.activations)
        return [name for group in groups for name in group.tensors if name in ranged]

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
        input_name = self.scorer.validation.input_name
        seen = collect_histograms(model, self.few, self._quantised(factors), input_name=input_name)
        # Of all methods this one is sound with few values, too.
        limits = {**self.recipe.limits, **{name: mse(one) for name, one in seen.items()}}
        return replace(self.recipe, model=model, limits=limits, windows=windows)


def _name(group: ChannelGroup, setting: Setting) -> str:
    what = ", extremes" if setting.extremes else ""
    headroom = f", headroom {setting.headroom:g}" if group.clips else ""
    tensor = group.tensors[-1]
    return f"cross-layer equalisation of {tensor}, exponent {setting.exponent:g}{what}{headroom}"
