"""The Shin protocol from prepared scans to its result and files; interrupted, it goes on after the last segmenter."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from ...common.atomic import write_atomic
from ...common.counted import counted
from ...common.device import Device
from .carriers import carriers
from .disclosure import check_enough
from .kept import refuse_others
from .material import Material
from .segmenters import (
    KEPT,
    Examination,
    Pool,
    Segmenter,
    SegmenterProgress,
    check_disjoint,
    seconds_to_go,
    train_and_score,
)
from .shin import ShinOptions, ShinPlan, shin_plan
from .shin_plot import shin_plot
from .shin_result import ShinResult, shin_result
from .shin_table import markdown

Say = Callable[[str], None]
"""Told a line for a person."""


def run_shin(
    material: Material,
    options: ShinOptions,
    folder: Path,
    device: Device,
    say: Say,
    progress: Callable[[int, int], None],
) -> ShinResult:
    """Train and score every segmenter that is not kept yet, then write ``shin.json``, ``shin.md`` and ``shin.svg``.

    Args:
        material: Real and synthetic scans.
        options: How much of the protocol.
        folder: Where everything is written; the same call goes on there.
        device: Where to train.
        say: Told how long it will take before it starts, and each segmenter as it finishes or is found kept.
        progress: Called with optimiser steps done and in all.

    Raises:
        DataError: too few real patients, or none with any structure, or a test patient's scan among the training scans.
        OutputTaken: the folder holds segmenters of other scans or settings, or arms that this call leaves out.
        TrainingError: a segmenter's loss is not finite.
    """
    check_enough(len(set(material.test.patients)), "test patients")
    plan = shin_plan(material.train, material.synthetic, options, material.public)
    examination = Examination(Pool(material.test), material.study, device, folder / KEPT)
    having = carriers(material.test, material.study)
    check_disjoint(plan.segmenters, examination.test)  # before steps are timed
    refuse_others(plan.segmenters, examination, folder / "shin.json", [arm.name for arm in plan.arms])
    todo = [segmenter for segmenter in plan.segmenters if examination.kept(segmenter) is None]
    kept = {segmenter.name for segmenter in plan.segmenters} - {segmenter.name for segmenter in todo}
    _say_how_long(plan, todo, examination, say)
    scores = train_and_score(plan.segmenters, examination, _told(plan, kept, say, progress))
    found = shin_result(plan, scores, material.study, having, material.synthetic_sha256)
    result = replace(found, whom=material.examined)
    for name, content in {
        "shin.json": json.dumps(result.to_json(), indent=1).encode() + b"\n",
        "shin.md": markdown(result).encode(),
        "shin.svg": shin_plot(result),
    }.items():
        write_atomic(folder / name, content, mode=0o600)
    return result


def _say_how_long(plan: ShinPlan, todo: Sequence[Segmenter], examination: Examination, say: Say) -> None:
    kept = len(plan.segmenters) - len(todo)
    told = f"{len(plan.segmenters)} segmenters of {counted(plan.full.steps, 'step')}, {kept} kept from before"
    if todo:
        minutes = seconds_to_go(todo, examination) / 60
        told += f"; about {minutes:.0f} min to go" if minutes >= 1 else "; less than a minute to go"
    say(told)


def _told(plan: ShinPlan, kept: Collection[str], say: Say, progress: Callable[[int, int], None]) -> SegmenterProgress:
    steps = {segmenter.name: 0 for segmenter in plan.segmenters}
    in_all = sum(segmenter.steps for segmenter in plan.segmenters)
    finished: set[str] = set()
    one_at_a_time = threading.Lock()  # segmenters train side by side

    def report(name: str, step: int, total: int) -> None:
        with one_at_a_time:
            steps[name] = step
            progress(sum(steps.values()), in_all)
            if step == total:
                finished.add(name)
                say(f"{len(finished)} of {len(steps)}: {name}{', kept from before' if name in kept else ''}")

    return report
