"""The charts of the report; each function returns one ``<svg>`` element as text."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import NamedTuple

from edge_fg_calibration.budget.results import SearchedLayer
from edge_fg_tools.report import svg, words
from edge_fg_tools.report.ranges import TensorRange
from edge_fg_tools.report.verdict import ClassAgreement

MAX_POINTS = 3000
"""Most points that a scatter draws; changed answers come first."""

_CHANGE_BINS = 21


def confidence_scatter(points: Sequence[tuple[float, float, bool]]) -> str:
    """Draw the variant's confidence against that of FP32, a dot per image.

    Points are ``(confidence of FP32, confidence of the variant, same answer)``, confidences 0..1;
    those that are not finite are left out. Of more than `MAX_POINTS`, the changed answers and then
    an even sample of the others are drawn.
    """
    left, top, side = 46.0, 8.0, 270.0
    drawing = svg.canvas(330, 326, "Confidence of FP32 and of the variant, a dot per image")
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = left + share * side, top + (1 - share) * side
        svg.line(drawing, (left, y), (left + side, y), "grid")
        svg.line(drawing, (x, top), (x, top + side), "grid")
        svg.text(drawing, (left - 7, y + 4), f"{100 * share:.0f}", anchor="end")
        svg.text(drawing, (x, top + side + 16), f"{100 * share:.0f}", anchor="middle")
    svg.line(drawing, (left, top + side), (left + side, top), "diagonal")
    same, changed = _sampled(points)
    for name, chosen in (("same", same), ("changed", changed)):
        group = ET.SubElement(drawing, "g", {"class": name})
        for before, after in chosen:
            x, y = left + _unit(before) * side, top + (1 - _unit(after)) * side
            svg.dot(group, (x, y), square=name == "changed")
    svg.text(drawing, (left + side / 2, top + side + 38), "FP32 confidence, %", anchor="middle")
    middle = top + side / 2
    svg.text(drawing, (12, middle), "variant's confidence, %", anchor="middle", turned=True)
    return svg.done(drawing)


def change_histogram(points: Sequence[tuple[float, float, bool]]) -> str:
    """Draw how far the confidence in the first answer moved, as stacked bars.

    The points are those of `confidence_scatter`. The axis is symmetric about no change and as wide
    as the largest change, rounded up to a multiple of 5 percentage points.
    """
    changes = [
        (_unit(after) - _unit(before), same)
        for before, after, same in points
        if math.isfinite(before) and math.isfinite(after)
    ]
    reach = max((abs(change) for change, _ in changes), default=0.0)
    reach = max(0.05, math.ceil(reach * 20 - 1e-9) / 20)
    bars = [[0, 0] for _ in range(_CHANGE_BINS)]
    for change, same in changes:
        place = int((change + reach) / (2 * reach) * _CHANGE_BINS)
        bars[min(place, _CHANGE_BINS - 1)][0 if same else 1] += 1
    highest = max(sum(bar) for bar in bars) or 1
    left, top, width, height = 46.0, 18.0, 270.0, 260.0
    drawing = svg.canvas(330, 326, "How far the confidence moved from FP32 to the variant")
    step = width / _CHANGE_BINS
    for index, (same_count, changed_count) in enumerate(bars):
        x, base = left + index * step, top + height
        for amount, name in ((same_count, "same"), (changed_count, "changed")):
            if amount:
                tall = height * amount / highest
                base -= tall
                svg.rect(drawing, (x + 0.75, base), (step - 1.5, tall), name)
    svg.line(drawing, (left, top + height), (left + width, top + height), "axis")
    svg.line(drawing, (left + width / 2, top), (left + width / 2, top + height), "diagonal")
    for share, anchor in ((-1.0, "start"), (0.0, "middle"), (1.0, "end")):
        x = left + (share + 1) / 2 * width
        label = "0" if share == 0 else f"{100 * share * reach:+.0f}".replace("-", "\N{MINUS SIGN}")
        svg.text(drawing, (x, top + height + 16), label, anchor=anchor)
    svg.text(drawing, (left - 7, top + 4), f"{highest:,}", anchor="end")
    svg.text(drawing, (left - 7, top + height + 4), "0", anchor="end")
    caption = "change of confidence, percentage points"
    svg.text(drawing, (left + width / 2, top + height + 38), caption, anchor="middle")
    return svg.done(drawing)


def agreement_bars(classes: Sequence[ClassAgreement]) -> str:
    """Draw a bar per class: the share of its images with the same answer as FP32."""
    bars = [
        _Bar(
            label=_shortened(item.label, 42),
            full=item.label,
            share=_unit(item.agreement),
            kind="same",
            note=f"{words.percent(_unit(item.agreement), 0)} of "
            f"{words.counted(item.images, 'image')}",
        )
        for item in classes
    ]
    return _bars("Agreement with FP32, a bar per class", bars, 200.0)


def sensitivity_bars(layers: Sequence[SearchedLayer]) -> str:
    """Draw a bar per layer, in order: what it alone costs in INT8, with its share of the work.

    Bars are relative to the longest; layers that were left in float have a class of their own,
    and a diamond before their name, so that they differ without colour. A cost that is not finite
    has no bar.
    """
    longest = max((_magnitude(layer.mean_kl) for layer in layers), default=0.0)
    bars = []
    for layer in layers:
        name, cost = " + ".join(layer.nodes), _magnitude(layer.mean_kl)
        marked = f"\N{BLACK DIAMOND} {_ending(name, 40)}"
        bars.append(
            _Bar(
                label=marked if layer.kept_float else _ending(name, 42),
                full=name,
                share=cost / longest if cost else 0.0,
                kind="changed" if layer.kept_float else "same",
                note=f"{words.divergence(layer.mean_kl)}, {words.percent(layer.macs)} of the work",
            )
        )
    return _bars("What each layer costs in INT8, a bar per layer", bars, 170.0)


class _Bar(NamedTuple):
    """A bar with its label (`full` where that is shortened), its share of the width, a note."""

    label: str
    full: str
    share: float
    kind: str
    note: str


def _bars(title: str, bars: Sequence[_Bar], width: float) -> str:
    # Each label stands above its bar: so the drawing fits a telephone without being made smaller.
    row = 38.0
    drawing = svg.canvas(350, max(1, len(bars)) * row, title)
    for index, bar in enumerate(bars):
        y = index * row
        svg.text(drawing, (0, y + 12), bar.label, full=bar.full)
        svg.rect(drawing, (0, y + 18), (width, 12), "track")
        if bar.share > 0:
            svg.rect(drawing, (0, y + 18), (width * bar.share, 12), bar.kind)
        svg.text(drawing, (width + 10, y + 28), bar.note)
    return svg.done(drawing)


def range_strip(item: TensorRange) -> str:
    """Draw one tensor's magnitudes as a small histogram, with its amax and its maximum.

    Bar heights are logarithmic, since a few large values would vanish beside many small ones.
    What lies beyond amax (and is clipped) has a class of its own.
    """
    width, height = 200.0, 32.0
    amax, maximum = _magnitude(item.amax), _magnitude(item.maximum)
    limit = _magnitude(item.histogram_limit)
    reach = max(amax, maximum, limit if any(item.histogram) else 0.0)
    summary = f"amax {words.number(item.amax)}, maximum {words.number(item.maximum)}"
    drawing = svg.canvas(width, height, summary)
    svg.line(drawing, (0, height - 3), (width, height - 3), "axis")
    if reach <= 0:
        return svg.done(drawing)
    # Shares of the width first: magnitudes may be so small or large that scaling them overflows.
    span = width - 2
    bin_width = limit / reach * span / max(1, len(item.histogram))
    amax_at, maximum_at = amax / reach * span, maximum / reach * span
    tallest = max((math.log1p(max(0, count)) for count in item.histogram), default=0.0)
    kept: list[str] = []
    clipped: list[str] = []
    base = height - 3
    for index, count in enumerate(item.histogram):
        if count <= 0:
            continue
        start, end = index * bin_width, (index + 1) * bin_width
        top = base - (height - 8) * math.log1p(count) / tallest
        bar = f"M{start:.1f} {base:g}V{top:.1f}H{end:.1f}V{base:g}Z"
        (kept if start < amax_at else clipped).append(bar)
    for name, bars in (("same", kept), ("changed", clipped)):
        if bars:
            ET.SubElement(drawing, "path", {"class": name, "d": "".join(bars)})
    svg.line(drawing, (amax_at + 1, 0), (amax_at + 1, height), "amax")
    svg.line(drawing, (maximum_at + 1, height - 10), (maximum_at + 1, height), "maximum")
    return svg.done(drawing)


def _sampled(
    points: Sequence[tuple[float, float, bool]],
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    same: list[tuple[float, float]] = []
    changed: list[tuple[float, float]] = []
    for before, after, agrees in points:
        if math.isfinite(before) and math.isfinite(after):
            (same if agrees else changed).append((before, after))
    changed = _evenly(changed, MAX_POINTS)
    return _evenly(same, MAX_POINTS - len(changed)), changed


def _evenly(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    if len(points) <= most:
        return points
    return [points[index * len(points) // most] for index in range(most)]


def _unit(value: float) -> float:
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0


def _magnitude(value: float) -> float:
    return abs(value) if math.isfinite(value) else 0.0


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _ending(text: str, most: int) -> str:
    # Names of layers have the same beginning and differ at the end.
    return text if len(text) <= most else "\N{HORIZONTAL ELLIPSIS}" + text[1 - most :]
