"""Results that wait to be taken; recognition waits for them only where that was asked for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from edge_fg.result import Result, VisitEvent

CAPACITY: Final = 8
"""Results that may wait for a sink."""

# Events of dropped results are kept for the next one; a sink that is stuck for days must not
# fill the memory with them.
_MOST_EVENTS = 1000
_AT_THE_END = 10_000


class ResultQueue:
    """A queue with one consumer, in which `capacity` results may wait.

    When it is full, the producer waits if it is `blocking`; else the oldest result is dropped, and
    its events come with the next one. `notify` is called, without a lock, after each change that
    the consumer waits for.
    """

    def __init__(
        self, capacity: int, *, blocking: bool, notify: Callable[[], None] | None = None
    ) -> None:
        self.dropped = 0
        self.taken = 0
        self.blocking = blocking
        self._capacity = capacity
        self._notify = notify or (lambda: None)
        self._waiting: deque[Result[Any]] = deque()
        self._carried: deque[VisitEvent] = deque(maxlen=_MOST_EVENTS)
        self._condition = threading.Condition()
        self._finished = False
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def finished(self) -> bool:
        """Whether no result waits and none will come."""
        with self._condition:
            return self._closed or (self._finished and not self._waiting)

    def put(self, result: Result[Any]) -> None:
        """Add a result; it is dropped once the queue is closed."""
        with self._condition:
            while self.blocking and len(self._waiting) >= self._capacity and not self._closed:
                self._condition.wait()
            if self._closed:
                return
            while len(self._waiting) >= self._capacity:
                self._carried.extend(self._waiting.popleft().events)
                self.dropped += 1
            self._waiting.append(result)
            self._condition.notify_all()
        self._notify()

    def poll(self) -> Result[Any] | None:
        """Return the next result, or None where none waits."""
        with self._condition:
            if not self._waiting:
                return None
            result = self._waiting.popleft()
            self.taken += 1
            self._condition.notify_all()
            if self._carried:
                result = replace(result, events=(*self._carried, *result.events))
                self._carried.clear()
            return result

    def wait(self, timeout: float | None = None) -> Result[Any] | None:
        """Return the next result, waiting for it; None at the end or after `timeout` seconds."""
        with self._condition:
            self._condition.wait_for(
                lambda: self._waiting or self._finished or self._closed, timeout
            )
            return self.poll()

    def carry(self, events: tuple[VisitEvent, ...]) -> None:
        """Add these events to the next result: their own was not written after all."""
        with self._condition:
            self._carried.extend(events)

    def unblock(self) -> None:
        """Make the producer wait no longer: the end is near, the few results to come are kept."""
        with self._condition:
            if self.blocking:
                self.blocking = False
                self._capacity = _AT_THE_END
            self._condition.notify_all()

    def finish(self) -> None:
        """Tell the consumer that no more results will come."""
        with self._condition:
            self._finished = True
            self._condition.notify_all()
        self._notify()

    def close(self) -> None:
        """Take no more results and drop those that wait."""
        with self._condition:
            self._closed = True
            self.dropped += len(self._waiting)
            self._waiting.clear()
            self._condition.notify_all()
        self._notify()
