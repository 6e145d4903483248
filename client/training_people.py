"""Training patients as a ledger knows them again: by the voxels of their channels and label maps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from ..common.cohort import Cohort
from ..common.cohorts.roles import CoinRecord
from ..common.cohorts.scan_check import voxel_digest
from ..common.volumes.nifti import read_label_map, read_volume
from ..privacy.dp.persons import Held


def training_people(cohort: Cohort, coins: CoinRecord) -> dict[str, Held]:
    """Every training patient's identifier, with what is in the files now.

    Args:
        cohort: All usable patients of the site: a label map that two of them have tells neither from the other.
        coins: Their roles.

    Raises:
        DataError: a training patient is not in the cohort, or a file can no longer be read.
    """
    label_maps = {
        patient.patient_id: {_label_map_digest(scan.label) for scan in patient.scans if scan.label}
        for patient in cohort.patients
    }
    holders = Counter(digest for digests in label_maps.values() for digest in digests)
    people = {}
    for patient in cohort.only(coins.training_patients()).patients:
        sources = [source for scan in patient.scans for source in scan.channels.values()]
        own = label_maps[patient.patient_id]
        shared = {digest for digest in own if holders[digest] > 1}
        people[patient.patient_id] = Held([voxel_digest(read_volume(one)[0]) for one in sources], own - shared, shared)
    return people


def _label_map_digest(path: Path) -> str:
    """Alike for a label map that was stored anew, in more bytes or fewer."""
    return voxel_digest(read_label_map(path)[0].astype(np.float32, "C"))
