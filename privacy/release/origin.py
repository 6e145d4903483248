"""Is every volume what its sidecar says: the declared public label map, varied as recorded, painted by this generator?

A sidecar is only a claim. Here each label map is made again from its public source by its recorded steps, edits by
declared recipes among them, and each volume painted again from it with its recorded noise. So a patient's own label
map, or scan, under a copied sidecar does not pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...common.cohort import ChannelSource, Cohort, Scan
from ...common.cohorts.layouts import read_cohort
from ...common.device import choose_device
from ...common.edits.replay import SourceMissing, replay_chain, rounded_alike
from ...common.errors import ConfigError, DataError, PolicyRefused, about
from ...common.gan.generation import (
    FLOOR,
    WRITTEN_MAXIMUM,
    LoadedGenerator,
    as_written,
    load_generator,
    paint_each,
    painted_at_once,
)
from ...common.labels.chain import PublicSources
from ...common.labels.sampler import public_label_maps
from ...common.study import Study
from ...common.volumes.nifti import nifti_stem, read_label_map, read_volume
from ..synthetic_files import synthetic_volumes
from .sidecar import Sidecar, parse_public_sources, parse_sidecar

PAINT_TOLERANCE = 0.001
"""Difference of any voxel, as a share of the intensity range. Painting is float32 everywhere. Between one and two
threads of a CPU nothing differed, between float32 and float64 at most 3e-5 (procedural patients, four channels), of a
volume in a batch of one and beside others 1e-5: this leaves another processor thirty times the rounding.
CUDA was not measured. A smaller change passes for rounding."""


def check_origin(
    run: Path,
    synthetic: Path,
    public: Cohort | None,
    *,
    device: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Make every scan of a synthetic cohort again and compare; returns how many.

    Args:
        run: Holds ``generator.safetensors`` and ``public-labels.json``.
        synthetic: BIDS cohort as ``generate`` writes it.
        public: The public cohort, where the study's label maps come from one.
        device: Where to paint.
        progress: (scans done, scans in all).

    Raises:
        PolicyRefused: a label map or volume that is not what its sidecar says, or from a source not at hand.
        VerificationFailed: a file that is no part of such a cohort or is missing from it, or a sidecar of another
            generator, or with anything else in it.
        DataError: a file is missing or unreadable.
    """
    generator = load_generator(run / "generator.safetensors", choose_device(device))
    study = generator.study
    declared = parse_public_sources(_bytes(run / "public-labels.json"))
    at_hand = {known.source.sha256: known.labels for known in public_label_maps(study, public)}
    with about("the synthetic cohort"):
        synthetic_volumes(synthetic, study)  # what is not painted again here was not painted at all
        scans = read_cohort(synthetic).scans
        together = painted_at_once(generator.network, study.grid.shape)
        for start in range(0, len(scans), together):
            some = scans[start : start + together]
            claims = [_claim(scan, generator, declared, at_hand) for scan in some]
            classes = np.stack([np.searchsorted(study.label_values, labels).astype(np.uint8) for labels, _ in claims])
            seeds = [sidecar.noise_seed for _, sidecar in claims]
            painted = paint_each(generator.network, classes, study, seeds, generator.device)
            for done, (scan, volume) in enumerate(zip(some, painted, strict=True), start=start + 1):
                _check_painted(scan, as_written(volume), study)
                progress(done, len(scans))
    return len(scans)


def _claim(
    scan: Scan, generator: LoadedGenerator, declared: PublicSources, at_hand: Mapping[str, NDArray[np.uint8]]
) -> tuple[NDArray[np.uint8], Sidecar]:
    """A scan's label map (X, Y, Z), which its recorded steps do give, and what its sidecar says."""
    if scan.label is None:
        raise _refused("a scan without its label map")
    beside = scan.label.with_name(f"{nifti_stem(scan.label)}.json")
    sidecar = parse_sidecar(_bytes(beside), generator.sha256, declared)
    return _label_map(scan.label, at_hand, sidecar, generator.study), sidecar


def _label_map(
    path: Path, sources: Mapping[str, NDArray[np.uint8]], sidecar: Sidecar, study: Study
) -> NDArray[np.uint8]:
    try:
        expected = replay_chain(sidecar.label_chain, sources, study)
    except SourceMissing as missing:
        raise _refused(missing.found) from None
    except (ConfigError, DataError, TypeError, ValueError):
        raise _refused(
            "a label map whose recorded steps are not those of the public sampler and its declared recipes"
        ) from None
    found = read_label_map(path)[0]
    if not rounded_alike(found, expected):
        raise _refused("a label map that its recorded steps do not give")
    return found.astype(np.uint8)


def _check_painted(scan: Scan, painted: NDArray[np.float32], study: Study) -> None:
    for channel, expected in zip(study.channels, painted, strict=True):
        file: ChannelSource | None = scan.channels.get(channel)
        if file is None:
            raise _refused("a scan without one of the study's channels")
        found = read_volume(file)[0]
        if found.shape != expected.shape or not _painted_alike(found, expected):
            raise _refused("a volume that this generator does not paint from its label map and noise")


def _painted_alike(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    off = np.abs(found - expected) / WRITTEN_MAXIMUM
    # Just above the floor a voxel is written as it is, at the floor as 0: rounding may choose.
    at_floor = (np.minimum(found, expected) == 0) & (np.abs(off - (FLOOR + 1) / 2) <= PAINT_TOLERANCE)
    return bool((at_floor | (off <= PAINT_TOLERANCE)).all())


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise DataError(
            f"no readable {'sidecar' if path.name != 'public-labels.json' else path.name}",
            expected="what 'fedphantom generate' writes",
            remedy="Generate the synthetic cohort again.",
        ) from None


def _refused(found: str) -> PolicyRefused:
    return PolicyRefused(
        found,
        expected="scans that can be made again from a declared public source (DESIGN §4.5)",
        remedy="Generate the cohort with 'fedphantom generate', and name the public cohort with --public.",
    )
