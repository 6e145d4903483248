"""The attack on a run's generator: all that it needs is read before it counts as an audit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...common.cohorts.layouts import read_cohort
from ...common.cohorts.preparation import PreparedScans, prepare
from ...common.cohorts.roles import Role
from ...common.device import Device
from ...common.errors import about
from ...common.gan.generation import LoadedGenerator, as_read_back
from ...common.run_result import NamedBy
from ...common.study import Study
from ..attacks.interface import Logits, Networks, SentRound
from ..attacks.once import Once
from ..dp.canaries import run_canaries
from ..dp.statement import read_dp
from ..policy import ReleasePolicy
from ..power import Power
from ..synthetic_digest import synthetic_digest
from .audit import AuditPlan, run_audit
from .control_training import TrainOn, painter, train_control_generator, train_memoriser
from .controls import TrainGenerator
from .course import Estimate, Progress
from .kept_networks import KeptNetworks
from .label_network import LabelNetworkMaterial, audit_label_network, memorise_reader, reader, train_reader
from .material import AuditMaterial
from .result import AuditResult
from .weight_search import weight_search


@dataclass(frozen=True)
class RunMaterial:
    """What the audits of both kinds of network read of a run.

    Attributes:
        generator: Under audit.
        scans: The sites' and the stand-ins', of every role that an audit uses.
        roles: Role of each scan's patient.
        cohort_digest: Of the coin records.
        target_steps: Steps that each site trained the generator.
        stands_in: What stood in as reference patients, in words, or None.
        named_by: Whose journal says that these patients' training made the generator, or None.
        insider: The sites' discriminators, where each site's folder keeps one.
        rounds: What their coordinator saw, where the sites' folders keep it.
    """

    generator: LoadedGenerator
    scans: PreparedScans
    roles: tuple[Role, ...]
    cohort_digest: str
    target_steps: int
    stands_in: str | None
    named_by: NamedBy | None
    insider: Logits | None = None
    rounds: Sequence[Callable[[], SentRound]] = ()


class Attack(Protocol):
    """An audit that has all it needs but its place among the others."""

    def __call__(
        self,
        plan: AuditPlan,
        policy: ReleasePolicy,
        progress: Progress,
        announce: Callable[[Power], None],
        estimate: Estimate,
    ) -> AuditResult:
        """Arguments and errors as :func:`~fedphantom.privacy.audit.audit.run_audit`."""
        ...


def attack_on_painter(
    run: RunMaterial, synthetic: Path, cache: Path, kept: KeptNetworks, once: Once, *, white_box: bool
) -> Attack:
    """Of a generator of images, with the cohort that it painted, and where it is asked for with its weights searched.

    ``kept`` and ``once`` hold what an audit that was broken off had trained and found.

    Raises:
        DataError: a synthetic volume that cannot be read or prepared.
        StorageError: the disk is full.
    """
    study, device, scans = run.generator.study, run.generator.device, run.scans
    promised = read_dp(run.generator.dp, study)
    volumes = synthetic_digest(synthetic)
    # Nothing that lies there is believed: what is attacked comes from the files that were hashed.
    shutil.rmtree(cache, ignore_errors=True)
    with about("the synthetic cohort"):
        made = prepare(read_cohort(synthetic), study.without_remapping(), cache)
    material = AuditMaterial(
        images=np.asarray(scans.volumes),
        labels=np.asarray(scans.classes),
        patients=scans.patients,
        roles=run.roles,
        sites=scans.sites,
        target=Networks(
            painter(run.generator.network, study, device),
            run.insider,
            weight_search(run.generator.network, study, device) if white_box else None,
            run.rounds,
        ),
        synthetic=np.asarray(made.volumes),
        synthetic_labels=np.asarray(made.classes),
        generator_sha256=run.generator.sha256,
        cohort_digest=run.cohort_digest,
        as_released=as_read_back,
        target_steps=run.target_steps,
        synthetic_sha256=volumes,
        header=scans.headers,
        reference_stands_in=run.stands_in,
        generator_named_by=run.named_by,
        claimed_epsilon=promised.epsilon if promised else None,
        claimed_delta=promised.delta if promised else None,
        canary=run_canaries(study, device) if promised else None,
        summed=study.federation.secure_aggregation is not None,
    )
    train = _trainer(train_control_generator, scans, study, device, kept)
    tried = _trainer(train_control_generator, scans, study, device, None)
    memorise = _trainer(train_memoriser, scans, study, device, kept)

    def attack(
        plan: AuditPlan,
        policy: ReleasePolicy,
        progress: Progress,
        announce: Callable[[Power], None],
        estimate: Estimate,
    ) -> AuditResult:
        return run_audit(material, plan, policy, train, memorise, progress, announce, estimate, tried, once)

    return attack


def attack_on_reader(run: RunMaterial) -> Attack:
    """Of a network from images to labels, which paints nothing."""
    study, device = run.generator.study, run.generator.device
    material = LabelNetworkMaterial(
        scans=run.scans,
        roles=run.roles,
        study=study,
        target=reader(run.generator.network, device),
        generator_sha256=run.generator.sha256,
        cohort_digest=run.cohort_digest,
        target_steps=run.target_steps,
        reference_stands_in=run.stands_in,
        generator_named_by=run.named_by,
    )
    train, memorise = train_reader(run.scans, study, device), memorise_reader(run.scans, study, device)

    def attack(
        plan: AuditPlan,
        policy: ReleasePolicy,
        progress: Progress,
        announce: Callable[[Power], None],
        estimate: Estimate,
    ) -> AuditResult:
        return audit_label_network(material, plan, policy, train, memorise, progress, announce, estimate)

    return attack


def _trainer(
    train_on: TrainOn, prepared: PreparedScans, study: Study, device: Device, kept: KeptNetworks | None
) -> TrainGenerator:
    def train(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
        return train_on(prepared, scans, study, device, steps=steps, seed=seed, kept=kept)

    return train
