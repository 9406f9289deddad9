"""What the structure of a video file says, for any decoder."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from edge_fg.errors import SourceError
from edge_fg.opencv import is_utf8
from edge_fg.sources.options import Flip

_HEAD_BYTES = 1 << 20  # as much as FFmpeg looks at
_MAX_CHUNKS = 4096
_IDENTIFIER = re.compile(rb"[ -~\xa9]{4}")
# FFmpeg takes such a text for a list of other files, or of addresses, and opens them all.
_PLAYLIST = re.compile(
    rb"(?m)\A(?:\xef\xbb\xbf)?\s*(?:#EXTM3U|ffconcat)|^c=IN IP|<MPD|<CompositionPlaylist"
)
# (a, b, c, d) of the matrix by which a player turns x, y: x' = ax + cy, y' = bx + dy.
_TURNS: Final[dict[tuple[int, ...], Flip]] = {
    (1, 0, 0, 1): "none",
    (0, 1, -1, 0): "clockwise",
    (-1, 0, 0, -1): "rotate-180",
    (0, -1, 1, 0): "counterclockwise",
    (-1, 0, 0, 1): "horizontal",
    (1, 0, 0, -1): "vertical",
    (0, 1, 1, 0): "upper-left-diagonal",
    (0, -1, -1, 0): "upper-right-diagonal",
}


@dataclass(frozen=True)
class Container:
    """What a file says of itself."""

    # Whether its end is there: False where its parts reach beyond it, None where nothing tells.
    whole: bool | None = None
    matrix: bytes | None = None  # how to show its frames, as MP4 and QuickTime write it


def examine(path: Path) -> Container:
    """Look at a video file before a decoder opens it.

    A `SourceError` says that it can't be read or is empty, or that it is a text: a playlist or a
    description of a stream makes decoders open other files and addresses.
    """
    if not is_utf8(os.fspath(path)):
        raise SourceError(f"OpenCV can't open {path}: its name is not UTF-8, rename it")
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(_HEAD_BYTES)
            if not head:
                raise SourceError(f"the video {path} is empty (0 bytes)")
            refuse_text(os.fspath(path), head)
            return _structure(file, head, size)
    except OSError as error:
        raise SourceError(f"can't read {path}: {error.strerror or error}") from error


def flip_of(matrix: bytes | None) -> Flip | None:
    """Return how a display matrix turns or mirrors frames; None for no multiple of 90 degrees."""
    if matrix is None:
        return "none"
    a, b, _, c, d = struct.unpack_from("=5i", matrix)
    largest = max(abs(a), abs(b), abs(c), abs(d), 1)
    return _TURNS.get(tuple(round(value / largest) for value in (a, b, c, d)))


def refuse_text(name: str, head: bytes) -> None:
    """Raise a `SourceError` if what begins with `head`, a kilobyte or all of it, is a text."""
    if head.startswith(b"ID3") and len(head) > 10:  # FFmpeg passes over such a tag
        seven = head[6:10]
        head = head[10 + (seven[0] << 21 | seven[1] << 14 | seven[2] << 7 | seven[3]) :]
    text = head.partition(b"\0")[0]
    # No video has a kilobyte without a zero.
    if _PLAYLIST.search(text) or text == head or len(text) > 1024:
        raise SourceError(
            f"can't open {name} as a video: it is a text, perhaps a playlist that names other "
            "files: give the video itself"
        )


def _structure(file: BinaryIO, head: bytes, size: int) -> Container:
    if head.startswith(b"RIFF"):
        return Container(_riff_is_whole(file, size))
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return Container(_matroska_is_whole(file, size))
    if head.startswith(b"FLV"):
        return Container(_flash_is_whole(file, size))
    if _IDENTIFIER.fullmatch(head[4:8]):
        boxes = list(_boxes(file, 0, size))
        is_whole = bool(boxes) and all(end <= size for _, _, end in boxes)
        return Container(is_whole, _matrix(file, boxes))
    # Neither a transport stream nor a row of coded images states where it ends.
    unbounded = (b"\x47", b"\0\0\1", b"\0\0\0\1", b"\xff\xd8", b"OggS")
    return Container(True if head.startswith(unbounded) or head[4:5] == b"\x47" else None)


def _riff_is_whole(file: BinaryIO, size: int) -> bool | None:
    """Return whether an AVI's parts lie within the file; None where their length was not written.

    Beyond a gigabyte it has several (OpenDML).
    """
    at = 0
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8).ljust(8, b"\0"))
        if name != b"RIFF":
            break
        if length < 4:
            return None
        at += 8 + length + length % 2
    return at <= size + 2  # without the last byte, and one that fills up


def _matroska_is_whole(file: BinaryIO, size: int) -> bool | None:
    """Return whether the segment lies within the file; None where it was written unbounded."""
    at = 0
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        head = file.read(16)
        width = _vint_width(head[:1])
        name, head = head[:width], head[width:]
        width = _vint_width(head[:1])
        if len(head) < width:
            return False
        length = int.from_bytes(head[:width], "big") & (1 << 7 * width) - 1
        if length == (1 << 7 * width) - 1:
            return None
        at += len(name) + width + length
        if name == b"\x18\x53\x80\x67":
            return at <= size
    return None


def _vint_width(first: bytes) -> int:
    return 9 - first[0].bit_length() if first and first[0] else 8


def _flash_is_whole(file: BinaryIO, size: int) -> bool:
    """Return whether the last four bytes lead back to the beginning of a tag."""
    file.seek(max(size - 4, 0))
    length = int.from_bytes(file.read(4), "big")
    file.seek(max(size - 4 - length, 0))
    tag = file.read(4)
    return tag[:1] in (b"\x08", b"\x09", b"\x12") and length == 11 + int.from_bytes(tag[1:], "big")


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Give the kind of each MP4 box, and where its content begins and ends."""
    for _ in range(_MAX_CHUNKS):
        file.seek(start)
        head = file.read(16)
        if start + 8 > end or len(head) < 8 or not _IDENTIFIER.fullmatch(head[4:8]):
            return
        length, content = int.from_bytes(head[:4], "big"), start + 8
        if length == 1:
            length, content = int.from_bytes(head[8:], "big"), start + 16
        stop = end if length == 0 else start + length
        if stop < content:
            return
        yield head[4:8], content, stop
        start = stop


def _matrix(file: BinaryIO, boxes: list[tuple[bytes, int, int]]) -> bytes | None:
    """Return the display matrix of the first video track, in the machine's order of bytes."""
    movies = (box for box in boxes if box[0] == b"moov")
    tracks = (box for movie in movies for box in _boxes(file, *movie[1:]) if box[0] == b"trak")
    for track in tracks:
        parts = {kind: place for kind, *place in _boxes(file, *track[1:])}
        media = {kind: start for kind, start, _ in _boxes(file, *parts.get(b"mdia", (0, 0)))}
        file.seek(media.get(b"hdlr", 0) + 8)
        is_video = file.read(4) == b"vide"
        file.seek(parts.get(b"tkhd", (0, 0))[0])
        header = file.read(88)
        at = 52 if header[:1] == b"\1" else 40
        if is_video and b"tkhd" in parts and len(header) >= at + 36:
            return struct.pack("=9i", *struct.unpack_from(">9i", header, at))
    return None
