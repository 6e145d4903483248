"""A7: how like a scan the likest released volume is, wherever it lies in it and mirrored or not (Dar et al. 2025).

The correlations are those by which the search for copies picks whom to register (``moved_copies``): on a coarse grid,
of what varies from place to place, at every shift and of the mirror image too. So it costs nothing beside that search,
which is made of the released set alone: no reference's set calibrates it, and no negative control is asked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .interface import AttackScores, AuditedScans, by_patient

COPY_DETECTION = "A7"


def copy_detection(scans: AuditedScans, likeness: NDArray[np.float32]) -> AttackScores:
    """The attack on the audited scans.

    Args:
        scans: Members and holdout.
        likeness: Of each to each released volume, shape (N, S), of
            :func:`~fedphantom.privacy.attacks.moved_copies.search_moved`.
    """
    return by_patient(COPY_DETECTION, scans, likeness.max(axis=1).astype(np.float64))
