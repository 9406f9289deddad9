"""Connections to cameras and network streams through OpenCV."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_fg.errors import ImageError, SourceError, UsageError
from edge_fg.images import as_frame
from edge_fg.opencv import load_cv2, positive
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.raw_frame import RawFrame
from edge_fg.preprocess.yuv import ColorStandard
from edge_fg.sources.gstreamer import csi_pipeline, v4l2_pipeline
from edge_fg.sources.live.connection import Coded, Corrupted, Shot, wall_clock
from edge_fg.sources.options import CaptureOptions
from edge_fg.sources.uri import SourceDescription
from edge_fg.sources.video import open_stream

_logger = logging.getLogger("edge_fg")

_FOURCC: Final = {"mjpeg": "MJPG", "yuyv": "YUYV", "nv12": "NV12"}
_RAW_FORMATS: Final = {
    "YUYV": PixelFormat.YUYV,
    "YUY2": PixelFormat.YUYV,
    "NV12": PixelFormat.NV12,
}
# Older than this, a driver's time stamp is of another clock.
_OLDEST_STAMP_S = 5.0
_MAX_FAILED_PACKETS = 8


class OpenCVConnection:
    """A camera or stream held by OpenCV; see `Connection`.

    Parameters
    ----------
    description
        Of kind camera, csi or stream.
    options
        What to ask of it.
    """

    def __init__(self, description: SourceDescription, options: CaptureOptions) -> None:
        self.fps: float | None = None
        self.size_wh: tuple[int, int] | None = None
        self.frame_count: int | None = None
        self._description = description
        self._options = options
        self._name = description.name
        self._cv2: Any = None
        self._capture: Any = None
        self._raw: PixelFormat | None = None
        self._stamped = False
        self._grabbed = False

    def open(self) -> None:
        """Connect; see `Connection`."""
        cv2 = self._cv2 = load_cv2(f"read {self._name}")
        make: dict[str, Callable[[], Any]] = {
            "camera": self._open_camera,
            "csi": self._open_csi,
            "stream": self._open_stream,
        }
        try:
            self._capture = make[self._description.kind]()
        except (cv2.error, UnicodeError) as error:
            # OpenCV's text may repeat an address with its password.
            if self._description.kind == "stream":
                raise SourceError(f"OpenCV can't open {self._name}") from None
            raise SourceError(f"OpenCV can't open {self._name}: {error}") from error
        if not self._capture.isOpened():
            raise SourceError(self._why_not_opened())
        self._learn()

    def read(self) -> Coded | Corrupted | None:
        """Return the next image; see `Connection`.

        Left undecoded: FFmpeg has decoded it by now, but not turned into BGR; of other cameras
        nothing was done to it.
        """
        cv2 = self._cv2
        try:
            failed = self._grab()
            if failed:
                return Corrupted("a packet could not be decoded", failed)
            captured, wall = time.monotonic(), wall_clock()
            if self._stamped:
                age = captured - self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if 0 <= age < _OLDEST_STAMP_S:
                    captured, wall = captured - age, wall - timedelta(seconds=age)
        except cv2.error as error:
            raise SourceError(f"OpenCV can't read it: {error}") from error
        return Coded(partial(self._retrieve, captured, wall))

    def interrupt(self) -> None:
        """Do nothing: OpenCV offers no way; FFmpeg's and V4L2's time-outs end the call."""

    def close(self) -> None:
        """Release the camera."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _grab(self) -> int:
        """Go to the next frame; 0, or how many packets failed if one must be left out first."""
        if self._grabbed or self._capture.grab():
            self._grabbed = False
            return 0
        # FFmpeg fails alike for a damaged packet and at the end; only the end stays.
        began = time.monotonic()
        if self._description.kind == "stream":
            for failed in range(1, _MAX_FAILED_PACKETS):
                if time.monotonic() - began > self._options.timeout / 2:
                    break
                if self._capture.grab():
                    self._grabbed = True
                    return failed
        raise SourceError(f"it was closed, unplugged, or silent for {self._options.timeout:g} s")

    def _retrieve(self, captured: float, wall: datetime) -> Shot | Corrupted:
        """Decode the frame that was gone to."""
        try:
            good, image = self._capture.retrieve()
            if not good:
                return Corrupted("a frame could not be decoded")
            pixels = as_frame(image) if self._raw is None else self._as_raw(image)
        except ImageError as error:
            return Corrupted(str(error))
        except self._cv2.error as error:
            raise SourceError(f"OpenCV can't read it: {error}") from error
        return Shot(pixels, captured, wall)

    def _learn(self) -> None:
        """Note what the device says of itself."""
        cv2, capture = self._cv2, self._capture
        width = positive(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = positive(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self.size_wh = (int(width), int(height)) if width and height else None
        self.fps = positive(capture.get(cv2.CAP_PROP_FPS))
        if self._description.kind == "stream":
            count = positive(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            # A file behind http:// has an end and waits for its reader; a camera does neither.
            is_http = self._description.target_text.lower().startswith("http")
            self.frame_count = int(count) if count and is_http else None

    def _open_stream(self) -> Any:
        return open_stream(self._cv2, self._description, self._options)

    def _open_csi(self) -> Any:
        if self._options.raw:
            self._raw = PixelFormat.NV12
        pipeline = csi_pipeline(int(self._description.target), self._options)
        return self._cv2.VideoCapture(pipeline, self._cv2.CAP_GSTREAMER)

    def _open_camera(self) -> Any:
        cv2, options = self._cv2, self._options
        if options.codec in ("h264", "h265"):
            pipeline = v4l2_pipeline(self._name, options)
            return cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
        has_v4l2 = _has(cv2, "V4L2")
        backend = cv2.CAP_V4L2 if has_v4l2 else int(cv2.CAP_ANY)
        capture = cv2.VideoCapture(self._description.target, backend)
        if capture.isOpened():
            # The kernel stamps V4L2's frames with the monotonic clock.
            self._stamped = has_v4l2
            self._ask(capture)
        return capture

    def _ask(self, capture: Any) -> None:
        """Ask a V4L2 camera for what was chosen, and say where it gives something else."""
        cv2, options = self._cv2, self._options
        # The format comes first: sizes and rates depend on it.
        if options.codec is not None:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*_FOURCC[options.codec]))
        if options.size_wh is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.size_wh[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.size_wh[1])
            got = tuple(
                int(capture.get(side))
                for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
            )
            if got != tuple(options.size_wh):
                asked = options.size_wh
                _logger.warning(
                    "%s gives %d x %d pixels, not the %d x %d asked for", self._name, *got, *asked
                )
        if options.fps is not None:
            capture.set(cv2.CAP_PROP_FPS, options.fps)
        sends = fourcc_text(capture.get(cv2.CAP_PROP_FOURCC))
        if options.codec is not None and sends != _FOURCC[options.codec]:
            _logger.warning("%s sends %s, not %s", self._name, sends or "?", options.codec)
        if not options.raw:
            return
        if sends in _RAW_FORMATS and capture.set(cv2.CAP_PROP_CONVERT_RGB, 0):
            self._raw = _RAW_FORMATS[sends]
        else:
            _logger.warning("%s sends %s, which is decoded, not kept raw", self._name, sends or "?")

    def _as_raw(self, image: Any) -> RawFrame:
        data = np.ascontiguousarray(image).reshape(-1).view(np.uint8)
        if image.ndim < 2:
            raise ImageError(f"{image.size} bytes of a raw frame without rows")
        height, width = image.shape[:2]
        if self._raw is PixelFormat.NV12:
            height = height * 2 // 3
        # Argus and UVC cameras send BT.601 in the limited range (NVBUF_COLOR_FORMAT_NV12; USB
        # Video Class 1.5, colour matching descriptor's default).
        assert self._raw is not None
        layout = PixelLayout(self._raw, height, width, standard=ColorStandard.BT601_LIMITED)
        if data.size != layout.nbytes:
            raise ImageError(f"{data.size} bytes are no {self._raw.value} of {width} x {height}")
        return RawFrame(data, layout)

    def _why_not_opened(self) -> str:
        name = self._name
        if self._description.kind == "stream":
            return (
                f"can't open {name} (waited at most {self._options.timeout:g} s): "
                "check the address, the credentials, and that the camera is reachable"
            )
        if self._description.kind == "csi":
            return f"can't open {name}: check the ribbon cable and that nvargus-daemon runs"
        present = sorted(path.name for path in Path("/dev").glob("video*"))
        have = f"there are {', '.join(present)}" if present else "this machine has none in /dev"
        return f"can't open the camera {name} ({have}): is it in use, or not yours to read?"


def check_possible(description: SourceDescription, options: CaptureOptions) -> None:
    """Find out what no later try could mend, before a camera is opened.

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


def _has(cv2: Any, backend: str) -> bool:
    return bool(cv2.videoio_registry.hasBackend(getattr(cv2, f"CAP_{backend}")))


def fourcc_text(code: float) -> str:
    """Return the four characters of a FOURCC, or nothing where it is none."""
    number = int(code) if positive(code) else 0
    text = number.to_bytes(8, "little")[:4].decode("latin-1")
    return text if text.isprintable() and text.isascii() else ""
