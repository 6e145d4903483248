"""Whether a scan of a head could still show a face.

97 % of head scans were matched to photographs of their subjects (Schwarz et al. 2021, PRIVACY §5). A face cannot be
recognised here, but its removal can: tools that strip a skull or remove a face put one and the same value where tissue
was, which noise never does. So a scan is taken as one without a face only where this can be shown from its voxels, and
everything else, a knee too, is "not shown".

What it rests on was measured (docs/dicom.md). It does not see a face put there by a tool that replaces one
(mri_reface), teeth, ears, or a face in a scan narrower than :data:`SMALL_MM`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, label

from .grid import Affine, Spacing
from .placement import to_canonical

FaceFinding = Literal[
    "too small for a head", "skull-stripped", "defaced", "nothing beyond the brain of its label map", "not shown"
]
NOT_SHOWN: FaceFinding = "not shown"
"""A face may be there."""

SMALL_MM = 90.0
"""A field of view shorter than this along every axis holds no face from brow to chin (about 120 mm)."""
_LARGEST_BRAIN_ML = 2300.0
_LEAST_BRAIN_ML = 200.0
_CUT_CM2 = 25.0
"""A brainstem cut through has about 10; a neck 100, a head cut through 200."""
_STEM_LEVEL, _STEM_SET_BACK = 0.9, 0.2
"""At nine tenths of a brain's height are brainstem and cerebellum, a fifth of its length or more behind the front."""
_SHELL_SHARE = 0.25
_SCALP_MM, _SKULL_MM, _DEPTH_MM = 15, 3, 45
"""Bright, then dark for at least so long, then bright again, all within the depth: scalp, skull, brain."""
_DARK = 0.35
"""Of the median distance from the background's value; skull has less in every usual contrast."""
_RAYS = 600
_BEYOND_MM = 12.0
"""From a brain to the skin of the forehead; nose, cheeks, mouth and chin lie farther off."""

_HEAD_WIDTH_MM = (90.0, 175.0)
_FOREHEAD = (0.2, 0.55)
_FACE = (0.8, 0.97)
"""Levels below the top of the head in head widths: forehead; lower lid to upper lip, at whatever pitch up to 20°."""
_SET_BACK, _ACROSS = 0.16, 0.39
"""What a defacing tool leaves stays so far behind the forehead, over so much of the width."""
_PROFILE = 0.33
_WORKING_MM = 2.0


def face_finding(voxels: NDArray[np.float32], affine: Affine) -> FaceFinding:
    """Judge one scan.

    Args:
        voxels: Intensities, shape (X, Y, Z), finite, any unit.
        affine: Voxel to world, shape (4, 4), RAS+, millimetres; the patient lies as it says.

    Returns:
        Why there can be no face, or "not shown".

    Raises:
        GeometryError: as :func:`~fedphantom.common.volumes.placement.to_canonical`.
    """
    turned, spacing = to_canonical(voxels, affine)
    if all(n * mm < SMALL_MM for n, mm in zip(turned.shape, spacing, strict=True)):
        return "too small for a head"
    steps = [max(1, int(_WORKING_MM / mm)) for mm in spacing]
    coarse = np.ascontiguousarray(turned[:: steps[0], :: steps[1], :: steps[2]])
    size = (spacing[0] * steps[0], spacing[1] * steps[1], spacing[2] * steps[2])
    if _is_stripped(coarse, size):
        return "skull-stripped"
    return "defaced" if _is_defaced(coarse, size) else "not shown"


def painted_face_finding(voxels: NDArray[np.float32], labels: NDArray[np.uint8], affine: Affine) -> FaceFinding:
    """Judge one scan that was painted over a label map.

    A generator paints no background of one value, as stripping leaves it, but a faint rim. So a volume is also taken
    as one without a face where its labels are a brain, of size and shape as :func:`face_finding` knows a stripped one,
    and nothing as bright as tissue lies more than 12 mm beyond them.

    Args:
        voxels: Intensities, shape (X, Y, Z), finite, any unit.
        labels: On the same grid; 0 is background.
        affine: Voxel to world, shape (4, 4), RAS+, millimetres.

    Raises:
        GeometryError: as :func:`face_finding`.
    """
    finding = face_finding(voxels, affine)
    labelled = labels != 0
    if finding != NOT_SHOWN or face_finding(labelled.astype(np.float32), affine) != "skull-stripped":
        return finding
    values, counts = np.unique(_sides(voxels), return_counts=True)
    signal = np.abs(voxels - values[counts.argmax()])
    beyond = distance_transform_edt(~labelled, sampling=np.linalg.norm(affine[:3, :3], axis=0)) > _BEYOND_MM
    dark = bool((signal[beyond] <= _DARK * np.median(signal[labelled])).all())
    return "nothing beyond the brain of its label map" if dark else NOT_SHOWN


def _is_stripped(voxels: NDArray[np.float32], spacing: Spacing) -> bool:
    """Whether all but one value around the volume is of a brain's size and shape, uncut, and has no skull around it."""
    values, counts = np.unique(_sides(voxels), return_counts=True)
    background = values[counts.argmax()]
    tissue = _largest(~_outside(voxels == background))
    if not _LEAST_BRAIN_ML <= tissue.sum() * np.prod(spacing) / 1000 <= _LARGEST_BRAIN_ML:
        return False
    if max(_cut_cm2(tissue, spacing, axis, end) for axis in range(3) for end in (0, -1)) > _CUT_CM2:
        return False
    levels = np.nonzero(tissue.any((0, 1)))[0]
    level = levels[-1] - round(_STEM_LEVEL * (levels[-1] - levels[0]))
    profile = _front(tissue, spacing, _width(tissue, spacing))
    length = np.ptp(np.nonzero(tissue.any((0, 2)))[0]) * spacing[1]
    if profile.max() - profile[level] < _STEM_SET_BACK * length:
        return False
    return _shell_share(np.abs(voxels - background), tissue, spacing) <= _SHELL_SHARE


def _is_defaced(voxels: NDArray[np.float32], spacing: Spacing) -> bool:
    """Whether a block of one value lies where the face of this head would be, well behind its forehead's plane."""
    smooth = gaussian_filter(voxels, 2.0 / np.array(spacing))
    head = _largest(smooth > _threshold(smooth))
    levels = np.nonzero(head.any((0, 1)))[0]
    cut = max(_cut_cm2(head, spacing, axis, end) for axis, end in ((0, 0), (0, -1), (1, -1), (2, -1)))
    if not levels.size or cut > _CUT_CM2:
        return False  # what everything is measured from lies outside the field of view
    top, width = int(levels[-1]), _width(head, spacing)
    if not _HEAD_WIDTH_MM[0] <= width <= _HEAD_WIDTH_MM[1]:
        return False
    (high, low), (lid, lip) = (
        [top - round(share * width / spacing[2]) for share in pair] for pair in (_FOREHEAD, _FACE)
    )
    if lip < 0:
        return False
    front = _front(head, spacing, width)[low : high + 1].max()
    middle, half = _middle(head), round(_ACROSS * width / 2 / spacing[0])
    behind = round((front - _SET_BACK * width) / spacing[1])
    block = voxels[max(0, middle - half) : middle + half + 1, max(0, behind) :, lip : lid + 1]
    return bool(block.size) and bool((block == block.flat[0]).all())


def _shell_share(signal: NDArray[np.float32], tissue: NDArray[np.bool_], spacing: Spacing) -> float:
    """How many of the rays from the upper half's surface inwards meet scalp, skull and brain one after the other.

    Args:
        signal: Distance from the background's value, shape (X, Y, Z).
        tissue: What is not background, likewise.
        spacing: Voxel size in mm.
    """
    sizes = np.array(spacing)
    bright = np.where(tissue, signal, 0) > _DARK * np.median(signal[tissue])
    corner, end = ([at(i) for i in np.nonzero(tissue)] for at in (np.min, np.max))
    middle = (np.array(corner) + np.array(end)) / 2
    aims = np.random.default_rng(0).normal(size=(_RAYS, 3))
    aims[:, 2] = np.abs(aims[:, 2])
    aims /= np.linalg.norm(aims, axis=1, keepdims=True)
    reach = np.linalg.norm((np.array(end) - corner) * sizes) / 2
    steps = np.arange(0.0, reach)  # mm
    places = np.rint(middle + aims[:, None] * steps[:, None] / sizes).astype(int)  # (rays, steps, 3)
    inside = ((places >= 0) & (places < tissue.shape)).all(axis=2)
    x, y, z = np.moveaxis(np.where(inside[..., None], places, 0), 2, 0)
    there, lit = inside & tissue[x, y, z], inside & bright[x, y, z]
    return float(np.mean([_is_shell(lit[ray], there[ray]) for ray in range(_RAYS)]))


def _is_shell(lit: NDArray[np.bool_], there: NDArray[np.bool_]) -> bool:
    """Whether one ray, a millimetre a step, meets bright, dark, bright from its last tissue inwards."""
    ends = np.nonzero(there)[0]
    if not ends.size:
        return False
    inwards = lit[: ends[-1] + 1][::-1][:_DEPTH_MM]
    turns = np.nonzero(np.diff(inwards.astype(np.int8)))[0] + 1
    turns = turns if inwards[0] else turns[1:]  # the first bright run begins at the surface or where the dark rim ends
    if len(turns) < 2:
        return False
    return bool(turns[0] <= _SCALP_MM and turns[1] - turns[0] >= _SKULL_MM)


def _cut_cm2(mask: NDArray[np.bool_], spacing: Spacing, axis: int, end: int) -> float:
    """Area of the mask on one side of the volume."""
    return float(mask.take(end, axis).sum() * np.prod(spacing) / spacing[axis] / 100)


def _front(mask: NDArray[np.bool_], spacing: Spacing, width: float) -> NDArray[np.float64]:
    """At each level the foremost tissue near the midline, in mm from the volume's back; 0 where there is none."""
    middle, half = _middle(mask), round(_PROFILE * width / 2 / spacing[0])
    slab = mask[max(0, middle - half) : middle + half + 1].any(axis=0)  # (Y, Z)
    places = np.arange(slab.shape[0])[:, None] * spacing[1]
    return np.asarray(np.where(slab, places, 0.0).max(axis=0))


def _width(mask: NDArray[np.bool_], spacing: Spacing) -> float:
    """From left to right in mm, of the upper half."""
    across = _across(mask)
    return float((across[-1] - across[0] + 1) * spacing[0])


def _middle(mask: NDArray[np.bool_]) -> int:
    """The index of the midline."""
    across = _across(mask)
    return int(across[0] + across[-1]) // 2


def _across(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Where the upper half has tissue from left to right; shoulders are below it."""
    levels = np.nonzero(mask.any((0, 1)))[0]
    return np.nonzero(mask[:, :, (levels[0] + levels[-1]) // 2 :].any((1, 2)))[0]


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest piece that hangs together by faces of voxels."""
    pieces, number = label(mask)
    if not number:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray(pieces == sizes.argmax())


def _outside(removed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part that reaches the volume's sides; a hole inside a brain does not."""
    pieces, _ = label(removed)
    reaching = np.unique(_sides(pieces))
    return np.asarray(np.isin(pieces, reaching[reaching > 0]))


def _sides(volume: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.concatenate([volume.take(end, axis).ravel() for axis in range(3) for end in (0, -1)])


def _threshold(voxels: NDArray[np.float32]) -> float:
    """Between air and tissue: the cut that leaves least variance within the two (Otsu 1979).

    Source: Otsu, doi:10.1109/TSMC.1979.4310076.
    """
    highest = float(np.percentile(voxels, 99.5))
    if highest <= voxels.min():
        return highest
    counts, edges = np.histogram(np.clip(voxels, None, highest), bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), counts.sum()
    mass = np.cumsum(counts * centres)
    above = total - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between))])
