"""A simulated run of two sites that each train a generator of their own, and what each makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trained_run import trained_run

from fedphantom.cli import run as fedphantom
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.federation import FederationTable, Sharing
from fedphantom.common.phantom.patients import write_phantom_cohort
from fedphantom.common.study import NetworkTable, PublicLabelsTable, RolesTable, Study, TrainingTable
from fedphantom.common.study_template import study_for, to_toml

SITES = ("site-a", "site-b")
INTERNAL = 'tier = "internal"\n'


def study_of_sites_alone(root: Path, sharing: Sharing) -> Study:
    study = study_for(
        read_cohort(root / "site-a"), name="alone", seed=4, public_labels=PublicLabelsTable(source="atlas")
    )
    changes: dict[str, Any] = {
        "network": NetworkTable(preset="tiny"),
        "training": TrainingTable(rounds=1, local_steps=2),
        "federation": FederationTable(sharing=sharing),
        "roles": RolesTable(test=0.1, reference=0.2, control=0.2, audit=0.4),
    }
    return study.model_copy(update=changes)


def simulate_sites_alone(root: Path, sharing: Sharing) -> Path:
    """Two cohorts of ten, an internal policy, and ``run``."""
    for seed, name in enumerate(SITES):
        write_phantom_cohort(root / name, 10, spacing_mm=12.0, seed=seed)
    (root / "internal.toml").write_text(INTERNAL)
    trained_run(to_toml(study_of_sites_alone(root, sharing)), {name: root / name for name in SITES}, root / "run")
    return root


def paint(generator: Path, out: Path) -> int:
    return fedphantom(["generate", str(generator), str(out), "--sample", "3", "--device", "cpu", "--json"])


def audit(root: Path, site: Path, *more: str) -> int:
    policy = ["--policy", str(root / "internal.toml"), "--device", "cpu"]
    return fedphantom(["audit", "run", str(site), *policy, "--steps", "2", "--negative-seeds", "1", "--json", *more])


def pack(site: Path, out: Path, key: Path, *more: str) -> int:
    """Volumes of two steps of training show nothing, so nor that there is no face."""
    faces = [] if "weights" in more else ["--allow-faces", "procedural patients have no face"]
    line = ["release", "pack", str(site), str(out), "--key", str(key), "--tier", "internal", "--json"]
    return fedphantom([*line, *faces, *more])
