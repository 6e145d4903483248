"""What the Shin protocol found: figures over patients, spread over seeds, differences paired by patient."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...common.segmentation import diagonal_mm
from ...common.study import Study
from ...privacy.report.people import arm_name
from .arms import primary_region
from .carriers import absent_in_words, carried, how_many_have_it
from .disclosure import NOTICE
from .figures import Figure, lower_than_earlier, over_patients, paired_difference, paired_ratio, spread
from .scores import Scores, over_seeds, repeated_regions
from .shin import PUBLIC, REAL, SYNTHETIC, ShinArm, ShinPlan
from .tested import Examined


@dataclass(frozen=True)
class RegionResult:
    """One arm in one region; every patient's seeds are averaged first.

    Attributes:
        dice: Over patients.
        dice_by_seed: Mean over patients of each seed's segmenter.
        hd95: Over patients, in mm.
        hd95_by_seed: Mean over patients of each seed's segmenter.
        one_empty: Segmentations, over patients and seeds, that miss the structure or find it where there is none.
        dice_difference: To the arm's reference, paired by patient; None without one.
        hd95_difference: The same, in mm.
        dice_ratio: The same, as a ratio.
    """

    dice: Figure
    dice_by_seed: tuple[float, ...]
    hd95: Figure
    hd95_by_seed: tuple[float, ...]
    one_empty: int
    dice_difference: Figure | None
    hd95_difference: Figure | None
    dice_ratio: Figure | None

    def to_json(self) -> dict[str, Any]:
        """Means over patients and their intervals; nothing of a single patient."""
        return {
            "dice": self.dice.to_json(),
            "dice_seeds": _seeds(self.dice_by_seed),
            "dice_difference": _figure(self.dice_difference),
            "dice_ratio": _figure(self.dice_ratio),
            "hd95_mm": self.hd95.to_json(),
            "hd95_mm_seeds": _seeds(self.hd95_by_seed),
            "hd95_mm_difference": _figure(self.hd95_difference),
            "one_empty": self.one_empty,
        }


@dataclass(frozen=True)
class ArmResult:
    """One arm, by region."""

    arm: ShinArm
    regions: Mapping[str, RegionResult]


@dataclass(frozen=True)
class SweepPoint:
    """Real patients with one share of the synthetic scans.

    Attributes:
        share: Synthetic scans per real scan, to two digits.
        result: The arm with this share.
        beyond_best: By region, Dice less that of the best smaller share, paired by patient; None for the first.
        hurts: By region, whether Dice is lower than with some smaller share, at 95 % for all pairs of shares together.
    """

    share: float
    result: ArmResult
    beyond_best: Mapping[str, Figure | None]
    hurts: Mapping[str, bool]


@dataclass(frozen=True)
class ShinResult:
    """All of it.

    Attributes:
        plan: What was trained.
        arms: In the plan's order.
        sweep: Shares ascending; empty without a sweep.
        primary: The region that speaks for the study.
        repeated: Region to an earlier one that is the same structure.
        patients: Test patients.
        carriers: By region, test patients who have it; one that none has is nowhere else in the result.
        diagonal_mm: What a missed structure scores as its HD95.
        synthetic_sha256: Of the synthetic cohort's files, by content.
        above_public: By arm of synthetic scans alone and by region, Dice less that of public scans with the same
            augmentation, paired by patient; empty without public scans.
        whom: Whether the patients are persons; None where nobody looked, which counts as persons.
    """

    plan: ShinPlan
    arms: tuple[ArmResult, ...]
    sweep: tuple[SweepPoint, ...]
    primary: str
    repeated: Mapping[str, str]
    patients: int
    carriers: Mapping[str, int]
    diagonal_mm: float
    synthetic_sha256: str
    above_public: Mapping[str, Mapping[str, Figure]]
    whom: Examined | None = None

    @property
    def notice(self) -> str:
        """Where the figures may go."""
        return self.whom.notice if self.whom else NOTICE

    @property
    def tested(self) -> str:
        """How many test patients, and of which kind."""
        return self.whom.test_patients(self.patients) if self.whom else f"{self.patients} real test patients"

    def in_words(self, training: str) -> str:
        """A training's name before people: ``real`` only where a person was scanned."""
        word = arm_name("real", self.whom.training.kind) if self.whom else "real"
        return re.sub(r"\breal\b", word, training)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the segmenters."""
        return tuple(segmenter.seed for segmenter in self.plan.arms[0].segmenters)

    @property
    def seeds_in_words(self) -> str:
        """As in "seeds 0, 1, 2"."""
        return f"{'seed' if len(self.seeds) == 1 else 'seeds'} {', '.join(map(str, self.seeds))}"

    @property
    def shown_regions(self) -> tuple[str, ...]:
        """The primary region, then the others; each structure once."""
        single = [region for region in self.arms[0].regions if region not in self.repeated]
        first = self.repeated.get(self.primary, self.primary)
        return (first, *(region for region in single if region != first))

    def having(self, region: str) -> str:
        """As in "11 of 12 have it", of the test patients; empty where all do."""
        return how_many_have_it(self.carriers[region], self.patients)

    @property
    def absent(self) -> str:
        """A sentence that names the regions no test patient has; empty without one."""
        return absent_in_words(self.carriers)

    @property
    def grid_arms(self) -> tuple[ArmResult, ...]:
        """The arms without those that the sweep alone needs."""
        swept = {point.result.arm.name for point in self.sweep[1:-1]}
        return tuple(result for result in self.arms if result.arm.name not in swept)

    def hurts_from(self, region: str) -> float | None:
        """The smallest share with less Dice than some smaller one (:func:`.lower_than_earlier`); None: none."""
        return next((point.share for point in self.sweep if point.hurts[region]), None)

    def to_json(self) -> dict[str, Any]:
        """``evaluate --json``'s keys (DESIGN §5) and the protocol's own."""
        return {
            "protocol": "shin",
            "notice": self.notice,
            "arms": [self._arm(result) for result in self.arms],
            "region": self.primary,
            "ratio_to_real": {
                r.arm.name: _figure(r.regions[self.primary].dice_ratio)
                for r in self.arms
                if r.arm.reference == REAL and r.regions[self.primary].dice_ratio
            },
            "above_public": {
                arm: {region: figure.to_json() for region, figure in found.items()}
                for arm, found in self.above_public.items()
            },
            "sweep": [
                {
                    "share": point.share,
                    "arm": point.result.arm.name,
                    "beyond_best": {region: _figure(figure) for region, figure in point.beyond_best.items()},
                }
                for point in self.sweep
            ],
            "hurts_from": {r: self.hurts_from(r) for r in self.arms[0].regions} if self.sweep else None,
            "segmenter": {
                "steps": self.plan.full.steps,
                "batch": self.plan.full.batch,
                "learning_rate": self.plan.full.learning_rate,
                "seed": self.seeds[0],
                "seeds": list(self.seeds),
                "fine_tuning_steps": self.plan.tuning.steps,
                "fine_tuning_learning_rate": self.plan.tuning.learning_rate,
            },
            "segmenters": len(self.plan.segmenters),
            **(self.whom.to_json() if self.whom else {}),
            "test_patients": self.patients,
            "test_patients_with": dict(self.carriers),
            "hd95_mm_where_one_is_empty": round(self.diagonal_mm, 2),
            "synthetic_sha256": self.synthetic_sha256,
        }

    def _arm(self, result: ArmResult) -> dict[str, Any]:
        arm = result.arm
        return {
            "name": arm.name,
            "training": arm.training,
            "augmentation": arm.augmentation,
            "compared_with": arm.reference,
            "scans": arm.scans,
            "real_patients": arm.patients,
            "synthetic_scans": arm.synthetic,
            "dice": result.regions[self.primary].dice.to_json(),
            "per_label": {region: found.dice.to_json() for region, found in result.regions.items()},
            "regions": {region: found.to_json() for region, found in result.regions.items()},
        }


def shin_result(
    plan: ShinPlan, scores: Mapping[str, Scores], study: Study, carriers: Mapping[str, int], synthetic_sha256: str
) -> ShinResult:
    """Figures of every region that some test patient has.

    Args:
        plan: What was trained.
        scores: Of every segmenter, by its name.
        study: Regions and grid.
        carriers: By region, test patients who have it (:func:`~fedphantom.client.evaluation.carriers.carriers`).
        synthetic_sha256: Of the synthetic cohort's files, by content.
    """
    members = carried(carriers)
    diagonal = diagonal_mm(study.grid.shape, study.grid.spacing_mm)
    by_seed = {arm.name: [scores[segmenter.name] for segmenter in arm.segmenters] for arm in plan.arms}
    averaged = {name: over_seeds(each) for name, each in by_seed.items()}
    arms = {
        arm.name: ArmResult(
            arm,
            {
                region: _region(
                    region, by_seed[arm.name], averaged[arm.name], averaged.get(arm.reference or ""), diagonal
                )
                for region in members
            },
        )
        for arm in plan.arms
    }
    hurting = {r: lower_than_earlier([averaged[name].dice[r] for _, name in plan.sweep]) for r in members}
    sweep = tuple(
        SweepPoint(
            share,
            arms[name],
            {r: _beyond_best(averaged[name], [averaged[n] for _, n in plan.sweep[:i]], r) for r in members},
            {r: hurting[r][i] for r in members},
        )
        for i, (share, name) in enumerate(plan.sweep)
    )
    patients = len(next(iter(averaged.values())).dice["foreground"])
    return ShinResult(
        plan,
        tuple(arms.values()),
        sweep,
        primary_region(study, carriers),
        repeated_regions(study),
        patients,
        carriers,
        diagonal,
        synthetic_sha256,
        _above_public(plan, averaged, members),
    )


def _region(region: str, each: list[Scores], mean: Scores, reference: Scores | None, diagonal: float) -> RegionResult:
    dice, hd95 = mean.dice[region], mean.hd95[region]
    return RegionResult(
        dice=over_patients(dice),
        dice_by_seed=tuple(float(s.dice[region].mean()) for s in each),
        hd95=over_patients(hd95, highest=diagonal),
        hd95_by_seed=tuple(float(s.hd95[region].mean()) for s in each),
        one_empty=sum(int(np.count_nonzero(s.one_empty[region])) for s in each),
        dice_difference=paired_difference(dice, reference.dice[region]) if reference else None,
        hd95_difference=paired_difference(hd95, reference.hd95[region], diagonal) if reference else None,
        dice_ratio=paired_ratio(dice, reference.dice[region]) if reference else None,
    )


def _beyond_best(scores: Scores, smaller: list[Scores], region: str) -> Figure | None:
    if not smaller:
        return None
    best = max(smaller, key=lambda other: float(other.dice[region].mean()))
    return paired_difference(scores.dice[region], best.dice[region])


def _above_public(
    plan: ShinPlan, averaged: Mapping[str, Scores], regions: tuple[str, ...]
) -> dict[str, dict[str, Figure]]:
    public = {arm.augmentation: averaged[arm.name] for arm in plan.arms if arm.training == PUBLIC}
    return {
        arm.name: {
            region: paired_difference(averaged[arm.name].dice[region], public[arm.augmentation].dice[region])
            for region in regions
        }
        for arm in plan.arms
        if arm.training == SYNTHETIC and public
    }


def _seeds(means: tuple[float, ...]) -> dict[str, Any]:
    deviation = spread(means)
    return {"means": [round(m, 4) for m in means], "sd": None if deviation is None else round(deviation, 4)}


def _figure(figure: Figure | None) -> dict[str, Any] | None:
    return figure.to_json() if figure else None
