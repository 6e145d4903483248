"""What a scan's files say about its acquisition beside the voxels that preparation keeps: spacing, place, type, scale.

Preparation brings every scan onto one grid and one intensity scale, so that networks need not know scanners. An audit
does need to: where members and holdout patients differ in any of this, the comparison between them is not fair
(PRIVACY §3.2, B0). These numbers tell scanners and sites apart; they stay in the prepared cache and never leave a site.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from ..volumes.nifti import Header

_STORAGE = 5
"""Numbers that :func:`_storage` gives."""


def acquisition(headers: Sequence[Header | None], scales: Sequence[NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
    """The numbers of one scan, in an order that is the same for every scan of a study.

    Of the first channel's file: voxel size in stored order (logarithm of mm), matrix (logarithm of voxels), direction
    of each stored axis (3 × 3, unit vectors: orientation, flips and obliqueness) and place of the first voxel (mm). Of
    every file: bytes a stored number, whether they are floats, whether they are in this machine's order, length of the
    header's free text, number of its extensions. Of every channel: the intensities that normalisation makes -1 and 1,
    signed logarithm. A channel that a scan lacks counts as zeros, and the first one is the first that it has.

    A cohort's tables (scanner, year, age) are not read: no layout hands them on.

    Args:
        headers: Of each channel's file, None where the scan lacks it, then of the label map's; regular ones.
        scales: Low and high intensity of each channel, shape (2,); zeros where the scan lacks it.

    Returns:
        Shape (18 + 5 · files + 2 · channels,), finite.
    """
    first = next(header for header in headers if header)
    sizes = voxel_sizes(first.affine)  # type: ignore[no-untyped-call]  # nibabel types little
    axes = first.affine[:3, :3] / sizes
    geometry = [*np.log(sizes), *np.log(first.grid_shape[:3]), *axes.ravel(), *first.affine[:3, 3]]
    files = [number for header in headers for number in (_storage(header) if header else (0,) * _STORAGE)]
    return np.array([*geometry, *files, *np.arcsinh(np.concatenate(scales))], dtype=np.float64)


def _storage(header: Header) -> tuple[float, ...]:
    """How one file stores its voxels, and how much text rides along."""
    return (
        header.dtype.itemsize,
        header.dtype.kind == "f",
        header.dtype.isnative,
        sum(map(len, header.text.values())),
        len(header.extensions),
    )
