"""A scan registered to a volume, affinely, by Gauss-Newton, and how much of the volume it leaves unexplained there.

A smooth background is no part of what is to be explained, and the scan's gain may vary as smoothly as a coil's
sensitivity does: a bias field or another contrast costs nothing. Steps are found on some of the voxels, drawn once for
all; what counts at the end is measured on every voxel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...common.randomness import numpy_generator
from ..statistics import Floats
from .products import product

Volume = NDArray[np.float32]
"""Shape (C, X, Y, Z)."""
Mask = NDArray[np.bool_]
"""Shape (X, Y, Z)."""
Motion = Floats
"""Shape (3, 4): a scan's voxel at p, counted from the grid's centre, lies in the volume at ``motion @ [p, 1]``."""
Places = NDArray[np.intp]
"""Voxels of a grid, shape (P, 3)."""

_STEPS, _LEAST_GAIN = 8, 0.04
"""How many at most, and the least that one must gain, as a share, for another to follow."""
_LEAST_OVERLAP = 0.5
_SAMPLED = 6000
"""Voxels of a scan that its steps are found on: five hundred for each of the twelve unknowns."""


def places_of(masks: NDArray[np.bool_]) -> Places:
    """Voxels of the grid to look at, so many that about :data:`_SAMPLED` lie in a mask; all where it has no more.

    Args:
        masks: Shape (N, X, Y, Z).
    """
    shape = masks.shape[1:]
    every = np.argwhere(np.ones(shape, bool))
    wanted = math.ceil(len(every) * _SAMPLED / max(float(masks.sum()) / max(len(masks), 1), 1.0))
    if wanted >= len(every):
        return every
    return every[np.sort(numpy_generator("places", *shape).permutation(len(every))[:wanted])]


@dataclass(frozen=True, eq=False)
class Laid:
    """A scan that can be looked up anywhere.

    Attributes:
        counting: Of each voxel, whether it counts, shape (X · Y · Z,); 0 or 1.
        table: Of each voxel, of each channel the value and its three slopes; shape (X · Y · Z, 4 C).
        shape: X, Y, Z.
        size: Voxels that count.
    """

    counting: NDArray[np.float32]
    table: NDArray[np.float32]
    shape: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, image: Volume, mask: Mask) -> Laid:
        """From a scan and the voxels of it that count."""
        columns: list[NDArray[np.float32]] = []
        for channel in image:
            columns += [channel, *np.gradient(channel)]
        table = np.stack(columns, axis=-1).reshape(-1, len(columns))
        return cls(mask.astype(np.float32).reshape(-1), table, mask.shape, int(mask.sum()))

    def at(self, places: Floats) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Which of some places (P, 3) lie where the scan counts, and what it holds there, shape (p, 4 C)."""
        top = np.array(self.shape) - 1
        within = np.flatnonzero(((places >= 0) & (places <= top)).all(axis=1))
        low = np.minimum(np.floor(places[within]).astype(np.intp), np.maximum(top - 1, 0))
        part = (places[within] - low).astype(np.float32)
        ends = [(low[:, axis], np.minimum(low[:, axis] + 1, top[axis])) for axis in range(3)]
        shares = [(1 - part[:, axis], part[:, axis]) for axis in range(3)]
        corners = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
        row = [(ends[0][i] * self.shape[1] + ends[1][j]) * self.shape[2] + ends[2][k] for i, j, k in corners]
        share = [shares[0][i] * shares[1][j] * shares[2][k] for i, j, k in corners]
        counts = np.flatnonzero(sum(self.counting[r] * w for r, w in zip(row, share, strict=True)) > 0.5)
        found = np.zeros((len(counts), self.table.shape[1]), np.float32)
        for r, w in zip(row, share, strict=True):
            corner = np.take(self.table, r[counts], axis=0)
            corner *= w[counts, None]
            found += corner
        inside = np.zeros(len(places), bool)
        inside[within[counts]] = True
        return inside, found


def descent(scan: Laid, volume: Volume, motion: Motion, places: Places) -> tuple[Motion, float]:
    """From a motion to the nearest one that leaves least of the volume unexplained, and how much that is there.

    Args:
        scan: Laid over the volume.
        volume: On the same grid.
        motion: To begin with.
        places: Voxels looked at, from :func:`places_of`.
    """
    wanted = volume[:, places[:, 0], places[:, 1], places[:, 2]].astype(np.float64)
    share, step = _compared(scan, wanted, places, motion, math.inf)
    for _ in range(_STEPS):
        for length in (1.0, 0.4):
            tried = _after(length * step, motion)
            new_share, new_step = _compared(scan, wanted, places, tried, share)
            if new_share < share:
                break
        else:
            break
        gain, motion, share, step = share - new_share, tried, new_share, new_step
        if gain < _LEAST_GAIN * share or share < 1e-4:
            break
    return motion, share


def unexplained(image: Volume, mask: Mask, volume: Volume, motion: Motion) -> float:
    """Share of the volume that the scan leaves unexplained where it lies, by every voxel."""
    back, offset = _inverse(motion, mask.shape)
    where = ndimage.affine_transform(mask.astype(np.float32), back, offset, order=1) > 0.5
    if where.sum() <= max(_LEAST_OVERLAP * mask.sum(), 64):
        return 1.0
    place = np.argwhere(where) - (np.array(mask.shape) - 1) / 2
    smooth, left, whole = _smooth(place, mask.shape), 0.0, 0.0
    for scan, target in zip(image, volume, strict=True):
        inside = ndimage.affine_transform(scan, back, offset, order=1, mode="nearest")[where].astype(np.float64)
        residual, alone, _ = _fitted(smooth, inside, target[where].astype(np.float64))
        left, whole = left + float(residual @ residual), whole + float(alone @ alone)
    return left / max(whole, 1e-12)


def scaled(motion: Motion, factor: float) -> Motion:
    """The motion on a grid of so many times the voxels."""
    return np.hstack([motion[:, :3], factor * motion[:, 3:]])


def _compared(scan: Laid, wanted: Floats, places: Places, motion: Motion, before: float) -> tuple[float, Motion]:
    """Share left unexplained of what is wanted at the places (C, P), and the Gauss-Newton step from there.

    Where the share is not below the one before, the step is none.
    """
    back, offset = _inverse(motion, scan.shape)
    inside, found = scan.at(product(places.astype(np.float64), back.T) + offset)
    # As many as lie over the whole scan, were all looked at.
    seen = inside.sum() * (math.prod(scan.shape) / len(places))
    if seen <= max(_LEAST_OVERLAP * scan.size, 64):
        return 1.0, np.zeros((3, 4))
    place = places[inside] - (np.array(scan.shape) - 1) / 2
    smooth, left, whole = _smooth(place, scan.shape), 0.0, 0.0
    channels: list[tuple[Floats, Floats, Floats]] = []
    for c, target in enumerate(wanted[:, inside]):
        mine = found[:, 4 * c : 4 * c + 4].astype(np.float64)
        residual, alone, gain = _fitted(smooth, mine[:, 0], target)
        left, whole = left + float(residual @ residual), whole + float(alone @ alone)
        channels.append((mine[:, 1:], residual, gain))
    share = left / max(whole, 1e-12)
    if share >= before:
        return share, np.zeros((3, 4))
    square, right = np.zeros((12, 12)), np.zeros(12)
    moves = np.concatenate([place, np.ones((len(place), 1))], axis=1)
    for slope, residual, gain in channels:
        # Moved on by d, the scan's value at a place changes by -slope · d.
        turned = product(slope, back) * -gain[:, None]
        jacobian = (turned[:, :, None] * moves[:, None, :]).reshape(-1, 12)
        square, right = square + product(jacobian.T, jacobian), right + product(jacobian.T, residual)
    return share, _solved(square, right).reshape(3, 4)


def _inverse(motion: Motion, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """From a place in the volume to where the scan is looked up: ``back @ place + offset``, counted from the corner."""
    centre = (np.array(shape) - 1) / 2
    back = np.asarray(np.linalg.inv(motion[:, :3]), dtype=np.float64)
    return back, centre - back @ (centre + motion[:, 3])


def _smooth(place: Floats, shape: tuple[int, ...]) -> Floats:
    """Polynomials of the second degree at places (P, 3), shape (P, 10); of the first, the first four."""
    x, y, z = (place / max(shape)).T
    return np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], axis=1)


def _fitted(smooth: Floats, inside: Floats, wanted: Floats) -> tuple[Floats, Floats, Floats]:
    """What a scan and a smooth background leave of the values wanted, what the latter alone does, and the gain."""
    design = np.concatenate([smooth, smooth[:, :4] * inside[:, None]], axis=1)
    square, right = product(design.T, design), product(design.T, wanted)
    fit = _solved(square, right)
    alone = _solved(square[:10, :10], right[:10])
    return wanted - product(design, fit), wanted - product(smooth, alone), product(smooth[:, :4], fit[10:])


def _after(step: Motion, motion: Motion) -> Motion:
    """The motion, then a small one more."""
    turn = np.eye(3) + step[:, :3]
    return np.hstack([turn @ motion[:, :3], (turn @ motion[:, 3] + step[:, 3])[:, None]])


def _solved(square: Floats, right: Floats) -> Floats:
    """Least squares by normal equations; unknowns of any scale, and some that nothing speaks of."""
    size = np.sqrt(np.diag(square)) + 1e-12
    scaled_ = square / np.outer(size, size) + 1e-9 * np.eye(len(square))
    return np.asarray(np.linalg.solve(scaled_, right / size) / size)
