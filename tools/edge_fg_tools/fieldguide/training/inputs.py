"""From photographs to the reference model's input, and many of them at once."""

from __future__ import annotations

import multiprocessing

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_fg_tools.fieldguide.dataset import LABELS, photograph_seed, render_photograph

INPUT_SIDE = 128
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def squash(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize an RGB image (height, width, 3) to (128, 128, 3) with Pillow, antialiased."""
    resized = Image.fromarray(pixels).resize((INPUT_SIDE, INPUT_SIDE), Image.Resampling.BILINEAR)
    return np.array(resized, dtype=np.uint8)


def normalise(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn uint8 pixels (N, 128, 128, 3) into float32 inputs (N, 3, 128, 128)."""
    mean, std = np.array(MEAN, dtype=np.float32), np.array(STD, dtype=np.float32)
    scaled = (pixels.astype(np.float32) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def render_inputs(
    set_seed: int, images_per_class: int, *, processes: int = 2
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Render an image set (see `write_image_set`) straight to resized pixels, class after class.

    Returns uint8 of shape (classes * images_per_class, 128, 128, 3) and the class indices; neither
    depends on how many processes share the work.
    """
    tasks = [(set_seed, index, images_per_class) for index in range(len(LABELS))]
    if processes > 1:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            parts = pool.map(_render_class, tasks, chunksize=1)
    else:
        parts = [_render_class(task) for task in tasks]
    labels = np.repeat(np.arange(len(LABELS), dtype=np.int64), images_per_class)
    return np.concatenate(parts), labels


def _render_class(task: tuple[int, int, int]) -> NDArray[np.uint8]:
    set_seed, index, count = task
    seeds = (photograph_seed(set_seed, index, number) for number in range(count))
    return np.stack([squash(render_photograph(index, seed)) for seed in seeds])
