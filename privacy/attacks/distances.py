"""How far audited scans lie from other volumes, voxel by voxel, and from each other."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ...common.cohorts.disk_rows import let_go
from ...common.parallel import in_order
from ..statistics import Floats
from .interface import AuditedScans, Images
from .products import product

_AT_ONCE = 1_000_000
"""Voxel values compared at once on a core: bounds memory to some tens of megabytes, whatever the number of volumes."""
_VOLUMES = 128
"""Volumes compared at once. Of a file each part touches some voxels of every volume, and the system maps 64 KiB around
whatever is touched."""
_PARTS = 16
"""Of the voxels; cores take them in turn, and sums are those of the parts in their order, however many cores."""


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
    parts = np.array_split(np.flatnonzero(weight.any(axis=0)), _PARTS)
    for start in range(0, len(theirs), _VOLUMES):
        some = slice(start, start + _VOLUMES)
        for part in in_order([partial(_squares, weight, ours, theirs[some], voxels) for voxels in parts]):
            total[:, some] += part
    return np.asarray(np.sqrt(np.maximum(total, 0) / (weight.sum(axis=1) * channels)[:, None]))


def _squares(weight: NDArray[np.bool_], ours: Images, theirs: Images, voxels: NDArray[np.intp]) -> Floats:
    """Sums of squared differences (N, S) of rows (N, C, V) and (S, C, V) in some voxels, where a scan is judged."""
    total = np.zeros((len(ours), len(theirs)))
    block = max(1, _AT_ONCE // (ours.shape[1] * max(1, len(ours) + len(theirs))))
    for start in range(0, len(voxels), block):
        some = voxels[start : start + block]
        inside = weight[:, some].astype(np.float64)  # (N, v)
        y = theirs[:, :, some].astype(np.float64)  # (S, C, v)
        x = (ours[:, :, some] * inside[:, None]).reshape(len(ours), -1)  # (N, C v)
        total += product(inside, np.einsum("scv,scv->sv", y, y).T)
        total -= 2 * product(x, y.reshape(len(theirs), -1).T)
        total += np.einsum("nv,nv->n", x, x)[:, None]
    let_go(ours)
    let_go(theirs)
    return total


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
