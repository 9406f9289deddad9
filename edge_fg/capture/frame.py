"""One frame of a source, and what the source knows of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame, with its place in the source.

    Parameters
    ----------
    image
        H x W x 3, uint8, BGR.
    number
        Counts the frames that the source gave, from 0.
    source
        Path of the picture or video file; for anything else its URI without credentials.
    time
        When the frame arrived, with a time zone, for cameras and streams; None for files.
    position
        Presentation time in a video file, in seconds; None for all other sources.
    """

    image: NDArray[np.uint8] = field(repr=False)
    number: int
    source: str
    time: datetime | None = None
    position: float | None = None
