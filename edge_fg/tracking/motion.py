"""Motion: where objects are on a frame of a fixed camera, without a detector."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    """What counts as an object.

    Parameters
    ----------
    width
        Longer side, in pixels, of the small image that is compared.
    smallest, largest
        Share of the frame's area, 0..1, that an object's box covers.
    joined
        Parts nearer than this share of the larger part's longer side belong together, where one
        is much smaller than the other: a tail, or a part behind a twig.
    ghost_s
        Seconds after which a still difference, whose outline is an edge of the scene and not of
        the frame, is taken for an object that has left since the scene was learnt.
    background
        How the scene is learnt.
    """

    width: int = 160
    smallest: float = 0.002
    largest: float = 0.7
    joined: float = 0.2
    ghost_s: float = 1.0
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

    Parameters
    ----------
    settings
        What counts as an object.

    Raises
    ------
    MissingDependencyError
        OpenCV is not installed.
    """

    def __init__(self, settings: MotionSettings | None = None) -> None:
        self.settings = settings or MotionSettings()
        self._cv2 = load_cv2("find motion")
        self._background = Background(self.settings.background)
        self._time: float | None = None
        self._scale = 1.0
        self._aligned: Image | None = None

    def __call__(self, frame: Frame) -> list[Region]:
        """Return boxes (x, y, width, height), in pixels, of the objects on a frame.

        There are none while the scene is being learnt, and when all of it has changed.
        """
        image = thumbnail(frame, self.settings.width)
        self._scale = frame.size_wh[0] / image.shape[1]
        dt = self._step(frame)
        aligned, differs = self._background.compare(image)
        self._aligned = aligned
        if not self._background.settled:
            self._background.learn(aligned, differs, dt)
            return []
        objects, occupied = self._objects(differs, aligned)
        if occupied.mean() > self.settings.background.global_share:
            self._background.restart(image)
            return []
        self._background.learn(aligned, occupied, dt)
        return [self._region(box, frame.size_wh) for box in self._join(objects)]

    def absorb(self, region_xywh: Region) -> None:
        """Make what is seen in a region a part of the scene: it is no object."""
        if self._aligned is None:
            return
        mask = np.zeros(self._aligned.shape[:2], dtype=np.bool_)
        x, y, width, height = (value / self._scale for value in region_xywh)
        rows = slice(max(0, int(y)), int(np.ceil(y + height)))
        mask[rows, max(0, int(x)) : int(np.ceil(x + width))] = True
        self._background.absorb(self._aligned, mask)

    def _step(self, frame: Frame) -> float:
        time = seconds_of(frame)
        before, self._time = self._time, time
        if before is None:
            return 0.0
        return min(max(time - before, 0.0), _LONGEST_STEP_S)

    def _objects(self, differs: Mask, aligned: Image) -> tuple[list[Box], Mask]:
        """Return boxes of objects, in pixels of the small image, and a mask of where they are."""
        size = max(differs.shape)
        opened = self._morph(differs.astype(np.uint8), self._cv2.MORPH_OPEN, 3 if size > 64 else 1)
        closed = self._morph(opened, self._cv2.MORPH_CLOSE, max(3, size // 32) | 1)
        count, labels, stats, _ = self._cv2.connectedComponentsWithStats(closed, connectivity=8)
        occupied = np.zeros(differs.shape, dtype=np.bool_)
        boxes = []
        for number in range(1, count):
            left, top, width, height, area = (int(value) for value in stats[number])
            # Half the area of the smallest box may be a part that is joined later.
            if area < max(3.0, 0.25 * self.settings.smallest * differs.size):
                continue
            window = (slice(top, top + height), slice(left, left + width))
            blob = _Blob(window, labels[window] == number)
            if self._is_scenery(blob, aligned):
                continue
            occupied[window] |= blob.mask
            boxes.append((float(left), float(top), float(width), float(height)))
        around = np.ones((3, 3), dtype=np.uint8)
        return boxes, self._cv2.dilate(occupied.astype(np.uint8), around).astype(np.bool_)

    def _morph(self, mask: NDArray[np.uint8], kind: int, size: int) -> NDArray[np.uint8]:
        shape = self._cv2.getStructuringElement(self._cv2.MORPH_ELLIPSE, (size, size))
        changed: NDArray[np.uint8] = self._cv2.morphologyEx(mask, kind, shape)
        return changed

    def _is_scenery(self, blob: _Blob, aligned: Image) -> bool:
        """Whether a blob is light, the place of an object that left, or has not moved for long."""
        mask = np.zeros(aligned.shape[:2], dtype=np.bool_)
        mask[blob.window] = blob.mask
        still = self._background.still_s(mask)
        if still > self.settings.background.absorb_s:
            self._background.absorb(aligned, mask)
            return True
        here = _grown(blob.window, aligned.shape[:2])
        scene = grey(self._background.expected()[here])
        seen = grey(self._background.relit(aligned[here]))
        inside = mask[here]
        outline = self._outline(inside)
        if still > self.settings.ghost_s and self._is_ghost(scene, seen, outline):
            self._background.absorb(aligned, self._wider(mask))
            return True
        return self._is_light(scene, seen, inside, outline)

    def _outline(self, inside: Mask) -> Mask:
        around = np.ones((3, 3), dtype=np.uint8)
        edge: Any = self._cv2.morphologyEx(
            inside.astype(np.uint8), self._cv2.MORPH_GRADIENT, around
        )
        return edge.astype(np.bool_)  # type: ignore[no-any-return]

    def _wider(self, mask: Mask) -> Mask:
        wide: Any = self._cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), dtype=np.uint8))
        return wide.astype(np.bool_)  # type: ignore[no-any-return]

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
        core = self._cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
        if core.sum() < 24:
            return soft
        detail = [shown - self._cv2.blur(shown, (7, 7)) for shown in (scene, seen)]
        before, now = detail[0][core], detail[1][core]
        if before.std() < 1.5 or now.std() < 1.5:
            return soft
        return soft or float(np.corrcoef(before, now)[0, 1]) > _LIGHT_CORRELATION

    def _join(self, boxes: list[Box]) -> list[Box]:
        """Join parts to what they belong to, largest first, and leave out what is too small."""
        pixels = self._aligned.shape[0] * self._aligned.shape[1] if self._aligned is not None else 1
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

    def _region(self, box: Box, size_wh: tuple[int, int]) -> Region:
        dx, dy = self._background.shift_xy
        x, y = (box[0] + dx) * self._scale, (box[1] + dy) * self._scale
        return clipped((x, y, box[2] * self._scale, box[3] * self._scale), size_wh)


@dataclass(frozen=True, eq=False)
class _Blob:
    window: tuple[slice, slice]
    mask: Mask


def seconds_of(frame: Frame) -> float:
    """Return the frame's own clock: its position in a file, else when it was captured."""
    return frame.captured if frame.position is None else frame.position


def _grown(window: tuple[slice, slice], shape: tuple[int, int]) -> tuple[slice, slice]:
    rows, columns = window
    return (
        slice(max(0, rows.start - 3), min(shape[0], rows.stop + 3)),
        slice(max(0, columns.start - 3), min(shape[1], columns.stop + 3)),
    )


def _steepness(image: Image) -> Image:
    """Return the length of the gradient at each pixel, in grey levels a pixel."""
    if min(image.shape) < 2:
        return np.zeros_like(image)
    down, across = np.gradient(image)
    steepness: Image = np.hypot(down, across)
    return steepness
