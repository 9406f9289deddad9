"""One batch on its way to the GPU: images of fixed sizes in, a tensor out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_fg.closing import Closing
from edge_fg.cuda import Stream
from edge_fg.errors import UsageError
from edge_fg.preprocess.batch_input import Image, bytes_of
from edge_fg.preprocess.batch_layout import BatchLayout, Tables
from edge_fg.preprocess.staging import Staging


class Batch(Closing):
    """A batch of fixed geometry and output; made by `CudaPreprocessor`.

    `fill` it, `queue` it or launch the graph that `queue` was captured in, and let the stream
    pass before filling it again. For one thread at a time. `tables` are held for it, and if
    `owned`, `close` closes the staging memory too.
    """

    def __init__(
        self,
        staging: Staging,
        layout: BatchLayout,
        tables: Tables,
        output_pointer: int,
        *,
        owned: bool,
    ) -> None:
        self.shape = layout.plan.shape
        """Of the tensor."""
        self.dtype = layout.plan.dtype
        """Of the tensor."""
        self._staging = staging
        self._layout = layout
        self._tables = tables
        self._output = output_pointer
        self._owned = owned
        self._closed = False
        staging.arrange(layout)
        self._moves = staging.moves

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
        if self._closed:
            return
        self._closed = True
        if self._owned:
            self._staging.close()
        self._tables.release()
