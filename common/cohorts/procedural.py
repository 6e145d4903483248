"""Which patients are procedural: made by ``cohort phantom``, so that no person was scanned for them.

The cohort says so itself, in a sidecar beside every file, wherever the files are viewed from (a site's table, a copy).
"""

from __future__ import annotations

import json
from pathlib import Path

from ..cohort import Cohort, Patient
from ..volumes.nifti import nifti_stem

PHANTOM = "Phantom"
"""Sidecar entry that holds all that a procedural patient was drawn with."""

_DRAWN = {"atlas", "patient", "scanner"}


def procedural_patients(cohort: Cohort) -> frozenset[str]:
    """Identifiers of the procedural patients; everyone else counts as a real person.

    A patient is procedural where a sidecar beside every channel and label map of every scan says that the file is
    synthetic and what the patient was drawn with. Unknown counts as real: no sidecar, a damaged one, one without the
    draw (what a generator made may be drawn from a person), one file among many without it.
    """
    return frozenset(patient.patient_id for patient in cohort.patients if _is_procedural(patient))


def _is_procedural(patient: Patient) -> bool:
    files = [source.path for scan in patient.scans for source in scan.channels.values()]
    labels = [scan.label for scan in patient.scans if scan.label is not None]
    return bool(files) and all(map(_says_so, dict.fromkeys([*files, *labels])))


def _says_so(file: Path) -> bool:
    try:
        sidecar = json.loads(file.with_name(f"{nifti_stem(file)}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    drawn = sidecar.get(PHANTOM) if isinstance(sidecar, dict) else None
    return isinstance(drawn, dict) and drawn.keys() >= _DRAWN and sidecar.get("Synthetic") is True
