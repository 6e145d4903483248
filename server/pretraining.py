"""The public start of an adversarial training: both networks, trained on public scans alone (PRIVACY §1.4)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..common.cohort import Cohort
from ..common.cohorts.check import check_cohort
from ..common.cohorts.layouts import read_cohort
from ..common.cohorts.preparation import prepare
from ..common.cohorts.procedural import procedural_patients
from ..common.device import choose_device
from ..common.errors import OutputTaken, about
from ..common.gan.label_means import public_means
from ..common.gan.public_start import write_public_start
from ..common.gan.training import train_from_scratch
from ..common.labels.sampler import public_label_maps
from ..common.labels.stated_origin import refuse_painted, refuse_private_labels, refuse_private_maps
from ..common.randomness import derived_seed
from ..common.storage import CHOOSE_ANOTHER, refuse_unwritable
from ..common.study import Study


@dataclass(frozen=True)
class Pretrained:
    """A public start file.

    Attributes:
        sha256: Its hash, for ``training.start``.
        scans: That it was trained on.
        maps: Undeformed label maps in it.
        steps: It was trained for.
    """

    sha256: str
    scans: int
    maps: int
    steps: int


def pretrain(
    study: Study, public: Path, out: Path, steps: int, stage: Callable[[str], Callable[[int, int], None]]
) -> Pretrained:
    """Train on public scans and write the public start file.

    Args:
        study: Networks, grid, labels; trained by the ``paired`` objective, whatever the study's own is.
        public: A cohort of public or procedural patients.
        out: A new file.
        steps: Of the optimisers.
        stage: Begins a named stage; returns its progress function (done, in all).

    Raises:
        DataError: no usable scan, or patients who are neither marked public nor procedural.
        PolicyRefused: scans or label maps that are painted, or private, by their own sidecars; or the study promises
            something, and a network trained on private scans made label maps.
        OutputTaken: ``out`` exists.
        TrainingError: NaN or collapse.
    """
    if out.exists():
        raise OutputTaken(f"'{out.name or out}' is there already", expected="a new file", remedy=CHOOSE_ANOTHER)
    refuse_unwritable(out.absolute().parent)
    with about("--public"):
        patients = public_patients(read_cohort(public))
        cohort = check_cohort(patients, study, stage("looking through the public cohort")).usable_or_refused()
        refuse_private_labels(cohort, study)
        refuse_painted(cohort)
        refuse_private_maps(cohort)
    with tempfile.TemporaryDirectory() as cache:
        scans = prepare(cohort, study, Path(cache), stage("preparing"))
        maps = [] if study.public_labels.source == "atlas" else public_label_maps(study, cohort)
        seed = derived_seed(study.seed, "public start")
        device = choose_device()
        report = stage("training on public scans")
        networks = train_from_scratch(scans, study, device, steps=steps, seed=seed, progress=report)
        means = public_means(scans, study, device)
    sha256 = write_public_start(out, networks, [m.labels for m in maps], means)
    return Pretrained(sha256, len(scans), len(maps), steps)


def public_patients(cohort: Cohort) -> Cohort:
    """Those marked public, or all where every one is procedural; whatever a start is made of, no promise covers it."""
    procedural = procedural_patients(cohort)
    return cohort if procedural >= set(cohort.patient_ids) else cohort.public()
