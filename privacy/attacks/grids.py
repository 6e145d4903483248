"""Volumes on a coarser grid: means of cubes of voxels, which bound the time and memory of a search over all of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.cohorts.disk_rows import let_go

_AT_ONCE = 8_000_000
"""Voxel values of the volumes shrunk at once: bounds memory, however many there are."""


def cube(shape: tuple[int, ...], most: int) -> int:
    """Edge of the cubes that leave at most so many voxels an axis."""
    return math.ceil(max(shape) / most)


def shrunk(x: NDArray[Any], most: int) -> NDArray[np.float32]:
    """Means of cubes of voxels, (N, C, X, Y, Z) to the same with at most so many voxels an axis."""
    edge = cube(x.shape[2:], most)
    if edge == 1:
        return x.astype(np.float32, copy=False)
    out = np.empty((*x.shape[:2], *(math.ceil(n / edge) for n in x.shape[2:])), np.float32)
    together = max(1, _AT_ONCE // max(1, math.prod(x.shape[1:])))
    for start in range(0, len(x), together):
        some = slice(start, start + together)
        out[some] = _means(x[some].astype(np.float32), edge)
        let_go(x)
    return out


def mostly(masks: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    """Cubes of which more than half lies in a mask, (N, X, Y, Z) to the same on the grid of :func:`shrunk`."""
    return np.concatenate([shrunk(mask[None, None], most)[0] > 0.5 for mask in masks])


def _means(out: NDArray[np.float32], edge: int) -> NDArray[np.float32]:
    for axis in (2, 3, 4):
        pad = [(0, 0)] * 5
        pad[axis] = (0, -out.shape[axis] % edge)
        out = np.pad(out, pad, mode="edge")
        out = out.reshape(*out.shape[:axis], -1, edge, *out.shape[axis + 1 :]).mean(axis=axis + 1)
    return out
