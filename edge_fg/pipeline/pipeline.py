"""From several sources through one model to several sinks, each at its own pace."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from edge_fg.errors import UsageError
from edge_fg.pipeline.classifier_adapter import FrameClassifier
from edge_fg.pipeline.engine import Engine
from edge_fg.pipeline.policy import Policy, checked_policy, default_policy
from edge_fg.pipeline.recogniser import FollowerFactory
from edge_fg.pipeline.stream import check_max_frames
from edge_fg.pipeline.throttle import Throttle
from edge_fg.result import Result
from edge_fg.sinks.base import Sink
from edge_fg.sources import Source, open_source
from edge_fg.telemetry.stats import PipelineStats

if TYPE_CHECKING:
    from typing_extensions import Self

PredictionT = TypeVar("PredictionT")


class Pipeline(Generic[PredictionT]):
    """Recognises the frames of one or several sources and hands the results on.

    Each source is read in a thread of its own, the model runs in another, and every sink has its
    own: capture, recognition and output overlap, and what waits between them is bounded. Use it
    once: `run` it, iterate over it, or `start` it and let it work beside the program; the same
    from asyncio with ``async for`` and `run_async`. As a context manager it stops, at the latest,
    where the block ends. In a thread of the pipeline (of a sink, or of a listener to a source's
    state) `stop`, `drain` and `wait` return at once.

    A source that fails ends alone, its error stands in `stats`; when all have failed (or the only
    one), the first error is raised after all answers. An error of the model ends the pipeline. At
    the end, also after an error, the sources and sinks are closed; the classifier is not.

    Parameters
    ----------
    sources
        What `open_source` opens, or an open source; a list of them for several.
    classifier
        Answers frames, see `FrameClassifier`.
    policy
        Which frames are answered, as an object or as `parse_policy` reads it; None takes
        `Latest` for live sources and `Every` for others.
    sinks
        Take the results, see `Sink`.
    visits
        Makes a follower of visits for each source, given the source's number from 1, as
        `follow_visits` does; then the model is asked only about the regions that it proposes.
        None asks about whole frames.
    max_frames
        Stop after so many answers, of all sources together; None to go on to the end.
    batch
        Largest number of frames to give to the model at once, where as many wait; None decides
        by the measured cost of each size, see `BatchSizer`.
    throttle
        Lowers the rate when the device is too hot or draws too much; None never does.
    clock
        Seconds, the same clock as `Frame.captured`.

    Raises
    ------
    UsageError
        There is no source, or a value makes no sense.
    SourceError
        A source can't be opened; those that were opened are closed.

    Examples
    --------
    >>> pipeline = Pipeline(["csi://0", "rtsp://10.0.0.7/nest"], classifier)  # doctest: +SKIP
    >>> for result in pipeline:  # doctest: +SKIP
    ...     print(result.frame.source, result.prediction.label, result.age_s)
    """

    def __init__(
        self,
        sources: Source | str | int | Path | Iterable[Any],
        classifier: FrameClassifier[PredictionT],
        *,
        policy: Policy | str | None = None,
        sinks: Sequence[Sink] = (),
        visits: FollowerFactory | None = None,
        max_frames: int | None = None,
        batch: int | None = None,
        throttle: Throttle | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_max_frames(max_frames)
        if batch is not None and batch < 1:
            raise UsageError(f"batch must be at least 1, not {batch}")
        chosen = checked_policy(policy)
        with contextlib.ExitStack() as on_failure:
            opened: list[Source] = []
            for given in _one_by_one(sources):
                opened.append(given if isinstance(given, Source) else open_source(given))
                on_failure.callback(opened[-1].close)
            followers = None if visits is None else [visits(n + 1) for n in range(len(opened))]
            on_failure.pop_all()
        self._engine = Engine(
            opened,
            [chosen or default_policy(source.live) for source in opened],
            classifier,
            sinks=tuple(sinks),
            followers=followers,
            max_frames=max_frames,
            batch=batch,
            throttle=throttle,
            clock=clock,
        )

    def start(self) -> None:
        """Open the sinks and start all threads.

        Raises
        ------
        EdgeFGError
            A sink can't be opened: everything is closed.
        UsageError
            The pipeline has been started before.
        """
        self._engine.start()

    def stop(self) -> None:
        """Stop soon and wait for it: frames that wait are dropped, results that wait are written.

        Sinks get a few seconds for that. May be called again, and before the start.
        """
        self._engine.stop_and_wait()

    def drain(self, timeout: float | None = None) -> bool:
        """Read no more, answer what waits, write all results, and end.

        Parameters
        ----------
        timeout
            Seconds after which to `stop` instead; None for as long as it takes.

        Returns
        -------
        bool
            Whether everything was answered and written in time.
        """
        self._engine.drain()
        drained = self.wait(timeout)
        if not drained and not self._engine.is_inside():
            self.stop()
        return drained

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end and return whether it came within `timeout` seconds."""
        return self._engine.wait(timeout)

    def run(self) -> PipelineStats:
        """Start, wait for the end, and return what was done.

        What interrupts the wait (Ctrl-C) stops the pipeline and goes on to the caller.

        Raises
        ------
        EdgeFGError
            See the class: of a sink at the start, of the model, of the only source.
        """
        try:
            self.start()
            self.wait()
        finally:
            self.stop()
        self.check()
        return self.stats()

    def check(self) -> None:
        """Raise the error that ended the pipeline, if one did.

        Raises
        ------
        EdgeFGError
            Of the model, of the only source, or of a sink that promised to lose nothing.
        """
        self._engine.check()

    def stats(self) -> PipelineStats:
        """Return what was done so far, consistent at one moment; may be called at any time."""
        return self._engine.stats()

    def __enter__(self) -> Self:
        """Do nothing yet: in the block, run it, iterate over it or start it."""
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Result[PredictionT]]:
        """Start unless it runs already, yield the results, and stop when the loop is left.

        Where no frame may be lost, recognition waits for the loop. Else a loop that is late gets
        the newest result; those that it missed count as dropped by the sink ``iteration``, and
        their events come with the next.
        """
        return _results(self._engine)

    def __aiter__(self) -> AsyncIterator[Result[PredictionT]]:
        """Do as `__iter__`, for ``async for``; other tasks run meanwhile."""
        # Programs without an event loop load none: it takes longer than all of the pipeline.
        from edge_fg.pipeline import async_results

        return async_results.iterate(self._engine)

    async def run_async(self) -> PipelineStats:
        """Do as `run`, while other tasks run; cancelling it releases everything."""
        from edge_fg.pipeline import async_results

        return await async_results.run(self._engine)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        from edge_fg.pipeline import async_results

        await async_results.stop(self._engine)


def _results(engine: Engine) -> Generator[Result[Any], None, None]:
    results = engine.attach()
    try:
        engine.start(again=True)
        while (result := results.wait()) is not None:
            yield result
            del result
        engine.wait()
    finally:
        results.close()
        engine.stop_and_wait()
    engine.check()


def _one_by_one(sources: Any) -> list[Any]:
    """Return the sources that are given; a list of anything else (images) is one of them."""
    if isinstance(sources, (list, tuple)):
        if not sources:
            raise UsageError("the pipeline has no source: give at least one")
        if any(isinstance(each, (Source, str, int, Path)) for each in sources):
            return list(sources)
    return [sources]
