"""Colours as (red, green, blue), each 0..255, and how they are varied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from edge_fg_tools.fieldguide.species import Colour as Colour


def clipped(values: Iterable[float]) -> Colour:
    """Round three values and bring each into 0..255."""
    red, green, blue = (min(255, max(0, round(value))) for value in values)
    return red, green, blue


def scaled(colour: Colour, factor: float) -> Colour:
    """Make a colour darker (`factor` below 1) or lighter."""
    return clipped(value * factor for value in colour)


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """Mix two colours; `share` (0..1) is how much there is of the second."""
    return clipped(a + (b - a) * share for a, b in zip(first, second, strict=True))


def pick(rng: np.random.Generator, colours: Sequence[Colour]) -> Colour:
    """Draw one of `colours`."""
    return colours[int(rng.integers(len(colours)))]


def shaded(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """Vary a colour: its brightness by `amount` either way, each channel by a third of that."""
    draw: list[float] = rng.random(4).tolist()
    light, *tint = (1.0 + amount * (2.0 * value - 1.0) for value in draw)
    return clipped(v * light * (2.0 + t) / 3.0 for v, t in zip(colour, tint, strict=True))
