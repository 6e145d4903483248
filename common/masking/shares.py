"""Secrets of 32 bytes in shares, any ``threshold`` of which give the secret, and fewer nothing.

Shamir's scheme over GF(2^128) in two halves of 16 bytes, split as pycryptodome does it (a part that Flower brings).
Source: Shamir 1979, doi 10.1145/359168.359176.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import combinations

from Crypto.Protocol.SecretSharing import Shamir

from .decoding import corrected, value_at_zero

SIZE = 32
"""Bytes of a secret, and of each of its shares."""
_HALVES = (slice(0, 16), slice(16, SIZE))
_MOST_SETS = 1000
"""Sets of shares that are all tried, where more are wrong than can be corrected."""


def split(secret: bytes, threshold: int, count: int) -> tuple[bytes, ...]:
    """Shares of a secret; that of place i, counted from 0, goes to the holder of place i."""
    first, second = (Shamir.split(threshold, count, secret[half], ssss=False) for half in _HALVES)
    return tuple(one + other for (_, one), (_, other) in zip(first, second, strict=True))


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret that these shares, by their holders' places, give: ``threshold`` of them are taken.

    Wrong shares give a wrong secret, which only its owner's public commitment shows.
    """
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares of {threshold}")
    taken = sorted(shares)[:threshold]
    return b"".join(
        value_at_zero({place + 1: int.from_bytes(shares[place][half]) for place in taken}).to_bytes(16)
        for half in _HALVES
    )


def recover(shares: Mapping[int, bytes], threshold: int, fits: Callable[[bytes], bool]) -> bytes | None:
    """The secret that fits, some of the shares being wrong; None where too many are.

    Of m shares (m - threshold) / 2 may be wrong, whichever they are; up to m - threshold where there are no more than
    a thousand sets of ``threshold`` shares (of 12 sites or fewer; of 13 at a threshold of 9).

    Args:
        shares: By their holders' places, ``threshold`` or more.
        threshold: Of the secret.
        fits: Whether a secret is what its owner committed to.
    """
    secret = combine(shares, threshold)
    if fits(secret):
        return secret
    halves = [
        corrected({place + 1: int.from_bytes(share[half]) for place, share in shares.items()}, threshold)
        for half in _HALVES
    ]
    secret = b"".join((half[0] if half else 0).to_bytes(16) for half in halves)
    if None not in halves and fits(secret):
        return secret
    if math.comb(len(shares), threshold) <= _MOST_SETS:
        for chosen in combinations(sorted(shares), threshold):
            secret = combine({place: shares[place] for place in chosen}, threshold)
            if fits(secret):
                return secret
    return None
