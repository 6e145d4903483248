"""A1: how well the generator paints a scan from the scan's own label map (Shafran et al. 2021, arXiv 2102.07762).

Calibrated: log e_ref - log e_target, large where the target alone paints the scan well. The reference never saw an
audited patient: its error tells how hard the scan is.
"""

from __future__ import annotations

import numpy as np

from ..statistics import Floats
from .interface import AttackScores, Reconstruct, by_patient, paint
from .knowledge import Knowledge
from .target import Attack, Target

_ID = "A1"
_SMALLEST = 1e-12
"""Keeps the logarithm of a perfect reconstruction finite and ordered."""


def calibrate(known: Knowledge, reference: Target) -> dict[str, Attack]:
    """The attack on any generator."""
    hardness = log_errors(reconstruction_errors(reference.networks.generator, known))

    def scores(target: Target) -> AttackScores:
        errors = reconstruction_errors(target.networks.generator, known)
        return by_patient(_ID, known.scans, hardness - log_errors(errors))

    return {_ID: scores}


def reconstruction_errors(generator: Reconstruct, known: Knowledge) -> Floats:
    """Smallest mean squared error over noise draws, in judged voxels and all channels. Shape (N,)."""
    scans, judged = known.scans, known.judged
    best = np.full(len(scans), np.inf)
    for draw in range(known.draws):
        i = 0
        for batch in paint(generator, scans.labels, known.seed + draw):
            for volume in batch:
                difference = (volume - scans.images[i])[:, judged[i]].astype(np.float64)
                best[i] = min(best[i], float(np.mean(difference**2)))
                i += 1
    return best


def log_errors(errors: Floats) -> Floats:
    """Of mean squared errors, on whose scale those of any two networks compare."""
    return np.asarray(np.log(np.maximum(errors, _SMALLEST)))
