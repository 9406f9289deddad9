"""What decodes a video, and which decoder is taken."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fg.sources.live.connection import CorruptedData

PlacedImage = tuple[NDArray[np.uint8], float]
"""An image (H x W x 3, uint8, BGR, as it is stored) and its time in the video, in seconds."""

CANNOT_OPEN: Final = (
    "it is damaged, cut short (an MP4 without its end can't be read) or in a format "
    "that is not known here"
)


class VideoReader(Protocol):
    """Decodes one video file."""

    fps: float | None  # frames per second; None where it isn't stated
    size_wh: tuple[int, int] | None  # in pixels, as they are stored
    frame_count: int | None  # as stated, or estimated from the length
    created: datetime | None  # when the recording began
    matrix: bytes | None  # how to show its images, where `read` doesn't apply that

    def read(self) -> PlacedImage | CorruptedData | None:
        """Return the next image or what could not be decoded in its place; None at the end."""

    def close(self) -> None:
        """Release the file; may be called again."""
