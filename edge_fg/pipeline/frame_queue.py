"""Frames that wait for their answer, and which of them give way."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from edge_fg.pipeline.policy import DEFAULT_MAX_AGE, Latest, Policy, Queue, Rate, makes_wait
from edge_fg.sources import Frame

# Enough to bridge a slow frame (a key frame, a page of disk); more only costs memory.
_READ_AHEAD = 4

# Drops by reason, in the order in which they are shown.
OVERTAKEN, FULL, STALE, RATE, STOPPED = "overtaken", "full", "stale", "rate", "stopped"
UNUSABLE = "unusable"


class FrameQueue:
    """The frames of one source that wait, by its policy.

    Counts hold at any moment under the lock: `frames` are those that were taken, that wait, and
    that were dropped.

    Parameters
    ----------
    policy
        What gives way.
    live
        Whether the source's frames come at their own pace.
    lock
        Guards this queue; queues whose consumer waits for all of them share one.
    changed
        Condition of `lock` that is notified when there is something to take, or the end.
    clock
        Seconds, the same clock as `Frame.captured`.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        live: bool,
        lock: threading.RLock | None = None,
        changed: threading.Condition | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy = policy
        self.frames = 0
        self.dropped: dict[str, int] = {}
        self.finished = False
        self.interrupted = False
        self.error: BaseException | None = None
        self.last: Frame | None = None
        self._live = live
        self._clock = clock
        self._lock = lock or threading.RLock()
        self._changed = changed or threading.Condition(self._lock)
        self._space = threading.Condition(self._lock)
        self._waiting: deque[Frame] = deque()
        self._closed = False
        self._newest_wins = isinstance(policy, Latest) or (isinstance(policy, Rate) and live)
        self._capacity = _capacity(policy, newest_wins=self._newest_wins)
        self._max_age = _max_age(policy, newest_wins=self._newest_wins)
        self._blocking = makes_wait(policy, live)
        self._period = 1 / policy.fps if isinstance(policy, Rate) else None
        self._due: float | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, frame: Frame, *, wait: bool = True) -> bool:
        """Hand over a frame, which may drop one or wait; False if the queue doesn't take it.

        It takes none once it is closed, nor, with `wait` False, where it would have to wait.
        """
        with self._lock:
            full = len(self._waiting) >= self._capacity
            if self._closed or (full and self._blocking and not wait):
                return False
            self.frames += 1
            if self._period is not None and not self._is_due(frame, self._period):
                self._drop(STOPPED if self._closed else RATE)
                return not self._closed
            while len(self._waiting) >= self._capacity and not self._closed:
                if self._blocking:
                    self._space.wait()
                elif isinstance(self.policy, Queue) and self.policy.drop == "newest":
                    self._drop(FULL)
                    return True
                else:
                    self._waiting.popleft()
                    self._drop(OVERTAKEN if self._newest_wins else FULL)
            if self.is_closed():
                self._drop(STOPPED)
                return False
            self._waiting.append(frame)
            self._changed.notify()
            return True

    def take(self) -> Frame | None:
        """Return the frame that is next, or None where none waits; stale ones are dropped."""
        with self._lock:
            frame = None
            while self._waiting and frame is None:
                frame = self._waiting.popleft()
                if self._max_age is not None and self._clock() - frame.captured > self._max_age:
                    self._drop(STALE)
                    frame = None
            if frame is not None:
                self.last = frame
            self._space.notify()
            return frame

    def wait(self) -> Frame | None:
        """Return the frame that is next, waiting for it; None at the end of the source.

        An error of the source is raised here, once all frames that came before it are taken.
        """
        with self._lock:
            while (frame := self.take()) is None and not (self.finished or self._closed):
                self._changed.wait()
            if frame is None and self.error is not None:
                error, self.error = self.error, None
                raise error
            return frame

    def finish(self, error: BaseException | None = None) -> None:
        """Say that no frame will come any more, and why if that is a failure."""
        with self._lock:
            if not self._closed:
                self.error = error
            self.finished = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """End the source because the frame taken can't be answered: drop those that wait."""
        with self._lock:
            self._drop(UNUSABLE)
            self.close()
            self.finished = True
            self.error = error

    def leave_out(self) -> None:
        """Count a frame that was taken as one that won't be answered after all."""
        with self._lock:
            self._drop(STOPPED)

    def interrupt(self) -> None:
        """Say that the camera is lost for now: what was seen before it stands alone."""
        with self._lock:
            self.interrupted = True
            self._changed.notify_all()

    def close(self) -> None:
        """Take no frame any more and drop those that wait."""
        with self._lock:
            self._closed = True
            if self._waiting:
                self._drop(STOPPED, len(self._waiting))
                self._waiting.clear()
            self._space.notify_all()
            self._changed.notify_all()

    def refuse(self) -> None:
        """Take no frame any more, but keep those that wait."""
        with self._lock:
            self._closed = True
            self._space.notify_all()
            self._changed.notify_all()

    def is_closed(self) -> bool:
        """Return whether frames are refused."""
        return self._closed

    def _drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def _is_due(self, frame: Frame, period: float) -> bool:
        """Return whether the rate allows this frame; waits where none may be lost."""
        at = frame.captured if self._live else frame.position
        if at is None:
            self._hold_back(period)
            return not self._closed
        # Half a microsecond: clocks of files are rounded.
        if self._due is not None and at < self._due - 5e-7:
            return False
        # Counted on from when it was due, so that a frame that came a little late doesn't lower
        # the rate; after a gap, from now.
        on_time = self._due is not None and at < self._due + period
        self._due = (self._due if on_time and self._due is not None else at) + period
        return True

    def _hold_back(self, period: float) -> None:
        now = self._clock()
        while self._due is not None and now < self._due and not self._closed:
            self._space.wait(self._due - now)
            now = self._clock()
        on_time = self._due is not None and now < self._due + period
        self._due = (self._due if on_time and self._due is not None else now) + period


def _capacity(policy: Policy, *, newest_wins: bool) -> int:
    if isinstance(policy, Queue):
        return policy.size
    return 1 if newest_wins else _READ_AHEAD


def _max_age(policy: Policy, *, newest_wins: bool) -> float | None:
    if isinstance(policy, Latest):
        return policy.max_age
    return DEFAULT_MAX_AGE if newest_wins else None
