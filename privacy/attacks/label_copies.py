"""A7 on label maps: released ones that are a patient's own, as it is, shifted, mirrored, turned or scaled.

Lesion shape and anatomy are the patient (PRIVACY §1.2). Where a label map comes from, its chain says; this looks if
that is true, by the search for moved copies of scans (:mod:`.moved_copies`), with a label map as the picture.

Not caught: what that search does not catch, and a map that was deformed, or whose structures were moved one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..evidence import CopiedLabels
from .interface import AuditedScans, Images, Labels
from .moved_copies import search_moved
from .once import Once, anew

_MARGIN = 3
"""Voxels around the structures: what lies beside them tells their outline."""


def label_copies(
    scans: AuditedScans,
    holdout: NDArray[np.bool_],
    released: Labels,
    progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int | None = None,
    once: Once = anew,
) -> CopiedLabels:
    """Count the released label maps that are one person's own.

    Args:
        scans: Of every patient whose label map must not be released; their own label maps are searched.
        holdout: Which of them are holdout patients', shape (N,).
        released: Shape (S, X, Y, Z).
        progress: (maps searched, maps in all).
        workers: Maps searched at once; one a core by default. The result does not depend on it.
        once: Of this search.
    """
    found = copied_label_maps(scans, released, progress, workers, once)
    member = np.array(scans.member, dtype=bool)
    return CopiedLabels(*(int(found[rows].any(axis=0).sum()) for rows in (slice(None), member, holdout)))


def copied_label_maps(
    scans: AuditedScans,
    released: Labels,
    progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int | None = None,
    once: Once = anew,
) -> NDArray[np.bool_]:
    """Whose label map each released one is, shape (N, S); at most one a map. Arguments as :func:`label_copies`."""
    around = np.stack([ndimage.binary_dilation(label > 0, iterations=_MARGIN) for label in scans.labels])
    pictured = replace(scans, images=_pictures(scans.labels))
    return search_moved(pictured, around, _pictures(released), progress, workers, by_centre=True, once=once).source


def _pictures(labels: Labels) -> Images:
    """Label maps as images of one channel: the search is blind to contrast, not to which label is which.

    Bytes still, whatever the type says: the search makes floats of what it looks at, one by one or on a coarse grid.
    """
    return cast("Images", labels[:, None])
