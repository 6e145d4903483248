"""Signatures: Ed25519 over bytes, in DSSE envelopes (https://github.com/secure-systems-lab/dsse).

Bytes are signed and bytes come back: :func:`verify` returns the payload whose signature held, and
the caller parses those same bytes. An envelope has one encoding, so that no byte of it can change
without being noticed, not even the ones that base64 or JSON would forgive.
"""

from __future__ import annotations

import binascii
import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]  # public, but not in __all__

from .atomic import write_atomic
from .errors import ConfigError, OutputTaken, SignatureInvalid

PAYLOAD_TYPE = "application/vnd.in-toto+json"
"""Stays ASCII: some DSSE encoders count its characters instead of its bytes."""

MANIFEST = "manifest.dsse.json"
"""The signed statement of a release; a folder that holds it is never written to."""

PRIVATE_KEY_NAME = "key.pem"
PUBLIC_KEY_NAME = "key.pub.pem"


def generate_key(folder: Path) -> tuple[Path, Path]:
    """Make a key pair: ``key.pem`` (unencrypted PKCS#8, mode 0600) and ``key.pub.pem``.

    Returns:
        Paths of the private and the public key.

    Raises:
        OutputTaken: the folder holds a key already; a key is never overwritten.
        StorageError: the folder cannot be written.
    """
    private_path, public_path = folder / PRIVATE_KEY_NAME, folder / PUBLIC_KEY_NAME
    if private_path.exists() or public_path.exists():
        raise OutputTaken(
            f"'{folder.name}' holds a signing key already",
            expected="a folder without one",
            remedy="Choose another folder, or keep using that key.",
        )
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomic(private_path, pem, mode=0o600)
    write_atomic(public_path, private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private_path, public_path


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key. Raises ConfigError for anything but an unencrypted Ed25519 PEM file."""
    with contextlib.suppress(OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(path.read_bytes(), password=None)
        if isinstance(key, Ed25519PrivateKey):
            return key
    raise _no_key(path, "private")


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key. Raises ConfigError for anything but an Ed25519 PEM file."""
    with contextlib.suppress(OSError, ValueError, UnsupportedAlgorithm):
        key = load_pem_public_key(path.read_bytes())
        if isinstance(key, Ed25519PublicKey):
            return key
    raise _no_key(path, "public")


def key_id(key: Ed25519PublicKey) -> str:
    """The key's name in envelopes: securesystemslib's digest (64 hex) of type, scheme and value."""
    return str(SSlibKey.from_crypto(key).keyid)


def sign(statement: bytes, key: Ed25519PrivateKey) -> bytes:
    """Sign a statement's bytes. Returns the DSSE envelope as JSON, one encoding for one content."""
    envelope = Envelope(statement, PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key))
    return _encode(envelope)


def verify(envelope: bytes, keys: Iterable[Ed25519PublicKey]) -> bytes:
    """Check an envelope and return the very bytes that were signed.

    Args:
        envelope: As :func:`sign` returned it.
        keys: The trusted public keys; the one signature must be by one of them.

    Raises:
        SignatureInvalid: not such an envelope, not this payload type, a signature that does not
            hold, or by a key that is not trusted.
    """
    trusted = {key_id(key): SSlibKey.from_crypto(key) for key in keys}
    try:
        found = Envelope.from_dict(json.loads(envelope))
        canonical = _encode(found) == envelope
        signers = list(found.signatures)
        unsigned = any(signature.unrecognized_fields for signature in found.signatures.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise _invalid("not a DSSE envelope") from None
    if not canonical or unsigned or found.payload_type != PAYLOAD_TYPE or len(signers) != 1:
        raise _invalid("an envelope that FedPhantom did not write")
    if signers[0] not in trusted:
        raise _invalid(f"a signature by the unknown key {signers[0][:12]}…")
    try:
        found.verify([trusted[signers[0]]], threshold=1)
    except VerificationError:
        raise _invalid(f"a signature by {signers[0][:12]}… that does not hold") from None
    return bytes(found.payload)


def _encode(envelope: Envelope) -> bytes:
    return json.dumps(envelope.to_dict(), sort_keys=True, separators=(",", ":")).encode()


def _invalid(found: str) -> SignatureInvalid:
    return SignatureInvalid(
        found,
        expected="one Ed25519 signature by a key you trust, over unchanged bytes",
        remedy="Get the signer's public key from the signer, and a fresh copy of what was signed; do not use this one.",
    )


def _no_key(path: Path, kind: str) -> ConfigError:
    return ConfigError(
        f"no readable {kind} key in '{path.name}'",
        expected=f"an Ed25519 {kind} key in a PEM file" + (", without a password" if kind == "private" else ""),
        remedy=f"Give the path of {PRIVATE_KEY_NAME if kind == 'private' else PUBLIC_KEY_NAME}.",
    )
