"""Fonts for names in any language, as far as this machine has such fonts."""

from __future__ import annotations

import contextlib
import math
import os
import unicodedata
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image, ImageDraw, ImageFont

from edge_fg.errors import MissingDependencyError, UsageError

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour: TypeAlias = tuple[int, int, int, int]

_SMALLEST = 9
_KEPT_TEXTS = 300
_OUTLINE = (8, 7, 6, 255)  # nearly black in any order of channels
# Fonts that Linux distributions, JetPack too, install where Pillow looks.
_SYSTEM_FONTS = ("NotoSans-Regular.ttf", "DejaVuSans.ttf", "LiberationSans-Regular.ttf")


class Fonts:
    """One font, in any size.

    The font that comes with Pillow has only ASCII. For other characters a font of the system is
    taken if no font is given; without one, accents are left out. `path` is a TrueType or OpenType
    file; a `UsageError` says that it can't be read.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._system: str | None = None if path else _system_font()
        # The latest few hundred texts are kept: the same names come with each frame, and drawing an
        # outline takes longer than the rest of a panel.
        self.outlined = lru_cache(maxsize=_KEPT_TEXTS)(_outlined)
        self._load = cache(_load_font)
        self.of("", _SMALLEST)

    def of(self, text: str, size: int) -> Font:
        """Return the font that `text` is written in, in this size (pixels)."""
        wide = self._system is not None and not text.isascii()
        return self._load(self._system if wide else self._path, size)

    def length(self, text: str, size: int) -> float:
        """Return how wide a text is (pixels)."""
        return self.of(text, size).getlength(self._writable(text))

    def fitted(self, name: str, size: int, room: float) -> tuple[Font, str]:
        """Return the largest font in which `name` fits into `room`, and the name to be written.

        It is cut where it doesn't fit in seven tenths of `size`. Both sizes are in pixels.
        """
        name = self._writable(name)
        for share in (1.0, 0.85, 0.7):
            font = self.of(name, max(round(size * share), _SMALLEST))
            if font.getlength(name) <= room:
                return font, name
        dots = "..." if name.isascii() else "…"
        while name and font.getlength(f"{name}{dots}") > room:
            name = name[:-1].rstrip()
        return font, f"{name}{dots}" if name else ""

    def _writable(self, text: str) -> str:
        if text.isascii() or self._path is not None or self._system is not None:
            return text
        plain = unicodedata.normalize("NFKD", text)
        return "".join(c if c.isascii() else "?" for c in plain if not unicodedata.combining(c))


def _outlined(text: str, font: Font, fill: Colour) -> tuple[Image.Image, int]:
    """Return a text with a thin dark outline, and the row of its baseline.

    `fill` has the channels in the order of the image that it is meant for.
    """
    size = int(getattr(font, "size", _SMALLEST))
    stroke = max(size // 12, 1)
    width, baseline = math.ceil(font.getlength(text)) + 2 * stroke, size + stroke
    image = Image.new("RGBA", (width, baseline + size // 2 + stroke), (0, 0, 0, 0))
    outline: dict[str, Any] = {"stroke_width": stroke, "stroke_fill": _OUTLINE}
    ImageDraw.Draw(image).text((stroke, baseline), text, fill, font, anchor="ls", **outline)
    return image, baseline


def _system_font() -> str | None:
    for name in _SYSTEM_FONTS:
        with contextlib.suppress(OSError, ImportError):
            ImageFont.truetype(name, _SMALLEST)
            return name
    return None


def _load_font(path: Path | str | None, size: int) -> Font:
    if path is None:
        try:
            return ImageFont.load_default(size=size)
        # Pillow before 10.1 knows no size; without FreeType there is no scalable font.
        except (TypeError, ImportError, OSError) as error:
            raise MissingDependencyError("Pillow>=10.1", "build", "write on frames") from error
    try:
        return ImageFont.truetype(os.fspath(path), size)
    except OSError as error:
        raise UsageError(f"can't read the font {path}: {error}") from error
