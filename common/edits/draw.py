"""From a recipe's ranges to concrete operations: chance is here, deed is in :mod:`.operations`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..labels.deformation import DiffeomorphismParameters, Triple
from ..labels.lesion import LesionParameters, Range, draw_place
from ..labels.recipe import (
    Deform,
    Edit,
    Grow,
    Insert,
    Mirror,
    Move,
    Pair,
    Remove,
    Rotate,
    Scale,
    Shrink,
    Transplant,
)
from .body import lesions_of
from .layered import LayeredMap
from .operations import (
    Deformation,
    Insertion,
    Motion,
    Operation,
    Reflection,
    Removal,
    Resizing,
    Target,
    Transplantation,
)
from .plausibility import Implausible
from .terms import EditTerms

_Which = Literal["largest", "random", "all"]
_Moving = Move | Scale | Rotate


def grouped(edits: Sequence[Edit]) -> Iterator[tuple[Edit, ...]]:
    """A recipe's edits in order; moves, scalings and rotations of one body that follow each other in one group."""
    group: list[Edit] = []
    for edit in edits:
        if group and not _joins(group, edit):
            yield tuple(group)
            group = []
        group.append(edit)
    if group:
        yield tuple(group)


def _joins(group: Sequence[Edit], edit: Edit) -> bool:
    first = group[0]
    return (
        isinstance(first, _Moving)
        and isinstance(edit, _Moving)
        and (first.lesion, first.structure) == (edit.lesion, edit.structure)
        and edit.operation not in {other.operation for other in group}
    )


def draw_operation(
    rng: np.random.Generator,
    group: Sequence[Edit],
    state: LayeredMap,
    terms: EditTerms,
    donor: NDArray[np.uint8] | None = None,
) -> Operation | None:
    """Draw one operation.

    Args:
        rng: Source of chance.
        group: As :func:`grouped` gives it.
        state: The map as it is by now; lesions are counted on it.
        terms: The recipe's.
        donor: The donor's label map, shape (X, Y, Z), for a transplantation.

    Returns:
        None where the edit's probability leaves it out, or all lesions of a healthy map are to be removed.

    Raises:
        Implausible: there is nothing to take hold of.
    """
    made = [rng.random() < edit.probability for edit in group]
    edit = group[0]
    if not any(made):
        return None
    match edit:
        case Move() | Scale() | Rotate():
            return _motion(rng, [e for e, wanted in zip(group, made, strict=True) if wanted], edit, state, terms)
        case Mirror():
            return Reflection(target=_target(rng, edit.lesion, state.labels, terms))
        case Remove(lesion="all") if not terms.is_lesion(state.labels).any():
            return None
        case Remove():
            return Removal(target=_target(rng, edit.lesion, state.labels, terms))
        case Grow() | Shrink():
            return _resizing(rng, edit, state, terms)
        case Insert():
            return Insertion(lesion=_lesion(rng, edit, state, terms))
        case Transplant():
            none = np.zeros_like(state.labels)
            target = _target(rng, edit.lesion, none if donor is None else donor, terms, of_donor=True)
            centre = _centre(rng, edit, terms.host, edit.depth_mm, state, terms)
            return Transplantation(target=target, centre_mm=centre)
        case Deform():
            return Deformation(
                warp=DiffeomorphismParameters(
                    displacement_mm=_between(rng, edit.displacement_mm),
                    smoothness_mm=_between(rng, edit.smoothness_mm),
                    seed=int(rng.integers(2**63)),
                )
            )


def _motion(
    rng: np.random.Generator, edits: Sequence[Edit], first: _Moving, state: LayeredMap, terms: EditTerms
) -> Motion:
    structure = tuple(terms.labels[name] for name in first.structure)
    target = Target(lesion=0, structure=structure) if structure else _target(rng, first.lesion, state.labels, terms)
    factor, turn, shift = 1.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    for edit in edits:
        match edit:
            case Scale():
                factor = _between(rng, edit.factor)
            case Rotate():
                turn = _point(rng, edit.degrees)
            case Move(voxels=None, mm=(_, _, _) as ranges):
                shift = _point(rng, ranges)
            case Move(voxels=(_, _, _) as ranges):
                steps = [int(rng.integers(int(low), int(high) + 1)) for low, high in ranges]
                x, y, z = (step * mm for step, mm in zip(steps, terms.spacing_mm, strict=True))
                shift = (x, y, z)
    return Motion(target=target, factor=factor, rotation_deg=turn, shift_mm=shift)


def _resizing(rng: np.random.Generator, edit: Grow | Shrink, state: LayeredMap, terms: EditTerms) -> Resizing:
    value = terms.labels[edit.part]
    of_lesion = value in terms.parts
    target = _target(rng, edit.lesion, state.labels, terms) if of_lesion else Target(lesion=0, structure=(value,))
    length = edit.mm or edit.voxels
    assert length is not None  # noqa: S101  # the recipe holds one of them
    distance = _between(rng, length)
    return Resizing(
        target=target,
        part=terms.parts.index(value) if of_lesion else 0,
        distance=distance if isinstance(edit, Grow) else -distance,
        unit="mm" if edit.mm else "voxels",
    )


def _lesion(rng: np.random.Generator, edit: Insert, state: LayeredMap, terms: EditTerms) -> LesionParameters:
    ranges = terms.ranges
    assert terms.brain is not None  # noqa: S101  # edit_terms gives it to every recipe that inserts
    centre = _centre(rng, edit, (terms.brain.white,), edit.depth_mm or ranges.depth_mm, state, terms)
    assert centre is not None  # noqa: S101  # a depth was given
    return LesionParameters(
        centre_mm=centre,
        radius_mm=_between(rng, edit.radius_mm or ranges.radius_mm),
        core_share=_between(rng, edit.core_share or ranges.core_share),
        necrosis_share=_between(rng, edit.necrosis_share or ranges.necrosis_share),
        irregularity=_between(rng, edit.irregularity or ranges.irregularity),
        seed=int(rng.integers(2**63)),
    )


def _centre(
    rng: np.random.Generator,
    edit: Insert | Transplant,
    tissue: tuple[int, ...],
    depth_mm: Range | None,
    state: LayeredMap,
    terms: EditTerms,
) -> Triple | None:
    """A named place as it is, else one in this tissue so deep, in the study's box; None where neither is given."""
    if edit.centre_mm:
        return _point(rng, edit.centre_mm)
    if edit.centre_voxels:
        place = (_point(rng, edit.centre_voxels) - (np.array(state.labels.shape) - 1) / 2) * terms.spacing_mm
        return float(place[0]), float(place[1]), float(place[2])
    if depth_mm is None:
        return None
    where = np.isin(state.labels, tissue)
    if not where.any():
        raise Implausible("outside", "0 voxels of the tissue to lie in; at least 1")
    return draw_place(rng, where, state.labels != 0, terms.spacing_mm, depth_mm, terms.ranges.centre_mm)


def _target(
    rng: np.random.Generator, which: _Which, labels: NDArray[np.uint8], terms: EditTerms, *, of_donor: bool = False
) -> Target:
    _, count = lesions_of(labels, terms)
    if not count:
        raise Implausible("no donor lesion" if of_donor else "no lesion", "0 lesions; at least 1")
    match which:
        case "largest":
            return Target(lesion=0)
        case "all":
            return Target(lesion=-1)
        case "random":
            return Target(lesion=int(rng.integers(count)))


def _between(rng: np.random.Generator, pair: Pair) -> float:
    return float(rng.uniform(*pair))


def _point(rng: np.random.Generator, ranges: tuple[Pair, Pair, Pair]) -> Triple:
    x, y, z = (_between(rng, pair) for pair in ranges)
    return x, y, z
