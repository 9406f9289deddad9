"""Where something is before a fixed camera: our scene model beside OpenCV's MOG2.

Plays the feeder of the field guide, empty and with a bird, under what happens to a camera that
hangs outside: exposure steps, shake, clouds, leaves, and a bird that sits still for a minute. Says
on how many frames a box stands where no bird is, and on how many the bird was found.

    python tools/benchmarks/motion.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from common import table
from numpy.typing import NDArray

from edge_fg.boxes import Region, iou
from edge_fg.sources import Frame
from edge_fg.tracking.motion import MotionFinder
from edge_fg.tracking.thumbnail import thumbnail
from edge_fg_tools.fieldguide.drawing.anatomy import random_pose
from edge_fg_tools.fieldguide.drawing.feeder import CLIP_WH, PERCH_Y, paint_feeder
from edge_fg_tools.fieldguide.drawing.individual import draw_individual
from edge_fg_tools.fieldguide.drawing.painter import paint_bird
from edge_fg_tools.fieldguide.species import SPECIES

FPS = 15
Image = NDArray[np.float32]
Moment = tuple[Image, Region | None]


class Feeder:
    """The empty feeder, and a bird that can be put on it."""

    def __init__(self, seed: int = 5) -> None:
        self.rng = np.random.default_rng(seed)
        feeder = paint_feeder(self.rng)
        self.empty = _bgr(feeder)
        species = SPECIES[7]
        self._bird = paint_bird(
            draw_individual(species, self.rng), random_pose(self.rng, species.genus), 130.0
        )

    def perched(self, dx: float = 0.0, dy: float = 0.0) -> Moment:
        """Return the feeder with the bird, so far from its place, and where it is."""
        bird = self._bird
        left, top = round(300 + dx - bird.feet_xy[0]), round(PERCH_Y + dy - bird.feet_xy[1])
        covered = bird.mask.getbbox() or (0, 0, 1, 1)
        mask = np.zeros(self.empty.shape[:2], np.float32)
        image = self.empty.copy()
        rows, columns = slice(top, top + bird.image.height), slice(left, left + bird.image.width)
        mask[rows, columns] = np.asarray(bird.mask, np.float32) / 255.0
        image[rows, columns] += mask[rows, columns, None] * (
            _bgr(bird.image) - image[rows, columns]
        )
        x, y = left + covered[0], top + covered[1]
        return image, (x, y, covered[2] - covered[0], covered[3] - covered[1])


def _bgr(image: object) -> Image:
    return np.asarray(image, np.float32)[..., :3][..., ::-1].copy()


def exposure(feeder: Feeder) -> Iterator[Moment]:
    """Step the exposure up, then far down."""
    for k in range(150):
        yield feeder.empty * (1.0, 1.45, 0.6)[k // 50], None


def gamma(feeder: Feeder) -> Iterator[Moment]:
    """Change the camera's tone curve."""
    for k in range(150):
        yield 255.0 * (feeder.empty / 255.0) ** (1.0, 0.7, 1.3)[k // 50], None


def shake(feeder: Feeder, bird_after: int = 200) -> Iterator[Moment]:
    """Shake the camera by 4 pixels (standard deviation), as wind does."""
    for k in range(200):
        dx, dy = feeder.rng.normal(0.0, 4.0, 2) if k > 20 else (0.0, 0.0)
        image, box = feeder.perched() if k > bird_after else (feeder.empty, None)
        if box is not None:
            box = (round(box[0] + dx), round(box[1] + dy), box[2], box[3])
        yield _moved(image, dx, dy), box


def shaken_bird(feeder: Feeder) -> Iterator[Moment]:
    """Shake it likewise, with a bird that came after 4 s."""
    return shake(feeder, bird_after=60)


def cloud(feeder: Feeder) -> Iterator[Moment]:
    """Let a soft shadow, two fifths darker, drift across."""
    across, down = np.meshgrid(np.arange(CLIP_WH[0]), np.arange(CLIP_WH[1]))
    for k in range(200):
        far = ((across + 150 - 5 * k) / 130.0) ** 2 + ((down - 150) / 110.0) ** 2
        yield feeder.empty * (1.0 - 0.4 * np.exp(-far))[..., None].astype(np.float32), None


def leaves(feeder: Feeder) -> Iterator[Moment]:
    """Sway the left third by 4 pixels."""
    across, down = np.meshgrid(
        np.arange(CLIP_WH[0], dtype=np.float32), np.arange(CLIP_WH[1], dtype=np.float32)
    )
    here = (across < 220).astype(np.float32)
    for k in range(300):
        sway = here * (k > 20)
        x = across + 4.0 * np.sin(k / 4.0 + across / 40.0) * sway
        y = down + 3.0 * np.cos(k / 3.0 + down / 30.0) * sway
        yield cv2.remap(feeder.empty, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), None


def still_bird(feeder: Feeder) -> Iterator[Moment]:
    """Let a bird sit for 56 s, moving by 2 pixels, while the exposure steps twice."""
    for k in range(900):
        light = (1.0, 0.7, 1.3)[0 if k < 200 else 1 if k < 500 else 2]
        if 30 < k < 870:
            image, box = feeder.perched(2.0 * math.sin(k / 9), math.sin(k / 5))
            yield image * light, box
        else:
            yield feeder.empty * light, None


def there_at_start(feeder: Feeder) -> Iterator[Moment]:
    """Start with a bird there that leaves after 4 s: the hole is no visitor."""
    for k in range(300):
        yield (feeder.perched(2.0 * math.sin(k / 2))[0] if k < 60 else feeder.empty), None


def _moved(image: Image, dx: float, dy: float) -> Image:
    by = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]], np.float32)
    return cv2.warpAffine(image, by, CLIP_WH, borderMode=cv2.BORDER_REPLICATE)


class Mog2:
    """OpenCV's subtractor with its own settings, on the same small image, and blobs of it."""

    def __init__(self) -> None:
        self._model = cv2.createBackgroundSubtractorMOG2(detectShadows=True)
        self._frames = 0

    def __call__(self, frame: Frame) -> list[Region]:
        """Return boxes of what it holds for foreground."""
        small = thumbnail(frame, 160)
        found = self._model.apply(small.astype(np.uint8))
        self._frames += 1
        if self._frames < 6:
            return []
        mask = (found == 255).astype(np.uint8)
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask)
        scale = frame.size_wh[0] / small.shape[1]
        boxes = [stats[number] for number in range(1, count)]
        return [
            (round(x * scale), round(y * scale), round(w * scale), round(h * scale))
            for x, y, w, h, _ in boxes
            if w * h >= 0.002 * mask.size
        ]


SCENES: tuple[Callable[[Feeder], Iterator[Moment]], ...] = (
    exposure, gamma, shake, shaken_bird, cloud, leaves, still_bird, there_at_start,
)  # fmt: skip


def main() -> None:
    """Print one line a scene and method."""
    rows = (_played(scene, make) for scene in SCENES for make in (MotionFinder, Mog2))
    print(table(("scene", "method", "bird found, frames", "frames with a false box"), rows))


def _played(
    scene: Callable[[Feeder], Iterator[Moment]], make: Callable[[], Callable[[Frame], list[Region]]]
) -> tuple[str, ...]:
    feeder, finder = Feeder(), make()
    found = there = false = frames = 0
    for number, (image, box) in enumerate(scene(feeder)):
        noisy = image + feeder.rng.normal(0.0, 2.5, image.shape)
        pixels = np.clip(noisy, 0.0, 255.0).astype(np.uint8)
        regions = finder(Frame(pixels, number, "bench", position=number / FPS))
        hits = [box is not None and iou(region, box) > 0.3 for region in regions]
        found, there = found + any(hits), there + (box is not None)
        false, frames = false + (not all(hits)), frames + 1
    # Before it has left, a bird that is there at the start may be found or not.
    of_bird = f"{found} of {there}" if there else ""
    return scene.__name__, make.__name__, of_bird, f"{false} of {frames}"


if __name__ == "__main__":
    main()
