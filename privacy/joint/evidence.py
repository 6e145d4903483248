"""Several sites' audits as one: figures by figures, and the verdict that they give together (PRIVACY §3.1, §4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ...common.counted import counted
from ...common.errors import ConfigError, VerificationFailed
from ...common.labels.chain import Sha256
from ...common.run_result import NamedBy
from ..audit.extract import (
    AttackRow,
    AuditExtract,
    Cell,
    ControlRow,
    CopiedLabelsRow,
    Count,
    EpsilonMeans,
    PolicyRow,
)
from ..audit.recomputation import RANK, best_verdict, decided_anew, refuse_better, with_rejections
from ..audit.small_cells import SMALL
from ..evidence import BATTERY, SMALLEST_CELL, excused
from ..multiplicity import claim_confidence
from ..policy import ReleasePolicy
from ..verdict import Outcome
from .rows import SiteRow, combined_row, told

_AS_SHARED = {
    "expected": "an extract as 'fedphantom audit share' writes it",
    "remedy": "Have that site share its audit anew.",
}
_DECIDE: tuple[Outcome, ...] = ("FAIL", "INVALID")
"""Verdicts of one site that are the verdict of all."""
_SAME_SET = ("synthetic",)
"""Counts of what every site audited alike."""
_NAMED: NamedBy = "the coordinator's signature"


def joint_audit(sites: Sequence[AuditExtract], policy: ReleasePolicy, results: Sequence[Sha256]) -> AuditExtract:
    """What these sites' audits say together; it holds no figure of a site by itself.

    FAIL or INVALID at one site is the verdict of all, and a copy found at one is. A control holds if it held
    everywhere; the patients asked for are those of all sites.

    Args:
        sites: Each site's own audit of the same generator and volumes, one of each, in any order.
        policy: Thresholds.
        results: SHA-256 of the sites' result files, in the same order.

    Raises:
        VerificationFailed: audits of different things, or one whose verdict is better than its figures allow.
        ConfigError: a policy of another tier than the audits were run by.
    """
    first = sites[0]
    _refuse_different(sites)
    if policy.tier != first.tier:
        raise ConfigError(
            f"audits by the {first.tier} tier, and a policy of the {policy.tier} one",
            expected="one tier: figures of small groups travel as its thresholds need them",
            remedy="Name a policy of that tier with --policy, or have each site audit by the tier that is meant.",
        )
    number = max(site.audit_number or 1 for site in sites)
    too_small = tuple(dict.fromkeys(name for site in sites for name in site.too_small))
    extract = AuditExtract(
        battery=BATTERY,
        verdict="INCONCLUSIVE",
        tier=first.tier,
        release=first.release,
        generator_sha256=first.generator_sha256,
        parameters_sha256=first.parameters_sha256,
        channels=first.channels,
        synthetic_sha256=first.synthetic_sha256,
        attacks=_attacks(sites, set(too_small), number),
        controls=_controls(sites),
        counts=_counts(sites),
        policy=PolicyRow.model_validate(asdict(policy)),
        audit_number=number,
        claim_confidence=claim_confidence(number),
        # What earlier audits showed each site tells of itself alone: together they are so many looks, and no find.
        earlier_audits=(None,) * (number - 1),
        too_small=too_small,
        not_applicable={
            name: why
            for name, why in first.not_applicable.items()
            if all(name in site.not_applicable for site in sites)
        },
        negative_seeds=min(site.negative_seeds or 0 for site in sites),
        target_steps=max(site.target_steps or 0 for site in sites),
        control_steps=min(site.control_steps or 0 for site in sites),
        confirmed_copies=sum(site.confirmed_copies or 0 for site in sites),
        copied_members=_copied_members(sites),
        copied_labels=_copied_labels(sites),
        claimed_epsilon=first.claimed_epsilon,
        canary_excess=any(site.canary_excess for site in sites),
        epsilon_means=_means(sites),
        generator_named_by=_NAMED if all(site.generator_named_by for site in sites) else None,
        combined_from=tuple(sorted(results)),
    )
    extract = extract.model_copy(update={"attacks": tuple(with_rejections(extract))})
    return _decided(extract, sites, policy)


def _decided(extract: AuditExtract, sites: Sequence[AuditExtract], policy: ReleasePolicy) -> AuditExtract:
    anew = decided_anew(extract, policy)
    whole = best_verdict(extract, policy)
    own = [verdict for verdict in _DECIDE if any(site.verdict == verdict for site in sites)]
    outcome = min((anew.outcome, whole, *own), key=RANK.index)
    reasons = [f"The audit of {counted(_number(sites, verdict), 'site')} by itself says {verdict}." for verdict in own]
    few = sum(_is_small(site) for site in sites)
    if few:
        reasons.append(
            f"{counted(few, 'site')} with under twenty members or holdout patients: no number of them leaves, so they"
            " count as nobody, and no PASS rests on them."
        )
    if outcome != "PASS" and anew.outcome == "PASS":
        reasons = reasons or ["A site tells less than a PASS rests on."]
    elif anew.outcome == outcome:
        reasons = [*anew.reasons, *reasons]
    else:
        reasons = [*reasons, *anew.reasons]
    return extract.model_copy(update={"verdict": outcome, "reasons": tuple(reasons[:64])})


def _number(sites: Sequence[AuditExtract], verdict: Outcome) -> int:
    return sum(site.verdict == verdict for site in sites)


def _is_small(site: AuditExtract) -> bool:
    return any(not isinstance(site.counts.get(side), int) for side in ("member", "holdout"))


def _refuse_different(sites: Sequence[AuditExtract]) -> None:
    first = sites[0]
    for name, what in (
        ("generator_sha256", "generators"),
        ("parameters_sha256", "generators"),
        ("channels", "channels"),
        ("synthetic_sha256", "synthetic cohorts"),
        ("release", "kinds of release"),
        ("tier", "tiers"),
        ("claimed_epsilon", "formal promises"),
    ):
        if any(getattr(site, name) != getattr(first, name) for site in sites):
            raise VerificationFailed(
                f"audits of different {what}",
                expected="every site's audit of the same generator and volumes, kind of release and tier",
                remedy="Have each site audit the files that are to be released, with the same --kind and tier.",
            )
    for site in sites:
        names = [*(row.id for row in site.attacks), *(row.id for row in site.controls)]
        if len(set(names)) < len(names):  # one given twice could stand in for another site's
            raise VerificationFailed("a site's audit with an attack or a control twice", **_AS_SHARED)
        refuse_better(site, "a site's audit", **_AS_SHARED)


def _attacks(sites: Sequence[AuditExtract], too_small: set[str], number: int) -> tuple[AttackRow, ...]:
    """Of every attack that no site lacks without an excuse, or was too small a group for."""
    found = []
    for name in dict.fromkeys(row.id for site in sites for row in site.attacks):
        rows = [SiteRow(row, site.audit_number or 1) for site in sites for row in site.attacks if row.id == name]
        asked = [site for site in sites if name not in excused(site.not_applicable)]
        if name not in too_small and len(rows) >= len(asked) and all(told(one.row) for one in rows):
            found.append(combined_row(rows, number))
    return tuple(found)


def _controls(sites: Sequence[AuditExtract]) -> tuple[ControlRow, ...]:
    """One that every site ran: it holds if it held everywhere."""
    found = []
    for control in sites[0].controls:
        rows = [row for site in sites for row in site.controls if row.id == control.id]
        if len(rows) == len(sites):
            held = sum(row.ok is True for row in rows)
            got = f"held at {held} of {counted(len(sites), 'site')}"
            found.append(ControlRow(id=control.id, required=control.required, got=got, ok=held == len(sites)))
    return tuple(found)


def _counts(sites: Sequence[AuditExtract]) -> dict[str, Count]:
    """Sums of what every site tells; what a site does not tell counts as nobody."""
    found: dict[str, Count] = {}
    for name in sites[0].counts:
        told_of = [site.counts[name] for site in sites if name in site.counts]
        if len(told_of) < len(sites) or any(isinstance(count, dict) for count in told_of):
            continue
        numbers = [count for count in told_of if isinstance(count, int)]
        total = max(numbers, default=0) if name in _SAME_SET else sum(numbers)
        hidden = len(numbers) < len(told_of)
        found[name] = SMALL if hidden and total < SMALLEST_CELL else total
    return found


def _copied_members(sites: Sequence[AuditExtract]) -> Cell | None:
    numbers = [site.copied_members for site in sites]
    if None in numbers:
        return None
    total = sum(number for number in numbers if isinstance(number, int))
    return SMALL if SMALL in numbers and total < SMALLEST_CELL else total


def _copied_labels(sites: Sequence[AuditExtract]) -> CopiedLabelsRow | None:
    rows = [site.copied_labels for site in sites if site.copied_labels is not None]
    if len(rows) < len(sites):
        return None
    return CopiedLabelsRow(
        released=max(row.released for row in rows),
        member=sum(row.member for row in rows),
        holdout=sum(row.holdout for row in rows),
    )


def _means(sites: Sequence[AuditExtract]) -> EpsilonMeans | None:
    """What refutes ε at some δ refutes it at every smaller one: the smallest of the sites'."""
    means = [site.epsilon_means for site in sites if site.epsilon_means is not None]
    return min(means, key=lambda one: one.delta) if len(means) == len(sites) else None
