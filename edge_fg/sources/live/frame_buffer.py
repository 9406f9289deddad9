"""Images of a live source on their way from its capture thread to what takes them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from edge_fg.sources.live.connection import CapturedImage
from edge_fg.sources.state import SourceStatus

Deliver = Callable[[CapturedImage, int], bool]
"""Takes an image, and how many were lost before it, without waiting; False if it doesn't."""
Finish = Callable[[BaseException | None], None]
"""Hears once that no image will come any more, and why if that is a failure."""


class FrameBuffer:
    """Keeps the newest images for a loop, or delivers each at once in the capture thread.

    When more than `capacity` images wait, the oldest is dropped. Images that are lost (overtaken,
    refused, damaged, left undecoded) are counted with the next one that is taken.
    """

    def __init__(self, status: SourceStatus, capacity: int) -> None:
        self._status = status
        self._capacity = capacity
        self._changed = threading.Condition()
        self._waiting: deque[tuple[CapturedImage, int]] = deque()  # and how many were lost before
        self._lost = 0
        self._deliver: Deliver | None = None
        self._on_finish: Finish | None = None
        self._finished = False
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, image: CapturedImage) -> None:
        """Hand over an image, from the capture thread."""
        with self._changed:
            if self._finished:
                return
            deliver = self._deliver
            lost, self._lost = self._lost, 0
            if deliver is None:
                self._waiting.append((image, lost))
                if len(self._waiting) > self._capacity:
                    _, before = self._waiting.popleft()
                    following, lost = self._waiting[0]
                    self._waiting[0] = following, before + 1 + lost
                    self._status.add("dropped")
                self._changed.notify_all()
        if deliver is not None:
            self._hand_on(deliver, image, lost)

    def add_lost(self, count: int) -> None:
        """Note images that came and can't be handed over."""
        with self._changed:
            self._lost += count

    def take(self) -> tuple[CapturedImage, int] | None:
        """Wait for an image; return the oldest and how many were lost before it, None once closed.

        What ended the source is raised, once.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._finished)
            if self._waiting:
                return self._waiting.popleft()
            error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    def deliver_to(self, deliver: Deliver, finish: Finish) -> None:
        """Deliver from now on, beginning with the images that wait; `take` gets none any more."""
        while True:
            with self._changed:
                if not self._waiting:
                    finished, error = self._finished, self._error
                    if not finished:
                        self._deliver, self._on_finish = deliver, finish
                    break
                image, lost = self._waiting.popleft()
            self._hand_on(deliver, image, lost)
        if finished:
            finish(error)

    def finish(self, error: BaseException | None = None) -> None:
        """Say that no image will come any more, and why if that is a failure."""
        with self._changed:
            if self._finished:
                return
            self._finished, self._error = True, error
            on_finish = self._on_finish
            # A thread that hangs in a driver keeps this buffer: not the source and its frames too.
            self._deliver = self._on_finish = None
            self._changed.notify_all()
        if on_finish is not None:
            on_finish(error)

    def close(self) -> None:
        """Forget the images that wait; there will be no more."""
        with self._changed:
            self._waiting.clear()
        self.finish()

    def _hand_on(self, deliver: Deliver, image: CapturedImage, lost: int) -> None:
        if not deliver(image, lost):
            self.add_lost(1 + lost)
            self._status.add("dropped")
