"""Slices of one series put in order by their positions, and the affine that places them.

Source: DICOM PS3.3, C.7.6.2.1.1 (image plane); patient coordinates are LPS there and RAS here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..volumes.grid import Affine
from .reasons import Faulty

Vector = tuple[float, float, float]

SPACING_TOLERANCE = 0.01
"""Of the slice distance: how far a slice may lie from its place in an evenly spaced stack."""
SPACING_TOLERANCE_MM = 0.02
"""At least so much is allowed: headers round positions."""
DIRECTION_TOLERANCE = 1e-3
"""Of direction cosines between slices, and of the angle (radians) between rows and columns off 90°."""
SKEW_TOLERANCE = 0.0087
"""Tangent of the angle between the stack and its normal, 0.5°."""
_DOUBLED = 0.1
"""Of the usual distance: slices nearer to each other than this are at one place."""
_MISSING = 1.5
"""Of the usual distance, or of the one that the header declares: more is a gap."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One frame's geometry and scale.

    Attributes:
        path: The file; it may name a patient.
        frame: Index among a multi-frame file's frames, None in a file of one.
        rows: Number of rows.
        columns: Number of columns.
        position: Centre of the first pixel, LPS, mm.
        along_row: Unit vector from one column to the next, LPS.
        along_column: Unit vector from one row to the next, LPS.
        between_rows: Distance of their centres in mm.
        between_columns: Likewise.
        declared_mm: Distance of slices as the header declares it, where it does.
        slope: Stored value to intensity.
        intercept: Likewise.
    """

    path: Path = field(repr=False)
    frame: int | None
    rows: int
    columns: int
    position: Vector
    along_row: Vector
    along_column: Vector
    between_rows: float
    between_columns: float
    declared_mm: float | None
    slope: float
    intercept: float


@dataclass(frozen=True, eq=False)
class Stack:
    """A volume without its voxels.

    Attributes:
        slices: Along the normal (row direction times column direction).
        affine: From (column, row, slice) to the world, shape (4, 4), RAS+, millimetres.
    """

    slices: tuple[Slice, ...]
    affine: Affine


def stack(slices: Sequence[Slice]) -> Stack:
    """Put slices in order by position; names and numbers of files play no part.

    Raises:
        Faulty: no regular stack; the code says why.
    """
    if len(slices) < 2:
        raise Faulty("single-slice")
    first = slices[0]
    right, down = np.array(first.along_row), np.array(first.along_column)
    sizes = (first.between_columns, first.between_rows)
    unit = max(abs(float(np.linalg.norm(axis)) - 1) for axis in (right, down))
    if unit > DIRECTION_TOLERANCE or abs(right @ down) > DIRECTION_TOLERANCE or not all(0 < mm < 50 for mm in sizes):
        raise Faulty("no-geometry")
    if not all(_alike(first, other) for other in slices):
        raise Faulty("mixed-images")
    normal = np.cross(right, down)
    positions = np.array([one.position for one in slices])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    if usual < SPACING_TOLERANCE_MM or gaps.min() < _DOUBLED * usual:
        raise Faulty("doubled-slice")
    if gaps.max() > _MISSING * usual or (first.declared_mm and usual > _MISSING * abs(first.declared_mm)):
        raise Faulty("missing-slice")
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    off = positions - positions[0] - np.arange(len(slices))[:, None] * step
    if np.linalg.norm(off, axis=1).max() > max(SPACING_TOLERANCE * usual, SPACING_TOLERANCE_MM):
        raise Faulty("unequal-spacing")
    along = float(step @ normal)
    if np.linalg.norm(step - along * normal) > SKEW_TOLERANCE * along:
        raise Faulty("skewed")
    affine = np.eye(4)
    affine[:3] = np.column_stack([right * sizes[0], down * sizes[1], step, positions[0]])
    affine[:2] *= -1  # left, posterior to right, anterior
    return Stack(tuple(slices[i] for i in order), affine)


def _alike(one: Slice, other: Slice) -> bool:
    """Whether two slices share matrix, pixel size and orientation."""
    directions = np.subtract(one.along_row + one.along_column, other.along_row + other.along_column)
    sizes = (one.between_rows / other.between_rows, one.between_columns / other.between_columns)
    return (
        (one.rows, one.columns) == (other.rows, other.columns)
        and float(np.abs(directions).max()) <= DIRECTION_TOLERANCE
        and all(abs(ratio - 1) <= DIRECTION_TOLERANCE for ratio in sizes)
    )
