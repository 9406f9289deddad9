"""The parts of an SVG drawing, as a tree: text is escaped and the result is well-formed.

Colours come from the page by class (``same``, ``changed``, ``axis``, ...), so that one drawing
serves light, dark and paper. There is no ``xmlns``: inside HTML none is needed.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from edge_fg_tools.report.words import xml_text


def canvas(width: float, height: float, summary: str) -> ET.Element:
    """Return an empty drawing of `width` x `height` pixels; `summary` is its title."""
    svg = ET.Element(
        "svg",
        {
            "viewBox": f"0 0 {width:g} {height:g}",
            "width": f"{width:g}",
            "height": f"{height:g}",
            "role": "img",
        },
    )
    ET.SubElement(svg, "title").text = xml_text(summary)
    return svg


def done(svg: ET.Element) -> str:
    """Return a drawing as text."""
    return ET.tostring(svg, encoding="unicode", short_empty_elements=False)


def line(
    parent: ET.Element, start: tuple[float, float], end: tuple[float, float], name: str
) -> None:
    """Draw a line between two points (x, y)."""
    ends = {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1]}
    attributes = {key: f"{value:.5g}" for key, value in ends.items()}
    ET.SubElement(parent, "line", {"class": name, **attributes})


def rect(
    parent: ET.Element, corner: tuple[float, float], size: tuple[float, float], name: str
) -> None:
    """Fill a rectangle from its upper left corner (x, y), of (width, height)."""
    sides = {"x": corner[0], "y": corner[1], "width": size[0], "height": size[1]}
    attributes = {key: f"{value:.5g}" for key, value in sides.items()}
    ET.SubElement(parent, "rect", {"class": name, **attributes})


def dot(parent: ET.Element, centre: tuple[float, float], *, square: bool) -> None:
    """Draw a disc, or a square on its corner: two shapes, so that they differ without colour."""
    x, y = centre
    if square:
        path = f"M{x:.1f} {y - 4.5:.1f}l4.5 4.5l-4.5 4.5l-4.5 -4.5z"
        ET.SubElement(parent, "path", {"d": path})
    else:
        ET.SubElement(parent, "circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "2.6"})


def text(
    parent: ET.Element,
    at: tuple[float, float],
    text: str,
    *,
    anchor: str = "start",
    turned: bool = False,
    full: str = "",
) -> None:
    """Write `text` at a point (x, y); `full` is shown when it is pointed at."""
    attributes = {"x": f"{at[0]:.5g}", "y": f"{at[1]:.5g}", "text-anchor": anchor}
    if turned:
        attributes["transform"] = f"rotate(-90 {at[0]:.5g} {at[1]:.5g})"
    element = ET.SubElement(parent, "text", attributes)
    element.text = xml_text(text)
    if full and full != text:
        ET.SubElement(element, "title").text = xml_text(full)
