"""The pipeline in asyncio: its threads wake the event loop, which never blocks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

from edge_fg.pipeline.engine import Engine
from edge_fg.result import Result
from edge_fg.telemetry.stats import PipelineStats


async def iterate(engine: Engine) -> AsyncGenerator[Result[Any], None]:
    """Start a pipeline, yield its results, and stop it when the loop is left."""
    changed = asyncio.Event()
    ended = asyncio.Event()
    results = engine.attach(_wake(changed))
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
        await stop(engine)
    engine.check()


async def run(engine: Engine) -> PipelineStats:
    """Start a pipeline, wait for its end, and return what was done."""
    ended = asyncio.Event()
    engine.on_end(_wake(ended))
    try:
        # Sinks may take their time to open.
        await _in_thread(engine.start)
        await ended.wait()
    finally:
        await stop(engine)
    engine.check()
    return engine.stats()


async def stop(engine: Engine) -> None:
    """Stop a pipeline, to the end even when the task is cancelled meanwhile."""
    await _in_thread(engine.stop_and_wait)


async def _in_thread(call: Callable[[], None]) -> None:
    """Run `call` in a thread; when cancelled, wait for its end first, so that it is complete."""
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
