"""A withdrawal: a signed notice, outside the release, that takes back a release and those that derive from it.

Notices are small files in a folder that is passed on to whoever has the release. One about released weights takes back
every release of what that generator paints, since each of them names the generator by its SHA-256; nothing derives from
a release of volumes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, ValidationError

from ...common.atomic import write_atomic
from ...common.errors import DataError, OutputTaken, SignatureInvalid, VerificationFailed, about
from ...common.in_toto import STATEMENT_TYPE, Digest, Record, Time, read_small, time_text
from ...common.keys import key_id
from ...common.labels.chain import Sha256
from ...common.one_line import ONE_LINE
from ...common.signing import sign, unverified, verify
from ..evidence import ReleaseKind
from ..statement import ReleasePredicate
from .approval import LARGEST, STATEMENT, OfRelease

PREDICATE_TYPE: Final = "urn:fedphantom:withdrawal:1"
ENDING = ".withdrawn.dsse.json"


class WithdrawalPredicate(Record):
    """What is withdrawn and why.

    Attributes:
        kind: Of the release.
        generator_sha256: Of the generator behind it.
        reason: In a sentence; it travels.
        time: UTC, ISO 8601, seconds, by the signer's clock.
    """

    kind: ReleaseKind
    generator_sha256: Sha256
    reason: Annotated[str, Field(min_length=10, max_length=500), ONE_LINE]
    time: Time


class WithdrawalStatement(Record):
    """The signed payload."""

    statement_type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[OfRelease]
    predicate_type: Literal["urn:fedphantom:withdrawal:1"] = Field(alias="predicateType")
    predicate: WithdrawalPredicate

    @classmethod
    def about(cls, statement_sha256: str, predicate: WithdrawalPredicate) -> Self:
        """Of the release whose packed statement has this digest."""
        subject = OfRelease(name=STATEMENT, digest=Digest(sha256=statement_sha256))
        return cls(_type=STATEMENT_TYPE, subject=(subject,), predicateType=PREDICATE_TYPE, predicate=predicate)

    def takes_back(self, statement_sha256: str, predicate: ReleasePredicate) -> bool:
        """Whether it is about this release, or about the weights that this release derives from."""
        same = self.subject[0].digest.sha256 == statement_sha256
        said = self.predicate
        return same or (said.kind == "weights" and said.generator_sha256 == predicate.generator_sha256)


def write_notice(
    notices: Path,
    statement_sha256: str,
    predicate: ReleasePredicate,
    key: Ed25519PrivateKey,
    reason: str,
    before: Callable[[], None] = lambda: None,
) -> Path:
    """Sign a notice and put it among the others. Returns its path.

    ``before`` is called when nothing but the disk stands against it any more.

    Raises:
        OutputTaken: a notice about this release by this key is there: what was passed on is not replaced.
        StorageError: the folder cannot be written.
    """
    stamp = time_text(datetime.now(UTC))
    said = WithdrawalPredicate(
        kind=predicate.kind, generator_sha256=predicate.generator_sha256, reason=reason, time=stamp
    )
    path = notices / f"{statement_sha256[:16]}-{key_id(key.public_key())[:16]}{ENDING}"
    if os.path.lexists(path):
        raise OutputTaken(
            f"a notice about this release by the key {key_id(key.public_key())[:12]}… is there already",
            expected="a release that this key has not withdrawn",
            remedy="Pass on the notice that is there; for another reason beside it, name another folder by --notices.",
        )
    payload = WithdrawalStatement.about(statement_sha256, said).model_dump_json(by_alias=True).encode()
    before()
    with about("--notices"):
        write_atomic(path, sign(payload, key))
    return path


def refuse_withdrawn(
    notices: Path, statement_sha256: str, predicate: ReleasePredicate, trusted: Iterable[Ed25519PublicKey]
) -> None:
    """Refuse a release that a notice takes back; notices of other releases, by whomever, are passed over.

    Raises:
        DataError: no folder there.
        SignatureInvalid: a notice about this release by a key that is not trusted, or whose signature does not hold:
            it could be true.
        VerificationFailed: the release is withdrawn, or a notice cannot be read.
    """
    try:
        names = sorted(os.listdir(notices))
    except OSError:
        raise DataError(
            "no readable folder of notices at the path given",
            expected="a folder of notices as 'fedphantom release withdraw' writes them, or an empty one",
            remedy="Check the path.",
        ) from None
    keys = tuple(trusted)
    for name in (name for name in names if name.endswith(ENDING)):
        with about(f"notice {name[:60]!r}"):
            content = read_small(notices / name, "notice", LARGEST)
            if not _read(unverified(content)[1]).takes_back(statement_sha256, predicate):
                continue
            notice = _read(verify(content, keys)).predicate
            raise VerificationFailed(
                f"{'this release' if notice.kind == predicate.kind else 'the weights behind this release'}, withdrawn"
                f" on {notice.time[:10]}: {notice.reason}",
                expected="a release that nobody took back",
                remedy="Do not use it, and delete what was made from it; its signer can tell what to use instead.",
            )


def refuse_stranger(key: Ed25519PublicKey, packer: str, predicate: ReleasePredicate) -> None:
    """Find that a key packed the release or may approve it. Raises SignatureInvalid for any other."""
    named = {packer, *(signer.key for site in predicate.approving_sites for signer in site.signers)}
    if key_id(key) not in named:
        raise SignatureInvalid(
            f"the unknown key {key_id(key)[:12]}…",
            expected="the key that packed the release, or one of those that it names for its approval",
            remedy="Withdraw with one of those: recipients would not know another.",
        )


def _read(payload: bytes) -> WithdrawalStatement:
    try:
        return WithdrawalStatement.model_validate_json(payload)
    except ValidationError:
        raise VerificationFailed(
            "no notice of withdrawal under its name",
            expected="a notice as 'fedphantom release withdraw' writes it",
            remedy="Get it anew from its signer, or take it away.",
        ) from None
