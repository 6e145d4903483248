"""A3: how near the released set comes to a scan (Chen et al. 2020, arXiv 1909.03935, full black box)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from ..statistics import Floats
from .interface import AttackScores, AuditedScans, Images, by_patient

_CHUNK = 16
"""Synthetic volumes compared at once."""

COPY_ERROR = 0.02
"""A synthetic volume that leaves less than this share of a scan's variance unexplained repeats it."""

SAME_ERROR = 1e-4
"""A scan that leaves less than this share of another's variance unexplained is that scan, exported twice: rounding
differs by less, two people's scans by far more, even on a grid so coarse that they are nearer than COPY_ERROR."""


def distances(scans: AuditedScans, judged: NDArray[np.bool_], synthetic: Images) -> Floats:
    """Root mean squared voxel difference in each scan's judged voxels, shape (N, S).

    Both sides lie on the study's canonical grid: no registration is tried.
    """
    out = np.empty((len(scans), len(synthetic)))
    flat = synthetic.reshape(*synthetic.shape[:2], math.prod(synthetic.shape[2:]))  # (S, C, V)
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
        volumes: Synthetic volumes that repeat one person's scan, member or holdout.
        members: Audited members with at least one such volume.
    """

    volumes: int
    members: int


def confirmed_copies(
    scans: AuditedScans, judged: NDArray[np.bool_], distance: Floats, moved: NDArray[np.bool_] | None = None
) -> Copies:
    """Count synthetic volumes that repeat a scan voxel by voxel, but for :data:`COPY_ERROR`, or after a movement.

    Each volume is contrasted with the scans of all other people: where it comes as near to one of them
    too, nearness on this grid proves nothing about it, and about it alone. Patients who share a scan
    (:data:`SAME_ERROR`) are one person under two identifiers and no contrast to each other.

    Args:
        scans: Audited scans, both sides: a copy of a holdout patient is a copy.
        judged: Shape (N, X, Y, Z).
        distance: From :func:`distances`, shape (N, S).
        moved: From :func:`~fedphantom.privacy.attacks.moved_copies.moved_copies`, shape (N, S); None: not searched.
    """
    spread = np.array([scans.images[i][:, judged[i]].var(dtype=np.float64) for i in range(len(scans))])
    repeats = distance**2 < COPY_ERROR * spread[:, None]
    names, owner = np.unique(np.array(scans.patients, dtype=str), return_inverse=True)
    repeated = _any_of(repeats, owner, len(names))  # (patients, S)
    contested = np.flatnonzero(repeats[:, repeated.sum(axis=0) > 1].any(axis=1))
    people, person = _people(scans.take(contested), judged[contested], spread[contested], owner[contested], len(names))
    confirmed = repeated & (_any_of(repeated, person, people).sum(axis=0) == 1)
    if moved is not None:
        confirmed |= _any_of(moved, owner, len(names))
    member = np.zeros(len(names), dtype=bool)
    member[owner] = scans.member
    return Copies(volumes=int(confirmed.any(axis=0).sum()), members=int(confirmed.any(axis=1)[member].sum()))


def _any_of(rows: NDArray[np.bool_], group: NDArray[np.intp], groups: int) -> NDArray[np.bool_]:
    """Whether any row of each group is true, column by column: (N, S) to (groups, S)."""
    out = np.zeros((groups, rows.shape[1]), dtype=bool)
    np.logical_or.at(out, group, rows)
    return out


def _people(
    scans: AuditedScans, judged: NDArray[np.bool_], spread: Floats, owner: NDArray[np.intp], patients: int
) -> tuple[int, NDArray[np.intp]]:
    """How many people there are, and the person of each patient: patients who share one of these scans are one."""
    same = distances(scans, judged, scans.images) ** 2 < SAME_ERROR * spread[:, None]
    links = np.zeros((patients, patients), dtype=bool)
    np.logical_or.at(links, (owner[:, None], owner[None, :]), same)
    people, person = connected_components(csr_matrix(links), directed=False)
    return int(people), person.astype(np.intp)


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
