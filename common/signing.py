"""Signatures: Ed25519 over bytes, in DSSE envelopes (https://github.com/secure-systems-lab/dsse).

Bytes are signed and bytes come back: :func:`verify` returns the payload whose signature held, and
the caller parses those same bytes. An envelope has one encoding, so that no byte of it can change
without being noticed, not even the ones that base64 or JSON would forgive.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]  # public, but not in __all__

from .errors import SignatureInvalid
from .keys import key_id

PAYLOAD_TYPE = "application/vnd.in-toto+json"
"""Stays ASCII: some DSSE encoders count its characters instead of its bytes."""

MANIFEST = "manifest.dsse.json"
"""The signed statement of a release; a folder that holds it is never written to."""


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
    signer, found = _opened(envelope)
    if signer not in trusted:
        raise _invalid(f"a signature by the unknown key {signer[:12]}…")
    try:
        found.verify([trusted[signer]], threshold=1)
    except VerificationError:
        raise _invalid(f"a signature by {signer[:12]}… that does not hold") from None
    return bytes(found.payload)


def unverified(envelope: bytes) -> tuple[str, bytes]:
    """Whose key an envelope names, and its payload: to choose what to verify. Raises SignatureInvalid for no envelope.

    Anybody can have written both.
    """
    signer, found = _opened(envelope)
    return signer, bytes(found.payload)


def _opened(envelope: bytes) -> tuple[str, Envelope]:
    """The one signature's key id, and the envelope, in the one encoding that it can have."""
    try:
        found = Envelope.from_dict(json.loads(envelope))
        canonical = _encode(found) == envelope
        signers = list(found.signatures)
        unsigned = any(signature.unrecognized_fields for signature in found.signatures.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise _invalid("not a DSSE envelope") from None
    if not canonical or unsigned or found.payload_type != PAYLOAD_TYPE or len(signers) != 1:
        raise _invalid("an envelope that FedPhantom did not write")
    return str(signers[0]), found


def _encode(envelope: Envelope) -> bytes:
    return json.dumps(envelope.to_dict(), sort_keys=True, separators=(",", ":")).encode()


def _invalid(found: str) -> SignatureInvalid:
    return SignatureInvalid(
        found,
        expected="one Ed25519 signature by a key you trust, over unchanged bytes",
        remedy="Get the signer's public key from the signer, and a fresh copy of what was signed; do not use this one.",
    )
