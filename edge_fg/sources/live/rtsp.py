"""RTSP by PyAV, which tells what OpenCV hides: which images FFmpeg had to invent.

FFmpeg conceals what is damaged or missing in a stream by copying from its surroundings, and
OpenCV hands such images on like any other. PyAV gives FFmpeg's own marks, so they are left out
here: the damaged image, and all after it that are built upon it, up to the next key frame.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from edge_fg.errors import MissingDependencyError, SourceError, import_optional
from edge_fg.printing import import_failure
from edge_fg.sources.live.connection import (
    CapturedImage,
    Connection,
    CorruptedData,
    camera_time,
    wall_clock,
)
from edge_fg.sources.live.h264_gaps import GapFinder
from edge_fg.sources.options import SourceOptions
from edge_fg.sources.uri import SourceDescription

# Over UDP, packets are lost as a matter of course. Measuring the frame rate first would take most
# of a second, in which images grow old.
_OPTIONS: Final = {"rtsp_transport": "tcp", "fpsprobesize": "0"}
_logger = logging.getLogger("edge_fg")


def has_pyav() -> bool:
    """Whether PyAV is installed and can be used; a warning says why it can't."""
    try:
        return bool(import_optional("av", "av", "rtsp", "decode videos").__version__)
    except MissingDependencyError as error:
        if import_failure(error.__cause__, "av") is not None:
            _logger.warning("OpenCV decodes instead: %s", error)
        return False


class AvConnection(Connection):
    """An RTSP stream held by PyAV.

    Bytes that were changed so that they still decode can't be told from others: H.264 has no
    checksum. What FFmpeg doesn't notice is therefore not left out.

    A camera that drops whole images between two key frames leaves FFmpeg to build upon the wrong
    ones, which it doesn't mark; for H.264 that is found by `GapFinder`, for other codecs not.
    """

    def __init__(self, description: SourceDescription, options: SourceOptions) -> None:
        self._description = description
        self._name = description.name
        self._timeout = options.timeout
        self._av: Any = None
        self._container: Any = None
        self._packets: Iterator[Any] = iter(())
        self._frames: deque[Any] = deque()
        self._gaps: GapFinder | None = None
        self._damaged = False  # since the last key frame
        self._clock_s: float | None = None  # the camera's, at the beginning of the stream

    def open(self) -> None:
        """Connect; see `Connection`."""
        av = import_optional("av", "av", "rtsp", f"read {self._name}")
        self._av = av
        limits = (self._timeout, self._timeout)
        try:
            self._container = av.open(
                str(self._description.target), options=_OPTIONS, timeout=limits
            )
            stream = self._container.streams.video[0]
        except (av.error.FFmpegError, UnicodeError, ValueError) as error:
            # Without the cause: its text repeats the address with its password.
            raise SourceError(f"can't open {self._name}: {self._in_words(error)}") from None
        except IndexError as error:
            raise SourceError(f"can't open {self._name}: it has no video") from error
        # With several threads for an image, FFmpeg marks no damage; with several images at a
        # time, they come late.
        stream.codec_context.thread_count = 1
        self.fps = float(stream.average_rate) if stream.average_rate else None
        width, height = stream.codec_context.width, stream.codec_context.height
        self.size_wh = (width, height) if width and height else None
        self._packets = self._container.demux(stream)
        if stream.codec_context.name == "h264":
            self._gaps = GapFinder()
            self._gaps.missing_before(stream.codec_context.extradata or b"")

    def read(self) -> CapturedImage | CorruptedData | None:
        """Return the next image; see `Connection`."""
        while not self._frames:
            try:
                packet = next(self._packets, None)
            except self._av.error.FFmpegError as error:
                raise SourceError(self._in_words(error)) from None
            if packet is None or packet.size == 0:
                return None
            self._note_clock(packet)
            if self._gaps is not None and self._gaps.missing_before(bytes(packet)):
                self._damaged = True
            try:
                self._frames.extend(packet.decode())
            except self._av.error.FFmpegError:
                return self._leave_out("a packet can't be decoded")
            if packet.is_corrupt:
                return self._leave_out("a packet is damaged")
        frame = self._frames.popleft()
        if frame.is_corrupt:
            return self._leave_out("an image is damaged")
        if self._damaged and not frame.key_frame:
            return CorruptedData("an image is built on a damaged one")
        self._damaged = False
        arrived = taken = wall_clock()
        if self._clock_s is not None and frame.time is not None:
            taken = camera_time(self._clock_s + frame.time, arrived)
        return CapturedImage(np.ascontiguousarray(frame.to_ndarray(format="bgr24")), time=taken)

    def close(self) -> None:
        """Release the connection."""
        self._frames.clear()
        self._packets = iter(())
        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(self._av.error.FFmpegError):
                container.close()

    def _note_clock(self, packet: Any) -> None:
        """Note the camera's clock, which it reports from time to time (RFC 3550, section 6.4.1)."""
        # Older releases of PyAV don't show it.
        has_data = getattr(packet, "has_sidedata", None)
        if packet.pts is None or has_data is None or not has_data("prft"):
            return
        stated_us: int = struct.unpack_from("=q", bytes(packet.get_sidedata("prft")))[0]
        self._clock_s = stated_us / 1e6 - float(packet.pts * packet.time_base)

    def _leave_out(self, reason: str) -> CorruptedData:
        self._damaged = True
        return CorruptedData(reason)

    def _in_words(self, error: Exception) -> str:
        if isinstance(error, self._av.error.ExitError):
            return f"no answer for {self._timeout:g} s"
        words = getattr(error, "strerror", None) or type(error).__name__
        if isinstance(error, getattr(self._av.error, "HTTPUnauthorizedError", ())):
            return f"{words}, check user and password"
        return str(words)
