"""One frame of a source, and what the source knows of it."""

from __future__ import annotations

import time as clock
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge_fg.preprocess.raw_frame import Pixels, RawFrame, size_of


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame, with its place in the source.

    Parameters
    ----------
    pixels
        H x W x 3, uint8, BGR; or the camera's own bytes, which the GPU path takes as they are.
    number
        Counts the frames that the source gave, from 0.
    source
        Path of the image or video file; for anything else its URI without credentials.
    time
        When the frame was captured, where that is known: by the clock of a camera or stream with
        its time zone; of an image file by its EXIF data, of a video by its creation time and
        position, with a zone only where the file states one (cameras write their local time).
    position
        Presentation time in a video file, in seconds; None for all other sources.
    captured
        When the frame came into this program, in seconds of `time.monotonic`: ages are taken
        from it, for it never jumps.
    dropped
        Frames that are known to have been lost since the one handed on before this.
    """

    pixels: Pixels = field(repr=False)
    number: int
    source: str
    time: datetime | None = None
    position: float | None = None
    captured: float = field(default_factory=clock.monotonic)
    dropped: int = 0

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """The frame as H x W x 3, uint8, BGR; converted once, where the camera gave raw bytes."""
        return self.pixels.to_bgr() if isinstance(self.pixels, RawFrame) else self.pixels

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = size_of(self.pixels)
        return width, height
