"""Save frames as a video file, whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import OutputError, UsageError
from edge_fg.files import abandoned, opened_atomically
from edge_fg.images import as_frame
from edge_fg.opencv import is_utf8, load_cv2
from edge_fg.sinks.video_encoder import SUFFIXES, Encoder, open_encoder

if TYPE_CHECKING:
    from typing_extensions import Self

_LOGGER = logging.getLogger("edge_fg")


class VideoSaver:
    """Writes frames to a video file that appears when it is complete.

    A context manager. The frames go to a temporary file in the same folder, which is checked and
    renamed when the block ends, or removed when the block raises.

    Parameters
    ----------
    path
        Ends in .mp4, .m4v, .mov, .mkv (H.264 where PyAV or OpenCV has an encoder, else MPEG-4
        part 2, which browsers don't play and is warned about) or .avi (Motion JPEG).
    fps
        Frames per second.
    size_wh
        Width and height in pixels. Frames of another size are scaled to fit and framed in
        black. Odd sizes lose their last column or row, because the codecs need even ones.

    Raises
    ------
    OutputError
        The suffix is not known, the folder can't be written to, or no codec takes this size
        and rate; from `write` and the end of the block, the disk is full.
    UsageError
        `fps` or `size_wh` is out of range.
    """

    def __init__(self, path: Path | str, fps: float, size_wh: tuple[int, int]) -> None:
        self.path = Path(path)
        self.frames = 0
        self._size_wh = _even_size(size_wh)
        if not (math.isfinite(fps) and 0 < fps <= 1000):
            raise UsageError(f"fps must be between 0 and 1000, not {fps}")
        self._fps = fps
        check_video_path(self.path)
        self._cv2 = load_cv2("save videos")
        self._writer: Encoder | None = None
        self._temporary = ""
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for found in abandoned(self.path, suffix=self.path.suffix):
            with contextlib.suppress(OSError):
                found.unlink()
                _LOGGER.warning("removed %s, which an interrupted recording had left", found)
        with contextlib.ExitStack() as opening:
            # OpenCV chooses the container by the suffix.
            opened = opened_atomically(self.path, suffix=self.path.suffix)
            file = opening.enter_context(opened)
            self._writer = open_encoder(file.name, self.path, self._fps, self._size_wh)
            opening.push(self._finish)
            self._open = opening.pop_all()
            self._temporary = file.name
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._open.__exit__(kind, error, trace)
        except OutputError:
            if kind is None:
                raise  # else what failed in the block is told, as it is

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish the video and, if there was no error, check that it is whole."""
        writer, self._writer = self._writer, None
        assert writer is not None
        if kind is not None:
            with contextlib.suppress(OutputError):
                writer.release()
            return
        writer.release()
        if not self.frames:
            raise OutputError(f"{self.path} was not written: there was no frame to save")
        # OpenCV's writer doesn't say that the disk is full; the file does.
        if not self._is_whole():
            raise OutputError(
                f"can't save {self.path}: not all of its {self.frames} frames reached the file; "
                "is the disk full?"
            )

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame: H x W x 3, uint8, BGR, of any size.

        Raises
        ------
        ImageError
            It is not a frame.
        OutputError
            The saver is not open.
        """
        if self._writer is None:
            raise OutputError(f"{self.path} is not open: use VideoSaver in a with statement")
        self._writer.write(_letterboxed(self._cv2, as_frame(frame), self._size_wh))
        self.frames += 1

    def _is_whole(self) -> bool:
        """Return whether the file counts every frame and gives the last one."""
        cv2 = self._cv2
        capture = cv2.VideoCapture(self._temporary, cv2.CAP_FFMPEG)
        if not capture.isOpened():
            return False
        counted = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == self.frames
        capture.set(cv2.CAP_PROP_POS_FRAMES, self.frames - 1)
        good = counted and capture.read()[0]
        capture.release()
        return bool(good)


def check_video_path(path: Path) -> None:
    """Refuse a path of an unknown suffix, of a name that is not UTF-8, or of a directory."""
    if not is_utf8(os.fspath(path.absolute())):
        raise OutputError(f"can't save {path}: its name is not UTF-8, which OpenCV needs")
    if path.suffix.lower() not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise OutputError(f"can't save {path}: its name must end in one of {known}")
    if path.is_dir():
        raise OutputError(f"can't save {path}: it is a directory")


def _even_size(size_wh: tuple[int, int]) -> tuple[int, int]:
    if len(size_wh) != 2 or min(size_wh) < 2:
        raise UsageError(f"size_wh must be (width, height) of 2 pixels or more, not {size_wh}")
    return int(size_wh[0]) // 2 * 2, int(size_wh[1]) // 2 * 2


def _letterboxed(cv2: Any, frame: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    width, height = size_wh
    if frame.shape[1] - width in (0, 1) and frame.shape[0] - height in (0, 1):
        return np.ascontiguousarray(frame[:height, :width])
    scale = min(width / frame.shape[1], height / frame.shape[0])
    inner_w = min(max(round(frame.shape[1] * scale), 1), width)
    inner_h = min(max(round(frame.shape[0] * scale), 1), height)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    left, top = (width - inner_w) // 2, (height - inner_h) // 2
    boxed = np.zeros((height, width, 3), np.uint8)
    resized = cv2.resize(frame, (inner_w, inner_h), interpolation=how)
    boxed[top : top + inner_h, left : left + inner_w] = resized
    return boxed
