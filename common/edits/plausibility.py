"""Whether a body may lie where an edit puts it; if not, for which reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..counted import counted
from ..errors import DataError
from ..labels.lesion import SULCUS_MM, narrow
from .body import CRUMB_SHARE, Body, body_at, box_around, lesions_of, pieces_in, pieces_of, with_corners
from .terms import EditTerms

Reason = Literal[
    "no lesion",
    "no such part",
    "unchanged",
    "misordered",
    "outside",
    "forbidden",
    "another lesion",
    "cut off",
    "part order",
    "neighbour",
    "too small",
    "too large",
    "folded",
    "no donor lesion",
]

REASONS: dict[Reason, str] = {
    "no lesion": "a label map without the lesion or structure to edit",
    "no such part": "a lesion without the part to grow or shrink",
    "unchanged": "a part that keeps every voxel as it was",
    "misordered": "a lesion whose parts lie in another order than [labels] lesion says, most likely because its values"
    " mean something else",
    "outside": "a body pushed outside the brain or the grid",
    "forbidden": "a body over a structure that it must leave",
    "another lesion": "a lesion that meets another one",
    "cut off": "a body cut into pieces",
    "part order": "a part that would lie bare outside the one around it",
    "neighbour": "a structure that takes most of another one",
    "too small": "a body smaller than plausible",
    "too large": "a body larger than plausible",
    "folded": "a warp that folds the map",
    "no donor lesion": "a donor map without a lesion",
}


LARGEST_TAKEN = 0.5
"""Largest share of another label that an edited structure may take."""


class Implausible(DataError):
    """An edit that gives no plausible label map.

    Attributes:
        reason: Which check it failed.
        measured: What was measured, and the limit, with their units.
        operation: The edit's name in the recipe.
    """

    def __init__(self, reason: Reason, measured: str) -> None:
        super().__init__(
            f"{REASONS[reason]} ({measured})",
            expected="an edit within the recipe's [labels] and [plausible]",
            remedy="Widen or mend the recipe's ranges; docs/recipes holds examples.",
        )
        self.reason = reason
        self.measured = measured
        self.operation = ""


def ground(
    labels: NDArray[np.uint8], body: Body, terms: EditTerms, former: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where a body may lie on a label map without it: its outermost part, and its inner parts; shape (X, Y, Z) each.

    A lesion keeps to its host and to its ``former`` place, whatever was inferred to lie beneath; its core also fills
    what is forbidden and as narrow as a sulcus. A structure keeps to its ``former`` place and takes whatever else is
    neither forbidden nor lesion; one of a brain does not leave the brain.
    """
    forbidden = np.isin(labels, terms.forbidden)
    if not body.ordered:
        free = ~forbidden & ~terms.is_lesion(labels)
        if terms.is_brain:
            free &= labels != 0
        free |= former
        return free, free
    free = np.isin(labels, terms.host) | former
    box = box_around(body.whole, 2 * SULCUS_MM, terms.spacing_mm)
    fillable = free.copy()
    fillable[box] |= narrow(forbidden[box], terms.spacing_mm)
    return free, fillable


@dataclass(frozen=True, eq=False)
class Placed:
    """A body where it is wanted.

    Attributes:
        body: Its shells there, as far as the grid reaches.
        owed: Those voxels of its shells that must not be lost: all but mended cuts, shape (parts, X, Y, Z).
        intended: Voxels of each shell of ``owed`` on a grid without end.
        bare: Where its inner parts may lie bare, shape (parts, X, Y, Z): where a patient's own lesion is not nested,
            and only there, its image need not be.
    """

    body: Body
    owed: NDArray[np.bool_]
    intended: tuple[int, ...]
    bare: NDArray[np.bool_]

    @classmethod
    def as_it_lies(cls, body: Body, labels: NDArray[np.uint8], terms: EditTerms) -> Placed:
        """A body on its own label map, shape (X, Y, Z)."""
        return cls(body, body.shells, body.sizes(), body.bare(np.isin(labels, terms.host)))


def land(
    labels: NDArray[np.uint8], placed: Placed, terms: EditTerms, *, former: NDArray[np.bool_], pieces: int
) -> NDArray[np.uint8]:
    """Fit a body to the ground it comes to lie on, and judge it.

    What lies outside its ground is lost, and so are pieces that this cuts off. Where an inner part then lies bare,
    its outermost voxels become the part around it, so that necrosis stays inside enhancing tissue and that inside
    oedema. A lesion may cross the midline, as gliomas do.

    Args:
        labels: The map without the body, shape (X, Y, Z).
        placed: The body.
        terms: The recipe's.
        former: Where it lay in this map, shape (X, Y, Z); nowhere, if it is new.
        pieces: How many pieces it may consist of.

    Returns:
        The map with the body, shape (X, Y, Z).

    Raises:
        Implausible: with the reason.
    """
    body = placed.body
    free, fillable = ground(labels, body, terms, former)
    shells = body.shells & fillable
    inner = shells[1] if len(shells) > 1 else np.zeros_like(free)
    shells[0] &= free | inner
    numbers, order = pieces_of(shells[0])
    kept = np.isin(numbers, order[:pieces])
    lost_by_cut = shells & ~kept
    shells &= kept
    _judge_loss(labels, placed, shells, lost_by_cut, terms)
    landed = _in_order(body.with_shells(shells), free, placed.bare)
    _judge(labels, _in_order(body, free, placed.bare), landed, terms)
    return landed.paint(labels)


def refuse_erased(before: NDArray[np.uint8], after: NDArray[np.uint8], structure: Body, terms: EditTerms) -> None:
    """Raise Implausible where an edited structure took more than half of another label, background among them.

    Args:
        before: The map with the structure as it lay, shape (X, Y, Z).
        after: The map with the structure as it lies now.
        structure: As it lay.
        terms: The recipe's.
    """
    had, left = (np.bincount(labels.ravel(), minlength=256) for labels in (before, after))
    for value in np.flatnonzero(had):
        if value not in structure.values and left[value] < (1 - LARGEST_TAKEN) * had[value]:
            taken = had[value] - left[value]
            raise Implausible(
                "neighbour",
                f"{taken / had[value]:.1%} of label {value}, {terms.volume_in_words(int(taken))};"
                f" at most {LARGEST_TAKEN:.0%}",
            )


def land_warped(
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    anatomy: NDArray[np.uint8],
    warped: Callable[[NDArray[np.bool_]], NDArray[np.bool_]],
    terms: EditTerms,
) -> NDArray[np.uint8]:
    """Judge each lesion of a warped map, and mend its order as :func:`land` does.

    Args:
        before: The map before the warp, shape (X, Y, Z).
        after: The same warped.
        anatomy: What lies beneath the lesions of ``after``.
        warped: What a mask, shape (X, Y, Z), touches once it is warped.
        terms: The recipe's.

    Returns:
        The warped map, shape (X, Y, Z).

    Raises:
        Implausible: with the reason; also where lesions met or one of them, or of their parts, is gone.
    """
    old, count = lesions_of(before, terms)
    new = terms.is_lesion(after)
    reached = [warped(old == number + 1) & new for number in range(count)]
    for number, where in enumerate(reached):
        common = max((int((where & other).sum()) for other in reached[:number]), default=0)
        if common:
            raise Implausible("another lesion", f"{counted(common, 'voxel')} in common; at most 0")
        lay = Placed.as_it_lies(body_at(before, old == number + 1, terms.parts, ordered=True), before, terms)
        body = body_at(after, where, terms.parts, ordered=True)
        if not body.whole.any():
            raise Implausible("too small", f"{terms.volume_in_words(0)}; at least {terms.volume_ml[0]:g} ml")
        bare = np.stack([warped(mask) if mask.any() else mask for mask in lay.bare])
        placed = Placed(body, body.shells, body.sizes(), bare)
        bed = np.where(where, anatomy, after)
        after = land(bed, placed, terms, former=where, pieces=pieces_in(lay.body.whole))
        for value in terms.parts:
            if (before[old == number + 1] == value).any() and not (after[where] == value).any():
                raise Implausible("part order", f"0 voxels of label {value} are left; at least 1")
    return after


def _in_order(body: Body, surroundings: NDArray[np.bool_], bare: NDArray[np.bool_]) -> Body:
    """The body with what lies bare, and may not, given to the part around it."""
    if not body.ordered:
        return body
    shells = body.shells.copy()
    for part in range(1, len(shells)):
        shells[part] &= shells[part - 1]
        shells[part] &= ~body.with_shells(shells).bare(surroundings)[part] | bare[part]
    return body.with_shells(shells)


def _judge_loss(
    labels: NDArray[np.uint8], placed: Placed, shells: NDArray[np.bool_], cut: NDArray[np.bool_], terms: EditTerms
) -> None:
    """Neither the whole nor, for itself, its core may lose more than the recipe allows."""
    for part in range(min(2, len(shells))):
        owed, intended = placed.owed[part], placed.intended[part]
        lost = intended - int((owed & shells[part]).sum())
        if lost > terms.lost * intended:
            outside = intended - int(owed.sum()) + int((owed & ~shells[part] & (labels == 0)).sum())
            cut_off = int((cut[part] & owed).sum())
            losses: dict[Reason, int] = {"outside": outside, "forbidden": lost - outside - cut_off, "cut off": cut_off}
            worst = max(losses, key=lambda reason: losses[reason])
            raise Implausible(
                worst,
                f"{losses[worst] / intended:.1%} of {'it' if part == 0 else 'its core'},"
                f" {terms.volume_in_words(losses[worst])}; {lost / intended:.1%} lost in all, at most {terms.lost:.1%}",
            )


def _judge(labels: NDArray[np.uint8], wanted: Body, landed: Body, terms: EditTerms) -> None:
    size = landed.sizes()[0]
    if wanted.ordered:
        others = terms.is_lesion(labels)
        if others.any():
            pieces, _ = pieces_of(others)
            met = np.setdiff1d(pieces[wanted.whole | with_corners(landed.whole)], [0])
            other = int(np.isin(pieces, met).sum())
            if met.size and other >= CRUMB_SHARE * size:
                raise Implausible(
                    "another lesion",
                    f"one of {terms.volume_in_words(other)} that it touches; below {CRUMB_SHARE:.0%} of its own"
                    f" {terms.volume_in_words(size)}",
                )
    gone = wanted.shells.any(axis=(1, 2, 3)) & ~landed.shells.any(axis=(1, 2, 3))
    if size and gone.any():
        part = int(np.argmax(gone))
        raise Implausible(
            "part order",
            f"0 of {counted(wanted.sizes()[part], 'voxel')} from label {wanted.values[part]} inwards; at least 1",
        )
    low, high = terms.volume_ml
    volume = terms.millilitres(size)
    if not size or volume < low:
        raise Implausible("too small", f"{terms.volume_in_words(size)}; at least {low:g} ml")
    if volume > high:
        raise Implausible("too large", f"{terms.volume_in_words(size)}; at most {high:g} ml")
