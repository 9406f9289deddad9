"""How long to wait before a connection is tried again."""

from __future__ import annotations

import random


class Backoff:
    """Exponentially growing waits with full jitter.

    The n-th wait in a row is drawn evenly from 0 to the lesser of ``longest`` and
    ``first * 2**n`` seconds, so that a hundred cameras don't all come back at one moment.

    Parameters
    ----------
    first, longest
        Seconds, above 0.
    seed
        Makes the waits repeatable; None doesn't.

    References
    ----------
    M. Brooker, *Exponential Backoff and Jitter*, AWS Architecture Blog, 2015.
    """

    def __init__(self, first: float, longest: float, seed: int | None = None) -> None:
        self._first = first
        self._longest = longest
        self._random = random.Random(seed)
        self._ceiling = first

    @property
    def ceiling(self) -> float:
        """Longest that the next wait can be, in seconds."""
        return self._ceiling

    def next(self) -> float:
        """Draw the next wait, in seconds."""
        ceiling = self._ceiling
        self._ceiling = min(2.0 * ceiling, self._longest)
        return self._random.uniform(0.0, ceiling)

    def reset(self) -> None:
        """Begin again with the shortest waits."""
        self._ceiling = self._first
