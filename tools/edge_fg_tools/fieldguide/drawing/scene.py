"""Where the birds are: backdrops, perches, and what gets in the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from edge_fg_tools.fieldguide.drawing.optics import smooth_field

__all__ = ["PERCHES", "backdrop", "draw_occluder", "draw_perch"]

Colour = tuple[int, int, int]

PERCHES = ("branch", "tray", "rail", "ground")


@dataclass(frozen=True, slots=True)
class _Habitat:
    """Colours of a backdrop: top and bottom, things in it, and how crowded it is."""

    top: Colour
    bottom: Colour
    accents: tuple[Colour, ...]
    crowd: float


_HABITATS = (
    _Habitat((96, 128, 72), (52, 78, 42), ((132, 158, 74), (70, 102, 48), (176, 184, 96)), 1.0),
    _Habitat(
        (176, 204, 226), (208, 218, 220), ((110, 124, 84), (236, 240, 240), (142, 122, 96)), 0.5
    ),
    _Habitat(
        (168, 178, 112), (118, 124, 60), ((206, 190, 104), (92, 112, 52), (214, 142, 120)), 1.0
    ),
    _Habitat(
        (206, 214, 224), (232, 234, 238), ((156, 160, 168), (112, 96, 84), (188, 62, 52)), 0.6
    ),
    _Habitat((132, 104, 78), (92, 70, 52), ((168, 132, 92), (66, 52, 42), (120, 118, 72)), 0.9),
    _Habitat((222, 170, 128), (112, 92, 92), ((240, 204, 140), (88, 76, 70), (170, 112, 86)), 0.7),
    _Habitat((88, 96, 104), (62, 66, 70), ((128, 132, 136), (48, 52, 54), (146, 116, 84)), 0.7),
)


def backdrop(
    rng: np.random.Generator, size_wh: tuple[int, int], *, habitat_index: int | None = None
) -> Image.Image:
    """Paint a cluttered, partly blurred backdrop of `size_wh` pixels (RGB).

    `habitat_index` picks one of the habitats (0 is a green garden); None draws one.
    """
    if habitat_index is None:
        habitat_index = int(rng.integers(len(_HABITATS)))
    habitat = _HABITATS[habitat_index]
    small_wh = (max(8, size_wh[0] // 4), max(8, size_wh[1] // 4))
    image = _gradient(rng, small_wh, habitat)
    draw = ImageDraw.Draw(image)
    for _ in range(int(habitat.crowd * rng.integers(14, 44))):
        _blob(draw, rng, small_wh, _pick(rng, habitat.accents))
    image = image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.3, 3.0))))
    image = image.resize(size_wh, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for _ in range(int(habitat.crowd * rng.integers(0, 26))):
        colour = _pick(rng, habitat.accents)
        if rng.random() < 0.7:
            _leaf(draw, rng, size_wh, colour)
        else:
            _twig(draw, rng, size_wh, colour)
    return image


def draw_perch(
    image: Image.Image, rng: np.random.Generator, kind: str, feet_xy: tuple[float, float]
) -> None:
    """Draw a perch of `kind` (one of `PERCHES`) whose upper edge passes under `feet_xy`."""
    draw = ImageDraw.Draw(image)
    unit = min(image.size) / 100.0
    if kind == "branch":
        _branch(draw, rng, feet_xy, unit, image.size)
    elif kind == "tray":
        _tray(draw, rng, feet_xy, unit, image.size)
    elif kind == "rail":
        _rail(draw, rng, feet_xy, unit, image.size)
    elif kind == "ground":
        _ground(draw, rng, feet_xy, unit, image.size)
    else:
        raise ValueError(f"unknown perch {kind!r}: use one of {', '.join(PERCHES)}")


def draw_occluder(
    image: Image.Image, rng: np.random.Generator, box_xywh: tuple[float, float, float, float]
) -> None:
    """Draw leaves, a twig or blades of grass in front of a part of the box (x, y, w, h)."""
    draw = ImageDraw.Draw(image)
    x, y, w, h = box_xywh
    unit = min(image.size) / 100.0
    habitat = _HABITATS[int(rng.integers(len(_HABITATS)))]
    colour = _shade(rng, _pick(rng, habitat.accents), 0.2)
    kind = rng.random()
    if kind < 0.45:
        for _ in range(int(rng.integers(1, 5))):
            centre = (x + w * rng.uniform(0.0, 1.0), y + h * rng.uniform(0.0, 1.0))
            length = unit * float(rng.uniform(6.0, 15.0))
            draw.polygon(_leaf_outline(rng, centre, length), fill=_shade(rng, colour, 0.12))
    elif kind < 0.75:
        start = (x + w * rng.uniform(-0.3, 0.4), y - h * rng.uniform(0.1, 0.5))
        stop = (x + w * rng.uniform(0.3, 1.2), y + h * rng.uniform(1.0, 1.5))
        draw.line((*start, *stop), fill=colour, width=max(1, round(unit * rng.uniform(1.0, 3.2))))
    else:
        for _ in range(int(rng.integers(3, 9))):
            foot = x + w * float(rng.uniform(0.0, 1.0))
            top = y + h * float(rng.uniform(0.35, 0.9))
            lean = unit * float(rng.normal(0.0, 6.0))
            half = unit * float(rng.uniform(0.5, 1.3))
            low = float(image.height)
            blade = [foot - half, low, foot + lean, top, foot + half, low]
            draw.polygon(blade, fill=_shade(rng, colour, 0.15))


def _gradient(rng: np.random.Generator, size_wh: tuple[int, int], habitat: _Habitat) -> Image.Image:
    ramp = np.linspace(0.0, 1.0, size_wh[1], dtype=np.float32)[:, np.newaxis]
    mix = np.clip(ramp + 0.7 * (smooth_field(rng, size_wh, cells=4) - 0.5), 0.0, 1.0)
    top = np.array(_shade(rng, habitat.top, 0.15), dtype=np.float32)
    bottom = np.array(_shade(rng, habitat.bottom, 0.15), dtype=np.float32)
    light = 0.80 + 0.4 * smooth_field(rng, size_wh, cells=6)
    colours = (top + (bottom - top) * mix[..., np.newaxis]) * light[..., np.newaxis]
    return Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))


def _blob(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size_wh: tuple[int, int], colour: Colour
) -> None:
    across, down, squash = rng.random(3).tolist()
    x, y = across * size_wh[0], down * size_wh[1]
    radius = min(size_wh) * float(rng.gamma(2.0, 0.045))
    ry = radius * (0.5 + 0.5 * squash)
    draw.ellipse((x - radius, y - ry, x + radius, y + ry), fill=_shade(rng, colour, 0.2))


def _leaf(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size_wh: tuple[int, int], colour: Colour
) -> None:
    centre = (float(rng.uniform(0.0, size_wh[0])), float(rng.uniform(0.0, size_wh[1])))
    length = min(size_wh) * float(rng.uniform(0.03, 0.13))
    draw.polygon(_leaf_outline(rng, centre, length), fill=_shade(rng, colour, 0.25))


def _leaf_outline(
    rng: np.random.Generator, centre: tuple[float, float], length: float
) -> list[tuple[float, float]]:
    angle = float(rng.uniform(0.0, math.pi))
    half = float(rng.uniform(0.22, 0.5))
    local = [(-1.0, 0.0), (-0.5, half), (0.2, half), (1.0, 0.0), (0.2, -half), (-0.5, -half)]
    cosine, sine = math.cos(angle) * length, math.sin(angle) * length
    return [
        (centre[0] + x * cosine - y * sine, centre[1] + x * sine + y * cosine) for x, y in local
    ]


def _twig(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size_wh: tuple[int, int], colour: Colour
) -> None:
    ends = rng.uniform(-0.1, 1.1, 4) * np.array([*size_wh, *size_wh])
    width = max(1, round(min(size_wh) * float(rng.uniform(0.004, 0.022))))
    draw.line(ends.tolist(), fill=_shade(rng, colour, 0.25), width=width)


def _branch(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    feet_xy: tuple[float, float],
    unit: float,
    size_wh: tuple[int, int],
) -> None:
    slope = float(rng.normal(0.0, 0.13))
    half = unit * float(rng.uniform(1.5, 4.5))
    colour = _shade(rng, (104, 82, 62), 0.25)
    x, y = feet_xy
    left, right = -0.05 * size_wh[0], 1.05 * size_wh[0]
    y += half * 0.9

    def at(where: float, offset: float) -> tuple[float, float]:
        return where, y + slope * (where - x) + offset

    taper = float(rng.uniform(0.4, 1.0))
    outline = [at(left, -half), at(right, -half * taper), at(right, half * taper), at(left, half)]
    draw.polygon(outline, fill=colour)
    low = [at(left, 0.35 * half), at(right, 0.35 * half * taper)]
    draw.polygon([*low, *outline[2:]], fill=_scaled(colour, 0.72))
    for _ in range(int(rng.integers(0, 4))):
        start = at(float(rng.uniform(left, right)), 0.0)
        reach = unit * rng.normal(0.0, 16.0, 2)
        stop = (start[0] + float(reach[0]), start[1] + float(reach[1]))
        draw.line((*start, *stop), fill=colour, width=max(1, round(unit * 1.2)))
        leaf = _leaf_outline(rng, stop, unit * float(rng.uniform(3.0, 8.0)))
        draw.polygon(leaf, fill=_shade(rng, (98, 124, 58), 0.3))


def _tray(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    feet_xy: tuple[float, float],
    unit: float,
    size_wh: tuple[int, int],
) -> None:
    wood = _shade(rng, (156, 118, 78), 0.25)
    x, y = feet_xy
    half = unit * float(rng.uniform(34.0, 80.0))
    middle = x + half * float(rng.uniform(-0.5, 0.5))
    thick = unit * float(rng.uniform(6.0, 11.0))
    if rng.random() < 0.4:
        _house(draw, rng, (middle, y), 0.92 * half, unit)
    post = unit * float(rng.uniform(3.0, 5.0))
    _rectangle(draw, (middle - post, y, middle + post, size_wh[1]), _scaled(wood, 0.7))
    _rectangle(draw, (middle - half, y, middle + half, y + thick), wood)
    lip = y + 0.62 * thick
    _rectangle(draw, (middle - half, lip, middle + half, y + thick), _scaled(wood, 0.76))
    for offset in rng.uniform(-half, half, int(rng.integers(8, 40))):
        seed_y = y - unit * float(rng.uniform(-1.0, 0.8))
        radius = unit * float(rng.uniform(0.5, 1.1))
        seed = (middle + offset - radius, seed_y - radius, middle + offset + radius, seed_y)
        draw.ellipse(seed, fill=_shade(rng, (196, 160, 92), 0.3))
    if rng.random() < 0.5:
        tube = middle + half * float(rng.uniform(-0.9, 0.9))
        width = unit * float(rng.uniform(4.0, 8.0))
        _rectangle(draw, (tube - width, -1, tube + width, y), _shade(rng, (150, 158, 160), 0.2))
        fill = y * float(rng.uniform(0.2, 0.8))
        _rectangle(draw, (tube - width, fill, tube + width, y), _shade(rng, (170, 134, 84), 0.2))


def _house(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    floor_xy: tuple[float, float],
    half: float,
    unit: float,
) -> None:
    """Put posts and a roof over a tray."""
    wood = _shade(rng, (146, 104, 74), 0.3)
    x, y = floor_xy
    post = unit * float(rng.uniform(1.0, 2.2))
    eaves = y - unit * float(rng.uniform(58.0, 80.0))
    for side in (x - half, x + half):
        _rectangle(draw, (side - post, eaves, side + post, y), _scaled(wood, 0.85))
    rise = unit * float(rng.uniform(8.0, 30.0))
    low, high = 1.1 * half, half * float(rng.uniform(0.1, 1.0))
    roof = [(x - low, eaves), (x - high, eaves - rise), (x + high, eaves - rise), (x + low, eaves)]
    draw.polygon(roof, fill=_shade(rng, (122, 76, 60), 0.3))
    _rectangle(draw, (x - low, eaves, x + low, eaves + 1.6 * unit), _scaled(wood, 0.6))


def _rail(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    feet_xy: tuple[float, float],
    unit: float,
    size_wh: tuple[int, int],
) -> None:
    colour = _shade(rng, (122, 112, 104), 0.3)
    thick = unit * float(rng.uniform(0.8, 6.0))
    y = feet_xy[1]
    _rectangle(draw, (-1, y, size_wh[0], y + thick), colour)
    _rectangle(draw, (-1, y + 0.6 * thick, size_wh[0], y + thick), _scaled(colour, 0.75))
    if rng.random() < 0.6:
        post = float(rng.uniform(0.0, size_wh[0]))
        half = unit * float(rng.uniform(2.0, 6.0))
        _rectangle(draw, (post - half, y, post + half, size_wh[1]), _scaled(colour, 0.85))


def _ground(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    feet_xy: tuple[float, float],
    unit: float,
    size_wh: tuple[int, int],
) -> None:
    bases: tuple[Colour, ...] = ((112, 128, 70), (142, 116, 86), (230, 232, 236), (150, 150, 144))
    base = _shade(rng, _pick(rng, bases), 0.2)
    horizon = feet_xy[1] - unit * float(rng.uniform(1.0, 14.0))
    _rectangle(draw, (-1, horizon, size_wh[0], size_wh[1]), base)
    for _ in range(int(rng.integers(20, 60))):
        x = float(rng.uniform(0.0, size_wh[0]))
        y = horizon + float(rng.uniform(0.0, 1.0)) * (size_wh[1] - horizon)
        radius = unit * float(rng.uniform(0.5, 3.5))
        speck = (x - radius, y - 0.5 * radius, x + radius, y + 0.5 * radius)
        draw.ellipse(speck, fill=_shade(rng, base, 0.25))


def _rectangle(
    draw: ImageDraw.ImageDraw, xyxy: tuple[float, float, float, float], colour: Colour
) -> None:
    """Fill a rectangle, unless it is empty (the perch of a bird may be under the image)."""
    if xyxy[2] > xyxy[0] and xyxy[3] > xyxy[1]:
        draw.rectangle(xyxy, fill=colour)


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def _shade(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """Vary a colour: its brightness by `amount` either way, each channel by a third of that."""
    draw: list[float] = rng.random(4).tolist()
    light, *tint = (1.0 + amount * (2.0 * value - 1.0) for value in draw)
    values = [v * light * (2.0 + t) / 3.0 for v, t in zip(colour, tint, strict=True)]
    red, green, blue = (min(255, max(0, round(value))) for value in values)
    return red, green, blue


def _scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(value * factor)) for value in colour)
    return red, green, blue
