"""Updates as whole numbers modulo 2^32: sums never overflow, and come back within half a step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedphantom.common.masking.fixed_point import FixedPoint


@st.composite
def sums(draw: st.DrawFn) -> tuple[FixedPoint, list[int], list[np.ndarray], np.ndarray]:
    """A fixed point, weights that fit, each site's generator, and what all began from."""
    bits = draw(st.integers(8, 28))
    weights = draw(st.lists(st.integers(1, 50), min_size=1, max_size=12))
    while sum(weights) >= 2 ** (31 - bits):
        weights.pop()
    weights = weights or [1]
    clip = draw(st.floats(1e-3, 1e4))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.integers(1, 40))
    start = random.normal(size=size).astype(np.float32)
    # Some far beyond the clip, some all in one value: the largest that a sum can hold.
    norms = draw(st.lists(st.floats(0, 4), min_size=len(weights), max_size=len(weights)))
    trained = []
    for norm in norms:
        update = random.normal(size=size) if draw(st.booleans()) else np.eye(1, size)[0]
        trained.append((start + update / (np.linalg.norm(update) or 1) * norm * clip).astype(np.float32))
    return FixedPoint(clip, bits), weights, trained, start


@settings(deadline=None)
@given(sums())
def test_the_sum_of_weighted_updates_is_their_weighted_mean_within_half_a_step(
    case: tuple[FixedPoint, list[int], list[np.ndarray], np.ndarray],
) -> None:
    point, weights, trained, start = case
    assert point.weight_problem(weights) is None
    total, exact = np.zeros(start.shape, np.uint32), np.zeros(start.shape)
    for weight, generator in zip(weights, trained, strict=True):
        total += point.encode(generator, start, weight)[0]
        update = generator.astype(np.float64) - start.astype(np.float64)
        exact += update * min(1.0, point.clip / (np.linalg.norm(update) or 1)) * weight
    mean = start.astype(np.float64) + exact / sum(weights)
    rounding = np.spacing(np.abs(mean).astype(np.float32)).astype(np.float64)
    got = point.decode(total, start, sum(weights)).astype(np.float64)
    assert (np.abs(got - mean) <= point.step * 0.5000001 + rounding).all()


@given(st.integers(8, 28), st.booleans())
def test_the_largest_sum_that_is_allowed_comes_back_and_one_weight_more_is_refused(bits: int, below: bool) -> None:
    point, weight = FixedPoint(1.0, bits), 2 ** (31 - bits) - 1
    start, update = np.zeros(1, np.float32), np.array([-1.0 if below else 1.0], np.float32)
    if point.weight_problem([weight]) is None:
        assert point.decode(point.encode(update, start, weight)[0], start, weight)[0] == update[0]
    assert point.weight_problem([weight, 1]) is not None
    # What the refusal is for: a sum of one weight more would come back with the other sign.
    wrapped = point.decode(point.encode(np.abs(update), start, weight + 1)[0], start, weight + 1)
    assert wrapped[0] == -1.0


def test_an_update_beyond_the_clip_keeps_its_direction_and_loses_its_length() -> None:
    point, start = FixedPoint(2.0, 20), np.zeros(3, np.float32)
    values, norm = point.encode(np.array([3.0, 0.0, 4.0], np.float32), start, 1)
    assert norm == pytest.approx(5.0)
    np.testing.assert_allclose(point.decode(values, start, 1), [1.2, 0.0, 1.6], atol=point.step)


def test_no_update_at_all_is_a_sum_of_nothing() -> None:
    start = np.ones(5, np.float32)
    values, norm = FixedPoint(1.0, 20).encode(start.copy(), start, 3)
    assert not values.any()
    assert norm == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_update_that_is_not_finite_is_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        FixedPoint(1.0, 20).encode(np.array([value], np.float32), np.zeros(1, np.float32), 1)


@pytest.mark.parametrize("weights", [[1.5], [0], [-1], [2**11]])
def test_weights_that_are_not_whole_or_too_large_are_named(weights: list[float]) -> None:
    assert FixedPoint(1.0, 20).weight_problem(weights)


def test_long_updates_are_converted_block_by_block_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    start, trained = (random.normal(size=1000).astype(np.float32) for _ in range(2))
    point = FixedPoint(10.0, 20)
    whole, norm = point.encode(trained, start, 3)
    mean = point.decode(whole, start, 3)
    monkeypatch.setattr("fedphantom.common.masking.fixed_point._BLOCK", 7)
    blocks, same = point.encode(trained, start, 3)
    assert same == pytest.approx(norm)
    # The norm's last digit may move a value on the border between two steps.
    assert np.abs((blocks - whole).view(np.int32)).max() <= 3
    np.testing.assert_array_equal(point.decode(whole, start, 3), mean)
