"""The two real tumour patients beside a checkout, with one set of labels, and their tumours placed in the atlas.

A stand-in for what ``labels infer`` and ``labels edit`` do properly: tissues are told apart by T1 grey level alone, and
a tumour is laid over the atlas where it lay in its patient. Enough to see whether volumes of this size pass.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from fedphantom.common.cohort import Scan
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import background_at_zero
from fedphantom.common.labels.atlas import load_atlas
from fedphantom.common.labels.brain import BrainLabels
from fedphantom.common.phantom.patients import PHANTOM_CHANNELS
from fedphantom.common.phantom.study import phantom_study
from fedphantom.common.study import (
    FederationTable,
    PatchTable,
    RolesTable,
    Study,
    TrainingTable,
)
from fedphantom.common.volumes.grid import Grid
from fedphantom.common.volumes.nifti import read_label_map, read_volume

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "multiparametric"
MOST_MB = 5000
"""What any step on volumes of their size may hold."""
BRAIN = BrainLabels()
SCHEMES = {  # label value in the patient's file to ours; the rest of the brain is told apart by T1
    "BraTS2021_01306": {1: BRAIN.necrosis, 2: BRAIN.oedema, 3: BRAIN.enhancing},
    "TCGA-DU-7294": {1: BRAIN.necrosis, 2: BRAIN.oedema, 4: BRAIN.enhancing},
}
TUMOUR = (BRAIN.oedema, BRAIN.enhancing, BRAIN.necrosis)


def full_size_study(steps: int, patch: tuple[int, int, int] = (64, 64, 64)) -> Study:
    """One site, all of whose patients train; 240×240×155 at 1 mm."""
    training = TrainingTable(rounds=1, local_steps=steps, generator_lr=1e-2, patch=PatchTable(shape=patch))
    tables = {
        "federation": FederationTable(quorum=1, ema_decay=0),
        "roles": RolesTable(test=0, reference=0, control=0, audit=0, validation=0),
    }
    return phantom_study("full-size", 1, Grid((240, 240, 155), (1, 1, 1)), training).model_copy(update=tables)


def write_tissue_cohort(folder: Path) -> Path:
    """A table cohort: the patients' scans where they lie, beside new label maps in ``folder``."""
    folder.mkdir()
    lines = ["\t".join(["patient_id", "scan_id", "label", *PHANTOM_CHANNELS])]
    for scan in read_cohort(FOLDER).scans:
        voxels, affine = read_volume(scan.channels["T1"])
        label = folder / f"{scan.patient_id}.nii.gz"
        nib.save(nib.Nifti1Image(_tissues(scan, background_at_zero(voxels)), affine), label)
        files = [str(scan.channels[name].path) for name in PHANTOM_CHANNELS]
        lines.append("\t".join([scan.patient_id, scan.scan_id, label.name, *files]))
    (folder / "cohort.tsv").write_text("\n".join(lines) + "\n")
    return folder / "cohort.tsv"


def _tissues(scan: Scan, t1: NDArray[np.float32]) -> NDArray[np.uint8]:
    assert scan.label is not None
    stored, scheme = np.asarray(read_label_map(scan.label)[0]), SCHEMES[scan.patient_id]
    brain = (t1 != 0) & ~np.isin(stored, list(scheme))
    means = np.percentile(t1[brain], [5, 40, 85])
    for _ in range(20):
        nearest = np.abs(t1[brain][:, None] - means).argmin(axis=1)
        means = np.array([t1[brain][nearest == tissue].mean() for tissue in range(3)])
    labels = np.zeros(stored.shape, np.uint8)
    labels[brain] = np.array([BRAIN.csf, BRAIN.grey, BRAIN.white], np.uint8)[nearest]
    for value, ours in scheme.items():
        labels[stored == value] = ours
    return labels


def tumours_in_atlas(study: Study, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Label maps (n, X, Y, Z): the atlas with each scan's tumour where it lay; class indices are label values here."""
    atlas = load_atlas(study.volume_grid(), BRAIN)
    return np.stack([np.where(np.isin(one, TUMOUR) & (atlas > 0), one, atlas) for one in classes])
