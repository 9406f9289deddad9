"""Show how far long work is: bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
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
    """Writes a line when a stage ends for the first time, and one every ten seconds.

    A stage may be named in parts, ``int8 plan: timing tactics``: the first part counts. `clock`
    gives seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._began: dict[str, float] = {}
        self._ended: set[str] = set()
        self._printed = clock()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Note that `done` of `total` steps of `stage` are done."""
        now, part = self._clock(), stage.partition(":")[0]
        seconds = now - self._began.setdefault(part, now)
        ended = done >= total and part not in self._ended
        if ended or now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed = now
            if ended:
                self._ended.add(part)
            print(f"{stage}: {done} of {total}, {seconds:.1f} s", file=self._stream, flush=True)


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
