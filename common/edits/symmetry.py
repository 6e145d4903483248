"""The plane between the hemispheres, found from the brain's outline.

The outline alone decides, because edits of lesions leave it as it is: the plane is the same before and after.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.optimize import minimize

from ..volumes.grid import Spacing

_STEP_MM = 6.0
_SMOOTH_MM = 4.0


@dataclass(frozen=True)
class MirrorPlane:
    """A plane near to x = constant.

    Attributes:
        yaw_deg: Turn of its normal about Z, away from X; whole degrees.
        roll_deg: Turn of its normal about Y, away from X; whole degrees.
        offset_mm: Distance from the grid's centre along the normal; for an upright plane such that voxels are
            reflected onto voxels.
    """

    yaw_deg: float
    roll_deg: float
    offset_mm: float

    def normal(self) -> NDArray[np.float64]:
        """Unit normal, shape (3,)."""
        yaw, roll = np.radians(self.yaw_deg), np.radians(self.roll_deg)
        return np.array([np.cos(yaw) * np.cos(roll), np.sin(yaw) * np.cos(roll), np.sin(roll)])

    def matrix(self) -> NDArray[np.float64]:
        """Reflection of directions, shape (3, 3)."""
        normal = self.normal()
        return np.eye(3) - 2 * np.outer(normal, normal)

    def reflect(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Reflect points, shape (n, 3), in millimetres from the grid's centre."""
        normal = self.normal()
        return points_mm - 2 * np.outer(points_mm @ normal - self.offset_mm, normal)


def fit_mirror_plane(brain: NDArray[np.bool_], spacing_mm: Spacing) -> MirrorPlane:
    """The plane in which the outline of a brain mirrors itself best.

    Args:
        brain: Shape (X, Y, Z), RAS+, not empty, turned by less than about 20°.
        spacing_mm: Voxel size along (X, Y, Z).
    """
    spacing = np.asarray(spacing_mm)
    centre = (np.array(brain.shape) - 1) / 2
    smooth = gaussian_filter(brain.astype(np.float32), _SMOOTH_MM / spacing, mode="constant")
    steps = [max(1, round(_STEP_MM / mm)) for mm in spacing_mm]
    grid = np.stack(np.meshgrid(*(np.arange(0, n, s) for n, s in zip(brain.shape, steps, strict=True)), indexing="ij"))
    points = (grid.reshape(3, -1).T - centre) * spacing
    values = map_coordinates(smooth, grid.reshape(3, -1), order=0)

    def mismatch(guess: NDArray[np.float64]) -> float:
        there = MirrorPlane(guess[0], guess[1], guess[2]).reflect(points) / spacing + centre
        return float(np.square(values - map_coordinates(smooth, there.T, order=1, mode="constant")).sum())

    middle = float(((np.argwhere(brain).mean(axis=0) - centre) * spacing)[0])
    simplex = np.array([[0, 0, middle], [6, 0, middle], [0, 6, middle], [0, 0, middle + 4]], dtype=np.float64)
    best = minimize(mismatch, simplex[0], method="Nelder-Mead", options={"initial_simplex": simplex, "maxiter": 120}).x
    # Rounded, so that two machines agree; a degree is a millimetre at the cortex, and an upright plane
    # reflects voxels onto voxels.
    yaw, roll = (0.0 if abs(angle) < 1.5 else float(np.round(angle)) for angle in best[:2])
    half_voxel = spacing_mm[0] / 2
    return MirrorPlane(yaw, roll, float(np.round(best[2] / half_voxel)) * half_voxel)
