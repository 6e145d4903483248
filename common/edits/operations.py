"""What can be done to a label map: concrete operations, and how each is applied.

Nothing here is drawn: :mod:`.draw` turns a recipe's ranges into these operations, and an edited map's chain records
them. Motion is rigid but for its factor; tissue around a lesion does not give way to it (no mass effect).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates

from ..counted import counted
from ..errors import DataError
from ..labels.deformation import AffineParameters, DiffeomorphismParameters, Triple, sampling_points, warp_labels
from ..labels.lesion import LesionParameters, insert_lesion
from .body import Body, body_at, box_around, lesions_of, pieces_in, with_neighbours
from .carriage import carry, centroid_mm
from .layered import LayeredMap
from .part_order import refuse_misordered
from .plausibility import Implausible, Placed, ground, land, land_warped, refuse_erased
from .surface import distance_to_surface
from .symmetry import fit_mirror_plane
from .terms import EditTerms

HOLLOW_MM = 8.0
"""Half the width of a hollow that is closed when a lesion is carried off; a ventricle's horn is as wide."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The body an operation takes hold of.

    Attributes:
        lesion: Number of the lesion, 0 the largest; -1 all together.
        structure: Label values of a structure; empty for a lesion.
    """

    lesion: int
    structure: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Resized, then turned about X, Y and Z, both about the body's centroid, then shifted."""

    operation: Literal["motion"] = "motion"
    target: Target
    factor: float
    rotation_deg: Triple
    shift_mm: Triple


@dataclass(frozen=True, kw_only=True)
class Reflection:
    """Into the other hemisphere."""

    operation: Literal["reflection"] = "reflection"
    target: Target


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Taken out."""

    operation: Literal["removal"] = "removal"
    target: Target


@dataclass(frozen=True, kw_only=True)
class Resizing:
    """A part's surface moved outwards or, where ``distance`` is negative, inwards.

    Attributes:
        part: Position of the part in the recipe's lesion, 0 the outermost; 0 of a structure.
        distance: In ``unit``.
    """

    operation: Literal["resizing"] = "resizing"
    target: Target
    part: int
    distance: float
    unit: Literal["mm", "voxels"]


@dataclass(frozen=True, kw_only=True)
class Insertion:
    """A procedural tumour."""

    operation: Literal["insertion"] = "insertion"
    lesion: LesionParameters


@dataclass(frozen=True, kw_only=True)
class Transplantation:
    """A donor's lesion.

    Attributes:
        target: In the donor.
        centre_mm: Where its centroid comes to lie, from the grid's centre; None: where it lay in the donor.
    """

    operation: Literal["transplantation"] = "transplantation"
    target: Target
    centre_mm: Triple | None


@dataclass(frozen=True, kw_only=True)
class Deformation:
    """The whole map warped."""

    operation: Literal["deformation"] = "deformation"
    warp: DiffeomorphismParameters


Operation = Motion | Reflection | Removal | Resizing | Insertion | Transplantation | Deformation


def apply_operation(
    state: LayeredMap, operation: Operation, terms: EditTerms, donor: NDArray[np.uint8] | None = None
) -> LayeredMap:
    """Apply one operation.

    Args:
        state: The map.
        operation: What to do.
        terms: The recipe's.
        donor: The donor's label map, shape (X, Y, Z), for a transplantation.

    Raises:
        Implausible: it gives no plausible map.
    """
    match operation:
        case Motion():
            return _edit_body(state, operation.target, terms, lambda body, _: _moved(body, state, operation, terms))
        case Reflection():
            plane = fit_mirror_plane(state.labels != 0, terms.spacing_mm)
            offset = 2 * plane.offset_mm * plane.normal()
            return _edit_body(
                state,
                operation.target,
                terms,
                lambda body, _: _carried(body, state.labels, plane.matrix(), offset, terms),
            )
        case Resizing():
            return _with_part_resized(state, operation, terms)
        case Removal():
            body = body_of(state.labels, operation.target, terms)
            return replace(state, labels=np.where(body.whole, state.anatomy, state.labels))
        case Insertion():
            return _inserted(state, operation.lesion, terms)
        case Transplantation():
            return _transplanted(state, operation, terms, donor)
        case Deformation():
            return _deformed(state, operation.warp, terms)


def body_of(labels: NDArray[np.uint8], target: Target, terms: EditTerms) -> Body:
    """The body an operation takes hold of.

    A lesion has the parts that it shows: one without an enhancing rim gets none by being carried off or grown.

    Raises:
        Implausible: there is none.
    """
    if target.structure:
        where = np.isin(labels, target.structure)
        if not where.any():
            raise Implausible("no lesion", "0 voxels of the structure; at least 1")
        return body_at(labels, where, target.structure, ordered=False)
    lesions, count = lesions_of(labels, terms)
    if not count or target.lesion >= count:
        raise Implausible("no lesion", f"{counted(count, 'lesion')}; at least {max(target.lesion, 0) + 1}")
    where = lesions > 0 if target.lesion < 0 else lesions == target.lesion + 1
    parts = tuple(value for value in terms.parts if (labels[where] == value).any())
    return body_at(labels, where, parts, ordered=True)


_Change = Callable[[Placed, NDArray[np.uint8]], Placed]
"""From a body as it lies, and the map without it."""


def _edit_body(state: LayeredMap, target: Target, terms: EditTerms, change: _Change) -> LayeredMap:
    """Take a body out, change it, and put it back."""
    if target.structure:  # is part of the anatomy; lesions stay on top of it
        body = body_of(state.anatomy, target, terms)
        bed = _closed(state.anatomy, body.whole, terms)
        anatomy = _changed(bed, body, state.anatomy, terms, change)
        lesion = terms.is_lesion(state.labels)
        return replace(state, labels=np.where(lesion, state.labels, anatomy), anatomy=anatomy)
    body = body_of(state.labels, target, terms)
    bed = np.where(body.whole, state.anatomy, state.labels)
    return replace(state, labels=_changed(bed, body, state.labels, terms, change))


def _changed(
    bed: NDArray[np.uint8], body: Body, labels: NDArray[np.uint8], terms: EditTerms, change: _Change
) -> NDArray[np.uint8]:
    placed = change(Placed.as_it_lies(body, labels, terms), bed)
    landed = land(bed, placed, terms, former=body.whole, pieces=pieces_in(body.whole))
    if not body.ordered:
        refuse_erased(labels, landed, body, terms)
    return landed


def _closed(labels: NDArray[np.uint8], hole: NDArray[np.bool_], terms: EditTerms) -> NDArray[np.uint8]:
    """A label map whose hole is filled with the nearest label around it."""
    if hole.all():
        return np.zeros_like(labels)
    nearest = distance_transform_edt(hole, sampling=terms.spacing_mm, return_distances=False, return_indices=True)
    return np.asarray(labels[tuple(nearest)])


def _moved(lying: Placed, state: LayeredMap, motion: Motion, terms: EditTerms) -> Placed:
    scale = (motion.factor, motion.factor, motion.factor)
    matrix = AffineParameters(rotation_deg=motion.rotation_deg, scale=scale, shift_mm=motion.shift_mm).matrix()
    centre = centroid_mm(lying.body.whole, terms.spacing_mm)
    return _carried(lying, state.labels, matrix, centre - matrix @ centre + motion.shift_mm, terms)


def _carried(
    lying: Placed,
    labels: NDArray[np.uint8],
    matrix: NDArray[np.float64],
    offset_mm: NDArray[np.float64],
    terms: EditTerms,
) -> Placed:
    """A body carried off its own label map."""
    wanted = round(abs(float(np.linalg.det(matrix))) * int(lying.body.whole.sum()))
    if wanted > labels.size:  # before a grid is made that holds it
        told = f"{terms.volume_in_words(wanted)}; at most the grid's {terms.volume_in_words(labels.size)}"
        raise Implausible("outside", told)
    shells, intended = carry(lying.body.shells, terms.spacing_mm, matrix, offset_mm)
    mended, _ = carry(_mended(lying.body, labels, terms), terms.spacing_mm, matrix, offset_mm)
    bare = lying.bare.copy()
    bare[0] = lying.body.whole  # the first mask holds the others
    reached, _ = carry(bare, terms.spacing_mm, matrix, offset_mm, touched=True)
    return Placed(lying.body.with_shells(mended | shells), shells, intended, reached)


def _mended(body: Body, labels: NDArray[np.uint8], terms: EditTerms) -> NDArray[np.bool_]:
    """The shells without the hollows that fluid or the brain's surface left in them: elsewhere nothing is there.

    Such a hollow was tumour that anatomy held off; carried along, it would be a hole of healthy tissue.
    """
    shells = body.shells.copy()
    if not body.ordered:
        return shells
    anatomy = ~np.isin(labels, terms.host) & ~terms.is_lesion(labels)
    box = box_around(body.whole, HOLLOW_MM, terms.spacing_mm)
    for part in range(min(2, len(shells))):
        small = shells[part][box]
        if small.any():
            wide = distance_transform_edt(~small, sampling=terms.spacing_mm) <= HOLLOW_MM
            closed = distance_transform_edt(np.pad(wide, 1, mode="edge"), sampling=terms.spacing_mm)[1:-1, 1:-1, 1:-1]
            shells[part][box] |= (closed > HOLLOW_MM) & anatomy[box]
    return shells


def _with_part_resized(state: LayeredMap, resizing: Resizing, terms: EditTerms) -> LayeredMap:
    """The map with another surface of one part.

    Raises:
        Implausible: the body has no such part, or the part keeps its voxels, and whatever else its order asks for.
    """
    values = resizing.target.structure or terms.parts
    value = values[resizing.part]

    def change(lying: Placed, bed: NDArray[np.uint8]) -> Placed:
        if value not in lying.body.values:
            raise Implausible("no such part", f"0 voxels of label {value}; at least 1")
        return _resized(lying, bed, lying.body.values.index(value), resizing, terms)

    after = _edit_body(state, resizing.target, terms, change)
    if np.array_equal(after.labels == value, state.labels == value):
        kept = counted(int((state.labels == value).sum()), "voxel")
        raise Implausible("unchanged", f"0 voxels beside the {kept} of label {value} gained or lost; at least 1")
    return after


def _resized(lying: Placed, bed: NDArray[np.uint8], part: int, resizing: Resizing, terms: EditTerms) -> Placed:
    """A body with another surface of the part at a position; what is around the part gives way to it alone."""
    sampling = terms.spacing_mm if resizing.unit == "mm" else (1.0, 1.0, 1.0)
    body = lying.body
    shells = body.shells.copy()
    within = distance_to_surface(shells[part], sampling, max(resizing.distance, 0)) < resizing.distance
    if resizing.distance < 0:
        if part + 1 < len(shells):
            within |= with_neighbours(shells[part + 1])
        shells[part] &= within
    else:
        free, fillable = ground(bed, body, terms, body.whole)
        shells[part] |= within & (fillable if part else free)
        for outer in range(part - 1, -1, -1):
            # Only around what is new: where a part lay bare before, nobody asked to cover it.
            new = shells[outer + 1] & ~body.shells[outer + 1]
            shells[outer] |= new | (with_neighbours(new) & free)
    resized = body.with_shells(shells)
    return replace(lying, body=resized, owed=shells, intended=resized.sizes())


def _inserted(state: LayeredMap, lesion: LesionParameters, terms: EditTerms) -> LayeredMap:
    assert terms.brain is not None  # noqa: S101  # edit_terms gives it to every recipe that inserts
    offsets = [
        (np.arange(n) - (n - 1) / 2) * mm - centre
        for n, mm, centre in zip(state.labels.shape, terms.spacing_mm, lesion.centre_mm, strict=True)
    ]
    distance = np.sqrt(sum(o**2 for o in np.meshgrid(*offsets, indexing="ij", sparse=True)))
    ball = (distance < lesion.radius_mm) & (state.labels != 0)
    full = 4 / 3 * np.pi * (lesion.radius_mm / 10) ** 3
    outside = 1 - terms.millilitres(int(ball.sum())) / full
    if not ball.any() or outside > terms.lost:
        raise Implausible("outside", f"{outside:.1%} of its {full:.3g} ml; at most {terms.lost:.1%}")
    middle = int(state.labels.flat[distance.argmin()])
    if middle not in terms.host:
        hosts = " or ".join(map(str, terms.host))
        raise Implausible("forbidden", f"its centre on label {middle}; label {hosts} is its host")
    painted = insert_lesion(state.labels, lesion, terms.spacing_mm, terms.brain)
    new = painted != state.labels
    lying = Placed.as_it_lies(body_at(painted, new, terms.parts, ordered=True), painted, terms)
    labels = land(state.labels, lying, terms, former=np.zeros_like(new), pieces=1)
    return replace(state, labels=labels)


def _transplanted(
    state: LayeredMap, operation: Transplantation, terms: EditTerms, donor: NDArray[np.uint8] | None
) -> LayeredMap:
    if donor is None:
        raise DataError(
            "a recipe that transplants a lesion, without a donor",
            expected="label maps with lesions to take",
            remedy="Name them with --donors.",
        )
    refuse_misordered(donor, terms)
    try:
        body = body_of(donor, operation.target, terms)
    except Implausible as refused:
        raise Implausible("no donor lesion", refused.measured) from None
    here = centroid_mm(body.whole, terms.spacing_mm)
    shift = np.zeros(3) if operation.centre_mm is None else np.asarray(operation.centre_mm) - here
    placed = _carried(Placed.as_it_lies(body, donor, terms), donor, np.eye(3), shift, terms)
    nowhere = np.zeros_like(body.whole)
    labels = land(state.labels, placed, terms, former=nowhere, pieces=pieces_in(body.whole))
    return replace(state, labels=labels)


def _deformed(state: LayeredMap, warp: DiffeomorphismParameters, terms: EditTerms) -> LayeredMap:
    still = AffineParameters(rotation_deg=(0, 0, 0), scale=(1, 1, 1), shift_mm=(0, 0, 0))
    try:
        labels, anatomy = (warp_labels(layer, terms.spacing_mm, still, warp) for layer in (state.labels, state.anatomy))
    except DataError:
        told = f"{warp.displacement_mm:g} mm over {warp.smoothness_mm:g} mm; a Jacobian determinant above 0 everywhere"
        raise Implausible("folded", told) from None
    if terms.is_lesion(state.labels).any():
        points = sampling_points(_shape(labels), terms.spacing_mm, still, warp)

        def touched(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
            share = map_coordinates(mask.astype(np.float32), points, order=1, mode="nearest")
            return np.asarray(share > 0)

        labels = land_warped(state.labels, labels, anatomy, touched, terms)
    return replace(state, labels=labels, anatomy=anatomy)


def _shape(labels: NDArray[np.uint8]) -> tuple[int, int, int]:
    x, y, z = labels.shape
    return x, y, z
