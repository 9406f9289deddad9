"""Telling a camera when its next frame will be wanted, so that it need not decode the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, Final

from edge_fg.pipeline.policy import Latest, Policy, Rate
from edge_fg.sources import Source

_TURNS: Final = 9


class NextFrameHint:
    """Tells live sources when the engine will be free again, from how long its turns took.

    The median of the latest turns counts: one that took long while the machine was busy with
    something else must not let the engine wait. Only those sources are told that have a method
    ``wanted_at`` (see `LiveSource.wanted_at`) and of which the newest frame wins.
    """

    def __init__(self, sources: Sequence[Source], policies: Sequence[Policy]) -> None:
        self._tell: list[Callable[[float], Any] | None] = [
            getattr(source, "wanted_at", None)
            if source.live and isinstance(policy, (Latest, Rate))
            else None
            for source, policy in zip(sources, policies, strict=True)
        ]
        self._took: deque[float] = deque(maxlen=_TURNS)

    def turn_began(self, number: int, started: float) -> None:
        """Say that a turn has started with a frame of source `number`."""
        tell = self._tell[number]
        if tell is not None and len(self._took) == _TURNS:
            tell(started + median(self._took))

    def turn_ended(self, seconds: float) -> None:
        """Say how long the turn took."""
        self._took.append(seconds)
