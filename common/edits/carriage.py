"""Carrying a body to another place: one affine map, resampled once."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from ..volumes.grid import Spacing

_ROUNDING = 1e-3
_SMOOTH_VOXELS = 0.7
"""A mask's surface is known to a voxel; smoothed, it can move by fractions of one."""


def centroid_mm(mask: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.float64]:
    """Mean place of a mask's voxels, shape (3,), millimetres from the grid's centre."""
    centre = (np.array(mask.shape) - 1) / 2
    return np.asarray((np.argwhere(mask).mean(axis=0) - centre) * spacing_mm, dtype=np.float64)


def carry(
    shells: NDArray[np.bool_],
    spacing_mm: Spacing,
    matrix: NDArray[np.float64],
    offset_mm: NDArray[np.float64],
    *,
    touched: bool = False,
) -> tuple[NDArray[np.bool_], tuple[int, ...]]:
    """Carry nested masks by p → ``matrix`` p + ``offset_mm``, in millimetres from the grid's centre.

    Where voxels fall onto voxels, as in a shift by whole ones, the image is exact. Elsewhere the voxels nearest to
    or deepest in the smoothed surface are taken, as many as the volume asks for; nested masks stay nested. Of an
    image whose box is larger than the grid, only what lies on the grid is looked at.

    Args:
        shells: Shape (n, X, Y, Z); the first holds all others.
        spacing_mm: Voxel size along (X, Y, Z).
        matrix: Shape (3, 3), invertible.
        offset_mm: Shape (3,).
        touched: Whether every voxel counts that is reached at all.

    Returns:
        The masks on the same grid, and how many voxels each would have on a grid without end.
    """
    out = np.zeros_like(shells)
    if not shells[0].any():
        return out, (0,) * len(shells)
    spacing, shape = np.asarray(spacing_mm), np.array(shells.shape[1:])
    centre = (shape - 1) / 2
    places = np.nonzero(shells[0])
    first = np.array([int(i.min()) - 1 for i in places])
    last = np.array([int(i.max()) + 1 for i in places])
    corners = (np.array(list(product(*zip(first, last, strict=True)))) - centre) * spacing
    reached = (corners @ matrix.T + offset_mm) / spacing + centre
    start, stop = np.floor(reached.min(axis=0)).astype(int), np.ceil(reached.max(axis=0)).astype(int) + 1
    clipped = bool(np.prod(stop - start, dtype=np.float64) > np.prod(shape))
    if clipped:  # far pieces, much enlarged: no more is looked at than the grid holds
        start, stop = np.clip(start, 0, shape), np.clip(stop, 0, shape)
    axes = np.meshgrid(*(np.arange(a, b) for a, b in zip(start, stop, strict=True)), indexing="ij")
    there = (np.stack(axes).reshape(3, -1).T - centre) * spacing
    here = ((there - offset_mm) @ np.linalg.inv(matrix).T) / spacing + centre - first

    low, high = np.maximum(first, 0), np.minimum(last + 1, shape)
    cut = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    pad = [(0, 0), *((int(a - f), int(e + 1 - b)) for a, f, e, b in zip(low, first, last, high, strict=True))]
    small = np.pad(shells[(slice(None), *cut)], pad)
    inside_low, inside_high = np.maximum(start, 0), np.minimum(stop, shape)
    if (inside_low >= inside_high).any():
        inside_high = inside_low
    target = tuple(slice(a, b) for a, b in zip(inside_low, inside_high, strict=True))
    source = tuple(slice(a - s, b - s) for a, b, s in zip(inside_low, inside_high, start, strict=True))
    growth = abs(float(np.linalg.det(matrix)))
    exact = bool((np.abs(here - here.round()) < _ROUNDING).all())
    intended = []
    for number, mask in enumerate(small):
        landing = int(mask.sum())
        if clipped:
            images = ((np.argwhere(mask) + first - centre) * spacing @ matrix.T + offset_mm) / spacing + centre
            landing = int(((images > -0.5) & (images < shape - 0.5)).all(axis=1).sum())
        if touched or exact:
            filled = map_coordinates(mask.astype(np.float32), here.T, order=1) > (_ROUNDING if touched else 0.5)
        else:
            inside, outside = (distance_transform_edt(side, sampling=spacing_mm) for side in (mask, ~mask))
            surface = gaussian_filter(inside - outside, _SMOOTH_VOXELS, mode="nearest")
            depth = map_coordinates(surface, here.T, order=1, cval=-1e3)
            volume = min(len(depth), round(landing * growth))
            filled = depth >= np.partition(depth, -volume)[-volume] if volume else np.zeros(len(depth), dtype=np.bool_)
        filled = filled.reshape(axes[0].shape)
        intended.append(int(filled.sum()) + round((int(mask.sum()) - landing) * growth))
        out[number][target] = filled[source]
        out[number] &= out[0]
    return out, tuple(intended)
