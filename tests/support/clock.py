"""A clock that tests move."""

from __future__ import annotations


class FakeClock:
    """Stands in for `time.monotonic` where the code takes a clock; `now` is in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Stand in for `time.sleep`: the clock moves, and nobody waits."""
        self.now += max(0.0, seconds)
