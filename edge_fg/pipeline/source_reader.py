"""From a source into its queue, while the model works on an earlier frame."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

from edge_fg.pipeline.frame_queue import FrameQueue
from edge_fg.sources import Frame, Source
from edge_fg.sources.live.source import LiveSource


class SourceReader:
    """Brings the frames of a source into a queue.

    A live source's own capture thread puts them there. Other sources are read in a thread. Reading
    stops at the end of the source, at its first error, after `limit` frames that the queue took
    (None: no limit), or when `close` is called; the thread holds no reference to anything but its
    parameters and this object. Nobody else reads the source meanwhile; it is closed with the
    reader. `waited` is called with the seconds that each frame was waited for.
    """

    def __init__(
        self,
        source: Source,
        queue: FrameQueue,
        *,
        limit: int | None = None,
        waited: Callable[[float], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.queue = queue
        self._limit = limit
        self._waited = waited
        self._clock = clock
        self._asked = 0.0  # when the next frame was
        self._forget: Callable[[], None] = lambda: None
        self._thread = threading.Thread(
            target=self._read_all, name=f"edge_fg-reader-{source.name}", daemon=True
        )

    @property
    def threads(self) -> set[threading.Thread]:
        """The threads that read or watch the source, which can't wait for its end."""
        return self.source.threads if isinstance(self.source, LiveSource) else {self._thread}

    def start(self) -> None:
        """Start reading."""
        on_state = getattr(self.source, "on_state", None)
        if on_state is not None:
            self._forget = on_state(self._changed)
        self._asked = self._clock()
        if isinstance(self.source, LiveSource):
            self.source.deliver_to(self)
        else:
            self._thread.start()

    def put(self, frame: Frame) -> bool:
        """Take a frame from the capture thread of a live source; see `FrameReceiver`."""
        self._waited(self._clock() - self._asked)
        taken = self.queue.put(frame, wait=False)
        if self._limit is not None and self.queue.frames >= self._limit:
            self.queue.refuse()  # those that wait are still answered
            self.finish(None)
        elif self.queue.is_closed():
            # Other sources may go on for months: a camera that is needed no more is released.
            self.source.close()
        self._asked = self._clock()
        return taken

    def finish(self, error: BaseException | None) -> None:
        """Hear that the source has ended, and release it; see `FrameReceiver`."""
        self.queue.finish(error)
        self.source.close()

    def stop(self) -> None:
        """Read no more after the frame that is being read; frames that wait can be taken."""
        self.queue.refuse()

    def close(self) -> None:
        """Drop what waits, release the source and wait for the thread; may be called again."""
        self.queue.close()
        # Closing ends a read that is under way where the source can do that; else it waits.
        self.source.close()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._forget()

    def _changed(self, change: Any) -> None:
        if change.state == "lost":
            self.queue.interrupt()

    def _read_all(self) -> None:
        error: BaseException | None = None
        try:
            for _ in itertools.count() if self._limit is None else range(self._limit):
                if self.queue.is_closed():
                    break
                self._asked = self._clock()
                try:
                    frame = next(self.source)
                except StopIteration:
                    break
                self._waited(self._clock() - self._asked)
                if not self.queue.put(frame):
                    break
                del frame  # a frame of a slow source must not be kept alive here
        # Whatever the source raised is raised again where frames are taken, in its turn.
        except BaseException as raised:  # noqa: BLE001
            error = raised
        self.finish(error)
