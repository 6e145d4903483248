"""On which audit a site's approval rests: one that the site's own journal tells of, or none.

A result file is JSON that anybody can write. What makes it an audit is that a site's journal noted its SHA-256 when
the attacks had been run on that site's patients, so whoever approves asks there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping, Sequence
from typing import Literal

from ...common.errors import PolicyRefused, VerificationFailed
from ...common.journal import Fact
from ...common.study import Study
from ..audit.reading import read_audit
from ..joint.combination import check_combined, is_combined
from ..policy import SitePolicy
from ..statement import ReleasePredicate
from .gate import refuse_by_policy

Grounds = Literal["the audit of the release", "a part of the audit of the release", "an audit of the site's own"]
"""Whose patients the attacks were run on, as the site's journal tells: in one audit all sites', this one's among them;
this site's, in an audit that was combined with the other sites' into the release's; or this site's alone."""


def grounds_of(
    predicate: ReleasePredicate,
    given: bytes | None,
    done: Sequence[Mapping[str, Fact]],
    policy: SitePolicy,
    study: Study,
) -> Grounds:
    """On which audit this site can approve.

    Args:
        predicate: Of the release.
        given: Content of the result file that the officer names; None for none.
        done: Facts of the audits that ended, by the site's journal.
        policy: The site's own.
        study: The site's own copy: a combined audit's extracts are by the officers whom it names.

    Raises:
        VerificationFailed: the given file is an audit that the site's journal does not tell of, or was combined from
            one that it does not tell of, or has other figures than what the sites signed gives.
        SignatureInvalid: it was combined from what others signed than the study's officers.
        PolicyRefused: the release's audit is none that this site took part in, and no audit of the site's own permits
            such a release.
        DataError: the given file is no audit's result.
    """
    known = {facts.get("sha256") for facts in done}
    if given is not None and is_combined(given):
        return _part(predicate, given, known, policy, study)
    if given is not None and hashlib.sha256(given).hexdigest() not in known:
        raise VerificationFailed(
            "an audit that this site's journal does not tell of",
            expected="the result file as 'fedphantom audit run' left it at this site",
            remedy="Give that file, or run the audit here.",
        )
    if predicate.audit.sha256 in known:
        return "the audit of the release"
    if given is None:
        raise PolicyRefused(
            "a release whose audit this site's journal does not tell of",
            expected="an audit that was run on this site's patients: of the release, or of the site's own",
            remedy="Run 'fedphantom audit run' on this site's folder with the released generator, and name its result"
            " with --audit; where the sites' audits were combined, name the combined file.",
        )
    own, claim = read_audit(given)
    if not claim.covers(predicate.kind, predicate.tier):
        raise PolicyRefused(
            f"an audit of the site's own for {claim.release} of tier '{claim.tier}'",
            expected=f"one for {predicate.kind} with thresholds at least as strict as tier '{predicate.tier}'",
            remedy="Run the audit for that kind of release and by that tier.",
        )
    refuse_by_policy(own, policy.thresholds, predicate.kind, predicate.tier)
    return "an audit of the site's own"


def _part(
    predicate: ReleasePredicate, given: bytes, known: Container[Fact], policy: SitePolicy, study: Study
) -> Grounds:
    """The sites' audits combined, this site's among them."""
    parts = check_combined(given, study)
    if hashlib.sha256(given).hexdigest() != predicate.audit.sha256:
        raise VerificationFailed(
            "a combined audit that is not the release's",
            expected="the file that the release was packed by",
            remedy="Ask the packer for it.",
        )
    own = {signer.key for signer in policy.signers}
    if not any(part.key() in own and part.result_sha256 in known for part in parts):
        raise VerificationFailed(
            "a combined audit without one that this site's journal tells of and its officer signed",
            expected="the extract that 'fedphantom audit share' wrote at this site among those combined",
            remedy="Do not approve it; ask the coordinator what was taken for this site's.",
        )
    return "a part of the audit of the release"


def said_of(grounds: Grounds) -> str:
    """In words, after "approved by …"."""
    return {
        "the audit of the release": "by this release's audit, which the site's journal tells of",
        "a part of the audit of the release": "by this release's audit, into which the site's own was combined",
        "an audit of the site's own": "by an audit of the site's own",
    }[grounds]
