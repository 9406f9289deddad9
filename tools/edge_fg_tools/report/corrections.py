"""What the report tells of corrections: changes to INT8 that were tried, and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_fg_calibration.data.validation_split import validation_stride
from edge_fg_tools.report import words

MOST_OPEN = 12
"""Most left-out corrections that the page shows without being asked."""


@dataclass(frozen=True)
class CorrectionFacts:
    """One correction that was tried, with the figures it was judged by.

    Parameters
    ----------
    name
        What was tried.
    kept
        Whether the INT8 graph has it.
    mean_kl_without, mean_kl
        Mean divergence (nats) from FP32 on the validation images, without and with it.
    agreement_without, agreement
        Share (0..1) of them with the same answer, without and with it.
    reason
        Why it was kept or left out.
    """

    name: str
    kept: bool
    mean_kl_without: float
    mean_kl: float
    agreement_without: float
    agreement: float
    reason: str


@dataclass(frozen=True)
class CorrectionView:
    """One line of a table of corrections."""

    name: str
    kl_before: str
    kl_after: str
    agreement_before: str
    agreement_after: str
    reason: str


@dataclass(frozen=True)
class CorrectionsView:
    """The corrections in words and in two tables, each in the order of trying."""

    found: str
    kept: tuple[CorrectionView, ...]
    left_out: tuple[CorrectionView, ...]
    left_out_open: bool


def arrange_corrections(corrections: Sequence[CorrectionFacts], images: int) -> CorrectionsView:
    """Arrange corrections for the page; `images` is the number of calibration images."""
    kept = [one for one in corrections if one.kept]
    left_out = [one for one in corrections if not one.kept]
    return CorrectionsView(
        found=_found(len(corrections), len(kept), images),
        kept=tuple(_line(one) for one in kept),
        left_out=tuple(_line(one) for one in left_out),
        left_out_open=len(left_out) <= MOST_OPEN,
    )


def _found(tried: int, kept: int, images: int) -> str:
    if not tried and validation_stride(images) == 1:
        return (
            f"No correction of INT8 was tried: of {words.counted(images, 'calibration image')} "
            "none can be spared to judge corrections on."
        )
    if not tried:
        return "No correction of INT8 was tried: none applies to this model."
    times = words.counted(tried, "attempt")
    if not kept:
        return f"Of {times} none brought INT8 nearer to FP32 by more than chance: none was kept."
    return f"Of {times} {kept:,} {'was' if kept == 1 else 'were'} kept."


def _line(one: CorrectionFacts) -> CorrectionView:
    return CorrectionView(
        name=one.name,
        kl_before=words.divergence(one.mean_kl_without),
        kl_after=words.divergence(one.mean_kl),
        agreement_before=words.percent(one.agreement_without),
        agreement_after=words.percent(one.agreement),
        reason=one.reason,
    )
