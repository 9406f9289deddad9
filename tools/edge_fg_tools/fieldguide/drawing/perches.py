"""What the birds stand on: branches, trays, rails and the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from edge_fg_tools.fieldguide.drawing.colours import Colour, pick, scaled, shaded
from edge_fg_tools.fieldguide.drawing.scene import leaf_outline


@dataclass(frozen=True, slots=True)
class _Site:
    """Where a perch is drawn: under the feet, in lengths of `unit` pixels."""

    draw: ImageDraw.ImageDraw
    rng: np.random.Generator
    feet_xy: tuple[float, float]
    unit: float
    size_wh: tuple[int, int]


def random_perch(rng: np.random.Generator) -> str:
    """Draw a kind of perch for `draw_perch`, branches most often."""
    return list(_PERCHES)[int(rng.choice(len(_PERCHES), p=[0.42, 0.28, 0.15, 0.15]))]


def draw_perch(
    image: Image.Image, rng: np.random.Generator, kind: str, feet_xy: tuple[float, float]
) -> None:
    """Draw a perch of `kind` (see `random_perch`) whose upper edge passes under `feet_xy`."""
    unit = min(image.size) / 100.0
    _PERCHES[kind](_Site(ImageDraw.Draw(image), rng, feet_xy, unit, image.size))


def _branch(site: _Site) -> None:
    draw, rng, unit, size_wh = site.draw, site.rng, site.unit, site.size_wh
    slope = float(rng.normal(0.0, 0.13))
    half = unit * float(rng.uniform(1.5, 4.5))
    colour = shaded(rng, (104, 82, 62), 0.25)
    x, y = site.feet_xy
    left, right = -0.05 * size_wh[0], 1.05 * size_wh[0]
    y += half * 0.9

    def at(where: float, offset: float) -> tuple[float, float]:
        return where, y + slope * (where - x) + offset

    taper = float(rng.uniform(0.4, 1.0))
    outline = [at(left, -half), at(right, -half * taper), at(right, half * taper), at(left, half)]
    draw.polygon(outline, fill=colour)
    low = [at(left, 0.35 * half), at(right, 0.35 * half * taper)]
    draw.polygon([*low, *outline[2:]], fill=scaled(colour, 0.72))
    for _ in range(int(rng.integers(0, 4))):
        start = at(float(rng.uniform(left, right)), 0.0)
        reach = unit * rng.normal(0.0, 16.0, 2)
        stop = (start[0] + float(reach[0]), start[1] + float(reach[1]))
        draw.line((*start, *stop), fill=colour, width=max(1, round(unit * 1.2)))
        leaf = leaf_outline(rng, stop, unit * float(rng.uniform(3.0, 8.0)))
        draw.polygon(leaf, fill=shaded(rng, (98, 124, 58), 0.3))


def _tray(site: _Site) -> None:
    draw, rng, unit, size_wh = site.draw, site.rng, site.unit, site.size_wh
    wood = shaded(rng, (156, 118, 78), 0.25)
    x, y = site.feet_xy
    half = unit * float(rng.uniform(34.0, 80.0))
    middle = x + half * float(rng.uniform(-0.5, 0.5))
    thick = unit * float(rng.uniform(6.0, 11.0))
    if rng.random() < 0.4:
        _house(site, middle, 0.92 * half)
    post = unit * float(rng.uniform(3.0, 5.0))
    _rectangle(draw, (middle - post, y, middle + post, size_wh[1]), scaled(wood, 0.7))
    _rectangle(draw, (middle - half, y, middle + half, y + thick), wood)
    lip = y + 0.62 * thick
    _rectangle(draw, (middle - half, lip, middle + half, y + thick), scaled(wood, 0.76))
    for offset in rng.uniform(-half, half, int(rng.integers(8, 40))):
        seed_y = y - unit * float(rng.uniform(-1.0, 0.8))
        radius = unit * float(rng.uniform(0.5, 1.1))
        seed = (middle + offset - radius, seed_y - radius, middle + offset + radius, seed_y)
        draw.ellipse(seed, fill=shaded(rng, (196, 160, 92), 0.3))
    if rng.random() < 0.5:
        tube = middle + half * float(rng.uniform(-0.9, 0.9))
        width = unit * float(rng.uniform(4.0, 8.0))
        _rectangle(draw, (tube - width, -1, tube + width, y), shaded(rng, (150, 158, 160), 0.2))
        fill = y * float(rng.uniform(0.2, 0.8))
        _rectangle(draw, (tube - width, fill, tube + width, y), shaded(rng, (170, 134, 84), 0.2))


def _house(site: _Site, x: float, half: float) -> None:
    """Put posts and a roof over a tray around `x`."""
    draw, rng, unit, y = site.draw, site.rng, site.unit, site.feet_xy[1]
    wood = shaded(rng, (146, 104, 74), 0.3)
    post = unit * float(rng.uniform(1.0, 2.2))
    eaves = y - unit * float(rng.uniform(58.0, 80.0))
    for side in (x - half, x + half):
        _rectangle(draw, (side - post, eaves, side + post, y), scaled(wood, 0.85))
    rise = unit * float(rng.uniform(8.0, 30.0))
    low, high = 1.1 * half, half * float(rng.uniform(0.1, 1.0))
    roof = [(x - low, eaves), (x - high, eaves - rise), (x + high, eaves - rise), (x + low, eaves)]
    draw.polygon(roof, fill=shaded(rng, (122, 76, 60), 0.3))
    _rectangle(draw, (x - low, eaves, x + low, eaves + 1.6 * unit), scaled(wood, 0.6))


def _rail(site: _Site) -> None:
    draw, rng, unit, size_wh = site.draw, site.rng, site.unit, site.size_wh
    colour = shaded(rng, (122, 112, 104), 0.3)
    thick = unit * float(rng.uniform(0.8, 6.0))
    y = site.feet_xy[1]
    _rectangle(draw, (-1, y, size_wh[0], y + thick), colour)
    _rectangle(draw, (-1, y + 0.6 * thick, size_wh[0], y + thick), scaled(colour, 0.75))
    if rng.random() < 0.6:
        post = float(rng.uniform(0.0, size_wh[0]))
        half = unit * float(rng.uniform(2.0, 6.0))
        _rectangle(draw, (post - half, y, post + half, size_wh[1]), scaled(colour, 0.85))


def _ground(site: _Site) -> None:
    draw, rng, unit, size_wh = site.draw, site.rng, site.unit, site.size_wh
    bases: tuple[Colour, ...] = ((112, 128, 70), (142, 116, 86), (230, 232, 236), (150, 150, 144))
    base = shaded(rng, pick(rng, bases), 0.2)
    horizon = site.feet_xy[1] - unit * float(rng.uniform(1.0, 14.0))
    _rectangle(draw, (-1, horizon, size_wh[0], size_wh[1]), base)
    for _ in range(int(rng.integers(20, 60))):
        x = float(rng.uniform(0.0, size_wh[0]))
        y = horizon + float(rng.uniform(0.0, 1.0)) * (size_wh[1] - horizon)
        radius = unit * float(rng.uniform(0.5, 3.5))
        speck = (x - radius, y - 0.5 * radius, x + radius, y + 0.5 * radius)
        draw.ellipse(speck, fill=shaded(rng, base, 0.25))


def _rectangle(
    draw: ImageDraw.ImageDraw, xyxy: tuple[float, float, float, float], colour: Colour
) -> None:
    """Fill a rectangle, unless it is empty (the perch of a bird may be under the image)."""
    if xyxy[2] > xyxy[0] and xyxy[3] > xyxy[1]:
        draw.rectangle(xyxy, fill=colour)


_PERCHES = {"branch": _branch, "tray": _tray, "rail": _rail, "ground": _ground}
