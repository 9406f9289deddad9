"""Connections to network streams: MJPEG by ourselves, RTSP by PyAV or OpenCV."""

from __future__ import annotations

import http.client
import logging
from pathlib import PurePosixPath

from edge_fg.errors import SourceError
from edge_fg.sources.live.connection import CorruptedData, EncodedImage, Opener
from edge_fg.sources.live.mjpeg import STREAM_TYPES, MjpegConnection
from edge_fg.sources.live.opencv_connection import OpenCVConnection
from edge_fg.sources.live.rtsp import AvConnection, has_pyav
from edge_fg.sources.options import SourceOptions
from edge_fg.sources.uri import VIDEO_SUFFIXES, SourceDescription
from edge_fg.sources.video.container import refuse_text

_HEAD_BYTES = 1 << 11

_logger = logging.getLogger("edge_fg")


class HttpConnection(MjpegConnection):
    """What lies behind an HTTP address.

    The server is asked for it, and its content type tells: a row of JPEGs is read by
    `MjpegConnection`, anything else (a video file, HLS, MPEG-TS) is left to FFmpeg.
    """

    _by_opencv: OpenCVConnection | None = None  # reads what is not MJPEG

    def open(self) -> None:
        """Connect."""
        super().open()
        if self.content_type in STREAM_TYPES:
            return
        self._refuse_disguise()
        super().close()
        if self.content_type.startswith("image/"):
            raise SourceError(
                f"{self._name} gives single images ({self.content_type}): "
                "ask the camera for its MJPEG stream"
            )
        if self._interrupted:
            raise SourceError("it was closed")
        other = self._by_opencv = OpenCVConnection(self._description, self._options)
        other.open()
        self.fps, self.size_wh, self.frame_count = other.fps, other.size_wh, other.frame_count

    def _refuse_disguise(self) -> None:
        """Refuse what is named like a video and lists other addresses, which FFmpeg would open."""
        address = str(self._description.target).partition("?")[0]
        if PurePosixPath(address).suffix.lower() in VIDEO_SUFFIXES and self._response is not None:
            try:
                head = self._response.read(_HEAD_BYTES)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise SourceError(f"can't open {self._name}: {self._in_words(error)}") from error
            if head:
                refuse_text(self._name, head)

    def read(self) -> EncodedImage | CorruptedData | None:
        """Return the next image."""
        return super().read() if self._by_opencv is None else self._by_opencv.read()

    def close(self) -> None:
        """Release the connection."""
        super().close()
        if self._by_opencv is not None:
            self._by_opencv.close()


def opener_of(description: SourceDescription, options: SourceOptions) -> Opener:
    """Return what makes the connections to a camera or stream."""
    if description.is_http:
        return lambda: HttpConnection(description, options)
    if description.kind == "stream" and has_pyav():
        return lambda: AvConnection(description, options)
    if description.kind == "stream":
        _logger.info(
            "%s is read through OpenCV, which can't tell damaged images from good ones: "
            "install edge-fg[rtsp] for that",
            description.name,
        )
    return lambda: OpenCVConnection(description, options)
