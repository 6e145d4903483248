"""Messages of secure aggregation: what is written is read back, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from fedphantom.common.errors import PeerError
from fedphantom.common.exchange import RoundRequest
from fedphantom.common.masking.keys import MOST_BYTES
from fedphantom.common.masking.messages import (
    InputGiven,
    InputWanted,
    KeysGiven,
    KeysWanted,
    SharesGiven,
    SharesWanted,
    SumGiven,
    SumWanted,
)
from fedphantom.common.masking.records import (
    answer_record,
    input_record,
    parse_input_given,
    parse_input_wanted,
    parse_keys_given,
    parse_keys_wanted,
    parse_shares_given,
    parse_shares_wanted,
    parse_sum_given,
    parse_sum_wanted,
    question_record,
)
from fedphantom.common.masking.sealing import SEALED_BYTES

SITE = "site-a"
HASH = "a" * 64
KEYS = (b"k" * MOST_BYTES, b"")
BOXES = {"site-b": b"b" * SEALED_BYTES, "site-c": b"c" * SEALED_BYTES}
REQUEST = RoundRequest(HASH, 3, {})
MASKED = np.arange(5, dtype=np.uint32)
NEXT = SharesGiven(SITE, 4, HASH, BOXES)

WRITTEN: dict[str, tuple[object, dict[str, Any], Callable[[Any], object]]] = {
    "keys wanted": (KeysWanted(HASH, 3), question_record(KeysWanted(HASH, 3)), parse_keys_wanted),
    "shares wanted": (SharesWanted(3, KEYS), question_record(SharesWanted(3, KEYS)), parse_shares_wanted),
    "input wanted": (
        InputWanted(REQUEST, HASH, BOXES),
        input_record(InputWanted(REQUEST, HASH, BOXES)),
        lambda record: parse_input_wanted(record, REQUEST),
    ),
    "sum wanted": (
        SumWanted(3, HASH, ("site-a", "site-b"), KEYS),
        question_record(SumWanted(3, HASH, ("site-a", "site-b"), KEYS)),
        parse_sum_wanted,
    ),
    "the last sum wanted": (
        SumWanted(3, HASH, ("site-a",)),
        question_record(SumWanted(3, HASH, ("site-a",))),
        parse_sum_wanted,
    ),
    "keys given": (KeysGiven(SITE, 3, b"k"), answer_record(KeysGiven(SITE, 3, b"k")), parse_keys_given),
    "shares given": (NEXT, answer_record(NEXT), parse_shares_given),
    "input given": (
        InputGiven(SITE, 3, HASH, MASKED, 2.0, {"steps": 4.0}, b"k"),
        answer_record(InputGiven(SITE, 3, HASH, MASKED, 2.0, {"steps": 4.0}, b"k")),
        lambda record: parse_input_given(record, {"weight": 2.0, "steps": 4.0}, MASKED),
    ),
    "sum given": (
        SumGiven(SITE, 3, HASH, {"site-a": b"s" * 32}, NEXT),
        answer_record(SumGiven(SITE, 3, HASH, {"site-a": b"s" * 32}, NEXT)),
        parse_sum_given,
    ),
    "the last sum given": (
        SumGiven(SITE, 3, HASH, {"site-a": b"s" * 32}),
        answer_record(SumGiven(SITE, 3, HASH, {"site-a": b"s" * 32})),
        parse_sum_given,
    ),
}


@pytest.mark.parametrize(("message", "record", "parse"), WRITTEN.values(), ids=WRITTEN.keys())
def test_what_is_written_is_read_back_also_as_flower_carries_it(
    message: object, record: dict[str, Any], parse: Callable[[Any], object]
) -> None:
    assert parse(record) == parse(ConfigRecord({**record})) == message


@pytest.mark.parametrize(("record", "parse"), [entry[1:] for entry in WRITTEN.values()], ids=WRITTEN.keys())
def test_without_a_key_or_with_another_kind_of_value_it_is_refused(
    record: dict[str, Any], parse: Callable[[Any], object]
) -> None:
    required = [name for name in record if name != "next-session"]
    for name in required:
        if name.startswith("boxes") and "next-session" not in record and "shares-of" in record:
            continue
        for value in (None, 1.5, [1], {"a": 1}, True):
            with pytest.raises(PeerError):
                parse({**record, name: value})
        with pytest.raises(PeerError):
            parse({key: kept for key, kept in record.items() if key != name})


TOO_MUCH: dict[str, tuple[dict[str, Any], Callable[[Any], object]]] = {
    "keys that are too long": ({"round": 1, "keys": [b"k" * (MOST_BYTES + 1)]}, parse_shares_wanted),
    "too many keys": ({"round": 1, "keys": [b"k"] * 1001}, parse_shares_wanted),
    "round nought": ({"round": 0, "keys": []}, parse_shares_wanted),
    "a round beyond all": ({"round": 2**31, "keys": []}, parse_shares_wanted),
    "a site twice": ({"round": 1, "session": HASH, "alive": ["a", "a"], "keys": []}, parse_sum_wanted),
    "a name that is none": ({"round": 1, "session": HASH, "alive": ["../a"], "keys": []}, parse_sum_wanted),
    "a long session": ({"round": 1, "session": HASH + "a", "alive": [], "keys": []}, parse_sum_wanted),
    "boxes without names": (
        {"site": SITE, "round": 1, "session": HASH, "boxes-of": [], "boxes": [b"b" * SEALED_BYTES]},
        parse_shares_given,
    ),
    "a short box": (
        {"site": SITE, "round": 1, "session": HASH, "boxes-of": ["b"], "boxes": [b"b"]},
        parse_shares_given,
    ),
    "another's name": ({"site": "a/b", "round": 1, "keys": b""}, parse_keys_given),
}


@pytest.mark.parametrize(("record", "parse"), TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_what_is_out_of_bounds_is_refused(record: dict[str, Any], parse: Callable[[Any], object]) -> None:
    with pytest.raises(PeerError):
        parse(record)


def test_more_metrics_than_there_are_figures_are_refused() -> None:
    record = answer_record(InputGiven(SITE, 3, HASH, MASKED, 2.0, {}, b""))
    with pytest.raises(PeerError):
        parse_input_given(record, {f"metric {n}": 1.0 for n in range(20)}, MASKED)


PARTS = st.one_of(st.text(max_size=8), st.binary(max_size=100), st.sampled_from(["site-a", "b" * 33, "../a"]))
VALUES = st.one_of(st.integers(-5, 2**40), st.text(max_size=70), st.binary(max_size=120), st.lists(PARTS, max_size=4))
NAMES = sorted({name for _, record, _ in WRITTEN.values() for name in record})


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES), st.sampled_from(sorted(WRITTEN)))
def test_whatever_comes_is_read_or_refused_and_nothing_else_happens(record: dict[str, Any], kind: str) -> None:
    whole, parse = WRITTEN[kind][1:]
    for content in (record, {**whole, **record}):
        try:
            parse(content)
        except PeerError:
            continue
