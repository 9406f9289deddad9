"""Live sources: cameras and streams that may vanish and come back."""

from __future__ import annotations

import weakref

from edge_fg.sources.base import BaseSource
from edge_fg.sources.flip import flipped_pixels, flipped_size
from edge_fg.sources.frame import Frame
from edge_fg.sources.live.connection import Opener
from edge_fg.sources.live.supervisor import Feed
from edge_fg.sources.options import CaptureOptions


class LiveSource(BaseSource):
    """Frames of a camera or stream, newest first in line, across losses of the connection.

    A thread reads the connection and keeps the newest frame (`CaptureOptions.buffer` of them);
    the frames that nobody took in time are counted. When the connection is lost, refuses,
    stands still or hangs, it is opened anew after a wait (see `Backoff`), without end or as
    often as `CaptureOptions.reconnect` says. What is handed on always came from the camera:
    nothing is repeated or filled in.

    The first connection is made by the constructor, and when that fails, it raises: a wrong
    address or password is nothing to be patient with. `CaptureOptions.wait` waits instead.

    A call that hangs in a driver is noticed while somebody waits for a frame. Its thread is left
    to itself and another takes over; no more than two such threads are left at a time.

    Parameters
    ----------
    name
        The source's name, fit to be shown.
    opener
        Makes its connections.
    options
        Time-outs, waits, and what counts as frozen or black.

    Raises
    ------
    SourceError
        The first connection failed.
    """

    def __init__(self, name: str, opener: Opener, options: CaptureOptions | None = None) -> None:
        self._options = options or CaptureOptions()
        super().__init__(name, live=True, state="connecting")
        self._feed = Feed(name, opener, self._options, self._board)
        # The reading thread must not keep a source alive that nobody holds any more.
        self._finalizer = weakref.finalize(self, self._feed.stop)
        self._feed.start()
        if not self._options.wait:
            self._feed.connect()
            self._take_over()

    @property
    def turned_out_finite(self) -> bool:
        """Whether the connection that stands is to a file, which has an end."""
        return self._feed.frame_count is not None

    def wanted_at(self, moment: float, /) -> None:
        """Hear that the next frame will be taken at `moment` of `time.monotonic`, not before.

        Of the images that come until then only the last is of use. Those before it may be
        left undecoded, where that saves work (MJPEG over HTTP, cameras and streams through
        OpenCV) and where images come so regularly that another is sure to be here in time;
        they are counted as dropped. Each call replaces the one before. The wish ends with its
        moment, and after a second at the latest; without one, all images are decoded.

        May be called from any thread; returns at once.
        """
        self._feed.wanted_at(moment)

    def close(self) -> None:
        """Release the camera, and end the iteration, also in another thread that waits for a frame.

        May be called again.
        """
        self._finalizer()
        with self._lock:
            # A loop that was between two frames is to end like one that waited for the next.
            self._ended = True
            super().close()

    def _read(self) -> Frame | None:
        arrival = self._feed.take()
        if arrival is None:
            return None
        self._take_over()
        shot = arrival.shot
        pixels = flipped_pixels(shot.pixels, self._options.flip, self.name)
        frame = Frame(
            pixels,
            number=self._delivered,
            source=self.name,
            time=shot.time,
            captured=shot.captured,
            dropped=arrival.dropped,
        )
        self.size_wh = frame.size_wh
        return frame

    def _take_over(self) -> None:
        self.fps = self._feed.fps
        if self.size_wh is None:
            self.size_wh = flipped_size(self._feed.size_wh, self._options.flip)

    def _release(self) -> None:
        self._finalizer()
