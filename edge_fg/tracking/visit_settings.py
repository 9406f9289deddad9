"""How visits are followed."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_fg.errors import UsageError
from edge_fg.tracking.fusion import SmoothingSettings
from edge_fg.tracking.motion import MotionSettings
from edge_fg.tracking.tracker import TrackerSettings


@dataclass(frozen=True)
class VisitSettings:
    """How visits are followed.

    Parameters
    ----------
    padding
        Side of the square that the model sees, in longer sides of what was found.
    full_size
        Longer side in pixels from which a larger region says no more.
    ask_s
        Seconds between two questions to the model about one individual.
    recheck_s
        The same once its answer is settled: nothing new is to be expected.
    settled
        Confidence, 0..1, from which an answer is settled.
    settled_evidence
        Independent frames that a settled answer rests on.
    most_regions
        Regions of one frame that the model is asked about; the others have their turn next.
    shortest_s
        Seconds for which something must be seen to be a visit.
    undecided_s
        Seconds after which a visit is told of without a species.
    final
        Confidence, 0..1, from which the likeliest species is told of a visit that ends undecided:
        no frame will come that says more, and above 0.5 it is likelier right than wrong.
    absence_s
        Seconds of absence after which a visit has ended.
    return_reach
        How far from where it was seen last, in sizes, an individual may appear again.
    nothing
        Labels by which a model says that nothing is there.
    motion, tracker, smoothing
        Of the parts.
    """

    padding: float = 1.6
    full_size: float = 96.0
    ask_s: float = 0.1
    recheck_s: float = 1.0
    settled: float = 0.9
    settled_evidence: float = 2.0
    most_regions: int = 8
    shortest_s: float = 0.6
    undecided_s: float = 3.0
    final: float = 0.5
    absence_s: float = 2.0
    return_reach: float = 2.5
    nothing: frozenset[str] = frozenset({"background"})
    motion: MotionSettings = field(default_factory=MotionSettings)
    tracker: TrackerSettings = field(default_factory=TrackerSettings)
    smoothing: SmoothingSettings = field(default_factory=SmoothingSettings)

    def __post_init__(self) -> None:
        if self.padding < 1.0 or self.full_size <= 0.0 or self.most_regions < 1:
            raise UsageError("padding and most_regions must be at least 1, full_size more than 0")
        for name in ("settled", "final"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name} must be in 0..1, not {getattr(self, name)}")
        for name in ("ask_s", "recheck_s", "shortest_s", "undecided_s", "absence_s"):
            if not getattr(self, name) >= 0.0:
                raise UsageError(f"{name} must not be negative, but is {getattr(self, name)}")
