"""Writes imported volumes as a BIDS cohort: each on its own grid, label maps still to be drawn.

A volume keeps the place where the scanner put it, so that its channels fit each other and label maps drawn on them fit
too; that place is a quasi-identifier (PRIVACY §5), and the cohort is for its site alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import write_atomic
from ..cohorts.bids_writer import dataset_description, file_key, json_bytes, participants_table
from ..cohorts.layouts.bids import DESCRIPTION
from ..volumes.grid import Affine
from ..volumes.nifti_writer import write_private_volume

NAME = "Patients imported from DICOM (FedPhantom), for their site alone"


class ImportedCohort:
    """A cohort being written into a folder of :func:`~fedphantom.common.atomic.atomic_folder`.

    Attributes:
        channels: Channel to how many volumes were written of it.
        scans: (patient, session) of what was written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.channels: dict[str, int] = {}
        self.scans: set[tuple[str, str]] = set()

    @property
    def patients(self) -> int:
        """How many were written."""
        return len({patient for patient, _ in self.scans})

    def add(
        self, patient: str, session: str, channel: str, voxels: NDArray[np.float32], affine: Affine, face: str
    ) -> None:
        """Write one volume, shape (X, Y, Z), and beside it why no face is expected in it."""
        stem = f"sub-{patient}_ses-{session}_{file_key(channel)}"
        folder = self._folder / f"sub-{patient}" / f"ses-{session}" / "anat"
        write_private_volume(folder / f"{stem}.nii.gz", voxels, affine, flush=False)
        write_atomic(folder / f"{stem}.json", json_bytes({"FaceCheck": face, "Synthetic": False}), flush=False)
        self.channels[channel] = self.channels.get(channel, 0) + 1
        self.scans.add((patient, session))

    def finish(self, provenance: dict[str, Any], channels: Sequence[str]) -> None:
        """Write the tables: who is there, and how it came about."""
        description = dataset_description(NAME, channels, synthetic=False, facts={"Import": provenance})
        write_atomic(self._folder / DESCRIPTION, json_bytes(description), flush=False)
        patients = dict.fromkeys(sorted(patient for patient, _ in self.scans))
        write_atomic(self._folder / "participants.tsv", participants_table(patients), flush=False)
