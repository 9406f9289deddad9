"""Draw answers on frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edge_fg.errors import UsageError
from edge_fg.images import as_frame
from edge_fg.sinks.fonts import Colour, Fonts

__all__ = ["Annotator", "ScoredLabel", "TopAnswers"]

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


class ScoredLabel(Protocol):
    """One class of an answer."""

    @property
    def label(self) -> str:
        """Name to be shown."""

    @property
    def confidence(self) -> float:
        """Probability, 0..1."""


class TopAnswers(Protocol):
    """What an annotator needs of a prediction."""

    def top(self, k: int = 5) -> Sequence[ScoredLabel]:
        """Return the `k` likeliest classes, the likeliest first."""


@dataclass(frozen=True)
class _Layout:
    """Pixels of one panel."""

    title: int
    text: int
    pad: int
    bar: int
    left: int
    top: int
    width: int
    height: int
    rows: int  # of the list of names
    row: int  # height of one of them


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
        self._font = Fonts(font)

    def __call__(self, frame: NDArray[np.uint8], prediction: TopAnswers) -> NDArray[np.uint8]:
        """Return a copy of `frame` (H x W x 3, BGR) with the answer drawn on it.

        An `ImageError` says that `frame` is not a frame.
        """
        result: NDArray[np.uint8] = as_frame(frame).copy()
        answers = list(prediction.top(self._top_k))[: self._top_k]
        layout = self._layout(result.shape[1], result.shape[0], answers)
        if layout is None:
            return result
        window: NDArray[np.uint8] = result[
            layout.top : layout.top + layout.height, layout.left : layout.left + layout.width
        ]
        # Pillow treats the BGR image as RGB, and colours are given as BGR: converting the image
        # would take longer than drawing.
        below = Image.fromarray(np.ascontiguousarray(window))
        panel = self._panel(layout, answers)
        below.paste(panel, (0, 0), panel)
        window[:] = np.asarray(below)
        return result

    def _layout(self, width: int, height: int, answers: Sequence[ScoredLabel]) -> _Layout | None:
        short = min(width, height)
        title = max(round(_TITLE_SHARE * short), _TITLE_MIN)
        text = max(round(title * 0.62), 10)
        pad = max(round(title * 0.5), 3)
        bar = max(round(title * 0.24), 3)
        margin = round(pad * 0.8) if short >= 160 else 0
        room_w, room_h = width - 2 * margin, height - 2 * margin
        head = pad + round(title * 1.35) + bar + pad
        if not answers or room_w < 4 * title or head > _HIGHEST_PANEL * height:
            return None
        needed = self._needed_width(title, text, answers) + 2 * pad
        widest = room_w if width < 800 else round(_WIDEST_PANEL * width)
        row = round(text * 1.9)
        room_for_list = min(round(_HIGHEST_LIST * height), room_h) - head - pad // 2
        rows = min(max(room_for_list // row, 0), len(answers) - 1)
        panel_height = head + rows * row + (pad // 2 if rows else 0)
        return _Layout(
            title=title,
            text=text,
            pad=pad,
            bar=bar,
            left=margin,
            top=height - margin - panel_height,
            width=min(max(round(needed), title * 11), widest, room_w),
            height=panel_height,
            rows=rows,
            row=row,
        )

    def _needed_width(self, title: int, text: int, answers: Sequence[ScoredLabel]) -> float:
        sizes = [title] + [text] * (len(answers) - 1)
        shown = (f"{_clean(answer.label)}{_percent(answer)}" for answer in answers)
        return max(map(self._font.length, shown, sizes)) + 2 * title

    def _panel(self, layout: _Layout, answers: Sequence[ScoredLabel]) -> Image.Image:
        panel = Image.new("RGBA", (layout.width, layout.height), (0, 0, 0, 0))
        radius = layout.pad // 2 if layout.left else 0
        corners = (0, 0, layout.width - 1, layout.height - 1)
        ImageDraw.Draw(panel).rounded_rectangle(corners, radius=radius, fill=_PANEL_BGRA)
        y = layout.pad
        self._line(panel, layout, y, layout.title, answers[0], _TITLE_BGRA)
        y += round(layout.title * 1.35)
        _draw_bar(panel, layout, y, layout.bar, answers[0].confidence, _BAR_BGRA)
        y += layout.bar + layout.pad
        thin = max(layout.bar // 3, 1)
        for answer in answers[1 : 1 + layout.rows]:
            self._line(panel, layout, y, layout.text, answer, _TEXT_BGRA)
            below = y + round(layout.text * 1.3)
            _draw_bar(panel, layout, below, thin, answer.confidence, _OTHER_BAR_BGRA)
            y += layout.row
        return panel

    def _line(
        self,
        panel: Image.Image,
        layout: _Layout,
        y: int,
        size: int,
        answer: ScoredLabel,
        bgra: Colour,
    ) -> None:
        """Write a name at the left and its confidence at the right of one line."""
        room = layout.width - 2 * layout.pad
        percent = _percent(answer)
        percent_width = self._font.length(percent, size)
        if percent_width > 0.5 * room:
            percent, percent_width = "", 0.0
        room -= round(percent_width + size * 0.6)
        font, name = self._font.fitted(_clean(answer.label), size, room)
        right = layout.width - layout.pad - round(percent_width)
        for text, its_font, left in (
            (name, font, layout.pad),
            (percent, self._font.of(percent, size), right),
        ):
            written, baseline = self._font.outlined(text, its_font, bgra)
            # The outline must not move the text: what it adds on the left is taken off here.
            outline = (written.width - math.ceil(its_font.getlength(text))) // 2
            panel.alpha_composite(written, (left - outline, max(y + size - baseline, 0)))


def _clean(label: str) -> str:
    return " ".join(label.split())


def _percent(answer: ScoredLabel) -> str:
    return f"{100 * answer.confidence:.1f} %"


def _draw_bar(
    panel: Image.Image, layout: _Layout, y: int, height: int, confidence: float, bgra: Colour
) -> None:
    left, right, bottom = layout.pad, layout.width - layout.pad - 1, y + height - 1
    if bottom >= layout.height:
        return
    draw = ImageDraw.Draw(panel)
    radius = height / 2 if height > 3 else 0
    draw.rounded_rectangle((left, y, right, bottom), radius=radius, fill=_TRACK_BGRA)
    share = min(max(confidence, 0.0), 1.0) if math.isfinite(confidence) else 0.0
    end = left + round((right - left) * share)
    if end > left:
        draw.rounded_rectangle((left, y, end, bottom), radius=radius, fill=bgra)
