"""GStreamer pipelines for cameras, as OpenCV takes them."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from edge_fg.errors import UsageError
from edge_fg.sources.flip import NVVIDCONV_METHODS
from edge_fg.sources.options import SourceOptions

_DEVICE = re.compile(r"/dev/video[0-9]{1,3}")
_PARSERS: Final = {"h264": ("video/x-h264", "h264parse"), "h265": ("video/x-h265", "h265parse")}
# The newest frame only, and as soon as it is there.
_SINK: Final = "appsink drop=true max-buffers=1 sync=false"


def csi_pipeline(sensor: int, options: SourceOptions) -> str:
    """Return the pipeline that gives the frames of a Jetson's CSI camera.

    The image processor of the camera gives NV12, which stays in its memory until ``nvvidconv``
    has turned it. With `SourceOptions.raw` the frames leave as NV12, else as BGR.

    Parameters
    ----------
    sensor
        Number of the camera, 0..999.
    options
        Size, rate and flip; 1920 x 1080 at 30 frames per second where they are None.

    Raises
    ------
    UsageError
        `sensor` is not such a number, or a codec is asked for.

    References
    ----------
    NVIDIA, *Jetson Linux Developer Guide*, "Accelerated GStreamer" (nvarguscamerasrc,
    nvvidconv).
    """
    if not 0 <= sensor < 1000:
        raise UsageError(f"there is no CSI camera {sensor}: they are numbered from 0")
    if options.codec not in (None, "nv12"):
        raise UsageError(f"csi://{sensor} gives nv12, not {options.codec}: leave codec out")
    width, height = options.size_wh or (1920, 1080)
    size = f"width={width}, height={height}"
    rate = _rate(options.fps or 30.0)
    stages = [
        f"nvarguscamerasrc sensor-id={sensor}",
        f"video/x-raw(memory:NVMM), {size}, format=NV12, framerate={rate}",
        f"nvvidconv flip-method={NVVIDCONV_METHODS[options.flip]}",
    ]
    if options.raw:
        stages += ["video/x-raw, format=NV12"]
    else:
        stages += ["video/x-raw, format=BGRx", "videoconvert", "video/x-raw, format=BGR"]
    return " ! ".join([*stages, _SINK])


def v4l2_pipeline(device: str, options: SourceOptions) -> str:
    """Return the pipeline that decodes the H.264 or H.265 of a V4L2 camera.

    Parameters
    ----------
    device
        Such as ``/dev/video0``.
    options
        Codec; size and rate where they are not None.

    Raises
    ------
    UsageError
        `device` is no video device, or the codec is neither.

    References
    ----------
    GStreamer documentation: v4l2src, h264parse, decodebin, appsink.
    """
    if not _DEVICE.fullmatch(device):
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
