"""A withdrawal: a signed notice, outside the release, that takes back a release and those that derive from it.

Notices are small files in a folder that is passed on to whoever has the release. One about released weights takes back
every release of what that generator paints, since each of them names the generator by its SHA-256. One about volumes
takes back those very volumes, in whatever release: packed again they have other names and another signature.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
from ..statement import ReleasePredicate, parse_statement
from ..synthetic_digest import VOLUME_ENDING, digest_of_hashes
from .approval import LARGEST, STATEMENT, OfRelease

PREDICATE_TYPE: Final = "urn:fedphantom:withdrawal:1"
ENDING = ".withdrawn.dsse.json"


class WithdrawalPredicate(Record):
    """What is withdrawn and why.

    Attributes:
        kind: Of the release.
        generator_sha256: Of the generator behind it.
        synthetic_sha256: Over its volumes' content; None for weights, and in notices of earlier versions, which take
            back the one release alone.
        reason: In a sentence; it travels.
        time: UTC, ISO 8601, seconds, by the signer's clock.
    """

    kind: ReleaseKind
    generator_sha256: Sha256
    synthetic_sha256: Sha256 | None = None
    reason: Annotated[str, Field(min_length=10, max_length=500), ONE_LINE]
    time: Time


@dataclass(frozen=True)
class NamedRelease:
    """A release as a notice and a journal name it.

    Attributes:
        statement_sha256: Of the packed statement.
        kind: Of the release.
        generator_sha256: Of the generator behind it.
        synthetic_sha256: Over its volumes' content; None for weights.
    """

    statement_sha256: str
    kind: ReleaseKind
    generator_sha256: str
    synthetic_sha256: str | None

    @classmethod
    def of(cls, payload: bytes) -> Self:
        """From what its packer signed. Raises VerificationFailed where that is no statement about a release."""
        statement = parse_statement(payload)
        said, files = statement.predicate, statement.files()
        volumes = [digest for name, digest in files.items() if name.endswith(VOLUME_ENDING)]
        return cls(
            hashlib.sha256(payload).hexdigest(),
            said.kind,
            said.generator_sha256,
            digest_of_hashes(volumes) if said.kind == "volumes" else None,
        )


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

    def takes_back(self, release: NamedRelease) -> bool:
        """Whether it is about this release, about the volumes in it, or about the weights that it derives from."""
        said = self.predicate
        return (
            self.subject[0].digest.sha256 == release.statement_sha256
            or (said.synthetic_sha256 is not None and said.synthetic_sha256 == release.synthetic_sha256)
            or (said.kind == "weights" and said.generator_sha256 == release.generator_sha256)
        )


def write_notice(
    notices: Path,
    release: NamedRelease,
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
        kind=release.kind,
        generator_sha256=release.generator_sha256,
        synthetic_sha256=release.synthetic_sha256,
        reason=reason,
        time=stamp,
    )
    path = notices / f"{release.statement_sha256[:16]}-{key_id(key.public_key())[:16]}{ENDING}"
    if os.path.lexists(path):
        raise OutputTaken(
            f"a notice about this release by the key {key_id(key.public_key())[:12]}… is there already",
            expected="a release that this key has not withdrawn",
            remedy="Pass on the notice that is there; for another reason beside it, name another folder by --notices.",
        )
    payload = WithdrawalStatement.about(release.statement_sha256, said).model_dump_json(by_alias=True).encode()
    before()
    with about("--notices"):
        write_atomic(path, sign(payload, key))
    return path


def refuse_withdrawn(notices: Path, release: NamedRelease, trusted: Iterable[Ed25519PublicKey]) -> None:
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
            if not _read(unverified(content)[1]).takes_back(release):
                continue
            statement = _read(verify(content, keys))
            notice = statement.predicate
            same = statement.subject[0].digest.sha256 == release.statement_sha256 or release.kind == "weights"
            what = f"the {notice.kind} {'in' if notice.kind == 'volumes' else 'behind'} this release"
            raise VerificationFailed(
                f"{'this release' if same else what}, withdrawn on {notice.time[:10]}: {notice.reason}",
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
