"""How far a tissue's intensities in synthetic scans lie from those in real ones, label by label, channel by channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...common.cohorts.preparation import PreparedScans
from ...common.randomness import numpy_generator
from .figures import Floats

BINS = 1024
"""Of the prepared range [-1, 1]: a distance is exact to within one bin, 0.002."""
SPLITS = 50


@dataclass(frozen=True)
class IntensityDistance:
    """Wasserstein-1 distances of one label in one channel, in prepared units: -1 to 1 is a scan's own 0.5 to 99.5 %.

    Attributes:
        label: Name.
        channel: Name.
        synthetic: Between synthetic scans and one half of the real patients; mean over random halves. None where the
            label is in too few scans.
        real: The yardstick: between the other half of the real patients, as many of them, and the same half.
    """

    label: str
    channel: str
    synthetic: float | None
    real: float | None


def tissue_histograms(scans: PreparedScans, rows: Sequence[int], classes: int) -> Floats:
    """Share of each foreground class's voxels in each bin, shape (patients, classes - 1, C, BINS), patients sorted.

    A patient's scans are averaged, so that every patient counts once; NaN where a patient has no voxel of a class.
    """
    names, patient_of = np.unique(np.asarray([scans.patients[row] for row in rows]), return_inverse=True)
    channels = scans.volumes.shape[1]
    total = np.zeros((len(names), classes - 1, channels, BINS))
    counted = np.zeros((len(names), classes - 1))
    for row, patient in zip(rows, patient_of, strict=True):
        bins = np.clip(((scans.volumes[row] + 1) * (BINS / 2)).astype(np.intp), 0, BINS - 1)  # (C, X, Y, Z)
        for tissue in range(1, classes):
            inside = scans.classes[row] == tissue
            if inside.any():
                counted[patient, tissue - 1] += 1
                for channel in range(channels):
                    found = np.bincount(bins[channel][inside], minlength=BINS)
                    total[patient, tissue - 1, channel] += found / found.sum()
    counted[counted == 0] = np.nan
    return np.asarray(total / counted[:, :, None, None])


def wasserstein(one: Floats, other: Floats) -> Floats:
    """Wasserstein-1 distance between histograms over [-1, 1], shape (..., BINS) each, in the unit of that range."""
    return np.asarray(np.abs(np.cumsum(one - other, axis=-1)).sum(axis=-1) * (2 / BINS))


def intensity_distances(
    real: Floats, synthetic: Floats, labels: Sequence[str], channels: Sequence[str], seed: int
) -> tuple[IntensityDistance, ...]:
    """Compare synthetic scans and, as the yardstick, other real patients with the same random halves of real patients.

    Both sides of a comparison hold as many patients or scans, so that small numbers cost both the same.

    Args:
        real: As :func:`tissue_histograms`, four patients or more.
        synthetic: The same of synthetic scans.
        labels: Foreground labels in the order of their classes.
        channels: In the volumes' order.
        seed: Of the random halves.
    """
    random = numpy_generator(seed, "intensity halves")
    half = min(len(real) // 2, len(synthetic))
    to_synthetic, to_real = [], []
    for _ in range(SPLITS):
        order = random.permutation(len(real))
        reference = _pooled(real, order[:half])
        to_real.append(wasserstein(_pooled(real, order[half : 2 * half]), reference))
        to_synthetic.append(wasserstein(_pooled(synthetic, random.permutation(len(synthetic))[:half]), reference))
    means = [_mean(np.stack(distances)) for distances in (to_synthetic, to_real)]
    return tuple(
        IntensityDistance(label, channel, *(_or_none(mean[i, j]) for mean in means))
        for i, label in enumerate(labels)
        for j, channel in enumerate(channels)
    )


def _pooled(histograms: Floats, rows: NDArray[np.intp]) -> Floats:
    return _mean(histograms[rows])


def _mean(values: Floats) -> Floats:
    """Over the first axis, without NaN; NaN where there is nothing else: nobody has the label."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, axis=0) / np.sum(~np.isnan(values), axis=0))


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
