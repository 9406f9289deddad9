"""What birds are painted on: layers of pixels that are drawn on in bird units.

Everything is drawn at `SUPERSAMPLING` times the size and reduced once, which smooths the edges.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from edge_fg_tools.fieldguide.drawing.anatomy import Figure, Pose
from edge_fg_tools.fieldguide.drawing.colours import Colour
from edge_fg_tools.fieldguide.drawing.curves import Points

SUPERSAMPLING = 2


class Easel:
    """Maps bird units to the pixels of a canvas that just holds the bird."""

    def __init__(self, figure: Figure, pose: Pose, scale: float) -> None:
        self._scale = np.array([scale * pose.foreshorten * (-1.0 if pose.mirror else 1.0), scale])
        self.unit = scale
        parts = [figure.body, figure.trunk, figure.head, figure.upper_bill, figure.lower_bill]
        parts += [figure.tail, figure.wing, *figure.legs]
        parts += [part for part in (figure.crest, figure.far_wing) if part is not None]
        points = np.concatenate(parts) * self._scale
        margin = 3 * SUPERSAMPLING
        self._origin = margin - points.min(axis=0)
        extent = np.ceil((points.max(axis=0) + self._origin + margin) / SUPERSAMPLING)
        self.size = (int(extent[0]) * SUPERSAMPLING, int(extent[1]) * SUPERSAMPLING)

    def pixels(self, points: Points) -> Points:
        """Map points from bird units to pixels."""
        placed: Points = points * self._scale + self._origin
        return placed

    def layer(self, image: Image.Image) -> Layer:
        """Return `image` as a layer with nothing covered yet."""
        return Layer(self, image, Image.new("L", self.size, 0))


class Layer:
    """An RGB image and a mask (255 where it is covered), drawn on together.

    A colour of None, that of a mark which the bird lacks, draws nothing.
    """

    def __init__(self, easel: Easel, image: Image.Image, mask: Image.Image) -> None:
        self.image = image
        self.mask = mask
        self.unit = easel.unit
        self._easel = easel
        self._colour = ImageDraw.Draw(image)
        self._cover = ImageDraw.Draw(mask)

    def cover(self, points: Points) -> None:
        """Mark a polygon as covered, and leave its colours."""
        self._cover.polygon(self._easel.pixels(points).ravel().tolist(), fill=255)

    def fill(self, points: Points, colour: Colour | None, *, cover: bool = True) -> None:
        """Fill a polygon; `cover=False` paints within what is covered already."""
        if colour is None:
            return
        self._colour.polygon(self._easel.pixels(points).ravel().tolist(), fill=colour)
        if cover:
            self.cover(points)

    def stroke(
        self, points: Points, colour: Colour | None, width: float, *, cover: bool = False
    ) -> None:
        """Draw a line `width` bird units wide."""
        if colour is None:
            return
        flat = self._easel.pixels(points).ravel().tolist()
        pixels = max(1, round(width * self.unit))
        self._colour.line(flat, fill=colour, width=pixels, joint="curve")
        if cover:
            self._cover.line(flat, fill=255, width=pixels, joint="curve")

    def disc(self, centre: Points, radius: float, colour: Colour) -> None:
        """Fill a disc of `radius` bird units."""
        x, y = self._easel.pixels(centre[np.newaxis])[0].tolist()
        r = radius * self.unit
        self._colour.ellipse((x - r, y - r, x + r, y + r), fill=colour)
