"""Where the birds are: backdrops, and what hides a part of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from edge_fg_tools.fieldguide.drawing.colours import Colour, pick, shaded
from edge_fg_tools.fieldguide.drawing.optics import smooth_field


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
        _blob(draw, rng, small_wh, pick(rng, habitat.accents))
    image = image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.3, 3.0))))
    image = image.resize(size_wh, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for _ in range(int(habitat.crowd * rng.integers(0, 26))):
        colour = pick(rng, habitat.accents)
        if rng.random() < 0.7:
            centre = (float(rng.uniform(0.0, size_wh[0])), float(rng.uniform(0.0, size_wh[1])))
            leaf = leaf_outline(rng, centre, min(size_wh) * float(rng.uniform(0.03, 0.13)))
            draw.polygon(leaf, fill=shaded(rng, colour, 0.25))
        else:
            twig = rng.uniform(-0.1, 1.1, 4) * np.array([*size_wh, *size_wh])
            width = max(1, round(min(size_wh) * float(rng.uniform(0.004, 0.022))))
            draw.line(twig.tolist(), fill=shaded(rng, colour, 0.25), width=width)
    return image


def draw_occluder(
    image: Image.Image, rng: np.random.Generator, box_xywh: tuple[float, float, float, float]
) -> None:
    """Draw leaves, a twig or blades of grass in front of a part of the box (x, y, w, h)."""
    draw = ImageDraw.Draw(image)
    x, y, w, h = box_xywh
    unit = min(image.size) / 100.0
    habitat = _HABITATS[int(rng.integers(len(_HABITATS)))]
    colour = shaded(rng, pick(rng, habitat.accents), 0.2)
    kind = rng.random()
    if kind < 0.45:
        for _ in range(int(rng.integers(1, 5))):
            centre = (x + w * rng.uniform(0.0, 1.0), y + h * rng.uniform(0.0, 1.0))
            length = unit * float(rng.uniform(6.0, 15.0))
            draw.polygon(leaf_outline(rng, centre, length), fill=shaded(rng, colour, 0.12))
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
            draw.polygon(blade, fill=shaded(rng, colour, 0.15))


def _gradient(rng: np.random.Generator, size_wh: tuple[int, int], habitat: _Habitat) -> Image.Image:
    ramp = np.linspace(0.0, 1.0, size_wh[1], dtype=np.float32)[:, np.newaxis]
    mix = np.clip(ramp + 0.7 * (smooth_field(rng, size_wh, cells=4) - 0.5), 0.0, 1.0)
    top = np.array(shaded(rng, habitat.top, 0.15), dtype=np.float32)
    bottom = np.array(shaded(rng, habitat.bottom, 0.15), dtype=np.float32)
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
    draw.ellipse((x - radius, y - ry, x + radius, y + ry), fill=shaded(rng, colour, 0.2))


def leaf_outline(
    rng: np.random.Generator, centre: tuple[float, float], length: float
) -> list[tuple[float, float]]:
    """Outline a leaf around `centre`, turned at random, `length` pixels from middle to tip."""
    angle = float(rng.uniform(0.0, math.pi))
    half = float(rng.uniform(0.22, 0.5))
    local = [(-1.0, 0.0), (-0.5, half), (0.2, half), (1.0, 0.0), (0.2, -half), (-0.5, -half)]
    cosine, sine = math.cos(angle) * length, math.sin(angle) * length
    return [
        (centre[0] + x * cosine - y * sine, centre[1] + x * sine + y * cosine) for x, y in local
    ]
