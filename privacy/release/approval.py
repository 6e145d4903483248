"""An approval: one person's signature on exactly one release, in a small file beside the pack's signature.

It lies in the release's folder ``approvals``, named by its key, and changes no byte that was signed before; approvals
given on several copies of a release are put together from these files. Each names the packed statement by its
SHA-256, and so every file of the release, and what else its signer looked at. :mod:`.collect` puts those that sites
sent into one copy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field, ValidationError

from ...common.errors import SignatureInvalid, VerificationFailed, about
from ...common.in_toto import STATEMENT_TYPE, Digest, Record, Time
from ...common.keys import key_id
from ...common.labels.chain import Sha256
from ...common.signing import unverified, verify
from ..approving_site import ApprovingSite
from ..signers import SignerRole, expired_key
from ..statement import ReleasePredicate
from ..verdict import Outcome
from .grounds import Grounds

FOLDER = "approvals"
NAME = re.compile(rf"{FOLDER}/(?P<key>[0-9a-f]{{64}})\.dsse\.json")
PREDICATE_TYPE: Final = "urn:fedphantom:approval:1"
LARGEST = 1 << 16
"""Bytes of an approval, or of a notice."""
STATEMENT: Final = "statement"
"""Subject of an approval: the payload of the release's ``manifest.dsse.json``."""


Seen = Literal["result file", "page"]
"""What an officer may look at beside the release, of an audit."""


class OfRelease(Record):
    """The release that something is said about: the bytes that its packer signed."""

    name: Literal["statement"]
    digest: Digest


class LookedAt(Record):
    """What lay before the signer beside the release itself, by SHA-256.

    Attributes:
        policy: The site's own.
        audit: The audit's whole result file; None, inside the study alone, for no more of it than the release holds.
        report: The audit's page.
    """

    policy: Sha256
    audit: Sha256 | None = None
    report: Sha256 | None = None

    def seen(self) -> tuple[Seen, ...]:
        """What of it not every approval names."""
        return (*(("result file",) if self.audit else ()), *(("page",) if self.report else ()))


class ApprovalPredicate(Record):
    """Who decided what, on which grounds.

    Attributes:
        decision: An approval; who refuses signs nothing.
        role: As what the signer signs.
        verdict: What the audit's figures give by the site's own policy.
        grounds: On which audit of the site's patients it rests.
        audit_signed_by: By which compliance officer's key that audit was signed as it ended. None for none found, as a
            release inside the study allows, and in approvals of earlier versions.
        looked_at: What else lay before the signer.
        time: UTC, ISO 8601, seconds, by the signer's clock.
    """

    decision: Literal["approved"]
    role: SignerRole
    verdict: Outcome
    grounds: Grounds
    audit_signed_by: Sha256 | None = None
    looked_at: LookedAt
    time: Time


class ApprovalStatement(Record):
    """The signed payload."""

    statement_type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[OfRelease]
    predicate_type: Literal["urn:fedphantom:approval:1"] = Field(alias="predicateType")
    predicate: ApprovalPredicate

    @classmethod
    def about(cls, statement_sha256: str, predicate: ApprovalPredicate) -> Self:
        """Of the release whose packed statement has this digest."""
        subject = OfRelease(name=STATEMENT, digest=Digest(sha256=statement_sha256))
        return cls(_type=STATEMENT_TYPE, subject=(subject,), predicateType=PREDICATE_TYPE, predicate=predicate)

    def encode(self) -> bytes:
        """The bytes to be signed."""
        return self.model_dump_json(by_alias=True).encode()


@dataclass(frozen=True)
class Approval:
    """A verified approval.

    Attributes:
        key: By which key.
        role: As what.
        time: When, UTC, ISO 8601.
        grounds: On which audit of the site's patients.
        audit_signed_by: By which compliance officer's key that audit was signed; None for none that was found.
        looked_at: What lay before the signer beside the release itself: ``result file`` and ``page`` of an audit, one
            of them or neither.
    """

    key: str
    role: SignerRole
    time: str
    grounds: Grounds
    audit_signed_by: str | None
    looked_at: tuple[Seen, ...]

    def signed(self) -> str:
        """By whom the audit was signed, in words."""
        by = self.audit_signed_by
        return f"signed by {by[:12]}… as it ended" if by else "on which no officer's signature was found"

    def seen(self) -> str:
        """What its signer looked at, in words."""
        if not self.looked_at:
            return "who looked at neither the audit's whole result file nor its page"
        return f"who looked at the audit's {' and '.join(self.looked_at)}"


def approval_file(key: str) -> str:
    """Where in a release the approval by this key lies."""
    return f"{FOLDER}/{key}.dsse.json"


def refuse_unnamed(files: Iterable[str], predicate: ReleasePredicate) -> None:
    """Judge approvals by their names alone, so that no more are read than the release can have.

    Raises:
        VerificationFailed: one by a key that the release does not name.
    """
    for file in sorted(files):
        with about(f"the approval {file.removeprefix(FOLDER + '/')[:12]}…"):
            site_of(predicate, file.removeprefix(FOLDER + "/").partition(".")[0])


def check_approvals(
    files: Mapping[str, bytes],
    statement_sha256: str,
    predicate: ReleasePredicate,
    trusted: Iterable[Ed25519PublicKey],
    now: datetime | None = None,
) -> tuple[Approval, ...]:
    """Judge every approval in a release; one that does not hold is not passed over.

    Args:
        files: Path inside the release to content.
        statement_sha256: Of the release's verified statement.
        predicate: From that statement: it says who may approve.
        trusted: Public keys that the reader has from their holders.
        now: For tests.

    Raises:
        SignatureInvalid: a signature that does not hold, by an unknown key, or given after the key's last day.
        VerificationFailed: no approval, of another release, by someone whom the release does not name, or dated before
            it was packed or in the future; or beyond the study one that names no signed audit as looked at.
    """
    keys = tuple(trusted)
    return tuple(_check(name, files[name], statement_sha256, predicate, keys, now) for name in sorted(files))


def missing_approvals(predicate: ReleasePredicate, keys: Iterable[str]) -> tuple[str, ...]:
    """What a release lacks beside approvals by these keys, in words; no site is named but by its policy's digest."""
    given = set(keys)
    number = len(predicate.approving_sites)
    return tuple(
        f"{f'site {n} of {number}' if number > 1 else 'the site'} (policy {site.policy_sha256[:12]}…): no approval by"
        f" its {role}"
        for n, site in enumerate(predicate.approving_sites, start=1)
        for role in site.missing(given)
    )


def _check(
    name: str,
    content: bytes,
    statement_sha256: str,
    predicate: ReleasePredicate,
    trusted: tuple[Ed25519PublicKey, ...],
    now: datetime | None,
) -> Approval:
    found = NAME.fullmatch(name)
    if found is None:
        raise _foreign(f"{name[:100]!r} among the approvals")
    with about(f"the approval {found['key'][:12]}…"):
        signer, _ = unverified(content)
        if signer != found["key"]:
            raise _foreign("a file named by another key than signed it")
        if signer not in map(key_id, trusted):
            raise SignatureInvalid(
                f"a signature by the unknown key {signer[:12]}…",
                expected="the public key of everyone who approved, beside the packer's",
                remedy="Give the approvers' keys too, each with --key and from its holder; where that key is nobody's"
                " whom you know, do not use this release.",
            )
        payload = verify(content, trusted)
        try:
            statement = ApprovalStatement.model_validate_json(payload)
        except ValidationError:
            raise _foreign("signed, but no approval") from None
        if statement.subject[0].digest.sha256 != statement_sha256:
            raise _foreign("an approval of another release")
        _check_signer(signer, statement.predicate, predicate, now or datetime.now(UTC))
        said = statement.predicate
        return Approval(signer, said.role, said.time, said.grounds, said.audit_signed_by, said.looked_at.seen())


def _check_signer(signer: str, said: ApprovalPredicate, predicate: ReleasePredicate, now: datetime) -> None:
    site = site_of(predicate, signer)
    named = next(one for one in site.signers if one.key == signer)
    if (said.role, said.looked_at.policy) != (named.role, site.policy_sha256):
        raise _foreign("an approval in another role, or by another policy, than the release names for its key")
    if predicate.tier != "internal" and None in (said.looked_at.audit, said.audit_signed_by):
        raise _foreign("an approval for readers beyond the study that names no result file which an officer signed")
    if said.time[:10] > named.expires:
        raise expired_key(named.key, named.role, named.expires)
    # A day's grace: clocks of two machines differ.
    given, packed = datetime.fromisoformat(said.time), datetime.fromisoformat(predicate.created)
    if not packed - timedelta(days=1) <= given <= now + timedelta(days=1):
        raise _foreign("an approval dated before the release was packed, or in the future")


def site_of(predicate: ReleasePredicate, key: str) -> ApprovingSite:
    """The contributing site that this key may approve for. Raises VerificationFailed where it is none's."""
    for site in predicate.approving_sites:
        if any(signer.key == key for signer in site.signers):
            return site
    raise _foreign("an approval by a key that the release does not name")


def _foreign(found: str) -> VerificationFailed:
    return VerificationFailed(
        found,
        expected="approvals of this very release, as 'fedphantom release approve' writes them",
        remedy="Leave that file out of the release's folder, and ask its signer for the one that was meant.",
    )
