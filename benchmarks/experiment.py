"""What experiments share: their arguments, a study's rounds in this process, seed after seed, results as they come."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedphantom.client.evaluation.arms import Evaluation, evaluate_arms
from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.atomic import write_atomic
from fedphantom.common.cohorts.preparation import PreparedScans
from fedphantom.common.device import choose_device
from fedphantom.common.gan.generation import as_read_back, paint
from fedphantom.common.gan.networks import Generator
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.common.gan.public_start import first_parameters
from fedphantom.common.labels.sampler import LabelSampler
from fedphantom.common.progress import stages
from fedphantom.common.segmentation import SegmenterPlan
from fedphantom.common.site_folder import SiteFolder, SiteMaterial, site_material
from fedphantom.common.study import Study
from fedphantom.common.study_template import to_toml
from fedphantom.server.simulation import simulate
from fedphantom.server.site_cohorts import own_cohorts

Stage = Callable[[str], Callable[[int, int], None]]
"""Begins a named stage; returns its progress function (done, in all)."""


def arguments(what: str | None, *, segmenter_steps: int) -> argparse.ArgumentParser:
    """Study, sites, folder, seeds and the length of a U-Net's training; an experiment adds its own."""
    parse = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("study", type=Path)
    parse.add_argument("--site", action="append", required=True, metavar="NAME=COHORT")
    parse.add_argument("--out", type=Path, required=True)
    parse.add_argument("--seeds", type=int, nargs="+")
    parse.add_argument("--segmenter-steps", type=int, default=segmenter_steps)
    return parse


def over_seeds(
    study: Study,
    given: argparse.Namespace,
    facts: Mapping[str, Any],
    compare: Callable[[Study, Path, Stage], Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Compare for every seed; ``result.json``, which grows with each, and what stands in it."""
    seeds: list[Mapping[str, Any]] = []
    for seed in given.seeds or [study.seed]:
        with stages() as stage:
            seeds.append(compare(study.model_copy(update={"seed": seed}), given.out / f"seed-{seed}", stage))
        result = {**facts, "seeds": seeds}
        write_atomic(given.out / "result.json", (json.dumps(result, indent=1) + "\n").encode())
        yield result


def train_average(
    study: Study, sites: Mapping[str, Path], out: Path, report: Callable[[int, int], None], start: Path | None = None
) -> Path:
    """Run the study's rounds in this process, or go on with them; the generator, or an ensemble's folder.

    Args:
        study: Sharing weights, or an ensemble.
        sites: Site name to cohort.
        out: The run's folder.
        report: (rounds done, in all).
        start: The public start of a study that makes a promise.
    """
    result = simulate(
        to_toml(study),
        sites,
        out,
        engine="local",
        prepare_site=partial(create_site_folder, start=start),
        open_site=lambda root: Site(SiteFolder.open(root), LocalTrainer.open),
        initial=partial(first_parameters, start=start),
        progress=lambda record: report(record.round, study.training.rounds),
    )
    assert result.generator, "only a study that shares volumes alone leaves none"
    return result.generator


def drawn_sites(study: Study, sites: Mapping[str, Path], out: Path) -> list[SiteMaterial]:
    """Every site's patients with their roles, in site-name order, without a run: roles follow from seed and name."""
    spec = ParameterSpec.of(first_parameters(study, None))
    found = []
    for name, own in sorted(own_cohorts(sites).items()):
        out.mkdir(parents=True, exist_ok=True)
        create_site_folder(out / name, name, own.placed(out / f"{name}.tsv"), to_toml(study), spec)
        found.append(site_material(SiteFolder.open(out / name), study))
    return found


def drawn_classes(sampler: LabelSampler, study: Study, seed: int, number: int) -> NDArray[np.uint8]:
    """Public label maps for generators to paint, class indices (n, X, Y, Z); the same for the same seed."""
    maps = np.stack([sampler.sample(seed, index).labels for index in range(number)])
    return np.searchsorted(study.label_values, maps).astype(np.uint8)


def painted_scans(network: Generator, classes: NDArray[np.uint8], study: Study, seed: int) -> PreparedScans:
    """What a generator paints of label maps, as a release would hold it."""
    return as_scans(as_read_back(paint(network.eval(), classes, study, seed, choose_device())), classes)


def score_arms(
    arms: Mapping[str, PreparedScans], test: PreparedScans, study: Study, seed: int, steps: int, out: Path, stage: Stage
) -> Evaluation:
    """Train a U-Net an arm for so many steps, the same for every arm, and score it; goes on where ``out`` has some."""
    done, report = dict.fromkeys(arms, 0), stage("segmenters")

    def progress(arm: str, step: int, total: int) -> None:
        done[arm] = step
        report(sum(done.values()), total * len(arms))

    return evaluate_arms(
        arms,
        test,
        study,
        seed=seed,
        device=choose_device(),
        plan=SegmenterPlan(steps=steps),
        folder=out,
        progress=progress,
    )


def as_scans(volumes: NDArray[np.float32], classes: NDArray[np.uint8]) -> PreparedScans:
    """Painted scans as an arm of the evaluation takes them."""
    names = tuple(f"synthetic {i}" for i in range(len(classes)))
    return PreparedScans(volumes, classes, names, ("",) * len(classes), np.zeros((len(classes), 0)))
