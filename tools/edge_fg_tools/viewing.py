"""Annotated frames on their way to a file or a window."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from edge_fg.capture import Frame
from edge_fg.errors import MissingDependencyError, OutputError
from edge_fg.recognition.prediction import Prediction
from edge_fg.sinks.annotate import Annotator
from edge_fg.sinks.video_saver import VideoSaver

_PICTURES_PER_SECOND = 1.0


class Recorder:
    """Saves annotated frames as a video of the first frame's size.

    What was recorded before an interruption is kept; the file appears when the block ends.

    Parameters
    ----------
    path
        The video file.
    fps
        Frames per second of the source; None for pictures, which are shown for a second each.
    """

    def __init__(self, path: Path, fps: float | None) -> None:
        self._path = path
        self._fps = fps or _PICTURES_PER_SECOND
        self._annotate = Annotator()
        self._saver: VideoSaver | None = None

    def __call__(self, frame: Frame, prediction: Prediction) -> None:
        """Add one frame."""
        if self._saver is None:
            height, width = frame.image.shape[:2]
            self._saver = VideoSaver(self._path, self._fps, (width, height))
            self._saver.__enter__()
        self._saver.write(self._annotate(frame.image, prediction))

    def __enter__(self) -> Recorder:
        if not self._path.absolute().parent.is_dir():
            raise OutputError(f"can't save {self._path}: its folder does not exist")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._saver is None:
            return
        # The user has seen enough, and keeps what there is.
        if kind in (KeyboardInterrupt, WindowClosed):
            self._saver.__exit__(None, None, None)
        else:
            self._saver.__exit__(kind, error, trace)


class WindowClosed(Exception):  # noqa: N818  not an error
    """The user closed the window, and has seen enough."""


class Window:
    """Shows annotated frames in a window; closing it, q or Escape raises `WindowClosed`.

    Parameters
    ----------
    title
        Of the window.

    Raises
    ------
    MissingDependencyError
        This OpenCV can't open windows.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._annotate = Annotator()
        self._cv2 = _cv2_with_windows(title)

    def __call__(self, frame: Frame, prediction: Prediction) -> None:
        """Show one frame."""
        cv2 = self._cv2
        cv2.imshow(self._title, self._annotate(frame.image, prediction))
        key = cv2.waitKey(1) & 0xFF
        # Asked after waitKey, which is what lets the window notice that it was closed.
        visible = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        if not visible or key in (ord("q"), 27):
            raise WindowClosed

    def __enter__(self) -> Window:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cv2.destroyAllWindows()


def _cv2_with_windows(title: str) -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError("opencv-python", "display", "open a window") from error
    try:
        cv2.namedWindow(title)
    except cv2.error as error:
        raise MissingDependencyError("opencv-python", "display", "open a window") from error
    return cv2
