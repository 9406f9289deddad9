"""Draw answers on frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edge_fg.errors import UsageError
from edge_fg.images import as_frame
from edge_fg.sinks.fonts import Colour, Fonts

_PANEL_BGRA = (20, 17, 14, 184)  # dark enough for white text on snow: contrast over 7 to 1
_TITLE_BGRA = (255, 255, 255, 255)
_TEXT_BGRA = (226, 220, 214, 255)
_TRACK_BGRA = (72, 69, 67, 225)  # white of 22 % over the panel, which drawing replaces
_BAR_BGRA = (140, 200, 64, 255)
_OTHER_BAR_BGRA = (184, 170, 150, 255)

# Sizes relative to the shorter side of the frame, in pixels at least the second number.
_TITLE_SHARE, _TITLE_MIN = 0.055, 12
# Largest share of the frame for a panel: of the width of large frames, of the height for the list
# of names, and of the height in all. A frame with no room for one line shows no panel.
_WIDEST_PANEL = 0.62
_HIGHEST_LIST = 0.45
_HIGHEST_PANEL = 0.65


class _Answer(Protocol):
    """One class of a prediction, with its probability 0..1."""

    @property
    def label(self) -> str: ...
    @property
    def confidence(self) -> float: ...


class _Prediction(Protocol):
    """What gives the `k` likeliest classes, the likeliest first."""

    def top(self, k: int = 5) -> Sequence[_Answer]: ...


class Annotator:
    """Draws answers on frames: the name, its confidence as a bar, and the runners-up.

    The panel is in the lower left corner; its size depends on the frame's. Of the `top_k` names,
    the first one is large. A small frame shows fewer; one of less than about 50 rows shows none.
    For `font` see `Fonts`. A `UsageError` says that `top_k` is less than 1, or that the font can't
    be read.
    """

    def __init__(self, *, top_k: int = 3, font: Path | None = None) -> None:
        if top_k < 1:
            raise UsageError(f"top_k must be at least 1, not {top_k}")
        self._top_k = top_k
        self._fonts = Fonts(font)

    def __call__(self, frame: NDArray[np.uint8], prediction: _Prediction) -> NDArray[np.uint8]:
        """Return a copy of `frame` (H x W x 3, BGR) with the answer drawn on it.

        An `ImageError` says that `frame` is not a frame.
        """
        result: NDArray[np.uint8] = as_frame(frame).copy()
        height, width = result.shape[:2]
        answers = list(prediction.top(self._top_k))[: self._top_k]
        panel = _Panel(self._fonts, width, height, answers)
        if not panel.fits:
            return result
        window: NDArray[np.uint8] = result[
            panel.top : panel.top + panel.height, panel.left : panel.left + panel.width
        ]
        # Pillow treats the BGR image as RGB, and colours are given as BGR: converting the image
        # would take longer than drawing.
        below = Image.fromarray(np.ascontiguousarray(window))
        drawn = panel.drawn()
        below.paste(drawn, (0, 0), drawn)
        window[:] = np.asarray(below)
        return result


class _Panel:
    """The panel for a frame of this size; everything is in pixels."""

    def __init__(self, fonts: Fonts, width: int, height: int, answers: Sequence[_Answer]) -> None:
        self._fonts = fonts
        self._answers = [(" ".join(one.label.split()), one.confidence) for one in answers]
        short = min(width, height)
        self._title = title = max(round(_TITLE_SHARE * short), _TITLE_MIN)
        self._text = max(round(title * 0.62), 10)
        self._row = round(self._text * 1.9)
        self._pad = max(round(title * 0.5), 3)
        self._bar = max(round(title * 0.24), 3)
        self.left = margin = round(self._pad * 0.8) if short >= 160 else 0
        room_w, room_h = width - 2 * margin, height - 2 * margin
        head = 2 * self._pad + round(title * 1.35) + self._bar
        self.fits = bool(answers) and room_w >= 4 * title and head <= _HIGHEST_PANEL * height
        room_for_list = min(round(_HIGHEST_LIST * height), room_h) - head - self._pad // 2
        self._rows = min(max(room_for_list // self._row, 0), len(answers) - 1)
        self.height = head + self._rows * self._row + (self._pad // 2 if self._rows else 0)
        self.top = height - margin - self.height
        widest = room_w if width < 800 else round(_WIDEST_PANEL * width)
        self.width = min(max(round(self._needed_width()), title * 11), widest, room_w)

    def _needed_width(self) -> float:
        sizes = [self._title] + [self._text] * len(self._answers)
        shown = (f"{name}{_percent(confidence)}" for name, confidence in self._answers)
        return max(map(self._fonts.length, shown, sizes), default=0) + 2 * (self._title + self._pad)

    def drawn(self) -> Image.Image:
        """Return the panel, in four channels."""
        panel = Image.new("RGBA", (self.width, self.height), (0, 0, 0, 0))
        radius = self._pad // 2 if self.left else 0
        corners = (0, 0, self.width - 1, self.height - 1)
        ImageDraw.Draw(panel).rounded_rectangle(corners, radius=radius, fill=_PANEL_BGRA)
        y = self._pad
        name, confidence = self._answers[0]
        self._write(panel, y, self._title, name, confidence, _TITLE_BGRA)
        y += round(self._title * 1.35)
        self._draw_bar(panel, y, self._bar, confidence, _BAR_BGRA)
        y += self._bar + self._pad
        thin = max(self._bar // 3, 1)
        for name, confidence in self._answers[1 : 1 + self._rows]:
            self._write(panel, y, self._text, name, confidence, _TEXT_BGRA)
            below = y + round(self._text * 1.3)
            self._draw_bar(panel, below, thin, confidence, _OTHER_BAR_BGRA)
            y += self._row
        return panel

    def _write(
        self, panel: Image.Image, y: int, size: int, name: str, confidence: float, bgra: Colour
    ) -> None:
        """Write a name at the left and its confidence at the right of one line."""
        room = self.width - 2 * self._pad
        percent = _percent(confidence)
        percent_width = self._fonts.length(percent, size)
        if percent_width > 0.5 * room:
            percent, percent_width = "", 0.0
        room -= round(percent_width + size * 0.6)
        font, name = self._fonts.fitted(name, size, room)
        right = self.width - self._pad - round(percent_width)
        for text, its_font, left in (
            (name, font, self._pad),
            (percent, self._fonts.of(percent, size), right),
        ):
            written, baseline = self._fonts.outlined(text, its_font, bgra)
            # The outline must not move the text: what it adds on the left is taken off here.
            outline = (written.width - math.ceil(its_font.getlength(text))) // 2
            panel.alpha_composite(written, (left - outline, max(y + size - baseline, 0)))

    def _draw_bar(
        self, panel: Image.Image, y: int, height: int, confidence: float, bgra: Colour
    ) -> None:
        left, right, bottom = self._pad, self.width - self._pad - 1, y + height - 1
        if bottom >= self.height:
            return
        draw = ImageDraw.Draw(panel)
        radius = height / 2 if height > 3 else 0
        draw.rounded_rectangle((left, y, right, bottom), radius=radius, fill=_TRACK_BGRA)
        share = min(max(confidence, 0.0), 1.0) if math.isfinite(confidence) else 0.0
        end = left + round((right - left) * share)
        if end > left:
            draw.rounded_rectangle((left, y, end, bottom), radius=radius, fill=bgra)


def _percent(confidence: float) -> str:
    return f"{100 * confidence:.1f} %"
