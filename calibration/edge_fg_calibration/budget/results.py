"""What the budget search found, as plain values: a report can hold them as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge_fg_calibration.budget.fidelity import Fidelity


@dataclass(frozen=True)
class Candidate:
    """One INT8 graph that the search tried.

    Parameters
    ----------
    kept_float
        Keys of the nodes that it leaves in float.
    int8_macs
        Share (0..1) of the network's multiply-accumulates in INT8.
    agreement, mean_kl
        On the validation images. Where `images` is not all of them the candidate was dropped
        early, and these are the most and the least that they could still have become.
    images
        Images that it was judged on.
    holds
        Whether it keeps the budget, judged on the validation images: agreement as expected on
        others, all else as measured.
    margin
        By how many standard errors it should keep it on other images (see
        `ConfidenceMargin.of`); minus infinity where it was dropped.
    with_margin
        Whether it keeps it with all of the margin asked for.
    fidelity
        On all validation images; None where it was dropped.
    expected_agreement
        Agreement (0..1) to expect on other images; None where it was dropped.
    """

    kept_float: frozenset[str]
    int8_macs: float
    agreement: float
    mean_kl: float
    images: int
    holds: bool
    margin: float
    with_margin: bool
    fidelity: Fidelity | None = None
    expected_agreement: float | None = None

    @property
    def kept(self) -> int:
        """How many nodes it leaves in float."""
        return len(self.kept_float)

    @property
    def layers(self) -> str:
        """What it leaves in float, in words."""
        if not self.kept:
            return "every layer in INT8"
        plural = "" if self.kept == 1 else "s"
        share = f"{100 * self.int8_macs:.1f} % of MACs in INT8"
        return f"{self.kept} layer{plural} left in float ({share})"

    @property
    def complete(self) -> bool:
        """Whether it was judged on all validation images."""
        return self.fidelity is not None

    @property
    def likely(self) -> bool:
        """Whether it is more likely than not to keep the budget on other images."""
        return self.holds and self.margin >= 0


@dataclass(frozen=True)
class SearchedLayer:
    """What one group of layers costs in INT8, and where it ended.

    Parameters
    ----------
    nodes
        Keys of the layers, sorted; more than one where they change precision together.
    macs
        Share (0..1) of the network's multiply-accumulates.
    mean_kl
        Mean divergence (nats) from float32 when this group alone is INT8.
    kept_float
        Whether the budget left it in float.
    """

    nodes: tuple[str, ...]
    macs: float
    mean_kl: float
    kept_float: bool


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Parameters
    ----------
    reason
        What was found, in one sentence.
    tried
        Every candidate, in the order of trying.
    taken
        Position of the best in `tried`; None where the search was stopped before the first.
    layers
        What each group of layers costs, the most first; empty where that was not measured.
    validation_images
        Images that candidates were tried on.
    stopped
        Whether the search was ended early.
    images_run, images_cached
        Images that candidates were run on, and those whose answers were known already.
    """

    reason: str
    tried: tuple[Candidate, ...]
    taken: int | None
    layers: tuple[SearchedLayer, ...]
    validation_images: int
    stopped: bool
    images_run: int
    images_cached: int

    @property
    def best(self) -> Candidate | None:
        """The candidate to build; None where the search was stopped before the first."""
        return None if self.taken is None else self.tried[self.taken]

    @property
    def kept_float(self) -> frozenset[str]:
        """Keys of the nodes to leave in float."""
        return self.best.kept_float if self.best else frozenset()

    @property
    def met(self) -> bool:
        """Whether the budget should hold, judged on the validation images."""
        return self.best is not None and self.best.holds

    @property
    def with_margin(self) -> bool:
        """Whether it holds with the margin."""
        return self.best is not None and self.best.with_margin

    @property
    def expected_agreement(self) -> float | None:
        """Agreement (0..1) to expect on other images; None where it is not known."""
        return self.best.expected_agreement if self.best else None

    def to_dict(self) -> dict[str, Any]:
        """Return what a report tells, as JSON-able values."""
        return {
            "reason": self.reason,
            "trial_images": self.validation_images,
            "met": self.met,
            "assured": self.with_margin,
            "stopped": self.stopped,
            "expected_agreement": self.expected_agreement,
            "layers": [asdict(layer) for layer in self.layers],
            "tried": [
                {
                    "kept": one.kept,
                    "int8_macs": one.int8_macs,
                    "agreement": one.agreement,
                    "mean_kl": one.mean_kl,
                    "complete": one.complete,
                    "holds": one.holds,
                    "assured": one.with_margin,
                    "taken": number == self.taken,
                }
                for number, one in enumerate(self.tried)
            ],
        }


def best_of(tried: Sequence[Candidate], least_int8: float) -> Candidate | None:
    """Return the candidate to take; INT8 work down to a share of `least_int8` buys margin."""
    with_margin = [one for one in tried if one.with_margin]
    if with_margin:
        return max(with_margin, key=lambda one: one.int8_macs)
    likely = [one for one in tried if one.likely]
    affordable = [one for one in likely if one.int8_macs >= least_int8]
    if affordable:
        # Where no limit has a margin, the one that is nearest to float32.
        return max(affordable, key=lambda one: (one.margin, -one.mean_kl, one.int8_macs))
    if likely:
        return max(likely, key=lambda one: one.int8_macs)
    holding = [one for one in tried if one.holds]
    if holding:
        return max(holding, key=lambda one: one.margin)
    return max(tried, key=lambda one: one.kept, default=None)


def describe(best: Candidate | None, images: int, z: float, *, stopped: bool) -> str:
    """Say in one sentence what a search found; the margin asked for is `z` standard errors."""
    early = "the search was stopped: " if stopped else ""
    if best is None:
        return f"{early}nothing is known yet"
    layers = best.layers
    if best.holds:
        margin = (
            "with a margin"
            if best.with_margin
            else "the surest that was found"
            if math.isinf(z)
            else f"but without the full margin that other images need "
            f"({max(best.margin, 0):.1f} of {z:.1f} standard errors)"
        )
        return f"{early}with {layers} the budget holds on {images} validation images, {margin}"
    if best.expected_agreement is None:
        seen = f"agreement at most {best.agreement:.4f}, mean KL at least {best.mean_kl:.5f}"
    else:
        seen = f"expected agreement {best.expected_agreement:.4f}, mean KL {best.mean_kl:.5f}"
    return f"{early}even with {layers} the budget is missed on {images} validation images: {seen}"
