"""Shadow generators: who sees whom, what their errors say, and that a call broken off goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learners import PLAN, audit, control, make_material, memoriser, trainer
from numpy.typing import NDArray
from tiny_cohorts import tiny_scans

from fedphantom.common.errors import ConfigError, TrainingError
from fedphantom.privacy.attacks.interface import AuditedScans, Images, Labels, Networks
from fedphantom.privacy.attacks.shadow_models import lira_scores, rmia_scores
from fedphantom.privacy.attacks.shadows import Errors
from fedphantom.privacy.audit.audit import run_audit
from fedphantom.privacy.audit.controls import TrainGenerator
from fedphantom.privacy.audit.material import AuditMaterial
from fedphantom.privacy.audit.reading import read_audit
from fedphantom.privacy.audit.recomputation import best_verdict
from fedphantom.privacy.audit.run import AuditSizes
from fedphantom.privacy.audit.shadow_training import ShadowPlan, halves, seconds_to_measure
from fedphantom.privacy.evidence import OF_SHADOWS, SHADOWED, required_controls
from fedphantom.privacy.policy import TIERS


@settings(max_examples=40, deadline=None)
@given(patients=st.integers(2, 40), pairs=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_each_patient_is_seen_by_exactly_half_of_the_shadows(patients: int, pairs: int, seed: int) -> None:
    everybody = tuple(f"p{i}" for i in range(patients))
    seen = halves(everybody, 2 * pairs, seed)
    assert [sum(patient in half for half in seen) for patient in everybody] == [pairs] * patients
    assert {len(half) for half in seen} <= {patients // 2, patients - patients // 2}
    assert halves(everybody[::-1], 2 * pairs, seed) == seen


def test_lira_is_the_distance_below_those_who_never_saw_in_their_spread() -> None:
    saw = np.array([[True, False], [False, True]] * 8)
    logs = np.where(saw, -3.0, np.tile([[0.0], [0.0], [2.0], [2.0]], (4, 2)))
    errors = np.exp(np.concatenate([logs, np.zeros((16, 1))], axis=1))
    spread = np.std([0, 2] * 4, ddof=1)
    score = lira_scores(np.exp([-1.0, 1.0, 0.0]), errors, saw)
    assert score == pytest.approx([2 / spread, 0.0])


def test_with_few_shadows_the_spread_of_all_scans_serves() -> None:
    saw = np.array([[True, False], [False, True], [True, False], [False, True]])
    logs = np.array([[-9.0, 0.0], [0.0, -9.0], [-9.0, 2.0], [4.0, -9.0]])
    spread = np.sqrt((np.var([0, 4], ddof=1) + np.var([0, 2], ddof=1)) / 2)
    score = lira_scores(np.exp([1.0, 0.0, 0.0]), np.exp(np.c_[logs, np.zeros(4)]), saw)
    assert score == pytest.approx([1 / spread, 1 / spread])


def test_rmia_is_the_share_of_reference_scans_that_became_less_likely() -> None:
    saw = np.array([[True, False], [False, True]] * 2)
    own = np.where(saw, 0.0, 1.0)
    shadows = np.c_[own, np.ones((4, 4))]
    # One scan is known; of the other the target says what shadows that never saw it say.
    target = np.array([0.0, 1.0, 0.9, 1.0, 1.1, 0.2])
    # τ is 1. Ratios: 1 / ((1 + 1/e) / 2) = 1.46 and 0.54; of the reference 1.11, 1, 0.90 and 2.23.
    assert rmia_scores(target, shadows, saw).tolist() == [0.75, 0.0]


def test_neither_a_scan_that_nobody_paints_beats_another() -> None:
    saw = np.array([[True], [False]] * 2)
    hopeless = np.full((4, 3), 1.0)
    assert rmia_scores(np.array([1e6, 1.0, 1.0]), hopeless, saw).tolist() == [0.0]


def plan(folder: Path, number: int = 4, **changes: object) -> ShadowPlan:
    return replace(ShadowPlan(number, 11, 50, folder, "generator"), **changes)  # type: ignore[arg-type]  # the plan's own


def test_shadows_find_whom_a_generator_learnt_by_heart_and_nobody_else(tmp_path: Path) -> None:
    leaking = audit(make_material(by_heart=True), shadows=plan(tmp_path), train=learning_by_heart)
    found = {attack.id: attack for attack in leaking.evidence.attacks}
    for name in OF_SHADOWS:
        assert (found[name].auc, found[name].threat_model) == (1.0, "G")
        assert f"{name}/outliers" in found
        assert name in {run.attack for run in leaking.negative_runs}
        assert name in {figure.attack for figure in leaking.by_site}
    assert control(leaking, SHADOWED) == (True, "A2-LiRA AUC 1.00, A2-RMIA AUC 1.00")
    clean = audit(make_material(3), shadows=plan(tmp_path), train=learning_by_heart)
    assert control(clean, SHADOWED)[0]
    assert not any(attack.rejects for attack in clean.evidence.attacks if attack.id in OF_SHADOWS)


def learning_by_heart(material: object) -> Callable[..., Networks]:
    """As shadows of a generator that learns by heart do: of audited patients; of others what they have in common."""
    audited = set(material.scans_of("member", "holdout").tolist())  # type: ignore[attr-defined]  # an AuditMaterial
    common, heart = trainer(material), memoriser(material)  # type: ignore[arg-type]

    def train(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
        return heart(scans, 10**6, seed) if set(scans.tolist()) <= audited else common(scans, steps, seed)

    return train


def forgetting(material: AuditMaterial) -> TrainGenerator:
    """A memoriser that remembers others than it was given: what it learnt no attack can see in those."""
    others, heart = material.scans_of("training"), memoriser(material)
    return lambda scans, steps, seed: heart(others, steps, seed)


def test_shadows_that_miss_a_generator_made_to_memorise_bind_nothing(tmp_path: Path) -> None:
    """A1's own control misses it as well: both are told."""
    blind = audit(make_material(3), shadows=plan(tmp_path), train=learning_by_heart, memorise=forgetting)
    assert not control(blind, SHADOWED)[0]
    assert blind.verdict.outcome == "INCONCLUSIVE"
    assert any(f"The control '{SHADOWED}' does not reach its mark" in reason for reason in blind.verdict.reasons)
    assert best_verdict(read_audit(blind.to_json().encode())[0]) == "INCONCLUSIVE"
    assert SHADOWED not in required_controls("volumes", None, OF_SHADOWS)  # whose makers give no generator away
    assert SHADOWED in required_controls("weights", None, OF_SHADOWS)
    assert SHADOWED not in required_controls("weights", None, ("A1",))


def test_too_few_members_to_memorise_leave_the_shadows_without_their_control(tmp_path: Path) -> None:
    few = audit(make_material(3, member=15), shadows=plan(tmp_path), train=learning_by_heart)
    assert control(few, SHADOWED) == (False, "fewer than 16 members to memorise")


def test_no_shadow_is_trained_that_was_not_asked_for() -> None:
    result = audit(make_material(3))
    assert SHADOWED not in {row.id for row in result.evidence.controls}
    assert not {attack.id for attack in result.evidence.attacks} & set(OF_SHADOWS)


@pytest.mark.long
def test_a_call_broken_off_goes_on_with_the_shadows_that_are_missing(tmp_path: Path) -> None:
    material = make_material(3)
    learn, trained = trainer(material), []

    def train(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
        if steps == 50 and 11 <= seed < 17:  # a shadow, not the measuring of one
            if seed == failing:
                raise TrainingError("out of power", expected="power", remedy="Go on.")
            trained.append(seed)
        return learn(scans, steps, seed)

    def run(folder: Path) -> str:
        asked = replace(PLAN, shadows=plan(folder, 6), trainings_at_once=1)
        return run_audit(material, asked, TIERS["internal"], train, memoriser(material)).to_json()

    failing = 13
    with pytest.raises(TrainingError):
        run(tmp_path / "broken")
    assert trained == [11, 12]
    damaged = sorted((tmp_path / "broken").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:-3])
    failing = 0
    resumed = run(tmp_path / "broken")
    assert trained == [11, 12, 11, 13, 14, 15, 16]
    assert resumed == run(tmp_path / "whole")
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "broken").iterdir())


@pytest.mark.long
def test_kept_errors_are_those_of_the_same_shadows_only(tmp_path: Path) -> None:
    material = make_material(3)
    for changes in ({}, {"steps": 51}, {"key": "another"}, {"seed": 12}):
        audit(material, shadows=plan(tmp_path, **changes))
    assert len(list(tmp_path.iterdir())) == 4 * 4


def test_what_shadows_take_is_told_before_any_is_trained(tmp_path: Path) -> None:
    told: list[str] = []
    material = make_material(3)
    learn = trainer(material)

    def train(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
        assert told[1:] == ["A2"] or steps in (1, 3)
        return learn(scans, steps, seed)

    went: list[tuple[int, int]] = []
    run_audit(
        material,
        replace(PLAN, shadows=plan(tmp_path)),
        TIERS["internal"],
        train,
        memoriser(material),
        progress=lambda stage, done, total: went.append((done, total)),
        estimate=lambda attack, seconds: told.append(attack),
    )
    assert [done for done, _ in went] == sorted(done for done, _ in went)
    assert {total for _, total in went} == {28 + 4}


def test_what_shadows_take_counts_the_measuring_of_the_target_and_of_the_generator_they_must_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four shadows are trained for 2 s and measured for 10 each; so are the target, the memoriser and three others."""
    monkeypatch.setattr("fedphantom.privacy.audit.shadow_training.seconds_for_trainings", lambda lengths, *_: 8.0)
    for place in ("audit", "shadow_training"):
        monkeypatch.setattr(f"fedphantom.privacy.audit.{place}.seconds_to_measure", lambda measure, generator: 10.0)
    material, asked = make_material(3), replace(PLAN, shadows=plan(tmp_path))
    told: dict[str, float] = {}

    def estimate(attack: str, seconds: float) -> None:
        told[attack] = seconds
        if attack == "A2":
            raise KeyboardInterrupt  # no need to wait for it

    with pytest.raises(KeyboardInterrupt):
        run_audit(material, asked, TIERS["internal"], trainer(material), memoriser(material), estimate=estimate)
    assert told["A2"] == 8 + 4 * 10 + 5 * 10


def test_measuring_is_timed_by_a_draw_on_a_few_scans(tmp_path: Path) -> None:
    scans, asked = tiny_scans(20), list[int]()
    audited = AuditedScans(scans.volumes, scans.classes, scans.patients, ("A",) * 20, (True, False) * 10)
    judged = np.ones(scans.classes.shape, bool)

    def slow(labels: Labels, noise_seed: int) -> Images:
        asked.append(len(labels))
        time.sleep(0.05 * len(labels))
        return np.zeros((len(labels), *scans.volumes.shape[1:]), np.float32)

    seconds = seconds_to_measure(Errors(audited, judged, audited, judged, 4, 1), slow)
    assert asked == [8]
    assert 0.05 * 4 * 40 <= seconds < 2 * 0.05 * 4 * 40


@pytest.mark.parametrize("number", [1, 2, 3, 5, 9])
def test_a_number_of_shadows_that_shows_no_spread_is_refused(number: int) -> None:
    with pytest.raises(ConfigError, match=f"{number} shadow generators"):
        AuditSizes(shadows=number)
    assert AuditSizes(shadows=8).shadows == 8
