"""Video files, cameras and network streams through OpenCV."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from edge_fg.capture.base import BaseSource
from edge_fg.capture.frame import Frame
from edge_fg.capture.uri import SourceDescription
from edge_fg.errors import (
    ImageError,
    MissingDependencyError,
    SourceError,
    TruncatedSourceError,
    UsageError,
)
from edge_fg.images import as_frame

_logger = logging.getLogger("edge_fg")

# Headers of sound files miscount a little: a camera trap's AVI may announce 1,815 frames and
# hold 1,814. The greater of these two is forgiven.
_FORGIVEN_FRAMES = 2
_FORGIVEN_SHARE = 0.01


@dataclass(frozen=True)
class CaptureOptions:
    """What to ask of a camera or stream; None leaves it to the device.

    Parameters
    ----------
    size_wh
        Width and height in pixels; cameras only.
    fps
        Frames per second; cameras only.
    timeout
        Seconds to wait for a stream to open, and then for each frame.

    Raises
    ------
    UsageError
        A value makes no sense.
    """

    size_wh: tuple[int, int] | None = None
    fps: float | None = None
    timeout: float = 10.0

    def __post_init__(self) -> None:
        if self.size_wh is not None and (len(self.size_wh) != 2 or min(self.size_wh) < 1):
            raise UsageError(f"size_wh must be (width, height) in pixels, not {self.size_wh}")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise UsageError(f"fps must be a positive number, not {self.fps}")
        if not (math.isfinite(self.timeout) and self.timeout > 0):
            raise UsageError(f"timeout must be a positive number of seconds, not {self.timeout}")


def load_cv2(purpose: str) -> Any:
    """Import OpenCV, or say which extra brings it.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError("opencv-python-headless", "opencv", purpose) from error
    return cv2


def quiet_ffmpeg() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr, for the whole process.

    FFmpeg's level can only be set by an environment variable that is read when the first video
    is opened, so this is for programs to call at their start (the command line does); edge_fg
    reports every failure that matters by itself. A level that the user has set is kept.
    """
    cv2 = load_cv2("read videos")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class VideoSource(BaseSource):
    """Frames of a video file, a camera or a network stream, each exactly once.

    Parameters
    ----------
    description
        Of kind video, camera, csi or stream.
    options
        What to ask of a camera or stream.

    Raises
    ------
    SourceError
        It can't be opened.
    MissingDependencyError
        OpenCV is not installed.
    """

    def __init__(
        self, description: SourceDescription, options: CaptureOptions | None = None
    ) -> None:
        self._cv2 = load_cv2(f"read {description.name}")
        self._capture = _open(self._cv2, description, options or CaptureOptions())
        count = _positive(self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT))
        # A file behind http:// has an end and waits for its reader; a camera does neither.
        is_file = description.kind == "video" or (
            count is not None and description.target_text.lower().startswith("http")
        )
        width = _positive(self._capture.get(self._cv2.CAP_PROP_FRAME_WIDTH))
        height = _positive(self._capture.get(self._cv2.CAP_PROP_FRAME_HEIGHT))
        super().__init__(
            description.name,
            fps=_positive(self._capture.get(self._cv2.CAP_PROP_FPS)),
            size_wh=(int(width), int(height)) if width and height else None,
            frame_count=int(count) if count and is_file else None,
            live=not is_file,
        )
        self._timeout = (options or CaptureOptions()).timeout
        self._position = 0.0

    def _read(self) -> Frame | None:
        try:
            good, image = self._capture.read()
            image = as_frame(image) if good else None
        except (self._cv2.error, ImageError) as error:
            raise SourceError(
                f"{self.name}: frame {self._delivered} can't be used: {error}"
            ) from error
        if image is None:
            self._check_end()
            return None
        number = self._delivered
        if self.live:
            return Frame(image, number, self.name, time=datetime.now().astimezone())
        self._position = max(self._capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1000, 0.0)
        return Frame(image, number, self.name, position=self._position)

    def _check_end(self) -> None:
        """Raise unless the source was to end here."""
        seen = self._delivered
        if self.live:
            raise SourceError(
                f"{self.name} gave no more frames after {seen}: "
                f"it was closed, unplugged, or silent for {self._timeout:g} s"
            )
        if self.frame_count is None:
            if seen == 0:
                raise SourceError(f"{self.name} holds no frame that can be decoded")
            return
        # Frames that a recorder dropped are counted by some headers and never come; the clock
        # of the last frame tells such a file from one that was cut.
        reached = max(seen, round(self._position * self.fps) + 1 if self.fps and seen else 0)
        forgiven = max(_FORGIVEN_FRAMES, _FORGIVEN_SHARE * self.frame_count)
        if seen == 0 or self.frame_count - reached > forgiven:
            raise TruncatedSourceError(
                f"{self.name} ended after frame {seen} of {self.frame_count}: "
                "the file is cut short or damaged; copy it again from where it was recorded"
            )

    def _release(self) -> None:
        self._capture.release()


def _positive(value: float) -> float | None:
    # OpenCV answers 0, -1 or a huge negative number where it doesn't know.
    return value if math.isfinite(value) and value > 0 else None


def _open(cv2: Any, description: SourceDescription, options: CaptureOptions) -> Any:
    opener = {"video": _open_file, "camera": _open_camera, "csi": _open_csi, "stream": _open_stream}
    if description.kind not in opener:
        raise SourceError(f"{description.name} is not a video, camera or stream")
    try:
        capture = opener[description.kind](cv2, description, options)
    except (cv2.error, UnicodeError) as error:
        # OpenCV's text may repeat an address with its password.
        why = "" if description.kind == "stream" else f": {error}"
        raise SourceError(f"OpenCV can't open {description.name}{why}") from error
    if not capture.isOpened():
        capture.release()
        raise SourceError(_why_not_opened(description, options))
    return capture


def _backend(cv2: Any, preferred: int) -> int:
    """Return `preferred` if this OpenCV has it, else the number that lets it choose."""
    has = cv2.videoio_registry.hasBackend(preferred)
    return preferred if has else int(cv2.CAP_ANY)


def _open_file(cv2: Any, description: SourceDescription, options: CaptureOptions) -> Any:
    if options.size_wh is not None or options.fps is not None:
        raise UsageError(f"size_wh and fps can't be chosen for a file: {description.name}")
    # FFmpeg by name: otherwise OpenCV may take digits in a name for a numbered series.
    # FFmpeg reads more than files when a name looks like an address, so it gets a full path.
    path = Path(description.target_text)
    _check_readable(path)
    capture = cv2.VideoCapture(os.fspath(path.absolute()), _backend(cv2, cv2.CAP_FFMPEG))
    _turn_upright(cv2, capture, description.name)
    return capture


def _open_stream(cv2: Any, description: SourceDescription, options: CaptureOptions) -> Any:
    if options.size_wh is not None or options.fps is not None:
        raise UsageError(
            f"size_wh and fps can't be chosen for {description.name}: set them in the camera"
        )
    if not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
        raise SourceError(f"can't open {description.name}: this OpenCV was built without FFmpeg")
    milliseconds = max(int(options.timeout * 1000), 1)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds]
    limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
    capture = cv2.VideoCapture(description.target_text, cv2.CAP_FFMPEG, limits)
    _turn_upright(cv2, capture, description.name)
    return capture


def _open_camera(cv2: Any, description: SourceDescription, options: CaptureOptions) -> Any:
    capture = cv2.VideoCapture(description.target, _backend(cv2, cv2.CAP_V4L2))
    if not capture.isOpened():
        return capture
    if options.size_wh is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.size_wh[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.size_wh[1])
        got = (
            int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        )
        if got != tuple(options.size_wh):
            _logger.warning(
                "%s gives %d x %d pixels, not the %d x %d asked for",
                *(description.name, *got, *options.size_wh),
            )
    if options.fps is not None:
        capture.set(cv2.CAP_PROP_FPS, options.fps)
    return capture


def _open_csi(cv2: Any, description: SourceDescription, options: CaptureOptions) -> Any:
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise SourceError(
            f"{description.name} needs an OpenCV with GStreamer, which the pip packages lack: "
            "uninstall opencv-python and use the one of JetPack (apt install python3-opencv)"
        )
    return cv2.VideoCapture(csi_pipeline(int(description.target), options), cv2.CAP_GSTREAMER)


def csi_pipeline(sensor: int, options: CaptureOptions) -> str:
    """Return the GStreamer pipeline that gives BGR frames of a Jetson's CSI camera.

    Parameters
    ----------
    sensor
        Number of the camera, from 0.
    options
        Size and rate; 1920 x 1080 at 30 frames per second where they are None.

    References
    ----------
    NVIDIA, *Jetson Linux Developer Guide*, "Accelerated GStreamer" (nvarguscamerasrc,
    nvvidconv).
    """
    width, height = options.size_wh or (1920, 1080)
    rate = round((options.fps or 30) * 1000)
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM), width={width}, height={height}, framerate={rate}/1000 ! "
        "nvvidconv ! video/x-raw, format=BGRx ! videoconvert ! video/x-raw, format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )


def _turn_upright(cv2: Any, capture: Any, name: str) -> None:
    """Have OpenCV apply the rotation that a phone wrote into the file."""
    if not capture.isOpened():
        return
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    turned = capture.get(cv2.CAP_PROP_ORIENTATION_META)
    if turned > 0 and not capture.get(cv2.CAP_PROP_ORIENTATION_AUTO):
        _logger.warning("%s is turned by %g degrees and this OpenCV can't undo it", name, turned)


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise SourceError(f"can't read {path}: {error.strerror or error}") from error
    if empty:
        raise SourceError(f"the video {path} is empty (0 bytes)")


def _why_not_opened(description: SourceDescription, options: CaptureOptions) -> str:
    name = description.name
    if description.kind == "video":
        return (
            f"can't open {name} as a video: it is damaged, cut short (an MP4 without its end "
            "can't be read) or in a format that this OpenCV doesn't know"
        )
    if description.kind == "stream":
        return (
            f"can't open {name} (waited at most {options.timeout:g} s): "
            "check the address, the credentials, and that the camera is reachable"
        )
    if description.kind == "csi":
        return f"can't open {name}: check the ribbon cable and that nvargus-daemon runs"
    present = sorted(path.name for path in Path("/dev").glob("video*"))
    have = f"there are {', '.join(present)}" if present else "this machine shows no camera in /dev"
    return f"can't open the camera {name} ({have}): is it in use, or not yours to read?"
