"""Connections to network streams: MJPEG by ourselves, RTSP by PyAV or OpenCV."""

from __future__ import annotations

import logging
import threading

from edge_fg.errors import SourceError
from edge_fg.sources.live.connection import Connection, Opener, Received
from edge_fg.sources.live.mjpeg import MjpegConnection
from edge_fg.sources.live.opencv_connection import OpenCVConnection
from edge_fg.sources.live.rtsp import AvConnection, has_pyav
from edge_fg.sources.options import SourceOptions
from edge_fg.sources.uri import SourceDescription

_logger = logging.getLogger("edge_fg")


class HttpConnection(Connection):
    """What lies behind an HTTP address; see `Connection`.

    The server is asked for it, and its content type tells: a row of JPEGs is read by
    `MjpegConnection`, anything else (a video file, HLS, MPEG-TS) is left to FFmpeg.

    Parameters
    ----------
    description
        Of kind stream, with an address of HTTP.
    options
        The time-out.
    """

    def __init__(self, description: SourceDescription, options: SourceOptions) -> None:
        self._description = description
        self._options = options
        self._lock = threading.Lock()
        self._interrupted = False
        self._inner: Connection = MjpegConnection(
            description.target_text, description.name, options.timeout
        )

    def open(self) -> None:
        """Connect; see `Connection`."""
        first = self._inner
        first.open()
        if isinstance(first, MjpegConnection) and not first.is_mjpeg:
            first.close()
            if first.content_type.startswith("image/"):
                raise SourceError(
                    f"{self._description.name} gives single images ({first.content_type}): "
                    "ask the camera for its MJPEG stream"
                )
            with self._lock:
                if self._interrupted:
                    raise SourceError("it was closed")
                self._inner = OpenCVConnection(self._description, self._options)
            self._inner.open()
        self.fps, self.size_wh = self._inner.fps, self._inner.size_wh
        self.frame_count = self._inner.frame_count

    def read(self) -> Received | None:
        """Return the next image; see `Connection`."""
        return self._inner.read()

    def interrupt(self) -> None:
        """Make a call that another thread is in return soon, where possible."""
        with self._lock:
            self._interrupted = True
            inner = self._inner
        inner.interrupt()

    def close(self) -> None:
        """Release the connection."""
        self._inner.close()


def opener_of(description: SourceDescription, options: SourceOptions) -> Opener:
    """Return what makes the connections to a camera or stream."""
    if description.is_http:
        return lambda: HttpConnection(description, options)
    if description.kind == "stream" and has_pyav():
        return lambda: AvConnection(description, options)
    if description.kind == "stream":
        _logger.info(
            "%s is read through OpenCV, which can't tell damaged images from sound ones: "
            "install edge-fg[rtsp] for that",
            description.name,
        )
    return lambda: OpenCVConnection(description, options)
