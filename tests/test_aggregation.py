"""Which replies count, what their mean is, and that order never matters."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedphantom.common.exchange import RoundReply, RoundRequest
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.server.aggregation import (
    ReceivedReply,
    RoundMean,
    SiteFailure,
    distance,
    mean_metrics,
    mean_of_replies,
    moving_average,
    receive_replies,
    with_momentum,
)
from fedphantom.server.reply_spool import ReplySpool

SITES = ("site-a", "site-b", "site-c")
EQUAL = dict.fromkeys(SITES, 1.0)
REQUEST = RoundRequest("d" * 64, 4, {"w": np.zeros((2, 3), np.float32), "b": np.zeros(1, np.float32)})

values = st.floats(-1e3, 1e3, width=32)
arrays = st.lists(values, min_size=6, max_size=6).map(lambda v: np.array(v, np.float32).reshape(2, 3))
weights = st.floats(1e-3, 1e6)


def reply(site: str, w: np.ndarray | float = 1.0, weight: float = 1.0, **metrics: float) -> RoundReply:
    generator = {"w": np.full((2, 3), w, np.float32), "b": np.ones(1, np.float32)}
    return RoundReply(site, 4, generator, weight, metrics)


def mean_of(replies: list[RoundReply], norm_bound: float | None = None, trimmed: int = 0) -> RoundMean:
    """Of replies as they come, from a start of zeros."""
    start = REQUEST.generator
    with tempfile.TemporaryDirectory() as folder, ReplySpool(Path(folder), ParameterSpec.of(start)) as spool:
        received = [
            ReceivedReply(r.site, r.weight, r.metrics, spool.add(r.generator), distance(start, r.generator))
            for r in replies
        ]
        return mean_of_replies(received, spool, start, norm_bound=norm_bound, trimmed=trimmed)


def weighted_mean(replies: list[RoundReply]) -> np.ndarray:
    return np.asarray(mean_of(replies).generator["w"])


def received(
    outcomes: Iterable[RoundReply | SiteFailure], weights: dict[str, float], most_epsilon: float | None = None
) -> tuple[tuple[ReceivedReply, ...], tuple[SiteFailure, ...]]:
    spec = ParameterSpec.of(REQUEST.generator)
    with tempfile.TemporaryDirectory() as folder, ReplySpool(Path(folder), spec) as spool:
        return receive_replies(outcomes, REQUEST, weights, spool, most_epsilon)


@given(st.lists(st.tuples(arrays, weights), min_size=3, max_size=3), st.permutations(range(3)))
def test_the_mean_is_the_same_to_the_bit_in_whatever_order_replies_arrive(
    drawn: list[tuple[np.ndarray, float]], order: list[int]
) -> None:
    replies = [reply(site, w, weight) for site, (w, weight) in zip(SITES, drawn, strict=True)]
    assert weighted_mean(replies).tobytes() == weighted_mean([replies[i] for i in order]).tobytes()


@given(arrays, st.lists(weights, min_size=3, max_size=3))
def test_the_mean_of_equal_replies_is_that_reply(w: np.ndarray, drawn: list[float]) -> None:
    mean = weighted_mean([reply(site, w, weight) for site, weight in zip(SITES, drawn, strict=True)])
    np.testing.assert_array_equal(mean, w)
    assert mean.dtype == np.float32


@given(arrays, arrays, weights, weights)
def test_the_mean_agrees_with_exact_arithmetic(one: np.ndarray, two: np.ndarray, v: float, w: float) -> None:
    mean = weighted_mean([reply("site-a", one, v), reply("site-b", two, w)])
    exact = [math.fsum([float(x) * v, float(y) * w]) / (v + w) for x, y in zip(one.flat, two.flat, strict=True)]
    np.testing.assert_allclose(mean.ravel().tolist(), exact, rtol=1e-6, atol=1e-9)


def test_small_contributions_are_not_lost_beside_large_ones() -> None:
    # In float32 the running sum would stick at 2**24.
    many = [reply(f"site-{i:03d}", 2.0**24 if i == 0 else 1.0) for i in range(101)]
    np.testing.assert_array_equal(weighted_mean(many), np.float32((2.0**24 + 100) / 101))


def test_metrics_are_averaged_by_weight_and_only_where_every_site_has_them() -> None:
    assert mean_metrics([reply("site-a", weight=1, x=1.0, y=9.0), reply("site-b", weight=3, x=5.0)]) == {"x": 4.0}


def test_the_first_aggregate_is_its_own_average() -> None:
    first = {"w": np.array([1.0, 2.0], np.float32)}
    average = moving_average(None, first, 0.9)
    np.testing.assert_array_equal(average["w"], first["w"])
    assert average["w"] is not first["w"]


def test_the_average_keeps_decay_of_what_it_was() -> None:
    average = moving_average({"w": np.array([1.0], np.float32)}, {"w": np.array([3.0], np.float32)}, 0.75)
    np.testing.assert_array_equal(average["w"], np.float32(1.5))


@given(arrays, arrays, st.floats(0, 0.999))
def test_the_average_lies_between_its_parts(old: np.ndarray, new: np.ndarray, decay: float) -> None:
    average = moving_average({"w": old}, {"w": new}, decay)["w"]
    slack = 1e-4
    assert (average >= np.minimum(old, new) - slack).all()
    assert (average <= np.maximum(old, new) + slack).all()


@given(arrays, arrays)
def test_without_decay_the_average_is_the_aggregate(old: np.ndarray, new: np.ndarray) -> None:
    np.testing.assert_array_equal(moving_average({"w": old}, {"w": new}, 0.0)["w"], new)


def scalar(value: float) -> dict[str, np.ndarray]:
    return {"w": np.array([value], np.float32)}


def test_server_momentum_repeats_a_share_of_its_last_move() -> None:
    # By hand: from 10 the mean is 8, so v = 2, and 8 is next; then the mean is 7: v = .5 · 2 + (8 - 7) = 2, and 6.
    first, velocity = with_momentum(scalar(10), scalar(8), None, 0.5)
    assert (float(first["w"][0]), float(velocity["w"][0])) == (8.0, 2.0)
    second, velocity = with_momentum(first, scalar(7), velocity, 0.5)
    assert (float(second["w"][0]), float(velocity["w"][0])) == (6.0, 2.0)


@given(arrays, arrays)
def test_without_a_velocity_momentum_goes_to_the_mean_but_for_rounding(start: np.ndarray, mean: np.ndarray) -> None:
    moved, _ = with_momentum({"w": start}, {"w": mean}, None, 0.9)
    np.testing.assert_allclose(moved["w"], mean, rtol=1e-6, atol=1e-4)


BAD_REPLIES = {
    "another round": (replace(reply("site-b"), round=3), "round 4"),
    "a weight of its own": (reply("site-b", weight=17.0), "weight is not the one that the study declares"),
    "weight NaN": (reply("site-b", weight=math.nan), "weight"),
    "metric NaN": (reply("site-b", x=math.nan), "metric"),
    "value NaN": (reply("site-b", math.nan), "NaN"),
    "a huge value": (reply("site-b", 65_536.0), "beyond ±65504"),
    "a huge negative value": (reply("site-b", -1e30), "beyond ±65504"),
    "value infinite": (reply("site-b", math.inf), "NaN or infinite"),
    "parameter missing": (replace(reply("site-b"), generator={"b": np.ones(1, np.float32)}), "1 parameters missing"),
    "parameter unknown": (
        replace(reply("site-b"), generator={**reply("site-b").generator, "leak": np.ones(9, np.float32)}),
        "1 unknown",
    ),
    "another shape": (
        replace(reply("site-b"), generator={**reply("site-b").generator, "w": np.zeros((3, 2), np.float32)}),
        "shape",
    ),
    "float64": (
        replace(reply("site-b"), generator={**reply("site-b").generator, "w": np.zeros((2, 3))}),  # type: ignore[dict-item]  # on purpose
        "not float32",
    ),
}


@pytest.mark.parametrize(("bad", "says"), BAD_REPLIES.values(), ids=BAD_REPLIES.keys())
def test_a_bad_reply_is_left_out_and_the_reason_named(bad: RoundReply, says: str) -> None:
    replies, failures = received([reply("site-c"), bad, reply("site-a")], EQUAL)
    assert [r.site for r in replies] == ["site-a", "site-c"]
    assert [f.site for f in failures] == ["site-b"]
    assert says in failures[0].reason


def test_a_site_that_is_not_heard_of_is_named() -> None:
    replies, failures = received([reply("site-a"), reply("site-c")], EQUAL)
    assert len(replies) == 2
    assert failures == (SiteFailure("site-b", "no reply"),)


def test_a_site_that_answers_twice_counts_not_at_all() -> None:
    replies, failures = received(
        [reply("site-a"), reply("site-b", 5.0), reply("site-a", 7.0)], dict.fromkeys(SITES[:2], 1.0)
    )
    assert [r.site for r in replies] == ["site-b"]
    assert failures == (SiteFailure("site-a", "it answered 2 times"),)


def test_a_stranger_is_left_out_and_its_chosen_name_is_not_repeated() -> None:
    replies, failures = received([reply("site-a"), reply("<script>")], {"site-a": 1.0})
    assert [r.site for r in replies] == ["site-a"]
    assert [f.site for f in failures] == ["unknown"]


def test_under_a_promise_a_site_that_does_not_say_what_it_spent_is_left_out() -> None:
    told, silent = reply("site-a", epsilon=3.0, noised_steps=1.0), reply("site-b", epsilon=3.0)
    sites = {"site-a": 1.0, "site-b": 1.0}
    replies, failures = received([told, silent], sites, 8.0)
    assert [one.site for one in replies] == ["site-a"]
    assert failures == (SiteFailure("site-b", "it does not say what it has spent, or more than the study allows"),)


def test_what_sites_spent_is_not_averaged() -> None:
    replies = [reply(site, fake_mean=1.0, epsilon=3.0, noised_steps=2.0) for site in SITES]
    assert mean_metrics(replies) == {"fake_mean": 1.0}
