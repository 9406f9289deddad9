"""The pipeline in asyncio: other tasks run, cancelling releases everything."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from edge_fg.errors import BackendError, OutputError, SourceError
from edge_fg.pipeline import Pipeline
from support import pipeline_fakes as fakes
from support.waiting import HANG, until

pytestmark = pytest.mark.usefixtures("no_thread_leaks")


def slow(image: np.ndarray) -> int:
    time.sleep(0.02)
    return 0


def test_async_for() -> None:
    async def main() -> list[int]:
        pipeline = Pipeline(fakes.Numbers(100), fakes.first_value)
        return [result.frame.number async for result in pipeline]

    assert asyncio.run(main()) == list(range(100))


def test_other_tasks_run_meanwhile() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    def model(image: np.ndarray) -> int:
        """Answer when other tasks have run since it was asked."""
        before = ticks
        until(lambda: ticks > before)
        return 0

    async def main() -> None:
        ticking = asyncio.create_task(tick())
        async for _ in Pipeline(fakes.Numbers(20), model):
            pass
        ticking.cancel()

    asyncio.run(main())
    assert ticks >= 20


def test_run_async() -> None:
    sink = fakes.Collecting()
    pipeline = Pipeline(fakes.Numbers(50), fakes.first_value, sinks=[sink])
    stats = asyncio.run(pipeline.run_async())
    assert stats.answered == len(sink.results) == 50
    assert stats.state == "ended"


def test_cancelling_releases_everything() -> None:
    source, sink = fakes.Numbers(live=True, period=0.001), fakes.Collecting()
    pipeline = Pipeline(source, slow, sinks=[sink])

    async def main() -> None:
        task = asyncio.create_task(pipeline.run_async())
        while not sink.results:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pipeline.stats().state == "ended"
        assert (source.releases, sink.closes) == (1, 1)

    asyncio.run(main())


def test_a_timeout_around_a_loop() -> None:
    source = fakes.Numbers(live=True, period=0.001)
    pipeline = Pipeline(source, slow)

    async def loop() -> None:
        async for _ in pipeline:
            pass

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop(), 0.2)
        assert pipeline.stats().state == "ended"
        assert source.releases == 1

    asyncio.run(main())


def test_cancelling_twice_still_releases_everything() -> None:
    class Sink(fakes.Collecting):
        def __call__(self, result) -> None:
            super().__call__(result)
            cancelled_twice.wait(HANG)

    cancelled_twice = threading.Event()
    source = fakes.Numbers(live=True, period=0.001)
    sink = Sink(lossless=True)
    pipeline = Pipeline(source, slow, sinks=[sink])

    async def main() -> None:
        task = asyncio.create_task(pipeline.run_async())
        while not sink.results:
            await asyncio.sleep(0.005)
        task.cancel()
        while pipeline.stats().state == "running":
            await asyncio.sleep(0.005)
        task.cancel()
        cancelled_twice.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pipeline.stats().state == "ended"

    asyncio.run(main())
    assert (source.releases, sink.closes) == (1, 1)


def test_leaving_the_loop() -> None:
    source = fakes.Numbers()

    async def main() -> None:
        async with Pipeline(source, fakes.first_value) as pipeline:
            async for result in pipeline:
                if result.frame.number == 3:
                    break
        assert source.releases == 1

    asyncio.run(main())

    async def without_with() -> None:
        async for result in Pipeline(another, fakes.first_value):
            if result.frame.number == 3:
                break

    another = fakes.Numbers()
    asyncio.run(without_with())
    assert another.releases == 1


def test_errors() -> None:
    async def numbers(pipeline: Pipeline) -> list[int]:
        seen = []
        try:
            async for result in pipeline:
                seen.append(result.frame.number)
        except (SourceError, BackendError) as error:
            seen.append(str(error))
        return seen

    def broken(image: np.ndarray) -> int:
        raise BackendError("broken")

    source = fakes.Numbers(3, error=SourceError("lost"))
    assert asyncio.run(numbers(Pipeline(source, fakes.first_value))) == [0, 1, 2, "lost"]
    assert asyncio.run(numbers(Pipeline(fakes.Numbers(), broken))) == ["broken"]
    with pytest.raises(BackendError, match="broken"):
        asyncio.run(Pipeline(fakes.Numbers(), broken).run_async())


def test_a_sink_that_cannot_be_opened() -> None:
    class Broken(fakes.Collecting):
        def open(self, sources) -> None:
            raise OutputError("read-only")

    source = fakes.Numbers(5)
    with pytest.raises(OutputError, match="read-only"):
        asyncio.run(Pipeline(source, fakes.first_value, sinks=[Broken()]).run_async())
    assert source.releases == 1


def test_two_pipelines_in_one_loop() -> None:
    async def count(pipeline: Pipeline) -> int:
        return len([result async for result in pipeline])

    async def main() -> list[int]:
        pipelines = [Pipeline(fakes.Numbers(n), fakes.first_value) for n in (30, 40)]
        return await asyncio.gather(*map(count, pipelines))

    assert asyncio.run(main()) == [30, 40]
