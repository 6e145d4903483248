"""How far each voxel lies from a mask's surface, also where voxels are longer along one axis than along another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from ..volumes.grid import Spacing
from .body import box_around

_FINE = 2
"""Voxels of the finer grid along the shortest side of a voxel."""


def distance_to_surface(mask: NDArray[np.bool_], spacing_mm: Spacing, within_mm: float) -> NDArray[np.float32]:
    """Signed distance of voxels' centres from a mask's surface, shape (X, Y, Z), in millimetres: negative inside.

    A mask says of a voxel only whether it belongs to the body, so that its surface lies somewhere between two centres.
    Where it lies is read from the distances to the nearest centre on either side, interpolated onto a grid of cubes
    half as wide as the voxel's shortest side (shape-based interpolation: Raya & Udupa 1990,
    doi 10.1109/42.52980); distances are then those on the fine grid. A ball of 15 mm grown by 3 to 6 mm has the volume
    of the larger one within 5 % at 1 × 1 × 1, 1 × 1 × 3, 1 × 1 × 5 and 2 × 2 × 4 mm.

    Args:
        mask: Shape (X, Y, Z), any number of voxels. Beyond the grid there is no body.
        spacing_mm: Voxel size along (X, Y, Z).
        within_mm: Farther outside than this, the distance is infinite.
    """
    out = np.full(mask.shape, np.inf, np.float32)
    box = box_around(mask, within_mm, spacing_mm)
    small = np.pad(mask[box], 1)
    if not small.any():
        return out
    fine = [_FINE * max(1, round(mm / min(spacing_mm))) for mm in spacing_mm]
    level = distance_transform_edt(~small, sampling=spacing_mm) - distance_transform_edt(small, sampling=spacing_mm)
    level = level.astype(np.float32)
    for axis, parts in enumerate(fine):
        level = _refined(level, axis, parts)
    inside, cubes = level < 0, [mm / parts for mm, parts in zip(spacing_mm, fine, strict=True)]
    distance = distance_transform_edt(~inside, sampling=cubes) - distance_transform_edt(inside, sampling=cubes)
    for axis, parts in enumerate(fine):
        # An even number of cubes to a voxel: its centre lies between two.
        centres = np.arange(small.shape[axis]) * parts + parts // 2
        distance = (distance.take(centres, axis) + distance.take(centres - 1, axis)) / 2
    out[box] = distance[1:-1, 1:-1, 1:-1]
    return out


def _refined(values: NDArray[np.float32], axis: int, parts: int) -> NDArray[np.float32]:
    """Values at the centres of so many equal parts of each voxel along an axis, linear between voxels' centres."""
    length = values.shape[axis]
    places = (np.arange(length * parts) + 0.5) / parts - 0.5
    low = np.clip(np.floor(places).astype(int), 0, max(0, length - 2))
    share = np.expand_dims(np.clip(places - low, 0, 1).astype(np.float32), tuple(range(1, values.ndim - axis)))
    out: NDArray[np.float32] = values.take(low, axis) * (1 - share)
    out += values.take(np.minimum(low + 1, length - 1), axis) * share
    return out
