"""A film of slices: a synthetic volume and the scan beside it, cut side by side, scrolled together.

Without a script: the page's box scrolls by wheel, finger and arrow keys, and each stop shows both cuts of one slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ...common.study import Study
from ...common.volumes.slices import PLANES, cut
from .content import SyntheticSample
from .people import one_patient
from .slices import SHOWN, greys, image
from .svg import picture

_BYTES = 4_000_000
"""Of all films on a page: with the pictures beside them it opens within two seconds, and fits into a mail."""
_FEWEST = 3
"""Slices of which a film is made; of fewer nothing is shown."""


@dataclass(frozen=True)
class Frame:
    """One slice.

    Attributes:
        name: Plane and slice.
        synthetic: Every channel of the synthetic volume, side by side.
        nearest: The same of that scan.
    """

    name: str
    synthetic: Markup
    nearest: Markup


@dataclass(frozen=True)
class Film:
    """The slices of one volume and its neighbour.

    Attributes:
        frames: In order, from the feet up.
        every: Every how many slices one is shown.
    """

    frames: tuple[Frame, ...]
    every: int


def film_of(position: int, study: Study, sample: SyntheticSample) -> Film | None:
    """The axial film of a volume and the scan beside it.

    None where no scan is beside it, or where the page has no room for even a few slices.
    """
    if sample.nearest is None:
        return None
    there = _occupied(sample.volumes[position], sample.nearest[position])
    if not len(there):
        return None
    # The middle shows most, and so takes most.
    (middle,) = _frames(position, study, sample, there[len(there) // 2 :][:1])
    size = len(middle.synthetic) + len(middle.nearest)
    every = -(-size * len(there) * min(SHOWN, len(sample.volumes)) // _BYTES)
    shown = there[::every]
    return Film(tuple(_frames(position, study, sample, shown)), every) if len(shown) >= _FEWEST else None


def _occupied(*volumes: NDArray[np.float32]) -> range:
    """Axial slices from the first to the last in which one of the volumes (C, X, Y, Z) holds more than one value."""
    varied = np.zeros(volumes[0].shape[-1], dtype=bool)
    for volume in volumes:
        varied |= (np.ptp(volume, axis=(1, 2)) > 0).any(axis=0)
    there = np.flatnonzero(varied)
    return range(int(there[0]), int(there[-1]) + 1) if len(there) else range(0)


def _frames(position: int, study: Study, sample: SyntheticSample, shown: range) -> Iterator[Frame]:
    assert sample.nearest is not None  # noqa: S101 - film_of asked
    pairs = [[greys(channel) for channel in one[position]] for one in (sample.volumes, sample.nearest)]
    patient = one_patient(sample.nearest_is_procedural(position))
    name, axis, _ = PLANES[0]
    width, height = (n * mm for n, mm in zip(study.grid.shape[:2], study.grid.spacing_mm[:2], strict=True))
    told = ", ".join(study.channels)
    for at in shown:
        where = f"{name} slice {at + 1} of {study.grid.shape[axis]}"
        strips = [np.hstack([cut(channel, axis, at) for channel in channels]) for channels in pairs]
        across = width * len(study.channels)
        alts = (f"{told} of synthetic volume {sample.number(position)}, {where}", f"{told} of a {patient}, {where}")
        made, near = (
            picture([image(strip, across, height)], across, height, alt)
            for strip, alt in zip(strips, alts, strict=True)
        )
        yield Frame(where, made, near)
