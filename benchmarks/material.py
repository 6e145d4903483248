"""What all benchmarks run on: procedural patients, prepared once, and a study that trains on all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import PreparedScans, prepare
from fedphantom.common.phantom.patients import phantom_grid, write_phantom_cohort
from fedphantom.common.phantom.study import phantom_study
from fedphantom.common.study import RolesTable, Study, TrainingTable

PATIENTS, SPACING_MM, SEED = 16, 5.0, 1
ROUNDS, LOCAL_STEPS = 3, 40


@dataclass(frozen=True)
class Material:
    """Attributes: the cohort's folder, its study, and its prepared scans, memory-mapped."""

    cohort: Path
    study: Study
    scans: PreparedScans


def make_material(folder: Path) -> Material:
    """Write the patients into ``folder`` and prepare them there."""
    study = phantom_study(
        "benchmark", SEED, phantom_grid(SPACING_MM), TrainingTable(rounds=ROUNDS, local_steps=LOCAL_STEPS)
    ).model_copy(update={"roles": RolesTable(test=0, reference=0, control=0, audit=0, validation=0)})
    cohort = folder / "cohort"
    if not cohort.exists():
        write_phantom_cohort(cohort, PATIENTS, 1, SPACING_MM, SEED)
    return Material(cohort, study, prepare(read_cohort(cohort), study, folder / "cache"))
