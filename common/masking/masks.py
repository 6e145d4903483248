"""Masks over whole numbers modulo 2^32: one that a site has alone, and one with each other site that cancels out.

Of each pair the site whose name comes first adds the mask that both can make, the other takes it away. What is left of
a sum over all sites is the sum of their inputs and of their own masks. Source: Bonawitz et al. 2017.

Shared masks depend on the generator that the round began with: a coordinator that gives one site another generator than
the rest, so that the rest's updates are nothing or known, gets a sum whose masks do not cancel out. Source of that
attack: Pasquini et al. 2022, doi 10.1145/3548606.3560557.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .fixed_point import Ring
from .keys import KeySet, derived_key

_BLOCK = 1 << 20
"""Values masked at once."""


def add_own_mask(values: Ring, seed: bytes, keys: KeySet, site: str, *, times: int = 1) -> None:
    """Add the mask that a site's seed makes, in place; ``times`` -1 takes it away."""
    info = f"fedphantom own mask of {site}".encode()
    _add(values, HKDF(SHA256(), 32, salt=bytes.fromhex(keys.session), info=info).derive(seed), times)


def add_shared_mask(
    values: Ring, own: X25519PrivateKey, keys: KeySet, site: str, other: str, start: str, *, times: int = 1
) -> None:
    """Add the mask that a site shares with another, in place; ``times`` -1 takes it away.

    Args:
        values: The site's.
        own: The site's private mask key.
        keys: Of the round.
        site: Whose ``values`` are.
        other: The other.
        start: Digest of the generator that the round began with.
        times: 1 or -1.
    """
    first, second = sorted((site, other))
    key = derived_key(own, keys.of(other).mask, keys.session, f"mask of {first} and {second} from {start}")
    _add(values, key, times if site == first else -times)


def _add(values: Ring, key: bytes, times: int) -> None:
    # Each key makes one stream, so the nonce may stand still.
    stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
    zeros = bytes(4 * min(_BLOCK, len(values)))
    for first in range(0, len(values), _BLOCK):
        part = values[first : first + _BLOCK]
        block = np.frombuffer(stream.update(zeros[: 4 * len(part)]), "<u4")
        if times > 0:
            part += block
        else:
            part -= block
