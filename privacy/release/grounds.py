"""On which audit a site's approval rests: one that its own journal tells of and its officer signed, or none.

A result file is JSON that anybody can write. The site's journal noted its SHA-256 when the attacks had been run on that
site's patients, so whoever approves asks there; but whoever can write to the site's folder can add a line to a journal.
So a release beyond the study asks for a signature besides, by a compliance officer of the site, as the audit ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...common.errors import PolicyRefused, VerificationFailed
from ...common.journal import Fact
from ...common.study import Study
from ..audit.reading import read_audit
from ..audit.signature import refuse_unsigned, signed_by
from ..joint.combination import check_combined, is_combined
from ..policy import SitePolicy
from ..statement import ReleasePredicate
from .gate import refuse_by_policy

Grounds = Literal["the audit of the release", "a part of the audit of the release", "an audit of the site's own"]
"""Whose patients the attacks were run on, as the site's journal tells: in one audit all sites', this one's among them;
this site's, in an audit that was combined with the other sites' into the release's; or this site's alone."""


@dataclass(frozen=True)
class GivenAudit:
    """A result file that the officer names.

    Attributes:
        content: Of it.
        folder: In which it lies, its signatures beside it.
    """

    content: bytes
    folder: Path

    @property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.content).hexdigest()


def signed_grounds_of(
    predicate: ReleasePredicate,
    given: GivenAudit | None,
    done: Sequence[Mapping[str, Fact]],
    policy: SitePolicy,
    study: Study,
) -> tuple[Grounds, str | None]:
    """On which audit this site can approve, and by which of its officers' keys that is signed.

    A release inside the study can rest on an audit that nobody signed: then the key is None.

    Raises:
        VerificationFailed, SignatureInvalid, PolicyRefused, DataError: as :func:`grounds_of`.
        PolicyRefused: a release beyond the study, and no result file is named, or nobody signed the audit.
        SignatureInvalid: likewise, but others than this site's compliance officers did.
    """
    grounds = grounds_of(predicate, given.content if given else None, done, policy, study)
    officers = {one.key: one.expires.isoformat() for one in policy.signers if one.role == "compliance officer"}
    if grounds == "a part of the audit of the release":  # the site's extract is its officer's, of a signed audit
        keys = {part.key() for part in check_combined(given.content, study)} if given else set()
        return grounds, next(iter(sorted(keys & officers.keys())), None)
    if given is None:
        if predicate.tier == "internal":
            return grounds, None
        raise PolicyRefused(
            f"an approval for the tier '{predicate.tier}' without the audit's result file",
            expected="the whole result file: its officer's signature lies beside it, and its SHA-256 is signed here",
            remedy="Name it with --audit, in the folder in which 'fedphantom audit run --key' left it.",
        )
    rests_on = predicate.audit.sha256 if grounds == "the audit of the release" else given.sha256
    signatures = signed_by(rests_on, given.folder)
    if predicate.tier == "internal":
        return grounds, next(iter(sorted(signatures.keys() & officers.keys())), None)
    return grounds, refuse_unsigned(signatures, officers)


def grounds_of(
    predicate: ReleasePredicate,
    given: bytes | None,
    done: Sequence[Mapping[str, Fact]],
    policy: SitePolicy,
    study: Study,
) -> Grounds:
    """On which audit this site can approve, by its journal.

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
    own = {signer.key for signer in policy.signers if signer.role == "compliance officer"}
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
