"""The report's plots, drawn as SVG: text stays text, and the same figures give the same bytes.

Lines differ by dash and marker as well as by colour, so that a black-and-white print can be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .content import ReportRound, RocCurve
from .svg import MARKERS, STROKES, element, line, marker, number, path, picture, text

WIDTH = 480.0
"""Of every plot, in its own units: narrow enough that text stays readable on a telephone."""

_GRID = "#c8ced3"
_NAME = 60
"""Characters of a row's name that fit the width; the tables hold every name whole."""


@dataclass(frozen=True)
class Interval:
    """One row of an interval plot; without ``ci`` a bare point."""

    name: str
    value: float
    ci: tuple[float, float] | None


@dataclass(frozen=True)
class Reference:
    """A vertical line with its meaning."""

    value: float
    name: str
    dash: str


def interval_plot(rows: Sequence[Interval], references: Sequence[Reference], axis: str, alt: str) -> Markup:
    """Points with their 95 % intervals over one axis that holds every value and reference, within 0 to 1 or beyond."""
    values: list[float] = [v for row in rows for v in (row.value, *(row.ci or ()))] + [r.value for r in references]
    low, high = math.floor(10 * min(values)) / 10, math.ceil(10 * max(values)) / 10
    high = max(high, low + 0.2)
    left, right, top, row_height = 14.0, WIDTH - 14, 10 + 18 * len(references), 56
    bottom = top + row_height * len(rows)

    def x(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    parts, labels = [], []
    steps = round((high - low) * 10)
    every = 1 if steps <= 6 else 2
    for tick in range(0, steps + 1, every):
        value = low + tick / 10
        parts += [
            line(x(value), top, x(value), bottom, _GRID),
            text(x(value), bottom + 16, f"{value:.1f}", "middle", 12),
        ]
    for i, reference in enumerate(references):
        y = 14 + 18 * i
        parts.append(line(x(reference.value), y + 4, x(reference.value), bottom, "#000", 1.5, reference.dash))
        anchor = "end" if x(reference.value) > WIDTH / 2 else "start"
        labels.append(_on_white(x(reference.value), y, f"{reference.name} {reference.value:.2f}", anchor))
    parts += labels  # over all lines
    for i, row in enumerate(rows):
        y = top + row_height * i + 46
        colour, _ = STROKES[i % len(STROKES)]
        # On two lines: a name of any length never runs into its figure.
        parts.append(_on_white(left, y - 30, row.name if len(row.name) <= _NAME else f"{row.name[: _NAME - 1]}…"))
        label = f"{row.value:.2f}" if row.ci is None else f"{row.value:.2f}  ({row.ci[0]:.2f} to {row.ci[1]:.2f})"
        parts.append(_on_white(left, y - 13, label))
        if row.ci is not None:
            parts.append(line(x(row.ci[0]), y, x(row.ci[1]), y, colour, 2.5))
            parts += [line(x(end), y - 5, x(end), y + 5, colour, 2.5) for end in row.ci]
        parts.append(marker(x(row.value), y, MARKERS[i % len(MARKERS)], colour))
    parts.append(text(WIDTH / 2, bottom + 34, axis, "middle", 12))
    return picture(parts, WIDTH, bottom + 42, alt)


def roc_plot(curves: Sequence[RocCurve], alt: str) -> Markup:
    """ROC curves on two logarithmic axes, where an attack that is sure of a few patients shows (Carlini et al. 2022).

    Nothing flagged has no logarithm: it is drawn at the left and lower edge, below the smallest share that so
    few patients can show.
    """
    floor = 10.0 ** math.floor(math.log10(0.7 / max(max(c.n_member, c.n_holdout) for c in curves)))
    left, right, top, bottom = 52.0, WIDTH - 22, 12.0, 392.0

    def scale(share: float) -> float:
        return 1 - math.log10(max(share, floor)) / math.log10(floor)

    def x(share: float) -> float:
        return left + (right - left) * scale(share)

    def y(share: float) -> float:
        return bottom - (bottom - top) * scale(share)

    parts = []
    decades = round(-math.log10(floor))
    for decade in range(decades + 1):
        for factor in (1, 2, 5):
            share = factor * 10.0 ** (decade - decades)
            if share > 1:
                break
            name = "none" if share <= floor else f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"
            parts += [line(x(share), top, x(share), bottom, _GRID), line(left, y(share), right, y(share), _GRID)]
            parts += [text(x(share), bottom + 17, name, "middle", 12), text(left - 6, y(share) + 4, name, "end", 12)]
    parts.append(line(x(floor), y(floor), x(1), y(1), "#000", 1.2, "3 4"))
    for i, curve in enumerate(curves):
        (colour, dash), kind = STROKES[i % len(STROKES)], MARKERS[i % len(MARKERS)]
        corners = [(float(curve.fpr[0]), float(curve.tpr[0]))]
        for f, t in zip(curve.fpr[1:].tolist(), curve.tpr[1:].tolist(), strict=True):
            # Right before up: between two thresholds an attack reaches nothing better than the first.
            corners += [(f, corners[-1][1]), (f, t)]
        points = [(x(f), y(t)) for f, t in corners]
        parts.append(path(_without_repeats(points), colour, 2, dash))
        parts += [marker(*points[(len(points) - 1) * k // 4], kind, colour) for k in range(1, 4)]
    middle = (top + bottom) / 2
    parts.append(text((left + right) / 2, bottom + 36, "Strangers wrongly flagged (false positive rate)", "middle", 12))
    parts.append(
        element(
            "text",
            "Members rightly flagged (true positive rate)",
            x=12,
            y=number(middle),
            text_anchor="middle",
            font_size=12,
            transform=f"rotate(-90 12 {number(middle)})",
        )
    )
    for i, name in enumerate([*(c.name for c in curves), "chance"]):
        at = bottom + 60 + 21 * i
        if i < len(curves):
            (colour, dash), kind = STROKES[i % len(STROKES)], MARKERS[i % len(MARKERS)]
            parts += [line(left, at - 4, left + 44, at - 4, colour, 2, dash), marker(left + 22, at - 4, kind, colour)]
            members = curves[i].n_member
            name = f"{name}: {members} member{'s' if members > 1 else ''}, {curves[i].n_holdout} holdout"
        else:
            parts.append(line(left, at - 4, left + 44, at - 4, "#000", 1.2, "3 4"))
        parts.append(text(left + 54, at, name))
    return picture(parts, WIDTH, bottom + 66 + 21 * len(curves), alt)


def curve_plot(values: Sequence[tuple[int, float]], name: str, index: int, alt: str) -> Markup:
    """One metric over the rounds, as (round, value), under its name; ``index`` tells it from its neighbours."""
    rounds, heights = [r for r, _ in values], [v for _, v in values]
    low, high = min(heights), max(heights)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    left, right, top, bottom = 58.0, WIDTH - 18, 34.0, 170.0
    x = _linear(min(rounds), max(rounds), left, right)
    y = _linear(low, high, bottom - 6, top + 6)
    colour, dash = STROKES[index % len(STROKES)]
    digits = max(2, math.ceil(math.log10(10 / (high - low))))  # rounding moves no tick by a tenth of their distance
    parts = [text(14, 16, name), line(left, bottom, right, bottom), line(left, top, left, bottom)]
    for value in (low, (low + high) / 2, high):
        parts += [
            line(left, y(value), right, y(value), _GRID),
            text(left - 6, y(value) + 4, f"{value:.{digits}f}", "end", 12),
        ]
    for tick in _whole_ticks(min(rounds), max(rounds)):
        parts += [line(x(tick), bottom, x(tick), bottom + 4), text(x(tick), bottom + 17, str(tick), "middle", 12)]
    points = [(x(r), y(v)) for r, v in values]
    parts.append(path(points, colour, 2, dash))
    if len(points) <= 40:
        parts += [marker(px, py, MARKERS[index % len(MARKERS)], colour, 3.5) for px, py in points]
    parts.append(text((left + right) / 2, bottom + 36, "round", "middle", 12))
    return picture(parts, WIDTH, bottom + 44, alt)


def reply_plot(rounds: Sequence[ReportRound], alt: str) -> Markup:
    """Which sites took part in which round: a filled square, or a cross; a circle for all where it was given up."""
    sites = sorted({site for entry in rounds for site in (*entry.sites, *entry.left_out)})
    left, right, top, row_height = 14.0, WIDTH - 14, 6.0, 40
    width = (right - left) / len(rounds)
    size = min(7.0, width * 0.42)
    parts = []
    for i, site in enumerate(sites):
        y = top + row_height * i
        parts.append(text(left, y + 12, site))
        for k, entry in enumerate(rounds):
            shape, colour = ("square", "#0072b2") if site in entry.sites else ("cross", "#000")
            if entry.given_up:
                shape, colour = "circle", "#767676"
            parts.append(
                marker(
                    left + (k + 0.5) * width,
                    y + 26,
                    shape,
                    colour,
                    size,
                )
            )
    bottom = top + row_height * len(sites)
    first = rounds[0].round
    for tick in _whole_ticks(first, rounds[-1].round):
        parts.append(text(left + (tick - first + 0.5) * width, bottom + 14, str(tick), "middle", 12))
    parts.append(text(WIDTH / 2, bottom + 32, "round", "middle", 12))
    return picture(parts, WIDTH, bottom + 40, alt)


def _on_white(x: float, y: float, content: str, anchor: str = "start") -> Markup:
    return element(
        "text",
        content,
        x=number(x),
        y=number(y),
        text_anchor=anchor,
        font_size=13,
        stroke="#fff",
        stroke_width=4,
        paint_order="stroke",
    )


def _linear(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = high - low
    return lambda value: (start + end) / 2 if span == 0 else start + (end - start) * (value - low) / span


def _whole_ticks(first: int, last: int) -> list[int]:
    step = max(1, math.ceil((last - first + 1) / 10))
    return list(range(first, last + 1, step))


def _without_repeats(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [point for i, point in enumerate(points) if i == 0 or point != points[i - 1]]
