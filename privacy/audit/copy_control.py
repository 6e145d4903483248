"""The searches for copies, tried on copies: their silence about a released set means nothing until they found some."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..attacks.copies import confirmed_copies
from ..attacks.distances import distances
from ..attacks.interface import AuditedScans, Images
from ..attacks.label_copies import label_copies
from ..attacks.moved_copies import search_moved
from ..attacks.once import Once, anew, under
from ..evidence import COPIES_FOUND, ControlResult
from .controls import PLANTED, perturbed

N = TypeVar("N", np.float32, np.uint8)

AMONG = 4 * PLANTED
"""People searched, those whose copies are planted among them: a search over all would take as long as the real one."""
SHIFT, OF_AXIS = 3, 8
"""Voxels that a copy is shifted by along one axis; on small grids no more than one part in so many of it."""


def positive_copies_control(
    scans: AuditedScans, judged: NDArray[np.bool_], rng: np.random.Generator, once: Once = anew
) -> ControlResult:
    """Copies of ten members' scans and label maps must be found by the searches whose silence the verdict rests on.

    Scans as they are and with noise (5 % of their contrast) by the search voxel by voxel; by the search for moved
    copies, and by that of label maps, five that are mirrored from left to right and five that are shifted: who finds
    those finds what was not moved. PRIVACY §4 asks for nine of ten exact copies and seven perturbed, so that a search
    that is blind to either movement does not hold. They are searched among forty patients, not all.

    Args:
        scans: Members and holdout.
        judged: Their voxels judged, shape (N, X, Y, Z).
        rng: Chooses members, noise and shifts.
        once: Of both searches.
    """
    required = f">= 9 of {PLANTED} exact copies found, >= 7 with noise, >= 7 moved, >= 7 moved label maps"
    members = scans.side(member=True)
    if len(members) < PLANTED:
        return ControlResult(COPIES_FOUND, required, f"fewer than {PLANTED} members to plant", ok=False)
    chosen = rng.permutation(members)[:PLANTED].tolist()
    others = rng.permutation(sorted({*scans.patients} - {*chosen}))[: AMONG - PLANTED].tolist()
    rows = scans.of([*chosen, *others])
    people, seen = scans.take(rows), judged[rows]
    own = people.images[[people.of([patient])[0] for patient in chosen]]
    maps = people.labels[[people.of([patient])[0] for patient in chosen]]

    def voxel_by_voxel(copies: Images) -> int:
        return confirmed_copies(people, seen, distances(people, seen, copies)).volumes

    noisy = np.stack([perturbed(volume, "noise", rng) for volume in own])
    shifts = [_shift(maps.shape[1:], rng) for _ in chosen]
    moved = np.stack([_moved(volume, number, *shifts[number]) for number, volume in enumerate(own)])
    moved_maps = np.stack([_moved(labels, number, *shifts[number]) for number, labels in enumerate(maps)])
    source = search_moved(people, seen, moved, once=under("planted scans", once)).source
    holdout = ~np.array(people.member, dtype=bool)
    found = {
        "exact": voxel_by_voxel(own),
        "with noise": voxel_by_voxel(noisy),
        "moved": confirmed_copies(people, seen, distances(people, seen, moved), source).volumes,
        "moved label maps": label_copies(people, holdout, moved_maps, once=under("planted label maps", once)).released,
    }
    return ControlResult(
        COPIES_FOUND,
        required,
        ", ".join(f"{number} {kind}" for kind, number in found.items()),
        ok=found["exact"] >= 9 and min(found.values()) >= 7,
    )


def _moved(voxels: NDArray[N], number: int, axis: int, by: int) -> NDArray[N]:
    """Mirrored the even ones, shifted the odd ones; axes (..., X, Y, Z)."""
    return voxels[..., ::-1, :, :] if number % 2 == 0 else _shifted(voxels, axis, by)


def _shift(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
    """An axis, drawn, counted from the last, and voxels along it, either way."""
    axis = int(rng.integers(-len(shape), 0))
    return axis, max(1, min(SHIFT, shape[axis] // OF_AXIS)) * int(rng.choice([-1, 1]))


def _shifted(voxels: NDArray[N], axis: int, by: int) -> NDArray[N]:
    length = voxels.shape[axis]
    return np.take(voxels, np.clip(np.arange(length) - by, 0, length - 1), axis=axis)
