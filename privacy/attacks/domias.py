"""A5: where a set is denser than the population it should show (van Breugel et al. 2023, DOMIAS, arXiv 2302.12580).

The score is log p_set - log p_population at the scan, both by kernels in the embedding. That ratio is the calibration.
The population is what the reference has: its patients' scans, and its generator's set beside them, since the few dozen
scans of an audit tell no density in ten dimensions.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from ..statistics import Floats
from .knowledge import Knowledge, ShownSet
from .target import Attack, Target, on_both_sets

_LEAST_SPREAD = 0.25
"""A coordinate's standard deviation is 1 over what the embedding was fitted on. A set that varies less than this share
of it is smoothed as if it varied so much: a density must not be endless where volumes repeat each other."""


def calibrate(known: Knowledge, reference: Target) -> dict[str, Attack]:
    """The attack on any target's sets."""

    def overdensity(target: ShownSet, like: ShownSet) -> Floats:
        population = np.concatenate([known.reference_points, like.points])
        return log_density(target.points, known.points) - log_density(population, known.points)

    return on_both_sets("A5", known, reference, overdensity)


def log_density(points: Floats, places: Floats) -> Floats:
    """Logarithm of a Gaussian kernel density at some places; finite however far they lie from every point.

    Bandwidth n^(-1 / (K + 4)) times each coordinate's standard deviation (Scott 1992).

    Args:
        points: Shape (n, K).
        places: Shape (m, K).

    Returns:
        Shape (m,).
    """
    n, dimensions = points.shape
    width = n ** (-1 / (dimensions + 4)) * np.maximum(points.std(axis=0), _LEAST_SPREAD)
    squared = cdist(places / width, points / width, "sqeuclidean")
    peak = math.log(n) + dimensions / 2 * math.log(2 * math.pi) + float(np.log(width).sum())
    return np.asarray(logsumexp(-squared / 2, axis=1) - peak)
