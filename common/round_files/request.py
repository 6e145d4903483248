"""A round's request as a file: what the coordinator asks every site, signed with the key that sites joined by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..enrolment.signed_file import Kind
from ..exchange import RoundRequest
from ..gan.parameters import ParameterSpec, parameters_digest
from .signed_tensors import TensorStatement, read_signed, write_signed


class RequestStatement(TensorStatement):
    """What the coordinator signs: study, round, roster, generator."""


REQUEST = Kind("round-request", RequestStatement, "fedphantom server export")


@dataclass(frozen=True)
class RequestFile:
    """A request whose signature holds.

    Attributes:
        request: What is asked.
        roster: Serial of the coordinator's roster when it was.
        digest: SHA-256 of the file; replies name it.
        content: The file's bytes.
    """

    request: RoundRequest
    roster: int
    digest: str
    content: bytes


def write_request(request: RoundRequest, roster: int, key: Ed25519PrivateKey) -> bytes:
    """The file's content, signed by the coordinator."""
    statement = RequestStatement(
        study_digest=request.study_digest,
        round=request.round,
        roster=roster,
        layout=ParameterSpec.of(request.generator).digest(),
        generator=parameters_digest(request.generator),
    )
    return write_signed(REQUEST, statement, request.generator, key)


def read_request(
    path: Path,
    spec: ParameterSpec,
    keys: Iterable[Ed25519PublicKey],
    judge: Callable[[RequestStatement], None],
) -> RequestFile:
    """A request in a file; arguments and errors as :func:`read_signed`."""
    found = read_signed(REQUEST, path, spec, keys, lambda statement, _: judge(statement))
    said = found.statement
    request = RoundRequest(said.study_digest, said.round, found.generator)
    return RequestFile(request, said.roster, found.digest, found.content)
