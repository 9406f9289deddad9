"""What the images of a live source show, counted and logged: stillness, black, a new size."""

from __future__ import annotations

import logging

from edge_fg.preprocess.raw_frame import RawFrame
from edge_fg.sources.live.connection import CapturedImage
from edge_fg.sources.live.freeze_detector import FreezeDetector, ImageFindings
from edge_fg.sources.options import SourceOptions
from edge_fg.sources.state import SourceStatus

_logger = logging.getLogger("edge_fg")


class ImageMonitor:
    """Inspects each image of one source, across reconnections.

    Parameters
    ----------
    name
        The source's name, fit to be shown.
    options
        What counts as frozen or black.
    status
        Where ``frozen``, ``black`` and ``size_changes`` are counted.
    """

    def __init__(self, name: str, options: SourceOptions, status: SourceStatus) -> None:
        self._name = name
        self._options = options
        self._status = status
        self._detector = FreezeDetector()
        self._is_black = False  # for so long that it was logged

    def frozen_for(self, image: CapturedImage) -> float | None:
        """Inspect the next image; seconds for which it has stood still if it counts as frozen.

        Then the source is ``stalled``, and the image must be withheld.
        """
        found = self._detector.inspect(image.pixels, image.captured)
        limit = self._options.frozen_after
        if limit is not None and found.still_s > limit:
            self._status.add("frozen")
            self._status.stalled(f"the same image for {found.still_s:.1f} s")
            return found.still_s
        if found.resized:
            self._status.add("size_changes")
            pixels = image.pixels
            size = pixels.size_wh if isinstance(pixels, RawFrame) else pixels.shape[1::-1]
            _logger.info("%s gives %d x %d pixels now", self._name, *size)
        if self._options.black_after is not None:
            self._note_black(found, self._options.black_after)
        return None

    def _note_black(self, found: ImageFindings, limit: float) -> None:
        if found.black_s is None:
            if self._is_black:
                _logger.info("%s shows images again", self._name)
            self._is_black = False
            return
        self._status.add("black")
        if found.black_s > limit and not self._is_black:
            self._is_black = True
            _logger.warning(
                "%s has shown black for %.0f s: night, a cap on the lens, or a broken sensor",
                *(self._name, found.black_s),
            )
