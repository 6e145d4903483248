"""The audit of a network from images to labels: does it know its members' own label maps better than strangers'?

It paints nothing, so there is no set to look for copies in: A1 in its own form (``attacks.own_scan``), the isolated
quartile, B0, and the controls that need no set. What is missing, the verdict says: such weights cannot PASS yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...common.cohorts.preparation import PreparedScans
from ...common.cohorts.roles import Role
from ...common.device import Device
from ...common.errors import DataError, TrainingError
from ...common.gan.image_variation import inferred_classes
from ...common.gan.losses import cross_entropy_and_dice
from ...common.gan.networks import Generator, made_classes, make_generator, one_hot
from ...common.gan.training import scans_of_step, train_from_scratch
from ...common.parallel import side_by_side
from ...common.randomness import numpy_generator
from ...common.run_result import NamedBy
from ...common.study import Study
from ..attacks.blind import MIN_PATIENTS, blind_baseline
from ..attacks.distances import most_isolated
from ..attacks.interface import AttackScores, AuditedScans, Images, foreground
from ..attacks.own_scan import Read, own_scan_losses, own_scan_scores
from ..evidence import BLIND, AttackResult, AuditEvidence, ControlResult
from ..multiplicity import claim_confidence
from ..policy import ReleasePolicy
from ..power import Power, power
from ..statistics import Floats, roc
from ..verdict import decide
from .audit import AuditPlan, attempted
from .control_training import MEMORISING_RATE
from .controls import NegativeRun, attacked, blind_control, choose_memorised, memoriser_found, strangers_told
from .course import Estimate, Progress, seconds_for_trainings
from .judging import SiteFigure, at_each_site, judge, judge_blind, with_outliers, with_rejections
from .result import AuditResult

_READ: tuple[Role, ...] = ("reference", "control", "member", "holdout", "training")


@dataclass(frozen=True)
class LabelNetworkMaterial:
    """What such an audit reads.

    Attributes:
        scans: Prepared scans of every role that an audit uses.
        roles: Role of each scan's patient.
        study: Names labels and classes.
        target: The network under audit.
        generator_sha256: Of its file.
        cohort_digest: Of the coin records.
        target_steps: Steps that each site trained it.
        reference_stands_in: What stood in as reference patients, in words, or None.
        generator_named_by: Whose journal says that these patients' training made the generator; None where nobody's
            could be asked, as in a site's own folder with a generator that it received.
    """

    scans: PreparedScans
    roles: tuple[Role, ...]
    study: Study
    target: Read
    generator_sha256: str
    cohort_digest: str
    target_steps: int
    reference_stands_in: str | None = None
    generator_named_by: NamedBy | None = None

    def rows_of(self, *roles: Role) -> NDArray[np.intp]:
        """Rows of the scans of patients with one of these roles, ascending."""
        return np.flatnonzero([role in roles for role in self.roles])


class TrainReader(Protocol):
    """Trains the study's network from nothing on these rows; the same arguments give the same one."""

    def __call__(self, rows: NDArray[np.intp], steps: int, seed: int) -> Read:
        """Train on these rows of the material's scans and no others."""
        ...


@dataclass(frozen=True)
class _OwnScans:
    """The audited scans with their calibration."""

    scans: AuditedScans
    classes: NDArray[np.intp]
    judged: NDArray[np.bool_]
    reference: Floats

    def attack(self, network: Read, patients: tuple[str, ...] | None = None) -> AttackScores:
        kept = np.arange(len(self.scans)) if patients is None else self.scans.of(patients)
        scans = self.scans.take(kept)
        losses = own_scan_losses(network, scans, self.classes, self.judged[kept])
        return own_scan_scores(losses, self.reference[kept], scans)


def audit_label_network(
    material: LabelNetworkMaterial,
    plan: AuditPlan,
    policy: ReleasePolicy,
    train: TrainReader,
    memorise: TrainReader,
    progress: Progress = lambda stage, done, total: None,
    announce: Callable[[Power], None] = lambda power: None,
    estimate: Estimate = lambda what, seconds: None,
) -> AuditResult:
    """Attack the network, check the attack by its controls, and decide.

    Args:
        material: What is audited.
        plan: How much.
        policy: Thresholds.
        train: Trains reference and negative controls as the network under audit was trained.
        memorise: Trains the positive control to learn its scans by heart.
        progress: Told of each stage.
        announce: Told, before the first training, what an audit of this size can show.
        estimate: Told, before the first training, how many seconds the control networks' training will take.

    Raises:
        DataError: nobody to compare, or no reference patients.
        TrainingError: the reference network's training came to nothing; without it the attack is not calibrated.
    """
    rows = material.rows_of("member", "holdout")
    audited = _audited(material, rows)
    members, holdout = len(audited.compared(member=True)), len(audited.compared(member=False))
    reference_rows, control_rows = material.rows_of("reference"), material.rows_of("control")
    if not members or not len(reference_rows):
        raise DataError(
            f"{members} members and {holdout} holdout patients of one site, {len(reference_rows)} reference scans",
            expected="members and holdout patients of the same site, and reference patients or stand-ins",
            remedy="Audit a larger cohort, with a share roles.reference in the study; roles are drawn once.",
        )
    claim = claim_confidence(plan.audit_number)
    expected = power(members, holdout, 2, policy.auc_upper_max, claim, policy.outlier_auc_upper_max)
    announce(expected)

    memorised = choose_memorised(audited, rows, plan.scans_per_step, numpy_generator(plan.training_seed, "memorised"))
    drawn = numpy_generator(plan.training_seed, "trainings").choice(2**31, size=2 + plan.negative_seeds, replace=False)
    seeds = [int(seed) for seed in drawn]
    trainings: dict[str, Callable[[], Read | TrainingError]] = {
        "reference": partial(train, reference_rows, plan.steps, seeds[0])
    }
    if memorised.members:
        trainings["memoriser"] = partial(attempted, memorise, memorised.scans, memorised.steps, seeds[1])
    for seed in seeds[2:] if len(control_rows) else ():
        trainings[f"negative {seed}"] = partial(attempted, train, control_rows, plan.steps, seed)
    lengths = [memorised.steps if name == "memoriser" else plan.steps for name in trainings]
    try_out = partial(train, reference_rows, seed=seeds[0])
    estimate(
        f"Training {len(lengths)} reference and control networks",
        seconds_for_trainings(lengths, try_out, plan.trainings_at_once),
    )
    networks: dict[str, Read | TrainingError] = {}
    for index, network in side_by_side(list(trainings.values()), plan.trainings_at_once):
        networks[list(trainings)[index]] = network
        progress("training reference and control networks", len(networks), len(trainings) + 2)

    progress("attacking the network", len(trainings), len(trainings) + 2)
    judged_voxels = foreground(audited.images, audited.labels)
    classes = inferred_classes(material.study)
    calibrating = networks["reference"]
    assert not isinstance(calibrating, TrainingError)  # noqa: S101  # its training is not merely attempted
    reference = own_scan_losses(calibrating, audited, classes, judged_voxels)
    own = _OwnScans(audited, classes, judged_voxels, reference)
    whole = own.attack(material.target)
    scored, too_small = with_outliers([whole], most_isolated(audited, judged_voxels))
    trained = {p for p, r in zip(material.scans.patients, material.roles, strict=True) if r in ("member", "training")}
    delta = 1 / (10 * len(trained))
    attacks = with_rejections([judge(attack, plan.seed, delta, plan.audit_number) for attack in scored], plan.earlier)
    rocs = {attack.id: roc(attack.scores()) for attack in scored}

    by_site = at_each_site([whole], plan.seed)
    controls: list[ControlResult] = []
    if min(members, holdout) >= MIN_PATIENTS:
        baseline = blind_baseline(audited, plan.seed, material.scans.headers[rows], plan.blind_permutations)
        b0 = judge_blind(baseline.scores, baseline.null, plan.seed, delta)
        attacks.append(b0)
        rocs[BLIND] = roc(baseline.scores.scores())
        controls.append(blind_control(b0))
    people = (*memorised.members, *audited.side(member=False))
    memoriser = networks.get("memoriser")
    learnt = None if memoriser is None else attacked(memoriser, lambda network: own.attack(network, people))
    controls.append(memoriser_found(learnt, memorised, numpy_generator(plan.seed, "positive-model")))
    strangers = {seed: networks[name] for seed in seeds[2:] if (name := f"negative {seed}") in networks}
    negative, runs = strangers_told(
        {seed: attacked(network, lambda network: (own.attack(network),)) for seed, network in strangers.items()}
    )
    if negative is not None:
        controls.append(negative)
    progress("done", len(trainings) + 2, len(trainings) + 2)
    return _result(
        material, plan, policy, attacks, controls, runs, rocs, by_site, delta, expected, (members, holdout), too_small
    )


def reader(network: Generator, device: Device) -> Read:
    """A network as the attack sees it: images to class probabilities."""

    def read(images: Images) -> Images:
        with torch.inference_mode(), device.autocast():
            given = device.tensor(torch.from_numpy(np.array(images, dtype=np.float32)))
            shares: Images = network(given, given[:, :0]).float().cpu().numpy()
        return shares

    return read


def train_reader(scans: PreparedScans, study: Study, device: Device) -> TrainReader:
    """Trains through the very loop that trained the network under audit."""

    def train(rows: NDArray[np.intp], steps: int, seed: int) -> Read:
        state = train_from_scratch(scans.only(rows), study, device, steps=steps, seed=seed)
        return reader(state.generator.eval(), device)

    return train


def memorise_reader(scans: PreparedScans, study: Study, device: Device) -> TrainReader:
    """Learns scans by heart: the supervised loss alone, on scans as they are. The positive control must leak."""

    def memorise(rows: NDArray[np.intp], steps: int, seed: int) -> Read:
        chosen = scans.only(rows)
        look = torch.from_numpy(inferred_classes(study))
        network = make_generator(study, seed)
        device.place(network)
        optimiser = torch.optim.Adam(network.parameters(), MEMORISING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, MEMORISING_RATE, total_steps=steps)
        for step in range(steps):
            batch = scans_of_step(len(chosen), study.training.batch, step, seed)
            given = device.tensor(torch.from_numpy(np.array(chosen.volumes[batch], dtype=np.float32)))
            classes = look[torch.from_numpy(np.array(chosen.classes[batch])).long()]
            with device.autocast():
                shares = network(given, given[:, :0])
            loss = cross_entropy_and_dice(shares, device.tensor(one_hot(classes, made_classes(study))))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimiser.step()
            schedule.step()
        return reader(network.eval(), device)

    return memorise


def _audited(material: LabelNetworkMaterial, rows: NDArray[np.intp]) -> AuditedScans:
    scans = material.scans
    return AuditedScans(
        scans.volumes[rows],
        scans.classes[rows],
        tuple(scans.patients[i] for i in rows),
        tuple(scans.sites[i] for i in rows),
        tuple(material.roles[i] == "member" for i in rows),
    )


def _result(
    material: LabelNetworkMaterial,
    plan: AuditPlan,
    policy: ReleasePolicy,
    attacks: list[AttackResult],
    controls: list[ControlResult],
    runs: tuple[NegativeRun, ...],
    rocs: dict[str, tuple[tuple[float, float], ...]],
    by_site: tuple[SiteFigure, ...],
    delta: float,
    expected: Power,
    compared_patients: tuple[int, int],
    too_small: tuple[str, ...],
) -> AuditResult:
    evidence = AuditEvidence(
        release="weights",
        attacks=tuple(attacks),
        controls=tuple(controls),
        n_member=compared_patients[0],
        n_holdout=compared_patients[1],
        negative_seeds=len({run.seed for run in runs}),
        target_steps=material.target_steps,
        control_steps=plan.steps,
        confirmed_copies=0,  # nothing is painted that could be one
        audit_number=plan.audit_number,
        generator_named_by=material.generator_named_by,
        too_small=too_small,
    )
    role_of = dict(zip(material.scans.patients, material.roles, strict=True))
    found = Counter(role_of.values())
    audited = [p for p, role in role_of.items() if role in ("member", "holdout")]
    sites = {s for s, r in zip(material.scans.sites, material.roles, strict=True) if r in ("member", "holdout")}
    counts = {role: found.get(role, 0) for role in _READ} | {
        "audited_patients": len(audited),
        "audited_scans": len(material.rows_of("member", "holdout")),
        "sites": len(sites),
        "synthetic": 0,
    }
    return AuditResult(
        verdict=decide(evidence, policy),
        evidence=evidence,
        policy=policy,
        power=expected,
        counts=counts,
        roc=rocs,
        by_site=by_site,
        negative_runs=runs,
        delta=delta,
        generator_sha256=material.generator_sha256,
        cohort_digest=material.cohort_digest,
        synthetic_sha256=None,
        earlier_audits=plan.earlier,
        reference_stands_in=material.reference_stands_in,
    )
