"""SVG elements as escaped markup: text and attributes can hold anything and stay text."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

STROKES = (
    ("#0072b2", ""),
    ("#d55e00", "7 3"),
    ("#009e73", "2 3"),
    ("#a0387f", "9 3 2 3"),
    ("#000000", "4 2"),
    ("#7a5c00", "12 4"),
    ("#56646e", "1 4"),
    ("#b3261e", "6 2 1 2 1 2"),
    ("#4b3fa0", "14 3 2 3"),
    ("#007d8a", "3 2 8 2"),
    ("#8a4b00", "10 6"),
    ("#444444", "5 5 1 5"),
    ("#c2185b", "1 7"),
    ("#00695c", "16 4 1 4"),
)
"""Colour and dash of the k-th line, no two alike: as many as one picture of an audit's curves holds.

Colours of the first seven stay apart for the colour-blind (Okabe & Ito 2008); dashes of all do in black and white.
"""

MARKERS = ("circle", "square", "triangle", "diamond", "cross")


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """``<tag attributes>children</tag>``: in names ``_`` is ``-``, a final one is dropped; None is left out."""
    written = Markup().join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), value)
        for name, value in attributes.items()
        if value is not None
    )
    body = Markup().join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), written, body)  # noqa: S704 - tags are literals of this package


def picture(children: Iterable[str], width: float, height: float, alt: str) -> Markup:
    """A whole ``<svg>`` that scales with the page, described for those who do not see it."""
    return element(
        "svg", *children, viewBox=f"0 0 {number(width)} {number(height)}", role="img", aria_label=alt, focusable="false"
    )


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = "#000", width: float = 1, dash: str = "") -> Markup:
    """A straight line."""
    return path([(x1, y1), (x2, y2)], stroke, width, dash)


def path(points: Iterable[tuple[float, float]], stroke: str, width: float = 2, dash: str = "") -> Markup:
    """An open polyline."""
    d = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return element("path", d=d, fill="none", stroke=stroke, stroke_width=width, stroke_dasharray=dash or None)


def text(x: float, y: float, content: str, anchor: str = "start", size: float = 13, bold: bool = False) -> Markup:
    """A line of text, its baseline at y."""
    return element(
        "text",
        content,
        x=number(x),
        y=number(y),
        text_anchor=anchor,
        font_size=number(size),
        font_weight="bold" if bold else None,
    )


def marker(x: float, y: float, kind: str, colour: str, size: float = 4.5) -> Markup:
    """One of :data:`MARKERS`."""
    if kind == "circle":
        return element("circle", cx=number(x), cy=number(y), r=number(size), fill=colour)
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0, -1.2), (1.1, 0.9), (-1.1, 0.9)],
        "diamond": [(0, -1.3), (1.2, 0), (0, 1.3), (-1.2, 0)],
    }
    if kind in corners:
        d = "M" + "L".join(f"{number(x + size * dx)} {number(y + size * dy)}" for dx, dy in corners[kind]) + "Z"
        return element("path", d=d, fill=colour)
    arms = f"M{number(x - size)} {number(y - size)}l{number(2 * size)} {number(2 * size)}" + (
        f"M{number(x - size)} {number(y + size)}l{number(2 * size)} {number(-2 * size)}"
    )
    return element("path", d=arms, fill="none", stroke=colour, stroke_width=2.5)


def number(value: float) -> str:
    """At most two decimals, no negative zero."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")
