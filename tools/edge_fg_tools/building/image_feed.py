"""Images on their way into a model, and a record of those that could not be read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_fg.images import read_image
from edge_fg.preprocess import CpuPreprocessor, PreprocessSpec
from edge_fg.progress import ProgressCallback
from edge_fg_calibration import ImageSet, LabelledImage, batches, image_set_digest
from edge_fg_calibration.budget.fidelity import log_probabilities
from edge_fg_calibration.data.sampling import TopAnswer
from edge_fg_calibration.graph.session import open_session, run_session
from edge_fg_calibration.statistics.cache import IdentifiedBatches, StatisticsCache, digest_of
from edge_fg_tools.graph import PreparedModel

# What is odd about an image was said when the set was sampled.
_read_quietly = partial(read_image, on_odd=lambda _kind, _sentence: None)


class ImageFeed:
    """Reads and preprocesses images in batches; `skipped` says why some could not be read.

    `batch` must be 1 for a model that fixes it at 1; `cache` keeps calibration statistics.
    """

    def __init__(
        self, spec: PreprocessSpec, batch: int, cache: StatisticsCache | None = None
    ) -> None:
        self._preprocess = CpuPreprocessor(spec)
        self._spec = digest_of(msgspec.to_builtins(spec))
        self._batch = batch
        self._cache = cache
        self._digests: dict[ImageSet, tuple[str, str]] = {}
        self.skipped: dict[Path, str] = {}

    def labelled(self, images: ImageSet) -> Iterator[tuple[list[LabelledImage], NDArray[Any]]]:
        """Yield images with their tensor of shape (N, ...)."""
        return batches(images, self._preprocess, self._batch, self._note, read=_read_quietly)

    def tensors(self, images: ImageSet) -> IdentifiedBatches:
        """Return the tensors alone, which know what they are: statistics can be reused."""
        names: list[str] = []

        def start() -> Iterator[NDArray[Any]]:
            names.clear()
            for some, tensor in self.labelled(images):
                names.extend(image.path.name for image in some)
                yield tensor

        if images not in self._digests:
            self._digests[images] = (
                image_set_digest(images),
                image_set_digest(images, ordered=True),
            )
        content, order = self._digests[images]
        return IdentifiedBatches(
            start=start,
            images=content,
            order=order,
            preprocessing=self._spec,
            name=images.name,
            cache=self._cache,
            at=names.__getitem__,
        )

    def _note(self, path: Path, error: Exception) -> None:
        self.skipped[path] = str(error)


def float_answers(
    prepared: PreparedModel, feed: ImageFeed, images: ImageSet
) -> Iterator[tuple[list[LabelledImage], NDArray[np.float64]]]:
    """Yield images that could be read with the float model's probabilities, N x classes."""
    session = open_session(prepared.model.SerializeToString())
    for some, tensor in feed.labelled(images):
        (rows,) = run_session(session, [prepared.output_name], {prepared.input_name: tensor})
        yield some, np.exp(log_probabilities(rows, prepared.kind))


def top_answers(
    prepared: PreparedModel, feed: ImageFeed, images: ImageSet, progress: ProgressCallback
) -> dict[Path, TopAnswer]:
    """Ask the float model about each image; those that can't be read are missing."""
    found: dict[Path, TopAnswer] = {}
    for some, rows in float_answers(prepared, feed, images):
        sure = np.sort(rows, axis=1)
        margins = (sure[:, -1] - sure[:, -2]).tolist()
        for image, row, margin in zip(some, rows, margins, strict=True):
            found[image.path] = TopAnswer(int(np.argmax(row)), margin)
        progress("choose images", len(found), len(images))
    return found
