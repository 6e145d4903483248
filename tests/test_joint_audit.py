"""Several hospitals' audits as one: the figures that their scores would give on one machine, and no score leaves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from site_audits import a_site_audit, changed, drawn, figures, pooled

from fedphantom.privacy.audit.extract import AuditExtract, ControlRow
from fedphantom.privacy.audit.recomputation import best_verdict
from fedphantom.privacy.audit.small_cells import SMALL, travelling
from fedphantom.privacy.intervals import auc_interval, permutation_p_value
from fedphantom.privacy.joint.evidence import joint_audit
from fedphantom.privacy.joint.power import combined_power
from fedphantom.privacy.joint.rows import SiteRow, combined_row
from fedphantom.privacy.multiplicity import claim_confidence
from fedphantom.privacy.policy import TIERS, OverrideReason, ReleasePolicy
from fedphantom.privacy.power import Power, joint_power, power
from fedphantom.privacy.power_words import chance_of_a_pass
from fedphantom.privacy.statistics import auc, pooled_no_false_alarm_p_value

CONTROLLED = TIERS["controlled"]
RESULTS = ["1" * 64, "2" * 64, "3" * 64]


def joint(*sites: AuditExtract, policy: ReleasePolicy = CONTROLLED) -> AuditExtract:
    return joint_audit(sites, policy, RESULTS[: len(sites)])


SIZES = st.lists(st.tuples(st.integers(20, 90), st.integers(20, 90)), min_size=2, max_size=5)


@settings(max_examples=8, deadline=None)
@given(sizes=SIZES, effect=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 999))
def test_the_figures_are_those_of_the_pooled_stratified_audit(
    sizes: list[tuple[int, int]], effect: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    sites = [drawn(rng, member, holdout, effect) for member, holdout in sizes]
    together = combined_row([SiteRow(figures(pooled([site])), 1) for site in sites], 1)
    whole = pooled(sites)
    expected = auc_interval(whole, np.random.default_rng(0))
    assert together.auc == pytest.approx(auc(whole), abs=1e-12)
    assert together.auc_upper95 == pytest.approx(expected.upper95, abs=0.025)
    assert together.auc_lower95 == pytest.approx(expected.lower95, abs=0.025)
    assert together.auc_ci == pytest.approx(expected.ci, abs=0.03)
    p = permutation_p_value(whole, np.random.default_rng(1), 2000)
    assert together.p_value is not None
    assert abs(together.p_value - p) < 0.06
    assert (together.n_member, together.n_holdout) == (whole.n_member, whole.n_holdout)


def test_null_figures_cover_and_reject_as_often_as_they_say() -> None:
    rng, missed, rejected = np.random.default_rng(3), 0, 0
    for trial in range(60):
        drawn_here = [pooled([drawn(rng, 40, 40)]) for _ in range(3)]
        rows = [SiteRow(figures(one, seed=trial, replicates=300), 1) for one in drawn_here]
        row = combined_row(rows, 1)
        missed += (row.auc_upper95 or 0.0) < 0.5
        rejected += (row.p_value or 1.0) <= 0.05
    assert missed <= 8  # 5 % of 60 and three standard errors
    assert rejected <= 8


def test_a_leak_too_small_for_each_site_is_found_over_all() -> None:
    rng = np.random.default_rng(5)
    rows = (figures(pooled([drawn(rng, 60, 60, 0.4)])) for _ in range(40))
    sites = [row for row in rows if 0.01 < (row.p_value or 0) < 0.04][:3]
    alone = [joint(changed(a_site_audit(), "A3", **row.model_dump(exclude={"id"}))) for row in sites]
    assert [one.verdict for one in alone] == ["INCONCLUSIVE"] * 3
    audits = [changed(a_site_audit(), "A3", **row.model_dump(exclude={"id"})) for row in sites]
    found = joint(*audits)
    assert found.verdict == "FAIL"
    assert "Attack A3 tells members from strangers" in found.reasons[0]


# What it can show, told before it is decided.


def asking(name: str, member: int, holdout: int) -> AuditExtract:
    """A site's audit by one attack alone."""
    site = a_site_audit(member, holdout, outliers=member // 4)
    return site.model_copy(update={"attacks": tuple(row for row in site.attacks if row.id == name)})


def told(*sites: AuditExtract, policy: ReleasePolicy = CONTROLLED) -> Power:
    found = combined_power(sites, policy)
    assert found is not None
    return found


def test_one_audit_combined_can_show_what_it_can_show_alone() -> None:
    site = a_site_audit(200, 200, outliers=50)
    attacks = 1 + sum(row.threat_model == "S" and "/" not in row.id and row.id != "A9" for row in site.attacks)
    alone = power(200, 200, attacks, CONTROLLED.auc_upper_max, outlier_tau=CONTROLLED.outlier_auc_upper_max)
    assert vars(told(site)) == pytest.approx(vars(alone), abs=6e-4)


def test_the_chance_of_a_pass_is_that_of_the_combination_and_not_of_its_patients_in_one_heap() -> None:
    """A hundred against twenty-five at one hospital, the other way round at the other: much less than 125 a side."""
    rng, passed, trials = np.random.default_rng(7), 0, 150
    sizes, tau = [(100, 25), (25, 100)], 0.6
    for trial in range(trials):
        here = [pooled([drawn(rng, *size)]) for size in sizes]
        row = combined_row([SiteRow(figures(one, seed=trial, replicates=300), 1) for one in here], 1)
        passed += (row.auc_upper95 or 1.0) <= tau
    chance = told(*(asking("A3", *size) for size in sizes), policy=replace(CONTROLLED, auc_upper_max=tau)).joint_power
    heap = joint_power(125, 125, 1, tau)
    assert chance is not None
    assert chance == pytest.approx(passed / trials, abs=0.08)  # two standard errors
    assert heap > chance + 0.08


def test_of_isolated_quartiles_that_are_told_rounded_the_chance_is_that_of_what_is_told() -> None:
    rng, passed, trials = np.random.default_rng(8), 0, 300
    sites = [asking("A3/outliers", 40, 40)] * 2
    for trial in range(trials):
        here = [pooled([drawn(rng, 10, 10)]) for _ in sites]
        shared = [
            travelling(site.model_copy(update={"attacks": (figures(one, "A3/outliers", seed=trial, replicates=300),)}))
            for site, one in zip(sites, here, strict=True)
        ]
        row = combined_row([SiteRow(one.attacks[0], 1) for one in shared], 1)
        passed += (row.auc_upper95 or 1.0) <= (CONTROLLED.outlier_auc_upper_max or 0.0)
    assert told(*sites).joint_power == pytest.approx(passed / trials, abs=0.04)


def test_more_hospitals_and_larger_ones_find_smaller_leaks_and_pass_more_often() -> None:
    site = a_site_audit(60, 60, outliers=15)
    one, three, larger = told(site), told(site, site, site), told(*[a_site_audit(120, 120, outliers=30)] * 3)
    assert one.smallest_auc > three.smallest_auc > larger.smallest_auc
    assert (one.joint_power or 0) < (three.joint_power or 0) < (larger.joint_power or 0)
    assert (three.n_member, three.n_holdout) == (180, 180)
    third = site.model_copy(update={"audit_number": 3, "earlier_audits": (None, None)})
    assert (told(site, third, site).joint_power or 0) < (three.joint_power or 0), "each further audit asks for more"


def test_no_pass_is_promised_where_a_hospital_tells_of_too_few_or_all_together_are_too_few() -> None:
    good, small = a_site_audit(120, 120, outliers=30), a_site_audit(60, 12, outliers=5)
    with_small = told(good, small)
    assert (with_small.n_member, with_small.joint_power) == (120, 0.0)
    assert "out of reach of audits of these sizes" in chance_of_a_pass(with_small, "controlled", 50)
    assert combined_power([small], CONTROLLED) is None
    few = chance_of_a_pass(told(a_site_audit(20, 20, outliers=5), a_site_audit(20, 20, outliers=5)), "controlled", 50)
    assert few.startswith("A PASS is out of reach: the controlled tier asks for 50 holdout patients.")


# The verdict.


def test_sites_that_are_each_too_small_pass_together_by_the_sum_of_their_patients() -> None:
    each = a_site_audit(40, 40, outliers=20)
    assert "40 holdout patients; the controlled tier asks for 50." in joint_reasons(each)
    found = joint(each, each, each)
    assert (found.verdict, found.counts["holdout"], found.counts["member"]) == ("PASS", 120, 120)
    assert best_verdict(found) == "PASS"
    assert best_verdict(travelling(found)) == "PASS"
    assert found.combined_from == tuple(RESULTS)


def joint_reasons(site: AuditExtract) -> tuple[str, ...]:
    return joint(site).reasons


def test_small_groups_of_outliers_that_travel_without_their_counts_pass_together_too() -> None:
    each = a_site_audit(60, 60, outliers=15)
    assert next(row.n_member for row in each.attacks if row.id == "A3/outliers") == SMALL
    found = joint(each, each, each, policy=_lenient())
    assert found.verdict == "PASS", found.reasons
    assert next(row.n_member for row in found.attacks if row.id == "A3/outliers") == SMALL


def _lenient() -> ReleasePolicy:
    why = OverrideReason("fifteen outliers a site show no more", "the board", "2026-11-20")
    return replace(CONTROLLED, outlier_auc_upper_max=0.85, reasons={"outlier_auc_upper_max": why})


@pytest.mark.parametrize("verdict", ["FAIL", "INVALID"])
def test_what_one_site_found_is_the_verdict_of_all(verdict: str) -> None:
    good = a_site_audit(60, 60, outliers=20)
    bad = good.model_copy(update={"verdict": verdict})
    found = joint(good, bad, good)
    assert found.verdict == verdict
    assert found.reasons[0] == f"The audit of 1 site by itself says {verdict}."
    assert joint(good, bad.model_copy(update={"verdict": "FAIL"}), bad).verdict == "FAIL"


def test_one_copy_at_one_site_is_a_fail_of_all() -> None:
    good = a_site_audit(60, 60, outliers=20)
    copied = good.model_copy(update={"verdict": "FAIL", "confirmed_copies": 1})
    found = joint(good, copied)
    assert (found.verdict, found.confirmed_copies) == ("FAIL", 1)
    assert found.reasons[0] == "1 synthetic volume found to repeat a patient's scan."


def test_a_control_that_is_missing_or_weak_at_one_site_is_so_for_all() -> None:
    good = a_site_audit(60, 60, outliers=20)
    without = good.model_copy(update={"controls": good.controls[1:]})
    assert any("was not run" in reason for reason in joint(good, without, good).reasons)
    weak = ControlRow(id="positive-set", required="nine of ten", got="3", ok=False)
    rows = tuple(weak if row.id == "positive-set" else row for row in good.controls)
    found = joint(good, good, good.model_copy(update={"controls": rows}))
    assert found.verdict == "INCONCLUSIVE"
    assert any("'positive-set' does not reach its mark (held at 2 of 3 sites" in reason for reason in found.reasons)
    fewer = good.model_copy(update={"negative_seeds": 1})
    assert any("trained 1 of 3 generators" in reason for reason in joint(good, fewer).reasons)


def test_a_generator_that_is_not_named_at_one_site_is_named_for_none() -> None:
    good = a_site_audit(60, 60, outliers=20)
    found = joint(good, good.model_copy(update={"generator_named_by": None}), good)
    assert found.verdict == "INCONCLUSIVE"
    assert any("No journal at hand names" in reason for reason in found.reasons)


def test_a_site_with_fewer_than_twenty_on_a_side_counts_as_nobody_and_stands_against_a_pass() -> None:
    good, small = a_site_audit(60, 60, outliers=20), a_site_audit(60, 12, outliers=5)
    found = joint(good, good, small)
    assert found.verdict == "INCONCLUSIVE"
    assert found.counts["holdout"] == 120
    assert any("1 site with under twenty members or holdout patients" in reason for reason in found.reasons)


def test_an_attack_that_one_site_lacks_was_not_run_and_one_that_had_nothing_to_ask_there_was() -> None:
    good = a_site_audit(60, 60, outliers=20)
    lacks = good.model_copy(update={"attacks": tuple(row for row in good.attacks if row.id != "A4")})
    assert any("not run: A4" in reason for reason in joint(good, lacks, good).reasons)
    nothing = good.model_copy(
        update={
            "attacks": tuple(row for row in good.attacks if not row.id.startswith("A10")),
            "not_applicable": {"A10": "label maps show no difference"},
        }
    )
    assert joint(good, nothing, good, good).verdict == "PASS"


def test_members_named_without_a_false_alarm_at_two_sites_are_a_find_of_both_together() -> None:
    # Eight of sixty at each: chance does so at one site in 330.
    named = {"tpr": [{"fpr": 0.0, "tpr": 8 / 60, "ci": [0.059, 0.246], "resolvable": True, "fpr_bound": 0.05}]}
    site = changed(a_site_audit(60, 60, outliers=20), "A3", **named, no_false_alarm_p_value=3e-3)
    found = joint(site, site)
    row = next(row for row in found.attacks if row.id == "A3")
    assert row.no_false_alarm_p_value == pytest.approx(pooled_no_false_alarm_p_value(16, [(60, 60), (60, 60)]))
    assert (found.verdict, row.rejects) == ("FAIL", True)
    assert found.reasons[0].startswith("Attack A3 names 13% of the members without one false alarm (p = ")
    untold = joint(site, changed(site, "A3", no_false_alarm_p_value=None))
    assert untold.verdict == "INCONCLUSIVE"


def test_a_find_in_one_sites_audit_by_itself_stands_against_a_pass_of_all() -> None:
    good = a_site_audit(60, 60, outliers=20)
    found = joint(good, good, changed(good, "A3", rejects_alone=True))
    assert found.verdict == "INCONCLUSIVE"
    told = [reason for reason in found.reasons if reason.startswith("Attack A3 tells members from strangers")]
    assert any("in this audit by itself" in reason for reason in told)


def test_the_most_audits_of_a_holdout_count_for_all() -> None:
    good = a_site_audit(60, 60, outliers=20)
    rows = tuple(row.model_copy(update={"auc_upper95": (row.auc_upper95 or 0) + 0.02}) for row in good.attacks)
    third = good.model_copy(
        update={"audit_number": 3, "earlier_audits": (None, None), "claim_confidence": None, "attacks": rows}
    )
    found = joint(good, third)
    assert (found.audit_number, found.earlier_audits) == (3, (None, None))
    assert found.claim_confidence == claim_confidence(3)
    first = next(row for row in joint(good, good).attacks if row.id == "A3")
    assert (next(row for row in found.attacks if row.id == "A3").auc_upper95 or 0) > (first.auc_upper95 or 0)


def test_audits_of_different_things_are_not_combined() -> None:
    good = a_site_audit(60, 60, outliers=20)
    for change, what in (
        ({"generator_sha256": "c" * 64}, "generators"),
        ({"synthetic_sha256": "c" * 64}, "synthetic cohorts"),
        ({"release": "weights"}, "kinds of release"),
        ({"claimed_epsilon": 3.0}, "formal promises"),
    ):
        other = good.model_copy(update=change)
        refused(5, f"audits of different {what}", lambda other=other: joint(good, other))  # type: ignore[misc]
    refused(3, "a policy of the public one", lambda: joint(good, good, policy=TIERS["public"]))
    twice = good.model_copy(update={"attacks": (*good.attacks, good.attacks[0])})
    refused(5, "an attack or a control twice", lambda: joint(good, twice))
    better = a_site_audit(40, 40, outliers=20, verdict="PASS")
    refused(5, "a site's audit that says PASS, but whose figures give", lambda: joint(good, better))
