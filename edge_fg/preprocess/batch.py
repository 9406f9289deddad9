"""One batch on its way to the GPU: images of fixed sizes in, a tensor out."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_fg.closing import Closing
from edge_fg.cuda import Stream
from edge_fg.errors import UsageError
from edge_fg.preprocess.batch_input import Image, bytes_of
from edge_fg.preprocess.device_tables import Tables
from edge_fg.preprocess.staging import BatchLayout, Staging


class Batch(Closing):
    """A batch of fixed geometry and output; made by `CudaPreprocessor`.

    `fill` it, `queue` it or launch the graph that `queue` was captured in, and let the stream
    pass before filling it again. For one thread at a time. `close` releases
    what is `held` for it: its tables, and the staging memory if that is its own.
    """

    def __init__(
        self,
        staging: Staging,
        layout: BatchLayout,
        tables: Tables,
        output_pointer: int,
        held: contextlib.ExitStack,
    ) -> None:
        self._staging = staging
        self._layout = layout
        self._tables = tables
        self._output = output_pointer
        staging.arrange(layout)
        self._moves = staging.moves
        self._held = held.pop_all()

    @property
    def moved(self) -> bool:
        """Whether the staging memory has moved since: a graph that was captured can't be used."""
        return self._staging.moves != self._moves

    @property
    def places(self) -> tuple[NDArray[np.uint8], ...]:
        """Page-locked memory of each image, uint8 with one axis, until `close`.

        A camera or decoder that writes into it saves the copy that `fill` makes: of a full-HD
        frame, most of what a batch costs the host.
        """
        return tuple(self._staging.places)

    def fill(self, images: Sequence[Image]) -> None:
        """Take over the images.

        Each is what its layout says: all its bytes, uint8 of any shape and strides, in one array or
        in several whose bytes follow one another. Raises `ImageError` if one has another length
        than its layout says, and `UsageError` if there are more or fewer images than in the batch.
        """
        sizes = self._layout.sizes
        if len(images) != len(sizes):
            raise UsageError(f"{len(images)} images for a batch of {len(sizes)}")
        checked = [bytes_of(*pair) for pair in zip(images, sizes, strict=True)]
        self._staging.arrange(self._layout)
        self._staging.fill(checked)

    def point(self, pointers: Sequence[int]) -> None:
        """Take the images from these device addresses instead, one for each row of the tensor."""
        self._staging.describe(self._layout, pointers)

    def queue(self, stream: Stream) -> None:
        """Queue the copy and the launches; can be captured."""
        self._staging.queue(self._layout, self._tables, self._output, stream)

    def close(self) -> None:
        """Release what it holds, once the device is done with it; may be called again."""
        self._held.close()
