"""Synthetic volumes that repeat a real patient's scan."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from ...common.cohorts.disk_rows import let_go
from ..statistics import Floats
from .distances import distances
from .interface import AuditedScans

COPY_ERROR = 0.02
"""A synthetic volume that leaves less than this share of a scan's variance unexplained repeats it."""

SAME_ERROR = 1e-4
"""A scan that leaves less than this share of another's variance unexplained is that scan, exported twice: rounding
differs by less, two people's scans by far more, even on a grid so coarse that they are nearer than COPY_ERROR."""


NEAREST_KEPT = 10
"""Volumes without an accusation that are kept beside those with one: somebody wants to see the next ones too."""


@dataclass(frozen=True)
class Suspect:
    """A synthetic volume and the scan that it repeats, or the scan most like it.

    Attributes:
        volume: Its index.
        scan: The scan's.
        accused: Whether it is a copy of that scan.
    """

    volume: int
    scan: int
    accused: bool


@dataclass(frozen=True)
class Copies:
    """What of a synthetic set repeats a real patient's scan.

    Attributes:
        volumes: Synthetic volumes that repeat one person's scan, member or holdout.
        members: Audited members with at least one such volume.
        suspects: In an order of suspicion: a pair of volume and scan for each volume and patient that it repeats, then
            the nearest others, one a volume. Which patient's a scan is, is the site's to know.
    """

    volumes: int
    members: int
    suspects: tuple[Suspect, ...] = field(default=(), compare=False)


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
        distance: From :func:`~fedphantom.privacy.attacks.distances.distances`, shape (N, S).
        moved: ``source`` of :func:`~fedphantom.privacy.attacks.moved_copies.search_moved`; None: not searched.
    """
    spread = np.zeros(len(scans))
    for i, inside in enumerate(judged):
        spread[i] = scans.images[i][:, inside].var(dtype=np.float64)
        let_go(scans.images)
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
    return Copies(
        volumes=int(confirmed.any(axis=0).sum()),
        members=int(confirmed.any(axis=1)[member].sum()),
        suspects=_suspects(distance**2 / np.maximum(spread, np.finfo(float).tiny)[:, None], owner, confirmed),
    )


def _suspects(unexplained: Floats, owner: NDArray[np.intp], confirmed: NDArray[np.bool_]) -> tuple[Suspect, ...]:
    """By the share (N, S) of each scan's variance that a volume leaves unexplained; accused pairs (patients, S) first.

    A copy that was moved leaves much, and comes after those that were not.
    """

    def rank(pair: Suspect) -> tuple[float, int, int]:
        return float(unexplained[pair.scan, pair.volume]), pair.volume, pair.scan

    accused = []
    for patient, volume in zip(*np.nonzero(confirmed), strict=True):
        rows = np.flatnonzero(owner == patient)
        accused.append(Suspect(int(volume), int(rows[unexplained[rows, volume].argmin()]), accused=True))
    others = [
        Suspect(volume, int(unexplained[:, volume].argmin()), accused=False)
        for volume in range(unexplained.shape[1])
        if len(unexplained) and not confirmed[:, volume].any()
    ]
    return (*sorted(accused, key=rank), *sorted(others, key=rank)[:NEAREST_KEPT])


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
