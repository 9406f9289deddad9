"""Where variations of an INT8 graph are tried, and what came out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.progress import ProgressCallback, no_progress
from edge_fg_calibration.fidelity import image_records
from edge_fg_calibration.sensitivity import Evaluator, Trial

_NO_DIVERGENCE = 1e-6


@dataclass(frozen=True)
class Repair:
    """One repair, with what it was judged by.

    Parameters
    ----------
    name
        What was tried.
    kept
        Whether the result has it.
    mean_kl_without, mean_kl
        Mean divergence (nats) from float32 on the trial pictures, without and with it.
    agreement_without, agreement
        Share (0..1) of them with the same answer.
    reason
        Why it was kept or not, one sentence.
    """

    name: str
    kept: bool
    mean_kl_without: float
    mean_kl: float
    agreement_without: float
    agreement: float
    reason: str


@dataclass(frozen=True)
class Score:
    """How near a graph is to float32 on the trial pictures.

    Parameters
    ----------
    kl
        Divergence (nats) of each picture.
    agreement
        Share (0..1) of the same answers.
    """

    kl: NDArray[np.float64]
    agreement: float

    @property
    def mean_kl(self) -> float:
        """Mean divergence."""
        return float(self.kl.mean())

    def beats(self, other: Score) -> bool:
        """Say whether the mean divergence is lower, and by more than chance.

        Chance is one standard error of the paired difference of logarithms: divergences have a
        long tail, and of their plain differences a few pictures would be everything.
        """
        if self.mean_kl >= other.mean_kl:
            return False
        gain = np.log(other.kl + _NO_DIVERGENCE) - np.log(self.kl + _NO_DIVERGENCE)
        error = float(gain.std()) / max(np.sqrt(gain.size - 1), 1.0)
        return bool(float(gain.mean()) > error)


@dataclass
class Bench:
    """Where candidates are tried.

    Parameters
    ----------
    trial
        Pictures that no statistic was taken from.
    progress
        Told each evaluation, stage ``try repairs``.
    expected
        Evaluations expected in all, for `progress`.
    """

    trial: Trial
    progress: ProgressCallback = no_progress
    expected: int = 0
    done: int = 0
    _evaluator: Evaluator = field(init=False)

    def __post_init__(self) -> None:
        self._evaluator = Evaluator(self.trial)

    def score(self, model: onnx.ModelProto) -> Score:
        """Run a graph on the trial pictures; one that was run before costs nothing."""
        everything = range(len(self.trial.batches))
        parts = [output for _, output in self._evaluator.outputs(model, everything)]
        records = image_records(
            self.trial.reference,
            np.concatenate(parts),
            kind=self.trial.kind,
            indices=self.trial.indices,
        )
        self.done += 1
        self.progress("try repairs", self.done, max(self.expected, self.done))
        same = [one.top1 == one.reference_top1 for one in records]
        return Score(np.array([one.kl for one in records]), float(np.mean(same)))
