"""Preprocessing on the CPU: the reference that every other implementation must equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_fg.preprocess.geometry import Geometry, geometry
from edge_fg.preprocess.resample import resample
from edge_fg.preprocess.spec import PreprocessSpec


class CpuPreprocessor:
    """Turn frames into the tensor that a model takes.

    Holds only look-up tables: safe to share between threads.
    """

    def __init__(self, spec: PreprocessSpec) -> None:
        self.spec = spec
        self._table = normalisation_table(spec)

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.generic]:
        """Return the tensor for frames: each (H, W, 3) uint8 BGR, of any size.

        It is (N, 3, h, w) or (N, h, w, 3) of the specification's dtype, C-contiguous. Raises
        `ImageError` if a frame is too narrow a strip; see `edge_fg.preprocess.geometry.geometry`.
        """
        tensor = np.empty((len(frames), *self.spec.tensor_shape), self._table.dtype)
        for slot, frame in zip(tensor, frames, strict=True):
            self._normalise(self.pixels(frame), slot)
        return tensor

    def pixels(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the resized and cropped pixels of a frame before normalisation.

        The frame is (H, W, 3) uint8 BGR; the pixels are (h, w, 3) uint8 in the model's colour
        order: exactly what Pillow gives.
        """
        plan = geometry(self.spec, frame.shape[0], frame.shape[1])
        cut = _cut(self._resize(frame, plan.resized), plan)
        if plan.padded:
            canvas = np.full((*plan.output, 3), self.spec.resize.fill, np.uint8)
            top, left = plan.offset
            canvas[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
            cut = canvas
        return cut[..., ::-1] if self.spec.color == "rgb" else cut

    def _resize(self, frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        if frame.shape[:2] == size:
            return frame
        resize = self.spec.resize
        if not resize.antialias:
            return resample(frame, size, resize.filter, antialias=False)
        # Imported here, since a device that preprocesses on its GPU never needs Pillow.
        from PIL import Image

        height, width = size
        kernel = Image.Resampling[resize.filter.upper()]
        # Channels are independent, so the BGR frame may pass for RGB. Two calls fix the order of
        # the passes, which Pillow 13 began to choose by size.
        image = Image.fromarray(np.ascontiguousarray(frame))
        across = image.resize((width, image.height), kernel)
        return np.asarray(across.resize((width, height), kernel))

    def _normalise(self, pixels: NDArray[np.uint8], out: NDArray[np.generic]) -> None:
        for channel in range(3):
            target = out[channel] if self.spec.layout == "nchw" else out[..., channel]
            np.take(self._table[channel], pixels[..., channel], out=target, mode="clip")


def _cut(image: NDArray[np.uint8], plan: Geometry) -> NDArray[np.uint8]:
    top, left, height, width = plan.crop
    return image[top : top + height, left : left + width]


def normalisation_table(spec: PreprocessSpec) -> NDArray[np.generic]:
    """Return (3, 256): the value of each channel for each of the 256 levels."""
    levels = np.arange(256, dtype=np.float64)
    mean = np.asarray(spec.mean, np.float64)[:, None]
    std = np.asarray(spec.std, np.float64)[:, None]
    table: NDArray[np.generic] = ((levels - mean) / std).astype(spec.dtype)
    return table
