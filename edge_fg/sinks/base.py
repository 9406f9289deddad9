"""What the sinks have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fg.result import Result
from edge_fg.sources import Source

Annotate = Callable[[Result[Any]], NDArray[np.uint8]]
"""Draws a result on a copy of its frame: H x W x 3, BGR."""


class BaseSink:
    """A sink that has nothing to open or close.

    Parameters
    ----------
    name
        Fit to be shown.
    lossless
        See `edge_fg.pipeline.Sink`.
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
        See `edge_fg.pipeline.Sink`.
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
