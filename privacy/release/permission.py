"""What a release may be at all: of which networks, and by which verdict, audit, policies and approvals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from ...common.errors import PolicyRefused, VerificationFailed
from ...common.run_result import contributing_sites
from ...common.site_folder import SITE_FILE
from ...common.study import Study
from ..approving_site import ApprovingSite
from ..audit.extract import AuditExtract
from ..audit.reading import read_audit
from ..evidence import ReleaseKind
from ..policy import SitePolicy, Tier
from ..statement import PERMITTED, AuditClaim
from .gate import approving_sites, refuse_by_policy
from .history import refuse_what_was_withdrawn
from .needed_file import read_needed

_AFTER: Mapping[str, str] = {
    "INCONCLUSIVE": "Its reasons say what it could not show: more holdout patients, a full audit ('audit run' without"
    " --steps and --negative-seeds), or a lower tier where your policy allows one.",
    "INVALID": "Its reasons say which control did not hold: mend the split or the cohort; the figures prove nothing.",
    "FAIL": "Release nothing of this generator. Its reasons say what it gives away; train another, with fewer steps,"
    " more patients or differential privacy. Another audit does not undo this one.",
}
"""What may be done after a verdict that does not permit the tier."""


def refuse_reader(study: Study) -> None:
    """Refuse a network from images to labels, whatever its audit says: nobody need run one to be told so.

    Raises:
        PolicyRefused: it is one.
    """
    if study.network.maps == "images-to-labels":
        raise PolicyRefused(
            "a network from images to labels, which was trained to read scans",
            expected="a generator of images: such a network is never released, whatever its audit says, for no audit"
            " can pass it yet",
            remedy="Use it inside the study, whose sites hold it already.",
        )


def permitted(
    run: Path,
    generator_sha256: str,
    study: Study,
    parameters: str,
    kind: ReleaseKind,
    tier: Tier,
    audit: Path | None,
    policies: Sequence[SitePolicy],
    day: date,
) -> tuple[AuditExtract, AuditClaim, tuple[ApprovingSite, ...]]:
    """What audit and policies say to a release of this generator: the audit, its claim, and whose approval is needed.

    It takes no time. Raises as :func:`.pack.pack`.
    """
    extract, claim = _permitted_audit(audit, kind, tier, generator_sha256)
    if (extract.parameters_sha256, extract.channels) != (parameters, study.channels):
        raise VerificationFailed(
            "an audit that does not say that it read this generator's parameters and all of the study's channels",
            expected="the result of this version's 'fedphantom audit run' on this generator",
            remedy="Run the audit again.",
        )
    homes = [run, *(file.parent for file in sorted(run.glob(f"sites/*/{SITE_FILE}")))]
    refuse_what_was_withdrawn(homes, kind, generator_sha256, extract.synthetic_sha256)
    for policy in policies:
        refuse_by_policy(extract, policy.thresholds, kind, tier)
    return extract, claim, approving_sites(study, policies, tier, day, contributing_sites(run))


def _permitted_audit(
    path: Path | None, kind: ReleaseKind, tier: Tier, generator_sha256: str
) -> tuple[AuditExtract, AuditClaim]:
    if path is None or not path.is_file():
        raise PolicyRefused(
            "no audit of this generator",
            expected="the result file of 'fedphantom audit run'",
            remedy="Run the audit and name its result with '--audit'.",
        )
    extract, claim = read_audit(read_needed(path, "audit result"))
    if extract.generator_sha256 != generator_sha256:
        raise VerificationFailed(
            "the audit of another generator",
            expected=f"one of the run's generator {generator_sha256[:12]}…",
            remedy="Run the audit on this run.",
        )
    if claim.verdict not in PERMITTED[tier]:
        raise PolicyRefused(
            f"audit verdict {claim.verdict}",
            expected=f"{' or '.join(PERMITTED[tier])} for a release of tier '{tier}'",
            remedy=_AFTER[claim.verdict],
        )
    if not claim.covers(kind, tier):
        raise PolicyRefused(
            f"an audit for {claim.release} of tier '{claim.tier}'",
            expected=f"one for {kind} with thresholds at least as strict as tier '{tier}'",
            remedy="Run the audit with that policy and kind of release.",
        )
    return extract, claim
