"""Where results go: what a sink is, and what ours have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import OutputError
from edge_fg.files import output_errors
from edge_fg.result import Result
from edge_fg.sources import Source

Annotate = Callable[[Result[Any]], NDArray[np.uint8]]
"""Draws a result on a copy of its frame: H x W x 3, BGR."""

RESERVE_BYTES = 64 << 20
"""Of the disk, left free by default."""


class Sink(Protocol):
    """Takes the results of a pipeline, in the order of their answers.

    The pipeline gives each sink a thread and a bounded queue of its own, so a sink may take its
    time and needs no lock against itself: `open` is called once, in the thread that starts the
    pipeline; `__call__` and `close` then come from the sink's thread alone.

    The optional attribute ``lossless`` says what happens when it is slow or fails:

    - absent or None: if all sources are files that wait for the model, recognition waits for the
      sink as well and nothing is lost; else the oldest waiting results are dropped and counted.
      Errors are counted, and each kind is logged once; after several in a row the sink is paused
      for a time that grows.
    - False: the oldest waiting results are always dropped.
    - True: no result is dropped, recognition waits; and an error ends the pipeline, because the
      promise can't be kept: `Pipeline.run` raises it.

    Events of dropped results are not lost: they come with the next result.

    After the last frame of a source, and when a camera is lost, visits may end. Those events come
    with a result whose `closing` is True; its frame was given before.

    Attributes
    ----------
    name
        Shown in the log and in statistics; holds no credentials.
    """

    name: str

    def open(self, sources: Sequence[Source]) -> None:
        """Get ready for results of these sources; called once, when the pipeline starts.

        Raises
        ------
        EdgeFGError
            It can't get ready: the start of the pipeline fails with this error.
        """

    def __call__(self, result: Result[Any], /) -> None:
        """Take one result."""

    def close(self) -> None:
        """Finish after the last result. Called once if `open` succeeded, also after errors."""


class BaseSink:
    """A sink that has nothing to open or close.

    Parameters
    ----------
    name
        Shown in the log and in statistics.
    lossless
        See `Sink`.
    """

    def __init__(self, name: str, lossless: bool | None = None) -> None:
        self.name = name
        self.lossless = lossless

    def open(self, sources: Sequence[Source]) -> None:
        """Get ready; nothing by default."""

    def close(self) -> None:
        """Finish; nothing by default."""


class CallbackSink(BaseSink):
    """Calls a function with each result, in a thread of its own.

    Parameters
    ----------
    function
        Called with a `Result`, from one thread. Errors that it raises are counted and logged.
    name
        Shown in the log and in statistics; None takes the function's.
    lossless
        See `Sink`.
    """

    def __init__(
        self,
        function: Callable[[Result[Any]], object],
        *,
        name: str | None = None,
        lossless: bool | None = None,
    ) -> None:
        super().__init__(name or str(getattr(function, "__name__", "callback")), lossless)
        self._function = function

    def __call__(self, result: Result[Any], /) -> None:
        """Call the function with the result."""
        self._function(result)


class SpaceGuard:
    """Refuses to write to a disk that is nearly full, until there is clearly more space again.

    The space that is left lets open files be finished and the machine go on working. `folder` is
    any on the disk. Once refused, writing goes on when there is half as much again as the reserve.
    """

    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        self._folder = folder
        self._reserve = reserve_bytes
        self._refusing = False

    def check(self, what: Path) -> None:
        """Raise an `OutputError` that names the file `what` if there is not enough space."""
        with output_errors(what):
            found = os.statvfs(self._folder)
        needed = self._reserve * 3 // 2 if self._refusing else self._reserve
        self._refusing = found.f_bavail * found.f_frsize < needed
        if self._refusing:
            raise OutputError(
                f"can't write {what}: the disk is nearly full ({self._reserve >> 20} MB are kept "
                "free); recording goes on when there is space"
            )
