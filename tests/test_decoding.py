"""Secrets from shares of which some are wrong, and the field that they are counted in."""

from __future__ import annotations

import math
import os
import time

import pytest
from Crypto.Protocol.SecretSharing import Shamir
from hypothesis import given, settings
from hypothesis import strategies as st

from fedphantom.common.masking.decoding import corrected, value_at_zero
from fedphantom.common.masking.field import inverse, product
from fedphantom.common.masking.shares import combine, recover, split

ELEMENTS = st.integers(0, 2**128 - 1)


def value_at(coefficients: list[int], place: int) -> int:
    """By the definition of a polynomial, without the code that is tried."""
    value, power = 0, 1
    for coefficient in coefficients:
        value ^= product(coefficient, power)
        power = product(power, place)
    return value


@given(ELEMENTS, ELEMENTS, ELEMENTS)
def test_products_are_those_of_a_field(one: int, other: int, third: int) -> None:
    assert product(one, other) == product(other, one) < 2**128
    assert product(one, product(other, third)) == product(product(one, other), third)
    assert product(one, other ^ third) == product(one, other) ^ product(one, third)
    assert product(one, 1) == one
    if one:
        assert product(one, inverse(one)) == 1


def test_nothing_divides_by_nought() -> None:
    with pytest.raises(ValueError, match="no inverse"):
        inverse(0)


@given(st.lists(ELEMENTS, min_size=1, max_size=6))
def test_the_field_is_that_of_pycryptodomes_shares(coefficients: list[int]) -> None:
    values = {place: value_at(coefficients, place) for place in range(1, len(coefficients) + 1)}
    pairs = [(place, value.to_bytes(16)) for place, value in values.items()]
    assert Shamir.combine(pairs, ssss=False) == coefficients[0].to_bytes(16) == value_at_zero(values).to_bytes(16)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_half_of_the_values_that_are_not_needed_may_be_wrong_whichever_they_are(data: st.DataObject) -> None:
    coefficients = data.draw(st.lists(ELEMENTS, min_size=1, max_size=9))
    places = data.draw(st.sets(st.integers(1, 1000), min_size=len(coefficients), max_size=20))
    values = {place: value_at(coefficients, place) for place in places}
    most = (len(places) - len(coefficients)) // 2
    for place in data.draw(st.sets(st.sampled_from(sorted(places)), max_size=most)) if most else ():
        values[place] = data.draw(ELEMENTS)
    found = corrected(values, len(coefficients))
    assert found is not None
    assert found + [0] * (len(coefficients) - len(found)) == coefficients


@given(st.lists(ELEMENTS, min_size=1, max_size=6), st.integers(1, 2**128 - 1))
def test_one_value_more_than_needed_shows_that_one_is_wrong_and_not_which(coefficients: list[int], by: int) -> None:
    values = {place: value_at(coefficients, place) for place in range(1, len(coefficients) + 2)}
    assert corrected(values, len(coefficients)) is not None
    assert corrected(values | {1: values[1] ^ by}, len(coefficients)) is None


@given(st.lists(ELEMENTS, min_size=1, max_size=9), st.integers(1, 8))
def test_what_is_found_fits_all_values_but_half_of_those_not_needed(values: list[int], coefficients: int) -> None:
    """Whatever the values are: random ones, mostly of no such polynomial."""
    given_values = dict(enumerate(values, start=1))
    found = corrected(given_values, min(coefficients, len(values)))
    if found is not None:
        unlike = sum(value_at(found, place) != value for place, value in given_values.items())
        assert len(found) <= coefficients
        assert unlike <= (len(values) - min(coefficients, len(values))) // 2


@settings(deadline=None, max_examples=30)
@given(st.binary(min_size=32, max_size=32), st.integers(3, 20), st.data())
def test_liars_up_to_half_of_those_not_needed_lose_no_secret(secret: bytes, count: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(count // 2 + 1, count))
    answered = data.draw(st.sets(st.integers(0, count - 1), min_size=threshold))
    shares = {place: share for place, share in enumerate(split(secret, threshold, count)) if place in answered}
    most = (len(answered) - threshold) // 2
    for liar in data.draw(st.sets(st.sampled_from(sorted(answered)), max_size=most)) if most else ():
        shares[liar] = data.draw(st.binary(min_size=32, max_size=32))
    assert recover(shares, threshold, secret.__eq__) == secret


@pytest.mark.parametrize(("count", "threshold"), [(4, 3), (5, 4), (7, 5), (10, 7)])
def test_among_few_sites_as_many_may_lie_as_are_not_needed(count: int, threshold: int) -> None:
    secret = os.urandom(32)
    shares = dict(enumerate(split(secret, threshold, count)))
    for liar in range(count - threshold):  # the first by name: sets are tried in that order
        shares[liar] = os.urandom(32)
    assert recover(shares, threshold, secret.__eq__) == secret
    shares[count - 1] = os.urandom(32)
    assert recover(shares, threshold, secret.__eq__) is None


@pytest.mark.parametrize(("count", "threshold"), [(15, 10), (20, 14), (20, 11)])
def test_liars_first_by_name_cost_many_sites_no_time_that_anybody_notices(count: int, threshold: int) -> None:
    """Twenty sites' secrets in less than five seconds; by trying sets of shares it took longer than a round."""
    liars, started = (count - threshold) // 2, time.process_time()
    for _ in range(count):
        secret = os.urandom(32)
        shares = dict(enumerate(split(secret, threshold, count))) | {liar: bytes(32) for liar in range(liars)}
        assert recover(shares, threshold, secret.__eq__) == secret
    assert time.process_time() - started < 5.0


def test_where_too_many_lie_that_is_found_out_before_long() -> None:
    """Of 20 sites so many sets could be tried that no round would end."""
    assert math.comb(20, 14) > 30_000
    secret, started = os.urandom(32), time.process_time()
    shares = dict(enumerate(split(secret, 14, 20))) | {liar: bytes(32) for liar in range(6)}
    assert recover(shares, 14, secret.__eq__) is None
    assert time.process_time() - started < 1.0


def test_one_half_of_a_share_that_is_wrong_is_a_wrong_share() -> None:
    secret = os.urandom(32)
    shares = dict(enumerate(split(secret, 4, 6)))
    shares[0] = shares[0][:16] + bytes(16)
    assert combine(shares, 4) != secret
    assert recover(shares, 4, secret.__eq__) == secret
