"""Candidates of the budget search: what was seen of each, and which is the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_fg_calibration.budget.confidence_margin import ConfidenceMargin
from edge_fg_calibration.budget.fidelity import Fidelity


@dataclass(frozen=True)
class Tried:
    """One candidate of a search.

    Parameters
    ----------
    kept
        How many nodes it leaves in float.
    int8_macs
        Share (0..1) of the network's multiply-accumulates in INT8.
    agreement, mean_kl
        On the validation images. Where `images` is not all of them the candidate was dropped
        early, and these are the most and the least that they could still have become.
    images
        Images that it was judged on.
    holds
        Whether it keeps the budget, judged on the validation images: agreement as it is to be
        expected on others, all else as measured.
    margin
        By how many standard errors it is to be expected to keep it on other images (see
        `ConfidenceMargin.margin`); minus infinity where it was dropped.
    with_margin
        Whether it keeps it with all of the margin asked for.
    """

    kept: int
    int8_macs: float
    agreement: float
    mean_kl: float
    images: int
    holds: bool
    margin: float
    with_margin: bool

    @property
    def likely(self) -> bool:
        """Whether it is more likely than not to keep the budget on other images."""
        return self.holds and self.margin >= 0


@dataclass(frozen=True)
class Judged:
    """A candidate with all that is known of it."""

    kept: frozenset[str]
    tried: Tried
    fidelity: Fidelity | None
    expected: float | None


def best_of(known: Sequence[Judged], confidence_margin: ConfidenceMargin) -> Judged | None:
    """Return the candidate to take of those that were tried."""
    with_margin = [one for one in known if one.tried.with_margin]
    if with_margin:
        return max(with_margin, key=lambda one: one.tried.int8_macs)
    likely = [one for one in known if one.tried.likely]
    affordable = [one for one in likely if one.tried.int8_macs >= confidence_margin.least_int8]
    if affordable:
        return max(affordable, key=lambda one: (one.tried.margin, one.tried.int8_macs))
    if likely:
        return max(likely, key=lambda one: one.tried.int8_macs)
    holding = [one for one in known if one.tried.holds]
    if holding:
        return max(holding, key=lambda one: one.tried.margin)
    return max(known, key=lambda one: len(one.kept), default=None)


def describe(
    best: Judged | None, images: int, confidence_margin: ConfidenceMargin, *, stopped: bool
) -> str:
    """Say in one sentence what a search found on so many validation images."""
    early = "the search was stopped: " if stopped else ""
    if best is None:
        return f"{early}nothing is known yet"
    tried = best.tried
    layers = "every layer in INT8"
    if best.kept:
        plural = "" if len(best.kept) == 1 else "s"
        share = f"{100 * tried.int8_macs:.1f} % of MACs in INT8"
        layers = f"{len(best.kept)} layer{plural} left in float ({share})"
    if tried.holds:
        margin = (
            "with a margin"
            if tried.with_margin
            else f"but not with all of the margin that would make other images sure "
            f"({max(tried.margin, 0):.1f} of {confidence_margin.z:.1f} standard errors)"
        )
        return f"{early}with {layers} the budget holds on {images} validation images, {margin}"
    if best.expected is None:
        seen = f"agreement at most {tried.agreement:.4f}, mean KL at least {tried.mean_kl:.5f}"
    else:
        seen = f"expected agreement {best.expected:.4f}, mean KL {tried.mean_kl:.5f}"
    return f"{early}even with {layers} the budget is missed on {images} validation images: {seen}"
