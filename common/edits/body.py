"""A body: the lesion or structure that an edit takes hold of, as nested shells of voxels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, find_objects, generate_binary_structure
from scipy.ndimage import label as connected_parts
from scipy.spatial import KDTree

from ..volumes.grid import Spacing
from .terms import EditTerms

CRUMB_SHARE, CRUMB_MM = 0.05, 20.0
"""A piece smaller than this share of a lesion, and no farther from it, belongs to it: sulci and ventricles cut such
crumbs off."""

_CORNERS = generate_binary_structure(3, 3)


@dataclass(frozen=True, eq=False)
class Body:
    """Nested shells.

    Attributes:
        shells: Shape (parts, X, Y, Z), bool; each shell lies in the one before and holds the parts from its own
            inwards. ``shells[0]`` is the whole body.
        values: Label value of each part, outermost first.
        ordered: Whether its parts must stay inside one another, as a tumour's do.
    """

    shells: NDArray[np.bool_]
    values: tuple[int, ...]
    ordered: bool

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Shape (X, Y, Z)."""
        return np.asarray(self.shells[0])

    def sizes(self) -> tuple[int, ...]:
        """Voxels of each shell."""
        return tuple(int(shell.sum()) for shell in self.shells)

    def with_shells(self, shells: NDArray[np.bool_]) -> Body:
        """The same parts elsewhere."""
        return replace(self, shells=shells)

    def paint(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of a label map, shape (X, Y, Z), with the body in it."""
        out = labels.copy()
        for shell, value in zip(self.shells, self.values, strict=True):
            out[shell] = value
        return out

    def bare(self, surroundings: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Where a part touches what it must not, shape (parts, X, Y, Z).

        The first part may touch anything. The second must not touch ``surroundings``, the tissue that the first one
        should cover it from; fluid and the brain's surface it may. Parts further in touch only the one around them.
        """
        out = np.zeros_like(self.shells)
        for inner in range(1, len(self.shells)):
            outside = ~self.shells[inner - 1] & (surroundings if inner == 1 else True)
            out[inner] = self.shells[inner] & with_neighbours(outside)
        return out


def body_at(labels: NDArray[np.uint8], where: NDArray[np.bool_], values: tuple[int, ...], *, ordered: bool) -> Body:
    """The body of these label values in a region, both of shape (X, Y, Z)."""
    shells = [where & np.isin(labels, values[inner:]) for inner in range(len(values))]
    return Body(np.stack(shells), values, ordered)


def lesions_of(labels: NDArray[np.uint8], terms: EditTerms) -> tuple[NDArray[np.signedinteger], int]:
    """Every lesion of a map.

    A lesion is what hangs together over faces, edges or corners, whatever its parts, with the crumbs around it.

    Returns:
        Numbers, shape (X, Y, Z): 0 where there is none, 1 for the largest; and how many there are.
    """
    pieces, order = pieces_of(terms.is_lesion(labels))
    boxes = find_objects(pieces)
    places = {number: _places_mm(pieces, boxes[number - 1], number, terms.spacing_mm) for number in order}
    trees: dict[int, KDTree] = {}  # of every lesion found so far
    owner = np.zeros(len(order) + 1, dtype=np.int32)
    for number in order:
        points = places[number]
        gaps = {
            found: float(np.min(tree.query(points)[0]))
            for found, tree in trees.items()
            if len(points) < CRUMB_SHARE * tree.n
        }
        near = min(gaps, key=lambda found: gaps[found]) if gaps else 0
        if near and gaps[near] <= CRUMB_MM:
            owner[number] = near
        else:
            owner[number] = len(trees) + 1
            trees[len(trees) + 1] = KDTree(points)
    return owner[pieces], len(trees)


def _places_mm(
    pieces: NDArray[np.signedinteger], box: tuple[slice, ...], number: int, spacing_mm: Spacing
) -> NDArray[np.float64]:
    """Places of a piece's voxels, shape (n, 3)."""
    corner = [part.start for part in box]
    return np.asarray((np.argwhere(pieces[box] == number) + corner) * spacing_mm, dtype=np.float64)


def pieces_of(mask: NDArray[np.bool_]) -> tuple[NDArray[np.signedinteger], NDArray[np.intp]]:
    """Pieces that hang together over faces, edges or corners, numbered from 1, and the numbers by falling size."""
    pieces, count = connected_parts(mask, _CORNERS)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    return pieces, np.lexsort((np.arange(count), -sizes)) + 1


def pieces_in(mask: NDArray[np.bool_]) -> int:
    """How many pieces a mask, shape (X, Y, Z), consists of."""
    return int(connected_parts(mask, _CORNERS)[1])


def with_corners(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask, shape (X, Y, Z), and what touches it over a face, an edge or a corner."""
    return np.asarray(binary_dilation(mask, _CORNERS), dtype=np.bool_)


def box_around(mask: NDArray[np.bool_], margin_mm: float, spacing_mm: Spacing) -> tuple[slice, ...]:
    """The part of the grid around a mask, shape (X, Y, Z), with at least this margin; empty for an empty mask."""
    if not mask.any():
        return tuple(slice(0, 0) for _ in mask.shape)
    margins = [int(margin_mm / mm) + 2 for mm in spacing_mm]
    places = np.nonzero(mask)
    return tuple(slice(max(0, int(i.min()) - m), int(i.max()) + 1 + m) for i, m in zip(places, margins, strict=True))


def with_neighbours(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask, shape (X, Y, Z), and what touches it over a face."""
    out = mask.copy()
    out[1:] |= mask[:-1]
    out[:-1] |= mask[1:]
    out[:, 1:] |= mask[:, :-1]
    out[:, :-1] |= mask[:, 1:]
    out[..., 1:] |= mask[..., :-1]
    out[..., :-1] |= mask[..., 1:]
    return out
