"""A study that fits a cohort at hand: its channels, its labels, a grid that its scans fill."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from pydantic import ValidationError

from .cohort import Cohort
from .cohorts.layouts.channel_names import in_order
from .errors import DataError
from .study import GridTable, PatchTable, PublicLabelsTable, Study, TrainingTable
from .toml_text import toml_text
from .volumes.grid import Affine
from .volumes.nifti import read_header, read_label_map

SMALLEST_AXIS, MULTIPLE = 16, 8
LARGEST_WHOLE = 1 << 21
"""Voxels of a grid up to which scans are trained on whole; beyond, on patches that any machine holds a batch of."""
PATCH_AXIS = 64


def study_for(cohort: Cohort, *, name: str, seed: int, public_labels: PublicLabelsTable) -> Study:
    """Derive channels, labels and grid from a checked cohort.

    It looks at the patients it is given and at nobody else: at the names of their channels, at the header of each
    scan's first channel (shape, spacing, axes) and at which values their label maps hold; of the cohort as a whole
    only at the label names that its own tables declare. No intensity is read. What these patients show decides about
    everyone's grid, so give public or training patients, and never those who test, or whom an audit holds out.

    The grid has these patients' median spacing; each axis is their median length cut to a multiple of 8, so that scans
    are cropped by a few voxels rather than padded. A grid of more than 128³ voxels is trained on by patches. Labels
    are those found and those the cohort declares, named by the cohort where it names them.

    Raises:
        DataError: no scan, or no foreground label.
    """
    scans = [scan for scan in cohort.scans if scan.label is not None and scan.channels]
    if not scans:
        raise DataError(
            "a cohort without a labelled scan", expected="one or more", remedy="Run 'fedphantom cohort check'."
        )
    shapes, spacings = [], []
    values: set[int] = set()
    for scan in scans:
        header = read_header(next(iter(scan.channels.values())).path)
        order = _axis_order(header.affine)
        shapes.append([header.grid_shape[i] for i in order])
        spacings.append([header.spacing[i] for i in order])
        assert scan.label is not None  # noqa: S101  # filtered above
        values |= {int(v) for v in np.unique(read_label_map(scan.label)[0])}
    if not values - {0}:
        raise DataError(
            "label maps without any structure", expected="labels above 0", remedy="Run 'fedphantom cohort check'."
        )
    # Also what the cohort only declares: a small structure may be missing in these very patients.
    foreground = sorted((values | set(cohort.label_names)) - {0})
    axes = [max(SMALLEST_AXIS, int(n) // MULTIPLE * MULTIPLE) for n in np.median(shapes, axis=0)]
    spacing = [round(float(mm), 3) for mm in np.median(spacings, axis=0)]
    labels = _labels(cohort, foreground)
    try:
        return Study(
            name=name,
            seed=seed,
            channels=in_order(channel for scan in scans for channel in scan.channels),
            labels=labels,
            regions={"whole": tuple(foreground)} if len(foreground) > 1 and "whole" not in labels else {},
            training=_training(axes),
            grid=GridTable(shape=(axes[0], axes[1], axes[2]), spacing_mm=(spacing[0], spacing[1], spacing[2])),
            public_labels=public_labels,
        )
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"][:1]) or "study"
        raise DataError(
            f"a cohort that no study can be derived from: its '{key}' cannot stand in one",
            expected="plain channel names, label values from 0 to 255, spacing under 50 mm",
            remedy="Write the study by hand from 'fedphantom study new', or rename what is named so in the cohort.",
        ) from None


def _training(axes: Sequence[int]) -> TrainingTable:
    if math.prod(axes) <= LARGEST_WHOLE:
        return TrainingTable()
    x, y, z = (min(n, PATCH_AXIS) for n in axes)
    return TrainingTable(patch=PatchTable(shape=(x, y, z)))


def _axis_order(affine: Affine) -> Sequence[int]:
    """File axis that runs along each of X, Y, Z."""
    return [int(np.argmax(np.abs(affine[row, :3]))) for row in range(3)]


def _labels(cohort: Cohort, foreground: Sequence[int]) -> dict[str, int]:
    """Label name to value, none lost: a value whose name is unfit or taken is named by its number."""
    labels = {"background": 0}
    for value in foreground:
        name = re.sub(r"[^A-Za-z0-9 _-]", "-", cohort.label_names.get(value, "")).lstrip(" _-")[:32].strip()
        fit = name and name not in labels and not name.startswith("label-")
        labels[name if fit else f"label-{value}"] = value
    return labels


def to_toml(study: Study) -> str:
    """The study as TOML that :func:`~fedphantom.common.study.parse_study` reads back to the same study."""
    return toml_text(study.model_dump(mode="json"))
