"""Frames from a control loop that must never wait for the model."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from edge_fg.closing import Closing
from edge_fg.errors import BackendError, DeadlineError, SupersededError, UsageError
from edge_fg.recognition.prediction import Prediction

# The frame that is worked on may take so long after `close`.
_PATIENCE_SECONDS = 5.0

Classify = Callable[[Any, Any], Prediction]


@dataclass
class _Request:
    """A frame and its future; `deadline` is a time of the clock."""

    frame: Any
    region: Any
    deadline: float | None
    future: Future[Prediction] = field(default_factory=Future)

    def refuse(self, error: Exception) -> None:
        """Fail the future, unless the caller has cancelled it."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class Submissions(Closing):
    """One worker thread and one place to wait: the newest frame wins.

    The thread starts with the first frame. It holds the classifier only while it works, so a
    classifier that is dropped without being closed ends the thread as well. `classify`, mostly a
    `Classifier`, answers a frame and a region (or None); `clock` gives seconds.
    """

    def __init__(self, classify: Classify, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._classify = weakref.ref(classify)
        self._clock = clock
        self._closed = False
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._waiting: _Request | None = None
        self._thread: threading.Thread | None = None
        # Also called when the interpreter ends: no thread may be in the model's code then.
        weakref.finalize(classify, self.close)

    def submit(
        self, frame: Any, region: Any = None, *, deadline: float | None = None
    ) -> Future[Prediction]:
        """Hand over a frame and return at once; see `Classifier.submit`."""
        now = self._clock()
        if deadline is not None and not deadline >= 0:
            raise UsageError(f"deadline must be seconds from now, not {deadline}")
        request = _Request(frame, region, None if deadline is None else now + deadline)
        self._begin_after_fork()
        with self._changed:
            if self._closed:
                raise BackendError("the classifier is closed: load the bundle again")
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="edge_fg-submit", daemon=True)
                thread.start()  # where it can't be, the next call tries again
                self._thread = thread
            superseded, self._waiting = self._waiting, request
            self._changed.notify()
        if superseded is not None:
            superseded.refuse(SupersededError("a newer frame was submitted before this one's turn"))
        return request.future

    def close(self) -> None:
        """Refuse the frame that waits, and end the thread after the one it works on."""
        self._begin_after_fork()
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, None
            self._changed.notify_all()
        if waiting is not None:
            waiting.refuse(BackendError("the classifier was closed before this frame's turn"))
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE_SECONDS)
            interrupt = getattr(self._classify(), "interrupt", None)
            if interrupt is not None and self._thread.is_alive():
                interrupt(self._thread)
            self._thread.join()

    def _begin_after_fork(self) -> None:
        """Start again in a forked child: it has no thread of ours, and the lock may be held."""
        if self._process != os.getpid():
            self._process, self._changed = os.getpid(), threading.Condition()
            self._waiting = self._thread = None

    def _work(self) -> None:
        while (request := self._next()) is not None:
            classify = self._classify()
            if classify is not None and request.future.set_running_or_notify_cancel():
                self._answer(request, classify)
            # A thread that waits must keep nothing alive.
            del request, classify

    def _next(self) -> _Request | None:
        """Wait for a frame and return it; None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting is not None)
            request, self._waiting = self._waiting, None
            return request

    def _answer(self, request: _Request, classify: Classify) -> None:
        now = self._clock()
        if request.deadline is not None and now > request.deadline:
            late_ms = 1e3 * (now - request.deadline)
            request.future.set_exception(
                DeadlineError(f"this frame's turn came {late_ms:.1f} ms after its deadline")
            )
            return
        try:
            prediction = classify(request.frame, request.region)
        # The error is for the caller who asks for the result; the thread must go on.
        except BaseException as error:  # noqa: BLE001
            request.future.set_exception(error)
        else:
            request.future.set_result(prediction)
