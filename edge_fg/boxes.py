"""Geometry of boxes: (x, y, width, height) in pixels, x and y of the left top corner."""

from __future__ import annotations

import math
import operator

from edge_fg.errors import ImageError

Region = tuple[int, int, int, int]
"""Part of a frame: (x, y, width, height) in whole pixels."""

Box = tuple[float, float, float, float]
"""(x, y, width, height) in pixels, with fractions; a `Region` is one too."""


def checked_region(region_xywh: Region, height: int, width: int) -> Region:
    """Return a region in Python's integers, if it lies inside a frame of this size.

    An `ImageError` says that it is not four whole numbers, is empty or reaches outside.
    """
    try:
        x, y, region_width, region_height = (operator.index(number) for number in region_xywh)
    except (TypeError, ValueError) as error:
        raise ImageError(
            f"region {region_xywh!r} must be (x, y, width, height) in whole pixels"
        ) from error
    if x < 0 or y < 0 or region_width < 1 or region_height < 1:
        raise ImageError(
            f"region {region_xywh} must be (x, y, width, height) with x, y >= 0, sides > 0"
        )
    if x + region_width > width or y + region_height > height:
        raise ImageError(f"region {region_xywh} reaches outside the frame of {width} x {height}")
    return (x, y, region_width, region_height)


def clipped(box_xywh: Box, size_wh: tuple[int, int]) -> Region:
    """Return a box in whole pixels, at least one each way, wholly inside a frame."""
    x, y, width, height = box_xywh
    left = min(max(0, round(x)), size_wh[0] - 1)
    top = min(max(0, round(y)), size_wh[1] - 1)
    right = min(max(left + 1, round(x + width)), size_wh[0])
    bottom = min(max(top + 1, round(y + height)), size_wh[1])
    return left, top, right - left, bottom - top


def padded_square(box_xywh: Box, padding: float, size_wh: tuple[int, int]) -> Region:
    """Return the square around a box that the model sees.

    Its side is `padding` times the longer side of the box. At the border of the frame the square is
    shifted; a square larger than the frame loses what is outside.
    """
    x, y, width, height = box_xywh
    side = padding * max(width, height)
    across, down = min(side, size_wh[0]), min(side, size_wh[1])
    left = min(max(0.0, x + width / 2 - across / 2), size_wh[0] - across)
    top = min(max(0.0, y + height / 2 - down / 2), size_wh[1] - down)
    return clipped((left, top, across, down), size_wh)


def area(box_xywh: Box) -> float:
    """Return a box's area in pixels."""
    return box_xywh[2] * box_xywh[3]


def intersection(one_xywh: Box, other_xywh: Box) -> float:
    """Return the area, in pixels, that two boxes share; 0 where they only touch."""
    x, y, width, height = one_xywh
    other_x, other_y, other_width, other_height = other_xywh
    across = min(x + width, other_x + other_width) - max(x, other_x)
    down = min(y + height, other_y + other_height) - max(y, other_y)
    return across * down if across > 0.0 and down > 0.0 else 0.0


def iou(one_xywh: Box, other_xywh: Box) -> float:
    """Return the area that two boxes share over that of both together, 0..1."""
    shared = intersection(one_xywh, other_xywh)
    return shared / (area(one_xywh) + area(other_xywh) - shared) if shared else 0.0


def gap(one_xywh: Box, other_xywh: Box) -> float:
    """Return the pixels between two boxes, the larger of across and down; 0 if they touch."""
    _, _, width, height = union(one_xywh, other_xywh)
    across, down = width - one_xywh[2] - other_xywh[2], height - one_xywh[3] - other_xywh[3]
    return max(0.0, across, down)


def centre(box_xywh: Box) -> tuple[float, float]:
    """Return the centre (x, y) of a box in pixels."""
    x, y, width, height = box_xywh
    return x + width / 2, y + height / 2


def centre_distance(one_xywh: Box, other_xywh: Box) -> float:
    """Return the pixels between the centres of two boxes."""
    return math.dist(centre(one_xywh), centre(other_xywh))


def union(one_xywh: Box, other_xywh: Box) -> Box:
    """Return the smallest box around two."""
    x, y, width, height = one_xywh
    other_x, other_y, other_width, other_height = other_xywh
    left, top = min(x, other_x), min(y, other_y)
    right, bottom = max(x + width, other_x + other_width), max(y + height, other_y + other_height)
    return left, top, right - left, bottom - top
