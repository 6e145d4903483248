"""Whether synthetic scans differ from each other as much as real ones do: mean MS-SSIM over pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics.regression import compute_ms_ssim

from ...common.cohorts.disk_rows import Rows
from ...common.device import Device
from ...common.randomness import numpy_generator
from .figures import RESAMPLES, Floats

MOST_SCANS = 20
"""Scans a side: 190 pairs."""
KERNEL, SIGMA = 7, 1.5
"""Voxels of the Gaussian window. Wang et al. 2003 take 11 by 11 on photographs; a study's grid may have 8 an axis."""
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, finest first (Wang, Simoncelli & Bovik 2003, doi 10.1109/ACSSC.2003.1292216)."""


@dataclass(frozen=True)
class Similarity:
    """Mean MS-SSIM over the pairs of some scans, with a 95 % bootstrap interval over the scans; 1: all the same."""

    mean: float
    low: float
    high: float
    scans: int


def scale_weights(shape: Sequence[int]) -> tuple[float, ...]:
    """Weights, summing to 1, of as many of the five scales as leave the window room on the shortest axis.

    Each scale halves the grid. MONAI's own check, which divides by (scales - 1) squared instead, must hold too.

    >>> [len(scale_weights((n, n, n))) for n in (8, 16, 32, 56, 64, 128)]
    [1, 2, 3, 3, 4, 5]
    """
    least = min(shape)
    fitting = [w for scale, w in enumerate(WEIGHTS) if least // max(2**scale, scale**2) >= KERNEL]
    return tuple(w / sum(fitting) for w in fitting)


def pair_similarities(volumes: Rows[np.float32], rows: Sequence[int], device: Device) -> Floats:
    """MS-SSIM of every pair of these rows, symmetric, the diagonal 1, for volumes (n, C, X, Y, Z) in [-1, 1].

    Whole volumes are compared, background included: it is alike everywhere and raises real and synthetic pairs both.
    Negative structure terms count 0, as in MONAI.
    """
    weights, out = scale_weights(volumes.shape[2:]), np.eye(len(rows))
    with torch.inference_mode():
        scaled = [device.tensor(torch.from_numpy((np.array(volumes[row], np.float32) + 1) / 2)[None]) for row in rows]
        for i, one in enumerate(scaled):
            for j in range(i):
                value = compute_ms_ssim(
                    one, scaled[j], 3, data_range=1.0, kernel_size=KERNEL, kernel_sigma=SIGMA, weights=weights
                ).item()
                out[i, j] = out[j, i] = value
    return out


def similarity(pairs: Floats, seed: int) -> Similarity:
    """Mean over the pairs of :func:`pair_similarities`; scans are resampled, a scan never paired with itself."""
    scans = len(pairs)
    others = ~np.eye(scans, dtype=bool)
    counts = numpy_generator(seed, "diversity").multinomial(scans, np.full(scans, 1 / scans), size=RESAMPLES)
    weight = np.einsum("bi,ij,bj->b", counts, others.astype(float), counts)
    total = np.einsum("bi,ij,bj->b", counts, np.where(others, pairs, 0), counts)
    low, high = np.percentile(total[weight > 0] / weight[weight > 0], [2.5, 97.5])
    return Similarity(float(pairs[others].mean()), float(low), float(high), scans)
