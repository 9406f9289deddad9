"""The feeder of the demo clip, in its garden."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from edge_fg_tools.fieldguide.drawing.colours import Colour, pick, scaled
from edge_fg_tools.fieldguide.drawing.scene import backdrop

CLIP_WH = (640, 360)
# Where feet stand: the upper edge of the tray's front board, in pixels from the top.
PERCH_Y = 276

_FINE = 2
_WOOD: Colour = (158, 118, 78)
_SEEDS: tuple[Colour, ...] = ((206, 168, 96), (84, 72, 62), (228, 204, 152), (168, 122, 66))


def paint_feeder(rng: np.random.Generator) -> Image.Image:
    """Paint the empty feeder before a blurred garden: RGB, `CLIP_WH` pixels."""
    fine_wh = (CLIP_WH[0] * _FINE, CLIP_WH[1] * _FINE)
    image = backdrop(rng, fine_wh, habitat_index=0)
    image = image.filter(ImageFilter.GaussianBlur(9 * _FINE))
    draw = ImageDraw.Draw(image)
    _roof(draw)
    for x in (78, 552):
        _box(draw, (x, 37, x + 12, PERCH_Y + 10), scaled(_WOOD, 0.82))
        _box(draw, (x + 8, 37, x + 12, PERCH_Y + 10), scaled(_WOOD, 0.64))
    _tray(draw, rng)
    return image.reduce(_FINE)


def _box(draw: ImageDraw.ImageDraw, xyxy: tuple[float, ...], colour: Colour) -> None:
    draw.rectangle([value * _FINE for value in xyxy], fill=colour)


def _shape(
    draw: ImageDraw.ImageDraw, points: tuple[tuple[float, float], ...], colour: Colour
) -> None:
    draw.polygon([(x * _FINE, y * _FINE) for x, y in points], fill=colour)


def _roof(draw: ImageDraw.ImageDraw) -> None:
    _shape(draw, ((40, 30), (66, -4), (574, -4), (600, 30)), (120, 74, 58))
    for row, y in enumerate((6, 18)):
        for x in range(52 + 14 * (row % 2), 590, 28):
            _box(draw, (x, y - 8, x + 1.5, y + 4), (98, 58, 46))
    _box(draw, (40, 30, 600, 37), (92, 56, 44))


def _tray(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    top = PERCH_Y - 12
    floor = ((66, top), (574, top), (600, PERCH_Y + 2), (40, PERCH_Y + 2))
    _shape(draw, floor, scaled(_WOOD, 0.6))
    for _ in range(420):
        x, y = float(rng.normal(320.0, 135.0)), float(rng.uniform(top + 2, PERCH_Y + 1))
        if not 76.0 < x < 564.0:
            continue
        radius = float(rng.uniform(1.6, 3.4))
        colour = pick(rng, _SEEDS)
        xyxy = [(x - radius) * _FINE, (y - 2.0) * _FINE, (x + radius) * _FINE, (y + 1.4) * _FINE]
        draw.ellipse(xyxy, fill=colour)
    _box(draw, (34, PERCH_Y, 606, PERCH_Y + 34), _WOOD)
    _box(draw, (34, PERCH_Y, 606, PERCH_Y + 4), scaled(_WOOD, 1.16))
    _box(draw, (34, PERCH_Y + 29, 606, PERCH_Y + 34), scaled(_WOOD, 0.7))
    for _ in range(46):
        x, y = float(rng.uniform(34, 560)), float(rng.uniform(PERCH_Y + 6, PERCH_Y + 28))
        length = float(rng.uniform(12.0, 90.0))
        end = min(604.0, x + length)
        _box(draw, (x, y, end, y + 0.6), scaled(_WOOD, float(rng.uniform(0.8, 0.92))))
    _box(draw, (306, PERCH_Y + 34, 334, CLIP_WH[1]), scaled(_WOOD, 0.66))
    _box(draw, (326, PERCH_Y + 34, 334, CLIP_WH[1]), scaled(_WOOD, 0.52))
