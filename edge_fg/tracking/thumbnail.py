"""A small image of a frame, taken without converting all of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_fg.opencv import load_cv2
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout, Region
from edge_fg.preprocess.raw_frame import RawFrame
from edge_fg.sources import Frame


def glance(frame: Frame, longest: int) -> NDArray[np.float32]:
    """Return a small version of a frame, for looking where something is.

    Raw YUV frames keep their luma and chroma: nothing is converted, for only differences between
    frames of one camera count here.

    Parameters
    ----------
    frame
        The frame.
    longest
        Its longer side becomes so many pixels; smaller frames stay as they are.

    Returns
    -------
    numpy.ndarray
        (height, width, channels) float32, 0..255, slightly blurred; 1 channel for grey frames,
        else 3.

    Raises
    ------
    MissingDependencyError
        OpenCV is not installed.
    """
    cv2 = load_cv2("see where something moves")
    width, height = frame.size_wh
    scale = min(1.0, longest / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    planes = [
        cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
        for plane in _planes(frame)
        if plane.size
    ]
    small = np.dstack(planes).astype(np.float32)
    # Sensor noise of single pixels and the jitter of codecs would be taken for movement.
    blurred = cv2.GaussianBlur(small, (3, 3), 0)
    return np.asarray(blurred, dtype=np.float32).reshape(small.shape)


def sharpness(frame: Frame, region: Region) -> float:
    """Return how much fine detail a region has: the variance of its Laplacian.

    Taken at 128 pixels, so that noise of the sensor is not mistaken for detail. (Pech-Pacheco et
    al., "Diatom autofocusing in brightfield microscopy: a comparative study", 2000.)

    Parameters
    ----------
    frame
        The frame.
    region
        (x, y, width, height) in pixels, wholly inside it.
    """
    cv2 = load_cv2("see how sharp something is")
    x, y, width, height = region
    part = _planes(frame)[0][y : y + height, x : x + width]
    scale = min(1.0, 128.0 / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    brightness = small if small.ndim == 2 else small.mean(axis=2)
    return float(cv2.Laplacian(brightness.astype(np.float32), cv2.CV_32F).var())


def _planes(frame: Frame) -> list[NDArray[np.uint8]]:
    pixels = frame.pixels
    if not isinstance(pixels, RawFrame):
        return [pixels]
    layout = pixels.layout
    if layout.format is PixelFormat.YUYV:
        pairs = (layout.width + 1) // 2
        rows = _rows(pixels.data, 0, layout.height, layout.row_pitch, 4 * pairs)
        luma = np.ascontiguousarray(rows[:, ::2][:, : layout.width])
        return [luma, rows[:, 1::4].copy(), rows[:, 3::4].copy()]
    if layout.format in (PixelFormat.NV12, PixelFormat.I420):
        return _planar(pixels.data, layout)
    if layout.format is PixelFormat.GRAY:
        return [_rows(pixels.data, 0, layout.height, layout.row_pitch, layout.width)]
    rows = _rows(pixels.data, 0, layout.height, layout.row_pitch, 3 * layout.width)
    return [rows.reshape(layout.height, layout.width, 3)]


def _planar(data: NDArray[np.uint8], layout: PixelLayout) -> list[NDArray[np.uint8]]:
    luma = _rows(data, 0, layout.height, layout.row_pitch, layout.width)
    down, across = (layout.height + 1) // 2, (layout.width + 1) // 2
    paired = layout.format is PixelFormat.NV12
    chroma = [
        _rows(data, offset, down, layout.chroma_row_pitch, across * (2 if paired else 1))
        for offset in layout.chroma_planes
    ]
    if paired:
        return [luma, chroma[0].reshape(down, across, 2)]
    return [luma, *chroma]


def _rows(
    data: NDArray[np.uint8], offset: int, rows: int, pitch: int, length: int
) -> NDArray[np.uint8]:
    """Return `rows` rows of `length` bytes that lie `pitch` bytes apart, row by row."""
    # The last row need not be followed by a gap.
    view = np.lib.stride_tricks.as_strided(
        data[offset : offset + (rows - 1) * pitch + length], (rows, length), (pitch, 1)
    )
    return np.ascontiguousarray(view)
