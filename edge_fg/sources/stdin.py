"""JPEGs from standard input: of ``ffmpeg -f mjpeg -``, an ``.mjpeg`` file, or a multipart body."""

from __future__ import annotations

import io
import os
import select
import sys
import threading
import time
from collections import deque
from typing import IO

from edge_fg.errors import ImageError, SourceError, TruncatedSourceError
from edge_fg.jpeg import JpegDecoder
from edge_fg.sources.base import BaseSource
from edge_fg.sources.capture_time import photo_time
from edge_fg.sources.flip import flipped
from edge_fg.sources.frame import Frame
from edge_fg.sources.jpeg_splitter import JpegSplitter
from edge_fg.sources.options import SourceOptions

_READ_BYTES = 1 << 18
_EXIF, _HEAD_BYTES = b"Exif\0\0", 4096
# How often a read that waits looks whether the source was closed.
_POLL_MS = 200


class PipeSource(BaseSource):
    """Frames from a pipe, each exactly once: the program that writes waits for the one that reads.

    A pipe can't be opened again, so there is no reconnecting. While nothing comes for longer than
    the time-out, the source is ``stalled``, and goes on waiting. Closing it leaves the pipe itself
    as it is. Without a binary file `stream`, standard input is read.
    """

    def __init__(
        self, name: str = "-", stream: IO[bytes] | None = None, options: SourceOptions | None = None
    ) -> None:
        super().__init__(name)
        if stream is None and sys.stdin is None:
            raise SourceError("standard input is closed: give it JPEGs, or name another source")
        self._stream = sys.stdin.buffer if stream is None else stream
        self._options = options or SourceOptions()
        self._decode = JpegDecoder(name)
        self._splitter = JpegSplitter()
        self._counted = 0
        self._images: deque[bytes] = deque()
        self._lost = 0
        self._stopped = threading.Event()

    def _interrupt(self) -> None:
        self._stopped.set()

    def _read(self) -> Frame | None:
        while not self._stopped.is_set():
            damaged = self._splitter.corrupted - self._counted
            if damaged:
                self._counted += damaged
                self._count_corrupted(damaged)
            if self._images:
                data = self._images.popleft()
                try:
                    image = flipped(self._decode(data), self._options.flip)
                except ImageError:
                    self._count_corrupted(1)
                    continue
                lost, self._lost = self._lost, 0
                taken = photo_time(io.BytesIO(data)) if _EXIF in data[:_HEAD_BYTES] else None
                return Frame(image, self._delivered, self.name, time=taken, dropped=lost)
            data = self._receive()
            self._images.extend(self._splitter.feed(data) if data else self._splitter.finish())
            if not (data or self._images):
                self._check_end()
                return None
        return None

    def _count_corrupted(self, count: int) -> None:
        self._status.add("corrupted", count)
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
            while not ready.poll(_POLL_MS):
                if self._stopped.is_set():
                    return b""
                silent = time.monotonic() - began
                if silent > self._options.timeout:
                    self._status.change("stalled", f"nothing came for {silent:.1f} s")
            data = os.read(number, _READ_BYTES)
        except OSError as error:
            raise SourceError(f"can't read {self.name}: {error.strerror or error}") from error
        self._status.change("live", "bytes come again")
        return data

    def _check_end(self) -> None:
        if self._stopped.is_set():
            return
        if self._splitter.in_image:
            raise TruncatedSourceError(
                f"{self.name} ended in the middle of frame {self._delivered}: "
                "the program that writes was stopped"
            )
        if self._delivered == 0:
            raise SourceError(f"{self.name} held no frame: give it JPEGs one after the other")
