"""Slices of volumes in three planes, with label contours, as SVG around one PNG a slice.

One pixel a voxel: the picture holds what the volume holds, and a reader's browser enlarges it.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from contourpy import contour_generator
from markupsafe import Markup
from numpy.typing import NDArray

from ...common.study import Study
from ...common.volumes.slices import PLANES, busiest_slice, cut
from .content import SyntheticSample
from .people import one_patient
from .svg import STROKES, element, number, picture

SHOWN = 3
"""Volumes on the page: enough to look at, small enough to send by mail."""

_CONTOUR = ("#56b4e9", "#f0e442", "#ff9d5c", "#7de0b4", "#ffffff", "#e79fd0", "#c5ced6")
"""Light, for lines on a dark scan; in the order of the dashes."""

_ContourPoints = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One picture and its caption."""

    caption: str
    svg: Markup


@dataclass(frozen=True)
class Plane:
    """One cut.

    Attributes:
        name: Plane and slice.
        plain: Every channel of the synthetic volume, then its label map.
        outlined: Every channel with the label map's contours.
        nearest: Every channel of the scan beside it; empty where none is shown.
    """

    name: str
    plain: tuple[Cell, ...]
    outlined: tuple[Cell, ...]
    nearest: tuple[Cell, ...]


@dataclass(frozen=True)
class Shown:
    """One volume in three planes.

    Attributes:
        number: 1-based.
        planes: Axial, coronal, sagittal.
        procedural: Whether no person was scanned for the scan beside it.
        accused: Whether the audit found it a copy of that scan.
        beside: What that scan is to it, in words.
    """

    number: int
    planes: tuple[Plane, ...]
    procedural: bool
    accused: bool
    beside: str


def show_volumes(study: Study, sample: SyntheticSample) -> tuple[Shown, ...]:
    """The volumes, cut where most structures show."""
    return tuple(
        Shown(
            sample.number(i),
            tuple(_planes(i, study, sample)),
            sample.nearest_is_procedural(i),
            sample.is_accused(i),
            sample.beside(i),
        )
        for i in range(min(SHOWN, len(sample.volumes)))
    )


def legend(study: Study) -> list[tuple[str, Markup]]:
    """Label name and a sample of its contour, for every label but the background."""
    return [
        (name, picture([*_contour_line("M2 8L58 8", value, study, 3.5)], 60, 16, f"line of {name}"))
        for name, value in _foreground(study).items()
    ]


def _planes(position: int, study: Study, sample: SyntheticSample) -> Iterator[Plane]:
    volume, labels = sample.volumes[position], sample.labels[position]
    beside = None if sample.nearest is None else sample.nearest[position]
    patient, index = one_patient(sample.nearest_is_procedural(position)), sample.number(position)
    structures = _foreground(study)
    for name, axis, letter in PLANES:
        at = busiest_slice(labels, axis)
        mm_across, mm_down = (study.grid.spacing_mm[a] for a in range(3) if a != axis)
        section = cut(labels, axis, at)
        height, width = section.shape[0] * mm_down, section.shape[1] * mm_across
        unit = max(width, height) / 100  # contours as thick on every grid
        key = f"contour-{index}-{name}"
        where = f"{name} slice {at + 1} of {labels.shape[axis]}"

        paths = {v: _outline(section == v, mm_across, mm_down) for v in structures.values() if (section == v).any()}
        filled = [
            element("path", d=d, fill=_colour(v, study), fill_opacity=0.45, fill_rule="evenodd")
            for v, d in paths.items()
        ]
        lines = element("g", *(part for v, d in paths.items() for part in _contour_line(d, v, study, unit)), id=key)
        present = ", ".join(n for n, v in structures.items() if v in paths) or "none"
        side = _letter(letter, width, height)
        ground = element("rect", width=number(width), height=number(height), fill="#fff")
        whose = f"of synthetic volume {index}, {where}"
        alt = f"Label map {whose}; structures: {present}"
        label_map = Cell("label map", picture([ground, *filled, lines], width, height, alt))
        plain, outlined = [], []
        for c, channel in enumerate(study.channels):
            image_id = f"slice-{index}-{name}-{c}"
            shade = element("g", image(cut(greys(volume[c]), axis, at), width, height), id=image_id)
            plain.append(Cell(channel, picture([shade, side], width, height, f"{channel} {whose}")))
            both = [element("use", href=f"#{image_id}"), element("use", href=f"#{key}")]
            alt = f"{channel} {whose}, with the label map's contours"
            outlined.append(Cell(f"{channel}, outlined", picture(both, width, height, alt)))
        neighbours = []
        if beside is not None:
            for c, channel in enumerate(study.channels):
                alt = f"{channel} of a {patient} beside synthetic volume {index}, {sample.beside(position)}; {where}"
                parts = [image(cut(greys(beside[c]), axis, at), width, height), side]
                neighbours.append(Cell(f"{channel}, {patient}", picture(parts, width, height, alt)))
        yield Plane(where, (*plain, label_map), tuple(outlined), tuple(neighbours))


def greys(channel: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A channel (X, Y, Z) as shown: black and white at its own percentiles, so that slices compare."""
    low, high = np.percentile(channel, (0.5, 99.5))
    span = max(float(high - low), 1e-6)
    shown: NDArray[np.uint8] = (255 * ((channel.astype(np.float64) - low) / span).clip(0, 1)).round().astype(np.uint8)
    return shown


def image(grey: NDArray[np.uint8], width: float, height: float) -> Markup:
    """A picture (rows, columns) as one PNG, stretched to millimetres."""
    href = "data:image/png;base64," + base64.b64encode(_png(grey)).decode()
    return element("image", href=href, width=number(width), height=number(height), preserveAspectRatio="none")


def _letter(letter: str, width: float, height: float) -> Markup:
    size = max(width, height) / 13
    return element(
        "text",
        letter,
        x=number(size * 0.3),
        y=number(height / 2),
        font_size=number(size),
        fill="#fff",
        stroke="#000",
        stroke_width=number(size / 6),
        paint_order="stroke",
    )


def _png(grey: NDArray[np.uint8]) -> bytes:
    """An 8-bit greyscale PNG without metadata (W3C PNG, third edition)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    header = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def _outline(mask: NDArray[np.bool_], mm_across: float, mm_down: float) -> str:
    """The boundary of a mask (rows, columns) as SVG path data in millimetres."""
    padded = np.pad(mask.astype(np.float64), 1)
    out = []
    for points in contour_generator(z=padded).lines(0.5):
        kept = _corners(np.asarray(points, dtype=np.float64))
        xy = [f"{number((px - 0.5) * mm_across)} {number((py - 0.5) * mm_down)}" for px, py in kept]
        out.append("M" + "L".join(xy) + "Z")
    return "".join(out)


def _corners(points: _ContourPoints) -> _ContourPoints:
    """Without the points in the middle of a straight run."""
    step = np.diff(points, axis=0)
    turn = np.ones(len(points), dtype=bool)
    turn[1:-1] = np.abs(step[:-1, 0] * step[1:, 1] - step[:-1, 1] * step[1:, 0]) > 1e-9
    return points[turn]


def _contour_line(d: str, value: int, study: Study, unit: float) -> Iterator[Markup]:
    """Dashes over a dark line: seen on black and on white, and told apart without colour."""
    rank = list(_foreground(study).values()).index(value)
    dash = STROKES[rank % len(STROKES)][1]
    dashes = " ".join(number(float(n) * unit * 0.8) for n in dash.split()) or None
    yield element("path", d=d, fill="none", stroke="#000", stroke_width=number(1.1 * unit))
    yield element(
        "path", d=d, fill="none", stroke=_colour(value, study), stroke_width=number(0.8 * unit), stroke_dasharray=dashes
    )


def _colour(value: int, study: Study) -> str:
    rank = list(_foreground(study).values()).index(value)
    return _CONTOUR[rank % len(_CONTOUR)]


def _foreground(study: Study) -> Mapping[str, int]:
    return {name: value for name, value in sorted(study.labels.items(), key=lambda item: item[1]) if value}
