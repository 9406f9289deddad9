"""Paint one bird: from species and pose to a small image with a mask.

The plumage is painted in layers, as an illustrator would: soft ground colours, crisp field marks
clipped to the body, the wing over it, bill and eye last, and light and feather texture over all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from edge_fg_tools.fieldguide.drawing.anatomy import Figure, Pose, pose_figure
from edge_fg_tools.fieldguide.drawing.canvas import SUPERSAMPLING, Easel, Layer
from edge_fg_tools.fieldguide.drawing.colours import Colour, scaled
from edge_fg_tools.fieldguide.drawing.curves import Points, closed_curve, open_curve
from edge_fg_tools.fieldguide.drawing.individual import Individual
from edge_fg_tools.fieldguide.species import Marks, Plumage


@dataclass(frozen=True, slots=True)
class BirdImage:
    """A painted bird."""

    image: Image.Image  # RGB image; only pixels under the mask are meaningful
    mask: Image.Image  # Coverage, mode "L", 0..255, same size
    feet_xy: tuple[float, float]  # Where the feet stand, in pixels of the image


def paint_bird(individual: Individual, pose: Pose, body_px: float) -> BirdImage:
    """Paint a bird whose body (without bill and tail) is `body_px` pixels long.

    The same arguments give the same pixels.
    """
    figure = pose_figure(individual.species.genus.shape, pose)
    easel = Easel(figure, pose, body_px * SUPERSAMPLING)
    rng = np.random.default_rng(individual.texture_seed)
    under = easel.layer(Image.new("RGB", easel.size, individual.plumage.tail))
    _paint_behind(under, figure, individual)
    _paint_plumage(under, figure, individual, easel, rng)
    _paint_wing(under, figure, individual, pose)
    _paint_face(under, figure, individual)
    image = under.image.reduce(SUPERSAMPLING)
    mask = under.mask.reduce(SUPERSAMPLING)
    x, y = easel.pixels(figure.feet[np.newaxis])[0]
    feet = (float(x) / SUPERSAMPLING, float(y) / SUPERSAMPLING)
    # A stream of its own, so that siblings with other marks have the same feathers.
    feathers = np.random.default_rng([individual.texture_seed, 1])
    return BirdImage(_light(image, mask, body_px, feathers), mask, feet)


def _paint_behind(layer: Layer, figure: Figure, individual: Individual) -> None:
    """Paint what the body covers: far wing, tail and legs."""
    plumage, marks = individual.plumage, individual.marks
    if figure.far_wing is not None:
        layer.fill(figure.far_wing, scaled(plumage.wing, 0.78))
    tail = marks.tail or plumage.tail
    layer.fill(figure.tail, tail)
    shaft = np.stack([figure.tail[0] * 0.5 + figure.tail[4] * 0.5, figure.tail[2]])
    layer.stroke(shaft, scaled(tail, 0.78), 0.012)
    layer.fill(figure.tail_edge, marks.tail_edge, cover=False)
    layer.fill(figure.tail_tip, marks.tail_tip, cover=False)
    for leg in figure.legs:
        layer.stroke(leg, scaled(plumage.leg, 0.85), 0.026, cover=True)


def _paint_plumage(
    under: Layer,
    figure: Figure,
    individual: Individual,
    easel: Easel,
    rng: np.random.Generator,
) -> None:
    """Paint body and head: soft ground colours, then the marks, clipped to the silhouette."""
    plumage, marks = individual.plumage, individual.marks
    layer = easel.layer(_ground_colours(figure, plumage, easel))
    for outline in (figure.body, figure.trunk, figure.head, figure.crest):
        if outline is not None:
            layer.cover(outline)
    _mark_breast(layer, figure, plumage, marks, rng)
    _mark_head(layer, figure, plumage, marks)
    under.image.paste(layer.image, (0, 0), layer.mask)
    under.mask.paste(255, (0, 0), layer.mask)


def _ground_colours(figure: Figure, plumage: Plumage, easel: Easel) -> Image.Image:
    """Blend back, belly, breast and head softly; at quarter size, since it is blurred anyway."""
    factor = 2 * SUPERSAMPLING
    size = (math.ceil(easel.size[0] / factor), math.ceil(easel.size[1] / factor))
    small = Image.new("RGB", size, plumage.back)
    draw = ImageDraw.Draw(small)

    def patch(points: Points, colour: Colour) -> None:
        draw.polygon((easel.pixels(points) / factor).ravel().tolist(), fill=colour)

    belly = [(-0.62, 0.0), (-0.2, 0.06), (0.2, 0.06), (0.6, 0.0), (0.6, 0.6), (-0.62, 0.6)]
    patch(figure.on_body(belly), plumage.belly)
    breast = [(0.10, 0.06), (0.30, -0.10), (0.7, -0.10), (0.7, 0.5), (0.22, 0.36)]
    patch(figure.on_body(breast), plumage.breast)
    cap = [(-1.3, 0.55), (-1.3, -2.2), (1.3, -2.2), (1.3, 0.35), (0.5, 0.62), (-0.4, 0.75)]
    patch(figure.on_head(cap), plumage.head)
    small = small.filter(ImageFilter.BoxBlur(max(0.5, 0.035 * easel.unit / factor)))
    return small.resize(easel.size, Image.Resampling.BILINEAR)


def _mark_breast(
    layer: Layer, figure: Figure, plumage: Plumage, marks: Marks, rng: np.random.Generator
) -> None:
    dark = scaled(plumage.back, 0.52)
    band = open_curve(figure.on_body([(0.20, -0.22), (0.36, 0.02), (0.30, 0.34)]))
    layer.stroke(band, marks.breast_band, 0.085)
    if marks.streaks or marks.spots:
        across = rng.uniform(-0.08, 0.38, 46)
        down = rng.uniform(0.02, 0.30, 46)
        anchors = figure.on_body(list(zip(across.tolist(), down.tolist(), strict=True)))
        for x, y in anchors:
            if marks.streaks:
                line = np.array([[x, y], [x - 0.035, y + 0.07]])
                layer.stroke(line, dark, 0.022)
            else:
                layer.disc(np.array([x, y]), 0.021, dark)
    patch = [(-1.05, 0.55), (-0.35, 1.15), (0.05, 1.75), (-0.35, 1.8), (-0.85, 1.25)]
    layer.fill(closed_curve(figure.on_head(patch)), marks.collar, cover=False)


def _mark_head(layer: Layer, figure: Figure, plumage: Plumage, marks: Marks) -> None:
    radius = figure.head_radius
    bib = [(1.1, 0.20), (0.45, 0.36), (0.10, 0.75), (0.15, 1.45), (0.7, 1.35), (1.2, 0.8)]
    layer.fill(closed_curve(figure.on_head(bib)), marks.throat, cover=False)
    cheek = [(0.35, 0.10), (-0.15, -0.02), (-0.68, 0.12), (-0.62, 0.55), (-0.1, 0.68)]
    layer.fill(closed_curve(figure.on_head([*cheek, (0.28, 0.45)])), marks.cheek, cover=False)
    cap = [(1.2, -0.30), (0.75, -0.34), (0.3, -0.44), (-0.4, -0.36), (-1.02, 0.02)]
    top = [(-1.4, -0.4), (-1.4, -2.6), (1.2, -2.6)]
    layer.fill(figure.on_head([*cap, *top]), marks.crown, cover=False)
    if figure.crest is not None and marks.crown is None:
        line = figure.on_head([(0.4, -0.78), (-0.3, -0.86), (-0.9, -1.2)])
        layer.stroke(line, scaled(plumage.head, 0.8), 0.02)
    brow = figure.on_head([(0.86, -0.22), (0.42, -0.46), (-0.1, -0.48), (-0.86, -0.18)])
    layer.stroke(open_curve(brow), marks.brow, 0.20 * radius)
    stripe = figure.on_head([(0.98, 0.04), (0.36, -0.13), (-0.2, -0.10), (-0.95, 0.08)])
    layer.stroke(open_curve(stripe), marks.eye_stripe, 0.25 * radius)
    if marks.eye_ring is not None:
        layer.disc(figure.eye, 0.285 * radius, marks.eye_ring)


def _paint_wing(layer: Layer, figure: Figure, individual: Individual, pose: Pose) -> None:
    plumage, marks = individual.plumage, individual.marks
    layer.fill(figure.wing, plumage.wing)
    dark = scaled(plumage.wing, 0.68)
    if pose.wing_lift is None:
        layer.stroke(np.concatenate([figure.wing, figure.wing[:1]]), dark, 0.012)
        for y in (-0.075, -0.02, 0.03):
            feather = [(-0.10, y + 0.03), (-0.34, y * 0.9), (-0.60, -0.045 + 0.12 * y)]
            layer.stroke(open_curve(figure.on_body(feather), 3), dark, 0.014)
        bars = [
            [(0.10, -0.165), (0.035, -0.06), (0.04, 0.095)],
            [(-0.06, -0.175), (-0.125, -0.06), (-0.10, 0.09)],
        ]
        lines = [open_curve(figure.on_body(bar), 4) for bar in bars]
    else:
        lift = pose.wing_lift
        for x in (-0.22, -0.10, 0.02):
            feather = [(x + 0.06, -0.08 - 0.30 * lift), (x, -0.10 - 0.90 * lift + 0.6 * abs(x))]
            layer.stroke(figure.on_body(feather), dark, 0.014)
        lines = [
            figure.on_body([(-0.24, -0.08 - at * lift), (0.22, -0.08 - (at + 0.06) * lift)])
            for at in (0.30, 0.48)
        ]
    for line in lines[: marks.wing_bars]:
        layer.stroke(line, marks.wing_bar, 0.046)


def _paint_face(layer: Layer, figure: Figure, individual: Individual) -> None:
    bill = individual.marks.bill or individual.plumage.bill
    layer.fill(figure.upper_bill, bill)
    layer.fill(figure.lower_bill, scaled(bill, 0.78))
    radius = 0.17 * figure.head_radius
    layer.disc(figure.eye, radius, (22, 18, 18))
    glint = figure.eye + radius * np.array([0.25, -0.35])
    layer.disc(glint, 0.34 * radius, (245, 245, 240))


def _light(
    image: Image.Image, mask: Image.Image, body_px: float, rng: np.random.Generator
) -> Image.Image:
    """Round the bird with soft light from above, and ruffle it with feather texture."""
    size = (max(4, image.width // 4), max(4, image.height // 4))
    form = mask.resize(size, Image.Resampling.BILINEAR)
    form = form.filter(ImageFilter.BoxBlur(max(1.0, 0.07 * body_px / 4)))
    drop = max(1, round(0.09 * body_px / 4))
    relief = ImageChops.subtract(form, ImageChops.offset(form, 0, drop), 2.0, 128)
    relief = ImageChops.offset(relief, 0, -drop // 2)
    shade = np.asarray(relief.resize(image.size, Image.Resampling.BILINEAR), dtype=np.float32)
    tile = _feathers()
    top = int(rng.integers(0, 256))
    left = int(rng.integers(0, 256))
    rows = (np.arange(image.height) + top) % tile.shape[0]
    columns = (np.arange(image.width) + left) % tile.shape[1]
    gain = (0.97 - (shade - 128.0) * (-0.62 / 128.0)) * tile[np.ix_(rows, columns)]
    lit = np.asarray(image, dtype=np.float32) * gain[..., np.newaxis]
    return Image.fromarray(np.clip(lit, 0.0, 255.0).astype(np.uint8))


@lru_cache(maxsize=1)
def _feathers() -> NDArray[np.float32]:
    """Make the fixed tile of multiplicative texture, streaked along the body; mean 1."""
    noise = np.random.default_rng(71).normal(0.0, 1.0, (256, 256)).astype(np.float32)
    streaked = sum((np.roll(noise, shift, axis=1) for shift in range(5)), np.zeros_like(noise))
    tile: NDArray[np.float32] = 1.0 + 0.022 * (streaked + np.roll(streaked, 1, axis=0))
    tile.setflags(write=False)
    return tile
