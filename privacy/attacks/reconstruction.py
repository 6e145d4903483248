"""A1: how well the generator paints a scan from the scan's own label map (Shafran et al. 2021, arXiv 2102.07762)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..statistics import Floats
from .interface import AttackScores, AuditedScans, Reconstruct, by_patient, paint

_SMALLEST = 1e-12
"""Keeps the logarithm of a perfect reconstruction finite and ordered."""


def reconstruction_errors(
    generator: Reconstruct, scans: AuditedScans, judged: NDArray[np.bool_], draws: int, seed: int
) -> Floats:
    """Smallest mean squared error over noise draws, in judged voxels and all channels. Shape (N,).

    Args:
        generator: Target or reference.
        scans: Their own label maps are the queries.
        judged: Shape (N, X, Y, Z).
        draws: Noise draws, 1 to 32.
        seed: The first draw's noise seed; the others follow.
    """
    best = np.full(len(scans), np.inf)
    weight = judged.sum(axis=(1, 2, 3)) * scans.images.shape[1]
    for draw in range(draws):
        painted = paint(generator, scans.labels, seed + draw)
        for i in range(len(scans)):
            difference = (painted[i] - scans.images[i])[:, judged[i]].astype(np.float64)
            best[i] = min(best[i], float((difference**2).sum() / weight[i]))
    return best


def reconstruction_scores(target_errors: Floats, reference_errors: Floats, scans: AuditedScans) -> AttackScores:
    """Calibrated A1: log e_ref - log e_target, large where the target alone paints the scan well.

    The reference generator never saw an audited patient: its error tells how hard the scan is.
    """
    score = np.log(np.maximum(reference_errors, _SMALLEST)) - np.log(np.maximum(target_errors, _SMALLEST))
    return by_patient("A1", scans, score)
