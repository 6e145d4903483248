"""Cohorts, options and arms of the Shin protocol that its tests share."""

from __future__ import annotations

from tiny_cohorts import tiny_scans, tiny_study

from fedphantom.client.evaluation.segmenters import Segmenter
from fedphantom.client.evaluation.shin import ShinOptions, ShinPlan

STUDY = tiny_study()


REAL, SYNTHETIC, TEST = tiny_scans(20), tiny_scans(50, seed=1, prefix="s"), tiny_scans(5, seed=2, prefix="t")


OPTIONS = ShinOptions(steps=10, seeds=(7, 8, 9))
BASE = {"real", "real+synthetic", "synthetic", "synthetic, then 10 % real"}
"""Arms of every result."""


def seen(segmenter: Segmenter) -> list[list[str]]:
    """Patients of each phase's scans."""
    return [[phase.pool.scans.patients[row] for row in phase.rows] for phase in segmenter.phases]


def of_training(plan: ShinPlan, training: str) -> list[Segmenter]:
    return [segmenter for arm in plan.arms if arm.training == training for segmenter in arm.segmenters]
