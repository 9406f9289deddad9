"""Frames from a control loop that must never wait for the model."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from edge_fg.errors import BackendError, DeadlineError, SupersededError, UsageError
from edge_fg.recognition.prediction import Prediction

Answer = Callable[[Any, Any], Prediction]


@dataclass
class _Waiting:
    frame: Any
    region: Any
    deadline: float | None
    submitted: float
    future: Future[Prediction] = field(default_factory=Future)


class _Slot:
    """The frame that waits, and what the thread and its owner know of each other."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.changed = threading.Condition()
        self.waiting: _Waiting | None = None
        self.closed = False

    def exchange(self, waiting: _Waiting | None) -> _Waiting | None:
        """Put a frame in and return the one that waited."""
        with self.changed:
            if self.closed and waiting is not None:
                raise BackendError("the classifier is closed: load the bundle again")
            before, self.waiting = self.waiting, waiting
            self.changed.notify()
            return before

    def take(self) -> _Waiting | None:
        """Wait for a frame and return it; None when the slot is closed."""
        with self.changed:
            while self.waiting is None and not self.closed:
                self.changed.wait()
            taken, self.waiting = self.waiting, None
            return taken


class Submissions:
    """One worker thread and one place to wait: the newest frame wins.

    The thread starts with the first frame and holds its owner only while it works, so that an
    owner that is forgotten instead of closed ends it, too.

    Parameters
    ----------
    owner
        Answers frames: called with a frame and a region, or None.
    clock
        Seconds.
    """

    def __init__(self, owner: Answer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._slot = _Slot(clock)
        self._owner = weakref.ref(owner)
        self._starting = threading.Lock()
        self._threads: list[threading.Thread] = []
        # Also called when the interpreter ends: a thread in the model's code must be out of it.
        self._close = weakref.finalize(owner, _close, self._slot, self._threads)

    def submit(
        self, frame: Any, region: Any = None, *, deadline: float | None = None
    ) -> Future[Prediction]:
        """Hand over a frame and return at once; see `Classifier.submit`."""
        now = self._slot.clock()
        if deadline is not None and not deadline >= 0:
            raise UsageError(f"deadline must be seconds from now, not {deadline}")
        until = None if deadline is None else now + deadline
        waiting = _Waiting(frame, region, until, now)
        before = self._slot.exchange(waiting)
        if before is not None:
            _refuse(before, SupersededError("a newer frame was submitted before this one's turn"))
        self._start()
        return waiting.future

    def close(self) -> None:
        """Refuse the frame that waits, and end the thread after the one it works on."""
        self._close()

    def _start(self) -> None:
        with self._starting:
            if self._threads or self._slot.closed:
                return
            thread = threading.Thread(
                target=_work, args=(self._slot, self._owner), name="edge_fg-submit", daemon=True
            )
            thread.start()
            self._threads.append(thread)


def _close(slot: _Slot, threads: list[threading.Thread]) -> None:
    with slot.changed:
        slot.closed = True
        waiting, slot.waiting = slot.waiting, None
        slot.changed.notify_all()
    if waiting is not None:
        _refuse(waiting, BackendError("the classifier was closed before this frame's turn"))
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join()


def _work(slot: _Slot, owner: weakref.ref[Answer]) -> None:
    while (taken := slot.take()) is not None:
        answer = owner()
        if answer is not None and taken.future.set_running_or_notify_cancel():
            _answer(slot, taken, answer)
        # Nothing may be kept alive by a thread that waits.
        del taken, answer


def _answer(slot: _Slot, taken: _Waiting, answer: Answer) -> None:
    now = slot.clock()
    if taken.deadline is not None and now > taken.deadline:
        late = 1e3 * (now - taken.deadline)
        taken.future.set_exception(
            DeadlineError(f"this frame's turn came {late:.1f} ms after its deadline")
        )
        return
    try:
        prediction = answer(taken.frame, taken.region)
    # Whatever it is belongs to who asks for the result; the thread must go on.
    except BaseException as error:  # noqa: BLE001
        taken.future.set_exception(error)
    else:
        taken.future.set_result(prediction)


def _refuse(waiting: _Waiting, error: Exception) -> None:
    # The caller may have cancelled it.
    if waiting.future.set_running_or_notify_cancel():
        waiting.future.set_exception(error)
