"""The pipeline in asyncio: its threads wake the event loop, nothing in it blocks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol

from edge_fg.pipeline.result_queue import ResultQueue
from edge_fg.result import Result
from edge_fg.telemetry.stats import PipelineStats


class _Pipeline(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...

    def check(self) -> None: ...

    def stats(self) -> PipelineStats: ...


class _Engine(Protocol):
    def attach(
        self, *, blocking: bool, notify: Callable[[], None] | None = None
    ) -> ResultQueue: ...

    def start(self, *, again: bool = False) -> None: ...

    def on_end(self, listener: Callable[[], None]) -> None: ...


async def iterate(
    pipeline: _Pipeline, engine: _Engine, *, blocking: bool
) -> AsyncGenerator[Result[Any], None]:
    """Start a pipeline, yield its results, and stop it when the loop is left."""
    changed = asyncio.Event()
    ended = asyncio.Event()
    results = engine.attach(blocking=blocking, notify=_wake(changed))
    engine.on_end(_wake(ended))
    try:
        await _in_thread(lambda: engine.start(again=True))
        while True:
            changed.clear()
            result = results.poll()
            if result is not None:
                yield result
                del result
            elif results.finished:
                break
            else:
                await changed.wait()
        await ended.wait()
    finally:
        results.close()
        await stop(pipeline)
    pipeline.check()


async def run(pipeline: _Pipeline, engine: _Engine) -> PipelineStats:
    """Start a pipeline, wait for its end, and return what was done."""
    ended = asyncio.Event()
    engine.on_end(_wake(ended))
    try:
        await start(pipeline)
        await ended.wait()
    finally:
        await stop(pipeline)
    pipeline.check()
    return pipeline.stats()


async def start(pipeline: _Pipeline) -> None:
    """Start a pipeline; its sinks may take their time to open."""
    await _in_thread(pipeline.start)


async def stop(pipeline: _Pipeline) -> None:
    """Stop a pipeline, to the end even when the task is cancelled meanwhile."""
    await _in_thread(pipeline.stop)


async def _in_thread(call: Callable[[], None]) -> None:
    """Run `call` in a thread; when cancelled, let it end first: nothing is left half done."""
    done = asyncio.ensure_future(asyncio.to_thread(call))
    cancelled: asyncio.CancelledError | None = None
    while not done.done():
        try:
            await asyncio.wait({done})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        with contextlib.suppress(Exception):
            done.result()
        raise cancelled
    done.result()


def _wake(event: asyncio.Event) -> Callable[[], None]:
    loop = asyncio.get_running_loop()

    def wake() -> None:
        # The loop may be gone when the last thread ends.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(event.set)

    return wake
