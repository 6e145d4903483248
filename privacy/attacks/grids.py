"""Volumes on a coarser grid: means of cubes of voxels, which bound the time and memory of a search over all of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def cube(shape: tuple[int, ...], most: int) -> int:
    """Edge of the cubes that leave at most so many voxels an axis."""
    return math.ceil(max(shape) / most)


def shrunk(x: NDArray[Any], most: int) -> NDArray[np.float32]:
    """Means of cubes of voxels, (N, C, X, Y, Z) to the same with at most so many voxels an axis."""
    out = x.astype(np.float32, copy=False)
    edge = cube(x.shape[2:], most)
    for axis in (2, 3, 4) if edge > 1 else ():
        pad = [(0, 0)] * 5
        pad[axis] = (0, -out.shape[axis] % edge)
        out = np.pad(out, pad, mode="edge")
        out = out.reshape(*out.shape[:axis], -1, edge, *out.shape[axis + 1 :]).mean(axis=axis + 1)
    return out
