"""How long each stage of a pipeline takes."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from edge_fg.telemetry.histogram import Histogram

_RECENT = 128
_FEW = 16


class Meter:
    """Histograms by the name of the stage; threads may write and read at any time.

    `stages` are in the order in which they are shown; `clock` gives seconds.
    """

    def __init__(
        self, stages: Sequence[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lock = threading.Lock()
        self._stages = {stage: Histogram() for stage in stages}
        self._age = Histogram()
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._clock = clock

    def add(self, stage: str, seconds: float) -> None:
        """Add one value of a stage."""
        with self._lock:
            self._stages[stage].add(seconds)

    def answered(self, age: float) -> None:
        """Count an answer that came `age` seconds after the frame's capture."""
        with self._lock:
            self._age.add(age)
            self._recent.append(self._clock())

    def rate(self) -> float:
        """Return the answers a second over the latest ones; it falls while none comes."""
        with self._lock:
            if len(self._recent) < 2:
                return 0.0
            first, last, count = self._recent[0], self._recent[-1], len(self._recent)
        # Now is between two answers: only a gap that is longer than usual counts.
        period = (last - first) / (count - 1)
        span = last - first + max(0.0, self._clock() - last - period)
        return (count - 1) / span if span > 0 else 0.0

    def pace(self) -> float:
        """Return the answers a second over the latest ones, without the longest gap.

        So a camera that was lost for an hour does not lower it.
        """
        with self._lock:
            recent = list(self._recent)
        if len(recent) < _FEW:
            return self.rate()
        gaps = [after - before for before, after in itertools.pairwise(recent)]
        span = sum(gaps) - max(gaps)
        return (len(gaps) - 1) / span if span > 0 else 0.0

    def copies(self) -> tuple[dict[str, Histogram], Histogram]:
        """Return the stages that were used, and the frames' age at their answer."""
        with self._lock:
            stages = {name: held.copy() for name, held in self._stages.items() if held.count}
            return stages, self._age.copy()
