"""What follows visits, as the pipeline sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from edge_fg.result import Region, Sighting, VisitEvent
from edge_fg.sources import Frame


class Follower(Protocol):
    """Follows the visits of one source; used from one thread.

    Attributes
    ----------
    number
        Of the source, from 1, set by the pipeline: names of visits begin with it.
    """

    number: int

    def propose(self, frame: Frame, /) -> Sequence[Region]:
        """Return where to look on this frame; nothing where nobody is there."""

    def update(
        self, frame: Frame, regions: Sequence[Region], predictions: Sequence[Any], /
    ) -> tuple[Sequence[Sighting[Any]], Sequence[VisitEvent]]:
        """Return who is on this frame, from what the model says of each region."""

    def finish(self) -> Sequence[VisitEvent]:
        """End the open visits: the source has ended or was lost; frames may still follow."""


FollowerFactory = Callable[[], Follower]
