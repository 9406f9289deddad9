"""The loop from frames to answers."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_fg.capture import Frame, Source, open_source
from edge_fg.errors import UsageError
from edge_fg.streaming.reader import FrameReader

if TYPE_CHECKING:
    from typing_extensions import Self

PredictionT = TypeVar("PredictionT")
PredictionT_co = TypeVar("PredictionT_co", covariant=True)

# Enough to bridge a slow frame (a key frame, a page of disk); more only costs memory.
_READ_AHEAD = 4


class FrameClassifier(Protocol[PredictionT_co]):
    """Anything that answers a frame: H x W x 3, uint8, BGR."""

    def __call__(self, frame: NDArray[np.uint8], /) -> PredictionT_co:
        """Return the answer to one frame."""


class Stream(Iterator[tuple[Frame, PredictionT]], Generic[PredictionT]):
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
    ) -> None:
        self._reader = FrameReader(
            source,
            capacity=1 if source.live else _READ_AHEAD,
            newest=source.live,
            # Of a live source, frames that are dropped would count.
            limit=None if source.live else max_frames,
        )
        # A generator of its own, so that nothing refers back to the stream: the interpreter
        # closes it as soon as the stream is out of use.
        self._answers = _answers(self._reader, classifier, max_frames)

    @property
    def dropped(self) -> int:
        """Frames of a live source that were too old to be answered, so far; 0 for files."""
        return self._reader.dropped

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Frame, PredictionT]:
        return next(self._answers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading and release the source; may be called again."""
        self._answers.close()
        self._reader.close()


def stream(
    source: Source | str | int | Path | Iterable[Any],
    classifier: FrameClassifier[PredictionT],
    *,
    max_frames: int | None = None,
) -> Stream[PredictionT]:
    """Classify the frames of a source, one after the other.

    Of files, pictures and iterables every frame comes, in order; a thread reads a few frames
    ahead. Of a live source the newest frame comes each time, so that answers don't lag behind
    what the camera sees; how many were left out is counted in `Stream.dropped`. An error of the
    source is raised after the answers to all frames before it. At the end, however it comes
    about, the source is closed: frames that were read ahead could not be had again.

    Parameters
    ----------
    source
        An open source, or what `open_source` opens.
    classifier
        Called with each frame's image: H x W x 3, uint8, BGR.
    max_frames
        Stop after so many answers; None to go on to the end.

    Raises
    ------
    UsageError
        `max_frames` is less than 1.
    SourceError
        The source can't be opened; or, from the iteration, it failed.

    Examples
    --------
    >>> for frame, prediction in stream("meadow.mp4", classifier):  # doctest: +SKIP
    ...     print(frame.number, prediction.label, prediction.confidence)
    """
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"max_frames must be at least 1, not {max_frames}")
    opened = source if isinstance(source, Source) else open_source(source)
    return Stream(opened, classifier, max_frames=max_frames)


def _answers(
    reader: FrameReader, classifier: FrameClassifier[PredictionT], limit: int | None
) -> Generator[tuple[Frame, PredictionT], None, None]:
    count = 0
    try:
        reader.start()
        while (limit is None or count < limit) and (frame := reader.next()) is not None:
            count += 1
            yield frame, classifier(frame.image)
    finally:
        reader.close()
