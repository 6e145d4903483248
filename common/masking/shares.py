"""Secrets of 32 bytes in shares, any ``threshold`` of which give the secret, and fewer nothing.

Shamir's scheme over GF(2^128) as pycryptodome has it (a part that Flower brings), in two halves of 16 bytes.
Source: Shamir 1979, doi 10.1145/359168.359176.
"""

from __future__ import annotations

from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir

SIZE = 32
"""Bytes of a secret, and of each of its shares."""
_HALF = 16


def split(secret: bytes, threshold: int, count: int) -> tuple[bytes, ...]:
    """Shares of a secret; that of place i, counted from 0, goes to the holder of place i."""
    halves = [Shamir.split(threshold, count, half, ssss=False) for half in (secret[:_HALF], secret[_HALF:])]
    return tuple(first + second for (_, first), (_, second) in zip(*halves, strict=True))


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret that these shares, by their holders' places, give: ``threshold`` of them are taken.

    Wrong shares give a wrong secret, which only its owner's public commitment shows.
    """
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares of {threshold}")
    taken = [(place + 1, shares[place]) for place in sorted(shares)[:threshold]]
    return b"".join(
        Shamir.combine([(index, share[part]) for index, share in taken], ssss=False)
        for part in (slice(None, _HALF), slice(_HALF, None))
    )
