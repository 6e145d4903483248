"""Usefulness by arms: the same U-Net trained on each arm's scans, scored on patients none of them saw.

Arms: ``real`` (upper bound, needs the patients), ``synthetic`` (what a release gives), ``real+synthetic``,
``public`` (the public patients' own scans: what anyone has without the hospitals). Intervals are bootstrapped over
test patients; they say nothing of the variation between training seeds, which is why the seed is stated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...common.cohorts.preparation import PreparedScans
from ...common.device import Device
from ...common.segmentation import SegmenterPlan, diagonal_mm
from ...common.study import Study
from .carriers import carried, carriers
from .figures import Figure, over_patients, paired_ratio
from .scores import Scores
from .segmenters import Examination, Phase, Pool, Segmenter, SegmenterProgress, train_and_score


@dataclass(frozen=True)
class Arm:
    """One arm's result.

    Attributes:
        name: ``real``, ``synthetic``, ….
        scans: Training scans.
        scores: Of each test patient.
    """

    name: str
    scans: int
    scores: Scores

    def figure(self, region: str) -> Figure:
        """Mean Dice of a region."""
        return over_patients(self.scores.dice[region])


@dataclass(frozen=True)
class Evaluation:
    """All arms on one set of test patients.

    Attributes:
        primary: The region that ``dice`` in the JSON speaks of: the study's first composite region, else all
            foreground.
        diagonal_mm: Of the study's grid: what a missed structure scores as its HD95.
        carriers: By region, test patients who have it; a region that none has gets no figure.
    """

    arms: tuple[Arm, ...]
    primary: str
    plan: SegmenterPlan
    seed: int
    diagonal_mm: float
    carriers: Mapping[str, int]
    ratios: Mapping[str, Figure] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As DESIGN §5, with the ratios to the real arm (paired bootstrap) and how the U-Nets were trained.

        ``hd95_missed``: patients in whom a structure was missed altogether, or found where there is none; their HD95
        is the grid's diagonal, ``hd95_mm_where_missed``, and no distance that was measured. ``test_patients_with``: how
        many test patients have each region; one that none has is listed there alone.
        """
        regions = carried(self.carriers)
        return {
            "arms": [
                {
                    "name": arm.name,
                    "scans": arm.scans,
                    "dice": arm.figure(self.primary).to_json(),
                    "per_label": {region: arm.figure(region).to_json() for region in regions},
                    "hd95_mm": {
                        region: over_patients(arm.scores.hd95[region], highest=self.diagonal_mm).to_json()
                        for region in regions
                    },
                    "hd95_missed": {region: int(np.count_nonzero(arm.scores.one_empty[region])) for region in regions},
                }
                for arm in self.arms
            ],
            "region": self.primary,
            "test_patients_with": dict(self.carriers),
            "hd95_mm_where_missed": round(self.diagonal_mm, 2),
            "ratio_to_real": {name: ratio.to_json() for name, ratio in self.ratios.items()},
            "segmenter": {"steps": self.plan.steps, "batch": self.plan.batch, "seed": self.seed},
        }


def evaluate_arms(
    arms: Mapping[str, PreparedScans],
    test: PreparedScans,
    study: Study,
    *,
    seed: int,
    device: Device,
    plan: SegmenterPlan | None = None,
    folder: Path | None = None,
    progress: SegmenterProgress | None = None,
) -> Evaluation:
    """Train and score one U-Net per arm.

    Args:
        arms: Name to training scans.
        test: Real patients that no arm trained on.
        study: Labels and regions.
        seed: Of every U-Net.
        device: Where to train.
        plan: Schedule; the same for all arms.
        folder: Where finished arms are kept; a second call goes on after the last finished arm.
        progress: Called during training.

    Raises:
        DataError: a test patient is among an arm's real patients, or no test patient has any structure.
        TrainingError: a U-Net's loss is not finite.
    """
    plan = plan or SegmenterPlan()
    having = carriers(test, study)
    examination = Examination(Pool(test), study, device, folder)
    segmenters = [
        Segmenter(name, (Phase(Pool(scans), tuple(range(len(scans))), plan),), seed) for name, scans in arms.items()
    ]
    scores = train_and_score(segmenters, examination, progress)
    done = [Arm(name, len(scans), scores[name]) for name, scans in arms.items()]
    primary = primary_region(study, having)
    diagonal = diagonal_mm(study.grid.shape, study.grid.spacing_mm)
    return Evaluation(tuple(done), primary, plan, seed, diagonal, having, ratios_to_real(done, primary))


def primary_region(study: Study, having: Mapping[str, int]) -> str:
    """The region that speaks for a study: its first composite one that some test patient has, else all foreground."""
    return next((region for region in study.regions if having[region]), "foreground")


def ratios_to_real(arms: Iterable[Arm], region: str) -> dict[str, Figure]:
    """Mean Dice over the real arm's; empty without a real arm, or with one patient."""
    by_name = {arm.name: arm.scores.dice[region] for arm in arms}
    real = by_name.pop("real", None)
    if real is None or len(real) < 2:
        return {}
    return {name: paired_ratio(values, real) for name, values in by_name.items()}
