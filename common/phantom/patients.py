"""Procedural patients: MNI152 anatomy, deformed, with a tumour, rendered in four contrasts.

They stand in for a hospital's patients where no real ones may be used. Their deformations and tumours
are drawn from :data:`PRIVATE_RANGES`, which the public label sampler's defaults do not cover, so that
doing well on them is evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..cohorts.bids_writer import BidsWriter
from ..counted import counted
from ..errors import ConfigError
from ..labels.atlas import ATLAS_CITATION, ATLAS_LICENCE, ATLAS_NAME, BRAIN_MM, load_atlas
from ..labels.brain import BRAIN_LABELS, BrainLabels
from ..labels.deformation import (
    AffineParameters,
    DiffeomorphismParameters,
    Triple,
    draw_affine,
    draw_diffeomorphism,
    warp_labels,
)
from ..labels.lesion import LesionParameters, LesionRanges, Range, draw_lesion, insert_lesion
from ..volumes.grid import Grid, Spacing
from .contrast import (
    CHANNELS,
    PatientContrast,
    ScannerParameters,
    draw_contrast,
    draw_scanner,
    render,
)

PHANTOM_LABELS: dict[str, int] = dict(BRAIN_LABELS)
PHANTOM_CHANNELS: tuple[str, ...] = CHANNELS

_SITES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SCANNERS, _PATIENTS = 0, 1
"""Branches of a seed."""


@dataclass(frozen=True, kw_only=True)
class PhantomRanges:
    """What procedural patients are drawn from.

    Attributes:
        size: Mean brain size over the atlas's; MNI152 is larger than most brains.
        rotation_deg, scale, shift_mm: As :func:`~fedphantom.common.labels.deformation.draw_affine` takes them.
        displacement_mm: Of the smooth warp.
        smoothness_mm: Of the smooth warp.
        lesion: The tumour.
    """

    size: float
    rotation_deg: float
    scale: float
    shift_mm: float
    displacement_mm: Range
    smoothness_mm: Range
    lesion: LesionRanges


PRIVATE_RANGES = PhantomRanges(
    size=0.91,
    rotation_deg=9.0,
    scale=0.07,
    shift_mm=3.0,
    displacement_mm=(2.0, 3.5),
    smoothness_mm=(14.0, 22.0),
    lesion=LesionRanges(
        radius_mm=(18.0, 32.0),
        core_share=(0.45, 0.8),
        necrosis_share=(0.35, 0.75),
        irregularity=(0.2, 0.4),
        depth_mm=(8.0, 50.0),
    ),
)


@dataclass(frozen=True, kw_only=True)
class PhantomPatient:
    """Everything that makes one procedural patient; with a site's scanner it gives the same scan again."""

    affine: AffineParameters
    warp: DiffeomorphismParameters
    lesion: LesionParameters
    contrast: PatientContrast


def phantom_grid(spacing_mm: float) -> Grid:
    """The smallest grid of isotropic voxels that holds the atlas's brain, every axis a multiple of 8.

    Raises:
        ConfigError: a spacing outside 0.8 to 12 mm.
    """
    if not 0.8 <= spacing_mm <= 12:
        raise ConfigError(
            f"a phantom spacing of {spacing_mm:g} mm",
            expected="0.8 to 12 mm: the atlas has 1 mm, and a tumour must span a few voxels",
            remedy="Choose another --spacing.",
        )
    margin = 1.03
    x, y, z = (8 * math.ceil(mm * margin / spacing_mm / 8) for mm in BRAIN_MM)
    return Grid((x, y, z), (spacing_mm, spacing_mm, spacing_mm))


def draw_patient(
    rng: np.random.Generator, atlas: NDArray[np.uint8], spacing_mm: Spacing, ranges: PhantomRanges = PRIVATE_RANGES
) -> tuple[PhantomPatient, NDArray[np.uint8]]:
    """Draw a patient.

    Args:
        rng: Source of chance.
        atlas: The atlas's label map, shape (X, Y, Z).
        spacing_mm: Voxel size along (X, Y, Z).
        ranges: What to draw from.

    Returns:
        The parameters, and the patient's label map, shape (X, Y, Z).
    """
    drawn = draw_affine(rng, ranges.rotation_deg, ranges.scale, ranges.shift_mm)
    affine = replace(drawn, scale=_scaled(drawn.scale, ranges.size))
    warp = draw_diffeomorphism(
        rng, float(rng.uniform(*ranges.displacement_mm)), float(rng.uniform(*ranges.smoothness_mm))
    )
    tissues = BrainLabels()
    labels = warp_labels(atlas, spacing_mm, affine, warp)
    lesion = draw_lesion(rng, ranges.lesion, labels, spacing_mm, tissues)
    labels = insert_lesion(labels, lesion, spacing_mm, tissues)
    return PhantomPatient(affine=affine, warp=warp, lesion=lesion, contrast=draw_contrast(rng)), labels


def draw_site_scanner(seed: int, site: int) -> ScannerParameters:
    """The scanner of site number ``site`` of a seed; independent of the number of sites."""
    return draw_scanner(np.random.default_rng([seed, _SCANNERS]), site)


def write_phantom_cohort(
    out: Path,
    patients: int,
    sites: int = 1,
    spacing_mm: float = 5.0,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write procedural patients as a BIDS cohort, sites A, B, C, ... taking turns.

    The same arguments give the same bytes. Patient ``i`` of a seed has the same anatomy in a cohort of any size.

    Args:
        out: A new or empty folder.
        patients: How many, ≥ 1.
        sites: How many, 1 to 26 and at most ``patients``.
        spacing_mm: Isotropic voxel size.
        seed: ≥ 0.
        progress: Called with (done, total).

    Raises:
        ConfigError: an argument outside its range.
        StorageError: ``out`` holds something already, or the disk is full, read-only or forbidden.
    """
    if not (1 <= sites <= min(patients, len(_SITES)) and patients <= 9999 and seed >= 0):
        raise ConfigError(
            f"{counted(patients, 'patient')} at {counted(sites, 'site')}, seed {seed}",
            expected="1 to 9999 patients, 1 to 26 sites, no site without a patient, and a seed of 0 or more",
            remedy="Choose other numbers.",
        )
    grid = phantom_grid(spacing_mm)
    atlas = load_atlas(grid, BrainLabels())
    scanners = [draw_site_scanner(seed, site) for site in range(sites)]
    description = "Procedural patients (FedPhantom), no person's data"
    with BidsWriter(out, grid, CHANNELS, BRAIN_LABELS, description, synthetic=True) as writer:
        for number in range(patients):
            site = number % sites
            patient, labels = draw_patient(np.random.default_rng([seed, _PATIENTS, number]), atlas, grid.spacing_mm)
            sidecar = {
                "Phantom": {
                    "atlas": {"name": ATLAS_NAME, "licence": ATLAS_LICENCE, "citation": ATLAS_CITATION},
                    "patient": asdict(patient),
                    "scanner": asdict(scanners[site]),
                }
            }
            channels = render(labels, grid.spacing_mm, scanners[site], patient.contrast)
            writer.add(f"phantom{number + 1:04d}", channels, labels, sidecar, site=_SITES[site])
            progress(number + 1, patients)


def _scaled(scale: Triple, size: float) -> Triple:
    x, y, z = scale
    return x * size, y * size, z * size
