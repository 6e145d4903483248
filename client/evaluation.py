"""Usefulness on real patients: the same U-Net trained on each arm's scans, scored on patients none of them saw.

Arms: ``real`` (upper bound, needs the patients), ``synthetic`` (what a release gives), ``real+synthetic``,
``public`` (the public patients' own scans: what anyone has without the hospitals). Intervals are bootstrapped over
test patients; they say nothing of the variation between training seeds, which is why the seed is stated.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from ..common.atomic import write_atomic
from ..common.cohorts.preparation import PreparedScans
from ..common.device import Device
from ..common.errors import DataError
from ..common.parallel import side_by_side
from ..common.segmentation import SegmenterPlan, dice_per_region, segment, train_segmenter
from ..common.study import Study

RESAMPLES = 2000
CONFIDENCE = 0.95

ArmProgress = Callable[[str, int, int], None]
"""(arm, steps done, steps in all)."""


@dataclass(frozen=True)
class Figure:
    """A mean over test patients with its 95 % interval: BCa bootstrap; where all score the same, what n rules out."""

    mean: float
    low: float
    high: float
    patients: int

    def to_json(self) -> dict[str, Any]:
        """As DESIGN §5."""
        return {"mean": round(self.mean, 4), "ci": [round(self.low, 4), round(self.high, 4)], "n_test": self.patients}


@dataclass(frozen=True)
class Arm:
    """One arm's result.

    Attributes:
        name: ``real``, ``synthetic``, ….
        scans: Training scans.
        dice: Region to Dice of each test patient (mean over the patient's scans), patients sorted.
    """

    name: str
    scans: int
    dice: Mapping[str, NDArray[np.float64]]

    def figure(self, region: str) -> Figure:
        """Mean Dice of a region."""
        return _figure(self.dice[region])


@dataclass(frozen=True)
class Evaluation:
    """All arms on one set of test patients.

    Attributes:
        primary: The region that ``dice`` in the JSON speaks of: the study's first composite region, else all
            foreground.
    """

    arms: tuple[Arm, ...]
    primary: str
    plan: SegmenterPlan
    seed: int
    ratios: Mapping[str, Figure] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As DESIGN §5, with the ratios to the real arm (paired bootstrap) and how the U-Nets were trained."""
        return {
            "arms": [
                {
                    "name": arm.name,
                    "scans": arm.scans,
                    "dice": arm.figure(self.primary).to_json(),
                    "per_label": {region: arm.figure(region).to_json() for region in arm.dice},
                }
                for arm in self.arms
            ],
            "region": self.primary,
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
    progress: ArmProgress | None = None,
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
        DataError: a test patient is among an arm's real patients.
        TrainingError: a U-Net's loss is not finite.
    """
    plan = plan or SegmenterPlan()
    _check_disjoint(arms, test)
    regions = region_members(study)

    def one_arm(name: str, scans: PreparedScans) -> Arm:
        kept = folder / f"arm-{re.sub('[^a-z]', '-', name)}.json" if folder else None
        key = _key(scans, test, plan, seed, regions) if kept else ""
        dice = _read(kept, key, regions) if kept else None
        if dice is None:
            report = (lambda step, steps: progress(name, step, steps)) if progress else None
            sizes, patch = (len(study.channels), len(study.labels)), study.training.patch
            network = train_segmenter(scans, *sizes, plan, seed, device, report, patch=patch)
            predicted = segment(network, test.volumes, device, patch)
            per_scan = dice_per_region(predicted, np.asarray(test.classes), regions)
            dice = {region: _per_patient(values, test.patients) for region, values in per_scan.items()}
            if kept:
                text = json.dumps({"key": key, "dice": {region: list(v) for region, v in dice.items()}})
                write_atomic(kept, text.encode(), mode=0o600)  # a figure of each patient
        return Arm(name, len(scans), dice)

    tasks = [partial(one_arm, name, scans) for name, scans in arms.items()]
    done = [arm for _, arm in sorted(side_by_side(tasks, workers=1 if device.cuda else None), key=itemgetter(0))]
    primary = next(iter(study.regions), "foreground")
    return Evaluation(tuple(done), primary, plan, seed, _ratios(done, primary))


def region_members(study: Study) -> dict[str, tuple[int, ...]]:
    """Region name to class indices: each label, each composite region, and all foreground."""
    index = {value: i for i, value in enumerate(study.label_values)}
    named = {name: tuple(index[v] for v in values) for name, values in study.evaluation_regions.items()}
    return named | {"foreground": tuple(range(1, len(study.labels)))}


def _figure(values: NDArray[np.float64]) -> Figure:
    mean = float(values.mean())
    if np.ptp(values) == 0:
        # Resampling equals gives no width. Up to this share of all patients could differ, at 95 %, by anything.
        unseen = 1 - (1 - CONFIDENCE) ** (1 / len(values))
        return Figure(mean, mean * (1 - unseen), mean + unseen * (1 - mean), len(values))
    interval = bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, rng=np.random.default_rng(0)
    ).confidence_interval
    return Figure(mean, float(interval.low), float(interval.high), len(values))


def _ratios(arms: Iterable[Arm], region: str) -> dict[str, Figure]:
    """Mean Dice over the real arm's, patients resampled together (percentile)."""
    by_name = {arm.name: arm.dice[region] for arm in arms}
    real = by_name.pop("real", None)
    if real is None or len(real) < 2:
        return {}
    picks = np.random.default_rng(0).integers(len(real), size=(RESAMPLES, len(real)))
    out = {}
    for name, values in by_name.items():
        draws = values[picks].mean(axis=1) / np.maximum(real[picks].mean(axis=1), 1e-9)
        low, high = np.percentile(draws, [2.5, 97.5])
        out[name] = Figure(float(values.mean() / max(real.mean(), 1e-9)), float(low), float(high), len(real))
    return out


def _per_patient(values: NDArray[np.float64], patients: tuple[str, ...]) -> NDArray[np.float64]:
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    return np.asarray(np.bincount(index, weights=values) / np.bincount(index, minlength=len(names)))


def _check_disjoint(arms: Mapping[str, PreparedScans], test: PreparedScans) -> None:
    seen = {_scan_hash(volume) for volume in test.volumes}
    for name, scans in arms.items():
        if not seen.isdisjoint(_scan_hash(volume) for volume in scans.volumes):
            raise DataError(
                f"a test patient's scan is among the training scans of arm '{name}'",
                expected="test patients that no arm has seen",
                remedy="Take the patients with the role 'test' from the coin record for --real-test.",
            )


def _scan_hash(volume: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(volume).tobytes()).hexdigest()


def _key(
    scans: PreparedScans, test: PreparedScans, plan: SegmenterPlan, seed: int, regions: Mapping[str, tuple[int, ...]]
) -> str:
    digest = hashlib.sha256(repr((plan, seed, sorted(regions.items()), test.patients)).encode())
    for part in (scans, test):
        for volume, classes in zip(part.volumes, part.classes, strict=True):
            digest.update(_scan_hash(volume).encode())
            digest.update(np.ascontiguousarray(classes).tobytes())
    return digest.hexdigest()


def _read(path: Path, key: str, regions: Mapping[str, object]) -> dict[str, NDArray[np.float64]] | None:
    try:
        content = json.loads(path.read_text())
        dice = {region: np.asarray(content["dice"][region], dtype=np.float64) for region in regions}
        return dice if content["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or damaged: train the arm again
