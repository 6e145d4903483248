"""A site's request to be enrolled, or to have its keys exchanged: signed by every key that it is about.

The identity key signs the file. Inside stand the node key's signature over the same content, which shows that whoever
asks holds it, and, where keys are renewed, that of the identity key which they replace.
"""

from __future__ import annotations

from typing import Annotated, Self

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, model_validator

from ..errors import SignatureInvalid
from ..in_toto import Time
from ..labels.chain import Sha256
from .invitation import Token
from .signed_file import AboutStudy, Kind, opened_by_own_key, signed
from .site_keys import SiteKeys, identity_proved, node_proved, prove_node

_PROVED = b"fedphantom enrolment request 1\n"
"""Before what is signed, so that a proof is a signature of nothing else."""

Proof = Annotated[str, Field(pattern=r"^([0-9a-f]{2}){8,160}$")]


class RequestContent(AboutStudy):
    """What is asked for.

    Attributes:
        keys: The site's name and the keys it is to have.
        invitation: SHA-256 of the invitation's file.
        token: From it; of a renewal that of the invitation by which the site once came.
        created: By the site's clock.
        renews: Whether the keys replace those of an enrolled site.
    """

    keys: SiteKeys
    invitation: Sha256
    token: Token
    created: Time
    renews: bool

    def proved(self) -> bytes:
        """The bytes that node key and old identity key sign."""
        return _PROVED + self.model_dump_json().encode()


class EnrolmentRequest(AboutStudy):
    """The signed file.

    Attributes:
        content: What is asked for.
        node_proof: The node key's signature over it, hexadecimal.
        old_identity_proof: The replaced identity key's; for a renewal alone.
    """

    content: RequestContent
    node_proof: Proof
    old_identity_proof: Proof | None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.content.study_digest != self.study_digest:
            raise ValueError("it names two studies")
        if self.content.renews != (self.old_identity_proof is not None):
            raise ValueError("a renewal, and nothing else, is signed by the old identity key")
        return self

    def fingerprint(self) -> str:
        """Of the site's name and both keys: what the site reads out."""
        return self.content.keys.fingerprint()

    def refuse_unproved(self) -> None:
        """Find that the node key itself signed. Raises SignatureInvalid where it did not."""
        if not node_proved(self.content.proved(), self.node_proof, self.content.keys.node_key):
            raise SignatureInvalid(
                "a request whose node key did not sign it",
                expected="both keys of the site behind the same request",
                remedy="Do not enrol it: somebody put another node key in. Ask the site for its request again.",
            )

    def refuse_stranger(self, old: Ed25519PublicKey) -> None:
        """Find that the identity key to be replaced signed the renewal. Raises SignatureInvalid where it did not."""
        if not identity_proved(self.content.proved(), self.old_identity_proof or "", old):
            raise SignatureInvalid(
                "a renewal that the site's present identity key did not sign",
                expected="a request by 'fedphantom site renew' in the folder of the site that is enrolled",
                remedy="Ask the site. If it lost its keys, revoke it and invite it again.",
            )


REQUEST = Kind("request", EnrolmentRequest, "fedphantom site init")


def sign_request(
    content: RequestContent,
    node_key: EllipticCurvePrivateKey,
    identity_key: Ed25519PrivateKey,
    old_identity_key: Ed25519PrivateKey | None = None,
) -> bytes:
    """The file's content, signed by every key that it is about."""
    request = EnrolmentRequest(
        study_digest=content.study_digest,
        content=content,
        node_proof=prove_node(content.proved(), node_key),
        old_identity_proof=old_identity_key.sign(content.proved()).hex() if old_identity_key else None,
    )
    return signed(REQUEST, request, identity_key)


def open_request(content: bytes) -> EnrolmentRequest:
    """A request by whoever holds the two keys in it; whose they are, a fingerprint read aloud tells.

    Raises:
        SignatureInvalid: it was changed, a key in it did not sign, or it is no signed file.
        ConfigError: another kind of file.
    """
    request = opened_by_own_key(REQUEST, content, ("content", "keys", "identity_key"))
    request.refuse_unproved()
    return request
