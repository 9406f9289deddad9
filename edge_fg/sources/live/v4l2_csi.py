"""V4L2 and CSI cameras through OpenCV: what can be asked of them, and what they send."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from edge_fg.errors import ImageError, SourceError, UsageError
from edge_fg.opencv import load_cv2, positive
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.raw_frame import RawFrame
from edge_fg.preprocess.yuv import ColorStandard
from edge_fg.sources.gstreamer import csi_pipeline, v4l2_pipeline
from edge_fg.sources.options import SourceOptions
from edge_fg.sources.uri import SourceDescription

_logger = logging.getLogger("edge_fg")

_FOURCC: Final = {"mjpeg": "MJPG", "yuyv": "YUYV", "nv12": "NV12"}
_RAW_FORMATS: Final = {
    "YUYV": PixelFormat.YUYV,
    "YUY2": PixelFormat.YUYV,
    "NV12": PixelFormat.NV12,
}


class OpenedCamera(NamedTuple):
    """A camera as OpenCV opened it; whether it did must be asked of `capture`."""

    capture: Any
    raw: PixelFormat | None
    """Format of the camera's own bytes, if frames are kept raw."""
    stamped: bool
    """Whether the kernel stamps its frames with the monotonic clock."""


def open_camera(cv2: Any, description: SourceDescription, options: SourceOptions) -> OpenedCamera:
    """Open a source of kind csi or camera."""
    if description.kind == "csi":
        pipeline = csi_pipeline(int(description.target), options)
        raw = PixelFormat.NV12 if options.raw else None
        return OpenedCamera(cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER), raw, False)
    if options.codec in ("h264", "h265"):
        pipeline = v4l2_pipeline(description.name, options)
        return OpenedCamera(cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER), None, False)
    has_v4l2 = _has(cv2, "V4L2")
    backend = cv2.CAP_V4L2 if has_v4l2 else int(cv2.CAP_ANY)
    capture = cv2.VideoCapture(description.target, backend)
    if not capture.isOpened():
        return OpenedCamera(capture, None, False)
    return OpenedCamera(capture, _configure(cv2, capture, description.name, options), has_v4l2)


def as_raw_frame(image: Any, pixel_format: PixelFormat) -> RawFrame:
    """Return what OpenCV gave as the camera's own bytes.

    Raises
    ------
    ImageError
        They are not a frame of this format.
    """
    data = np.ascontiguousarray(image).reshape(-1).view(np.uint8)
    if image.ndim < 2:
        raise ImageError(f"{image.size} bytes of a raw frame without rows")
    height, width = image.shape[:2]
    if pixel_format is PixelFormat.NV12:
        height = height * 2 // 3
    # Argus and UVC cameras send BT.601 in the limited range (NVBUF_COLOR_FORMAT_NV12; USB
    # Video Class 1.5, colour matching descriptor's default).
    layout = PixelLayout(pixel_format, height, width, standard=ColorStandard.BT601_LIMITED)
    if data.size != layout.nbytes:
        raise ImageError(f"{data.size} bytes are not {pixel_format.value} of {width} x {height}")
    return RawFrame(data, layout)


def why_not_opened(description: SourceDescription, options: SourceOptions) -> str:
    """Return what to check when OpenCV could not open a camera or stream."""
    name = description.name
    if description.kind == "stream":
        return (
            f"can't open {name} (waited at most {options.timeout:g} s): "
            "check the address, the credentials, and that the camera is reachable"
        )
    if description.kind == "csi":
        return f"can't open {name}: check the ribbon cable and that nvargus-daemon runs"
    present = sorted(path.name for path in Path("/dev").glob("video*"))
    have = f"there are {', '.join(present)}" if present else "this machine has none in /dev"
    return f"can't open the camera {name} ({have}): is it in use, or not yours to read?"


def check_possible(description: SourceDescription, options: SourceOptions) -> None:
    """Find out what no later try could fix, before a camera is opened.

    Raises
    ------
    UsageError
        An option doesn't fit this kind of camera.
    SourceError
        This OpenCV can't open such a camera.
    MissingDependencyError
        OpenCV is not installed.
    """
    cv2 = load_cv2(f"read {description.name}")
    streams_h26x = description.kind == "camera" and options.codec in ("h264", "h265")
    if description.kind == "csi":
        csi_pipeline(int(description.target), options)
    elif streams_h26x:
        v4l2_pipeline(description.name, options)
    if description.kind == "camera" and options.raw and options.codec not in (None, "yuyv", "nv12"):
        raise UsageError(f"{description.name}: {options.codec} must be decoded, leave out raw")
    if description.kind == "camera" and options.raw and options.flip != "none":
        raise UsageError(f"{description.name}: raw frames can't be turned, leave out flip or raw")
    if (description.kind == "csi" or streams_h26x) and not _has(cv2, "GSTREAMER"):
        what = f" for {options.codec}" if streams_h26x else ""
        raise SourceError(
            f"{description.name} needs an OpenCV with GStreamer{what}, which the pip packages "
            "lack: uninstall opencv-python and use the one of JetPack "
            "(apt install python3-opencv)"
        )
    if description.kind == "stream" and not _has(cv2, "FFMPEG"):
        raise SourceError(f"can't open {description.name}: this OpenCV was built without FFmpeg")


def fourcc_text(code: float) -> str:
    """Return the four characters of a FOURCC; an empty text where it is not one."""
    number = int(code) if positive(code) else 0
    text = number.to_bytes(8, "little")[:4].decode("latin-1")
    return text if text.isprintable() and text.isascii() else ""


def _configure(cv2: Any, capture: Any, name: str, options: SourceOptions) -> PixelFormat | None:
    """Ask a V4L2 camera for what was chosen, and say where it gives something else.

    Returns the format of its bytes if they are kept raw.
    """
    # The format comes first: sizes and rates depend on it.
    if options.codec is not None:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*_FOURCC[options.codec]))
    if options.size_wh is not None:
        sides = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        for side, length in zip(sides, options.size_wh, strict=True):
            capture.set(side, length)
        got = tuple(int(capture.get(side)) for side in sides)
        if got != tuple(options.size_wh):
            _logger.warning(
                "%s gives %d x %d pixels, not the %d x %d asked for",
                *(name, *got, *options.size_wh),
            )
    if options.fps is not None:
        capture.set(cv2.CAP_PROP_FPS, options.fps)
    sends = fourcc_text(capture.get(cv2.CAP_PROP_FOURCC))
    if options.codec is not None and sends != _FOURCC[options.codec]:
        _logger.warning("%s sends %s, not %s", name, sends or "?", options.codec)
    if not options.raw:
        return None
    if sends in _RAW_FORMATS and capture.set(cv2.CAP_PROP_CONVERT_RGB, 0):
        return _RAW_FORMATS[sends]
    _logger.warning("%s sends %s, which is decoded, not kept raw", name, sends or "?")
    return None


def _has(cv2: Any, backend: str) -> bool:
    return bool(cv2.videoio_registry.hasBackend(getattr(cv2, f"CAP_{backend}")))
