"""What every source of frames is, and the part that ours have in common."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, runtime_checkable

from edge_fg.closing import Closing
from edge_fg.errors import EdgeFGError, SourceError
from edge_fg.sources.frame import Frame
from edge_fg.sources.state import SourceState, SourceStatus, StateListener


@runtime_checkable
class Source(Protocol):
    """An iterator of frames that holds a camera or a file until it is closed.

    Attributes
    ----------
    name
        Fit to be shown: a path, or a URI without credentials.
    fps
        Frames per second that the source states; None where that means nothing.
    size_wh
        Width and height in pixels that the source states; None where frames may differ.
    frame_count
        Frames that the source says it has; None when it has no end or doesn't know.
    live
        Whether frames come at their own pace and are lost when nobody reads them.
    skipped
        What was wrong with images and videos of a list, directory or glob that could not be read,
        or not to their end, so far.
    state
        ``connecting``, ``live``, ``stalled`` (connected, but no new image comes), ``lost``
        (not connected, it will be tried again) or ``ended``. What has no connection is ``live``
        until it has ``ended``.
    counters
        A copy of what was counted so far: ``frames`` handed on; ``reconnects`` that succeeded;
        ``stalls``; ``frozen`` frames that were withheld because the image stood still;
        ``black`` frames (they are handed on); ``size_changes`` of the image; ``corrupted``
        packets or images that could not be decoded; ``dropped`` frames that nobody took, or that
        were left undecoded because nobody would have (see `LiveSource.wanted_at`).
    """

    name: str
    fps: float | None
    size_wh: tuple[int, int] | None
    frame_count: int | None
    live: bool
    skipped: list[EdgeFGError]

    @property
    def state(self) -> SourceState:
        """How the source is doing."""

    @property
    def counters(self) -> dict[str, int]:
        """A copy of what was counted so far."""

    def on_state(self, listener: StateListener) -> Callable[[], None]:
        """Tell `listener` of each change of state; the function returned ends that.

        It is called in the thread that found the change out, and must be quick.
        """

    def __iter__(self) -> Source: ...

    def __next__(self) -> Frame: ...

    def __enter__(self) -> Source: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def close(self) -> None:
        """Release the camera or file; may be called again."""


class BaseSource(Closing):
    """Bookkeeping shared by the sources: numbering, closing, one reader at a time.

    A subclass implements `_read`, which returns the next frame or None at the end. If it holds
    something, it implements `_release`, which is called once, and `_interrupt` where a read may
    wait for long.
    """

    instead = "hand over what names it, and call edge_fg.open_source there"

    def __init__(
        self,
        name: str,
        *,
        fps: float | None = None,
        size_wh: tuple[int, int] | None = None,
        frame_count: int | None = None,
        live: bool = False,
        state: SourceState = "live",
    ) -> None:
        self.name = name
        self.fps = fps
        self.size_wh = size_wh
        self.frame_count = frame_count
        self.live = live
        self.skipped: list[EdgeFGError] = []
        self._status = SourceStatus(name, state)
        self._delivered = 0
        self._ended = False
        self._closed = False
        # OpenCV must not release a capture while another thread reads from it.
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, state={self.state!r})"

    @property
    def state(self) -> SourceState:
        """How the source is doing; see `Source`."""
        return self._status.state

    @property
    def counters(self) -> dict[str, int]:
        """A copy of what was counted so far; see `Source`."""
        return self._status.counters

    def on_state(self, listener: StateListener) -> Callable[[], None]:
        """Tell `listener` of each change of state; the function returned ends that."""
        return self._status.on_state(listener)

    def __iter__(self) -> BaseSource:
        return self

    def __next__(self) -> Frame:
        with self._lock:
            if self._ended:
                raise StopIteration
            if self._closed:
                raise SourceError(f"{self.name} has been closed: open it again to read on")
            # An error ends the source too: another try would give nothing.
            self._ended = True
            try:
                frame = self._read()
            except Exception as error:
                self._status.change("ended", str(error))
                raise
            if frame is None:
                self._status.change("ended", "there are no more frames")
                raise StopIteration
            self._ended = False
            self._count_frame()
            return frame

    def close(self) -> None:
        """Release the camera or file, after a read that is under way; may be called again.

        A read that waits is ended, where the source can do that.
        """
        self._interrupt()
        with self._lock:
            if not self._closed:
                self._closed = True
                self._status.change("ended", "it was closed")
                self._release()

    @abstractmethod
    def _read(self) -> Frame | None:
        """Return the next frame; None at the end."""

    def _count_frame(self) -> None:
        self._delivered += 1
        self._status.add("frames")

    def _interrupt(self) -> None:
        """End a read that waits in another thread, and later ones; nothing by default."""

    def _release(self) -> None:
        """Release what the source holds; nothing by default."""
