"""The outcome lattice: FAIL > INVALID > INCONCLUSIVE > PASS."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedphantom.privacy.evidence import (
    ATTACKS,
    CANARY,
    OUTLIERS,
    REQUIRED_ATTACKS,
    REQUIRED_CONTROLS,
    AttackResult,
    AuditEvidence,
    ControlResult,
    required_controls,
)
from fedphantom.privacy.policy import TIERS, ReleasePolicy, Tier, parse_policy
from fedphantom.privacy.statistics import TprAtFpr
from fedphantom.privacy.verdict import decide

CONTROLLED = TIERS["controlled"]
MODELS = {name: ATTACKS.get(name.removesuffix(OUTLIERS), "none") for name in REQUIRED_ATTACKS["weights"]}


def attack(
    name: str,
    auc: float = 0.5,
    half: float = 0.05,
    rejects: bool = False,
    alone: bool = False,
    epsilon: float = 0.0,
    tpr_low: float = 0.0,
    named_p: float | None = 1.0,
) -> AttackResult:
    return AttackResult(
        id=name,
        threat_model=MODELS[name],  # type: ignore[arg-type]  # a table of threat models
        auc=auc,
        auc_ci=(auc - 1.2 * half, auc + 1.2 * half),
        lower95=auc - half,
        upper95=auc + half,
        p_value=1e-4 if rejects else 0.5,
        rejects=rejects,
        rejects_alone=rejects or alone,
        tpr=(TprAtFpr(0.0, tpr_low, (tpr_low, tpr_low + 0.1), True, 0.03),),
        advantage=0.0,
        eps_lower_bound=epsilon,
        n_member=120,
        n_holdout=120,
        no_false_alarm_p_value=named_p,
    )


def control(name: str, ok: bool = True) -> ControlResult:
    return ControlResult(name, "what is needed", "what came", ok)


GOOD = AuditEvidence(
    generator_named_by="the coordinator's journal",
    release="volumes",
    attacks=tuple(attack(name) for name in REQUIRED_ATTACKS["volumes"]),
    controls=tuple(control(name) for name in REQUIRED_CONTROLS["volumes"]),
    n_member=120,
    n_holdout=120,
    negative_seeds=3,
    target_steps=100,
    control_steps=100,
    confirmed_copies=0,
)


WEIGHTS = replace(
    GOOD,
    release="weights",
    attacks=tuple(attack(name) for name in REQUIRED_ATTACKS["weights"]),
    controls=tuple(control(name) for name in REQUIRED_CONTROLS["weights"]),
)


def with_attack(evidence: AuditEvidence, changed: AttackResult) -> AuditEvidence:
    return replace(evidence, attacks=tuple(changed if a.id == changed.id else a for a in evidence.attacks))


def promised(epsilon: float) -> AuditEvidence:
    """Good evidence of a generator with a formal promise, whose canaries proved no more."""
    return replace(GOOD, claimed_epsilon=epsilon, controls=(*GOOD.controls, control(CANARY)))


def with_control(evidence: AuditEvidence, changed: ControlResult) -> AuditEvidence:
    return replace(evidence, controls=tuple(changed if c.id == changed.id else c for c in evidence.controls))


@pytest.mark.parametrize("tier", TIERS.values(), ids=TIERS.keys())
def test_good_evidence_passes_and_is_never_called_anonymous(tier: ReleasePolicy) -> None:
    verdict = decide(promised(2.0), tier)
    assert verdict.outcome == "PASS"
    assert "No attack tested succeeded" in verdict.reasons[0]
    assert "anonym" not in verdict.reasons[0].lower()


@settings(max_examples=80, deadline=None)
@given(
    release=st.sampled_from(["volumes", "weights"]),
    aucs=st.lists(st.floats(0.43, 0.56), min_size=len(MODELS), max_size=len(MODELS)),
    n_holdout=st.integers(104, 500),
    tier=st.sampled_from(list(TIERS.values())),
)
def test_taking_anything_away_from_a_pass_never_leaves_a_pass(
    release: str, aucs: list[float], n_holdout: int, tier: ReleasePolicy
) -> None:
    evidence = replace(
        GOOD,
        release=release,  # type: ignore[arg-type]  # drawn from the literals
        attacks=tuple(attack(n, a, 0.02) for n, a in zip(MODELS, aucs, strict=True)),
        controls=tuple(control(name) for name in required_controls("weights", 3.0)),
        n_holdout=n_holdout,
        claimed_epsilon=3.0,
    )
    assert decide(evidence, tier).outcome == "PASS"
    for name in required_controls(evidence.release, 3.0):
        less = replace(evidence, controls=tuple(c for c in evidence.controls if c.id != name))
        assert decide(less, tier).outcome == "INCONCLUSIVE"
        assert decide(with_control(evidence, control(name, ok=False)), tier).outcome != "PASS"
    for name in REQUIRED_ATTACKS[evidence.release]:
        less = replace(evidence, attacks=tuple(a for a in evidence.attacks if a.id != name))
        assert decide(less, tier).outcome == "INCONCLUSIVE"
    assert decide(replace(evidence, negative_seeds=2), tier).outcome == "INCONCLUSIVE"


LEAK = attack("A3", 0.9, rejects=True)

CASES = {
    # name: (evidence, outcome, words of the first reason)
    "a confirmed copy": (replace(GOOD, confirmed_copies=1), "FAIL", "repeat a patient's scan"),
    "a confirmed copy among ten holdout patients": (
        replace(GOOD, confirmed_copies=1, n_holdout=10),
        "FAIL",
        "repeat a patient's scan",
    ),
    "a confirmed copy and a bad split": (
        with_control(replace(GOOD, confirmed_copies=1), control("blind", ok=False)),
        "FAIL",
        "repeat a patient's scan",
    ),
    "a canary excess": (replace(GOOD, canary_excess=True), "FAIL", "canaries"),
    "more ε shown than promised": (
        with_attack(promised(1.0), attack("A1", epsilon=1.5)),
        "FAIL",
        "implementation is wrong",
    ),
    "less ε shown than promised": (
        with_attack(promised(2.0), attack("A1", epsilon=1.5)),
        "PASS",
        "No attack",
    ),
    "a significant binding attack": (with_attack(GOOD, attack("A3", 0.6, rejects=True)), "FAIL", "tells members"),
    "a binding attack surely above τ": (with_attack(GOOD, attack("A3", 0.71)), "FAIL", "above 0.66"),
    "many members named without a false alarm": (
        with_attack(GOOD, attack("A3", tpr_low=0.06, rejects=True, named_p=1e-6)),
        "FAIL",
        "names 6% of the members without one false alarm (p = 1e-06)",
    ),
    "as many, as chance names them too": (
        with_attack(GOOD, attack("A3", tpr_low=0.06, named_p=0.01)),
        "INCONCLUSIVE",
        "without one false alarm, which chance does too in so many attacks; 5% is allowed",
    ),
    "a significant attack that does not bind": (
        with_attack(GOOD, attack("A1", 0.99, rejects=True)),
        "PASS",
        "No attack that binds for a volumes release succeeded; A1 (AUC 0.99) did: it needs the patients' own",
    ),
    "a significant attack where B0 does not hold": (
        with_control(with_attack(GOOD, LEAK), control("blind", ok=False)),
        "INVALID",
        "without the model",
    ),
    "a significant attack where the negative control does not hold": (
        with_control(with_attack(GOOD, LEAK), control("negative", ok=False)),
        "INVALID",
        "never saw these patients",
    ),
    "a significant attack, but no blind baseline": (
        replace(with_attack(GOOD, LEAK), controls=tuple(c for c in GOOD.controls if c.id != "blind")),
        "INCONCLUSIVE",
        "not run",
    ),
    "a significant attack on ten holdout patients": (
        replace(with_attack(GOOD, LEAK), n_holdout=10),
        "INCONCLUSIVE",
        "Fewer than 20 holdout patients",
    ),
    "controls that break on ten holdout patients": (
        with_control(replace(GOOD, n_holdout=10), control("negative", ok=False)),
        "INCONCLUSIVE",
        "Fewer than 20 holdout patients",
    ),
    "nineteen holdout patients": (replace(GOOD, n_holdout=19), "INCONCLUSIVE", "Fewer than 20 holdout"),
    "too few for the tier": (replace(GOOD, n_holdout=49), "INCONCLUSIVE", "asks for 50"),
    "too few for the tier, with a leak": (
        replace(with_attack(GOOD, LEAK), n_holdout=25),
        "FAIL",
        "tells members",
    ),
    "a weak positive control": (
        with_control(GOOD, control("positive-model", ok=False)),
        "INCONCLUSIVE",
        "does not reach its mark (what came; needed: what is needed)",
    ),
    "planted copies not seen": (
        with_control(GOOD, control("positive-set", ok=False)),
        "INCONCLUSIVE",
        "does not reach its mark",
    ),
    "nineteen members": (replace(GOOD, n_member=19), "INCONCLUSIVE", "Fewer than 20 members"),
    "a subgroup too small to score": (
        replace(GOOD, attacks=tuple(a for a in GOOD.attacks if a.id != "A3/outliers"), too_small=("A3/outliers",)),
        "INCONCLUSIVE",
        "Not scored, since too few members or holdout patients are that isolated: A3/outliers.",
    ),
    "an attack that rejects in its own audit, not over all of them": (
        with_attack(replace(GOOD, audit_number=12), attack("A3", 0.56, alone=True)),
        "INCONCLUSIVE",
        "though not over all 12 audits of this holdout",
    ),
    "a blind baseline at chance that too few patients leave open": (
        with_attack(GOOD, attack("B0", 0.54, half=0.13)),
        "INCONCLUSIVE",
        "The blind baseline could have an AUC up to 0.67 (95 % confidence): too few patients",
    ),
    "a significant attack beside such a blind baseline": (
        with_attack(with_attack(GOOD, LEAK), attack("B0", 0.54, half=0.13)),
        "FAIL",
        "tells members",
    ),
    "an attack that is surely wrong": (
        with_attack(GOOD, attack("A3", 0.25)),
        "INCONCLUSIVE",
        "turned round, it tells them apart",
    ),
    "an upper bound above τ": (with_attack(GOOD, attack("A3", 0.62)), "INCONCLUSIVE", "up to 0.67"),
    "an outlier quartile above its own τ": (
        with_attack(GOOD, attack("A3/outliers", 0.5, 0.3)),
        "INCONCLUSIVE",
        "up to 0.80",
    ),
    "one negative generator": (replace(GOOD, negative_seeds=1), "INCONCLUSIVE", "1 of 3"),
    "controls trained shorter": (replace(GOOD, control_steps=99), "INCONCLUSIVE", "99 steps, the audited one 100"),
    "weights without a control of the attack on weights": (
        replace(WEIGHTS, controls=WEIGHTS.controls[:-1]),
        "INCONCLUSIVE",
        "The control 'positive-white-box' was not run.",
    ),
    "weights that give members up to a search": (
        with_attack(WEIGHTS, attack("A3-WB", 0.9, rejects=True)),
        "FAIL",
        "Attack A3-WB tells members",
    ),
    "volumes of a generator whose weights do": (
        replace(with_attack(WEIGHTS, attack("A3-WB", 0.9, rejects=True)), release="volumes"),
        "PASS",
        "A3-WB (AUC 0.90) did: it needs the generator's weights",
    ),
}


@pytest.mark.parametrize(("evidence", "outcome", "words"), CASES.values(), ids=CASES.keys())
def test_the_lattice_is_the_published_one(evidence: AuditEvidence, outcome: str, words: str) -> None:
    verdict = decide(evidence, CONTROLLED)
    assert verdict.outcome == outcome
    assert words in verdict.reasons[0]


def test_weights_pass_once_they_were_searched_and_else_are_told_how_to_be() -> None:
    assert decide(WEIGHTS, CONTROLLED).outcome == "PASS"
    unsearched = decide(replace(GOOD, release="weights"), CONTROLLED)
    assert unsearched.outcome == "INCONCLUSIVE"
    assert "Attacks that were not run: A3-WB, A3-WB/outliers." in unsearched.reasons
    assert any("threat model W; none was run" in r and "'audit run --white-box'" in r for r in unsearched.reasons)
    assert decide(replace(GOOD, release="volumes"), CONTROLLED).outcome == "PASS"


def test_a_blind_baseline_that_was_not_run_is_told_once() -> None:
    without = replace(
        GOOD,
        attacks=tuple(one for one in GOOD.attacks if one.id != "B0"),
        controls=tuple(one for one in GOOD.controls if one.id != "blind"),
    )
    verdict = decide(without, CONTROLLED)
    assert (verdict.outcome, verdict.reasons) == ("INCONCLUSIVE", ("The control 'blind' was not run.",))
    alone = decide(replace(without, controls=GOOD.controls), CONTROLLED)
    assert (alone.outcome, alone.reasons) == ("INCONCLUSIVE", ("Attacks that were not run: B0.",))


def test_for_weights_the_reconstruction_attack_binds() -> None:
    leaking = with_attack(replace(GOOD, release="weights"), attack("A1", 0.99, rejects=True))
    assert decide(leaking, CONTROLLED).outcome == "FAIL"


def test_inside_the_site_attacks_are_reported_but_copies_still_fail() -> None:
    leaking = with_attack(GOOD, LEAK)
    assert decide(leaking, TIERS["internal"]).outcome == "PASS"
    assert decide(replace(leaking, confirmed_copies=1), TIERS["internal"]).outcome == "FAIL"


def test_a_leak_that_cannot_be_proven_is_still_told() -> None:
    less = replace(with_attack(GOOD, LEAK), controls=tuple(c for c in GOOD.controls if c.id != "negative"))
    assert any(reason.startswith("Unproven") for reason in decide(less, CONTROLLED).reasons)


def test_a_pass_claims_of_its_attacks_only_what_they_showed() -> None:
    """At the internal tier attacks are shown and not judged: then a PASS must not say that none succeeded."""
    beyond = decide(with_attack(GOOD, attack("A1", 0.99, rejects=True)), CONTROLLED).reasons[0]
    assert "No attack tested succeeded" not in beyond
    # Nor where only the number of audits keeps it from being a find.
    often = decide(replace(with_attack(GOOD, attack("A1", 0.6, alone=True)), audit_number=12), CONTROLLED)
    assert (often.outcome, "A1 (AUC 0.60) did" in often.reasons[0]) == ("PASS", True)
    inside = decide(with_attack(GOOD, LEAK), TIERS["internal"])
    assert inside.outcome == "PASS"
    assert inside.reasons[0].startswith("Not judged at this tier: A3 (AUC 0.90) rejects 'no leak'.")
    assert "succeeded" not in inside.reasons[0]
    both = decide(with_attack(with_attack(GOOD, LEAK), attack("A1", 0.99, rejects=True)), TIERS["internal"])
    assert "So does A1 (AUC 0.99)" in both.reasons[0]


def test_the_public_tier_needs_a_formal_promise_or_a_recorded_waiver() -> None:
    public = TIERS["public"]
    assert decide(GOOD, public).outcome == "INCONCLUSIVE"
    assert "formal promise of ε at most 3; this generator has none" in decide(GOOD, public).reasons[0]
    assert decide(promised(3.5), public).outcome == "INCONCLUSIVE"
    assert decide(promised(3.0), public).outcome == "PASS"
    waived = parse_policy(
        'tier = "public"\n[override.formal_epsilon_binds]\nvalue = false\nreason = "expert determination of 3 May"\n'
        'by = "the ethics board"\non = 2026-05-03'
    ).thresholds
    assert decide(GOOD, waived).outcome == "PASS"


@pytest.mark.parametrize("tier", ["controlled", "public"])
def test_no_copy_among_too_few_members_does_not_bound_the_rate_of_copies(tier: Tier) -> None:
    evidence = promised(2.0)
    assert decide(replace(evidence, n_member=32), TIERS[tier]).outcome == "PASS"
    few = decide(replace(evidence, n_member=31), TIERS[tier])
    assert few.outcome == "INCONCLUSIVE"
    assert "None of 31 members was found copied, but a rate of 9.2% is possible (95 % confidence)" in few.reasons[0]


def test_inside_the_study_the_rate_of_copies_is_judged_where_it_can_be() -> None:
    internal = TIERS["internal"]
    assert decide(replace(GOOD, n_member=20), internal).outcome == "PASS"
    strict = replace(internal, linkage_upper_max=0.01)
    assert decide(GOOD, strict).outcome == "INCONCLUSIVE"


def test_a_later_audit_of_a_holdout_claims_with_more_confidence_and_says_so() -> None:
    third = replace(GOOD, audit_number=3)
    told = decide(with_attack(third, attack("A3", 0.62)), CONTROLLED).reasons[0]
    assert "up to 0.67 (98.333 % confidence in audit 3 of this holdout)" in told
    # Of no copies at all: 32 members bound the rate by 9 % once, 44 the third time.
    assert decide(replace(third, n_member=44), CONTROLLED).outcome == "PASS"
    few = decide(replace(third, n_member=43), CONTROLLED)
    assert few.outcome == "INCONCLUSIVE"
    assert "a rate of 9.1% is possible (98.333 % confidence" in few.reasons[0]


@given(n_member=st.integers(0, 40), n_holdout=st.integers(0, 40), copied=st.integers(0, 3), number=st.integers(1, 5))
def test_no_reason_names_a_number_of_patients_under_twenty(
    n_member: int, n_holdout: int, copied: int, number: int
) -> None:
    evidence = replace(
        GOOD, n_member=n_member, n_holdout=n_holdout, copied_members=copied, audit_number=number, attacks=()
    )
    for tier in TIERS.values():
        for reason in decide(evidence, tier).reasons:
            for words in re.findall(r"(\d+) (?:of \d+ )?(?:members|holdout patients)", reason):
                assert int(words) >= 20, reason


def test_a_generator_that_nobodys_journal_names_never_passes() -> None:
    verdict = decide(replace(GOOD, generator_named_by=None), CONTROLLED)
    assert verdict.outcome == "INCONCLUSIVE"
    assert "No journal at hand names this generator" in verdict.reasons[0]
