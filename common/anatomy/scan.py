"""One scan's anatomy: its channels to the network's spacing, inferred there, brought back, the drawn labels on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..cohort import Scan
from ..cohorts.preparation import ABSENT, background_at_zero, normalise
from ..errors import GeometryError
from ..gan.generation import LoadedGenerator
from ..gan.inference import expected_dice, infer
from ..labels.remapping import remap
from ..study import Study
from ..volumes.grid import Affine, Grid
from ..volumes.nifti import read_label_map, read_volume
from ..volumes.placement import covering_grid, labels_on_volume, place_labels, place_volume

MARGIN = 2
"""Voxels of background left around the head: networks were trained with some."""
_HEAD = -0.95  # above this a voxel may belong to the head: resampling leaves faint traces beyond it


@dataclass(frozen=True, eq=False)
class InferredScan:
    """A scan's label map.

    Attributes:
        labels: Label values of the study, (X, Y, Z), in the file order of the scan's own channels.
        affine: The scan's.
        drawn: Names of the overlay's labels that the hospital drew in it.
        confidence: Mean Dice of the inferred labels that the network expects, in the head outside what is laid over;
            calibrated on procedural patients with every channel, and too high by about .07 where T1 stands alone
            (docs/experiments.md).
    """

    labels: NDArray[np.uint8]
    affine: Affine
    drawn: tuple[str, ...]
    confidence: float


def infer_scan(scan: Scan, network: LoadedGenerator, remapping: Mapping[str, tuple[int, ...]]) -> InferredScan:
    """Infer a scan's anatomy; what its hospital drew of the overlay's labels lies on top.

    Args:
        scan: With at least one of the study's channels; its label map may be missing.
        network: From images to labels.
        remapping: What the values of the scan's label map mean; empty where they are the study's own.

    Raises:
        DataError: a file that cannot be read, or a label value that the table does not name.
        GeometryError: channels or label map of different shapes.
    """
    study = network.study
    images, head, shape, affine = _images(scan, study)
    grid = covering_grid(shape, affine, study.grid.spacing_mm)
    drawn = _drawn(scan, study, remapping, shape)

    shares = np.zeros((len(study.inferred_labels), *grid.shape), dtype=np.float32)
    shares[0] = 1.0  # inferred_labels begins with background
    box = head_box(images)
    shares[:, *box] = infer(network.network, images[:, *box], study, network.device)
    judged = (images > ABSENT).any(axis=0) & (place_labels(drawn, affine, grid) == 0)
    confidence = expected_dice(shares, judged)

    labels = labels_on_volume(shares, study.inferred_labels, shape, affine, study.grid.spacing_mm)
    labels[~head] = 0
    names = tuple(name for name in study.network.overlay if (drawn == study.labels[name]).any())
    return InferredScan(np.where(drawn > 0, drawn, labels), affine, names, confidence)


def head_box(images: NDArray[np.float32]) -> tuple[slice, ...]:
    """The box (X, Y, Z) of the largest connected head in (C, X, Y, Z), with a margin; all of it without one."""
    parts, count = ndimage.label((images > _HEAD).any(axis=0))
    if not count:
        return tuple(slice(0, n) for n in images.shape[1:])
    box = ndimage.find_objects(parts)[int(np.argmax(np.bincount(parts.ravel())[1:]))]
    return tuple(
        slice(max(0, side.start - MARGIN), min(n, side.stop + MARGIN))
        for side, n in zip(box, images.shape[1:], strict=True)
    )


def _images(scan: Scan, study: Study) -> tuple[NDArray[np.float32], NDArray[np.bool_], tuple[int, ...], Affine]:
    """Channels (C, X, Y, Z) on the covering grid; then the head's voxels, shape and affine of the scan itself."""
    parts: list[NDArray[np.float32] | None] = []
    head: NDArray[np.bool_] | None = None
    grid, affine = Grid((1, 1, 1), study.grid.spacing_mm), np.eye(4)
    for name in study.channels:
        if name not in scan.channels:
            parts.append(None)
            continue
        stored, own = read_volume(scan.channels[name])
        voxels = background_at_zero(stored)  # as preparation does for what the network trained on
        here = normalise(voxels) > ABSENT
        if head is None:
            head, affine, grid = here, own, covering_grid(voxels.shape, own, study.grid.spacing_mm)
        _same_shape(voxels.shape, head.shape)
        head |= here
        parts.append(normalise(place_volume(voxels, own, grid)))
    if head is None:
        raise GeometryError(
            "a scan without any channel of the study",
            expected=f"one or more of {', '.join(study.channels)}",
            remedy="Run 'fedphantom cohort check' on the cohort.",
        )
    absent = np.full(grid.shape, ABSENT, dtype=np.float32)
    return np.stack([absent if part is None else part for part in parts]), head, head.shape, affine


def _drawn(
    scan: Scan, study: Study, remapping: Mapping[str, tuple[int, ...]], shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """The overlay's labels as drawn, in file order; 0 elsewhere."""
    if scan.label is None:
        return np.zeros(shape, dtype=np.uint8)
    stored, _ = read_label_map(scan.label)
    _same_shape(stored.shape, shape)
    labels = remap(stored, remapping, study.labels)
    overlay = [study.labels[name] for name in study.network.overlay]
    return np.where(np.isin(labels, overlay), labels, 0).astype(np.uint8)


def _same_shape(found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise GeometryError(
            f"channels or label map of shapes {found} and {expected}",
            expected="all files of a scan on one grid",
            remedy="Run 'fedphantom cohort check' on the cohort, and resample the scan.",
        )
