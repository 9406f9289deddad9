"""How many frames to give to the model at once: decided by the measured cost."""

from __future__ import annotations

import itertools
from collections import deque
from statistics import median
from typing import Final

# Batches that are tried: beyond the largest, the wait outweighs the gain.
_SIZES: Final = (1, 2, 4, 8, 16)
# A larger batch must cost at most this share per frame of what the smaller one costs.
_GAIN: Final = 0.9
_MEASURED: Final = 5
_ENOUGH: Final = 3
_REMEASURE_EVERY: Final = 500


class BatchSizer:
    """Chooses batch sizes from the time that each of them took so far.

    The rule: sizes are powers of two. A size is tried a few times when as many frames wait and
    half of it paid; the first time doesn't count (a new shape warms up). Then the largest size
    is taken up to which each doubling paid, that is, saved 10 % a frame. From time to time the
    times of one size are forgotten and measured again. On ONNX Runtime's CPU provider a batch
    rarely pays, and the size stays 1; on GPUs it does pay.

    With `fixed`, this size is always taken where as many frames wait.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._seconds: dict[int, deque[float]] = {}
        self._calls = 0

    @property
    def current(self) -> int:
        """The size that would be taken if many frames waited, trials aside."""
        if self._fixed is not None:
            return self._fixed
        paying = itertools.takewhile(self._pays, _SIZES[1:])
        return max(paying, default=1)

    def choose(self, waiting: int) -> int:
        """Return how many of `waiting` frames to take at once, at least 1."""
        if self._fixed is not None:
            return max(1, min(self._fixed, waiting))
        best = 1
        for size in _SIZES:
            if size > waiting:
                break
            if not self._is_known(size):
                return size
            if size > 1 and not self._pays(size):
                break
            best = size
        return best

    def add(self, size: int, seconds: float) -> None:
        """Add a measurement: a batch of `size` took `seconds`."""
        if self._fixed is not None or size not in _SIZES:
            return
        if size not in self._seconds:
            # The first time is not counted.
            self._seconds[size] = deque(maxlen=_MEASURED)
            return
        self._seconds[size].append(seconds)
        self._calls += 1
        if self._calls % _REMEASURE_EVERY == 0:
            known = [known for known in _SIZES if self._seconds.get(known)]
            self._seconds[known[self._calls // _REMEASURE_EVERY % len(known)]].clear()

    def split(self, count: int) -> list[int]:
        """Return the sizes of the batches for `count` frames or regions."""
        sizes = []
        while count > 0:
            sizes.append(self.choose(count))
            count -= sizes[-1]
        return sizes

    def _is_known(self, size: int) -> bool:
        return len(self._seconds.get(size, ())) >= _ENOUGH

    def _each(self, size: int) -> float:
        return median(self._seconds[size]) / size

    def _pays(self, size: int) -> bool:
        known = self._is_known(size) and self._is_known(size // 2)
        return known and self._each(size) <= _GAIN * self._each(size // 2)
