"""Live sources: cameras and streams that may vanish and come back."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Protocol

from edge_fg.errors import UsageError
from edge_fg.sources.base import BaseSource
from edge_fg.sources.flip import flipped_pixels, flipped_size
from edge_fg.sources.frame import Frame
from edge_fg.sources.live.connection import CapturedImage, Opener
from edge_fg.sources.live.frame_buffer import FrameBuffer
from edge_fg.sources.live.supervisor import Supervisor
from edge_fg.sources.options import SourceOptions

# A source never stops decoding for longer: it must notice an image that stands still.
_MAX_UNDECODED_S = 1.0


class FrameReceiver(Protocol):
    """Takes the frames of a live source as they come, in the thread that captures them."""

    def put(self, frame: Frame) -> bool:
        """Take a frame, without waiting for anything; False where it doesn't."""

    def finish(self, error: BaseException | None) -> None:
        """Hear once that no frame will come any more, and why if that is a failure."""


class LiveSource(BaseSource):
    """Frames of a camera or stream, across losses of the connection.

    A thread captures them. A loop over the source gets the newest frame each time: those that
    nobody took in time (`SourceOptions.buffer` may wait) are counted. A pipeline gets every frame
    at once, in the capture thread (`deliver_to`), and its policy decides.

    When the connection is lost, refuses, stands still or hangs, it is opened again after a wait
    (see `Backoff`), without end or as often as `SourceOptions.reconnect` says. What is handed on
    always came from the camera: nothing is repeated or filled in.

    The first connection is made by the constructor, and when that fails, it raises `SourceError`:
    waiting doesn't fix a wrong address or password. `SourceOptions.wait` waits instead.

    A call that hangs in a driver is noticed by a watchdog, one thread for all live sources. The
    hanging thread is left to itself and another takes over; no more than two such threads are left
    at a time.
    """

    def __init__(self, name: str, opener: Opener, options: SourceOptions | None = None) -> None:
        self._options = options or SourceOptions()
        super().__init__(name, live=True, state="connecting")
        self._buffer = FrameBuffer(self._status, self._options.buffer)
        self._supervisor = Supervisor(name, opener, self._options, self._status, self._buffer)
        self._receiver: FrameReceiver | None = None
        # The capture thread must not keep a source alive that the program holds no more.
        self._stop = weakref.finalize(self, self._supervisor.stop)
        self._supervisor.start()
        if not self._options.wait:
            self._supervisor.wait_until_connected()
            self._note_what_is_stated()

    @property
    def is_file(self) -> bool:
        """Whether the connection that stands is to a file, which has an end."""
        return self._supervisor.frame_count is not None

    def wanted_at(self, moment: float, /) -> None:
        """Hear that the next frame will be taken at `moment` of `time.monotonic`, not before.

        Of the images that come until then only the last is of use. Those before it may be
        left undecoded, where that saves work (MJPEG over HTTP, cameras and streams through
        OpenCV) and where images come so regularly that another is sure to be here in time;
        they are counted as dropped. Each call replaces the one before. It holds until its
        moment, and for a second at most; without one, all images are decoded.

        May be called from any thread; returns at once.
        """
        # One assignment: the thread that reads needs no lock.
        self._supervisor.next_wanted = min(moment, time.monotonic() + _MAX_UNDECODED_S)

    def deliver_to(self, receiver: FrameReceiver) -> None:
        """Give every frame to `receiver` from now on, in the thread that captures it.

        Frames that it takes are counted as ``frames``, others as ``dropped``. It also hears of the
        end: an error that ended the source, or None when the source was closed. `UsageError` if the
        frames go to another one already.
        """
        self._check_not_delivering()
        self._receiver = receiver
        self._buffer.deliver_to(self._deliver, self._finish)

    @property
    def threads(self) -> set[threading.Thread]:
        """The threads that capture and watch now; listeners to the state run in them."""
        return self._supervisor.threads

    def __next__(self) -> Frame:
        self._check_not_delivering()
        return super().__next__()

    def _read(self) -> Frame | None:
        taken = self._buffer.take()
        return None if taken is None else self._frame(*taken)

    def _deliver(self, image: CapturedImage, lost: int) -> bool:
        assert self._receiver is not None
        if not self._receiver.put(self._frame(image, lost)):
            return False
        self._count_frame()
        return True

    def _finish(self, error: BaseException | None) -> None:
        assert self._receiver is not None
        self._ended = True
        try:
            self._status.change("ended", str(error) if error else "it was closed")
        finally:  # also where a listener calls `sys.exit`
            self._receiver.finish(error)

    def _frame(self, image: CapturedImage, lost: int) -> Frame:
        self._note_what_is_stated()
        frame = Frame(
            flipped_pixels(image.pixels, self._options.flip, self.name),
            number=self._delivered,
            source=self.name,
            time=image.time,
            captured=image.captured,
            dropped=lost,
        )
        self.size_wh = frame.size_wh
        return frame

    def _check_not_delivering(self) -> None:
        if self._receiver is not None:
            raise UsageError(f"the frames of {self.name} go to a pipeline already")

    def _note_what_is_stated(self) -> None:
        self.fps = self._supervisor.fps
        if self.size_wh is None:
            self.size_wh = flipped_size(self._supervisor.size_wh, self._options.flip)

    def _interrupt(self) -> None:
        self._stop()

    def _release(self) -> None:
        # A loop that was between two frames ends like one that waited for the next.
        self._ended = True
