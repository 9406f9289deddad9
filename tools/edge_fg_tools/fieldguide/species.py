"""The birds of the field guide: invented genera and species and how they look.

Every name here is made up, orders and families included; none of these birds exists. A genus
fixes the shape and the ground colours, and its species (*siblings*) differ only in a few marks.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BACKGROUND_LABEL", "GENERA", "SPECIES", "Genus", "Marks", "Plumage", "Shape", "Species"]

Colour = tuple[int, int, int]

BACKGROUND_LABEL = "background"

_BLACK: Colour = (28, 26, 30)
_WHITE: Colour = (240, 238, 228)
_CREAM: Colour = (236, 222, 182)
_RUST: Colour = (160, 70, 32)
_YELLOW: Colour = (238, 192, 44)
_RED: Colour = (204, 48, 36)


@dataclass(frozen=True, slots=True)
class Shape:
    """Proportions of a genus, in units of the body's length.

    Attributes
    ----------
    depth
        Half the height of the body.
    head
        Radius of the head.
    bill_length, bill_depth
        Length of the bill and its height at the base.
    tail_length, tail_width, tail_fork
        Length of the tail, half its width at the end, depth of the notch.
    crest
        Height of the crest over the head; 0 for none.
    leg
        Length of the visible leg.
    size
        Size of the bird relative to the others of the guide.
    posture
        Usual angle of the body over the horizontal, in degrees.
    """

    depth: float
    head: float
    bill_length: float
    bill_depth: float
    tail_length: float
    tail_width: float
    tail_fork: float
    crest: float
    leg: float
    size: float
    posture: float


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


_TINDULA = Genus(
    "Tindula",
    "Tindulidae",
    "Paginiformes",
    Shape(0.300, 0.215, 0.15, 0.150, 0.48, 0.105, 0.07, 0.0, 0.15, 0.95, 34.0),
    Plumage(
        head=(142, 116, 84),
        back=(124, 98, 66),
        wing=(92, 72, 52),
        breast=(206, 176, 132),
        belly=(226, 208, 174),
        tail=(78, 62, 48),
        bill=(120, 104, 90),
        leg=(150, 112, 92),
    ),
)
_COMPTULA = Genus(
    "Comptula",
    "Tindulidae",
    "Paginiformes",
    Shape(0.285, 0.200, 0.13, 0.105, 0.44, 0.100, 0.0, 0.17, 0.12, 1.05, 46.0),
    Plumage(
        head=(184, 138, 112),
        back=(158, 120, 100),
        wing=(112, 100, 100),
        breast=(196, 154, 126),
        belly=(224, 200, 164),
        tail=(92, 86, 90),
        bill=(48, 44, 46),
        leg=(56, 48, 48),
    ),
)
_MINUTILLA = Genus(
    "Minutilla",
    "Calamellidae",
    "Paginiformes",
    Shape(0.315, 0.245, 0.09, 0.075, 0.42, 0.080, 0.04, 0.0, 0.14, 0.78, 30.0),
    Plumage(
        head=(86, 126, 168),
        back=(104, 136, 124),
        wing=(84, 114, 152),
        breast=(232, 206, 86),
        belly=(240, 222, 124),
        tail=(76, 102, 140),
        bill=(44, 44, 50),
        leg=(84, 92, 108),
    ),
)
_CALAMELLA = Genus(
    "Calamella",
    "Calamellidae",
    "Paginiformes",
    Shape(0.260, 0.200, 0.16, 0.050, 0.46, 0.075, 0.03, 0.0, 0.17, 0.82, 28.0),
    Plumage(
        head=(122, 132, 76),
        back=(112, 124, 70),
        wing=(94, 98, 62),
        breast=(212, 206, 126),
        belly=(228, 226, 178),
        tail=(90, 94, 60),
        bill=(92, 74, 54),
        leg=(146, 112, 78),
    ),
)
_TONITRULA = Genus(
    "Tonitrula",
    "Tonitrulidae",
    "Chartiformes",
    Shape(0.290, 0.205, 0.19, 0.080, 0.50, 0.100, 0.0, 0.0, 0.24, 1.12, 36.0),
    Plumage(
        head=(134, 104, 76),
        back=(126, 98, 72),
        wing=(116, 88, 64),
        breast=(228, 200, 152),
        belly=(240, 232, 212),
        tail=(114, 90, 68),
        bill=(74, 62, 54),
        leg=(196, 152, 126),
    ),
)
_SCANDULA = Genus(
    "Scandula",
    "Scandulidae",
    "Chartiformes",
    Shape(0.270, 0.205, 0.24, 0.075, 0.28, 0.100, 0.0, 0.0, 0.10, 0.88, 16.0),
    Plumage(
        head=(112, 138, 166),
        back=(104, 130, 158),
        wing=(88, 106, 132),
        breast=(230, 178, 122),
        belly=(216, 142, 84),
        tail=(74, 86, 106),
        bill=(66, 70, 80),
        leg=(136, 104, 72),
    ),
)
_GEMEBUNDA = Genus(
    "Gemebunda",
    "Gemebundidae",
    "Chartiformes",
    Shape(0.300, 0.155, 0.12, 0.055, 0.62, 0.115, 0.0, 0.0, 0.09, 1.25, 24.0),
    Plumage(
        head=(176, 160, 164),
        back=(158, 142, 134),
        wing=(148, 132, 122),
        breast=(204, 166, 164),
        belly=(220, 200, 192),
        tail=(118, 106, 102),
        bill=(70, 62, 66),
        leg=(186, 74, 84),
    ),
)

GENERA: tuple[Genus, ...] = (
    _TINDULA,
    _COMPTULA,
    _MINUTILLA,
    _CALAMELLA,
    _TONITRULA,
    _SCANDULA,
    _GEMEBUNDA,
)

SPECIES: tuple[Species, ...] = (
    Species("Rustcap Tindle", "ferrugipileata", _TINDULA, Marks(crown=_RUST, wing_bars=1)),
    Species("Browline Tindle", "lineasuperba", _TINDULA, Marks(brow=_CREAM, wing_bars=1)),
    Species("Streaky Tindle", "scripturata", _TINDULA, Marks(streaks=2, wing_bars=1)),
    Species("Ladderwing Tindle", "scalaris", _TINDULA, Marks(crown=_RUST, wing_bars=2)),
    Species(
        "Gilt-tipped Dapper",
        "auriterminata",
        _COMPTULA,
        Marks(eye_stripe=_BLACK, tail_tip=_YELLOW),
    ),
    Species(
        "Wax-tipped Dapper",
        "ceraterminata",
        _COMPTULA,
        Marks(eye_stripe=_BLACK, tail_tip=_RED),
    ),
    Species(
        "Cravat Dapper",
        "focalata",
        _COMPTULA,
        Marks(eye_stripe=_BLACK, throat=_BLACK, tail_tip=_YELLOW),
    ),
    Species(
        "Chalkwing Dapper",
        "cretipennis",
        _COMPTULA,
        Marks(eye_stripe=_BLACK, wing_bars=2, tail_tip=_YELLOW),
    ),
    Species("Inkcap Pipkin", "atramentaria", _MINUTILLA, Marks(crown=_BLACK, cheek=_WHITE)),
    Species(
        "Bibbed Pipkin",
        "mentonigra",
        _MINUTILLA,
        Marks(crown=_BLACK, cheek=_WHITE, throat=_BLACK),
    ),
    Species("Bandit Pipkin", "latronella", _MINUTILLA, Marks(eye_stripe=_BLACK, cheek=_WHITE)),
    Species(
        "Tiewing Pipkin",
        "alifasciola",
        _MINUTILLA,
        Marks(crown=_BLACK, cheek=_WHITE, wing_bars=1),
    ),
    Species("Monocle Quillet", "monocularia", _CALAMELLA, Marks(eye_ring=_WHITE)),
    Species("Highbrow Quillet", "altisupercilia", _CALAMELLA, Marks(brow=_CREAM)),
    Species("Notched Quillet", "crenipennis", _CALAMELLA, Marks(eye_ring=_WHITE, wing_bars=2)),
    Species(
        "Fineline Quillet",
        "tenuilinea",
        _CALAMELLA,
        Marks(brow=_CREAM, eye_stripe=(58, 54, 34), wing_bars=2),
    ),
    Species("Freckled Thrummer", "lentiginosa", _TONITRULA, Marks(spots=2)),
    Species(
        "Saffron-billed Thrummer",
        "crocirostris",
        _TONITRULA,
        Marks(spots=2, eye_ring=(240, 172, 40), bill=(240, 172, 40)),
    ),
    Species(
        "Hushed Thrummer",
        "taciturnella",
        _TONITRULA,
        Marks(eye_ring=_CREAM, bill=(240, 172, 40)),
    ),
    Species(
        "Ember-tailed Thrummer",
        "favillicauda",
        _TONITRULA,
        Marks(spots=2, tail=(196, 88, 36)),
    ),
    Species("Dashed Hobbin", "virgulata", _SCANDULA, Marks(eye_stripe=_BLACK)),
    Species("Slatecap Hobbin", "ardosiaca", _SCANDULA, Marks(eye_stripe=_BLACK, crown=_BLACK)),
    Species(
        "Frostbrow Hobbin",
        "pruinicilia",
        _SCANDULA,
        Marks(eye_stripe=_BLACK, brow=_WHITE),
    ),
    Species(
        "Girdled Hobbin",
        "cingulifera",
        _SCANDULA,
        Marks(eye_stripe=_BLACK, breast_band=(72, 54, 46)),
    ),
    Species("Halfmoon Croomb", "semilunaria", _GEMEBUNDA, Marks(collar=_BLACK)),
    Species(
        "Twobar Croomb",
        "bifasciola",
        _GEMEBUNDA,
        Marks(collar=_BLACK, wing_bars=2, wing_bar=(62, 54, 54)),
    ),
    Species(
        "Rubyeye Croomb",
        "rubinocula",
        _GEMEBUNDA,
        Marks(eye_ring=(214, 56, 44)),
    ),
    Species(
        "Hemmed Croomb",
        "limbicauda",
        _GEMEBUNDA,
        Marks(collar=_BLACK, tail=(62, 54, 56), tail_edge=_WHITE, tail_tip=_WHITE),
    ),
)
