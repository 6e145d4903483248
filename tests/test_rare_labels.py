"""Structures that few training patients carry: found where the scans lie, refused by tier, told to nobody by number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from officers import policy_text
from tiny_cohorts import tiny_study
from tiny_release import (
    TRUSTED,
    Releasable,
    assert_refused,
    in_predicate,
    sign_again,
    statement_of,
)

from fedphantom.common.cohorts.preparation import PreparedScans
from fedphantom.common.errors import ConfigError, DataError, PolicyRefused
from fedphantom.common.site_folder import site_folders, site_material
from fedphantom.privacy.policy import SitePolicy, Tier, parse_policy
from fedphantom.privacy.release.label_carriers import (
    LabelCarriers,
    count_label_carriers,
    fewest_carriers,
    refuse_rare_labels,
)
from fedphantom.privacy.release.pack import verify_release

STUDY = tiny_study()
NAMES = tuple(name for name in STUDY.labels if name != "background")
WHY = 'reason = "the ethics board agreed"\nby = "the board"\non = 2026-11-20\n'


def scans(patients: list[str], shown: list[set[str]]) -> PreparedScans:
    """Scans of these patients, with a voxel of each of these structures."""
    classes = np.zeros((len(patients), 2, 2, 2), np.uint8)
    for row, names in enumerate(shown):
        for voxel, name in enumerate(sorted(names)):
            classes[row].flat[voxel] = STUDY.label_values.index(STUDY.labels[name])
    n = len(patients)
    return PreparedScans(
        np.zeros((n, 1, 2, 2, 2), np.float32), classes, tuple(patients), ("",) * n, np.zeros((n, 1), np.float64)
    )


def by(tier: str, fewest: int | None = None) -> list[SitePolicy]:
    changed = "" if fewest is None else f"[override.label_carriers_min]\nvalue = {fewest}\n{WHY}"
    return [parse_policy(f'tier = "{tier}"\n{changed}')]


# Counting


def test_a_patient_counts_once_however_many_scans_show_a_structure() -> None:
    first, second = NAMES[:2]
    found = LabelCarriers.of(scans(["a", "a", "b"], [{first}, {first, second}, set()]), STUDY)
    assert (found.patients[first], found.patients[second]) == (1, 1)
    assert "background" not in found.patients


@given(st.lists(st.tuples(st.integers(0, 5), st.sets(st.sampled_from(NAMES))), max_size=12))
def test_every_structure_is_counted_over_the_patients_who_show_it_in_any_scan(
    rows: list[tuple[int, set[str]]],
) -> None:
    found = LabelCarriers.of(scans([str(p) for p, _ in rows], [names for _, names in rows]), STUDY)
    assert dict(found.patients) == {name: len({p for p, names in rows if name in names}) for name in NAMES}


def test_only_patients_who_trained_are_counted_and_those_of_every_site(simulated: Path) -> None:
    run = simulated / "run"
    study = site_folders(run)[0].study()
    trained = 0
    for folder in site_folders(run):
        material = site_material(folder, study)
        trained += len(material.coins.training_patients())
        assert len(material.coins.training_patients()) < len(material.cohort.patients)
    # Every procedural patient has every structure, but for those that so coarse a grid loses.
    found = count_label_carriers(run, study).patients
    assert set(found.values()) <= {0, trained}
    assert {found[name] for name in ("csf", "grey", "white", "oedema")} == {trained}


def test_a_site_whose_roles_were_never_drawn_is_refused_and_none_are_drawn(spoilt: Path) -> None:
    coins = spoilt / "run" / "sites" / "site-b" / "coins.json"
    coins.unlink()
    with pytest.raises(DataError, match="without its coin record"):
        count_label_carriers(spoilt / "run", site_folders(spoilt / "run")[0].study())
    assert not coins.exists()


# What each tier permits


@pytest.mark.parametrize(
    ("tier", "override", "permitted"),
    [
        ("internal", None, {0, 1, 2, 3, 9, 10}),
        ("internal", 3, {0, 3, 9, 10}),
        ("controlled", None, {0, 10}),
        ("controlled", 9, {0, 9, 10}),
        ("controlled", 3, {0, 3, 9, 10}),
        ("controlled", 1, {0, 1, 2, 3, 9, 10}),
        ("public", None, {0, 10}),
        ("public", 9, {0, 9, 10}),
        ("public", 3, {0, 3, 9, 10}),
    ],
)
def test_so_few_patients_may_carry_a_structure(tier: Tier, override: int | None, permitted: set[int]) -> None:
    for number in (0, 1, 2, 3, 9, 10):
        carriers = LabelCarriers({"common": 500, "rare": number})
        if number in permitted:
            refuse_rare_labels(carriers, by(tier, override), tier)
            continue
        with pytest.raises(PolicyRefused, match="training patients carry: rare; expected") as refused:
            refuse_rare_labels(carriers, by(tier, override), tier)
        assert refused.value.exit_code == 4


@pytest.mark.parametrize("value", [2, 1, 0])
def test_no_reason_lets_a_structure_of_two_patients_be_published(value: int) -> None:
    with pytest.raises(ConfigError, match="label_carriers_min"):
        by("public", value)
    # A policy that was made otherwise changes nothing: publication has its own bound.
    with pytest.raises(PolicyRefused, match="fewer than 3"):
        refuse_rare_labels(LabelCarriers({"rare": 2}), by("internal", 1), "public")


def test_the_strictest_of_several_policies_counts() -> None:
    assert fewest_carriers([*by("controlled", 3), *by("controlled")], "controlled") == 10
    assert fewest_carriers([*by("controlled", 3), *by("controlled", 2)], "controlled") == 3
    assert fewest_carriers([*by("controlled", 30)], "controlled") == 30
    assert fewest_carriers([], "internal") is None
    assert fewest_carriers([], "public") == 3


def test_a_refusal_says_how_to_merge_and_tells_no_number_of_patients() -> None:
    for number in (4, 7):
        with pytest.raises(PolicyRefused) as refused:
            refuse_rare_labels(LabelCarriers({"cyst": number, "rim": 8, "rest": 40}), by("controlled"), "controlled")
        told = f"{refused.value.found} {refused.value.expected} {refused.value.remedy}"
        assert "cyst, rim" in told
        assert "[remapping]" in told
        assert "[override.label_carriers_min]" in told
        assert not set(told.replace("§5", "").split()) & {str(number), "8", "40"}


# In a release


@pytest.mark.parametrize("kind", ["volumes", "weights"])
def test_a_rare_structure_keeps_both_kinds_of_release_back(releasable: Releasable, kind: str) -> None:
    releasable.write_audit(verdict="PASS")
    with pytest.raises(PolicyRefused, match="fewer than 10 of the training patients carry: tissue"):
        releasable.pack(tier="controlled", kind=kind, carriers=LabelCarriers({"tissue": 9}))
    assert not releasable.release.exists()


def test_beyond_the_study_nothing_is_packed_that_nobody_counted(releasable: Releasable) -> None:
    releasable.write_audit(verdict="PASS")
    with pytest.raises(PolicyRefused, match="nobody counted"):
        releasable.pack(tier="controlled", carriers=None)


def test_a_release_tells_from_which_number_on_and_never_how_many(releasable: Releasable) -> None:
    releasable.write_audit(verdict="PASS")
    texts = []
    for number, out in ((11, "few"), (119, "many")):
        releasable.pack(tier="controlled", carriers=LabelCarriers({"tissue": number}), out=releasable.root / out)
        assert statement_of(releasable.root / out)["predicate"]["label_carriers_min"] == 10
        texts.append((releasable.root / out / "README.md").read_text())
    assert texts[0] == texts[1]
    assert "none is carried by fewer than 10 of the training patients, unless by nobody" in texts[0]


def test_an_internal_release_says_that_nobody_counted(volumes_release: Path) -> None:
    assert statement_of(volumes_release)["predicate"]["label_carriers_min"] is None
    assert "it was not counted how many" in (volumes_release / "README.md").read_text()


def test_an_override_travels_with_its_reason(releasable: Releasable) -> None:
    releasable.write_audit(verdict="PASS")
    changed = [parse_policy(text) for text in (site_policy("site-a", 9), site_policy("site-b", 8))]
    releasable.pack(tier="controlled", policies=changed, carriers=LabelCarriers({"tissue": 9}))
    assert statement_of(releasable.release)["predicate"]["label_carriers_min"] == 9
    text = (releasable.release / "README.md").read_text()
    assert "`label_carriers_min` = 9. the ethics board agreed" in text
    assert verify_release(releasable.release, TRUSTED).tier == "controlled"


def site_policy(site: str, fewest: int) -> str:
    return policy_text(site, 'tier = "controlled"', f"[override.label_carriers_min]\nvalue = {fewest}\n{WHY}")


@pytest.mark.parametrize("told", [None, 1, 9])
def test_a_statement_that_promises_less_than_a_sites_policy_does_not_verify(
    releasable: Releasable, told: int | None
) -> None:
    releasable.write_audit(verdict="PASS")
    releasable.pack(tier="controlled")
    sign_again(releasable.release, in_predicate(label_carriers_min=told))
    assert_refused(releasable.release, "not a statement about a release")
