"""The part of a ROS 2 node that needs no ROS: from image messages to class probabilities.

`tools/examples/ros2_node.py` puts the thin shell around it. Encodings are those of
``sensor_msgs/image_encodings.hpp`` (https://github.com/ros2/common_interfaces).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import EdgeFGError, ImageError, UnansweredError, UsageError
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.raw_frame import Pixels, RawFrame
from edge_fg.preprocess.yuv import ColorStandard
from edge_fg.recognition.classifier import Classifier
from edge_fg.recognition.prediction import Prediction

# What the bytes are, and how many a pixel takes in a row.
_PLAIN = {
    "bgr8": (PixelFormat.BGR, 3),
    "8UC3": (PixelFormat.BGR, 3),
    "rgb8": (PixelFormat.RGB, 3),
    "mono8": (PixelFormat.GRAY, 1),
    "8UC1": (PixelFormat.GRAY, 1),
    "yuv422_yuy2": (PixelFormat.YUYV, 2),
    "yuyv": (PixelFormat.YUYV, 2),
    "nv12": (PixelFormat.NV12, 1),
}
_WITH_ALPHA = {"bgra8": (0, 1, 2), "rgba8": (2, 1, 0), "8UC4": (0, 1, 2)}
_GREY16 = ("mono16", "16UC1")
_CHROMA_FIRST = ("uyvy", "yuv422")
_YUV = (PixelFormat.YUYV, PixelFormat.NV12)
_KNOWN = ", ".join((*_PLAIN, *_WITH_ALPHA, *_GREY16, *_CHROMA_FIRST))


class ImageMessage(Protocol):
    """The fields of a sensor_msgs/Image that are used; `header` is passed on unchanged."""

    header: Any
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


@dataclass
class Counters:
    """Messages received, answered, superseded by newer ones, and unusable."""

    received: int = 0
    answered: int = 0
    superseded: int = 0
    failed: int = 0


def frame_of(
    message: ImageMessage, standard: ColorStandard = ColorStandard.BT601_LIMITED
) -> Pixels:
    """Return the frame of an image message; its bytes are not copied where they can be used.

    Parameters
    ----------
    message
        A sensor_msgs/Image; not to be changed while the frame is in use.
    standard
        What luma and chroma mean; ROS doesn't say, and cameras mostly give BT.601.

    Raises
    ------
    ImageError
        The encoding is not one that can be used (raw Bayer data, depth, ...), or the message
        contradicts itself.
    """
    data = _bytes_of(message.data)
    height, width, step = message.height, message.width, message.step
    if message.encoding in _PLAIN:
        kind, per_pixel = _PLAIN[message.encoding]
        _check(message, data, width * per_pixel, 1.5 if kind is PixelFormat.NV12 else 1.0)
        return RawFrame(
            data, PixelLayout(kind, height, width, step, standard if kind in _YUV else None)
        )
    if message.encoding in _WITH_ALPHA:
        pixels = _rows(message, data, 4 * width).reshape(height, width, 4)
        return np.ascontiguousarray(pixels[:, :, _WITH_ALPHA[message.encoding]])
    if message.encoding in _GREY16:
        # Of a 16-bit grey the upper eight bits are kept, as in images.
        pairs = _rows(message, data, 2 * width).reshape(height, width, 2)
        upper = np.ascontiguousarray(pairs[:, :, 0 if message.is_bigendian else 1])
        return RawFrame(upper.reshape(-1), PixelLayout(PixelFormat.GRAY, height, width))
    if message.encoding in _CHROMA_FIRST:
        row = 4 * ((width + 1) // 2)
        swapped = _rows(message, data, row).reshape(-1, 2)[:, ::-1]
        layout = PixelLayout(PixelFormat.YUYV, height, width, row, standard)
        return RawFrame(np.ascontiguousarray(swapped).reshape(-1), layout)
    if message.encoding.startswith("bayer_"):
        raise ImageError(
            f"{message.encoding} is raw sensor data: let image_proc debayer it and subscribe to "
            "image_color"
        )
    raise ImageError(f"can't use images encoded as {message.encoding!r}, but these: {_KNOWN}")


class MessageClassifier:
    """Classifies image messages, the newest first, and never blocks the caller.

    Parameters
    ----------
    classifier
        The model; other threads may use it too.
    publish
        Called with a message's header and its (label, confidence) pairs, most likely first,
        from a thread of the classifier.
    warn
        Called with one line about a message that could not be answered; the same line is not
        repeated until something else happens.
    top_k
        Classes to publish.
    deadline
        Seconds after which a message that waits is too old; None for no limit.
    standard
        See `frame_of`.

    Raises
    ------
    UsageError
        `top_k` is below 1.
    """

    def __init__(
        self,
        classifier: Classifier,
        publish: Callable[[Any, Sequence[tuple[str, float]]], None],
        *,
        warn: Callable[[str], None],
        top_k: int = 5,
        deadline: float | None = None,
        standard: ColorStandard = ColorStandard.BT601_LIMITED,
    ) -> None:
        if top_k < 1:
            raise UsageError(f"top_k must be at least 1, not {top_k}")
        self.counters = Counters()
        self._classifier = classifier
        self._publish = publish
        self._warn = warn
        self._top_k = top_k
        self._deadline = deadline
        self._standard = standard
        self._lock = threading.Lock()
        self._last_warning: str | None = None

    def submit(self, message: ImageMessage) -> None:
        """Take a message and return at once; it is classified unless a newer one comes first."""
        with self._lock:
            self.counters.received += 1
        try:
            frame: Any = frame_of(message, self._standard)
            future = self._classifier.submit(frame, deadline=self._deadline)
        except EdgeFGError as error:
            self._fail(str(error))
            return
        header = message.header
        future.add_done_callback(lambda done: self._done(header, done))

    def _done(self, header: Any, future: Future[Prediction]) -> None:
        try:
            prediction = future.result()
        except (UnansweredError, CancelledError):
            with self._lock:
                self.counters.superseded += 1
            return
        except EdgeFGError as error:
            self._fail(str(error))
            return
        self._publish(header, [(a.label, a.confidence) for a in prediction.top(self._top_k)])
        with self._lock:
            self.counters.answered += 1
            self._last_warning = None

    def _fail(self, text: str) -> None:
        with self._lock:
            self.counters.failed += 1
            new, self._last_warning = text != self._last_warning, text
        if new:
            self._warn(text)


def _bytes_of(data: Any) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError):
        pass
    try:
        return np.asarray(data, np.uint8).reshape(-1)
    except (TypeError, ValueError, OverflowError) as error:
        raise ImageError("the message's data is not bytes") from error


def _check(message: ImageMessage, data: NDArray[np.uint8], row: int, planes: float) -> None:
    """Refuse a message whose numbers contradict each other."""
    if message.height < 1 or message.width < 1:
        raise ImageError(f"the message is an image of {message.width} x {message.height} pixels")
    if message.step < row:
        raise ImageError(
            f"{message.width} pixels of {message.encoding} take {row} bytes a row, but the "
            f"message's step is {message.step}"
        )
    # The last row need not have the gap that follows the others.
    needed = int((int(message.height * planes) - 1) * message.step + row)
    if data.size < needed:
        raise ImageError(
            f"{message.height} rows of {message.encoding} take {needed} bytes, but the message "
            f"has {data.size}"
        )


def _rows(message: ImageMessage, data: NDArray[np.uint8], row: int) -> NDArray[np.uint8]:
    """Return (height, row) bytes without the gaps between rows."""
    _check(message, data, row, 1.0)
    strides = (message.step, 1)
    return np.lib.stride_tricks.as_strided(data, (message.height, row), strides, writeable=False)
