"""Scans that are known already: another's, exported a second time, and so the same but for rounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...common.cohorts.disk_rows import Rows, let_go
from ..statistics import Floats
from .copies import SAME_ERROR
from .grids import shrunk

_COARSE = 8
"""Voxels an axis of the grid on which all are compared with all."""
_SLACK = 10
"""Times as much may differ there: cubes cut off at the grid's edge count for more than their voxels."""


def known_scans(scans: Rows[np.float32], known: Rows[np.float32]) -> NDArray[np.bool_]:
    """Whether each of some scans is one of those known, but for :data:`.copies.SAME_ERROR`; shape (N,).

    All are compared on a coarse grid; read whole are only pairs that are alike there, as two people hardly are.

    Args:
        scans: Volumes, (N, C, X, Y, Z).
        known: Others on the same grid.
    """
    if not len(scans) or not len(known):
        return np.zeros(len(scans), dtype=bool)
    (ours, spread), (theirs, _) = _coarse(scans), _coarse(known)
    return np.array([_is_known(i, scans, known, ours[i], theirs, SAME_ERROR * spread[i]) for i in range(len(scans))])


def _is_known(
    i: int, scans: Rows[np.float32], known: Rows[np.float32], coarse: Floats, theirs: Floats, most: float
) -> bool:
    alike = np.flatnonzero(((theirs - coarse) ** 2).mean(axis=1) <= _SLACK * most)
    return any(float(((known[int(j)].astype(np.float64) - scans[i]) ** 2).mean()) <= most for j in alike)


def _coarse(volumes: Rows[np.float32]) -> tuple[Floats, Floats]:
    """Each volume on the coarse grid, shape (N, F), and its variance, shape (N,)."""
    rows, spread = [], []
    for i in range(len(volumes)):
        volume = np.asarray(volumes[i])
        rows.append(shrunk(volume[None], _COARSE).ravel().astype(np.float64))
        spread.append(float(volume.var(dtype=np.float64)))
        let_go(volume)
    return np.stack(rows), np.array(spread)
