"""The markers of JPEG images, the size that one states, and the decoders."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_fg.errors import ImageError

MAX_STREAM_PIXELS: Final = 100_000_000
"""Most pixels of an image in a stream: four times what the largest cameras stream."""

SOI, EOI = b"\xff\xd8", b"\xff\xd9"  # start and end of an image
FRAME_HEADERS: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Second bytes of the markers of frame headers, which state the size."""
START_OF_SCAN: Final = 0xDA
SEGMENTS: Final = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE})
"""Second bytes of the markers that begin a segment with a length."""


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return the width and height that a JPEG states; `ImageError` for anything else."""
    at = 2
    if not data.startswith(SOI):
        raise ImageError("this is not a JPEG")
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:
            at += 1
            continue
        if kind in FRAME_HEADERS:
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
            return width, height
        if kind not in SEGMENTS or kind == START_OF_SCAN:
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
    """Decode a JPEG into H x W x 3 uint8 BGR; `ImageError` if that can't be done."""
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
