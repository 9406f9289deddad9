"""Draw results on their frames: boxes with names, or the answer to the whole frame."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edge_fg.boxes import Region, intersection
from edge_fg.result import Result, Sighting
from edge_fg.sinks.annotator import Annotator
from edge_fg.sinks.base import Annotate
from edge_fg.sinks.fonts import Fonts

# Colours that most people can tell apart, colour-blind ones too (Okabe and Ito, "Color Universal
# Design", 2008), as BGR; without black, because each line has a dark edge on both sides.
_COLOURS = (
    (0, 159, 230),  # orange
    (233, 180, 86),  # sky blue
    (115, 158, 0),  # green
    (66, 228, 240),  # yellow
    (178, 114, 0),  # blue
    (0, 94, 213),  # vermilion
    (167, 121, 204),  # purple
)
_DARK = (20, 17, 14)  # of the edges and plates
_WHITE = (255, 255, 255)
_UNDECIDED = "?"
_TEXT_SHARE, _TEXT_MIN = 0.036, 11
_REMEMBERED = 4


class ResultAnnotator:
    """Draws a result on a copy of its frame.

    Where visits are followed, each individual has a box in its own colour, with its name on a dark
    plate; else the answer to the whole frame is shown in the lower left corner.

    Parameters
    ----------
    top_k
        Names of an answer to the whole frame.
    font
        TrueType or OpenType file; None takes the one that comes with Pillow.

    Raises
    ------
    UsageError
        See `Annotator`.
    """

    def __init__(self, *, top_k: int = 3, font: Path | None = None) -> None:
        self._panel = Annotator(top_k=top_k, font=font)
        self._fonts = Fonts(font)

    def __call__(self, result: Result[Any]) -> NDArray[np.uint8]:
        """Return H x W x 3, uint8, BGR."""
        image: NDArray[np.uint8] = result.frame.image
        image = image.copy() if result.prediction is None else self._panel(image, result.prediction)
        sightings = result.sightings
        taken: list[Region] = []
        short = min(image.shape[:2])
        line = max(round(short / 240), 1)
        for sighting in sightings:
            _draw_box(image, sighting.region_xywh, line, _colour(sighting))
        # After all the boxes, so that no line crosses a name.
        for sighting in sightings:
            plate = self._plate(sighting, max(round(_TEXT_SHARE * short), _TEXT_MIN), image.shape)
            height, width = plate.shape[:2]
            place = _free_place(sighting.region_xywh, (width, height), image.shape, taken)
            if place is not None:
                taken.append(place)
                left, top = place[:2]
                image[top : top + height, left : left + width] = plate
        return image

    def _plate(
        self, sighting: Sighting[Any], size: int, shape: tuple[int, ...]
    ) -> NDArray[np.uint8]:
        """Return the name on its plate, no wider than the frame."""
        pad, stripe = max(size // 3, 2), max(size // 4, 2)
        text = sighting.label or _UNDECIDED
        percent = "" if sighting.confidence is None else f" {100 * sighting.confidence:.0f} %"
        percent_width = self._fonts.length(percent, size)
        room = max(shape[1] - 2 * pad - stripe - percent_width, 0)
        font, name = self._fonts.fitted(" ".join(text.split()), size, room)
        width = round(font.getlength(name) + percent_width)
        plate = Image.new("RGB", (stripe + 2 * pad + width, size + 2 * pad), _DARK)
        draw = ImageDraw.Draw(plate)
        # Pillow treats the BGR image as RGB; colours are given as BGR.
        draw.rectangle((0, 0, stripe - 1, plate.height), fill=_colour(sighting))
        left, baseline = stripe + pad, pad + round(size * 0.82)
        draw.text((left, baseline), name, font=font, fill=_WHITE, anchor="ls")
        left += round(font.getlength(name))
        last = self._fonts.of(percent, size)
        draw.text((left, baseline), percent, font=last, fill=_WHITE, anchor="ls")
        drawn: NDArray[np.uint8] = np.asarray(plate)[: shape[0], : shape[1]]
        return drawn


class SharedAnnotator:
    """Draws each result once for several sinks, which must not change the image.

    Parameters
    ----------
    annotate
        Draws a result; None takes a `ResultAnnotator`.
    """

    def __init__(self, annotate: Annotate | None = None) -> None:
        # The cache alone would let two threads draw the same result.
        self._annotate = lru_cache(maxsize=_REMEMBERED)(annotate or ResultAnnotator())
        self._lock = threading.Lock()

    def __call__(self, result: Result[Any]) -> NDArray[np.uint8]:
        """Return H x W x 3, uint8, BGR."""
        with self._lock:
            return self._annotate(result)


def _colour(sighting: Sighting[Any]) -> tuple[int, int, int]:
    return _COLOURS[(sighting.track - 1) % len(_COLOURS)]


def _draw_box(
    image: NDArray[np.uint8], region: Region, line: int, colour: tuple[int, int, int]
) -> None:
    """Draw a box around a region: a coloured line with a dark edge on both sides."""
    x, y, width, height = region
    edge = max(line // 2, 1)
    for inset, thick, fill in ((-edge, line + 2 * edge, _DARK), (0, line, colour)):
        left, top, right, bottom = x + inset, y + inset, x + width - inset, y + height - inset
        for x0, y0, x1, y1 in (
            (left, top, right, top + thick),
            (left, bottom - thick, right, bottom),
            (left, top, left + thick, bottom),
            (right - thick, top, right, bottom),
        ):
            image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = fill


def _free_place(
    region: Region, size_wh: tuple[int, int], shape: tuple[int, ...], taken: Sequence[Region]
) -> Region | None:
    """Return where a plate fits: above its box, below it or in it; None if nowhere."""
    x, y, width, height = region
    plate_w, plate_h = size_wh
    right, bottom = shape[1] - plate_w, shape[0] - plate_h
    if right < 0 or bottom < 0:
        return None
    for top in (y - plate_h, y + height, y, y + height - plate_h):
        for left in (x, x + width - plate_w):
            place = (min(max(left, 0), right), min(max(top, 0), bottom), plate_w, plate_h)
            if not any(intersection(place, other) for other in taken):
                return place
    return None
