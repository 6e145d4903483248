"""The membership-inference audit: attacks, controls, statistics, verdict (PRIVACY §3-§4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...common.cohorts.roles import Role
from ...common.errors import DataError, TrainingError
from ...common.parallel import side_by_side
from ...common.randomness import numpy_generator
from ..attacks.attribute import NOTHING_TO_INFER
from ..attacks.battery import Battery, Reference
from ..attacks.blind import MIN_PATIENTS, BlindBaseline, blind_baseline
from ..attacks.copies import confirmed_copies
from ..attacks.copy_detection import COPY_DETECTION, copy_detection
from ..attacks.distances import distances
from ..attacks.interface import AuditedScans, Networks, foreground
from ..attacks.label_copies import label_copies
from ..attacks.moved_copies import search_moved
from ..attacks.once import Once, anew, under
from ..attacks.shadows import Errors
from ..evidence import (
    ATTACKS,
    ATTRIBUTE,
    BINDING,
    BLIND,
    OF_COINS,
    OF_SHADOWS,
    TRAJECTORY,
    WHITE_BOX,
    AuditEvidence,
    ControlResult,
    ReleaseKind,
)
from ..multiplicity import PValues, claim_confidence
from ..policy import ReleasePolicy
from ..power import Power, power
from ..statistics import roc
from ..verdict import decide
from .controls import (
    TrainGenerator,
    blind_control,
    canary_control,
    choose_memorised,
    negative_control,
    positive_insider_control,
    positive_model_control,
    positive_set_control,
    positive_shadow_control,
    positive_white_box_control,
)
from .copy_control import positive_copies_control
from .course import LONG, Course, Estimate, Progress, seconds_for_trainings
from .judging import at_each_site, judge, judge_blind, with_outliers, with_rejections
from .material import AuditMaterial
from .result import AuditResult, SuspectRow, scan_digest
from .shadow_training import ShadowPlan, seconds_for_shadows, seconds_to_measure, train_shadows

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class AuditPlan:
    """How much an audit does; fixed before it starts.

    Attributes:
        release: What is to be released.
        seed: Of everything drawn but the control generators.
        training_seed: Of those, and of whom the positive control memorises: the same in every audit of a study, so that
            an audit goes on with what a broken-off one trained.
        steps: Optimiser steps of reference and negative control; fewer than the target's make a reduced audit.
        scans_per_step: Scans in an optimiser step.
        negative_seeds: 3; fewer make a reduced audit, which is at best INCONCLUSIVE.
        draws: Noise draws of A1 at most, 1 to 32; two, where the reference generator shows that more change nothing.
        earlier: The p-values of each audit of this holdout before this one, None where one was broken off.
        blind_permutations: Shuffles that measure the blind baseline's own spread.
        trainings_at_once: Generators trained side by side; one a core by default.
        shadows: Shadow generators, where they are asked for.
    """

    release: ReleaseKind
    seed: int
    training_seed: int
    steps: int
    scans_per_step: int
    negative_seeds: int = 3
    draws: int = 8
    earlier: tuple[PValues | None, ...] = ()
    blind_permutations: int = 200
    trainings_at_once: int | None = None
    shadows: ShadowPlan | None = None

    @property
    def audit_number(self) -> int:
        """This is audit k of this holdout."""
        return 1 + len(self.earlier)


def run_audit(
    material: AuditMaterial,
    plan: AuditPlan,
    policy: ReleasePolicy,
    train_generator: TrainGenerator,
    memorise: TrainGenerator,
    progress: Progress = lambda stage, done, total: None,
    announce: Callable[[Power], None] = lambda power: None,
    estimate: Estimate = lambda attack, seconds: None,
    train_once: TrainGenerator | None = None,
    once: Once = anew,
) -> AuditResult:
    """Attack the generator, check the attacks by their controls, and decide.

    A control that cannot be run (no control patients, too few members) is left out, and the verdict says so. A control
    generator whose training comes to nothing is a control that does not hold.

    Args:
        material: What is audited.
        plan: How much.
        policy: Thresholds.
        train_generator: Trains reference and negative controls as the generator under audit was trained.
        memorise: Trains the positive control to learn its scans by heart.
        progress: Told of each stage.
        announce: Told, before the first training, what an audit of this size can show.
        estimate: Told, before the first training, how many seconds the control generators' training will take, and each
            attack that has to be asked for.
        train_once: As ``train_generator``, for what nobody needs again once it was timed or measured: nothing of it may
            be kept. By default the same.
        once: Keeps what each attack and search finds, for an audit of the very same inputs that goes on after this one
            was broken off; by default nothing is kept.

    Raises:
        DataError: nobody to compare (no site with a member and a holdout patient), no reference patients, or
            a generator under audit that paints non-finite voxels.
        TrainingError: the reference generator's training came to nothing; without it no attack is calibrated.
    """
    audited_index = material.scans_of("member", "holdout")
    audited = material.audited(audited_index)
    members, holdout = len(audited.compared(member=True)), len(audited.compared(member=False))
    if not members:
        raise DataError(
            f"{len(audited.side(True))} members and {len(audited.side(False))} holdout patients, but no site with both",
            expected="members and holdout patients of the same site",
            remedy="Audit a larger cohort; roles are drawn once, before training.",
        )
    reference_index = material.scans_of("reference")
    if not len(reference_index):
        raise DataError(
            "no reference patients to calibrate the attacks with",
            expected="patients with the role reference, or public or procedural patients standing in",
            remedy="Name a public cohort with --public, or set a share roles.reference in a new run's study.",
        )

    # The blind baseline is held to the same limit as the attacks that bind; what only puts others together adds none.
    searched = material.target.search is not None
    left_out = {*OF_COINS, *(() if searched else (WHITE_BOX,)), *(() if plan.shadows else OF_SHADOWS)}
    run = [name for name in ATTACKS if name not in left_out]
    binding = 1 + sum(ATTACKS[name] in BINDING[plan.release] for name in run)
    claim = claim_confidence(plan.audit_number)
    expected = power(members, holdout, binding, policy.auc_upper_max, claim, policy.outlier_auc_upper_max)
    announce(expected)

    memorised = choose_memorised(
        audited, audited_index, plan.scans_per_step, numpy_generator(plan.training_seed, "memorised")
    )
    control_index = material.scans_of("control")
    reference_seed, memoriser_seed, insider_seed, *negative_seeds = _seeds(
        3 + plan.negative_seeds, numpy_generator(plan.training_seed, "trainings")
    )
    trainings: dict[str, Callable[[], Networks | TrainingError]] = {
        "reference": partial(train_generator, reference_index, plan.steps, reference_seed)
    }
    if memorised.members:
        trainings["memoriser"] = partial(attempted, memorise, memorised.scans, memorised.steps, memoriser_seed)
        if material.target.logits is not None:
            # A memoriser has no discriminator: this one comes out of the training of the one under audit.
            trainings["insider"] = partial(attempted, train_generator, memorised.scans, memorised.steps, insider_seed)
    if len(control_index):
        for seed in negative_seeds:
            trainings[f"negative {seed}"] = partial(attempted, train_generator, control_index, plan.steps, seed)
    steps_of = {"memoriser": memorised.steps, "insider": memorised.steps}
    lengths = [steps_of.get(name, plan.steps) for name in trainings]
    tried = train_once or train_generator
    try_out = partial(tried, reference_index, seed=reference_seed)
    estimate(
        f"Training {len(lengths)} reference and control generators",
        seconds_for_trainings(lengths, try_out, plan.trainings_at_once),
    )
    # Searched are the weights of the target and of every control generator but the insider's.
    searches = (1 + len(trainings) - ("insider" in trainings)) if searched else 0
    if material.target.search is not None:
        voxels = foreground(audited.images, audited.labels)
        estimate(WHITE_BOX, searches * material.target.search.seconds(audited, voxels))
    shadow_number = 0 if plan.shadows is None else plan.shadows.number
    course = Course(progress, len(trainings) + shadow_number + 3 + (2 + searches) * LONG)
    reference_scans = material.audited(reference_index)
    shadows = None
    if plan.shadows is not None:
        measure = _measure(audited, reference_scans, plan.draws, plan.shadows.seed)
        args = (plan.shadows, measure, audited_index, tried, plan.trainings_at_once)
        # Measured beside those of the shadows: the target, the memoriser that A2 must find, the negative controls.
        others = 1 + sum(name.startswith(("memoriser", "negative")) for name in trainings)
        estimate("A2", seconds_for_shadows(*args) + others * seconds_to_measure(measure, material.target.generator))
        shadows = train_shadows(*args, partial(course.at, "training shadow generators", 1))
    generators: dict[str, Networks | TrainingError] = {}
    course.at("training reference and control generators")
    for index, generator in side_by_side(list(trainings.values()), plan.trainings_at_once):
        made = generator if isinstance(generator, TrainingError) else course.of_search(generator)
        generators[list(trainings)[index]] = made
        course.at("training reference and control generators", 1)

    course.at("attacking the generator")
    reference = generators["reference"]
    assert not isinstance(reference, TrainingError)  # noqa: S101  # its training is not merely attempted
    battery = Battery.calibrate(
        audited,
        Reference(reference_scans, reference),
        material.synthetic_labels,
        plan.draws,
        plan.seed,
        material.as_released,
        shadows,
        once,
    )
    target = battery.target(course.of_search(material.target), material.synthetic)
    found = battery.scores(target)
    # Every trained patient that the audit reads: fewer than all only lowers the bound. Under a promise at its own δ:
    # an ε proved at another is no bound of the one that is claimed.
    trained = {p for p, r in zip(material.patients, material.roles, strict=True) if r in _TRAINED}
    delta = material.claimed_delta or 1 / (10 * len(trained))

    controls: list[ControlResult] = []
    baseline = b0 = None
    course.at("running the blind baseline", 1)
    if min(members, holdout) >= MIN_PATIENTS:
        header = None if material.header is None else material.header[audited_index]
        blind = once(BLIND, lambda: blind_baseline(audited, plan.seed, header, plan.blind_permutations).arrays())
        baseline = BlindBaseline.found(audited, blind)
        b0 = judge_blind(baseline.scores, baseline.null, plan.seed, delta)
        controls.append(blind_control(b0))

    course.at("attacking the controls", 1)
    controls.append(positive_set_control(battery, target, numpy_generator(plan.seed, "planted copies")))
    planted = numpy_generator(plan.seed, "copies to be found")
    controls.append(positive_copies_control(audited, battery.known.judged, planted, once))
    found_by = numpy_generator(plan.seed, "positive-model")
    controls.append(positive_model_control(battery, memorised, generators.get("memoriser"), found_by))
    if searched:
        controls.append(positive_white_box_control(battery, memorised, generators.get("memoriser")))
    if shadows is not None:
        controls.append(positive_shadow_control(battery, memorised, generators.get("memoriser")))
    if "insider" in generators:
        controls.append(positive_insider_control(battery, memorised, generators["insider"]))
    negatives = {seed: generators[name] for seed in negative_seeds if (name := f"negative {seed}") in generators}
    negative, negative_runs = negative_control(battery, negatives, tuple(found))
    if negative is not None:
        controls.append(negative)

    held_index = material.scans_of(*_HELD, *(() if material.reference_stands_in else ("reference",)))
    held = material.audited(held_index)
    judged_voxels = foreground(held.images, held.labels)

    course.at("searching for moved copies", 1)
    moved = search_moved(
        held,
        judged_voxels,
        material.synthetic,
        course.within("searching for moved copies"),
        once=under("moved copies", once),
    )
    copies = confirmed_copies(held, judged_voxels, distances(held, judged_voxels, material.synthetic), moved.source)
    found[COPY_DETECTION] = copy_detection(audited, moved.likeness[np.searchsorted(held_index, audited_index)])
    course.at("searching for copied label maps")
    told_of_maps = course.within("searching for copied label maps")
    of_holdout = np.array([material.roles[i] == "holdout" for i in held_index], dtype=bool)
    copied_labels = label_copies(
        held, of_holdout, material.synthetic_labels, told_of_maps, once=under("copied label maps", once)
    )
    whole = [found[id] for id in ATTACKS if id in found]
    scored, too_small = with_outliers(whole, battery.outliers())
    attacks = with_rejections([judge(attack, plan.seed, delta, plan.audit_number) for attack in scored], plan.earlier)
    rocs = {attack.id: roc(attack.scores()) for attack in scored}
    if baseline is not None and b0 is not None:
        attacks.append(b0)
        rocs[BLIND] = roc(baseline.scores.scores())
    evidence = AuditEvidence(
        release=plan.release,
        attacks=tuple(attacks),
        controls=(*controls, *([] if material.canary is None else [canary_control(material.canary)])),
        n_member=members,
        n_holdout=holdout,
        negative_seeds=len({run.seed for run in negative_runs}),
        target_steps=material.target_steps,
        control_steps=plan.steps,
        confirmed_copies=copies.volumes,
        copied_members=copies.members,
        copied_labels=copied_labels,
        claimed_epsilon=material.claimed_epsilon,
        canary_excess=material.canary is not None and material.canary.excess,
        audit_number=plan.audit_number,
        generator_named_by=material.generator_named_by,
        too_small=too_small,
        not_applicable=tuple(id for id in _ASKS_FOR if id not in found),
    )
    progress("done", course.total, course.total)
    return AuditResult(
        verdict=decide(evidence, policy),
        evidence=evidence,
        policy=policy,
        power=expected,
        counts=_counts(material),
        roc=rocs,
        by_site=at_each_site(whole, plan.seed),
        negative_runs=negative_runs,
        delta=delta,
        generator_sha256=material.generator_sha256,
        cohort_digest=material.cohort_digest,
        synthetic_sha256=material.synthetic_sha256,
        earlier_audits=plan.earlier,
        reference_stands_in=material.reference_stands_in,
        suspects=tuple(
            SuspectRow(one.volume, scan_digest(held.images[one.scan]), one.accused) for one in copies.suspects
        ),
        not_applicable={
            id: SUMMED if id == TRAJECTORY and material.summed else _ASKS_FOR[id] for id in evidence.not_applicable
        },
    )


SUMMED = "the study has secure aggregation, so that the coordinator saw the sites' sum alone"
_ASKS_FOR = {ATTRIBUTE: NOTHING_TO_INFER, TRAJECTORY: "the sites kept no round that all of them took part in"}
_TRAINED: tuple[Role, ...] = ("member", "training")
_HELD: tuple[Role, ...] = ("member", "holdout", "training", "control")
"""Patients of whose scans no synthetic volume may be a copy; reference patients too, where they are the sites' own."""
_READ: tuple[Role, ...] = ("reference", "control", "member", "holdout", "training")
"""Roles that an audit reads: patients kept for the evaluation are none of its business, and not counted."""


def attempted(
    train: Callable[[NDArray[np.intp], int, int], T], scans: NDArray[np.intp], steps: int, seed: int
) -> T | TrainingError:
    """A control's network, or why there is none: its control says so, and the audit goes on."""
    try:
        return train(scans, steps, seed)
    except TrainingError as error:
        return error


def _measure(audited: AuditedScans, reference: AuditedScans, draws: int, seed: int) -> Errors:
    judged, others = foreground(audited.images, audited.labels), foreground(reference.images, reference.labels)
    return Errors(audited, judged, reference, others, draws, seed)


def _seeds(number: int, rng: np.random.Generator) -> list[int]:
    return [int(seed) for seed in rng.choice(2**31, size=number, replace=False)]


def _counts(material: AuditMaterial) -> dict[str, int]:
    role_of = dict(zip(material.patients, material.roles, strict=True))
    found: Mapping[str, int] = Counter(role_of.values())
    audited = [p for p, r in role_of.items() if r in ("member", "holdout")]
    return {
        **{role: found.get(role, 0) for role in _READ},
        "audited_patients": len(audited),
        "audited_scans": len(material.scans_of("member", "holdout")),
        "sites": len({s for s, r in zip(material.sites, material.roles, strict=True) if r in ("member", "holdout")}),
        "synthetic": len(material.synthetic),
    }
