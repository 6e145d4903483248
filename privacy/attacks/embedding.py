"""Volumes as a few numbers: principal components of the foreground on a coarse grid.

Fitted on what the audit's reference alone has, its scans and its generator's set, and on no audited scan: were it
fitted on the released set, its axes could lean towards members, and a control that leaks nothing would seem to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..statistics import Floats
from .grids import shrunk
from .interface import Images

MOST_AXES = 10
"""In more dimensions no density can be told from a few hundred volumes (PRIVACY §3.2, A5)."""
_MOST = 24
"""Voxels an axis at most: they bound memory."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """A linear map of coarse volumes to points; over what it was fitted on, each coordinate has a variance of 1.

    Attributes:
        inside: Voxels of the coarse grid that count, shape (x, y, z).
        mean: Shape (F,), F voxels times channels.
        axes: Shape (K, F).
    """

    inside: NDArray[np.bool_]
    mean: NDArray[np.float32]
    axes: NDArray[np.float32]

    @classmethod
    def fit(cls, scans: Images, judged: NDArray[np.bool_], painted: Images) -> Embedding:
        """Principal components of a reference.

        Args:
            scans: Reference patients' scans, coarse, shape (R, C, x, y, z). They span R - 1 dimensions: no density of
                them can be told in more.
            judged: Voxels judged in each, shape (R, X, Y, Z).
            painted: Its generator's set, coarse, shape (S, C, x, y, z).
        """
        inside = shrunk(judged[:, None], _MOST)[:, 0].mean(axis=0) > 0.5
        inside = inside if inside.any() else np.ones_like(inside)
        rows = np.concatenate([_rows(scans, inside), _rows(painted, inside)])
        mean = rows.mean(axis=0)
        rows -= mean
        # Far more voxels than volumes: the small square matrix has the same spectrum.
        spectrum, directions = np.linalg.eigh((rows @ rows.T).astype(np.float64) / len(rows))
        kept = np.argsort(spectrum)[::-1][: max(1, min(MOST_AXES, len(scans) - 1))]
        kept = kept[spectrum[kept] > 1e-9 * max(spectrum.max(), 1e-12)]
        axes = directions[:, kept].T @ rows / (spectrum[kept, None] * np.sqrt(len(rows)))
        return cls(inside, mean, axes.astype(np.float32))

    def points(self, coarse: Images) -> Floats:
        """Coarse volumes (n, C, x, y, z) as points, shape (n, K)."""
        return ((_rows(coarse, self.inside) - self.mean) @ self.axes.T).astype(np.float64)


def coarse(images: Images) -> Images:
    """Volumes (n, C, X, Y, Z) on the grid that points are read from."""
    return shrunk(images, _MOST)


def _rows(volumes: Images, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    return volumes[:, :, inside].reshape(len(volumes), volumes.shape[1] * int(inside.sum()))
