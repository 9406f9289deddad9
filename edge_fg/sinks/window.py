"""A live window."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import MissingDependencyError, OutputError, import_optional
from edge_fg.printing import first_line
from edge_fg.result import Result
from edge_fg.sinks.base import Annotate, BaseSink
from edge_fg.sinks.result_annotator import ResultAnnotator

_ESCAPE = 27
_REFRESH_SECONDS = 0.02


class WindowSink(BaseSink):
    """Shows the newest annotated frame of each source in a window.

    Most window systems need one thread, usually the main one: make the sink in it, and call `serve`
    or `refresh` there while the pipeline runs.

    Parameters
    ----------
    title
        Of the window; with several sources each has one.
    annotate
        Draws the answer; None takes a `ResultAnnotator`.

    Raises
    ------
    MissingDependencyError
        OpenCV is missing, can't be imported, or was built without windows.
    OutputError
        OpenCV can't open one, as where there is no display.
    """

    def __init__(self, title: str = "edge-fg", *, annotate: Annotate | None = None) -> None:
        super().__init__("window", lossless=False)
        self._title = title
        self._annotate = annotate or ResultAnnotator()
        self._cv2 = _cv2_with_windows(title)
        self._lock = threading.Lock()
        self._newest: dict[int, NDArray[np.uint8]] = {}
        self._shown: set[str] = set()

    def __call__(self, result: Result[Any], /) -> None:
        """Keep the frame until the window shows it."""
        if not result.closing:
            image = self._annotate(result)
            with self._lock:
                self._newest[result.source_index] = image

    def refresh(self) -> bool:
        """Show the frames since the last call; return False once the user has closed a window.

        The keys q and Escape close it too.
        """
        with self._lock:
            newest, self._newest = self._newest, {}
        cv2 = self._cv2
        for source, image in newest.items():
            title = self._title if source == 0 else f"{self._title} {source}"
            cv2.imshow(title, image)
            self._shown.add(title)
        key = cv2.waitKey(1) & 0xFF
        # After waitKey, in which the window notices that it was closed.
        visible = all(
            cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1 for title in self._shown
        )
        return visible and key not in (ord("q"), _ESCAPE)

    def serve(self, running: Callable[[], bool]) -> bool:
        """Refresh until `running` gives False; return False if the user closed the window."""
        while running():
            if not self.refresh():
                return False
            time.sleep(_REFRESH_SECONDS)
        return True

    def destroy(self) -> None:
        """Close the windows, in the thread that made the sink."""
        self._cv2.destroyAllWindows()


def _cv2_with_windows(title: str) -> Any:
    purpose = "open a window"
    cv2 = import_optional("cv2", "opencv-python", "display", purpose)
    try:
        cv2.namedWindow(title)
    except cv2.error as error:
        if "not implemented" not in str(error):
            raise OutputError(f"OpenCV can't {purpose}: {first_line(error)}") from error
        # A build without windows, such as opencv-python-headless.
        raise MissingDependencyError("opencv-python", "display", purpose) from None
    return cv2
