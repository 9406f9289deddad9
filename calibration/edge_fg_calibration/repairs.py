"""Repairs of an INT8 graph: each is tried, and kept only where it pays.

No repair helps every model: evening out channels wins most on some networks and loses on others.
So each candidate quantises the whole network, and its outputs are compared with float32 on trial
pictures that no statistic was taken from. It is kept if the mean divergence falls, and by more
than chance explains (one standard error of the paired difference of logarithms); else it is left
out, and the result says so with the figures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.errors import ModelError
from edge_fg.progress import ProgressCallback, no_progress
from edge_fg_calibration.bench import Bench, Repair, Score
from edge_fg_calibration.centre import find_centre_places
from edge_fg_calibration.channels import ChannelGroup, find_channel_groups
from edge_fg_calibration.collect import collect_histograms
from edge_fg_calibration.equalise import Exponents, channel_factors, rescaled
from edge_fg_calibration.graph import Graph
from edge_fg_calibration.histogram import Histogram
from edge_fg_calibration.moments import ChannelRange, collect_channel_ranges, collect_windows
from edge_fg_calibration.recipe import Recipe
from edge_fg_calibration.weights import calibrated_weights

_LOGGER = logging.getLogger("edge_fg")

EXPONENTS = (Exponents(0.5, 1.0), Exponents(0.75, 1.0), Exponents(0.5, 0.5))
"""Candidates of equalisation."""

HEADROOMS = (1.3, 2.0, 3.0, float("inf"))
"""Headrooms below a Clip (see `channel_factors`), tried until the float graph answers as before.

With the last, channels behind a Clip stay as they are, and the float graph is exact.
"""

FLOAT_AGREEMENT = 0.995
"""Least share of trial pictures on which the equalised *float* graph must answer as before."""


@dataclass(frozen=True)
class Observations:
    """What repairs are fitted to.

    Parameters
    ----------
    few
        Some calibration pictures, none of them a trial picture; single-picture batches.
    everything
        Histograms of tensors of a model over all pictures that are counted.
    choose
        The range method in use.
    ranges
        Extremes of channels; see `observe_channels`.
    """

    few: Sequence[NDArray[Any]]
    everything: Callable[[onnx.ModelProto], Mapping[str, Histogram]]
    choose: Callable[[Histogram], float]
    ranges: Mapping[str, ChannelRange]

    def quick_limits(self, recipe: Recipe, input_name: str) -> dict[str, float]:
        """Return ranges for a candidate, from a few pictures."""
        found = collect_histograms(
            recipe.model, self.few, recipe.placement.activations, input_name=input_name
        )
        return {name: self.choose(one) for name, one in found.items()}


def observe_channels(
    recipe: Recipe,
    batches: Any,
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
class Repairing:
    """Tries one repair after the other on top of those that were kept.

    Parameters
    ----------
    recipe
        The INT8 graph so far.
    bench
        Where candidates are tried.
    observed
        What they are fitted to.
    histograms
        Of the recipe's quantised activations.
    """

    recipe: Recipe
    bench: Bench
    observed: Observations
    histograms: Mapping[str, Histogram]
    repairs: list[Repair] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.best = self.bench.score(self.recipe.make())

    def run(self) -> Recipe:
        """Try all repairs and return the recipe with those that pay."""
        nodes = [place.node for place in self.recipe.placement.weights]
        few, name = self.observed.few, self.bench.trial.input_name
        windows = collect_windows(self.recipe.model, few, nodes, input_name=name)
        self.recipe = replace(self.recipe, windows=windows)
        self.equalise()
        self._keep("bias correction", replace(self.recipe, correct_bias=True))
        self._round_weights()
        self._centre_positive()
        return self.recipe

    def equalise(self) -> None:
        """Try equalisation with several exponents, and keep at most one."""
        graph = Graph(self.recipe.model)
        groups = find_channel_groups(graph)
        if not any(set(group.tensors) & set(self.observed.ranges) for group in groups):
            return
        tried: list[tuple[Score, Recipe, str]] = []
        for exponents in EXPONENTS:
            found = self._faithful(graph, groups, exponents)
            if found is not None:
                name, candidate = found
                limits = self.observed.quick_limits(candidate, self.bench.trial.input_name)
                candidate = replace(candidate, limits=limits)
                tried.append((self.bench.score(candidate.make()), candidate, name))
        if not tried:
            return
        tried.sort(key=lambda one: one[0].mean_kl)
        for score, _, name in tried[1:]:
            self.note(name, score, False, "other exponents do better")
        score, candidate, name = tried[0]
        if score.beats(self.best):
            histograms = self.observed.everything(candidate.model)
            limits = {one: self.observed.choose(found) for one, found in histograms.items()}
            if self._keep(name, replace(candidate, limits=limits)):
                self.histograms = histograms
        else:
            self._keep(name, candidate)

    def _faithful(
        self, graph: Graph, groups: Sequence[ChannelGroup], exponents: Exponents
    ) -> tuple[str, Recipe] | None:
        """Equalise with the least headroom with which the float graph answers as before."""
        for headroom in HEADROOMS:
            name = (
                f"equalisation, exponents {exponents.pointwise:g} and {exponents.depthwise:g}, "
                f"headroom {headroom:g}"
            )
            candidate = self._equalised(graph, groups, exponents, headroom)
            in_float = self.bench.score(candidate.model)
            if in_float.agreement >= FLOAT_AGREEMENT:
                return name, candidate
            self.note(name, in_float, False, "even in float it changes answers")
        return None

    def _equalised(
        self,
        graph: Graph,
        groups: Sequence[ChannelGroup],
        exponents: Exponents,
        headroom: float,
    ) -> Recipe:
        ranges, quantised = self.observed.ranges, set(self.recipe.placement.activations)
        factors: dict[ChannelGroup, NDArray[np.float64]] = {}
        windows = dict(self.recipe.windows)
        for group in groups:
            factor = channel_factors(graph, group, ranges, quantised, exponents, headroom=headroom)
            if factor is None:
                continue
            factors[group] = factor
            for key in group.readers:
                if key in windows:
                    windows[key] = windows[key].scaled(factor)
        return replace(self.recipe, model=rescaled(self.recipe.model, factors), windows=windows)

    def _round_weights(self) -> None:
        recipe = self.recipe
        for in_turn, name in ((False, "least-error weight scales"), (True, "rounding in turn")):
            weights = calibrated_weights(
                recipe.model, recipe.placement, recipe.windows, recipe.limits, in_turn=in_turn
            )
            if weights:
                self._keep(name, replace(self.recipe, weights=weights))

    def _centre_positive(self) -> None:
        graph = Graph(self.recipe.model)
        places = find_centre_places(graph, self.recipe.placement.activations)
        positive = tuple(place for place in places if place.activation is not None)
        if positive:
            self._keep("centred ReLU outputs", replace(self.recipe, positive=positive))

    def _keep(self, name: str, candidate: Recipe) -> bool:
        try:
            score = self.bench.score(candidate.make())
        except ModelError as error:
            # A graph that nobody foresaw must cost the repair, not the build.
            _LOGGER.warning("%s can't be applied to this model and is left out: %s", name, error)
            return False
        kept = score.beats(self.best)
        why = "it lowers" if kept else "it does not lower"
        reason = f"{why} the mean divergence on {len(score.kl)} trial pictures by more than chance"
        self.note(name, score, kept, reason)
        if kept:
            self.recipe, self.best = candidate, score
        return kept

    def note_ranges(self, score: Score) -> None:
        """Record what came of choosing the ranges again, block by block."""
        kept = score.mean_kl < self.best.mean_kl
        why = "some blocks do better" if kept else "no block does better by more than chance"
        self.note("ranges block by block", score, kept, f"{why} with another range method")

    def note(self, name: str, score: Score, kept: bool, reason: str) -> None:
        """Record a repair that was tried on top of the best so far."""
        before = self.best
        self.repairs.append(
            Repair(
                name,
                kept,
                before.mean_kl,
                score.mean_kl,
                before.agreement,
                score.agreement,
                reason,
            )
        )
