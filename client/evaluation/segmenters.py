"""Segmenters to train and score, side by side; each one's scores are kept as it finishes."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from torch import nn

from ...common.cohorts.preparation import PreparedScans
from ...common.device import Device
from ...common.errors import DataError
from ...common.parallel import side_by_side, usable_cores
from ...common.randomness import derived_seed
from ...common.segmentation import SegmenterPlan, train_segmenter
from ...common.study import Study
from .scores import Scores, keep_scores, kept_key, kept_scores, region_members, score

TIMED_STEPS = 4

SegmenterProgress = Callable[[str, int, int], None]
"""(segmenter, steps done, steps in all)."""

KEPT = "segmenters"
"""Folder, in that of a protocol's result, of the segmenters that are finished."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Scans of which segmenters train on some rows, or are scored on all; each is hashed once."""

    scans: PreparedScans

    @cached_property
    def volume_hashes(self) -> tuple[str, ...]:
        """SHA-256 (hex) of each scan's voxels."""
        return tuple(_hash(volume) for volume in self.scans.volumes)

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """Of each scan's voxels and label map."""
        return tuple(v + _hash(c) for v, c in zip(self.volume_hashes, self.scans.classes, strict=True))


@dataclass(frozen=True)
class Phase:
    """A stretch of one segmenter's training: on which rows of which scans, and how."""

    pool: Pool
    rows: tuple[int, ...]
    plan: SegmenterPlan


@dataclass(frozen=True)
class Segmenter:
    """One network to train: from scratch in the first phase, each other phase from the weights of the one before.

    Attributes:
        name: Unlike every other's, also in its letters and digits alone: it names the file of its scores.
        phases: One or more.
        seed: Of initial weights and every draw.
    """

    name: str
    phases: tuple[Phase, ...]
    seed: int

    @property
    def steps(self) -> int:
        """Optimiser steps of all phases."""
        return sum(phase.plan.steps for phase in self.phases)


@dataclass(frozen=True)
class Examination:
    """What every segmenter is scored on, and where.

    Attributes:
        test: Real patients that none has seen.
        study: Channels, labels, regions, spacing.
        device: Where to train.
        folder: Where scores are kept; None to keep nothing.
    """

    test: Pool
    study: Study
    device: Device
    folder: Path | None = None

    @property
    def workers(self) -> int:
        """Segmenters that train at once."""
        return 1 if self.device.cuda else usable_cores()

    def kept(self, segmenter: Segmenter) -> Scores | None:
        """This segmenter's scores from an earlier call with the same scans, plan and seed."""
        return kept_scores(self.file(segmenter), self._key(segmenter)) if self.folder else None

    def keep(self, segmenter: Segmenter, scores: Scores) -> None:
        """Keep them, where there is a folder."""
        if self.folder:
            settings = {"steps": segmenter.steps, "seed": segmenter.seed}
            keep_scores(self.file(segmenter), self._key(segmenter), scores, settings)

    def keeps_another(self, segmenter: Segmenter) -> bool:
        """Whether scores of other scans, another plan or another seed are kept in its place."""
        there = kept_key(self.file(segmenter)) if self.folder else None
        return there is not None and there != self._key(segmenter)

    def file(self, segmenter: Segmenter) -> Path:
        """Where they are kept."""
        return (self.folder or Path()) / f"arm-{re.sub('[^a-z0-9]+', '-', segmenter.name)}.json"

    def _key(self, segmenter: Segmenter) -> str:
        """SHA-256 (hex) over all that the scores depend on."""
        regions, test = sorted(region_members(self.study).items()), self.test
        study = self.study
        facts = [segmenter.seed, regions, study.grid.spacing_mm, study.training.patch, test.scans.patients, test.hashes]
        facts += [(p.plan, [p.pool.hashes[row] for row in p.rows]) for p in segmenter.phases]
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def train_and_score(
    segmenters: Sequence[Segmenter], examination: Examination, progress: SegmenterProgress | None = None
) -> dict[str, Scores]:
    """Train and score every segmenter, or read what was kept of it.

    Returns:
        By the segmenters' names, in the order given.

    Raises:
        DataError: a test patient's scan is among some segmenter's training scans.
        TrainingError: a loss is not finite.
    """
    check_disjoint(segmenters, examination.test)

    def one(segmenter: Segmenter) -> Scores:
        scores = examination.kept(segmenter)
        if scores is None:
            network = train_phases(segmenter, examination, progress)
            scores = score(network, examination.test.scans, examination.study, examination.device)
            examination.keep(segmenter, scores)
        if progress:
            progress(segmenter.name, segmenter.steps, segmenter.steps)
        return scores

    done = dict(side_by_side([partial(one, segmenter) for segmenter in segmenters], workers=examination.workers))
    return {segmenter.name: done[i] for i, segmenter in enumerate(segmenters)}


def train_phases(
    segmenter: Segmenter, examination: Examination, progress: SegmenterProgress | None = None
) -> nn.Module:
    """Train one segmenter through its phases; the network."""
    study, network, before = examination.study, None, 0
    for number, phase in enumerate(segmenter.phases):

        def report(step: int, steps: int, before: int = before) -> None:
            if progress and before + step < segmenter.steps:  # the last step is told when the scores are there
                progress(segmenter.name, before + step, segmenter.steps)

        network = train_segmenter(
            phase.pool.scans,
            len(study.channels),
            len(study.labels),
            phase.plan,
            derived_seed(segmenter.seed, "phase", number) if number else segmenter.seed,
            examination.device,
            report,
            rows=phase.rows,
            start=network,
            patch=study.training.patch,
        )
        before += phase.plan.steps
    assert network is not None  # noqa: S101  # a segmenter has a phase
    return network


def seconds_to_go(segmenters: Sequence[Segmenter], examination: Examination) -> float:
    """About how long these will take here, training and scoring, from a few timed steps of as many as train at once."""
    workers = min(examination.workers, len(segmenters))
    longest = max((phase for s in segmenters for phase in s.phases), key=lambda phase: phase.plan.augmentation)
    sample = Segmenter("timed", (replace(longest, plan=replace(longest.plan, steps=TIMED_STEPS + 2)),), seed=0)
    test = examination.test.scans

    def timed() -> tuple[float, float]:
        ticks: list[float] = []
        network = train_phases(sample, examination, lambda *_: ticks.append(time.perf_counter()))
        trained = time.perf_counter()
        score(network, test.only([0]), examination.study, examination.device)
        return (ticks[-1] - ticks[0]) / TIMED_STEPS, time.perf_counter() - trained

    step, scan = np.mean([seconds for _, seconds in side_by_side([timed] * workers, workers=workers)], axis=0)
    steps = sum(segmenter.steps for segmenter in segmenters)
    return float(steps * step + len(segmenters) * len(test) * scan) / workers


def check_disjoint(segmenters: Sequence[Segmenter], test: Pool) -> None:
    """Raise DataError where a test patient's scan is among some segmenter's training scans."""
    seen = set(test.volume_hashes)
    for segmenter in segmenters:
        if any(phase.pool.volume_hashes[row] in seen for phase in segmenter.phases for row in phase.rows):
            raise DataError(
                f"a test patient's scan is among the training scans of arm '{segmenter.name}'",
                expected="test patients that no arm has seen",
                remedy="Take the patients with the role 'test' from the coin record for --real-test.",
            )


def _hash(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
