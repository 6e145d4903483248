"""A label map in two layers: what is seen, and the anatomy that lies, or lay, under its lesions.

Where a lesion leaves, the anatomy beneath comes to light. A map that the public sampler put a tumour into
has that anatomy: the map before the tumour. Otherwise it is inferred: in a brain from the other hemisphere, which
was right more often than the nearest tissue, though little more often than plain white matter, and which misses
most fluid (docs/experiments.md, 2026-11-27); where that shows a lesion too, or lies outside the brain, and in whatever
has no hemispheres, from the nearest voxel that can hold a lesion and shows none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from .symmetry import fit_mirror_plane
from .terms import EditTerms

Beneath = Literal["known", "mirrored", "nearest"]
"""Where the anatomy under lesions comes from."""


@dataclass(frozen=True, eq=False)
class LayeredMap:
    """Both layers, on one grid.

    Attributes:
        labels: As seen, shape (X, Y, Z), uint8.
        anatomy: Without lesions, shape (X, Y, Z), uint8.
        beneath: Where ``anatomy`` comes from.
    """

    labels: NDArray[np.uint8]
    anatomy: NDArray[np.uint8]
    beneath: Beneath


def layered(labels: NDArray[np.uint8], terms: EditTerms, anatomy: NDArray[np.uint8] | None = None) -> LayeredMap:
    """Both layers of a label map.

    Args:
        labels: Shape (X, Y, Z).
        terms: Which labels are lesion.
        anatomy: The map without lesions, where its chain gives one.
    """
    known = labels if anatomy is None else anatomy
    lesion = terms.is_lesion(known)
    if not lesion.any():
        return LayeredMap(labels, known, "known")
    out = known.copy()
    missing = lesion.copy()
    brain = known != 0
    if terms.hemispheres:
        places = np.argwhere(lesion)
        mirrored = _across(known, terms, brain, places)
        seen = (mirrored != 0) & ~terms.is_lesion(mirrored)
        out[tuple(places[seen].T)] = mirrored[seen]
        missing[tuple(places[seen].T)] = False
    # Tissue that can hold a lesion did so: a lake of fluid, if the nearest voxel is one, is unlikely beneath.
    tissue = np.isin(out, terms.host) & ~missing
    around = tissue if tissue.any() else ~missing
    if missing.any() and around.any():
        nearest = distance_transform_edt(
            ~around, sampling=terms.spacing_mm, return_distances=False, return_indices=True
        )
        out[missing] = out[tuple(axis[missing] for axis in nearest)]
    elif missing.any():
        out[missing] = 0
    return LayeredMap(labels, out, "mirrored" if terms.hemispheres else "nearest")


def _across(
    labels: NDArray[np.uint8], terms: EditTerms, brain: NDArray[np.bool_], places: NDArray[np.intp]
) -> NDArray[np.uint8]:
    """The label at each place's mirror image, shape (n,); 0 outside the grid."""
    centre, spacing = (np.array(labels.shape) - 1) / 2, np.asarray(terms.spacing_mm)
    points = (places - centre) * spacing
    there = np.round(fit_mirror_plane(brain, terms.spacing_mm).reflect(points) / spacing + centre).astype(int)
    inside = ((there >= 0) & (there < labels.shape)).all(axis=1)
    out = np.zeros(len(places), dtype=np.uint8)
    out[inside] = labels[tuple(there[inside].T)]
    return out
