"""A camera for streaming benchmarks that stands in for ``cv2.VideoCapture``.

Its frames exist at fixed moments, whether anybody reads them or not; each carries its moment in
its first pixels, so that any loop's answer tells how old its frame is. Like a V4L2 camera it has
four buffers and, when all are full, drops the frame that comes. A frame is a JPEG that is decoded
when it is retrieved.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

BUFFERS = 4
SIZE_WH = (640, 480)


def numbered_images(count: int) -> list[NDArray[np.uint8]]:
    """Return smooth random images, so that decoding costs what that of a photograph does."""
    rng = np.random.default_rng(0)
    width, height = SIZE_WH
    noise = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return [np.asarray(cv2.GaussianBlur(image, (0, 0), 2)) for image in noise]


def stamp(image: NDArray[np.uint8], moment: float) -> None:
    """Write a moment into the first pixels."""
    image.reshape(-1)[:8] = np.frombuffer(np.float64(moment).tobytes(), np.uint8)


def read_stamp(image: NDArray[np.uint8]) -> float:
    """Return the moment that was written."""
    return float(np.frombuffer(np.ascontiguousarray(image[0, :3]).reshape(-1)[:8].tobytes())[0])


class Camera:
    """Has what loops use of ``cv2.VideoCapture``; `fps` is set on the class."""

    fps = 100.0

    def __init__(self, *_: Any) -> None:
        self._jpegs = [cv2.imencode(".jpg", image)[1] for image in numbered_images(4)]
        self._began = time.monotonic()
        self._arrived = 0
        self._waiting: deque[int] = deque()
        self._grabbed: int | None = None
        self._open = True

    def isOpened(self) -> bool:  # noqa: N802
        """Return whether it is open."""
        return self._open

    def get(self, prop: int) -> float:
        """Return what a camera tells of itself, and the time stamp of the frame that was taken."""
        if prop == cv2.CAP_PROP_POS_MSEC:
            return 1e3 * self._moment(self._grabbed or 0)
        known = {
            cv2.CAP_PROP_FRAME_WIDTH: SIZE_WH[0],
            cv2.CAP_PROP_FRAME_HEIGHT: SIZE_WH[1],
            cv2.CAP_PROP_FPS: self.fps,
        }
        return float(known.get(prop, 0))

    def set(self, *_: Any) -> bool:
        """Change nothing."""
        return False

    def grab(self) -> bool:
        """Take the frame that waits longest, or wait for the next."""
        self._arrive()
        if not self._waiting:
            time.sleep(max(0.0, self._moment(self._arrived) - time.monotonic()))
            while not self._waiting:
                self._arrive()
        self._grabbed = self._waiting.popleft()
        return self._open

    def retrieve(self, *_: Any) -> tuple[bool, Any]:
        """Decode the frame that was taken."""
        if self._grabbed is None or not self._open:
            return False, None
        image = cv2.imdecode(self._jpegs[self._grabbed % len(self._jpegs)], cv2.IMREAD_COLOR)
        stamp(image, self._moment(self._grabbed))
        return True, image

    def read(self) -> tuple[bool, Any]:
        """Do both."""
        return self.retrieve() if self.grab() else (False, None)

    def release(self) -> None:
        """Close it."""
        self._open = False

    def _moment(self, number: int) -> float:
        return self._began + number / self.fps

    def _arrive(self) -> None:
        now = time.monotonic()
        while self._moment(self._arrived) <= now:
            if len(self._waiting) < BUFFERS:
                self._waiting.append(self._arrived)
            self._arrived += 1
