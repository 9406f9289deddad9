"""Pictures on their way into a model, and a record of those that could not be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edge_fg.preprocess import CpuPreprocessor, PreprocessSpec
from edge_fg_calibration import ImageSet, LabelledImage, batches


class PictureFeed:
    """Reads and preprocesses sets of pictures in batches.

    Parameters
    ----------
    spec
        How pictures are prepared.
    batch
        Pictures at a time; the batch size of a model that fixes it must be 1.

    Attributes
    ----------
    skipped
        Reason for each picture that could not be read, by its path.
    """

    def __init__(self, spec: PreprocessSpec, batch: int) -> None:
        self._preprocess = CpuPreprocessor(spec)
        self._batch = batch
        self.skipped: dict[Path, str] = {}

    def labelled(self, pictures: ImageSet) -> Iterator[tuple[list[LabelledImage], NDArray[Any]]]:
        """Yield pictures with their tensor of shape (N, ...)."""
        return batches(pictures, self._preprocess, self._batch, self._note)

    def tensors(self, pictures: ImageSet) -> Iterator[NDArray[Any]]:
        """Yield the tensors alone."""
        for _, tensor in self.labelled(pictures):
            yield tensor

    def _note(self, path: Path, error: Exception) -> None:
        self.skipped[path] = str(error)
