"""What of an audit leaves its site about fewer than twenty patients: no number, and nothing that gives one away."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_release import NO_TROUBLE, TRIED, a_control, an_attack

from fedphantom.privacy.audit.extract import AuditExtract
from fedphantom.privacy.audit.reading import read_audit
from fedphantom.privacy.audit.recomputation import best_verdict
from fedphantom.privacy.audit.small_cells import NOT_TOLD, travelling
from fedphantom.privacy.evidence import BATTERY, OUTLIERS, REQUIRED_CONTROLS
from fedphantom.privacy.statistics import clopper_pearson

MODELS = {name: model for name, model in TRIED.items() if model != "W"}


def an_extract(
    member: int = 60, holdout: int = 60, outliers: tuple[int, int] = (14, 16), **changes: Any
) -> dict[str, Any]:
    sizes = {name: outliers if name.endswith(OUTLIERS) else (member, holdout) for name in MODELS}
    return {
        "battery": BATTERY,
        "verdict": "INCONCLUSIVE",
        "tier": "controlled",
        "release": "volumes",
        "generator_sha256": "a" * 64,
        "attacks": [an_attack(n, m, n_member=sizes[n][0], n_holdout=sizes[n][1]) for n, m in MODELS.items()],
        "controls": [a_control(name) for name in REQUIRED_CONTROLS["volumes"]],
        "counts": {
            "reference": 16,
            "control": 0,
            "member": member,
            "holdout": holdout,
            "training": 40,
            "audited_patients": member + holdout,
            "audited_scans": 2 * (member + holdout),
            "sites": 3,
            "synthetic": 12,
        },
        **NO_TROUBLE,
        "generator_named_by": "the coordinator's journal",
        "epsilon_means": {
            "kind": "lower bound",
            "delta": 1 / 1000,
            "unit": "patient",
            "adjacency": "add or remove one",
        },
        "reasons": ["As the audit gave them."],
    } | changes


def told(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(travelling(AuditExtract.model_validate(an_extract(**changes))).encode())
    return content


def row(content: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in content["attacks"] if row["id"] == name)


def numbers_of_patients(content: dict[str, Any]) -> list[int]:
    """Every whole number that counts patients."""
    counted = [n for name, n in content["counts"].items() if name not in ("sites", "synthetic")]
    counted += [row[side] for row in content["attacks"] for side in ("n_member", "n_holdout")]
    return [n for n in counted if isinstance(n, int)]


def test_counts_under_twenty_are_told_as_such_whoever_they_count() -> None:
    counts = told(holdout=19)["counts"]
    assert counts == {
        "reference": "<20",
        "control": "<20",
        "member": 60,
        "holdout": "<20",
        "training": 40,
        "sites": 3,
        "synthetic": 12,
    }  # and no total from which 60 could be taken away
    assert told(holdout=20)["counts"]["audited_patients"] == 80


def test_groups_large_enough_are_told_to_the_last_digit() -> None:
    content, before = told(outliers=(20, 22)), an_extract(outliers=(20, 22))
    assert content["reasons"] == before["reasons"]
    for name in MODELS:
        assert row(content, name).items() >= json.loads(json.dumps(row(before, name))).items()
    assert content["controls"] == before["controls"]


def test_a_small_subgroup_is_told_roughly_and_the_rest_exactly() -> None:
    content = told(outliers=(14, 22))
    small = row(content, "A3/outliers")
    assert (small["n_member"], small["n_holdout"]) == ("<20", None)
    assert (small["auc"], small["auc_ci"], small["auc_lower95"], small["auc_upper95"]) == (0.5, [0.45, 0.6], 0.45, 0.6)
    assert (small["tpr"], small["eps_lower_bound"], small["p_value"]) == (None, 0.0, 0.4)
    whole = row(content, "A3")
    assert (whole["n_member"], whole["auc"], whole["tpr"][0]["tpr"]) == (60, 0.52, 0.0)
    assert content["controls"][0]["got"] == "0.51"


def test_members_named_without_a_false_alarm_are_not_counted_by_their_p_value() -> None:
    """Two of seventeen have p = 17 · 16 / (77 · 76)."""
    earlier = [{"A3": 0.421, "A3/no-false-alarm": 17 * 16 / (77 * 76)}]
    content = told(member=17, audit_number=2, earlier_audits=earlier)
    assert row(content, "A3")["no_false_alarm_p_value"] is None
    assert content["earlier_audits"] == [{"A3": 0.45, "A3/no-false-alarm": 1.0}], "counted, as if it had found nothing"
    whole = told(audit_number=2, earlier_audits=earlier)
    assert row(whole, "A3")["no_false_alarm_p_value"] == 1.0
    assert whole["earlier_audits"] == earlier


def test_what_controls_showed_of_a_handful_stays_and_whether_they_held_goes() -> None:
    content = told(holdout=12)
    assert [(c["id"], c["got"], c["ok"]) for c in content["controls"]] == [
        (n, NOT_TOLD, True) for n in REQUIRED_CONTROLS["volumes"]
    ]
    assert content["reasons"][0] == "Fewer than 20 holdout patients: no attack statistic means anything."
    assert not any("was not run" in reason for reason in content["reasons"])


def test_reasons_that_cannot_be_given_again_are_not_given() -> None:
    assert told(holdout=12, verdict="FAIL")["reasons"] == [
        "The reasons stay at the site: they tell of fewer than 20 patients."
    ]


@settings(max_examples=200, deadline=None)
@given(
    member=st.integers(0, 60),
    holdout=st.integers(0, 60),
    outliers=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    auc=st.floats(0, 1),
    margins=st.tuples(st.floats(0, 0.3), st.floats(0, 0.3)),
    p=st.floats(1e-4, 1),
    epsilon=st.floats(0, 2),
    others=st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)),
)
def test_nothing_under_twenty_leaves_and_what_left_once_leaves_unchanged_again(
    member: int,
    holdout: int,
    outliers: tuple[int, int],
    auc: float,
    margins: tuple[float, float],
    p: float,
    epsilon: float,
    others: tuple[int, int, int],
) -> None:
    content = an_extract(member, holdout, outliers)
    low, high = max(0.0, auc - margins[0]), min(1.0, auc + margins[1])
    for attack in content["attacks"]:
        attack |= {"auc": auc, "auc_ci": [low, high], "auc_lower95": low, "auc_upper95": high}
        attack |= {"p_value": p, "eps_lower_bound": epsilon}
    content["counts"] |= dict(zip(("training", "reference", "control"), others, strict=True))
    content["epsilon_means"]["delta"] = 1 / (10 * max(1, member + others[0]))
    extract = AuditExtract.model_validate(content)
    once = travelling(extract)
    assert travelling(once) == once
    assert all(n >= 20 for n in numbers_of_patients(json.loads(once.encode())))
    for before, after in zip(extract.attacks, once.attacks, strict=True):
        assert after.auc_lower95 is not None
        assert after.auc_upper95 is not None
        assert after.auc_lower95 <= low + 1e-6
        assert after.auc_upper95 >= high - 1e-6
        assert (after.p_value or 0) >= p - 1e-6
        assert after.auc is not None
        assert abs(after.auc - (before.auc or 0)) <= 0.025 + 1e-6
    if member + others[0] and (member < 20 or others[0] < 20):
        assert once.epsilon_means is not None
        shown = once.epsilon_means.delta
        assert 0 < shown <= 1 / (10 * (member + others[0])) + 1e-12


@settings(max_examples=200, deadline=None)
@given(
    upper=st.floats(0.5, 0.75),
    end=st.floats(0.5, 0.75),
    auc=st.floats(0.4, 0.75),
    tau=st.sampled_from([0.7, 0.75, 0.713, 0.749]),
    number=st.integers(1, 4),
)
def test_a_pass_is_still_a_pass_by_what_travels_of_it(
    upper: float, end: float, auc: float, tau: float, number: int
) -> None:
    content = an_extract(verdict="PASS", audit_number=number, earlier_audits=[None] * (number - 1))
    why = {"reason": "as the board agreed", "by": "the board", "on": "2026-11-20"}
    content["policy"] = {"outlier_auc_upper_max": tau, "reasons": {"outlier_auc_upper_max": why}}
    for attack in content["attacks"]:
        if "/" in attack["id"]:
            attack |= {"auc": auc, "auc_ci": [0.3, max(end, auc)], "auc_lower95": 0.35, "auc_upper95": upper}
    extract = AuditExtract.model_validate(content)
    assert best_verdict(travelling(extract)) == best_verdict(extract)


def test_a_release_says_the_same_of_its_audit_as_the_file_it_was_packed_from() -> None:
    leak = {"auc": 0.98, "rejects": True, "p_value": 1e-4, "n_member": 14, "n_holdout": 16}
    content = an_extract(outliers=(14, 16))
    content["attacks"][2] = an_attack("A1/outliers", "G", **leak)
    extract, claim = read_audit(json.dumps(content).encode())
    _, again = read_audit(travelling(extract).encode())
    assert again.finding == claim.finding
    assert "A1/outliers (AUC 1.00) did" in claim.finding


def closed_forms(n: int) -> dict[str, Any]:
    """A row of perfect order between n and n patients: each of its figures is a formula of n alone."""
    return an_attack(
        "A3/outliers",
        "S",
        1.0,
        auc_ci=[clopper_pearson(n, n, 0.95)[0], 1.0],
        auc_lower95=clopper_pearson(n, n, 0.90)[0],
        auc_upper95=1.0,
        p_value=max(1e-4, 1 / math.comb(2 * n, n)),
        eps_lower_bound=max(0.0, math.log(clopper_pearson(n // 2, n // 2)[0] / (1 - 0.025 ** (1 / (n // 2))))),
        tpr=[{"fpr": 0.0, "tpr": 1.0, "ci": list(clopper_pearson(n, n)), "fpr_bound": 1 - 0.05 ** (1 / n)}],
        n_member=n,
        n_holdout=n,
    )


def test_no_size_can_be_computed_from_the_closed_forms_of_perfect_order() -> None:
    sizes: dict[str, list[int]] = defaultdict(list)
    for n in range(5, 20):
        content = an_extract()
        content["attacks"] = [closed_forms(n)]
        sizes[travelling(AuditExtract.model_validate(content)).attacks[0].model_dump_json()].append(n)
    assert all(len(alike) > 1 for alike in sizes.values()), sizes
