"""Where a volume is cut to be looked at, and which way up."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

PLANES = (("axial", 2, "R"), ("coronal", 1, "R"), ("sagittal", 0, "A"))
"""Name, axis, and what lies at the picture's left edge: as radiologists hang films, the patient's right on the left."""

_Voxel = TypeVar("_Voxel", bound=np.generic)


def busiest_slice(labels: NDArray[np.uint8], axis: int) -> int:
    """The slice of labels (X, Y, Z) with most structures; of those, the one with most of the rarest, else of all."""
    moved = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
    values, counts = np.unique(moved[moved > 0], return_counts=True)
    if not len(values):
        return int(labels.shape[axis]) // 2
    kinds = np.stack([(moved == v).any(axis=1) for v in values]).sum(axis=0)
    rare = (moved == values[np.argmin(counts)]).sum(axis=1)
    order: NDArray[np.intp] = np.lexsort((-(moved > 0).sum(axis=1), -rare, -kinds))
    return int(order[0])


def cut(voxels: NDArray[_Voxel], axis: int, at: int) -> NDArray[_Voxel]:
    """One slice of (X, Y, Z) as (rows down, columns across): superior or anterior up, right or anterior at the left."""
    plane: NDArray[_Voxel] = np.moveaxis(voxels, axis, 0)[at].T[::-1, ::-1]
    return plane
