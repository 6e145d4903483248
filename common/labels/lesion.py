"""Parametric tumours: oedema around an enhancing rim around a necrotic core.

The three nested parts are those of Menze et al. 2015 (doi:10.1109/TMI.2014.2377694). Parameters are
drawn by one function and applied by another; all lengths are millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import (
    binary_dilation,
    binary_erosion,
    binary_opening,
    distance_transform_edt,
    generate_binary_structure,
)
from scipy.ndimage import label as connected_parts

from ..errors import DataError
from ..study import LesionTable
from ..volumes.grid import Spacing
from .brain import BrainLabels
from .deformation import Triple, smooth_noise

Range = tuple[float, float]

SULCUS_MM = 6.0
"""Fluid no wider than this is a sulcus, which a tumour's core fills; wider is a ventricle or cistern."""


@dataclass(frozen=True, kw_only=True)
class LesionRanges:
    """Uniform ranges (low, high) a tumour is drawn from.

    Attributes:
        radius_mm: Of the whole tumour, oedema included.
        core_share: Radius of rim and necrosis over the whole radius, in (0, 1).
        necrosis_share: Radius of the necrosis over that of the rim, in (0, 1).
        irregularity: Standard deviation of the logarithm of the radius.
        depth_mm: Distance of the centre from the brain's surface.
        centre_mm: Box that the centre lies in, from the grid's centre along (X, Y, Z).
    """

    radius_mm: Range
    core_share: Range
    necrosis_share: Range
    irregularity: Range
    depth_mm: Range
    centre_mm: tuple[Range, Range, Range] = LesionTable().centre_mm


def lesion_ranges(table: LesionTable) -> LesionRanges:
    """The ranges a study gives."""
    return LesionRanges(**dict(table))


PUBLIC_LESIONS = lesion_ranges(LesionTable())
"""What the label sampler draws from unless a study says otherwise: chosen by hand, fitted to no patient."""


@dataclass(frozen=True, kw_only=True)
class LesionParameters:
    """One tumour.

    Attributes:
        centre_mm: From the grid's centre, along (X, Y, Z).
        radius_mm: Of the whole tumour.
        core_share: Radius of rim and necrosis over ``radius_mm``.
        necrosis_share: Radius of the necrosis over that of the rim.
        irregularity: Standard deviation of the logarithm of the radius.
        seed: Of the noise that shapes it.
    """

    centre_mm: Triple
    radius_mm: float
    core_share: float
    necrosis_share: float
    irregularity: float
    seed: int


def draw_lesion(
    rng: np.random.Generator, ranges: LesionRanges, labels: NDArray[np.uint8], spacing_mm: Spacing, brain: BrainLabels
) -> LesionParameters:
    """Draw a tumour whose centre lies in the white matter of a label map.

    Args:
        rng: Source of chance.
        ranges: What to draw from. Where no white matter lies that deep, the nearest depth is taken.
        labels: Shape (X, Y, Z).
        spacing_mm: Voxel size along (X, Y, Z).
        brain: Values of the tissues.

    Raises:
        DataError: no white matter.
    """
    white = labels == brain.white
    if not white.any():
        raise DataError(
            "a label map without white matter",
            expected="brain tissue to place a tumour in",
            remedy="Check the label values, or set public_labels.lesion_probability = 0.",
        )
    return LesionParameters(
        centre_mm=draw_place(rng, white, labels != 0, spacing_mm, ranges.depth_mm, ranges.centre_mm),
        radius_mm=float(rng.uniform(*ranges.radius_mm)),
        core_share=float(rng.uniform(*ranges.core_share)),
        necrosis_share=float(rng.uniform(*ranges.necrosis_share)),
        irregularity=float(rng.uniform(*ranges.irregularity)),
        seed=int(rng.integers(2**63)),
    )


def draw_place(
    rng: np.random.Generator,
    tissue: NDArray[np.bool_],
    brain: NDArray[np.bool_],
    spacing_mm: Spacing,
    depth_mm: Range,
    centre_mm: tuple[Range, Range, Range],
) -> Triple:
    """Draw a point in a tissue, millimetres from the grid's centre.

    Args:
        rng: Source of chance.
        tissue: Where it may lie, shape (X, Y, Z), not empty.
        brain: Whose surface the depth is measured from, shape (X, Y, Z).
        spacing_mm: Voxel size along (X, Y, Z).
        depth_mm: Depths to choose from, all alike.
        centre_mm: Box to choose from. Where no tissue lies so deep in the box, the voxels that miss both by
            least are taken.
    """
    # A frame of background, so that a brain cut by the grid has its surface at the cut.
    depth = distance_transform_edt(np.pad(brain, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    low, high = depth_mm
    miss = np.where(tissue, np.maximum(low - depth, 0) + np.maximum(depth - high, 0), np.inf)
    for axis, (n, mm, (least, most)) in enumerate(zip(tissue.shape, spacing_mm, centre_mm, strict=True)):
        place = (np.arange(n) - (n - 1) / 2) * mm
        beyond = np.maximum(least - place, 0) + np.maximum(place - most, 0)
        miss += np.expand_dims(beyond, tuple({0, 1, 2} - {axis}))
    candidates = np.argwhere(miss == miss.min())
    voxel = candidates[rng.integers(len(candidates))] + rng.uniform(-0.5, 0.5, 3)
    x, y, z = (voxel - (np.array(tissue.shape) - 1) / 2) * spacing_mm
    return float(x), float(y), float(z)


def insert_lesion(
    labels: NDArray[np.uint8], parameters: LesionParameters, spacing_mm: Spacing, brain: BrainLabels
) -> NDArray[np.uint8]:
    """Insert a tumour into a label map; background and ventricles stay as they are.

    The core fills the narrow sulci it meets; oedema keeps to grey and white matter, and reaches less far
    into grey.

    Args:
        labels: Shape (X, Y, Z).
        parameters: The tumour.
        spacing_mm: Voxel size along (X, Y, Z).
        brain: Values of the tissues.

    Returns:
        A new label map, shape (X, Y, Z). Necrosis never touches anything but necrosis and the rim.
    """
    x, y, z = labels.shape
    rng = np.random.default_rng(parameters.seed)
    offsets = [
        (np.arange(n) - (n - 1) / 2) * mm - centre
        for n, mm, centre in zip(labels.shape, spacing_mm, parameters.centre_mm, strict=True)
    ]
    distance = np.sqrt(sum(o**2 for o in np.meshgrid(*offsets, indexing="ij", sparse=True)))
    outer, inner = (
        distance * np.exp(parameters.irregularity * smooth_noise(rng, (x, y, z), spacing_mm, scale))
        for scale in (parameters.radius_mm / 2, parameters.radius_mm * parameters.core_share / 2)
    )
    parenchyma = np.isin(labels, (brain.grey, brain.white))
    fillable = parenchyma | narrow(labels == brain.csf, spacing_mm)
    whole = _part_at_centre(outer < parameters.radius_mm, distance)
    core_radius = parameters.radius_mm * parameters.core_share
    core = _part_at_centre((inner < core_radius) & _eroded(whole) & fillable, distance)
    necrosis = (inner < core_radius * parameters.necrosis_share) & _eroded(core)
    oedema = whole & parenchyma & ((labels == brain.white) | (outer < 0.75 * parameters.radius_mm))

    out = labels.copy()
    out[oedema] = brain.oedema
    out[core] = brain.enhancing
    out[necrosis] = brain.necrosis
    return out


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(binary_erosion(mask, generate_binary_structure(3, 1), border_value=1), dtype=np.bool_)


def narrow(mask: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.bool_]:
    """The parts of a mask into which no ball of :data:`SULCUS_MM` fits; at a coarser spacing there are none."""
    reach = [int(SULCUS_MM / 2 // mm) for mm in spacing_mm]
    axes = [np.arange(-r, r + 1) * mm for r, mm in zip(reach, spacing_mm, strict=True)]
    ball = sum(a**2 for a in np.meshgrid(*axes, indexing="ij")) <= (SULCUS_MM / 2) ** 2
    # Dilated once more, because an opening also takes the corners of what is wide.
    wide = binary_dilation(binary_opening(mask, ball), ball)
    return np.asarray(mask & ~wide, dtype=np.bool_)


def _part_at_centre(mask: NDArray[np.bool_], distance: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The connected part of the mask nearest to the centre: noise may have cut off islands."""
    parts, count = connected_parts(mask)
    if count < 2:
        return mask
    nearest = np.argmin(np.where(mask, distance, np.inf))
    return np.asarray(parts == parts.flat[nearest], dtype=np.bool_)
