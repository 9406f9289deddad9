"""JPEG images cut out of a stream of bytes, and checked.

The bytes come from cameras and pipes and are not to be trusted. An image is cut out by its own
structure (ITU-T T.81, annex B): from its first marker, SOI, through segments that state their
length and scans that hold no marker but their own, to its last, EOI. What stands between the
images of an MJPEG stream (boundaries, headers, garbage) need not be believed.

Bytes that were changed or left out within a scan, so that its markers still make sense, can't be
noticed here; the decoder notices most of them (`edge_fg.jpeg`).
"""

from __future__ import annotations

import enum
import heapq
import re
from collections import OrderedDict
from typing import Final

from edge_fg.errors import SourceError
from edge_fg.jpeg import END_OF_SCAN, EOI, FRAME_HEADERS, SEGMENTS, SOI, START_OF_SCAN, jpeg_size

MAX_JPEG_BYTES: Final = 64 << 20  # longest image in a stream
MAX_GAP_BYTES: Final = 1 << 20  # between two images; with more, a stream is none of images

# Application data and comments may hold anything, thumbnails too. Where the start of an image
# stands in a table, the image was cut there and the next one has begun.
_MAY_HOLD_IMAGES = frozenset({*range(0xE0, 0xF0), 0xFE})
# SOI, with the first half of the marker that follows.
_NEXT = SOI + b"\xff"
_KNOWN_MARKERS = SEGMENTS | {0xD9, 0xFF}
_TAIL = re.compile(rb"(?:\xff\xd8?)?\Z")  # what may become the start of an image
_TEXT = re.compile(rb"[\t\r\n\x20-\x7e]*")


class _Stage(enum.IntEnum):
    """How far an image has been followed."""

    TABLES = 0  # no frame header yet
    FRAME = 1  # no scan yet
    SCANNED = 2  # behind a scan
    IN_SCAN = 3
    WHOLE = 4
    BROKEN = 5


class JpegSplitter:
    """Cuts whole JPEG images out of bytes that arrive in pieces of any length.

    Every SOI begins a *candidate*, whose structure is followed. An image that was cut within a
    segment swallows the start of the next one, and its structure may lead into that one by
    chance. So candidates that begin in a segment of another are followed beside it:

    - One that ends while an older one is followed is a thumbnail in the older one's segment.
    - Where an older and a younger one meet, the older one was cut and the younger one is next.
    - One that ends while a younger one is followed, or has another size than the one before it,
      is doubtful: it may be a thumbnail behind damage. It is an image if only text stands
      between it and the next SOI. So it comes out once the next one begins, others at their end.

    Damage that cost images is counted in `corrupted`; so are stretches of bytes between images
    that are not text, for boundaries and headers are. A cut within a segment may cost the images
    in the 64 KiB behind it. Memory is bounded by the limits (most bytes of an image, and between
    two), and time is linear in the bytes.
    """

    def __init__(self, max_bytes: int = MAX_JPEG_BYTES, max_gap: int = MAX_GAP_BYTES) -> None:
        self.corrupted = 0
        self._max_bytes = max_bytes
        self._max_gap = max_gap
        self._buffer = bytearray()
        # All places are counted from the start of the stream.
        self._base = 0  # of the buffer
        self._searched = 0  # each SOI before here has become a candidate
        self._unmarked = 0  # no marker from the scan that was searched last up to here
        self._gap_start = 0
        self._counted = 0  # candidates that begin before here belong to damage that was counted
        self._heap: list[tuple[int, _Stage, int]] = []  # place, stage and start of candidates
        self._starts: OrderedDict[int, None] = OrderedDict()  # of candidates, oldest first
        self._doubtful: tuple[int, int] | None = None  # start and end of a whole image
        self._text_end = 0  # of what has been seen behind it
        self._trusted = True  # whether only text came between the last image and the oldest start
        self._size_wh: tuple[int, int] | None = None  # of the last whole image

    @property
    def in_image(self) -> bool:
        """Whether the bytes so far end within an image."""
        return bool(self._starts) or self._buffer == SOI

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the images that they complete.

        `SourceError` if an image, or the gap between two, exceeds its limit.
        """
        self._buffer += data
        images: list[bytes] = []
        while self._step(images):
            pass
        begin = self._doubtful[0] if self._doubtful else next(iter(self._starts), self._searched)
        del self._buffer[: begin - self._base]
        self._base = begin
        if self._doubtful is None and self._starts:
            self._check_length(len(self._buffer))
        return images

    def finish(self) -> list[bytes]:
        """Return the doubtful image that the stream ended with, if nothing speaks against it."""
        images: list[bytes] = []
        if self._doubtful is not None:
            start, end = self._doubtful
            if _TEXT.fullmatch(self._buffer, end - self._base):
                self._hand_on(start, end, images)
        return images

    def _step(self, images: list[bytes]) -> bool:
        """Do what can be done next; False when more bytes are needed."""
        if self._doubtful is not None:
            return self._decide(*self._doubtful, images)
        if not self._heap:
            return self._find_start()
        return self._find_nested(self._heap[0][0]) or self._follow(*self._heap[0], images)

    def _find_start(self) -> bool:
        """Go through the gap to the next SOI."""
        begin = self._searched - self._base
        found = self._buffer.find(_NEXT, begin)
        tail = _TAIL.search(self._buffer, max(begin, len(self._buffer) - 2))
        end = tail.start() if found < 0 and tail else found
        if self._trusted and not _TEXT.fullmatch(self._buffer, begin, end):
            self._trusted = False
            self.corrupted += 1
        self._searched = self._base + end
        self._check_gap(self._searched - self._gap_start)
        if found >= 0:
            self._add(self._searched)
        return found >= 0

    def _find_nested(self, end: int) -> bool:
        """Find an SOI between two markers of a candidate."""
        begin, end = self._searched - self._base, end - self._base
        found = self._buffer.find(_NEXT, begin, end + 2)
        if found >= 0:
            self._add(self._base + found)
        else:
            self._searched = self._base + max(begin, min(end, len(self._buffer) - 2))
        return found >= 0

    def _add(self, start: int) -> None:
        self._starts[start] = None
        self._searched = start + len(SOI)
        heapq.heappush(self._heap, (self._searched, _Stage.TABLES, start))

    def _follow(self, place: int, stage: _Stage, start: int, images: list[bytes]) -> bool:
        """Follow the candidate that is furthest behind to its next marker."""
        if stage == _Stage.IN_SCAN:
            return self._skip_scan(place, start)
        after = _pass_marker(self._buffer, place - self._base, stage)
        if after is None:
            return False
        heapq.heappop(self._heap)
        is_oldest = start == next(iter(self._starts))
        there, stage_there = self._base + after[0], after[1]
        meets = bool(self._heap) and self._heap[0][:2] == (place, stage)
        if stage_there < _Stage.WHOLE and not meets:
            heapq.heappush(self._heap, (there, stage_there, start))
            return True
        del self._starts[start]
        if not is_oldest:
            return True
        if meets or stage_there == _Stage.BROKEN:
            self._leave_out(start, place)
        else:
            self._complete(start, there, images)
        return True

    def _skip_scan(self, place: int, start: int) -> bool:
        """Go to the marker that ends a scan; False when it isn't here yet."""
        found = END_OF_SCAN.search(self._buffer, max(place, self._unmarked) - self._base)
        if found is None:
            # The last byte may be the first half of a marker.
            self._unmarked = max(place, self._base + len(self._buffer) - 1)
            return False
        self._unmarked = self._base + found.start()
        heapq.heapreplace(self._heap, (self._unmarked, _Stage.SCANNED, start))
        return True

    def _complete(self, start: int, end: int, images: list[bytes]) -> None:
        """Hand on the oldest candidate, which is whole, or doubt it."""
        self._check_length(end - start)
        is_first = self._trusted and self._size_wh is None
        if not self._starts and (is_first or self._size_of(start, end) == self._size_wh):
            self._hand_on(start, end, images)
        else:
            self._doubtful = start, end
            self._text_end = end

    def _decide(self, start: int, end: int, images: list[bytes]) -> bool:
        """Decide on a doubtful image by what follows; False when that isn't here yet."""
        text = _TEXT.match(self._buffer, self._text_end - self._base)
        assert text is not None  # it may be empty
        self._text_end = self._base + text.end()
        self._check_gap(self._text_end - end)
        if self._buffer.startswith(_NEXT, text.end()):
            self._hand_on(start, end, images)
            return True
        if _TAIL.match(self._buffer, text.end()):
            return False
        self._size_wh = self._size_of(start, end)
        self._leave_out(start, end)
        return True

    def _hand_on(self, start: int, end: int, images: list[bytes]) -> None:
        images.append(bytes(self._buffer[start - self._base : end - self._base]))
        self._size_wh = self._size_of(start, end)
        self._heap.clear()
        self._starts.clear()
        self._doubtful = None
        self._searched = self._gap_start = end
        self._trusted = True

    def _leave_out(self, start: int, place: int) -> None:
        """Give the oldest candidate up at a place; the next one may have begun before it."""
        self.corrupted += start >= self._counted
        self._counted = self._gap_start = place
        self._doubtful = None
        self._trusted = False

    def _size_of(self, start: int, end: int) -> tuple[int, int]:
        data = bytes(self._buffer[start - self._base : end - self._base])
        return jpeg_size(data, max_segments=len(data))

    def _check_length(self, length: int) -> None:
        if length > self._max_bytes:
            raise SourceError(f"an image of more than {self._max_bytes} bytes was sent")

    def _check_gap(self, length: int) -> None:
        if length > self._max_gap:
            raise SourceError(f"{self._max_gap} bytes were sent without an image")


def _pass_marker(buffer: bytearray, at: int, stage: _Stage) -> tuple[int, _Stage] | None:
    """Return where a marker and its segment end, and the stage then; None if bytes are missing."""
    if len(buffer) < at + 2:
        return None
    kind = buffer[at + 1]
    if buffer[at] != 0xFF or kind not in _KNOWN_MARKERS:
        return at, _Stage.BROKEN
    if kind == 0xFF:
        return at + 1, stage  # a fill byte
    if kind == EOI[1]:
        return at + 2, _Stage.WHOLE if stage == _Stage.SCANNED else _Stage.BROKEN
    if len(buffer) < at + 5:
        return None
    length = int.from_bytes(buffer[at + 2 : at + 4], "big")
    if length < 2 or buffer.startswith(_NEXT, at + 2):  # no length, but the next image
        return at, _Stage.BROKEN
    end = at + 2 + length
    if kind not in _MAY_HOLD_IMAGES:
        if len(buffer) <= end:  # one byte more: SOI may be the segment's last two
            return None
        if buffer.find(_NEXT, at, end + 1) >= 0:
            return at, _Stage.BROKEN
    if kind in FRAME_HEADERS:
        stage = _Stage.FRAME if stage == _Stage.TABLES else _Stage.BROKEN
    elif kind == START_OF_SCAN:
        stage = _Stage.IN_SCAN if stage != _Stage.TABLES else _Stage.BROKEN
    return end, stage
