"""Corrections of an INT8 graph: each is tried, and kept only where it helps.

No correction helps every model: equalisation wins most on some networks and loses on others. So
each candidate quantises the network, and its outputs are compared with float32 on validation
images that no statistic was taken from. It is kept if the mean softened divergence falls, and by
more than chance explains (see `edge_fg_calibration.corrections.scoring.Score`); else it is left
out, and the result says so with the figures. A correction that fails costs the correction, never
the build: the result says so with the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import onnx
from numpy.typing import NDArray

from edge_fg.progress import ProgressCallback
from edge_fg_calibration.corrections.equalisation import EqualisationTrials
from edge_fg_calibration.corrections.int8_recipe import Int8Recipe
from edge_fg_calibration.corrections.range_choice import (
    RangeChoice,
    changes_by_tensor,
    choose_for_all,
    with_changes,
)
from edge_fg_calibration.corrections.results import CorrectionTrial
from edge_fg_calibration.corrections.rounding import calibrated_weights
from edge_fg_calibration.corrections.scoring import Score, Scorer, record
from edge_fg_calibration.corrections.zero_point_shift import (
    find_padded_shift_places,
    find_shift_places,
)
from edge_fg_calibration.data.validation_split import CalibrationImages
from edge_fg_calibration.graph.onnx_graph import Graph
from edge_fg_calibration.statistics.channel_statistics import (
    collect_channel_ranges,
    collect_windows,
)
from edge_fg_calibration.statistics.histogram import Histogram

_Result = TypeVar("_Result")

_LOGGER = logging.getLogger("edge_fg")
_FEW_IMAGES = 96
_LEAST_SHARE_FOR_A_PAD = 0.1
_IMAGES_FOR_A_RANGE = 24


@dataclass
class CorrectionTrials:
    """Tries one correction after the other on top of those that were kept."""

    # The range methods as compared last, the best first.
    compared: Sequence[RangeChoice]
    histograms: Mapping[str, Histogram]  # Of its quantised activations
    scorer: Scorer  # Scores the candidates
    images: CalibrationImages  # What they are fitted to
    # Counts the quantised activations of a model over all images for statistics.
    count: Callable[[onnx.ModelProto], Mapping[str, Histogram]]
    progress: ProgressCallback  # Told the images done, stage ``observe channels``
    trials: list[CorrectionTrial] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # Names each correction that failed, and why
    choice: RangeChoice = field(init=False)  # The INT8 graph so far

    def __post_init__(self) -> None:
        self.choice = self.compared[0]

    def run(self) -> None:
        """Try all corrections; `choice` and `histograms` become those with what helps."""
        few = self.images.some(_FEW_IMAGES)
        self._attempt("statistics of what layers read", partial(self._observe_windows, few))
        self._attempt("cross-layer equalisation", partial(self._equalise, few))
        # All that follows corrects biases, too: what is shifted, clipped or rounded otherwise
        # moves means.
        self._keep("bias correction", replace(self.choice.recipe, correct_bias=True))
        self._attempt("zero-point shift of ReLU outputs", self._shift_relu_outputs)
        alone = self._attempt("scores of single tensors", self._score_alone)
        if alone is not None:
            self._attempt("zero-point shift with a Pad", partial(self._shift_padded, alone))
            self._attempt("other range methods", partial(self._choose_ranges, alone))
        for gptq, name in ((False, "least-error weight scales"), (True, "GPTQ-style rounding")):
            self._attempt(name, partial(self._round_weights, name, gptq=gptq))

    def _attempt(self, name: str, attempt: Callable[[], _Result]) -> _Result | None:
        """Return what an attempt gives; None where it fails, which only costs the correction.

        The float model runs and INT8 without the correction does too, so the build can go on.
        """
        try:
            return attempt()
        except Exception as error:
            _LOGGER.debug("%s failed", name, exc_info=True)
            what = " ".join(str(error).split())
            self.warnings.append(
                f"{name} can't be applied to this model and is left out: "
                f"{type(error).__name__}: {what}"
            )
            return None

    def _observe_windows(self, few: Sequence[NDArray[Any]]) -> None:
        recipe = self.choice.recipe
        nodes = [place.node for place in recipe.placement.weights]
        windows = collect_windows(
            recipe.model, few, nodes, input_name=self.scorer.validation.input_name
        )
        self.choice = replace(self.choice, recipe=replace(recipe, windows=windows))

    def _score_alone(self) -> dict[str, Score]:
        recipe = self.choice.recipe
        names = recipe.placement.activations
        return {name: self.scorer.score_alone(recipe, {name}) for name in names}

    def _equalise(self, few: Sequence[NDArray[Any]]) -> None:
        fewer = few[:: -(-len(few) // _IMAGES_FOR_A_RANGE)]
        equalisation = EqualisationTrials(self.choice.recipe, fewer, self.scorer)
        if not equalisation.groups:
            return
        ranges = collect_channel_ranges(
            self.choice.recipe.model,
            self.images.statistics(),
            equalisation.observed,
            input_name=self.scorer.validation.input_name,
            progress=self.progress,
            total=self.images.counted,
        )
        groups = equalisation.run(ranges)
        self.trials.extend(equalisation.trials)
        while groups:
            candidate = equalisation.equalised(groups)
            histograms = self.count(candidate.model)
            compared = choose_for_all(candidate, histograms, self.scorer)
            name = f"cross-layer equalisation of {len(groups)} groups of tensors together"
            if self._keep_choice(name, compared[0]):
                self.histograms, self.compared = histograms, compared
                return
            # Not all that was won alone is won together: go on with what won most.
            groups = groups[: len(groups) // 2]

    def _shift_relu_outputs(self) -> None:
        recipe = self.choice.recipe
        positive = find_shift_places(Graph(recipe.model), recipe.placement.activations)
        if positive:
            candidate = replace(recipe, positive=positive, correct_bias=True)
            compared = choose_for_all(candidate, self.histograms, self.scorer)
            if self._keep_choice("zero-point shift of ReLU outputs", compared[0]):
                self.compared = compared

    def _shift_padded(self, alone: dict[str, Score]) -> None:
        """Shift tensors in front of padding too, where few cost most: each needs a Pad."""
        recipe = self.choice.recipe
        least = _LEAST_SHARE_FOR_A_PAD * sum(score.loss for score in alone.values())
        for place in find_padded_shift_places(Graph(recipe.model), recipe.placement.activations):
            if alone[place.tensor].loss >= least:
                recipe = self.choice.recipe
                positive = (*recipe.positive, place)
                candidate = replace(recipe, positive=positive, correct_bias=True)
                if self._keep(f"zero-point shift of {place.tensor}, with a Pad", candidate):
                    alone[place.tensor] = self.scorer.score_alone(candidate, {place.tensor})

    def _choose_ranges(self, alone: Mapping[str, Score]) -> None:
        changes = changes_by_tensor(self.choice, self.histograms, alone, self.scorer)
        while changes:
            candidate = with_changes(self.choice, changes, self.scorer)
            if self._keep_choice(f"other range methods for {len(changes)} tensors", candidate):
                return
            # Not all that was won alone is won together: go on with what won most.
            changes = changes[: len(changes) // 2]

    def _round_weights(self, name: str, *, gptq: bool) -> None:
        recipe = self.choice.recipe
        weights = calibrated_weights(
            recipe.model, recipe.placement, recipe.windows, recipe.limits, gptq=gptq
        )
        if weights:
            self._keep(name, replace(recipe, weights=weights, correct_bias=True))

    def _keep(self, name: str, candidate: Int8Recipe) -> bool:
        score = self._attempt(name, lambda: self.scorer.score(candidate.make()))
        if score is None:
            return False
        return self._keep_choice(name, replace(self.choice, recipe=candidate, score=score))

    def _keep_choice(self, name: str, candidate: RangeChoice) -> bool:
        before, score = self.choice.score, candidate.score
        kept = score.beats(before)
        won = 100 * (1 - score.loss / before.loss) if before.loss else 0.0
        verdict = "more than chance" if kept else "not more than chance"
        reason = (
            f"softened divergence {'-' if won >= 0 else '+'}{abs(won):.0f} % on {len(score.kl)} "
            f"validation images, {verdict}"
        )
        self.trials.append(record(name, kept, before, score, reason))
        if kept:
            self.choice = candidate
        return kept
