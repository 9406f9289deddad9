"""Which source's frame is next, where several sources share one engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_fg.pipeline.frame_queue import FrameQueue
from edge_fg.sources import Frame


@dataclass
class Turn:
    """What the engine does next."""

    frames: list[tuple[int, Frame]] = field(default_factory=list)
    """(number of the source, frame) for each frame to answer."""
    closing: list[int] = field(default_factory=list)
    """Numbers of the sources that have ended or were lost, all of whose frames are answered."""


class Scheduler:
    """Shares the engine's time fairly between queues.

    Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): of the sources that have a
    frame the one is next that has had the least of the engine's time, where time during which a
    source had no frame does not count in its favour. The cost of a frame is needed only afterwards,
    so that a source with many regions in its frames pays for them itself. With equal costs it is
    round robin: no source that has frames waits for more than one turn of each of the others.

    The queues, one a source, share the condition `changed` and its lock. With `one_each`, at most
    one frame of each source is taken at once.
    """

    def __init__(
        self,
        queues: Sequence[FrameQueue],
        changed: threading.Condition,
        *,
        one_each: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queues = queues
        self._changed = changed
        self._one_each = one_each
        self._clock = clock
        # Engine time that each source has had, as if none had ever been idle.
        self._served = [0.0] * len(queues)
        self._virtual = 0.0
        self._turns = [0] * len(queues)  # when each had its last turn
        self._ended = [False] * len(queues)
        self.stopped = False

    def take(self, most: Callable[[int], int], not_before: float | None = None) -> Turn | None:
        """Wait for the next turn and return it; None when all sources have ended.

        `most` is given how many frames wait, and returns how many of them to take; none is taken
        before the clock's time `not_before`.
        """
        with self._changed:
            while not self.stopped:
                closing = self._closing()
                rest = 0.0 if not_before is None else not_before - self._clock()
                waiting = any(map(len, self._queues))
                turn = Turn([] if rest > 0 else self._choose(most), closing)
                if turn.frames or turn.closing:
                    return turn
                if all(self._ended):
                    return None
                if waiting and rest <= 0:
                    continue  # all were stale: a source may have ended with the last of them
                self._changed.wait(rest if rest > 0 and waiting else None)
            return None

    def charge(self, number: int, seconds: float) -> None:
        """Add the engine time that a frame of source `number` took."""
        self._served[number] += seconds

    def stop(self) -> None:
        """Return no more turns."""
        with self._changed:
            self.stopped = True
            self._changed.notify_all()

    def _closing(self) -> list[int]:
        found = []
        for number, queue in enumerate(self._queues):
            if len(queue) or self._ended[number]:
                continue
            if queue.finished or queue.interrupted:
                queue.interrupted = False
                self._ended[number] = queue.finished
                found.append(number)
        return found

    def _choose(self, most: Callable[[int], int]) -> list[tuple[int, Frame]]:
        ready = [number for number, queue in enumerate(self._queues) if len(queue)]
        if not ready:
            return []
        waiting = len(ready) if self._one_each else sum(len(self._queues[n]) for n in ready)
        wanted = max(1, min(most(waiting), waiting))
        taken: list[tuple[int, Frame]] = []
        while ready and len(taken) < wanted:
            number = min(ready, key=self._order)
            frame = self._queues[number].take()
            if frame is not None:
                self._begin(number)
                taken.append((number, frame))
            if frame is None or self._one_each or not len(self._queues[number]):
                ready.remove(number)
        return taken

    def _order(self, number: int) -> tuple[float, int, int]:
        return max(self._served[number], self._virtual), self._turns[number], number

    def _begin(self, number: int) -> None:
        self._virtual = self._served[number] = max(self._served[number], self._virtual)
        self._turns[number] = max(self._turns) + 1
