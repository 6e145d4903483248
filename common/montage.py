"""One picture of label maps and volumes: a row a plane, a column a channel, real scans beside synthetic ones.

With a real scan in it a montage is a patient's picture: whoever draws one keeps it where the patient's scans are.
"""

from __future__ import annotations

import tempfile
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

_CELL = 1.25  # inches
_DPI = 100
_SIDE, _TOP, _BOTTOM = 0.75, 0.3, 0.4  # inches, for captions


@dataclass(frozen=True)
class Pictured:
    """One label map and what was painted from it.

    Attributes:
        caption: A word or two, beside its rows.
        classes: Class indices (X, Y, Z).
        synthetic: Shape (C, X, Y, Z), in [-1, 1].
        real: The scan that the label map was drawn on, as ``synthetic``; None where there is none to show.
    """

    caption: str
    classes: NDArray[np.uint8]
    synthetic: NDArray[np.float32]
    real: NDArray[np.float32] | None = None


def montage(study: Study, shown: Sequence[Pictured]) -> bytes:
    """A PNG of one or more volumes, each in three planes, cut where most structures show.

    Labels are shades of one scale, light where the class index is high, so that they differ in black and white too.
    """
    # Here, so that only who draws waits for it; no pyplot, which keeps figures and is bound to one thread.
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    with_real = any(one.real is not None for one in shown)
    titles = ["label map", *study.channels, *([f"{name}, real" for name in study.channels] if with_real else [])]
    rows, columns = len(PLANES) * len(shown), len(titles)
    width, height = _SIDE + _CELL * columns, _TOP + _CELL * rows + _BOTTOM
    figure = Figure(figsize=(width, height), dpi=_DPI)
    shades = colormaps["viridis"](np.linspace(0, 1, len(study.labels)))
    shades[0] = (0, 0, 0, 1)  # background

    def place(row: int, column: int, picture: NDArray[np.floating], spacing: tuple[float, float], letter: str) -> None:
        down, across = picture.shape[0] * spacing[0], picture.shape[1] * spacing[1]
        scale = 0.96 * _CELL / max(down, across)
        box = (
            (_SIDE + _CELL * (column + 0.5) - across * scale / 2) / width,
            1 - (_TOP + _CELL * (row + 0.5) + down * scale / 2) / height,
            across * scale / width,
            down * scale / height,
        )
        axes = figure.add_axes(box)
        axes.set_axis_off()
        axes.imshow(picture, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], interpolation="nearest", aspect="auto")
        axes.text(0.03, 0.5, letter, color="white", fontsize=7, va="center", transform=axes.transAxes)

    def write(x: float, y: float, text: str, size: float = 8, **options: Any) -> None:
        figure.text(x / width, 1 - y / height, text, fontsize=size, **options)

    for column, title in enumerate(titles):
        write(_SIDE + _CELL * (column + 0.5), _TOP - 0.08, title, ha="center")
    for number, one in enumerate(shown):
        for row, (plane, axis, letter) in enumerate(PLANES, start=number * len(PLANES)):
            at = busiest_slice(one.classes, axis)
            across, down = (study.grid.spacing_mm[a] for a in range(3) if a != axis)
            volumes = [*one.synthetic, *(one.real if one.real is not None else ())]
            place(row, 0, shades[cut(one.classes, axis, at)], (down, across), letter)
            for column, volume in enumerate(volumes, start=1):
                place(row, column, cut(volume, axis, at), (down, across), letter)
            middle = _TOP + _CELL * (row + 0.5)
            write(0.08, middle - 0.1, one.caption if row == number * len(PLANES) else "", weight="bold")
            write(0.08, middle + 0.05, plane)
            write(0.08, middle + 0.2, f"{at + 1} of {one.classes.shape[axis]}", 6)
    names = sorted(study.labels, key=lambda name: study.labels[name])
    for index, name in enumerate(names[1:], start=1):
        x = _SIDE + (index - 1) * (width - _SIDE) / (len(names) - 1)
        box = Rectangle((x / width, 0.12 / height), 0.12 / width, 0.12 / height, facecolor=tuple(shades[index]))
        figure.add_artist(box)
        write(x + 0.18, height - 0.13, name)
    out = BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def write_cohort_montage(file: Path, cohort: Path, study: Study, number: int = 2) -> None:
    """Picture a synthetic cohort's first scans, as whoever reads its files gets them.

    Raises:
        FedPhantomError: a scan cannot be read, or the file cannot be written.
    """
    whole = read_cohort(cohort)
    few = whole.only([patient.patient_id for patient in whole.patients[:number]])
    with tempfile.TemporaryDirectory(prefix="fedphantom-montage-") as scratch:
        scans = prepare(few, study, Path(scratch))
        shown = [
            Pictured(f"scan {i + 1}", classes, volume)
            for i, (classes, volume) in enumerate(zip(scans.classes, scans.volumes, strict=True))
        ]
        write_atomic(file, montage(study, shown))
