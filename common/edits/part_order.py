"""Whether a map's lesions have their parts in the recipe's order: wrong label numbers make another one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .plausibility import Implausible
from .terms import EditTerms

MOST_BARE = 1 / 3
"""Largest share of an inner part's surface that may lie against healthy tissue, unless the parts around it lie bare as
well. In two real tumours at 1 to 6 mm no inner part had more than .20, and .48 and more of the oedema; in procedural
ones .35 (6 mm) beside .69 to .79."""
LEAST_AROUND = 0.02
"""Parts that should lie around another, and are less than this share of all lesions, tell nothing: a tumour without
oedema has specks of it."""


def refuse_misordered(labels: NDArray[np.uint8], terms: EditTerms) -> None:
    """Find that no inner part lies where an outer one should: outside, against healthy tissue.

    It may touch it, and a patient's necrosis lie against oedema or a part be missing. Refused is a part whose surface
    lies against healthy tissue by more than :data:`MOST_BARE`, where the parts that should lie around it do so by less
    than half as much. All lesions of a map are judged together: what their numbers mean is the same in all.

    Args:
        labels: Shape (X, Y, Z).
        terms: The recipe's parts and host.

    Raises:
        Implausible: one does.
    """
    host, lesion = np.isin(labels, terms.host), int(terms.is_lesion(labels).sum())
    for inner in range(1, len(terms.parts)):
        around = np.isin(labels, terms.parts[:inner])
        if around.sum() < LEAST_AROUND * lesion:
            continue
        bare, covering = _share_against(labels == terms.parts[inner], host), _share_against(around, host)
        if bare > MOST_BARE and covering < bare / 2:
            outer = " and ".join(map(str, terms.parts[:inner]))
            raise Implausible(
                "misordered",
                f"{bare:.1%} of the surface of label {terms.parts[inner]} lies against healthy tissue, and"
                f" {covering:.1%} of that of label {outer}, which should lie around it; at most {MOST_BARE:.1%}, or"
                " twice the latter",
            )


def _share_against(mask: NDArray[np.bool_], host: NDArray[np.bool_]) -> float:
    """Share of a mask's faces, those at the grid's end left out, behind which the other mask lies; 0 without a face."""
    faces = against = 0
    for axis in range(mask.ndim):
        one, other = np.moveaxis(mask, axis, 0), np.moveaxis(host, axis, 0)
        faces += int((one[1:] != one[:-1]).sum())
        against += int((one[1:] & other[:-1]).sum()) + int((one[:-1] & other[1:]).sum())
    return against / faces if faces else 0.0
