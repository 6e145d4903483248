"""The audit's verdict: FAIL > INVALID > INCONCLUSIVE > PASS, a pure function of evidence and policy (PRIVACY §4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ..common.counted import counted
from .evidence import (
    ATTACKS,
    BINDING,
    BLIND,
    CANARY,
    OUTLIERS,
    REQUIRED_ATTACKS,
    SMALLEST_CELL,
    WHITE_BOX,
    AttackResult,
    AuditEvidence,
    ControlResult,
    excused,
    required_controls,
)
from .finding import finding
from .multiplicity import claim_confidence
from .policy import ReleasePolicy
from .statistics import clopper_pearson

Outcome = Literal["FAIL", "INVALID", "INCONCLUSIVE", "PASS"]

MIN_HOLDOUT = 20
"""Below this no attack statistic is read, whatever the tier says (PRIVACY §3.4)."""

NEGATIVE_SEEDS = 3
"""Generators a full negative control trains (PRIVACY §4)."""

COPY_RATE = 0.09
"""An audit whose members are so few that no copies at all leave a higher rate possible cannot judge it (PRIVACY §5)."""


_SEARCH_THEM = " Weights can be searched for a patient's scan: 'audit run --white-box' tries that where they paint."


@dataclass(frozen=True)
class Verdict:
    """The outcome and why, in plain words; the outcome's own reasons come first."""

    outcome: Outcome
    reasons: tuple[str, ...]


def decide(evidence: AuditEvidence, policy: ReleasePolicy) -> Verdict:
    """Apply the outcome lattice.

    Below twenty holdout patients attack statistics, and controls that rest on them, give neither FAIL nor
    INVALID. A leak is called FAIL only where B0 and the negative control hold: else a bad split explains it.

    PRIVACY §4 asks of B0 that its interval holds one half and that U95 is at most τ. Only the first speaks of a biased
    split, and its breach is INVALID; the second is a matter of numbers, and its breach INCONCLUSIVE: at the smallest
    holdout of the controlled tier it is breached by half of all fair splits, and would hide a leak that is proven.

    Stricter than PRIVACY §4, INCONCLUSIVE and no PASS: fewer than twenty members, of whom no figure may leave; an
    attack that rejects in this audit by itself, though not over all audits of the holdout, so that no number of audits
    turns a FAIL into a PASS; more members named without one false alarm than the tier allows, where Holm does not
    reject: Clopper and Pearson's bound takes the threshold for fixed, which the holdout's highest score is not, so that
    past the bound are one in fifty attacks that know nothing (104 a side, public tier); and an attack that is surely
    wrong, since whoever turns it round is right.

    No reason names a number of patients under twenty: reasons travel.
    """
    always = tuple(_contradictions(evidence))
    enough = evidence.n_holdout >= MIN_HOLDOUT
    invalid = tuple(_invalidating(evidence)) if enough else ()
    held = all(_control(evidence, name) is not None for name in ("blind", "negative")) and not invalid
    leaks = tuple(_leaks(evidence, policy)) if enough else ()
    fails = leaks if held else ()
    open_questions = tuple(_open_questions(evidence, policy))
    if leaks and not held:
        open_questions += tuple(f"Unproven while the split is in doubt: {leak}" for leak in leaks)

    if always or fails:
        return Verdict("FAIL", always + fails + invalid + open_questions)
    if invalid:
        return Verdict("INVALID", invalid + open_questions)
    if open_questions:
        return Verdict("INCONCLUSIVE", open_questions)
    told = finding(evidence.attacks, evidence.release)
    return Verdict("PASS", (f"{told} Every control shows that the attacks work.",))


def is_binding(attack: AttackResult, evidence: AuditEvidence) -> bool:
    """Whether this attack gates this kind of release."""
    return attack.threat_model in BINDING[evidence.release]


def _control(evidence: AuditEvidence, name: str) -> ControlResult | None:
    return next((control for control in evidence.controls if control.id == name), None)


def _contradictions(evidence: AuditEvidence) -> Iterator[str]:
    if evidence.confirmed_copies:
        yield f"{counted(evidence.confirmed_copies, 'synthetic volume')} found to repeat a patient's scan."
    copied = evidence.copied_labels
    if copied.released:
        yield (
            f"{counted(copied.released, 'released label map')} found to be a patient's own; of these, a member's:"
            f" {copied.member}, a holdout patient's: {copied.holdout}."
        )
    if evidence.canary_excess:
        yield "Planted canaries show more leakage than the formal promise allows."
    if evidence.claimed_epsilon is not None:
        for attack in evidence.attacks:
            if attack.eps_lower_bound > evidence.claimed_epsilon:
                yield (
                    f"Attack {attack.id} proves ε > {attack.eps_lower_bound:.2f}, but ε = "
                    f"{evidence.claimed_epsilon:g} was promised: the implementation is wrong."
                )


def _invalidating(evidence: AuditEvidence) -> Iterator[str]:
    blind, negative = _control(evidence, "blind"), _control(evidence, "negative")
    if blind is not None and not blind.ok:
        yield (
            f"Members and holdout patients differ even without the model ({blind.got}): no attack on this split"
            " proves anything."
        )
    if negative is not None and not negative.ok:
        yield (
            f"Attacks also succeed on generators that never saw these patients ({negative.got}): no attack on this"
            " split proves anything."
        )


def _leaks(evidence: AuditEvidence, policy: ReleasePolicy) -> Iterator[str]:
    for attack in evidence.attacks:
        if not is_binding(attack, evidence):
            continue
        tau = _tau(attack, policy)
        if attack.rejects and policy.attacks_must_not_reject:
            yield f"Attack {attack.id} {_told_apart(attack)}."
        if tau is not None and attack.lower95 > tau:
            yield f"Attack {attack.id} has an AUC above {attack.lower95:.2f} (95 % confidence); {tau:.2f} is allowed."
        if attack.rejects:
            yield from _names_too_many(attack, evidence, policy)


def _told_apart(attack: AttackResult) -> str:
    """How an attack that rejects does, by the test that does so most clearly."""
    named = attack.no_false_alarm_p_value
    if named is None or named >= attack.p_value or not attack.tpr:
        return f"tells members from strangers (AUC {attack.auc:.2f}, p = {attack.p_value:.2g})"
    return f"names {attack.tpr[0].tpr:.0%} of the members without one false alarm (p = {named:.2g})"


def _names_too_many(attack: AttackResult, evidence: AuditEvidence, policy: ReleasePolicy) -> Iterator[str]:
    if (
        policy.tpr_lower_max is not None
        and evidence.n_holdout >= policy.min_holdout
        and not attack.id.endswith(OUTLIERS)
        and attack.tpr
        and attack.tpr[0].ci[0] > policy.tpr_lower_max
    ):
        known = "" if attack.rejects else ", which chance does too in so many attacks"
        yield (
            f"Attack {attack.id} names at least {attack.tpr[0].ci[0]:.0%} of the members without one false alarm"
            f"{known}; {policy.tpr_lower_max:.0%} is allowed."
        )


def _open_questions(evidence: AuditEvidence, policy: ReleasePolicy) -> Iterator[str]:
    if evidence.n_holdout < MIN_HOLDOUT:
        yield f"Fewer than {MIN_HOLDOUT} holdout patients: no attack statistic means anything."
    elif evidence.n_holdout < policy.min_holdout:
        yield f"{evidence.n_holdout} holdout patients; the {policy.tier} tier asks for {policy.min_holdout}."
    if evidence.n_member < SMALLEST_CELL:
        yield f"Fewer than {SMALLEST_CELL} members: too few for exact figures about them to leave a site."
    yield from _beyond_attacks(evidence, policy)
    if evidence.generator_named_by is None:
        yield "No journal at hand names this generator as the one that these patients trained."
    run = {attack.id for attack in evidence.attacks}
    for name in required_controls(evidence.release, evidence.claimed_epsilon, run):
        control = _control(evidence, name)
        if control is None:
            yield f"The control '{name}' was not run."
        elif not control.ok and (name.startswith("positive") or name == CANARY):
            yield f"The control '{name}' does not reach its mark ({control.got}; needed: {control.required})."
        elif not control.ok and evidence.n_holdout < MIN_HOLDOUT:
            yield f"The control '{name}' does not hold on so few patients ({control.got})."
    if evidence.negative_seeds < NEGATIVE_SEEDS and _control(evidence, "negative") is not None:
        yield (f"Reduced audit: the negative control trained {evidence.negative_seeds} of {NEGATIVE_SEEDS} generators.")
    if evidence.control_steps < evidence.target_steps:
        yield (
            "Reduced audit: reference and control generators trained"
            f" {counted(evidence.control_steps, 'step')}, the audited one {evidence.target_steps}."
        )
    if evidence.too_small:
        yield (f"Not scored, since too few members or holdout patients are that isolated: {_list(evidence.too_small)}.")
    done = {*(attack.id for attack in evidence.attacks), *evidence.too_small, *excused(evidence.not_applicable)}
    if _control(evidence, "blind") is None:
        done.add(BLIND)  # the control is the baseline: told already
    if absent := [name for name in REQUIRED_ATTACKS[evidence.release] if name not in done]:
        yield f"Attacks that were not run: {_list(absent)}."
    for model in BINDING[evidence.release]:
        if all(attack.threat_model != model for attack in evidence.attacks if attack.id != BLIND):
            how = _SEARCH_THEM if model == ATTACKS[WHITE_BOX] else ""
            yield f"A {evidence.release} release needs an attack of threat model {model}; none was run.{how}"
    for attack in evidence.attacks:
        if is_binding(attack, evidence):
            yield from _unproven(attack, evidence, policy)
        elif attack.id == BLIND and policy.auc_upper_max is not None and attack.upper95 > policy.auc_upper_max:
            yield (
                f"The blind baseline could have an AUC up to {attack.upper95:.2f} (95 % confidence): too few patients"
                f" to show that the split is fair; to be shown: at most {policy.auc_upper_max:.2f}."
            )


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def _unproven(attack: AttackResult, evidence: AuditEvidence, policy: ReleasePolicy) -> Iterator[str]:
    """Why a binding attack that proves no leak does not show that there is none."""
    tau = _tau(attack, policy)
    if policy.attacks_must_not_reject and attack.rejects_alone and not attack.rejects:
        yield (
            f"Attack {attack.id} {_told_apart(attack)} in this audit by itself,"
            f" though not over all {evidence.audit_number} audits of this holdout: only another holdout can decide."
        )
    if not attack.rejects:
        yield from _names_too_many(attack, evidence, policy)
    if tau is not None and attack.upper95 > tau:
        yield (
            f"Attack {attack.id} could have an AUC up to {attack.upper95:.2f} ({_confidence(evidence)}); to be shown:"
            f" at most {tau:.2f}."
        )
    if tau is not None and attack.upper95 < 1 - tau:
        yield (
            f"Attack {attack.id} ranks members below strangers (AUC {attack.auc:.2f}, at most {attack.upper95:.2f}):"
            " turned round, it tells them apart."
        )


def _confidence(evidence: AuditEvidence) -> str:
    """Of a claim, in words."""
    words = f"{100 * claim_confidence(evidence.audit_number):.5g} % confidence"
    return words if evidence.audit_number == 1 else f"{words} in audit {evidence.audit_number} of this holdout"


def _beyond_attacks(evidence: AuditEvidence, policy: ReleasePolicy) -> Iterator[str]:
    """The rows of the gate that no attack's figure answers: copy rate and formal promise."""
    two_sided = 2 * claim_confidence(evidence.audit_number) - 1
    # Inside the study a few members do not hold a release back: that no copy was found still counts.
    if policy.tier != "internal" or clopper_pearson(0, evidence.n_member, two_sided)[1] <= COPY_RATE:
        upper = clopper_pearson(evidence.copied_members, evidence.n_member, two_sided)[1]
        if upper > policy.linkage_upper_max and evidence.copied_members:
            yield f"Members' scans were found copied; to be shown: at most {policy.linkage_upper_max:.0%} of them are."
        elif upper > policy.linkage_upper_max and evidence.n_member < SMALLEST_CELL:
            yield f"So few members cannot show that at most {policy.linkage_upper_max:.0%} of them are copied."
        elif upper > policy.linkage_upper_max:
            yield (
                f"None of {evidence.n_member} members was found copied, but a rate of {upper:.1%} is possible"
                f" ({_confidence(evidence)}); to be shown: at most {policy.linkage_upper_max:.0%}."
            )
    if policy.formal_epsilon_binds:
        wanted = "" if policy.formal_epsilon_max is None else f" of ε at most {policy.formal_epsilon_max:g}"
        if evidence.claimed_epsilon is None:
            yield f"The {policy.tier} tier asks for a formal promise{wanted}; this generator has none."
        elif policy.formal_epsilon_max is not None and evidence.claimed_epsilon > policy.formal_epsilon_max:
            yield f"The {policy.tier} tier asks for a formal promise{wanted}; ε = {evidence.claimed_epsilon:g}."


def _tau(attack: AttackResult, policy: ReleasePolicy) -> float | None:
    return policy.outlier_auc_upper_max if attack.id.endswith(OUTLIERS) else policy.auc_upper_max
