"""A3: how near the released set comes to a scan (Chen et al. 2020, arXiv 1909.03935, full black box)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..statistics import Floats
from .interface import AttackScores, AuditedScans, Images, by_patient

_CHUNK = 16
"""Synthetic volumes compared at once."""

COPY_ERROR = 0.02
"""A synthetic volume that leaves less than this share of a scan's variance unexplained repeats it."""


def distances(scans: AuditedScans, judged: NDArray[np.bool_], synthetic: Images) -> Floats:
    """Root mean squared voxel difference in each scan's judged voxels, shape (N, S).

    Both sides lie on the study's canonical grid: no registration is tried.
    """
    out = np.empty((len(scans), len(synthetic)))
    flat = synthetic.reshape(len(synthetic), synthetic.shape[1], -1)  # (S, C, V)
    for i in range(len(scans)):
        inside = np.flatnonzero(judged[i])
        scan = scans.images[i].reshape(flat.shape[1], -1)[:, inside]
        for start in range(0, len(flat), _CHUNK):
            difference = flat[start : start + _CHUNK][:, :, inside] - scan
            out[i, start : start + _CHUNK] = np.sqrt(np.mean(difference**2, axis=(1, 2), dtype=np.float64))
    return out


def gan_leaks_scores(target_nearest: Floats, reference_nearest: Floats, scans: AuditedScans) -> AttackScores:
    """Calibrated A3: nearest distance to the reference generator's set less that to the released set.

    Both arrays have shape (N,). The reference's set comes from the same label maps, so that a scan near the
    middle of the population, near to any set, does not look like a member.
    """
    return by_patient("A3", scans, reference_nearest - target_nearest)


@dataclass(frozen=True)
class Copies:
    """What of a synthetic set repeats a real patient's scan.

    Attributes:
        volumes: Synthetic volumes that repeat one patient's scan, member or holdout.
        members: Audited members with at least one such volume.
    """

    volumes: int
    members: int


def confirmed_copies(scans: AuditedScans, judged: NDArray[np.bool_], distance: Floats) -> Copies:
    """Count synthetic volumes that repeat a scan voxel by voxel, but for :data:`COPY_ERROR`.

    Each volume is contrasted with the scans of all other patients: where it comes as near to one of them
    too, nearness on this grid proves nothing about it, and about it alone.

    Args:
        scans: Audited scans, both sides: a copy of a holdout patient is a copy.
        judged: Shape (N, X, Y, Z).
        distance: From :func:`distances`, shape (N, S).
    """
    spread = np.array([scans.images[i][:, judged[i]].var(dtype=np.float64) for i in range(len(scans))])
    repeats = distance**2 < COPY_ERROR * spread[:, None]
    names, owner = np.unique(np.array(scans.patients, dtype=str), return_inverse=True)
    repeated = np.zeros((len(names), repeats.shape[1]), dtype=bool)
    np.logical_or.at(repeated, owner, repeats)
    confirmed = repeated & (repeated.sum(axis=0) == 1)
    member = np.zeros(len(names), dtype=bool)
    member[owner] = scans.member
    return Copies(volumes=int(confirmed.any(axis=0).sum()), members=int(confirmed.any(axis=1)[member].sum()))


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
