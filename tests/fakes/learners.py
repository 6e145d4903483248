"""Generators that learn in no time, by heart or not, and audits of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedphantom.common.cohorts.roles import Role
from fedphantom.privacy.attacks.interface import Images, Labels, Networks
from fedphantom.privacy.attacks.once import Arrays
from fedphantom.privacy.audit.audit import AuditPlan, run_audit
from fedphantom.privacy.audit.controls import TrainGenerator
from fedphantom.privacy.audit.material import AuditMaterial
from fedphantom.privacy.audit.result import AuditResult
from fedphantom.privacy.evidence import ATTACKS, INSIDER, OF_SHADOWS, OUTLIERS, TESTS, TRAJECTORY, WHITE_BOX
from fedphantom.privacy.policy import TIERS

GRID = (8, 8, 8)
CHANNELS = 2
BATCH = 2


class Learner:
    """A generator fitted to scans: labels plus the scans' mean remainder, or every scan by heart."""

    def __init__(self, images: Images, labels: Labels, by_heart: bool) -> None:
        self.mean = 0 if by_heart else (images - labels[:, None]).mean(axis=0)
        self.known = {label.tobytes(): image for label, image in zip(labels, images, strict=True)} if by_heart else {}

    def __call__(self, labels: Labels, noise_seed: int) -> Images:
        noise = np.random.default_rng(noise_seed).normal(0, 0.3, (len(labels), CHANNELS, *GRID))
        painted = labels[:, None] + self.mean + noise
        return np.stack([self.known.get(m.tobytes(), x) for m, x in zip(labels, painted, strict=True)]).astype(
            np.float32
        )


def some_labels(draw: np.random.Generator, number: int) -> Labels:
    """Maps with a margin of nothing, as an anatomy has it: a shift then loses none of it."""
    inside = np.pad(np.ones(tuple(n - 2 for n in GRID), bool), 1)
    return ((draw.random((number, *GRID)) < 0.6) & inside).astype(np.uint8)


def make_material(seed: int = 0, *, by_heart: bool = False, **numbers: int) -> AuditMaterial:
    """Patients of two sites; the target is fitted to training patients, and with ``by_heart`` to members."""
    draw = np.random.default_rng(seed)
    wanted: dict[Role, int] = {"member": 30, "holdout": 30, "training": 20, "reference": 12, "control": 12}
    wanted |= numbers  # type: ignore[assignment, operator]  # keywords are role names
    roles: list[Role] = [role for role, n in wanted.items() for _ in range(n)]
    n = len(roles)
    labels = some_labels(draw, n)
    images = (labels[:, None] + draw.normal(0, 1, (n, CHANNELS, *GRID))).astype(np.float32)
    fitted = [i for i, role in enumerate(roles) if role in (("member",) if by_heart else ("training",))]
    target = Learner(images[fitted], labels[fitted], by_heart)
    public = some_labels(draw, 30)
    return AuditMaterial(
        generator_named_by="the coordinator's journal",
        as_released=lambda images: images,
        target_steps=PLAN.steps,
        images=images,
        labels=labels,
        patients=tuple(f"p{i:03d}" for i in range(n)),
        roles=tuple(roles),
        sites=tuple("AB"[i % 2] for i in range(n)),
        target=Networks(target),
        synthetic=target(public, 1),
        synthetic_labels=public,
        generator_sha256="a" * 64,
        cohort_digest="b" * 64,
    )


def trainer(material: AuditMaterial, calls: list[tuple[int, int]] | None = None) -> TrainGenerator:
    """Learns what its scans have in common."""

    def train(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
        if calls is not None:
            calls.append((len(scans), steps))
        return Networks(Learner(material.images[scans], material.labels[scans], by_heart=False))

    return train


def memoriser(material: AuditMaterial, calls: list[tuple[int, int]] | None = None) -> TrainGenerator:
    """Learns by heart where sixty epochs allow it, as networks do."""

    def train(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
        if calls is not None:
            calls.append((len(scans), steps))
        by_heart = steps * BATCH / len(scans) >= 60
        return Networks(Learner(material.images[scans], material.labels[scans], by_heart))

    return train


PLAN = AuditPlan(
    release="weights", seed=7, training_seed=7, steps=50, scans_per_step=BATCH, draws=2, blind_permutations=20
)


def audit(
    material: AuditMaterial,
    tier: str = "controlled",
    train: Callable[[AuditMaterial], TrainGenerator] = trainer,
    memorise: Callable[[AuditMaterial], TrainGenerator] = memoriser,
    **changes: object,
) -> AuditResult:
    plan = replace(PLAN, **changes)  # type: ignore[arg-type]  # keywords are the plan's
    return run_audit(
        material,
        plan,
        TIERS[tier],  # type: ignore[index]  # a tier's name
        train(material),
        memorise(material),
        once=partial(_planted_once, (plan.seed, material.roles, material.images.tobytes(), material.labels.tobytes())),
    )


_FOUND: dict[int, Arrays] = {}


def _planted_once(seen: tuple[object, ...], what: str, find: Callable[[], Arrays]) -> Arrays:
    """Copies planted among the very same scans are searched for once, whichever generator is audited."""
    if not what.startswith("planted scans: ") and not what.startswith("planted label maps: "):
        return find()
    key = hash((what, seen))
    if key not in _FOUND:
        _FOUND[key] = find()
    return _FOUND[key]


OUTSIDE = [name for name in ATTACKS if name not in (*INSIDER, *OF_SHADOWS, TRAJECTORY, WHITE_BOX)]
"""Attacks that need no discriminator, shadows, rounds or search: these learners have none."""

TRIED = [name for name in TESTS if name.removesuffix(OUTLIERS) in OUTSIDE]
"""Those and what of them is scored on unusual patients, in the order in which they are told."""

LARGE = {"member": 130, "holdout": 130}
"""Patients enough for a PASS."""


def control(result: AuditResult, name: str) -> tuple[bool, str]:
    return next((c.ok, c.got) for c in result.evidence.controls if c.id == name)
