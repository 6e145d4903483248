"""A3: how near a set comes to a scan (Chen et al. 2020, arXiv 1909.03935, full black box).

Calibrated: the reference's set comes from the same label maps, so that a scan near the middle of the population, near
to any set, does not look like a member.
"""

from __future__ import annotations

import numpy as np

from ..statistics import Floats
from .knowledge import Knowledge, ShownSet
from .target import Attack, Target, on_both_sets


def calibrate(known: Knowledge, reference: Target) -> dict[str, Attack]:
    """The attack on any target's sets."""
    return on_both_sets("A3", known, reference, nearness)


def nearness(target: ShownSet, reference: ShownSet) -> Floats:
    """Distance to the nearest volume of the reference's set less that to the target's, shape (N,)."""
    return np.asarray(reference.distance.min(axis=1) - target.distance.min(axis=1))
