"""Connections of a live source that play a script, without a camera or a network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from edge_fg.sources.live.connection import CapturedImage, CorruptedData

end = threading.Event()  # set by what interrupts a connection


def image(number: int, size: int = 8) -> np.ndarray:
    pixels = np.full((size, size, 3), 100, np.uint8)
    pixels[0, 0] = number % 256, number // 256 % 256, 1
    pixels[:, 1:] += np.random.default_rng(number).integers(0, 50, (size, size - 1, 3), np.uint8)
    return pixels


def number_of(pixels: np.ndarray) -> int:
    return int(pixels[0, 0, 0]) + 256 * int(pixels[0, 0, 1])


class FakeCamera:
    """Makes connections; each plays what `script(n)` gives for the n-th of them.

    A script is an iterable whose items are what `read` returns, an exception that it raises, or
    a function that it calls first. Its first item may be ("open", ...) for `open`.
    """

    def __init__(self, script: Callable[[int], object]) -> None:
        self.script = script
        self.made = self.opened = self.closed = 0
        self.interrupted = threading.Event()

    def __call__(self) -> FakeCamera.Connection:
        self.made += 1
        return FakeCamera.Connection(self, self.made)

    class Connection:
        fps, size_wh, frame_count = 25.0, (8, 8), None

        def __init__(self, camera: FakeCamera, number: int) -> None:
            self.camera = camera
            self.items = iter(camera.script(number))

        def open(self) -> None:
            self.camera.opened += 1
            first = next(self.items, None)
            if isinstance(first, Exception):
                raise first
            if callable(first):
                first()

        def read(self) -> CapturedImage | CorruptedData | None:
            item = next(self.items, None)
            if callable(item):
                item = item()
            if isinstance(item, Exception):
                raise item
            return CapturedImage(item) if isinstance(item, np.ndarray) else item

        def interrupt(self) -> None:
            self.camera.interrupted.set()
            end.set()

        def close(self) -> None:
            self.camera.closed += 1


def steady(start: int = 0, pause: float = 0.002, *, opens: bool = True) -> Iterator[object]:
    """A connection that opens and goes on giving images."""
    if opens:
        yield "open"
    number = start
    while True:
        time.sleep(pause)
        number += 1
        yield image(number)


def hold() -> None:
    """Stand for a call that doesn't return until it is interrupted."""
    end.wait(30)
