"""An audit whose attacker holds the weights: asked for, told what it takes, checked by a control of its own."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from learners import LARGE, PLAN, Learner, audit, control, make_material, memoriser, trainer
from numpy.typing import NDArray

from fedphantom.cli import run as fedphantom
from fedphantom.common.errors import DataError
from fedphantom.privacy.attacks.interface import AuditedScans, Networks, Search, Told
from fedphantom.privacy.audit import control_training, run_attack
from fedphantom.privacy.audit.audit import run_audit
from fedphantom.privacy.audit.controls import TrainGenerator
from fedphantom.privacy.audit.course import duration
from fedphantom.privacy.audit.material import AuditMaterial
from fedphantom.privacy.audit.result import AuditResult
from fedphantom.privacy.audit.weight_search import weight_search
from fedphantom.privacy.evidence import OF_SHADOWS, WHITE_BOX
from fedphantom.privacy.policy import TIERS
from fedphantom.privacy.statistics import Floats


def searched(networks: Networks, blind: bool = False) -> Networks:
    """Its weights can be searched: they give up what it paints from own label maps, or nothing."""

    def errors(scans: AuditedScans, judged: NDArray[np.bool_], told: Told) -> Floats:
        off = (networks.generator(scans.labels, 0) - scans.images).astype(np.float64)
        told(len(scans), len(scans))
        return np.ones(len(scans)) if blind else np.asarray((off**2).mean(axis=(1, 2, 3, 4)))

    return replace(networks, search=Search(errors, lambda scans, judged: 40.0))


def searching(train: TrainGenerator, blind: bool = False) -> TrainGenerator:
    return lambda scans, steps, seed: searched(train(scans, steps, seed), blind)


def white_box_audit(material: AuditMaterial, blind: bool = False, **changes: object) -> AuditResult:
    return audit(
        replace(material, target=searched(material.target, blind)),
        train=lambda m: searching(trainer(m), blind),
        memorise=lambda m: searching(memoriser(m), blind),
        **changes,
    )


def test_weights_that_know_nobody_pass_once_they_were_searched() -> None:
    # Three in four such audits pass; of seed 3 the quartile's A7 lies too high by chance.
    result = white_box_audit(make_material(4, **LARGE))
    assert result.verdict.outcome == "PASS", result.verdict.reasons
    assert {"A3-WB", "A3-WB/outliers"} <= {attack.id for attack in result.evidence.attacks}
    assert control(result, "positive-white-box") == (True, "AUC 1.00")
    assert WHITE_BOX in {run.attack for run in result.negative_runs}
    unsearched = audit(make_material(4, **LARGE))
    assert unsearched.verdict.outcome == "INCONCLUSIVE"
    assert any("--white-box" in reason for reason in unsearched.verdict.reasons)


def test_weights_that_know_their_members_fail() -> None:
    result = white_box_audit(make_material(by_heart=True))
    (found,) = [attack for attack in result.evidence.attacks if attack.id == WHITE_BOX]
    assert (found.auc, found.threat_model, found.rejects) == (1.0, "W", True)
    named = f"Attack {WHITE_BOX} names 100% of the members without one false alarm"
    assert any(named in reason for reason in result.verdict.reasons)


def test_a_search_that_misses_a_memoriser_is_called_too_weak() -> None:
    result = white_box_audit(make_material(3), blind=True)
    assert not control(result, "positive-white-box")[0]
    assert result.verdict.outcome == "INCONCLUSIVE"
    assert any("'positive-white-box' does not reach its mark" in reason for reason in result.verdict.reasons)


def test_a_search_of_a_target_that_paints_no_numbers_ends_the_audit_and_of_a_control_only_the_control() -> None:
    def broken(scans: AuditedScans, judged: NDArray[np.bool_], told: Told) -> Floats:
        raise DataError("non-finite voxels", expected="numbers", remedy="Train again.")

    material = make_material(3)
    with pytest.raises(DataError, match="non-finite"):
        audit(
            replace(material, target=replace(material.target, search=Search(broken, lambda scans, judged: 1.0))),
            train=lambda m: searching(trainer(m)),
        )

    def breaking(material: AuditMaterial) -> TrainGenerator:
        train = memoriser(material)
        return lambda scans, steps, seed: replace(
            train(scans, steps, seed), search=Search(broken, lambda scans, judged: 1.0)
        )

    result = audit(
        replace(material, target=searched(material.target)), train=lambda m: searching(trainer(m)), memorise=breaking
    )
    assert control(result, "positive-white-box") == (False, "its training came to nothing: non-finite voxels")


def test_what_a_search_takes_is_told_before_anything_is_trained_and_counts_in_the_progress() -> None:
    told: list[tuple[str, float]] = []
    went: list[tuple[str, int, int]] = []
    material = make_material(3)
    material = replace(material, target=searched(material.target))

    def train(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
        assert told[1:] == [(WHITE_BOX, 6 * 40.0)] or steps in (1, 3)  # target, reference, memoriser, three negatives
        return searched(Networks(Learner(material.images[scans], material.labels[scans], by_heart=steps > 100)))

    run_audit(
        material,
        PLAN,
        TIERS["internal"],
        train,
        train,
        progress=lambda stage, done, total: went.append((stage, done, total)),
        estimate=lambda attack, seconds: told.append((attack, seconds)),
    )
    steps = [done for _, done, _ in went]
    assert steps == sorted(steps)
    # As without a search (28), and ten for each network searched.
    assert went[-1] == ("done", 88, 88)
    assert {total for _, _, total in went} == {88}
    assert went[-2][1] == 88
    assert sum(stage == "searching a generator's weights" for stage, _, _ in went) == 6


def test_an_audit_that_was_not_asked_for_a_search_makes_none() -> None:
    def never(scans: AuditedScans, judged: NDArray[np.bool_], told: Told) -> Floats:
        raise AssertionError

    def train(material: AuditMaterial) -> TrainGenerator:
        learn = trainer(material)
        return lambda scans, steps, seed: replace(learn(scans, steps, seed), search=Search(never, lambda s, j: 1.0))

    result = audit(make_material(3), train=train)
    assert WHITE_BOX not in {attack.id for attack in result.evidence.attacks}
    assert "positive-white-box" not in {row.id for row in result.evidence.controls}
    assert WHITE_BOX not in {run.attack for run in result.negative_runs}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 minute"),
        (60, "1 minute"),
        (61, "2 minutes"),
        (7140, "119 minutes"),
        (7200, "2 hours"),
        (9000, "3 hours"),
    ],
)
def test_a_duration_is_told_rounded_up(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_command_says_what_was_asked_for_will_take_and_does_it(
    simulated: Path,
    spoilt: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for file in (control_training, run_attack):
        monkeypatch.setattr(file, "weight_search", partial(weight_search, restarts=1, steps=1))
    public = shutil.copytree(simulated / "public", tmp_path / "open")
    people = (public / "participants.tsv").read_text()
    (public / "participants.tsv").write_text(re.sub(r"(?m)\tA$", "\tpublic", people))
    options = ["--public", str(public), "--kind", "weights", "--steps", "2", "--negative-seeds", "1"]
    arguments = ["audit", "run", str(spoilt / "run"), *options, "--json", "--device", "cpu"]
    assert fedphantom([*arguments, "--white-box", "--shadows", "4"]) == 6
    out, err = capsys.readouterr()
    assert "A3-WB will take about 1 minute by a first step." in err
    assert "A2 will take about 1 minute by a first step." in err
    assert not (spoilt / "run" / "audit" / "shadows").exists()  # how well each shadow paints whom goes with the audit
    assert "out of reach without a search" not in err
    content = json.loads(out)
    assert set(OF_SHADOWS) <= {row["id"] for row in content["attacks"]}
    (row,) = [row for row in content["attacks"] if row["id"] == WHITE_BOX]
    assert (row["threat_model"], row["binding"]) == ("W", True)
    assert not any("A3-WB" in reason and "not run" in reason for reason in content["reasons"])
