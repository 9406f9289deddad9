"""What stands between a live source and its camera."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from edge_fg.preprocess.raw_frame import RawFrame

_MAX_CLOCK_ERROR_S = 60.0


def wall_clock() -> datetime:
    """Return the time of day, with its zone; it is only shown, nothing is computed from it."""
    return datetime.now().astimezone()


def camera_time(stated_s: float, arrived: datetime) -> datetime:
    """Return the time that a camera's clock states, in seconds since 1970.

    Many cameras count from when they were switched on, or never learnt the time: further than
    a minute from the arrival, that is taken instead.
    """
    if abs(stated_s - arrived.timestamp()) > _MAX_CLOCK_ERROR_S:
        return arrived
    return arrived + timedelta(seconds=stated_s - arrived.timestamp())


@dataclass(frozen=True, eq=False)
class CapturedImage:
    """An image as it came from a connection."""

    # H x W x 3, uint8, BGR, in memory of its own; or the camera's own bytes.
    pixels: NDArray[np.uint8] | RawFrame
    # When it came, in seconds of `time.monotonic`.
    captured: float = field(default_factory=time.monotonic)
    # When it was taken by the camera's clock where that is known, else when it came; with a zone.
    time: datetime = field(default_factory=wall_clock)


@dataclass(frozen=True)
class CorruptedData:
    """Something came that is not an image."""

    reason: str  # What was wrong with it
    count: int = 1  # How many images or packets were lost by it


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image that came and is not decoded yet, so that the work can be saved."""

    # Gives the image, or what was wrong with it; called once at most, by the thread that reads,
    # before it reads on. It raises what `Connection.read` raises.
    decode: Callable[[], CapturedImage | CorruptedData]


class Connection(ABC):
    """One connection to a camera: opened once, read until it fails, closed once.

    `open`, `read` and `close` are called from one thread, `interrupt` from any other. No method may
    take longer than the time-out it was made with, if that can be avoided.
    """

    # Once open; None where the camera doesn't state it.
    fps: float | None = None
    size_wh: tuple[int, int] | None = None  # in pixels
    frame_count: int | None = None  # after which it ends: it turned out to be a file

    @abstractmethod
    def open(self) -> None:
        """Connect.

        `SourceError` if it didn't work and trying again may; `UsageError` or
        `MissingDependencyError` if it can never work.
        """

    @abstractmethod
    def read(self) -> CapturedImage | EncodedImage | CorruptedData | None:
        """Return the next image, or what came in its place; None at the end of the stream.

        An image that later ones don't need may be returned as `EncodedImage`. `SourceError` if the
        connection broke.
        """

    def interrupt(self) -> None:  # noqa: B027 - there may be nothing to do
        """Make an `open` or `read` of another thread return soon; else its own time-out ends it."""

    @abstractmethod
    def close(self) -> None:
        """Release everything; called also when `open` failed."""


Opener = Callable[[], Connection]  # makes one that is not open yet
