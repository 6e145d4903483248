"""Signed files of enrolment: one reader and one writer for all kinds, and no kind passes for another.

Each is an in-toto statement about the study, signed as DSSE. A statement has one encoding, as its envelope has: what
is read is written again, and must give the bytes that were signed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, JsonValue, ValidationError

from ..errors import ConfigError, SignatureInvalid
from ..in_toto import STATEMENT_TYPE, Digest, Record, content_within
from ..keys import public_key_of
from ..labels.chain import Sha256
from ..misfit import first_misfit
from ..signing import sign, unverified, verify

LARGEST = 1 << 20
"""Bytes of any such file; a roster of a hundred sites has a tenth of it."""

_KIND = re.compile(r"urn:fedphantom:([a-z-]{1,40}):[0-9]{1,3}")
"""How kinds are named in signed bytes."""

_BEGINNING = b'{"payload":'
"""Of every envelope: it has one encoding."""


class AboutStudy(Record):
    """What enrolment signs; the study that it is about is the statement's subject."""

    study_digest: Sha256


RecordT = TypeVar("RecordT", bound=AboutStudy)


@dataclass(frozen=True)
class Kind(Generic[RecordT]):
    """A kind of signed file.

    Attributes:
        name: One word; it stands in the signed bytes.
        record: What such a file says.
        made_by: The command that writes it, for messages.
    """

    name: str
    record: type[RecordT]
    made_by: str

    @property
    def predicate_type(self) -> str:
        """The word with the format's version."""
        return f"urn:fedphantom:{self.name}:1"


class _Study(Record):
    name: Literal["study"] = "study"
    digest: Digest


class _Statement(Record):
    statement_type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[_Study]
    predicate_type: str = Field(alias="predicateType")
    predicate: dict[str, JsonValue]


def file_digest(content: bytes) -> str:
    """What journals and other files name a signed file by: SHA-256 (hex) of its bytes."""
    return hashlib.sha256(content).hexdigest()


def signed(kind: Kind[RecordT], record: RecordT, key: Ed25519PrivateKey) -> bytes:
    """The file's content: the record, signed."""
    return sign(_payload(kind, record), key)


def read_content(path: Path, kind: Kind[RecordT]) -> bytes:
    """A file's bytes, none of them believed yet. Raises ConfigError for no plain file, one too large, or unsigned."""
    content = content_within(path, LARGEST)
    if content is None:
        raise ConfigError(
            f"no readable {kind.name} at the path given",
            expected=f"a plain file of at most {LARGEST >> 20} MiB, as '{kind.made_by}' writes it",
            remedy="Check the path, or ask for the file again.",
        )
    if not content.startswith(_BEGINNING):
        raise _other(kind, f"a file that is no {kind.name}")
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        raise _other(kind, f"a part of a file, or a damaged one, where a {kind.name} is read") from None
    return content


def opened(kind: Kind[RecordT], content: bytes, keys: Iterable[Ed25519PublicKey]) -> RecordT:
    """What a file says, its signature checked first.

    Args:
        kind: What it must be.
        content: Its bytes.
        keys: Those trusted for it.

    Raises:
        SignatureInvalid: no such envelope, a signature that does not hold, or by another key.
        ConfigError: signed, but of another kind or not as it is written; names the key.
    """
    try:
        payload = verify(content, keys)
    except SignatureInvalid:
        # Anybody can write what an envelope says that nobody trusted signed; whoever took one file for another is told
        # so, and not that somebody forged it.
        if other := _other_kind(kind, content):
            raise _other(kind, f"a file that says it is a '{other}', not a {kind.name}") from None
        raise
    return _parse(kind, payload)


def opened_by_own_key(kind: Kind[RecordT], content: bytes, key_at: Sequence[str]) -> RecordT:
    """What a file says that brings its own key: whose that is has to be heard elsewhere, by its fingerprint.

    Args:
        kind: What it must be.
        content: Its bytes.
        key_at: Where in the record the PEM of the public key stands that must have signed it.

    Raises:
        SignatureInvalid: as :func:`opened`.
        ConfigError: likewise.
    """
    payload = unverified(content)[1]
    try:
        part = json.loads(payload)["predicate"]
        for name in key_at:
            part = part[name]
        key = public_key_of(part.encode())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _other(kind, f"a file that is no {kind.name}") from None
    return opened(kind, content, [key])


def _payload(kind: Kind[RecordT], record: RecordT) -> bytes:
    statement = _Statement(
        _type=STATEMENT_TYPE,
        subject=(_Study(digest=Digest(sha256=record.study_digest)),),
        predicateType=kind.predicate_type,
        predicate=record.model_dump(mode="json", exclude={"study_digest"}),
    )
    return statement.model_dump_json(by_alias=True).encode()


def _other_kind(kind: Kind[RecordT], content: bytes) -> str | None:
    """The word for another kind of FedPhantom's that an envelope names itself by; None where it names none."""
    try:
        named = json.loads(unverified(content)[1])["predicateType"]
    except (SignatureInvalid, ValueError, KeyError, TypeError, RecursionError):
        return None
    found = _KIND.fullmatch(named) if isinstance(named, str) else None
    return found[1] if found and named != kind.predicate_type else None


def _parse(kind: Kind[RecordT], payload: bytes) -> RecordT:
    try:
        statement = _Statement.model_validate_json(payload)
        if statement.predicate_type != kind.predicate_type:
            raise _other(kind, f"signed, but no {kind.name}")
        record = kind.record.model_validate({**statement.predicate, "study_digest": statement.subject[0].digest.sha256})
    except ValidationError as error:
        misfit = first_misfit(error, quote=False)  # a stranger's file: nothing of it is told again
        raise _other(kind, f"signed, but the {kind.name}'s '{misfit.key or 'content'}'{misfit.found}") from None
    if _payload(kind, record) != payload:
        raise _other(kind, f"signed, but a {kind.name} in another encoding than its own")
    return record


def _other(kind: Kind[RecordT], found: str) -> ConfigError:
    return ConfigError(
        found,
        expected=f"the file that '{kind.made_by}' writes",
        remedy="Check that it is the file that was meant, and that both sides run the same release of FedPhantom.",
    )
