"""How near variations of an INT8 graph are to float32, and what was tried to bring them nearer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.progress import ProgressCallback
from edge_fg_calibration.budget.evaluation import Evaluator, ValidationSplit
from edge_fg_calibration.budget.fidelity import divergences, log_probabilities
from edge_fg_calibration.corrections.int8_recipe import Int8Recipe
from edge_fg_calibration.corrections.results import CorrectionTrial

# Validation images on which one tensor or group is tried alone: its divergence varies less.
_ALONE_IMAGES = 32

LEAST_TEMPERATURE = 4.0
"""By which log-odds are divided, at least, before outputs are compared.

On a clear image two or three classes have all the probability, so its divergence depends on the
errors of these few. Softened, all classes count: measured on a bird classifier with 965 classes,
the same change stands out twice as clearly from chance, with the same relative size. The
temperature is that of distillation: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in
a Neural Network" (2015).
"""

_TEMPERATURE_PER_DEVIATION = 2.0
_NO_DIVERGENCE = 1e-9


@dataclass(frozen=True)
class Score:
    """How near a graph is to float32 on the validation images."""

    kl: NDArray[np.float64]  # Divergence (nats) of each image
    # The same with both sides at the temperature of `Scorer`; candidates are compared by it.
    softened: NDArray[np.float64]
    agreement: float  # Share (0..1) of the same answers

    @property
    def mean_kl(self) -> float:
        """Mean divergence."""
        return float(self.kl.mean())

    @property
    def loss(self) -> float:
        """Mean softened divergence."""
        return float(self.softened.mean())

    def beats(self, other: Score) -> bool:
        """Say whether the mean softened divergence is lower, and by more than chance.

        Chance is one standard error of the paired difference of logarithms: divergences have a
        long tail, and of their plain differences a few images would be everything.
        """
        if self.loss >= other.loss:
            return False
        gain = np.log(other.softened + _NO_DIVERGENCE) - np.log(self.softened + _NO_DIVERGENCE)
        error = float(gain.std()) / max(np.sqrt(gain.size - 1), 1.0)
        return bool(float(gain.mean()) > error)


@dataclass
class Scorer:
    """Runs candidate graphs on the validation images and scores them."""

    validation: ValidationSplit  # Images that no statistic was taken from
    progress: ProgressCallback  # Told each evaluation, stage ``try corrections``
    expected: int  # Evaluations expected in all, for `progress`
    done: int = 0

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self.validation)

    @cached_property
    def temperature(self) -> float:
        """Twice the root mean square of the centred log-odds, or `LEAST_TEMPERATURE`.

        Where log-odds are large, a graph that shrinks them all would seem better than one that
        keeps them: it is less sure of what it gets wrong. Divided by more than their deviation,
        the divergence becomes the squared error of the log-odds.
        """
        log_odds = log_probabilities(self.validation.reference, self.validation.kind)
        deviation = float(np.sqrt(log_odds.var(axis=1).mean()))
        return max(LEAST_TEMPERATURE, _TEMPERATURE_PER_DEVIATION * deviation)

    def score(self, model: onnx.ModelProto, images: int | None = None) -> Score:
        """Run a graph on about so many validation images, all by default; no graph twice."""
        kind = self.validation.kind
        both = self._evaluator.outputs_of_both(model, images)
        self.done += 1
        self.progress("try corrections", self.done, max(self.expected, self.done))
        first, second = (one.argmax(axis=1) for one in both)
        soft = [log_probabilities(one, kind) / self.temperature for one in both]
        return Score(
            kl=divergences(*both, kind),
            softened=divergences(soft[0], soft[1], "logits"),
            agreement=float((first == second).mean()),
        )

    def score_alone(self, recipe: Int8Recipe, tensors: Collection[str]) -> Score:
        """Score a graph in which only the nodes that read `tensors` are INT8."""
        readers = {one.node for one in recipe.placement.weights if one.activation in tensors}
        return self.score(recipe.make(recipe.placement.nodes - readers), _ALONE_IMAGES)


def record(name: str, kept: bool, without: Score, score: Score, reason: str) -> CorrectionTrial:
    """Return the record of a correction that was tried."""
    return CorrectionTrial(
        name, kept, without.mean_kl, score.mean_kl, without.agreement, score.agreement, reason
    )
