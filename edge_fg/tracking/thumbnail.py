"""A small image of a frame, made without converting all of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_fg.boxes import Region
from edge_fg.opencv import load_cv2
from edge_fg.preprocess.pixel_layout import PixelFormat
from edge_fg.preprocess.raw_frame import RawFrame
from edge_fg.sources import Frame


def thumbnail(frame: Frame, longest_px: int) -> NDArray[np.float32]:
    """Return a small version of a frame, for finding motion: its longer side is `longest_px`.

    It is (height, width, channels) float32, 0..255, slightly blurred, with 1 channel for grey
    frames, else 3; smaller frames keep their size. Raw YUV frames keep their luma and chroma: only
    differences between frames of one camera count here, so nothing needs to be converted. Without
    OpenCV, MissingDependencyError is raised.
    """
    cv2 = load_cv2("find motion")
    size = _fitted(frame.size_wh, longest_px)
    planes = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in _planes(frame)]
    small = np.dstack(planes).astype(np.float32)
    # Noise of single pixels and the jitter of codecs would be taken for motion.
    blurred = cv2.GaussianBlur(small, (3, 3), 0)
    return np.asarray(blurred, dtype=np.float32).reshape(small.shape)


def sharpness(frame: Frame, region_xywh: Region) -> float:
    """Return how much fine detail a region, wholly inside the frame, has.

    This is the variance of its Laplacian, taken at 128 pixels, so that noise of the sensor is not
    mistaken for detail. (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a
    comparative study", 2000.)
    """
    cv2 = load_cv2("measure sharpness")
    x, y, width, height = region_xywh
    part = _planes(frame)[0][y : y + height, x : x + width]
    small = cv2.resize(part, _fitted((width, height), 128), interpolation=cv2.INTER_AREA)
    brightness = small if small.ndim == 2 else small.mean(axis=2)
    return float(cv2.Laplacian(brightness.astype(np.float32), cv2.CV_32F).var())


def _fitted(size_wh: tuple[int, int], longest_px: int) -> tuple[int, int]:
    scale = min(1.0, longest_px / max(size_wh))
    return max(1, round(size_wh[0] * scale)), max(1, round(size_wh[1] * scale))


def _planes(frame: Frame) -> list[NDArray[np.uint8]]:
    """Return a frame's planes, (rows, columns) or (rows, columns, channels), as they lie."""
    pixels = frame.pixels
    if not isinstance(pixels, RawFrame):
        return [pixels]
    layout = pixels.layout
    planes = list(pixels.part((0, 0, layout.width, layout.height))[1])
    if layout.format is PixelFormat.YUYV:
        rows = planes[0]
        planes = [rows[:, ::2][:, : layout.width], rows[:, 1::4], rows[:, 3::4]]
        return [np.ascontiguousarray(plane) for plane in planes]
    if layout.format is PixelFormat.NV12:
        return [planes[0], planes[1].reshape(len(planes[1]), -1, 2)]
    if layout.format in (PixelFormat.BGR, PixelFormat.RGB):
        return [planes[0].reshape(layout.height, layout.width, 3)]
    return planes
