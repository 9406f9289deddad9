"""Images small enough to stand inside a page."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_fg.errors import ImageError

_QUALITY = 82


def thumbnail(frame_bgr: npt.NDArray[np.uint8], size: int = 160) -> bytes:
    """Make a frame (H x W x 3 uint8 BGR) small: a JPEG file of its proportions, without metadata.

    The longest side becomes `size` pixels, at least 1; a smaller frame is not enlarged. Raises
    ImageError where the frame is empty or of another shape or type, or `size` is below 1.
    """
    if frame_bgr.ndim != 3 or frame_bgr.shape[2] != 3 or frame_bgr.dtype != np.uint8:
        raise ImageError(
            f"a thumbnail needs a frame of H x W x 3 uint8, "
            f"not {' x '.join(map(str, frame_bgr.shape))} {frame_bgr.dtype}"
        )
    if frame_bgr.size == 0 or size < 1:
        height, width = frame_bgr.shape[:2]
        raise ImageError(f"can't make a thumbnail of {size} px from a {width} x {height} frame")
    image = Image.fromarray(np.ascontiguousarray(frame_bgr[:, :, ::-1]))
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def data_uri(jpeg: bytes) -> str:
    """Return a JPEG file as a ``data:`` address that a page can hold."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
