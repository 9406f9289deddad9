"""The simplest loop from frames to answers: one source, in the caller's thread."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from edge_fg.closing import Closing
from edge_fg.errors import UsageError
from edge_fg.pipeline.classifier_adapter import ClassifierAdapter, FrameClassifier
from edge_fg.pipeline.frame_queue import FrameQueue
from edge_fg.pipeline.next_frame_hint import NextFrameHint
from edge_fg.pipeline.policy import Policy, checked_policy, default_policy, is_lossless
from edge_fg.pipeline.source_reader import SourceReader
from edge_fg.result import Result
from edge_fg.sources import Source, open_source

PredictionT = TypeVar("PredictionT")


class Stream(Iterator[Result[PredictionT]], Closing, Generic[PredictionT]):
    """Frames with their answers; made by `stream`.

    It may be used as a context manager. Leaving the loop, `close`, an error, and dropping the
    last reference all stop the reading thread and release the source.
    """

    def __init__(
        self,
        source: Source,
        classifier: FrameClassifier[PredictionT],
        *,
        max_frames: int | None = None,
        policy: Policy | None = None,
    ) -> None:
        self._queue = FrameQueue(policy or default_policy(source.live), live=source.live)
        # Of a live source, frames that are dropped would count.
        keeps_all = not source.live and is_lossless(self._queue.policy)
        self._reader = SourceReader(source, self._queue, limit=max_frames if keeps_all else None)
        hint = NextFrameHint([source], [self._queue.policy])
        # A generator of its own, so that nothing refers back to the stream: the interpreter
        # closes it as soon as the stream is out of use.
        self._results = _results(self._reader, ClassifierAdapter(classifier), hint, max_frames)

    @property
    def dropped(self) -> int:
        """Frames that were not answered, by the policy, so far; 0 for files by default."""
        return self._queue.dropped.total()

    def __next__(self) -> Result[PredictionT]:
        return next(self._results)

    def close(self) -> None:
        """Stop reading and release the source; may be called again."""
        self._results.close()
        self._reader.close()


def stream(
    source: Source | str | int | Path | Iterable[Any],
    classifier: FrameClassifier[PredictionT],
    *,
    max_frames: int | None = None,
    policy: Policy | str | None = None,
) -> Stream[PredictionT]:
    """Classify the frames of a source, one after the other; each `Result` unpacks into both.

    Of files, images and iterables every frame comes, in order; a thread reads a few frames
    ahead. Of a live source the newest frame comes each time, so that answers don't lag behind
    what the camera sees; `Stream.dropped` counts the frames that were left out. An error of the
    source is raised after the answers to all frames before it. The source is always closed at
    the end: frames that were read ahead are lost to other readers.

    The model runs in the caller's thread, when the loop asks for the next answer. `Pipeline`
    runs it in one of its own, and takes several sources, sinks and visits.

    Parameters
    ----------
    source
        An open source, or what `open_source` opens.
    classifier
        Called with each frame's image: H x W x 3, uint8, BGR.
    max_frames
        Stop after so many answers; None to go on to the end.
    policy
        Which frames are answered, as an object or as `parse_policy` reads it; None takes
        `Latest` for live sources and `Every` for others.

    Raises
    ------
    UsageError
        `max_frames` is less than 1, or `policy` names none.
    SourceError
        The source can't be opened; or, from the iteration, it failed.

    Examples
    --------
    >>> for frame, prediction in stream("meadow.mp4", classifier):  # doctest: +SKIP
    ...     print(frame.number, prediction.label, prediction.confidence)
    """
    check_max_frames(max_frames)
    chosen = checked_policy(policy)
    opened = source if isinstance(source, Source) else open_source(source)
    return Stream(opened, classifier, max_frames=max_frames, policy=chosen)


def check_max_frames(max_frames: int | None) -> None:
    """Raise UsageError unless `max_frames` is None or at least 1."""
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"max_frames must be at least 1, not {max_frames}")


def _results(
    reader: SourceReader,
    adapter: ClassifierAdapter[PredictionT],
    hint: NextFrameHint,
    limit: int | None,
) -> Generator[Result[PredictionT], None, None]:
    count = 0
    try:
        reader.start()
        while (limit is None or count < limit) and (frame := reader.queue.wait()) is not None:
            count += 1
            started = time.monotonic()
            hint.turn_began(0, started)
            prediction = adapter.one(frame)
            ended = time.monotonic()
            hint.turn_ended(ended - started)
            yield Result(frame, prediction, ended - frame.captured)
    finally:
        reader.close()
