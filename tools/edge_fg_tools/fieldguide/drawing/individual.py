"""One bird of a species: its own colours and marks."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from edge_fg_tools.fieldguide.drawing.colours import Colour, clipped, mixed
from edge_fg_tools.fieldguide.species import Marks, Plumage, Species

# The ground colour that each mark lies on.
_GROUND_OF_MARK = {
    **dict.fromkeys(("crown", "brow", "eye_stripe", "eye_ring", "cheek"), "head"),
    "throat": "breast",
    "collar": "head",
    "breast_band": "breast",
    **dict.fromkeys(("tail", "tail_tip", "tail_edge"), "tail"),
    "bill": "bill",
}


@dataclass(frozen=True, slots=True)
class Individual:
    """One bird's own colours and marks: its species' ones, varied as individuals vary."""

    species: Species
    plumage: Plumage
    marks: Marks
    texture_seed: int


def draw_individual(species: Species, rng: np.random.Generator) -> Individual:
    """Draw an individual of `species`: plumage a little lighter, warmer or duller than usual."""
    light = float(rng.normal(1.0, 0.07))
    warmth = float(rng.normal(0.0, 5.0))
    grey = float(rng.uniform(-0.05, 0.28))
    ground = species.genus.plumage

    def vary(colour: Colour, share: float = 1.0) -> Colour:
        mean = sum(colour) / 3.0
        tint = (warmth * share, 0.0, -warmth * share)
        shift = rng.normal(0.0, 4.0 * share, 3)
        return clipped(
            (value + (mean - value) * grey * share) * (1.0 + (light - 1.0) * share) + t + s
            for value, t, s in zip(colour, tint, shift.tolist(), strict=True)
        )

    plumage = Plumage(*(vary(getattr(ground, part.name)) for part in fields(Plumage)))
    strength = float(rng.uniform(0.72, 1.0))
    texture_seed = int(rng.integers(2**31))
    changes: dict[str, Any] = {
        name: mixed(getattr(plumage, part), vary(mark, 0.5), strength)
        for name, part in _GROUND_OF_MARK.items()
        if (mark := getattr(species.marks, name)) is not None
    }
    bar = mixed(plumage.wing, vary(species.marks.wing_bar, 0.5), strength)
    marks = replace(species.marks, wing_bar=bar, **changes)
    return Individual(species, plumage, marks, texture_seed)
