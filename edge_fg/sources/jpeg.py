"""JPEG pictures cut out of a stream of bytes, checked, and decoded.

The bytes come from cameras and pipes and are not to be trusted. A picture is cut out by its own
structure (ITU-T T.81, annex B): from its first marker, SOI, through segments that state their
length and scans that hold no marker but their own, to its last, EOI. What stands between the
pictures of an MJPEG stream (boundaries, headers, garbage) never needs to be believed.

Bytes that were changed or left out within a scan, so that its markers still make sense, can't be
told: JPEG has no checksum, and decoders fill up what is missing without a word.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_fg.errors import ImageError, SourceError

MAX_JPEG_BYTES: Final = 64 << 20
"""Longest picture in a stream."""
MAX_GAP_BYTES: Final = 1 << 20
"""Most bytes between two pictures, after which a stream is none of pictures."""
MAX_STREAM_PIXELS: Final = 100_000_000
"""Most pixels of a picture in a stream: four times what the largest cameras stream."""

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
# Within a scan: any marker but a stuffed zero, a restart and fill bytes.
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_START_OF_SCAN = 0xDA
# Markers that begin a segment with a length.
_SEGMENTS = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE})
# Application data and comments may hold anything, thumbnails too. Where the start of a picture
# stands in a table, the picture was cut there and the next one has begun.
_MAY_HOLD_PICTURES = frozenset({*range(0xE0, 0xF0), 0xFE})
_NEXT = _SOI + b"\xff"
_KNOWN_MARKERS = _SEGMENTS | {0xD9, 0xFF}
_TEXT = re.compile(rb"[\t\r\n\x20-\x7e]*")


class JpegSplitter:
    """Cuts whole JPEG pictures out of bytes that arrive in pieces of any length.

    A picture that is cut short by the next one, or that holds a marker where none may be, is
    left out and counted in `corrupted`; so are stretches of bytes between pictures that are not
    text, for boundaries and headers are. Memory is bounded by the two limits.

    Parameters
    ----------
    max_bytes
        Longest picture.
    max_gap
        Most bytes between two pictures.
    """

    def __init__(self, max_bytes: int = MAX_JPEG_BYTES, max_gap: int = MAX_GAP_BYTES) -> None:
        self.corrupted = 0
        self._max_bytes = max_bytes
        self._max_gap = max_gap
        self._buffer = bytearray()
        self._inside = False  # whether the buffer begins with a picture
        self._at = 0  # how far the picture has been followed
        self._in_scan = False
        self._gap = 0
        self._gap_is_text = True
        self._gap_counts = True  # not when it is the rest of a picture that was counted

    @property
    def in_picture(self) -> bool:
        """Whether the bytes so far end within a picture."""
        return self._inside

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the pictures that they complete.

        Raises
        ------
        SourceError
            A picture, or the gap between two, exceeds its limit.
        """
        self._buffer += data
        pictures: list[bytes] = []
        while self._step(pictures):
            pass
        return pictures

    def _step(self, pictures: list[bytes]) -> bool:
        """Do what can be done next; False when more bytes are needed."""
        if not self.in_picture:
            return self._find_start()
        end = self._follow()
        if end is not None:
            pictures.append(bytes(self._buffer[:end]))
            del self._buffer[:end]
            self._inside = False
            return True
        gave_up = not self.in_picture
        if not gave_up and len(self._buffer) > self._max_bytes:
            raise SourceError(f"a picture of more than {self._max_bytes} bytes was sent")
        return gave_up

    def _find_start(self) -> bool:
        start = self._buffer.find(_SOI)
        # The last byte may be the first half of a marker.
        skipped = start if start >= 0 else len(self._buffer) - self._buffer.endswith(b"\xff")
        self._gap += skipped
        self._gap_is_text &= _TEXT.fullmatch(self._buffer, 0, skipped) is not None
        del self._buffer[:skipped]
        if self._gap > self._max_gap:
            raise SourceError(f"{self._max_gap} bytes were sent without a picture")
        if start < 0:
            return False
        self.corrupted += self._gap_counts and not self._gap_is_text
        self._gap, self._gap_is_text, self._gap_counts = 0, True, True
        self._inside, self._in_scan, self._at = True, False, 2
        return True

    def _follow(self) -> int | None:
        """Follow the picture; its length once it is whole, None as long as it isn't."""
        buffer = self._buffer
        while self._skip_scan() and len(buffer) >= self._at + 2:
            kind = buffer[self._at + 1]
            if buffer[self._at] != 0xFF or kind not in _KNOWN_MARKERS:
                self._give_up()
                break
            if kind == _EOI[1]:
                return self._at + 2
            if kind == 0xFF:
                self._at += 1  # a fill byte
            elif not self._skip_segment(kind):
                break
        return None

    def _skip_scan(self) -> bool:
        """Go to the marker that ends a scan; False when it isn't here yet."""
        if self._in_scan:
            found = _MARKER_IN_SCAN.search(self._buffer, self._at)
            if found is None:
                # The last byte may be the first half of a marker.
                self._at = max(self._at, len(self._buffer) - 1)
                return False
            self._at, self._in_scan = found.start(), False
        return True

    def _skip_segment(self, kind: int) -> bool:
        """Go behind a segment; False when it isn't all here, or can't be one."""
        buffer = self._buffer
        if len(buffer) < self._at + 5:
            return False
        if buffer.startswith(_NEXT, self._at + 2):  # no length, but the next picture
            self._give_up()
            return False
        length = int.from_bytes(buffer[self._at + 2 : self._at + 4], "big")
        end = self._at + 2 + length
        is_table = kind not in _MAY_HOLD_PICTURES
        # Two bytes more: the next picture may begin with the segment's last byte.
        if is_table and len(buffer) < end + 2:
            return False
        if length < 2 or (is_table and buffer.find(_NEXT, self._at, end + 2) >= 0):
            self._give_up()
            return False
        self._at = end
        self._in_scan = kind == _START_OF_SCAN
        return True

    def _give_up(self) -> None:
        """Leave this picture out, and go on behind the place where it stopped making sense.

        Not sooner: a smaller picture may be embedded in its first segments.
        """
        self.corrupted += 1
        self._inside = False
        starts_anew = self._buffer[self._at : self._at + 2] == _SOI
        del self._buffer[: self._at + (0 if starts_anew else 1)]
        self._gap_counts = False


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return the width and height that a JPEG states.

    Raises
    ------
    ImageError
        It is not a JPEG, or not whole.
    """
    at = 2
    if not data.startswith(_SOI):
        raise ImageError("this is not a JPEG")
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:
            at += 1
            continue
        if kind in _FRAME_HEADERS:
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
            return width, height
        if kind not in _SEGMENTS or kind == _START_OF_SCAN:
            break
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    raise ImageError("this JPEG states no size")


def decoder() -> Callable[[bytes], NDArray[np.uint8]]:
    """Return the faster of the JPEG decoders that are installed: OpenCV's, else Pillow's.

    Both are libjpeg-turbo with the same settings and give the same pixels; OpenCV's takes half
    the time. The function returned gives H x W x 3 uint8 BGR and raises `ImageError`.
    """
    try:
        import cv2
    except ImportError:
        return decode_by_pillow
    how = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION

    def decode_by_opencv(data: bytes) -> NDArray[np.uint8]:
        _check_size(data)
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
        except cv2.error as error:
            raise ImageError(f"a JPEG can't be decoded: {error}") from error
        if image is None:
            raise ImageError("a JPEG can't be decoded")
        return np.asarray(image, np.uint8)

    return decode_by_opencv


def decode_by_pillow(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG; H x W x 3 uint8 BGR.

    Raises
    ------
    ImageError
        It can't be decoded.
    """
    _check_size(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                rgb = np.asarray(image.convert("RGB"), np.uint8)
    # Decoders meet damaged data with errors of nearly any type.
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise ImageError(f"a JPEG can't be decoded ({what})") from error
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _check_size(data: bytes) -> None:
    width, height = jpeg_size(data)
    if not 0 < width * height <= MAX_STREAM_PIXELS:
        raise ImageError(f"a JPEG of {width} x {height} pixels is not decoded")
