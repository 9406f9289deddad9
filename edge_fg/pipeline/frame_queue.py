"""Frames that wait for their answer, and which of them give way."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
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
    that were dropped. Queues whose consumer waits for all of them share one `lock`; `changed`, its
    condition, is notified when there is something to take, or the end. `clock` gives the seconds
    of `Frame.captured`.
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
        self.frames = self.answered = 0
        self.dropped: Counter[str] = Counter()
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
        self._capacity = 1 if self._newest_wins else _READ_AHEAD
        if isinstance(policy, Queue):
            self._capacity = policy.size
        self._max_age = DEFAULT_MAX_AGE if self._newest_wins else math.inf
        if isinstance(policy, Latest):
            self._max_age = policy.max_age
        self._blocking = makes_wait(policy, live)
        self._period = 1 / policy.fps if isinstance(policy, Rate) else None
        self._due = -math.inf  # when the rate allows the next frame
        self._file: str | None = None  # whose clock that is

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
                self.dropped[STOPPED if self._closed else RATE] += 1
                return not self._closed
            while len(self._waiting) >= self._capacity and not self._closed:
                if self._blocking:
                    self._space.wait()
                elif isinstance(self.policy, Queue) and self.policy.drop == "newest":
                    self.dropped[FULL] += 1
                    return True
                else:
                    self._waiting.popleft()
                    self.dropped[OVERTAKEN if self._newest_wins else FULL] += 1
            if self.is_closed():
                self.dropped[STOPPED] += 1
                return False
            self._waiting.append(frame)
            self._changed.notify()
            return True

    def take(self) -> Frame | None:
        """Return the frame that is next, or None where none waits; stale ones are dropped."""
        with self._lock:
            self._space.notify()
            while self._waiting:
                frame = self._waiting.popleft()
                if self._clock() - frame.captured <= self._max_age:
                    self.last = frame
                    return frame
                self.dropped[STALE] += 1
            return None

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
            self.dropped[UNUSABLE] += 1
            self.close()
            self.finished = True
            self.error = error

    def leave_out(self) -> None:
        """Count a frame that was taken as one that won't be answered after all."""
        with self._lock:
            self.dropped[STOPPED] += 1

    def interrupt(self) -> None:
        """Say that the camera is lost for now: what was seen before it stands alone."""
        with self._lock:
            self.interrupted = True
            self._changed.notify_all()

    def close(self) -> None:
        """Take no frame any more and drop those that wait."""
        with self._lock:
            if self._waiting:
                self.dropped[STOPPED] += len(self._waiting)
                self._waiting.clear()
            self.refuse()

    def refuse(self) -> None:
        """Take no frame any more, but keep those that wait."""
        with self._lock:
            self._closed = True
            self._space.notify_all()
            self._changed.notify_all()

    def is_closed(self) -> bool:
        """Return whether frames are refused."""
        return self._closed

    def _is_due(self, frame: Frame, period: float) -> bool:
        """Return whether the rate allows this frame; waits where none may be lost."""
        at = frame.captured if self._live else frame.position
        if not self._live and at is not None and frame.source != self._file:
            self._file, self._due = frame.source, -math.inf  # the next video's clock begins anew
        if at is None:
            at = self._clock()
            while at < self._due and not self._closed:
                self._space.wait(self._due - at)
                at = self._clock()
        elif at < self._due - 5e-7:  # half a microsecond: clocks of files are rounded
            return False
        # Counted on from when it was due, so that a frame that came a little late doesn't lower
        # the rate; after a gap, from now.
        self._due = (self._due if at < self._due + period else at) + period
        return not self._closed
