"""One picture of label maps and volumes: a row a plane, a column a channel, real scans beside synthetic ones.

With a real scan in it a montage is a patient's picture: whoever draws one keeps it where the patient's scans are.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .atomic import write_atomic
from .cohorts.layouts import read_cohort
from .cohorts.preparation import prepare
from .study import Study
from .volumes.slices import PLANES, busiest_slice, cut

WINDOW = (-1.0, 1.0)
"""Black and white of every channel: one window for all, so that real and synthetic can be compared."""

_DPI = 100
_CELL, _PICTURE = 125, 120  # pixels: from one picture to the next, and a picture's longer side
_SIDE, _TOP, _BOTTOM = 75, 30, 40  # pixels, for captions


_DRAWING = threading.Lock()
"""A simulation's sites draw side by side, and matplotlib keeps caches that are not made for threads."""


@dataclass(frozen=True)
class Pictured:
    """One label map and what was painted from it.

    Attributes:
        caption: A word or two, beside its rows.
        classes: Class indices (X, Y, Z).
        synthetic: Shape (C, X, Y, Z), in [-1, 1].
        real: The scan that the label map was drawn on, as ``synthetic``; None where there is none to show.
        procedural: Whether ``real`` is a procedural patient's, for whom nobody was scanned.
    """

    caption: str
    classes: NDArray[np.uint8]
    synthetic: NDArray[np.float32]
    real: NDArray[np.float32] | None = None
    procedural: bool = False


def column_titles(study: Study, shown: Sequence[Pictured]) -> list[str]:
    """What stands above the columns; where scans of patients stand beside painted ones, both are called what they are.

    ``patient`` is said above scans of real and of procedural patients together.
    """
    kinds = {one.procedural for one in shown if one.real is not None}
    if not kinds:
        return ["label map", *study.channels]
    whose = "patient" if len(kinds) > 1 else "procedural" if True in kinds else "real"
    return ["label map", *(f"{name}, {kind}" for kind in ("synthetic", whose) for name in study.channels)]


def montage(study: Study, shown: Sequence[Pictured]) -> bytes:
    """A PNG of one or more volumes, each in three planes, cut where most structures show.

    Labels are shades of one scale, light where the class index is high, so that they differ in black and white too.
    """
    with _DRAWING:
        return _drawn(study, shown)


def _drawn(study: Study, shown: Sequence[Pictured]) -> bytes:
    # Here, so that only who draws waits for it; no pyplot, which keeps figures and is bound to one thread.
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    titles = column_titles(study, shown)
    width, height = _SIDE + _CELL * len(titles), _TOP + _CELL * len(PLANES) * len(shown) + _BOTTOM
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    paper = np.ones((height, width, 3))
    names = sorted(study.labels, key=lambda name: study.labels[name])
    shades = colormaps["viridis"](np.linspace(0, 1, len(names)))[:, :3]
    shades[0] = 0  # background
    outlined = [withStroke(linewidth=2, foreground="black")]  # seen on bright tissue too

    def write(x: float, y: float, text: str, size: float = 8, **options: Any) -> None:
        figure.text(x / width, 1 - y / height, text, fontsize=size, **options)

    for column, title in enumerate(titles):
        write(_SIDE + _CELL * (column + 0.5), _TOP - 8, title, ha="center")
    for number, one in enumerate(shown):
        for row, (plane, axis, letter) in enumerate(PLANES, start=number * len(PLANES)):
            at, top = busiest_slice(one.classes, axis), _TOP + _CELL * row
            across_mm, down_mm = (study.grid.spacing_mm[a] for a in range(3) if a != axis)
            volumes = [*one.synthetic, *(one.real if one.real is not None else ())]
            pictures = [shades[cut(one.classes, axis, at)], *(_grey(cut(volume, axis, at)) for volume in volumes)]
            for column, picture in enumerate(pictures):
                large = _enlarged(picture, down_mm, across_mm)
                down, across = large.shape[:2]
                y, x = top + (_CELL - down) // 2, _SIDE + _CELL * column + (_CELL - across) // 2
                paper[y : y + down, x : x + across] = large
                write(x + 4, top + _CELL / 2, letter, 7, color="white", va="center", path_effects=outlined)
            write(8, top + 0.42 * _CELL, one.caption if row == number * len(PLANES) else "", weight="bold")
            write(8, top + 0.54 * _CELL, plane)
            write(8, top + 0.66 * _CELL, f"{at + 1} of {one.classes.shape[axis]}", 6)
    for index, name in enumerate(names[1:], start=1):
        x = _SIDE + (index - 1) * (width - _SIDE) // (len(names) - 1)
        paper[height - 24 : height - 12, x : x + 12] = shades[index]
        write(x + 18, height - 13, name)
    figure.figimage(paper, origin="upper")
    out = BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _grey(plane: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intensities (rows, columns) in the one window, as equal red, green and blue."""
    low, high = WINDOW
    return np.repeat(((plane.astype(np.float64) - low) / (high - low)).clip(0, 1)[..., None], 3, axis=-1)


def _enlarged(picture: NDArray[np.float64], down_mm: float, across_mm: float) -> NDArray[np.float64]:
    """A picture (rows, columns, 3) in true proportions, its longer side :data:`_PICTURE` pixels, nothing smoothed."""
    sides = picture.shape[0] * down_mm, picture.shape[1] * across_mm
    down, across = (max(1, round(_PICTURE * side / max(sides))) for side in sides)
    rows, columns = np.arange(down) * picture.shape[0] // down, np.arange(across) * picture.shape[1] // across
    enlarged: NDArray[np.float64] = picture[rows][:, columns]
    return enlarged


def write_cohort_montage(file: Path, cohort: Path, study: Study, number: int = 2, *, private: bool = False) -> None:
    """Picture a synthetic cohort's first scans, as whoever reads its files gets them.

    Args:
        file: The picture; where ``private``, only its owner may read it.
        cohort: Painted scans.
        study: Theirs.
        number: Scans shown.
        private: Whether label maps of patients are in it.

    Raises:
        FedPhantomError: a scan cannot be read, or the file cannot be written.
    """
    whole = read_cohort(cohort)
    few = whole.only([patient.patient_id for patient in whole.patients[:number]])
    with tempfile.TemporaryDirectory(prefix="fedphantom-montage-") as scratch:
        scans = prepare(few, study.without_remapping(), Path(scratch))
        shown = [
            Pictured(f"scan {i + 1}", classes, volume)
            for i, (classes, volume) in enumerate(zip(scans.classes, scans.volumes, strict=True))
        ]
        write_atomic(file, montage(study, shown), mode=0o600 if private else 0o666)
