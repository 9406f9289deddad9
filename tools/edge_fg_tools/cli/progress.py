"""Show how far long work is: bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from edge_fg.progress import ProgressCallback

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def shown_progress() -> Iterator[ProgressCallback]:
    """Yield a callback that shows progress on standard error until the block ends."""
    if sys.stderr.isatty() and _rich_is_there():
        with _bars() as bars:
            yield bars
    else:
        yield PlainLines(sys.stderr)


class PlainLines:
    """Writes a line when a stage begins and ends, and every few seconds in between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stage = ""
        self._began = 0.0
        self._printed = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Note that `done` of `total` steps of `stage` are done."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began, self._printed = stage, now, 0.0
        ended = done >= total
        if ended or now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed = now
            seconds = f", {now - self._began:.1f} s" if ended and now > self._began else ""
            print(f"{stage}: {done} of {total}{seconds}", file=self._stream, flush=True)


def _rich_is_there() -> bool:
    try:
        import rich.progress  # noqa: F401
    except ImportError:
        return False
    return True


@contextlib.contextmanager
def _bars() -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as display:
        yield _Bars(display)


class _Bars:
    def __init__(self, display: Progress) -> None:
        self._display = display
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._display.add_task(stage, total=total)
        self._display.update(self._tasks[stage], completed=done, total=total)
