"""Whether two sets of features come from the same distribution: maximum mean discrepancy, tested by permutation.

MONAI's ``MMDMetric`` has a linear kernel, which sees nothing but the difference of means, and wants two samples of the
same size; hence the few lines here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from ...common.randomness import numpy_generator
from .figures import Floats

PERMUTATIONS = 2000


@dataclass(frozen=True)
class Discrepancy:
    """A squared MMD and what it would be were there no difference.

    Attributes:
        mmd2: Unbiased estimate; around 0, also below it, without a difference.
        null95: 95th percentile with real and synthetic shuffled.
        p_value: Of "the same distribution", one-sided, never 0.
    """

    mmd2: float
    null95: float
    p_value: float


def gaussian_kernel(features: Floats) -> Floats:
    """Kernel matrix (n, n) of features (n, d), its width the median distance between two of them.

    Source: Gretton et al. 2012 (JMLR 13:723-773), section 8; all features the same: a matrix of ones.
    """
    distances = pdist(features)
    width = float(np.median(distances)) or 1.0
    return np.asarray(np.exp(-(squareform(distances) ** 2) / (2 * width**2)))


def squared_mmd(kernel: Floats, first: NDArray[np.bool_]) -> Floats:
    """Unbiased squared MMD between the rows of a kernel matrix (n, n) that are ``first``, shape (..., n), and the rest.

    Source: Gretton et al. 2012, equation 3. Both sides need two rows.
    """
    pairs = kernel - np.diag(np.diag(kernel))  # nobody with itself
    one = first.astype(np.float64)
    m, n = one.sum(axis=-1), (1 - one).sum(axis=-1)
    reached = one @ pairs
    within, across = (reached * one).sum(axis=-1), (reached * (1 - one)).sum(axis=-1)
    others = pairs.sum() - within - 2 * across
    return np.asarray(within / (m * (m - 1)) + others / (n * (n - 1)) - 2 * across / (m * n))


def discrepancy(real: Floats, synthetic: Floats, seed: int) -> Discrepancy:
    """Compare features (n, d) with features (m, d), one row a patient or synthetic scan."""
    kernel = gaussian_kernel(np.concatenate([real, synthetic]))
    is_real = np.arange(len(kernel)) < len(real)
    found = float(squared_mmd(kernel, is_real))
    random = numpy_generator(seed, "discrepancy")
    shuffled = squared_mmd(kernel, random.permuted(np.tile(is_real, (PERMUTATIONS, 1)), axis=1))
    reached = int((shuffled >= found - 1e-12).sum())
    return Discrepancy(found, float(np.percentile(shuffled, 95)), (1 + reached) / (1 + PERMUTATIONS))
