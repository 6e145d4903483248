"""The gate: which audit lets which release pass."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from officers import OFFICERS, policy_text
from tiny_release import (
    LEAK,
    TRUSTED,
    Releasable,
    a_control,
    an_attack,
    assert_refused,
    in_predicate,
    rows,
    sign_again,
    statement_of,
)

from fedphantom.common.errors import DataError, PolicyRefused, VerificationFailed
from fedphantom.privacy.audit.reading import read_audit
from fedphantom.privacy.evidence import BATTERY, REQUIRED_CONTROLS
from fedphantom.privacy.policy import parse_policy
from fedphantom.privacy.release.pack import verify_release


@pytest.mark.parametrize(
    ("tier", "verdict"),
    [
        ("internal", "FAIL"),
        ("internal", "INVALID"),
        ("controlled", "FAIL"),
        ("controlled", "INVALID"),
        ("controlled", "INCONCLUSIVE"),
        ("public", "INCONCLUSIVE"),
        ("public", "FAIL"),
    ],
)
def test_a_verdict_that_the_tier_does_not_permit_is_refused(releasable: Releasable, tier: str, verdict: str) -> None:
    releasable.write_audit(verdict=verdict, tier=tier)
    with pytest.raises(PolicyRefused, match=verdict) as caught:
        releasable.pack(tier=tier)
    assert caught.value.exit_code == 4
    assert not releasable.release.exists()


WANTED = REQUIRED_CONTROLS["weights"]
EDITED: dict[str, dict[str, Any]] = {
    "a control that is not there": {"controls": [a_control(name) for name in WANTED[1:]]},
    "a control that does not hold": {"controls": [a_control(name, name != "blind") for name in WANTED]},
    "no control": {"controls": []},
    "an attack that is not there": {"attacks": rows()[1:]},
    "an attack that rejects": {"attacks": rows(A3=an_attack("A3", "S", **LEAK))},
    "an attack whose p-value rejects": {"attacks": rows(A3=an_attack("A3", "S", p_value=1e-4))},
    "an attack that names members without a false alarm": {
        "attacks": rows(A3=an_attack("A3", "S", no_false_alarm_p_value=1e-6))
    },
    "an attack that does not tell how often chance does": {
        "attacks": rows(A3=an_attack("A3", "S", no_false_alarm_p_value=None))
    },
    "an attack above the threshold": {"attacks": rows(A3=an_attack("A3", "S", 0.63))},
    "an upper bound below its own AUC": {
        "attacks": rows(A3=an_attack("A3", "S", 0.7, auc_lower95=0.5, auc_upper95=0.6))
    },
    "an attack without its upper bound": {"attacks": rows(A3=an_attack("A3", "S", auc_upper95=None))},
    "thresholds changed without a reason": {
        "policy": {"auc_upper_max": 0.9},
        "attacks": rows(A3=an_attack("A3", "S", 0.63)),
    },
    "a copy": {"confirmed_copies": 1},
    "copies that nobody counted": {"confirmed_copies": None},
    "a copied label map": {"copied_labels": {"released": 1, "member": 0, "holdout": 0}},
    "label maps that nobody searched": {"copied_labels": None},
    "one negative generator": {"negative_seeds": 1},
    "too few patients": {"counts": {"member": 120, "holdout": 30}},
    "no count of patients": {"counts": {}},
    "a tier that asks for a formal promise": {"tier": "public"},
    "an attack that rejects in its own audit alone": {
        "attacks": rows(A3=an_attack("A3", "S", p_value=1e-3)),
        "audit_number": 21,
        "earlier_audits": [{"A1": 0.5, "A3": 0.5}] * 20,
    },
    "earlier audits that are not told": {"audit_number": 3, "earlier_audits": [None]},
    "more earlier audits than there were": {"audit_number": 1, "earlier_audits": [None]},
    "the confidence of a first audit in a second": {
        "audit_number": 2,
        "earlier_audits": [None],
        "claim_confidence": 0.95,
    },
    "the upper bound of a first audit in a later one": {
        "audit_number": 3,
        "earlier_audits": [None, None],
        "attacks": rows(A3=an_attack("A3", "S", 0.62, auc_upper95=0.65)),  # its interval ends at .67
    },
    "fewer patients compared than hold the role": {"attacks": rows(A3=an_attack("A3", "S", n_holdout=30))},
    "an attack that is surely wrong": {"attacks": rows(A3=an_attack("A3", "S", 0.2))},
    "a subgroup that was too small": {
        "attacks": [row for row in rows() if row["id"] != "A3/outliers"],
        "too_small": ["A3/outliers"],
    },
    "few members": {"counts": {"member": 19, "holdout": 120}},
}


@pytest.mark.parametrize("battery", [None, BATTERY - 1, BATTERY + 1])
def test_an_audit_by_other_attacks_is_refused_and_says_so(releasable: Releasable, battery: int | None) -> None:
    releasable.write_audit(battery=battery)
    with pytest.raises(DataError, match="other attacks than this program's") as caught:
        releasable.pack()
    assert "audit run" in caught.value.remedy
    assert not releasable.release.exists()


@pytest.mark.parametrize("changes", EDITED.values(), ids=EDITED.keys())
def test_a_pass_that_its_own_figures_do_not_bear_out_is_refused(
    releasable: Releasable, changes: dict[str, Any]
) -> None:
    releasable.write_audit(verdict="PASS")
    assert read_audit(releasable.audit.read_bytes())[0].verdict == "PASS"
    releasable.write_audit(**({"verdict": "PASS"} | changes))
    with pytest.raises(VerificationFailed, match="whose figures give") as caught:
        releasable.pack(tier="controlled")
    assert caught.value.exit_code == 5
    assert not releasable.release.exists()


def test_a_pass_at_the_third_audit_of_a_holdout_is_one_if_all_is_told(releasable: Releasable) -> None:
    third = {"audit_number": 3, "earlier_audits": [{"A1": 0.2, "A3": 0.9}, None], "claim_confidence": 1 - 0.05 / 3}
    releasable.write_audit(verdict="PASS", attacks=rows(A3=an_attack("A3", "S", 0.5, auc_upper95=0.6)), **third)
    assert releasable.pack(tier="controlled").verdict == "PASS"
    travelled = json.loads((releasable.release / "audit.json").read_text())
    assert {key: travelled[key] for key in third} == third


@pytest.mark.parametrize("figure", ["auc", "auc_upper95", "auc_lower95", "p_value", "eps_lower_bound"])
def test_a_figure_that_is_not_a_number_is_none(releasable: Releasable, figure: str) -> None:
    releasable.write_audit(verdict="PASS", attacks=rows(A3=an_attack("A3", "S") | {figure: float("nan")}))
    with pytest.raises(DataError, match="'attacks' cannot be used"):
        read_audit(releasable.audit.read_bytes())


IMPOSSIBLE: dict[str, dict[str, object]] = {
    "an AUC above one": {"auc": 1.7, "auc_ci": [0.4, 1.0]},
    "a bound above one": {"auc_upper95": 1.2},
    "a negative bound": {"auc_ci": [-0.1, 0.6]},
    "a p-value above one": {"p_value": 1.5},
    "a negative epsilon": {"eps_lower_bound": -1.0},
    "a negative number of members": {"n_member": -3},
    "an interval above its figure": {"auc": 0.5, "auc_ci": [0.6, 0.7]},
    "an interval the wrong way round": {"auc": 0.5, "auc_ci": [0.65, 0.35]},
    "bounds the wrong way round": {"auc_lower95": 0.7, "auc_upper95": 0.5},
    "a rate above one": {"tpr": [{"fpr": 0.0, "tpr": 1.4}]},
}


@pytest.mark.parametrize("figures", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_a_figure_that_no_audit_can_give_is_refused(releasable: Releasable, figures: dict[str, object]) -> None:
    releasable.write_audit(attacks=rows(A3=an_attack("A3", "S") | figures))
    with pytest.raises(DataError, match="'attacks' cannot be used"):
        read_audit(releasable.audit.read_bytes())


def test_a_negative_count_is_refused(releasable: Releasable) -> None:
    for key, value in (("counts", {"member": -1, "holdout": 120}), ("confirmed_copies", -1), ("negative_seeds", -1)):
        releasable.write_audit(**{key: value})
        with pytest.raises(DataError, match=f"'{key}' cannot be used"):
            read_audit(releasable.audit.read_bytes())


def test_a_release_tells_no_number_of_patients_under_twenty(releasable: Releasable) -> None:
    small = {"counts": {"member": 14, "holdout": 11, "control": 3, "audited_patients": 25, "sites": 3, "synthetic": 6}}
    few = [row | {"n_member": 14, "n_holdout": 11, "tpr": [{"fpr": 0.0, "tpr": 3 / 14}]} for row in rows()]
    controls = [a_control(name) | {"got": "AUC 1.00, L95 0.76 on 11 patients"} for name in WANTED]
    releasable.write_audit(**small, attacks=few, controls=controls, reasons=["Only 11 holdout patients."])
    releasable.pack()
    audit = json.loads((releasable.release / "audit.json").read_text())
    assert audit["counts"] == {"member": "<20", "holdout": "<20", "control": "<20", "sites": 3, "synthetic": 6}
    for row in audit["attacks"]:
        assert (row["n_member"], row["n_holdout"], row["tpr"]) == ("<20", "<20", None)
    text = json.dumps([audit["controls"], audit["reasons"]])
    assert "11" not in text
    assert "0.76" not in text
    assert "Fewer than 20 holdout patients" in text
    verify_release(releasable.release, TRUSTED)


def test_a_signed_audit_with_small_numbers_in_it_is_refused(volumes_release: Path) -> None:
    path = volumes_release / "audit.json"
    audit = json.loads(path.read_text())
    audit["counts"]["control"] = 3
    path.write_text(json.dumps(audit, indent=2, sort_keys=True) + "\n")
    sign_again(volumes_release)
    assert_refused(volumes_release, "more in it than may travel")


def test_a_threshold_changed_with_a_reason_is_the_threshold(releasable: Releasable) -> None:
    why = {"reason": "the board agreed", "by": "the board", "on": "2026-11-20"}
    policy = {"auc_upper_max": 0.7, "reasons": {"auc_upper_max": why}}
    releasable.write_audit(verdict="PASS", policy=policy, attacks=rows(A3=an_attack("A3", "S", 0.63)))
    with pytest.raises(PolicyRefused, match="INCONCLUSIVE by a site's own policy"):
        releasable.pack(tier="controlled")
    agreed = '[override.auc_upper_max]\nvalue = 0.7\nreason = "the board agreed"\nby = "the board"\non = 2026-11-20\n'
    sites = [parse_policy(policy_text(site, 'tier = "controlled"', agreed)) for site in OFFICERS]
    assert releasable.pack(tier="controlled", policies=sites).verdict == "PASS"
    said = statement_of(releasable.release)["predicate"]
    told = [{"threshold": "auc_upper_max", "value": 0.7, **why}]
    assert [said["audit"]["overrides"], *(site["overrides"] for site in said["approving_sites"])] == [told] * 3
    told_in_words = "`auc_upper_max` = 0.7. the board agreed (the board, 2026-11-20)"
    assert (releasable.release / "README.md").read_text().count(told_in_words) == 3


def test_a_signed_verdict_better_than_its_figures_is_refused(volumes_release: Path) -> None:
    path = volumes_release / "audit.json"
    audit = json.loads(path.read_text())
    path.write_text(json.dumps(audit | {"confirmed_copies": 2}, indent=2, sort_keys=True) + "\n")
    sign_again(volumes_release)
    assert_refused(volumes_release, "whose figures give FAIL")


def test_volumes_other_than_those_audited_are_not_packed(releasable: Releasable) -> None:
    """One scan planted after the audit, clean in every other way."""
    first, second = releasable.scans()
    first.write_bytes(second.read_bytes())
    with pytest.raises(VerificationFailed, match="another synthetic cohort") as caught:
        releasable.pack()
    assert caught.value.exit_code == 5
    releasable.write_audit(synthetic_sha256=None)
    with pytest.raises(VerificationFailed, match="another synthetic cohort"):
        releasable.pack()
    releasable.write_audit()
    releasable.pack()


def test_a_cohort_with_fewer_volumes_than_audited_is_not_packed(releasable: Releasable) -> None:
    removed = releasable.scans()[1].parents[1]
    shutil.rmtree(removed)
    table = releasable.synthetic / "participants.tsv"
    table.write_text(table.read_text().replace(f"{removed.name}\tn/a\n", ""))
    with pytest.raises(VerificationFailed, match="another synthetic cohort"):
        releasable.pack()


def test_signed_volumes_other_than_those_audited_are_refused(volumes_release: Path) -> None:
    first, second = sorted((volumes_release / "cohort").glob("sub-*/anat/*_T1w.nii.gz"))[:2]
    first.write_bytes(second.read_bytes())
    sign_again(volumes_release)
    assert_refused(volumes_release, "other than those that were audited")


def test_weights_do_not_ask_for_the_audited_volumes(releasable: Releasable) -> None:
    releasable.write_audit(synthetic_sha256=None)
    assert releasable.pack(kind="weights").kind == "weights"


def test_a_pass_by_laxer_thresholds_does_not_open_a_stricter_tier(releasable: Releasable) -> None:
    releasable.write_audit(verdict="PASS", tier="controlled")
    with pytest.raises(PolicyRefused, match="tier 'controlled'"):
        releasable.pack(tier="public")


def test_an_audit_of_volumes_does_not_release_weights(releasable: Releasable) -> None:
    releasable.write_audit(release="volumes")
    with pytest.raises(PolicyRefused, match="audit for volumes"):
        releasable.pack(kind="weights")
    assert releasable.pack(kind="volumes").kind == "volumes"


@pytest.mark.parametrize("given", [None, "absent.json"])
def test_no_audit_no_release(releasable: Releasable, given: str | None) -> None:
    with pytest.raises(PolicyRefused, match="no audit") as caught:
        releasable.pack(audit=releasable.root / given if given else None)
    assert caught.value.exit_code == 4


def test_the_audit_of_another_generator_is_refused(releasable: Releasable) -> None:
    releasable.write_audit(generator_sha256="0" * 64)
    with pytest.raises(VerificationFailed, match="another generator") as caught:
        releasable.pack()
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("content", ["", "[]", '{"verdict": "PASS"}', '{"verdict": "FINE"}'])
def test_a_file_that_is_no_audit_is_bad_input(releasable: Releasable, content: str) -> None:
    releasable.audit.write_text(content)
    with pytest.raises(DataError) as caught:
        releasable.pack()
    assert caught.value.exit_code == 3


def test_weights_with_hidden_bytes_are_refused(releasable: Releasable, weights_release: Path) -> None:
    path = weights_release / "generator.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["note"] = "DOE^JANE"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    audit = json.loads((weights_release / "audit.json").read_text()) | {"generator_sha256": digest}
    (weights_release / "audit.json").write_text(json.dumps(audit, indent=2, sort_keys=True) + "\n")
    sign_again(weights_release, in_predicate(generator_sha256=digest))
    assert_refused(weights_release, "written by another program|README")
    releasable.write_audit(generator_sha256=digest)
    releasable.generator.write_bytes(path.read_bytes())
    with pytest.raises(VerificationFailed, match="written by another program"):
        releasable.pack(kind="weights")
