"""A4: how much of a set lies close to a scan (Hilprecht et al. 2019, PoPETs 2019(4), arXiv 1906.03006, Monte Carlo).

In the embedding, where the paper's distances by principal components did best. Calibrated with the reference's set,
which comes from the same label maps, within the same radius: a radius of its own, wide where the target's is narrow
because it repeats scans, would bring in more chance than it takes out.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from ..statistics import Floats
from .knowledge import Knowledge, ShownSet
from .target import Attack, Target, on_both_sets


def calibrate(known: Knowledge, reference: Target) -> dict[str, Attack]:
    """The attack on any target's sets."""

    def crowding(target: ShownSet, like: ShownSet) -> Floats:
        close = radius(known.points, target.points)
        return share_close(known.points, target.points, close) - share_close(known.points, like.points, close)

    return on_both_sets("A4", known, reference, crowding)


def radius(scans: Floats, volumes: Floats) -> float:
    """Median over scans (N, K) of the distance to the nearest volume (S, K)."""
    return float(np.median(cdist(scans, volumes).min(axis=1)))


def share_close(scans: Floats, volumes: Floats, within: float) -> Floats:
    """Share of the volumes (S, K) within a radius of each scan (N, K): shape (N,), between 0 and 1.

    At exactly the radius counts: where most scans lie in the set as they are, the radius is 0, and they are in it all
    the same.
    """
    return np.asarray((cdist(scans, volumes) <= within).mean(axis=1))
