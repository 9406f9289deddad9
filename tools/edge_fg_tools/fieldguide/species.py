"""The birds of the field guide: invented genera and species and how they look.

Every name here is made up, orders and families included; none of these birds exists. A genus
fixes the shape and the ground colours, and its species (*siblings*) differ only in a few marks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Colour = tuple[int, int, int]

BACKGROUND_LABEL = "background"

_BLACK: Colour = (28, 26, 30)
_WHITE: Colour = (240, 238, 228)
_CREAM: Colour = (236, 222, 182)
_RUST: Colour = (160, 70, 32)
_YELLOW: Colour = (238, 192, 44)
_RED: Colour = (204, 48, 36)
_AMBER: Colour = (240, 172, 40)


@dataclass(frozen=True, slots=True)
class Shape:
    """Proportions of a genus, in units of the body's length."""

    depth: float  # Half the height of the body
    head: float  # Radius of the head
    # Length of the bill and its height at the base.
    bill_length: float
    bill_depth: float
    # Length of the tail, half its width at the end, depth of the notch.
    tail_length: float
    tail_width: float
    tail_fork: float
    crest: float  # Height of the crest over the head; 0 for none
    leg: float  # Length of the visible leg
    size: float  # Size of the bird relative to the others of the guide
    posture: float  # Usual angle of the body over the horizontal, in degrees


@dataclass(frozen=True, slots=True)
class Plumage:
    """Ground colours (RGB, 0..255) that the species of a genus share."""

    head: Colour
    back: Colour
    wing: Colour
    breast: Colour
    belly: Colour
    tail: Colour
    bill: Colour
    leg: Colour


@dataclass(frozen=True, slots=True)
class Marks:
    """Field marks of one species: a colour (RGB, 0..255), or None where the mark is absent.

    `wing_bars` is how many bars cross the closed wing, `streaks` and `spots` say how densely
    the breast is marked (0 for not at all).
    """

    crown: Colour | None = None
    brow: Colour | None = None
    eye_stripe: Colour | None = None
    eye_ring: Colour | None = None
    cheek: Colour | None = None
    throat: Colour | None = None
    collar: Colour | None = None
    breast_band: Colour | None = None
    wing_bars: int = 0
    wing_bar: Colour = _WHITE
    streaks: int = 0
    spots: int = 0
    tail: Colour | None = None
    tail_tip: Colour | None = None
    tail_edge: Colour | None = None
    bill: Colour | None = None


@dataclass(frozen=True, slots=True)
class Genus:
    """A genus: its place in the taxonomy, its shape and its ground colours."""

    name: str
    family: str
    order: str
    shape: Shape
    plumage: Plumage


@dataclass(frozen=True, slots=True)
class Species:
    """One species: names, genus and field marks."""

    common_name: str
    epithet: str
    genus: Genus
    marks: Marks

    @property
    def binomial(self) -> str:
        """Scientific name, genus and epithet."""
        return f"{self.genus.name} {self.epithet}"


def _rgb(colour: str) -> Colour:
    red, green, blue = bytes.fromhex(colour)
    return red, green, blue


def _plumage(colours: str) -> Plumage:
    """Read ground colours in the order of `Plumage`, each RGB in hexadecimal."""
    return Plumage(*(_rgb(colour) for colour in colours.split()))


_TINDULA = Genus(
    "Tindula",
    "Tindulidae",
    "Paginiformes",
    Shape(0.300, 0.215, 0.15, 0.150, 0.48, 0.105, 0.07, 0.0, 0.15, 0.95, 34.0),
    _plumage("8e7454 7c6242 5c4834 ceb084 e2d0ae 4e3e30 78685a 96705c"),
)
_COMPTULA = Genus(
    "Comptula",
    "Tindulidae",
    "Paginiformes",
    Shape(0.285, 0.200, 0.13, 0.105, 0.44, 0.100, 0.0, 0.17, 0.12, 1.05, 46.0),
    _plumage("b88a70 9e7864 706464 c49a7e e0c8a4 5c565a 302c2e 383030"),
)
_MINUTILLA = Genus(
    "Minutilla",
    "Calamellidae",
    "Paginiformes",
    Shape(0.315, 0.245, 0.09, 0.075, 0.42, 0.080, 0.04, 0.0, 0.14, 0.78, 30.0),
    _plumage("567ea8 68887c 547298 e8ce56 f0de7c 4c668c 2c2c32 545c6c"),
)
_CALAMELLA = Genus(
    "Calamella",
    "Calamellidae",
    "Paginiformes",
    Shape(0.260, 0.200, 0.16, 0.050, 0.46, 0.075, 0.03, 0.0, 0.17, 0.82, 28.0),
    _plumage("7a844c 707c46 5e623e d4ce7e e4e2b2 5a5e3c 5c4a36 92704e"),
)
_TONITRULA = Genus(
    "Tonitrula",
    "Tonitrulidae",
    "Chartiformes",
    Shape(0.290, 0.205, 0.19, 0.080, 0.50, 0.100, 0.0, 0.0, 0.24, 1.12, 36.0),
    _plumage("86684c 7e6248 745840 e4c898 f0e8d4 725a44 4a3e36 c4987e"),
)
_SCANDULA = Genus(
    "Scandula",
    "Scandulidae",
    "Chartiformes",
    Shape(0.270, 0.205, 0.24, 0.075, 0.28, 0.100, 0.0, 0.0, 0.10, 0.88, 16.0),
    _plumage("708aa6 68829e 586a84 e6b27a d88e54 4a566a 424650 886848"),
)
_GEMEBUNDA = Genus(
    "Gemebunda",
    "Gemebundidae",
    "Chartiformes",
    Shape(0.300, 0.155, 0.12, 0.055, 0.62, 0.115, 0.0, 0.0, 0.09, 1.25, 24.0),
    _plumage("b0a0a4 9e8e86 94847a cca6a4 dcc8c0 766a66 463e42 ba4a54"),
)


def _siblings(genus: Genus, *rows: tuple[str, str, Marks]) -> Iterator[Species]:
    """Make the species of a genus from their common names, epithets and marks."""
    return (Species(name, epithet, genus, marks) for name, epithet, marks in rows)


SPECIES: tuple[Species, ...] = (
    *_siblings(
        _TINDULA,
        ("Rustcap Tindle", "ferrugipileata", Marks(crown=_RUST, wing_bars=1)),
        ("Browline Tindle", "lineasuperba", Marks(brow=_CREAM, wing_bars=1)),
        ("Streaky Tindle", "scripturata", Marks(streaks=2, wing_bars=1)),
        ("Ladderwing Tindle", "scalaris", Marks(crown=_RUST, wing_bars=2)),
    ),
    *_siblings(
        _COMPTULA,
        ("Gilt-tipped Dapper", "auriterminata", Marks(eye_stripe=_BLACK, tail_tip=_YELLOW)),
        ("Wax-tipped Dapper", "ceraterminata", Marks(eye_stripe=_BLACK, tail_tip=_RED)),
        ("Cravat Dapper", "focalata", Marks(eye_stripe=_BLACK, throat=_BLACK, tail_tip=_YELLOW)),
        (
            "Chalkwing Dapper",
            "cretipennis",
            Marks(eye_stripe=_BLACK, wing_bars=2, tail_tip=_YELLOW),
        ),
    ),
    *_siblings(
        _MINUTILLA,
        ("Inkcap Pipkin", "atramentaria", Marks(crown=_BLACK, cheek=_WHITE)),
        ("Bibbed Pipkin", "mentonigra", Marks(crown=_BLACK, cheek=_WHITE, throat=_BLACK)),
        ("Bandit Pipkin", "latronella", Marks(eye_stripe=_BLACK, cheek=_WHITE)),
        ("Tiewing Pipkin", "alifasciola", Marks(crown=_BLACK, cheek=_WHITE, wing_bars=1)),
    ),
    *_siblings(
        _CALAMELLA,
        ("Monocle Quillet", "monocularia", Marks(eye_ring=_WHITE)),
        ("Highbrow Quillet", "altisupercilia", Marks(brow=_CREAM)),
        ("Notched Quillet", "crenipennis", Marks(eye_ring=_WHITE, wing_bars=2)),
        (
            "Fineline Quillet",
            "tenuilinea",
            Marks(brow=_CREAM, eye_stripe=(58, 54, 34), wing_bars=2),
        ),
    ),
    *_siblings(
        _TONITRULA,
        ("Freckled Thrummer", "lentiginosa", Marks(spots=2)),
        ("Saffron-billed Thrummer", "crocirostris", Marks(spots=2, eye_ring=_AMBER, bill=_AMBER)),
        ("Hushed Thrummer", "taciturnella", Marks(eye_ring=_CREAM, bill=_AMBER)),
        ("Ember-tailed Thrummer", "favillicauda", Marks(spots=2, tail=(196, 88, 36))),
    ),
    *_siblings(
        _SCANDULA,
        ("Dashed Hobbin", "virgulata", Marks(eye_stripe=_BLACK)),
        ("Slatecap Hobbin", "ardosiaca", Marks(eye_stripe=_BLACK, crown=_BLACK)),
        ("Frostbrow Hobbin", "pruinicilia", Marks(eye_stripe=_BLACK, brow=_WHITE)),
        ("Girdled Hobbin", "cingulifera", Marks(eye_stripe=_BLACK, breast_band=(72, 54, 46))),
    ),
    *_siblings(
        _GEMEBUNDA,
        ("Halfmoon Croomb", "semilunaria", Marks(collar=_BLACK)),
        ("Twobar Croomb", "bifasciola", Marks(collar=_BLACK, wing_bars=2, wing_bar=(62, 54, 54))),
        ("Rubyeye Croomb", "rubinocula", Marks(eye_ring=(214, 56, 44))),
        (
            "Hemmed Croomb",
            "limbicauda",
            Marks(collar=_BLACK, tail=(62, 54, 56), tail_edge=_WHITE, tail_tip=_WHITE),
        ),
    ),
)

GENERA: tuple[Genus, ...] = tuple(dict.fromkeys(species.genus for species in SPECIES))
