"""Frames from standard input, as another program writes them.

What comes is told by its first bytes. It is either a row of JPEGs (``ffmpeg -f mjpeg -``, an
``.mjpeg`` file, or a multipart body; see `edge_fg.sources.jpeg`), or **frames with a header**
each, all numbers big-endian:

====== ===== ====================================================================================
offset bytes meaning
====== ===== ====================================================================================
0      4     ``EFGF``
4      1     format: 0 JPEG, 1 BGR, 2 RGB, 3 grey, 4 NV12, 5 YUYV, 6 I420
5      1     colour standard of formats 4..6: 0 BT.601 limited, 1 BT.601 full, 2 BT.709 limited,
             3 BT.709 full; 0 for the others
6      2     0
8      4     width in pixels, 1..16384; 0 for JPEG, which states its own
12     4     height, likewise
16     4     length of what follows in bytes: of a JPEG at most 64 MiB, of the others exactly what
             width, height and format make, rows without gaps
====== ===== ====================================================================================

YUV frames stay as they are (`RawFrame`). A header that makes no sense ends the source, for
nothing tells where the next frame begins.
"""

from __future__ import annotations

import os
import select
import struct
import sys
import threading
import time
from collections import deque
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import ImageError, SourceError, TruncatedSourceError
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.raw_frame import RawFrame
from edge_fg.preprocess.yuv import ColorStandard
from edge_fg.sources.base import BaseSource
from edge_fg.sources.flip import flipped_pixels
from edge_fg.sources.frame import Frame
from edge_fg.sources.jpeg import MAX_JPEG_BYTES, JpegSplitter, decoder
from edge_fg.sources.options import CaptureOptions

MAGIC: Final = b"EFGF"
_HEADER: Final = struct.Struct(">4sBBHIII")
_FORMATS: Final = (
    None,
    PixelFormat.BGR,
    PixelFormat.RGB,
    PixelFormat.GRAY,
    PixelFormat.NV12,
    PixelFormat.YUYV,
    PixelFormat.I420,
)
_STANDARDS: Final = tuple(ColorStandard)
_YUV: Final = (PixelFormat.NV12, PixelFormat.YUYV, PixelFormat.I420)
_MAX_SIDE = 16384
_READ_BYTES = 1 << 18
_LOOK_MS = 200


def frame_header(length: int, layout: PixelLayout | None = None) -> bytes:
    """Return the header of a frame, for programs that write to our standard input.

    Parameters
    ----------
    length
        Of the bytes that follow.
    layout
        How they lie; None for a JPEG.
    """
    if layout is None:
        return _HEADER.pack(MAGIC, 0, 0, 0, 0, 0, length)
    standard = 0 if layout.standard is None else _STANDARDS.index(layout.standard)
    place = _FORMATS.index(layout.format)
    return _HEADER.pack(MAGIC, place, standard, 0, layout.width, layout.height, length)


class PipeSource(BaseSource):
    """Frames from a pipe, each exactly once: who writes is held back by who reads.

    A pipe can't be opened again, so there is no reconnecting. While nothing comes for longer
    than the time-out, the source is ``stalled``, and goes on waiting.

    Parameters
    ----------
    name
        What to call it.
    stream
        A binary file; standard input when None.
    options
        `timeout` and `flip`.
    """

    def __init__(
        self,
        name: str = "-",
        stream: IO[bytes] | None = None,
        options: CaptureOptions | None = None,
    ) -> None:
        super().__init__(name)
        self._stream = sys.stdin.buffer if stream is None else stream
        self._options = options or CaptureOptions()
        self._decode = decoder()
        self._splitter: JpegSplitter | None = None
        self._counted = 0
        self._images: deque[bytes] = deque()
        self._buffer = bytearray()
        self._headed = False
        self._known = False
        self._lost = 0
        self._stopped = threading.Event()

    def close(self) -> None:
        """Stop reading, also while a read waits; the pipe itself is left as it is."""
        self._stopped.set()
        super().close()

    def _read(self) -> Frame | None:
        while not self._stopped.is_set():
            pixels = self._framed() if self._headed else self._decoded()
            if pixels is not None:
                pixels = flipped_pixels(pixels, self._options.flip, self.name)
                frame = Frame(pixels, self._delivered, self.name, dropped=self._lost)
                self._lost = 0
                return frame
            data = self._receive()
            if data:
                self._take(data)
            elif self._splitter is not None and (last := self._splitter.finish()):
                self._images.extend(last)
            else:
                self._check_end()
                return None
        return None

    def _take(self, data: bytes) -> None:
        """Put bytes where they belong, once it is known what they are."""
        if self._splitter is not None:
            self._images.extend(self._splitter.feed(data))
            return
        self._buffer += data
        if not self._known and len(self._buffer) >= len(MAGIC):
            self._known = True
            self._headed = self._buffer.startswith(MAGIC)
            if not self._headed:
                self._splitter = JpegSplitter()
                self._images.extend(self._splitter.feed(bytes(self._buffer)))
                self._buffer.clear()

    def _decoded(self) -> NDArray[np.uint8] | None:
        """Return the next JPEG of a row of them."""
        if self._splitter is not None and self._splitter.corrupted > self._counted:
            self._corrupted(self._splitter.corrupted - self._counted)
            self._counted = self._splitter.corrupted
        while self._images:
            try:
                return self._decode(self._images.popleft())
            except ImageError:
                self._corrupted(1)
        return None

    def _framed(self) -> NDArray[np.uint8] | RawFrame | None:
        """Return the next frame with a header, if all of it is here."""
        while len(self._buffer) >= _HEADER.size and self._wanted() <= 0:
            length, layout = self._header()
            end = _HEADER.size + length
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            if layout is None:
                # Decoders pass over much of what is wrong with a JPEG; the splitter doesn't.
                splitter = JpegSplitter()
                images = splitter.feed(payload) + splitter.finish()
                try:
                    return self._decode(images[0] if images else b"")
                except ImageError:
                    self._corrupted(1)
                    continue
            raw = RawFrame(np.frombuffer(payload, np.uint8), layout)
            # Without the camera's own colours there is nothing to keep for the GPU.
            return raw if layout.format in _YUV else raw.to_bgr()
        return None

    def _wanted(self) -> int:
        """Return how many bytes the frame that the buffer begins with still lacks."""
        return max(_HEADER.size + self._header()[0] - len(self._buffer), 0)

    def _header(self) -> tuple[int, PixelLayout | None]:
        """Read the header that the buffer begins with."""
        magic, place, standard, zero, width, height, length = _HEADER.unpack_from(self._buffer)
        where = f"{self.name}: the header of frame {self._delivered}"
        if magic != MAGIC or zero != 0 or place >= len(_FORMATS):
            raise SourceError(f"{where} makes no sense: see edge_fg.sources.stdin for its format")
        pixel_format = _FORMATS[place]
        if pixel_format is None:
            if width or height or standard or not 0 < length <= MAX_JPEG_BYTES:
                raise SourceError(f"{where} makes no sense for a JPEG of {length} bytes")
            return length, None
        if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
            raise SourceError(f"{where} states {width} x {height} pixels")
        yuv = pixel_format in _YUV
        if standard >= (len(_STANDARDS) if yuv else 1):
            raise SourceError(f"{where} states the unknown colour standard {standard}")
        layout = PixelLayout(
            pixel_format, height, width, standard=_STANDARDS[standard] if yuv else None
        )
        if length != layout.nbytes:
            raise SourceError(f"{where} states {length} bytes, where {layout.nbytes} are needed")
        return length, layout

    def _corrupted(self, count: int) -> None:
        self._board.add("corrupted", count)
        self._lost += count

    def _receive(self) -> bytes:
        """Return the next bytes, none at the end; waits in small steps, to be stoppable."""
        try:
            number = self._stream.fileno()
        except (OSError, AttributeError, ValueError):
            return self._stream.read(_READ_BYTES)  # a file in memory never waits
        began = time.monotonic()
        try:
            ready = select.poll()
            ready.register(number, select.POLLIN)
            while not ready.poll(_LOOK_MS):
                if self._stopped.is_set():
                    return b""
                silent = time.monotonic() - began
                if silent > self._options.timeout:
                    self._stalled(silent)
            data = os.read(number, _READ_BYTES)
        except OSError as error:
            raise SourceError(f"can't read {self.name}: {error.strerror or error}") from error
        self._board.change("live", "bytes come again")
        return data

    def _stalled(self, silent: float) -> None:
        if self._board.change("stalled", f"nothing came for {silent:.1f} s", only_from="live"):
            self._board.add("stalls")

    def _check_end(self) -> None:
        if self._stopped.is_set():
            return
        rest = len(self._buffer) if self._splitter is None else int(self._splitter.in_image)
        if rest:
            raise TruncatedSourceError(
                f"{self.name} ended in the middle of frame {self._delivered}: "
                "the program that writes was stopped"
            )
        if self._delivered == 0:
            raise SourceError(f"{self.name} held no frame: give it JPEGs, or frames with headers")
