"""The statement of a promise: whole or refused, and never other than the study's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from promised import DELTA, EPSILON, promised_text
from tiny_cohorts import tiny_study

from fedphantom.common.errors import DataError
from fedphantom.common.gan.weights import generator_metadata
from fedphantom.common.sayable import BUDGET_SPENT
from fedphantom.common.study import Study, parse_study
from fedphantom.privacy.dp.plan import noised_plan
from fedphantom.privacy.dp.statement import NONE, DpStatement, Spent, asked_for, dp_statement, read_dp, said
from fedphantom.server.checkpoints import RoundRecord
from fedphantom.server.run_folder import spent_by_site

START = "a" * 64
STUDY: Study = parse_study(promised_text(START))
SPENT = {"a": Spent(5.0, 1), "b": Spent(8.0, 2)}


def statement(**changes: object) -> str:
    made = dp_statement(STUDY, {"site-a": Spent(5.0, 1), "site-b": Spent(8.0, 2)})
    assert made is not None
    return json.dumps({**made.model_dump(), **changes})


def test_a_study_without_a_promise_says_none_as_plainly() -> None:
    assert dp_statement(tiny_study(), {}) is None
    assert read_dp(NONE, tiny_study()) is None
    assert said(NONE) == "none"
    assert generator_metadata(tiny_study(), 1)["dp"] == "none"


def test_disjoint_sites_cost_what_the_dearest_costs_and_overlapping_ones_their_sum() -> None:
    overlapping = parse_study(promised_text(START, promise="sites_overlap = true"))
    one, both = dp_statement(STUDY, SPENT), dp_statement(overlapping, SPENT)
    assert one is not None and both is not None  # noqa: PT018  # for the type checker
    assert (one.epsilon, one.across_sites) == (8.0, "largest")
    assert (both.epsilon, both.across_sites) == (13.0, "sum")
    assert (one.delta, both.delta) == (DELTA, pytest.approx(len(SPENT) * DELTA))


def told(number: int, left_out: Mapping[str, str], **spent: Spent) -> RoundRecord:
    """A round in which these sites told what they have spent."""
    epsilon = {site: one.epsilon for site, one in spent.items()}
    steps = {site: one.steps for site, one in spent.items()}
    return RoundRecord(number, tuple(spent), (1.0,) * len(spent), left_out, {}, 1.0, epsilon, steps)


AT_MOST = Spent(EPSILON, noised_plan(STUDY).most_steps)
ONCE = Spent(5.0, 1)


@pytest.mark.parametrize(
    ("history", "spent"),
    [
        ([told(1, {}, a=ONCE), told(2, {"a": "no reply"})], {"a": AT_MOST}),
        ([told(1, {}, a=ONCE), told(2, {"a": "training stopped on a NaN or a collapse"})], {"a": AT_MOST}),
        ([told(1, {"a": "no reply"}), told(2, {}, a=ONCE)], {"a": ONCE}),
        ([told(1, {}, a=ONCE), told(2, {"a": BUDGET_SPENT})], {"a": ONCE}),
        ([told(1, {}, a=ONCE), told(2, {"a": "no reply"}), told(3, {"a": BUDGET_SPENT})], {"a": AT_MOST}),
        ([told(1, {"a": BUDGET_SPENT}), told(2, {"a": BUDGET_SPENT})], {}),
        ([told(1, {}, a=ONCE), replace(told(2, {}), given_up="its sum was not opened")], {"a": AT_MOST}),
        ([told(1, {}, a=ONCE), replace(told(2, {}, a=AT_MOST), given_up="its sum was not opened")], {"a": AT_MOST}),
    ],
    ids=[
        "silent at last", "failed at last", "silent once, heard since", "nothing left to reserve",
        "silent, then refused", "took no part", "given up untold", "given up and told",
    ],
)  # fmt: skip
def test_of_a_site_whose_last_word_is_missing_the_promise_is_stated_whole(
    history: list[RoundRecord], spent: dict[str, Spent]
) -> None:
    assert spent_by_site(STUDY, ["a"], history) == spent
    both = spent_by_site(
        STUDY, ["a", "b"], [replace(one, left_out={**one.left_out, "b": BUDGET_SPENT}) for one in history]
    )
    assert both == spent
    if spent:
        stated = dp_statement(STUDY, spent)
        assert stated is not None
        assert (stated.epsilon, stated.steps) == (spent["a"].epsilon, spent["a"].steps)


def test_where_nothing_is_promised_nobody_has_spent_anything() -> None:
    assert spent_by_site(tiny_study(), ["a"], [told(1, {"a": "no reply"})]) == {}


def test_what_is_read_again_is_what_was_written() -> None:
    read = read_dp(statement(), STUDY)
    assert read == dp_statement(STUDY, {"site-a": Spent(5.0, 1), "site-b": Spent(8.0, 2)})
    assert DpStatement.model_validate_json(read.encode()) == read  # type: ignore[union-attr]  # it is one


def test_its_sentence_holds_every_field_that_an_epsilon_means_nothing_without() -> None:
    promised = asked_for(STUDY)
    assert promised is not None
    text = promised.sentence()
    for part in (
        f"ε = {EPSILON:g} at",
        f"δ = {DELTA:g}",
        "unit: patient",
        "add/remove",
        "Poisson, q = 1",
        "σ = ",
        "pld",
    ):
        assert part in text
    assert "2 noised steps of the mean intensities" in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ε = 3",
        "{}",
        statement(epsilon=-1.0),
        statement(unit="scan"),
        statement(accountant="gdp"),
        statement(sampling="shuffled"),
        statement(more=1),
        json.dumps({k: v for k, v in json.loads(statement()).items() if k != "delta"}),
    ],
)
def test_anything_but_a_whole_statement_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="neither 'none' nor a whole statement"):
        read_dp(text, STUDY)


@pytest.mark.parametrize(
    "changes",
    [
        {"delta": 0.001},
        {"epsilon": 0.01},
        {"epsilon": 4.9, "steps": 1},
        {"noise_multiplier": 1e9},
        {"noised": "all"},
        {"steps": 3},
        {"epsilon": 8.5},
        {"clip_norm": 2.0},
        {"sampling_rate": 0.5},
        {"across_sites": "sum"},
    ],
)
def test_a_statement_that_is_not_the_studys_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(DataError, match="not the one of the study"):
        read_dp(statement(**changes), STUDY)


def test_a_promise_where_the_study_makes_none_is_refused_and_the_other_way_round() -> None:
    for text, study in ((statement(), tiny_study()), (NONE, STUDY)):
        with pytest.raises(DataError, match="contradicts the study"):
            read_dp(text, study)
    with pytest.raises(ValueError, match="promises nothing else"):
        generator_metadata(STUDY, 1)
    with pytest.raises(ValueError, match="promises nothing else"):
        generator_metadata(tiny_study(), 1, statement())


def test_a_sigma_that_another_machine_found_to_other_last_digits_is_the_studys() -> None:
    sigma = json.loads(statement())["noise_multiplier"]
    assert read_dp(statement(noise_multiplier=sigma * 1.001), STUDY) is not None
    with pytest.raises(DataError, match="not the one of the study"):
        read_dp(statement(noise_multiplier=sigma * 1.01), STUDY)
