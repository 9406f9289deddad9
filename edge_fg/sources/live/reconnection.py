"""When a lost connection is tried again, and when it is given up."""

from __future__ import annotations

import random

from edge_fg.errors import SourceError
from edge_fg.sources.options import SourceOptions

# A connection that stood so long is a good one: the waits begin small again.
_PROVEN_S = 5.0


class Backoff:
    """Exponentially growing waits with full jitter, in seconds.

    The n-th wait in a row is drawn evenly from 0 to the lesser of ``longest`` and ``first * 2**n``
    seconds, so that a hundred cameras don't all come back at one moment (M. Brooker, *Exponential
    Backoff and Jitter*, AWS Architecture Blog, 2015). A seed makes the waits repeatable.
    """

    def __init__(self, first: float, longest: float, seed: int | None = None) -> None:
        self._first = first
        self._longest = longest
        self._random = random.Random(seed)
        self.ceiling = first  # of the next wait

    def next(self) -> float:
        """Draw the next wait, in seconds."""
        ceiling = self.ceiling
        self.ceiling = min(2.0 * ceiling, self._longest)
        return self._random.uniform(0.0, ceiling)

    def reset(self) -> None:
        """Begin again with the shortest waits."""
        self.ceiling = self._first


class Reconnection:
    """What became of the connections of one source so far, and so whether there is another try."""

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self._backoff = Backoff(*options.backoff, options.seed)
        self._was_live = False
        self.connected = False  # at least once
        self.opened_at = 0.0  # when the latest connection was, by the monotonic clock
        self.failures = 0  # tries in a row that gave no image
        self.without_image = True  # since the latest loss

    def opened(self, now: float) -> None:
        """Note that a connection stands."""
        self.connected, self.opened_at = True, now

    def image_came(self) -> bool:
        """Note an image; whether it is the first one after a loss."""
        back = self.without_image and self._was_live
        self.without_image, self._was_live = False, True
        self.failures = 0
        return back

    def lost(self, now: float) -> float | None:
        """Note a loss; seconds to wait for the next try, or None to give up."""
        if not self.without_image and now - self.opened_at >= _PROVEN_S:
            self._backoff.reset()
        limit = self._options.reconnect
        if not self._may_retry or (limit is not None and self.failures >= limit):
            return None
        self.failures += 1
        self.without_image = True
        return self._backoff.next()

    def given_up(self, name: str, seen: int, error: SourceError) -> SourceError:
        """Return the error that the source `name` ends with, after so many frames."""
        if not self._may_retry:
            return error
        tries = f", also after {self.failures} more tries" if self.failures else ""
        return SourceError(f"{name} gave no more frames after {seen}{tries}: {error}")

    @property
    def _may_retry(self) -> bool:
        return self.connected or self._options.wait
