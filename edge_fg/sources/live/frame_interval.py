"""When the next image comes, so that the one before may be left undecoded."""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

# So many images in a row must have come regularly: half a second at 30 a second.
_WINDOW: Final = 15
# Of cameras with hundreds of images a second it is the waking of threads that varies.
_WAKING_S: Final = 0.02
_MARGIN: Final = 1.25


class Rhythm:
    """How regularly the images of one connection come; for the thread that reads it.

    The usual interval is the median of the latest. An image that comes after twice that time
    breaks the rhythm, and everything is learnt anew: after a stall, and when a camera turns to
    fewer images for the night. So does one that is damaged, for the next may be, too.

    What is promised is not the usual interval but the longest of the window and a quarter more:
    an image that was left out can't be had any more when the one after it comes late.
    """

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=_WINDOW)
        self._decoding: deque[float] = deque(maxlen=_WINDOW)
        self._last: float | None = None

    def came(self, moment: float) -> None:
        """Note that an image came at `moment`, in seconds of the monotonic clock."""
        last, self._last = self._last, moment
        if last is None:
            return
        interval = moment - last
        if len(self._intervals) == _WINDOW and interval > self._latest():
            self._intervals.clear()
        else:
            self._intervals.append(interval)

    def decoded(self, seconds: float) -> None:
        """Note how long an image took to decode."""
        self._decoding.append(seconds)

    def forget(self) -> None:
        """Note that images don't come as they should."""
        self._intervals.clear()
        self._last = None

    def needless(self, wanted: float) -> bool:
        """Return whether the next image will be here, decoded, by the moment `wanted`.

        Then the one that came last need not be decoded by whoever wants one at that moment.
        """
        # The first question is answered at once where nobody has said when.
        if self._last is None or wanted <= self._last or len(self._intervals) < _WINDOW:
            return False
        longest = max(self._intervals)
        if longest > self._latest():
            return False
        ready = self._last + _MARGIN * longest + max(self._decoding, default=0.0)
        return ready <= wanted

    def _latest(self) -> float:
        usual = median(self._intervals)
        return usual + max(usual, _WAKING_S)
