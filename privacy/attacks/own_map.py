"""A scan's error: how far what a generator paints from the scan's own label map is from the scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..statistics import Floats
from .interface import AuditedScans, Reconstruct, paint

_SMALLEST = 1e-12
"""Keeps the logarithm of a perfect reconstruction finite and ordered."""


def own_map_errors(
    generator: Reconstruct, scans: AuditedScans, judged: NDArray[np.bool_], draws: int, seed: int
) -> Floats:
    """Smallest mean squared error over noise draws, in judged voxels and all channels. Shape (N,)."""
    best = np.full(len(scans), np.inf)
    for draw in range(draws):
        i = 0
        for batch in paint(generator, scans.labels, seed + draw):
            for volume in batch:
                difference = (volume - scans.images[i])[:, judged[i]].astype(np.float64)
                best[i] = min(best[i], float(np.mean(difference**2)))
                i += 1
    return best


def log_errors(errors: Floats) -> Floats:
    """Of mean squared errors, on whose scale those of any two networks compare."""
    return np.asarray(np.log(np.maximum(errors, _SMALLEST)))
