"""Photographs of the field guide's birds, and image sets made of them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_fg.errors import UsageError
from edge_fg.files import write_atomically
from edge_fg_tools.fieldguide.drawing.anatomy import random_pose
from edge_fg_tools.fieldguide.drawing.individual import draw_individual
from edge_fg_tools.fieldguide.drawing.optics import photograph
from edge_fg_tools.fieldguide.drawing.painter import paint_bird
from edge_fg_tools.fieldguide.drawing.perches import draw_perch, random_perch
from edge_fg_tools.fieldguide.drawing.scene import backdrop, draw_occluder
from edge_fg_tools.fieldguide.species import BACKGROUND_LABEL, SPECIES

LABELS: tuple[str, ...] = (*(species.common_name for species in SPECIES), BACKGROUND_LABEL)
BACKGROUND_INDEX = len(SPECIES)

# How Pillow saves a file of each suffix.
_FORMATS: dict[str, dict[str, Any]] = {
    ".jpg": {"format": "JPEG", "quality": 92},
    ".png": {"format": "PNG", "compress_level": 1},
}
_SIDES = (160, 360)
_ASPECTS = (1.0, 4.0 / 3.0, 3.0 / 2.0, 16.0 / 9.0, 3.0 / 4.0, 4.0 / 5.0)


def render_photograph(
    species_index: int, seed: int, size_wh: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Render one photograph of a bird, or of a place without one: uint8 (height, width, 3) RGB.

    `species_index` is an index in `LABELS`; the last one is the background. The size in pixels, at
    least 32 a side, is drawn from the seed where it is None. The same index, seed (0 or more) and
    size give the same pixels (with the same numpy and Pillow). Raises UsageError for an index, seed
    or size out of range.
    """
    if not 0 <= species_index < len(LABELS):
        raise UsageError(f"class index {species_index} is not in 0..{len(LABELS) - 1}")
    if seed < 0:
        raise UsageError(f"seed {seed} is negative: use 0 or more")
    rng = np.random.default_rng([seed, species_index])
    drawn = random_size(rng)
    size = drawn if size_wh is None else size_wh
    if min(size) < 32:
        raise UsageError(f"size {size[0]} x {size[1]} is too small: use at least 32 x 32")
    image = backdrop(rng, size)
    if species_index == BACKGROUND_INDEX:
        _add_empty_perch(image, rng)
    else:
        _add_bird(image, rng, species_index)
    return np.array(photograph(image, rng), dtype=np.uint8)


def random_size(rng: np.random.Generator) -> tuple[int, int]:
    """Draw a photograph's width and height: 160..360 pixels, in a camera's usual proportions."""
    aspect = _ASPECTS[int(rng.integers(len(_ASPECTS)))]
    longest = int(_SIDES[0] * max(aspect, 1.0 / aspect) + 0.5)
    side = int(rng.integers(longest, _SIDES[1] + 1))
    other = round(side / max(aspect, 1.0 / aspect))
    return (side, other) if aspect >= 1.0 else (other, side)


def photograph_seed(seed: int, label_index: int, number: int) -> int:
    """Seed of photograph `number` of a class in the image set `seed`; sets don't overlap."""
    return int(np.random.SeedSequence([seed, label_index, number]).generate_state(1, np.uint64)[0])


def write_image_set(
    directory: str | Path,
    images_per_species: int,
    seed: int,
    *,
    suffix: str = ".jpg",
) -> Path:
    """Write an image set: a sub-directory per class, and `images.csv` (file, label, index).

    Every class, background included, has `images_per_species` photographs, ".jpg" or ".png" by
    `suffix`; sets of different seeds share none. The directory is created if missing. Returns the
    CSV file, whose paths are relative to it, with forward slashes. Raises UsageError for fewer
    than one image or another suffix.
    """
    if images_per_species < 1:
        raise UsageError(f"images per species is {images_per_species}: use at least 1")
    if suffix not in _FORMATS:
        raise UsageError(f"suffix {suffix!r} is unknown: use .jpg or .png")
    root = Path(directory)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", "label", "index"])
    for index, label in enumerate(LABELS):
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(images_per_species):
            pixels = render_photograph(index, photograph_seed(seed, index, number))
            name = f"{label}/{number:05d}{suffix}"
            write_atomically(root / name, _encode(pixels, suffix))
            writer.writerow([name, label, index])
    path = root / "images.csv"
    write_atomically(path, table.getvalue().encode())
    return path


def _encode(pixels: NDArray[np.uint8], suffix: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **_FORMATS[suffix])
    return buffer.getvalue()


def _add_bird(image: Image.Image, rng: np.random.Generator, species_index: int) -> None:
    species = SPECIES[species_index]
    shape = species.genus.shape
    body_px = min(image.size) * float(rng.uniform(0.34, 0.56)) * shape.size**0.5
    pose = random_pose(rng, species.genus)
    bird = paint_bird(draw_individual(species, rng), pose, body_px)
    width, height = bird.image.size
    spare_x, spare_y = image.width - width, image.height - height
    left = spare_x * 0.5 + abs(spare_x) * 0.5 * float(np.clip(rng.normal(0.0, 0.45), -1.0, 1.0))
    top = spare_y * 0.5 + abs(spare_y) * 0.5 * float(np.clip(rng.normal(0.0, 0.45), -1.0, 1.0))
    x, y = round(left), round(top)
    if pose.wing_lift is None or rng.random() < 0.3:
        kind = random_perch(rng)
        draw_perch(image, rng, kind, (x + bird.feet_xy[0], y + bird.feet_xy[1]))
    image.paste(bird.image, (x, y), bird.mask)
    if rng.random() < 0.27:
        draw_occluder(image, rng, (x, y, width, height))


def _add_empty_perch(image: Image.Image, rng: np.random.Generator) -> None:
    width, height = image.size
    if rng.random() < 0.85:
        kind = random_perch(rng)
        feet = (width * float(rng.uniform(0.2, 0.8)), height * float(rng.uniform(0.45, 0.95)))
        draw_perch(image, rng, kind, feet)
    for _ in range(int(rng.integers(0, 3))):
        x, y = width * float(rng.uniform(0.0, 0.6)), height * float(rng.uniform(0.0, 0.6))
        draw_occluder(image, rng, (x, y, 0.4 * width, 0.4 * height))
