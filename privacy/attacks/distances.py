"""How far audited scans lie from other volumes, voxel by voxel, and from each other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..statistics import Floats
from .interface import AuditedScans, Images

_AT_ONCE = 4_000_000
"""Voxel values compared at once: bounds memory to some tens of megabytes, whatever the number of volumes."""


def distances(scans: AuditedScans, judged: NDArray[np.bool_], synthetic: Images) -> Floats:
    """Root mean squared voxel difference in each scan's judged voxels, shape (N, S).

    Both sides lie on the study's canonical grid: no registration is tried. The square is multiplied out, so that each
    block of voxels is three matrix products over all scans and volumes; in float64, since a copy's terms cancel.

    Args:
        scans: Audited scans.
        judged: Shape (N, X, Y, Z), at least one voxel of each scan.
        synthetic: Shape (S, C, X, Y, Z).
    """
    channels = synthetic.shape[1]
    volume = math.prod(judged.shape[1:])
    weight = judged.reshape(len(scans), volume)
    ours, theirs = (x.reshape(len(x), channels, volume) for x in (scans.images, synthetic))
    total = np.zeros((len(scans), len(synthetic)))
    block = max(1, _AT_ONCE // (channels * max(1, len(scans) + len(synthetic))))
    for start in range(0, volume, block):
        voxels = slice(start, start + block)
        inside = weight[:, voxels].astype(np.float64)  # (N, v)
        seen = inside.any(axis=0)
        if not seen.any():
            continue
        inside = inside[:, seen]
        y = theirs[:, :, voxels][:, :, seen].astype(np.float64)  # (S, C, v)
        x = ours[:, :, voxels][:, :, seen] * inside[:, None]  # (N, C, v)
        total += inside @ (y**2).sum(axis=1).T
        total -= 2 * np.tensordot(x, y, axes=((1, 2), (1, 2)))
        total += (x**2).sum(axis=(1, 2))[:, None]
    return np.asarray(np.sqrt(np.maximum(total, 0) / (weight.sum(axis=1) * channels)[:, None]))


def isolation(scans: AuditedScans, judged: NDArray[np.bool_], neighbours: int = 5) -> dict[str, float]:
    """Mean distance of each patient to the nearest scans of other audited patients; outliers are most at risk.

    Source: Meeus et al. 2023, arXiv 2306.10308.
    """
    between = distances(scans, judged, scans.images)
    patients = np.array(scans.patients, dtype=str)
    out: dict[str, float] = {}
    for i, patient in enumerate(scans.patients):
        others = np.sort(between[i, patients != patient])[:neighbours]
        out[patient] = max(out.get(patient, 0.0), float(others.mean()) if len(others) else 0.0)
    return out


def most_isolated(scans: AuditedScans, judged: NDArray[np.bool_]) -> tuple[str, ...]:
    """The most isolated quartile of audited patients, one cut for members and holdout, sorted."""
    lonely = isolation(scans, judged)
    cut = float(np.quantile(list(lonely.values()), 0.75))
    return tuple(sorted(p for p, distance in lonely.items() if distance >= cut))
