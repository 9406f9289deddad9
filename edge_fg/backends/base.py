"""What every backend does: frames in, the model's outputs out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fg.boxes import Region, checked_region
from edge_fg.bundle import Precision
from edge_fg.preprocess.raw_frame import Pixels


@dataclass(frozen=True)
class Outputs:
    """What the model answered for N frames."""

    # By the output's name; each float32 with N as first axis.
    tensors: dict[str, NDArray[np.float32]]
    # Milliseconds that the N frames took together.
    preprocess_ms: float
    inference_ms: float


class Backend(Protocol):
    """Executes one variant of a bundle. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """Return its name on the command line."""
        ...

    @property
    def precision(self) -> Precision:
        """Return the variant that it executes."""
        ...

    @property
    def takes_raw(self) -> bool:
        """Return whether it reads raw frames as they are; else it converts them first."""
        ...

    @property
    def engine_bytes(self) -> int | None:
        """Return the device's memory that opening it took; None where it has none of its own."""
        ...

    def infer(
        self,
        frames: Sequence[Pixels],
        regions: Sequence[Region | None] | None = None,
    ) -> Outputs:
        """Return the model's outputs for each frame, or for one region of each.

        Frames are (H, W, 3) uint8 BGR or raw ones, also side by side; regions are in pixels of
        the frame. A raw frame's answer is that of its `RawFrame.to_bgr`. Raises `ImageError` if a
        frame or region can't be used, and `BackendError` if the model could not be executed or the
        backend is closed.
        """
        ...

    def interrupt(self, thread: threading.Thread, /) -> None:
        """End the inference that `thread` waits for, where it can be ended.

        It then raises `BackendError`, unless it is done before.
        """
        ...

    def close(self) -> None:
        """Release what the backend holds; it can't be used afterwards. May be called again."""
        ...


def cut(frame: NDArray[np.uint8], region: Region | None) -> NDArray[np.uint8]:
    """Return the part of `frame` (H, W, 3) that `region` names, without copying.

    Raises `ImageError` if the region is not four whole numbers, is empty or reaches outside the
    frame.
    """
    if region is None:
        return frame
    x, y, width, height = checked_region(region, frame.shape[0], frame.shape[1])
    return frame[y : y + height, x : x + width]
