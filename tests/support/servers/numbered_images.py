"""Images that tell their number, so that a test knows what was sent and what was made up."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

BLOCKS = (4, 8)  # rows and columns of bits in the upper two thirds
SMALL, LARGE = (64, 48), (96, 64)


def numbered(number: int, size_wh: tuple[int, int] = SMALL) -> np.ndarray:
    """H x W x 3 uint8 BGR that shows 24 bits of `number` and 8 bits to check them by."""
    width, height = size_wh
    word = (number & 0xFFFFFF) << 8 | _check(number)
    bits = ((word >> np.arange(32)) & 1).astype(np.uint8).reshape(BLOCKS)
    image = np.full((height, width, 3), 128, np.uint8)
    upper = np.kron(bits, np.ones((height // 6, width // 8), np.uint8)) * 190 + 30
    image[: upper.shape[0], : upper.shape[1]] = upper[:, :, None]
    # Something that differs everywhere, for a camera's noise.
    noise = np.random.default_rng(number).integers(100, 156, (height // 3, width, 1))
    image[height - height // 3 :] = noise
    return image


def shown(image: np.ndarray) -> int | None:
    """The number that an image shows; None when it is none of ours, or damaged."""
    height, width = image.shape[:2]
    rows, columns = height // 6, width // 8
    upper = image[: 4 * rows, : 8 * columns].astype(float).mean(axis=2)
    means = upper.reshape(4, rows, 8, columns).mean(axis=(1, 3)).reshape(32)
    if np.any(np.abs(means - 125) < 40):
        return None
    word = int(((means > 125).astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum())
    number = word >> 8
    return number if word & 0xFF == _check(number) else None


def jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """Baseline JPEG, 4:2:0, with the usual Huffman tables."""
    buffer = io.BytesIO()
    rgb = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
    rgb.save(buffer, "JPEG", quality=quality, subsampling=2)
    return buffer.getvalue()


def _check(number: int) -> int:
    return (number * 37 + 11 ^ number >> 7) & 0xFF
