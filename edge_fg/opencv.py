"""The one way to get OpenCV, and what must be known before it is called."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
from pathlib import Path
from typing import Any

from edge_fg.errors import import_optional

_QUIET = -8  # AV_LOG_QUIET


def load_cv2(purpose: str) -> Any:
    """Return the module ``cv2``; `purpose` says what it is needed for, to be read after "to".

    If it is not installed, a `MissingDependencyError` names the extra that brings it; if it can't
    be imported, the error says why.
    """
    return import_optional("cv2", "opencv-python-headless", "opencv", purpose)


def quiet_ffmpeg() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr, for the whole process.

    FFmpeg's level can only be set by an environment variable that is read when the first video
    is opened, so a program calls this at its start (the command line does). edge_fg reports every
    failure that matters by itself. A level that the user has set is kept.
    """
    cv2 = load_cv2("read videos")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", str(_QUIET))
    if "OPENCV_LOG_LEVEL" not in os.environ:
        # OpenCV 4.8 and 4.9 have it under the first name only.
        logging = getattr(cv2.utils, "logging", None)
        set_level = cv2.setLogLevel if logging is None else logging.setLogLevel
        set_level(0)  # LOG_LEVEL_SILENT


def hush_ffmpeg() -> None:
    """Keep FFmpeg within OpenCV from writing to stderr from now on, for the whole process.

    It is called once a video is open: FFmpeg writes lines for each damaged frame, without end for
    a camera, while edge_fg counts them. A level that the user has set is kept.
    """
    if "OPENCV_FFMPEG_LOGLEVEL" in os.environ:
        return
    with contextlib.suppress(OSError, AttributeError):
        for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
            path = line.partition("/")[2]
            # PyAV's own is quiet, or speaks because the program wants it.
            if "libavutil" in path and "/av.libs/" not in path:
                ctypes.CDLL(f"/{path}").av_log_set_level(_QUIET)


def is_utf8(text: str) -> bool:
    """Return whether OpenCV can take `text`: it crashes on names with bytes that are not UTF-8."""
    return text == text.encode(errors="ignore").decode()


def positive(value: float) -> float | None:
    """Return what OpenCV answered, or None for 0, -1 and the like, where it doesn't know."""
    return value if math.isfinite(value) and value > 0 else None


def stated_size(cv2: Any, capture: Any) -> tuple[int, int] | None:
    """Return the width and height in pixels that a capture states; None where it doesn't."""
    width = positive(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    height = positive(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    return (int(width), int(height)) if width and height else None
