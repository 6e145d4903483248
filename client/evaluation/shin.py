"""The Shin protocol as data: which segmenter sees which scans, for how many steps, from which seed.

Four arms, each with and without the usual augmentation, over several seeds: real patients alone, real patients and
synthetic scans together, synthetic scans alone, and synthetic scans first, then a tenth of the real patients.
Source: Shin et al. 2018 (arXiv 1807.10225), Tables 1 and 2.

Every segmenter takes the same number of optimiser steps: those of the fine-tuned arm are divided between its phases.
Which real patients and which synthetic scans a part holds is drawn by patient and by seed, so that the spread over
seeds holds that choice too; a smaller part lies within every larger one of the same seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ...common.cohorts.preparation import PreparedScans, joined
from ...common.counted import counted
from ...common.errors import DataError
from ...common.randomness import numpy_generator
from ...common.segmentation import SegmenterPlan
from .segmenters import Phase, Pool, Segmenter

REAL, BOTH, SYNTHETIC, TUNED = "real", "real+synthetic", "synthetic", "synthetic, then 10 % real"
PUBLIC = "public"
"""Also an arm: the public patients' own scans, what anyone has without the hospitals."""
TENTH = 0.1
TUNING_SHARE = 5
"""One step in so many fine-tunes, at least one."""
TUNING_RATE = 1e-3

Rows = tuple[int, ...]
Stretch = tuple[Rows, SegmenterPlan]


@dataclass(frozen=True, kw_only=True)
class ShinOptions:
    """How much of the protocol.

    Attributes:
        steps: Of every segmenter, 2 or more.
        seeds: Training seeds.
        real_patients: Also arms that see only so many real patients; None for none.
        sweep: Also real patients with growing shares of the synthetic scans.
    """

    steps: int
    seeds: tuple[int, ...]
    real_patients: int | None = None
    sweep: bool = False


@dataclass(frozen=True)
class ShinArm:
    """Segmenters that differ in their seed alone.

    Attributes:
        name: Unlike every other's.
        training: What they see: the name without the word on augmentation.
        augmentation: Whether scans are augmented.
        reference: Name of the arm to compare with, of the site's own patients alone; None where this is one.
        patients: Real patients seen.
        synthetic: Synthetic scans seen.
        segmenters: One a seed.
    """

    name: str
    training: str
    augmentation: bool
    reference: str | None
    patients: int
    synthetic: int
    segmenters: tuple[Segmenter, ...]

    @property
    def scans(self) -> int:
        """Training scans of the first seed's segmenter."""
        return len({row for phase in self.segmenters[0].phases for row in phase.rows})


@dataclass(frozen=True)
class ShinPlan:
    """Everything that is to be trained.

    Attributes:
        arms: In the order of the table.
        sweep: Synthetic scans per real scan, to two digits, with the arm that sees them; ascending, from 0;
            empty without a sweep.
        full: The schedule of a segmenter with one phase.
        tuning: The schedule of a fine-tuning phase; the phase before it has the steps left.
    """

    arms: tuple[ShinArm, ...]
    sweep: tuple[tuple[float, str], ...]
    full: SegmenterPlan
    tuning: SegmenterPlan

    @property
    def segmenters(self) -> tuple[Segmenter, ...]:
        """All of them, arm by arm."""
        return tuple(segmenter for arm in self.arms for segmenter in arm.segmenters)


@dataclass(frozen=True)
class _Recipe:
    """An arm before seeds and augmentation: counts as in :class:`ShinArm`, and its stretches by seed."""

    training: str
    reference: str | None
    patients: int
    synthetic: int
    stretches: Callable[[int], tuple[Stretch, ...]]


def shin_plan(
    train: PreparedScans, synthetic: PreparedScans, options: ShinOptions, public: PreparedScans | None = None
) -> ShinPlan:
    """Lay out the arms.

    Args:
        train: Real patients to train on.
        synthetic: Synthetic scans.
        options: How much of it.
        public: Public patients' scans; None for no such arm.

    Raises:
        DataError: there are not more training patients than ``real_patients``.
    """
    names = sorted(set(train.patients))
    few = options.real_patients
    if few is not None and few >= len(names):
        raise DataError(
            f"{len(names)} training patients",
            expected=f"more than the {few} that --real-patients asks for",
            remedy="Lower --real-patients.",
        )
    pool = Pool(joined([train, synthetic, *([public] if public else [])]))
    real, made = tuple(range(len(train))), tuple(range(len(train), len(train) + len(synthetic)))
    others = tuple(range(len(train) + len(synthetic), len(pool.scans)))
    full = SegmenterPlan(steps=options.steps)
    tuning = replace(full, steps=max(1, options.steps // TUNING_SHARE), learning_rate=TUNING_RATE)
    before = replace(full, steps=full.steps - tuning.steps)

    def patients(number: int, seed: int) -> Rows:
        order = numpy_generator(seed, "real patients").permutation(len(names))
        return tuple(int(row) for row in train.rows_of([names[i] for i in order[:number]]))

    def scans(number: int, seed: int) -> Rows:
        return tuple(made[i] for i in numpy_generator(seed, "synthetic scans").permutation(len(made))[:number])

    def mixed(number: int) -> Callable[[int], tuple[Stretch, ...]]:
        return lambda seed: ((real + scans(number, seed), full),)

    def tuned(number: int) -> Callable[[int], tuple[Stretch, ...]]:
        return lambda seed: ((made, before), (patients(number, seed), tuning))

    tenth = max(1, round(TENTH * len(names)))
    recipes = [
        _Recipe(REAL, None, len(names), 0, lambda seed: ((real, full),)),
        _Recipe(BOTH, REAL, len(names), len(made), lambda seed: ((real + made, full),)),
        _Recipe(SYNTHETIC, REAL, 0, len(made), lambda seed: ((made, full),)),
        _Recipe(TUNED, REAL, tenth, len(made), tuned(tenth)),
    ]
    if others:
        recipes.append(_Recipe(PUBLIC, REAL, 0, 0, lambda seed: ((others, full),)))
    if few is not None:
        alone = counted(few, "patient")
        recipes += [
            _Recipe(alone, None, few, 0, lambda seed: ((patients(few, seed), full),)),
            _Recipe(f"{alone}+synthetic", alone, few, len(made), lambda seed: ((patients(few, seed) + made, full),)),
        ]
        if few != tenth:  # else it is the arm fine-tuned on a tenth
            recipes.append(_Recipe(f"synthetic, then {alone}", alone, few, len(made), tuned(few)))
    arms = [_arm(recipe, augmentation, pool, options.seeds) for recipe in recipes for augmentation in (True, False)]
    sweep: list[tuple[float, str]] = []
    if options.sweep:
        sweep.append((0.0, REAL))
        for times, number in _growing(len(real), len(made)):
            name = f"real+{times:g}x synthetic"  # a share: the count would tell how many real scans a site has
            between = _Recipe(name, REAL, len(names), number, mixed(number))
            arms.append(_arm(between, True, pool, options.seeds))
            sweep.append((times, name))
        sweep.append((_two_digits(len(made) / len(real)), BOTH))
    return ShinPlan(tuple(arms), tuple(sweep), full, tuning)


def _arm(recipe: _Recipe, augmentation: bool, pool: Pool, seeds: tuple[int, ...]) -> ShinArm:
    told = "" if augmentation else ", no augmentation"
    segmenters = tuple(
        Segmenter(
            f"{recipe.training}{told}, seed {seed}",
            tuple(Phase(pool, rows, replace(plan, augmentation=augmentation)) for rows, plan in recipe.stretches(seed)),
            seed,
        )
        for seed in seeds
    )
    reference = None if recipe.reference is None else recipe.reference + told
    return ShinArm(
        recipe.training + told,
        recipe.training,
        augmentation,
        reference,
        recipe.patients,
        recipe.synthetic,
        segmenters,
    )


def _growing(real: int, synthetic: int) -> list[tuple[float, int]]:
    """Half as many synthetic scans as real ones, as many, twice, four times as many, … below all: (share, scans).

    A share that reads like that of all, to two digits, is left out.
    """
    shares = [0.5, *(2.0**power for power in range(synthetic.bit_length()))]
    counts = [(share, int(real * share)) for share in shares]
    return [(share, count) for share, count in counts if count > 0 and share < _two_digits(synthetic / real)]


def share_in_words(share: float) -> str:
    """A sweep's share as people say it: ``1/2``, ``4``, ``2.5``."""
    return "1/2" if share == 0.5 else f"{share:g}"


def _two_digits(share: float) -> float:
    """More of them would tell how many scans a site has."""
    return float(f"{share:.2g}")
