"""The grid that every prepared, generated and released volume of a study lies on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Shape3 = tuple[int, int, int]
Spacing = tuple[float, float, float]
Affine = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """A canonical (RAS+) voxel grid.

    Attributes:
        shape: Voxels along (X right, Y anterior, Z superior).
        spacing_mm: Voxel size along the same axes, each > 0.
    """

    shape: Shape3
    spacing_mm: Spacing

    def affine(self) -> Affine:
        """Voxel to world, shape (4, 4), millimetres, the grid's centre at the world origin.

        Deliberately the same for every volume: a scanner's offset and oblique matrix are
        quasi-identifiers (PRIVACY §5).
        """
        out = np.diag([*self.spacing_mm, 1.0])
        out[:3, 3] = [-(n - 1) / 2 * mm for n, mm in zip(self.shape, self.spacing_mm, strict=True)]
        return out
