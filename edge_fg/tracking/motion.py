"""Motion: where objects are on a frame of a fixed camera, without a detector."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from edge_fg.boxes import Box, Region, area, clipped, gap, union
from edge_fg.errors import UsageError
from edge_fg.opencv import load_cv2
from edge_fg.sources import Frame
from edge_fg.tracking.background import Background, BackgroundSettings, Mask, grey
from edge_fg.tracking.light import Image
from edge_fg.tracking.thumbnail import thumbnail

_LONGEST_STEP_S = 1.0
# These tell an object from a change of light; see `MotionFinder._is_light`.
_LIGHT_CORRELATION = 0.8
_SOFT_EDGE = 0.1
_GHOST_EDGE = 1.5


@dataclass(frozen=True)
class MotionSettings:
    """What counts as an object."""

    width: int = 160  # Longer side, in pixels, of the small image that is compared
    # Share of the frame's area, 0..1, that an object's box covers.
    smallest: float = 0.002
    largest: float = 0.7
    # Parts nearer than this share of the larger part's longer side belong together, where one is
    # much smaller than the other: a tail, or a part behind a twig.
    joined: float = 0.2
    # Seconds after which a still difference, whose outline is an edge of the scene and not of the
    # frame, is taken for an object that has left since the scene was learnt.
    ghost_s: float = 1.0
    # How the scene is learnt.
    background: BackgroundSettings = field(default_factory=BackgroundSettings)

    def __post_init__(self) -> None:
        if self.width < 16:
            raise UsageError(f"motion needs a width of at least 16 pixels, not {self.width}")
        if not 0.0 <= self.smallest < self.largest <= 1.0:
            raise UsageError("smallest and largest must be shares of the frame, in this order")
        if self.joined < 0.0 or self.ghost_s <= 0.0:
            raise UsageError("joined must not be negative and ghost_s more than 0")


class MotionFinder:
    """Finds what differs from the empty scene; all frames must come from one camera.

    Without OpenCV, MissingDependencyError is raised.
    """

    def __init__(self, settings: MotionSettings | None = None) -> None:
        self.settings = settings or MotionSettings()
        self._cv2 = load_cv2("find motion")
        self._background: Background | None = None
        self._time = math.inf  # the clock of the last frame, in seconds
        self._scale = 1.0
        self._aligned: Image | None = None

    def __call__(self, frame: Frame) -> list[Region]:
        """Return boxes (x, y, width, height), in pixels, of the objects on a frame.

        There are none while the scene is being learnt, and when all of it has changed.
        """
        image = thumbnail(frame, self.settings.width)
        self._scale = scale = frame.size_wh[0] / image.shape[1]
        before, self._time = self._time, seconds_of(frame)
        dt = min(max(self._time - before, 0.0), _LONGEST_STEP_S)
        if self._background is None or self._background.scene.shape != image.shape:
            self._background = Background(self.settings.background, image)
        background = self._background
        self._aligned, differs = background.compare(image)
        if not background.settled:
            background.learn(self._aligned, differs, dt)
            return []
        boxes, occupied = self._objects(background, differs, self._aligned)
        if occupied.mean() > self.settings.background.global_share:
            self._background = Background(self.settings.background, image)
            return []
        background.learn(self._aligned, occupied, dt)
        dx, dy = background.shift_xy
        return [
            clipped(((x + dx) * scale, (y + dy) * scale, w * scale, h * scale), frame.size_wh)
            for x, y, w, h in self._join(boxes, differs.size)
        ]

    def absorb(self, region_xywh: Region) -> None:
        """Make what is seen in a region a part of the scene: it is no object."""
        if self._background is None or self._aligned is None:
            return
        mask = np.zeros(self._aligned.shape[:2], dtype=np.bool_)
        x, y, width, height = (value / self._scale for value in region_xywh)
        rows = slice(max(0, int(y)), int(np.ceil(y + height)))
        mask[rows, max(0, int(x)) : int(np.ceil(x + width))] = True
        self._background.absorb(self._aligned, mask)

    def _objects(
        self, background: Background, differs: Mask, aligned: Image
    ) -> tuple[list[Box], Mask]:
        """Return boxes of objects, in pixels of the small image, and a mask of where they are."""
        cv2, size = self._cv2, max(differs.shape)
        ellipse = cv2.MORPH_ELLIPSE
        opened = self._morph(differs, cv2.MORPH_OPEN, 3 if size > 64 else 1, ellipse)
        closed = self._morph(opened, cv2.MORPH_CLOSE, max(3, size // 32) | 1, ellipse)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(
            closed.astype(np.uint8), connectivity=8
        )
        occupied = np.zeros(differs.shape, dtype=np.bool_)
        boxes: list[Box] = []
        for number in range(1, count):
            left, top, width, height, pixels = (int(value) for value in stats[number])
            # Half the area of the smallest box may be a part that is joined later.
            if pixels < max(3.0, 0.25 * self.settings.smallest * differs.size):
                continue
            window = (slice(top, top + height), slice(left, left + width))
            mask = np.zeros(differs.shape, dtype=np.bool_)
            mask[window] = labels[window] == number
            if not self._is_scenery(background, mask, window, aligned):
                occupied |= mask
                boxes.append((float(left), float(top), float(width), float(height)))
        return boxes, self._morph(occupied, cv2.MORPH_DILATE, 3)

    def _morph(self, mask: Mask, kind: int, size: int, shape: int | None = None) -> Mask:
        """Apply a morphological operation with a kernel of size x size, a square by default."""
        shape = self._cv2.MORPH_RECT if shape is None else shape
        kernel = self._cv2.getStructuringElement(shape, (size, size))
        return np.asarray(self._cv2.morphologyEx(mask.astype(np.uint8), kind, kernel), np.bool_)

    def _is_scenery(
        self, background: Background, mask: Mask, window: tuple[slice, slice], aligned: Image
    ) -> bool:
        """Whether a blob is light, the place of an object that left, or has not moved for long."""
        still = background.still_s(mask)
        if still > self.settings.background.absorb_s:
            background.absorb(aligned, mask)
            return True
        # With three pixels around it.
        here = tuple(slice(max(0, side.start - 3), side.stop + 3) for side in window)
        scene = grey(background.light.apply(background.scene[here]))
        seen = grey(background.light.apply(aligned[here]))
        inside = mask[here]
        outline = self._morph(inside, self._cv2.MORPH_GRADIENT, 3)
        if still > self.settings.ghost_s and self._is_ghost(scene, seen, outline):
            background.absorb(aligned, self._morph(mask, self._cv2.MORPH_DILATE, 5))
            return True
        return self._is_light(scene, seen, inside, outline)

    def _is_ghost(self, scene: Image, seen: Image, outline: Mask) -> bool:
        """Whether the outline of a difference is an edge in the scene and not in the frame."""
        before = float(_steepness(scene)[outline].mean())
        return before > _GHOST_EDGE * float(_steepness(seen)[outline].mean()) + 1.0

    def _is_light(self, scene: Image, seen: Image, inside: Mask, outline: Mask) -> bool:
        """Whether a difference is only other light: a cloud, a lamp, a shadow.

        The scene's own texture stays visible, and the border is soft (after Rosin and Ellis,
        "Image difference threshold strategies and shadow detection", 1995, who also require a
        steady ratio inside).
        """
        if min(inside.shape) < 4:
            return False
        off = seen - scene
        contrast = abs(float(off[inside].mean()))
        soft = float(_steepness(off)[outline].mean()) < _SOFT_EDGE * contrast
        core = self._morph(inside, self._cv2.MORPH_ERODE, 3)
        if core.sum() < 24:
            return soft
        detail = [shown - self._cv2.blur(shown, (7, 7)) for shown in (scene, seen)]
        before, now = detail[0][core], detail[1][core]
        if before.std() < 1.5 or now.std() < 1.5:
            return soft
        return soft or float(np.corrcoef(before, now)[0, 1]) > _LIGHT_CORRELATION

    def _join(self, boxes: list[Box], pixels: int) -> list[Box]:
        """Join parts to what they belong to, largest first, and leave out what is too small."""
        joined: list[Box] = []
        for box in sorted(boxes, key=area, reverse=True):
            for place, whole in enumerate(joined):
                small = area(box) < 0.5 * area(whole)
                if small and gap(box, whole) <= self.settings.joined * max(whole[2:]):
                    joined[place] = union(box, whole)
                    break
            else:
                joined.append(box)
        low, high = self.settings.smallest * pixels, self.settings.largest * pixels
        return [box for box in joined if low <= area(box) <= high]


def seconds_of(frame: Frame) -> float:
    """Return the frame's own clock: its position in a file, else when it was captured."""
    return frame.captured if frame.position is None else frame.position


def _steepness(image: Image) -> Image:
    """Return the length of the gradient at each pixel, in grey levels a pixel."""
    if min(image.shape) < 2:
        return np.zeros_like(image)
    steepness: Image = np.hypot(*np.gradient(image))
    return steepness
