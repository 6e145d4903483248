"""A site's two shares for one other site, sealed so that the coordinator who carries them reads nothing.

What is sealed is bound to the session, so that whoever opens it knows that the sender saw the very same keys of every
site: a coordinator cannot show one site an earlier round's, or another's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from ..errors import VerificationFailed
from .keys import KeySet, RoundSecrets, derived_key
from .shares import SIZE

_NONCE = 12
SEALED_BYTES = _NONCE + 2 * SIZE + 16


@dataclass(frozen=True)
class Shares:
    """One holder's shares of one site's two secrets, 32 bytes each.

    Attributes:
        mask: Of its private mask key.
        seed: Of its seed.
    """

    mask: bytes
    seed: bytes


def seal(shares: Shares, secrets: RoundSecrets, keys: KeySet, sender: str, receiver: str) -> bytes:
    """:data:`SEALED_BYTES` bytes for one other site."""
    box, nonce = _box(secrets, keys, receiver, sender, receiver), os.urandom(_NONCE)
    return nonce + box.encrypt(nonce, shares.mask + shares.seed, keys.session.encode())


def unseal(sealed: bytes, secrets: RoundSecrets, keys: KeySet, sender: str, receiver: str) -> Shares:
    """Open what another site sealed.

    Raises:
        VerificationFailed: it was not sealed by that site for this one, in this very session.
    """
    try:
        box = _box(secrets, keys, sender, sender, receiver)
        opened = box.decrypt(sealed[:_NONCE], sealed[_NONCE:], keys.session.encode())
    except (InvalidTag, ValueError):
        opened = b""
    if len(opened) != 2 * SIZE:
        raise VerificationFailed(
            f"sealed shares that '{sender}' did not make for this site with these keys",
            expected="what every other site of the round sealed, as it left that site",
            remedy="Nothing was sent. If it happens again, ask the other sites: somebody may stand between you.",
        )
    return Shares(opened[:SIZE], opened[SIZE:])


def _box(secrets: RoundSecrets, keys: KeySet, other: str, sender: str, receiver: str) -> ChaCha20Poly1305:
    purpose = f"shares from {sender} to {receiver}"
    return ChaCha20Poly1305(derived_key(secrets.cipher, keys.of(other).cipher, keys.session, purpose))
