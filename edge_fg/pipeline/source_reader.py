"""Reading ahead in a thread, so that decoding and inference overlap."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from edge_fg.pipeline.frame_queue import FrameQueue
from edge_fg.sources import Source


class SourceReader:
    """Reads a source in a thread of its own into a queue.

    The thread stops at the end of the source, at its first error, or when `close` is called;
    it holds no reference to anything but its parameters and this object.

    Parameters
    ----------
    source
        Read by nobody else while this reader lives; closed with it.
    queue
        Takes the frames, and the end.
    limit
        Frames after which to stop reading; None for all.
    waited
        Called with the seconds that each frame was waited for.
    clock
        Seconds.
    """

    def __init__(
        self,
        source: Source,
        queue: FrameQueue,
        *,
        limit: int | None = None,
        waited: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.queue = queue
        self._limit = limit
        self._waited = waited
        self._clock = clock
        self._stopped = False
        self._forget: Callable[[], None] | None = None
        self._thread = threading.Thread(
            target=self._read_all, name=f"edge_fg-reader-{source.name}", daemon=True
        )

    @property
    def thread(self) -> threading.Thread:
        """The thread that reads."""
        return self._thread

    def start(self) -> None:
        """Start reading."""
        on_state = getattr(self.source, "on_state", None)
        if on_state is not None:
            self._forget = on_state(self._changed)
        self._thread.start()

    def stop(self) -> None:
        """Read no more after the frame that is being read; frames that wait can be taken."""
        self._stopped = True
        self.queue.refuse()

    def close(self) -> None:
        """Drop what waits, release the source and wait for the thread; may be called again."""
        self._stopped = True
        self.queue.close()
        # Closing ends a read that is under way where the source can do that; else it waits.
        self.source.close()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self._forget is not None:
            self._forget()
            self._forget = None

    def _changed(self, change: Any) -> None:
        if change.state == "lost":
            self.queue.interrupt()

    def _read_all(self) -> None:
        error: BaseException | None = None
        try:
            count = 0
            while (self._limit is None or count < self._limit) and not self._stopped:
                asked = self._clock()
                try:
                    frame = next(self.source)
                except StopIteration:
                    break
                if self._waited is not None:
                    self._waited(self._clock() - asked)
                count += 1
                if not self.queue.put(frame):
                    break
                del frame  # a frame of a slow source must not be kept alive here
        # Whatever the source raised belongs to the consumer, who sees it in its turn.
        except BaseException as raised:  # noqa: BLE001
            error = None if self._stopped else raised
        self.queue.finish(error)
        # Other sources may go on for months: a camera that ended is released at once.
        self.source.close()
