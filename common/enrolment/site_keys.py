"""A site's two public keys: one that its node signs in with, one that the site signs with; their text and proofs.

The node key is what Flower's SuperNode authentication wants, ECDSA on P-384 in OpenSSH's form. The identity key is
Ed25519: with it the site signs what other sites are to believe is from it.
"""

from __future__ import annotations

import contextlib
from typing import Annotated

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)
from pydantic import AfterValidator, Field

from ..exchange import SITE_NAME
from ..in_toto import Record
from ..keys import public_key_of
from .fingerprint import fingerprint


def new_node_key() -> EllipticCurvePrivateKey:
    """A fresh node key."""
    return generate_private_key(SECP384R1())


def private_node_text(key: EllipticCurvePrivateKey) -> bytes:
    """A node's private key as OpenSSH writes it, without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def public_node_text(key: EllipticCurvePublicKey) -> str:
    """A node's public key as OpenSSH writes it on one line, without a comment."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def private_node_key_of(text: bytes) -> EllipticCurvePrivateKey:
    """The key in the text of :func:`private_node_text`. Raises ValueError for anything else."""
    with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_ssh_private_key(text, None)
        if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP384R1):
            return key
    raise ValueError("no private ECDSA key on P-384 in OpenSSH's form")


def node_key_of(text: str) -> EllipticCurvePublicKey:
    """The key in the text of :func:`public_node_text`. Raises ValueError for anything else, another spelling too."""
    with contextlib.suppress(ValueError, UnsupportedAlgorithm):
        key = load_ssh_public_key(text.encode())
        if (
            isinstance(key, EllipticCurvePublicKey)
            and isinstance(key.curve, SECP384R1)
            and public_node_text(key) == text
        ):
            return key
    raise ValueError("no public ECDSA key on P-384 on one line in OpenSSH's form")


def prove_node(message: bytes, key: EllipticCurvePrivateKey) -> str:
    """A node key's signature over a message, as hexadecimal digits."""
    return key.sign(message, ECDSA(SHA256())).hex()


def node_proved(message: bytes, proof: str, node_key: str) -> bool:
    """Whether it is such a signature."""
    with contextlib.suppress(InvalidSignature, ValueError):
        node_key_of(node_key).verify(bytes.fromhex(proof), message, ECDSA(SHA256()))
        return True
    return False


def identity_proved(message: bytes, proof: str, key: Ed25519PublicKey) -> bool:
    """Whether a proof, as hexadecimal digits, is the identity key's signature over the message."""
    with contextlib.suppress(InvalidSignature, ValueError):
        key.verify(bytes.fromhex(proof), message)
        return True
    return False


def _node_key(text: str) -> str:
    node_key_of(text)
    return text


def identity_pem(key: Ed25519PublicKey) -> str:
    """An identity key's text."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _identity_key(text: str) -> str:
    if identity_pem(public_key_of(text.encode())) != text:
        raise ValueError("another spelling of an Ed25519 public key")
    return text


SiteName = Annotated[str, Field(pattern=f"^{SITE_NAME}$")]
NodeKey = Annotated[str, AfterValidator(_node_key)]
"""Public; OpenSSH's text on one line."""
IdentityKey = Annotated[str, AfterValidator(_identity_key)]
"""Public; PEM."""


class SiteKeys(Record):
    """A site's public name and both public keys."""

    name: SiteName
    node_key: NodeKey
    identity_key: IdentityKey

    def fingerprint(self) -> str:
        """Of name and both keys."""
        return fingerprint("site keys", self.name.encode(), self.node_key.encode(), self.identity_key.encode())

    def identity(self) -> Ed25519PublicKey:
        """The key that the site signs with."""
        return public_key_of(self.identity_key.encode())
