"""A polynomial over GF(2^128) from its values at some places, wrong ones among them.

Shamir's shares are a Reed-Solomon code: of m values of a polynomial with t coefficients, (m - t) / 2 may be wrong,
whichever they are. Source: Gao 2003, "A new algorithm for decoding Reed-Solomon codes",
doi 10.1007/978-1-4757-3789-9_5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .field import inverse, product

Polynomial = list[int]
"""Coefficients from the constant one on, the last not 0; empty for 0."""


def value_at_zero(values: Mapping[int, int]) -> int:
    """What the polynomial through all of these values, none of them wrong, has at 0; by Lagrange.

    Args:
        values: Place, not 0, to value; as many as the polynomial has coefficients.
    """
    found = 0
    for place, value in values.items():
        above, below = value, 1
        for other in values:
            if other != place:
                above, below = product(above, other), product(below, other ^ place)
        found ^= product(above, inverse(below))
    return found


def corrected(values: Mapping[int, int], coefficients: int) -> Polynomial | None:
    """The polynomial that all but (m - t) / 2 of m values are of; None where there is none.

    Args:
        values: Place to value, t or more.
        coefficients: t, how many the polynomial has at most.
    """
    vanishing, interpolated = [1], Polynomial()
    for place, value in values.items():
        # Newton: what is added is 0 at all places before.
        missing = product(_at(interpolated, place) ^ value, inverse(_at(vanishing, place)))
        interpolated = _sum(interpolated, [product(missing, c) for c in vanishing])
        vanishing = _sum([0, *vanishing], [product(place, c) for c in vanishing])
    before, rest, locator_before, locator = vanishing, interpolated, Polynomial(), [1]
    while 2 * (len(rest) - 1) >= len(values) + coefficients:
        quotient, remainder = _divided(before, rest)
        before, rest = rest, remainder
        locator_before, locator = locator, _sum(locator_before, _times(quotient, locator))
    found, remainder = _divided(rest, locator)
    return found if not remainder and len(found) <= coefficients else None


def _at(polynomial: Sequence[int], place: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = product(value, place) ^ coefficient
    return value


def _sum(one: Sequence[int], other: Sequence[int]) -> Polynomial:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return _trimmed([c ^ (shorter[i] if i < len(shorter) else 0) for i, c in enumerate(longer)])


def _times(one: Sequence[int], other: Sequence[int]) -> Polynomial:
    found = [0] * max(0, len(one) + len(other) - 1)
    for i, left in enumerate(one):
        for j, right in enumerate(other):
            found[i + j] ^= product(left, right)
    return _trimmed(found)


def _divided(dividend: Sequence[int], divisor: Sequence[int]) -> tuple[Polynomial, Polynomial]:
    """Quotient and remainder."""
    rest, last = list(dividend), inverse(divisor[-1])
    quotient = [0] * max(0, len(rest) - len(divisor) + 1)
    for shift in reversed(range(len(quotient))):
        factor = quotient[shift] = product(rest[shift + len(divisor) - 1], last)
        for i, coefficient in enumerate(divisor):
            rest[shift + i] ^= product(factor, coefficient)
    return _trimmed(quotient), _trimmed(rest)


def _trimmed(coefficients: Polynomial) -> Polynomial:
    while coefficients and not coefficients[-1]:
        coefficients.pop()
    return coefficients
