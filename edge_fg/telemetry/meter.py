"""Where the stages of a pipeline write down how long they took."""

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
    """Histograms by the stage's name, written by many threads and read at any moment.

    Parameters
    ----------
    stages
        Names, in the order in which they are shown.
    clock
        Seconds.
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
        """Write down one value of a stage."""
        with self._lock:
            self._stages[stage].add(seconds)

    def answered(self, age: float) -> None:
        """Write down that a frame was answered `age` seconds after its capture."""
        with self._lock:
            self._age.add(age)
            self._recent.append(self._clock())

    def rate(self) -> float:
        """Return the answers a second over the latest ones; it sinks while none comes."""
        with self._lock:
            if len(self._recent) < 2:
                return 0.0
            first, last, count = self._recent[0], self._recent[-1], len(self._recent)
        # The present lies between two answers: only a longer gap than usual tells anything.
        period = (last - first) / (count - 1)
        span = last - first + max(0.0, self._clock() - last - period)
        return (count - 1) / span if span > 0 else 0.0

    def pace(self) -> float:
        """Return the answers a second over the latest ones, their longest silence left out.

        After a camera was lost for an hour it still tells how fast answers come when they come.
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
