"""Controls: do the attacks find a leak where one is, and none where none can be? (PRIVACY §4)

Control generators see private patients without DP. They live in memory for one audit and never leave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...common.counted import counted
from ...common.errors import DataError, TrainingError
from ..attacks.battery import Battery
from ..attacks.interface import AttackScores, AuditedScans, Networks
from ..attacks.once import under
from ..attacks.target import Target
from ..dp.accounting import told
from ..dp.canaries import WITHOUT_NOISE, CanaryRun
from ..evidence import (
    CANARY,
    FINDS_INSIDE,
    FINDS_MEMORISER,
    FINDS_PLANTED,
    OF_SHADOWS,
    SHADOWED,
    WHITE_BOX,
    AttackResult,
    ControlResult,
)
from ..intervals import auc_interval, perfect_lower_bound
from ..statistics import auc, holm, null_p_value

T = TypeVar("T", AttackScores, tuple[AttackScores, ...])
N = TypeVar("N")


class TrainGenerator(Protocol):
    """Trains the study's networks from nothing; the same arguments give the same one."""

    def __call__(self, scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
        """Train on these scans of the audit's material (indices) and no others. TrainingError: NaN or collapse."""
        ...


def canary_control(run: CanaryRun) -> ControlResult:
    """Whether the test of a promised noise could find anything, and found no more than was promised."""
    return ControlResult(
        CANARY,
        f"without noise at least ε = {WITHOUT_NOISE:g} proved; with it no more than {told(run.epsilon)}, and all of it;"
        " every canary clipped",
        f"without noise ε > {run.bare:.2f}, with it ε > {run.promised:.2f}, in {run.coins} coins each;"
        f" noise {run.noise:.2f} of the promised; {'not ' * run.unclipped}clipped",
        run.bare >= WITHOUT_NOISE and not run.excess,
    )


MEMORISER = "memoriser"
"""Under which what is found of the positive control's generator is kept."""
MEMORISED = 16
"""Members that the positive control's generator is trained on: of the 16 to 24 asked, the fewest are learnt best."""
EPOCHS = 90
"""At least 60 are asked."""
PLANTED = 10
_PERTURBATIONS = ("exact", "noise", "affine")


@dataclass(frozen=True)
class Memorising:
    """What the positive control's generator is made to learn by heart.

    Attributes:
        members: Sixteen of the members who are compared with anyone; none where there are fewer.
        scans: Index in the audit's material of their scans.
        steps: Ninety epochs.
    """

    members: tuple[str, ...]
    scans: NDArray[np.intp]
    steps: int


def choose_memorised(
    scans: AuditedScans, scan_index: NDArray[np.intp], scans_per_step: int, rng: np.random.Generator
) -> Memorising:
    """Draw the members whom the positive control's generator memorises.

    Args:
        scans: Members and holdout.
        scan_index: Index in the audit's material of each of them.
        scans_per_step: Scans in an optimiser step.
        rng: Chooses.
    """
    members = scans.compared(member=True)
    chosen = tuple(rng.permutation(members)[:MEMORISED].tolist()) if len(members) >= MEMORISED else ()
    rows = scan_index[scans.of(chosen)]
    return Memorising(chosen, rows, math.ceil(EPOCHS * len(rows) / scans_per_step))


LEAST_AUC, LEAST_L95 = 0.90, 0.75


def positive_model_control(
    battery: Battery, memorised: Memorising, generator: Networks | TrainingError | None, rng: np.random.Generator
) -> ControlResult:
    """A generator made to memorise members must be caught, by the attack that :mod:`..evidence` names.

    Where it is not, ``got`` says why: so few holdout patients that even a perfect attack stays below the mark or that
    one which does find the members cannot be sure of it, or else an attack that misses what is there.

    Args:
        battery: The attacks, calibrated.
        memorised: What the generator was made to learn.
        generator: None where there were too few members; an error where its training came to nothing.
        rng: Of the bootstrap.
    """
    people = (*memorised.members, *battery.known.scans.side(member=False))

    def found(made: Networks) -> AttackScores:
        return battery.scores(battery.target(made, name=MEMORISER), (FINDS_MEMORISER,))[FINDS_MEMORISER].of(people)

    return memoriser_found(None if generator is None else attacked(generator, found), memorised, rng)


def memoriser_found(
    attack: AttackScores | str | None, memorised: Memorising, rng: np.random.Generator
) -> ControlResult:
    """Whether an attack found a network that learnt members by heart.

    Args:
        attack: On the memorised members and the holdout; None where there were too few members; in words, why its
            training came to nothing.
        memorised: What the network was made to learn.
        rng: Of the bootstrap.
    """
    mark = f"AUC >= {LEAST_AUC:.2f} and L95 >= {LEAST_L95:.2f}"
    required = f"{FINDS_MEMORISER} {mark} on 16-24 members after at least 60 epochs"
    if attack is None:
        return ControlResult("positive-model", required, f"fewer than {MEMORISED} members to memorise", ok=False)
    if isinstance(attack, str):
        return ControlResult("positive-model", required, f"its training came to nothing: {attack}", ok=False)
    scores = attack.scores()
    found = auc_interval(scores, rng)
    ok = found.auc >= LEAST_AUC and found.lower95 >= LEAST_L95
    few = found.auc >= LEAST_AUC or perfect_lower_bound(scores, 0.90) < LEAST_L95
    why = "so few holdout patients cannot show more" if few else "the attack misses members: it may be blind"
    return ControlResult(
        "positive-model",
        required,
        f"AUC {found.auc:.2f}, L95 {found.lower95:.2f} after {memorised.steps} steps" + ("" if ok else f"; {why}"),
        ok,
    )


LEAST_INSIDE = 0.70


def positive_insider_control(
    battery: Battery, memorised: Memorising, networks: Networks | TrainingError
) -> ControlResult:
    """A discriminator trained on a few members for long must be caught (PRIVACY §4, threat model I in scope).

    Args:
        battery: The attacks, calibrated.
        memorised: What it was trained on.
        networks: Out of the training function of the one under audit; an error where that came to nothing.
    """
    required = f"{FINDS_INSIDE} AUC >= {LEAST_INSIDE:.2f} on 16-24 members after at least 60 epochs; gates nothing"
    people = (*memorised.members, *battery.known.scans.side(member=False))

    def found(made: Networks) -> AttackScores:
        return battery.scores(battery.target(made, name="insider"), (FINDS_INSIDE,))[FINDS_INSIDE].of(people)

    attack = attacked(networks, found)
    if isinstance(attack, str):
        return ControlResult("positive-insider", required, f"its training came to nothing: {attack}", ok=False)
    area = auc(attack.scores())
    return ControlResult("positive-insider", required, f"AUC {area:.2f}", ok=area >= LEAST_INSIDE)


LEAST_SEARCHED = 0.90


def positive_white_box_control(
    battery: Battery, memorised: Memorising, networks: Networks | TrainingError | None
) -> ControlResult:
    """A search of the weights must find those whom a generator learnt by heart: threat model W in scope.

    PRIVACY §4 sets no mark for it; this is A1's on the same generator. Its interval is A1's control's business.

    Args:
        battery: The attacks, calibrated.
        memorised: What the generator was made to learn.
        networks: None where there were too few members; an error where its training came to nothing.
    """
    id, required = "positive-white-box", f"{WHITE_BOX} AUC >= {LEAST_SEARCHED:.2f} on 16-24 members learnt by heart"
    if networks is None:
        return ControlResult(id, required, f"fewer than {MEMORISED} members to memorise", ok=False)
    people = (*memorised.members, *battery.known.scans.side(member=False))

    def found(made: Networks) -> AttackScores:
        return battery.scores(battery.target(made, name=MEMORISER), (WHITE_BOX,))[WHITE_BOX].of(people)

    attack = attacked(networks, found)
    if isinstance(attack, str):
        return ControlResult(id, required, f"its training came to nothing: {attack}", ok=False)
    area = auc(attack.scores())
    return ControlResult(id, required, f"AUC {area:.2f}", ok=area >= LEAST_SEARCHED)


def positive_shadow_control(
    battery: Battery, memorised: Memorising, networks: Networks | TrainingError | None
) -> ControlResult:
    """Both attacks by shadow generators must find whom a generator learnt by heart, or their silence says nothing.

    PRIVACY §4 sets no mark for them; this is A1's on the same generator, as for the search of weights. The shadows are
    those of the audit: half of them saw each of these members, as they saw everybody.

    Args:
        battery: The attacks, calibrated, with shadows.
        memorised: What the generator was made to learn.
        networks: None where there were too few members; an error where its training came to nothing.
    """
    required = f"{' and '.join(OF_SHADOWS)} AUC >= {LEAST_AUC:.2f} on 16-24 members learnt by heart"
    if networks is None:
        return ControlResult(SHADOWED, required, f"fewer than {MEMORISED} members to memorise", ok=False)
    people = (*memorised.members, *battery.known.scans.side(member=False))

    def found(made: Networks) -> tuple[AttackScores, ...]:
        attacks = battery.scores(battery.target(made, name=MEMORISER), OF_SHADOWS)
        return tuple(attacks[name].of(people) for name in OF_SHADOWS)

    attacks = attacked(networks, found)
    if isinstance(attacks, str):
        return ControlResult(SHADOWED, required, f"its training came to nothing: {attacks}", ok=False)
    areas = {attack.id: auc(attack.scores()) for attack in attacks}
    got = ", ".join(f"{name} AUC {area:.2f}" for name, area in areas.items())
    return ControlResult(SHADOWED, required, got, ok=min(areas.values()) >= LEAST_AUC)


def positive_set_control(battery: Battery, target: Target, rng: np.random.Generator) -> ControlResult:
    """Ten members' scans planted in the released set must be named without a false alarm.

    Each is planted as it is, with noise (5 % of its contrast), and moved (2 degrees, half a voxel); a member
    is named where the attack that :mod:`..evidence` names scores above every holdout patient.

    Args:
        battery: The attacks, calibrated.
        target: With the released set.
        rng: Chooses members, noise and movement.
    """
    required = f"{FINDS_PLANTED} names >= 9 of {PLANTED} exact copies, >= 7 with noise, >= 7 moved"
    scans = battery.known.scans
    members = scans.side(member=True)
    if len(members) < PLANTED:
        return ControlResult("positive-set", required, f"fewer than {PLANTED} members to plant", ok=False)
    chosen = rng.permutation(members)[:PLANTED].tolist()
    planted = scans.images[[scans.of([patient])[0] for patient in chosen]]
    named: dict[str, int] = {}
    for perturbation in _PERTURBATIONS:
        copies = battery.shown(np.stack([perturbed(volume, perturbation, rng) for volume in planted]))
        spoilt = replace(
            target,
            show_released=partial(target.released.with_more, copies),
            once=under(f"planted copies, {perturbation}", battery.once),
        )
        attack = battery.scores(spoilt, (FINDS_PLANTED,))[FINDS_PLANTED]
        threshold = attack.score[~attack.is_member].max()
        named[perturbation] = int((attack.of(chosen).score > threshold).sum())
    return ControlResult(
        "positive-set",
        required,
        f"{named['exact']} exact, {named['noise']} with noise, {named['affine']} moved",
        ok=named["exact"] >= 9 and named["noise"] >= 7 and named["affine"] >= 7,
    )


def perturbed(volume: NDArray[np.float32], how: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """A scan as a generator that copies might leave it.

    Args:
        volume: Shape (C, X, Y, Z).
        how: ``exact``, ``noise`` (5 % of its contrast) or ``affine`` (2 degrees and half a voxel).
        rng: Draws.
    """
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


def attacked(generator: N | TrainingError, attack: Callable[[N], T]) -> T | str:
    """What an attack finds on a control's network; where that diverged in training or makes NaN, what happened."""
    if isinstance(generator, TrainingError):
        return generator.found
    try:
        return attack(generator)
    except DataError as error:
        return error.found


@dataclass(frozen=True)
class NegativeRun:
    """One attack on one control generator."""

    seed: int
    attack: str
    auc: float
    p_value: float


def negative_control(
    battery: Battery, generators: Mapping[int, Networks | TrainingError], tried: Collection[str]
) -> tuple[ControlResult | None, tuple[NegativeRun, ...]]:
    """Generators that never saw an audited patient must not be told from chance, by the same attacks.

    Each |AUC - 1/2| is tested two-sided against its null standard error; Holm over seeds and attacks decides. A
    generator whose training came to nothing shows nothing and is left out.

    Args:
        battery: The attacks, calibrated.
        generators: Seed to generator, each trained on the control patients alone, as the one under audit was, or why
            there is none.
        tried: The attacks that the generator under audit was attacked with: these and no others.

    Returns:
        None where no generator came of it, and each attack on each that did.
    """

    def found(seed: int, made: Networks) -> tuple[AttackScores, ...]:
        return tuple(battery.scores(battery.target(made, name=f"negative {seed}"), tried).values())

    return strangers_told({seed: attacked(generator, partial(found, seed)) for seed, generator in generators.items()})


def strangers_told(
    found: Mapping[int, tuple[AttackScores, ...] | str],
) -> tuple[ControlResult | None, tuple[NegativeRun, ...]]:
    """As :func:`negative_control`, from seed to what the attacks found, or in words why there is nothing to attack."""
    runs: list[NegativeRun] = []
    for seed, attacks in found.items():
        for attack in () if isinstance(attacks, str) else attacks:
            scores = attack.scores()
            runs.append(NegativeRun(seed, attack.id, auc(scores), null_p_value(scores)))
    if not runs:
        return None, ()
    worst = max(runs, key=lambda run: abs(run.auc - 0.5))
    result = ControlResult(
        "negative",
        "every |AUC - 0.5| within chance, by Holm over seeds and attacks",
        f"furthest {worst.attack} AUC {worst.auc:.2f} (p = {worst.p_value:.2g}) of {len(runs)}"
        f" over {counted(len({run.seed for run in runs}), 'seed')}",
        ok=not any(holm([run.p_value for run in runs])),
    )
    return result, tuple(runs)


def blind_control(b0: AttackResult) -> ControlResult:
    """Members and holdout must not be told apart without the model: B0's interval holds one half.

    That its upper bound stays below the tier's τ as well, as a PASS asks, is no part of it: a fair split that too few
    patients show to be fair is unproven (INCONCLUSIVE), not biased (INVALID), and hides no leak. The interval stays at
    95 % in every audit of a holdout: it judges the split and claims nothing of a generator; a wider one would turn
    later finds of a leak into INVALID.
    """
    return ControlResult(
        "blind",
        "B0's 95 % interval holds 0.5",
        f"AUC {b0.auc:.2f} [{b0.auc_ci[0]:.2f}, {b0.auc_ci[1]:.2f}], U95 {b0.upper95:.2f}",
        ok=b0.auc_ci[0] <= 0.5 <= b0.auc_ci[1],
    )
