"""The whole audit on small honest generators: some learn by heart, some do not, and some controls are broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_cohorts import tiny_study, write_tiny_cohort

from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import PreparedScans, prepare
from fedphantom.common.cohorts.roles import Role
from fedphantom.common.errors import DataError, TrainingError
from fedphantom.common.volumes.nifti import read_volume, write_volume
from fedphantom.privacy.attacks.interface import AttackScores, Images, Labels, Reconstruct
from fedphantom.privacy.audit.audit import SMALLEST_SUBGROUP, AuditPlan, run_audit
from fedphantom.privacy.audit.controls import TrainGenerator
from fedphantom.privacy.audit.material import AuditMaterial
from fedphantom.privacy.audit.reading import read_audit
from fedphantom.privacy.audit.recomputation import best_verdict
from fedphantom.privacy.audit.report import audit_text, power_text
from fedphantom.privacy.audit.result import AuditResult
from fedphantom.privacy.policy import TIERS
from fedphantom.privacy.power import Power, joint_power, power
from fedphantom.privacy.verdict import decide

GRID = (8, 8, 8)
CHANNELS = 2
BATCH = 2


class Learner:
    """A generator fitted to scans: labels plus the scans' mean remainder, or every scan by heart."""

    def __init__(self, images: Images, labels: Labels, by_heart: bool) -> None:
        self.mean = 0 if by_heart else (images - labels[:, None]).mean(axis=0)
        self.known = {label.tobytes(): image for label, image in zip(labels, images, strict=True)} if by_heart else {}

    def __call__(self, labels: Labels, noise_seed: int) -> Images:
        noise = np.random.default_rng(noise_seed).normal(0, 0.3, (len(labels), CHANNELS, *GRID))
        painted = labels[:, None] + self.mean + noise
        return np.stack([self.known.get(m.tobytes(), x) for m, x in zip(labels, painted, strict=True)]).astype(
            np.float32
        )


def make_material(seed: int = 0, *, by_heart: bool = False, **numbers: int) -> AuditMaterial:
    """Patients of two sites; the target is fitted to training patients, and with ``by_heart`` to members."""
    draw = np.random.default_rng(seed)
    wanted: dict[Role, int] = {"member": 30, "holdout": 30, "training": 20, "reference": 12, "control": 12}
    wanted |= numbers  # type: ignore[assignment, operator]  # keywords are role names
    roles: list[Role] = [role for role, n in wanted.items() for _ in range(n)]
    n = len(roles)
    labels = (draw.random((n, *GRID)) < 0.6).astype(np.uint8)
    images = (labels[:, None] + draw.normal(0, 1, (n, CHANNELS, *GRID))).astype(np.float32)
    fitted = [i for i, role in enumerate(roles) if role in (("member",) if by_heart else ("training",))]
    target = Learner(images[fitted], labels[fitted], by_heart)
    public = (draw.random((30, *GRID)) < 0.6).astype(np.uint8)
    return AuditMaterial(
        as_released=lambda images: images,
        target_steps=PLAN.steps,
        images=images,
        labels=labels,
        patients=tuple(f"p{i:03d}" for i in range(n)),
        roles=tuple(roles),
        sites=tuple("AB"[i % 2] for i in range(n)),
        target=target,
        synthetic=target(public, 1),
        synthetic_labels=public,
        generator_sha256="a" * 64,
        cohort_digest="b" * 64,
    )


def trainer(material: AuditMaterial, calls: list[tuple[int, int]] | None = None) -> TrainGenerator:
    """Learns what its scans have in common."""

    def train(scans: NDArray[np.intp], steps: int, seed: int) -> Reconstruct:
        if calls is not None:
            calls.append((len(scans), steps))
        return Learner(material.images[scans], material.labels[scans], by_heart=False)

    return train


def memoriser(material: AuditMaterial, calls: list[tuple[int, int]] | None = None) -> TrainGenerator:
    """Learns by heart where sixty epochs allow it, as networks do."""

    def train(scans: NDArray[np.intp], steps: int, seed: int) -> Reconstruct:
        if calls is not None:
            calls.append((len(scans), steps))
        by_heart = steps * BATCH / len(scans) >= 60
        return Learner(material.images[scans], material.labels[scans], by_heart)

    return train


PLAN = AuditPlan(release="weights", seed=7, steps=50, scans_per_step=BATCH, draws=2, blind_permutations=20)


def audit(
    material: AuditMaterial,
    tier: str = "controlled",
    train: Callable[[AuditMaterial], TrainGenerator] = trainer,
    memorise: Callable[[AuditMaterial], TrainGenerator] = memoriser,
    **changes: object,
) -> AuditResult:
    plan = replace(PLAN, **changes)  # type: ignore[arg-type]  # keywords are the plan's
    return run_audit(material, plan, TIERS[tier], train(material), memorise(material))  # type: ignore[index]  # a tier's name


@pytest.fixture(scope="module")
def leaking() -> AuditResult:
    """The audit of a weights release that learnt its members by heart."""
    return audit(replace(make_material(by_heart=True), reference_stands_in="16 public patients"))


@pytest.fixture(scope="module")
def clean() -> AuditResult:
    """The audit of a volumes release that saw no audited patient."""
    return audit(make_material(3, **LARGE), release="volumes")


LARGE = {"member": 130, "holdout": 130}


def control(result: AuditResult, name: str) -> tuple[bool, str]:
    return next((c.ok, c.got) for c in result.evidence.controls if c.id == name)


def test_a_generator_that_learnt_members_by_heart_fails(leaking: AuditResult) -> None:
    result = leaking
    a1 = result.evidence.attacks[0]
    assert (a1.id, a1.auc, a1.rejects) == ("A1", 1.0, True)
    assert result.verdict.outcome == "FAIL"
    assert "A1" in result.verdict.reasons[0]
    assert all(c.ok for c in result.evidence.controls)


def test_its_released_volumes_may_show_nothing_of_that() -> None:
    result = audit(make_material(by_heart=True), release="volumes")
    a3 = result.evidence.attacks[1]
    assert (a3.id, a3.rejects) == ("A3", False)
    assert result.verdict.outcome == "INCONCLUSIVE"  # 30 holdout patients, 50 are asked for
    assert "asks for 50" in result.verdict.reasons[0]


def test_a_generator_that_saw_nobody_passes_where_the_cohort_is_large_enough(clean: AuditResult) -> None:
    result = clean
    assert result.verdict.outcome == "PASS", result.verdict.reasons
    assert {c.id: c.ok for c in result.evidence.controls} == {
        "blind": True,
        "positive-set": True,
        "positive-model": True,
        "negative": True,
    }
    assert result.power.joint_power == pytest.approx(0.998, abs=0.01)


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


def test_members_from_another_scanner_make_the_audit_invalid() -> None:
    material = make_material(by_heart=True)
    brighter = np.array([role == "member" for role in material.roles], np.float32)[:, None, None, None, None]
    result = audit(replace(material, images=material.images + brighter))
    assert not control(result, "blind")[0]
    assert result.verdict.outcome == "INVALID"


def test_members_whose_files_alone_differ_make_the_audit_invalid(tmp_path: Path) -> None:
    """Voxels of 4.02 mm instead of 4 mm: too little for preparation to resample, and written into every header."""
    study, material = tiny_study(), make_material(3)
    cohort = read_cohort(write_tiny_cohort(tmp_path / "cohort", 60))
    fair = prepare(cohort, study, tmp_path / "cache")
    for patient in cohort.patients[:30]:
        for source in patient.scans[0].channels.values():
            voxels, _ = read_volume(source)
            write_volume(source.path, voxels, replace(study.volume_grid(), spacing_mm=(4.02, 4.02, 4.02)))
    biased = prepare(cohort, study, tmp_path / "cache")
    np.testing.assert_array_equal(biased.volumes, fair.volumes)

    def audited(scans: PreparedScans) -> AuditResult:
        header = np.zeros((len(material.images), scans.headers.shape[1]))
        header[:60] = scans.headers  # 30 members, then 30 holdout patients
        return audit(replace(material, header=header), release="volumes")

    assert control(audited(fair), "blind")[0]
    result = audited(biased)
    assert not control(result, "blind")[0]
    assert result.evidence.attacks[-1].auc > 0.95
    assert result.verdict.outcome == "INVALID"


def test_a_control_generator_that_knows_members_makes_the_audit_invalid() -> None:
    def contaminated(material: AuditMaterial) -> TrainGenerator:
        control_patients = set(material.scans_of("control").tolist())

        def train(scans: NDArray[np.intp], steps: int, seed: int) -> Reconstruct:
            if set(scans.tolist()) == control_patients:
                members = material.scans_of("member")
                return Learner(material.images[members], material.labels[members], by_heart=True)
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
        return lambda scans, steps, seed: Learner(material.images[others], material.labels[others], by_heart=False)

    result = audit(make_material(3), "internal", memorise=forgetful, release="volumes")
    assert not control(result, "positive-model")[0]
    assert result.verdict.outcome == "INCONCLUSIVE"
    assert "positive-model" in result.verdict.reasons[0]


def test_the_positive_control_overfits_on_16_members_for_90_epochs() -> None:
    calls: list[tuple[int, int]] = []
    material = make_material()
    by_heart: list[tuple[int, int]] = []
    run_audit(material, PLAN, TIERS["controlled"], trainer(material, calls), memoriser(material, by_heart))
    assert by_heart == [(16, 90 * 16 // BATCH)]
    assert calls == [(12, PLAN.steps)] * 4  # the reference and three negative controls


def test_too_few_members_to_memorise_are_told() -> None:
    result = audit(make_material(member=12))
    assert control(result, "positive-model") == (False, "fewer than 16 members to memorise")


@pytest.mark.parametrize("role", ["member", "holdout", "training", "control", "reference"])
def test_a_copy_of_any_patients_scan_in_the_release_fails(role: Role) -> None:
    material = make_material(3)
    synthetic = material.synthetic.copy()
    synthetic[0] = material.images[material.scans_of(role)[0]]
    assert audit(replace(material, synthetic=synthetic), release="volumes").evidence.confirmed_copies == 1
    if role == "reference":  # public patients may be repeated: their scans are public
        public = replace(material, synthetic=synthetic, reference_stands_in="12 public patients")
        assert audit(public, release="volumes").evidence.confirmed_copies == 0


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


def test_without_control_patients_the_negative_control_is_missing() -> None:
    result = audit(make_material(control=0))
    assert all(c.id != "negative" for c in result.evidence.controls)
    assert "The control 'negative' was not run." in result.verdict.reasons


def test_a_leak_found_at_the_hundred_and_fortieth_attempt_on_one_holdout_is_no_find_and_no_pass(
    leaking: AuditResult,
) -> None:
    late = audit(make_material(by_heart=True), earlier=(None,) * 139)
    assert leaking.evidence.attacks[0].rejects
    a1 = late.evidence.attacks[0]
    assert (a1.rejects, a1.rejects_alone, a1.p_value) == (False, True, leaking.evidence.attacks[0].p_value)
    assert late.evidence.audit_number == 140
    assert any("A1 tells members from strangers in this audit by itself" in r for r in late.verdict.reasons)


def test_a_second_audit_says_what_the_first_showed_and_how_sure_its_claims_are(clean: AuditResult) -> None:
    first = clean.p_values()
    assert first.keys() == {"A1", "A3", "A1/outliers", "A3/outliers"}
    again = audit(make_material(3, **LARGE), release="volumes", earlier=(first, None))
    content = json.loads(again.to_json())
    assert content["audit_number"] == 3
    assert content["earlier_audits"] == [dict(first), None]
    assert content["claim_confidence"] == pytest.approx(1 - 0.05 / 3)
    for late, early in zip(again.evidence.attacks, clean.evidence.attacks, strict=True):
        if late.id == "B0":  # judges the split, which no audit changes
            assert late.upper95 == pytest.approx(early.upper95, abs=0.02)
        else:
            assert late.upper95 > early.upper95
            assert late.upper95 > late.auc_ci[1]
    assert again.power.joint_power is not None
    assert again.power.joint_power < (clean.power.joint_power or 0)
    assert read_audit(again.to_json().encode())[0].verdict == again.verdict.outcome


DIVERGED = TrainingError("a loss is not finite at step 7", expected="finite losses", remedy="Train more gently.")


def diverging(material: AuditMaterial) -> TrainGenerator:
    def train(scans: NDArray[np.intp], steps: int, seed: int) -> Reconstruct:
        raise DIVERGED

    return train


def painting_nan(material: AuditMaterial) -> TrainGenerator:
    return lambda scans, steps, seed: lambda labels, noise: np.full((len(labels), CHANNELS, *GRID), np.nan, np.float32)


@pytest.mark.parametrize("memorise", [diverging, painting_nan])
def test_a_positive_control_that_diverges_does_not_hold_and_stops_nothing(
    memorise: Callable[[AuditMaterial], TrainGenerator],
) -> None:
    result = audit(make_material(3), "internal", memorise=memorise, release="volumes")
    ok, got = control(result, "positive-model")
    assert not ok
    assert got.startswith("its training came to nothing: ")
    assert ("step 7" in got) == (memorise is diverging)
    assert result.verdict.outcome == "INCONCLUSIVE"
    assert result.verdict.reasons[0].startswith("The control 'positive-model' does not reach its mark (its training")


@pytest.mark.parametrize("broken", [diverging, painting_nan])
def test_a_negative_control_that_diverges_shows_nothing_and_is_not_counted(
    broken: Callable[[AuditMaterial], TrainGenerator],
) -> None:
    def once(material: AuditMaterial) -> TrainGenerator:
        tried: list[int] = []

        def train(scans: NDArray[np.intp], steps: int, seed: int) -> Reconstruct:
            if set(scans.tolist()) == set(material.scans_of("control").tolist()):
                tried.append(seed)
                if len(tried) == 1:
                    return broken(material)(scans, steps, seed)
            return trainer(material)(scans, steps, seed)

        return train

    result = audit(make_material(3), "internal", train=once, release="volumes", trainings_at_once=1)
    assert result.evidence.negative_seeds == 2
    assert len(result.negative_runs) == 4
    assert result.verdict.reasons == ("Reduced audit: the negative control trained 2 of 3 generators.",)

    def never(material: AuditMaterial) -> TrainGenerator:
        of_control = set(material.scans_of("control").tolist())
        return lambda scans, steps, seed: (broken if set(scans.tolist()) == of_control else trainer)(material)(
            scans, steps, seed
        )

    without = audit(make_material(3), "internal", train=never, release="volumes")
    assert "The control 'negative' was not run." in without.verdict.reasons


def test_without_a_reference_generator_there_is_no_audit() -> None:
    with pytest.raises(TrainingError, match="not finite at step 7"):
        audit(make_material(), train=diverging)


def test_a_positive_control_says_whether_the_attack_or_the_number_of_patients_is_too_weak() -> None:
    few = audit(make_material(3, holdout=8), "internal", release="volumes")
    assert control(few, "positive-model")[0] is False
    assert control(few, "positive-model")[1].startswith("AUC 1.00, L95 0.6")
    assert control(few, "positive-model")[1].endswith("; so few holdout patients cannot show more")
    assert not any("blind" in reason for reason in few.verdict.reasons if "positive-model" in reason)

    def forgetful(material: AuditMaterial) -> TrainGenerator:
        others = material.scans_of("training")
        return lambda scans, steps, seed: Learner(material.images[others], material.labels[others], by_heart=False)

    weak = audit(make_material(3), "internal", memorise=forgetful, release="volumes")
    assert control(weak, "positive-model")[1].endswith("; the attack misses members: it may be blind")


def test_members_whom_nobody_is_compared_with_are_not_the_ones_to_memorise() -> None:
    material = make_material(3, member=60, holdout=30)
    elsewhere = set(np.array(material.patients)[material.scans_of("member")[:40]].tolist())
    sites = tuple("Z" if p in elsewhere else s for p, s in zip(material.patients, material.sites, strict=True))
    memorised: list[NDArray[np.intp]] = []

    def noting(material: AuditMaterial) -> TrainGenerator:
        def train(scans: NDArray[np.intp], steps: int, seed: int) -> Reconstruct:
            memorised.append(scans)
            return memoriser(material)(scans, steps, seed)

        return train

    result = audit(replace(material, sites=sites), "internal", memorise=noting, release="volumes")
    assert not {material.patients[i] for i in memorised[0]} & elsewhere
    assert control(result, "positive-model")[0]


def isolated(members_of: str, holdout_of: str) -> AuditMaterial:
    """Eight members and seven holdout patients of these sites lie far from everybody: the most isolated quartile."""
    material = make_material(3)

    def of(role: Role, sites: str, number: int) -> NDArray[np.intp]:
        return np.array([i for i in material.scans_of(role) if material.sites[i] in sites][:number])

    far = np.concatenate([of("member", members_of, 8), of("holdout", holdout_of, 7)])
    images = material.images.copy()
    blocks = np.random.default_rng(1).normal(0, 2, (len(far), CHANNELS, 2, 2, 2))
    images[far] += np.kron(blocks, np.ones((1, 1, 4, 4, 4))).astype(np.float32)
    return replace(material, images=images)


def test_a_handful_of_isolated_patients_is_said_to_be_too_small_and_not_scored() -> None:
    # All isolated members at one site, all isolated holdout patients at the other: nobody to compare them with.
    few = audit(isolated("A", "B"), "internal", release="volumes")
    assert [attack.id for attack in few.evidence.attacks] == ["A1", "A3", "B0"]
    assert few.evidence.too_small == ("A1/outliers", "A3/outliers")
    assert few.verdict.outcome == "INCONCLUSIVE"
    assert few.verdict.reasons[0] == (
        "The attack 'A1/outliers' was not scored: too few members or holdout patients are that isolated."
    )
    content = json.loads(few.to_json())
    assert content["too_small"] == ["A1/outliers", "A3/outliers"]
    assert best_verdict(read_audit(few.to_json().encode())[0]) == "INCONCLUSIVE"
    assert "A3/outliers was not scored" in audit_text(content)
    enough = audit(isolated("AB", "AB"), "internal", release="volumes")
    assert [(a.n_member, a.n_holdout) for a in enough.evidence.attacks if a.id == "A3/outliers"] == [(8, 7)]
    assert enough.verdict.outcome == "PASS", enough.verdict.reasons


@pytest.mark.parametrize(("members", "holdout", "scored"), [(5, 5, True), (4, 9, False), (9, 4, False), (1, 1, False)])
def test_a_subgroup_is_scored_from_five_a_side(members: int, holdout: int, scored: bool) -> None:
    side = [True] * members + [False] * holdout
    people = tuple(f"p{i}" for i in range(len(side)))
    attack = AttackScores("A3", "S", people, ("A",) * len(side), np.array(side), np.zeros(len(side)))
    assert (attack.smaller_side() >= SMALLEST_SUBGROUP) == scored
    elsewhere = replace(attack, sites=tuple("A" if member else "B" for member in side))
    assert elsewhere.smaller_side() == 0


BROKEN: dict[str, Callable[[AuditMaterial], AuditMaterial]] = {
    "no reference patients": lambda m: replace(m, roles=tuple("test" if r == "reference" else r for r in m.roles)),
    "no holdout": lambda m: replace(m, roles=tuple("test" if r == "holdout" else r for r in m.roles)),
    "a site too few": lambda m: replace(m, sites=m.sites[1:]),
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
    assert [row["threat_model"] for row in content["attacks"]] == ["G", "S", "G", "S", "none"]
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

    def train(scans: NDArray[np.intp], steps: int, seed: int) -> Reconstruct:
        raise TooEarly

    with pytest.raises(TooEarly):
        run_audit(make_material(), PLAN, TIERS["controlled"], train, train, announce=told.append)
    (told_first,) = told
    assert (told_first.n_member, told_first.n_holdout) == (30, 30)
    assert 0.6 < told_first.smallest_auc < 0.75
    # A1 and A3 bind a weights release; the blind baseline is held to the same limit.
    assert told_first.joint_power == pytest.approx(
        joint_power(30, 30, attacks=3, tau=TIERS["controlled"].auc_upper_max or 0)
    )


def test_the_announcement_says_in_words_whether_a_pass_is_within_reach() -> None:
    few = power_text(power(12, 11, attacks=1, tau=0.6), TIERS["controlled"])
    assert "12 members against 11 holdout patients" in few
    assert "A PASS is out of reach: the controlled tier asks for 50 holdout patients" in few
    many = power_text(power(104, 104, attacks=1, tau=0.6), TIERS["controlled"])
    assert "passes with a probability of at most 80% in the controlled tier" in many


def test_progress_runs_to_its_end() -> None:
    material = make_material()
    told: list[tuple[int, int]] = []
    run_audit(
        material,
        PLAN,
        TIERS["internal"],
        trainer(material),
        memoriser(material),
        lambda stage, done, total: told.append((done, total)),
    )
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    # Reference, memoriser, three negative controls; then attack, blind baseline, controls.
    assert told[-1] == (8, 8)
    assert {total for _, total in told} == {8}
