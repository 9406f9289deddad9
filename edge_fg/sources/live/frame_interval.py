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


class FrameInterval:
    """How regularly the images of one connection come; for the thread that reads it.

    The usual interval is the median of the latest. An image that comes after twice that time
    begins a new measurement: after a stall, and when a camera changes to fewer images for the
    night. So does one that is damaged, for the next may be, too.

    The next image is expected not after the usual interval but after the longest of the window
    and a quarter more: an image that was left out is lost when the one after it comes late.
    """

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=_WINDOW)
        self._decoding: deque[float] = deque(maxlen=_WINDOW)
        self._last: float | None = None

    def arrived(self, moment: float) -> None:
        """Note that an image came at `moment`, in seconds of the monotonic clock."""
        last, self._last = self._last, moment
        if last is None:
            return
        interval = moment - last
        if len(self._intervals) == _WINDOW and interval > self._longest_regular():
            self._intervals.clear()
        else:
            self._intervals.append(interval)

    def decoded(self, seconds: float) -> None:
        """Note how long an image took to decode."""
        self._decoding.append(seconds)

    def reset(self) -> None:
        """Begin a new measurement: images don't come as they should."""
        self._intervals.clear()
        self._last = None

    def next_in_time(self, wanted: float) -> bool:
        """Return whether the next image will be here, decoded, by the moment `wanted`.

        Then the image that came last need not be decoded.
        """
        # The first test gives the answer at once where no moment was named.
        if self._last is None or wanted <= self._last or len(self._intervals) < _WINDOW:
            return False
        longest = max(self._intervals)
        if longest > self._longest_regular():
            return False
        ready = self._last + _MARGIN * longest + max(self._decoding, default=0.0)
        return ready <= wanted

    def _longest_regular(self) -> float:
        usual = median(self._intervals)
        return usual + max(usual, _WAKING_S)
