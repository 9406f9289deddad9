"""JPEGs: their markers, the size that one states, and the decoder, which notices damage.

libjpeg decodes damaged data as well as it can and only *warns*, which Pillow and OpenCV keep from
their callers. simplejpeg is libjpeg-turbo with the same settings, gives the same pixels, and hands
on the first warning of each image. What JPEG has no check for stays unnoticed: a change after
which the decoder finds exactly as many blocks as there should be.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import JpegImagePlugin

from edge_fg.errors import ImageError

MAX_STREAM_PIXELS: Final = 100_000_000
"""Most pixels of an image in a stream: four times what the largest cameras stream."""

MAX_PIXELS_PER_BYTE: Final = 1000
"""More pixels a byte than any photograph has; a JPEG's shortest code holds 512."""

SOI, EOI = b"\xff\xd8", b"\xff\xd9"  # start and end of an image
FRAME_HEADERS: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Second bytes of the markers of frame headers, which state the size."""
START_OF_SCAN: Final = 0xDA
SEGMENTS: Final = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE})
"""Second bytes of the markers that begin a segment with a length."""
END_OF_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""In the data of a scan: any marker but a stuffed zero, a restart and fill bytes."""

_logger = logging.getLogger("edge_fg")

# Each scan is a pass over the whole image, and encoders write at most about twenty.
_MAX_SCANS, _MAX_SCANNED_PIXELS = 100, 2_000_000_000
# Some cameras leave up to ten bytes before a marker in every good frame.
_FEW_BYTES = 16
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
_MAX_SEGMENTS = 10_000
_MAX_SIDE, _MAX_PARTS = 65500, 10_000
_HUFFMAN_TABLES, _RESTART_INTERVAL = 0xC4, 0xDD
_SEQUENTIAL = (0xC0, 0xC1)
_ZEROS = bytes(64)
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker")
_ENDED = "Premature end of JPEG file"
# How libjpeg's warnings of lost data begin. Others are of odd headers, with whole pixels.
_LOST = ("Corrupt JPEG data", "Premature end", "Inconsistent progression")


class DecodedJpeg(NamedTuple):
    """The pixels of a JPEG, H x W x 3 uint8 BGR, and what was odd about it without harm."""

    pixels: NDArray[np.uint8]
    note: str | None


class _Segment(NamedTuple):
    kind: int  # the second byte of its marker
    start: int
    end: int  # of a scan: where its data begin


class _Header(NamedTuple):
    """What stands before the data of the first scan."""

    frame: _Segment
    width: int
    height: int
    components: int
    scan: _Segment
    is_simple: bool  # whether all pixels are in this scan, block by block


def jpeg_size(data: bytes, max_segments: int = _MAX_SEGMENTS) -> tuple[int, int]:
    """Return the width and height that a JPEG states; `ImageError` for anything else."""
    for segment in _segments(data, max_segments):
        if segment.kind in FRAME_HEADERS and len(data) >= segment.start + 9:
            return _size(data, segment)
        if segment.kind == START_OF_SCAN:
            break
    raise ImageError("this JPEG states no size")


def decode_jpeg(data: bytes, max_pixels: int = MAX_STREAM_PIXELS) -> DecodedJpeg:
    """Decode a JPEG into exactly Pillow's pixels.

    An `ImageError` says that it lost data, is cut short, is not a JPEG or can't be decoded, has
    more than `max_pixels` pixels, or was made to take long. A missing end marker is no loss.
    """
    if data.endswith(_ZEROS):  # what was left of a buffer
        data = data.rstrip(b"\0")
    data, note = _without_extra(data)
    header = _read_header(data)
    _check_effort(data, header, max_pixels)
    if _has_zeros(data, header):
        raise ImageError("a part of its data was overwritten with zeros")
    pixels = np.empty((header.height, header.width, 3), np.uint8)
    report = _decode_into(pixels, data, header)
    if report and report.startswith(_ENDED):
        data += EOI
        report = _decode_into(pixels, data, header)
        if report and not _EXTRANEOUS.search(report):
            raise ImageError(f"it is truncated ({report})")
    if report and report.startswith(_LOST):
        _check_loss(report)
        # Later warnings are not told.
        for part in _restarted_parts(data, header):
            _check_loss(_decode_into(None, part, header))
        note = "a few bytes too many in the data"
    elif report or header.components not in (1, 3):
        # Not for simplejpeg, such as a fourth colour.
        pixels = _decoded_by_pillow(data, report)
    return DecodedJpeg(pixels, note)


class JpegDecoder:
    """Decodes the JPEGs of the source `name`; what is odd in them is logged once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told = False

    def __call__(self, data: bytes) -> NDArray[np.uint8]:
        """Return H x W x 3 uint8 BGR; raises as `decode_jpeg`."""
        pixels, note = decode_jpeg(data)
        if note and not self._told:
            self._told = True
            _logger.warning("%s sends JPEGs with %s: they are used", self._name, note)
        return pixels


def _segments(data: bytes, max_segments: int = _MAX_SEGMENTS) -> Iterator[_Segment]:
    """Yield the segments up to the end of the image; `ImageError` if it is no JPEG."""
    if not data.startswith(SOI):
        raise ImageError("this is not a JPEG")
    at = 2
    for _ in range(max_segments):
        found = _MARKER.search(data, at)
        if found is None:
            return
        kind, start = found[1][0], found.end() - 2
        if kind == EOI[1]:
            return
        end = start + 2
        if kind in SEGMENTS:
            end += max(2, int.from_bytes(data[start + 2 : start + 4], "big"))
        yield _Segment(kind, start, end)
        at = end + len(_scan_data(data, end)) if kind == START_OF_SCAN else end
    raise ImageError(f"it has more than {max_segments} segments")


def _size(data: bytes, frame: _Segment) -> tuple[int, int]:
    at = frame.start + 5
    return int.from_bytes(data[at + 2 : at + 4], "big"), int.from_bytes(data[at : at + 2], "big")


def _scan_data(data: bytes, start: int) -> bytes:
    after = END_OF_SCAN.search(data, start)
    return data[start : after.start() if after else None]


def _without_extra(data: bytes) -> tuple[bytes, str | None]:
    """Return the image without bytes in its header that are in no segment, and a note of them."""
    kept, at, extra = [SOI], 2, 0
    for kind, start, end in _segments(data):
        # Fill bytes belong to the marker.
        extra += len(data[at:start].rstrip(b"\xff"))
        at = end
        if kind == SOI[1]:  # some webcams begin twice
            extra += len(SOI)
            continue
        kept.append(data[start:end])
        if kind == START_OF_SCAN:
            break
    if not extra:
        return data, None
    return b"".join([*kept, data[at:]]), f"bytes too many in the header ({extra})"


def _read_header(data: bytes) -> _Header:
    frame = None
    for segment in _segments(data):
        if segment.kind in FRAME_HEADERS and frame is None:
            frame = segment
        if segment.kind == START_OF_SCAN and frame is not None and len(data) > segment.end:
            components = data[frame.start + 9]
            is_simple = frame.kind in _SEQUENTIAL and data[segment.start + 4] == components
            return _Header(frame, *_size(data, frame), components, segment, is_simple)
    raise ImageError("it is truncated or no JPEG: it ends before its pixels begin")


def _check_effort(data: bytes, header: _Header, max_pixels: int) -> None:
    """Refuse what would take long or much memory."""
    pixels = header.width * header.height
    size = f"{header.width} x {header.height} pixels"
    if not 0 < pixels <= max_pixels:
        raise ImageError(f"it has {size}: from 1 to {max_pixels} are decoded")
    if pixels > MAX_PIXELS_PER_BYTE * len(data):
        raise ImageError(f"it says that it has {size}, which {len(data)} bytes can't hold")
    if header.is_simple:
        return  # libjpeg takes no other scan then
    scans = sum(segment.kind == START_OF_SCAN for segment in _segments(data))
    most = min(_MAX_SCANS, _MAX_SCANNED_PIXELS // pixels)
    if scans > most:
        raise ImageError(f"it has {scans} scans of {size}, at most {most} are decoded")


def _decode_into(pixels: NDArray[np.uint8] | None, data: bytes, header: _Header) -> str | None:
    """Fill `pixels`, if they have one or three components; return libjpeg's first complaint."""
    try:
        if header.components in (1, 3):
            simplejpeg.decode_jpeg(data, "BGR", buffer=pixels)
        else:
            simplejpeg.decode_jpeg(data, "CMYK")
    except ValueError as error:
        return str(error)
    return None


def _check_loss(report: str | None) -> None:
    """Raise unless nothing, or a few bytes that are too many, is all that libjpeg complains of."""
    if report is not None:
        extraneous = _EXTRANEOUS.search(report)
        if extraneous is None or int(extraneous[1]) > _FEW_BYTES:
            raise ImageError(f"it has lost data ({report})")


def _restarted_parts(data: bytes, header: _Header) -> Iterator[bytes]:
    """Yield what stands between the restart markers, each part as an image of one row of blocks.

    Nothing where there are no restarts, or too many of them. `ImageError` if parts are missing.
    """
    interval = 0
    for kind, start, _ in _segments(data[: header.scan.end]):
        if kind == _RESTART_INTERVAL:
            interval = int.from_bytes(data[start + 4 : start + 6], "big")
    at = header.frame.start + 11
    factors = data[at : at + 3 * header.components : 3] if header.components > 1 else b"\x11"
    wide, high = 8 * max(f >> 4 for f in factors), 8 * max(f & 15 for f in factors)
    blocks = -(-header.width // wide) * -(-header.height // high)
    is_possible = 0 < interval * wide <= _MAX_SIDE and blocks <= interval * _MAX_PARTS
    if not (header.is_simple and is_possible):
        return
    parts = _RESTART.split(_scan_data(data, header.scan.end))
    if len(parts) != -(-blocks // interval):
        raise ImageError("it has lost data (restart markers are missing)")
    for number, part in enumerate(parts):
        width = wide * min(interval, blocks - number * interval)
        size = high.to_bytes(2, "big") + width.to_bytes(2, "big")
        start = header.frame.start
        yield data[: start + 5] + size + data[start + 9 : header.scan.end] + part + EOI


def _decoded_by_pillow(data: bytes, report: str | None) -> NDArray[np.uint8]:
    try:
        with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
            rgb = np.asarray(image.convert("RGB"), np.uint8)
    # Decoders meet damaged data with errors of nearly any type.
    except Exception as error:
        what = report or f"{type(error).__name__}: {error}"
        raise ImageError(f"it can't be decoded ({what})") from error
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _has_zeros(data: bytes, header: _Header) -> bool:
    """Whether a scan holds a run of zeros that no encoder writes, as a failing card gives it.

    The first code of each Huffman table is all zeros. Where it doesn't mean "end of block", zeros
    stand for blocks full of the same coefficient.
    """
    if data.find(_ZEROS, header.scan.end) < 0 or header.frame.kind not in _SEQUENTIAL:
        return False
    ends_block = {0: False, 1: True}  # of the tables that are used where an image has none
    for kind, start, end in _segments(data):
        if kind == _HUFFMAN_TABLES:
            at = start + 4
            while at + 17 < min(end, len(data)):
                if data[at] & 0x10:  # for AC coefficients
                    ends_block[data[at] & 15] = data[at + 17] == 0
                at += 17 + sum(data[at + 1 : at + 17])
        elif kind == START_OF_SCAN:
            tables = data[start + 6 : start + 5 + 2 * data[start + 4] : 2]
            suspect = not all(ends_block.get(table & 15, True) for table in tables)
            if suspect and _ZEROS in _scan_data(data, end):
                return True
    return False
