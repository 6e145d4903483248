"""The searches for copies, tried on copies: their silence about a released set means nothing until they found some."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..attacks.copies import confirmed_copies
from ..attacks.distances import distances
from ..attacks.interface import AuditedScans, Images, Labels
from ..attacks.label_copies import label_copies
from ..attacks.moved_copies import moved_copies
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

    Scans as they are and with noise (5 % of their contrast) by the search voxel by voxel; mirrored from left to right,
    and shifted, by the search for moved copies; label maps as they are, mirrored and shifted, by theirs. PRIVACY §4
    asks for nine of ten exact ones and seven perturbed. They are searched among forty patients, not all.

    Args:
        scans: Members and holdout.
        judged: Their voxels judged, shape (N, X, Y, Z).
        rng: Chooses members, noise and shifts.
        once: Of both searches.
    """
    required = f">= 9 of {PLANTED} exact copies found, >= 7 of each kind perturbed, of scans and of label maps"
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

    def moved(copies: Images, how: str) -> int:
        found = moved_copies(people, seen, copies, once=under(f"planted scans, {how}", once))
        return confirmed_copies(people, seen, distances(people, seen, copies), found).volumes

    def as_label_maps(copies: Labels, how: str) -> int:
        holdout = ~np.array(people.member, dtype=bool)
        return label_copies(people, holdout, copies, once=under(f"planted label maps, {how}", once)).released

    noisy = np.stack([perturbed(volume, "noise", rng) for volume in own])
    shifts = [_shift(maps.shape[1:], rng) for _ in chosen]
    shifted = np.stack([_shifted(volume, *by) for volume, by in zip(own, shifts, strict=True)])
    shifted_maps = np.stack([_shifted(labels, *by) for labels, by in zip(maps, shifts, strict=True)])
    found = {
        "scans": {
            "exact": voxel_by_voxel(own),
            "with noise": voxel_by_voxel(noisy),
            "mirrored": moved(own[:, :, ::-1], "mirrored"),
            "shifted": moved(shifted, "shifted"),
        },
        "label maps": {
            "exact": as_label_maps(maps, "exact"),
            "mirrored": as_label_maps(maps[:, ::-1], "mirrored"),
            "shifted": as_label_maps(shifted_maps, "shifted"),
        },
    }
    told = [f"{of}: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}" for of, kinds in found.items()]
    enough = [n >= (9 if kind == "exact" else 7) for kinds in found.values() for kind, n in kinds.items()]
    return ControlResult(COPIES_FOUND, required, "; ".join(told), ok=all(enough))


def _shift(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
    """An axis, drawn, counted from the last, and voxels along it, either way."""
    axis = int(rng.integers(-len(shape), 0))
    return axis, max(1, min(SHIFT, shape[axis] // OF_AXIS)) * int(rng.choice([-1, 1]))


def _shifted(voxels: NDArray[N], axis: int, by: int) -> NDArray[N]:
    length = voxels.shape[axis]
    return np.take(voxels, np.clip(np.arange(length) - by, 0, length - 1), axis=axis)
