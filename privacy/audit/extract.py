"""The part of an audit's result that travels with a release: verdict, table and controls.

Only figures about whole groups pass: an entry for each patient, were there one in the result, has
no place here. A verdict is believed only as far as the rows, controls and thresholds beside it bear it out.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Annotated, Any, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...common.errors import DataError, VerificationFailed
from ...common.labels.chain import Sha256
from ..evidence import AttackResult, AuditEvidence, ControlResult, ReleaseKind, ThreatModel
from ..finding import finding
from ..policy import TIERS, ReleasePolicy, Tier
from ..statement import AuditClaim
from ..statistics import TprAtFpr, holm
from ..verdict import Outcome, decide

Word = Annotated[str, Field(max_length=120, pattern=r"^[^\x00-\x1f]*$")]
Sentence = Annotated[str, Field(max_length=800, pattern=r"^[^\x00-\x1f]*$")]
Figure = bool | int | float | None | Word | Annotated[tuple[float | None, ...], Field(max_length=2)]
Count = int | Annotated[dict[Word, int], Field(max_length=32)]


class _Extract(BaseModel):
    # What is not listed is left out, and not an error: the result file holds more than may travel.
    model_config = ConfigDict(extra="ignore", frozen=True)


class TprRow(_Extract):
    """True positives at one rate of false alarms."""

    fpr: float
    tpr: float
    ci: tuple[float, float] | None = None
    resolvable: bool | None = None
    fpr_bound: float | None = None


class AttackRow(_Extract):
    """One line of the attack table; intervals are (low, high)."""

    id: Word
    threat_model: Word
    auc: float | None
    auc_ci: tuple[float | None, float | None] | None = None
    tpr: float | Annotated[tuple[TprRow, ...], Field(max_length=8)] | None = None
    eps_lower_bound: float | None = None
    p_value: float | None = None
    auc_lower95: float | None = None
    auc_upper95: float | None = None
    rejects: bool | None = None
    n_member: int | None = None
    n_holdout: int | None = None


class ControlRow(_Extract):
    """One control: what it had to show, and what it showed."""

    id: Word
    required: Figure
    got: Figure
    ok: bool | None


class PolicyRow(_Extract):
    """The thresholds it was judged by; one other than its tier's counts only with a reason."""

    formal_epsilon_max: float | None = None
    formal_epsilon_binds: bool | None = None
    auc_upper_max: float | None = None
    tpr_lower_max: float | None = None
    outlier_auc_upper_max: float | None = None
    linkage_upper_max: float | None = None
    min_holdout: int | None = None
    reasons: Annotated[dict[Word, Sentence], Field(max_length=16)] = Field(default_factory=dict)


class EpsilonMeans(_Extract):
    """What every ε of the table is, and is not."""

    kind: Sentence
    delta: float
    unit: Word
    adjacency: Word


class AuditExtract(_Extract):
    """``audit.json`` of a release; keys as ``audit run --json`` prints them."""

    verdict: Outcome
    tier: Tier
    release: ReleaseKind
    generator_sha256: Sha256
    attacks: tuple[AttackRow, ...] = Field(max_length=200)
    controls: tuple[ControlRow, ...] = Field(max_length=200)
    counts: Annotated[dict[Word, Count], Field(max_length=64)]
    reasons: Annotated[tuple[Sentence, ...], Field(max_length=64)] = ()
    policy: PolicyRow | None = None
    audit_number: int | None = Field(default=None, ge=1)
    negative_seeds: int | None = None
    target_steps: int | None = None
    control_steps: int | None = None
    confirmed_copies: int | None = None
    copied_members: int | None = None
    claimed_epsilon: float | None = None
    canary_excess: bool | None = None
    epsilon_means: EpsilonMeans | None = None
    synthetic_sha256: Sha256 | None = None

    def encode(self) -> bytes:
        """The file's bytes."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n").encode()


def read_audit(content: bytes) -> tuple[AuditExtract, AuditClaim]:
    """Parse an audit's result file.

    Returns:
        What travels, and what the release's statement says about the whole file.

    Raises:
        DataError: not a result as ``audit run`` writes it; the key is named, its value is not.
        VerificationFailed: its verdict is better than its own figures allow.
    """
    try:
        extract = AuditExtract.model_validate_json(content)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        raise DataError(
            f"an audit result whose '{first['loc'][0] if first['loc'] else 'content'}' cannot be used",
            expected="the result file of 'fedphantom audit run'",
            remedy="Give that file, or run the audit again.",
        ) from None
    best = best_verdict(extract)
    if _RANK.index(extract.verdict) > _RANK.index(best):
        raise VerificationFailed(
            f"an audit result that says {extract.verdict}, but whose figures give {best}",
            expected="the result file as 'fedphantom audit run' left it",
            remedy="Give that file, or run the audit again.",
        )
    claim = AuditClaim(
        verdict=extract.verdict,
        tier=extract.tier,
        release=extract.release,
        finding=finding(_with_rejections(extract), extract.release),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return extract, claim


_RANK: tuple[Outcome, ...] = ("FAIL", "INVALID", "INCONCLUSIVE", "PASS")


def best_verdict(extract: AuditExtract) -> Outcome:
    """The best verdict that the figures allow: decided anew from rows, controls and thresholds.

    A figure that is missing can only have been bad: without it there is no PASS.
    """
    evidence, whole = _evidence(extract)
    outcome = decide(evidence, _policy(extract)).outcome
    return outcome if whole or outcome != "PASS" else "INCONCLUSIVE"


def _policy(extract: AuditExtract) -> ReleasePolicy:
    tier, row = TIERS[extract.tier], extract.policy
    if row is None:
        return tier
    given = row.model_dump(exclude={"reasons"}, exclude_none=True)
    return replace(tier, **{name: value for name, value in given.items() if name in row.reasons}, reasons=row.reasons)


def _evidence(extract: AuditExtract) -> tuple[AuditEvidence, bool]:
    """What the verdict rests on, and whether every figure of it is there; attacks that lack one are left out."""
    attacks = [_attack(row) for row in _with_rejections(extract)]
    member, holdout = (extract.counts.get(role) for role in ("member", "holdout"))
    needed = (
        extract.audit_number,
        extract.negative_seeds,
        extract.target_steps,
        extract.control_steps,
        extract.confirmed_copies,
        extract.copied_members,
    )
    evidence = AuditEvidence(
        release=extract.release,
        attacks=tuple(attack for attack in attacks if attack is not None),
        controls=tuple(
            ControlResult(row.id, str(row.required), str(row.got), row.ok is True) for row in extract.controls
        ),
        n_member=member if isinstance(member, int) else 0,
        n_holdout=holdout if isinstance(holdout, int) else 0,
        negative_seeds=extract.negative_seeds or 0,
        target_steps=extract.target_steps or 0,
        control_steps=extract.control_steps or 0,
        confirmed_copies=extract.confirmed_copies or 0,
        copied_members=extract.copied_members or 0,
        claimed_epsilon=extract.claimed_epsilon,
        canary_excess=extract.canary_excess is True,
    )
    return evidence, None not in needed and extract.canary_excess is not None and None not in attacks


def _with_rejections(extract: AuditExtract) -> list[AttackRow]:
    """The rows, with every rejection that their p-values imply, whatever the flags beside them say."""
    tried = [row for row in extract.attacks if row.threat_model != "none"]
    p_values = [1.0 if row.p_value is None else row.p_value for row in tried]
    implied = holm(p_values, 0.05 / (extract.audit_number or 1)) if tried else ()
    rejected = {id(row) for row, flag in zip(tried, implied, strict=True) if flag}
    return [row.model_copy(update={"rejects": True}) if id(row) in rejected else row for row in extract.attacks]


def _attack(row: AttackRow) -> AttackResult | None:
    low, high = row.auc_ci or (None, None)
    lower, upper, rates = row.auc_lower95, row.auc_upper95, _rates(row)
    if (
        row.auc is None
        or low is None
        or high is None
        or lower is None
        or upper is None
        or row.p_value is None
        or row.eps_lower_bound is None
        or row.rejects is None
        or not rates
        or row.threat_model not in get_args(ThreatModel)
    ):
        return None
    return AttackResult(
        id=row.id,
        threat_model=cast(ThreatModel, row.threat_model),
        auc=row.auc,
        auc_ci=(low, high),
        lower95=lower,
        # A bound below the figure that it bounds is none.
        upper95=max(upper, row.auc),
        p_value=row.p_value,
        rejects=row.rejects,
        tpr=rates,
        advantage=0.0,
        eps_lower_bound=row.eps_lower_bound,
        n_member=row.n_member or 0,
        n_holdout=row.n_holdout or 0,
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
