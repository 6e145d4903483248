"""The whole audit on small honest generators: some learn by heart, some do not, and some controls are broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from learners import BATCH, LARGE, OUTSIDE, PLAN, TRIED, Learner, audit, control, make_material, memoriser, trainer
from numpy.typing import NDArray

from fedphantom.common.cohorts.roles import Role
from fedphantom.common.errors import DataError
from fedphantom.privacy.attacks.battery import Battery, Reference
from fedphantom.privacy.attacks.interface import Networks
from fedphantom.privacy.attacks.knowledge import ShownSet
from fedphantom.privacy.audit.audit import run_audit
from fedphantom.privacy.audit.controls import TrainGenerator, positive_set_control
from fedphantom.privacy.audit.material import AuditMaterial
from fedphantom.privacy.audit.reading import read_audit
from fedphantom.privacy.audit.report import power_text
from fedphantom.privacy.audit.result import AuditResult
from fedphantom.privacy.evidence import (
    ATTACKS,
    BLIND,
    OF_COINS,
    OUTLIERS,
    REQUIRED_ATTACKS,
    ControlResult,
    CopiedLabels,
)
from fedphantom.privacy.policy import TIERS
from fedphantom.privacy.power import BLIND_SPREAD, Power, joint_power, power
from fedphantom.privacy.verdict import decide


@pytest.fixture(scope="module")
def leaking() -> AuditResult:
    """The audit of a weights release that learnt its members by heart."""
    return audit(replace(make_material(by_heart=True), reference_stands_in="16 public patients"))


@pytest.fixture(scope="module")
def clean() -> AuditResult:
    """The audit of a volumes release that saw no audited patient."""
    return audit(make_material(4, **LARGE), release="volumes")


ROLES = [
    "member",
    "holdout",
    *(pytest.param(role, marks=pytest.mark.long) for role in ("training", "control", "reference")),
]


def test_a_generator_that_learnt_members_by_heart_fails(leaking: AuditResult) -> None:
    result = leaking
    a1 = result.evidence.attacks[0]
    assert (a1.id, a1.auc, a1.rejects) == ("A1", 1.0, True)
    assert result.verdict.outcome == "FAIL"
    assert "A1" in result.verdict.reasons[0]
    assert all(c.ok for c in result.evidence.controls)


def test_its_released_volumes_may_show_nothing_of_that() -> None:
    result = audit(make_material(by_heart=True), release="volumes")
    a3 = next(attack for attack in result.evidence.attacks if attack.id == "A3")
    assert not a3.rejects
    assert result.verdict.outcome == "INCONCLUSIVE"  # 30 holdout patients, 50 are asked for
    assert "asks for 50" in result.verdict.reasons[0]


def test_a_generator_that_saw_nobody_passes_where_the_cohort_is_large_enough(clean: AuditResult) -> None:
    result = clean
    assert result.verdict.outcome == "PASS", result.verdict.reasons
    assert {c.id: c.ok for c in result.evidence.controls} == {
        "blind": True,
        "positive-set": True,
        "positive-copies": True,
        "positive-model": True,
        "negative": True,
    }
    assert result.power.joint_power == pytest.approx(0.735, abs=0.002)
    assert result.delta == 1 / (10 * (130 + 20)), "a tenth of one in all who trained"


def test_a_reduced_audit_is_at_best_inconclusive_and_says_why() -> None:
    assert audit(make_material(3), "internal", release="volumes").verdict.outcome == "PASS"
    result = audit(make_material(3), "internal", release="volumes", negative_seeds=1)
    assert result.verdict.outcome == "INCONCLUSIVE"
    assert result.verdict.reasons == ("Reduced audit: the negative control trained 1 of 3 generators.",)


def test_a_pass_rests_on_every_control_and_every_attack(clean: AuditResult) -> None:
    evidence, policy = clean.evidence, clean.policy
    for gone in evidence.controls:
        less = replace(evidence, controls=tuple(c for c in evidence.controls if c is not gone))
        assert decide(less, policy).outcome == "INCONCLUSIVE"
    for missing in evidence.attacks:
        less = replace(evidence, attacks=tuple(a for a in evidence.attacks if a is not missing))
        assert decide(less, policy).outcome == "INCONCLUSIVE"


def test_ten_holdout_patients_are_inconclusive_whatever_is_found() -> None:
    result = audit(make_material(by_heart=True, holdout=10))
    assert result.evidence.attacks[0].auc == 1.0
    assert result.verdict.outcome == "INCONCLUSIVE"
    assert "Fewer than 20 holdout patients" in result.verdict.reasons[0]


def test_a_members_scan_in_the_released_set_fails_even_with_ten_holdout_patients() -> None:
    material = make_material(holdout=10)
    synthetic = material.synthetic.copy()
    synthetic[4] = material.images[0]
    result = audit(replace(material, synthetic=synthetic), "internal")
    assert result.evidence.confirmed_copies == 1
    assert result.verdict.outcome == "FAIL"


def test_a_members_scan_is_found_in_the_released_set_though_it_was_mirrored() -> None:
    material = make_material()
    synthetic = material.synthetic.copy()
    synthetic[4] = material.images[0, :, ::-1]
    spoilt = replace(material, synthetic=synthetic)
    result = audit(spoilt, "internal", release="volumes", negative_seeds=1, blind_permutations=2)
    assert (result.evidence.confirmed_copies, result.evidence.copied_members) == (1, 1)
    assert result.verdict.outcome == "FAIL"


def test_members_from_another_scanner_make_the_audit_invalid() -> None:
    material = make_material(by_heart=True)
    brighter = np.array([role == "member" for role in material.roles], np.float32)[:, None, None, None, None]
    result = audit(replace(material, images=material.images + brighter))
    assert not control(result, "blind")[0]
    assert result.verdict.outcome == "INVALID"


def test_a_control_generator_that_knows_members_makes_the_audit_invalid() -> None:
    def contaminated(material: AuditMaterial) -> TrainGenerator:
        control_patients = set(material.scans_of("control").tolist())

        def train(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
            if set(scans.tolist()) == control_patients:
                members = material.scans_of("member")
                return Networks(Learner(material.images[members], material.labels[members], by_heart=True))
            return trainer(material)(scans, steps, seed)

        return train

    result = audit(make_material(), train=contaminated)
    ok, got = control(result, "negative")
    assert not ok
    assert "A1 AUC 1.00" in got
    assert result.verdict.outcome == "INVALID"


def test_an_attack_that_cannot_see_memorisation_is_inconclusive() -> None:
    def forgetful(material: AuditMaterial) -> TrainGenerator:
        others = material.scans_of("training")
        learner = Learner(material.images[others], material.labels[others], by_heart=False)
        return lambda scans, steps, seed: Networks(learner)

    result = audit(make_material(3), "internal", memorise=forgetful, release="volumes")
    assert not control(result, "positive-model")[0]
    assert result.verdict.outcome == "INCONCLUSIVE"
    assert "positive-model" in result.verdict.reasons[0]


def test_the_positive_control_overfits_on_16_members_for_90_epochs() -> None:
    calls: list[tuple[int, int]] = []
    material = make_material()
    by_heart: list[tuple[int, int]] = []
    told: list[str] = []
    train, memorise = trainer(material, calls), memoriser(material, by_heart)
    run_audit(material, PLAN, TIERS["controlled"], train, memorise, estimate=lambda what, seconds: told.append(what))
    assert told == ["Training 5 reference and control generators"]
    assert by_heart == [(16, 90 * 16 // BATCH)]
    assert calls[:2] == [(12, 1), (12, 3)]  # thrown away: how long a step takes
    assert calls[2:] == [(12, PLAN.steps)] * 4  # the reference and three negative controls


def test_too_few_members_to_memorise_are_told() -> None:
    result = audit(make_material(member=12))
    assert control(result, "positive-model") == (False, "fewer than 16 members to memorise")


@pytest.mark.parametrize("role", ROLES)
def test_a_copy_of_any_patients_scan_in_the_release_fails(role: Role) -> None:
    material = make_material(3)
    synthetic = material.synthetic.copy()
    synthetic[0] = material.images[material.scans_of(role)[0]]
    assert audit(replace(material, synthetic=synthetic), release="volumes").evidence.confirmed_copies == 1
    if role == "reference":  # public patients may be repeated: their scans are public
        public = replace(material, synthetic=synthetic, reference_stands_in="12 public patients")
        assert audit(public, release="volumes").evidence.confirmed_copies == 0


@pytest.mark.parametrize("role", ROLES)
def test_a_patients_own_label_map_in_the_release_fails_whatever_was_painted_from_it(role: Role) -> None:
    material = make_material(3)
    released = material.synthetic_labels.copy()
    released[5] = material.labels[material.scans_of(role)[0]]
    spoilt = replace(material, synthetic_labels=released)
    result = audit(spoilt, "internal", release="volumes")
    of = {"member": (1, 1, 0), "holdout": (1, 0, 1)}.get(role, (1, 0, 0))
    assert result.evidence.copied_labels == CopiedLabels(*of)
    assert result.verdict.outcome == "FAIL"
    assert result.verdict.reasons[0].startswith("1 released label map found to be a patient's own")
    content = json.loads(result.to_json())
    assert content["copied_labels"] == {"released": 1, "member": of[1], "holdout": of[2]}
    assert read_audit(result.to_json().encode())[1].verdict == "FAIL"
    if role == "reference":  # public patients' label maps are public
        public = replace(spoilt, reference_stands_in="12 public patients")
        assert audit(public, "internal", release="volumes").evidence.copied_labels == CopiedLabels(0)


def test_patients_of_a_site_with_one_side_only_are_not_counted_as_compared() -> None:
    material = make_material(3)
    lonely = set(np.array(material.patients)[material.scans_of("holdout")[:12]].tolist())
    sites = tuple("Z" if p in lonely else s for p, s in zip(material.patients, material.sites, strict=True))
    result = audit(replace(material, sites=sites), "internal", release="volumes")
    assert (result.evidence.n_member, result.evidence.n_holdout) == (30, 18)
    assert result.power.n_holdout == result.evidence.attacks[0].n_holdout == 18
    assert "Fewer than 20 holdout patients" in result.verdict.reasons[0]


def test_planted_copies_are_named_in_every_disguise() -> None:
    draw = np.random.default_rng(0)
    material = make_material()
    smooth = np.repeat(np.repeat(np.repeat(draw.normal(0, 1, (len(material.images), 2, 2, 2, 2)), 4, 2), 4, 3), 4, 4)
    result = audit(replace(material, images=(material.images * 0.3 + smooth).astype(np.float32)))
    assert control(result, "positive-set") == (True, "10 exact, 10 with noise, 10 moved")


def positive_set(nearest: float) -> ControlResult:
    """The control where the released set comes as near as this to every scan; scans vary by 1 about their labels."""
    material = make_material()
    scans = material.audited(material.scans_of("member", "holdout"))
    reference = trainer(material)(material.scans_of("reference"), PLAN.steps, 0)
    calibrating = Reference(material.audited(material.scans_of("reference")), reference)
    battery = Battery.calibrate(
        scans, calibrating, material.synthetic_labels, draws=1, seed=0, as_released=material.as_released
    )
    target = replace(
        battery.target(reference),
        show_released=lambda: ShownSet(np.full((len(scans), 1), nearest), battery.known.points[:1]),
    )
    return positive_set_control(battery, target, np.random.default_rng(0))


def test_planted_copies_that_the_attack_does_not_name_are_a_control_that_fails() -> None:
    blind = positive_set(0.0)  # nothing planted can come nearer
    assert int(blind.got.split()[0]) < 9
    assert not blind.ok


def test_moved_copies_must_be_named_too() -> None:
    only_moved_missed = positive_set(0.5)  # farther than noise of 5 %, nearer than a turn and half a voxel
    assert only_moved_missed.got.startswith("10 exact, 10 with noise, ")
    assert int(only_moved_missed.got.split()[-2]) < 7
    assert not only_moved_missed.ok
    assert positive_set(1.3).ok


def test_without_control_patients_the_negative_control_is_missing() -> None:
    result = audit(make_material(control=0))
    assert all(c.id != "negative" for c in result.evidence.controls)
    assert "The control 'negative' was not run." in result.verdict.reasons


BROKEN: dict[str, Callable[[AuditMaterial], AuditMaterial]] = {
    "no reference patients": lambda m: replace(m, roles=tuple("test" if r == "reference" else r for r in m.roles)),
    "no holdout": lambda m: replace(m, roles=tuple("test" if r == "holdout" else r for r in m.roles)),
    "a site too few": lambda m: replace(m, sites=m.sites[1:]),
    "a header too few": lambda m: replace(m, header=np.zeros((len(m.images) - 1, 2))),
    "an empty synthetic set": lambda m: replace(m, synthetic=m.synthetic[:0], synthetic_labels=m.synthetic_labels[:0]),
    "another grid": lambda m: replace(m, synthetic_labels=m.synthetic_labels[:, :4]),
    "non-finite voxels": lambda m: replace(m, images=m.images / np.float32(0)),
    "a patient with two roles": lambda m: replace(m, patients=(m.patients[40], *m.patients[1:])),
}


@pytest.mark.parametrize("break_", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_material_that_cannot_be_audited_is_refused_without_naming_a_patient(
    break_: Callable[[AuditMaterial], AuditMaterial],
) -> None:
    with pytest.raises(DataError) as refusal:
        audit(break_(make_material()))
    assert "p0" not in str(refusal.value)


def test_the_result_file_has_the_agreed_keys_and_names_no_patient(leaking: AuditResult) -> None:
    text = leaking.to_json()
    content = json.loads(text)
    assert {"verdict", "attacks", "controls", "counts", "reasons", "power"} <= set(content)
    for row in content["attacks"]:
        assert {"id", "threat_model", "auc", "auc_ci", "tpr", "eps_lower_bound", "p_value"} <= set(row)
    for row in content["controls"]:
        assert set(row) == {"id", "required", "got", "ok"}
    assert [row["id"] for row in content["attacks"]] == [*TRIED, BLIND]
    assert {*TRIED, BLIND} >= set(REQUIRED_ATTACKS["volumes"])
    models = [ATTACKS.get(name.removesuffix(OUTLIERS), "none") for name in (*TRIED, BLIND)]
    assert [row["threat_model"] for row in content["attacks"]] == models
    assert content["counts"]["holdout"] == 30
    assert content["reference_stands_in"] == "16 public patients"
    assert not any(patient in text for patient in make_material().patients)
    extract, _ = read_audit(text.encode())
    assert extract.verdict == leaking.verdict.outcome


def test_the_same_plan_gives_the_same_result_however_many_generators_train_at_once(leaking: AuditResult) -> None:
    material = replace(make_material(by_heart=True), reference_stands_in="16 public patients")
    again = audit(material, trainings_at_once=1)
    assert again.to_json() == leaking.to_json()


def test_what_an_audit_of_this_size_can_show_is_told_before_anything_is_trained() -> None:
    told: list[Power] = []

    class TooEarly(Exception):
        pass

    def train(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
        raise TooEarly

    with pytest.raises(TooEarly):
        run_audit(make_material(), PLAN, TIERS["controlled"], train, train, announce=told.append)
    (told_first,) = told
    assert (told_first.n_member, told_first.n_holdout) == (30, 30)
    assert 0.6 < told_first.smallest_auc < 0.75
    # Every attack here binds a weights release, guesses of coins add none; the blind baseline, held to the same limit,
    # spreads wider; and of the isolated quartile there are seven on each side.
    attacks, tau = len(OUTSIDE) - len(OF_COINS), TIERS["controlled"].auc_upper_max or 0
    blind = joint_power(30, 30, 1, tau, spread=BLIND_SPREAD)
    isolated = joint_power(7, 7, attacks, TIERS["controlled"].outlier_auc_upper_max or 0)
    assert told_first.joint_power == pytest.approx(joint_power(30, 30, attacks, tau) * blind * isolated)


def test_the_announcement_says_in_words_whether_a_pass_is_within_reach() -> None:
    few = power_text(power(12, 11, attacks=1, tau=0.6), "controlled", 50)
    assert "12 members against 11 holdout patients" in few
    assert "A PASS is out of reach: the controlled tier asks for 50 holdout patients" in few
    many = power_text(power(104, 104, attacks=1, tau=0.6), "controlled", 50)  # the blind baseline's alone
    assert "passes with a probability of about 55% in the controlled tier" in many


def test_progress_runs_to_its_end() -> None:
    material = make_material()
    told: list[tuple[str, int, int]] = []
    run_audit(
        material,
        PLAN,
        TIERS["internal"],
        trainer(material),
        memoriser(material),
        lambda stage, done, total: told.append((stage, done, total)),
    )
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    # Reference, memoriser, three negative controls; then attack, blind baseline, controls, and ten of each search.
    assert told[-1] == ("done", 28, 28)
    assert {total for _, _, total in told} == {28}
    assert {done for stage, done, _ in told if stage == "searching for moved copies"} == set(range(8, 19))
    assert {done for stage, done, _ in told if stage == "searching for copied label maps"} == set(range(18, 29))
