"""An audit's verdict decided anew from the figures in its file: what the file says is believed no further than that."""

from __future__ import annotations

from dataclasses import replace
from typing import cast, get_args

from ...common.errors import VerificationFailed
from ..evidence import OUTLIERS, AttackResult, AuditEvidence, ControlResult, CopiedLabels, ThreatModel
from ..multiplicity import claim_confidence, rejecting
from ..policy import TIERS, OverrideReason, ReleasePolicy
from ..statistics import TprAtFpr
from ..verdict import Outcome, Verdict, decide
from .extract import AttackRow, AuditExtract

RANK: tuple[Outcome, ...] = ("FAIL", "INVALID", "INCONCLUSIVE", "PASS")
"""From worst to best."""


def best_verdict(extract: AuditExtract, policy: ReleasePolicy | None = None) -> Outcome:
    """The best verdict that the figures allow: decided anew from rows, controls and thresholds.

    A figure that is missing can only have been bad: without it there is no PASS.

    Args:
        extract: The figures.
        policy: Another site's thresholds; None for those that the audit was judged by.
    """
    outcome = decided_anew(extract, policy).outcome
    return outcome if _is_whole(extract) or outcome != "PASS" else "INCONCLUSIVE"


def refuse_better(extract: AuditExtract, what: str, expected: str, remedy: str) -> None:
    """Raise VerificationFailed for a verdict better than its own figures allow.

    Args:
        extract: Verdict and figures.
        what: That says so, e.g. ``an audit result``.
        expected: Instead.
        remedy: What to do.
    """
    best = best_verdict(extract)
    if RANK.index(extract.verdict) > RANK.index(best):
        raise VerificationFailed(
            f"{what} that says {extract.verdict}, but whose figures give {best}", expected=expected, remedy=remedy
        )


def decided_anew(extract: AuditExtract, policy: ReleasePolicy | None = None) -> Verdict:
    """Verdict and reasons by the figures that are there; attacks that lack one are left out."""
    attacks = [_attack(row, extract) for row in with_rejections(extract)]
    evidence = AuditEvidence(
        release=extract.release,
        attacks=tuple(attack for attack in attacks if attack is not None),
        controls=tuple(
            ControlResult(row.id, str(row.required), str(row.got), row.ok is True) for row in extract.controls
        ),
        n_member=compared_patients(extract, "member"),
        n_holdout=compared_patients(extract, "holdout"),
        negative_seeds=extract.negative_seeds or 0,
        target_steps=extract.target_steps or 0,
        control_steps=extract.control_steps or 0,
        confirmed_copies=extract.confirmed_copies or 0,
        copied_members=1 if extract.copied_members == "<20" else extract.copied_members or 0,
        copied_labels=CopiedLabels(**extract.copied_labels.model_dump()) if extract.copied_labels else CopiedLabels(0),
        claimed_epsilon=extract.claimed_epsilon,
        canary_excess=extract.canary_excess is True,
        audit_number=_number(extract),
        too_small=extract.too_small,
        not_applicable=tuple(extract.not_applicable),
        generator_named_by=extract.generator_named_by,
    )
    return decide(evidence, policy or policy_of(extract))


def policy_of(extract: AuditExtract) -> ReleasePolicy:
    """The thresholds that count: one other than its tier's only with a reason."""
    tier, row = TIERS[extract.tier], extract.policy
    if row is None:
        return tier
    given = row.model_dump(exclude={"reasons"}, exclude_none=True)
    reasons = {name: OverrideReason(why.reason, why.by, why.on) for name, why in row.reasons.items()}
    return replace(tier, **{name: value for name, value in given.items() if name in reasons}, reasons=reasons)


def compared_patients(extract: AuditExtract, role: str) -> int:
    """As many as were compared, which are fewer than hold the role where a site lacks the other side; 0 for "<20"."""
    rows = [row for row in extract.attacks if row.threat_model != "none" and not row.id.endswith(OUTLIERS)]
    found = [extract.counts.get(role), *(row.n_member if role == "member" else row.n_holdout for row in rows)]
    told = [number for number in found if number is not None]
    return min((number if isinstance(number, int) else 0 for number in told), default=0) if found[0] is not None else 0


def with_rejections(extract: AuditExtract) -> list[AttackRow]:
    """The rows, with every rejection that their p-values imply, whatever the flags beside them say."""
    flags = rejecting(extract.attacks, extract.earlier_audits)
    found = []
    for row in extract.attacks:
        over_all, alone = flags.get(row.id, (False, False))
        update = {"rejects": over_all or row.rejects, "rejects_alone": alone or row.rejects_alone}
        found.append(row.model_copy(update=update))
    return found


def _number(extract: AuditExtract) -> int:
    return extract.audit_number or 1


def _is_whole(extract: AuditExtract) -> bool:
    """Whether all is there that the verdict rests on, and fits together."""
    needed = (
        extract.audit_number,
        extract.negative_seeds,
        extract.target_steps,
        extract.control_steps,
        extract.confirmed_copies,
        extract.copied_members,
        extract.copied_labels,
        extract.canary_excess,
    )
    return (
        None not in needed
        and len(extract.earlier_audits) == _number(extract) - 1
        and extract.claim_confidence in (None, claim_confidence(_number(extract)))
        and all(_attack(row, extract) and _tells_of_no_false_alarm(row) for row in extract.attacks)
    )


def _tells_of_no_false_alarm(row: AttackRow) -> bool:
    """Whether all is there that is asked about the members named without one false alarm."""
    if row.id.endswith(OUTLIERS):
        return True
    return bool(_rates(row)) and (row.no_false_alarm_p_value is not None or row.threat_model == "none")


def _attack(row: AttackRow, extract: AuditExtract) -> AttackResult | None:
    low, high = row.auc_ci or (None, None)
    lower, upper = row.auc_lower95, row.auc_upper95
    if (
        row.auc is None
        or low is None
        or high is None
        or lower is None
        or upper is None
        or row.p_value is None
        or row.eps_lower_bound is None
        or row.rejects is None
        or row.threat_model not in get_args(ThreatModel)
    ):
        return None
    # A bound below the figure that it bounds is none; from the second audit on, nor is one below the interval's end.
    least = row.auc if _number(extract) == 1 or row.threat_model == "none" else max(row.auc, high)
    return AttackResult(
        id=row.id,
        threat_model=cast(ThreatModel, row.threat_model),
        auc=row.auc,
        auc_ci=(low, high),
        lower95=lower,
        upper95=max(upper, least),
        p_value=row.p_value,
        rejects=row.rejects,
        rejects_alone=row.rejects_alone is True,
        tpr=_rates(row),
        advantage=0.0,
        eps_lower_bound=row.eps_lower_bound,
        n_member=row.n_member if isinstance(row.n_member, int) else 0,
        n_holdout=row.n_holdout if isinstance(row.n_holdout, int) else 0,
        no_false_alarm_p_value=row.no_false_alarm_p_value,
    )


def _rates(row: AttackRow) -> tuple[TprAtFpr, ...]:
    rates = row.tpr if isinstance(row.tpr, tuple) else ()
    found = tuple(
        TprAtFpr(rate.fpr, rate.tpr, rate.ci, rate.resolvable is True, rate.fpr_bound or 0.0)
        for rate in rates
        if rate.ci is not None
    )
    # The gate reads the first, at no false alarm.
    return found if found and found[0].fpr == 0 else ()
