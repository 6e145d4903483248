"""Discriminators in an audit: each scan is judged by its own site's, and a control shows if that finds anything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from learners import audit, control, make_material, trainer
from numpy.typing import NDArray
from tiny_cohorts import tiny_scans, tiny_study

from fedphantom.common.device import choose_device
from fedphantom.common.gan.networks import make_discriminator, one_hot
from fedphantom.privacy.attacks.interface import AuditedScans, Logits, Networks
from fedphantom.privacy.audit.controls import TrainGenerator
from fedphantom.privacy.audit.critics import by_site, critic
from fedphantom.privacy.audit.material import AuditMaterial
from fedphantom.privacy.audit.result import AuditResult
from fedphantom.privacy.evidence import ATTACKS, OF_SHADOWS, TRAJECTORY, WHITE_BOX
from fedphantom.privacy.statistics import Floats
from fedphantom.privacy.verdict import is_binding


def scans_at(sites: str) -> AuditedScans:
    scans = tiny_scans(len(sites))
    return AuditedScans(scans.volumes, scans.classes, scans.patients, tuple(sites), (True,) * len(sites))


def test_a_critic_gives_the_mean_patch_logit_of_each_scan_whatever_lies_beside_it() -> None:
    study, scans = tiny_study(), scans_at("A" * 11)
    network = make_discriminator(study, 5)
    found = critic(network, study, choose_device("cpu"))(scans)
    with torch.inference_mode():
        given = one_hot(torch.from_numpy(scans.labels[9:10]), len(study.labels))
        patches, _ = network(given, torch.from_numpy(scans.images[9:10]))
    assert found[9] == pytest.approx(float(patches.mean()), rel=1e-4)
    assert found.std() > 0
    alone = critic(network, study, choose_device("cpu"))(scans.take(np.array([9])))
    assert alone[0] == pytest.approx(found[9], rel=1e-4)


def test_each_scan_is_judged_by_the_discriminator_of_its_own_site() -> None:
    def always(value: float) -> Logits:
        return lambda scans: np.full(len(scans), value)

    assert by_site({"A": always(1), "B": always(2)})(scans_at("ABBA")).tolist() == [1, 2, 2, 1]


def insiders(members_stand_out: float, memoriser_stands_out: float) -> AuditResult:
    """An audit whose discriminators find those that they were trained on more real, by so much."""
    material = make_material(3)
    brightness = np.random.default_rng(4).normal(0, 1, len(material.images))

    def knows(rows: NDArray[np.intp], by: float) -> Logits:
        base = {image.tobytes(): value for image, value in zip(material.images, brightness, strict=True)}
        known = {material.images[i].tobytes() for i in rows}

        def logits(scans: AuditedScans) -> Floats:
            return np.array([base[x.tobytes()] + by * (x.tobytes() in known) for x in scans.images])

        return logits

    def train_with(material: AuditMaterial) -> TrainGenerator:
        def train(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
            noisy = np.random.default_rng(seed).normal(0, 0.1, len(material.images))
            made = trainer(material)(scans, steps, seed)
            told = knows(scans, memoriser_stands_out)
            index = {image.tobytes(): i for i, image in enumerate(material.images)}
            return replace(made, logits=lambda s: told(s) + np.array([noisy[index[x.tobytes()]] for x in s.images]))

        return train

    members = material.scans_of("member")
    target = replace(material.target, logits=knows(members, members_stand_out))
    return audit(replace(material, target=target), "internal", train=train_with, release="volumes")


def test_an_insider_who_recognises_members_is_reported_and_gates_no_release() -> None:
    result = insiders(1.0, 1.0)
    (a6,) = [attack for attack in result.evidence.attacks if attack.id == "A6"]
    assert a6.auc == 1.0
    assert a6.rejects
    assert not is_binding(a6, result.evidence)
    assert control(result, "positive-insider") == (True, "AUC 1.00")
    assert control(result, "negative")[0]
    assert {run.attack for run in result.negative_runs} == set(ATTACKS) - {*OF_SHADOWS, TRAJECTORY, WHITE_BOX, "A7"}
    assert result.verdict.outcome == "PASS"
    assert "A6/outliers (AUC 1.00) did: they need both networks of a site" in result.verdict.reasons[0]


def test_an_attack_on_discriminators_that_finds_no_memoriser_is_said_to_be_too_weak() -> None:
    result = insiders(0.0, 0.0)
    ok, got = control(result, "positive-insider")
    assert not ok
    assert got.startswith("AUC 0.")
    assert result.verdict.outcome == "PASS"  # nothing hangs on it
