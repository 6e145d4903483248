"""A body: the lesion or structure that an edit takes hold of, as nested shells of voxels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects, generate_binary_structure
from scipy.ndimage import label as connected_parts

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


def lesions_of(labels: NDArray[np.uint8], terms: EditTerms) -> list[NDArray[np.bool_]]:
    """Every lesion of a map, the largest first, each a mask of shape (X, Y, Z).

    A lesion is what hangs together over faces, edges or corners, whatever its parts, with the crumbs around it.
    """
    pieces, count = connected_parts(terms.is_lesion(labels), _CORNERS)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    boxes = find_objects(pieces)
    order = sorted(range(1, count + 1), key=lambda number: (-sizes[number - 1], number))
    owner: dict[int, list[int]] = {}
    for number in order:
        larger = [o for o in owner if sizes[number - 1] < CRUMB_SHARE * sizes[o - 1]]
        near = [(gap, o) for o in larger if (gap := _gap(pieces, boxes, o, number, terms.spacing_mm)) <= CRUMB_MM]
        owner.setdefault(min(near)[1] if near else number, []).append(number)
    return [np.isin(pieces, numbers) for numbers in owner.values()]


def _gap(
    pieces: NDArray[np.signedinteger], boxes: list[tuple[slice, ...]], one: int, other: int, spacing_mm: Spacing
) -> float:
    """Millimetres between the voxels of two pieces."""
    box = tuple(
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(boxes[one - 1], boxes[other - 1], strict=True)
    )
    away = distance_transform_edt(pieces[box] != one, sampling=spacing_mm)
    return float(away[pieces[box] == other].min())


def pieces_of(mask: NDArray[np.bool_]) -> tuple[NDArray[np.signedinteger], NDArray[np.intp]]:
    """Pieces that hang together over faces, edges or corners, numbered from 1, and the numbers by falling size."""
    pieces, count = connected_parts(mask, _CORNERS)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    return pieces, np.lexsort((np.arange(count), -sizes)) + 1


def pieces_in(mask: NDArray[np.bool_]) -> int:
    """How many pieces a mask, shape (X, Y, Z), consists of."""
    return int(connected_parts(mask, _CORNERS)[1])


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
