"""Show how far long work is: bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from edge_fg.progress import ProgressCallback

if TYPE_CHECKING:
    from rich.progress import TaskID

_SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def shown_progress() -> Iterator[ProgressCallback]:
    """Yield a callback that shows progress on standard error until the block ends."""
    try:
        import rich.progress  # noqa: F401
    except ImportError:
        usable = False
    else:
        usable = sys.stderr.isatty()
    if usable:
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
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as display:

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = display.add_task(stage, total=total)
            display.update(tasks[stage], completed=done, total=total)

        yield show
