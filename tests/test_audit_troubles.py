"""An audit repeated on one holdout, with controls that diverge, groups that are too small, or files that differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from learners import CHANNELS, GRID, OUTSIDE, TRIED, Learner, audit, control, make_material, memoriser, trainer
from numpy.typing import NDArray
from tiny_cohorts import tiny_study, write_tiny_cohort

from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import PreparedScans, prepare
from fedphantom.common.cohorts.roles import Role
from fedphantom.common.errors import TrainingError
from fedphantom.common.volumes.nifti import read_volume
from fedphantom.common.volumes.nifti_writer import write_volume
from fedphantom.privacy.attacks.interface import AttackScores, Images, Labels, Networks
from fedphantom.privacy.audit.controls import TrainGenerator
from fedphantom.privacy.audit.judging import SMALLEST_SUBGROUP
from fedphantom.privacy.audit.material import AuditMaterial
from fedphantom.privacy.audit.reading import read_audit
from fedphantom.privacy.audit.recomputation import best_verdict
from fedphantom.privacy.audit.report import audit_text
from fedphantom.privacy.audit.result import AuditResult
from fedphantom.privacy.evidence import (
    BLIND,
    OF_COINS,
    OUTLIERS,
    REQUIRED_ATTACKS,
)
from fedphantom.privacy.multiplicity import HYPOTHESES, NO_FALSE_ALARM


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


@pytest.mark.long
def test_a_leak_is_found_at_the_hundred_and_fortieth_attempt_on_one_holdout_too() -> None:
    late = audit(make_material(by_heart=True), earlier=(None,) * 139)
    a1 = late.evidence.attacks[0]
    assert (a1.auc, a1.rejects, a1.rejects_alone) == (1.0, True, True)
    assert a1.p_value < 0.05 / (140 * HYPOTHESES), "ten thousand permutations cannot tell so small a p-value"
    assert (late.evidence.audit_number, late.verdict.outcome) == (140, "FAIL")


def test_a_later_audit_says_what_the_first_showed_and_how_sure_its_claims_are() -> None:
    once = audit(make_material(3), release="volumes")
    first = once.p_values()
    assert first.keys() == {*TRIED, *(name + NO_FALSE_ALARM for name in OUTSIDE)}
    assert first.keys() >= set(REQUIRED_ATTACKS["volumes"]) - {BLIND}
    again = audit(make_material(3), release="volumes", earlier=(first, None))
    content = json.loads(again.to_json())
    assert content["audit_number"] == 3
    assert content["earlier_audits"] == [dict(first), None]
    assert content["claim_confidence"] == pytest.approx(1 - 0.05 / 3)
    for late, early in zip(again.evidence.attacks, once.evidence.attacks, strict=True):
        if late.id == "B0":  # judges the split, which no audit changes
            assert late.upper95 < late.auc_ci[1]
        else:
            assert late.upper95 >= late.auc_ci[1]
            assert late.upper95 > early.upper95 or early.upper95 == 1
    assert again.power.joint_power is not None
    assert again.power.joint_power < (once.power.joint_power or 0)
    assert read_audit(again.to_json().encode())[0].verdict == again.verdict.outcome


DIVERGED = TrainingError("a loss is not finite at step 7", expected="finite losses", remedy="Train more gently.")


def diverging(material: AuditMaterial) -> TrainGenerator:
    def train(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
        raise DIVERGED

    return train


def painting_nan(material: AuditMaterial) -> TrainGenerator:
    def nothing(labels: Labels, noise_seed: int) -> Images:
        return np.full((len(labels), CHANNELS, *GRID), np.nan, np.float32)

    return lambda scans, steps, seed: Networks(nothing)


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


@pytest.mark.parametrize("broken", [diverging, pytest.param(painting_nan, marks=pytest.mark.long)])
def test_a_negative_control_that_diverges_shows_nothing_and_is_not_counted(
    broken: Callable[[AuditMaterial], TrainGenerator],
) -> None:
    def once(material: AuditMaterial) -> TrainGenerator:
        tried: list[int] = []

        def train(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
            if set(scans.tolist()) == set(material.scans_of("control").tolist()):
                tried.append(seed)
                if len(tried) == 1:
                    return broken(material)(scans, steps, seed)
            return trainer(material)(scans, steps, seed)

        return train

    result = audit(make_material(3), "internal", train=once, release="volumes", trainings_at_once=1)
    assert result.evidence.negative_seeds == 2
    assert len(result.negative_runs) == 2 * (len(OUTSIDE) - 1), "A7 looks at the released set alone"
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
        learner = Learner(material.images[others], material.labels[others], by_heart=False)
        return lambda scans, steps, seed: Networks(learner)

    weak = audit(make_material(3), "internal", memorise=forgetful, release="volumes")
    assert control(weak, "positive-model")[1].endswith("; the attack misses members: it may be blind")


def test_members_whom_nobody_is_compared_with_are_not_the_ones_to_memorise() -> None:
    material = make_material(3, member=60, holdout=30)
    elsewhere = set(np.array(material.patients)[material.scans_of("member")[:40]].tolist())
    sites = tuple("Z" if p in elsewhere else s for p, s in zip(material.patients, material.sites, strict=True))
    memorised: list[NDArray[np.intp]] = []

    def noting(material: AuditMaterial) -> TrainGenerator:
        def train(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
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
    assert [attack.id for attack in few.evidence.attacks] == [*OUTSIDE, BLIND]
    assert few.evidence.too_small == tuple(name + OUTLIERS for name in OUTSIDE if name not in OF_COINS)
    assert few.verdict.outcome == "INCONCLUSIVE"
    assert few.verdict.reasons[0] == (
        f"Not scored, since too few members or holdout patients are that isolated: {', '.join(few.evidence.too_small)}."
    )
    content = json.loads(few.to_json())
    assert content["too_small"] == list(few.evidence.too_small)
    assert best_verdict(read_audit(few.to_json().encode())[0]) == "INCONCLUSIVE"
    assert "too few patients are that isolated" in audit_text(content)
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


def test_each_attack_is_shown_at_each_site_and_no_site_s_name_leaves_in_an_extract() -> None:
    material = make_material(3, by_heart=True)
    names = {"A": "north-clinic", "B": "south-clinic"}
    material = replace(material, sites=tuple(names[s] for s in material.sites))
    result = audit(material, "internal", release="volumes")
    assert [(f.attack, f.site) for f in result.by_site] == [(a, s) for a in OUTSIDE for s in sorted(names.values())]
    assert {(f.n_member, f.n_holdout) for f in result.by_site} == {(15, 15)}
    assert all(f.auc == 1.0 for f in result.by_site if f.attack == "A1")
    assert all(f.auc_ci[0] <= f.auc <= f.auc_ci[1] for f in result.by_site)
    text = result.to_json()
    assert "north-clinic" in text
    assert "north-clinic" in audit_text(json.loads(text))
    extract, _ = read_audit(text.encode())
    assert "clinic" not in extract.encode().decode()


def test_a_site_with_too_few_on_one_side_shows_no_figure_of_its_own() -> None:
    material = make_material(3)
    lonely = set(np.array(material.patients)[material.scans_of("holdout")[:4]].tolist())
    lonely |= set(np.array(material.patients)[material.scans_of("member")[:9]].tolist())
    sites = tuple("Z" if p in lonely else s for p, s in zip(material.patients, material.sites, strict=True))
    assert {f.site for f in audit(replace(material, sites=sites), release="volumes").by_site} == {"A", "B"}
