"""What the report holds of the search for layers to leave in float, as plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerFacts:
    """What one group of layers costs in INT8.

    Parameters
    ----------
    nodes
        Names of the layers; more than one where they change precision together.
    macs
        Share (0..1) of the network's multiply-accumulates.
    mean_kl
        Mean divergence (nats) from FP32 when this group alone is INT8.
    kept_float
        Whether the budget left it in float.
    """

    nodes: tuple[str, ...]
    macs: float
    mean_kl: float
    kept_float: bool


@dataclass(frozen=True)
class TriedFacts:
    """One candidate of the search.

    Parameters
    ----------
    kept
        Number of layers left in float.
    int8_macs
        Share (0..1) of multiply-accumulates in INT8.
    agreement, mean_kl
        On the validation images; bounds where `complete` is false: at most and at least.
    complete
        False where the candidate was dropped before it had seen all validation images.
    holds, with_margin
        Whether it keeps the budget on them, and with the margin.
    taken
        Whether it is the one that was built.
    """

    kept: int
    int8_macs: float
    agreement: float
    mean_kl: float
    complete: bool
    holds: bool
    with_margin: bool
    taken: bool


@dataclass(frozen=True)
class SearchFacts:
    """How the accuracy budget was sought.

    Parameters
    ----------
    reason
        What was found, in one sentence.
    validation_images
        Images that candidates were tried on, all of them calibrated on.
    met, with_margin
        Whether the budget holds on them, and with the margin.
    stopped
        Whether the search was ended early.
    expected_agreement
        Agreement (0..1) to expect on other images; None where unknown.
    layers
        What each group of layers costs, the dearest first; empty where nothing was measured.
    tried
        Every candidate, in the order of trying.
    """

    reason: str
    validation_images: int
    met: bool
    with_margin: bool
    stopped: bool
    expected_agreement: float | None
    layers: tuple[LayerFacts, ...]
    tried: tuple[TriedFacts, ...]
