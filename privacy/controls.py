"""Controls: do the attacks find a leak where one is, and none where none can be? (PRIVACY §4)

Control generators see private patients without DP. They live in memory for one audit and never leave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .attacks.battery import Battery
from .attacks.interface import Reconstruct
from .evidence import AttackResult, ControlResult
from .intervals import auc_interval
from .policy import ReleasePolicy
from .statistics import Floats, auc, holm, null_p_value


class TrainGenerator(Protocol):
    """Trains the study's generator from nothing; the same arguments give the same one."""

    def __call__(self, scans: NDArray[np.intp], steps: int, seed: int) -> Reconstruct:
        """Train on these scans of the audit's material (indices) and no others."""
        ...


POSITIVE_MEMBERS = (16, 24)
"""Fewest and most members that the positive control's generator is trained on."""

POSITIVE_EPOCHS = 60
PLANTED = 10
_PERTURBATIONS = ("exact", "noise", "affine")


def positive_model_control(
    battery: Battery,
    memorise: TrainGenerator,
    scan_index: NDArray[np.intp],
    scans_per_step: int,
    rng: np.random.Generator,
) -> ControlResult:
    """A generator made to memorise 16 to 24 members must be caught by A1.

    Args:
        battery: The attacks, calibrated.
        memorise: Trains the generator to learn its scans by heart.
        scan_index: Index in the audit's material of each of the battery's scans.
        scans_per_step: Scans in an optimiser step; sets how many steps make sixty epochs.
        rng: Chooses the members, the seed and the bootstrap.
    """
    required = "A1 AUC >= 0.90 and L95 >= 0.75 on 16-24 members after at least 60 epochs"
    members = battery.scans.side(member=True)
    if len(members) < POSITIVE_MEMBERS[0]:
        return ControlResult("positive-model", required, f"only {len(members)} members to memorise", ok=False)
    chosen = tuple(rng.permutation(members)[: POSITIVE_MEMBERS[1]].tolist())
    scans = scan_index[battery.scans.of(chosen)]
    steps = math.ceil(POSITIVE_EPOCHS * len(scans) / scans_per_step)
    generator = memorise(scans, steps, int(rng.integers(2**31)))
    scores = battery.reconstruction(generator, (*chosen, *battery.scans.side(member=False)))
    found = auc_interval(scores.scores(), rng)
    return ControlResult(
        "positive-model",
        required,
        f"AUC {found.auc:.2f}, L95 {found.lower95:.2f} on {len(chosen)} members after {steps} steps",
        ok=found.auc >= 0.90 and found.lower95 >= 0.75,
    )


def positive_set_control(battery: Battery, distance: Floats, rng: np.random.Generator) -> ControlResult:
    """Ten members' scans planted in the released set must be named by A3 without a false alarm.

    Each is planted as it is, with noise (5 % of its contrast), and moved (2 degrees, half a voxel); a member
    is named where A3 scores above every holdout patient.

    Args:
        battery: The attacks, calibrated.
        distance: :meth:`Battery.distances` of the released set.
        rng: Chooses members, noise and movement.
    """
    required = f"A3 names >= 9 of {PLANTED} exact copies, >= 7 with noise, >= 7 moved"
    members = battery.scans.side(member=True)
    if len(members) < PLANTED:
        return ControlResult("positive-set", required, f"only {len(members)} members to plant", ok=False)
    chosen = rng.permutation(members)[:PLANTED].tolist()
    planted = battery.scans.images[[battery.scans.of([patient])[0] for patient in chosen]]
    named: dict[str, int] = {}
    for perturbation in _PERTURBATIONS:
        copies = np.stack([_perturbed(volume, perturbation, rng) for volume in planted])
        attack = battery.gan_leaks(np.concatenate([distance, battery.distances(copies)], axis=1))
        threshold = attack.score[~attack.is_member].max()
        named[perturbation] = int((attack.of(chosen).score > threshold).sum())
    return ControlResult(
        "positive-set",
        required,
        f"{named['exact']} exact, {named['noise']} with noise, {named['affine']} moved",
        ok=named["exact"] >= 9 and named["noise"] >= 7 and named["affine"] >= 7,
    )


def _perturbed(volume: NDArray[np.float32], how: str, rng: np.random.Generator) -> NDArray[np.float32]:
    match how:
        case "noise":
            noise = rng.normal(0, 0.05 * float(volume.std()), size=volume.shape)
            return (volume + noise).astype(np.float32)
        case "affine":
            angle = math.radians(2.0) * rng.choice([-1, 1])
            turn = np.eye(3)
            turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
            centre = (np.array(volume.shape[1:]) - 1) / 2
            offset = centre - turn @ centre + rng.choice([-0.5, 0.5], size=3)
            moved = [ndimage.affine_transform(c, turn, offset, order=1, mode="nearest") for c in volume]
            return np.stack(moved).astype(np.float32)
        case _:
            return volume


@dataclass(frozen=True)
class NegativeRun:
    """One attack on one control generator."""

    seed: int
    attack: str
    auc: float
    p_value: float


def negative_control(
    battery: Battery,
    train: TrainGenerator,
    control_scans: NDArray[np.intp],
    steps: int,
    seeds: Sequence[int],
    tick: Callable[[int], None],
) -> tuple[ControlResult, tuple[NegativeRun, ...]]:
    """Generators that never saw an audited patient must not be told from chance, by the same attacks.

    Each |AUC - 1/2| is tested two-sided against its null standard error; Holm over seeds and attacks decides.

    Args:
        battery: The attacks, calibrated; the same members and holdout.
        train: Trains a generator.
        control_scans: Index in the audit's material of the control patients' scans.
        steps: As the generator under audit.
        seeds: One generator each.
        tick: Told how many generators are done.
    """
    runs: list[NegativeRun] = []
    for done, seed in enumerate(seeds, start=1):
        generator = train(control_scans, steps, seed)
        released = battery.distances(battery.release_of(generator))
        for attack in (battery.reconstruction(generator), battery.gan_leaks(released)):
            scores = attack.scores()
            runs.append(NegativeRun(seed, attack.id, auc(scores), null_p_value(scores)))
        tick(done)
    worst = max(runs, key=lambda run: abs(run.auc - 0.5))
    result = ControlResult(
        "negative",
        "every |AUC - 0.5| within chance, by Holm over seeds and attacks",
        f"furthest {worst.attack} AUC {worst.auc:.2f} (p = {worst.p_value:.2g}) of {len(runs)} over {len(seeds)} seeds",
        ok=not any(holm([run.p_value for run in runs])),
    )
    return result, tuple(runs)


def blind_control(b0: AttackResult, policy: ReleasePolicy) -> ControlResult:
    """Members and holdout must look alike without the model.

    The upper bound is held to the tier's τ where the holdout has the size that the tier asks for. On a
    smaller one even a baseline at chance exceeds τ: that is too few patients (INCONCLUSIVE), and no sign of
    a biased split (INVALID).
    """
    tau = policy.auc_upper_max if b0.n_holdout >= policy.min_holdout else None
    bound = "" if tau is None else f" and U95 <= {tau:.2f}"
    return ControlResult(
        "blind",
        f"B0's 95 % interval holds 0.5{bound}",
        f"AUC {b0.auc:.2f} [{b0.auc_ci[0]:.2f}, {b0.auc_ci[1]:.2f}], U95 {b0.upper95:.2f}",
        ok=b0.auc_ci[0] <= 0.5 <= b0.auc_ci[1] and (tau is None or b0.upper95 <= tau),
    )
