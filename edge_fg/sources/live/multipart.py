"""The parts of an MJPEG stream over HTTP (RFC 2046, 5.1), taken by the lengths that it states."""

from __future__ import annotations

import re
from typing import Final

from edge_fg.errors import SourceError
from edge_fg.jpeg import EOI
from edge_fg.sources.jpeg_splitter import MAX_GAP_BYTES, MAX_JPEG_BYTES, JpegSplitter

_MAX_HEAD_BYTES: Final = 1 << 13
_LENGTH = re.compile(rb"(?im)^content-length[ \t]*:[ \t]*([0-9]{1,10})[ \t]*\r?$")
_STAMP = re.compile(rb"(?im)^x-timestamp[ \t]*:[ \t]*([0-9]{1,10}(?:\.[0-9]{1,9})?)[ \t]*\r?$")
_OTHER_TYPE = re.compile(rb"(?im)^content-type[ \t]*:[ \t]*(?!image/)[^\s]+")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_PADDING = b"\0\r\n "


class StampedJpeg(bytes):
    """An image with the time that its part states (``X-Timestamp``), in seconds; None if none."""

    stamp_s: float | None = None


class MultipartSplitter:
    """Cuts the images out of a multipart body that arrives in pieces of any length.

    A part must be exactly one whole JPEG. Cameras that never write the end marker, EOI, are known
    by their first two parts; the marker is added, as browsers do. Where a camera writes it and one
    image has none, that image was cut, and is left out.

    If the first part states no length, or one that doesn't fit, lengths are not used at all: the
    stream is cut by `JpegSplitter`.
    """

    def __init__(self, boundary: str) -> None:
        # Some cameras state the boundary with the dashes that belong before it.
        name = re.escape(boundary.strip("-").encode("latin-1", "replace"))
        self._boundary = re.compile(rb"--" + name + rb"(?:--)?[ \t]*\r?\n")
        self._buffer = bytearray()
        self._at = 0  # of what was not used yet; what was is kept until there is a good part
        self._need: int | None = None  # length of the part that the buffer goes on with
        self._is_image = True  # that part
        self._stamp_s: float | None = None  # of that part
        self._has_eoi: bool | None = None  # whether the camera writes it; None: no good part yet
        self._held: bytes | None = None  # the first image without it
        self._searching = False  # for the boundary, after damage
        self._corrupted = 0
        self._plain: JpegSplitter | None = None

    @property
    def corrupted(self) -> int:
        """Damage so far that cost images."""
        return self._corrupted + (self._plain.corrupted if self._plain else 0)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the images that they complete; raises as `JpegSplitter`."""
        self._buffer += data
        images: list[bytes] = []
        if self._plain is None:
            while self._read_head() if self._need is None else self._read_part(self._need, images):
                pass
        if self._plain is not None:
            images += self._plain.feed(bytes(self._buffer))
            self._buffer.clear()
        return images

    def finish(self) -> list[bytes]:
        """Return the image that the stream ended with, if it was in doubt."""
        return [] if self._plain is None else self._plain.finish()

    def _read_head(self) -> bool:
        """Read boundary and headers of the next part; False when that can't be done (yet)."""
        found = self._boundary.search(self._buffer, self._at)
        gap = self._buffer[self._at : found.start() if found else None].strip(_PADDING)
        unfinished = found is None and gap.startswith(b"-") and len(gap) < _MAX_HEAD_BYTES
        if gap.strip(b"-") and not (unfinished or self._searching) and not self._damaged():
            return False  # the length didn't fit
        if found is None:
            if len(gap) > MAX_GAP_BYTES:
                raise SourceError(f"{MAX_GAP_BYTES} bytes were sent without an image")
            return False
        head_end = _HEAD_END.search(self._buffer, found.end() - 2)
        if head_end is None:
            if len(self._buffer) - found.end() > _MAX_HEAD_BYTES:
                self._at = found.end()
                return self._damaged()
            return False
        head = self._buffer[found.end() : head_end.end()]
        length = _LENGTH.search(head)
        self._is_image = _OTHER_TYPE.search(head) is None
        stamp = _STAMP.search(head)
        self._stamp_s = float(stamp[1]) if stamp else None
        self._at, self._searching = head_end.end(), False
        if length is None or not (self._is_image or self._has_eoi is not None):
            return self._damaged()
        self._need = int(length[1])
        if self._need > MAX_JPEG_BYTES:
            raise SourceError(f"an image of more than {MAX_JPEG_BYTES} bytes was sent")
        return True

    def _read_part(self, need: int, images: list[bytes]) -> bool:
        """Take a part by its length; False when that can't be done (yet)."""
        end = self._at + need
        if len(self._buffer) < end:
            return False
        self._need = None
        data = bytes(self._buffer[self._at : end])
        if data.rstrip(_PADDING).endswith(EOI):
            data = data.rstrip(_PADDING)
        if self._is_image and _is_whole(data):
            self._corrupted += self._held is not None
            self._held, self._has_eoi = None, True
            images.append(self._stamped(data))
        elif self._is_image and (self._has_eoi or not _is_whole(data + EOI)):
            # The length may reach over the next boundary.
            inside = self._boundary.search(self._buffer, self._at, end)
            self._at = inside.start() if inside else end
            return self._damaged(searching=False)
        elif self._is_image and self._has_eoi is None and self._held is None:
            self._held = self._stamped(data + EOI)
        elif self._is_image:
            images += [self._held] if self._held else []
            images.append(self._stamped(data + EOI))
            self._held, self._has_eoi = None, False
        self._at = end
        if self._has_eoi is not None:
            del self._buffer[: self._at]
            self._at = 0
        return True

    def _stamped(self, data: bytes) -> StampedJpeg:
        image = StampedJpeg(data)
        image.stamp_s = self._stamp_s
        return image

    def _damaged(self, *, searching: bool = True) -> bool:
        """Count damage; without a good part before it, use no lengths: then False."""
        if self._has_eoi is None:
            self._plain = JpegSplitter()
            return False
        self._corrupted += 1
        self._searching = searching
        return True


def _is_whole(data: bytes) -> bool:
    splitter = JpegSplitter()
    return splitter.feed(data) + splitter.finish() == [data]
