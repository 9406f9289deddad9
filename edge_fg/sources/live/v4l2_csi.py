"""V4L2 and CSI cameras through OpenCV: what can be asked of them, and what they send."""

from __future__ import annotations

import logging
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from edge_fg.errors import ImageError, SourceError, UsageError
from edge_fg.opencv import load_cv2, positive
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.raw_frame import RawFrame
from edge_fg.preprocess.yuv import ColorStandard
from edge_fg.sources.flip import NVVIDCONV_METHODS
from edge_fg.sources.options import SourceOptions
from edge_fg.sources.uri import DEVICE, SourceDescription

_logger = logging.getLogger("edge_fg")

_FOURCC: Final = {"mjpeg": "MJPG", "yuyv": "YUYV", "nv12": "NV12"}
_RAW_FORMATS: Final = {
    "YUYV": PixelFormat.YUYV,
    "YUY2": PixelFormat.YUYV,
    "NV12": PixelFormat.NV12,
}
_JPEGS: Final = ("MJPG", "JPEG")
_PARSERS: Final = {"h264": ("video/x-h264", "h264parse"), "h265": ("video/x-h265", "h265parse")}
_SAFE_PATH: Final = re.compile(r"/dev/[A-Za-z0-9_/-]+")
# The newest frame only, and as soon as it is there.
_SINK: Final = "appsink drop=true max-buffers=1 sync=false"


class OpenedCamera(NamedTuple):
    """A camera as OpenCV opened it; whether it did must be asked of `capture`."""

    capture: Any
    raw: PixelFormat | None  # format of the camera's own bytes, if frames are kept raw
    stamped: bool  # whether the kernel stamps its frames with the monotonic clock
    sends_jpegs: bool = False  # undecoded, for OpenCV doesn't say what was wrong with them


def open_camera(cv2: Any, description: SourceDescription, options: SourceOptions) -> OpenedCamera:
    """Open a source of kind csi or camera; `SourceError` if its name leads to no device now."""
    # Found out each time: a camera that was plugged in again may be another device.
    device = os.path.realpath(description.name)
    encoded = description.kind == "camera" and options.codec in _PARSERS
    if encoded and not _is_device(device):
        raise SourceError(why_not_opened(description, options))
    pipeline = _pipeline_of(description, options, device)
    if pipeline is not None:
        raw = PixelFormat.NV12 if options.raw and description.kind == "csi" else None
        return OpenedCamera(cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER), raw, False)
    has_v4l2 = _has(cv2, "V4L2")
    backend = cv2.CAP_V4L2 if has_v4l2 else int(cv2.CAP_ANY)
    target = description.target if isinstance(description.target, int) else device
    capture = cv2.VideoCapture(target, backend)
    if not capture.isOpened():
        return OpenedCamera(capture, None, False)
    sends = _configure(cv2, capture, description.name, options)
    return OpenedCamera(capture, _RAW_FORMATS.get(sends), has_v4l2, sends in _JPEGS)


def as_raw_frame(image: Any, pixel_format: PixelFormat) -> RawFrame:
    """Return the camera's own bytes; `ImageError` if they are not a frame of this format."""
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
    is_there = isinstance(description.target, int) or Path(name).exists()
    why = "is it in use, or not yours to read?" if is_there else "is it plugged in?"
    return f"can't open the camera {name} ({have}): {why}"


def check_possible(description: SourceDescription, options: SourceOptions) -> None:
    """Find out what no later try could fix, before a camera is opened.

    `UsageError` if an option doesn't fit this kind of camera, `SourceError` or
    `MissingDependencyError` if OpenCV can't open one or is missing.
    """
    cv2 = load_cv2(f"read {description.name}")
    # Whatever the device: one that is unplugged may come.
    pipeline = _pipeline_of(description, options, "/dev/video0")
    if description.kind == "camera" and options.raw and options.codec not in (None, "yuyv", "nv12"):
        raise UsageError(f"{description.name}: {options.codec} must be decoded, leave out raw")
    if description.kind == "camera" and options.raw and options.flip != "none":
        raise UsageError(f"{description.name}: raw frames can't be turned, leave out flip or raw")
    if pipeline is not None and not _has(cv2, "GSTREAMER"):
        what = f" for {options.codec}" if description.kind == "camera" else ""
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


def csi_pipeline(sensor: int, options: SourceOptions) -> str:
    """Return the pipeline of a Jetson's CSI camera; 1920 x 1080 at 30 a second where not chosen.

    The image processor of the camera gives NV12, which stays in its memory until ``nvvidconv`` has
    turned it. With `SourceOptions.raw` the frames leave as NV12, else as BGR. A number outside
    0..999 or another codec raises `UsageError`. See NVIDIA, *Jetson Linux Developer Guide*,
    "Accelerated GStreamer" (nvarguscamerasrc, nvvidconv).
    """
    if not 0 <= sensor < 1000:
        raise UsageError(f"there is no CSI camera {sensor}: they are numbered from 0")
    if options.codec not in (None, "nv12"):
        raise UsageError(f"csi://{sensor} gives nv12, not {options.codec}: leave codec out")
    width, height = options.size_wh or (1920, 1080)
    caps = f"width={width}, height={height}, format=NV12, framerate={_rate(options.fps or 30.0)}"
    stages = [
        f"nvarguscamerasrc sensor-id={sensor}",
        f"video/x-raw(memory:NVMM), {caps}",
        f"nvvidconv flip-method={NVVIDCONV_METHODS[options.flip]}",
    ]
    if options.raw:
        stages += ["video/x-raw, format=NV12"]
    else:
        stages += ["video/x-raw, format=BGRx", "videoconvert", "video/x-raw, format=BGR"]
    return " ! ".join([*stages, _SINK])


def v4l2_pipeline(device: str, options: SourceOptions) -> str:
    """Return the pipeline that decodes the H.264 or H.265 of a V4L2 camera such as /dev/video0.

    `UsageError` if `device` is no video device, or the codec is neither.
    """
    if not _is_device(device):
        raise UsageError(f"{device!r} is not a video device such as /dev/video0")
    if options.codec not in _PARSERS:
        raise UsageError(f"{device}: codec must be h264 or h265 here, not {options.codec}")
    caps, parser = _PARSERS[options.codec]
    if options.size_wh is not None:
        caps += f", width={options.size_wh[0]}, height={options.size_wh[1]}"
    if options.fps is not None:
        caps += f", framerate={_rate(options.fps)}"
    stages = [f"v4l2src device={device}", caps, parser, "decodebin", "videoconvert"]
    return " ! ".join([*stages, "video/x-raw, format=BGR", _SINK])


def _rate(fps: float) -> str:
    fraction = Fraction(fps).limit_denominator(1001)
    return f"{max(fraction.numerator, 1)}/{fraction.denominator}"


def _is_device(path: str) -> bool:
    # Nothing else may come into a pipeline. A container may give a camera's device another name.
    if _SAFE_PATH.fullmatch(path) is None:
        return False
    return DEVICE.fullmatch(path) is not None or Path(path).is_char_device()


def _pipeline_of(description: SourceDescription, options: SourceOptions, device: str) -> str | None:
    """Return the pipeline of a camera that needs GStreamer; None for others."""
    if description.kind == "csi":
        return csi_pipeline(int(description.target), options)
    if description.kind == "camera" and options.codec in _PARSERS:
        return v4l2_pipeline(device, options)
    return None


def _configure(cv2: Any, capture: Any, name: str, options: SourceOptions) -> str:
    """Ask a V4L2 camera for what was chosen, and say where it gives something else.

    Returns the format of its bytes if they are kept as they are, else nothing.
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
    is_wanted = sends in _JPEGS or (options.raw and sends in _RAW_FORMATS)
    is_kept = is_wanted and capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    if options.raw and not (is_kept and sends in _RAW_FORMATS):
        _logger.warning("%s sends %s, which is decoded, not kept raw", name, sends or "?")
    return sends if is_kept else ""


def _has(cv2: Any, backend: str) -> bool:
    return bool(cv2.videoio_registry.hasBackend(getattr(cv2, f"CAP_{backend}")))
