"""A generator in a safetensors file, and in its header the signed statement about it: what both kinds of files share.

Whoever reads one knows the network and so the size. The header is read first, within a bound that follows from the
network; then the signature is checked, then what was signed is judged, and only then is any array read. A file has one
encoding, as its statement has: what is read is written again, and must give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from ..enrolment.signed_file import AboutStudy, Kind, opened, signed
from ..errors import ConfigError, DataError, VerificationFailed
from ..exchange import Parameters
from ..gan.parameters import ParameterSpec, parameters_digest
from ..in_toto import content_within
from ..labels.chain import Sha256
from ..signing import unverified
from ..tensor_file import decode, encode, read_header

_ENVELOPE = "envelope"
"""The one fact in the header."""
_MOST_ENVELOPE_BYTES = 32_768
"""With what JSON within JSON adds: some eight times what the longest statement needs."""
_MOST_BYTES_AN_ARRAY = 200
"""Of the header, for type, shape and place of one array, beside its name."""


class TensorStatement(AboutStudy):
    """What is signed of every such file.

    Attributes:
        round: 1-based.
        roster: Serial of the roster that the signer goes by.
        layout: Hash of the generator's names and shapes.
        generator: Hash of names, shapes and values (:func:`parameters_digest`), as a site's journal names them.
    """

    round: Annotated[int, Field(ge=1, lt=2**31)]
    roster: Annotated[int, Field(ge=0, lt=2**53)]
    layout: Sha256
    generator: Sha256


StatementT = TypeVar("StatementT", bound=TensorStatement)


@dataclass(frozen=True)
class SignedTensors(Generic[StatementT]):
    """A file whose signature holds and whose arrays are those that were signed.

    Attributes:
        statement: What was signed.
        generator: The arrays; whether each number is finite is for the reader to ask.
        content: The file's bytes.
    """

    statement: StatementT
    generator: Parameters
    content: bytes

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the file."""
        return hashlib.sha256(self.content).hexdigest()


def write_signed(kind: Kind[StatementT], statement: StatementT, generator: Parameters, key: Ed25519PrivateKey) -> bytes:
    """The file's content; the same statement, arrays and key give the same bytes."""
    return encode(generator, {_ENVELOPE: signed(kind, statement, key).decode()})


def read_signed(
    kind: Kind[StatementT],
    path: Path,
    spec: ParameterSpec,
    keys: Iterable[Ed25519PublicKey],
    judge: Callable[[StatementT, str], None],
) -> SignedTensors[StatementT]:
    """Read a file that somebody else wrote.

    Args:
        kind: What it must be.
        path: The file; links are not followed.
        spec: Of the generator that it must hold, by the reader's own network.
        keys: Those that may have signed it.
        judge: Called with what was signed and the id of the key that signed, before any array is read; raises where
            the file is not wanted.

    Raises:
        ConfigError: no file there, or a signed one of another kind or network.
        DataError: no such file at all, or one whose header does not fit its size.
        SignatureInvalid: a signature that does not hold, or by another key.
        VerificationFailed: signed, and changed since.
    """
    what = _words(kind)
    refuse_nothing(kind, path)
    try:
        header = read_header(path, what, _most_header_bytes(spec))
    except OSError:
        raise DataError(
            f"a {what} that cannot be read", expected="a readable file", remedy="Check whose it is, and the disk."
        ) from None
    envelope = header.facts.get(_ENVELOPE)
    if header.facts.keys() != {_ENVELOPE} or not isinstance(envelope, str):
        raise ConfigError(
            f"a file of FedPhantom's that is no {what}",
            expected=f"the file that '{kind.made_by}' writes",
            remedy="Check that it is the file that was meant.",
        )
    statement = opened(kind, envelope.encode(), keys)
    judge(statement, unverified(envelope.encode())[0])
    if statement.layout != spec.digest() or spec.shape_problem(header.shapes):
        raise ConfigError(
            f"a {what} with another network's parameters",
            expected="those of this study's generator",
            remedy="Compare 'fedphantom --version' and 'fedphantom study show' on both sides.",
        )
    content = content_within(path, spec.bytes + _most_header_bytes(spec))
    generator = _unchanged(content, statement, dict(header.facts)) if content else None
    if content is None or generator is None:
        raise VerificationFailed(
            f"a {what} that was changed after it was signed",
            expected="the very bytes that were signed",
            remedy="Have it sent again; if it arrives changed again, find out where on its way that happens.",
        )
    return SignedTensors(statement, generator, content)


def refuse_nothing(kind: Kind[StatementT], path: Path) -> None:
    """Raise ConfigError where no plain file lies."""
    if not _is_plain(path):
        raise ConfigError(
            f"no readable {_words(kind)} at the path given",
            expected=f"a plain file, as '{kind.made_by}' writes it",
            remedy="Check the path, or ask for the file again.",
        )


def _words(kind: Kind[StatementT]) -> str:
    return kind.name.replace("-", " ")


def _unchanged(content: bytes, statement: TensorStatement, facts: dict[str, object]) -> Parameters | None:
    """The arrays of a file whose header was believed; None where anything of it is not as it was signed."""
    try:
        generator, found = decode(content, "file")
    except DataError:
        return None
    same = found == facts and parameters_digest(generator) == statement.generator
    return generator if same and encode(generator, found) == content else None


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _most_header_bytes(spec: ParameterSpec) -> int:
    names = sum(len(json.dumps(name)) + _MOST_BYTES_AN_ARRAY for name, _ in spec.shapes)
    return _MOST_ENVELOPE_BYTES + names
