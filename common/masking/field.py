"""Arithmetic in GF(2^128), in which secrets are shared: elements are whole numbers below 2^128, their sum is ``^``.

The field is that of pycryptodome's Shamir scheme: polynomials over GF(2) modulo x^128 + x^7 + x^2 + x + 1. What runs
here takes longer for some numbers than for others: it is for whoever knows them anyway, the coordinator opening a sum.
"""

from __future__ import annotations

_BITS = 128
_MODULUS = 1 << _BITS | 0b10000111


def product(one: int, other: int) -> int:
    """The product of two elements."""
    one, other = max(one, other), min(one, other)
    found = 0
    while other:
        lowest = other & -other
        found ^= one * lowest
        other ^= lowest
    while high := found >> _BITS:
        found ^= high << _BITS ^ high << 7 ^ high << 2 ^ high << 1 ^ high
    return found


def inverse(element: int) -> int:
    """What an element other than 0 gives 1 with, by Euclid's algorithm over GF(2)[x]."""
    if not element:
        raise ValueError("0 has no inverse")
    left, right, factor, other = element, _MODULUS, 1, 0
    while left != 1:
        shift = left.bit_length() - right.bit_length()
        if shift < 0:
            left, right, factor, other, shift = right, left, other, factor, -shift
        left ^= right << shift
        factor ^= other << shift
    return product(factor, 1)
