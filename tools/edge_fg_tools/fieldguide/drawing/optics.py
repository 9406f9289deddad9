"""What camera and weather do to an image: light, blur, sensor noise and JPEG artefacts."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

# Standard deviation of the noise tile, in 0..255 units: fine steps, hardly any clipping.
_NOISE_LEVELS = 40.0


def photograph(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Photograph a painted RGB scene: light, dapple, blur, noise and compression at random."""
    image = expose(
        image,
        gain=float(np.exp(rng.normal(-0.04, 0.17))),
        gamma=float(rng.uniform(0.82, 1.25)),
        balance=np.exp(rng.normal(0.0, 0.045, 3)),
    )
    dapple = float(rng.uniform(0.0, 0.55)) if rng.random() < 0.4 else 0.0
    sigma = float(rng.uniform(0.0, 9.5))
    image = _blur(image, rng)
    image = grain(image, rng, sigma=sigma, dapple=dapple)
    if rng.random() < 0.7:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(28, 92)))
        buffer.seek(0)
        image = Image.open(buffer).convert("RGB")
    return image


def expose(
    image: Image.Image, *, gain: float, gamma: float, balance: NDArray[np.float64]
) -> Image.Image:
    """Change brightness (`gain`), contrast curve (`gamma`) and white balance (one gain each)."""
    level = np.arange(256) / 255.0
    tables = [np.clip(255.0 * gain * g * level**gamma, 0, 255).round() for g in balance.tolist()]
    return image.point(np.concatenate(tables).astype(int).tolist())


def grain(
    image: Image.Image, rng: np.random.Generator, *, sigma: float, dapple: float = 0.0
) -> Image.Image:
    """Add noise of standard deviation `sigma` (0..255 units) and patches of shade.

    `dapple` (0..1) is how dark the deepest shade is. Images are at most 1000 x 640 pixels.
    """
    width, height = image.size
    if dapple > 0.0:
        coarse = rng.integers(0, 256, (5, 5), dtype=np.uint8)
        table = (255.0 - dapple * np.arange(256)).round().astype(int).tolist()
        shade = Image.fromarray(coarse).resize(image.size, Image.Resampling.BICUBIC).point(table)
        image = ImageChops.multiply(image, Image.merge("RGB", (shade, shade, shade)))
    tile = _noise_tile()
    left = int(rng.integers(0, max(1, tile.width - width)))
    top = int(rng.integers(0, max(1, tile.height - height)))
    level = 128.0 + (np.arange(256) - 128.0) * (sigma / _NOISE_LEVELS)
    noise = tile.crop((left, top, left + width, top + height))
    noise = noise.point(level.round().astype(int).tolist() * 3)
    return ImageChops.add(image, noise, 1.0, -128)


def smooth_field(
    rng: np.random.Generator, size_wh: tuple[int, int], *, cells: int
) -> NDArray[np.float32]:
    """Smooth random field in 0..1 of shape (height, width), `cells` values across."""
    coarse = rng.integers(0, 256, (cells, cells), dtype=np.uint8)
    field = Image.fromarray(coarse).resize(size_wh, Image.Resampling.BICUBIC)
    values: NDArray[np.float32] = np.asarray(field, dtype=np.float32) / np.float32(255.0)
    return values


def _blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    unit = min(image.size) / 160.0
    kind = rng.random()
    if kind < 0.12:
        along = float(rng.uniform(0.8, 2.6)) * unit
        shrunk = [max(4, round(side / (1.0 + along))) for side in image.size]
        horizontal = rng.random() < 0.6
        size = (shrunk[0], image.height) if horizontal else (image.width, shrunk[1])
        smeared = image.resize(size, Image.Resampling.BILINEAR)
        return smeared.resize(image.size, Image.Resampling.BILINEAR)
    amount = float(rng.uniform(0.0, 1.0))
    if kind < 0.80:
        return image.filter(ImageFilter.BoxBlur(0.15 + 0.85 * amount * unit))
    return image


@lru_cache(maxsize=1)
def _noise_tile() -> Image.Image:
    """Make the fixed image of noise around 128, part luminance and part colour."""
    rng = np.random.default_rng(72)
    colour = rng.standard_normal((640, 1000, 3), dtype=np.float32)
    luminance = rng.standard_normal((640, 1000, 1), dtype=np.float32)
    noise = 128.0 + _NOISE_LEVELS * (0.6 * colour + 0.8 * luminance)
    return Image.fromarray(np.clip(noise.round(), 0, 255).astype(np.uint8))
