"""The latest result of each source, between the pipeline, which never waits, and viewers."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from edge_fg.result import Result
from edge_fg.sinks.base import Annotate
from edge_fg.sinks.image_folder import encode_jpeg


@dataclass
class _Latest:
    """The latest result of a source, and its image once a viewer wanted it."""

    serial: int = 0
    result: Result[Any] | None = None
    arrived: float = 0.0
    encoded: tuple[int, bytes] = (0, b"")
    drawing: threading.Lock = field(default_factory=threading.Lock)


class LatestResults:
    """Holds the latest result of each source; an image is made when the first viewer wants it.

    With several viewers, each image is still drawn and encoded once. `names` are those of the
    sources, as they are shown; `annotate` and `quality` are those of `PreviewSink`.
    """

    def __init__(self, names: tuple[str, ...], annotate: Annotate, quality: int) -> None:
        self.names = names
        self.closed = False  # whether the last frame has come
        self._annotate = annotate
        self._quality = quality
        self._changed = threading.Condition()
        self._latest = [_Latest() for _ in names]

    def put(self, result: Result[Any]) -> None:
        """Take a result; returns at once."""
        with self._changed:
            latest = self._latest[result.source_index]
            latest.serial += 1
            latest.result = result
            latest.arrived = time.monotonic()
            self._changed.notify_all()

    def close(self) -> None:
        """End all waiting; the last images stay."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def wait(self, source: int, after: int, timeout: float) -> int:
        """Wait for a result newer than `after` and return its number; `after` if none came."""
        with self._changed:
            latest = self._latest[source]
            self._changed.wait_for(lambda: self.closed or latest.serial > after, timeout)
            return latest.serial

    def image(self, source: int) -> bytes | None:
        """Return the latest image as JPEG; None where there is none yet."""
        latest = self._latest[source]
        # While an image is made for one viewer, others wait for it.
        with latest.drawing:
            with self._changed:
                serial, result = latest.serial, latest.result
            if result is None:
                return None
            if latest.encoded[0] != serial:
                latest.encoded = serial, encode_jpeg(self._annotate(result), self._quality)
            return latest.encoded[1]

    def ages(self) -> list[float | None]:
        """Return for each source the seconds since its latest result; None where none came."""
        now = time.monotonic()
        with self._changed:
            return [now - n.arrived if n.serial else None for n in self._latest]
