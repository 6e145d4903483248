"""A site's reply to a round as a file, signed with the site's identity key, and naming the request that it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from ..enrolment.signed_file import Kind
from ..enrolment.site_keys import SiteName
from ..exchange import RoundReply
from ..gan.parameters import ParameterSpec, parameters_digest
from ..labels.chain import Sha256
from .request import RequestFile
from .signed_tensors import TensorStatement, read_signed, write_signed

_Number = Annotated[float, Field(allow_inf_nan=False)]


class ReplyStatement(TensorStatement):
    """What a site signs beside study, round, roster and generator.

    Attributes:
        site: Its public name.
        request: SHA-256 of the request's file.
        weight: As the study declares it.
        metrics: On fakes alone, as the site's egress rule names them.
    """

    site: SiteName
    request: Sha256
    weight: _Number
    metrics: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")], _Number], Field(max_length=32)]


REPLY = Kind("round-reply", ReplyStatement, "fedphantom site train")


@dataclass(frozen=True)
class ReplyFile:
    """A reply whose signature holds.

    Attributes:
        reply: What the site answers.
        statement: What it signed.
        digest: SHA-256 of the file.
        content: The file's bytes.
    """

    reply: RoundReply
    statement: ReplyStatement
    digest: str
    content: bytes


def write_reply(reply: RoundReply, answered: RequestFile, roster: int, key: Ed25519PrivateKey) -> bytes:
    """The file's content, signed by the site.

    Args:
        reply: As the site's egress filter let it pass.
        answered: The request.
        roster: Serial of the roster that the site goes by.
        key: The site's identity key.
    """
    statement = ReplyStatement(
        study_digest=answered.request.study_digest,
        round=reply.round,
        roster=roster,
        layout=ParameterSpec.of(reply.generator).digest(),
        generator=parameters_digest(reply.generator),
        site=reply.site,
        request=answered.digest,
        weight=float(reply.weight),
        metrics={name: float(value) for name, value in sorted(reply.metrics.items())},
    )
    return write_signed(REPLY, statement, reply.generator, key)


def read_reply(
    path: Path,
    spec: ParameterSpec,
    keys: Iterable[Ed25519PublicKey],
    judge: Callable[[ReplyStatement, str], None],
) -> ReplyFile:
    """A reply in a file; arguments and errors as :func:`read_signed`."""
    found = read_signed(REPLY, path, spec, keys, judge)
    said = found.statement
    reply = RoundReply(said.site, said.round, found.generator, said.weight, dict(said.metrics))
    return ReplyFile(reply, said, found.digest, found.content)
