"""On which audit a site's approval rests: one that the site's own journal tells of, or none.

A result file is JSON that anybody can write. What makes it an audit is that a site's journal noted its SHA-256 when
the attacks had been run on that site's patients, so whoever approves asks there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

from ...common.errors import PolicyRefused, VerificationFailed
from ...common.journal import Fact
from ..audit.reading import read_audit
from ..policy import ReleasePolicy
from ..statement import ReleasePredicate
from .gate import refuse_by_policy

Grounds = Literal["the audit of the release", "an audit of the site's own"]
"""Whose patients the attacks were run on, as the site's journal tells: those of all sites, this one's among them; or
this site's alone."""


def grounds_of(
    predicate: ReleasePredicate, given: bytes | None, done: Sequence[Mapping[str, Fact]], policy: ReleasePolicy
) -> Grounds:
    """On which audit this site can approve.

    Args:
        predicate: Of the release.
        given: Content of the result file that the officer names; None for none.
        done: Facts of the audits that ended, by the site's journal.
        policy: The site's own thresholds.

    Raises:
        VerificationFailed: the given file is an audit that the site's journal does not tell of.
        PolicyRefused: the release's audit is none that this site took part in, and no audit of the site's own permits
            such a release.
        DataError: the given file is no audit's result.
    """
    known = {facts.get("sha256") for facts in done}
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
            " with --audit.",
        )
    own, claim = read_audit(given)
    if not claim.covers(predicate.kind, predicate.tier):
        raise PolicyRefused(
            f"an audit of the site's own for {claim.release} of tier '{claim.tier}'",
            expected=f"one for {predicate.kind} with thresholds at least as strict as tier '{predicate.tier}'",
            remedy="Run the audit for that kind of release and by that tier.",
        )
    refuse_by_policy(own, policy, predicate.kind, predicate.tier)
    return "an audit of the site's own"


def said_of(grounds: Grounds) -> str:
    """In words, after "approved by …"."""
    return {
        "the audit of the release": "by this release's audit, which the site's journal tells of",
        "an audit of the site's own": "by an audit of the site's own",
    }[grounds]
