"""Where results go: what a sink is, and what ours have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fg.result import Result
from edge_fg.sources import Source

Annotate = Callable[[Result[Any]], NDArray[np.uint8]]
"""Draws a result on a copy of its frame: H x W x 3, BGR."""


class Sink(Protocol):
    """Takes the results of a pipeline, in the order of their answers.

    The pipeline gives each sink a thread and a bounded queue of its own, so a sink may take its
    time and needs no lock against itself: `open` is called once, in the thread that starts the
    pipeline; `__call__` and `close` then come from the sink's thread alone.

    What happens when it fails or is slow says the optional attribute ``lossless``:

    - absent or None: it waits in line (nothing is lost) where no frame may be lost either, that
      is, where all sources are files that wait for the model; else the oldest waiting
      results are dropped and counted. Errors are counted, said once a kind in the log, and after
      several in a row the sink is paused for a time that grows.
    - False: the oldest waiting results are dropped, whatever the sources are.
    - True: a result is never dropped, recognition waits; and an error ends the pipeline, for it
      can't keep the promise: `Pipeline.run` raises it.

    Events of results that were dropped are not lost: the next result brings them along.

    After the last frame of a source, and when a camera is lost, visits may end: those events come
    with a result whose `closing` is True and whose frame has been handed on before.

    Attributes
    ----------
    name
        Fit to be shown in the log and in statistics.
    """

    name: str

    def open(self, sources: Sequence[Source]) -> None:
        """Get ready for results of these sources; called once, when the pipeline starts.

        Raises
        ------
        EdgeFGError
            It can't be: the start of the pipeline fails with it.
        """

    def __call__(self, result: Result[Any], /) -> None:
        """Take one result."""

    def close(self) -> None:
        """Finish: the last result has come. Called once if `open` succeeded, also after errors."""


class BaseSink:
    """A sink that has nothing to open or close.

    Parameters
    ----------
    name
        Fit to be shown.
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
        Called with a `Result`, from one thread. What it raises is counted and logged.
    name
        Fit to be shown; None takes the function's.
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
        """Hand the result to the function."""
        self._function(result)
