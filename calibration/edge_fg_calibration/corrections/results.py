"""What was tried to bring INT8 nearer to float32, as plain values that a report can hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CorrectionTrial:
    """One correction, with what it was judged by.

    Parameters
    ----------
    name
        What was tried.
    kept
        Whether the result has it.
    mean_kl_without, mean_kl
        Mean divergence (nats) from float32 on the validation images, without and with it.
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
