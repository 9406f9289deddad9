"""Reading ahead in a thread, so that decoding and inference overlap."""

from __future__ import annotations

import threading
from collections import deque

from edge_fg.capture import Frame, Source


class FrameReader:
    """Reads a source in a thread of its own, a few frames ahead of its consumer.

    The thread stops at the end of the source, at its first error, or when `close` is called;
    it holds no reference to anything but the source and this object.

    Parameters
    ----------
    source
        Read by nobody else while this reader lives.
    capacity
        Frames that may wait for the consumer.
    newest
        When the consumer is late: True drops the frame that waited longest, for live sources;
        False makes the source wait.
    limit
        Frames after which to stop reading; None for all.
    """

    def __init__(
        self, source: Source, *, capacity: int, newest: bool, limit: int | None = None
    ) -> None:
        self.dropped = 0
        self._source = source
        self._capacity = capacity
        self._newest = newest
        self._limit = limit
        self._waiting: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._finished = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._read_all, name=f"edge_fg-reader-{source.name}", daemon=True
        )

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def next(self) -> Frame | None:
        """Return the next frame, waiting for it; None at the end of the source.

        An error of the source is raised here, once all frames that came before it are taken.
        """
        with self._changed:
            while not (self._waiting or self._finished):
                self._changed.wait()
            if self._waiting:
                frame = self._waiting.popleft()
                self._changed.notify_all()
                return frame
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            return None

    def close(self) -> None:
        """Stop the thread, after the read that it is in, and release the source."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        self._source.close()

    def _read_all(self) -> None:
        error: BaseException | None = None
        try:
            count = 0
            while (self._limit is None or count < self._limit) and not self._stopped:
                try:
                    frame = next(self._source)
                except StopIteration:
                    break
                count += 1
                self._hand_over(frame)
        # Whatever the source raised belongs to the consumer, who sees it in its turn.
        except BaseException as raised:  # noqa: BLE001
            error = raised
        with self._changed:
            self._error = error
            self._finished = True
            self._changed.notify_all()

    def _hand_over(self, frame: Frame) -> None:
        with self._changed:
            while len(self._waiting) >= self._capacity and not self._stopped:
                if self._newest:
                    self._waiting.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            if not self._stopped:
                self._waiting.append(frame)
                self._changed.notify_all()
