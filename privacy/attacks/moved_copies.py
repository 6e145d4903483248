"""Copies that were moved, turned, mirrored, stretched or brightened unevenly: the scan behind a synthetic volume.

Every scan, and its mirror image from left to right, is laid over the volume at every whole shift of a coarse grid
(normalised cross-correlation; Lewis 1995, "Fast normalized cross-correlation"). The people who come nearest are then
registered to it, affinely, by Gauss-Newton from coarse to fine. What counts is how much of the volume the moved scan
leaves unexplained, beyond what a smooth background explains: a bias field or another contrast costs a copy nothing.

Not caught: elastic deformation, parts of a scan smaller than half of it, a mirror image of another axis, turns of more
than about ten degrees, shifts of more than a quarter of the grid, and anything that was changed more than a little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ...common.cohorts.disk_rows import let_go
from ...common.parallel import side_by_side, usable_cores
from ..statistics import Floats
from .copies import SAME_ERROR
from .grids import cube, mostly, shrunk
from .interface import AuditedScans, Images
from .once import Arrays, Once, anew
from .products import product
from .registration import Laid, Motion, Volume, descent, places_of, scaled, unexplained

UNEXPLAINED = 0.2
"""A volume of which a moved scan leaves less than this share unexplained may be its copy."""
CONTRAST = 0.5
"""And is, where it leaves less than this share of what the scan of any other person leaves."""

_COARSE, _MIDDLE, _FINE = 16, 24, 48
"""Voxels an axis at most: of the search over all scans, of the first registration and of the last. They bound time."""
_REGISTERED = 10
"""People registered to a volume on the middle grid."""
_CONTRASTED = 3
"""And on the fine one, where the first of them may be the source."""
_HOPELESS = 0.4
"""Left unexplained between two grids: nothing of a copy is so far off there."""
_REACH = 0.25
"""Shifts searched, as a share of the grid's axes, either way."""

SEARCHED_TOGETHER = 16
"""Volumes, or four a core where those are more, after which what was found is worth keeping: at 96 voxels an axis and
2,000 scans about a minute's."""

Candidate = tuple[int, bool, Motion]
"""A scan, whether it is mirrored, and where it lies on the middle grid before it is registered."""
_Nearest = tuple[NDArray[np.float32], list[Candidate]]
"""How like every scan is, shape (N,), and those that are likest, one a person."""


@dataclass(frozen=True, eq=False)
class Searched:
    """What a search for moved copies found.

    Attributes:
        source: Which scan each synthetic volume repeats but for a movement, shape (N, S); at most one a volume.
        likeness: Correlation of each scan with each volume on the coarse grid, at the shift and of the mirror image
            where it is largest, shape (N, S).
    """

    source: NDArray[np.bool_]
    likeness: NDArray[np.float32]


def search_moved(
    scans: AuditedScans,
    judged: NDArray[np.bool_],
    synthetic: Images,
    progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int | None = None,
    *,
    by_centre: bool = False,
    once: Once = anew,
) -> Searched:
    """Search every synthetic volume for a scan that it repeats but for a movement.

    Each volume is its own null: a scan that explains it no better than another person's does (:data:`CONTRAST`) is only
    like it, as people are alike. Scans that are the same but for rounding are one person's, whoever it is said to be.

    Args:
        scans: Audited scans.
        judged: Voxels judged, shape (N, X, Y, Z).
        synthetic: Shape (S, C, X, Y, Z).
        progress: (volumes searched, volumes in all).
        workers: Volumes searched at once; one a core by default. The result does not depend on it.
        by_centre: Lay a scan over a volume by their centres of mass alone, not at every shift: for label maps, of which
            there is nothing but the structures, and which are too much alike to be told apart at whole coarse voxels.
        once: Of this search: what is found of so many volumes at a time (:data:`SEARCHED_TOGETHER`).
    """
    found = np.zeros((len(scans), len(synthetic)), dtype=bool)
    likeness = np.zeros(found.shape, dtype=np.float32)
    search = cache(lambda: _Search(scans, judged, by_centre=by_centre))
    total = len(synthetic)

    together = max(SEARCHED_TOGETHER, 4 * (workers or usable_cores()))

    def sources(block: range) -> Arrays:
        out, like = np.full(len(block), -1, dtype=np.int64), np.zeros((len(scans), len(block)), dtype=np.float32)
        volumes = search().volumes(synthetic[block.start : block.stop])
        tasks = [partial(search().source_of, volumes, s) for s in range(len(block))]
        for done, (task, (source, like[:, task])) in enumerate(side_by_side(tasks, workers), start=1):
            out[task] = -1 if source is None else source
            if done < len(block):
                progress(block.start + done, total)
        let_go(scans.images)
        let_go(synthetic)
        return {"source": out, "likeness": like}

    for first in range(0, total, together):
        block = range(first, min(first + together, total))
        kept = once(f"volumes {first + 1} to {block.stop}", partial(sources, block))
        source, likeness[:, block.start : block.stop] = kept["source"], kept["likeness"]
        progress(block.stop, total)
        copied = np.flatnonzero(source >= 0)
        found[source[copied], first + copied] = True
    return Searched(found, likeness)


@dataclass(frozen=True, eq=False)
class _Volumes:
    """Some of the volumes searched.

    Attributes:
        coarse: On the coarse grid, without what varies slowly.
        grids: On the middle and the fine grid.
        centred: As :func:`_centred`, where scans are laid by their centres.
    """

    coarse: Images
    grids: tuple[Images, Images]
    centred: tuple[Floats, NDArray[np.float32]] | None


class _Search:
    """Scans on three grids; none of it changes once it is made, so that several threads may search.

    On the fine one only those are made that come into question: of all scans they would be most of a search's memory.
    """

    def __init__(self, scans: AuditedScans, judged: NDArray[np.bool_], *, by_centre: bool) -> None:
        self._scans = scans
        coarse = np.concatenate([shrunk(mask[None, None], _COARSE) for mask in judged])
        small = _high_pass(shrunk(scans.images, _COARSE)) * coarse
        small /= np.sqrt((small**2).sum(axis=(1, 2, 3, 4), keepdims=True)) + 1e-12
        self._reach = [max(1, round(_REACH * n)) for n in small.shape[2:]]
        self._padded = [fft.next_fast_len(n + r, real=True) for n, r in zip(small.shape[2:], self._reach, strict=True)]
        self._images = [self._transformed(x) for x in (small, small[:, :, ::-1])]
        self._masks = [self._transformed(x) for x in (coarse, coarse[:, :, ::-1])]
        self._middle = shrunk(scans.images, _MIDDLE)
        self._judged = [mostly(judged, most) for most in (_MIDDLE, _FINE)]
        self._places = [places_of(masks) for masks in self._judged]
        block = [cube(judged.shape[1:], most) for most in (_COARSE, _MIDDLE, _FINE)]
        self._to_middle, self._to_fine = block[0] / block[1], block[1] / block[2]
        self._centred = [_centred(x) for x in (self._middle, self._middle[:, :, ::-1])] if by_centre else None

    def volumes(self, some: Images) -> _Volumes:
        """Volumes (s, C, X, Y, Z) as they are searched."""
        middle = shrunk(some, _MIDDLE)
        centred = None if self._centred is None else _centred(middle)
        return _Volumes(_high_pass(shrunk(some, _COARSE)), (middle, shrunk(some, _FINE)), centred)

    def source_of(self, volumes: _Volumes, s: int) -> tuple[int | None, NDArray[np.float32]]:
        """The scan that the volume repeats that is ``s`` among these, if it repeats one person's; and how like all are.

        Likeness as of :class:`Searched`, shape (N,).
        """
        if self._centred is None or volumes.centred is None:
            likeness, candidates = self._nearest_people(volumes.coarse[s])
        else:
            likeness, candidates = self._nearest_by_centre(volumes.centred[0][s], volumes.centred[1][s], self._centred)
        return self._registered_source(volumes, s, candidates), likeness

    def _registered_source(self, volumes: _Volumes, s: int, candidates: Sequence[Candidate]) -> int | None:
        """The candidate that, registered, leaves so little of the volume unexplained that it is its source."""
        middle, fine = (grid[s] for grid in volumes.grids)
        near = sorted(
            (*self._registered(middle, i, mirrored, start, 0, (1.0,)), i, mirrored) for i, mirrored, start in candidates
        )
        finer: list[tuple[float, int]] = []
        for share, motion, i, mirrored in near[:_CONTRASTED]:
            if not finer and share > _HOPELESS:
                return None
            share, _ = self._registered(fine, i, mirrored, scaled(np.array(motion), self._to_fine), 1, (1.0, 0.0))
            finer.append((share, i))
            if min(finer)[0] >= UNEXPLAINED:
                return None
        first, source = min(finer)
        others = [share for share, i in finer if i != source and not self._same(i, source)]
        return source if first < CONTRAST * min(others, default=1.0) else None

    def _same(self, one: int, other: int) -> bool:
        """Whether two scans are one person's."""
        if self._scans.patients[one] == self._scans.patients[other]:
            return True
        a, b = self._scans.images[one].astype(np.float64), self._scans.images[other]
        return bool(((a - b) ** 2).mean() < SAME_ERROR * a.var())

    def _nearest_people(self, volume: NDArray[np.float32]) -> _Nearest:
        """Scan, whether mirrored, and where it lies on the middle grid."""
        seen, energy = self._transformed(volume), self._transformed((volume**2).sum(axis=0, keepdims=True))
        window = [np.r_[0 : r + 1, -r:0] for r in self._reach]
        scores, places = [], []
        for images, masks in zip(self._images, self._masks, strict=True):
            inside = np.ix_(range(len(images)), *window)
            like = self._back((images.conj() * seen).sum(axis=1))[inside]
            size = self._back((masks.conj() * energy)[:, 0])[inside]
            score = like / np.sqrt(np.maximum(size, 1e-3 * size.max(axis=(1, 2, 3), keepdims=True)) + 1e-12)
            flat = score.reshape(len(images), -1)
            scores.append(flat.max(axis=1))
            places.append(np.unravel_index(flat.argmax(axis=1), score.shape[1:]))

        def start(i: int, mirrored: bool) -> Motion:
            shift = [float(w[p[i]]) for w, p in zip(window, places[mirrored], strict=True)]
            return scaled(np.c_[np.eye(3), shift], self._to_middle)

        return self._one_a_person(scores[0], scores[1], start)

    def _nearest_by_centre(
        self, centre: Floats, volume: NDArray[np.float32], centred: list[tuple[Floats, NDArray[np.float32]]]
    ) -> _Nearest:
        """As :meth:`_nearest_people`, each laid with its centre of mass on the volume's."""
        scores = [product(values, volume) for _, values in centred]

        def start(i: int, mirrored: bool) -> Motion:
            return np.hstack([np.eye(3), (centre - centred[mirrored][0][i])[:, None]])

        return self._one_a_person(scores[0], scores[1], start)

    def _one_a_person(
        self,
        plain: NDArray[np.float32],
        mirrored: NDArray[np.float32],
        start: Callable[[int, bool], Motion],
    ) -> _Nearest:
        """Of the people whose scan, or its mirror image, scores best: which scan, whether mirrored, and its start."""
        out: dict[str, Candidate] = {}
        likeness = np.maximum(plain, mirrored)
        for i in np.argsort(-likeness):
            turned = bool(mirrored[i] > plain[i])
            out.setdefault(self._scans.patients[i], (int(i), turned, start(int(i), turned)))
            if len(out) == _REGISTERED:
                break
        return likeness, list(out.values())

    def _registered(
        self, whole: Volume, i: int, mirrored: bool, motion: Motion, grid: int, blurs: tuple[float, ...]
    ) -> tuple[float, Any]:
        image = self._middle[i] if grid == 0 else shrunk(self._scans.images[i : i + 1], _FINE)[0]
        mask = self._judged[grid][i]
        if mirrored:
            image, mask = image[:, ::-1], mask[::-1]
        share, places = 1.0, self._places[grid]
        for blur in blurs:
            volume = _blurred(whole, blur)
            motion, share = descent(Laid.of(_blurred(image, blur), mask), volume, motion, places)
            if share > _HOPELESS:
                break
        else:
            if len(places) < mask.size:
                share = unexplained(_blurred(image, blur), mask, volume, motion)
        return share, motion.tolist()

    def _transformed(self, x: NDArray[np.float32]) -> NDArray[np.complex64]:
        return np.asarray(fft.rfftn(x, s=self._padded, axes=(-3, -2, -1)))

    def _back(self, x: NDArray[np.complex64]) -> NDArray[np.float32]:
        return np.asarray(fft.irfftn(x, s=self._padded, axes=(-3, -2, -1)))


def _blurred(x: Volume, blur: float) -> Volume:
    return np.asarray(ndimage.gaussian_filter(x, (0, blur, blur, blur))) if blur else x


def _high_pass(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(x - ndimage.gaussian_filter(x, (0, 0, 3, 3, 3)))


def _centred(x: NDArray[np.float32]) -> tuple[Floats, NDArray[np.float32]]:
    """Centres of mass (N, 3), counted from the grid's centre, and the volumes moved there as unit vectors (N, F)."""
    middle = (np.array(x.shape[2:]) - 1) / 2
    mass = [one.sum(axis=0) for one in x]
    centres = np.stack([np.array(ndimage.center_of_mass(m)) if m.any() else middle for m in mass]) - middle
    moved = [[ndimage.shift(channel, -by, order=1) for channel in one] for one, by in zip(x, centres, strict=True)]
    rows = _blurred(np.array(moved, dtype=np.float32).reshape(-1, *x.shape[2:]), 1.0).reshape(len(x), -1)
    return centres, rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-12)
